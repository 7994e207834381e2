"""What nodes may believe of one another: a witness of all their steps, who knows how it really is.

After every step:

- whoever hears that it is suspected says that it lives;
- whoever beats, and is heard, is not given up by those who hear it; nobody is taken for refused or replaced who lives;
- nobody is suspected or given up for silence without a reason: its process, or the way between the two, was in trouble;
- what a node says of a life never goes back: its count does not fall, and dead or left is final;
- what is numbered is said once, and a question to another member has one answer.

`disagreement` is what has to vanish once nothing is wrong any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..config import PROFILES
from ..core.effects import Connect, Disconnect, Knock, Send, Tell
from ..core.facts import (
    Confirmed,
    Death,
    IdentityTaken,
    Joined,
    Paused,
    PeerDied,
    PeerLagging,
    PeerLeft,
    PeerMisbehaved,
    PeerRefuted,
    PeerSuspected,
    Reborn,
)
from ..core.messages import Answered, Ask, Beat, Frame, Message, PongFor, ProbedFor, Rumours, Sync
from ..core.values import Life, NodeId, Rumour, Standing
from .network import Network
from .node import Node
from .scene import Scene
from .story import BrokenPromise, Step, text

_HEALTH_MAX = 8
"""A node that distrusts its own senses waits so many times longer."""
_RARE_LOSSES_COUNT = 2
"""So many lost connections between two places explain a silence."""
_LOOKS_EVERY = 200
_Process = tuple[NodeId, int]
_GONE = (Standing.DEAD, Standing.LEFT)


@dataclass(slots=True)
class _View:
    """What one process has heard and said. Instants in microseconds of its own clock.

    Attributes:
        known: lives that it keeps a connection for.
        life, count: of its own, and how often it has said that this one is well.
        heard_us: life -> when its last beat arrived.
        said: to whom and of whom -> the last that was said.
        lives: to whom and of which node -> the latest life that was said to be here.
    """

    known: dict[Life, None] = field(default_factory=dict[Life, None])
    heard_us: dict[Life, int] = field(default_factory=dict[Life, int])
    said: dict[tuple[Life, Life], Rumour] = field(default_factory=dict[tuple[Life, Life], Rumour])
    lives: dict[tuple[Life, NodeId], Life] = field(default_factory=dict[tuple[Life, NodeId], Life])
    life: Life | None = None
    count: int = 0
    steps_count: int = 0


@dataclass(slots=True)
class _Stream:
    """The numbered messages from one life to another: all of them, in order."""

    messages: list[Message] = field(default_factory=list[Message])


class Members:
    """The witness of one world. State: what every process heard and said; what went from life to life."""

    def __init__(self, scene: Scene, network: Network, seen: Counter[str]) -> None:
        self.processes: list[Node] = []
        self._by_id: dict[NodeId, list[Node]] = {}
        self._scene = scene
        self._profile = PROFILES[scene.profile]
        self._network = network
        self._seen = seen
        self._doubled: dict[NodeId, None] = {}  # ids that two processes have had at once
        self._views: dict[Node, _View] = {}
        self._streams: dict[tuple[Life, Life], _Stream] = {}
        self._asks: dict[tuple[_Process, _Process], dict[int, None]] = {}  # questions without an answer, so far

    def register(self, node: Node) -> None:
        """A process begins."""
        self.processes.append(node)
        if any(not other.is_over for other in self._by_id.get(node.life.node, ())):
            self._doubled[node.life.node] = None
        self._by_id.setdefault(node.life.node, []).append(node)
        self._views[node] = _View()

    def after(self, node: Node, step: Step) -> None:
        """Judge a step.

        Raises:
            BrokenPromise: a belief that it must not have, or a message that is not what was said.
        """
        view = self._views[node]
        if view.life != node.life:
            view.life, view.count = node.life, 0
        if step.what == "hear":
            view.heard_us[step.given.sender] = step.own_us
            beat: Beat = step.given.messages[0]
            self._seen["beat of a stranger"] += step.given.sender not in view.known
            self._seen["beat of a late loop"] += beat.age_ms > self._profile.lag_ms
        elif step.what == "receive":
            self._on_heard(node, view, step)
        for effect in step.effects:
            if isinstance(effect, Tell):
                self._on_fact(node, view, step, effect.fact)
            elif isinstance(effect, Send):
                self._on_frame(view, effect.frame, effect.to)
            elif isinstance(effect, Knock):
                self._seen["knock"] += 1
            elif isinstance(effect, Connect):
                view.known[effect.member.life] = None
            elif isinstance(effect, Disconnect):
                view.known.pop(effect.life, None)
        view.steps_count += 1
        if view.steps_count % _LOOKS_EVERY == 0:
            self._check_bounds(node, step)

    def _on_heard(self, node: Node, view: _View, step: Step) -> None:
        """Whoever hears from a member that it is suspected says to all, at once, that it lives."""
        frame: Frame = step.given
        if frame.to is not None and frame.to.node != node.life.node:
            self._seen["stale frame"] += 1
        if frame.to != node.life or frame.sender not in view.known or node.notes.left:
            return
        suspected = [
            told
            for message in frame.messages
            if isinstance(message, Rumours)
            for told in message.told
            if told.member.life == node.life and told.standing is Standing.SUSPECT and told.count >= view.count
        ]
        sent = [effect.frame.messages for effect in step.effects if isinstance(effect, Send)]
        said = [told for said in sent for message in said if isinstance(message, Rumours) for told in message.told]
        own = [told.count for told in said if told.member.life == node.life and told.standing is Standing.ALIVE]
        if suspected and max(own, default=-1) <= suspected[0].count:
            raise BrokenPromise(f"{node.place} is suspected, and says nothing", text(node.life))

    # --- what it believes -----------------------------------------------------------------------------------------

    def _on_fact(self, node: Node, view: _View, step: Step, fact: object) -> None:
        seen = self._seen
        if isinstance(fact, PeerDied):
            seen[f"died: {fact.how.value}"] += 1
            self._on_death(node, view, step, fact)
        elif isinstance(fact, PeerSuspected):
            seen["suspected"] += 1
            if step.what != "receive":  # else another does, and has been judged
                self._on_suspicion(node, step, fact)
        elif isinstance(fact, PeerLagging):
            seen["lagging" if fact.lagging else "lagging no more"] += 1
        elif isinstance(fact, PeerMisbehaved):
            if any(process.life == fact.peer for process in self.processes):
                raise BrokenPromise(f"{node.place} says of a member: {fact.what}", text(fact.peer))
        else:
            for kind, what in _COUNTED:
                seen[what] += isinstance(fact, kind)

    def _on_death(self, node: Node, view: _View, step: Step, fact: PeerDied) -> None:
        life = fact.member.life
        subject = self._living(life)
        if subject is None:
            return
        if fact.how is Death.REFUSED or (fact.how is Death.REPLACED and life.node not in self._doubled):
            raise BrokenPromise(f"{node.place} calls {subject.place} {fact.how.value}, and it lives", text(life))
        if fact.how is Death.REPLACED:
            return  # of two with one id one has to go, and they may be told apart wrongly
        heard_us = view.heard_us.get(life)
        silent_us = None if heard_us is None else step.own_us - heard_us
        if silent_us is not None and silent_us <= self._profile.silence_ms * 1000:
            raise BrokenPromise(
                f"{node.place} gives up {subject.place}, whose beat came {silent_us // 1000} ms ago", text(life)
            )
        if fact.how is Death.SILENT:
            span_ms = self._doubt_span_ms() + self._death_span_ms(len(self.processes))
            if not self._is_explained(node, subject, step.at_us - span_ms * 1000):
                raise BrokenPromise(f"{node.place} gives up {subject.place}, and nothing was wrong", text(life))

    def _on_suspicion(self, node: Node, step: Step, fact: PeerSuspected) -> None:
        subject = self._living(fact.member.life)
        bad_weather = self._scene.weather.slow_us > 300_000
        if subject is None or bad_weather:
            return
        if not self._is_explained(node, subject, step.at_us - self._doubt_span_ms() * 1000):
            raise BrokenPromise(f"{node.place} suspects {subject.place}, and nothing was wrong", text(subject.life))

    def _doubt_span_ms(self) -> int:
        """How long the trouble can be over that makes a node suspect another."""
        return _HEALTH_MAX * (self._profile.silence_ms + 2 * self._profile.ping_ms)

    def _death_span_ms(self, nodes_count: int) -> int:
        most = self._profile.suspicion_max * self._profile.suspicion_ms
        return round(most * max(1.0, math.log10(nodes_count)))

    def _living(self, life: Life) -> Node | None:
        """The process that lives under this life; None: that one is over."""
        for process in self._by_id.get(life.node, ()):
            if process.life == life and not process.is_over:
                return process
        return None

    def _is_explained(self, node: Node, subject: Node, since_us: int) -> bool:
        """Whether anything was wrong since then with that process or the way between the two."""
        if subject.is_troubled or subject.troubled_us >= since_us or node.began_us >= since_us:
            return True
        ways, here, there = self._network.ways, node.place, subject.place
        if max(ways.last_cut_us(here, there), ways.last_cut_us(there, here)) >= since_us:
            return True
        losses = self._network.losses.get((min(here, there), max(here, there)), [])
        return sum(at_us >= since_us for at_us in losses) >= _RARE_LOSSES_COUNT

    def _check_bounds(self, node: Node, step: Step) -> None:
        lives = sum(1 + process.life.life for process in self.processes)
        known = len(node.engine.members(step.now_ms))
        if known > lives:
            raise BrokenPromise(f"{node.place} knows {known} members, and there never were more than {lives} lives")

    # --- what it says ---------------------------------------------------------------------------------------------

    def _on_frame(self, view: _View, frame: Frame, to: Life) -> None:
        for message in frame.messages:
            if isinstance(message, (Rumours, Sync)):
                for told in message.told:
                    if told.member.life.node != to.node:  # whom it is about it may be told what others say
                        self._check_said(view, told, to)
            elif isinstance(message, PongFor):
                self._seen["asked for another"] += 1
            elif isinstance(message, ProbedFor):
                self._seen["second opinion"] += 1
            self._seen["views compared"] += isinstance(message, Sync) and message.wanted
        if frame.numbered:
            self._on_numbered(frame, to)

    def _check_said(self, view: _View, told: Rumour, to: Life) -> None:
        life = told.member.life
        if life == view.life:
            view.count = max(view.count, told.count)
        before, latest = view.said.get((to, life)), view.lives.get((to, life.node))
        view.said[to, life] = told
        if before is not None and told.count < before.count:
            raise BrokenPromise(f"a count falls: {text(before)}, then {text(told)}", text(life))
        if told.standing in _GONE:
            return
        if before is not None and before.standing in _GONE:
            raise BrokenPromise(f"a life that is over is back: {text(before)}, then {text(told)}", text(life))
        if latest is not None and life < latest and life.node not in self._doubled:
            raise BrokenPromise(f"an earlier life is back: {text(told)} after {text(latest)}", text(life))
        view.lives[to, life.node] = life

    def _on_numbered(self, frame: Frame, to: Life) -> None:
        stream = self._streams.setdefault((frame.sender, to), _Stream())
        start = frame.first - 1
        if not 0 <= start <= len(stream.messages):
            raise BrokenPromise(f"number {frame.first} is said after {len(stream.messages)}", text(frame.sender))
        known = stream.messages[start : start + len(frame.numbered)]
        if known != frame.numbered[: len(known)]:
            raise BrokenPromise(f"a number is said twice, with other messages from {frame.first} on", text(to))
        self._seen["numbered said again"] += len(known) > 0
        for message in frame.numbered[len(known) :]:
            stream.messages.append(message)
            if isinstance(message, Ask):
                self._asks.setdefault((_process(frame.sender), _process(to)), {})[message.ref] = None
            elif isinstance(message, Answered) and not message.more:
                self._on_answered(frame.sender, to, message)

    def _on_answered(self, sender: Life, to: Life, message: Answered) -> None:
        """It belongs to a question, and is the only answer to it; either may have another life by then."""
        asked = self._asks.get((_process(to), _process(sender)), {})
        if message.ref not in asked:
            raise BrokenPromise(f"question {message.ref} was not asked, or has been answered", text(sender))
        del asked[message.ref]


def _process(life: Life) -> _Process:
    """Whose life that is: a successor with the same id numbers its questions anew."""
    return life.node, life.boot


_COUNTED: tuple[tuple[type[object], str], ...] = (
    (PeerRefuted, "refuted"),
    (PeerLeft, "farewell heard"),
    (Joined, "joined"),
    (Paused, "doubtful after a pause"),
    (Confirmed, "confirmed"),
    (Reborn, "reborn"),
    (IdentityTaken, "identity taken"),
)


def disagreement(nodes: Iterable[Node]) -> str:
    """What living nodes do not agree on; empty: they agree."""
    living = list(nodes)
    owners = [node for node in living if node.engine.streams.delayed is not None]
    if len(owners) != 1:
        return f"there are {len(owners)} owners: {', '.join(node.place for node in owners)}"
    truth = {node.life: node.place for node in living}
    numbers: dict[Life, int] = {}
    tasks: dict[Life, list[str]] = {}
    for node in living:
        if not node.engine.joined:
            return f"{node.place} has not joined"
        if node.notes.doubtful:
            return f"{node.place} still doubts whether it is counted"
        believed = {status.member.life: status for status in node.engine.members(node.clock.ms())}
        for life, place in truth.items():
            if life not in believed:
                return f"{node.place} does not know {place} {text(life)}"
        for life, status in believed.items():
            if status.owner is not (life == owners[0].life):
                return f"{node.place} is wrong about {status.member.name}: owner={status.owner}"
            if life not in truth:
                return f"{node.place} believes in {status.member.name} {text(life)}, which is over"
            if status.standing is not Standing.ALIVE:
                return f"{node.place} believes that {truth[life]} {text(life)} is {status.standing.value}"
            if status.lagging:
                return f"{node.place} believes that {truth[life]} {text(life)} is late"
            if tasks.setdefault(life, status.tasks) != status.tasks:
                return f"{node.place} does not know what {truth[life]} {text(life)} can run, or another does not"
            if status.joined < 1 or numbers.setdefault(life, status.joined) != status.joined:
                return f"{truth[life]} {text(life)} joined as {status.joined} for {node.place}, else {numbers[life]}"
    return ""
