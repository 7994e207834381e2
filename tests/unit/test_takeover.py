"""What was the home of a member that is gone: each of its jobs ends, and only what was running there runs again."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

from tests.unit.cluster import TICK, Cluster, Peer, T, formed
from zhero.core.facts import JobEnded, OwnerChanged, TookOver
from zhero.core.messages import Accepted, AwaitResult, Ended, FindJob, Leave, Listed, Refusal, Refused
from zhero.core.values import Finished, JobId, Outcome, State, Status, TaskSpec, Verdict, part_id


def survivors(cluster: Cluster) -> list[Peer]:
    return [peer for peer in cluster.peers.values() if peer.running]


def owner(cluster: Cluster) -> Peer:
    (it,) = (peer for peer in survivors(cluster) if peer.owns)
    return it


def quiet(cluster: Cluster) -> bool:
    """No living member has a live job."""
    return not any(peer.engine.streams.jobs_count for peer in survivors(cluster))


@pytest.mark.parametrize("after_ms", [1, 3, 5, 20, 60, 200])
@pytest.mark.parametrize("home", ["a", "b"])
def test_when_a_home_is_killed_each_of_its_jobs_ends_and_only_what_it_ran_itself_runs_again(
    home: str, after_ms: int
) -> None:
    cluster = formed("a", "b", "c", works_ms=30)
    peer = cluster.peers[home]
    jobs = peer.put("t", 200)
    cluster.run(after_ms)
    accepted = isinstance(peer.answer, Accepted)
    it_ran = set(peer.executing)
    cluster.kill(home)
    cluster.run(10_000)
    one, other = survivors(cluster)
    if accepted or cluster.runs_of(jobs):
        assert {it.run.job for it in cluster.runs_of(jobs)} == set(jobs)
        assert one.outcomes(jobs) == other.outcomes(jobs) == {"succeeded": 200}
    assert cluster.repeats(jobs) <= it_ran
    assert quiet(cluster)
    for begun in cluster.runs_of(cluster.repeats(jobs)):
        assert begun.run.attempt <= 2


def test_tokens_of_runs_grow_with_a_takeover() -> None:
    cluster = formed("a", "b", "c", works_ms=500)
    a = cluster.peers["a"]
    jobs = a.put("t", 30)
    cluster.run(100)
    cluster.kill("a")
    cluster.run(20_000)
    again = cluster.repeats(jobs)
    assert again
    for job in again:
        first, second = cluster.runs_of([job])
        assert (first.run.epoch, first.run.attempt) < (second.run.epoch, second.run.attempt)
        assert second.run.tries == 1  # the death of a member is no try


def test_one_survivor_takes_over_and_says_so() -> None:
    cluster = formed("a", "b", "c", "d", works_ms=2_000)
    jobs = cluster.peers["b"].put("t", 60)
    cluster.run(100)
    cluster.kill("b")
    cluster.run(3_000)
    told = [fact for peer in survivors(cluster) for fact in peer.told(TookOver)]
    assert [fact.name for fact in told] == ["b"]
    assert 0 < told[0].jobs <= 60
    homes = [peer for peer in survivors(cluster) if any(job in peer.engine.streams.own.slice for job in jobs)]
    assert len(homes) == 1


def test_who_waits_for_a_result_is_answered_by_the_next_home() -> None:
    cluster = formed("a", "b", "c", works_ms=3_000)
    c = cluster.peers["c"]
    (job,) = cluster.peers["a"].put("t")
    cluster.run(50)
    ref = c.ask(AwaitResult(job))
    cluster.run(50)
    cluster.kill("a")
    cluster.run(15_000)
    answer = c.replies[ref]
    assert isinstance(answer, Ended)
    assert answer.outcome.status is Status.SUCCEEDED


def test_when_an_executor_is_killed_only_what_it_ran_runs_again() -> None:
    cluster = formed("a", "b", "c", works_ms=40)
    a, b = cluster.peers["a"], cluster.peers["b"]
    jobs = a.put("t", 200)
    cluster.run(200)
    it_ran = set(b.executing)
    assert it_ran
    cluster.kill("b")
    cluster.until(lambda: quiet(cluster))
    assert a.outcomes(jobs) == {"succeeded": 200}
    assert cluster.repeats(jobs) <= it_ran


def test_a_job_that_three_members_died_of_is_not_run_again() -> None:
    poison = TaskSpec("poison")
    cluster = formed("a", "b", "c", "d", "e", specs=(poison,), works_ms=60_000)
    a = cluster.peers["a"]
    a.do(partial(a.engine.capacity, 0))
    cluster.run(1_000)
    (job,) = a.put("poison")
    for count in (1, 2, 3):
        cluster.until(lambda count=count: len(cluster.runs_of([job])) == count)
        cluster.run(10)
        cluster.kill(cluster.runs_of([job])[-1].peer)
        cluster.run(2_000)
    assert len(cluster.runs_of([job])) == 3
    answer = a.hear(AwaitResult(job))
    assert isinstance(answer, Ended)
    assert answer.outcome.status is Status.CRASHED
    assert answer.outcome.failure is not None
    assert "3 members died" in answer.outcome.failure.message
    assert job in a.engine.streams.own.slice.dead


def test_poison_is_counted_also_when_it_takes_its_home_with_it() -> None:
    poison = TaskSpec("poison")
    cluster = formed("a", "b", "c", "d", "e", specs=(poison,), works_ms=60_000)
    (job,) = cluster.peers["c"].put("poison")
    for _ in range(6):
        cluster.run(5_000)
        ran = cluster.runs_of([job])[-1].peer
        if not cluster.peers[ran].running:
            break
        cluster.kill(ran)
    cluster.run(5_000)
    assert len(cluster.runs_of([job])) == 3
    one, *_ = survivors(cluster)
    assert one.outcomes([job]) == {"crashed": 1}


@pytest.mark.parametrize("victim", ["home", "executor"])
def test_what_may_run_at_most_once_is_lost_with_whoever_ran_it(victim: str) -> None:
    cluster = formed("a", "b", "c", works_ms=60_000)
    a, b = cluster.peers["a"], cluster.peers["b"]
    if victim == "executor":
        a.do(partial(a.engine.capacity, 0))
    else:
        for peer in (b, cluster.peers["c"]):
            peer.do(partial(peer.engine.capacity, 0))
    cluster.run(1_000)
    (job,) = a.put("once")
    cluster.until(lambda: bool(cluster.runs_of([job])))
    ran = cluster.runs_of([job])[0].peer
    assert (ran == "a") is (victim == "home")
    cluster.run(10)
    cluster.kill(ran)
    cluster.run(5_000)
    one, *_ = survivors(cluster)
    assert one.outcomes([job]) == {"lost": 1}
    assert len(cluster.runs_of([job])) == 1


def test_what_may_run_at_most_once_runs_if_it_had_not_begun() -> None:
    cluster = formed("a", "b", "c", works_ms=50)
    a = cluster.peers["a"]
    jobs = a.put("once", 60)
    cluster.run(20)
    begun = {it.run.job for it in cluster.runs_of(jobs)}
    assert len(begun) < 60
    cluster.kill("a")
    cluster.run(20_000)
    one, other = survivors(cluster)
    ends = one.outcomes(jobs)
    assert not cluster.repeats(jobs)
    assert ends["succeeded"] + ends["lost"] == 60
    assert ends["lost"] <= 8
    assert other.outcomes(jobs) == ends


def test_of_an_all_job_the_part_of_a_killed_member_is_lost_and_the_others_run() -> None:
    cluster = formed("a", "b", "c", works_ms=300)
    a = cluster.peers["a"]
    (job,) = a.put("all")
    cluster.run(100)
    assert {it.peer for it in cluster.begun} == {"a", "b", "c"}
    cluster.kill("c")
    answer = a.hear(AwaitResult(job))
    assert isinstance(answer, Ended)
    assert answer.outcome.status is Status.FAILED
    assert {it.member.name: it.outcome.status for it in answer.parts or ()} == {
        "a": Status.SUCCEEDED,
        "b": Status.SUCCEEDED,
        "c": Status.LOST,
    }
    assert len(cluster.begun) == 3


def test_of_an_all_job_whose_home_is_killed_the_others_parts_run_once() -> None:
    cluster = formed("a", "b", "c", works_ms=300)
    (job,) = cluster.peers["a"].put("all")
    cluster.run(100)
    cluster.kill("a")
    cluster.run(5_000)
    one, _ = survivors(cluster)
    answer = one.hear(AwaitResult(job))
    assert isinstance(answer, Ended)
    assert {it.member.name: it.outcome.status for it in answer.parts or ()} == {
        "a": Status.LOST,
        "b": Status.SUCCEEDED,
        "c": Status.SUCCEEDED,
    }
    parts = [part_id(job, peer.life.node) for peer in cluster.peers.values()]
    assert len(cluster.runs_of(parts)) == 3


def test_delayed_jobs_survive_their_owner_and_are_not_early() -> None:
    cluster = formed("a", "b", "c")
    first = owner(cluster)
    (other, *_) = (peer for peer in survivors(cluster) if peer is not first)
    put_at_ms = cluster.now_ms
    jobs = other.put("t", 20, delay_ms=3_000)
    cluster.run(100)
    assert isinstance(other.answer, Accepted)
    cluster.kill(first.name)
    cluster.run(10_000)
    began = cluster.runs_of(jobs)
    assert len(began) == 20
    assert all(it.at_ms > put_at_ms + 3_000 for it in began)
    assert all(it.at_ms < put_at_ms + 6_000 for it in began)
    assert owner(cluster) is not first


def test_an_owner_is_killed_again_and_again_and_no_round_comes_twice_or_is_left_out() -> None:
    cluster = formed("a", "b", "c", "d", works_ms=20, specs=(TICK,))
    for _ in range(3):
        cluster.run(4_700)
        cluster.kill(owner(cluster).name)
    cluster.run(6_000)
    rounds = [it.run.number for it in cluster.begun if it.run.header.task == "tick"]
    killed = {it.run.number for it in cluster.begun if it.run.attempt > 1}
    assert len(rounds) - len(set(rounds)) <= len(killed)  # but where a member died while it ran one
    numbers = sorted(set(rounds))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) >= 14


def test_a_new_owner_is_known_to_all_within_a_second_or_two() -> None:
    cluster = formed("a", "b", "c", "d")
    first = owner(cluster)
    cluster.kill(first.name)
    cluster.run(2_500)
    new = owner(cluster)
    assert {peer.engine.owner for peer in survivors(cluster)} == {new.life}
    for peer in survivors(cluster):
        last = peer.told(OwnerChanged)[-1]
        assert (last.owner.name, last.mine, last.epoch) == (new.name, peer is new, 2)


def test_a_home_and_its_only_backup_are_lost_together_and_the_rest_works_on() -> None:
    """Beyond the promise: nobody hangs on what nobody has any more."""
    cluster = formed("a", "b", "c", "d", works_ms=300)
    b = cluster.peers["b"]
    jobs = b.put("t", 40)
    cluster.run(50)
    (backup,) = b.engine.streams.own.followers
    dead = [name for name, peer in cluster.peers.items() if peer.life == backup]
    cluster.kill("b")
    cluster.kill(dead[0])
    cluster.run(20_000)
    one, *_ = survivors(cluster)
    for job in jobs:
        answer = one.hear(AwaitResult(job))
        assert isinstance(answer, Ended) or (isinstance(answer, Refused) and answer.why is Refusal.UNKNOWN_JOB)
    (job,) = one.put("t")
    assert one.outcomes([job]) == {"succeeded": 1}


def test_a_job_that_ended_with_its_home_gone_is_told_to_the_next_home() -> None:
    """The executor keeps how a run ended until a home knows."""
    cluster = formed("a", "b", "c", works_ms=400)
    a = cluster.peers["a"]
    a.do(partial(a.engine.capacity, 0))
    cluster.run(1_000)
    jobs = a.put("t", 8)
    cluster.run(380)
    assert len(cluster.runs_of(jobs)) == 8
    a.stopped = True  # nothing that is said reaches it any more
    cluster.run(100)
    cluster.kill("a")
    cluster.run(10_000)
    one, _ = survivors(cluster)
    assert one.outcomes(jobs) == {"succeeded": 8}
    assert len(cluster.runs_of(jobs)) == 8


def test_a_retry_wait_and_a_dead_letter_survive() -> None:
    cluster = formed("a", "b", "c", works_ms=None)
    a = cluster.peers["a"]
    for peer in (cluster.peers["b"], cluster.peers["c"]):
        peer.do(partial(peer.engine.capacity, 0))
    cluster.run(1_000)
    waits, dies = a.put("t", 2)
    cluster.run(10)
    _finish(a, waits, retry_in_ms=2_000)
    _finish(a, dies)
    cluster.run(50)
    cluster.kill("a")
    cluster.run(1_500)
    one, other = survivors(cluster)
    listed = one.hear(FindJob(waits))
    assert isinstance(listed, Listed)
    assert [info.state for info in listed.jobs] == [State.DELAYED]
    listed = other.hear(FindJob(dies))
    assert isinstance(listed, Listed)
    assert [info.state for info in listed.jobs] == [State.DEAD]
    for peer in (one, other):
        peer.do(partial(peer.engine.capacity, 4))
    cluster.run(3_000)
    runs = [run for peer in (one, other) for run in peer.runs]
    assert [(run.job, run.attempt, run.tries) for run in runs] == [(waits, 2, 2)]


def _finish(peer: Peer, job: JobId, retry_in_ms: int = 0) -> None:
    verdict = Verdict.RETRY if retry_in_ms else Verdict.DEAD
    report = Finished(job, 1, verdict, Outcome(Status.FAILED), retry_in_ms)
    peer.do(partial(peer.engine.finished, [report]))


def test_two_homes_are_killed_at_once() -> None:
    cluster = formed("a", "b", "c", "d", "e", works_ms=30)
    jobs = {name: cluster.peers[name].put("t", 80) for name in "abc"}
    cluster.run(40)
    followed = {name: list(cluster.peers[name].engine.streams.own.followers) for name in "abc"}
    names = {peer.life: name for name, peer in cluster.peers.items()}
    dead = next((one, two) for one in "abc" for two in "abcde" if one != two and names[followed[one][0]] != two)
    for name in dead:
        cluster.kill(name)
    cluster.run(20_000)
    one, *_ = survivors(cluster)
    for name, put in jobs.items():
        (backup,) = followed[name]
        if name not in dead or names[backup] not in dead:
            assert one.outcomes(put) == {"succeeded": 80}, name
    assert quiet(cluster)


def test_every_end_is_told_where_its_job_was_at_home() -> None:
    cluster = formed("a", "b", "c", works_ms=30)
    jobs = cluster.peers["a"].put("t", 60)
    cluster.run(20)
    cluster.kill("a")
    cluster.run(10_000)
    told = [fact.job for peer in cluster.peers.values() for fact in peer.told(JobEnded)]
    assert sorted(told) == sorted(jobs)


def test_a_takeover_brings_periodic_tasks_that_only_one_member_can_run() -> None:
    cluster = formed("a", "b", "c", works_ms=20)
    first = owner(cluster)
    runner = next(peer for peer in survivors(cluster) if peer is not first)
    runner.define(T, TICK)
    cluster.run(3_500)
    cluster.kill(first.name)
    cluster.run(5_000)
    rounds = [it for it in cluster.begun if it.run.header.task == "tick"]
    assert {it.peer for it in rounds} == {runner.name}
    assert len({it.run.number for it in rounds}) == len(rounds) >= 6


@pytest.mark.parametrize("skew_ms", [-400_000, -1, 1, 400_000])
@pytest.mark.parametrize("leaves", [False, True])
def test_with_clocks_that_differ_nothing_is_early_nor_much_too_late(skew_ms: int, leaves: bool) -> None:
    cluster = formed("a", "b", "c", works_ms=5, ahead_ms={"b": skew_ms, "c": 2 * skew_ms}, specs=(TICK,))
    put_at_ms = cluster.now_ms
    jobs = cluster.peers["c"].put("t", 10, delay_ms=12_000)
    cluster.run(3_000)
    for _ in range(2):
        first = owner(cluster)
        if leaves:
            ref = first.ask(Leave(5_000))
            cluster.until(lambda first=first, ref=ref: ref in first.replies)
        cluster.kill(first.name)
        cluster.run(3_500)
    cluster.run(10_000)
    began = cluster.runs_of(jobs)
    assert len(began) == 10
    assert all(12_000 < it.at_ms - put_at_ms < 13_000 for it in began)
    rounds = sorted(it.run.number for it in cluster.begun if it.run.header.task == "tick")
    assert rounds == list(range(rounds[0], rounds[-1] + 1))
    times = sorted(it.at_ms for it in cluster.begun if it.run.header.task == "tick")
    assert all(1_000 <= later - sooner < 4_000 for sooner, later in pairwise(times))
