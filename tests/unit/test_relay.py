"""Calls that another member answers: from any node, about any job, whoever is its home or the owner by then."""

from __future__ import annotations

from functools import partial

import pytest

from tests.unit.cluster import TICK, Cluster, Peer, T, formed
from zhero.config import Limits
from zhero.core.messages import (
    Accepted,
    Ask,
    AskStatus,
    AwaitResult,
    Cancel,
    ClusterStatus,
    Did,
    Discard,
    Ended,
    Enqueue,
    GiveUp,
    Refusal,
    Refused,
    Retry,
    StartTask,
    StopTask,
)
from zhero.core.values import NO_PARAMS, Finished, JobId, Outcome, Status, Verdict, keyed_id, round_id

EACH = pytest.mark.parametrize("name", ["a", "b", "c"])
"""The owner, its standby, and one that is neither; each is no home of the job that is asked about, but one."""


def three(works_ms: int | None = 20, limits: Limits | None = None) -> tuple[Cluster, Peer, Peer, Peer]:
    cluster = formed("a", "b", "c", works_ms=works_ms, limits=limits)
    a, b, c = cluster.peers.values()
    assert a.owns
    return cluster, a, b, c


# --- the owner ----------------------------------------------------------------------------------------------------


@EACH
def test_a_delayed_job_can_be_enqueued_anywhere_and_is_its_owners(name: str) -> None:
    cluster, a, _, _ = three()
    peer = cluster.peers[name]
    (job,) = peer.put("t", delay_ms=1_000)
    put_at_ms = cluster.now_ms
    cluster.until(lambda: peer.answer == Accepted([job]), 100)
    assert a.engine.streams.delayed is not None
    assert job in a.engine.streams.delayed.slice
    cluster.run(3_000)
    (begun,) = cluster.runs_of([job])
    assert 1_000 < begun.at_ms - put_at_ms < 1_100
    assert peer.outcomes([job]) == {"succeeded": 1}


@EACH
def test_an_id_of_the_callers_own_is_one_job_wherever_it_is_enqueued(name: str) -> None:
    cluster, _, _, _ = three()
    job = keyed_id("t", "invoice")
    call = Enqueue("t", [(job, NO_PARAMS)], keyed=True)
    for peer in cluster.peers.values():
        peer.ask(call)
    cluster.run(1_000)
    assert cluster.peers[name].hear(call) == Accepted([job])
    cluster.run(1_000)
    assert len(cluster.runs_of([job])) == 1


@EACH
def test_a_periodic_task_is_started_and_stopped_from_anywhere(name: str) -> None:
    cluster, _, _, _ = three()
    peer = cluster.peers[name]
    peer.define(T, TICK)
    cluster.run(2_500)
    tick = Enqueue("tick", [(JobId(1), NO_PARAMS)])
    assert peer.hear(tick) == Refused(Refusal.ALREADY_QUEUED, "tick")
    assert peer.hear(StopTask("tick")) == Did(True)
    assert peer.hear(StopTask("tick")) == Did(False)
    assert isinstance(peer.hear(tick), Accepted)
    assert peer.hear(StopTask("tick")) == Did(True)
    before = len(cluster.begun)
    cluster.run(3_000)
    assert len(cluster.begun) == before
    assert peer.hear(StartTask("tick")) == Did(True)
    cluster.run(3_500)
    assert {it.peer for it in cluster.begun[before:]} == {name}
    assert len(cluster.begun) - before == 3
    assert isinstance(peer.hear(StopTask("t")), Refused)


@EACH
def test_the_next_round_can_be_waited_for_and_cancelled_from_anywhere(name: str) -> None:
    cluster, _, b, _ = three()
    b.define(T, TICK)
    cluster.run(1_500)
    number = max(it.run.number for it in cluster.begun if it.run.header.task == "tick") + 1
    peer = cluster.peers[name]
    ref = peer.ask(AwaitResult(round_id("tick", number)))
    cluster.run(2_000)
    assert isinstance(peer.replies.get(ref), Ended)
    number = max(it.run.number for it in cluster.begun if it.run.header.task == "tick") + 1
    assert peer.hear(Cancel(round_id("tick", number))) == Did(True)
    cluster.run(3_000)
    assert number not in {it.run.number for it in cluster.begun}


def test_whoever_asks_while_the_owner_dies_is_answered_by_the_next() -> None:
    cluster, _, b, c = three()
    cluster.kill("a")
    put_at_ms = cluster.now_ms
    jobs = b.put("t", 3, delay_ms=4_000) + c.put("t", 3, delay_ms=4_000)
    cluster.until(lambda: isinstance(b.answer, Accepted) and isinstance(c.answer, Accepted), 9_000)
    cluster.run(6_000)
    began = cluster.runs_of(jobs)
    assert len(began) == 6
    assert all(4_000 < it.at_ms - put_at_ms < 4_600 for it in began)  # what has been waited is taken off the span


def test_without_an_owner_that_answers_nothing_is_accepted_and_nothing_runs() -> None:
    cluster, a, b, _ = three(limits=Limits(accept_timeout_ms=2_000))
    a.age_from_ms = cluster.now_ms
    (job,) = b.put("t", delay_ms=100)
    cluster.run(2_100)
    assert isinstance(b.answer, Refused)
    assert b.answer.why is Refusal.NOT_ACCEPTED
    assert not cluster.runs_of([job])


def test_a_job_that_a_blocked_owner_may_have_taken_is_not_refused_by_the_next_one() -> None:
    cluster, a, b, c = three(works_ms=60_000, limits=Limits(jobs_max=4, accept_timeout_ms=20_000))
    b.put("t", 4, delay_ms=0)
    (job,) = c.put("t", delay_ms=15_000)
    a.age_from_ms = cluster.now_ms  # before it hears of it; when it wakes, it takes the job
    cluster.until(lambda: b.owns, 9_000)
    cluster.until(lambda: c.answer is not None)
    assert c.answer == Refused(Refusal.NOT_ACCEPTED, f"{job:032x}")


def test_a_large_batch_for_later_is_refused_where_it_could_not_be_sent_on() -> None:
    cluster, a, b, _ = three()
    jobs = [(cluster.new_id(), bytes(100_000)) for _ in range(20)]
    answer = b.hear(Enqueue("t", jobs, delay_ms=50))
    assert isinstance(answer, Refused)
    assert answer.why is Refusal.TOO_LARGE
    assert isinstance(a.hear(Enqueue("t", jobs, delay_ms=50)), Accepted)
    assert isinstance(b.hear(Enqueue("t", jobs[:8], delay_ms=50)), Accepted)
    cluster.run(2_000)
    assert len(cluster.runs_of([job for job, _ in jobs])) == 20


def test_what_is_wrong_with_a_call_is_said_at_once_without_a_message() -> None:
    cluster, _, b, _ = three()
    said = len(cluster.frames)
    for call, why in (
        (Enqueue("nobody", [(JobId(1), NO_PARAMS)], delay_ms=5), Refusal.UNKNOWN_TASK),
        (Enqueue("t", [], delay_ms=5), Refusal.TOO_LARGE),
        (Enqueue("t", [(JobId(1), NO_PARAMS)], delay_ms=-1), Refusal.PARAMS_INVALID),
    ):
        b.ask(call)
        assert isinstance(b.answer, Refused)
        assert b.answer.why is why
    assert len(cluster.frames) == said


# --- the home of a job --------------------------------------------------------------------------------------------


@EACH
def test_a_result_can_be_asked_for_anywhere_before_and_after_the_end(name: str) -> None:
    cluster, _, b, _ = three(works_ms=200)
    jobs = b.put("t", 6)
    cluster.run(20)
    peer = cluster.peers[name]
    refs = [peer.ask(AwaitResult(job)) for job in jobs]
    cluster.run(10)
    assert not any(ref in peer.replies for ref in refs)
    cluster.run(500)
    assert all(isinstance(peer.replies.get(ref), Ended) for ref in refs)
    assert peer.outcomes(jobs) == {"succeeded": 6}


@EACH
@pytest.mark.parametrize("state", ["ready", "delayed", "running"])
def test_a_job_can_be_cancelled_anywhere(name: str, state: str) -> None:
    cluster, _, b, _ = three(works_ms=5_000)
    if state == "ready":
        for it in cluster.peers.values():
            it.do(partial(it.engine.capacity, 0))
        cluster.run(1_000)
    (job,) = b.put("t", delay_ms=60_000 if state == "delayed" else 0)
    cluster.run(100)
    peer = cluster.peers[name]
    assert peer.hear(Cancel(job), 1_000) == Did(True)
    assert peer.outcomes([job]) == {"cancelled": 1}
    assert peer.hear(Cancel(job), 1_000) == Did(False)
    assert len(cluster.runs_of([job])) == (state == "running")
    assert not any(it.executing for it in cluster.peers.values())


@EACH
def test_a_dead_letter_is_retried_and_discarded_from_anywhere(name: str) -> None:
    cluster, a, b, c = three(works_ms=None)
    for it in (a, c):
        it.do(partial(it.engine.capacity, 0))
    cluster.run(1_000)
    one, other = b.put("t", 2)
    cluster.run(20)
    failed = Outcome(Status.FAILED)
    b.do(partial(b.engine.finished, [Finished(job, 1, Verdict.DEAD, failed) for job in (one, other)]))
    peer = cluster.peers[name]
    assert peer.outcomes([one, other]) == {"failed": 2}
    assert peer.hear(Retry(one)) == Did(True)
    assert peer.hear(Discard(other)) == Did(True)
    assert peer.hear(Retry(one)) == Did(False)
    cluster.run(20)
    assert [(run.job, run.attempt, run.tries) for run in b.runs[2:]] == [(one, 2, 1)]
    answer = peer.hear(Discard(other))
    assert isinstance(answer, Refused)
    assert answer.why is Refusal.UNKNOWN_JOB


@EACH
def test_an_all_job_is_cancelled_from_anywhere(name: str) -> None:
    cluster, _, b, _ = three(works_ms=5_000)
    (job,) = b.put("all")
    cluster.run(100)
    assert len(cluster.begun) == 3
    peer = cluster.peers[name]
    assert peer.hear(Cancel(job), 1_000) == Did(True)
    answer = peer.hear(AwaitResult(job))
    assert isinstance(answer, Ended)
    assert answer.outcome.status is Status.CANCELLED
    assert [it.outcome.status for it in answer.parts or ()] == [Status.CANCELLED] * 3


@EACH
def test_an_unknown_job_is_unknown_at_once(name: str) -> None:
    cluster, _, _, _ = three()
    peer = cluster.peers[name]
    job = JobId(12345)
    for call in (AwaitResult(job), Retry(job), Discard(job)):
        assert peer.hear(call, 50) == Refused(Refusal.UNKNOWN_JOB, f"{job:032x}")
    assert peer.hear(Cancel(job), 50) == Did(False)


def test_that_a_job_is_unknown_is_doubted_while_its_home_may_be_changing() -> None:
    cluster, _, b, c = three(works_ms=1_000)
    (job,) = b.put("t")
    cluster.run(20)
    cluster.kill("b")
    ref = c.ask(AwaitResult(job))
    cluster.run(300)
    assert ref not in c.replies
    cluster.run(8_000)
    answer = c.replies.get(ref)
    assert isinstance(answer, Ended)
    assert answer.outcome.status is Status.SUCCEEDED


def test_the_result_of_a_job_whose_home_has_died_is_known_to_who_took_over() -> None:
    cluster, a, b, c = three()
    jobs = b.put("t", 40)
    cluster.run(2_000)
    assert len(cluster.runs_of(jobs)) == 40
    cluster.kill("b")
    cluster.run(3_000)
    assert a.outcomes(jobs) == c.outcomes(jobs) == {"succeeded": 40}
    assert len(cluster.runs_of(jobs)) == 40


def test_a_member_that_does_not_answer_delays_only_what_is_unknown() -> None:
    cluster, a, b, c = three(works_ms=10)
    (job,) = b.put("t")
    cluster.run(100)
    c.age_from_ms = cluster.now_ms
    cluster.run(2_000)
    assert isinstance(a.hear(AwaitResult(job), 100), Ended)


def test_whoever_gave_up_is_not_answered_and_the_home_forgets_it() -> None:
    cluster, a, b, _ = three(works_ms=1_000)
    (job,) = b.put("t")
    cluster.run(20)
    ref = a.ask(AwaitResult(job))
    cluster.run(20)
    a.engine.give_up(ref)
    a.ask(AskStatus())  # with the next frame
    cluster.run(20)
    assert GiveUp(cluster.said(Ask)[0].ref) in cluster.said(GiveUp)
    cluster.run(3_000)
    assert ref not in a.replies


def test_what_is_about_the_cluster_is_asked_of_each_member_once() -> None:
    cluster, a, _, _ = three()
    said = len(cluster.said(Ask))
    status = a.hear(AskStatus())
    assert isinstance(status, ClusterStatus)
    assert len(cluster.said(Ask)) - said == 2
    assert status.silent == []
