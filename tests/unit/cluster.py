"""Several engines in one process, over a network that loses nothing unless told to: for tests of a few messages.

Time goes in steps of a millisecond; a frame takes one. Beats are published as a heart does it. What can go wrong is
said by the test: a node is killed or stopped, a way between two is cut. (The simulator draws its faults itself.)

A peer has an executor if the test says how long its runs take (`Peer.works_ms`); all that begins is in `Cluster.begun`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TypeVar

from tests.unit.disk import Disk
from zhero.config import PROFILES, Limits
from zhero.core.effects import Connect, Disconnect, Effect, Knock, Persist, Probe, Reply, Send, Start, Stop, Tell
from zhero.core.engine import Engine
from zhero.core.facts import Fact
from zhero.core.messages import Answer, AwaitResult, Beat, Call, Ended, Enqueue, Frame, Message
from zhero.core.values import (
    NO_PARAMS,
    SUCCEEDED,
    Finished,
    JobId,
    Life,
    Member,
    NodeId,
    Outcome,
    Run,
    Status,
    TaskSpec,
    Verdict,
)

F = TypeVar("F")
WRITES_MS = 2
"""How long a write to a disk takes."""


@dataclass(frozen=True)
class Begun:
    """A run that an executor has begun."""

    peer: str
    run: Run
    at_ms: int


class Peer:
    """One engine and what it has said to the world."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        seeds: list[str],
        boot: int,
        *,
        node: NodeId | None = None,
        limits: Limits | None = None,
        ahead_ms: int = 0,
        disk: Disk | None = None,
    ) -> None:
        number = len(cluster.peers) + 1
        self.name = name
        endpoint = f"tcp://{name}:1"
        life = Life(node or NodeId(number.to_bytes(16)), boot, 0)
        member = Member(life, name, endpoint, number, "0", f"tcp://{name}:2")
        limits = limits or Limits()
        self.cluster = cluster
        self.ahead_ms = ahead_ms  # its clock is wrong by so much
        self.disk = disk
        self.writes = True  # else its disk is stuck
        self.engine = Engine(
            member,
            limits,
            self.clock_ms,
            Random(number),
            profile=PROFILES["lan"],
            seeds=seeds,
            journal=disk is not None,
        )
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
        self.works_ms: int | None = None  # how long a run takes; None: it has no executor
        self.executing: dict[JobId, Run] = {}
        self._ref = 0

    def do(self, act: Callable[[int], list[Effect]]) -> None:
        for effect in act(self.clock_ms):
            self._carry_out(effect)
        self.engine.check()

    def do_in_one_turn(self, acts: Sequence[Callable[[int], list[Effect]]]) -> None:
        """Inputs that are made with `more`, as a driver makes those of one turn."""
        for act in acts:
            for effect in act(self.clock_ms):
                self._carry_out(effect)
        if self.engine.has_more:
            self.do(self.engine.settle)

    def ask(self, call: Call) -> int:
        self._ref += 1
        ref = self._ref
        self.do(partial(self.engine.call, ref, call))
        return ref

    def put(self, task: str, count: int = 1, delay_ms: int = 0, *, params: bytes = NO_PARAMS) -> list[JobId]:
        """Enqueue some. `accepted` says whether they were accepted."""
        jobs = [self.cluster.new_id() for _ in range(count)]
        self.ask(Enqueue(task, [(job, params) for job in jobs], delay_ms=delay_ms))
        return jobs

    @property
    def answer(self) -> Answer | None:
        """Of the last call; None: there is none yet."""
        return self.replies.get(self._ref)

    def hear(self, call: Call, within_ms: int = 10_000) -> Answer:
        """Ask, and let time pass until there is an answer."""
        ref = self.ask(call)
        self.cluster.until(lambda: ref in self.replies, within_ms)
        return self.replies[ref]

    def outcomes(self, jobs: Iterable[JobId], within_ms: int = 10_000) -> Counter[str]:
        """How those jobs have ended, or will within that span."""
        answers = [self.hear(AwaitResult(job), within_ms) for job in jobs]
        return Counter(it.outcome.status.value if isinstance(it, Ended) else repr(it) for it in answers)

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
    def clock_ms(self) -> int:
        return self.cluster.now_ms + self.ahead_ms

    @property
    def turns(self) -> bool:
        """Whether its loop does."""
        return not self.stopped and self.age_from_ms is None

    @property
    def owns(self) -> bool:
        """Whether it believes that it is the owner."""
        return self.engine.owner == self.life

    @property
    def view(self) -> list[str]:
        """Names of the members that it sees, oldest first."""
        return [status.member.name for status in self.engine.members(self.clock_ms)]

    def _carry_out(self, effect: Effect) -> None:
        cluster = self.cluster
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
                for run in runs if self.works_ms is not None else ():
                    self._begin(run)
            case Stop(job):
                if job in self.executing:
                    cluster.later(1, partial(self._end, self.executing[job], Verdict.CANCELLED), self)
            case Tell(fact):
                self.facts.append(fact)
            case Persist():
                cluster.later(WRITES_MS, partial(self._persist, effect), self)
            case _:
                pass

    def _persist(self, persist: Persist) -> None:
        assert self.disk is not None
        if self.writes:
            self.disk.write(persist)
            self.do(partial(self.engine.persisted, persist.ticket))

    # --- its executor ---------------------------------------------------------------------------------------------

    def _begin(self, run: Run) -> None:
        assert self.works_ms is not None
        self.executing[run.job] = run
        self.cluster.begun.append(Begun(self.name, run, self.cluster.now_ms))
        self.cluster.later(1, partial(self.do, partial(self.engine.started, [run.job])), self)
        self.cluster.later(1 + self.works_ms, partial(self._end, run, Verdict.DONE), self)

    def _end(self, run: Run, verdict: Verdict) -> None:
        if self.executing.get(run.job) is run:
            del self.executing[run.job]
            outcome = SUCCEEDED if verdict is Verdict.DONE else Outcome(Status.CANCELLED)
            self.do(partial(self.engine.finished, [Finished(run.job, run.attempt, verdict, outcome)]))


class Cluster:
    """Peers, their time and the ways between them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits
        self.now_ms = 1_000_000
        self.begun: list[Begun] = []
        self.peers: dict[str, Peer] = {}
        self.cuts: set[tuple[str, str]] = set()  # from, to
        self.frames: list[Frame] = []  # all that was said, beats apart
        self._later: list[tuple[int, Peer, Callable[[], None]]] = []
        self._ids = 77 << 64

    def new_id(self) -> JobId:
        self._ids += 1
        return JobId(self._ids)

    def start(
        self,
        name: str,
        *seeds: str,
        slots: int = 4,
        ahead_ms: int = 0,
        disk: Disk | None = None,
        has_disk: bool = False,
    ) -> Peer:
        """A process begins; `seeds` are names. `disk`: that of an earlier one; `has_disk`: a new one."""
        endpoints = [f"tcp://{seed}:1" for seed in seeds]
        boot = self.now_ms + len(self.peers)
        if has_disk:
            disk = Disk(NodeId((len(self.peers) + 1).to_bytes(16)))
        node = None if disk is None else disk.node
        peer = Peer(self, name, endpoints, boot, node=node, limits=self.limits, ahead_ms=ahead_ms, disk=disk)
        self.peers[name] = peer
        if disk is not None:
            peer.do(partial(peer.engine.recovered, disk.found()))
        self._run(peer)
        peer.do(partial(peer.engine.capacity, slots))
        return peer

    def runs_of(self, jobs: Iterable[JobId]) -> list[Begun]:
        """All runs of those jobs, in the order in which they began."""
        wanted = set(jobs)
        return [it for it in self.begun if it.run.job in wanted]

    def shares(self, jobs: Iterable[JobId]) -> Counter[str]:
        """Who has begun how many of these."""
        return Counter(it.peer for it in self.runs_of(jobs))

    def repeats(self, jobs: Iterable[JobId]) -> set[JobId]:
        """Which of these have begun more than once."""
        counts = Counter(it.run.job for it in self.runs_of(jobs))
        return {job for job, count in counts.items() if count > 1}

    def said(self, kind: type[Message]) -> list[Message]:
        """Everything of one kind that was said, repeats among it."""
        return [it for frame in self.frames for it in (*frame.messages, *frame.numbered) if isinstance(it, kind)]

    def restart(self, name: str, *seeds: str) -> Peer:
        """A new process on the same endpoints."""
        old = self.peers.pop(name)
        self.peers[f"{name} of before"] = old
        old.running = False
        return self.start(name, *seeds, disk=old.disk)

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
            due = [it for it in self._later if it[0] <= self.now_ms and it[1].turns]
            self._later = [it for it in self._later if it[0] > self.now_ms or not it[1].turns]
            for _, peer, act in due:
                if peer.running:
                    act()
            for peer in self._alive():
                self._run(peer)
        self.now_ms = until_ms

    def until(self, condition: Callable[[], bool], within_ms: int = 10_000) -> None:
        """Let time pass until something is so."""
        until_ms = self.now_ms + within_ms
        while not condition():
            assert self.now_ms < until_ms, f"not within {within_ms} ms"
            self.run(min(10, until_ms - self.now_ms))

    def _next_ms(self) -> int:
        moments = [at_ms for at_ms, peer, _ in self._later if peer.turns]
        for peer in self._alive():
            if peer.stopped:
                continue
            moments.append(peer.next_beat_ms)
            deadline_ms = peer.engine.deadline_ms()
            if peer.age_from_ms is None:
                moments += [peer.inbox[0][0]] if peer.inbox else []
                moments += [] if deadline_ms is None else [deadline_ms - peer.ahead_ms]
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
        if deadline_ms is not None and deadline_ms <= peer.clock_ms:
            peer.do(peer.engine.tick)

    def _publish(self, peer: Peer) -> None:
        peer.beats += 1
        frame = peer.engine.beat(peer.clock_ms)
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


T = TaskSpec("t", result_ttl_ms=3_600_000)
ONCE = TaskSpec("once", once=True)
ALL = TaskSpec("all", scope="all")
TICK = TaskSpec("tick", frequency_ms=1_000)


def formed(
    *names: str,
    works_ms: int | None = 5,
    limits: Limits | None = None,
    slots: int = 4,
    specs: tuple[TaskSpec, ...] = (),
    ahead_ms: dict[str, int] | None = None,
    disks: bool = False,
) -> Cluster:
    """A cluster that has stood for a while, with an owner, and copies of what there is."""
    cluster = Cluster(limits)
    for name in names:
        peer = cluster.start(
            name,
            *(other for other in names if other != name),
            slots=slots,
            ahead_ms=(ahead_ms or {}).get(name, 0),
            has_disk=disks,
        )
        peer.works_ms = works_ms
        peer.define(T, ONCE, ALL, *specs)
    cluster.run(8_000)
    for peer in cluster.peers.values():
        assert len(peer.view) == len(names)
        assert peer.engine.owner is not None
    assert sum(peer.owns for peer in cluster.peers.values()) == 1
    return cluster
