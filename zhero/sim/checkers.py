"""What has to hold after every step, besides what the ledger and the plans know.

Each checker is an object that is shown every step, in order, and raises `BrokenPromise`. `Invariants` asks the engine
itself; `Copy` keeps a copy of each slice by its entries, as a backup would; `Fairness` sees that jobs are claimed in
order and that nothing starves; `Leaving` watches the end; `Questions` holds lists, counts and statistics against what
is known.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Protocol

from ..config import Limits
from ..core.effects import Asker
from ..core.engine import Engine
from ..core.entries import (
    Advanced,
    Died,
    Done,
    Due,
    Entry,
    Lent,
    Put,
    Revived,
    Spread,
)
from ..core.jobs import Slice
from ..core.messages import ClusterStatus, Counted, FindJob, Leave, Left, Listed, ListJobs, Refused, Stats
from ..core.records import Record
from ..core.streams import Stream
from ..core.values import JobId, State, part_id
from ..errors import Bug
from .ledger import Ledger
from .plans import Plans
from .story import BrokenPromise, Step, text

_UNSETTLED = ("started", "give_up")
"""Inputs that tell the engine something, but make it do nothing."""
_CHECKED_COUNT = 30
"""So many live jobs are looked at per step, on average."""
_LOWER_EVERY = 16
_SLACK_COUNT = 40


class Checker(Protocol):
    """Sees every step of one node."""

    def after(self, step: Step) -> None:
        """Judge it.

        Raises:
            BrokenPromise: what it must not do.
        """
        ...


class Invariants:
    """The engine's own checks. They look at every job, so where many are live they are made less often."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._looked_count = 0

    def after(self, step: Step) -> None:
        self._looked_count += _CHECKED_COUNT
        if self._looked_count < self._engine.streams.jobs_count:
            return
        self._looked_count = 0
        try:
            self._engine.check()
        except Bug as bug:
            raise BrokenPromise(f"an invariant does not hold: {bug}") from bug


class Copy:
    """A copy of each slice, made of its entries alone, holds the same jobs and schedules.

    Where a stream begins with a slice that something is in already, since it was another's before, its copy begins with
    a snapshot of it, as a follower's does.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._copies: dict[Stream, Slice] = {}
        self._entries: list[tuple[Stream, Entry]] = []  # since the last step
        for stream in engine.streams:
            self.begin(stream)

    def begin(self, stream: Stream) -> None:
        """From now on there is this stream."""
        copy = self._copies[stream] = Slice(stream.name, stream.slice.home, 0, self._limits)
        for chunk in stream.slice.export():
            copy.epoch = max(copy.epoch, chunk.epoch)
            copy.take_in(deepcopy(chunk))
        copy.last = stream.slice.last

    def hear(self, stream: Stream, entry: Entry) -> None:
        """It is the next of that stream."""
        self._entries.append((stream, entry))

    def after(self, step: Step) -> None:
        if not self._entries:
            return
        for stream, entry in self._entries:
            self._copies[stream].apply(entry)
        for stream in dict.fromkeys(stream for stream, _ in self._entries):
            copy = self._copies[stream]
            copy.endings.clear()
            self._compare(stream.name, stream.slice, copy)
        self._entries.clear()
        mine = list(self._engine.streams)
        self._copies = {stream: copy for stream, copy in self._copies.items() if stream in mine}

    def _compare(self, name: str, kept: Slice, copy: Slice) -> None:
        for what in ("ready", "delayed", "plans", "rounds", "parts", "keyed", "bytes", "last"):
            if getattr(kept, what) != getattr(copy, what):
                raise BrokenPromise(f"{what} of slice {name} and of its copy differ")
        for ones, copies in ((kept.records, copy.records), (kept.dead, copy.dead)):
            job = _first_difference(ones, copies)
            if job is not None:
                raise BrokenPromise(
                    f"{text(ones.get(job))} of slice {name} is {text(copies.get(job))} in its copy", job
                )


_TOLD = attrgetter(*(one.name for one in fields(Record) if one.name not in ("state", "started_at_ms")))
"""What the entries tell of a job: when a run began is told to people only."""


def _first_difference(ones: dict[JobId, Record], copies: dict[JobId, Record]) -> JobId | None:
    """The first job whose records differ."""
    for job, one in ones.items():
        copy = copies.get(job)
        state = State.LENT if one.state is State.RUNNING else one.state
        if copy is None or state is not copy.state or _TOLD(one) != _TOLD(copy):
            return job
    return None if ones.keys() == copies.keys() else next(job for job in copies if job not in ones)


@dataclass(slots=True)
class _Line:
    """Ready jobs that are claimed in their order. `passed`: claims since its first job could have been claimed."""

    queue: str
    task: str
    priority: int
    jobs: dict[JobId, None] = field(default_factory=dict[JobId, None])
    passed: int = 0
    levels: int = 1
    tasks: int = 1

    @property
    def bound(self) -> int:
        """How many claims may pass it by.

        Two slices take turns, and in each the parts of one member with all others. One claim in 16 goes to the lower
        priorities, in turn, and within one the tasks take turns. Twice that, since both come and go meanwhile.
        """
        lower = _LOWER_EVERY * (self.levels - 1) if self.levels > 1 else 1
        return 2 * 4 * lower * self.tasks + _SLACK_COUNT


class Fairness:
    """First in, first out within a task and a priority; no line waits for ever; no slot is idle while a job waits."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lines: dict[tuple[str, str, int], _Line] = {}
        self._line_of: dict[JobId, _Line] = {}  # ready jobs
        self._key_of: dict[JobId, tuple[str, str, int]] = {}  # all jobs that ever were in a line
        self._again: set[JobId] = set()  # ids put more than once: the place of a cancelled one may be taken up again

    def after(self, step: Step) -> None:
        for name, entry in step.entries:
            if isinstance(entry, Put):
                for job, _ in entry.jobs:
                    self._know(job, name, entry.header.task, entry.header.priority, entry.header.scope == "all")
                    if not entry.due_at_ms:
                        self._push(job)
            elif isinstance(entry, Advanced):
                header = entry.header
                self._know(entry.job, name, header.task, header.priority, header.scope == "all")
                self._push(entry.job)
            elif isinstance(entry, Spread):
                whole = self._ledger.books.jobs[entry.job]
                for member in entry.members:
                    job = part_id(entry.job, member.node)
                    if job in self._key_of:
                        self._again.add(job)
                    self._key_of[job] = (f"{name} {member.node.hex()}", whole.task, whole.priority)
                    self._push(job)
            elif isinstance(entry, Due):
                for job in entry.jobs:
                    self._push(job)
            elif isinstance(entry, Revived):
                self._push(entry.job)
            elif isinstance(entry, Done):
                for job in entry.jobs:
                    self._drop(job)
            elif isinstance(entry, Died):
                self._drop(entry.job)
            elif isinstance(entry, Lent):
                for job in entry.jobs:
                    self._claim(job)
        self._check_idle(step)

    def _know(self, job: JobId, name: str, task: str, priority: int, spreads: bool) -> None:
        """Parts and the jobs they are parts of are in lines of their own kind, or in none."""
        if self._key_of.pop(job, None) is not None:
            self._again.add(job)
        if not spreads:
            self._key_of[job] = (name, task, priority)

    def _push(self, job: JobId) -> None:
        key = self._key_of.get(job)
        if key is not None:
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = _Line(*key)
            line.jobs[job] = None
            self._line_of[job] = line

    def _drop(self, job: JobId) -> None:
        line = self._line_of.pop(job, None)
        if line is not None:
            del line.jobs[job]

    def _claim(self, job: JobId) -> None:
        claimed = self._line_of.get(job)
        if claimed is None:
            raise BrokenPromise("a job is lent that is not ready", job)
        if (first := next(iter(claimed.jobs))) != job and job not in self._again:
            raise BrokenPromise("a job is claimed before one that came first", job, first)
        self._drop(job)
        claimed.passed = 0
        waiting = [line for line in self._lines.values() if line.jobs and line.task in self._ledger.specs]
        for line in self._lines.values():
            if not line.jobs:
                line.passed, line.levels, line.tasks = 0, 1, 1
        for line in waiting:
            if line is claimed:
                continue
            near = [other for other in (*waiting, claimed) if other.queue == line.queue]
            line.levels = max(line.levels, len({other.priority for other in near}))
            line.tasks = max(line.tasks, len({other.task for other in near if other.priority == line.priority}))
            line.passed += 1
            if line.passed > line.bound:
                first = next(iter(line.jobs))
                about = (
                    f"{line.queue}, {line.task}, {line.priority}: {line.levels} levels, {line.tasks} tasks in its own"
                )
                raise BrokenPromise(f"a job starves: {line.passed} claims passed it by ({about})", first)

    def _check_idle(self, step: Step) -> None:
        ledger = self._ledger
        if ledger.books.held_count >= ledger.capacity or step.what in _UNSETTLED or ledger.doubtful:
            return
        for line in self._lines.values():
            if line.jobs and line.task in self._ledger.specs:
                raise BrokenPromise("a slot is free, a job is ready, and nothing happens", next(iter(line.jobs)))


class Leaving:
    """A node that is told to leave does so as soon as nothing can go on, or its time is up, and says what it leaves."""

    def __init__(self, ledger: Ledger, seen: Counter[str]) -> None:
        self.left = False
        self._ledger = ledger
        self._seen = seen
        self._askers: list[Asker] = []
        self._by_ms = 0

    def after(self, step: Step) -> None:
        for asker, call in step.calls:
            if isinstance(call, Leave):
                self._askers.append(asker)
                self._by_ms = step.now_ms + call.within_ms
        answers = step.answers()
        over = bool(self._askers) and (step.now_ms >= self._by_ms or not self._can_go_on(step))
        leaves = over and step.what not in _UNSETTLED
        lost = sum(job.state is not State.SPREAD for job in self._ledger.books.live.values())
        owed = {asker: [Left(lost)] for asker in self._askers} if leaves else {}
        got = {asker: told for asker, told in answers.items() if isinstance(told[0], Left)}
        if got != owed:
            raise BrokenPromise(f"who told it to leave was answered {text(got)}, and has to be {text(owed)}")
        if leaves:
            self._askers, self.left = [], True
            self._seen["left"] += 1

    def _can_go_on(self, step: Step) -> bool:
        ledger = self._ledger
        if ledger.books.held_count:
            return True
        by_us = step.own_us - step.own_us % 1000 + (self._by_ms - step.now_ms - 1) * 1000
        waiting = [job for job in ledger.books.live.values() if job.state is State.READY and job.not_before_us < by_us]
        return ledger.capacity > 0 and any(
            job.task in ledger.specs or ledger.state_there(job.job) is State.DELAYED for job in waiting
        )


class Questions:
    """Lists have every job once, counts agree with them, statistics with what was seen."""

    def __init__(self, ledger: Ledger, plans: Plans) -> None:
        self._ledger = ledger
        self._plans = plans

    def after(self, step: Step) -> None:
        if len(step.calls) != 1:
            return  # another call of the same frame may have changed things since the question
        answers = step.answers()
        for asker, call in step.calls:
            if self._ledger.asks_all(asker):
                continue  # it is to be answered by others, too
            for answer in answers.get(asker, []):
                if isinstance(call, ListJobs) and isinstance(answer, Listed):
                    self._check_list(call, answer)
                elif isinstance(call, FindJob) and isinstance(answer, (Listed, Refused)):
                    self._check_found(call, answer)
                elif isinstance(answer, Counted):
                    self._check_count(answer)
                elif isinstance(answer, Stats):
                    self._check_stats(answer)
                elif isinstance(answer, ClusterStatus):
                    self._check_status(answer)

    def _listed(self, task: str | None = None) -> dict[JobId, None]:
        """What a list of live jobs has to have: rounds to come, and no job that its parts stand for."""
        jobs = dict.fromkeys(
            job.job
            for job in self._ledger.books.live.values()
            if job.state is not State.SPREAD and (task is None or job.task == task)
        )
        jobs.update((job, None) for name, job in self._plans.next_rounds() if task is None or name == task)
        return jobs

    def _check_list(self, call: ListJobs, answer: Listed) -> None:
        if call.dead:
            jobs = self._ledger.books.jobs
            asked = {job: None for job in self._ledger.books.dead if call.task is None or jobs[job].task == call.task}
        else:
            asked = self._listed(call.task)
        listed = [info.job for info in answer.jobs]
        count = min(len(asked), call.limit) if call.limit else len(asked)
        if len(set(listed)) != len(listed):
            raise BrokenPromise("a list has a job twice")
        if answer.total != len(asked) or len(listed) != count or not asked.keys() >= set(listed):
            missing = [job for job in asked if job not in listed]
            raise BrokenPromise(f"{len(listed)} of {answer.total} listed, there are {len(asked)}: {text(missing)}")
        for info in answer.jobs:
            known = self._ledger.books.jobs.get(info.job)
            if known is not None and (info.task, info.params) != (known.task, known.params):
                raise BrokenPromise(f"listed as {text(info)}", info.job)

    def _check_found(self, call: FindJob, answer: Listed | Refused) -> None:
        here = call.job in self._ledger.books.dead or call.job in self._ledger.books.live
        planned = call.job in (job for _, job in self._plans.next_rounds())
        found = isinstance(answer, Listed) and [info.job for info in answer.jobs] == [call.job]
        if found is not (here or planned):
            raise BrokenPromise(f"P7: asked for a job, answered by {text(answer)}", call.job)

    def _check_count(self, answer: Counted) -> None:
        count = len(self._listed())
        held = answer.queues["local"] + answer.queues["processing"]
        if sum(answer.queues.values()) != count or held != self._ledger.books.held_count:
            raise BrokenPromise(
                f"counted {answer.queues}, there are {count}, {self._ledger.books.held_count} of them lent"
            )

    def _check_stats(self, answer: Stats) -> None:
        asked = {name: self._ledger.books.counters[name] for name in answer.totals}
        if asked != answer.totals:
            raise BrokenPromise(f"statistics say {answer.totals}, seen were {asked}")

    def _check_status(self, answer: ClusterStatus) -> None:
        self._check_count(Counted(answer.queues))
        waiting = {job.task for job in self._ledger.books.live.values() if job.task not in self._ledger.specs}
        plans = {plan.task for plan in answer.plans if plan.due_in_ms is not None}
        asked = {task for task, _ in self._plans.next_rounds()}
        if answer.dead != len(self._ledger.books.dead) or not set(answer.missing) <= waiting or plans != asked:
            raise BrokenPromise(f"the status is {text(answer)}")
