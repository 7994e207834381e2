"""Several engines in one process, over a network that loses nothing unless told to: for tests of a few messages.

Time goes in steps of a millisecond; a frame takes one. Beats are published as a heart does it. What can go wrong is
said by the test: a node is killed or stopped, a way between two is cut. (The simulator draws its faults itself.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import TypeVar

from zhero.config import PROFILES, Limits
from zhero.core.effects import Connect, Disconnect, Effect, Knock, Probe, Reply, Send, Start, Tell
from zhero.core.engine import Engine
from zhero.core.facts import Fact
from zhero.core.messages import Answer, Beat, Call, Frame
from zhero.core.values import Life, Member, NodeId, Run, TaskSpec

F = TypeVar("F")


class Peer:
    """One engine and what it has said to the world."""

    def __init__(self, cluster: Cluster, name: str, seeds: list[str], boot: int, *, node: NodeId | None = None) -> None:
        number = len(cluster.peers) + 1
        self.name = name
        endpoint = f"tcp://{name}:1"
        life = Life(node or NodeId(number.to_bytes(16)), boot, 0)
        member = Member(life, name, endpoint, number, "0", f"tcp://{name}:2")
        self.engine = Engine(member, Limits(), cluster.now_ms, Random(number), profile=PROFILES["lan"], seeds=seeds)
        self.facts: list[Fact] = []
        self.replies: dict[int, Answer] = {}
        self.runs: list[Run] = []
        self.links: dict[Life, Member] = {}
        self.running = True
        self.stopped = False
        self.age_from_ms: int | None = None  # its loop is blocked since then
        self.beats = 0
        self.next_beat_ms = cluster.now_ms + 1
        self.inbox: deque[tuple[int, Frame]] = deque()
        self._cluster = cluster
        self._ref = 0

    def do(self, act: Callable[[int], list[Effect]]) -> None:
        for effect in act(self._cluster.now_ms):
            self._carry_out(effect)
        self.engine.check()

    def ask(self, call: Call) -> int:
        self._ref += 1
        ref = self._ref
        self.do(partial(self.engine.call, ref, call))
        return ref

    def hear_lost(self, life: Life) -> None:
        """Its connection to that one is lost."""
        self.do(partial(self.engine.peer_lost, life))

    def define(self, *specs: TaskSpec) -> None:
        self.do(partial(self.engine.define, specs))

    def told(self, kind: type[F]) -> list[F]:
        """The facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    @property
    def life(self) -> Life:
        return self.engine.me.life

    @property
    def view(self) -> list[str]:
        """Names of the members that it sees, oldest first."""
        return [status.member.name for status in self.engine.members(self._cluster.now_ms)]

    def _carry_out(self, effect: Effect) -> None:
        cluster = self._cluster
        match effect:
            case Send(to, frame):
                member = self.links.get(to)
                if member is not None:
                    cluster.carry(self, member.endpoint, frame)
            case Knock(endpoint, frame):
                cluster.carry(self, endpoint, frame)
            case Connect(member):
                self.links[member.life] = member
            case Disconnect(life):
                self.links.pop(life, None)
            case Probe(member):
                refused = cluster.is_refused(self, member.endpoint)
                cluster.later(1, lambda: self.do(partial(self.engine.probed, member.life, refused)), self)
            case Reply(ref, answer):
                self.replies[ref] = answer
            case Start(runs):
                self.runs += runs
            case Tell(fact):
                self.facts.append(fact)
            case _:
                pass


class Cluster:
    """Peers, their time and the ways between them."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.peers: dict[str, Peer] = {}
        self.cuts: set[tuple[str, str]] = set()  # from, to
        self.frames: list[Frame] = []  # all that was said, beats apart
        self._later: list[tuple[int, Peer, Callable[[], None]]] = []

    def start(self, name: str, *seeds: str, endpoint_of: str | None = None) -> Peer:
        """A process begins; `seeds` are names."""
        peer = Peer(self, name, [f"tcp://{seed}:1" for seed in seeds], self.now_ms + len(self.peers))
        self.peers[name] = peer
        self._run(peer)
        peer.do(partial(peer.engine.capacity, 4))
        return peer

    def restart(self, name: str, *seeds: str) -> Peer:
        """A new process on the same endpoints."""
        old = self.peers.pop(name)
        self.peers[f"{name} of before"] = old
        old.running = False
        return self.start(name, *seeds)

    def kill(self, name: str) -> None:
        """Its connections break, and whoever had one is told."""
        dead = self.peers[name]
        dead.running = False
        for peer in self._alive():
            if dead.life in peer.links:
                self.later(1, partial(peer.hear_lost, dead.life), peer)

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        self.cuts.add((one, other))
        if both:
            self.cuts.add((other, one))

    def heal(self) -> None:
        self.cuts.clear()

    def run(self, span_ms: int) -> None:
        """Let time pass; it jumps from one moment at which something happens to the next."""
        until_ms = self.now_ms + span_ms
        while (next_ms := self._next_ms()) <= until_ms:
            self.now_ms = max(self.now_ms, next_ms)
            due = [it for it in self._later if it[0] <= self.now_ms]
            self._later = [it for it in self._later if it[0] > self.now_ms]
            for _, peer, act in due:
                if peer.running:
                    act()
            for peer in self._alive():
                self._run(peer)
        self.now_ms = until_ms

    def _next_ms(self) -> int:
        moments = [at_ms for at_ms, _, _ in self._later]
        for peer in self._alive():
            if peer.stopped:
                continue
            moments.append(peer.next_beat_ms)
            deadline_ms = peer.engine.deadline_ms()
            if peer.age_from_ms is None:
                moments += [peer.inbox[0][0]] if peer.inbox else []
                moments += [] if deadline_ms is None else [deadline_ms]
        return min(moments, default=1 << 62)

    def later(self, span_ms: int, act: Callable[[], None], peer: Peer) -> None:
        self._later.append((self.now_ms + span_ms, peer, act))

    def _alive(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.running]

    def _run(self, peer: Peer) -> None:
        if peer.stopped:
            return
        if self.now_ms >= peer.next_beat_ms:
            peer.next_beat_ms = self.now_ms + PROFILES["lan"].beat_ms
            self._publish(peer)
        if peer.age_from_ms is not None:
            return
        while peer.inbox and peer.inbox[0][0] <= self.now_ms:
            _, frame = peer.inbox.popleft()
            peer.do(partial(peer.engine.receive, frame))
        deadline_ms = peer.engine.deadline_ms()
        if deadline_ms is not None and deadline_ms <= self.now_ms:
            peer.do(peer.engine.tick)

    def _publish(self, peer: Peer) -> None:
        peer.beats += 1
        frame = peer.engine.beat(self.now_ms)
        (beat,) = frame.messages
        assert isinstance(beat, Beat)
        age_ms = 0 if peer.age_from_ms is None else self.now_ms - peer.age_from_ms
        frame = Frame(frame.sender, None, [replace(beat, number=peer.beats, age_ms=age_ms)])
        for other in self._alive():
            if peer.life in other.links and (peer.name, other.name) not in self.cuts:
                other.inbox.append((self.now_ms + 1, frame))

    def carry(self, sender: Peer, endpoint: str, frame: Frame) -> None:
        self.frames.append(frame)
        receiver = self._at(endpoint)
        if receiver is not None and (sender.name, receiver.name) not in self.cuts:
            receiver.inbox.append((self.now_ms + 1, frame))

    def is_refused(self, sender: Peer, endpoint: str) -> bool:
        name = endpoint.removeprefix("tcp://").partition(":")[0]
        return self._at(endpoint) is None and (sender.name, name) not in self.cuts

    def _at(self, endpoint: str) -> Peer | None:
        name = endpoint.removeprefix("tcp://").partition(":")[0]
        peer = self.peers.get(name)
        return peer if peer is not None and peer.running else None
