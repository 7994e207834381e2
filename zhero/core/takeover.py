"""What was the home of a member that is gone gets another one: the member with the best copy.

Those that have a copy tell one another how far it reaches, and the longest takes over (of equals, the lowest life); one
that does not answer is waited for `AGREE_MS`. The winner asks everybody what they hold of the stream (`inquiry.py`),
and only then takes the jobs into a slice of its own: so nothing that runs somewhere is begun a second time, and what
the dead home itself ran is the only thing that may be repeated. A delayed slice is taken over as it is, by an owner of
the next term. Then all are told where the loans belong.

A stream that has another home already, since its old one left or was taken over by somebody else, is dropped here: who
is asked says so. A member that comes back under a new life takes up its own stream by the same steps, if nobody else
has: whoever has a copy steps back. If somebody has, it brings what it has there (`handover.py`).

State: stream -> how far this has come. Bound: one per copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .effects import Outbox
from .facts import TookOver
from .inquiry import Inquiries, Inquiry
from .loans import Loans
from .merging import adopt, merge, orphan
from .messages import AskHeld, Have, Took
from .replication import Copies
from .roster import Roster
from .streams import Stream, Streams
from .values import Finished, JobId, Life, StreamId

AGREE_MS = 500
"""A member that has a copy as well is waited for so long."""
AGAIN_MS = 2_500
"""Who was to take over has not: the others agree anew."""
REPORT = Callable[[Stream, Life, list[Finished], int], None]


@dataclass(slots=True)
class _Case:
    since_ms: int
    said: dict[Life, int] = field(default_factory=dict[Life, int])
    waits_for: Life | None = None  # the member that is to take over


class Takeover:
    """Takes over from those that are gone.

    Args:
        begin_delayed: makes this node the owner, with that term: an empty stream, or the one it has.
        on_reports: hears how runs ended, as the home of the stream.
    """

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        copies: Copies,
        loans: Loans,
        inquiries: Inquiries,
        outbox: Outbox,
        begin_delayed: Callable[[int], Stream],
        on_reports: REPORT,
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._copies = copies
        self._loans = loans
        self._inquiries = inquiries
        self._outbox = outbox
        self._begin_delayed = begin_delayed
        self._on_reports = on_reports
        self._cases: dict[StreamId, _Case] = {}
        self._lent: dict[StreamId, dict[Life, list[JobId]]] = {}  # as imported, for those that answer late
        self.closed = False  # the node leaves
        self.expected: dict[StreamId, None] = {}  # copies from a journal, whose homes may come back

    def knows(self, job: JobId) -> bool:
        """Whether a job is in a copy that is about to be taken over, here or by another."""
        return any(
            (copy := self._copies.get(stream)) is not None and job in copy.slice
            for stream in (*self._cases, *self.expected)
        )

    def is_open(self, name: str) -> bool:
        """Whether a stream of that name is about to be taken over here."""
        return any(stream.name == name for stream in (*self._cases, *self.expected))

    # --- who ------------------------------------------------------------------------------------------------------

    def on_gone(self, life: Life, now_ms: int) -> None:
        """That life is over."""
        for stream in self._copies.of(life):
            self.begin(stream, now_ms)
        for case in self._cases.values():
            case.said.pop(life, None)

    def begin(self, stream: StreamId, now_ms: int) -> None:
        """The home of that stream is gone, or does not turn any more."""
        if stream in self._cases or self.closed:
            return
        copy = self._copies.get(stream)
        if copy is None:  # no good to anybody
            self._copies.drop(stream)
            return
        self._cases[stream] = _Case(now_ms)
        for life in self._peers(stream):
            self._outbox.post(life, self._copies.have(stream))

    def _peers(self, stream: StreamId) -> list[Life]:
        copy = self._copies.get(stream)
        mine = self._roster.mine.life
        return [] if copy is None else [it for it in copy.followers if it != mine and it in self._roster]

    def on_have(self, sender: Life, message: Have, now_ms: int) -> None:
        case = self._cases.get(message.stream)
        if case is not None:
            case.said[sender] = message.number
        elif message.number:  # else it is an answer
            self._outbox.post(sender, self._copies.have(message.stream))

    def settle(self, now_ms: int) -> None:
        """Decide where all is known that can be."""
        for stream, case in list(self._cases.items()):
            if self._inquiries.is_open(stream):
                continue
            if stream not in self._copies:
                del self._cases[stream]
                continue
            if case.waits_for is not None:
                if case.waits_for in self._roster and now_ms < case.since_ms + AGAIN_MS:
                    continue
                case.said.pop(case.waits_for, None)
                case.since_ms, case.waits_for = now_ms, None
            missing = [life for life in self._peers(stream) if life not in case.said]
            if missing and now_ms < case.since_ms + AGREE_MS:
                continue
            case.said[self._roster.mine.life] = self._copies.have(stream).number
            here = {life: number for life, number in case.said.items() if life in self._roster}
            best = min(here, key=lambda life: (-here[life], life))
            if best == self._roster.mine.life:
                self._inquiries.begin(stream, self._take, self.hear_late, now_ms)
            else:
                case.waits_for = best

    # --- taking over ----------------------------------------------------------------------------------------------

    def _take(self, inquiry: Inquiry, now_ms: int) -> None:
        stream = inquiry.stream
        copy = self._copies.get(stream)
        self._cases.pop(stream, None)
        self._copies.drop(stream)
        if copy is None or inquiry.into is not None:
            return
        if stream.name == "own":
            target = self._streams.own
        else:
            target = self._begin_delayed(stream.epoch + 1)
        behind_ms = self._roster.behind_ms(stream.home)
        if behind_ms is None:
            behind_ms = copy.behind_ms
        count = 0
        lent: dict[Life, list[JobId]] = {}
        for record in copy.slice.records.values():
            if record.executor is not None:
                lent.setdefault(record.executor, []).append(record.job)
        for chunk in (*copy.slice.export(), copy.slice.export_plans()):
            count += merge(target, chunk.shifted(behind_ms), stream, now_ms)
        self.take_loans(target, inquiry, lent, now_ms)
        if count:
            self._outbox.tell(TookOver(self._roster.name_of(stream.home), count))

    def take_loans(self, target: Stream, inquiry: Inquiry, lent: dict[Life, list[JobId]], now_ms: int) -> None:
        """All is known of a stream that is part of `target` now: whose its loans are, and who has died with them."""
        stream = inquiry.stream
        took = Took(stream, target.id)
        for row in self._roster.others:
            self._outbox.post(row.life, took)
        latest: dict[JobId, int] = {}
        for loans in inquiry.loans.values():
            for it in loans:
                latest[it.run.job] = max(it.run.attempt, latest.get(it.run.job, 0))
        for life, loans in inquiry.loans.items():
            newest = [it for it in loans if it.run.attempt == latest[it.run.job]]
            adopt(target, life, newest, lent.get(life, []), stream, now_ms)
        self.orphans(target, now_ms)
        self._loans.on_took(took)
        for life, loans in inquiry.loans.items():
            reports = [it.report for it in loans if it.report is not None]
            if reports:
                self._on_reports(target, life, reports, now_ms)
        if inquiry.open:
            self._lent[stream] = lent

    def orphans(self, target: Stream, now_ms: int) -> None:
        """What came into a stream as held by somebody who is gone, or for that one alone, is held by nobody."""
        held = {executor for executor in target.slice.lent if executor not in self._roster}
        pinned = {member for parts in target.slice.parts.values() for member in parts.open.values()}
        pinned |= {record.target for record in target.slice.records.values() if record.target is not None}
        for life in sorted(held | {member for member in pinned if member not in self._roster}):
            orphan(target, life, now_ms, unseen=True)

    def hear_late(self, inquiry: Inquiry, sender: Life, now_ms: int) -> None:
        """A member was lagging or suspect, and tells what it holds when the stream has its new home."""
        target = self._streams.get(self._loans.latest(inquiry.stream))
        if target is None or target.frozen:
            return
        loans = inquiry.loans.get(sender, [])
        lent = self._lent.get(inquiry.stream, {}).get(sender, [])
        adopt(target, sender, loans, lent, inquiry.stream, now_ms)
        reports = [it.report for it in loans if it.report is not None]
        if reports:
            self._on_reports(target, sender, reports, now_ms)
        if not inquiry.open:
            self._lent.pop(inquiry.stream, None)

    # --- others take over -----------------------------------------------------------------------------------------

    def on_ask_held(self, sender: Life, message: AskHeld) -> None:
        """Somebody takes that stream over, or up again."""
        if sender.node == message.stream.home.node:
            self.drop(message.stream)
        self._loans.answer_held(sender, message.ref, message.stream)

    def drop(self, stream: StreamId) -> None:
        """It has another home."""
        self._copies.drop(stream)
        self._cases.pop(stream, None)
        self.expected.pop(stream, None)
        self._inquiries.cancel(stream)

    def be_reborn(self) -> None:
        """All links begin anew."""
        for case in self._cases.values():
            case.waits_for = None
        for stream, _ in list(self._copies):
            if stream.home in self._roster:
                self._copies.drop(stream)

    # --- time -----------------------------------------------------------------------------------------------------

    def deadline_ms(self) -> int | None:
        """When to stop waiting for others that have a copy."""
        least: int | None = None
        for stream, case in self._cases.items():
            if self._inquiries.is_open(stream):
                continue
            at_ms = case.since_ms + (AGREE_MS if case.waits_for is None else AGAIN_MS)
            if least is None or at_ms < least:
                least = at_ms
        return least
