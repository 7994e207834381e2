"""SAQ: nothing kept of a finished job, up to three attempts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from common import AT_ONCE, LONG, REDIS, SLOTS, TO, WORK_S, mark, mark_end
from saq import Queue

WORKER = ["-m", "saq", "saq_peer.settings", "--quiet"]
ALWAYS = {"ttl": -1, "retries": 3}

queue = Queue.from_url(REDIS)


async def no_op(ctx: dict, *, to: str, number: int) -> None:
    mark(number)


async def work(ctx: dict, *, to: str, number: int) -> None:
    mark(number)
    await asyncio.sleep(WORK_S)
    mark_end(number)


settings = {"queue": queue, "functions": [no_op, work], "concurrency": SLOTS if LONG else 20}


class Producer:
    """Every call is a round trip; for many jobs, so many of them under way at once."""

    async def open(self) -> None:
        await queue.connect()

    async def one(self, number: int) -> None:
        await queue.enqueue("no_op", to=TO, number=number, **ALWAYS)

    async def many(self, numbers: Iterable[int]) -> None:
        await self._all("no_op", numbers)

    async def later(self, number: int, span_s: float) -> None:
        await queue.enqueue("no_op", to=TO, number=number, scheduled=time.time() + span_s, **ALWAYS)

    async def work(self, numbers: Iterable[int]) -> None:
        await self._all("work", numbers)

    async def _all(self, name: str, numbers: Iterable[int]) -> None:
        left = iter(numbers)  # shared by all callers

        async def caller() -> None:
            for number in left:
                await queue.enqueue(name, to=TO, number=number, **ALWAYS)

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))

    async def close(self) -> None:
        await queue.disconnect()
