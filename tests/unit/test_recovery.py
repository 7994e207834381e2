"""Nodes with journals: killed, all at once or one by one, and back again."""

from __future__ import annotations

import pytest

from tests.unit.cluster import ALL, ONCE, TICK, Cluster, Peer, T, formed
from zhero.core.effects import Persist
from zhero.core.facts import DiskFailed, DiskFull, Recovered, TookOver
from zhero.core.kept import DiskFault
from zhero.core.messages import Accepted, Enqueue, Leave, Left, Refusal, Refused
from zhero.core.values import NO_PARAMS, JobId, TaskSpec

DAILY = TaskSpec("daily", frequency_ms=240_000)  # an "hour" of 10 s
SLOW_MS = 60_000


def alone(works_ms: int | None = 5, *specs: TaskSpec) -> Cluster:
    return formed("a", works_ms=works_ms, disks=True, specs=specs)


def crash(cluster: Cluster, *names: str) -> None:
    """All of these at the same moment."""
    for name in names:
        cluster.peers[name].running = False


def back(cluster: Cluster, name: str, *seeds: str, works_ms: int | None = 5, specs: tuple[TaskSpec, ...] = ()) -> Peer:
    peer = cluster.restart(name, *seeds)
    peer.works_ms = works_ms
    peer.define(T, ONCE, ALL, *specs)
    return peer


# --- one node -----------------------------------------------------------------------------------------------------


def test_nothing_is_accepted_nor_begins_before_the_journal_has_it() -> None:
    cluster = alone()
    node = cluster.peers["a"]
    node.writes = False
    jobs = node.put("t", 3)
    cluster.run(500)
    assert node.answer is None
    assert cluster.runs_of(jobs) == []
    crash(cluster, "a")
    node = back(cluster, "a")
    cluster.run(500)
    assert cluster.runs_of(jobs) == []  # it was never accepted
    jobs = node.put("t", 3)
    cluster.until(lambda: node.answer is not None)
    assert isinstance(node.answer, Accepted)


def test_what_was_accepted_runs_after_a_crash_and_what_has_ended_does_not() -> None:
    cluster = alone(works_ms=20)
    node = cluster.peers["a"]
    jobs = node.put("t", 40)
    later = node.put("t", 2, delay_ms=5_000)
    cluster.run(60)
    ended = [job for job in jobs if job in node.engine.streams.own.slice.memory]
    cluster.run(10)
    assert 4 <= len(ended) < 40
    crash(cluster, "a")
    node = back(cluster, "a")
    assert node.told(Recovered)
    assert node.outcomes(jobs + later) == {"succeeded": 42}
    repeated = cluster.repeats(jobs + later)
    assert len(repeated) <= 8
    assert repeated.isdisjoint(ended)
    assert cluster.repeats(later) == set()
    for begun in cluster.runs_of(repeated)[-len(repeated) :]:
        assert begun.run.attempt == 2


def test_a_run_that_must_not_be_repeated_is_lost_and_one_that_had_not_begun_runs() -> None:
    cluster = alone(works_ms=SLOW_MS)
    node = cluster.peers["a"]
    jobs = node.put("once", 6)
    cluster.run(100)
    assert len(cluster.runs_of(jobs)) == 4
    crash(cluster, "a")
    node = back(cluster, "a")
    assert node.outcomes(jobs) == {"lost": 4, "succeeded": 2}
    assert cluster.repeats(jobs) == set()


def test_a_token_never_comes_twice() -> None:
    cluster = alone(works_ms=SLOW_MS)
    node = cluster.peers["a"]
    (job,) = node.put("t")
    tokens = []
    for _ in range(2):
        cluster.run(100)
        tokens.append((cluster.begun[-1].run.epoch, cluster.begun[-1].run.attempt))
        crash(cluster, "a")
        node = back(cluster, "a", works_ms=SLOW_MS)
    cluster.run(100)
    tokens.append((cluster.begun[-1].run.epoch, cluster.begun[-1].run.attempt))
    assert tokens == sorted(set(tokens))
    assert {it.run.job for it in cluster.begun} == {job}


def test_a_task_that_runs_once_a_day_does_so_on_a_node_that_is_restarted_each_day() -> None:
    cluster = alone(5, DAILY)
    for _ in range(4):
        cluster.run(23 * 10_000)
        crash(cluster, "a")
        back(cluster, "a", specs=(DAILY,))
    cluster.run(4 * 10_000)
    numbers = [it.run.number for it in cluster.begun if it.run.header.task == "daily"]
    assert len(numbers) == 4
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_an_id_of_the_caller_s_own_is_one_job_over_a_crash() -> None:
    cluster = alone()
    node = cluster.peers["a"]
    call = Enqueue("t", [(JobId(5), NO_PARAMS)], keyed=True)
    assert isinstance(node.hear(call), Accepted)
    cluster.run(100)
    crash(cluster, "a")
    node = back(cluster, "a")
    assert isinstance(node.hear(call), Accepted)
    cluster.run(100)
    assert len(cluster.runs_of([JobId(5)])) == 1


def test_many_jobs_come_back_over_folds_and_many_crashes() -> None:
    cluster = alone(works_ms=1)
    node = cluster.peers["a"]
    jobs: list[JobId] = []
    for _ in range(4):
        jobs += node.put("t", 12_000, delay_ms=60_000)
        cluster.run(20)
        assert isinstance(node.answer, Accepted)
        crash(cluster, "a")
        node = back(cluster, "a", works_ms=1)
    assert len(node.engine.streams.delayed.slice) == 48_000  # type: ignore[union-attr]
    node.engine.check()


def test_a_node_that_is_alone_leaves_its_jobs_in_the_journal() -> None:
    cluster = alone(works_ms=200)
    node = cluster.peers["a"]
    jobs = node.put("t", 20)
    cluster.run(50)
    assert node.hear(Leave(30_000), 1_000) == Left(0)  # what runs has ended, the rest is kept
    cluster.run(20)
    begun = {it.run.job for it in cluster.runs_of(jobs)}
    assert len(begun) == 4
    crash(cluster, "a")
    node = back(cluster, "a")
    assert node.outcomes(jobs) == {"succeeded": 20}
    assert cluster.repeats(jobs) == set()


def test_a_full_disk_refuses_new_jobs_and_lets_others_end() -> None:
    cluster = alone(works_ms=50)
    node = cluster.peers["a"]
    jobs = node.put("t", 2)
    cluster.run(20)
    node.do(lambda now_ms: node.engine.persist_failed(DiskFault.FULL, "full", now_ms))
    node.put("t")
    assert isinstance(node.answer, Refused)
    assert node.answer.why is Refusal.DISK_FULL
    assert node.outcomes(jobs) == {"succeeded": 2}
    node.do(node.engine.disk_has_room)
    node.put("t")
    cluster.run(20)
    assert isinstance(node.answer, Accepted)
    assert [it.is_over for it in node.told(DiskFull)] == [False, True]


# --- several ------------------------------------------------------------------------------------------------------


def ran_all(cluster: Cluster, peer: Peer, jobs: list[JobId]) -> None:
    assert peer.outcomes(jobs, 60_000) == {"succeeded": len(jobs)}


@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_all_are_killed_at_once_and_come_back(order: str) -> None:
    cluster = formed("a", "b", "c", works_ms=30, disks=True, specs=(TICK,))
    jobs = [job for name in "abc" for job in cluster.peers[name].put("t", 30)]
    later = cluster.peers["b"].put("t", 3, delay_ms=4_000)
    cluster.run(100)
    ended = {job for peer in cluster.peers.values() for job in jobs if job in peer.engine.streams.own.slice.memory}
    cluster.run(10)
    crash(cluster, *"abc")
    cluster.run(50)
    for name in order:
        back(cluster, name, *"abc".replace(name, ""), works_ms=30, specs=(TICK,))
        cluster.run(40)
    peers = [cluster.peers[name] for name in "abc"]
    cluster.until(lambda: all(len(peer.view) == 3 for peer in peers))
    ran_all(cluster, peers[0], jobs + later)
    repeated = cluster.repeats(jobs + later)
    assert repeated.isdisjoint(ended)
    assert len(repeated) <= 24
    assert sum(peer.owns for peer in peers) == 1
    cluster.run(3_000)
    rounds = [it.run.number for it in cluster.begun if it.run.header.task == "tick"]
    assert len(rounds) - len(set(rounds)) <= 1
    assert all(not peer.told(TookOver) for peer in peers)


def test_one_that_does_not_come_back_is_taken_over_from_a_journal_of_others() -> None:
    cluster = formed("a", "b", "c", works_ms=SLOW_MS, disks=True)
    jobs = [job for name in "abc" for job in cluster.peers[name].put("t", 10)]
    later = cluster.peers["c"].put("t", 3, delay_ms=20_000)
    cluster.run(200)
    owner = next(name for name in "abc" if cluster.peers[name].owns)
    crash(cluster, *"abc")
    rest = "abc".replace(owner, "")
    for name in rest:
        back(cluster, name, *"abc".replace(name, ""))
    peer = cluster.peers[rest[0]]
    ran_all(cluster, peer, jobs + later)
    assert sum(cluster.peers[name].owns for name in rest) == 1


def test_one_that_was_taken_over_comes_back_after_all_were_killed() -> None:
    cluster = formed("a", "b", "c", works_ms=400, disks=True)
    jobs = cluster.peers["a"].put("t", 40)
    cluster.run(100)
    cluster.kill("a")
    cluster.until(lambda: any(cluster.peers[name].told(TookOver) for name in "bc"))
    cluster.run(500)
    crash(cluster, "b", "c")
    before = len(cluster.runs_of(jobs))
    for name in "abc":
        back(cluster, name, *"abc".replace(name, ""), works_ms=400)
    ran_all(cluster, cluster.peers["a"], jobs)
    assert len(cluster.runs_of(jobs)) - before <= 40  # each was at one home only


def test_one_that_is_restarted_takes_its_jobs_up_or_finds_them_taken_over() -> None:
    for away_ms in (5, 300, 3_000):
        cluster = formed("a", "b", "c", works_ms=300, disks=True)
        jobs = cluster.peers["a"].put("t", 30)
        cluster.run(100)
        cluster.kill("a")
        cluster.run(away_ms)
        node = back(cluster, "a", "b", "c", works_ms=300)
        cluster.until(lambda node=node: len(node.view) == 3, 20_000)  # type: ignore[misc]
        ran_all(cluster, node, jobs)
        assert len(cluster.repeats(jobs)) <= 4  # what it ran itself


def test_a_copy_says_no_more_than_what_its_journal_has() -> None:
    cluster = formed("a", "b", disks=True)
    one, other = cluster.peers["a"], cluster.peers["b"]
    other.writes = False
    jobs = one.put("t", 2)
    cluster.run(900)
    assert one.answer is None
    assert cluster.runs_of(jobs) == []


def test_a_journal_that_fails_is_told_and_others_take_over() -> None:
    cluster = formed("a", "b", works_ms=50, disks=True)
    one, other = cluster.peers["a"], cluster.peers["b"]
    jobs = one.put("t", 30)
    cluster.run(30)
    one.writes = False
    one.do(lambda now_ms: one.engine.persist_failed(DiskFault.FAILED, "no sync", now_ms))
    assert one.told(DiskFailed)
    one.ask(Leave(0))
    cluster.run(20)
    cluster.kill("a")
    assert other.outcomes(jobs, 60_000) == {"succeeded": 30}


def test_without_a_journal_nothing_is_to_be_persisted() -> None:
    cluster = formed("a", "b")
    peer = cluster.peers["a"]
    effects = peer.engine.call(99, Enqueue("t", [(JobId(3), NO_PARAMS)]), peer.clock_ms)
    assert not any(isinstance(it, Persist) for it in effects)
