"""What does a job cost on one node, next to calling its function in a bare loop?

Rows `enqueue`: the queue is filled while jobs that hold every slot keep it from running, so that nothing but enqueueing
is in the figure. `run a full queue`: those are let go, until the result of the last job is there. `enqueue_many and
run`: both at once, as in an application. `round trip`: one job at a time is enqueued and its result awaited, with
nothing else to do.

The baseline is a bare loop that awaits the same coroutine function; for the round trip also a task made for it; for
functions in threads and processes `loop.run_in_executor` with a pool of as many workers, given all calls at once.

    python -m bench.local [--quick] [--json] [--jobs n] [--repeats n] [--seconds s] [--cpu]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import zhero

from . import jobs
from .jobs import TO, Marks
from .measure import Measure, Plan, Report, chosen, column, parser, percentile, rounds, run

PLAN = Plan(jobs=50_000, repeats=9, seconds=15)
QUICK = Plan(jobs=4_000, repeats=5, seconds=2)
WORKERS = 8
"""Slots of the node, and threads of the pool beside it."""
PROCESSES = os.cpu_count() or 1
IN_FLIGHT = 100
"""Callers that enqueue at the same time."""
BATCH = 1_000
"""Jobs in one `enqueue_many`."""
BARE_PASSES = 20
"""So often the bare loop goes over the jobs of a round: one pass is so short that a busy machine may not touch it."""
ROUND_TRIPS_SHARE = 10
THREADS_SHARE = 10
PROCESSES_SHARE = 25
"""One in so many of the jobs of a round, as each of these takes so much longer."""

LOOP = "bare loop"
Fill = Callable[[int], Awaitable["zhero.Job[Any]"]]
"""Enqueues so many jobs and returns the last."""


class Gate:
    """A task whose jobs hold every slot of a node until they are let go."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._holding = 0
        self.task = zhero.task(name="hold")(self._hold)

    async def _hold(self) -> None:
        self._holding += 1
        await self._opened.wait()
        self._holding -= 1

    async def close(self, node: zhero.Node) -> None:
        """Nothing else runs on the node until `open`."""
        self._opened.clear()
        for _ in range(WORKERS):
            await node.enqueue(self.task)
        await jobs.within_patience(self._all_hold(), "jobs that hold the slots")

    async def _all_hold(self) -> None:
        while self._holding < WORKERS:
            await asyncio.sleep(0)

    def open(self) -> None:
        self._opened.set()


class OnLoop:
    """Coroutine jobs on a node, and bare ones beside it."""

    def __init__(self, node: zhero.Node, gate: Gate, report: Report, plan: Plan, cpu: bool) -> None:
        self._node = node
        self._gate = gate
        self._report = report
        self._plan = plan
        self._clock = time.process_time if cpu else time.perf_counter
        self._unit = "us of cpu/job" if cpu else "us/job"

    async def measure(self) -> None:
        """All of it, in the order of the table."""
        await self._filled("enqueue, one by one", self._one_by_one)
        await self._filled(f"enqueue, {IN_FLIGHT} in flight", self._concurrently)
        await self._filled(f"enqueue_many, by {BATCH:,}", self._many, "run a full queue")
        count = self._plan.jobs
        both = self._column("enqueue_many and run", LOOP, self._unit)
        await rounds(self._plan, [both], partial(self._fill_and_run, count), partial(self._bare, count, 1))
        count = max(1, count // ROUND_TRIPS_SHARE)
        # By the wall clock, always: that is what a caller waits for.
        for against, bare in (("bare await", self._bare_awaits), ("bare task", self._bare_tasks)):
            columns = [self._column(f"round trip, {name}", against, "us/job") for name in ("p50", "p99")]
            await rounds(self._plan, columns, partial(self._round_trips, count), partial(bare, count))

    def _column(self, name: str, against: str, unit: str) -> Measure:
        made = column(name, against, unit)
        self._report.measures.append(made)
        return made

    async def _filled(self, name: str, fill: Fill, name_of_drain: str | None = None) -> None:
        columns = [self._column(name, LOOP, self._unit)]
        if name_of_drain is not None:
            columns.append(self._column(name_of_drain, LOOP, self._unit))
        count, wanted = self._plan.jobs, len(columns)

        async def subject() -> Sequence[float]:
            return (await self._fill_then_run(count, name, fill))[:wanted]

        await rounds(self._plan, columns, subject, partial(self._bare, count, wanted))

    # --- on the node ----------------------------------------------------------------------------------------------

    async def _fill_then_run(self, count: int, name: str, fill: Fill) -> list[float]:
        await self._gate.close(self._node)
        try:
            began = self._clock()
            last = await fill(count)
            filled = self._clock()
        finally:
            self._gate.open()
        await self._all_run(name, count, last)
        return [_us_each(filled - began, count), _us_each(self._clock() - filled, count)]

    async def _fill_and_run(self, count: int) -> list[float]:
        began = self._clock()
        last = await self._many(count)
        await self._all_run("enqueue_many and run", count, last)
        return [_us_each(self._clock() - began, count)]

    async def _all_run(self, name: str, count: int, last: zhero.Job[Any]) -> None:
        marks = Marks(self._report, name)
        await jobs.within_patience(last.result(), name)
        await marks.reach(count)
        marks.take(count)

    async def _one_by_one(self, count: int) -> zhero.Job[Any]:
        enqueue = jobs.on_loop.enqueue
        for number in range(count - 1):
            await enqueue(to=TO, number=number)
        return await enqueue(to=TO, number=count - 1)

    async def _concurrently(self, count: int) -> zhero.Job[Any]:
        numbers = iter(range(count - 1))  # shared by all callers

        async def caller() -> None:
            for number in numbers:
                await jobs.on_loop.enqueue(to=TO, number=number)

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        return await jobs.on_loop.enqueue(to=TO, number=count - 1)

    async def _many(self, count: int) -> zhero.Job[Any]:
        return await enqueued(self._node, jobs.on_loop, [{"to": TO, "number": number} for number in range(count)])

    async def _round_trips(self, count: int) -> list[float]:
        taken: list[float] = []
        for number in range(count):
            began = time.perf_counter()
            job = await jobs.on_loop.enqueue(to=TO, number=number)
            await job.result()
            taken.append(time.perf_counter() - began)
        Marks(self._report, "round trip").take(count)
        return _percentiles(taken)

    # --- bare -----------------------------------------------------------------------------------------------------

    async def _bare(self, count: int, wanted: int) -> list[float]:
        taken = 0.0
        for _ in range(BARE_PASSES):
            began = self._clock()
            for number in range(count):
                await jobs.no_op(to=TO, number=number)
            taken += self._clock() - began
            Marks(self._report, LOOP).take(count)
            await asyncio.sleep(0)  # a loop that does not turn for a second is reported by the node
        return [_us_each(taken, count * BARE_PASSES)] * wanted

    async def _bare_awaits(self, count: int) -> list[float]:
        taken: list[float] = []
        for number in range(count):
            began = time.perf_counter()
            await jobs.no_op(to=TO, number=number)
            taken.append(time.perf_counter() - began)
        Marks(self._report, "bare await").take(count)
        return _percentiles(taken)

    async def _bare_tasks(self, count: int) -> list[float]:
        taken: list[float] = []
        for number in range(count):
            began = time.perf_counter()
            await asyncio.create_task(jobs.no_op(to=TO, number=number))
            taken.append(time.perf_counter() - began)
        Marks(self._report, "bare task").take(count)
        return _percentiles(taken)


# --- threads and processes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pool:
    """Functions off the loop.

    Attributes:
        first: the param that comes before the number.
        file: where they leave their marks, if not in this process.
    """

    name: str
    against: str
    task: zhero.Task
    function: Callable[..., None]
    first: dict[str, str]
    file: Path | None
    executor: Executor

    async def measure(self, node: zhero.Node, report: Report, plan: Plan) -> None:
        """Jobs enqueued all together and run, next to as many calls put into the pool."""
        measure = column(self.name, self.against, "us/job")
        report.measures.append(measure)
        subject = partial(self._on_node, node, plan.jobs, Marks(report, self.name, self.file))
        baseline = partial(self._in_pool, plan.jobs, Marks(report, self.against, self.file))
        await rounds(plan, [measure], subject, baseline)

    async def _on_node(self, node: zhero.Node, count: int, marks: Marks) -> list[float]:
        began = time.perf_counter()
        last = await enqueued(node, self.task, [{**self.first, "number": number} for number in range(count)])
        await jobs.within_patience(last.result(), self.name)
        await marks.reach(count)  # those beside the last one
        taken = time.perf_counter() - began
        marks.take(count)
        return [_us_each(taken, count)]

    async def _in_pool(self, count: int, marks: Marks) -> list[float]:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        calls = [partial(self.function, **self.first, number=number) for number in range(count)]
        await jobs.within_patience(
            asyncio.gather(*(loop.run_in_executor(self.executor, call) for call in calls)), self.against
        )
        taken = time.perf_counter() - began
        marks.take(count)
        return [_us_each(taken, count)]


async def enqueued(node: zhero.Node, task: zhero.Task, batch: Sequence[dict[str, Any]]) -> zhero.Job[Any]:
    """Enqueue them `BATCH` at a time; returns the last."""
    for start in range(0, len(batch) - BATCH, BATCH):
        await node.enqueue_many(task, batch[start : start + BATCH])
    rest = (len(batch) - 1) % BATCH + 1
    return (await node.enqueue_many(task, batch[-rest:]))[-1]


def _us_each(seconds: float, count: int) -> float:
    return seconds / count * 1e6


def _percentiles(seconds: Sequence[float]) -> list[float]:
    return [percentile(seconds, share) * 1e6 for share in (0.5, 0.99)]


# --- all of it ----------------------------------------------------------------------------------------------------


async def measure_all(plan: Plan, report: Report, folder: Path, cpu: bool) -> None:
    """Every measure, on nodes that meet no others."""
    node = partial(zhero.Node, cluster="bench", runtime_dir=folder, drain_timeout=jobs.PATIENCE_S)
    gate = Gate()
    threads = replace(plan, jobs=max(1, plan.jobs // THREADS_SHARE))
    async with node([jobs.on_loop, jobs.in_thread, gate.task], workers=WORKERS) as it:
        await OnLoop(it, gate, report, plan, cpu).measure()
        with ThreadPoolExecutor(WORKERS) as executor:
            pool = Pool(
                "functions in threads",
                "thread pool",
                jobs.in_thread,
                jobs.plain_no_op,
                {"to": TO},
                None,
                executor,
            )
            await pool.measure(it, report, threads)
    file = folder / "marks"
    file.touch()
    processes = replace(plan, jobs=max(1, plan.jobs // PROCESSES_SHARE))
    async with node([jobs.in_process], workers=PROCESSES) as it:
        # Not forked: this process has threads by now.
        with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as executor:
            pool = Pool(
                "functions in processes",
                "process pool",
                jobs.in_process,
                jobs.child_no_op,
                {"path": str(file)},
                file,
                executor,
            )
            await pool.measure(it, report, processes)
    for place in (file, None):
        Marks(report, "after the end", place).take(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--cpu", action="store_true", help="what runs on the loop, in CPU time: for a busy machine")
    args = made.parse_args(argv)
    plan = chosen(args)
    report = Report(
        "one node: the cost of a job, next to its function in a bare loop",
        {
            **asdict(plan),
            "workers": WORKERS,
            "processes": PROCESSES,
            "in_flight": IN_FLIGHT,
            "batch": BATCH,
            "cpu": args.cpu,
        },
    )
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        return run(measure_all(plan, report, Path(folder), args.cpu), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
