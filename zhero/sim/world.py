"""A seeded world: nodes, their executors, those who call them, and a network, in virtual time.

Everything that happens is drawn from one random generator, and nothing else moves it: no clock, no thread, no order of
a set. So a seed is a world, and running it twice gives the same story. Time is a heap of events and jumps from one
to the next. True time counts microseconds; a node sees whole milliseconds.

A life of a world: callers ask for a while, the node pauses, its definitions change, its slots come and go; then the
load ends, and all that was accepted has to end too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random

from ..core.messages import Frame, Leave
from ..core.values import Life
from .callers import Client, LocalCaller
from .network import Network
from .node import Node
from .story import BrokenPromise, Step
from .workload import Kind, Options, Workload

CLUSTER = "sim"
JOBS_MIN_COUNT = 120
"""So many jobs a world sees before its load ends."""
QUIET_MAX_US = 120_000_000
JOB_MAX_US = 20_000_000
"""How long after the load all has to be over, and how much longer for each job that is left."""

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
    *("pause", "pause of minutes", "tick early", "tick twice", "tick late", "no slots"),
)
"""What has to have happened in one seed of many; what never does is a hole in the workload."""


class World:
    """One node and its callers, from one seed.

    Args:
        loaded: callers ask by themselves; if not, whoever holds the world does it through `local`.
        options, kinds: given, not drawn.
    """

    def __init__(
        self, seed: int, *, loaded: bool = True, options: Options | None = None, kinds: Sequence[Kind] | None = None
    ) -> None:
        self.seed = seed
        self.now_us = 0
        self.seen: Counter[str] = Counter()
        self.story: list[Step] = []
        self.rng = rng = Random(seed)
        self.options = options = options or Options.draw(rng)
        self.begun_ms = 1_700_000_000_000 + rng.randrange(1_000_000_000)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._events_made = 0
        self._network = Network(rng, CLUSTER, lambda: self.now_us, self.later)
        self.workload = Workload(rng, options.limits, kinds)
        self.node = Node(self, "web-1", self.workload.kinds)
        self.local = LocalCaller(self.node, self.workload, rng, self.later, options.pace_ms, self.seen)
        self.node.on_reply = self.local.on_reply
        self._network.attach(self.node.life, self.node.receive)
        self.clients = [
            Client(self.node.life, self.workload, self._network, rng, self.later, options.pace_ms, self.seen)
            for _ in range(options.clients if loaded else 0)
        ]
        self._loaded = loaded
        self._load_ends_us = 0

    # --- time -----------------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """What the clock of a node says."""
        return self.begun_ms + self.now_us // 1000

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """Have something happen."""
        self._events_made += 1
        heappush(self._events, (self.now_us + delay_us, self._events_made, act))

    def run_until(self, at_us: int, enough: Callable[[], bool] | None = None) -> None:
        """Let all happen that is to happen by then, or until it is enough."""
        while self._events and self._events[0][0] <= at_us:
            if enough is not None and enough():
                return
            self.now_us, _, act = heappop(self._events)
            act()
        if enough is None or not enough():
            self.now_us = max(self.now_us, at_us)

    def send(self, frame: Frame, to: Life) -> None:
        """Over the network."""
        self._network.send(frame, to)

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
        self.seen["garbage refused"] += self._network.garbage_count
        self.seen["frame lost"] += self._network.lost_count
        return self.seen

    def start(self) -> None:
        """The node begins to work."""
        self.node.start([kind.spec for kind in self.workload.kinds])

    def _live(self) -> None:
        options, node = self.options, self.node
        self.start()
        self._load_ends_us = options.load_ms * 1000
        if self._loaded:
            self.local.start()
            for client in self.clients:
                client.start()
            self._every(options.pause_every_ms, self._pause)
            self._every(options.reload_every_ms, self._reload)
            self._every(5_000, self._resize)
        self.run_until(self._load_ends_us)
        while self._loaded and len(node.ledger.books.jobs) < JOBS_MIN_COUNT:
            self._load_ends_us += 1_000_000
            self.run_until(self._load_ends_us)
        self.local.asking = False
        for client in self.clients:
            client.stop()
        self.run_until(self.now_us + 5_000_000, lambda: not node.is_paused)
        self.settle()

    def settle(self) -> None:
        """The load is over: what was accepted has to end.

        Raises:
            BrokenPromise: it does not.
        """
        options, node = self.options, self.node
        self.run_until(self.now_us + 600_000_000, lambda: not node.is_paused)
        node.executor.resize(options.workers)
        if options.all_return:
            node.define([kind.spec for kind in self.workload.kinds])
        if options.leaves and self._loaded:
            self.local.ask(Leave(self.rng.choice((0, 500, 10_000))))
            self.local.ask(self.workload.last_wish(self.local.ids()))
        ledger, ends_ms = node.ledger, self.now_ms
        most_us = QUIET_MAX_US + JOB_MAX_US * len(ledger.books.live)
        self.run_until(
            self.now_us + most_us, lambda: node.leaving.left or (not ledger.leaving and not ledger.unfinished(ends_ms))
        )
        if ledger.leaving and not node.leaving.left:
            raise BrokenPromise("it was told to leave, and never does")
        for job in [] if ledger.leaving else ledger.unfinished(ends_ms):
            raise BrokenPromise("P1: the load is over, and the job never ends", job.job, job.task)
        self.seen["job of a task gone"] += any(job.task not in ledger.specs for job in ledger.books.live.values())

    def _every(self, mean_ms: int, act: Callable[[], None]) -> None:
        """Now and then, as long as there is load."""
        if mean_ms:
            self.later(int(self.rng.expovariate(1) * mean_ms * 1000), lambda: self._again(mean_ms, act))

    def _again(self, mean_ms: int, act: Callable[[], None]) -> None:
        if self.now_us < self._load_ends_us:
            act()
            self._every(mean_ms, act)

    def _pause(self) -> None:
        rng = self.rng
        span_ms = rng.choice((rng.randint(10, 100), rng.randint(100, 5_000), rng.randint(2_000, 10_000)))
        if rng.random() < 0.05:
            span_ms = rng.randint(60_000, 240_000)
            self.seen["pause of minutes"] += 1
            self._load_ends_us = min(self._load_ends_us, self.now_us + 5_000_000)
        self.node.pause(span_ms)

    def _reload(self) -> None:
        specs = self.workload.reload()
        self.seen["task gone"] += len(specs) < len(self.workload.kinds)
        self.node.define(specs)

    def _resize(self) -> None:
        """A job awaits another, and its slot is another's meanwhile; or no slot is left for a while."""
        workers, executor = self.options.workers, self.node.executor
        slots = self.rng.choice((workers, workers, workers + 1, 0))
        executor.resize(slots)
        if not slots:
            self.seen["no slots"] += 1
            self.later(self.rng.randint(1_000, 2_000_000), lambda: executor.resize(workers))
