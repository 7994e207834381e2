"""zhero: a producer that runs nothing and workers, each holding copies for the others; or one process alone."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable

from common import LONG, SLOTS, TO, WORK_S, mark, mark_end

import zhero

ALONE = os.environ.get("BENCH_ALONE") == "1"
FOLDER = os.environ.get("BENCH_FOLDER")
WORKER = ["zhero_peer.py"]
BATCH = 1_000


@zhero.task
async def no_op(to: str, number: int) -> None:
    mark(number)


@zhero.task
async def work(to: str, number: int) -> None:
    mark(number)
    await asyncio.sleep(WORK_S)
    mark_end(number)


def node(workers: int) -> zhero.Node:
    return zhero.Node([no_op, work], workers=workers, backups=1, cluster="bench", runtime_dir=FOLDER)


class Producer:
    """`enqueue_many`, 1,000 jobs a time."""

    async def open(self) -> None:
        self._node = node(SLOTS if ALONE else 0)
        await self._node.__aenter__()

    async def one(self, number: int) -> None:
        await no_op.enqueue(to=TO, number=number)

    async def many(self, numbers: Iterable[int]) -> None:
        await self._all(no_op, numbers)

    async def later(self, number: int, span_s: float) -> None:
        await no_op.options(run_in=span_s).enqueue(to=TO, number=number)

    async def work(self, numbers: Iterable[int]) -> None:
        await self._all(work, numbers)

    async def _all(self, task: zhero.Task, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        for start in range(0, len(numbers), BATCH):
            batch = [{"to": TO, "number": number} for number in numbers[start : start + BATCH]]
            await self._node.enqueue_many(task, batch)

    async def meet(self, count: int) -> None:
        while sum(member.standing == "alive" for member in self._node.members()) < count:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        pass  # the jobs are done, and nobody is left to hand anything to


async def run() -> None:
    async with node(SLOTS if LONG else 8):
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(run()))
