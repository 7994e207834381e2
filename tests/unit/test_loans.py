"""Who runs what in a cluster: shares follow slots, no single job is shut out, and who has nothing to do is silent."""

from __future__ import annotations

from functools import partial

import pytest

from tests.unit.cluster import T, formed
from zhero.core.messages import Accepted, Cancel, Counted, CountJobs, Did, Enqueue, GiveBack, Grant, Hungry
from zhero.core.values import NO_PARAMS, TaskSpec


@pytest.mark.parametrize("works_ms", [1, 5, 30, 300])
def test_a_burst_is_shared_alike_however_long_its_jobs_take(works_ms: int) -> None:
    cluster = formed("a", "b", "c", works_ms=works_ms)
    jobs = cluster.peers["a"].put("t", 300)
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 300, 60_000)
    shares = cluster.shares(jobs)
    assert all(0.25 * 300 <= shares[name] <= 0.42 * 300 for name in "abc"), shares
    assert not cluster.repeats(jobs)


@pytest.mark.parametrize("home", ["a", "b", "c"])
@pytest.mark.parametrize("works_ms", [3, 100])
def test_shares_follow_the_number_of_slots(home: str, works_ms: int) -> None:
    cluster = formed("a", "b", "c", works_ms=works_ms)
    for name, slots in (("a", 1), ("b", 2), ("c", 4)):
        peer = cluster.peers[name]
        peer.do(partial(peer.engine.capacity, slots))
    cluster.run(1_000)
    jobs = cluster.peers[home].put("t", 350)
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 350, 60_000)
    shares = cluster.shares(jobs)
    assert 30 <= shares["a"] <= 75, shares
    assert 70 <= shares["b"] <= 130, shares
    assert 160 <= shares["c"] <= 250, shares


def test_a_node_without_workers_is_a_home_that_lends_everything() -> None:
    cluster = formed("a", "b", "c")
    a = cluster.peers["a"]
    a.do(partial(a.engine.capacity, 0))
    cluster.run(1_000)
    jobs = a.put("t", 50)
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 50)
    assert set(cluster.shares(jobs)) == {"b", "c"}


def test_a_member_is_lent_only_what_it_can_run() -> None:
    cluster = formed("a", "b", "c")
    b = cluster.peers["b"]
    b.define(T, TaskSpec("rare"))
    cluster.run(1_000)
    jobs = cluster.peers["a"].put("rare", 20)
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 20)
    assert set(cluster.shares(jobs)) == {"b"}


def test_nobody_holds_more_than_it_has_slots_for() -> None:
    cluster = formed("a", "b", "c", works_ms=50)
    for peer in cluster.peers.values():
        peer.put("t", 60)
    for _ in range(300):
        cluster.run(5)
        assert all(len(peer.executing) <= 4 for peer in cluster.peers.values())


def test_what_finds_no_slot_goes_back_uncounted_and_is_lent_again() -> None:
    cluster = formed("a", "b", "c", works_ms=200)
    everything = [job for peer in cluster.peers.values() for job in peer.put("t", 12)]  # each floods the others
    cluster.until(lambda: len(cluster.runs_of(everything)) == 36)
    assert cluster.said(GiveBack)
    assert {it.run.attempt for it in cluster.runs_of(everything)} == {1}
    assert cluster.peers["a"].outcomes(everything) == {"succeeded": 36}


def test_a_single_job_of_another_home_gets_a_slot_of_a_busy_cluster() -> None:
    cluster = formed("a", "b", "c", works_ms=100)
    a, b = cluster.peers["a"], cluster.peers["b"]
    b.do(partial(b.engine.capacity, 0))  # it has to lend
    cluster.run(1_000)
    a.put("t", 1_000)
    cluster.run(500)
    (job,) = b.put("t")
    cluster.until(lambda: bool(cluster.runs_of([job])), 1_000)


def test_floods_of_two_homes_share_what_there_is() -> None:
    cluster = formed("a", "b", "c", works_ms=20)
    of_a, of_b = cluster.peers["a"].put("t", 600), cluster.peers["b"].put("t", 600)
    cluster.run(1_500)
    ran = len(cluster.runs_of(of_a)), len(cluster.runs_of(of_b))
    assert 0.3 < ran[0] / sum(ran) < 0.7, ran
    assert sum(ran) > 12 * 1_500 / 22 * 0.7  # and slots are not idle meanwhile


@pytest.mark.parametrize("works_ms", [1, 40])
def test_slots_are_not_idle_while_jobs_wait(works_ms: int) -> None:
    cluster = formed("a", "b", "c", works_ms=works_ms)
    jobs = cluster.peers["a"].put("t", 600)
    began_ms = cluster.now_ms
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 600, 60_000)
    ideal_ms = 600 / 12 * (works_ms + 1)
    assert cluster.now_ms - began_ms < 2.5 * ideal_ms + 200


def test_a_member_that_is_idle_takes_its_part_of_a_backlog_when_it_comes() -> None:
    cluster = formed("a", "b", works_ms=50)
    jobs = cluster.peers["a"].put("t", 400)
    cluster.run(300)
    late = cluster.start("c", "a")
    late.works_ms = 50
    late.define(T)
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 400, 30_000)
    assert cluster.shares(jobs)["c"] > 50
    assert not cluster.repeats(jobs)


def test_a_blocked_loop_is_lent_nothing() -> None:
    cluster = formed("a", "b", "c", works_ms=5)
    b = cluster.peers["b"]
    b.age_from_ms = cluster.now_ms
    cluster.run(2_000)
    jobs = cluster.peers["a"].put("t", 60)
    cluster.run(3_000)
    assert cluster.shares(jobs)["b"] == 0
    assert len(cluster.runs_of(jobs)) == 60


def test_an_idle_cluster_says_nothing_but_beats_also_after_work() -> None:
    cluster = formed("a", "b", "c")
    for peer in cluster.peers.values():
        peer.put("t", 100)
    cluster.run(20_000)
    assert len(cluster.begun) == 300
    said = len(cluster.frames)
    cluster.run(60_000)
    assert len(cluster.frames) == said


def test_while_all_have_room_nobody_asks_for_work() -> None:
    cluster = formed("a", "b", "c")
    before = len(cluster.frames)
    jobs = cluster.peers["a"].put("t", 6)
    cluster.run(1_000)
    assert len(cluster.runs_of(jobs)) == 6
    assert not cluster.said(Hungry)
    assert len(cluster.said(Grant)) <= 4
    assert len(cluster.frames) - before < 40


def test_a_run_elsewhere_is_recalled_when_its_job_is_cancelled() -> None:
    cluster = formed("a", "b", works_ms=60_000)
    a, b = cluster.peers["a"], cluster.peers["b"]
    jobs = a.put("t", 8)
    cluster.run(100)
    assert isinstance(a.answer, Accepted)
    lent = next(iter(b.executing))
    assert a.hear(Cancel(lent)) == Did(True)
    assert lent not in b.executing
    assert a.outcomes([lent]) == {"cancelled": 1}
    counted = a.hear(CountJobs())
    assert isinstance(counted, Counted)
    assert counted.queues["processing"] == len(jobs) - 1


def test_what_comes_in_one_turn_is_said_in_one_frame() -> None:
    cluster = formed("a", "b")
    a, b = cluster.peers.values()
    a.do(partial(a.engine.capacity, 0))  # it has to lend
    cluster.run(1_000)
    said = [len(cluster.frames)]
    jobs = [cluster.new_id() for _ in range(100)]
    calls = [Enqueue("t", [(job, NO_PARAMS)]) for job in jobs]
    a.do_in_one_turn([partial(a.engine.call, 10_000 + n, call, more=True) for n, call in enumerate(calls)])
    said.append(len(cluster.frames))
    assert said[1] - said[0] == 1
    cluster.until(lambda: all(10_000 + n in a.replies for n in range(100)), 10)
    assert b.outcomes(jobs) == {"succeeded": 100}
