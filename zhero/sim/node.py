"""One simulated process: an engine, an executor, and the turns in which they meet.

Each input of the engine is a `Step`, shown to every checker before its effects are carried out. What is owed to an
engine is owed as late and as clumsily as allowed: reports of the executor come in batches, ticks a little early, late
or twice, and while the process is paused nothing happens at all, then everything that has come meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from ..core.effects import Asker, Effect, Reply, Send, Start, Stop
from ..core.engine import Engine
from ..core.entries import Entry
from ..core.messages import Answer, Call, Frame, GiveUp, Leave, Request
from ..core.values import Life, Member, NodeId, TaskSpec
from .checkers import Checker, Copy, Fairness, Invariants, Leaving, Questions
from .executor import Executor
from .ledger import Ledger
from .plans import Plans
from .story import BrokenPromise, Step
from .workload import Kind, Options

STEPS_MAX_COUNT = 200_000
"""A world that has more is one that never goes quiet."""


class Surroundings(Protocol):
    """What a node needs of its world."""

    rng: Random
    options: Options
    now_us: int
    begun_ms: int
    seen: Counter[str]
    story: list[Step]

    @property
    def now_ms(self) -> int: ...

    def later(self, delay_us: int, act: Callable[[], None]) -> None: ...

    def send(self, frame: Frame, to: Life) -> None: ...


class Node:
    """One simulated process: an engine, an executor, and the turns in which they meet."""

    def __init__(self, world: Surroundings, name: str, kinds: Sequence[Kind]) -> None:
        rng, options = world.rng, world.options
        self.life = Life(NodeId(rng.randbytes(16)), world.now_ms, 0)
        self.on_reply: Callable[[int, Answer], None] = _nobody_asked
        self._world = world
        self._name = name
        member = Member(self.life, name, f"tcp://{name}:7040", 4711, "0")
        self.engine = Engine(member, options.limits, world.now_ms)
        by_name = {kind.spec.name: kind for kind in kinds}
        self.executor = Executor(rng, by_name, world.later, self._wake, options.workers, options.window)
        self.ledger = Ledger(self.engine, options.limits, world.seen)
        self.leaving = Leaving(self.ledger, world.seen)
        self.plans = Plans(self.engine, self.ledger, world.seen)
        self.checkers: list[Checker] = [
            Invariants(self.engine),
            Copy(self.engine, options.limits),
            self.ledger,
            self.plans,
            Fairness(self.ledger),
            self.leaving,
            Questions(self.ledger, self.plans),
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
            self.on_reply(effect.ref, effect.answer)
        elif isinstance(effect, Send):
            self._world.send(Frame(self.life, effect.to, effect.messages), effect.to)
        elif isinstance(effect, Stop) and not self.executor.stop(effect.job):
            job = effect.job
            self._input("cannot_stop", job, lambda now_ms: self.engine.cannot_stop(job, now_ms))


def _nobody_asked(ref: int, answer: Answer) -> None:
    raise BrokenPromise(f"an answer to call {ref}, and nobody is there who asked")
