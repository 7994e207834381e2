"""When: delayed jobs become ready, and periodic tasks have their rounds.

Whatever waits for a time waits in a slice: delayed jobs and schedules in `delayed`, retry waits at the job's home. An
instant is compared with the clock that is passed in and with no other, and nothing is ever early.

A periodic task has one `Plan` per cluster. Round k is one entry, `Advanced`, which moves the plan on and puts the job
of that round; the job's id is a hash of (task, k), so two homes that make round k make the same job. k begins at
time / frequency when the plan is first made, and only grows. With fixed delay the entry that ends a round also sets
when the next one is due; with a fixed rate the grid does, and a round that overruns its period skips the points it
has missed. So an overdue round runs once, however many periods have passed. A periodic "all" is due one period after
it was dispatched.

The first round is due one full period after the plan is made, or at once (`run_on_start`). A changed frequency counts
from the end of the last round, at once. A plan whose task no member has, or has as a periodic one, sleeps, and wakes
when one does.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import Bug
from .effects import Outbox
from .entries import Advanced, Due, Entry, Planned, PlanStopped
from .facts import TaskScheduled, TaskUnscheduled
from .messages import PlanInfo
from .records import Plan
from .steps import Ending
from .streams import Streams
from .values import (
    NO_JOB,
    NO_PARAMS,
    Header,
    JobId,
    JobInfo,
    Life,
    State,
    Status,
    TaskSpec,
    after,
    round_id,
    span_until,
)

_BAD_ENDS = (Status.FAILED, Status.TIMED_OUT, Status.CRASHED, Status.DISCARDED, Status.LOST)


class Schedule:
    """Promotes what is due. State: the rounds that were due next and now will not be, until the engine takes them.

    Args:
        seen: task -> highest number of a round that this node has seen; a new schedule goes on from there.
    """

    def __init__(
        self, streams: Streams, specs: Mapping[str, TaskSpec], outbox: Outbox, seen: Mapping[str, int]
    ) -> None:
        self._streams = streams
        self._specs = specs
        self._outbox = outbox
        self._seen = seen
        self.skipped: list[JobId] = []

    @property
    def _plans(self) -> dict[str, Plan]:
        """Empty where another member is the owner."""
        stream = self._streams.delayed
        return {} if stream is None or stream.frozen else stream.slice.plans

    @property
    def _home(self) -> Life:
        stream = self._streams.delayed
        assert stream is not None
        return stream.slice.home

    def _append(self, entry: Entry) -> None:
        stream = self._streams.delayed
        assert stream is not None
        assert not stream.frozen
        stream.append(entry)

    # --- periodic tasks -------------------------------------------------------------------------------------------

    def on_tasks(self, before: Mapping[str, TaskSpec], now_ms: int) -> None:
        """Definitions have changed: every periodic one has its plan from now on.

        Args:
            before: what they were.
        """
        plans = self._plans
        for spec in self._specs.values():
            plan = plans.get(spec.name)
            old = before.get(spec.name)
            if not spec.frequency_ms or (plan is not None and plan.stopped):
                continue  # whoever starts it again plans it anew
            if plan is None:
                due_at_ms = now_ms if spec.run_on_start else after(now_ms, spec.frequency_ms)
                number = max(now_ms // spec.frequency_ms, self._seen.get(spec.name, 0))
                self._plan(spec, number, due_at_ms)
                self._tell(spec.name, now_ms)
            elif plan.frequency_ms != spec.frequency_ms or plan.fixed_rate != spec.fixed_rate:
                # While a round runs `due_at_ms` is still that of the round, and its end will move it on.
                later_ms = spec.frequency_ms - plan.frequency_ms if plan.waits else 0
                self._plan(spec, plan.number, plan.due_at_ms + later_ms)
                if plan.waits:
                    self._tell(spec.name, now_ms)
            elif plan.waits and (old is None or not old.frequency_ms):
                self._tell(spec.name, now_ms)
        for old in before.values():
            plan = plans.get(old.name)
            if plan is not None and old.frequency_ms and not self._is_periodic(old.name) and not plan.stopped:
                gone = old.name not in self._specs
                why = "no member has the task any more" if gone else "it is not periodic any more"
                self._outbox.tell(TaskUnscheduled(old.name, why))

    def _is_periodic(self, task: str) -> bool:
        spec = self._specs.get(task)
        return spec is not None and spec.frequency_ms > 0

    def start(self, spec: TaskSpec, delay_ms: int, now_ms: int) -> JobId | None:
        """Schedule a stopped task again: the next round is due in `delay_ms`, or one period (0).

        A round of before that is still running delays it: it is also due one period after the end of that.

        Returns:
            The job of the next round; None: it is scheduled already.
        """
        plan = self._plans.get(spec.name)
        if plan is not None and not plan.stopped:
            return None
        number = now_ms // spec.frequency_ms
        if plan is not None:  # `number` stays that of the round which is running
            number = plan.number if plan.running != NO_JOB else max(number, plan.number)
        self._plan(spec, number, after(now_ms, delay_ms or spec.frequency_ms))
        self._tell(spec.name, now_ms)
        return round_id(spec.name, number + 1)

    def stop(self, task: str, why: str) -> bool:
        """No round after the one that may be running. False: it has no schedule, or is stopped."""
        plan = self._plans.get(task)
        if plan is None or plan.stopped:
            return False
        self.skipped.append(round_id(task, plan.number + 1))
        self._append(PlanStopped(task))
        self._outbox.tell(TaskUnscheduled(task, why))
        return True

    def skip(self, job: JobId, now_ms: int) -> bool:
        """Cancel the round that is due next, if `job` is one: the following one is due a period later."""
        plan = self._plan_of(job)
        if plan is None:
            return False
        spec = self._specs[plan.task]
        self.skipped.append(job)
        self._plan(spec, plan.number + 1, max(plan.due_at_ms, now_ms) + plan.frequency_ms)
        self._tell(plan.task, now_ms)
        return True

    def _plan(self, spec: TaskSpec, number: int, due_at_ms: int) -> None:
        self._append(Planned(spec.name, spec.frequency_ms, spec.fixed_rate, number, due_at_ms))

    def _tell(self, task: str, now_ms: int) -> None:
        due_at_ms = self._plans[task].due_at_ms
        self._outbox.tell(TaskScheduled(task, span_until(now_ms, due_at_ms)))

    def on_ended(self, ending: Ending) -> None:
        """Stop the schedule if that was a round which ended badly, and its task does not go on after that."""
        task, status = ending.record.header.task, ending.outcome.status
        spec = self._specs.get(task)
        if ending.number and status in _BAD_ENDS and spec is not None and not spec.reenqueue_on_error:
            self.stop(task, f"a round ended as {status.value}, and reenqueue_on_error is off")

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, *, rounds: bool) -> None:
        """Promote what is due; `rounds`: also begin rounds."""
        for stream in self._streams:
            due = [] if stream.frozen else stream.slice.due(now_ms)
            if due:
                stream.append(Due(due))
        if rounds:
            for plan in self._waiting_plans():
                if plan.due_at_ms <= now_ms:
                    self._advance(plan, now_ms)

    def _advance(self, plan: Plan, now_ms: int) -> None:
        spec = self._specs[plan.task]
        number = plan.number + 1
        due_at_ms = 0
        if spec.scope == "all":
            period = plan.frequency_ms
            if plan.fixed_rate:
                due_at_ms = plan.due_at_ms + ((now_ms - plan.due_at_ms) // period + 1) * period
            else:
                due_at_ms = after(now_ms, period)
        header = Header(
            spec.name, spec.scope, spec.priority, spec.announce, spec.result_ttl_ms, spec.backups, spec.once
        )
        self._append(Advanced(header, round_id(spec.name, number), number, now_ms, due_at_ms))

    def deadline_ms(self, *, rounds: bool) -> int | None:
        thawed = [stream.slice for stream in self._streams if not stream.frozen]
        dues = [due for kept in thawed if (due := kept.next_due_ms()) is not None]
        if rounds:
            dues += [plan.due_at_ms for plan in self._waiting_plans()]
        return min(dues, default=None)

    def _waiting_plans(self) -> list[Plan]:
        plans = self._plans.values()
        return [plan for plan in plans if plan.waits and self._is_periodic(plan.task)]

    def _plan_of(self, job: JobId) -> Plan | None:
        """The plan whose next round would be `job`."""
        for plan in self._waiting_plans():
            if round_id(plan.task, plan.number + 1) == job:
                return plan
        return None

    # --- for people -----------------------------------------------------------------------------------------------

    def infos(self, now_ms: int) -> list[PlanInfo]:
        plans = self._plans.values()
        return [
            PlanInfo(
                plan.task,
                plan.frequency_ms,
                plan.number,
                span_until(now_ms, plan.due_at_ms) if plan.waits and self._is_periodic(plan.task) else None,
                plan.stopped,
            )
            for plan in plans
        ]

    def next_rounds(self) -> list[JobInfo]:
        """Between rounds a plan shows as the delayed job of the next one."""
        return [self._next_round(plan) for plan in self._waiting_plans()]

    def next_round(self, job: JobId) -> JobInfo | None:
        plan = self._plan_of(job)
        return None if plan is None else self._next_round(plan)

    def _next_round(self, plan: Plan) -> JobInfo:
        spec = self._specs[plan.task]
        number = plan.number + 1
        return JobInfo(
            job=round_id(plan.task, number),
            task=plan.task,
            scope=spec.scope,
            state=State.DELAYED,
            priority=spec.priority,
            params=NO_PARAMS,
            attempt=0,
            tries=0,
            enqueued_at_ms=plan.due_at_ms - plan.frequency_ms,
            run_at_ms=plan.due_at_ms,
            started_at_ms=0,
            home=self._home,
            node=None,
            parent=NO_JOB,
            number=number,
            outcome=None,
        )

    def check(self) -> None:
        """Raises:
        Bug: a periodic task that a member has is not scheduled exactly once.
        """
        plans = self._plans
        for spec in self._specs.values():
            if not spec.frequency_ms:
                continue
            plan = plans.get(spec.name)
            if plan is None:
                raise Bug(f"periodic task {spec.name} has no plan")
            if not plan.stopped and (plan.frequency_ms, plan.fixed_rate) != (spec.frequency_ms, spec.fixed_rate):
                raise Bug(f"{plan} does not follow {spec}")
