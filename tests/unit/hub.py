"""A hub that accepts every job, remembers every call, and answers what it was told to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from zhero.core.messages import Accepted, Answer, AwaitResult, Call, Enqueue
from zhero.core.values import JobId


class FakeHub:
    """A node as far as handles see it. `answers`: type of a call -> what it is answered; None: nothing, for ever."""

    def __init__(self) -> None:
        self.payload_max_bytes = 1000
        self.now_ms = 1_000_000.0
        self.calls: list[Call] = []
        self.answers: dict[type, Answer | None] = {}
        self.pending: list[concurrent.futures.Future[Answer]] = []
        self.said: list[tuple[str, str]] = []
        self.waits = 0
        self._ids = itertools.count(1)

    @property
    def enqueued(self) -> list[Enqueue]:
        return [call for call in self.calls if isinstance(call, Enqueue)]

    def log(self, message: str, severity: str = "info") -> None:
        self.said.append((message, severity))

    async def ask(self, call: Call) -> Answer:
        self.calls.append(call)
        answer = self._answer(call)
        if answer is None:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")
        return answer

    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]:
        self.calls.append(call)
        future: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        answer = self._answer(call)
        if answer is None:
            self.pending.append(future)
        else:
            future.set_result(answer)
        return future

    def _answer(self, call: Call) -> Answer | None:
        if type(call) in self.answers:
            return self.answers[type(call)]
        if isinstance(call, Enqueue):
            return Accepted([job for job, _ in call.jobs])
        assert isinstance(call, AwaitResult), call
        return None

    def take_id(self) -> JobId:
        return JobId(next(self._ids))

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        with self.waiting_sync():
            yield

    @contextmanager
    def waiting_sync(self) -> Iterator[None]:
        self.waits += 1
        try:
            yield
        finally:
            self.waits -= 1

    def wall_ms(self) -> float:
        return self.now_ms
