"""How many jobs go through 1, 2 and 3 node processes, next to bare processes that move and run as many?

The process that measures is the producer. Alone (`1 node`) it also runs the jobs; else it has no workers, and one or
two other processes run them. `backups`: copies that have to exist before an enqueue returns.

- `one by one`, `100 in flight`, `enqueue_many`: the queue is filled while jobs that hold every slot keep it from
  running, so only enqueueing is in the figure: the call returns once what it promises holds.
- `drain`: those are let go, until all have run.
- `sustained`: `enqueue_many` and the runs at the same time, with at most `WINDOW` batches whose last job has not ended.

The baseline is `bench.baseline`: for one node a single loop that encodes, keeps, decodes and runs; else two processes
with the same batching over DEALER and ROUTER. It keeps no promise, so it is what physics leaves, not what a queue could
cost.

    python -m bench.throughput [--quick] [--json] [--jobs n] [--repeats n] [--seconds s] [--cpu] [--profile]
                               [--nodes n]... [--backups n]...
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import logging
import pstats
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import zhero

from . import baseline, jobs
from .jobs import TO, Marks
from .measure import Measure, Plan, Report, Wrong, chosen, column, parser, rounds, run
from .processes import CHILD_MAX_S, Child, cpu_s, start, within

PLAN = Plan(jobs=50_000, repeats=7, seconds=20)
QUICK = Plan(jobs=5_000, repeats=3, seconds=1)
CLUSTER = "bench"
WORKERS = 8
"""Slots of a node that runs jobs."""
IN_FLIGHT = 100
"""Callers that enqueue at the same time."""
BATCH = 1_000
"""Jobs in one `enqueue_many`."""
WINDOW = 8
"""Batches that are enqueued and have not all run."""
SINGLES_SHARE = 5
"""One in so many of the jobs of a round, where each waits for its own answer from another process."""
LOOK_S = 0.002

Fill = Callable[[int], Awaitable["zhero.Job[Any]"]]
"""Enqueues so many jobs and returns the last."""


class Gate:
    """A task whose jobs hold slots until they are let go."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self.holding = 0
        self.task = zhero.task(name="hold")(self._hold)

    async def _hold(self) -> None:
        self.holding += 1
        await self._opened.wait()
        self.holding -= 1

    def close(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()


def made_node(name: str, folder: str, backups: int, gate: Gate, workers: int) -> zhero.Node:
    """A node of the cluster that is measured."""
    return zhero.Node(
        [jobs.on_loop, gate.task],
        name=name,
        cluster=CLUSTER,
        runtime_dir=folder,
        backups=backups,
        workers=workers,
        drain_timeout=jobs.PATIENCE_S,
    )


# --- a process that runs jobs -------------------------------------------------------------------------------------


async def be_worker(name: str, folder: str, backups: int, profile: bool) -> None:
    """Be a node with workers, and answer each line of stdin."""
    logging.getLogger("zhero").setLevel(logging.ERROR)
    loop, asked, gate = asyncio.get_running_loop(), asyncio.Queue[str](), Gate()
    loop.add_reader(sys.stdin, lambda: asked.put_nowait(sys.stdin.readline().strip()))
    looked = cProfile.Profile() if profile else None
    async with made_node(name, folder, backups, gate, WORKERS):
        Child.tell({})
        if looked is not None:
            looked.enable()
        while what := await asked.get():
            if what == "close":
                gate.close()
            elif what == "open":
                gate.open()
            said: dict[str, Any] = {"holding": gate.holding, "run": len(jobs.marks), "cpu_s": cpu_s()}
            if what == "marks":
                said["marks"] = jobs.marks[:]
                jobs.marks.clear()
            Child.tell(said)
        if looked is not None:
            looked.disable()
            pstats.Stats(looked, stream=sys.stderr).sort_stats("tottime").print_stats(40)


class Here:
    """The same for the one node that is alone: its worker is this process."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def ask(self, what: str) -> dict[str, Any]:
        """As a `Child` would answer."""
        if what == "close":
            self._gate.close()
        elif what == "open":
            self._gate.open()
        said: dict[str, Any] = {"holding": self._gate.holding, "run": len(jobs.marks), "cpu_s": 0.0}
        if what == "marks":
            said["marks"] = jobs.marks[:]
            jobs.marks.clear()
        return said


# --- the producer -------------------------------------------------------------------------------------------------


class Line:
    """A producer, those who run its jobs, and bare processes beside them."""

    def __init__(
        self, node: zhero.Node, gate: Gate, workers: Sequence[Child | Here], bare: baseline.Bare | None, cpu: bool
    ) -> None:
        self._node = node
        self._gate = gate
        self._workers = workers
        self._bare = bare
        self._cpu = cpu

    async def measure(self, name: str, plan: Plan, report: Report) -> None:
        """All rows of one shape."""
        against = "bare loop" if self._bare is None else "bare processes"
        unit = "us of cpu/job" if self._cpu else "us/job"

        def row(what: str) -> Measure:
            made = column(f"{name}: {what}", against, unit)
            report.measures.append(made)
            return made

        singles = plan.jobs if self._bare is None else max(1, plan.jobs // SINGLES_SHARE)
        bare = partial(self._in_bare, plan.jobs, report, against)
        for what, count, fill, wanted in (
            ("one by one", singles, self._one_by_one, 1),
            (f"{IN_FLIGHT} in flight", singles, self._concurrently, 1),
            ("enqueue_many", plan.jobs, self._many, 2),
        ):
            rows = [row(it) for it in (what, "drain")[:wanted]]
            subject = partial(self._fill_then_run, count, fill, wanted, report, name)
            await rounds(plan, rows, subject, partial(bare, wanted))
        await rounds(plan, [row("sustained")], partial(self._sustained, plan.jobs, report, name), partial(bare, 1))

    # --- one round ------------------------------------------------------------------------------------------------

    async def _clock(self) -> float:
        if not self._cpu:
            return time.perf_counter()
        return cpu_s() + sum([float((await it.ask("cpu"))["cpu_s"]) for it in self._workers])

    async def _in_bare(self, count: int, report: Report, name: str, wanted: int) -> list[float]:
        bare = self._bare
        if bare is None:
            began = await self._clock()
            await baseline.one_process(count)
            taken = await self._clock() - began
            Marks(report, name).take(count)
        else:
            before = cpu_s() + await bare.cpu_s() if self._cpu else time.perf_counter()
            await bare.move(count)
            taken = (cpu_s() + await bare.cpu_s() if self._cpu else time.perf_counter()) - before
            report.count(name, count, len(set(await bare.marks()) & set(range(count))))
        await asyncio.sleep(0)
        return [1e6 * taken / count] * wanted

    async def _fill_then_run(self, count: int, fill: Fill, wanted: int, report: Report, name: str) -> list[float]:
        await self._hold()
        began = await self._clock()
        last = await fill(count)
        filled = await self._clock()
        for worker in self._workers:
            await worker.ask("open")
        await self._all_run(last, count)
        taken = [filled - began, await self._clock() - filled][:wanted]
        await self._take(count, report, name)
        return [1e6 * it / count for it in taken]

    async def _sustained(self, count: int, report: Report, name: str) -> list[float]:
        began = await self._clock()
        window: list[zhero.Job[Any]] = []
        for first in range(0, count, BATCH):
            window.append((await self._enqueue(first, min(BATCH, count - first)))[-1])
            if len(window) >= WINDOW:
                await within(window.pop(0).result(), "a batch does not run")
        await self._all_run(window[-1], count)
        taken = await self._clock() - began
        await self._take(count, report, name)
        return [1e6 * taken / count]

    async def _hold(self) -> None:
        """Nothing else runs until the gate opens; who gets such a job is up to the node, so some get too many."""
        for worker in self._workers:
            await worker.ask("close")
        wanted = WORKERS * len(self._workers)
        for _ in range(wanted):
            await self._node.enqueue(self._gate.task)
        until = time.monotonic() + CHILD_MAX_S
        while (held := sum([(await it.ask("look"))["holding"] for it in self._workers])) < wanted:
            if time.monotonic() > until:
                raise Wrong(f"{held} of {wanted} slots are held")
            await asyncio.sleep(0.05)
            if sum([(await it.ask("look"))["holding"] for it in self._workers]) == held:
                await self._node.enqueue(self._gate.task)

    async def _all_run(self, last: zhero.Job[Any], count: int) -> None:
        await within(last.result(), "jobs do not run")
        until = time.monotonic() + CHILD_MAX_S
        while (found := sum([(await it.ask("look"))["run"] for it in self._workers])) < count:
            if time.monotonic() > until:
                raise Wrong(f"{found} of {count} jobs have run")
            await asyncio.sleep(LOOK_S)

    async def _take(self, count: int, report: Report, name: str) -> None:
        found: list[int] = []
        for worker in self._workers:
            found += (await worker.ask("marks"))["marks"]
        once = len(set(found) & set(range(count)))
        report.count(name, count, once)
        if len(found) > once:
            report.count(f"{name}, again or not asked for", 0, len(found) - once)

    # --- ways to fill ---------------------------------------------------------------------------------------------

    async def _one_by_one(self, count: int) -> zhero.Job[Any]:
        enqueue = jobs.on_loop.on(self._node).enqueue
        for number in range(count - 1):
            await enqueue(to=TO, number=number)
        return await enqueue(to=TO, number=count - 1)

    async def _concurrently(self, count: int) -> zhero.Job[Any]:
        enqueue = jobs.on_loop.on(self._node).enqueue
        numbers = iter(range(count - 1))  # shared by all callers

        async def caller() -> None:
            for number in numbers:
                await enqueue(to=TO, number=number)

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
        return await enqueue(to=TO, number=count - 1)

    async def _many(self, count: int) -> zhero.Job[Any]:
        last: zhero.Job[Any] | None = None
        for first in range(0, count, BATCH):
            last = (await self._enqueue(first, min(BATCH, count - first)))[-1]
        assert last is not None
        return last

    async def _enqueue(self, first: int, count: int) -> list[zhero.Job[Any]]:
        batch = [{"to": TO, "number": number} for number in range(first, first + count)]
        return await self._node.enqueue_many(jobs.on_loop, batch)


# --- all of it ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def line(nodes: int, backups: int, cpu: bool, profile: bool) -> AsyncGenerator[Line]:
    """So many node processes, this one included, that know one another."""
    gate = Gate()
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="zhero-bench-"))
        children: list[Child] = []
        for number in range(1, nodes):
            options = ["--be", f"worker-{number}", "--folder", folder, "--backups", str(backups)]
            child = await start("bench.throughput", *options, *(["--profile"] if profile else []))
            stack.push_async_callback(child.end)
            await within(child.hear(), "a worker does not start")
            children.append(child)
        bare = None
        if children:
            bare = baseline.Bare()
            stack.push_async_callback(bare.close)
            await bare.open()
        node = made_node("producer", folder, backups, gate, 0 if children else WORKERS)
        await stack.enter_async_context(node)
        until = time.monotonic() + CHILD_MAX_S
        while sum(it.standing == "alive" for it in node.members()) < nodes:
            if time.monotonic() > until:
                raise Wrong(f"{nodes} nodes do not find one another")
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)  # until copies are whole, and beats have told of slots
        yield Line(node, gate, children or [Here(gate)], bare, cpu)


async def measure_all(
    plan: Plan, report: Report, nodes: Sequence[int], backups: Sequence[int], cpu: bool, profile: bool
) -> None:
    """Every shape that is asked for."""
    for count in nodes:
        for copies in backups if count > 1 else [0]:
            name = "1 node" if count == 1 else f"{count} nodes, backups={copies}"
            async with line(count, copies, cpu, profile) as it:
                await it.measure(name, plan, report)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--cpu", action="store_true", help="in CPU time of all processes: for a busy machine")
    made.add_argument("--nodes", type=int, action="append", choices=(1, 2, 3), help="again for more; default: all")
    made.add_argument("--backups", type=int, action="append", choices=(0, 1, 2), help="the same; default 0 and 1")
    made.add_argument("--profile", action="store_true", help="let workers print where their time goes, at the end")
    made.add_argument("--be", metavar="NAME", help="be a process with a node of this name")
    made.add_argument("--folder", type=Path, help="runtime directory of that process")
    args = made.parse_args(argv)
    if args.be is not None:
        asyncio.run(be_worker(args.be, str(args.folder), args.backups[0], args.profile))
        return 0
    plan = chosen(args)
    nodes: list[int] = args.nodes or ([1, 2] if args.quick else [1, 2, 3])
    backups: list[int] = args.backups or ([1] if args.quick else [0, 1])
    options = {**asdict(plan), "workers": WORKERS, "in_flight": IN_FLIGHT, "batch": BATCH, "window": WINDOW}
    report = Report(
        "throughput: the cost of a job through 1 to 3 node processes, next to bare processes",
        {**options, "nodes": nodes, "backups": backups, "cpu": args.cpu},
    )
    return run(measure_all(plan, report, nodes, backups, args.cpu, args.profile), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
