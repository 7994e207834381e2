"""Who owns the delayed queue: one member, that all know, whatever comes and goes."""

from __future__ import annotations

import pytest

from tests.unit.cluster import TICK, Cluster, Peer, T, formed
from zhero.config import Limits
from zhero.core.effects import Outbox
from zhero.core.facts import OwnerChanged
from zhero.core.jobs import Slice
from zhero.core.messages import AskStatus, ClusterStatus, Copied, Leave, Owns, Took
from zhero.core.owner import Ownership
from zhero.core.roster import Roster
from zhero.core.streams import Stream, Streams
from zhero.core.values import Life, Member, NodeId, Rumour, Standing, StreamId


def owners(cluster: Cluster) -> set[str]:
    """Who is believed to be the owner, by all that are here."""
    names = {peer.life: name for name, peer in cluster.peers.items()}
    living = [peer for peer in cluster.peers.values() if peer.running]
    return {"nobody" if peer.engine.owner is None else names[peer.engine.owner] for peer in living}


def term(peer: Peer) -> int:
    stream = peer.engine.streams.delayed
    assert stream is not None
    return stream.term


def test_a_node_that_is_alone_owns_the_queue_from_the_beginning() -> None:
    cluster = Cluster()
    a = cluster.start("a")
    assert a.owns
    assert [(fact.epoch, fact.mine) for fact in a.told(OwnerChanged)] == [(1, True)]


def test_a_node_that_looks_for_others_owns_nothing_until_it_has_found_them() -> None:
    cluster = Cluster()
    a = cluster.start("a", "b")
    cluster.run(4_000)
    assert a.engine.owner is None
    cluster.run(2_000)  # solo_after
    assert a.owns


def test_a_join_does_not_move_it() -> None:
    cluster = formed("a", "b")
    for name in "cde":
        cluster.start(name, "a")
        cluster.run(1_000)
        assert owners(cluster) == {"a"}
    assert term(cluster.peers["a"]) == 1


def test_nodes_that_start_together_have_one_owner() -> None:
    cluster = Cluster()
    names = "abcdef"
    for name in names:
        cluster.start(name, *(other for other in names if other != name))
    cluster.run(8_000)
    assert len(owners(cluster)) == 1
    assert sum(peer.engine.streams.delayed is not None for peer in cluster.peers.values()) == 1


@pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
def test_when_the_owner_dies_its_standby_goes_on_with_the_next_term(names: str) -> None:
    cluster = formed(*names)
    for number in range(2, len(names) + 1):
        (before,) = owners(cluster)
        cluster.kill(before)
        cluster.run(4_000)
        (now,) = owners(cluster)
        assert now != before
        assert term(cluster.peers[now]) == number


def test_an_owner_that_leaves_hands_it_to_the_oldest() -> None:
    cluster = formed("a", "b", "c", specs=(TICK,))
    a = cluster.peers["a"]
    ref = a.ask(Leave(5_000))
    cluster.until(lambda: ref in a.replies)
    cluster.kill("a")
    cluster.run(500)
    assert owners(cluster) == {"b"}


def test_where_nobody_has_a_copy_the_oldest_begins_anew() -> None:
    cluster = formed("a", "b", "c", "d")
    cluster.kill("a")
    cluster.kill("b")  # the owner and its only standby
    cluster.run(6_000)
    assert owners(cluster) == {"c"}
    assert term(cluster.peers["c"]) >= 2
    (job,) = cluster.peers["d"].put("t", delay_ms=100)
    cluster.run(1_000)
    assert len(cluster.runs_of([job])) == 1


def test_of_two_owners_that_meet_one_stays_and_has_what_both_had() -> None:
    cluster = formed("a", "b", "c", "d")
    for one in "ab":
        for other in "cd":
            cluster.cut(one, other)
    cluster.run(20_000)
    assert owners(cluster) == {"a", "c"}
    jobs = cluster.peers["b"].put("t", 4, delay_ms=60_000) + cluster.peers["d"].put("t", 4, delay_ms=60_000)
    cluster.run(500)
    cluster.heal()
    cluster.run(45_000)
    (name,) = owners(cluster)
    stream = cluster.peers[name].engine.streams.delayed
    assert stream is not None
    assert all(job in stream.slice for job in jobs)
    assert sum(peer.engine.streams.delayed is not None for peer in cluster.peers.values()) == 1
    cluster.run(30_000)
    assert len(cluster.runs_of(jobs)) == 8


def test_two_clusters_that_meet_have_one_owner_and_one_schedule() -> None:
    cluster = Cluster()
    for name, seed in (("a", "a"), ("b", "a"), ("c", "c"), ("d", "c")):
        peer = cluster.start(name, *([seed] if seed != name else []))
        peer.works_ms = 10
        cluster.run(200)
        peer.define(T, TICK)
    cluster.run(5_000)
    assert len(owners(cluster)) == 2
    a, c = cluster.peers["a"], cluster.peers["c"]
    a.do(lambda now_ms: a.engine.seeds(["tcp://c:1"], now_ms))
    cluster.run(40_000)
    assert a.view == c.view
    assert len(owners(cluster)) == 1
    began_ms = cluster.now_ms
    cluster.run(10_000)
    ticks = [it.run.number for it in cluster.begun if it.at_ms > began_ms]
    assert len(set(ticks)) == len(ticks)
    assert 8 <= len(ticks) <= 10


def test_who_joins_a_running_cluster_yields_what_it_had_alone() -> None:
    cluster = formed("a", "b")
    late = cluster.start("c")
    late.define(T)
    assert late.owns
    (job,) = late.put("t", delay_ms=40_000)
    late.do(lambda now_ms: late.engine.seeds(["tcp://a:1"], now_ms))
    cluster.run(35_000)
    assert owners(cluster) == {"a"}
    stream = cluster.peers["a"].engine.streams.delayed
    assert stream is not None
    assert job in stream.slice
    cluster.run(10_000)
    assert len(cluster.runs_of([job])) == 1


def test_its_standby_is_the_next_oldest() -> None:
    cluster = formed("a", "b", "c", "d")
    stream = cluster.peers["a"].engine.streams.delayed
    assert stream is not None
    assert list(stream.followers) == [cluster.peers["b"].life]
    cluster.kill("b")
    cluster.run(4_000)
    assert list(stream.followers) == [cluster.peers["c"].life]
    assert cluster.said(Copied)


def test_everybody_shows_the_same_owner() -> None:
    cluster = formed("a", "b", "c")
    for peer in cluster.peers.values():
        status = peer.hear(AskStatus())
        assert isinstance(status, ClusterStatus)
        assert [it.member.name for it in status.members if it.owner] == ["a"]


def test_what_an_owner_had_said_before_it_handed_its_queue_over_is_not_believed_later() -> None:
    """What two members say comes in any order: the one that took the queue is heard before the one that gave it."""
    me, gave, took = (
        Member(Life(NodeId(bytes([n]) * 16), 1, 0), f"n{n}", f"tcp://n{n}:1", n, "0", "") for n in (1, 2, 3)
    )
    roster = Roster(me)
    for member in (gave, took):
        roster.add(Rumour(member, Standing.ALIVE, 1, 1), 0)
    before, into = StreamId("delayed", gave.life, 1), StreamId("delayed", took.life, 1)
    moved: dict[StreamId, StreamId] = {}
    streams = Streams(Stream(Slice("own", me.life, 1, Limits())))
    ownership = Ownership(roster, streams, Limits(), Outbox(), moved, lambda now_ms: None)
    ownership.on_owns(took.life, Owns(into), 1)
    moved[before] = into
    ownership.on_took(Took(before, into), 2)
    ownership.on_owns(gave.life, Owns(before), 3)  # of the two it would be the one that stays
    assert ownership.owner == took.life
