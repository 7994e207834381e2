"""What became of every job: a model of the tasks system, fed with what its callers and its executor see.

From the calls and their answers, the starts and the reports the ledger works out what each job has to be, with no look
into the engine, and after each step it compares. So every answer has to be the right one (P7), a job is there from
its `Accepted` to its end and not a step longer (P1), starts once per attempt (P2), never before its time nor as
something else (P3), and a job of scope "all" runs once at each member (P5).

Time is the true one here, in microseconds, while the engine sees whole milliseconds: what it rounds the wrong way is
found.

State: id -> `Job`, for all that ever were; who waits for what. `ended`, `skips`, `round_waits`, `round_answers`: of
the last step, for the checker of schedules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..config import PRIORITY_MAX, SPAN_MAX_MS, Limits
from ..core.effects import Asker, Start, Stop, Tell
from ..core.engine import Engine
from ..core.entries import Advanced, Put, Spread
from ..core.facts import DeadLetterDropped, VerdictIgnored
from ..core.messages import (
    Accepted,
    Answer,
    AwaitResult,
    Call,
    Cancel,
    Did,
    Discard,
    Ended,
    Enqueue,
    GiveUp,
    Leave,
    Left,
    PartEnded,
    Refusal,
    Refused,
    Retry,
)
from ..core.values import (
    NO_JOB,
    NO_PARAMS,
    SUCCEEDED,
    Finished,
    JobId,
    Life,
    Outcome,
    Run,
    Scope,
    State,
    Status,
    TaskSpec,
    Verdict,
    part_id,
)
from .story import BrokenPromise, Step, job_name, text

_CANCELLED = Outcome(Status.CANCELLED)
_SKIPPED = Outcome(Status.SKIPPED)
_WRONG_CALLS = (Refusal.TOO_LARGE, Refusal.PARAMS_INVALID)
_UNSETTLED = ("started", "give_up")
"""Inputs that tell the engine something, but make it do nothing."""
_COMPARE_ALL_EVERY = 50
_STATES = {
    State.READY: (State.READY, State.DELAYED),
    State.LENT: (State.LENT, State.RUNNING),
    State.SPREAD: (State.SPREAD,),
    State.DEAD: (State.DEAD,),
    State.ABSENT: (State.ABSENT,),
}
"""State here -> states there: this side does not tell waiting for a time from waiting for a slot."""


@dataclass(slots=True)
class Job:
    """One job as it has to be. READY: waits, for its time or for a slot; LENT: is held by the executor.

    `home`: the slice that it is in, since each has its own bounds.
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


class Ledger:
    """Checks P1, P2, P3, P5 and P7 of one node."""

    def __init__(self, engine: Engine, limits: Limits, seen: Counter[str]) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.dead: dict[JobId, None] = {}
        self.specs: dict[str, TaskSpec] = {}
        self.counters: Counter[str] = Counter()
        self.live: dict[JobId, Job] = {}  # accepted, and not ended
        self.held_count = 0
        self.leaving = False
        self.left = False
        self.ended: list[Job] = []
        self.skips: list[tuple[JobId, bool]] = []
        self.round_waits: list[JobId] = []
        self.round_answers: list[tuple[JobId, Answer]] = []
        self._engine = engine
        self._me = engine.me.life
        self._limits = limits
        self._seen = seen
        self._capacity = 0
        self._bytes = 0
        self._ends_ms: dict[str, list[int]] = {}
        self._keyed_ends_ms: dict[str, list[int]] = {}
        self._steps = 0
        self._waiters: dict[Asker, tuple[JobId, bool]] = {}
        self._leavers: list[Asker] = []
        self._leave_by_ms = 0
        self._ticked_ms = 0
        self._owed: list[tuple[Asker, Answer]] = []
        self._dropped: list[JobId] = []
        self._touched: dict[JobId, None] = {}
        self._put: Counter[JobId] = Counter()
        self._put_in: dict[JobId, str] = {}
        self._calls: dict[type[Any], Callable[[Asker, Any, Answer | None, Step], None]] = {
            Enqueue: self._on_enqueue,
            Cancel: self._on_cancel,
            Retry: self._on_retry,
            Discard: self._on_discard,
            AwaitResult: self._on_await,
            Leave: self._on_leave,
        }

    def unfinished(self) -> list[Job]:
        """Live jobs that can go on: not the rounds, which never cease, and not those whose task is gone."""
        return [job for job in self.live.values() if not job.number and job.task in self.specs]

    # --- a step ---------------------------------------------------------------------------------------------------

    def after(self, step: Step) -> None:
        """Judge a step.

        Raises:
            BrokenPromise: the engine did something else than it had to.
        """
        self._touched.clear()
        self._put.clear()
        self._put_in = {}
        self.ended, self.skips, self.round_waits, self.round_answers = [], [], [], []
        self._owed, self._dropped = [], []
        for home, entry in step.entries:
            if isinstance(entry, Put):
                self._put.update(job for job, _ in entry.jobs)
                self._put_in = {job: home for job, _ in entry.jobs} | self._put_in
        answers = step.answers()
        ignored = 0
        if step.what == "tick":
            self._ticked_ms = step.now_ms
        elif step.what == "define":
            self.specs = {spec.name: spec for spec in step.given}
        elif step.what == "capacity":
            self._capacity = step.given
        elif step.what == "started":
            self._on_started(step.given)
        elif step.what == "finished":
            ignored = self._on_finished(step.given, step)
        elif step.what == "cannot_stop":
            self._on_cannot_stop(step.given)
        elif step.what == "give_up":
            self._waiters.pop(step.given, None)
        for asker, call in step.calls:
            self._on_call(asker, call, answers, step)
        for home, entry in step.entries:
            if isinstance(entry, Spread):
                self._on_spread(entry, step)
            elif isinstance(entry, Advanced):
                self._on_advanced(entry, home, step)
        self._check_answers(answers, step)
        for effect in step.effects:
            if isinstance(effect, Start):
                for run in effect.runs:
                    self._on_start(run, step)
        self._check_facts(step, ignored)
        self._compare()

    def _on_call(self, asker: Asker, call: Call | GiveUp, answers: dict[Asker, list[Answer]], step: Step) -> None:
        if isinstance(call, GiveUp):
            self._waiters.pop(asker, None)
            return
        handler = self._calls.get(type(call))
        got = answers.get(asker)
        at_once = got.pop(0) if got and not self._waits(asker, call) else None
        if handler is not None:
            handler(asker, call, at_once, step)
        elif at_once is None:
            raise BrokenPromise(f"P7: no answer to {text(call)} of {text(asker)}")

    def _waits(self, asker: Asker, call: Call) -> bool:
        """Whether the answer comes when a job ends, and not with the call."""
        if isinstance(call, Leave):
            return True
        full = len(self._waiters) - (asker in self._waiters) >= self._limits.waiters_max_count
        if full or not isinstance(call, (AwaitResult, Cancel)):
            return False
        job = self.jobs.get(call.job)
        states = (
            (State.READY, State.LENT, State.SPREAD) if isinstance(call, AwaitResult) else (State.LENT, State.SPREAD)
        )
        return job is not None and job.state in states

    # --- calls ----------------------------------------------------------------------------------------------------

    def _on_enqueue(self, asker: Asker, call: Enqueue, answer: Answer | None, step: Step) -> None:
        spec = self.specs.get(call.task)
        if isinstance(answer, Refused):
            self._check_refusal(call, spec, answer, step.now_ms)
            return
        ids = dict.fromkeys(job for job, _ in call.jobs)
        if spec is not None and spec.frequency_ms:
            return  # a round: what is answered then is checked with the schedules
        if not isinstance(answer, Accepted) or dict.fromkeys(answer.jobs) != ids:
            raise BrokenPromise(f"P7: {text(call)} was answered by {text(answer)}", *ids)
        new = [job for job in ids if self._put[job]]
        if new and (spec is None or self.leaving or not self._is_right(call)):
            raise BrokenPromise(f"P7: {text(call)} must not be accepted", *ids)
        made = dict(reversed(call.jobs))  # of twins, the first counts
        for job in ids:
            if job in new:
                assert spec is not None
                self._put[job] -= 1
                self._make(job, call, spec, made[job], step)
            elif not self._may_be_known(job):
                raise BrokenPromise("P7: accepted, but not there", job)
            else:
                self._seen["same id twice"] += 1
        if new and (len(self.live) > self._limits.jobs_max or self._bytes > self._limits.jobs_max_bytes):
            raise BrokenPromise(f"more is queued than the limits allow: {len(self.live)} jobs, {self._bytes} bytes")

    def _make(self, job: JobId, call: Enqueue, spec: TaskSpec, params: bytes, step: Step) -> None:
        old = self.jobs.get(job)
        if old is not None and (self._is_here(job) or not self._may_be_forgotten(old, step.now_ms)):
            raise BrokenPromise("P2: an id that is known made a second job", job)
        priority = spec.priority if call.priority is None else call.priority
        self.jobs[job] = Job(
            job,
            spec.name,
            spec.scope,
            priority,
            params,
            step.now_ms,
            step.at_us + call.delay_ms * 1000 if call.delay_ms else 0,
            spec.result_ttl_ms,
            self._put_in[job],
            call.keyed,
        )
        self._enter(job)
        self.counters["enqueued"] += 1
        self._seen["batch"] += len(call.jobs) > 1
        self._seen["flood"] += len(call.jobs) >= 60

    def _check_refusal(self, call: Enqueue, spec: TaskSpec | None, answer: Refused, now_ms: int) -> None:
        why = answer.why
        ids = dict.fromkeys(job for job, _ in call.jobs)
        here = [job for job in ids if self._is_known(job, now_ms)]
        periodic = spec is not None and spec.frequency_ms > 0
        if why not in _WRONG_CALLS and not periodic and ids and len(here) == len(ids):
            raise BrokenPromise(f"P7: refused as {why.value}, yet it is here", *here)
        put = [job for job in ids if self._put[job]]
        if put:
            raise BrokenPromise(f"P7: refused as {why.value}, yet taken", *put)
        first = dict(reversed(call.jobs))  # of twins, the first counts
        size = sum(len(params) for job, params in first.items() if job not in here)
        full = (
            len(self.live) + len(ids) - len(here) > self._limits.jobs_max
            or self._bytes + size > self._limits.jobs_max_bytes
        )
        wrong = not self._is_right(call) or (periodic and len(call.jobs) > 1)
        right = {
            Refusal.UNKNOWN_TASK: spec is None,
            Refusal.LEAVING: self.leaving,
            Refusal.QUEUE_FULL: full,
            Refusal.ALREADY_QUEUED: periodic,
        }.get(why, why in _WRONG_CALLS and wrong)
        if not right:
            raise BrokenPromise(f"P7: {text(call)} was refused as {why.value}", *ids)
        self._seen[f"refused: {why.value}"] += 1

    def _is_right(self, call: Enqueue) -> bool:
        return (
            0 < len(call.jobs) <= self._limits.batch_max_count
            and all(len(params) <= self._limits.payload_max_bytes for _, params in call.jobs)
            and 0 <= call.delay_ms <= SPAN_MAX_MS
            and all(job != NO_JOB for job, _ in call.jobs)
            and abs(call.priority or 0) <= PRIORITY_MAX
        )

    def _on_cancel(self, asker: Asker, call: Cancel, answer: Answer | None, step: Step) -> None:
        job = self.jobs.get(call.job)
        if job is None or not self._is_here(call.job):
            if not isinstance(answer, Did):
                raise BrokenPromise(f"P7: cancel was answered by {text(answer)}", call.job)
            self.skips.append((call.job, answer.done))
            return
        state = job.state
        if answer is None or isinstance(answer, Refused):
            if state not in (State.LENT, State.SPREAD):
                raise BrokenPromise(f"P7: no answer to the cancel of a job that is {state.value}", call.job)
            if answer is None:
                self._waiters[asker] = (call.job, True)
            else:
                self._check_too_many(asker)
            self._ask_to_end(job, step)
        elif answer != Did(state is State.READY):
            raise BrokenPromise(f"P7: cancel of a job that is {state.value} was answered by {text(answer)}", call.job)
        elif state is State.READY:
            self._seen["cancel: waiting"] += 1
            self._seen["cancel: delayed"] += job.not_before_us > step.at_us
            self._end(job, _CANCELLED, step.now_ms)

    def _ask_to_end(self, job: Job, step: Step) -> None:
        """It has been lent, or its parts have: what can't be taken back is asked to stop."""
        job.cancel_asked = True
        if job.state is State.SPREAD:
            self._seen["cancel: spread"] += 1
            for part in list(job.open):
                if self.jobs[part].state is State.READY:
                    self._end(self.jobs[part], _CANCELLED, step.now_ms)
                else:
                    self._ask_to_end(self.jobs[part], step)
            return
        self._seen["cancel: lent"] += 1
        if not any(isinstance(effect, Stop) and effect.job == job.job for effect in step.effects):
            raise BrokenPromise("a run that is cancelled has not been asked to stop", job.job)

    def _on_retry(self, asker: Asker, call: Retry, answer: Answer | None, step: Step) -> None:
        self._check_dead(call.job, answer)
        if answer == Did(True):
            job = self.jobs[call.job]
            del self.dead[call.job]
            job.state, job.tries, job.parent, job.not_before_us = State.READY, 0, NO_JOB, 0
            job.cancel_asked, job.started, job.revived = False, False, True
            self._enter(call.job)
            self._seen["revived"] += 1

    def _on_discard(self, asker: Asker, call: Discard, answer: Answer | None, step: Step) -> None:
        self._check_dead(call.job, answer)
        if answer == Did(True):
            del self.dead[call.job]
            self.jobs[call.job].state = State.ABSENT
            self._touched[call.job] = None
            self._seen["discarded"] += 1

    def _check_dead(self, job: JobId, answer: Answer | None) -> None:
        known = self.jobs.get(job)
        if known is None or known.state is State.ABSENT:
            right = isinstance(answer, Refused) and answer.why is Refusal.UNKNOWN_JOB
        else:
            right = answer == Did(known.state is State.DEAD)
        if not right:
            raise BrokenPromise(f"P7: retry or discard of {text(known)} was answered by {text(answer)}", job)

    def _on_await(self, asker: Asker, call: AwaitResult, answer: Answer | None, step: Step) -> None:
        job = self.jobs.get(call.job)
        if answer is None:
            if job is None or not job.is_live:
                self.round_waits.append(call.job)  # only a round that is still to come may be waited for
            self._waiters[asker] = (call.job, False)
        elif isinstance(answer, Refused) and answer.why is Refusal.QUEUE_FULL:
            self._check_too_many(asker)
        elif isinstance(answer, Refused):
            if job is not None and (self._is_here(call.job) or self._result_is_kept(job, step.now_ms)):
                raise BrokenPromise("P7: a result that has to be known is not", call.job)
            self._seen["result forgotten"] += job is not None
        elif job is None or answer != self._ended_answer(job):
            raise BrokenPromise(f"P7: a wrong result: {text(answer)}", call.job)

    def _check_too_many(self, asker: Asker) -> None:
        self._waiters.pop(asker, None)
        if len(self._waiters) < self._limits.waiters_max_count:
            raise BrokenPromise(f"P7: refused for too many waiters, but there are {len(self._waiters)}")
        self._seen["too many waiters"] += 1

    def is_awaited(self, job: JobId) -> bool:
        """Whether somebody waits for its end."""
        return any(awaited == job for awaited, _ in self._waiters.values())

    def _on_leave(self, asker: Asker, call: Leave, answer: Answer | None, step: Step) -> None:
        self.leaving = True
        self._leavers.append(asker)
        self._leave_by_ms = step.now_ms + call.within_ms

    # --- what is known of a job -----------------------------------------------------------------------------------

    def _is_here(self, job: JobId) -> bool:
        known = self.jobs.get(job)
        return known is not None and known.state is not State.ABSENT

    def _is_known(self, job: JobId, now_ms: int) -> bool:
        """Whether the same id again has to be taken for this job."""
        known = self.jobs.get(job)
        return self._is_here(job) or (known is not None and not self._may_be_forgotten(known, now_ms))

    def _may_be_forgotten(self, job: Job, now_ms: int) -> bool:
        return not self._result_is_kept(job, now_ms) and not self._id_is_kept(job, now_ms)

    def _id_is_kept(self, job: Job, now_ms: int) -> bool:
        if not job.keyed or now_ms - job.ended_ms >= self._limits.id_ttl_ms:
            return False
        return _count_from(self._keyed_ends_ms[job.home], job.ended_ms) <= self._limits.ids_max_count

    def _result_is_kept(self, job: Job, now_ms: int) -> bool:
        """False: its time is over, or so many have ended since that one of them may have taken its place."""
        if now_ms - job.ended_ms >= job.result_ttl_ms:
            return False
        return _count_from(self._ends_ms[job.home], job.ended_ms) <= self._limits.results_max_count

    def _may_be_known(self, job: JobId) -> bool:
        """A tick forgets; until then what is over its time may still be known."""
        known = self.jobs.get(job)
        if known is None or self._is_here(job):
            return known is not None
        age_ms = self._ticked_ms - known.ended_ms
        return age_ms < known.result_ttl_ms or (known.keyed and age_ms < self._limits.id_ttl_ms)

    def _enter(self, job: JobId) -> None:
        self.live[job] = self.jobs[job]
        self._bytes += len(self.jobs[job].params)
        self._touched[job] = None

    def _close(self, job: Job, state: State, outcome: Outcome, now_ms: int) -> None:
        """It is live no more."""
        del self.live[job.job]
        self._bytes -= len(job.params)
        self._touched[job.job] = None
        if job.state is State.LENT:
            self.held_count -= 1
        job.state, job.outcome, job.ended_ms = state, outcome, now_ms
        self._ends_ms.setdefault(job.home, []).append(now_ms)
        if job.keyed:
            self._keyed_ends_ms.setdefault(job.home, []).append(now_ms)
        self.ended.append(job)
        if job.parts is None:
            known = {Status.SUCCEEDED: "succeeded", Status.CANCELLED: "cancelled"}
            self.counters[known.get(outcome.status, "dead")] += 1
        for asker, (awaited, cancel) in list(self._waiters.items()):
            if awaited == job.job:
                del self._waiters[asker]
                told = Did(outcome.status is Status.CANCELLED) if cancel else self._ended_answer(job)
                self._owed.append((asker, told))
                self._seen["cancel answered late"] += cancel
        parent = self.jobs.get(job.parent)
        if parent is not None and job.job in parent.open:
            assert parent.parts is not None
            parent.parts[parent.open.pop(job.job)] = outcome
            self._end_if_whole(parent, now_ms)

    def _end(self, job: Job, outcome: Outcome, now_ms: int) -> None:
        self._close(job, State.ABSENT, outcome, now_ms)

    def _end_if_whole(self, parent: Job, now_ms: int) -> None:
        assert parent.parts is not None
        if parent.open:
            return
        ran = [part for part in parent.parts.values() if part.status is not Status.SKIPPED]
        if not ran:
            outcome = _SKIPPED
        elif all(part.status is Status.CANCELLED for part in ran):
            outcome = _CANCELLED
        else:
            bad = next((part for part in ran if part.status is not Status.SUCCEEDED), None)
            outcome = SUCCEEDED if bad is None else Outcome(Status.FAILED, b"", bad.failure)
        self._end(parent, outcome, now_ms)

    def _ended_answer(self, job: Job) -> Ended:
        assert job.outcome is not None
        if job.parts is None:
            return Ended(job.job, job.outcome)
        return Ended(job.job, job.outcome, [PartEnded(self._engine.me, part) for part in job.parts.values()])

    # --- reports of the executor ----------------------------------------------------------------------------------

    def _on_started(self, jobs: list[JobId]) -> None:
        for one in jobs:
            job = self.jobs[one]
            if job.state is State.LENT and not job.started:
                job.started = True
                self.counters["started"] += 1

    def _on_finished(self, reports: list[Finished], step: Step) -> int:
        """Returns: how many of them concern no run that is waited for."""
        ignored = 0
        for report in reports:
            job = self.jobs.get(report.job)
            if job is None or job.state is not State.LENT or job.attempt != report.attempt:
                ignored += 1
                continue
            again = report.verdict in (Verdict.RETRY, Verdict.SNOOZE)
            if report.verdict is Verdict.DONE:
                self._end(job, report.outcome, step.now_ms)
            elif report.verdict is Verdict.CANCELLED or (again and job.cancel_asked):
                self._end(job, _CANCELLED, step.now_ms)
            elif again:
                counted = report.verdict is Verdict.RETRY
                self.held_count -= 1
                self._touched[job.job] = None
                job.state, job.started = State.READY, False
                job.tries += counted
                job.not_before_us = step.at_us + max(1, report.delay_ms) * 1000
                self.counters["retried"] += counted
                self._seen["retry" if counted else "snooze"] += 1
            else:
                self._die(job, report.outcome, step.now_ms)
        self._seen["late verdict ignored"] += ignored
        return ignored

    def _die(self, job: Job, outcome: Outcome, now_ms: int) -> None:
        self._close(job, State.DEAD, outcome, now_ms)
        self._seen["dead"] += 1
        self.dead[job.job] = None
        near = [dead for dead in self.dead if self.jobs[dead].home == job.home]
        if len(near) > self._limits.dead_max_count:
            oldest = near[0]
            del self.dead[oldest]
            self.jobs[oldest].state = State.ABSENT
            self._touched[oldest] = None
            self._dropped.append(oldest)
            self._seen["dead letter made room"] += 1

    def _on_cannot_stop(self, job: JobId) -> None:
        """Who wants it cancelled, or the whole that it is part of, hears that it runs on."""
        self._seen["cannot stop"] += 1
        known = self.jobs[job]
        for asker, (awaited, cancel) in list(self._waiters.items()):
            if cancel and awaited in (job, known.parent):
                del self._waiters[asker]
                self._owed.append((asker, Did(False)))

    # --- what the engine does by itself ---------------------------------------------------------------------------

    def _on_advanced(self, entry: Advanced, home: str, step: Step) -> None:
        header = entry.header
        if self._is_here(entry.job):
            raise BrokenPromise("P4: a round that is here is made again", entry.job, header.task)
        self.jobs[entry.job] = Job(
            entry.job,
            header.task,
            header.scope,
            header.priority,
            NO_PARAMS,
            step.now_ms,
            0,
            header.result_ttl_ms,
            home,
            number=entry.number,
        )
        self._enter(entry.job)

    def _on_spread(self, entry: Spread, step: Step) -> None:
        whole = self.jobs.get(entry.job)
        if whole is None or whole.scope != "all" or whole.state is not State.READY:
            raise BrokenPromise(f"P5: {text(whole)} is spread", entry.job)
        if step.at_us < whole.not_before_us:
            raise BrokenPromise("P3: spread before its time", entry.job)
        if whole.task not in self.specs:
            raise BrokenPromise("P1: spread, though no member has the task: it has to wait", entry.job)
        busy = whole.number > 0 and any(
            other.state is State.SPREAD and other.task == whole.task and other.number and other.open
            for other in self.live.values()
        )
        able = self._capacity > 0 and not busy and self._part_is_free(entry.job)
        if (entry.members, entry.skipped) != (([self._me], []) if able else ([], [self._me])):
            raise BrokenPromise(f"P5: spread over the wrong members, able={able}", entry.job)
        whole.state = State.SPREAD
        whole.parts = dict.fromkeys(entry.skipped, _SKIPPED)
        self._touched[entry.job] = None
        self._seen["spread"] += able
        self._seen["round skipped by a busy member"] += busy
        for member in entry.members:
            part = part_id(entry.job, member.node)
            self.dead.pop(part, None)  # of an older job with this id
            whole.open[part] = member
            self.jobs[part] = Job(
                part,
                whole.task,
                whole.scope,
                whole.priority,
                whole.params,
                whole.accepted_ms,
                0,
                whole.result_ttl_ms,
                whole.home,
                number=whole.number,
                parent=entry.job,
            )
            self._enter(part)
        self._end_if_whole(whole, step.now_ms)

    def _part_is_free(self, job: JobId) -> bool:
        """Whether no older part of this id is live: that of an older job, which a person wants tried again."""
        part = self.jobs.get(part_id(job, self._me.node))
        return part is None or not part.is_live

    def _on_start(self, run: Run, step: Step) -> None:
        job = self.jobs.get(run.job)
        if job is None:
            raise BrokenPromise("P3: something starts that nobody has enqueued", run.job)
        if job.state is not State.READY:
            raise BrokenPromise(f"P2: a start of a job that is {job.state.value} ({text(job.outcome)})", run.job)
        if step.at_us < job.not_before_us:
            raise BrokenPromise(f"P3: started {job.not_before_us - step.at_us} us before its time", run.job)
        if job.task not in self.specs:
            raise BrokenPromise("a job starts whose task is not here", run.job)
        number = 0 if job.revived else job.number
        asked = (job.task, job.priority, job.params, job.accepted_ms, job.attempt + 1, job.tries + 1, number)
        header = run.header
        got = (header.task, header.priority, run.params, run.enqueued_at_ms, run.attempt, run.tries, run.number)
        if asked != got:
            raise BrokenPromise(f"P3: {text(asked)} was asked for, {text(got)} starts", run.job)
        job.state, job.started = State.LENT, False
        job.attempt += 1
        self._touched[run.job] = None
        self.held_count += 1
        if self.held_count > self._capacity:
            raise BrokenPromise(f"{self.held_count} jobs held, {self._capacity} wanted", run.job)

    # --- checks ---------------------------------------------------------------------------------------------------

    def _check_answers(self, answers: dict[Asker, list[Answer]], step: Step) -> None:
        """Whoever waited for what has now ended is told, and nobody else is."""
        if self._leavers:
            self._check_leave(step)
        for asker, owed in self._owed:
            got = answers.get(asker)
            if not got:
                raise BrokenPromise(f"P7: {text(asker)} is never told {text(owed)}", *_jobs_of(owed))
            if (told := got.pop(0)) != owed:
                raise BrokenPromise(f"P7: {text(asker)} is told {text(told)}, not {text(owed)}", *_jobs_of(owed))
        for asker, got in answers.items():
            awaited, _ = self._waiters.get(asker, (NO_JOB, False))
            if got and awaited != NO_JOB and not self._is_here(awaited):
                del self._waiters[asker]
                self.round_answers.append((awaited, got.pop(0)))  # a round that was to come, and now will not
            if got:
                raise BrokenPromise(f"P7: {text(asker)} did not ask for {text(got[0])}", *_jobs_of(got[0]))

    def _check_leave(self, step: Step) -> None:
        """It leaves as soon as nothing can go on, or its time is up, and no sooner."""
        over = step.now_ms >= self._leave_by_ms or not self._can_go_on(step)
        if over and step.what not in _UNSETTLED:
            lost = sum(job.state is not State.SPREAD for job in self.live.values())
            self._owed += [(asker, Left(lost)) for asker in self._leavers]
            self._leavers, self.left = [], True
            self._seen["left"] += 1

    def _can_go_on(self, step: Step) -> bool:
        if self.held_count:
            return True
        begun_ms = step.now_ms - step.at_us // 1000
        leave_by_us = (self._leave_by_ms - begun_ms - 1) * 1000
        soon = (job for job in self.live.values() if job.state is State.READY and job.not_before_us < leave_by_us)
        return self._capacity > 0 and any(
            job.task in self.specs or self._state(job.job) is State.DELAYED for job in soon
        )

    def _check_facts(self, step: Step, ignored: int) -> None:
        told = Counter[type[Any]]()
        dropped: list[JobId] = []
        for effect in step.effects:
            if isinstance(effect, Tell):
                told[type(effect.fact)] += 1
                if isinstance(effect.fact, DeadLetterDropped):
                    dropped.append(effect.fact.job)
        if dropped != self._dropped:
            raise BrokenPromise(
                f"dead letters {text(self._dropped)} made room, told were {text(dropped)}", *self._dropped
            )
        if told[VerdictIgnored] != ignored:
            raise BrokenPromise(f"{told[VerdictIgnored]} verdicts were ignored, not {ignored}")

    def _compare(self) -> None:
        """What the engine holds is what it has to hold."""
        slices = [stream.slice for stream in self._engine.streams]
        unasked = +self._put
        if unasked:
            raise BrokenPromise("P3: a job is made that nobody has enqueued", *unasked)
        self._steps += 1
        everything = self._steps % _COMPARE_ALL_EVERY == 0
        for job in list(self.jobs) if everything else self._touched:
            state, known = self._state(job), self.jobs[job]
            if state not in _STATES[known.state]:
                raise BrokenPromise(f"P1: a job is {state.value} and has to be {known.state.value}", job, known.task)
        live, dead = sum(len(kept) for kept in slices), sum(len(kept.dead) for kept in slices)
        size = sum(kept.bytes for kept in slices)
        if (live, dead, size) != (len(self.live), len(self.dead), self._bytes):
            asked = (len(self.live), len(self.dead), self._bytes)
            raise BrokenPromise(f"P1: (live, dead, bytes) are {(live, dead, size)} and have to be {asked}")

    def _state(self, job: JobId) -> State:
        """Where the engine has it."""
        states = [state for stream in self._engine.streams if (state := stream.slice.state(job)) is not State.ABSENT]
        if len(states) > 1:
            raise BrokenPromise("P1: a job is in two slices", job)
        return states[0] if states else State.ABSENT


def _count_from(ends_ms: list[int], since_ms: int) -> int:
    """How many have ended since then."""
    return len(ends_ms) - bisect_left(ends_ms, since_ms)


def _jobs_of(answer: Answer) -> list[str]:
    return [job_name(answer.job)] if isinstance(answer, Ended) else []
