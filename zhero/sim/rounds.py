"""When a cluster has rounds of its periodic tasks, whoever owns the schedule and whoever runs them (P4).

Of a task that one member runs per round: numbers grow, none is left out, no round begins before the last one has ended
and its period is over. What a person does to a schedule (stops it, starts it, cancels a round, takes the definition
away) and what goes wrong with processes excuses a gap or a repetition, and so does a second owner: of nodes that have
not met yet each has its own. Nothing else does.

At the end, when nothing is wrong and there is nothing else to do, every schedule has to go on: a round begins within a
period, the length of a run, and a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.messages import Cancel, Enqueue, StartTask, StopTask
from ..core.values import NO_JOB, Run, TaskSpec
from .accounts import Account, Accounts, Ran
from .node import Node
from .scene import Scene
from .story import BrokenPromise, Step
from .troubles import Troubles
from .workload import Kind

_SHORTLY_US = 12_000_000
_SLACK_US = 5_000_000
"""How long a round may be late when nothing is wrong and nobody wants anything else."""
_ROUNDED_US = 2_000


@dataclass(slots=True)
class _Line:
    """The rounds of one task. `touched_us`: when a person last did something to its schedule."""

    number: int = 0
    account: Account | None = None
    begun_us: int = 0
    touched_us: int = -1


class Rounds:
    """Checks P4 of all nodes."""

    def __init__(
        self, kinds: Iterable[Kind], accounts: Accounts, troubles: Troubles, scene: Scene, seen: Counter[str]
    ) -> None:
        self._kinds = {kind.spec.name: kind for kind in kinds if kind.spec.frequency_ms}
        self._accounts = accounts
        self._troubles = troubles
        self._drift_ppm = scene.drift_ppm
        self._seen = seen
        self._lines = {task: _Line() for task in self._kinds}

    def after(self, step: Step) -> None:
        """Note what people do to schedules."""
        if step.what == "define":
            self._touch(self._lines, step.at_us)
        for _, call in step.calls:
            if isinstance(call, (StopTask, StartTask, Enqueue)) and call.task in self._lines:
                self._touch([call.task], step.at_us)
            elif isinstance(call, Cancel):
                account = self._accounts.jobs.get(call.job)
                if account is None:
                    self._touch(self._lines, step.at_us)  # it may be a round that is still to come
                elif account.number:
                    self._touch([account.task], step.at_us)

    def _touch(self, tasks: Iterable[str], at_us: int) -> None:
        for task in tasks:
            self._lines[task].touched_us = at_us

    def on_begin(self, account: Account, run: Run, node: Node, at_us: int) -> None:
        """Judge the first run of a round.

        Raises:
            BrokenPromise: it must not be, or not now.
        """
        line = self._lines.get(account.task)
        if line is None or not account.number or account.parent != NO_JOB or len(account.ran) > 1:
            return
        self._seen["round"] += 1
        why = self._why_not(line, account, at_us)
        if self._troubles.owners_count() > 1:
            self._touch(self._lines, at_us)
        if why and line.touched_us < line.begun_us - _SLACK_US:
            excuse = self._troubles.any(line.begun_us - _SHORTLY_US)
            if not excuse:
                raise BrokenPromise(f"P4: {why} at {node.place}, and nothing has gone wrong", run.job, account.task)
            self._seen["excused: a round"] += 1
        line.number, line.account, line.begun_us = account.number, account, at_us

    def _why_not(self, line: _Line, account: Account, at_us: int) -> str:
        number, last = account.number, line.account
        if last is None:
            return ""
        if number <= line.number:
            return f"round {number} begins after {line.number}"
        if number > line.number + 1:
            return f"round {number} follows {line.number}"
        ran: Ran = last.ran[-1]
        if not ran.ended_us:
            return f"round {number} begins while {line.number} runs"
        spec = self._spec(account.task)
        period_us = spec.frequency_ms * 1_000_000_000 // (1_000_000 + self._drift_ppm) - _ROUNDED_US
        if not spec.fixed_rate and at_us - ran.ended_us < period_us:
            return f"round {number} begins {(at_us - ran.ended_us) // 1000} ms after the end of {line.number}"
        return ""

    def _spec(self, task: str) -> TaskSpec:
        return self._kinds[task].spec

    # --- at the end -----------------------------------------------------------------------------------------------

    def patience_us(self) -> int:
        """How long after all else is done each schedule must have had a round."""
        spans_us = [
            1000 * (kind.spec.frequency_ms + (kind.retries + 1) * (kind.run_ms[1] + kind.backoff_ms[1]))
            for kind in self._kinds.values()
        ]
        return max(spans_us, default=0) + _SLACK_US

    def check_all_go_on(self, living: list[Node], since_us: int) -> None:
        """Each schedule had a round since then, wherever it is kept.

        Raises:
            BrokenPromise: one is lost, is kept twice, or has come to a stop by itself.
        """
        owners = [node for node in living if any(True for stream in node.engine.streams if stream.slice.plans)]
        if len(owners) > 1:
            raise BrokenPromise(f"P6: {', '.join(node.place for node in owners)} all keep schedules")
        plans = {
            task: plan for node in owners for stream in node.engine.streams for task, plan in stream.slice.plans.items()
        }
        for task, line in self._lines.items():
            able = [node for node in living if task in node.notes.specs]
            if not able:
                continue
            if task not in plans:
                raise BrokenPromise("P4: a schedule is lost", task)
            works = any(node.notes.capacity for node in able) and self._spec(task).scope == "any"
            if works and not plans[task].stopped and line.begun_us < since_us:
                raise BrokenPromise("P4: nothing is wrong, and its rounds have ceased", task)
