"""Copies: nothing is accepted or begun before they exist, and they are made up for when one is lost or slow."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tests.unit.cluster import Cluster, Peer, T, formed
from zhero.config import Limits
from zhero.core.entries import Put
from zhero.core.facts import Degraded, PeerDied
from zhero.core.messages import (
    Accepted,
    AskStatus,
    ClusterStatus,
    Copied,
    Enqueue,
    Entries,
    Received,
    Refusal,
    Refused,
)
from zhero.core.values import NO_PARAMS, JobId, State, TaskSpec


def followers(peer: Peer) -> list[str]:
    """Names of those that have a whole copy of its own slice."""
    rows = {it.life: it.name for it in peer.cluster.peers.values()}
    return sorted(rows[life] for life, it in peer.engine.streams.own.followers.items() if it.receipt >= 0)


def backup_of(cluster: Cluster, peer: Peer) -> Peer:
    (name,) = followers(peer)
    return cluster.peers[name]


def test_accepted_is_said_and_a_job_begins_when_its_copy_exists() -> None:
    cluster = formed("a", "b", "c")
    a = cluster.peers["a"]
    (job,) = a.put("t")
    assert a.answer is None
    cluster.run(1)
    assert a.answer is None  # the entries arrive, and the receipt is on its way
    assert not cluster.runs_of([job])
    cluster.run(1)
    assert a.answer == Accepted([job])
    cluster.run(2)
    (begun,) = cluster.runs_of([job])
    assert begun.run.attempt == 1


def test_while_the_only_backup_is_stopped_nothing_begins() -> None:
    cluster = formed("a", "b")
    a, b = cluster.peers.values()
    b.stopped = True
    jobs = a.put("t", 3)
    cluster.run(1_500)  # it is not dead yet
    assert a.answer is None
    assert not cluster.runs_of(jobs)
    b.stopped = False
    cluster.run(1_000)
    assert a.answer is not None
    assert len(cluster.runs_of(jobs)) == 3


def test_what_is_not_accepted_in_time_stays_and_runs_later() -> None:
    cluster = formed("a", "b", limits=Limits(accept_timeout_ms=1_000))
    a, b = cluster.peers.values()
    b.age_from_ms = cluster.now_ms  # its loop is blocked: lagging, and not dead
    (job,) = a.put("t")
    cluster.run(999)
    assert a.answer is None
    cluster.run(1)
    assert a.answer == Refused(Refusal.NOT_ACCEPTED, f"{job:032x}")
    assert not cluster.runs_of([job])
    cluster.run(10_000)
    assert not cluster.runs_of([job])
    assert not a.told(PeerDied)
    b.age_from_ms = None
    cluster.run(1_000)
    assert len(cluster.runs_of([job])) == 1
    assert a.outcomes([job]) == {"succeeded": 1}


def test_of_a_slow_follower_another_member_takes_the_part() -> None:
    cluster = formed("a", "b", "c")
    a = cluster.peers["a"]
    slow = backup_of(cluster, a)
    slow.age_from_ms = cluster.now_ms
    jobs = a.put("t", 5)
    cluster.until(lambda: isinstance(a.answer, Accepted), 3_000)
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 5, 1_000)
    assert slow.name not in cluster.shares(jobs)
    cluster.run(3_000)
    assert followers(a) != [slow.name]
    slow.age_from_ms = None
    cluster.run(3_000)
    assert len(followers(a)) == 1  # there are no more than were asked for


def test_a_recruit_replaces_a_follower_that_has_died() -> None:
    cluster = formed("a", "b", "c", works_ms=2_000)
    a = cluster.peers["a"]
    first = backup_of(cluster, a)
    jobs = a.put("t", 40)
    cluster.run(100)
    cluster.kill(first.name)
    cluster.until(lambda: followers(a) not in ([], [first.name]), 5_000)
    second = backup_of(cluster, a)
    assert second is not first
    cluster.run(500)
    cluster.kill("a")
    cluster.run(30_000)
    assert second.outcomes(jobs) == {"succeeded": 40}


def test_a_join_moves_no_copy_and_stalls_nothing() -> None:
    cluster = formed("a", "b", "c")
    a = cluster.peers["a"]
    before = followers(a)
    cluster.start("d", "a", slots=0).define(T)
    jobs = a.put("t", 20)
    cluster.run(50)
    assert isinstance(a.answer, Accepted)
    cluster.run(3_000)
    assert len(cluster.runs_of(jobs)) == 20
    assert followers(a) == before


def test_a_node_that_was_alone_gives_copies_of_what_it_has_to_the_first_that_joins() -> None:
    cluster = Cluster()
    a = cluster.start("a", slots=0)
    a.define(T)
    cluster.run(6_000)
    jobs = a.put("t", 30)
    assert isinstance(a.answer, Accepted)
    b = cluster.start("b", "a", slots=0)
    b.define(T)
    cluster.run(6_000)
    assert followers(a) == ["b"]
    cluster.kill("a")
    b.works_ms = 5
    b.do(partial(b.engine.capacity, 4))
    cluster.run(10_000)
    assert b.outcomes(jobs) == {"succeeded": 30}


def test_without_backups_nobody_waits() -> None:
    cluster = formed("a", "b", "c", limits=Limits(backups=0))
    a = cluster.peers["a"]
    (job,) = a.put("t")
    assert a.answer == Accepted([job])
    cluster.run(5)
    assert len(cluster.runs_of([job])) == 1
    assert not cluster.said(Entries)


def test_a_task_may_ask_for_none_or_for_two() -> None:
    careless, careful = TaskSpec("careless", backups=0), TaskSpec("careful", backups=2)
    cluster = formed("a", "b", "c", "d", specs=(careless, careful))
    a = cluster.peers["a"]
    a.put("careless")
    assert isinstance(a.answer, Accepted)
    (job,) = a.put("careful")
    cluster.run(1)
    assert not cluster.runs_of([job])
    cluster.until(lambda: isinstance(a.answer, Accepted), 1_000)
    assert len(followers(a)) == 2
    assert len(cluster.runs_of([job])) <= 1


def test_two_backups_survive_the_death_of_any_two() -> None:
    cluster = formed("a", "b", "c", "d", works_ms=300, limits=Limits(backups=2))
    a = cluster.peers["a"]
    assert len(followers(a)) == 2
    jobs = a.put("t", 100)
    cluster.until(lambda: isinstance(a.answer, Accepted))
    dead = ["a", followers(a)[0]]
    for name in dead:
        cluster.kill(name)
    (one, _) = (peer for peer in cluster.peers.values() if peer.running)
    cluster.run(20_000)
    assert one.outcomes(jobs) == {"succeeded": 100}


def test_with_two_backups_accepted_waits_for_both() -> None:
    cluster = formed("a", "b", "c", limits=Limits(backups=2))
    a, b, _ = cluster.peers.values()
    b.age_from_ms = cluster.now_ms
    (job,) = a.put("t")
    cluster.run(3_000)
    assert a.answer is None
    assert not cluster.runs_of([job])
    b.age_from_ms = None
    cluster.run(500)
    assert a.answer == Accepted([job])


def test_a_batch_is_there_as_a_whole_or_not_at_all() -> None:
    """It takes several entries: whoever has only the first one has none of its jobs."""
    cluster = formed("a", "b")
    a, b = cluster.peers.values()
    jobs = [cluster.new_id() for _ in range(60)]
    a.ask(Enqueue("t", [(job, bytes(10_000)) for job in jobs]))
    at_ms, frame = next(it for it in b.inbox if any(isinstance(said, Entries) for said in it[1].numbered))
    first = next(said for said in frame.numbered if isinstance(said, Entries))
    assert all(isinstance(entry, Put) and entry.more for entry in first.entries[:1])
    b.inbox.clear()  # the rest is lost with its home
    b.inbox.append((at_ms, replace(frame, numbered=[replace(first, entries=first.entries[:1])])))
    cluster.kill("a")
    cluster.run(10_000)
    assert not cluster.runs_of(jobs)
    assert b.engine.streams.jobs_count == 0


def test_a_batch_begins_when_all_of_it_has_its_copy() -> None:
    cluster = formed("a", "b")
    a, _ = cluster.peers.values()
    jobs = [cluster.new_id() for _ in range(300)]
    a.ask(Enqueue("t", [(job, bytes(10_000)) for job in jobs]))
    cluster.until(lambda: isinstance(a.answer, Accepted))
    cluster.until(lambda: len(cluster.runs_of(jobs)) == 300)
    last = max(it.number for it in cluster.said(Received) if isinstance(it, Received))
    assert last >= 3
    assert not cluster.repeats(jobs)


def test_a_large_slice_is_copied_in_pieces() -> None:
    cluster = Cluster()
    a = cluster.start("a", slots=0)
    a.define(T)
    cluster.run(6_000)
    jobs = [cluster.new_id() for _ in range(100)]
    a.ask(Enqueue("t", [(job, bytes(10_000)) for job in jobs]))
    cluster.start("b", "a", slots=0)
    cluster.run(5_000)
    assert len(cluster.said(Copied)) > 5
    assert followers(a) == ["b"]


def test_whatever_lacks_copies_is_told_to_people() -> None:
    cluster = formed("a", "b", works_ms=None)
    a, b = cluster.peers.values()
    a.put("t", 7)
    cluster.run(1_000)
    assert not a.told(Degraded)
    cluster.kill(b.name)
    cluster.run(6_000)
    assert [fact.jobs for fact in a.told(Degraded)] == [7]
    status = a.hear(AskStatus())
    assert isinstance(status, ClusterStatus)
    assert [it.degraded for it in status.members] == [7]
    cluster.start("c", "a", slots=0)
    cluster.run(6_000)
    assert [fact.jobs for fact in a.told(Degraded)] == [7, 0]


def test_a_job_that_may_run_at_most_once_begins_when_copies_know_that_it_was_lent() -> None:
    cluster = formed("a", "b")
    a, b = cluster.peers.values()
    b.do(partial(b.engine.capacity, 0))
    cluster.run(1_000)
    (job,) = a.put("once")
    cluster.run(2)
    assert a.answer == Accepted([job])
    assert not cluster.runs_of([job])  # the receipt for "lent" is on its way
    cluster.run(2)
    assert len(cluster.runs_of([job])) == 1
    assert a.outcomes([job]) == {"succeeded": 1}


def test_jobs_in_every_state_survive_their_home() -> None:
    cluster = formed("a", "b", works_ms=None)
    a, b = cluster.peers.values()
    a.do(partial(a.engine.capacity, 2))
    b.do(partial(b.engine.capacity, 0))
    cluster.run(1_000)
    jobs: list[JobId] = a.put("t", 5) + a.put("t", 2, delay_ms=60_000) + a.put("all", 1)
    a.ask(Enqueue("t", [(JobId(5), NO_PARAMS)], keyed=True))
    cluster.run(1_000)
    cluster.kill("a")
    cluster.run(5_000)
    kept = {stream.name: stream.slice for stream in b.engine.streams}
    states = {job: [it.state(job) for it in kept.values() if job in it] for job in [*jobs, JobId(5)]}
    assert all(len(found) == 1 for job, found in states.items() if job != jobs[-1]), states
    assert [states[job] for job in jobs[5:7]] == [[State.DELAYED]] * 2
    assert JobId(5) in kept["delayed"].keyed
