"""What this node runs: its own jobs and those that other homes have lent it.

A loan is this life's until its run has ended; no timer takes it away. How a run ended is told to its home and kept here
until that says, with its backups, that it knows. When a stream gets another home, its loans go with it.

Room is shared out among homes so that no one's flood shuts out another's single job. As long as nobody had to be turned
away each home may lend as much as there are slots. A home that has ready jobs and finds no room (a grant given back, or
`Waiting`) stands in line: from then on each slot that becomes free is offered to one home, in turn, this node's own
jobs among them; while jobs are short, each is offered its share of all the room there is. A home that has nothing says
`Sated`. When the line is empty, windows are open again. So an idle cluster says nothing.

State: job -> its loan; job -> how it ended, until that is settled; who stands in line. Bounds: as many loans as the
executor wants to hold, and those that wait for an earlier run of their job; `UNSETTLED_MAX_COUNT` ends of runs whose
home is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import Bug
from .effects import Outbox
from .messages import (
    Began,
    CannotStop,
    CheckLoans,
    GiveBack,
    Grant,
    Held,
    Hungry,
    Loaned,
    NotHeld,
    Recall,
    Reported,
    Sated,
    Settled,
    Took,
    Waiting,
)
from .roster import Roster
from .values import Finished, JobId, Life, Run, StreamId

UNSETTLED_MAX_COUNT = 100_000
OVER_MAX_COUNT = 10_000
HELD_PER_MESSAGE = 500


@dataclass(slots=True)
class Loan:
    """A job that is held here.

    `stream`: None: whoever lent it has given this life up; its end matters to nobody. `begun_as`: the attempt as which
    it was begun, where a home has lent the run that goes on here once more; 0: as `run` says.
    """

    stream: StreamId | None
    run: Run
    started: bool = False
    report: Finished | None = None
    begun_as: int = 0


class Loans:
    """The jobs that this node's executor has.

    Args:
        decides: whether this node is the home of that stream, and acts as such now.
    """

    def __init__(self, roster: Roster, outbox: Outbox, decides: Callable[[StreamId], bool]) -> None:
        self._roster = roster
        self._decides = decides
        self._outbox = outbox
        self._held: dict[JobId, Loan] = {}
        self._unsettled: dict[JobId, Loan] = {}
        self._waits: dict[JobId, Loan] = {}  # to be begun when an earlier run of the same job has ended
        self._counts: dict[Life, int] = {}  # home -> loans held
        self._line: dict[Life, None] = {}  # homes that found no room, the next one first
        self._offered: dict[Life, int] = {}  # home -> slots that it was offered, and has not said anything of yet
        self._narrow: dict[Life, None] = {}  # homes whose window is not open
        self._own_turn = True
        self.rounds: dict[str, int] = {}  # task -> highest number of a round that was ever held here
        self._own_late: list[tuple[StreamId, Finished]] = []  # ended before their stream was this node's
        self._reports: dict[StreamId, list[Finished]] = {}
        self._begun: dict[StreamId, list[JobId]] = {}
        self.moved: dict[StreamId, StreamId] = {}  # streams that have another home now; bound: OVER_MAX_COUNT
        self._over: dict[StreamId, None] = {}  # nothing that their old home still says counts; the same bound
        self.closed = False  # nothing new is taken: the node leaves

    # --- room -----------------------------------------------------------------------------------------------------

    @property
    def held_count(self) -> int:
        return len(self._held) + len(self._waits)

    @property
    def own_room(self) -> int:
        """How many jobs of this node's own may begin now."""
        if self.closed:
            return 0
        offered = sum(self._offered.values()) if self._offered else 0
        return self._roster.mine.capacity - self.held_count - offered

    @property
    def has_line(self) -> bool:
        """Whether any home found no room."""
        return bool(self._line)

    def _window(self, home: Life) -> int | None:
        """What to tell a home about its window, where its loans have become fewer."""
        if home in self._narrow or self._line:
            self._narrow[home] = None
            return self._counts.get(home, 0)
        mine = self._roster.mine
        return mine.capacity if mine.capacity > mine.slots and not self.closed else None

    def settle(self, own_waits: bool) -> None:
        """Offer free slots to those in line. `own_waits`: jobs of this node's own stand in it too."""
        self._say()  # first: what it says of windows holds until the offer
        room = self.own_room
        mine = self._roster.mine
        share = 1
        if mine.capacity > mine.slots and self._line:  # jobs are short: one each time would be a round trip per job
            share = max(1, room // (len(self._line) + own_waits))
        while room > 0 and self._line:
            if own_waits and self._own_turn:
                self._own_turn = False
                room -= share  # these are for own jobs
                continue
            self._own_turn = True
            home = next(iter(self._line))
            del self._line[home]
            count = min(share, room)
            self._offered[home] = count
            self._narrow[home] = None
            self._outbox.post(home, Hungry(self._counts.get(home, 0) + count))
            room -= count
        if not self._line and not self._offered and self._narrow and self.own_room > 0 and not self.closed:
            for home in self._narrow:
                self._outbox.post(home, Hungry(None))
            self._narrow.clear()

    def _say(self) -> None:
        for stream, jobs in self._begun.items():
            self._outbox.post(stream.home, Began(stream, jobs))
        self._begun = {}
        reports, self._reports = self._reports, {}
        for stream, ended in reports.items():
            size = 100 + sum(len(it.outcome.result) + 60 for it in ended)
            self._outbox.post(stream.home, Reported(stream, ended, self._window(stream.home)), size)

    # --- taking ---------------------------------------------------------------------------------------------------

    def take(self, stream: StreamId, run: Run) -> None:
        """An own job: begin it."""
        self._take(Loan(stream, run))

    def _take(self, loan: Loan) -> None:
        assert loan.stream is not None
        self._count(loan.stream.home)
        if loan.run.number:
            task = loan.run.header.task
            self.rounds[task] = max(loan.run.number, self.rounds.get(task, 0))
        if loan.run.job in self._held:
            self._waits[loan.run.job] = loan
        else:
            self._held[loan.run.job] = loan
            self._outbox.start(loan.run)

    def on_grant(self, sender: Life, message: Grant) -> None:
        """Another home lends. What there is no room for goes back."""
        stream = message.stream
        if stream.home != sender:
            return
        self._offered.pop(sender, None)
        back: list[JobId] = []
        specs = self._roster.mine.specs
        for run in message.runs:
            if stream in self.moved or stream in self._over or run.job in self._waits or run.header.task not in specs:
                back.append(run.job)
            elif not self._goes_on(stream, run):
                if self.own_room > 0:
                    self._unsettled.pop(run.job, None)
                    self._take(Loan(stream, run))
                else:
                    back.append(run.job)
        if back and stream not in self.moved:
            self._narrow[sender] = None
            self._outbox.post(sender, GiveBack(stream, back, self._counts.get(sender, 0)))
        waits = back or (message.more and (self._line or sender in self._narrow))
        if waits and not self.closed:
            self._line[sender] = None

    def _goes_on(self, stream: StreamId, run: Run) -> bool:
        """Whether what is lent runs here already, lent by a home that is over, or by this one: that run counts then."""
        loan = self._held.get(run.job)
        before = None if loan is None else loan.stream
        if loan is None or before is None:
            return False
        if before != stream and before.home.node != self._roster.mine.life.node and before.home in self._roster:
            return False
        self._uncount(loan)
        self._count(stream.home)
        loan.begun_as = loan.begun_as or loan.run.attempt
        loan.stream, loan.run = stream, run
        if loan.started:
            self._begun.setdefault(stream, []).append(run.job)
        return True

    def on_sated(self, sender: Life, message: Sated) -> None:
        self._offered.pop(sender, None)
        self._line.pop(sender, None)

    def on_waiting(self, sender: Life, message: Waiting) -> None:
        if sender not in self._offered:
            self._line[sender] = None

    # --- ends -----------------------------------------------------------------------------------------------------

    def on_started(self, jobs: Sequence[JobId]) -> list[JobId]:
        """The executor has begun these. Returns: those of this node's own slices."""
        own: list[JobId] = []
        for job in jobs:
            loan = self._held.get(job)
            if loan is None or loan.stream is None:
                continue
            loan.started = True
            if loan.stream.home.node == self._roster.mine.life.node:
                own.append(job)
            else:
                self._begun.setdefault(loan.stream, []).append(job)
        return own

    def on_finished(self, reports: Sequence[Finished]) -> tuple[list[tuple[StreamId, Finished]], list[Finished]]:
        """The executor has ended these.

        Returns:
            Those of this node's own slices; those that nobody waits for.
        """
        own: list[tuple[StreamId, Finished]] = []
        unknown: list[Finished] = []
        for report in reports:
            loan = self._held.get(report.job)
            if loan is None or (loan.begun_as or loan.run.attempt) != report.attempt:
                unknown.append(report)
                continue
            if loan.begun_as:
                report = replace(report, attempt=loan.run.attempt)
            self._end(report.job)
            if loan.stream is None:
                unknown.append(report)
            elif self._decides(loan.stream):
                own.append((loan.stream, report))
            else:
                loan.report = report
                self._unsettled[report.job] = loan
                if loan.stream.home.node != self._roster.mine.life.node:  # else it is not known yet whose that is
                    self._reports.setdefault(loan.stream, []).append(report)
        if len(self._unsettled) > UNSETTLED_MAX_COUNT:
            gone = [job for job, it in self._unsettled.items() if it.stream and it.stream.home not in self._roster]
            for job in gone:
                del self._unsettled[job]
        return own, unknown

    def _end(self, job: JobId) -> None:
        """The executor does not have it any more."""
        loan = self._held.pop(job)
        self._uncount(loan)
        waits = self._waits.pop(job, None)
        if waits is not None:
            self._held[job] = waits
            self._outbox.start(waits.run)

    def _count(self, home: Life) -> None:
        self._counts[home] = self._counts.get(home, 0) + 1

    def _uncount(self, loan: Loan) -> None:
        if loan.stream is not None:
            home = loan.stream.home
            left = self._counts[home] - 1
            if left:
                self._counts[home] = left
            else:
                del self._counts[home]

    def on_settled(self, sender: Life, message: Settled) -> None:
        for job in message.jobs:
            loan = self._unsettled.get(job)
            if loan is not None and loan.stream == message.stream:
                del self._unsettled[job]

    def on_recall(self, sender: Life, message: Recall) -> None:
        """Stop them; those that are over are told of anyway."""
        for job in message.jobs:
            waits = self._waits.get(job)
            if waits is not None and waits.stream == message.stream:
                del self._waits[job]
                self._uncount(waits)
                self._outbox.post(sender, GiveBack(message.stream, [job], self._window(sender)))
                continue
            loan = self._held.get(job)
            if loan is not None and loan.stream == message.stream:
                self._outbox.stop(job)

    def cannot_stop(self, job: JobId) -> bool:
        """The executor can't stop that one. Returns: whether it is this node's own."""
        loan = self._held.get(job)
        if loan is None or loan.stream is None:
            return False
        if loan.stream.home.node == self._roster.mine.life.node:
            return True
        self._outbox.post(loan.stream.home, CannotStop(loan.stream, job))
        return False

    def on_check(self, sender: Life, message: CheckLoans) -> None:
        """A home has not heard of these for long."""
        gone: list[JobId] = []
        for job in message.jobs:
            unsettled = self._unsettled.get(job)
            if unsettled is not None and unsettled.stream == message.stream and unsettled.report is not None:
                self._reports.setdefault(message.stream, []).append(unsettled.report)  # it was not heard
            elif not self.holds(job, message.stream):
                gone.append(job)
        if gone:
            self._outbox.post(sender, NotHeld(message.stream, gone))

    def holds(self, job: JobId, stream: StreamId) -> bool:
        """Whether that job of that stream is held, or has ended and nobody knows yet."""
        return any(
            (loan := table.get(job)) is not None and loan.stream == stream
            for table in (self._held, self._waits, self._unsettled)
        )

    def thaw(self, stream: StreamId) -> None:
        """This node decides about that stream again."""
        for job, loan in list(self._unsettled.items()):
            if loan.stream == stream and loan.report is not None:
                del self._unsettled[job]
                self._own_late.append((stream, loan.report))

    # --- other homes ----------------------------------------------------------------------------------------------

    def held_of(self, stream: StreamId) -> list[Loaned]:
        """What is held of a stream, and what has ended and is not settled."""
        told: list[Loaned] = []
        for table in (self._held, self._waits, self._unsettled):
            for loan in table.values():
                if loan.stream == stream:
                    told.append(Loaned(loan.run, loan.started, loan.report))
        return told

    def latest(self, stream: StreamId) -> StreamId:
        """What that stream is part of by now, as far as is known; itself if it has not moved."""
        seen = {stream}
        while (into := self.moved.get(stream)) is not None and into not in seen:
            seen.add(into)
            stream = into
        return stream

    def answer_held(self, to: Life, ref: int, stream: StreamId) -> None:
        """Say it to whoever takes that stream over."""
        told, into = self.held_of(stream), self.latest(stream)
        self._over[stream] = None
        if len(self._over) > OVER_MAX_COUNT:
            del self._over[next(iter(self._over))]
        for first in range(0, max(1, len(told)), HELD_PER_MESSAGE):
            part = told[first : first + HELD_PER_MESSAGE]
            size = 100 + sum(200 + len(it.run.params) for it in part)
            moved = None if into == stream else into
            self._outbox.post(to, Held(ref, part, moved, first + HELD_PER_MESSAGE < len(told)), size)

    def on_took(self, message: Took) -> None:
        """A stream has another home: so have its loans, and what is not settled is told there."""
        before, into = message.stream, message.into
        self.moved[before] = into
        if len(self.moved) > OVER_MAX_COUNT:
            del self.moved[next(iter(self.moved))]
        for table in (self._held, self._waits):
            for loan in table.values():
                if loan.stream == before:
                    self._uncount(loan)
                    loan.stream = into
                    self._count(into.home)
        self._begun.pop(before, None)
        self._reports.pop(before, None)
        mine = self._roster.mine.life
        for job, loan in list(self._unsettled.items()):
            if loan.stream == before:
                loan.stream = into
                if into.home == mine and loan.report is not None:
                    del self._unsettled[job]
                    self._own_late.append((into, loan.report))
                elif loan.report is not None:
                    self._reports.setdefault(into, []).append(loan.report)

    def take_late(self) -> list[tuple[StreamId, Finished]]:
        """Runs that had ended when their stream became this node's."""
        late, self._own_late = self._own_late, []
        return late

    def forget_home(self, home: Life) -> None:
        """It is not there any more: it needs no room. Its loans wait for whoever takes over."""
        for table in (self._line, self._offered, self._narrow):
            table.pop(home, None)

    def be_reborn(self, before: Life) -> None:
        """All others have given this life up, and what they had lent it."""
        for table in (self._held, self._waits):
            for job, loan in list(table.items()):
                if loan.stream is not None and loan.stream.home.node != before.node:
                    self._uncount(loan)
                    loan.stream = None
                    if table is self._waits:
                        del table[job]
                    else:
                        self._outbox.stop(job)
        self._unsettled = {
            job: loan
            for job, loan in self._unsettled.items()
            if loan.stream is not None and loan.stream.home.node == before.node
        }
        self._reports.clear()
        self._begun.clear()
        for line in (self._line, self._offered, self._narrow):
            line.clear()

    def give_all_back(self) -> None:
        """The node leaves: nobody lends it anything more."""
        self.closed = True
        self._line.clear()
        self._offered.clear()

    @property
    def is_busy(self) -> bool:
        """Whether anything is held, or has ended and is not settled by a home that lives."""
        return bool(self._held or self._waits) or any(
            loan.stream is not None and loan.stream.home in self._roster for loan in self._unsettled.values()
        )

    def check(self) -> None:
        """Raises:
        Bug: loans are miscounted.
        """
        counts: dict[Life, int] = {}
        for table in (self._held, self._waits):
            for loan in table.values():
                if loan.stream is not None:
                    counts[loan.stream.home] = counts.get(loan.stream.home, 0) + 1
        if counts != self._counts:
            raise Bug(f"loans {counts}, counted {self._counts}")
