"""Runs an engine for real: its loop, clock, sockets and executor, and the turns in which they meet.

A call of the own process is a function call: it goes into the engine at once and, if the answer is there, comes back
with it; no thread, no hop. What the executor reports goes through the engine once per turn, all of it together, and a
turn is one callback of the loop, asked for by whoever has something (`wake`). One timer of the loop stands for all that
waits for a time in the engine, and is moved only when the next deadline has.

Callers in other threads leave their calls in a deque and ring once per batch. A caller that never lets the loop turn
(a hundred thousand enqueues in a row) is made to, every so many calls.

State: reply references -> futures of those who wait; the timer. Bound: one future per caller.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Limits
from ..core.effects import Effect, Reply, Send, Start, Stop, Tell
from ..core.engine import Engine
from ..core.messages import (
    Answer,
    Call,
    Enqueue,
    Frame,
    Leave,
    Left,
    Message,
    Refusal,
    Refused,
    Request,
    Response,
)
from ..core.values import Life, Member, NodeId, TaskSpec
from ..errors import Bug, NotRunning
from ..lines import line
from .clock import Clock
from .discovery import Directory, Entry, runtime_dir
from .executor import Executor
from .handlers import Handler
from .heart import Heart
from .transport import Transport

CALLS_PER_TURN = 100
"""After so many calls without a turn of the loop, the caller has to wait for one."""

Check = Callable[[str, bytes], str | None]
"""Task name, encoded params -> what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a driver is given. `boundary`: params of jobs that come from outside are checked with it."""

    name: str
    cluster: str
    bind: str
    workers: int
    runtime_dir: Path | None
    limits: Limits
    version: str
    node: Any
    boundary: Check


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
        self._from_threads: deque[tuple[Call, concurrent.futures.Future[Answer]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rung = False
        self._running = False
        self._stopped = asyncio.Event()
        self._capacity = -1
        self._life = Life(NodeId(os.urandom(16)), self.clock.now_ms(), 0)
        self._transport = Transport(setup.cluster, self._receive)
        self._executor = Executor(
            setup.workers,
            handlers,
            self.wake,
            node=setup.node,
            rng=random.Random(),
            logger=logger,
            result_max_bytes=setup.limits.payload_max_bytes,
        )

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self, specs: list[TaskSpec]) -> Member:
        """Listen, show this node to its neighbours, and begin to work. Nothing is left behind where it fails.

        Raises:
            BindFailed, RuntimeDirInvalid: and how to mend it.
        """
        setup = self._setup
        self._loop = asyncio.get_running_loop()
        directory = Directory(runtime_dir(setup.runtime_dir), setup.cluster)
        endpoint = self._transport.open(setup.bind, self._life)
        member = Member(self._life, setup.name, endpoint, os.getpid(), setup.version)
        try:
            entry = Entry(
                self._life.node, self._life.boot, setup.name, endpoint, member.pid, setup.version, self._life.boot
            )
            directory.announce(entry)
        except BaseException:
            self._transport.close()
            raise
        self._directory = directory
        self._engine = Engine(member, setup.limits, self.clock.now_ms())
        self._executor.open()
        self._heart = Heart(self._loop, self._log, self._executor.who)
        self._heart.start()
        self._running = True
        self.define(specs)
        self._turn()  # the engine knows the executor's room before the first call comes
        return member

    def define(self, specs: list[TaskSpec]) -> None:
        """These are the tasks from now on; running jobs keep the code they have."""
        self._listen()
        self._executor.renew_children()
        self._carry_out(self._engine.define(specs, self.clock.now_ms()))
        self.wake()

    async def stop(self, drain_s: float) -> int:
        """Take nothing new, let what can still end do so for at most `drain_s` seconds, then end everything.

        Called again meanwhile it sets a new limit; cancelled, it ends everything at once.

        Returns:
            How many accepted jobs will not run.
        """
        self._directory.withdraw()
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
        for handle in (self._turn_handle, self._timer):
            if handle is not None:
                handle.cancel()
        self._heart.stop()
        try:
            await self._executor.close()
        finally:
            self._transport.close()
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(self._not_running())
                    future.exception()  # not everybody who asked still looks
            self._futures.clear()
            self._take_from_threads()
            for task in self._tasks:
                task.cancel()
            self._stopped.set()

    def _not_running(self) -> NotRunning:
        return NotRunning(f"node {self._setup.name} is not running")

    # --- calls ----------------------------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    async def ask(self, call: Call) -> Answer:
        """Put a call to the engine; on the driver's loop only.

        Raises:
            NotRunning: the node has stopped, or stops before there is an answer.
        """
        if not self._running:
            raise self._not_running()
        self._ref = self._calling = ref = self._ref + 1
        self._carry_out(self._engine.call(ref, call, self.clock.now_ms()))
        self._calling = 0
        self.wake()
        answer: Answer | None = self._answers.pop(ref, None)
        if answer is None:
            return await self._wait(ref)
        self._calls_since_turn += 1
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
        future: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        if not self._running:
            future.set_exception(self._not_running())
            return future
        self._from_threads.append((call, future))
        if not self._rung:
            self._rung = True
            try:
                self._loop.call_soon_threadsafe(self._take_from_threads)
            except RuntimeError:  # the loop was closed between our look and now
                self._take_from_threads()
        return future

    def _take_from_threads(self) -> None:
        self._rung = False
        while self._from_threads:
            call, future = self._from_threads.popleft()
            if self._running:
                task = self._loop.create_task(self._answer_thread(call, future))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                future.add_done_callback(functools.partial(self._on_thread_gave_up, task))
            else:
                with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled meanwhile
                    future.set_exception(self._not_running())

    async def _answer_thread(self, call: Call, future: concurrent.futures.Future[Answer]) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled meanwhile
            try:
                answer = await self.ask(call)
            except asyncio.CancelledError:
                future.set_exception(self._not_running())
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(answer)

    def _on_thread_gave_up(self, task: asyncio.Task[None], future: concurrent.futures.Future[Answer]) -> None:
        if future.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(task.cancel)

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
        engine, executor, now_ms = self._engine, self._executor, self.clock.now_ms()
        started = executor.take_started()
        if started:
            self._listen()
            self._carry_out(engine.started(started, now_ms))
        finished = executor.take_finished()
        if finished:
            self._carry_out(engine.finished(finished, now_ms))
        capacity = executor.capacity()
        if capacity != self._capacity:
            self._capacity = capacity
            self._carry_out(engine.capacity(capacity, now_ms))
        deadline_ms = engine.deadline_ms()
        if deadline_ms is not None and deadline_ms <= now_ms:
            self._carry_out(engine.tick(now_ms))
            deadline_ms = engine.deadline_ms()
        self._arm(deadline_ms)

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

    def _receive(self, frame: Frame) -> None:
        """A frame from a client: params of unknown origin are checked before anything is queued."""
        kept: list[Message] = []
        for message in frame.messages:
            why = self._bad_params(message)
            if why is not None and isinstance(message, Request):
                self._transport.send(frame.sender, [Response(message.ref, Refused(Refusal.PARAMS_INVALID, why))])
            else:
                kept.append(message)
        self._carry_out(self._engine.receive(Frame(frame.sender, frame.to, kept), self.clock.now_ms()))
        self.wake()

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
            elif isinstance(effect, Send):
                self._transport.send(effect.to, effect.messages)
            elif isinstance(effect, Stop):
                if not self._executor.cancel(effect.job):
                    self._carry_out(self._engine.cannot_stop(effect.job, self.clock.now_ms()))
            else:
                self._tell(effect)

    def _tell(self, effect: Tell) -> None:
        said = line(effect.fact)
        if said is not None:
            self._log.log(*said)

    def _listen(self) -> None:
        """Facts about jobs that go well are made only where somebody would read them."""
        self._engine.listening = self._log.isEnabledFor(logging.INFO)
