"""A small pool of daemon threads for jobs that are plain functions.

A pool of our own, because a job that ran out of time has to be left behind: its thread is counted no more, a new one
takes its place, and when the job ends after all one thread is let go. `concurrent.futures` can't do that, and waits at
exit for whatever hangs.

The pool grows to what is needed at once (whoever calls `run` holds a slot of the executor) and ends with `close`.
Results come home in batches: the first thread that has one rings the loop, the others only lay theirs beside it. A hop
costs 20-30 us alone and 1 us in a batch of a hundred.

All counting is done on the loop, so it needs no lock. Invariant: living threads = `_count` + calls that were abandoned
and have not ended + those told to end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from queue import Empty, SimpleQueue

from .handlers import Ending, raised

JOIN_MAX_S = 1.0
"""How long `close` waits for idle threads, which need some microseconds to end."""


class _Call:
    """One call on its way.

    abandoned: nobody waits for it any more; collected: its thread is free again, and the loop knows.
    """

    __slots__ = ("abandoned", "collected", "context", "ending", "future", "work")

    def __init__(self, work: Callable[[], Ending], context: Context, future: asyncio.Future[Ending]) -> None:
        self.work = work
        self.context = context
        self.future = future
        self.ending: Ending | None = None
        self.abandoned = False
        self.collected = False


class Threads:
    """Runs calls in threads, for coroutines of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()  # None: whoever takes it ends
        self._ended: deque[_Call] = deque()
        self._rung = False
        self._threads: set[threading.Thread] = set()
        self._serving: set[threading.Thread] = set()  # those with a call in hand
        self._count = 0
        self._busy = 0
        self._made = 0

    async def run(self, work: Callable[[], Ending], context: Context) -> Ending:
        """Have a thread do the work in that context. Cancelled, it leaves the thread with the work behind."""
        call = _Call(work, context, self._loop.create_future())
        self._busy += 1
        try:
            if self._busy > self._count:
                self._add_thread()
            self._calls.put(call)
            return await call.future
        except asyncio.CancelledError:
            if not call.collected:
                call.abandoned = True
                self._count -= 1
            raise
        finally:
            self._busy -= 1

    def close(self) -> None:
        """Let idle threads end. Those with a call in hand are left behind: they end with it, or with the process."""
        try:
            while True:
                self._calls.get_nowait()
        except Empty:
            pass
        for _ in range(len(self._threads)):
            self._calls.put(None)
        deadline = time.monotonic() + JOIN_MAX_S
        for thread in self._threads - self._serving:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _add_thread(self) -> None:
        self._made += 1
        thread = threading.Thread(target=self._serve, name=f"zhero-thread-{self._made}", daemon=True)
        thread.start()
        self._threads.add(thread)
        self._count += 1

    def _collect(self) -> None:
        self._rung = False  # before the look: what is laid down after it rings again
        while self._ended:
            call = self._ended.popleft()
            call.collected = True
            if call.abandoned:
                self._calls.put(None)
            elif call.ending is not None and not call.future.done():
                call.future.set_result(call.ending)

    # --- in the threads -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        thread = threading.current_thread()
        try:
            while (call := self._calls.get()) is not None:
                self._serving.add(thread)  # before the look, so that `close` waits for no call that goes on
                if not call.abandoned:
                    call.ending = self._do(call)
                self._serving.discard(thread)
                self._ended.append(call)
                del call  # an idle thread keeps nothing alive
                if not self._rung:
                    self._rung = True
                    self._loop.call_soon_threadsafe(self._collect)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            pass
        finally:
            self._threads.discard(thread)

    @staticmethod
    def _do(call: _Call) -> Ending:
        try:
            return call.context.run(call.work)
        except BaseException as error:
            return raised(error)
