"""Who owns the delayed queue: delayed jobs and the schedules of periodic tasks.

It is one more slice, and whoever is its home is the owner. Terms are numbered: whoever makes itself owner takes one
more than the highest it has heard of, and the pair (term, holder) is what entries and grants are fenced by. The owner's
standbys are its followers, the next-oldest members; when it dies the one with the best copy goes on (`takeover.py`).
Where nobody has a copy the oldest member begins anew: at once if it is alone, else after `CLAIM_MS`, in which a standby
would have said so. Two owners meet when a split heals, or clusters do: the one with the higher term stays, then the one
that joined earlier, then the lower life; the other hands its queue over.

An owner whose loop has not turned for `SUPERSEDED_MS` is superseded by its first standby whose loop does. That is no
death: it keeps what it runs, and finds out when it turns again.

State: the stream that is the delayed queue, as far as this node knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..config import Limits
from .effects import Outbox
from .facts import OwnerChanged
from .handover import Handover
from .jobs import Slice
from .messages import Owns, Took
from .replication import Copies
from .roster import Roster, Row
from .streams import Stream, Streams
from .takeover import Takeover
from .values import Life, StreamId

CLAIM_MS = 3_000
SUPERSEDED_MS = 5_000


class Ownership:
    """Finds out who the owner is, and is it.

    Args:
        moved: streams that are part of another one by now -> that one.
        on_changed: called when another member, or this one, has become the owner.
    """

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        limits: Limits,
        outbox: Outbox,
        moved: Mapping[StreamId, StreamId],
        on_changed: Callable[[int], None],
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._limits = limits
        self._outbox = outbox
        self._moved = moved
        self._on_changed = on_changed
        self._known: StreamId | None = None
        self._term_max = 0
        self._ownerless_since_ms = 0
        self._claims_at_ms: int | None = None
        self._to_open = False  # a queue has begun here, and nobody knows yet
        self.closed = False  # the node leaves
        self.waits_for_owner = False  # there was one when this node went, and it may come back

    @property
    def owner(self) -> Life | None:
        """None: nobody, as far as is known."""
        return None if self._known is None else self._known.home

    @property
    def known(self) -> StreamId | None:
        return self._known

    @property
    def is_mine(self) -> bool:
        return self._streams.delayed is not None and not self._streams.delayed.frozen

    # --- news -----------------------------------------------------------------------------------------------------

    def begin(self, term: int) -> Stream:
        """This node is the owner from now on; if it is already, it stays so. `open` once what there is has been put in.

        So a schedule that comes from another owner goes on, and none is made anew before it.
        """
        if self._streams.delayed is not None:
            return self._streams.delayed
        term = max(term, self._term_max + 1)
        kept = Slice("delayed", self._roster.mine.life, term, self._limits)
        self._to_open = True
        return self._streams.begin(Stream(kept, term))

    def open(self, now_ms: int) -> None:
        """All hear of the queue that has begun here, if one has."""
        stream = self._streams.delayed
        if self._to_open and stream is not None:
            self._learn(stream.id, now_ms)
            self.tell_all()
        self._to_open = False

    def tell_all(self) -> None:
        """Say who owns the queue: this node."""
        stream = self._streams.delayed
        if stream is not None and stream.home == self._roster.mine.life:
            for row in self._roster.others:
                self._outbox.post(row.life, Owns(stream.id))

    def on_arrived(self, row: Row) -> None:
        """A member that may not know."""
        stream = self._streams.delayed
        if stream is not None and stream.home == self._roster.mine.life:
            self._outbox.post(row.life, Owns(stream.id))

    def on_owns(self, sender: Life, message: Owns, now_ms: int) -> None:
        stream = message.stream
        if stream.home != sender or stream.name != "delayed":
            return
        if stream in self._moved:
            return  # said before it was handed over; links are not in order among one another
        self._term_max = max(self._term_max, stream.epoch)
        mine = self._streams.delayed
        if mine is not None and mine.home == self._roster.mine.life and self._outranks(mine.id, stream):
            self._outbox.post(sender, Owns(mine.id))
        elif self._known is None or self._known.home not in self._roster or not self._outranks(self._known, stream):
            self._learn(stream, now_ms)

    def on_took(self, message: Took, now_ms: int) -> None:
        """What was the queue is part of another one now."""
        if message.stream == self._known and message.into.home in self._roster:
            self._learn(message.into, now_ms)

    def _outranks(self, one: StreamId, other: StreamId) -> bool:
        return self._rank(one) < self._rank(other)

    def _rank(self, stream: StreamId) -> tuple[int, int, Life]:
        row = self._roster.get(stream.home)
        joined = row.joined if row is not None else 1 << 62
        return -stream.epoch, joined, stream.home

    def _learn(self, stream: StreamId, now_ms: int) -> None:
        self._term_max = max(self._term_max, stream.epoch)
        if stream == self._known:
            return
        self._known = stream
        row = self._roster.get(stream.home)
        if row is not None:
            self._outbox.tell(OwnerChanged(row.member, stream.epoch, row is self._roster.mine))
        self._on_changed(now_ms)

    def renew(self, now_ms: int) -> None:
        """This node's delayed stream goes on under another name."""
        stream = self._streams.delayed
        if stream is not None:
            self._learn(stream.id, now_ms)
            self.tell_all()

    def on_gone(self, life: Life, now_ms: int) -> None:
        if self._known is not None and self._known.home == life:
            self._known = None
            self._ownerless_since_ms = now_ms

    def lose(self, now_ms: int) -> None:
        """What this node owned has another home."""
        if self._known is not None and self._known.home == self._roster.mine.life:
            self._known = None
            self._ownerless_since_ms = now_ms

    # --- becoming one ---------------------------------------------------------------------------------------------

    def settle(self, takeover: Takeover, handover: Handover, copies: Copies, now_ms: int) -> None:
        """Begin a queue where there is none; hand over the own one where there is a better one."""
        mine, stream = self._roster.mine, self._streams.delayed
        self._claims_at_ms = None
        if not mine.joined:
            return
        known = self._known
        if stream is not None:
            yields = known is not None and known != stream.id and known.home in self._roster
            if yields and not stream.frozen and known is not None and known.home != mine.life:
                handover.give(stream, known.home, lambda into, at_ms: None, now_ms)
            elif known is None and not self._to_open and not stream.frozen and stream.home == mine.life:
                self.renew(now_ms)  # whoever was to have it has died meanwhile
        elif known is None:
            if self._may_claim(now_ms) and not takeover.is_open("delayed"):
                self.begin(self._term_max + 1)
                self.open(now_ms)
            elif now_ms < self._claim_at_ms() and not self.closed:
                self._claims_at_ms = self._claim_at_ms()
        elif known.home != mine.life:
            owner = self._roster.get(known.home)
            if owner is not None and owner.lagging and owner.age_ms >= SUPERSEDED_MS:
                self._supersede(known, takeover, copies, now_ms)

    def _supersede(self, known: StreamId, takeover: Takeover, copies: Copies, now_ms: int) -> None:
        copy = copies.get(known)
        if copy is None or takeover.is_open("delayed"):
            return
        able = [life for life in copy.followers if (row := self._roster.get(life)) is not None and not row.lagging]
        if able and able[0] == self._roster.mine.life:
            takeover.begin(known, now_ms)

    def _claim_at_ms(self) -> int:
        alone = not any(row.joined for row in self._roster.others)
        return 0 if alone else self._ownerless_since_ms + CLAIM_MS

    def _is_oldest(self) -> bool:
        mine = self._roster.mine
        return all((mine.joined, mine.life) < (row.joined, row.life) for row in self._roster.others if row.joined)

    def _may_claim(self, now_ms: int) -> bool:
        return not self.closed and not self.waits_for_owner and self._is_oldest() and now_ms >= self._claim_at_ms()

    def deadline_ms(self) -> int | None:
        """When it will have been without an owner for long enough."""
        return self._claims_at_ms
