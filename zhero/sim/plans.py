"""When periodic tasks have to have their rounds: a model of all schedules (P4).

From the definitions, the calls and the ends of rounds it works out, for each task, whether the next round may begin
and from when on; each `Advanced` of the engine is held against that. So rounds are numbered upwards, rounds of a
fixed-delay task never overlap and keep their distance, a pause over many periods makes one round, a stopped task makes
none; and after each step every schedule is the one that it has to be, so none is ever lost.

State: task -> `Expected`, for each that ever was periodic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..core.effects import Asker
from ..core.engine import Engine
from ..core.entries import Advanced
from ..core.messages import (
    Accepted,
    Answer,
    Call,
    Did,
    Ended,
    Enqueue,
    GiveUp,
    Refusal,
    Refused,
    StartTask,
    StopTask,
)
from ..core.values import NO_JOB, JobId, Outcome, Status, TaskSpec, round_id
from .books import Job
from .ledger import Ledger
from .story import BrokenPromise, Step, text

_BAD_ENDS = (Status.FAILED, Status.TIMED_OUT, Status.CRASHED, Status.DISCARDED, Status.LOST)


@dataclass(slots=True)
class Expected:
    """The schedule of one task. Instants on the engine's clock.

    Attributes:
        number: of the last round.
        due_ms: not before this is the next round; of a fixed rate, while one runs: when that one was due.
        running: the round that the next one waits for.
    """

    task: str
    frequency_ms: int
    fixed_rate: bool
    number: int
    due_ms: int
    running: JobId = NO_JOB
    stopped: bool = False


class Plans:
    """Checks P4 of one node."""

    def __init__(self, engine: Engine, ledger: Ledger, seen: Counter[str]) -> None:
        self._engine = engine
        self._ledger = ledger
        self._seen = seen
        self._plans: dict[str, Expected] = {}
        self._cancelled: list[JobId] = []  # rounds that were to come next, and in this step turned out not to

    def after(self, step: Step) -> None:
        """Judge a step, after the ledger did.

        Raises:
            BrokenPromise: a round that must not be, or a schedule that is not as it has to be.
        """
        self._cancelled = []
        planned = [job for _, job in self.next_rounds()]
        for job in self._ledger.round_waits:
            if job not in planned:
                raise BrokenPromise("P7: somebody is left waiting for a job that is not live", job)
            self._seen["round awaited"] += 1
        if step.joins or (step.what == "define" and step.joined):
            self._on_define(step.now_ms)
        answers = step.answers()
        for asker, call in step.calls:
            self._on_call(asker, call, answers, step)
        for job, done in self._ledger.skips:
            self._on_skip(job, done, step)
        for _, entry in step.entries:
            if isinstance(entry, Advanced):
                self._on_advanced(entry, step)
        for ended in self._ledger.books.ended:
            self._on_ended(ended, step.now_ms)
        self._check_told()
        self._compare(step)

    def next_rounds(self) -> list[tuple[str, JobId]]:
        """Task and job of each round that waits for its time, as people see it."""
        return [(plan.task, round_id(plan.task, plan.number + 1)) for plan in self._waiting()]

    def _waiting(self) -> Iterator[Expected]:
        for plan in self._plans.values():
            if not plan.stopped and plan.running == NO_JOB and self._spec(plan.task) is not None:
                yield plan

    def _spec(self, task: str) -> TaskSpec | None:
        """Its definition, if it is here and periodic."""
        spec = self._ledger.specs.get(task)
        return spec if spec is not None and spec.frequency_ms else None

    def _on_define(self, now_ms: int) -> None:
        for spec in self._ledger.specs.values():
            plan = self._plans.get(spec.name)
            if not spec.frequency_ms:
                continue
            if plan is None:
                due_ms = now_ms if spec.run_on_start else _after(now_ms, spec.frequency_ms)
                number = now_ms // spec.frequency_ms
                self._plans[spec.name] = Expected(spec.name, spec.frequency_ms, spec.fixed_rate, number, due_ms)
            elif not plan.stopped and (plan.frequency_ms, plan.fixed_rate) != (spec.frequency_ms, spec.fixed_rate):
                if plan.running == NO_JOB:
                    plan.due_ms += spec.frequency_ms - plan.frequency_ms
                plan.frequency_ms, plan.fixed_rate = spec.frequency_ms, spec.fixed_rate
                self._seen["period changed"] += 1

    def _on_call(self, asker: Asker, call: Call | GiveUp, answers: dict[Asker, list[Answer]], step: Step) -> None:
        if not isinstance(call, (StopTask, StartTask, Enqueue)):
            return
        spec = self._ledger.specs.get(call.task)
        got = answers.get(asker)
        answer = got.pop(0) if got else None
        plan = self._plans.get(call.task)
        stopped = plan is None or plan.stopped
        if isinstance(call, Enqueue):
            if spec is None or not spec.frequency_ms or isinstance(answer, Refused):
                if isinstance(answer, Refused) and answer.why is Refusal.ALREADY_QUEUED and stopped:
                    raise BrokenPromise("P7: refused as scheduled already, but it is not", call.task)
            elif not stopped:
                raise BrokenPromise("P4: a task that is scheduled was scheduled once more", call.task)
            else:
                plan = self._start(spec, call.delay_ms, step.now_ms)
                if answer != Accepted([round_id(call.task, plan.number + 1)]):
                    raise BrokenPromise(f"P7: a schedule was answered by {text(answer)}", call.task)
            return
        if spec is None:
            right = isinstance(answer, Refused) and answer.why is Refusal.UNKNOWN_TASK
        elif not spec.frequency_ms:
            right = isinstance(answer, Refused) and answer.why is Refusal.NOT_PERIODIC
        else:
            right = answer == Did(stopped is isinstance(call, StartTask))
        if not right:
            raise BrokenPromise(f"P7: {text(call)} was answered by {text(answer)}", call.task)
        if answer != Did(True) or spec is None:
            return
        if isinstance(call, StartTask):
            self._start(spec, 0, step.now_ms)
        elif plan is not None:
            self._stop(plan)
            self._seen["task stopped"] += 1
            self._seen["task stopped while it ran"] += plan.running != NO_JOB

    def _start(self, spec: TaskSpec, delay_ms: int, now_ms: int) -> Expected:
        """The task is to go on; the end of a round that still runs may delay it."""
        self._seen["task started"] += 1
        due_ms = _after(now_ms, delay_ms or spec.frequency_ms)
        old = self._plans.get(spec.name)
        running = old.running if old is not None else NO_JOB
        number = now_ms // spec.frequency_ms
        if old is not None:
            number = old.number if running != NO_JOB else max(number, old.number)
        plan = Expected(spec.name, spec.frequency_ms, spec.fixed_rate, number, due_ms, running)
        self._plans[spec.name] = plan
        return plan

    def _on_skip(self, job: JobId, done: bool, step: Step) -> None:
        """Somebody cancelled a job that is none, or the next round."""
        planned = [plan for plan in self._waiting() if round_id(plan.task, plan.number + 1) == job]
        if bool(planned) is not done:
            raise BrokenPromise(f"P7: cancel of what is no job said {done}", job)
        for plan in planned:
            self._cancelled.append(job)
            plan.number += 1
            plan.due_ms = max(plan.due_ms, step.now_ms) + plan.frequency_ms
            self._seen["round skipped by a person"] += 1

    def _on_advanced(self, entry: Advanced, step: Step) -> None:
        task, now_ms = entry.header.task, step.now_ms
        plan, spec = self._plans.get(task), self._spec(task)
        if plan is None or spec is None:
            raise BrokenPromise("P4: a round of a task that is not periodic, or not here", task)
        if plan.stopped:
            raise BrokenPromise("P4: a round of a task that is stopped", task)
        if plan.running != NO_JOB:
            raise BrokenPromise("P4: a round begins while another runs", task)
        if entry.number <= plan.number or entry.job != round_id(task, entry.number):
            raise BrokenPromise(f"P4: round {entry.number} after {plan.number}", task)
        if now_ms < plan.due_ms:
            raise BrokenPromise(f"P4: a round {plan.due_ms - now_ms} ms before it is due", task)
        if self._ledger.leaving:
            raise BrokenPromise("a round begins while the node leaves", task)
        self._seen["round"] += 1
        self._seen["round overdue by periods"] += now_ms - plan.due_ms > 2 * plan.frequency_ms
        plan.number = entry.number
        if spec.scope == "any":
            plan.running = entry.job
        elif plan.fixed_rate:
            plan.due_ms = _next_point(plan, now_ms)
        else:
            plan.due_ms = _after(now_ms, plan.frequency_ms)

    def _on_ended(self, job: Job, now_ms: int) -> None:
        plan = self._plans.get(job.task)
        if plan is None:
            return
        if plan.running == job.job:
            plan.running = NO_JOB
            if plan.fixed_rate:
                self._seen["round overran its period"] += now_ms >= plan.due_ms + plan.frequency_ms
                plan.due_ms = _next_point(plan, now_ms)
            else:
                plan.due_ms = max(plan.due_ms, _after(now_ms, plan.frequency_ms))
        spec = self._ledger.specs.get(job.task)
        assert job.outcome is not None
        bad = job.outcome.status in _BAD_ENDS and job.number > 0 and not job.revived
        if bad and spec is not None and not spec.reenqueue_on_error and not plan.stopped:
            self._stop(plan)
            self._seen["task stopped by an error"] += 1

    def _check_told(self) -> None:
        """Who waits for a round that will not be hears so."""
        for job in self._cancelled:
            if self._ledger.books.is_awaited(job):
                raise BrokenPromise("P7: somebody is left waiting for a round that will not be", job)
        for job, answer in self._ledger.round_answers:
            if job not in self._cancelled or answer != Ended(job, Outcome(Status.CANCELLED)):
                raise BrokenPromise(f"P7: a round to come was answered by {text(answer)}", job)

    def _stop(self, plan: Expected) -> None:
        plan.stopped = True
        self._cancelled.append(round_id(plan.task, plan.number + 1))

    def _compare(self, step: Step) -> None:
        """Every schedule is the one that it has to be, and none is overdue once time has been let pass."""
        delayed = self._engine.streams.delayed
        plans = delayed.slice.plans if delayed is not None else {}
        if plans.keys() != self._plans.keys():
            raise BrokenPromise(f"P4: schedules of {list(plans)}, there have to be those of {list(self._plans)}")
        for plan in self._plans.values():
            got = plans[plan.task]
            asked = (plan.number, plan.running, plan.stopped)
            period = plan.stopped or (plan.frequency_ms, plan.fixed_rate) == (got.frequency_ms, got.fixed_rate)
            if not period or asked != (got.number, got.running, got.stopped):
                raise BrokenPromise(f"P4: the schedule is {text(got)} and has to be {text(plan)}", plan.task)
        overdue_ms = step.now_ms if step.what == "tick" and not self._ledger.leaving else 0
        for plan in self._waiting():
            if plan.due_ms != plans[plan.task].due_at_ms:
                raise BrokenPromise(f"P4: due at {plans[plan.task].due_at_ms} and has to be {plan.due_ms}", plan.task)
            if plan.due_ms <= overdue_ms:
                raise BrokenPromise("P4: a round is overdue, and nothing happens", plan.task)


def _after(now_ms: int, span_ms: int) -> int:
    """When a span is surely over that begins in this millisecond."""
    return now_ms + span_ms + 1


def _next_point(plan: Expected, now_ms: int) -> int:
    """Of the grid of a fixed rate, the first point that is still to come."""
    due_ms = plan.due_ms
    while due_ms <= now_ms:
        due_ms += plan.frequency_ms
    return due_ms
