"""Runs jobs: on the loop, in threads, in child processes; never more at once than it has slots.

A **worker** is a coroutine that holds a slot and runs one job after the other from a deque: a Task, Queue or timeout
per job would cost more than all the rest. Workers are made when there is work and none is parked (`slots`).

**Ending a run** before its time is always `Task.cancel` of its worker; what that means follows from where it waits: the
handler is cancelled, the child killed, the thread left behind. `Running.stop` says why. A worker whose Task has been
cancelled by anybody (a handler may cancel its own) ends with that job, and a new one takes its slot: in Python 3.11 a
request to cancel that was not delivered can't be taken back, and would hit the next job. What was told to stop and goes
on is cancelled again every second. **Timeouts** are one timer for the earliest deadline and a look over all that runs,
which is little: a heap would keep entries of jobs long ended.

**Context.** Every job runs in a fresh copy of the context in which the executor was opened: what it sets ends with it.
The worker drives the coroutine by hand through `Context.run`, within its own Task: so everything that asyncio offers
works in a handler, and the executor knows at each moment which job is on the loop.

**Reports** pile up in `started` and `finished`; the first one since they were taken calls `wake`. Every run submitted
is reported finished once, except those that `close` ends.

While jobs are short (`SHORT_S`), more of them than can run are asked for (`capacity`), so that a burst does not need a
turn of the driver per job; a worker then lets the loop turn every `BURST_S`.

Cost: 2.0 us for a job that does nothing, 2.5 us with two params (in a quiet phase of the reference machine).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import random
import threading
import time
import types
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from ..config import MIB
from ..core.values import SUCCEEDED, Failure, Finished, JobId, Outcome, Run, Status, Verdict, job_text
from .handlers import RUNNING, Ending, Handler, Raised, attempted, decoded, raised, returned
from .processes import Processes
from .slots import Holder, Slots
from .threads import Threads

SHORT_S = 0.001
"""Mean run time below which jobs are short."""
WINDOW_PER_WORKER = 32
"""How many more jobs per slot are asked for while jobs are short."""
BURST_S = 0.001
"""How long a worker runs jobs that never suspend before it lets the loop turn."""
CANCEL_AGAIN_S = 1.0
"""After that a run that was told to stop and goes on is told again."""
CLOSE_CANCELS_MAX = 3
"""How often `close` cancels a handler, `CANCEL_AGAIN_S` apart, before it ends it by force."""

_MEAN_WEIGHT = 1 / 8
_UNKNOWN_S = 10 * SHORT_S
"""What a job is thought to take before one has run."""

_CANCELLED = Outcome(Status.CANCELLED)


class _Active(Holder):
    """A run, from its start to its report.

    deadline: when it is to be told to stop, or told again; on the clock of `time.monotonic`.
    """

    __slots__ = ("deadline", "handler", "started", "worker")

    def __init__(self, run: Run, node: Any, handler: Handler, worker: asyncio.Task[None], started: float) -> None:
        # Not super().__init__: the call would be a tenth of what a job that does nothing costs.
        self.run = run
        self.node = node
        self.stop = None
        self.slot = True
        self.waits = 0
        self.ended = False
        self.handler = handler
        self.worker = worker
        self.started = started
        self.deadline: float | None = None


class Executor:
    """Runs jobs on one loop. All methods but `waiting_sync` are for that loop alone.

    Args:
        workers: how many jobs run at once.
        handlers: task name -> how to run it; looked up at each start.
        wake: called once when there is something to take, until it is taken.
        node: what jobs see as `zhero.current().node`.
        rng: for the jitter of retries.
        result_max_bytes: a run that returns more has failed.
    """

    def __init__(
        self,
        workers: int,
        handlers: Mapping[str, Handler],
        wake: Callable[[], None],
        *,
        node: Any,
        rng: random.Random,
        logger: logging.Logger,
        result_max_bytes: int = MIB,
    ) -> None:
        self.started: list[JobId] = []
        self.finished: list[Finished] = []
        self.on_loop: Run | None = None  # the job whose code the loop runs right now; read by other threads
        self._workers = workers
        self._handlers = handlers
        self._wake = wake
        self._node = node
        self._rng = rng
        self._log = logger
        self._result_max_bytes = result_max_bytes
        self._queue: deque[Run] = deque()
        self._active: dict[JobId, _Active] = {}
        self._off_loop_count = 0  # of those, in threads and processes
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = False
        self._mean_s = _UNKNOWN_S
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._coming: set[concurrent.futures.Future[None]] = set()  # threads whose jobs have waited, and come back
        self._returns: set[asyncio.Task[None]] = set()  # and for those, on the loop
        self._closing = False
        self._closed = False
        self._by_force = False

    def open(self) -> None:
        """Begin to work, on the running loop and with the caller's context variables."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._context = copy_context()
        self._slots = Slots(self._loop, self._workers, self._queue, self._hire, self._wake)
        self._threads = Threads(self._loop)
        self._processes = Processes(self._loop, self._result_max_bytes)

    async def close(self) -> None:
        """End everything: handlers are cancelled, children killed, busy threads left behind. Nobody is told of it."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._slots.close()
        for cancels in range(CLOSE_CANCELS_MAX + 1):
            if not self._tasks:
                break
            if cancels == CLOSE_CANCELS_MAX:
                self._log.warning("%s will not stop and is ended by force", self._names())
                self._by_force = True
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CANCEL_AGAIN_S)
        for task in self._returns:
            task.cancel()
        if self._returns:
            await asyncio.wait(self._returns)
        self._threads.close()
        await self._processes.close()
        self._closed = True
        for coming in list(self._coming):
            _let_go(coming)

    def submit(self, runs: list[Run]) -> None:
        """Run these, in order, as slots become free."""
        self._queue.extend(runs)
        for _ in range(min(self._slots.free, len(runs))):
            self._slots.employ()

    def cancel(self, job: JobId) -> bool:
        """End a run, or do not begin it; its end is reported as always.

        Returns:
            False: it runs in a thread, which can only be asked to stop; what it then does is its verdict.
        """
        active = self._active.get(job)
        if active is None:
            for place, run in enumerate(self._queue):
                if run.job == job:
                    del self._queue[place]
                    self.finished.append(Finished(job, run.attempt, Verdict.CANCELLED, _CANCELLED))
                    self._tell()
                    break
            return True
        in_thread = active.handler.mode == "thread"
        if active.stop is None:
            active.stop = Status.CANCELLED
            if not in_thread:
                self._arm(self._interrupt(active))
        return not in_thread

    def renew_children(self) -> None:
        """Code was reloaded: processes that hold the old one end, busy ones after their job."""
        self._processes.renew()

    def take_started(self) -> list[JobId]:
        taken, self.started = self.started, []
        self._told = False
        return taken

    def take_finished(self) -> list[Finished]:
        taken, self.finished = self.finished, []
        self._told = False
        return taken

    def capacity(self) -> int:
        """How many unfinished jobs it wants to hold."""
        return self._workers + self._slots.waiting_count + self.ahead()

    def ahead(self) -> int:
        """How many of them it wants only because jobs are short."""
        if self._mean_s < SHORT_S and not self._off_loop_count:
            oldest = next(iter(self._active.values()), None)
            if oldest is None or time.monotonic() - oldest.started < SHORT_S:
                return WINDOW_PER_WORKER * self._workers
        return 0

    def who(self) -> str | None:
        """The job whose code the loop runs right now, for people. Safe from any thread."""
        run = self.on_loop
        return None if run is None else _name(run)

    # --- a worker -------------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        # Not `create_task`: a loop's factory may run it at once, in the middle of whatever made the slot free.
        task = asyncio.Task(self._work(), loop=self._loop, name="zhero-worker", context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._worker_ended)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # a bug of ours; others have gone through the loop already
            self._loop.call_exception_handler({"message": "a worker failed", "exception": error, "task": task})

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        queue, slots, monotonic = self._queue, self._slots, time.monotonic
        slot = True
        try:
            now = turned = monotonic()
            while True:
                if slots.returning or not queue:
                    slot = False
                    slots.release()
                    if len(slots.parked) >= self._workers:
                        return
                    await slots.park()
                    slot = True
                    now = turned = monotonic()
                    continue
                run = queue.popleft()
                handler = self._handlers.get(run.header.task)
                if handler is None:
                    self._refuse(run)
                    continue
                active = self._begin(run, handler, worker, now)
                try:
                    if handler.mode == "async":
                        ending = await self._run_here(active)
                    else:
                        ending = await self._run_elsewhere(active)
                except GeneratorExit:  # this coroutine is being torn down with its loop
                    raise
                except KeyboardInterrupt as error:  # the loop's, as ever; but the job has ended
                    self._report(active, raised(error))
                    raise
                except BaseException as error:
                    if self._closing:
                        raise
                    ending = raised(error)
                finally:
                    self._active.pop(run.job, None)
                    slot = slots.end(active)
                now = monotonic()
                self._mean_s += (now - active.started - self._mean_s) * _MEAN_WEIGHT
                self._report(active, ending)
                if not slot or worker.cancelling():
                    return
                if now - turned > BURST_S:
                    await _one_turn()
                    now = turned = monotonic()
        finally:
            if slot:
                slots.release()

    def _begin(self, run: Run, handler: Handler, worker: asyncio.Task[None], now: float) -> _Active:
        active = self._active[run.job] = _Active(run, self._node, handler, worker, now)
        self.started.append(run.job)
        if not self._told:
            self._tell()
        if handler.timeout_ms is not None:
            active.deadline = now + handler.timeout_ms / 1000
            self._arm(active.deadline)
        return active

    async def _run_here(self, active: _Active) -> Ending:
        """Run a coroutine on the loop."""
        values = decoded(active.run.params)
        if isinstance(values, Raised):
            return values
        context = self._context.copy()
        context.run(RUNNING.set, active)
        self.on_loop = active.run
        try:
            made = context.run(active.handler.call, values)
        finally:
            self.on_loop = None
        if type(made) is not types.CoroutineType:
            made = _awaited(made)
        value = await self._drive(made, context, active.run)  # pyright: ignore[reportUnknownArgumentType]  # it is Any
        return SUCCEEDED if value is None else returned(value, self._result_max_bytes)

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, Any], context: Context, run: Run) -> Generator[Any, Any, Any]:
        """`await coroutine`, each step of it in that context, and known to be on the loop meanwhile."""
        step: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        while True:
            self.on_loop = run
            try:
                asked = context.run(step, argument)
            except StopIteration as stop:
                return stop.value
            except GeneratorExit as error:
                raise RuntimeError("the task raised GeneratorExit") from error
            finally:
                self.on_loop = argument = None
            try:
                argument = yield asked
                step = coroutine.send
            except BaseException as error:
                if self._by_force or isinstance(error, GeneratorExit):
                    context.run(coroutine.close)
                    raise
                step, argument = coroutine.throw, error

    async def _run_elsewhere(self, active: _Active) -> Ending:
        """Run a function in a thread or in a child process."""
        run, handler = active.run, active.handler
        self._off_loop_count += 1
        try:
            if handler.mode == "thread":
                context = self._context.copy()
                context.run(RUNNING.set, active)
                work = partial(attempted, handler.call, run.params, self._result_max_bytes)
                return await self._threads.run(work, context)
            if handler.source is None:
                return Raised(Failure("TaskInvalid", f"task {handler.name} has no module to find it by"), "dead")
            return await self._processes.run(run, handler.source)
        finally:
            self._off_loop_count -= 1

    # --- reports --------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._wake()

    def _refuse(self, run: Run) -> None:
        """The task was removed while its job waited here."""
        why = Failure("TaskNotFound", f"this node has no task {run.header.task} any more")
        self.finished.append(Finished(run.job, run.attempt, Verdict.DEAD, Outcome(Status.FAILED, failure=why)))
        self._tell()

    def _report(self, active: _Active, ending: Ending) -> None:
        run, stop = active.run, active.stop
        if ending is SUCCEEDED and stop is None:
            self.finished.append(Finished(run.job, run.attempt, Verdict.DONE, SUCCEEDED))
        else:
            if stop is Status.TIMED_OUT and active.handler.mode == "thread" and isinstance(ending, Raised):
                self._log.warning("%s timed out: its thread runs on", _name(run))
            self.finished.append(active.handler.verdict(run, ending, stop, self._rng))
        if not self._told:
            self._tell()

    # --- deadlines ------------------------------------------------------------------------------------------------

    def _arm(self, at: float) -> None:
        """Look at what runs at that time, or earlier."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._look)

    def _look(self) -> None:
        """Stop what has run too long."""
        self._timer = None
        now = time.monotonic()
        earliest = math.inf
        for active in self._active.values():
            deadline = active.deadline
            if deadline is not None and deadline <= now:
                active.stop = active.stop or Status.TIMED_OUT
                deadline = self._interrupt(active)
            if deadline is not None:
                earliest = min(earliest, deadline)
        if earliest < math.inf:
            self._arm(earliest)

    def _interrupt(self, active: _Active) -> float:
        """Cancel the worker of a run; its `stop` says why. Returns when to do so again if it goes on."""
        active.worker.cancel()
        active.deadline = time.monotonic() + CANCEL_AGAIN_S
        return active.deadline

    def _names(self) -> str:
        return ", ".join(_name(active.run) for active in self._active.values())

    # --- waiting for other jobs -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None]:
        """While the body runs, the slot of the job that this code is in is another's; outside of a job: nothing.

        Where several parts of a job wait at once, its slot is gone until the last of them is through.
        """
        active = self._mine()
        if active is None:
            yield
            return
        self._slots.give_back(active)
        try:
            yield
        finally:
            await self._slots.take_back(active)

    @contextmanager
    def waiting_sync(self) -> Generator[None]:
        """The same for a job in a thread, called there.

        Raises:
            RuntimeError: on the loop's own thread, where waiting would stop what is waited for.
        """
        if threading.get_ident() == self._thread_id:
            raise RuntimeError("waiting here would block the event loop: await instead")
        active = self._mine()
        if active is None:
            yield
            return
        self._loop.call_soon_threadsafe(self._slots.give_back, active)
        try:
            yield
        finally:
            self._come_back(active)

    def _come_back(self, active: Holder) -> None:
        """In a thread: wait for a slot again. A job that was left behind goes on without."""
        coming: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._coming.add(coming)  # before the look, so that `close` sees it or is seen
        try:
            if not self._closed:
                self._loop.call_soon_threadsafe(self._take_back, active, coming)
                coming.result()
        except RuntimeError:  # the loop is closed
            pass
        finally:
            self._coming.discard(coming)

    def _take_back(self, active: Holder, coming: concurrent.futures.Future[None]) -> None:
        if self._closing:
            _let_go(coming)
            return
        task = self._loop.create_task(self._slots.take_back(active), name="zhero-return")
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)
        task.add_done_callback(lambda _: _let_go(coming))

    def _mine(self) -> Holder | None:
        """The run that this code is in, if it is one of this executor's and is not over."""
        running = RUNNING.get(None)
        return running if isinstance(running, Holder) and self._active.get(running.run.job) is running else None


def _name(run: Run) -> str:
    return f"job {job_text(run.job)} ({run.header.task})"


def _let_go(coming: concurrent.futures.Future[None]) -> None:
    if not coming.done():
        coming.set_result(None)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@types.coroutine
def _one_turn() -> Generator[None, None, None]:
    yield
