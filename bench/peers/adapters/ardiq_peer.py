"""ardiq: its loop and its calls to Redis are in Rust; acknowledged after the run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ardiq import Ardiq
from common import LONG, REDIS, SLOTS, TO, WORK_S, mark, mark_end

app = Ardiq(redis_url=REDIS, queue_name="bench", concurrency=SLOTS if LONG else 100)
WORKER = ["-m", "ardiq", "run", "ardiq_peer:app", "--quiet"]


@app.task()
async def no_op(to: str, number: int) -> None:
    mark(number)


@app.task()
async def work(to: str, number: int) -> None:
    mark(number)
    await asyncio.sleep(WORK_S)
    mark_end(number)


class Producer:
    """`enqueue_many`, 500 jobs a time."""

    async def open(self) -> None:
        pass  # it connects by itself

    async def one(self, number: int) -> None:
        await no_op.enqueue(to=TO, number=number)

    async def many(self, numbers: Iterable[int]) -> None:
        await self._all(no_op, numbers)

    async def later(self, number: int, span_s: float) -> None:
        await no_op.options(delay_ms=round(span_s * 1000)).enqueue(to=TO, number=number)

    async def work(self, numbers: Iterable[int]) -> None:
        await self._all(work, numbers)

    async def _all(self, task: object, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        for start in range(0, len(numbers), 500):
            await app.enqueue_many([task.prepare(to=TO, number=number) for number in numbers[start : start + 500]])

    async def close(self) -> None:
        pass
