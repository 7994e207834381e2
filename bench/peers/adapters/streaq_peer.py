"""streaQ: Redis streams, results not kept, silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from common import LONG, REDIS, SLOTS, TO, WORK_S, mark, mark_end
from streaq import Worker

worker = Worker(redis_url=REDIS, concurrency=SLOTS if LONG else 64)
WORKER = ["-m", "streaq", "run", "streaq_peer:worker"]


@worker.task(silent=True, ttl=0)
async def no_op(to: str, number: int) -> None:
    mark(number)


@worker.task(silent=True, ttl=0)
async def work(to: str, number: int) -> None:
    mark(number)
    await asyncio.sleep(WORK_S)
    mark_end(number)


class Producer:
    """`enqueue_many`, 500 jobs a time."""

    async def open(self) -> None:
        self._entered = worker.__aenter__()
        await self._entered

    async def one(self, number: int) -> None:
        await no_op.enqueue(to=TO, number=number)

    async def many(self, numbers: Iterable[int]) -> None:
        await self._all(no_op, numbers)

    async def later(self, number: int, span_s: float) -> None:
        await no_op.enqueue(to=TO, number=number).start(delay=timedelta(seconds=span_s))

    async def work(self, numbers: Iterable[int]) -> None:
        await self._all(work, numbers)

    async def _all(self, task: object, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        for start in range(0, len(numbers), 500):
            await worker.enqueue_many([task.enqueue(to=TO, number=number) for number in numbers[start : start + 500]])

    async def close(self) -> None:
        await worker.__aexit__(None, None, None)
