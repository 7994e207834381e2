"""Threads for plain functions.

A call takes an idle thread, or a new one: who may call, and so how many there are, is the executor's slots. Results
come back to the loop in batches, one wake-up each. A thread that its job has timed out of can't be stopped: it is
abandoned, ends after its function does, and what that returns is ignored. Threads are daemons, so that one that never
ends does not keep the process.

State, all of it the loop's: idle threads, threads alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

JOIN_MAX_S = 1.0


class ThreadCall:
    """One call: `future` is its end."""

    __slots__ = ("abandoned", "call", "context", "future", "params")

    def __init__(
        self,
        context: contextvars.Context,
        call: Callable[[dict[str, Any]], Any],
        params: dict[str, Any],
        future: asyncio.Future[Any],
    ) -> None:
        self.context = context
        self.call = call
        self.params = params
        self.future = future
        self.abandoned = False


class Threads:
    """The threads of one executor."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: SimpleQueue[ThreadCall | None] = SimpleQueue()
        self._ended: deque[tuple[ThreadCall, Any, BaseException | None]] = deque()
        self._alive: set[threading.Thread] = set()
        self._idle = 0
        self._made = 0

    def start(
        self, context: contextvars.Context, call: Callable[[dict[str, Any]], Any], params: dict[str, Any]
    ) -> ThreadCall:
        """Have a thread call it; on the loop only."""
        made = ThreadCall(context, call, params, self._loop.create_future())
        if self._idle:
            self._idle -= 1
        else:
            self._made += 1
            thread = threading.Thread(target=self._work, name=f"zhero-job-{self._made}", daemon=True)
            self._alive.add(thread)
            thread.start()
        self._calls.put(made)
        return made

    def abandon(self, call: ThreadCall, error: BaseException) -> None:
        """Wait for it no longer: its future ends with that error now."""
        call.abandoned = True
        if not call.future.done():
            call.future.set_exception(error)

    def close(self) -> None:
        """End the threads. One that is in its function a second later is left to itself."""
        for _ in self._alive:
            self._calls.put(None)
        until = time.monotonic() + JOIN_MAX_S
        for thread in self._alive:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            result: Any = None
            error: BaseException | None = None
            try:
                result = call.context.run(call.call, call.params)
            except BaseException as raised:
                error = raised
            first = not self._ended
            self._ended.append((call, result, error))
            if first:
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is gone, and with it whoever waited
                    return
            if call.abandoned:
                return
            del call, result, error

    def _deliver(self) -> None:
        while self._ended:
            call, result, error = self._ended.popleft()
            if call.abandoned:
                self._alive = {thread for thread in self._alive if thread.is_alive()}
                continue
            self._idle += 1
            if call.future.done():
                continue
            if error is None:
                call.future.set_result(result)
            elif isinstance(error, StopIteration):
                call.future.set_exception(RuntimeError("the task raised StopIteration"))
            else:
                call.future.set_exception(error)
