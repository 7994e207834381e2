"""The schedules of a slice: one plan per periodic task, and which live jobs are rounds.

A plan waits for `due_at_ms`; then `Advanced` begins a round. With scope "any" the plan is `running` until that round's
job has ended, and the same entry that ends it says when the next one is due: one period after it (fixed delay), or at
the first point of the grid that is still to come (fixed rate). With scope "all" the next due time is in `Advanced`
itself. A stopped plan stays, for its number: that only grows, or a round would get the id of an earlier one.

Bounds: one plan per periodic task there has been; one round per live job of one.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import Bug
from .entries import Advanced, Planned, PlanStopped
from .records import Plan
from .values import NO_JOB, JobId, after


class Plans:
    """Plans and rounds, as the entries of their slice have made them."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.rounds: dict[JobId, tuple[str, int]] = {}  # live job of a round -> task, number

    def plan(self, entry: Planned) -> None:
        """New, or changed; a round that is running goes on."""
        old = self.plans.get(entry.task)
        if old is not None and entry.number < old.number:
            raise Bug(f"{entry} after {old}")
        running = old.running if old is not None else NO_JOB
        self.plans[entry.task] = Plan(
            entry.task, entry.frequency_ms, entry.fixed_rate, entry.number, entry.due_at_ms, running
        )

    def stop(self, entry: PlanStopped) -> None:
        self.plans[entry.task].stopped = True

    def advance(self, entry: Advanced) -> None:
        """A round begins."""
        plan = self.plans.get(entry.header.task)
        if plan is None or not plan.waits or entry.number <= plan.number:
            raise Bug(f"{entry} after {plan}")
        plan.number = entry.number
        if entry.due_at_ms:
            plan.due_at_ms = entry.due_at_ms
        else:
            plan.running = entry.job
        self.rounds[entry.job] = (plan.task, entry.number)

    def ended(self, job: JobId, at_ms: int) -> None:
        """A job has ended: if it was a round, the next one is due when this says."""
        if job not in self.rounds:
            return
        task, _ = self.rounds.pop(job)
        plan = self.plans[task]
        if plan.running != job:
            return
        plan.running = NO_JOB
        period = plan.frequency_ms
        if plan.fixed_rate:
            plan.due_at_ms += max(0, (at_ms - plan.due_at_ms) // period + 1) * period
        else:
            plan.due_at_ms = max(plan.due_at_ms, after(at_ms, period))  # it may have been planned anew meanwhile

    def take_in(self, plans: list[Plan], rounds: list[tuple[JobId, str, int]]) -> None:
        """They come from another slice."""
        for plan in plans:
            self.plans[plan.task] = replace(plan)
        for job, task, number in rounds:
            self.rounds[job] = (task, number)
            plan = self.plans[task]
            plan.number = max(plan.number, number)

    def give_away(self, job: JobId) -> None:
        """A job that may be a round goes to another home."""
        task, _ = self.rounds.pop(job, ("", 0))
        if task and self.plans[task].running == job:
            self.plans[task].running = NO_JOB

    def check(self) -> None:
        """Raises:
        Bug: an invariant does not hold.
        """
        for plan in self.plans.values():
            task, number = self.rounds.get(plan.running, ("", 0))
            if plan.running != NO_JOB and (task != plan.task or number > plan.number):
                raise Bug(f"{plan} waits for a round that is not live")
        for task, number in self.rounds.values():
            if number > self.plans[task].number:
                raise Bug(f"round {number} of {task} is live, and not made yet")
