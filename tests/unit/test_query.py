"""What people ask: lists, counts, results, statistics, status."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zhero.config import Limits
from zhero.core.effects import Send
from zhero.core.facts import TaskMissing
from zhero.core.messages import (
    AskStats,
    AskStatus,
    AwaitResult,
    Cancel,
    ClusterStatus,
    Did,
    Ended,
    FindJob,
    GiveUp,
    Listed,
    ListJobs,
    Refusal,
    Refused,
    Request,
    Response,
    Retry,
    Stats,
    StopTask,
)
from zhero.core.values import Failure, JobId, Outcome, State, Status, TaskSpec, Verdict, part_id

from ..conversations.harness import BAD, GOOD, ME, START_MS, Node

MAIL, SMS, CLEAN = TaskSpec("mail"), TaskSpec("sms"), TaskSpec("clean", "all")
TICK = TaskSpec("tick", frequency_ms=1000)
NOBODY = JobId(12345)


def node_with_jobs_in_every_state() -> Node:
    node = Node(MAIL, SMS, CLEAN, TICK, capacity=3)
    dead, running, waiting = node.enqueue("mail", 3)
    node.finished(dead, Verdict.DEAD)
    node.started(running)
    node.finished(waiting, Verdict.RETRY, delay_ms=500)
    node.enqueue("sms", 1, delay_ms=100)
    node.enqueue("clean", 1)
    node.enqueue("mail", 2)
    return node


# --- lists and counts -------------------------------------------------------------------------------------------------


def test_a_list_has_every_live_job_once_and_counts_agree_with_it() -> None:
    node = node_with_jobs_in_every_state()
    infos = node.jobs()
    states = sorted(info.state.value for info in infos)
    assert states == ["delayed", "delayed", "delayed", "lent", "lent", "ready", "running"]
    assert len({info.job for info in infos}) == len(infos)
    assert node.queues() == {"delayed": 3, "local": 2, "global": 1, "processing": 1}


def test_a_list_can_be_of_one_task_and_of_limited_length() -> None:
    node = node_with_jobs_in_every_state()
    assert {info.task for info in node.jobs("mail")} == {"mail"}
    assert len(node.jobs("mail")) == 4
    assert [info.task for info in node.jobs("tick")] == ["tick"]
    answer = node.ask(ListJobs("mail", limit=2))
    assert isinstance(answer, Listed)
    assert (len(answer.jobs), answer.total) == (2, 4)
    assert node.jobs("nobody") == []


def test_dead_letters_are_listed_apart() -> None:
    node = node_with_jobs_in_every_state()
    (info,) = node.jobs(dead=True)
    assert (info.state, info.task, info.outcome, info.tries) == (State.DEAD, "mail", BAD, 1)
    assert node.find(info.job) == info
    assert node.jobs("sms", dead=True) == []


def test_a_spread_job_is_found_but_its_parts_are_listed() -> None:
    node = Node(CLEAN, capacity=1)
    (job,) = node.enqueue("clean")
    found = node.find(job)
    assert found is not None
    assert found.state is State.SPREAD
    assert [info.job for info in node.jobs()] == [part_id(job, ME.life.node)]


def test_a_job_is_shown_where_it_is_at_each_hop() -> None:
    node = Node(MAIL)
    (job,) = node.enqueue("mail", delay_ms=100)

    def hop() -> tuple[State, dict[str, int]]:
        info = node.find(job)
        assert info is not None
        return info.state, node.queues()

    hops = [hop()]
    node.tick(101)
    hops.append(hop())
    node.capacity(1)
    hops.append(hop())
    node.started(job)
    hops.append(hop())
    assert hops == [
        (State.DELAYED, {"delayed": 1}),
        (State.READY, {"global": 1}),
        (State.LENT, {"local": 1}),
        (State.RUNNING, {"processing": 1}),
    ]
    info = node.find(job)
    assert info is not None
    assert (info.node, info.started_at_ms) == (ME.life, START_MS + 101)


def test_an_unknown_job_is_not_found() -> None:
    assert Node(MAIL).ask(FindJob(NOBODY)) == Refused(Refusal.UNKNOWN_JOB, f"{NOBODY:032x}")


def parts_of_list(node: Node, dead: bool = False) -> list[list[int]]:
    """The sizes that the jobs of each part of a long list have on the wire, as far as they vary."""
    node.say("cli", Request(1, ListJobs(dead=dead)))
    (send,) = [effect for effect in node.effects if isinstance(effect, Send)]
    parts: list[list[int]] = []
    for place, message in enumerate(send.frame.messages):
        assert isinstance(message, Response)
        assert isinstance(message.answer, Listed)
        assert message.more is (place < len(send.frame.messages) - 1)
        parts.append(
            [
                len(info.params) + (len(info.outcome.failure.traceback) if info.outcome and info.outcome.failure else 0)
                for info in message.answer.jobs
            ]
        )
    return parts


def test_a_long_list_for_a_client_goes_out_in_parts_of_limited_size() -> None:
    node = Node(MAIL, limits=Limits(answer_max_bytes=10_000))
    for size in (3000, 3000, 3000, 9000, 20_000, 10, 10):
        node.enqueue("mail", params=bytes(size))
    parts = parts_of_list(node)
    assert [size for part in parts for size in part] == [3000, 3000, 3000, 9000, 20_000, 10, 10]
    assert all(sum(part) <= 10_000 or len(part) == 1 for part in parts)


def test_tracebacks_count_towards_the_size_of_a_part() -> None:
    node = Node(MAIL, capacity=20, limits=Limits(answer_max_bytes=10_000))
    for job in node.enqueue("mail", 20):
        node.finished(job, Verdict.DEAD, Outcome(Status.FAILED, failure=Failure("E", "no", "x" * 4000)))
    parts = parts_of_list(node, dead=True)
    assert sum(map(len, parts)) == 20
    assert all(sum(part) <= 10_000 for part in parts)


def test_an_empty_list_is_one_answer() -> None:
    assert parts_of_list(Node(MAIL)) == [[]]


# --- results ----------------------------------------------------------------------------------------------------------


def test_everybody_who_waits_is_told_once() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    refs: list[int] = []
    for _ in range(3):
        assert node.ask(AwaitResult(job)) is None
        refs.append(node.last_ref)
    node.finished(job)
    assert node.answers == dict.fromkeys(refs, Ended(job, GOOD))


def test_whoever_gave_up_is_not_told() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.ask(AwaitResult(job))
    first = node.last_ref
    node.ask(AwaitResult(job))
    node.give_up(first)
    node.give_up(first)
    node.give_up(999)
    node.finished(job)
    assert list(node.answers) == [first + 1]


def test_a_dead_letter_has_its_outcome_longer_than_results_are_kept() -> None:
    node = Node(replace(MAIL, result_ttl_ms=100), capacity=1)
    (job,) = node.enqueue("mail")
    node.finished(job, Verdict.DEAD)
    node.tick(60_000)
    assert node.ask(AwaitResult(job)) == Ended(job, BAD)
    node.ask(Retry(job))
    assert node.ask(AwaitResult(job)) is None


def test_nobody_waits_for_a_job_that_is_not_known() -> None:
    assert Node(MAIL).ask(AwaitResult(NOBODY)) == Refused(Refusal.UNKNOWN_JOB, f"{NOBODY:032x}")


def test_a_client_that_repeats_its_request_is_told_once() -> None:
    node = Node(MAIL, capacity=1)
    first, second = node.enqueue("mail", 2)
    for job in (first, first, second):
        node.say("cli", Request(7, AwaitResult(job)))  # a ref stands for one request: the last one counts
    node.finished(first)
    assert node.messages == []
    node.finished(second)
    assert node.messages == [Response(7, Ended(second, GOOD))]


def test_equal_refs_of_two_clients_and_of_the_own_process_are_kept_apart() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    for client in ("one", "two"):
        node.say(client, Request(2, AwaitResult(job)))
    node.ask(AwaitResult(job))
    node.say("one", GiveUp(2))
    node.finished(job)
    assert node.messages == [Response(2, Ended(job, GOOD))]
    assert node.answers == {2: Ended(job, GOOD)}


def test_waiters_are_bounded_and_a_place_that_is_left_is_free() -> None:
    node = Node(MAIL, capacity=1, limits=Limits(waiters_max_count=2))
    (job,) = node.enqueue("mail")
    node.ask(AwaitResult(job))
    first = node.last_ref
    node.ask(Cancel(job))
    full = Refused(Refusal.QUEUE_FULL, "too many callers wait for results")
    assert node.ask(AwaitResult(job)) == full
    node.give_up(first)
    assert node.ask(AwaitResult(job)) is None


@pytest.mark.parametrize(
    ("verdict", "cancelled"),
    [
        (Verdict.CANCELLED, True),
        (Verdict.RETRY, True),
        (Verdict.SNOOZE, True),
        (Verdict.DONE, False),
        (Verdict.DEAD, False),
    ],
)
def test_whoever_cancels_what_runs_is_told_what_its_verdict_made_of_it(verdict: Verdict, cancelled: bool) -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    assert node.ask(Cancel(job)) is None
    node.finished(job, verdict, delay_ms=10)
    assert node.answers == {node.last_ref: Did(cancelled)}


# --- statistics and status --------------------------------------------------------------------------------------------


def test_statistics_count_what_happened_by_task() -> None:
    node = node_with_jobs_in_every_state()
    answer = node.ask(AskStats())
    assert isinstance(answer, Stats)
    zero = dict.fromkeys(answer.totals, 0)
    assert answer.tasks["mail"] == zero | {"enqueued": 5, "started": 1, "dead": 1, "retried": 1}
    assert answer.tasks["clean"] == zero | {"enqueued": 1}
    assert answer.totals == zero | {"enqueued": 7, "started": 1, "dead": 1, "retried": 1}


def test_of_an_all_job_its_parts_are_counted() -> None:
    node = Node(CLEAN, capacity=1)
    (job,) = node.enqueue("clean")
    part = part_id(job, ME.life.node)
    node.started(part)
    node.finished(part)
    assert node.stats() == {"enqueued": 1, "started": 1, "succeeded": 1}


def test_the_status_tells_of_members_queues_schedules_and_time() -> None:
    node = node_with_jobs_in_every_state()
    node.tick(50)
    status = node.ask(AskStatus())
    assert isinstance(status, ClusterStatus)
    (member,) = status.members
    assert (member.member, member.owner, member.slots, member.busy) == (ME, True, 3, 3)
    assert member.tasks == ["clean", "mail", "sms", "tick"]
    assert status.queues == {"global": 1, "local": 2, "delayed": 3, "processing": 1}
    assert (status.dead, status.missing, status.uptime_ms) == (1, [], 50)
    (plan,) = status.plans
    assert (plan.task, plan.frequency_ms, plan.due_in_ms, plan.stopped) == ("tick", 1000, 950, False)


def test_a_schedule_has_a_due_time_only_while_it_waits_for_it() -> None:
    node = Node(TICK, capacity=1)
    node.tick(1001)
    (job,) = node.started_jobs
    assert node.status().plans[0].due_in_ms is None
    node.finished(job)
    assert node.status().plans[0].due_in_ms == 1000
    node.ask(StopTask("tick"))
    (plan,) = node.status().plans
    assert (plan.due_in_ms, plan.stopped) == (None, True)


def test_a_task_is_missing_while_ready_jobs_wait_for_it_and_nobody_has_it() -> None:
    node = Node(MAIL, SMS)
    ready, cancelled = node.enqueue("mail", 2)
    (delayed,) = node.enqueue("sms", delay_ms=100)
    node.define()
    assert node.facts == [TaskMissing("mail", 2)]
    assert node.status().missing == ["mail"]
    node.tick(101)
    assert node.facts == [TaskMissing("sms", 1)]
    node.tick(10)
    assert node.facts == []
    node.define()
    assert node.facts == [TaskMissing("mail", 2), TaskMissing("sms", 1)]
    for job in (ready, cancelled, delayed):
        node.ask(Cancel(job))
    assert node.status().missing == []
