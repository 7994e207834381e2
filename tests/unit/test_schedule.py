"""When: delayed jobs and the rounds of periodic tasks, at one node. Whole courses are in `conversations/`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zhero.core.facts import TaskScheduled, TaskUnscheduled
from zhero.core.messages import (
    Accepted,
    AwaitResult,
    Cancel,
    Did,
    Ended,
    Enqueue,
    Leave,
    Left,
    Refusal,
    Refused,
    Retry,
    StartTask,
    StopTask,
)
from zhero.core.values import NO_PARAMS, Outcome, State, Status, TaskSpec, Verdict, part_id, round_id

from ..conversations.harness import ME, START_MS, Node

MAIL = TaskSpec("mail")
TICK = TaskSpec("tick", frequency_ms=1000)
CRASHED = Outcome(Status.CRASHED)


def spans_between_starts(node: Node, rounds: int, run_ms: int) -> list[int]:
    """Let rounds come and go; ms from the end of each to the start of the next, the first from now."""
    spans: list[int] = []
    since_ms = node.now_ms
    for _ in range(rounds):
        while not node.starts:
            node.tick_until_due()
        (run,) = node.starts
        spans.append(node.now_ms - since_ms)
        node.started(run.job)
        node.tick(run_ms)
        node.finished(run.job)
        since_ms = node.now_ms
    return spans


# --- delayed jobs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_ms", [1, 2, 10, 999, 86_400_000])
def test_a_delayed_job_starts_as_soon_as_it_surely_is_not_early(delay_ms: int) -> None:
    node = Node(MAIL, capacity=1)
    node.enqueue("mail", delay_ms=delay_ms)
    assert node.engine.deadline_ms() == START_MS + delay_ms + 1
    node.tick(delay_ms)
    assert node.starts == []
    node.tick(1)
    assert len(node.starts) == 1


def test_overdue_jobs_all_run_the_one_due_first_first() -> None:
    node = Node(MAIL, capacity=10)
    delays_ms = [500, 100, 300, 200, 400]
    jobs = {delay_ms: node.enqueue("mail", delay_ms=delay_ms)[0] for delay_ms in delays_ms}
    node.tick(10_000)
    assert node.started_jobs == [jobs[delay_ms] for delay_ms in sorted(delays_ms)]


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.SNOOZE])
def test_a_wait_between_runs_is_at_least_as_long_as_asked_for(verdict: Verdict) -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.finished(job, verdict, delay_ms=300)
    node.tick(300)
    assert node.starts == []
    node.tick(1)
    assert node.started_jobs == [job]


# --- rounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_ms", [0, 1, 700, 5000])
def test_rounds_keep_their_distance_from_end_to_start(run_ms: int) -> None:
    node = Node(TICK, capacity=1)
    assert spans_between_starts(node, 4, run_ms) == [1001] * 4  # 1000 by a clock that is rounded down


@pytest.mark.parametrize(
    ("run_ms", "spans"), [(0, [1001, 1000, 1000]), (700, [1001, 300, 300]), (1200, [1001, 800, 800])]
)
def test_a_fixed_rate_counts_from_due_to_due(run_ms: int, spans: list[int]) -> None:
    node = Node(replace(TICK, fixed_rate=True), capacity=1)
    assert spans_between_starts(node, 3, run_ms) == spans


@pytest.mark.parametrize("fixed_rate", [False, True])
@pytest.mark.parametrize("scope", ["any", "all"])
def test_an_overdue_round_runs_once(fixed_rate: bool, scope: str) -> None:
    spec = TaskSpec("tick", "all" if scope == "all" else "any", 1000, fixed_rate)
    node = Node(spec, capacity=1)
    node.tick(3_600_300)
    assert len(node.starts) == 1
    node.finished(node.starts[0].job)
    node.tick(500)
    assert node.starts == []


def test_a_round_has_the_id_of_its_number_and_the_number_only_grows() -> None:
    node = Node(TICK, capacity=1)
    base = START_MS // 1000
    for number in (1, 2, 3):
        node.tick(1001)
        (run,) = node.starts
        assert (run.job, run.number) == (round_id("tick", base + number), base + number)
        node.finished(run.job)
    node.ask(StopTask("tick"))
    node.tick(60_000)
    node.ask(StartTask("tick"))
    node.tick(1001)
    assert node.starts[0].number == (START_MS + 3 * 1001 + 60_000) // 1000 + 1


def test_an_all_task_with_a_fixed_rate_stays_on_its_grid() -> None:
    node = Node(TaskSpec("sweep", "all", 1000, fixed_rate=True), capacity=1)
    node.tick(3500)
    node.finished(node.starts[0].job)
    assert node.engine.deadline_ms() == START_MS + 4001


def test_many_periodic_tasks_share_one_slot_and_all_go_on() -> None:
    specs = [TaskSpec(f"t{number}", frequency_ms=10 + number) for number in range(5)]
    node = Node(*specs, capacity=1)
    rounds = dict.fromkeys((spec.name for spec in specs), 0)
    for _ in range(150):
        if not node.starts:
            node.tick_until_due()
        for run in node.starts:
            rounds[run.header.task] += 1
            node.tick(1)
            node.finished(run.job)
    assert all(count >= 20 for count in rounds.values()), rounds


def test_run_on_start_is_only_for_the_first_start_of_a_schedule() -> None:
    warm = TaskSpec("warm", frequency_ms=5000, run_on_start=True)
    node = Node(warm, capacity=1)
    node.tick()
    (job,) = node.started_jobs
    node.finished(job)
    node.define(warm, MAIL)
    node.tick()
    assert node.starts == []


# --- stop, start, skip ------------------------------------------------------------------------------------------------


def test_a_second_schedule_is_refused_in_every_state_of_the_first() -> None:
    node = Node(TICK, capacity=1)
    call = Enqueue("tick", [(node.new_id(), NO_PARAMS)])
    assert node.ask(call) == Refused(Refusal.ALREADY_QUEUED, "tick")
    node.tick(1001)
    (job,) = node.started_jobs
    assert node.ask(call) == Refused(Refusal.ALREADY_QUEUED, "tick")
    node.finished(job, Verdict.RETRY, delay_ms=100)
    assert node.ask(call) == Refused(Refusal.ALREADY_QUEUED, "tick")


def test_a_stopped_task_takes_the_definition_of_when_it_is_started_again() -> None:
    node = Node(TICK, capacity=1)
    node.ask(StopTask("tick"))
    node.define(replace(TICK, frequency_ms=200))
    assert node.facts == []
    assert node.engine.deadline_ms() is None
    node.ask(StartTask("tick"))
    assert node.facts == [TaskScheduled("tick", 200)]
    assert node.engine.deadline_ms() == START_MS + 201


@pytest.mark.parametrize("fixed_rate", [False, True])
def test_a_delay_asked_for_while_the_last_round_runs_holds(fixed_rate: bool) -> None:
    node = Node(replace(TICK, fixed_rate=fixed_rate), capacity=1)
    node.tick(1001)
    (job,) = node.started_jobs
    node.ask(StopTask("tick"))
    (planned,) = node.enqueue("tick", delay_ms=9000)
    due_ms = node.now_ms + 9001
    node.finished(job)
    assert node.engine.deadline_ms() == due_ms
    node.tick(9001)
    assert node.started_jobs == [planned]


def test_stopping_says_so_once() -> None:
    node = Node(TICK, capacity=1)
    assert node.ask(StopTask("tick")) == Did(True)
    assert node.facts == [TaskUnscheduled("tick", "somebody stopped it")]
    assert node.ask(StopTask("tick")) == Did(False)
    assert node.facts == []


def test_the_round_to_come_can_be_awaited_and_its_cancel_is_told() -> None:
    node = Node(TICK, capacity=1)
    (info,) = node.jobs()
    assert node.ask(AwaitResult(info.job)) is None
    waiting = node.last_ref
    assert node.ask(Cancel(info.job)) == Did(True)
    assert node.answers[waiting] == Ended(info.job, Outcome(Status.CANCELLED))
    (following,) = node.jobs()
    assert following.number == info.number + 1
    assert following.run_at_ms == info.run_at_ms + 1000


def test_whoever_waits_for_a_round_that_was_skipped_by_a_stop_is_told() -> None:
    node = Node(TICK, capacity=1)
    (info,) = node.jobs()
    node.ask(AwaitResult(info.job))
    waiting = node.last_ref
    node.ask(StopTask("tick"))
    assert node.answers[waiting] == Ended(info.job, Outcome(Status.CANCELLED))


# --- bad ends ---------------------------------------------------------------------------------------------------------

ONCE = replace(TICK, reenqueue_on_error=False)
BAD = [Status.FAILED, Status.TIMED_OUT, Status.CRASHED, Status.DISCARDED]


@pytest.mark.parametrize("status", BAD)
@pytest.mark.parametrize("spec", [TICK, ONCE], ids=["goes on", "stops"])
def test_a_bad_end_stops_only_what_does_not_go_on(spec: TaskSpec, status: Status) -> None:
    node = Node(spec, capacity=1)
    node.tick(1001)
    node.finished(node.starts[0].job, Verdict.DEAD, Outcome(status))
    (plan,) = node.status().plans
    assert plan.stopped is (spec is ONCE)


def test_neither_a_cancel_nor_a_retry_stops_it() -> None:
    node = Node(ONCE, capacity=1)
    node.tick(1001)
    (job,) = node.started_jobs
    node.finished(job, Verdict.RETRY, delay_ms=10)
    node.tick(11)
    node.ask(Cancel(job))
    node.finished(job, Verdict.CANCELLED)
    assert not node.status().plans[0].stopped


def test_a_part_of_an_older_round_stops_an_all_task_too() -> None:
    node = Node(replace(ONCE, scope="all"), capacity=1)
    node.tick(1001)
    (part,) = node.started_jobs
    node.tick(1001)  # the next round has been dispatched meanwhile
    node.finished(part, Verdict.DEAD, CRASHED)
    assert node.status().plans[0].stopped


def test_a_dead_letter_that_is_tried_again_leaves_the_schedule_alone() -> None:
    node = Node(ONCE, capacity=1)
    node.tick(1001)
    (job,) = node.started_jobs
    node.finished(job, Verdict.DEAD)
    node.ask(StartTask("tick"))
    due_ms = node.engine.deadline_ms()
    node.ask(Retry(job))
    assert node.starts[0].number == 0
    node.finished(job, Verdict.DEAD)
    assert not node.status().plans[0].stopped
    assert node.engine.deadline_ms() == due_ms


# --- definitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gone", [(MAIL,), (replace(TICK, frequency_ms=0), MAIL)], ids=["no definition", "not periodic"]
)
def test_a_schedule_sleeps_without_its_definition_and_wakes_with_it(gone: tuple[TaskSpec, ...]) -> None:
    node = Node(TICK, MAIL, capacity=1)
    node.define(*gone)
    assert [fact.task for fact in node.facts if isinstance(fact, TaskUnscheduled)] == ["tick"]
    assert node.engine.deadline_ms() is None
    assert node.jobs() == []
    node.tick(400)
    node.define(TICK, MAIL)
    assert node.facts == [TaskScheduled("tick", 600)]
    node.tick(601)
    assert len(node.starts) == 1


def test_a_definition_that_vanishes_while_a_round_runs_leaves_the_round_alone() -> None:
    node = Node(TICK, MAIL, capacity=1)
    node.tick(1001)
    (job,) = node.started_jobs
    node.define(MAIL)
    node.finished(job)
    assert node.jobs() == []
    node.define(TICK, MAIL)
    assert [info.state for info in node.jobs()] == [State.DELAYED]


def test_what_somebody_stopped_does_not_come_back_with_its_definition() -> None:
    node = Node(TICK, MAIL, capacity=1)
    node.ask(StopTask("tick"))
    node.define(MAIL)
    node.define(TICK, MAIL)
    assert node.facts == []
    assert node.engine.deadline_ms() is None


def test_a_leaving_node_begins_no_round_but_promotes_delayed_jobs() -> None:
    node = Node(TICK, MAIL, capacity=1)
    (job,) = node.enqueue("mail", delay_ms=1500)
    node.ask(Leave(5000))
    node.tick(1501)
    assert node.started_jobs == [job]
    node.finished(job)
    assert list(node.answers.values()) == [Left(0)]


def test_the_round_to_come_shows_as_a_delayed_job() -> None:
    node = Node(TaskSpec("sweep", "all", 1000, priority=3), capacity=1)
    (info,) = node.jobs()
    assert (info.state, info.task, info.scope, info.priority) == (State.DELAYED, "sweep", "all", 3)
    assert node.find(info.job) == info
    assert node.queues() == {"delayed": 1}
    node.tick(1001)
    assert node.started_jobs == [part_id(info.job, ME.life.node)]


def test_an_enqueue_after_a_stop_is_the_round_to_come() -> None:
    node = Node(TICK, capacity=1)
    node.ask(StopTask("tick"))
    answer = node.ask(Enqueue("tick", [(node.new_id(), NO_PARAMS)], delay_ms=50))
    (info,) = node.jobs()
    assert answer == Accepted([info.job])
    assert info.run_at_ms == START_MS + 51
