"""Runs jobs: coroutines on the loop, plain functions in threads, CPU-bound code in child processes.

`workers` long-lived coroutines take jobs from a deque. There is no task, timeout or queue object per job, which would
cost more than all the rest of a short job together. A worker is a slot: exactly so many jobs run at once, whatever
their mode. A job that waits for another job's result gives its slot back meanwhile (`waiting`), so that one worker is
enough for any depth of jobs that wait for jobs; going on, it takes the next slot before any new job does.

A coroutine is driven by hand, each step in its own copy of the context, so context variables that a job sets end with
it, and it is known which job is on the loop. It runs in the worker's task: cancelling that is how a timeout or a cancel
ends it. Deadlines are one heap and one timer of the loop; jobs without a timeout cost nothing.

How a run ends is decided here, where the definition is: the report carries the verdict. Reports wait in `started` and
`finished` until the driver takes them, all at once.

State: jobs not begun; jobs running; workers idle. Bound: `capacity`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from heapq import heappop, heappush
from random import Random
from typing import Any

from .. import codec
from ..core.values import (
    NOTHING,
    SUCCEEDED,
    Failure,
    Finished,
    JobId,
    Outcome,
    Run,
    Status,
    Verdict,
    job_text,
)
from ..errors import Discard, ParamsInvalid
from .handlers import Context, Handler, Raised, current_or_none, enter, failure_of, raised_by
from .processes import Child, ChildDied, Processes
from .threads import ThreadCall, Threads

SHORT_RUN_S = 0.001
"""Jobs that take less on average are given out ahead of free slots, so that a burst needs no turn per job."""
AHEAD_PER_WORKER = 32
RECANCEL_S = 1.0
"""A coroutine that swallows its cancellation is cancelled again after so long."""


class _TimedOut(Exception):
    """The wait for a thread is over."""


class _Active:
    """A run at work."""

    __slots__ = ("call", "cancelled", "child", "context", "handler", "over", "run", "timed_out", "worker")

    def __init__(self, run: Run, handler: Handler, context: Context, worker: asyncio.Task[Any]) -> None:
        self.run = run
        self.handler = handler
        self.context = context
        self.worker = worker
        self.call: ThreadCall | None = None
        self.child: Child | None = None
        self.timed_out = False
        self.cancelled = False
        self.over = False


class Executor:
    """The jobs that one node runs, on one loop.

    Args:
        workers: jobs run at once; 0: none.
        handlers: task name -> how to run it; may change while this works.
        wake: called when there is something to take; once until it is taken.
        node: what `zhero.current().node` is.
        result_max_bytes: a larger result fails its job.
    """

    def __init__(
        self,
        workers: int,
        handlers: Mapping[str, Handler],
        wake: Callable[[], None],
        *,
        node: Any,
        rng: Random,
        logger: logging.Logger,
        result_max_bytes: int,
    ) -> None:
        self._slots = workers
        self._handlers = handlers
        self._wake = wake
        self._node = node
        self._rng = rng
        self._log = logger
        self._result_max_bytes = result_max_bytes
        self._queue: deque[Run] = deque()
        self._active: dict[JobId, _Active] = {}
        self._working = 0  # runs that hold a slot
        self._waiting = 0  # runs that gave theirs back
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._deadlines: list[tuple[float, int, _Active]] = []
        self._deadline_count = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._mean_run_s = SHORT_RUN_S * 10
        self.on_loop: _Active | None = None  # whose step is being made
        self._started: list[JobId] = []
        self._finished: list[Finished] = []
        self._told = False
        self._closing = False

    # --- life -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to work, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(self._loop)
        self._processes = Processes(self._loop)

    async def close(self) -> None:
        """End everything: coroutines are cancelled, children killed, threads left to themselves."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._queue.clear()
        while self._workers:
            for worker in self._workers:
                worker.cancel()
            await asyncio.wait(self._workers, timeout=RECANCEL_S)
        self._processes.close()
        self._threads.close()

    def renew(self) -> None:
        """Definitions have changed: children start anew with the new code."""
        self._processes.renew()

    # --- work in --------------------------------------------------------------------------------------------------

    def capacity(self) -> int:
        """How many unfinished jobs it wants to hold: its slots, and some more where they take next to no time."""
        slots = self._slots + self._waiting
        if self._mean_run_s < SHORT_RUN_S and not self._waiting:
            return slots * (1 + AHEAD_PER_WORKER)
        return slots

    def submit(self, runs: list[Run]) -> None:
        """Run these, in order, when there is a slot."""
        self._queue.extend(runs)
        self._wake_workers()

    def cancel(self, job: JobId) -> bool:
        """End a run. False: it can't be ended, it runs on (and `Context.cancelled` tells it)."""
        active = self._active.get(job)
        if active is None:
            for run in self._queue:
                if run.job == job:
                    self._queue.remove(run)
                    self._report(run, Verdict.CANCELLED, Outcome(Status.CANCELLED))
                    break
            return True
        active.context.cancelled = True
        if active.handler.mode == "thread":
            return False
        active.cancelled = True
        self._end(active)
        return True

    def _end(self, active: _Active) -> None:
        if active.handler.mode == "async":
            active.worker.cancel()
        elif active.child is not None:
            active.child.kill()

    # --- reports out ----------------------------------------------------------------------------------------------

    def take_started(self) -> list[JobId]:
        """Runs that have begun since last asked."""
        started, self._started = self._started, []
        self._told = False
        return started

    def take_finished(self) -> list[Finished]:
        """Runs that have ended since last asked."""
        finished, self._finished = self._finished, []
        self._told = False
        return finished

    def who(self) -> str | None:
        """The job that is on the loop at this moment."""
        active = self.on_loop
        return None if active is None else f"{active.run.header.task} id={job_text(active.run.job)}"

    def _report(self, run: Run, verdict: Verdict, outcome: Outcome, delay_ms: int = 0) -> None:
        self._finished.append(Finished(run.job, run.attempt, verdict, outcome, delay_ms))
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._wake()

    # --- slots ----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None, None]:
        """While the body runs, the calling job's slot is another's. Elsewhere than in a job: nothing happens."""
        if not self._is_here():
            yield
            return
        self._give_slot()
        try:
            yield
        finally:
            await self._take_slot()

    @contextlib.contextmanager
    def waiting_sync(self) -> Generator[None, None, None]:
        """The same for a job in a thread."""
        if not self._is_here():
            yield
            return
        self._loop.call_soon_threadsafe(self._give_slot)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._take_slot(), self._loop).result()

    def _is_here(self) -> bool:
        context = current_or_none()
        return context is not None and context.node is self._node and not self._closing

    def _give_slot(self) -> None:
        self._waiting += 1
        self._free_slot()
        self._tell()

    async def _take_slot(self) -> None:
        self._waiting -= 1
        self._tell()
        if self._working < self._slots:
            self._working += 1
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._resuming.append(turn)
        try:
            await turn  # whoever frees a slot has counted it as ours
        except asyncio.CancelledError:
            if turn.cancelled():
                self._working += 1
            raise

    def _free_slot(self) -> None:
        self._working -= 1
        while self._resuming:
            turn = self._resuming.popleft()
            if not turn.done():
                self._working += 1
                turn.set_result(None)
                return
        self._wake_workers()

    def _wake_workers(self) -> None:
        """Have as many workers at it as there are slots and jobs."""
        wanted = min(len(self._queue), self._slots - self._working)
        while wanted > 0 and self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                wanted -= 1
        while wanted > 0 and len(self._workers) < self._slots + self._waiting and not self._closing:
            worker = self._loop.create_task(self._work(), name="zhero worker")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
            wanted -= 1

    async def _work(self) -> None:
        """One worker."""
        queue = self._queue
        worker = asyncio.current_task()
        assert worker is not None
        while not self._closing:
            if queue and self._working < self._slots:
                self._working += 1
                try:
                    await self._run(queue.popleft(), worker)
                finally:
                    self._free_slot()
                    while worker.cancelling() and not self._closing:
                        worker.uncancel()
            elif len(self._workers) > self._slots + self._waiting:
                return  # it stood in for a worker whose job waited
            else:
                idle: asyncio.Future[None] = self._loop.create_future()
                self._idle.append(idle)
                try:
                    await idle
                except asyncio.CancelledError:  # a job cancelled its own task and returned
                    if self._closing:
                        raise
                    worker.uncancel()

    # --- one run --------------------------------------------------------------------------------------------------

    async def _run(self, run: Run, worker: asyncio.Task[Any]) -> None:
        handler = self._handlers.get(run.header.task)
        if handler is None:
            failure = Failure("TaskNotFound", f"this node has no task {run.header.task} any more")
            self._report(run, Verdict.DEAD, Outcome(Status.FAILED, b"", failure))
            return
        active = _Active(run, handler, Context(run, self._node), worker)
        self._active[run.job] = active
        self._started.append(run.job)
        self._tell()
        if handler.timeout_ms is not None:
            self._set_deadline(active, handler.timeout_ms / 1000)
        began = time.monotonic()
        try:
            ended = await self._result(active)
        except BaseException as error:
            ended = self._ended_by(active, error)
            if isinstance(error, KeyboardInterrupt) or (self._closing and isinstance(error, asyncio.CancelledError)):
                raise
        finally:
            active.over = True
            del self._active[run.job]
        spent = time.monotonic() - began if handler.mode == "async" else SHORT_RUN_S * 10
        self._mean_run_s += (spent - self._mean_run_s) / 16
        self._conclude(active, ended)

    async def _result(self, active: _Active) -> bytes | Raised:
        """The encoded result; or what the code raised, where that is in another process."""
        run, handler = active.run, active.handler
        if handler.mode == "process":
            assert handler.source is not None
            return await self._processes.run(handler.source, run, lambda child: self._on_child(active, child))
        params = codec.decode(run.params)
        context = contextvars.copy_context()
        context.run(enter, active.context)
        if handler.mode == "async":
            value = await _Steps(self, active, context, context.run(handler.call, params))
        else:
            active.call = self._threads.start(context, handler.call, params)
            value = await active.call.future
        return NOTHING if value is None else codec.encode(value, "result")

    def _on_child(self, active: _Active, child: Child) -> None:
        active.child = child
        if active.cancelled or active.timed_out:
            child.kill()

    def _ended_by(self, active: _Active, error: BaseException) -> Raised:
        if isinstance(error, ParamsInvalid):
            return Raised(Verdict.DEAD, failure_of(error))
        return raised_by(error)

    def _conclude(self, active: _Active, ended: bytes | Raised) -> None:
        """Make the verdict of how a run ended, and report it."""
        run, handler = active.run, active.handler
        if isinstance(ended, bytes):
            if active.timed_out and handler.mode == "async":  # it swallowed the cancellation and returned
                ended = Raised(Verdict.RETRY, Failure("TimeoutError", "swallowed"))
            elif ended == NOTHING:
                self._report(run, Verdict.DONE, SUCCEEDED)
                return
            elif len(ended) > self._result_max_bytes:
                why = f"a result of {len(ended)} bytes, limit {self._result_max_bytes}"
                ended = Raised(Verdict.DEAD, Failure("ParamsInvalid", why))
            else:
                self._report(run, Verdict.DONE, Outcome(Status.SUCCEEDED, ended))
                return
        status, failure, verdict = Status.FAILED, ended.failure, ended.verdict
        if active.timed_out:
            limit_s = (handler.timeout_ms or 0) / 1000
            status, failure, verdict = (
                Status.TIMED_OUT,
                Failure("TimeoutError", f"ran longer than {limit_s:g} s"),
                Verdict.RETRY,
            )
        elif active.cancelled:
            self._report(run, Verdict.CANCELLED, Outcome(Status.CANCELLED))
            return
        elif failure.kind == ChildDied.__qualname__:
            status = Status.CRASHED
        elif failure.kind == Discard.__qualname__ and verdict is Verdict.DEAD:
            status = Status.DISCARDED
        if verdict is Verdict.RETRY and run.tries > handler.retries:
            verdict = Verdict.DEAD
        delay_ms = ended.wait_ms
        if delay_ms is None:
            delay_ms = handler.backoff.wait_ms(run.tries, self._rng)
        self._report(run, verdict, Outcome(status, b"", failure), delay_ms)

    # --- timeouts -------------------------------------------------------------------------------------------------

    def _set_deadline(self, active: _Active, span_s: float) -> None:
        self._deadline_count += 1
        heappush(self._deadlines, (self._loop.time() + span_s, self._deadline_count, active))
        if self._deadlines[0][2] is active:
            self._arm()

    def _arm(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._deadlines and self._deadlines[0][2].over:
            heappop(self._deadlines)
        if self._deadlines:
            self._sweeper = self._loop.call_at(self._deadlines[0][0], self._sweep)

    def _sweep(self) -> None:
        """End what has run too long."""
        self._sweeper = None
        now = self._loop.time()
        while self._deadlines and self._deadlines[0][0] <= now:
            active = heappop(self._deadlines)[2]
            if active.over:
                continue
            active.timed_out = True
            if active.call is not None:
                self._log.warning(
                    "! timed out %s id=%s: the job has failed, but its thread can't be stopped and runs on",
                    active.run.header.task,
                    job_text(active.run.job),
                )
                self._threads.abandon(active.call, _TimedOut())
            else:
                self._end(active)
                self._set_deadline(active, RECANCEL_S)
        self._arm()


class _Steps:
    """A coroutine driven step by step in a context of its own; awaited by a worker."""

    __slots__ = ("_active", "_context", "_coroutine", "_executor")

    def __init__(
        self, executor: Executor, active: _Active, context: contextvars.Context, coroutine: Coroutine[Any, Any, Any]
    ) -> None:
        self._executor = executor
        self._active = active
        self._context = context
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        executor, run, send = self._executor, self._context.run, self._coroutine.send
        error: BaseException | None = None
        value: Any = None
        while True:
            executor.on_loop = self._active
            try:
                awaited = run(send, value) if error is None else run(self._coroutine.throw, error)
            except StopIteration as stop:
                return stop.value
            finally:
                executor.on_loop = None
            error = None
            try:
                value = yield awaited
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as thrown:
                error = thrown
