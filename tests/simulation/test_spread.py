"""How several engines share work: what they say for it, how evenly it goes, and how often a job moves."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from random import Random

import pytest

from tests.unit.cluster import ALL, TICK, Cluster, Peer, T, formed
from zhero.core.messages import AwaitResult, Ended, Frame, GiveBack, Grant
from zhero.core.values import JobId, Status, TaskSpec

URGENT = TaskSpec("urgent")
ASKING = {"Hungry", "Sated", "Waiting", "Recall", "CheckLoans", "GiveBack"}
"""What is said to find work, or to be rid of it."""

DRAWS = int(os.environ.get("ZHERO_DRAWS", "50"))
"""Moments at which three things happen to five members; a long run takes 200."""


def said(cluster: Cluster) -> Counter[str]:
    """Names of all messages since the last time, beats apart."""
    frames, cluster.frames = cluster.frames, []
    return Counter(type(it).__name__ for frame in frames for it in (*frame.messages, *frame.numbered))


def without_workers(peer: Peer) -> None:
    peer.do(partial(peer.engine.capacity, 0))
    peer.cluster.run(2_000)
    said(peer.cluster)


def grants(frames: list[Frame]) -> Counter[JobId]:
    """How often each job has gone to another member."""
    return Counter(run.job for frame in frames for it in frame.numbered if isinstance(it, Grant) for run in it.runs)


# --- what is said -------------------------------------------------------------------------------------------------


def test_an_idle_cluster_says_nothing_but_beats() -> None:
    cluster = formed("a", "b", "c", "d", "e")
    cluster.peers["a"].put("t", 50)
    cluster.run(5_000)
    said(cluster)
    cluster.run(60_000)
    assert said(cluster) == {}


def test_a_job_that_runs_where_it_is_at_home_takes_one_entry_and_one_receipt_before_it_starts() -> None:
    cluster = formed("a", "b", works_ms=20)
    a = cluster.peers["a"]
    without_workers(cluster.peers["b"])
    (job,) = a.put("t")
    while not cluster.begun:
        cluster.run(1)
    assert [it.run.job for it in cluster.begun] == [job]
    before = said(cluster)
    assert before["Received"] == 1
    assert before.keys() == {"Entries", "Received"}
    cluster.run(5_000)
    after = said(cluster)
    assert after.keys() == {"Entries", "Received"}
    assert (before + after)["Entries"] <= 3


def test_a_job_that_another_runs_takes_one_grant_and_one_report() -> None:
    cluster = formed("a", "b", "c")
    without_workers(cluster.peers["a"])
    jobs: list[JobId] = []
    for _ in range(20):
        jobs += cluster.peers["a"].put("t")
        cluster.run(100)
    counts = said(cluster)
    assert len(cluster.runs_of(jobs)) == 20
    assert (counts["Grant"], counts["Reported"], counts["Settled"]) == (20, 20, 20)
    assert ASKING.isdisjoint(counts)
    assert counts["Entries"] <= 60


def test_jobs_that_are_more_than_there_is_room_for_cause_no_questions_that_grow_with_them() -> None:
    cluster = formed("a", "b", "c", works_ms=10)
    asked: list[int] = []
    for count in (200, 1_000):
        jobs = cluster.peers["a"].put("t", count)
        cluster.until(lambda jobs=jobs: len(cluster.runs_of(jobs)) == len(jobs), 60_000)
        cluster.run(2_000)
        counts = said(cluster)
        asked.append(sum(counts[name] for name in ASKING))
        assert counts["Grant"] <= count
    assert asked[1] <= asked[0] + 20


def test_a_job_for_later_takes_one_question_to_the_owner_and_one_answer() -> None:
    cluster = formed("a", "b", "c")
    asker = next(peer for peer in cluster.peers.values() if not peer.owns)
    said(cluster)
    (job,) = asker.put("t", delay_ms=1_000)
    cluster.run(500)
    counts = said(cluster)
    assert asker.answer is not None
    assert sum(count for name, count in counts.items() if name not in ("Entries", "Received")) == 2
    cluster.run(5_000)
    assert len(cluster.runs_of([job])) == 1
    assert ASKING.isdisjoint(said(cluster))


def test_a_job_for_all_takes_one_grant_and_one_report_for_each_other_member() -> None:
    cluster = formed("a", "b", "c", "d", "e")
    said(cluster)
    cluster.peers["a"].put("all")
    cluster.run(5_000)
    counts = said(cluster)
    assert (counts["Grant"], counts["Reported"]) == (4, 4)
    assert len(cluster.begun) == 5


def test_a_round_takes_no_message_to_be_made() -> None:
    cluster = formed("a", "b", "c", specs=(TICK,))
    cluster.run(20_000)
    said(cluster)
    begun = len(cluster.begun)
    cluster.run(20_000)
    rounds = len(cluster.begun) - begun
    counts = said(cluster)
    assert rounds >= 15
    assert counts.keys() <= {"Entries", "Received", "Grant", "Began", "Reported", "Settled"}
    assert counts["Grant"] <= rounds


# --- who runs it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("at_once", [True, False])
def test_three_equal_members_run_a_third_each(at_once: bool, seed: int) -> None:
    cluster = formed("a", "b", "c", works_ms=10)
    chance = Random(seed)
    producer = cluster.peers[chance.choice("abc")]
    jobs = producer.put("t", 300) if at_once else []
    while len(jobs) < 300:
        jobs += producer.put("t")
        cluster.run(chance.randrange(1, 6))
    cluster.run(10_000)
    shares = cluster.shares(jobs)
    assert sum(shares.values()) == 300
    assert all(75 <= shares[name] <= 126 for name in "abc"), shares


def test_a_lone_periodic_task_goes_round() -> None:
    cluster = formed("a", "b", "c", specs=(TICK,))
    while len(cluster.begun) < 30:
        cluster.run(1_000)
    assert len({it.peer for it in cluster.begun}) >= 2


def test_beside_a_flood_an_urgent_job_and_one_that_becomes_due_start_within_200_ms() -> None:
    cluster = formed("a", "b", "c", works_ms=10, specs=(URGENT,))
    owner = next(peer for peer in cluster.peers.values() if peer.owns)
    one, other = (peer for peer in cluster.peers.values() if peer is not owner)
    flood = one.put("t", 2_000)
    cluster.run(300)
    (due,) = owner.put("urgent", delay_ms=500)
    (now,) = other.put("urgent")
    asked_at_ms = cluster.now_ms
    cluster.run(1_000)
    assert len(cluster.runs_of(flood)) < 2_000
    (first,), (second,) = cluster.runs_of([now]), cluster.runs_of([due])
    assert first.at_ms - asked_at_ms <= 200
    assert 0 <= second.at_ms - asked_at_ms - 500 <= 200


def test_idle_members_that_join_drain_a_full_one_evenly_and_no_job_moves_more_than_twice() -> None:
    cluster = formed("a", works_ms=100)
    jobs = cluster.peers["a"].put("t", 2_000)
    cluster.run(100)
    for name in "bcdefghij":
        peer = cluster.start(name, "a")
        peer.works_ms = 100
        peer.define(T)
    cluster.until(lambda: all(len(it.view) == 10 for it in cluster.peers.values()), 20_000)
    begun = len(cluster.begun)
    cluster.until(lambda: len(cluster.begun) == len(jobs), 60_000)
    assert cluster.repeats(jobs) == set()
    after = Counter(it.peer for it in cluster.begun[begun:])
    fair = sum(after.values()) / 10
    assert all(0.75 * fair <= after[name] <= 1.25 * fair for name in cluster.peers), after
    returned = Counter(
        loan.job for frame in cluster.frames for it in frame.numbered if isinstance(it, GiveBack) for loan in it.loans
    )
    moves = grants(cluster.frames) + returned
    assert max(moves.values()) <= 2


# --- "all" --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(DRAWS))
def test_all_on_five_of_which_one_dies_one_is_blocked_and_another_joins(seed: int) -> None:
    chance = Random(seed)
    cluster = formed("a", "b", "c", "d", "e", works_ms=100)
    victim, blocked, asker = chance.sample("abcde", 3)
    peers = cluster.peers
    ref = None
    moments = sorted((chance.randrange(1, 150), what) for what in ("kill", "block", "join"))
    (job,) = peers[asker].put("all")
    began_ms = cluster.now_ms
    ran_before_death: set[str] = set()
    for at_ms, what in moments:
        cluster.run(began_ms + at_ms - cluster.now_ms)
        if what == "kill":
            ended = {it.peer for it in cluster.begun if it.run.job not in peers[it.peer].executing}
            ran_before_death = ended & {victim}
            cluster.kill(victim)
        elif what == "block":
            peers[blocked].age_from_ms = cluster.now_ms
        else:
            peer = cluster.start("f", "a" if victim != "a" else "b")
            peer.works_ms = 100
            peer.define(ALL)
    cluster.run(1_500)
    peers[blocked].age_from_ms = None
    ref = peers[asker].ask(AwaitResult(job))
    cluster.until(lambda: ref in peers[asker].replies, 20_000)
    told = peers[asker].replies[ref]
    assert isinstance(told, Ended)
    statuses = {part.member.name: part.outcome.status for part in told.parts}
    assert statuses.keys() == set("abcde")
    assert all(statuses[name] is Status.SUCCEEDED for name in "abcde" if name != victim)
    assert statuses[victim] is Status.LOST or victim in ran_before_death
    assert Counter(it.peer for it in cluster.begun) <= Counter("abcde")
