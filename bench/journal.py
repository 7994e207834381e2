"""What does it cost to keep jobs in a journal, next to keeping them in memory only?

Three nodes in one process, alike but for `durability`. Rows `enqueue_many`: batches of 1,000 are enqueued while jobs
that hold every slot keep them from running. `enqueue_many and run`: until all have run. `accept`: one job at a time is
enqueued, until it is accepted: for "power" that is one sync each. The baseline is always the node that keeps nothing.
Row `load`: how long a node that was killed takes to start with so many delayed jobs in its journal, next to reading the
file.

    python -m bench.journal [--quick] [--json] [--jobs n] [--repeats n] [--seconds s]
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import zhero

from . import jobs
from .jobs import TO, Marks
from .local import WORKERS, Gate, enqueued
from .measure import Plan, Report, chosen, column, parser, percentile, rounds, run

PLAN = Plan(jobs=20_000, repeats=9, seconds=20)
QUICK = Plan(jobs=3_000, repeats=5, seconds=3)
LEVELS = ("process", "power")
ACCEPTS_SHARE = 20
"""One in so many of the jobs of a round is enqueued by itself."""


class Level:
    """A node at one level."""

    def __init__(self, level: str, folder: Path, report: Report) -> None:
        self.name = level
        self._report = report
        self.gate = Gate()
        self.node = zhero.Node(
            [jobs.on_loop, self.gate.task],
            cluster=f"bench-{level}",
            runtime_dir=folder,
            data_dir=None if level == "memory" else folder / level,
            durability=None if level == "memory" else level,
            workers=WORKERS,
        )

    async def enqueue_then_run(self, count: int) -> list[float]:
        """Us a job: to enqueue them all, with nothing running."""
        await self.gate.close(self.node)
        try:
            began = time.perf_counter()
            last = await enqueued(self.node, jobs.on_loop, _params(count))
            taken = time.perf_counter() - began
        finally:
            self.gate.open()
        await self._all_run(count, last)
        return [taken / count * 1e6]

    async def enqueue_and_run(self, count: int) -> list[float]:
        """Us a job, until all have run."""
        began = time.perf_counter()
        await self._all_run(count, await enqueued(self.node, jobs.on_loop, _params(count)))
        return [(time.perf_counter() - began) / count * 1e6]

    async def accepts(self, count: int) -> list[float]:
        """Us from the call to its return, one at a time: median and 99th percentile."""
        taken: list[float] = []
        last: zhero.Job[object] | None = None
        for params in _params(count):
            began = time.perf_counter()
            last = await self.node.enqueue(jobs.on_loop, params)
            taken.append(time.perf_counter() - began)
        assert last is not None
        await self._all_run(count, last)
        return [percentile(taken, share) * 1e6 for share in (0.5, 0.99)]

    async def _all_run(self, count: int, last: zhero.Job[object]) -> None:
        marks = Marks(self._report, self.name)
        await jobs.within_patience(last.result(), self.name)
        await marks.reach(count)
        marks.take(count)


def _params(count: int) -> list[dict[str, object]]:
    return [{"to": TO, "number": number} for number in range(count)]


async def _loads(folder: Path, left: Path, count: int, report: Report) -> list[float]:
    """Ms to start with what a killed node has left."""
    place = folder / "loaded"
    shutil.copytree(left, place)
    (place / "place").unlink()
    try:
        began = time.perf_counter()
        async with zhero.Node([jobs.on_loop], cluster="bench-load", runtime_dir=folder, data_dir=place) as node:
            taken = time.perf_counter() - began
            report.count("loaded", count, await node.queue_length("delayed"))
    finally:
        shutil.rmtree(place)
    return [taken * 1e3]


async def _reads(left: Path) -> list[float]:
    began = time.perf_counter()
    for file in left.glob("journal.sqlite*"):
        file.read_bytes()
    return [(time.perf_counter() - began) * 1e3]


async def _leave(folder: Path, count: int) -> Path:
    """A data directory as a killed node leaves it: copied while the node runs."""
    left = folder / "left"
    data = folder / "delayed"
    async with zhero.Node([jobs.on_loop], cluster="bench-load", runtime_dir=folder, data_dir=data):
        for first in range(0, count, 1_000):
            numbers = range(first, min(count, first + 1_000))
            later = jobs.on_loop.options(run_in=86_400)
            await asyncio.gather(*(later.enqueue(to=TO, number=number) for number in numbers))
        shutil.copytree(data, left)
    return left


async def measure_all(plan: Plan, folder: Path, report: Report) -> None:
    """Each level beside memory, then what a start costs."""
    async with AsyncExitStack() as stack:
        memory = Level("memory", folder, report)
        await stack.enter_async_context(memory.node)
        for name in LEVELS:
            level = Level(name, folder, report)
            await stack.enter_async_context(level.node)
            accepts = max(1, plan.jobs // ACCEPTS_SHARE)
            for what, units, subject, baseline in (
                ("enqueue_many", [""], level.enqueue_then_run, memory.enqueue_then_run),
                ("enqueue_many and run", [""], level.enqueue_and_run, memory.enqueue_and_run),
                ("accept", [", p50", ", p99"], level.accepts, memory.accepts),
            ):
                columns = [column(f"{name}: {what}{unit}", "memory", "us/job") for unit in units]
                report.measures += columns
                count = accepts if what == "accept" else plan.jobs
                await rounds(plan, columns, partial(subject, count), partial(baseline, count))
    left = await _leave(folder, plan.jobs)
    load = column(f"load {plan.jobs:,} delayed jobs", "read the file", "ms")
    report.measures.append(load)
    await rounds(plan, [load], partial(_loads, folder, left, plan.jobs, report), partial(_reads, left))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    args = parser(__doc__, PLAN, QUICK).parse_args(argv)
    plan = chosen(args)
    report = Report("jobs in a journal, next to jobs in memory", asdict(plan))
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        return run(measure_all(plan, Path(folder), report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
