"""Before a stream has a new home: what does everybody hold of it?

Asked of every member. A member that has answered knows that the old home is over, and holds what it holds for the new
one. Those that live are waited for until they answer or are dead; those that are suspect or whose loop does not turn
at most `LATE_MS`: what such a one says later is heard then.

State: number of the question -> who has still to answer, and what the others said. Bound: one question per stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .effects import Outbox
from .loans import Loans
from .messages import AskHeld, Held, Loaned
from .roster import Roster
from .values import Life, Standing, StreamId

LATE_MS = 1_000
GIVE_UP_MS = 10_000
"""A member that is well and does not answer for so long is one that answers late."""


@dataclass(slots=True)
class Inquiry:
    """What was found out about a stream. `into`: the stream that it is part of already."""

    stream: StreamId
    since_ms: int
    done: Callable[[Inquiry, int], None]
    late: Callable[[Inquiry, Life, int], None]
    open: dict[Life, None]
    loans: dict[Life, list[Loaned]] = field(default_factory=dict[Life, list[Loaned]])
    into: StreamId | None = None
    is_done: bool = False


class Inquiries:
    """Asks all members about a stream."""

    def __init__(self, roster: Roster, loans: Loans, outbox: Outbox) -> None:
        self._roster = roster
        self._loans = loans
        self._outbox = outbox
        self._ref = 0
        self._inquiries: dict[int, Inquiry] = {}
        self._look_at_ms: int | None = None

    def begin(
        self,
        stream: StreamId,
        done: Callable[[Inquiry, int], None],
        late: Callable[[Inquiry, Life, int], None],
        now_ms: int,
    ) -> None:
        """Ask; `done` is called once with what is known then, `late` for each member that answers after that."""
        self.cancel(stream)
        self._ref += 1
        others = {row.life: None for row in self._roster.others}
        inquiry = Inquiry(stream, now_ms, done, late, others)
        inquiry.loans[self._roster.mine.life] = self._loans.held_of(stream)
        inquiry.into = self._moved(stream)
        self._inquiries[self._ref] = inquiry
        for life in others:
            self._outbox.post(life, AskHeld(self._ref, stream))

    def _moved(self, stream: StreamId) -> StreamId | None:
        into = self._loans.latest(stream)
        return None if into == stream else into

    def cancel(self, stream: StreamId) -> None:
        """Nobody wants to know any more."""
        self._inquiries = {ref: it for ref, it in self._inquiries.items() if it.stream != stream}

    def is_open(self, stream: StreamId) -> bool:
        return any(it.stream == stream and not it.is_done for it in self._inquiries.values())

    def on_held(self, sender: Life, message: Held, now_ms: int) -> None:
        inquiry = self._inquiries.get(message.ref)
        if inquiry is None or sender not in inquiry.open:
            return
        inquiry.loans.setdefault(sender, []).extend(message.loans)
        into = message.into and self._loans.latest(message.into)
        if into is not None and into.home in self._roster:
            inquiry.into = into
        if message.more:
            return
        del inquiry.open[sender]
        if inquiry.is_done:
            inquiry.late(inquiry, sender, now_ms)

    def settle(self, now_ms: int) -> None:
        """Go on where all have answered that can."""
        self._look_at_ms = None
        for ref, inquiry in list(self._inquiries.items()):
            for life in [life for life in inquiry.open if life not in self._roster]:
                del inquiry.open[life]
                inquiry.loans.pop(life, None)  # maybe half an answer
            waited_for = [life for life in inquiry.open if self._is_waited_for(inquiry, life, now_ms)]
            if not inquiry.is_done and not waited_for:
                inquiry.is_done = True
                for life in inquiry.open:
                    inquiry.loans.pop(life, None)
                inquiry.done(inquiry, now_ms)
            if inquiry.is_done and not inquiry.open:
                self._inquiries.pop(ref, None)

    def _is_waited_for(self, inquiry: Inquiry, life: Life, now_ms: int) -> bool:
        row = self._roster.get(life)
        if row is None:
            return False
        doubtful = row.lagging or row.standing is not Standing.ALIVE
        until_ms = inquiry.since_ms + (LATE_MS if doubtful else GIVE_UP_MS)
        if now_ms >= until_ms:
            return False
        self._look_at_ms = until_ms if self._look_at_ms is None else min(self._look_at_ms, until_ms)
        return True

    def be_reborn(self) -> None:
        """All links begin anew: what was asked is not answered."""
        self._inquiries.clear()

    def deadline_ms(self) -> int | None:
        """When somebody is waited for no longer."""
        return self._look_at_ms
