"""Scope "all" at one node: spread, skipped, ended with the last part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zhero.config import Limits
from zhero.core.messages import AwaitResult, Cancel, Did, Ended, Enqueue, PartEnded, Retry
from zhero.core.values import (
    NO_PARAMS,
    NOTHING,
    Failure,
    Outcome,
    State,
    Status,
    TaskSpec,
    Verdict,
    keyed_id,
    part_id,
)

from ..conversations.harness import BAD, GOOD, ME, Node

CLEAN = TaskSpec("clean", "all")
SWEEP = TaskSpec("sweep", "all", frequency_ms=1000)


def answered(node: Node, ref: int) -> Ended:
    answer = node.answers[ref]
    assert isinstance(answer, Ended)
    return answer


def test_every_member_with_the_task_and_a_worker_runs_it_once() -> None:
    node = Node(CLEAN, capacity=3)
    (job,) = node.enqueue("clean")
    assert node.started_jobs == [part_id(job, ME.life.node)]
    assert node.starts[0].header.scope == "all"
    assert node.starts[0].params == b"\x80"


@pytest.mark.parametrize(
    ("verdict", "outcome", "whole"),
    [
        (Verdict.DONE, GOOD, Outcome(Status.SUCCEEDED, NOTHING)),
        (Verdict.DEAD, BAD, Outcome(Status.FAILED, b"", Failure("ValueError", "no"))),
        (Verdict.DEAD, Outcome(Status.TIMED_OUT), Outcome(Status.FAILED)),
        (Verdict.CANCELLED, Outcome(Status.CANCELLED), Outcome(Status.CANCELLED)),
    ],
)
def test_the_end_of_its_last_part_ends_it_and_names_every_member(
    verdict: Verdict, outcome: Outcome, whole: Outcome
) -> None:
    node = Node(CLEAN, capacity=1)
    (job,) = node.enqueue("clean")
    node.ask(AwaitResult(job))
    node.finished(part_id(job, ME.life.node), verdict, outcome)
    assert answered(node, node.last_ref) == Ended(job, whole, [PartEnded(ME, outcome)])
    assert node.queues() == {}
    assert node.ask(AwaitResult(job)) == Ended(job, whole, [PartEnded(ME, outcome)])


def test_a_member_without_a_worker_is_reported_as_skipped() -> None:
    node = Node(CLEAN)
    (job,) = node.enqueue("clean")
    skipped = Outcome(Status.SKIPPED)
    assert node.ask(AwaitResult(job)) == Ended(job, skipped, [PartEnded(ME, skipped)])


def test_without_any_member_that_has_the_task_it_waits() -> None:
    node = Node(CLEAN, TaskSpec("mail"), capacity=1)
    (job,) = node.enqueue("clean", delay_ms=100)
    node.define(TaskSpec("mail"))
    node.tick(101)
    assert node.starts == []
    assert [info.state for info in node.jobs()] == [State.READY]
    node.define(CLEAN)
    assert node.started_jobs == [part_id(job, ME.life.node)]


def test_several_parts_that_end_in_one_report_end_each_their_job() -> None:
    node = Node(CLEAN, capacity=5)
    jobs = node.enqueue("clean", 3)
    node.report(*(node.verdict(part_id(job, ME.life.node)) for job in jobs))
    assert node.jobs() == []
    assert all(node.ask(AwaitResult(job)) == Ended(job, GOOD, [PartEnded(ME, GOOD)]) for job in jobs)


def test_a_member_still_busy_with_the_last_round_skips_this_one() -> None:
    node = Node(SWEEP, capacity=5)
    node.tick(1001)
    (part,) = node.started_jobs
    for verdict in (Verdict.RETRY, Verdict.DONE):
        node.tick(1001)
        assert node.started_jobs in ([], [part])  # a new run of the same part, and no other
        node.finished(part, verdict, delay_ms=1500)
        node.tick(1502)
    assert node.runs[part].attempt == 2
    assert len(node.runs) == 2


def test_jobs_that_people_enqueue_are_not_skipped_however_busy_a_member_is() -> None:
    node = Node(CLEAN, capacity=1)
    node.enqueue("clean", 3)
    assert node.queues() == {"local": 1, "global": 2}


def test_a_part_that_waits_is_cancelled_with_its_job() -> None:
    node = Node(CLEAN, capacity=1)
    _, second = node.enqueue("clean", 2)
    assert node.ask(Cancel(second)) == Did(True)
    assert node.stops == []
    assert node.queues() == {"local": 1}


def test_a_run_that_cannot_be_stopped_is_told_to_who_wants_the_whole_cancelled() -> None:
    node = Node(CLEAN, capacity=1)
    (job,) = node.enqueue("clean")
    part = part_id(job, ME.life.node)
    assert node.ask(Cancel(job)) is None
    assert node.stops == [part]
    node.cannot_stop(part)
    assert node.answers == {node.last_ref: Did(False)}
    node.finished(part)
    assert node.answers == {}


def test_a_dead_part_that_is_tried_again_leaves_the_outcome_of_the_job_alone() -> None:
    node = Node(CLEAN, capacity=1)
    (job,) = node.enqueue("clean")
    part = part_id(job, ME.life.node)
    node.finished(part, Verdict.DEAD)
    before = node.ask(AwaitResult(job))
    assert node.ask(Retry(part)) == Did(True)
    node.finished(part)
    assert node.ask(AwaitResult(job)) == before
    assert node.ask(AwaitResult(part)) == Ended(part, GOOD)


def test_only_rounds_are_skipped_and_only_for_rounds() -> None:
    node = Node(SWEEP, capacity=5)
    node.tick(1001)
    (of_round,) = node.started_jobs
    node.define(replace(SWEEP, frequency_ms=0))
    (job,) = node.enqueue("sweep", delay_ms=1)
    node.tick(2)
    assert node.started_jobs == [part_id(job, ME.life.node)]  # a person wants it, whatever round is still open
    node.finished(of_round)
    node.define(SWEEP)
    node.tick(1001)
    assert len(node.starts) == 1  # and what a person wanted is no round that is still open


def test_an_all_job_put_again_leaves_alone_a_part_of_the_first_that_runs_again() -> None:
    node = Node(replace(CLEAN, result_ttl_ms=100), capacity=5, limits=Limits(id_ttl_ms=70_000))
    job = keyed_id("clean", "march")
    part = part_id(job, ME.life.node)
    call = Enqueue("clean", [(job, NO_PARAMS)], keyed=True)
    node.ask(call)
    node.finished(part, Verdict.DEAD)
    node.ask(Retry(part))
    node.tick(70_000)  # the id is forgotten, and the part of the first job runs still
    node.ask(call)
    assert node.starts == []
    skipped = Outcome(Status.SKIPPED)
    assert node.ask(AwaitResult(job)) == Ended(job, skipped, [PartEnded(ME, skipped)])
    node.finished(part)
    assert node.stats()["succeeded"] == 1
