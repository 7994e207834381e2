"""One simulated process: an engine, an executor, sockets and a heart, and the turns in which they meet.

Each input of the engine is a `Step`, shown to every checker before its effects are carried out. What is owed to an
engine is owed as late and as clumsily as allowed: reports of the executor come in batches, ticks a little early, late
or twice. While the process is paused nothing happens at all, and while its loop is blocked only its heart goes on;
then comes everything that has gathered meanwhile. A process may also end, at any moment, and in the middle of what
one input made it do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from ..config import PROFILES, STUCK_AFTER_MS
from ..core.effects import Asker, Connect, Disconnect, Effect, Knock, Persist, Probe, Reply, Send, Start, Tell
from ..core.engine import Engine
from ..core.entries import Entry
from ..core.facts import IdentityTaken
from ..core.messages import Answer, Call, Enqueue, Frame, GiveUp, Leave, Left, Request
from ..core.streams import Stream
from ..core.values import Finished, Life, Member, NodeId, Run, TaskSpec
from .alarm import Alarm
from .checkers import Checker, Copy, Fairness, Invariants, Leaving, Questions
from .clock import Clock
from .executor import Executor
from .heart import Heart
from .ledger import Ledger
from .network import Network
from .notes import Notes
from .plans import Plans
from .scene import Scene
from .sockets import Sockets
from .story import BrokenPromise, Step
from .workload import Kind, Options

STEPS_MAX_COUNT = 400_000
"""A world that has more is one that never goes quiet."""
BEATS_MAX_COUNT = 1_000
"""Beats that wait for a loop that does not turn; what comes then is dropped."""
_CHAIN_US = 250_000  # a loop with nothing to do turns so often
_GOES_US = 300_000
_LOOKS_EVERY = 16
_STUCK_US = STUCK_AFTER_MS * 990  # by its own clock it may be a little earlier
_NETWORK_INPUTS = ("receive", "hear", "peer_lost", "probed", "seeds")


class Witness(Protocol):
    """Sees what all nodes do."""

    def after(self, node: Node, step: Step) -> None:
        """Judge a step of that node."""
        ...

    def ran(self, node: Node, run: Run, report: Finished | None) -> None:
        """Its executor begins a run, or ends it with that report."""
        ...

    def ended(self, node: Node) -> None:
        """The process is over."""
        ...


class Surroundings(Protocol):
    """What a node needs of its world."""

    rng: Random
    options: Options
    scene: Scene
    now_us: int
    seen: Counter[str]
    story: list[Step]
    network: Network
    witness: Witness

    def later(self, delay_us: int, act: Callable[[], None]) -> None: ...


class Node:
    """One simulated process.

    Args:
        place: its name, too.
        seeds: endpoints of others that it is told of.
    """

    def __init__(
        self,
        world: Surroundings,
        place: str,
        clock: Clock,
        kinds: Sequence[Kind],
        seeds: Sequence[str],
        *,
        node_id: NodeId,
        workers: int,
        advertised: bool = False,
    ) -> None:
        rng, options = world.rng, world.options
        self.place = place
        self.clock = clock
        self.profile = PROFILES[world.scene.profile]
        self.on_reply: Callable[[int, Answer], None] = _nobody_asked
        self.is_over = False
        self.was_killed = False
        self.said_count = 0  # frames besides beats
        self.ended_us = 0
        self.began_us = world.now_us
        self.given_up: set[int] = set()  # calls whose caller waits no more
        self.troubled_us = world.now_us
        self._world = world
        endpoint, beats = f"tcp://{place}:7040", f"tcp://{place}:7041"
        life = Life(node_id, clock.ms(), 0)
        member = Member(life, place, endpoint, 4711, "0", beats, advertised)
        own_rng = Random(rng.getrandbits(64))
        self.engine = Engine(member, options.limits, clock.ms(), own_rng, profile=self.profile, seeds=seeds)
        self.joined_us = world.now_us if self.engine.joined else -1
        by_name = {kind.spec.name: kind for kind in kinds}
        self.executor = Executor(rng, by_name, world.later, self._wake, workers, options.window, self._ran)
        self.notes = Notes(world.seen)
        self.ledger = Ledger(self.engine, options.limits, world.seen, self.profile.answer_ms)
        self.leaving = Leaving(self.ledger, world.seen)
        self.plans = Plans(self.engine, self.ledger, world.seen)
        self._invariants = Invariants(self.engine)
        self._copy = Copy(self.engine, options.limits)
        self.checkers: list[Checker] = [self.notes, self._invariants, self._copy]
        self._is_alone = world.scene.nodes == 1
        if self._is_alone:  # the model of one node; more nodes are judged from outside, by the witness
            questions = Questions(self.ledger, self.plans)
            self.checkers += [self.ledger, self.plans, Fairness(self.ledger), self.leaving, questions]
        self._sockets = Sockets(world.network, self, endpoint, beats)
        beat_us = self.profile.beat_ms * 1_000_000_000 // (1_000_000 + clock.drift_ppm)
        self._heart = Heart(self, rng, world.later, beat_us, world.seen)
        self._others_count = 0  # steps without a job in them
        self._step: Step | None = None
        self._effects_left: int | None = None  # so many effects of the next input are carried out, and no more
        self._held: list[tuple[Asker, Call | GiveUp]] = []
        self._capacity = -1
        self._turn_is_due = False
        self._turned_us = world.now_us
        self._alarm = Alarm(world, clock, self._do, self._tick)
        self._paused_until_us = -1
        self._blocked_until_us = -1
        self._deferred: list[Callable[[], None]] = []
        self._deferred_beats_count = 0
        for stream in self.engine.streams:
            self._tap(stream)
        self.engine.streams.on_new = self._begin

    def _begin(self, stream: Stream) -> None:
        """It is home of this one from now on."""
        self._copy.begin(stream)
        self._tap(stream)

    def _tap(self, stream: Stream) -> None:
        last = stream.last

        def hear(number: int, entry: Entry) -> None:
            nonlocal last
            if self._step is None or number != last + 1:
                raise BrokenPromise(f"entry {number} of slice {stream.name} after {last}, in step {self._step}")
            last = number
            self._step.entries.append((stream.name, entry))
            self._copy.hear(stream, entry)

        stream.tap = hear

    @property
    def life(self) -> Life:
        """Its life of now."""
        return self.engine.me.life

    # --- what happens to it ---------------------------------------------------------------------------------------

    def start(self, specs: list[TaskSpec]) -> None:
        """Begin to work with these tasks."""
        self._heart.start()
        self.define(specs)
        self._wake()

    def define(self, specs: list[TaskSpec]) -> None:
        """These are its tasks from now on."""
        self._do(lambda: self._input("define", specs, lambda now_ms: self.engine.define(specs, now_ms)))

    def call(self, ref: int, call: Call) -> None:
        """Code in its process asks."""
        calls: list[tuple[Asker, Call | GiveUp]] = [(ref, call)]
        self._do(lambda: self._input("call", call, lambda now_ms: self._call(ref, call, now_ms), calls))

    def _call(self, ref: int, call: Call, now_ms: int) -> list[Effect]:
        if isinstance(call, Leave) or self._world.rng.random() < 0.5:
            return self.engine.call(ref, call, now_ms)
        return self.engine.call(ref, call, now_ms, more=True) + self.engine.settle(now_ms)

    def give_up(self, ref: int) -> None:
        """Code in its process waits no more."""

        def act(now_ms: int) -> list[Effect]:
            self.engine.give_up(ref)
            self.given_up.add(ref)
            return []

        self._do(lambda: self._input("give_up", ref, act))

    def receive(self, frame: Frame) -> None:
        """A frame arrives."""
        self._do(lambda: self._input("receive", frame, lambda now_ms: self.engine.receive(frame, now_ms), None))

    def hear(self, frame: Frame) -> None:
        """A beat arrives; where a loop does not turn, only so many wait."""
        if self._turns:
            self._input("hear", frame, lambda now_ms: self.engine.receive(frame, now_ms))
        elif self._deferred_beats_count < BEATS_MAX_COUNT:
            self._deferred_beats_count += 1
            self._do(lambda: self._input("hear", frame, lambda now_ms: self.engine.receive(frame, now_ms)))

    def peer_lost(self, life: Life) -> None:
        """A connection to that one's endpoint is lost, or so it seems."""
        self._do(lambda: self._input("peer_lost", life, lambda now_ms: self.engine.peer_lost(life, now_ms)))

    def seeds(self, endpoints: list[str]) -> None:
        """Somebody has looked who is there."""
        self._do(lambda: self._input("seeds", endpoints, lambda now_ms: self.engine.seeds(endpoints, now_ms)))

    def _probed(self, life: Life, refused: bool) -> None:
        act: Callable[[int], list[Effect]] = lambda now_ms: self.engine.probed(life, refused, now_ms)  # noqa: E731
        self._do(lambda: self._input("probed", (life, refused), act))

    # --- trouble --------------------------------------------------------------------------------------------------

    def pause(self, span_ms: int) -> None:
        """It does nothing for a while: what comes meanwhile waits."""
        world = self._world
        world.seen["pause"] += 1
        self._paused_until_us = max(self._paused_until_us, world.now_us + span_ms * 1000)
        world.later(span_ms * 1000, self._resume)

    def block(self, span_ms: int) -> None:
        """Its loop does not turn for a while; its heart goes on."""
        world = self._world
        world.seen["loop blocked"] += 1
        world.seen["loop blocked too long"] += span_ms > STUCK_AFTER_MS
        self._blocked_until_us = max(self._blocked_until_us, world.now_us + span_ms * 1000)
        world.later(span_ms * 1000, self._resume)

    def wake_up(self) -> None:
        """Whatever holds it up is over, and so is the crash that it was to have."""
        self._mark_trouble()
        self._effects_left = None
        self._paused_until_us = self._blocked_until_us = self._world.now_us
        self._resume()

    def crash(self, effects_count: int | None = None) -> None:
        """It ends without a word: now, or when so many of the effects of its next inputs have been carried out."""
        if effects_count is None:
            self.end(killed=True)
        else:
            self._effects_left = effects_count

    def end(self, *, killed: bool) -> None:
        """It is over."""
        if not self.is_over:
            self.is_over, self.was_killed = True, killed
            self.ended_us = self._world.now_us
            self._deferred.clear()
            self._sockets.close(killed=killed)
            self._world.witness.ended(self)

    @property
    def is_stopped(self) -> bool:
        """Whether it does nothing at all."""
        return self._world.now_us < self._paused_until_us

    @property
    def is_blocked(self) -> bool:
        """Whether its loop does not turn."""
        return self._world.now_us < self._blocked_until_us

    @property
    def is_held_up(self) -> bool:
        """Whether it is stopped or blocked."""
        return self.is_stopped or self.is_blocked

    @property
    def is_troubled(self) -> bool:
        """Whether others have reason to miss it now."""
        return self.is_over or self.stands_still

    @property
    def stands_still(self) -> bool:
        """Whether it is stopped, or blocked for so long that it counts as dead."""
        return self.is_stopped or self._is_stuck

    @property
    def _is_stuck(self) -> bool:
        return self.is_blocked and self._world.now_us - self._turned_us >= _STUCK_US

    @property
    def _turns(self) -> bool:
        return not (self.is_held_up or self._deferred or self.is_over)

    def _mark_trouble(self) -> None:
        now_us = self._world.now_us
        if now_us <= self._paused_until_us or now_us - self._turned_us >= _STUCK_US:
            self.troubled_us = now_us

    def _resume(self) -> None:
        self._mark_trouble()
        if self.is_held_up or self.is_over:
            return
        deferred, self._deferred = self._deferred, []
        self._deferred_beats_count = 0
        if self._world.rng.random() < 0.5:
            self._tick()
        for act in deferred:
            if not self.is_over:
                act()

    # --- its heart ------------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[Frame, int]:
        """What is to be published, and how many ms ago the loop last turned."""
        now_us = self._world.now_us
        if not self.is_blocked:
            self._turned_us = max(self._turned_us, now_us - self._world.rng.randint(0, _CHAIN_US))
        age_us = now_us - self._turned_us
        return self.engine.beat(self.clock.ms() - age_us // 1000), age_us // 1000

    def publish(self, frame: Frame) -> None:
        """Let it be heard by all who want to."""
        self._sockets.publish(frame)

    # --- turns ----------------------------------------------------------------------------------------------------

    def _do(self, act: Callable[[], None]) -> None:
        if self.is_over:
            return
        if self._turns:
            act()
        else:
            self._deferred.append(act)

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
        """Let time pass; what it brings to this node may be overdue itself, so once more if need be, and no more."""
        deadline_ms: int | None = None
        for _ in range(2):
            self._input("tick", None, self.engine.tick)
            deadline_ms = self.engine.deadline_ms()
            if deadline_ms is None or deadline_ms > self.clock.ms() or self.is_over:
                return
        raise BrokenPromise(f"a tick leaves a deadline in the past: {deadline_ms}")

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
        if self.is_over:
            return
        if len(world.story) >= STEPS_MAX_COUNT:
            raise BrokenPromise(f"it never goes quiet: {STEPS_MAX_COUNT} steps")
        now_ms = self.clock.ms()
        step = Step(world.now_us, self.clock.us(), now_ms, self.place, what, given)
        step.calls = calls or (self._calls_of(given) if isinstance(given, Frame) else [])
        joined = self.engine.joined
        world.story.append(step)
        self._step = step
        try:
            step.effects = act(now_ms)
        except BrokenPromise:
            raise
        except Exception as error:
            raise BrokenPromise(f"the engine raised {type(error).__name__}: {error}") from error
        self._step = None
        step.joins = self.engine.joined and not joined
        step.joined = self.engine.joined
        if step.joins:
            self.joined_us = world.now_us
        self._turned_us = world.now_us
        if not joined and self._is_alone:
            self._hold(step)
        if not self._is_alone:
            step.done_count = self._effects_left
        self._judge(step)
        for effect in step.effects:
            if self._effects_left is not None:
                self._effects_left -= 1
                if self._effects_left < 0:
                    world.seen["crash between two effects"] += 1
                    self.end(killed=True)
            if self.is_over:
                return
            self._carry_out(effect)
        self._alarm.set(self.engine.deadline_ms())

    def _calls_of(self, frame: Frame) -> list[tuple[Asker, Call | GiveUp]]:
        """What a client asks for."""
        if frame.to not in (None, self.life):
            return []
        calls: list[tuple[Asker, Call | GiveUp]] = []
        for message in frame.messages:
            if isinstance(message, Request) and not isinstance(message.call, Leave):
                calls.append(((frame.sender, message.ref), message.call))
            elif isinstance(message, GiveUp):
                calls.append(((frame.sender, message.ref), message))
        return calls

    def _hold(self, step: Step) -> None:
        """What is enqueued before the node has joined waits until then, or until it is told to leave."""
        leaves = any(isinstance(call, Leave) for _, call in step.calls)
        if not step.joins and not leaves:
            self._held += [(asker, call) for asker, call in step.calls if isinstance(call, Enqueue)]
            step.calls = [(asker, call) for asker, call in step.calls if not isinstance(call, Enqueue)]
            self._world.seen["enqueue before joining"] += not step.joined and len(self._held) > 0
            return
        step.calls = [*self._held, *step.calls] if step.joins else [*step.calls, *self._held]
        self._held = []

    def _judge(self, step: Step) -> None:
        """Have it looked at: by the checkers of jobs where it has to do with jobs, by all others in any case."""
        if step.what not in _NETWORK_INPUTS or step.is_about_jobs:
            for checker in self.checkers:
                checker.after(step)
        else:
            self._others_count += 1
            if self._others_count % _LOOKS_EVERY == 0:
                self._invariants.after(step)
        self._world.witness.after(self, step)

    def _ran(self, run: Run, report: Finished | None) -> None:
        if not self.is_over:
            self._world.witness.ran(self, run, report)

    def _carry_out(self, effect: Effect) -> None:
        world, sockets = self._world, self._sockets
        if isinstance(effect, Start):
            self.executor.submit(effect.runs)
        elif isinstance(effect, Reply):
            self.on_reply(effect.ref, effect.answer)
            if isinstance(effect.answer, Left):
                world.later(world.rng.randint(0, _GOES_US), lambda: self.end(killed=False))
        elif isinstance(effect, Send):
            self.said_count += 1
            sockets.send(effect.to, effect.frame)
        elif isinstance(effect, Knock):
            self.said_count += 1
            sockets.knock(effect.endpoint, effect.frame)
        elif isinstance(effect, Connect):
            sockets.connect(effect.member)
        elif isinstance(effect, Disconnect):
            sockets.disconnect(effect.life)
        elif isinstance(effect, Probe):
            life = effect.member.life
            sockets.probe(effect.member, lambda refused: self._probed(life, refused))
        elif isinstance(effect, Tell):
            if isinstance(effect.fact, IdentityTaken):
                world.later(world.rng.randint(0, _GOES_US), lambda: self.end(killed=False))
        elif isinstance(effect, Persist):
            raise BrokenPromise("something is to be persisted, and there is no journal")
        elif not self.executor.stop(effect.job):
            job = effect.job
            self._input("cannot_stop", job, lambda now_ms: self.engine.cannot_stop(job, now_ms))


def _nobody_asked(ref: int, answer: Answer) -> None:
    raise BrokenPromise(f"an answer to call {ref}, and nobody is there who asked")
