"""What has gone wrong with whom, and when: what excuses a second run, a late answer or a lost job, and what does not.

Only real faults excuse anything: a process that was killed, stood still or was given up by others, a way that was cut.
Joining, leaving, a slow handler, a lost connection and a loop that is late are none.

A loss needs more than that. As long as one thing is wrong at a time, and for no longer than it takes to mend itself,
nothing may be lost: what dies was held by another, and is soon held by one more. So with each death it is noted how
many other deaths were not mended yet, and whether anything else was wrong then; a job whose holders can't all have been
among those has no excuse.

State: deaths; who was last given up when; who was last behind with its copies; when there were two owners.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..core.effects import Tell
from ..core.facts import Degraded, OwnerChanged, PeerDied, PeerJoined, PeerLeft
from ..core.values import JobId, Life, NodeId
from .network import Network
from .node import Node
from .story import Step

MENDS_US = 8_000_000
"""So long after a death is known, or anything else is over, new copies may still be incomplete."""
_LONG_AGO_US = -(1 << 60)
_NEVER_US = 1 << 60


@dataclass(slots=True)
class Death:
    """The end of a process, killed or not.

    Attributes:
        known_us: when another last heard of it.
        open: how many deaths, this one included, were not mended then.
        others: how many had been members long enough to hold all that they were to hold.
        else_wrong: something else was wrong.
    """

    node: Node
    at_us: int
    known_us: int
    open: int = 1
    others: int = 0
    else_wrong: bool = False


class Troubles:
    """The troubles of one world."""

    def __init__(self, network: Network) -> None:
        self.processes: list[Node] = []
        self._two_owners_us = _LONG_AGO_US
        self._owners_count = 0
        self._ways = network.ways
        self._deaths: dict[Life, Death] = {}
        self._given_up_us: dict[NodeId, int] = {}
        self._met_us: dict[tuple[Node, NodeId, int], int] = {}  # who has met which process, the last time
        self._degraded: dict[Node, int] = {}  # jobs with too few copies
        self._whole_us: dict[Node, int] = {}  # when it last had too few

    def register(self, node: Node) -> None:
        """A process begins."""
        self.processes.append(node)

    def after(self, node: Node, step: Step) -> None:
        """Note what this step shows."""
        for effect in step.effects:
            if not isinstance(effect, Tell):
                continue
            fact = effect.fact
            if isinstance(fact, (PeerDied, PeerLeft)):
                life = fact.member.life
                if isinstance(fact, PeerDied):
                    self._given_up_us[life.node] = step.at_us
                if life in self._deaths:
                    self._deaths[life].known_us = step.at_us
            elif isinstance(fact, OwnerChanged):
                before, self._owners_count = self._owners_count, self.owners_count()
                if max(before, self._owners_count) > 1:
                    self._two_owners_us = step.at_us
            elif isinstance(fact, PeerJoined):
                self._met_us[node, fact.member.life.node, fact.member.life.boot] = step.at_us
            elif isinstance(fact, Degraded):
                self._degraded[node] = fact.jobs
                self._whole_us[node] = step.at_us

    def on_end(self, node: Node, at_us: int) -> None:
        """A process is over."""
        if self._owners_count > 1:
            self._two_owners_us = at_us
            self._owners_count = self.owners_count()
        others = [other for other in self.processes if not other.is_over]
        twins = any(other.life.node == node.life.node for other in others)
        death = self._deaths[node.life] = Death(node, at_us, at_us)
        death.open = sum(self._is_open(one, at_us) for one in self._deaths.values())
        death.open -= not (node.was_killed or node.notes.abandoned)  # it has handed over what it was home of
        death.others = sum(other.engine.joined and at_us - other.began_us > MENDS_US for other in others)
        death.else_wrong = (
            twins
            or bool(self._ways.cuts)
            or any(at_us - healed_us < MENDS_US for healed_us in self._ways.healed_us.values())
            or any(self._was_held_up(other, at_us - MENDS_US) for other in [*others, node])
            or any(self._degraded.values())
            or any(at_us - whole_us < MENDS_US for whole_us in self._whole_us.values())
        )

    def _is_open(self, death: Death, at_us: int) -> bool:
        """Whether its jobs may still have too few copies."""
        if at_us - max(death.at_us, death.known_us) < MENDS_US:
            return True
        return any(
            status.member.life == death.node.life
            for other in self.processes
            if not other.is_over
            for status in other.engine.members(other.clock.ms())
        )

    def _was_held_up(self, node: Node, since_us: int) -> bool:
        return node.stands_still or node.troubled_us > max(since_us, node.began_us)

    @property
    def two_owners_us(self) -> int:
        """When there last was more than one: now, as long as they have not met."""
        return self._ways.now_us() if self.owners_count() > 1 else self._two_owners_us

    def owners_count(self) -> int:
        """How many take themselves for the owner."""
        return sum(not node.is_over and node.engine.streams.delayed is not None for node in self.processes)

    def knows_home(self, node: Node, job: JobId) -> bool:
        """Whether a node knows those who are home of a job."""
        known = {status.member.life for status in node.engine.members(node.clock.ms())}
        homes = [one for one in self.processes if not one.is_over and one.engine.streams.holding(job) is not None]
        return all(home.life in known for home in homes)

    def met_us(self, node: Node, other: Node) -> int:
        """When that node last met the other one; in the far future if never."""
        return self._met_us.get((node, other.life.node, other.life.boot), _NEVER_US)

    # --- excuses --------------------------------------------------------------------------------------------------

    def excuse(self, nodes: Iterable[Node], since_us: int) -> str:
        """What went wrong with one of them since then; empty: nothing did."""
        for node in nodes:
            why = self._excuse(node, since_us)
            if why:
                return f"{node.place} {why}"
        return ""

    def _excuse(self, node: Node, since_us: int) -> str:
        if node.is_over and node.was_killed and node.ended_us >= since_us:
            return "was killed"
        if self._was_held_up(node, since_us):
            return "stood still"
        if self._given_up_us.get(node.life.node, _LONG_AGO_US) >= since_us and not self._was_over(node):
            return "was given up"
        for source, target in [*self._ways.cuts, *self._ways.healed_us]:
            if node.place in (source, target) and self._ways.last_cut_us(source, target) >= since_us:
                return "was cut off"
        return ""

    def _was_over(self, node: Node) -> bool:
        """Whether it had ended by itself when it was given up."""
        return node.is_over and node.ended_us <= self._given_up_us[node.life.node]

    def any(self, since_us: int) -> str:
        """The same, of anybody."""
        return self.excuse(self.processes, since_us)

    @property
    def ended(self) -> bool:
        """Whether any process is over, killed or not, or has said farewell."""
        return bool(self._deaths) or any(one.notes.left for one in self.processes)

    def only_mended_deaths(self, node: Node, since_us: int) -> bool:
        """Whether nothing has gone wrong since then but deaths of others, each mended before the next."""
        living = [one for one in self.processes if not one.is_over]
        return (
            node in living
            and not self.excuse(living, since_us)
            and self.two_owners_us < since_us
            and all(
                death.open == 1 and death.others > 0 and not death.else_wrong
                for death in self._deaths.values()
                if death.at_us >= since_us
            )
        )

    def last_us(self) -> int:
        """When a process was last over, or given up."""
        return max(
            [*self._given_up_us.values(), *(death.at_us for death in self._deaths.values())], default=_LONG_AGO_US
        )

    def may_be_lost(self, backups: int, since_us: int) -> bool:
        """Whether a job that was accepted then, with so many copies besides its home, may be lost by now."""
        return any(
            death.at_us >= since_us and (death.open > backups or not death.others or death.else_wrong)
            for death in self._deaths.values()
        )
