"""A slice changes its home while both live: a node leaves, one that was given up comes back, two halves meet."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from tests.unit.cluster import TICK, Cluster, Peer, formed
from zhero.core.facts import PeerDied, PeerSuspected, Reborn
from zhero.core.messages import (
    Accepted,
    AskStatus,
    AwaitResult,
    ClusterStatus,
    Ended,
    Enqueue,
    Leave,
    Left,
    Retry,
    StopTask,
)
from zhero.core.values import NO_PARAMS, SUCCEEDED, Failure, Finished, JobId, Outcome, Status, Verdict, part_id


def living(cluster: Cluster) -> list[Peer]:
    return [peer for peer in cluster.peers.values() if peer.running]


def owner(cluster: Cluster) -> Peer:
    (it,) = (peer for peer in living(cluster) if peer.engine.streams.delayed is not None)
    assert {peer.engine.owner for peer in living(cluster)} == {it.life}
    return it


def live_jobs(cluster: Cluster) -> int:
    return sum(peer.engine.streams.jobs_count for peer in living(cluster))


def rounds(cluster: Cluster) -> Counter[int]:
    return Counter(it.run.number for it in cluster.begun if it.run.header.task == "tick")


def cut_in_two(cluster: Cluster, *half: str) -> None:
    for one in half:
        for other in cluster.peers:
            if other not in half:
                cluster.cut(one, other)


# --- leaving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "c"])  # the owner, and one that is not
@pytest.mark.parametrize("works_ms", [5, 400])
def test_who_leaves_hands_everything_over_and_nothing_runs_twice(name: str, works_ms: int) -> None:
    cluster = formed("a", "b", "c", works_ms=works_ms)
    peer = cluster.peers[name]
    jobs = peer.put("t", 150)
    later = peer.put("t", 10, delay_ms=4_000)
    cluster.run(30)
    ref = peer.ask(Leave(10_000))
    cluster.until(lambda: ref in peer.replies)
    assert peer.replies[ref] == Left(0)
    cluster.kill(name)
    cluster.run(12_000)
    one, other = living(cluster)
    assert len(cluster.runs_of([*jobs, *later])) == 160
    assert not cluster.repeats([*jobs, *later])
    assert one.outcomes(jobs) == other.outcomes(jobs) == {"succeeded": 150}
    assert one.view == other.view == sorted({"a", "b", "c"} - {name})
    assert owner(cluster) in (one, other)


def test_what_runs_at_a_leaving_node_runs_to_its_end_there() -> None:
    cluster = formed("a", "b", works_ms=3_000)
    a, b = cluster.peers.values()
    jobs = a.put("t", 8)
    cluster.run(100)
    mine = {it.run.job for it in cluster.runs_of(jobs) if it.peer == "b"}
    assert len(mine) == 4
    ref = b.ask(Leave(10_000))
    cluster.run(2_500)
    assert ref not in b.replies
    cluster.until(lambda: ref in b.replies, 2_000)
    assert a.outcomes(jobs) == {"succeeded": 8}
    assert not cluster.repeats(jobs)


def test_a_leaving_node_takes_nothing_more() -> None:
    cluster = formed("a", "b", "c", works_ms=2_000)
    a, b, _ = cluster.peers.values()
    b.put("t", 4)
    cluster.run(100)
    b.ask(Leave(10_000))
    cluster.run(10)
    jobs = a.put("t", 40)
    cluster.run(1_500)
    assert cluster.shares(jobs)["b"] == 0


def test_who_waits_at_a_node_that_leaves_for_a_job_of_its_own_is_answered_by_the_heir() -> None:
    cluster = formed("a", "b", "c", works_ms=500)
    b, c = cluster.peers["b"], cluster.peers["c"]
    jobs = b.put("t", 60)
    cluster.run(50)
    refs = [c.ask(AwaitResult(job)) for job in jobs]
    cluster.run(10)
    b.ask(Leave(8_000))
    cluster.run(10_000)
    answers = [c.replies.get(ref) for ref in refs]
    assert all(isinstance(it, Ended) and it.outcome.status is Status.SUCCEEDED for it in answers), answers


def test_all_nodes_but_one_leave_one_after_another() -> None:
    cluster = formed("a", "b", "c", "d", works_ms=200, specs=(TICK,))
    jobs = [job for peer in living(cluster) for job in peer.put("t", 50)]
    cluster.run(50)
    for name in ("a", "b", "c"):
        peer = cluster.peers[name]
        ref = peer.ask(Leave(20_000))
        cluster.until(lambda peer=peer, ref=ref: ref in peer.replies, 21_000)
        assert peer.replies[ref] == Left(0)
        cluster.kill(name)
        cluster.run(1_000)
    cluster.run(20_000)
    (last,) = living(cluster)
    assert last.owns
    assert last.outcomes(jobs) == {"succeeded": 200}
    assert not cluster.repeats(jobs)
    assert set(rounds(cluster).values()) == {1}
    numbers = sorted(rounds(cluster))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_two_nodes_leave_at_once() -> None:
    cluster = formed("a", "b", "c", works_ms=100)
    a, b, c = cluster.peers.values()
    jobs = a.put("t", 40) + b.put("t", 40)
    cluster.run(30)
    refs = [(peer, peer.ask(Leave(10_000))) for peer in (a, b)]
    cluster.until(lambda: all(ref in peer.replies for peer, ref in refs), 12_000)
    cluster.kill("a")
    cluster.kill("b")
    cluster.run(10_000)
    assert c.outcomes(jobs) == {"succeeded": 80}
    assert not cluster.repeats(jobs)


def test_the_heir_is_killed_while_it_is_given_a_slice() -> None:
    cluster = formed("a", "b", "c", works_ms=300)
    c = cluster.peers["c"]
    jobs = c.put("t", 100)
    cluster.run(50)
    ref = c.ask(Leave(10_000))
    cluster.run(1)
    cluster.kill("a")
    cluster.until(lambda: ref in c.replies, 12_000)
    cluster.kill("c")
    cluster.run(20_000)
    (b,) = living(cluster)
    assert b.outcomes(jobs) == {"succeeded": 100}


# --- coming back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("works_ms", [20, 2_000])
def test_after_a_long_pause_there_is_one_owner_and_every_job_ends(name: str, works_ms: int) -> None:
    cluster = formed("a", "b", "c", works_ms=works_ms, specs=(TICK,))
    peer = cluster.peers[name]
    jobs = peer.put("t", 80)
    later = peer.put("t", 5, delay_ms=20_000)
    cluster.run(50)
    assert isinstance(peer.answer, Accepted)
    peer.stopped = True
    cluster.run(15_000)
    assert any(fact.member.name == name for fact in cluster.peers["c"].told(PeerDied))
    peer.stopped = False
    cluster.run(60_000)
    assert peer.told(Reborn)
    assert peer.life.life == 1
    owner(cluster)
    for it in living(cluster):
        assert it.outcomes(jobs) == {"succeeded": 80}
    assert len({it.run.job for it in cluster.runs_of(later)}) == 5
    numbers = sorted(rounds(cluster))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert live_jobs(cluster) <= 1  # a round


def test_who_comes_back_while_others_still_take_over_from_it_finds_out_whose_its_slices_are() -> None:
    cluster = formed("a", "b", "c", "d", works_ms=20)
    a, b, c, d = cluster.peers.values()
    a.put("t", 30, delay_ms=1_000)
    cluster.run(100)
    a.stopped = True
    cluster.until(lambda: bool(d.told(PeerSuspected)), 20_000)
    c.age_from_ms = cluster.now_ms  # so b asks all, and waits for its answer
    cluster.until(lambda: bool(b.told(PeerDied)), 20_000)
    cluster.cut("a", "b", both=False)
    a.stopped = False
    cluster.until(lambda: b.owns, 5_000)
    assert a.told(Reborn)
    cluster.run(50)
    cluster.heal()
    c.age_from_ms = None
    cluster.run(15_000)
    assert owner(cluster) is b
    jobs = a.put("t", 5)
    cluster.run(1_000)
    assert isinstance(a.answer, Accepted)
    assert len(cluster.runs_of(jobs)) == 5
    assert live_jobs(cluster) == 0


def test_what_came_back_reports_is_heard() -> None:
    """Its own jobs went on there while it was away: they have not to run again, where they had not begun elsewhere."""
    cluster = formed("a", "b", works_ms=None)
    a, b = cluster.peers.values()
    b.do(partial(b.engine.capacity, 0))
    cluster.run(1_000)
    (job,) = a.put("t")
    cluster.run(10)
    assert [run.job for run in a.runs] == [job]
    a.stopped = True
    cluster.run(15_000)
    a.stopped = False
    cluster.run(3_000)
    _end(a, job, 1)
    cluster.run(3_000)
    assert b.outcomes([job]) == {"succeeded": 1}
    assert len(a.runs) == 1


def _end(peer: Peer, job: JobId, attempt: int) -> None:
    peer.do(partial(peer.engine.finished, [Finished(job, attempt, Verdict.DONE, SUCCEEDED)]))


def test_an_enqueue_at_a_node_that_does_not_know_yet_what_is_its_own_waits_and_runs_once() -> None:
    cluster = formed("a", "b", "c", works_ms=20)
    a = cluster.peers["a"]
    a.stopped = True
    cluster.run(15_000)
    a.stopped = False
    jobs = a.put("t", 10)
    cluster.run(5_000)
    assert isinstance(a.answer, Accepted)
    assert len(cluster.runs_of(jobs)) == 10


def test_a_blocked_owner_is_superseded_without_being_dead() -> None:
    cluster = formed("a", "b", "c", works_ms=20, specs=(TICK,))
    a = owner(cluster)
    a.age_from_ms = cluster.now_ms
    cluster.run(15_000)
    others = [peer for peer in living(cluster) if peer is not a]
    assert {peer.engine.owner for peer in others} <= {peer.life for peer in others}
    assert not any(peer.told(PeerDied) for peer in others)
    before = len(rounds(cluster))
    cluster.run(3_000)
    assert len(rounds(cluster)) >= before + 2  # rounds go on
    a.age_from_ms = None
    cluster.run(10_000)
    assert owner(cluster) is not a
    assert a.life.life == 0
    assert max(rounds(cluster).values()) == 1
    numbers = sorted(rounds(cluster))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


# --- two halves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["ab", "abcd"])
def test_two_halves_heal_into_one_owner_and_one_schedule(names: str) -> None:
    cluster = formed(*names, works_ms=30, specs=(TICK,))
    half = names[: len(names) // 2]
    cut_in_two(cluster, *half)
    cluster.run(20_000)
    left, right = cluster.peers[half[0]], cluster.peers[names[-1]]
    assert left.engine.owner != right.engine.owner
    jobs = left.put("t", 30) + right.put("t", 30) + left.put("t", 5, 30_000) + right.put("t", 5, 30_000)
    cluster.run(5_000)
    assert isinstance(left.answer, Accepted)
    assert isinstance(right.answer, Accepted)
    cluster.heal()
    cluster.run(90_000)
    assert {tuple(peer.view) for peer in living(cluster)} == {tuple(names)}
    one = owner(cluster)
    for peer in living(cluster):
        assert peer.outcomes(jobs) == {"succeeded": 70}
    began_ms = cluster.now_ms
    cluster.run(10_000)
    ticks = [it.run.number for it in cluster.begun if it.run.header.task == "tick" and it.at_ms > began_ms]
    assert 8 <= len(ticks) <= 10
    assert len(set(ticks)) == len(ticks)
    status = one.hear(AskStatus())
    assert isinstance(status, ClusterStatus)
    assert len(status.plans) == 1
    assert live_jobs(cluster) <= 1


def test_the_same_id_on_both_sides_of_a_split_becomes_one_job() -> None:
    cluster = formed("a", "b", "c", "d", works_ms=20)
    cut_in_two(cluster, "a", "b")
    cluster.run(20_000)
    job = JobId(4711)
    for peer in (cluster.peers["a"], cluster.peers["d"]):
        peer.ask(Enqueue("t", [(job, NO_PARAMS)], delay_ms=30_000, keyed=True))
    cluster.run(1_000)
    assert cluster.peers["a"].answer == cluster.peers["d"].answer == Accepted([job])
    cluster.heal()
    cluster.run(60_000)
    assert len(cluster.runs_of([job])) == 1
    for peer in living(cluster):
        assert peer.outcomes([job]) == {"succeeded": 1}


def test_a_long_run_on_one_side_of_a_split_is_not_begun_again_by_healing() -> None:
    cluster = formed("a", "b", "c", "d", works_ms=40_000)
    a = cluster.peers["a"]
    jobs = a.put("t", 16)
    cluster.run(500)
    cut_in_two(cluster, "a", "b")
    cluster.run(15_000)
    runs = len(cluster.runs_of(jobs))
    cluster.heal()
    cluster.run(60_000)
    assert len(cluster.runs_of(jobs)) >= runs
    for peer in living(cluster):
        assert peer.outcomes(jobs, 60_000) == {"succeeded": 16}
    assert all(len(cluster.runs_of([job])) <= 2 for job in jobs)
    assert live_jobs(cluster) == 0


def test_a_task_that_was_stopped_on_one_side_may_be_stopped_again_after_healing() -> None:
    cluster = formed("a", "b", works_ms=20, specs=(TICK,))
    a = cluster.peers["a"]
    cluster.cut("a", "b")
    cluster.run(20_000)
    a.hear(StopTask("tick"))
    cluster.heal()
    cluster.run(60_000)
    one = owner(cluster)
    one.hear(StopTask("tick"))
    cluster.run(2_000)
    before = len(rounds(cluster))
    cluster.run(10_000)
    assert len(rounds(cluster)) == before


def test_a_member_that_comes_back_three_times_loses_nothing() -> None:
    cluster = formed("a", "b", "c", works_ms=200)
    jobs: list[JobId] = []
    for _ in range(3):
        for peer in living(cluster):
            jobs += peer.put("t", 20)
        cluster.run(100)
        cluster.peers["b"].stopped = True
        cluster.run(14_000)
        cluster.peers["b"].stopped = False
        cluster.run(4_000)
    cluster.run(20_000)
    assert cluster.peers["b"].life.life == 3
    for peer in living(cluster):
        assert peer.outcomes(jobs) == {"succeeded": 180}
    assert live_jobs(cluster) == 0


def test_a_part_that_a_person_revived_while_its_member_was_going_does_not_wait_for_ever() -> None:
    """Whoever is home of it then can't know that the member is gone; whoever takes it in does."""
    cluster = formed("a", "b", "c", works_ms=None)
    a, b, c = cluster.peers.values()
    whole = cluster.new_id()
    a.ask(Enqueue("all", [(whole, NO_PARAMS)]))
    cluster.run(50)
    part = part_id(whole, c.life.node)
    dead = Finished(part, 1, Verdict.DEAD, Outcome(Status.FAILED, b"", Failure("ValueError", "no")))
    c.do(partial(c.engine.finished, [dead]))
    cluster.run(50)
    assert part in a.engine.streams.own.slice.dead
    a.stopped = True
    cluster.run(14_000)
    cluster.kill("c")
    cluster.run(1_000)
    a.stopped = False
    a.ask(Retry(part))
    assert part in a.engine.streams.own.slice
    cluster.run(40_000)
    assert b.outcomes([part]) == {"lost": 1}
    assert not any(part in peer.engine.streams.own.slice for peer in (a, b))
