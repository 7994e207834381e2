"""Who runs what: as many as there is room for, only what can be run, and the slices in turn."""

from __future__ import annotations

import pytest

from zhero.core.values import TaskSpec, Verdict

from ..conversations.harness import Node

MAIL, SMS = TaskSpec("mail"), TaskSpec("sms")


@pytest.mark.parametrize("capacity", [0, 1, 3, 10])
def test_as_many_are_lent_as_the_executor_wants_to_hold(capacity: int) -> None:
    node = Node(MAIL, capacity=capacity)
    jobs = node.enqueue("mail", 5)
    assert node.started_jobs == jobs[:capacity]
    assert node.status().members[0].busy == min(capacity, 5)


def test_each_end_makes_room_for_one_more() -> None:
    node = Node(MAIL, capacity=2)
    first, second, third, fourth, _ = node.enqueue("mail", 5)
    node.finished(first)
    assert node.started_jobs == [third]
    node.finished(second, Verdict.RETRY, delay_ms=10)
    assert node.started_jobs == [fourth]


def test_a_report_that_is_ignored_makes_no_room() -> None:
    node = Node(MAIL, capacity=1)
    first, second, _ = node.enqueue("mail", 3)
    stale = node.verdict(first)
    node.report(stale)
    assert node.started_jobs == [second]
    node.report(stale)
    assert node.starts == []
    node.report(node.verdict(second), node.verdict(second))
    assert len(node.starts) == 1


def test_more_room_is_filled_and_less_takes_nothing_back() -> None:
    node = Node(MAIL, capacity=1)
    jobs = node.enqueue("mail", 5)
    node.capacity(3)
    assert node.started_jobs == jobs[1:3]
    node.capacity(1)
    node.finished(jobs[0])
    node.finished(jobs[1])
    assert node.starts == []
    node.finished(jobs[2])
    assert node.started_jobs == [jobs[3]]


def test_a_node_without_workers_is_a_home_that_lends_itself_nothing() -> None:
    node = Node(MAIL)
    node.enqueue("mail", 2)
    assert node.starts == []
    assert node.queues() == {"global": 2}


@pytest.mark.parametrize("at_once", [1, 2, 3, 8])
def test_jobs_that_were_delayed_and_jobs_that_were_not_take_turns(at_once: int) -> None:
    node = Node(MAIL, SMS)
    node.enqueue("mail", 24)
    node.enqueue("sms", 24, delay_ms=10)
    node.tick(11)
    node.capacity(at_once)
    lent = list(node.starts)
    while len(lent) < 24:
        node.report(*(node.verdict(run.job) for run in node.starts))
        lent += node.starts
    shares = [run.header.task for run in lent[:24]].count("sms")
    assert 10 <= shares <= 14


def test_a_flood_holds_up_no_job_that_becomes_due() -> None:
    node = Node(MAIL, SMS, capacity=1)
    node.enqueue("mail", 500)
    (due,) = node.enqueue("sms", delay_ms=10)
    node.tick(11)
    claims = 0
    while due not in node.runs:
        (run,) = node.starts or list(node.runs.values())[-1:]
        node.finished(run.job)
        claims += 1
    assert claims <= 3


def test_a_run_says_which_it_is() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail", params=b"\x81\xa1n\x07")
    node.finished(job, Verdict.SNOOZE, delay_ms=1)
    node.tick(2)
    (run,) = node.starts
    assert (run.job, run.params, run.attempt, run.tries, run.number) == (job, b"\x81\xa1n\x07", 2, 1, 0)
