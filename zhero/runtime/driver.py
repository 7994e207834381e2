"""Runs an engine for real: its loop, clock, sockets and executor, and the turns in which they meet.

A call of the own process is a function call: it goes into the engine at once and, if the answer is there, comes back
with it; no thread, no hop. What the executor reports goes through the engine once per turn, all of it together, and a
turn is one callback of the loop, asked for by whoever has something (`wake`). One timer of the loop stands for all that
waits for a time in the engine, and is moved only when the next deadline has.

Callers in other threads leave their calls in a `Mailbox`. A caller that never lets the loop turn (a hundred thousand
enqueues in a row, one by one or in batches) is made to, every so many jobs.

What others are to know of this node is left with the heart (`_show`), which publishes it also while the loop is
blocked; each turn leaves a mark there.

State: reply references -> futures of those who wait; the timer. Bound: one future per caller.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config import Limits, Profile
from ..core.effects import Effect, Persist, Reply, Send, Start, Stop, Tell
from ..core.engine import Engine
from ..core.facts import Fact
from ..core.kept import DiskFault, Found
from ..core.messages import (
    Answer,
    Beat,
    Call,
    Enqueue,
    Frame,
    Leave,
    Left,
    MemberStatus,
    Message,
    Refusal,
    Refused,
    Request,
    Response,
)
from ..core.values import Life, Member, NodeId, Standing, TaskSpec
from ..errors import Bug, NotRunning
from ..lines import line
from .clock import Clock
from .executor import Executor
from .handlers import Handler
from .heart import Heart, Pulse
from .journal import Journal
from .mailbox import Mailbox
from .network import Network, Site

CALLS_PER_TURN = 100
"""After so many calls without a turn of the loop, the caller has to wait for one. Each job of a batch is a call."""

SHOW_EVERY_MS = 20
"""At most so often the heart is given a new snapshot, however many turns there are."""

BEATS_TURN_S = 0.2
"""How long after a beat a turn follows, if it was without effect; a deadline it brought nearer is late by so much.

Each turn wakes the process once more, which costs an idle node of a large cluster more than all that the turn does.
"""

Check = Callable[[str, bytes], str | None]
"""Task name, encoded params -> what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a driver is given.

    Attributes:
        boundary: params of jobs that come from outside are checked with it.
        on_fact: called on the loop with all that the engine tells.
        heard: whether anybody wants to know of single jobs, besides the log.
        journal: opens it, with the clock's time; None: nothing is kept.
    """

    site: Site
    workers: int
    limits: Limits
    profile: Profile
    stuck_after_ms: int
    node: Any
    boundary: Check
    on_fact: Callable[[Fact], None]
    heard: Callable[[], bool]
    journal: Callable[[int], Journal] | None = None


class Driver:
    """One node at work on one asyncio loop."""

    def __init__(self, setup: Setup, handlers: Mapping[str, Handler], logger: logging.Logger) -> None:
        self.clock = Clock()
        self._setup = setup
        self._log = logger
        self._futures: dict[int, asyncio.Future[Answer]] = {}
        self._answers: dict[int, Answer] = {}  # replies that came while their call was still being made
        self._ref = 0
        self._calling = 0
        self._calls_since_turn = 0
        self._turn_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms: int | None = None
        self._beats_timer: asyncio.TimerHandle | None = None
        self._mailbox = Mailbox(self.ask, self._not_running)
        self._running = False
        self._stopped = asyncio.Event()
        self._capacity = -1
        self._shown_at_ms = 0
        self._shown: object = None  # what others are to know at once, as the heart has it
        self._rng = random.Random()
        self._journal: Journal | None = None
        self._executor = Executor(
            setup.workers,
            handlers,
            self.wake,
            node=setup.node,
            rng=self._rng,
            logger=logger,
            result_max_bytes=setup.limits.payload_max_bytes,
        )

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self, specs: list[TaskSpec]) -> Member:
        """Listen, show this node to its neighbours, and begin to work. Nothing is left behind where it fails.

        Raises:
            BindFailed, RuntimeDirInvalid: and how to mend it.
        """
        setup, site = self._setup, self._setup.site
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        life = Life(NodeId(os.urandom(16)), self.clock.now_ms(), 0)
        if setup.journal is not None:
            journal = self._journal = await asyncio.to_thread(setup.journal, life.boot)
            life = Life(journal.node, journal.boot, 0)
        self._network = Network(site, life, self, self._log, self._rng)
        try:
            member, seeds = await self._network.open()
        except BaseException:
            if self._journal is not None:
                self._journal.close()
            raise
        now_ms = self.clock.now_ms()
        has_journal = self._journal is not None
        self._engine = Engine(
            member, setup.limits, now_ms, self._rng, profile=setup.profile, seeds=seeds, journal=has_journal
        )
        self._executor.open()
        network = self._network
        pulse = Pulse(network.publisher, setup.profile.beat_ms, self._show, setup.stuck_after_ms, network.gate)
        self._heart = Heart(self._loop, self._log, self._executor.who, pulse=pulse)
        self._heart.start()
        self._running = True
        self._mailbox.open()
        self._network.listen()
        self._log.info(
            "· node %s at=%s cluster=%s workers=%d seeds=%d",
            *(site.name, member.endpoint, site.cluster, setup.workers, len(seeds)),
        )
        if self._journal is not None:
            self._open_journal(self._journal)
        self.define(specs)
        self._turn()  # the engine knows the executor's room before the first call comes
        return member

    def _open_journal(self, journal: Journal) -> None:
        def on_loop(act: Callable[..., None]) -> Callable[..., None]:
            def soon(*given: object) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
                    self._loop.call_soon_threadsafe(act, *given)

            return soon

        for text in journal.damage:
            self._log.error("! the journal in %s is damaged: %s", journal.folder, text)
        journal.begin(on_loop(self._on_written), on_loop(self._on_disk_fault), on_loop(self._on_room))
        found, journal.found = journal.found, Found()
        self._carry_out(self._engine.recovered(found, self.clock.now_ms()))

    def _on_written(self, ticket: int) -> None:
        if self._running:
            self._take_in(self._engine.persisted(ticket, self.clock.now_ms()))

    def _on_disk_fault(self, fault: DiskFault, why: str) -> None:
        if self._running:
            self._take_in(self._engine.persist_failed(fault, why, self.clock.now_ms()))

    def _on_room(self) -> None:
        if self._running:
            self._take_in(self._engine.disk_has_room(self.clock.now_ms()))

    def define(self, specs: list[TaskSpec]) -> None:
        """These are the tasks from now on; running jobs keep the code they have."""
        self.listen()
        self._executor.renew_children()
        self._carry_out(self._engine.define(specs, self.clock.now_ms()))
        self.wake()

    async def stop(self, drain_s: float) -> int:
        """Take nothing new, let what can still end do so for at most `drain_s` seconds, then end everything.

        Called again meanwhile it sets a new limit; cancelled, it ends everything at once.

        Returns:
            How many accepted jobs will not run.
        """
        self._network.leave()
        try:
            answer = await self.ask(Leave(max(0, round(drain_s * 1000))))
        finally:
            await self._end()
        if not isinstance(answer, Left):
            raise Bug(f"a node that left answered {answer}")
        return answer.lost

    async def _end(self) -> None:
        if not self._running:  # another caller was quicker, and is at it
            await self._stopped.wait()
            return
        self._running = False
        for handle in (self._turn_handle, self._timer, self._beats_timer):
            if handle is not None:
                handle.cancel()
        self._heart.stop()
        try:
            await self._executor.close()
        finally:
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(self._not_running())
                    future.exception()  # not everybody who asked still looks
            self._futures.clear()
            self._mailbox.close()
            try:
                await self._network.close()
            finally:
                if self._journal is not None:
                    await asyncio.to_thread(self._journal.close)
                self._stopped.set()
            dropped = self._network.dropped()
            if dropped:
                self._log.info("· dropped %s", " ".join(f"{why!r}={count}" for why, count in dropped.items()))

    def _not_running(self) -> NotRunning:
        return NotRunning(f"node {self._setup.site.name} is not running")

    # --- calls ----------------------------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def is_here(self) -> bool:
        """Whether the caller is on the thread of the loop."""
        return threading.get_ident() == self._thread

    @property
    def me(self) -> Life:
        """This node, in its present life; on the loop."""
        return self._engine.me.life

    def members(self) -> list[MemberStatus]:
        """Who is here, as this node believes; on the loop.

        Raises:
            NotRunning: the node has stopped.
        """
        if not self._running:
            raise self._not_running()
        return self._engine.members(self.clock.now_ms())

    async def ask(self, call: Call) -> Answer:
        """Put a call to the engine; on the driver's loop only.

        Raises:
            NotRunning: the node has stopped, or stops before there is an answer.
        """
        if not self._running:
            raise self._not_running()
        self._ref = self._calling = ref = self._ref + 1
        self._carry_out(self._engine.call(ref, call, self.clock.now_ms(), more=not isinstance(call, Leave)))
        self._calling = 0
        self.wake()
        answer: Answer | None = self._answers.pop(ref, None)
        if answer is None:
            return await self._wait(ref)
        self._calls_since_turn += len(call.jobs) if isinstance(call, Enqueue) else 1
        if self._calls_since_turn > CALLS_PER_TURN:
            await asyncio.sleep(0)
        return answer

    async def _wait(self, ref: int) -> Answer:
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._futures[ref] = future
        try:
            return await future
        finally:
            if self._futures.pop(ref, None) is not None and self._running:
                self._engine.give_up(ref)

    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]:
        """The same from any thread; the future has the answer, and cancelling it is giving up."""
        return self._mailbox.put(call)

    def waiting(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While a job awaits another, its slot is another's."""
        return self._executor.waiting()

    def waiting_sync(self) -> contextlib.AbstractContextManager[None]:
        """The same, for a job in a thread."""
        return self._executor.waiting_sync()

    # --- turns ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have a turn soon."""
        if self._turn_handle is None and self._running:
            self._turn_handle = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Hand on what the executor has done, let time pass, and see when time matters next."""
        self._turn_handle = None
        self._calls_since_turn = 0
        self._heart.mark()
        engine, executor, now_ms = self._engine, self._executor, self.clock.now_ms()
        started = executor.take_started()
        if started:
            self.listen()
            self._carry_out(engine.started(started, now_ms, more=True))
        finished = executor.take_finished()
        if finished:
            self._carry_out(engine.finished(finished, now_ms, more=True))
        capacity = executor.capacity()
        if capacity != self._capacity:
            self._capacity = capacity
            self._carry_out(engine.capacity(capacity, now_ms, executor.ahead(), more=True))
        if engine.has_more:
            self._carry_out(engine.settle(now_ms))
        deadline_ms = engine.deadline_ms()
        if deadline_ms is not None and deadline_ms <= now_ms:
            self._carry_out(engine.tick(now_ms))
            deadline_ms = engine.deadline_ms()
        self._arm(deadline_ms)
        if now_ms - self._shown_at_ms >= SHOW_EVERY_MS:
            self._show()

    def _show(self) -> None:
        """Leave the heart what it is to publish."""
        self._shown_at_ms = now_ms = self.clock.now_ms()
        self._engine.dropped(self._network.dropped())
        snapshot = self._engine.beat(now_ms)
        told = (snapshot.sender, [(it.joined, it.view, it.tasks) for it in snapshot.messages if isinstance(it, Beat)])
        self._heart.show(snapshot, news=told != self._shown)
        self._shown = told

    def _arm(self, at_ms: int | None) -> None:
        if at_ms == self._timer_at_ms and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at_ms = at_ms
        if at_ms is not None and self._running:
            self._timer = self._loop.call_later(self.clock.seconds_until(at_ms), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._turn_handle is not None:
            self._turn_handle.cancel()
        self._turn()

    # --- what the network brings ----------------------------------------------------------------------------------

    def receive(self, frame: Frame) -> None:
        """A frame from a member or a client; params of unknown origin are checked before anything is queued."""
        if not self._running:
            return
        if any(isinstance(message, Request) for message in frame.messages):
            frame = self._checked(frame)
        effects = self._engine.receive(frame, self.clock.now_ms())
        self._carry_out(effects)
        if effects or frame.to is not None:
            self.wake()
        elif self._beats_timer is None:  # a beat that changes nothing; its turn is that of those that come soon after
            self._beats_timer = self._loop.call_later(BEATS_TURN_S, self._after_beats)

    def _after_beats(self) -> None:
        self._beats_timer = None
        self.wake()

    def peer_lost(self, life: Life) -> None:
        """A connection to that life was up, and is lost."""
        if self._running:
            self._take_in(self._engine.peer_lost(life, self.clock.now_ms()))

    def probed(self, life: Life, refused: bool) -> None:
        """A connect to the inbox of that life was tried."""
        if self._running:
            self._take_in(self._engine.probed(life, refused, self.clock.now_ms()))

    def seeds(self, endpoints: list[str]) -> None:
        """Where others may be found, as it is known now."""
        if self._running:
            self._take_in(self._engine.seeds(endpoints, self.clock.now_ms()))

    def known(self) -> set[tuple[NodeId, int]]:
        """Node and boot of each member that is alive."""
        lives = [it.member.life for it in self.members() if it.standing in (Standing.ALIVE, Standing.SUSPECT)]
        return {(life.node, life.boot) for life in lives}

    def _take_in(self, effects: list[Effect]) -> None:
        self._carry_out(effects)
        self.wake()

    def _checked(self, frame: Frame) -> Frame:
        """A frame without the requests that make no sense; whoever sent those is told."""
        kept: list[Message] = []
        for message in frame.messages:
            why = self._bad_params(message)
            if why is not None and isinstance(message, Request):
                response = Response(message.ref, Refused(Refusal.PARAMS_INVALID, why))
                self._network.carry_out(Send(frame.sender, Frame(self.me, frame.sender, [response])))
            else:
                kept.append(message)
        return replace(frame, messages=kept)

    def _bad_params(self, message: object) -> str | None:
        if not isinstance(message, Request) or not isinstance(message.call, Enqueue):
            return None
        task = message.call.task
        checks = (self._setup.boundary(task, params) for _, params in message.call.jobs)
        return next((why for why in checks if why is not None), None)

    def _carry_out(self, effects: list[Effect]) -> None:
        """Do what the engine wants, in its order."""
        for effect in effects:
            if isinstance(effect, Start):
                self._executor.submit(effect.runs)
            elif isinstance(effect, Reply):
                future = self._futures.pop(effect.ref, None)
                if future is None:
                    if effect.ref == self._calling:
                        self._answers[effect.ref] = effect.answer
                elif not future.done():
                    future.set_result(effect.answer)
            elif isinstance(effect, Persist):
                if self._journal is not None:
                    self._journal.append(effect)
            elif isinstance(effect, Tell):
                self._tell(effect.fact)
            elif isinstance(effect, Stop):
                if not self._executor.cancel(effect.job):
                    self._carry_out(self._engine.cannot_stop(effect.job, self.clock.now_ms()))
            else:
                self._network.carry_out(effect)

    def _tell(self, fact: Fact) -> None:
        said = line(fact)
        if said is not None:
            self._log.log(*said)
        self._setup.on_fact(fact)

    def listen(self) -> None:
        """Facts about jobs that go well are made only where somebody would read them."""
        self._engine.listening = self._log.isEnabledFor(logging.INFO) or self._setup.heard()
