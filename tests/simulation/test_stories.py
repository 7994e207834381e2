"""Small worlds told by hand: what seeds once found, reduced, and what a seed meets too seldom."""

from __future__ import annotations

import pytest

from zhero.config import Limits
from zhero.core.effects import Start
from zhero.core.messages import (
    Accepted,
    Answer,
    AwaitResult,
    Call,
    Cancel,
    Did,
    Enqueue,
    Leave,
    Left,
    Retry,
    StartTask,
    StopTask,
)
from zhero.core.values import IdSource, JobId, Run, TaskSpec, Verdict, keyed_id
from zhero.sim.workload import Kind, Options
from zhero.sim.world import World

PARAMS = b"\x80"


def world_with(*kinds: Kind, limits: Limits | None = None) -> World:
    """A world with these tasks, one slot, and nobody who asks; every checker is at work in it."""
    options = Options(
        load_ms=0,
        pace_ms=100,
        workers=1,
        window=0,
        clients=0,
        reload_every_ms=0,
        all_return=True,
        leaves=False,
        limits=limits or Limits(),
    )
    world = World(0, loaded=False, options=options, kinds=kinds)
    world.start()
    wait(world, 100)
    return world


def ask(world: World, call: Call) -> Answer | None:
    """The answer, if it comes at once."""
    return world.local.answers.get(world.local.ask(call))


def wait(world: World, span_ms: int) -> None:
    world.run_until(world.now_us + span_ms * 1000)


def starts(world: World) -> list[Run]:
    """In their order."""
    effects = [effect for step in world.story for effect in step.effects]
    return [run for effect in effects if isinstance(effect, Start) for run in effect.runs]


def new(ids: IdSource, count: int) -> list[tuple[JobId, bytes]]:
    return [(ids.take(), PARAMS) for _ in range(count)]


QUICK = Kind(TaskSpec("quick"), run_ms=(1, 1))
SLOW = Kind(TaskSpec("slow"), run_ms=(500, 500))
DYING = Kind(TaskSpec("dying"), run_ms=(1, 1), ends=(("discard", 1),))
EVERY = Kind(TaskSpec("every", frequency_ms=1000), run_ms=(300, 300))
ALL = Kind(TaskSpec("all", scope="all"), run_ms=(1, 1))


def test_an_enqueue_said_again_is_accepted_though_its_task_has_gone_meanwhile() -> None:
    world = world_with(SLOW, QUICK)
    first = Enqueue("slow", new(world.local.ids(), 1))
    again = Enqueue("quick", new(world.local.ids(), 1))
    assert ask(world, first) == ask(world, first)
    ask(world, again)
    world.node.define([SLOW.spec])
    assert ask(world, again) == Accepted([job for job, _ in again.jobs])
    world.node.define([SLOW.spec, QUICK.spec])
    world.settle()


def test_a_task_that_is_stopped_and_started_again_while_it_runs_goes_on_after_that_round() -> None:
    world = world_with(EVERY)
    wait(world, 1100)
    assert ask(world, StopTask("every")) == Did(True)
    assert ask(world, StartTask("every")) == Did(True)
    wait(world, 3000)
    assert world.seen["task stopped while it ran"] == 1
    assert world.seen["round"] == 3
    world.settle()


@pytest.mark.parametrize("first", ["all", "quick"])
def test_parts_of_all_jobs_and_other_jobs_take_turns_at_one_slot(first: str) -> None:
    world = world_with(ALL, QUICK)
    second = "quick" if first == "all" else "all"
    ask(world, Enqueue("quick", new(world.local.ids(), 1)))  # takes the slot
    for delay_ms in (0, 1):  # in the slice of the node and in the delayed one, which take turns too
        ask(world, Enqueue(first, new(world.local.ids(), 50), delay_ms=delay_ms))
        ask(world, Enqueue(second, new(world.local.ids(), 5), delay_ms=delay_ms))
    world.settle()
    assert [run.header.task for run in starts(world)][1:41].count(second) >= 9


def test_floods_above_and_below_do_not_starve_a_priority_between_them() -> None:
    world = world_with(QUICK)
    for priority in (50, -50):
        ask(world, Enqueue("quick", new(world.local.ids(), 300), priority=priority))
    ask(world, Enqueue("quick", new(world.local.ids(), 1), priority=0))
    world.settle()
    assert [run.header.priority for run in starts(world)].index(0) < 50


def test_a_copy_takes_up_a_dead_letter_again_though_its_home_has_forgotten_the_id() -> None:
    world = world_with(DYING, limits=Limits(id_ttl_ms=1000))
    job = keyed_id("dying", "order-1")
    ask(world, Enqueue("dying", [(job, PARAMS)], keyed=True))
    wait(world, 2000)
    assert ask(world, Retry(job)) == Did(True)
    world.settle()
    assert [run.job for run in starts(world)] == [job, job]


def test_who_waits_for_the_next_round_is_told_that_it_will_not_be() -> None:
    world = world_with(EVERY)
    (round_to_come,) = [job for _, job in world.node.plans.next_rounds()]
    assert ask(world, AwaitResult(round_to_come)) is None
    assert ask(world, Cancel(round_to_come)) == Did(True)
    assert len(world.local.answers) == 2


def test_a_node_with_nothing_but_a_cancelled_job_leaves_at_once() -> None:
    world = world_with(SLOW)
    running, waiting = new(world.local.ids(), 2)
    ask(world, Enqueue("slow", [running, waiting]))
    assert ask(world, Cancel(waiting[0])) == Did(True)
    wait(world, 1000)
    assert ask(world, Leave(60_000)) == Left(0)


def test_an_executor_that_reports_one_end_three_times_ends_one_job() -> None:
    world = world_with(QUICK)
    job, _ = enqueued = world.local.ids().take(), PARAMS
    ask(world, Enqueue("quick", [enqueued]))
    wait(world, 100)
    (report,) = [
        report for step in world.story if step.what == "finished" for report in step.given if report.job == job
    ]
    assert report.verdict is Verdict.DONE
    world.node.executor.repeat(report, report)
    wait(world, 100)
    assert world.seen["late verdict ignored"] == 2
    world.settle()
