"""Who is a member: joining, three ways to notice a death, refuting, leaving, and how views become one again."""

from __future__ import annotations

from functools import partial

import pytest

from tests.unit.cluster import Cluster, Peer
from zhero.config import PROFILES, SOLO_AFTER_MS, Limits
from zhero.core.facts import (
    Confirmed,
    Death,
    IdentityTaken,
    Joined,
    Paused,
    PeerDied,
    PeerLagging,
    PeerLeft,
    PeerRefuted,
    PeerSuspected,
    Reborn,
)
from zhero.core.messages import (
    Accepted,
    AskStatus,
    AwaitResult,
    ClusterStatus,
    Counted,
    CountJobs,
    Ended,
    Enqueue,
    FindJob,
    Frame,
    Leave,
    Left,
    Listed,
    ListJobs,
    Ping,
    ProbeFor,
    Rumours,
    Sync,
)
from zhero.core.values import (
    NO_PARAMS,
    SUCCEEDED,
    Finished,
    JobId,
    Life,
    NodeId,
    Rumour,
    Standing,
    State,
    TaskSpec,
    Verdict,
)

LAN = PROFILES["lan"]
HELLO = TaskSpec("hello")


def three() -> tuple[Cluster, Peer, Peer, Peer]:
    """A cluster of three that has stood for a while."""
    cluster = Cluster()
    peers = cluster.start("a"), cluster.start("b", "a"), cluster.start("c", "a")
    cluster.run(3_000)
    assert [peer.view for peer in peers] == [["a", "b", "c"]] * 3
    for peer in peers:
        peer.facts.clear()
    return cluster, *peers


# --- joining ------------------------------------------------------------------------------------------------------


def test_a_node_that_knows_nobody_begins_at_once() -> None:
    cluster = Cluster()
    alone = cluster.start("a")
    assert alone.engine.joined
    assert alone.engine.deadline_ms() is None


def test_a_node_joins_by_one_seed_and_knows_everybody() -> None:
    cluster = Cluster()
    cluster.start("a")
    cluster.start("b", "a")
    cluster.run(100)
    late = cluster.start("c", "b")
    cluster.run(100)
    assert {tuple(peer.view) for peer in cluster.peers.values()} == {("a", "b", "c")}
    assert late.told(Joined) == [Joined(3, 1)]
    assert [status.joined for status in late.engine.members(cluster.now_ms)] == [1, 2, 3]


def test_nodes_that_start_together_are_one_cluster_with_one_founder() -> None:
    cluster = Cluster()
    names = [f"n{number}" for number in range(20)]
    peers = [cluster.start(name, *(other for other in names if other != name)) for name in names]
    cluster.run(2_000)
    assert {tuple(sorted(peer.view)) for peer in peers} == {tuple(sorted(names))}
    numbers = [status.joined for status in peers[7].engine.members(cluster.now_ms)]
    assert numbers.count(1) == 1
    assert peers[0].told(Joined)[0].joined == 1  # it was started first


def test_a_node_whose_seeds_do_not_answer_begins_alone_and_is_found_later() -> None:
    cluster = Cluster()
    early = cluster.start("a", "b")
    early.define(HELLO)
    ref = early.ask(Enqueue("hello", [(JobId(7), NO_PARAMS)]))
    cluster.run(SOLO_AFTER_MS - 10)
    assert not early.engine.joined
    assert ref not in early.replies  # it waits: another may hold the same id already
    cluster.run(20)
    assert early.engine.joined
    assert early.replies[ref] == Accepted([JobId(7)])
    late = cluster.start("b", "a")
    cluster.run(1_000)
    assert early.view == late.view == ["a", "b"]


def test_a_leaving_node_that_has_not_joined_answers_those_who_wait() -> None:
    cluster = Cluster()
    early = cluster.start("a", "b")
    early.define(HELLO)
    ref = early.ask(Enqueue("hello", [(JobId(7), NO_PARAMS)]))
    leave = early.ask(Leave(0))
    assert type(early.replies[ref]).__name__ == "Refused"
    assert early.replies[leave] == Left(0)


def test_two_clusters_that_meet_are_one() -> None:
    cluster = Cluster()
    one = [cluster.start("a"), cluster.start("b", "a")]
    other = [cluster.start("x"), cluster.start("y", "x")]
    cluster.run(2_000)
    link = cluster.start("m", "b", "y")
    cluster.run(5_000)
    assert {tuple(sorted(peer.view)) for peer in [*one, *other, link]} == {("a", "b", "m", "x", "y")}


def test_task_tables_are_known_to_all() -> None:
    cluster, a, b, _ = three()
    b.define(HELLO, TaskSpec("bye"))
    cluster.run(1_500)
    assert {status.member.name: status.tasks for status in a.engine.members(cluster.now_ms)} == {
        "a": [],
        "b": ["bye", "hello"],
        "c": [],
    }


# --- death --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_killed_node_is_dead_within_half_a_second(size: int) -> None:
    cluster = Cluster()
    names = [f"n{number}" for number in range(size)]
    peers = [cluster.start(name, *names[: min(1, number)]) for number, name in enumerate(names)]
    cluster.run(2_000)
    cluster.kill(names[-1])
    cluster.run(500)
    for peer in peers[:-1]:
        assert peer.view == names[:-1]
        assert {fact.how for fact in peer.told(PeerDied)} <= {Death.REFUSED, Death.TOLD}


def test_a_second_opinion_that_does_not_come_does_not_count() -> None:
    cluster, a, b, c = three()
    b.stopped = True  # it would be asked, and can't answer
    cluster.kill("c")
    cluster.run(LAN.refused_ms + 20)
    assert [fact.how for fact in a.told(PeerDied)] == [Death.REFUSED]
    assert c.life not in a.links


def test_a_second_opinion_against_it_counts() -> None:
    cluster, a, _, c = three()
    a.hear_lost(c.life)
    a.do(lambda now_ms: a.engine.probed(c.life, True, now_ms))  # as a firewall would have it, to this node only
    assert any(isinstance(message, ProbeFor) for frame in cluster.frames[-3:] for message in frame.messages)
    cluster.run(1_000)
    assert a.told(PeerDied) == []
    assert a.view == ["a", "b", "c"]


def test_a_refused_connect_shows_nothing_where_no_beat_ever_came() -> None:
    cluster = Cluster()
    a = cluster.start("a")
    cluster.cut("b", "a", both=False)
    b = cluster.start("b")
    a.do(lambda now_ms: a.engine.receive(_frame_of_join(b), now_ms))
    assert a.view == ["a", "b"]
    a.hear_lost(b.life)
    cluster.run(10)
    assert a.told(PeerDied) == []  # its address may be one that only it can dial


def _frame_of_join(peer: Peer) -> Frame:
    return Frame(peer.life, None, [Sync([_rumour_of(peer)], False)])


def _rumour_of(peer: Peer) -> Rumour:
    return Rumour(peer.engine.me, Standing.ALIVE, 0, 0)


def test_a_stopped_node_is_suspected_and_given_up() -> None:
    cluster, a, b, c = three()
    c.stopped = True
    cluster.run(LAN.silence_ms + 3 * LAN.ping_ms + LAN.beat_ms)
    assert [status.standing for status in a.engine.members(cluster.now_ms)][2] is Standing.SUSPECT
    cluster.run(LAN.suspicion_ms + 1_500)
    assert a.view == b.view == ["a", "b"]
    assert {fact.how for fact in a.told(PeerDied) + b.told(PeerDied)} <= {Death.SILENT, Death.TOLD}


def test_a_node_that_was_stopped_for_less_refutes() -> None:
    cluster, a, b, c = three()
    c.stopped = True
    cluster.run(4_500)
    assert a.told(PeerSuspected)
    c.stopped = False
    cluster.run(1_000)
    assert a.told(PeerRefuted)
    assert b.told(PeerRefuted)
    assert a.told(PeerDied) == []
    assert c.life.life == 0
    assert [type(fact) for fact in c.facts if isinstance(fact, Paused | Confirmed)] == [Paused, Confirmed]


def test_a_node_that_was_given_up_comes_back_under_its_next_life() -> None:
    cluster, a, b, c = three()
    c.stopped = True
    cluster.run(12_000)
    assert a.view == ["a", "b"]
    c.stopped = False
    cluster.run(3_000)
    assert a.view == b.view == c.view == ["a", "b", "c"]
    assert c.life.life == 1
    assert c.told(Reborn) == [Reborn(c.life)]
    assert a.life.life == b.life.life == 0


def test_what_a_reborn_node_runs_it_goes_on_running() -> None:
    cluster, a, b, c = three()
    c.define(HELLO, TaskSpec("tell", scope="all"))
    c.ask(Enqueue("hello", [(JobId(7), NO_PARAMS)]))
    c.ask(Enqueue("tell", [(JobId(8), NO_PARAMS)]))
    cluster.run(10)
    assert len(c.runs) == 2
    c.stopped = True
    cluster.run(12_000)
    c.stopped = False
    cluster.run(3_000)
    assert c.life.life == 1
    ref = a.ask(ListJobs())
    cluster.run(50)
    listed = a.replies[ref]
    assert isinstance(listed, Listed)
    (info,) = listed.jobs  # what each member was to run is lost with the member
    assert (info.job, info.node, info.home, info.state) == (JobId(7), c.life, a.life, State.LENT)
    assert len(c.runs) == 2
    said = len(cluster.frames)
    cluster.run(3_000)
    assert len(cluster.frames) - said < 10
    ref = b.ask(AwaitResult(JobId(7)))
    cluster.run(10)
    c.do(partial(c.engine.finished, [Finished(JobId(7), 1, Verdict.DONE, SUCCEEDED)]))
    cluster.run(10)
    assert b.replies[ref] == Ended(JobId(7), SUCCEEDED)


def test_a_blocked_loop_is_lagging_and_not_dead() -> None:
    cluster, a, b, c = three()
    c.age_from_ms = cluster.now_ms
    cluster.run(30_000)
    assert [fact.lagging for fact in a.told(PeerLagging)] == [True]
    assert a.told(PeerSuspected) == b.told(PeerSuspected) == []
    c.age_from_ms = None
    cluster.run(1_000)
    assert [fact.lagging for fact in a.told(PeerLagging)] == [True, False]
    assert c.told(PeerSuspected) == []  # its own pause is not the silence of others


def test_a_new_process_on_the_port_of_a_dead_one_takes_its_place() -> None:
    cluster, a, b, c = three()
    new = cluster.restart("c", "a")
    cluster.run(1_000)
    assert a.view == b.view == new.view == ["a", "b", "c"]
    assert c.life not in a.links
    assert new.life in a.links


def test_fifty_restarts_leave_no_row_behind() -> None:
    cluster, a, b, _ = three()
    for _ in range(50):
        cluster.kill("c")
        cluster.run(400)
        cluster.restart("c", "a")
        cluster.run(1_000)
    assert a.view == b.view == ["a", "b", "c"]
    assert len(a.links) == 2


# --- suspicion ----------------------------------------------------------------------------------------------------


def test_one_that_missed_the_refutation_is_told_again() -> None:
    cluster, a, b, c = three()
    _accuse(a, b, count=1)
    assert {(to, told.count) for to, told in _refutations(a)} == {(b.life, 2), (c.life, 2)}
    cluster.frames.clear()
    _accuse(a, b, count=1)
    assert [(to, told.count) for to, told in _refutations(a)] == [(b.life, 2)]
    cluster.frames.clear()
    _accuse(a, c, count=2)
    assert {(to, told.count) for to, told in _refutations(a)} == {(b.life, 3), (c.life, 3)}


def test_one_that_is_not_known_here_is_answered_and_met() -> None:
    cluster, a, b, c = three()
    alone = cluster.start("x")
    cluster.cut("a", "x")
    for known in (a, b, c):
        alone.do(lambda now_ms, known=known: alone.engine.receive(_frame_of_join(known), now_ms))  # type: ignore[misc]
    assert sorted(alone.view) == ["a", "b", "c", "x"]
    cluster.heal()
    cluster.frames.clear()
    suspicion = Rumour(a.engine.me, Standing.SUSPECT, 1, 1)
    frame = Frame(alone.life, a.life, [Rumours([_rumour_of(alone), suspicion])])
    a.do(lambda now_ms: a.engine.receive(frame, now_ms))
    (answer,) = [it for frame in cluster.frames for it in frame.messages if isinstance(it, Sync)]
    assert (answer.told[0].member, answer.told[0].count) == (a.engine.me, 2)
    cluster.run(100)
    assert "x" in a.view


def test_whoever_suspects_a_member_says_who_it_is() -> None:
    cluster, a, _, c = three()
    c.stopped = True
    cluster.run(LAN.silence_ms + 3 * LAN.ping_ms + LAN.beat_ms)
    said = [
        [(told.member.name, told.standing) for told in message.told]
        for frame in cluster.frames
        if frame.to == c.life and frame.sender == a.life
        for message in frame.messages
        if isinstance(message, Rumours)
    ]
    assert [("a", Standing.ALIVE), ("c", Standing.SUSPECT)] in said


def _accuse(accused: Peer, by: Peer, *, count: int) -> None:
    told = Rumour(accused.engine.me, Standing.SUSPECT, count, 0)
    frame = Frame(by.life, accused.life, [Rumours([told])])
    accused.do(lambda now_ms: accused.engine.receive(frame, now_ms))


def _refutations(of: Peer) -> list[tuple[Life | None, Rumour]]:
    return [
        (frame.to, told)
        for frame in of.cluster.frames
        if frame.sender == of.life
        for message in frame.messages
        if isinstance(message, Rumours)
        for told in message.told
        if told.member.life == of.life
    ]


# --- splits -------------------------------------------------------------------------------------------------------


def test_a_node_that_one_other_still_hears_is_not_given_up() -> None:
    cluster, a, b, c = three()
    cluster.cut("a", "c")
    cluster.run(60_000)
    assert a.told(PeerDied) == c.told(PeerDied) == b.told(PeerDied) == []
    assert a.view == b.view == c.view == ["a", "b", "c"]


def test_a_one_way_cut_between_two_heals() -> None:
    cluster = Cluster()
    a, b = cluster.start("a"), cluster.start("b", "a")
    cluster.run(2_000)
    cluster.cut("a", "b", both=False)
    cluster.run(30_000)
    cluster.heal()
    cluster.run(60_000)
    assert a.view == b.view == ["a", "b"]


def test_a_healed_split_ends_in_one_view() -> None:
    cluster = Cluster()
    names = ["a", "b", "c", "d", "e"]
    peers = [cluster.start(name, *names[: min(1, number)]) for number, name in enumerate(names)]
    cluster.run(3_000)
    for one in ("a", "b"):
        for other in ("c", "d", "e"):
            cluster.cut(one, other)
    cluster.run(60_000)
    assert sorted(peers[0].view) == ["a", "b"]
    assert sorted(peers[4].view) == ["c", "d", "e"]
    cluster.heal()
    cluster.run(LAN.retry_ms * 3 // 2 + 5_000)
    assert {tuple(sorted(peer.view)) for peer in peers} == {tuple(names)}


# --- leaving, identity --------------------------------------------------------------------------------------------


def test_a_node_that_leaves_has_left_and_is_not_tried_again() -> None:
    cluster, a, b, c = three()
    ref = c.ask(Leave(0))
    cluster.run(10)
    assert isinstance(c.replies[ref], Left)
    assert a.view == b.view == ["a", "b"]
    assert [fact.member.name for fact in a.told(PeerLeft)] == ["c"]
    cluster.kill("c")
    cluster.run(1_000)
    said = len(cluster.frames)
    cluster.run(100_000)
    assert len(cluster.frames) == said


def test_a_copy_of_a_living_node_is_told_that_its_identity_is_taken() -> None:
    cluster, a, b, c = three()
    copy = _copy(cluster, c)
    cluster.run(2_000)
    assert [fact.other for fact in copy.told(IdentityTaken)][:1] == [c.engine.me]
    assert a.view == b.view == c.view == ["a", "b", "c"]
    assert a.told(PeerDied) == []
    assert c.told(IdentityTaken) == []


def test_a_dead_node_that_starts_again_with_its_identity_takes_its_place() -> None:
    cluster, a, b, c = three()
    c.running = False  # and nobody noticed yet
    again = _copy(cluster, c)
    cluster.run(3_000)
    assert again.told(IdentityTaken) == []
    assert a.view == b.view == again.view == ["a", "b", "again"] or a.view == ["a", "b", "c"]
    assert again.life in a.links
    assert c.life not in a.links


def _copy(cluster: Cluster, of: Peer) -> Peer:
    """A process with the node id of another, on ports of its own, started later."""
    copy = Peer(cluster, "again", ["tcp://a:1"], cluster.now_ms, node=of.life.node)
    cluster.peers["again"] = copy
    return copy


# --- questions to all ---------------------------------------------------------------------------------------------


def test_a_question_is_answered_for_all() -> None:
    cluster, a, b, c = three()
    for number, peer in enumerate((a, b, c)):
        peer.define(HELLO)
        peer.ask(Enqueue("hello", [(JobId(100 + number), NO_PARAMS)]))
    cluster.run(10)
    refs = [a.ask(CountJobs()), a.ask(ListJobs(limit=2)), a.ask(FindJob(JobId(102))), a.ask(AskStatus())]
    cluster.run(50)
    counted, listed, found, status = (a.replies[ref] for ref in refs)
    assert isinstance(counted, Counted)
    assert counted.queues["local"] == 3
    assert isinstance(listed, Listed)
    assert (len(listed.jobs), listed.total, listed.silent) == (2, 3, [])
    assert isinstance(found, Listed)
    assert [info.home for info in found.jobs] == [c.life]
    assert isinstance(status, ClusterStatus)
    assert sum(member.busy for member in status.members) == 3


def test_an_answer_names_who_did_not_answer() -> None:
    cluster, a, _, c = three()
    c.stopped = True
    ref = a.ask(CountJobs())
    cluster.run(LAN.answer_ms - 100)
    assert ref not in a.replies
    cluster.run(200)
    counted = a.replies[ref]
    assert isinstance(counted, Counted)
    assert counted.silent == ["c"]


def test_a_member_that_dies_meanwhile_is_named_at_once() -> None:
    cluster, a, _, c = three()
    c.stopped = True
    ref = a.ask(CountJobs())
    cluster.kill("c")
    cluster.run(500)
    counted = a.replies[ref]
    assert isinstance(counted, Counted)
    assert counted.silent == ["c"]


def test_an_idle_cluster_says_nothing_but_beats() -> None:
    cluster, _, _, _ = three()
    said = len(cluster.frames)
    cluster.run(60_000)
    assert len(cluster.frames) == said


def test_a_ping_of_a_stranger_is_not_answered() -> None:
    cluster, a, _, _ = three()
    stranger = Life(NodeId(b"s" * 16), 1, 0)
    said = len(cluster.frames)
    a.do(lambda now_ms: a.engine.receive(Frame(stranger, None, [Ping(1)]), now_ms))
    assert len(cluster.frames) == said


def test_how_long_a_node_looks_for_others_before_it_works_alone_can_be_set() -> None:
    cluster = Cluster(Limits(solo_after_ms=1_000))
    alone = cluster.start("a", "nobody")
    cluster.run(900)
    assert not alone.engine.joined
    cluster.run(200)
    assert alone.engine.joined
