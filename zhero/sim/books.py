"""What is known of every job there ever was, and who waits for what: the state behind the ledger.

A job here is as it has to be, by what its callers and its executor have seen; how it gets from one state to the next is
the same for all who cause it, and stands here. Where the engine may decide (whether a job that has ended is still
remembered), there are two questions: whether it has to be, and whether it may be.

State: id -> `Job`; ids live and dead, in their order; caller -> what it waits for. What a step has changed (`ended`,
`owed`, `displaced`, `touched`) is kept until the next one begins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace

from ..config import Limits
from ..core.effects import Asker
from ..core.engine import Engine
from ..core.memory import TOMB_MS
from ..core.messages import Answer, Did, Ended, PartEnded
from ..core.values import NO_JOB, SUCCEEDED, JobId, Life, Outcome, Scope, State, Status, part_id

CANCELLED = Outcome(Status.CANCELLED)
_SKIPPED = Outcome(Status.SKIPPED)
_COUNTER_OF = {Status.SUCCEEDED: "succeeded", Status.CANCELLED: "cancelled"}


@dataclass(slots=True)
class Job:
    """One job as it has to be.

    Attributes:
        not_before_us: true time before which it must not start.
        home: the slice that it is in, since each has its own bounds.
        number: the round that it, or the job it is a part of, is; else 0.
        state: READY: waits, for its time or for a slot; LENT: the executor holds it.
        started: the executor has said that it runs.
        open: of an "all" job, its parts that have not ended.
        parts: of an "all" job that has been spread, how the others ended.
    """

    job: JobId
    task: str
    scope: Scope
    priority: int
    params: bytes
    accepted_ms: int
    not_before_us: int
    result_ttl_ms: int
    home: str
    keyed: bool = False
    number: int = 0
    parent: JobId = NO_JOB
    state: State = State.READY
    attempt: int = 0
    tries: int = 0
    started: bool = False
    cancel_asked: bool = False
    revived: bool = False
    outcome: Outcome | None = None
    ended_ms: int = 0
    open: dict[JobId, Life] = field(default_factory=dict[JobId, Life])
    parts: dict[Life, Outcome] | None = None

    @property
    def is_live(self) -> bool:
        return self.state not in (State.DEAD, State.ABSENT)


class Books:
    """All jobs of one node."""

    def __init__(self, engine: Engine, limits: Limits, seen: Counter[str]) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.live: dict[JobId, Job] = {}  # accepted, and not ended
        self.dead: dict[JobId, None] = {}  # oldest first
        self.waiters: dict[Asker, tuple[JobId, bool]] = {}  # -> job, and whether only a cancel is asked about
        self.counters: Counter[str] = Counter()
        self.bytes = 0
        self.held_count = 0
        self.ticked_ms = 0
        self.ended: list[Job] = []
        self.owed: list[tuple[Asker, Answer]] = []
        self.displaced: list[JobId] = []
        self.touched: dict[JobId, None] = {}
        self._engine = engine
        self._limits = limits
        self._seen = seen
        self._ends_ms: dict[str, list[int]] = {}  # slice -> ends of its jobs
        self._keyed_ends_ms: dict[str, list[int]] = {}

    def begin(self) -> None:
        """A new step: nothing has changed yet."""
        self.ended, self.owed, self.displaced = [], [], []
        self.touched.clear()

    # --- what is known --------------------------------------------------------------------------------------------

    def is_here(self, job: JobId) -> bool:
        """Whether it is live or a dead letter."""
        known = self.jobs.get(job)
        return known is not None and known.state is not State.ABSENT

    def must_be_known(self, job: JobId, now_ms: int) -> bool:
        """Whether the same id again has to be taken for this job."""
        known = self.jobs.get(job)
        return self.is_here(job) or (
            known is not None and (self.result_is_kept(known, now_ms) or self._id_is_kept(known, now_ms))
        )

    def may_be_known(self, job: JobId) -> bool:
        """Whether the same id again may be taken for this job: only a tick forgets."""
        known = self.jobs.get(job)
        if known is None or self.is_here(job):
            return known is not None
        age_ms = self.ticked_ms - known.ended_ms
        return age_ms < max(known.result_ttl_ms, TOMB_MS) or (known.keyed and age_ms < self._limits.id_ttl_ms)

    def result_is_kept(self, job: Job, now_ms: int) -> bool:
        """False: its time is over, or so many have ended since that one of them may have taken its place."""
        if now_ms - job.ended_ms >= job.result_ttl_ms:
            return False
        return _count_from(self._ends_ms[job.home], job.ended_ms) <= self._limits.results_max_count

    def _id_is_kept(self, job: Job, now_ms: int) -> bool:
        if not job.keyed or now_ms - job.ended_ms >= self._limits.id_ttl_ms:
            return False
        return _count_from(self._keyed_ends_ms[job.home], job.ended_ms) <= self._limits.ids_max_count

    def is_awaited(self, job: JobId) -> bool:
        """Whether somebody waits for its end."""
        return any(awaited == job for awaited, _ in self.waiters.values())

    def ended_answer(self, job: Job) -> Ended:
        """What those are told who wait for its end."""
        assert job.outcome is not None
        if job.parts is None:
            return Ended(job.job, job.outcome)
        return Ended(
            job.job,
            job.outcome,
            [PartEnded(replace(self._engine.me, life=life), part) for life, part in job.parts.items()],
        )

    # --- how it changes -------------------------------------------------------------------------------------------

    def enter(self, job: Job) -> None:
        """It is live."""
        self.jobs[job.job] = self.live[job.job] = job
        self.bytes += len(job.params)
        self.touched[job.job] = None

    def lend(self, job: Job) -> None:
        """The executor gets it."""
        job.state, job.started = State.LENT, False
        job.attempt += 1
        self.held_count += 1
        self.touched[job.job] = None

    def wait(self, job: Job, not_before_us: int, *, counted: bool) -> None:
        """Its run is over and another follows; `counted`: it used up a try."""
        job.state, job.started, job.not_before_us = State.READY, False, not_before_us
        job.tries += counted
        self.held_count -= 1
        self.touched[job.job] = None
        self.counters["retried"] += counted
        self._seen["retry" if counted else "snooze"] += 1

    def end(self, job: Job, outcome: Outcome, now_ms: int) -> None:
        """It has ended for good."""
        self._close(job, State.ABSENT, outcome, now_ms)

    def die(self, job: Job, outcome: Outcome, now_ms: int) -> None:
        """It is a dead letter from now on; where there are too many, the oldest makes room."""
        self._close(job, State.DEAD, outcome, now_ms)
        self._seen["dead"] += 1
        self.dead[job.job] = None
        near = [dead for dead in self.dead if self.jobs[dead].home == job.home]
        if len(near) > self._limits.dead_max_count:
            self.drop(near[0])
            self.displaced.append(near[0])
            self._seen["dead letter made room"] += 1

    def drop(self, job: JobId) -> None:
        """The dead letter is forgotten."""
        del self.dead[job]
        self.jobs[job].state = State.ABSENT
        self.touched[job] = None

    def revive(self, job: Job) -> None:
        """The dead letter is a job again, and no part or round any more."""
        del self.dead[job.job]
        job.state, job.tries, job.parent, job.not_before_us = State.READY, 0, NO_JOB, 0
        job.cancel_asked, job.started, job.revived = False, False, True
        self.enter(job)
        self._seen["revived"] += 1

    def spread(self, job: Job, members: list[Life], skipped: list[Life], now_ms: int) -> None:
        """An "all" job becomes one part per member."""
        job.state, job.parts = State.SPREAD, dict.fromkeys(skipped, _SKIPPED)
        self.touched[job.job] = None
        for member in members:
            part = replace(job, job=part_id(job.job, member.node), parent=job.job, not_before_us=0, keyed=False)
            part.state, part.open, part.parts = State.READY, {}, None
            self.dead.pop(part.job, None)  # of an older job with this id
            job.open[part.job] = member
            self.enter(part)
        self._end_if_whole(job, now_ms)

    def rehome(self, home: Life) -> None:
        """The node goes on under another life."""
        for job in self.live.values():
            job.open = dict.fromkeys(job.open, home)

    def _end_if_whole(self, job: Job, now_ms: int) -> None:
        """An "all" job ends with its last part."""
        assert job.parts is not None
        if job.open:
            return
        ran = [part for part in job.parts.values() if part.status is not Status.SKIPPED]
        if not ran:
            outcome = _SKIPPED
        elif all(part.status is Status.CANCELLED for part in ran):
            outcome = CANCELLED
        else:
            bad = next((part for part in ran if part.status is not Status.SUCCEEDED), None)
            outcome = SUCCEEDED if bad is None else Outcome(Status.FAILED, b"", bad.failure)
        self.end(job, outcome, now_ms)

    def _close(self, job: Job, state: State, outcome: Outcome, now_ms: int) -> None:
        del self.live[job.job]
        self.bytes -= len(job.params)
        self.touched[job.job] = None
        self.held_count -= job.state is State.LENT
        job.state, job.outcome, job.ended_ms = state, outcome, now_ms
        self._ends_ms.setdefault(job.home, []).append(now_ms)
        if job.keyed:
            self._keyed_ends_ms.setdefault(job.home, []).append(now_ms)
        if job.parts is None:  # of an "all" job its parts are counted
            self.counters[_COUNTER_OF.get(outcome.status, "dead")] += 1
        self.ended.append(job)
        for asker, (awaited, cancel) in list(self.waiters.items()):
            if awaited == job.job:
                del self.waiters[asker]
                told = Did(outcome.status is Status.CANCELLED) if cancel else self.ended_answer(job)
                self.owed.append((asker, told))
                self._seen["cancel answered late"] += cancel
        parent = self.jobs.get(job.parent)
        if parent is not None and parent.parts is not None and job.job in parent.open:
            parent.parts[parent.open.pop(job.job)] = outcome
            self._end_if_whole(parent, now_ms)


def _count_from(ends_ms: list[int], since_ms: int) -> int:
    """How many have ended since then."""
    return len(ends_ms) - bisect_left(ends_ms, since_ms)
