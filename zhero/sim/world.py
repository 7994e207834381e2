"""A seeded world: nodes, their executors, those who call them, and a network, in virtual time.

Everything that happens is drawn from one random generator, and nothing else moves it: no clock, no thread, no order of
a set. So a seed is a world, and running it twice gives the same story. Time is a heap of events and jumps from one
to the next. True time counts microseconds; a node sees whole milliseconds.

Each input of an engine is a `Step`, shown to every checker before its effects are carried out. A life of a world:
callers ask for a while, the node pauses, its definitions change, its slots come and go; then the load ends, and all
that was accepted has to end too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from ..core.effects import Asker, Effect, Reply, Send, Start, Stop
from ..core.engine import Engine
from ..core.entries import Entry
from ..core.messages import Call, Frame, GiveUp, Leave, Request
from ..core.values import Life, Member, NodeId, TaskSpec
from .callers import Client, LocalCaller
from .checkers import Checker, Copy, Fairness, Invariants, Questions
from .executor import Executor
from .ledger import Ledger
from .network import Network
from .plans import Plans
from .story import BrokenPromise, Step
from .workload import BY_NAME, Options, Workload

CLUSTER = "sim"
QUIET_MAX_US = 120_000_000
JOB_MAX_US = 20_000_000
"""How long after the load all has to be over, and how much longer for each job that is left."""
STEPS_MAX_COUNT = 200_000
"""A world that has more is one that never goes quiet."""
ROUND_MAX_MS = 120_000
"""How long one round may take, its retries included."""

SOMETIMES = (
    *("retry", "snooze", "dead", "revived", "discarded", "late verdict ignored", "dead letter made room"),
    *("cancel: waiting", "cancel: delayed", "cancel: lent", "cancel: spread", "cancel answered late", "cannot stop"),
    *("batch", "flood", "same id twice", "spread", "round", "round overdue by periods", "round overran its period"),
    *(
        "round skipped by a person",
        "round skipped by a busy member",
        "period changed",
        "task gone",
        "job of a task gone",
    ),
    "round awaited",
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
    """

    def __init__(self, seed: int, *, loaded: bool = True) -> None:
        self.seed = seed
        self.now_us = 0
        self.seen: Counter[str] = Counter()
        self.story: list[Step] = []
        self.rng = rng = Random(seed)
        self.options = options = Options.draw(rng)
        self.begun_ms = 1_700_000_000_000 + rng.randrange(1_000_000_000)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._events_made = 0
        self._network = Network(rng, CLUSTER, lambda: self.now_us, self.later)
        self.workload = Workload(rng, options.limits)
        self.node = Node(self, "web-1")
        self.local = LocalCaller(self.node, self.workload, rng, self.later, options.pace_ms, self.seen)
        self.node.local = self.local
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
        ledger = node.ledger
        most_us = QUIET_MAX_US + JOB_MAX_US * len(ledger.unfinished())
        self.run_until(self.now_us + most_us, lambda: ledger.left or not ledger.unfinished())
        if ledger.left:
            return
        if not ledger.leaving:
            for job in ledger.unfinished():
                raise BrokenPromise("P1: the load is over, and the job never ends", job.job, job.task)
        for job in ledger.live.values():
            self.seen["job of a task gone"] += job.task not in ledger.specs
            if job.number and job.task in ledger.specs and self.now_ms - job.accepted_ms > ROUND_MAX_MS:
                raise BrokenPromise("P1: a round never ends", job.job, job.task)

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


class Node:
    """One simulated process: an engine, an executor, and the turns in which they meet."""

    def __init__(self, world: World, name: str) -> None:
        rng, options = world.rng, world.options
        self.life = Life(NodeId(rng.randbytes(16)), world.now_ms, 0)
        self.local: LocalCaller
        self._world = world
        self._name = name
        member = Member(self.life, name, f"tcp://{name}:7040", 4711, "0")
        self.engine = Engine(member, options.limits, world.now_ms)
        self.executor = Executor(rng, BY_NAME, world.later, self._wake, options.workers, options.window)
        self.ledger = Ledger(self.engine, options.limits, world.seen)
        plans = Plans(self.engine, self.ledger, world.seen)
        self.checkers: list[Checker] = [
            Invariants(self.engine),
            Copy(self.engine, options.limits),
            self.ledger,
            plans,
            Fairness(self.ledger),
            Questions(self.ledger, plans),
        ]
        self._step: Step | None = None
        self._capacity = -1
        self._turn_is_due = False
        self._alarm_ms: int | None = None
        self._alarm_number = 0
        self._paused_until_us = -1
        self._deferred: list[Callable[[], None]] = []
        for stream in self.engine.streams:
            stream.tap = self._tap(stream.slice.name)

    def _tap(self, name: str) -> Callable[[int, Entry], None]:
        last = 0

        def hear(number: int, entry: Entry) -> None:
            nonlocal last
            if self._step is None or number != last + 1:
                raise BrokenPromise(f"entry {number} of slice {name} after {last}, in step {self._step}")
            last = number
            self._step.entries.append((name, entry))

        return hear

    # --- what happens to it ---------------------------------------------------------------------------------------

    def start(self, specs: list[TaskSpec]) -> None:
        """Begin to work with these tasks."""
        self.define(specs)
        self._wake()

    def define(self, specs: list[TaskSpec]) -> None:
        """These are its tasks from now on."""
        self._do(lambda: self._input("define", specs, lambda now_ms: self.engine.define(specs, now_ms)))

    def call(self, ref: int, call: Call) -> None:
        """Code in its process asks."""
        calls: list[tuple[Asker, Call | GiveUp]] = [(ref, call)]
        self._do(lambda: self._input("call", call, lambda now_ms: self.engine.call(ref, call, now_ms), calls))

    def give_up(self, ref: int) -> None:
        """Code in its process waits no more."""

        def act(now_ms: int) -> list[Effect]:
            self.engine.give_up(ref)
            return []

        self._do(lambda: self._input("give_up", ref, act))

    def receive(self, frame: Frame) -> None:
        """A frame arrives."""
        calls: list[tuple[Asker, Call | GiveUp]] = []
        for message in frame.messages:
            if isinstance(message, Request) and not isinstance(message.call, Leave):
                calls.append(((frame.sender, message.ref), message.call))
            elif isinstance(message, GiveUp):
                calls.append(((frame.sender, message.ref), message))
        self._do(lambda: self._input("receive", frame, lambda now_ms: self.engine.receive(frame, now_ms), calls))

    def pause(self, span_ms: int) -> None:
        """It does nothing for a while: what comes meanwhile waits."""
        world = self._world
        world.seen["pause"] += 1
        until_us = world.now_us + span_ms * 1000
        if until_us > self._paused_until_us:
            self._paused_until_us = until_us
            world.later(span_ms * 1000, self._resume)

    @property
    def is_paused(self) -> bool:
        return self._world.now_us < self._paused_until_us

    def _resume(self) -> None:
        if self.is_paused:
            return
        deferred, self._deferred = self._deferred, []
        if self._world.rng.random() < 0.5:
            self._tick()
        for act in deferred:
            act()

    # --- turns ----------------------------------------------------------------------------------------------------

    def _do(self, act: Callable[[], None]) -> None:
        if self.is_paused:
            self._deferred.append(act)
        else:
            act()

    def _wake(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            rng = self._world.rng
            delay_us = rng.randint(0, 40_000) if rng.random() < 0.05 else rng.randint(0, 1_500)
            self._world.later(delay_us, lambda: self._do(self._turn))

    def _turn(self) -> None:
        """Hand on what the executor has done."""
        self._turn_is_due = False
        started = self.executor.take_started()
        if started:
            self._input("started", started, lambda now_ms: self.engine.started(started, now_ms))
        finished = self.executor.take_finished()
        if finished:
            self._input("finished", finished, lambda now_ms: self.engine.finished(finished, now_ms))
        capacity = self.executor.capacity
        if capacity != self._capacity:
            self._capacity = capacity
            self._input("capacity", capacity, lambda now_ms: self.engine.capacity(capacity, now_ms))

    def _tick(self) -> None:
        self._input("tick", None, self.engine.tick)
        deadline_ms = self.engine.deadline_ms()
        if deadline_ms is not None and deadline_ms <= self._world.now_ms:
            raise BrokenPromise(f"a tick leaves a deadline in the past: {deadline_ms}")

    def _arm(self) -> None:
        """Have a tick near the deadline: most often at it, now and then a little early, late or twice."""
        deadline_ms = self.engine.deadline_ms()
        if deadline_ms == self._alarm_ms:
            return
        self._alarm_ms = deadline_ms
        self._alarm_number += 1
        if deadline_ms is None:
            return
        world, number = self._world, self._alarm_number
        at_us = (deadline_ms - world.begun_ms) * 1000
        chance = world.rng.random()
        if chance < 0.03:
            world.seen["tick early"] += 1
            at_us -= world.rng.randint(1, 5_000)
        elif chance < 0.15:
            world.seen["tick late"] += 1
            at_us += world.rng.randint(1, 20_000)
        world.later(max(0, at_us - world.now_us), lambda: self._do(lambda: self._ring(number)))

    def _ring(self, number: int) -> None:
        if number != self._alarm_number:
            return
        self._alarm_ms = None
        self._tick()
        if self._world.rng.random() < 0.03:
            self._world.seen["tick twice"] += 1
            self._tick()

    # --- one input ------------------------------------------------------------------------------------------------

    def _input(
        self,
        what: str,
        given: object,
        act: Callable[[int], list[Effect]],
        calls: list[tuple[Asker, Call | GiveUp]] | None = None,
    ) -> None:
        """One step: let the engine act, have it judged, then do what it wants."""
        world = self._world
        if len(world.story) >= STEPS_MAX_COUNT:
            raise BrokenPromise(f"it never goes quiet: {STEPS_MAX_COUNT} steps")
        step = Step(world.now_us, world.now_ms, self._name, what, given, calls or [])
        world.story.append(step)
        self._step = step
        try:
            step.effects = act(world.now_ms)
        except BrokenPromise:
            raise
        except Exception as error:
            raise BrokenPromise(f"the engine raised {type(error).__name__}: {error}") from error
        self._step = None
        for checker in self.checkers:
            checker.after(step)
        for effect in step.effects:
            self._carry_out(effect)
        self._arm()

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Start):
            self.executor.submit(effect.runs)
        elif isinstance(effect, Reply):
            self.local.on_reply(effect.ref, effect.answer)
        elif isinstance(effect, Send):
            self._world.send(Frame(self.life, effect.to, effect.messages), effect.to)
        elif isinstance(effect, Stop) and not self.executor.stop(effect.job):
            job = effect.job
            self._input("cannot_stop", job, lambda now_ms: self.engine.cannot_stop(job, now_ms))
