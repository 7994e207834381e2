"""arq: results not kept, the queue looked at every 10 ms (0.5 s unless set), 100 jobs at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from arq import create_pool
from arq.connections import RedisSettings
from common import AT_ONCE, LONG, REDIS, SLOTS, TO, WORK_S, mark, mark_end

WORKER = ["-m", "arq", "arq_peer.WorkerSettings"]


async def no_op(ctx: dict, to: str, number: int) -> None:
    mark(number)


async def work(ctx: dict, to: str, number: int) -> None:
    mark(number)
    await asyncio.sleep(WORK_S)
    mark_end(number)


class WorkerSettings:
    functions = [no_op, work]  # noqa: RUF012 - read as arq wants it
    redis_settings = RedisSettings.from_dsn(REDIS)
    max_jobs = SLOTS if LONG else 100
    poll_delay = 0.01
    keep_result = 0
    log_results = False


class Producer:
    """Every call is a round trip; for many jobs, so many of them under way at once."""

    async def open(self) -> None:
        self._pool = await create_pool(RedisSettings.from_dsn(REDIS))

    async def one(self, number: int) -> None:
        await self._pool.enqueue_job("no_op", to=TO, number=number)

    async def many(self, numbers: Iterable[int]) -> None:
        await self._all("no_op", numbers)

    async def later(self, number: int, span_s: float) -> None:
        await self._pool.enqueue_job("no_op", to=TO, number=number, _defer_by=span_s)

    async def work(self, numbers: Iterable[int]) -> None:
        await self._all("work", numbers)

    async def _all(self, name: str, numbers: Iterable[int]) -> None:
        left = iter(numbers)  # shared by all callers

        async def caller() -> None:
            for number in left:
                await self._pool.enqueue_job(name, to=TO, number=number)

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    async def close(self) -> None:
        await self._pool.aclose()
