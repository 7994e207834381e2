"""Calls from other threads: left in a deque, taken on the loop; the bell is rung once per batch.

Each call becomes a task of the loop that waits for its answer. Who gives up (cancels the future) cancels that task.

Bound: one call per caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from typing import Any

from ..core.messages import Answer, Call
from ..errors import NotRunning


class Mailbox:
    """Takes calls from any thread, between `open` and `close`.

    Args:
        ask: puts a call to the engine, on the loop.
        not_running: makes the error of who comes too early or too late.
    """

    def __init__(
        self, ask: Callable[[Call], Coroutine[Any, Any, Answer]], not_running: Callable[[], NotRunning]
    ) -> None:
        self._ask = ask
        self._not_running = not_running
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[tuple[Call, Future[Answer]]] = deque()
        self._rung = False
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to take calls, on the running loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Who still waits is told that the node does not run; on the loop."""
        self._loop = None
        self._take()
        for task in self._tasks:
            task.cancel()

    def put(self, call: Call) -> Future[Answer]:
        """From any thread; the future has the answer, and cancelling it is giving up."""
        future: Future[Answer] = Future()
        loop = self._loop
        if loop is None:
            future.set_exception(self._not_running())
            return future
        self._calls.append((call, future))
        if not self._rung:
            self._rung = True
            try:
                loop.call_soon_threadsafe(self._take)
            except RuntimeError:  # the loop was closed between our look and now
                self._loop = None
                self._take()
        return future

    def _take(self) -> None:
        self._rung = False
        while self._calls:
            call, future = self._calls.popleft()
            if self._loop is not None:
                task = self._loop.create_task(self._answer(call, future))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                future.add_done_callback(functools.partial(self._on_gave_up, self._loop, task))
            else:
                with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
                    future.set_exception(self._not_running())

    async def _answer(self, call: Call, future: Future[Answer]) -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            try:
                answer = await self._ask(call)
            except asyncio.CancelledError:
                future.set_exception(self._not_running())
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(answer)

    def _on_gave_up(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], future: Future[Answer]) -> None:
        if future.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(task.cancel)
