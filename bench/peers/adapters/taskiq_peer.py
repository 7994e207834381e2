"""Taskiq: Redis streams, acknowledged after the run, one process; a scheduler of its own for what is due later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from common import AT_ONCE, LONG, REDIS, SLOTS, TO, WORK_S, mark, mark_end
from taskiq import TaskiqScheduler
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

broker = RedisStreamBroker(url=REDIS, consumer_id="0")
source = ListRedisScheduleSource(url=REDIS)
scheduler = TaskiqScheduler(broker, [source])
WORKER = [
    *("-m", "taskiq", "worker", "taskiq_peer:broker", "--workers", "1", "--log-level", "ERROR", "--no-parse"),
    *("--max-async-tasks", str(SLOTS if LONG else 100), "--max-prefetch", "0" if LONG else "100"),
    *("--ack-type", "when_executed"),
]
BESIDE = ["-m", "taskiq", "scheduler", "taskiq_peer:scheduler", "--log-level", "ERROR", "--update-interval", "1"]
"""A process that stands beside the worker."""


@broker.task
async def no_op(to: str, number: int) -> None:
    mark(number)


@broker.task
async def work(to: str, number: int) -> None:
    mark(number)
    await asyncio.sleep(WORK_S)
    mark_end(number)


class Producer:
    """Every call is a round trip; for many jobs, so many of them under way at once."""

    async def open(self) -> None:
        await broker.startup()
        await source.startup()

    async def one(self, number: int) -> None:
        await no_op.kiq(to=TO, number=number)

    async def many(self, numbers: Iterable[int]) -> None:
        await self._all(no_op, numbers)

    async def later(self, number: int, span_s: float) -> None:
        due = datetime.now(UTC) + timedelta(seconds=span_s)
        await no_op.schedule_by_time(source, due, to=TO, number=number)

    async def work(self, numbers: Iterable[int]) -> None:
        await self._all(work, numbers)

    async def _all(self, task: object, numbers: Iterable[int]) -> None:
        left = iter(numbers)  # shared by all callers

        async def caller() -> None:
            for number in left:
                await task.kiq(to=TO, number=number)

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    async def close(self) -> None:
        await source.shutdown()
        await broker.shutdown()
