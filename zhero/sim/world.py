"""A seeded world: nodes, their executors, those who call them, and a network, in virtual time.

Everything that happens is drawn from one random generator, and nothing else moves it: no clock, no thread, no order of
a set. So a seed is a world, and running it twice gives the same story. Time is a heap of events and jumps from one
to the next. True time counts microseconds; a node sees whole milliseconds of a clock of its own.

A life of a world: nodes start and find each other, callers ask for a while, processes and connections end and come
back, definitions change, slots come and go. Then the load ends and all is healed: whoever lives has to agree on who
does, and all that was accepted by those who still live has to end too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random

from ..config import PROFILES
from ..core.values import Finished, NodeId, Run, TaskSpec
from .callers import Client, LocalCaller
from .clock import Clock
from .faults import Faults
from .members import Members
from .network import Network
from .node import Node, Witness
from .outside import Outside
from .place import Place
from .scene import MANY_COUNT, Scene
from .settling import Settling
from .story import BrokenPromise, Step
from .wires import Ways
from .workload import KINDS, Kind, Options, Workload

CLUSTER = "sim"
JOBS_MIN_COUNT = 120
"""So many jobs a world sees before its load ends."""
LOAD_MAX_US = 90_000_000
LOAD_SHARED_US = (8_000_000, 20_000_000, 2_000_000)
"""Where there are several nodes, more happens per second the more there are: so long at least, so long at most, and by
so much less for each of them.
"""
HOLD_UP_MAX_US = 300_000_000
_CLOCK_OFF_MS = 3_600_000
_LOOK_US = 100_000


class World:
    """Nodes and their callers, from one seed.

    Args:
        loaded: callers ask by themselves, and things break; if not, whoever holds the world does it.
        options, scene, kinds: given, not drawn.
    """

    def __init__(
        self,
        seed: int,
        *,
        loaded: bool = True,
        options: Options | None = None,
        scene: Scene | None = None,
        kinds: Sequence[Kind] | None = None,
    ) -> None:
        self.seed = seed
        self.now_us = 0
        self.seen: Counter[str] = Counter()
        self.story: list[Step] = []
        self.rng = rng = Random(seed)
        self.options = options = options or Options.draw(rng)
        self.scene = scene = scene or (Scene.draw(rng, seed) if loaded else Scene())
        self.profile = PROFILES[scene.profile]
        self.begun_ms = 1_700_000_000_000 + rng.randrange(1_000_000_000)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._events_made = 0
        self.ways = Ways(rng, scene.weather, lambda: self.now_us, self.later)
        self.network = Network(self.ways, CLUSTER, self.seen)
        alone = scene.nodes == 1
        if scene.idle and not alone:
            kinds = kinds or KINDS  # no rounds either: nothing is to happen
        self.workload = Workload(rng, options.limits, kinds, periodic=0.85 if alone else 0.4, alone=alone)
        self.members = Members(scene, self.network, self.seen)
        self.outside: Outside | None = None
        if not alone:
            self.outside = Outside(self.workload.kinds, options.limits, scene, self.network, self.seen)
        self.witness: Witness = _Witnesses(self.members, self.outside)
        self.places = self._draw_places()
        self.faults = Faults(self)
        self.loaded = loaded
        self._busy = loaded and not scene.idle
        self._pace_ms = options.pace_ms * (1 if alone else 2 * scene.nodes)
        self.clients = self._draw_clients()
        self._load_ends_us = 0

    def _draw_places(self) -> list[Place]:
        """Where nodes are to live, whom they are told of, and by which clocks."""
        rng, scene = self.rng, self.scene
        names = [f"web-{number}" for number in range(1, scene.nodes + scene.later + 2)]  # the last one for a twin
        places: list[Place] = []
        for name in names:
            off_ms = rng.randint(-_CLOCK_OFF_MS, _CLOCK_OFF_MS) if scene.nodes > 1 else 0
            clock = Clock(lambda: self.now_us, self.begun_ms + off_ms, rng.randint(-scene.drift_ppm, scene.drift_ppm))
            advertised = rng.random() < scene.advertised
            specs, workers = self._draw_abilities(first=not places)
            places.append(Place(name, rng.randrange(scene.hosts), clock, specs, workers, advertised))
            if advertised:
                self.network.advertised[places[-1].endpoint] = None
            if rng.random() < 0.2:
                places[-1].node_id = NodeId(rng.randbytes(16))
        known = [place.endpoint for place in places[: scene.nodes]]
        for number, place in enumerate(places):
            if scene.nodes == 1 or (number == 0 and not scene.first_knows):
                continue
            others = [endpoint for endpoint in known if endpoint != place.endpoint]
            if scene.seeds == "all":
                place.seeds = known
            elif scene.seeds == "first":
                place.seeds = known[:1]
            else:
                some = rng.sample(others, rng.randint(1, len(others)))
                place.seeds = [*dict.fromkeys([*known[:1], *some])]
        return places

    def _draw_abilities(self, *, first: bool) -> tuple[list[TaskSpec], int]:
        """The tasks of one place, and its slots: most have all tasks, some lack a few, some run nothing at all."""
        rng, specs = self.rng, [kind.spec for kind in self.workload.kinds]
        if self.scene.nodes == 1 or first:
            return specs, self.options.workers
        if rng.random() < 0.3:
            specs = [spec for spec in specs if rng.random() < 0.8]
        return specs, 0 if rng.random() < 0.1 else self.options.workers

    def _draw_clients(self) -> list[Client]:
        if not self._busy:
            return []
        endpoints = [place.endpoint for place in self.places[: self.scene.nodes]]
        return [
            Client(
                f"client-{number}",
                endpoints,
                self.workload,
                self.network,
                self.rng,
                self.later,
                self._pace_ms // min(2, self.scene.nodes),
                self.seen,
            )
            for number in range(max(self.options.clients, min(2, self.scene.nodes)))
        ]

    # --- who is here ----------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The process at the first place."""
        node = self.places[0].node
        assert node is not None
        return node

    @property
    def local(self) -> LocalCaller:
        """Code in that process."""
        local = self.places[0].local
        assert local is not None
        return local

    @property
    def nodes(self) -> list[Node]:
        """All processes that ever were, in the order of their starts."""
        return self.members.processes

    @property
    def living(self) -> list[Node]:
        return [node for place in self.places if (node := place.living) is not None]

    @property
    def jobs_count(self) -> int:
        """How many jobs there ever were."""
        if self.outside is not None:
            return self.outside.jobs_count()
        return sum(len(node.ledger.books.jobs) for node in self.nodes)

    def start_at(self, place: Place) -> Node:
        """A new process at that place."""
        rng = self.rng
        if place.node is not None:
            place.past.append(place.node)
        node_id = NodeId(rng.randbytes(16)) if place.node_id is None else place.node_id
        node = Node(
            self,
            place.name,
            place.clock,
            self.workload.kinds,
            place.seeds,
            node_id=node_id,
            workers=place.workers,
            advertised=place.advertised,
        )
        place.node = node
        self.members.register(node)
        if self.outside is not None:
            self.outside.register(node)
        place.local = local = LocalCaller(node, self.workload, rng, self.later, self._pace_ms, self.seen)
        node.on_reply = local.on_reply
        node.start(place.specs)
        if self._busy and self.now_us < self._load_ends_us:
            local.start()
        return node

    # --- time -----------------------------------------------------------------------------------------------------

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """Have something happen."""
        self._events_made += 1
        heappush(self._events, (self.now_us + delay_us, self._events_made, act))

    def run_until(self, at_us: int, enough: Callable[[], bool] | None = None) -> None:
        """Let all happen that is to happen by then, or until it is enough."""
        look_us = 0
        while self._events and self._events[0][0] <= at_us:
            if enough is not None and self.now_us >= look_us:
                if enough():
                    return
                look_us = self.now_us + _LOOK_US
            self.now_us, _, act = heappop(self._events)
            act()
        if enough is None or not enough():
            self.now_us = max(self.now_us, at_us)

    def hurry(self, within_ms: int) -> None:
        """The load is to end in so many ms at the latest."""
        self._load_ends_us = min(self._load_ends_us, self.now_us + within_ms * 1000)

    # --- a whole life ---------------------------------------------------------------------------------------------

    def run(self) -> Counter[str]:
        """Live through it.

        Returns:
            What has happened in it, and how often.

        Raises:
            BrokenPromise: with its story.
        """
        try:
            self._live()
        except BrokenPromise as broken:
            broken.tell(self.story)
            raise
        self.seen["garbage refused"] += self.network.garbage_count
        self.seen["frame lost"] += self.network.lost_count
        return self.seen

    def start(self) -> None:
        """The nodes begin to work, at once or one after another."""
        scene, rng = self.scene, self.rng
        self.seen[f"{MANY_COUNT} nodes"] += scene.nodes == MANY_COUNT
        for place in self.places[: scene.nodes]:
            wait_ms = rng.randint(0, 50) if scene.together else rng.randint(0, 6_000)
            if place is self.places[0] and (scene.nodes == 1 or not self.loaded):
                self.start_at(place)
            else:
                self.later(wait_ms * 1000, partial(self._begin, place))
        if scene.discovers:
            self.later(3_000_000, self._discover)

    def _begin(self, place: Place) -> None:
        if place.node is None:
            self.start_at(place)

    def _discover(self) -> None:
        """Everybody is told who is here; now and then also of one who was."""
        living = [place.endpoint for place in self.places if place.living is not None]
        for place in self.places:
            if place.living is not None and self.rng.random() < 0.8:
                stale = [other.endpoint for other in self.places if self.rng.random() < 0.1]
                place.living.seeds([*dict.fromkeys([*living, *stale])])
        self.later(3_000_000, self._discover)

    def _live(self) -> None:
        self._load_ends_us = self.options.load_ms * 1000
        if self.scene.nodes > 1:
            least_us, most_us, less_us = LOAD_SHARED_US
            self._load_ends_us = min(self._load_ends_us, max(least_us, most_us - less_us * self.scene.nodes))
        self.start()
        if self._busy:
            for client in self.clients:
                client.start()
            self._every(self.options.reload_every_ms, self._reload)
            self._every(5_000, self._resize)
        if self.loaded:
            self.faults.start()
            for place in self.places[self.scene.nodes : self.scene.nodes + self.scene.later]:
                self.later(self.rng.randint(3_000_000, 15_000_000), partial(self._join, place))
        self.run_until(self._load_ends_us)
        while self._busy and self.jobs_count < JOBS_MIN_COUNT and self.now_us < LOAD_MAX_US:
            self._load_ends_us += 1_000_000
            self.run_until(self._load_ends_us)
        self._stop_load()
        self.settle()

    def _join(self, place: Place) -> None:
        if self.now_us < self._load_ends_us and place.node is None:
            self.seen["join of a new node"] += 1
            self.start_at(place)

    def _stop_load(self) -> None:
        self.faults.stop()
        for place in self.places:
            if place.local is not None:
                place.local.asking = False
        for client in self.clients:
            client.stop()
        self.run_until(self.now_us + HOLD_UP_MAX_US, self._is_nobody_held_up)

    def _is_nobody_held_up(self) -> bool:
        return not any(node.is_held_up or node.notes.leaving for node in self.living)

    def settle(self) -> None:
        """The load is over, and nothing breaks any more: nodes have to agree, and what was accepted has to end.

        Raises:
            BrokenPromise: they do not, or it does not.
        """
        Settling(self).run()

    # --- load -----------------------------------------------------------------------------------------------------

    def _every(self, mean_ms: int, act: Callable[[], None]) -> None:
        """Now and then, as long as there is load."""
        if mean_ms:
            self.later(int(self.rng.expovariate(1) * mean_ms * 1000), lambda: self._again(mean_ms, act))

    def _again(self, mean_ms: int, act: Callable[[], None]) -> None:
        if self.now_us < self._load_ends_us:
            act()
            self._every(mean_ms, act)

    def _some_place(self) -> Place | None:
        places = [place for place in self.places if place.living is not None]
        return self.rng.choice(places) if places else None

    def _reload(self) -> None:
        """Somebody has worked on the tasks of one node, or of all."""
        place = self._some_place()
        specs = self.workload.reload()
        self.seen["task gone"] += len(specs) < len(self.workload.kinds)
        if self.rng.random() < 0.3:
            for node in self.living:
                node.define(specs)
        elif place is not None and place.living is not None:
            place.living.define(specs)

    def _resize(self) -> None:
        """A job awaits another, and its slot is another's meanwhile; or no slot is left for a while."""
        place = self._some_place()
        if place is None or place.living is None or not place.workers:
            return
        workers, executor = place.workers, place.living.executor
        slots = self.rng.choice((workers, workers, workers + 1, 0))
        executor.resize(slots)
        if not slots:
            self.seen["no slots"] += 1
            self.later(self.rng.randint(1_000, 2_000_000), lambda: executor.resize(workers))


class _Witnesses:
    """All who judge the steps of a world."""

    def __init__(self, members: Members, outside: Outside | None) -> None:
        self._members = members
        self._outside = outside

    def after(self, node: Node, step: Step) -> None:
        self._members.after(node, step)
        if self._outside is not None:
            self._outside.after(node, step)

    def ran(self, node: Node, run: Run, report: Finished | None) -> None:
        if self._outside is not None:
            self._outside.ran(node, run, report)

    def ended(self, node: Node) -> None:
        if self._outside is not None:
            self._outside.ended(node)
