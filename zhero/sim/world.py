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

from ..config import PROFILES, SOLO_AFTER_MS
from ..core.messages import AskStatus, ClusterStatus, Leave
from ..core.values import NodeId
from .callers import Client, LocalCaller
from .clock import Clock
from .faults import Faults
from .members import Members, disagreement
from .network import Network
from .node import Node, Witness
from .place import Place
from .scene import MANY_COUNT, Scene
from .story import BrokenPromise, Step, text
from .wires import Ways
from .workload import Kind, Options, Workload

CLUSTER = "sim"
JOBS_MIN_COUNT = 120
"""So many jobs a world sees before its load ends."""
LOAD_MAX_US = 90_000_000
LOAD_SHARED_US = 21_000_000
"""Where there are many nodes, so much happens per second that it need not last longer."""
QUIET_MAX_US = 120_000_000
JOB_MAX_US = 20_000_000
"""How long after the load all has to be over, and how much longer for each job that is left."""
HOLD_UP_MAX_US = 300_000_000
IDLE_US = 10_000_000
"""How long a world with nothing to do is watched."""
IDLE_MAX_PER_S = 1.0
"""Frames besides beats that a node says per second when nothing happens, and the seeds and dead ones it tries."""
_BUSY_PLACES_COUNT = 2
_CLOCK_OFF_MS = 3_600_000
_LOOK_US = 100_000

SOMETIMES = (
    *("retry", "snooze", "dead", "revived", "discarded", "late verdict ignored", "dead letter made room"),
    *("cancel: waiting", "cancel: delayed", "cancel: lent", "cancel: spread", "cancel answered late", "cannot stop"),
    *("batch", "flood", "same id twice", "spread", "round", "round overdue by periods", "round overran its period"),
    *("round skipped by a person", "round skipped by a busy member", "round awaited", "period changed"),
    *("task gone", "job of a task gone"),
    *("task stopped", "task stopped while it ran", "task stopped by an error", "task started"),
    *("refused: unknown_task", "refused: queue_full", "refused: too_large", "refused: params_invalid"),
    *("refused: already_queued", "refused: leaving", "too many waiters", "result forgotten", "left", "caller gave up"),
    *("client repeats", "client gave up", "client vanished", "connection lost", "garbage", "garbage refused"),
    *("senseless message", "several messages in a frame", "frame said twice", "frame lost", "welcome"),
    *("pause", "tick early", "tick twice", "tick late", "no slots", "enqueue before joining"),
    *("crash", "crash between two effects", "restart at the same endpoint", "leave", "join of a new node"),
    *("loop blocked", "beat of a late loop", "lagging", "lagging no more", "whole host frozen"),
    *("cut", "one-way cut", "split", "bridge", "flap", "swizzle", "connections lost", "false hint"),
    *("stale frame", "said again over the next connection", "numbered said again", "beat dropped"),
    *("beat of a stranger", "knock", "views compared", "probe refused", "probe accepted", "probe without an answer"),
    *("asked for another", "second opinion", "end of a connection never seen", "end of a connection seen late"),
    *("joined", "suspected", "refuted", "died: refused", "died: silent", "died: told", "died: replaced"),
    *("reborn", "farewell heard", "doubtful after a pause", "confirmed", "question to all", "answer of all"),
    *("answer that names who is silent", "agreed after faults"),
)
"""What has to have happened in one seed of many; what never does is a hole in the workload."""

RARELY = (
    *("pause of minutes", "loop blocked too long", "heart silent", "two processes with one id", "identity taken"),
    *("50 nodes", "idle", "beat above the bound"),
)
"""The same, in one of very many."""


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
        self.workload = Workload(rng, options.limits, kinds, periodic=0.85 if scene.nodes == 1 else 0.5)
        self.members = Members(scene, self.network, self.seen)
        self.witness: Witness = self.members
        self.places = self._draw_places()
        self.faults = Faults(self)
        self._loaded = loaded
        self._busy = loaded and not scene.idle
        self._busy_count = min(scene.nodes, _BUSY_PLACES_COUNT)
        self._pace_ms = options.pace_ms * (1 if scene.nodes == 1 else 2 * self._busy_count)
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
            places.append(Place(name, rng.randrange(scene.hosts), clock, advertised))
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

    def _draw_clients(self) -> list[Client]:
        if not self._busy:
            return []
        return [
            Client(
                f"client-{number}",
                self.places[number % self._busy_count].endpoint,
                self.workload,
                self.network,
                self.rng,
                self.later,
                self._pace_ms,
                self.seen,
            )
            for number in range(max(self.options.clients, self._busy_count))
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
            advertised=place.advertised,
        )
        place.node = node
        self.members.register(node)
        place.local = local = LocalCaller(node, self.workload, rng, self.later, self._pace_ms, self.seen)
        node.on_reply = local.on_reply
        is_busy = self.places.index(place) < self._busy_count
        node.start([kind.spec for kind in self.workload.kinds] if is_busy else self.workload.called)
        if self._busy and self.now_us < self._load_ends_us and is_busy:
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
            if place is self.places[0] and (scene.nodes == 1 or not self._loaded):
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
            self._load_ends_us = min(self._load_ends_us, LOAD_SHARED_US)
        self.start()
        if self._busy:
            for client in self.clients:
                client.start()
            self._every(self.options.reload_every_ms, self._reload)
            self._every(5_000, self._resize)
        if self._loaded:
            self.faults.start()
            for place in self.places[self.scene.nodes : self.scene.nodes + self.scene.later]:
                self.later(self.rng.randint(5_000_000, 20_000_000), partial(self._join, place))
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
        return not any(node.is_held_up or node.ledger.leaving for node in self.living)

    def settle(self) -> None:
        """The load is over, and nothing breaks any more: nodes have to agree, and what was accepted has to end.

        Raises:
            BrokenPromise: they do not, or it does not.
        """
        self.faults.heal()
        for node in self.living:
            node.executor.resize(self.options.workers)
            if self.options.all_return and len(node.ledger.specs) > 0:
                node.define([kind.spec for kind in self.workload.kinds])
        self._agree()
        if self._loaded and self.scene.idle and self.scene.nodes > 1:
            self._be_idle()
        if self.options.leaves and self._loaded and self.living:
            place = self.rng.choice([place for place in self.places if place.living is not None])
            assert place.local is not None
            place.local.ask(Leave(self.rng.choice((0, 500, 10_000))))
            place.local.ask(self.workload.last_wish(place.local.ids()))
        ends_ms = {node: node.clock.ms() for node in self.living}
        most_us = QUIET_MAX_US + JOB_MAX_US * sum(len(node.ledger.books.live) for node in ends_ms)
        self.run_until(self.now_us + most_us, lambda: all(_is_done(node, at_ms) for node, at_ms in ends_ms.items()))
        for node, at_ms in ends_ms.items():
            ledger = node.ledger
            if ledger.leaving and not node.leaving.left and not node.is_over:
                raise BrokenPromise("it was told to leave, and never does")
            for job in [] if ledger.leaving or node.is_over else ledger.unfinished(at_ms):
                raise BrokenPromise("P1: the load is over, and the job never ends", job.job, job.task)
            self.seen["job of a task gone"] += any(job.task not in ledger.specs for job in ledger.books.live.values())

    # --- agreement ------------------------------------------------------------------------------------------------

    def heal_bound_us(self) -> int:
        """So long after all is healed everybody may still be wrong about somebody."""
        profile = self.profile
        silence_ms = 8 * (profile.silence_ms + 2 * profile.ping_ms)
        suspicion_ms = 2 * profile.suspicion_ms * profile.suspicion_max
        return 1000 * (SOLO_AFTER_MS + silence_ms + suspicion_ms + 2 * profile.retry_ms + 10_000)

    def _agree(self) -> None:
        """All is healed: views become one, and a question to all is answered by all."""
        began_us, why = self.now_us, ""

        def agreed() -> bool:
            nonlocal why
            why = disagreement(self.living)
            return not why

        self.run_until(began_us + self.heal_bound_us(), agreed)
        if not agreed():
            raise BrokenPromise(f"{(self.now_us - began_us) / 1e6:.1f} s after all was healed {why}")
        self.seen["agreed after faults"] += bool(self.scene.faults)
        answers_us = self.now_us + 1000 * (8 * self.profile.resend_ms + 2 * self.profile.answer_ms)
        while why := self._ask_all():
            if self.now_us >= answers_us:
                raise BrokenPromise(why)
            self.seen["question repeated after faults"] += 1

    def _ask_all(self) -> str:
        """Each asks all; a link that has just been healed may need some time.

        Returns:
            Who is not answered by whom; empty: all are by all.
        """
        asked = [(place.local, place.local.ask(AskStatus())) for place in self.places if place.living and place.local]
        self.run_until(
            self.now_us + self.profile.answer_ms * 1100, lambda: all(ref in local.answers for local, ref in asked)
        )
        for local, ref in asked:
            answer = local.answers.get(ref)
            if not isinstance(answer, ClusterStatus):
                return f"a question to all is answered by {text(answer)}"
            if answer.silent or len(answer.members) != len(asked):
                return f"{len(asked)} live, {len(answer.members)} are listed, and {answer.silent} do not answer"
        return ""

    def _be_idle(self) -> None:
        """Nobody does anything: nodes have little to say."""
        self.seen["idle"] += 1
        before = {node: node.said_count for node in self.living}
        self.run_until(self.now_us + IDLE_US)
        for node, count in before.items():
            tried_per_s = 2 * (8 + len(self.places)) / (self.profile.retry_ms / 1000)
            said_per_s = (node.said_count - count) / (IDLE_US / 1_000_000)
            if said_per_s > IDLE_MAX_PER_S + tried_per_s:
                raise BrokenPromise(f"{node.place} says {said_per_s:.1f} frames a second, and nothing happens")

    # --- load -----------------------------------------------------------------------------------------------------

    def _every(self, mean_ms: int, act: Callable[[], None]) -> None:
        """Now and then, as long as there is load."""
        if mean_ms:
            self.later(int(self.rng.expovariate(1) * mean_ms * 1000), lambda: self._again(mean_ms, act))

    def _again(self, mean_ms: int, act: Callable[[], None]) -> None:
        if self.now_us < self._load_ends_us:
            act()
            self._every(mean_ms, act)

    def _some_node(self) -> Node | None:
        return self.rng.choice(self.living) if self.living else None

    def _reload(self) -> None:
        node = self._some_node()
        specs = self.workload.reload()
        self.seen["task gone"] += len(specs) < len(self.workload.kinds)
        if node is not None:
            node.define(specs)

    def _resize(self) -> None:
        """A job awaits another, and its slot is another's meanwhile; or no slot is left for a while."""
        node = self._some_node()
        if node is None:
            return
        workers, executor = self.options.workers, node.executor
        slots = self.rng.choice((workers, workers, workers + 1, 0))
        executor.resize(slots)
        if not slots:
            self.seen["no slots"] += 1
            self.later(self.rng.randint(1_000, 2_000_000), lambda: executor.resize(workers))


def _is_done(node: Node, at_ms: int) -> bool:
    """Whether nothing is left of what it had accepted by then."""
    ledger = node.ledger
    return node.is_over or node.leaving.left or (not ledger.leaving and not ledger.unfinished(at_ms))
