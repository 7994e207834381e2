"""How soon does a job start, and how soon is its result there, next to what needs no queue?

Rows, each by p50 and p99 of the calls of a round:

- `same node`: a node that runs its own jobs; beside it a task of the bare loop.
- `other process`: a node that runs nothing and one process that does, without copies and with one; beside it a line
  sent over TCP to that same process, and its answer. To start: until the job, or the line, is there; to result: until
  the answer is back. A moment is read from the clock of the system, which all processes share.
- `half load`: the same while no-op jobs are enqueued at half the rate that the node sustains, which is measured first.
- `late`: jobs enqueued one after another for a while ahead, from when they are due; beside them timers of the bare
  loop. `one instant`: all are due at once, until the last one has started.
- `steal`: a process whose own job ends, until it starts one of another node that has a backlog; beside it the line
  over TCP.

    python -m bench.latency [--quick] [--json] [--jobs n] [--repeats n] [--seconds s] [--only part]...
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import zhero

from .measure import Plan, Report, Wrong, chosen, column, parser, percentile, rounds, run

PLAN = Plan(jobs=2_000, repeats=5, seconds=30)
QUICK = Plan(jobs=300, repeats=3, seconds=4)
"""`jobs`: those that are due later; a tenth of them is timed one by one."""
PARTS = ("same", "other", "late", "steal")
AHEAD_S = {False: 2.0, True: 0.5}
WORKERS = 8
PATIENCE_S = 60.0
LOAD_EVERY_S = 0.005
RATE_JOBS = 4_000
"""Jobs by which the rate is measured of which half is the load."""
GATE_S, BACKLOG, BACKLOG_S = 0.2, 40, 0.02
"""Of a steal: what the thief runs before, and what waits at the other node: so many jobs, which take so long."""
LATE_LEAST_MS = 0.001
Call = Callable[[], Awaitable[float]]
"""Does one thing elsewhere; when it began, by the clock of the system."""


@zhero.task
async def tell() -> float:
    """When it started."""
    return time.monotonic()


@zhero.task
async def nothing() -> None:
    pass


@zhero.task
async def slow(seconds: float) -> tuple[int, float, float]:
    """Where it ran, from when to when."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return os.getpid(), began, time.monotonic()


TASKS = [tell, nothing, slow]
Node = partial(zhero.Node, TASKS, cluster="bench")


# --- the other process --------------------------------------------------------------------------------------------


async def be(folder: str, workers: int, backups: int) -> None:
    """A node of its own that answers lines over TCP, and runs a job of its own for each line of stdin."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"%r\n" % time.monotonic())
        writer.close()

    loop, asked = asyncio.get_running_loop(), asyncio.Queue[str]()
    loop.add_reader(sys.stdin, lambda: asked.put_nowait(sys.stdin.readline()))
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with Node(workers=workers, backups=backups, runtime_dir=folder) as node:
        print(server.sockets[0].getsockname()[1], flush=True)
        while await asked.get():
            job = await slow.on(node).enqueue(seconds=GATE_S)
            print("running", flush=True)
            print((await job.result())[2], flush=True)


@dataclass(slots=True)
class Other:
    """The process beside this one."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def line(self) -> str:
        """The next that it says."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            said = await self.process.stdout.readline()
        if not said:
            raise Wrong("the other process has ended")
        return said.decode()

    async def echo(self) -> float:
        """A line there and back; when it was there."""
        self.writer.write(b"?\n")
        return float(await self.reader.readline())

    async def gate(self) -> Callable[[], Awaitable[float]]:
        """Have it run a job of its own; once that runs, what gives its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"!\n")
        await self.line()

        async def end() -> float:
            return float(await self.line())

        return end


@contextlib.asynccontextmanager
async def other(folder: str, node: zhero.Node, workers: int, backups: int) -> AsyncGenerator[Other]:
    """A process with a node that this one knows; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.latency", "--be", folder, str(workers), str(backups)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline() or b"0")
        if not port:
            raise Wrong("the other process does not start")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while sum(it.standing == "alive" for it in node.members()) < 2:
                    await asyncio.sleep(0.01)
            yield Other(process, reader, writer)
        finally:
            writer.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# --- one by one ---------------------------------------------------------------------------------------------------


async def timed(call: Call, count: int) -> list[float]:
    """Us to start and to result, p50 and p99 each, of so many calls, one after another."""
    starts: list[float] = []
    results: list[float] = []
    for _ in range(count):
        began = time.monotonic()
        started = await call()
        results.append((time.monotonic() - began) * 1e6)
        starts.append((started - began) * 1e6)
        await asyncio.sleep(0.001)  # so that the next finds nothing of this one
    return [percentile(values, share) for values in (starts, results) for share in (0.5, 0.99)]


async def job_of(node: zhero.Node) -> float:
    """A job through the queue."""
    job = await tell.on(node).enqueue()
    return await job.result(timeout=PATIENCE_S)


async def bare_task() -> float:
    """The same coroutine as a task of the loop."""

    async def it() -> float:
        return time.monotonic()

    return await asyncio.create_task(it())


async def sustained(node: zhero.Node) -> float:
    """No-op jobs per second."""
    began = time.perf_counter()
    jobs = await node.enqueue_many(nothing, [{} for _ in range(RATE_JOBS)])
    await asyncio.gather(*(job.result(timeout=PATIENCE_S) for job in jobs))
    return RATE_JOBS / (time.perf_counter() - began)


async def load(node: zhero.Node, rate: float) -> None:
    """So many no-op jobs per second, until cancelled."""
    due, owed = time.monotonic(), 0.0
    while True:
        owed += rate * LOAD_EVERY_S
        await node.enqueue_many(nothing, [{} for _ in range(int(owed))])
        owed -= int(owed)
        due = max(due + LOAD_EVERY_S, time.monotonic() - 0.1)  # what is missed for long is not made up for
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def one_by_one(node: zhero.Node, name: str, against: str, bare: Call, plan: Plan, report: Report) -> None:
    """To start and to result, idle and at half load."""
    rate = await sustained(node)
    for state in ("idle", "half load"):
        columns = [
            column(f"{name}, {state}: to {what}, {share}", against, "us")
            for what in ("start", "result")
            for share in ("p50", "p99")
        ]
        report.measures += columns
        count = max(20, plan.jobs // 10)

        async def subject(state: str = state, count: int = count) -> Sequence[float]:
            if state == "idle":
                return await timed(partial(job_of, node), count)
            loading = asyncio.create_task(load(node, rate / 2))
            try:
                return await timed(partial(job_of, node), count)
            finally:
                loading.cancel()
                await asyncio.wait([loading])

        await rounds(plan, columns, subject, partial(timed, bare, count))


# --- later --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Later:
    """Jobs that are due later, and timers of the loop beside them."""

    node: zhero.Node
    count: int
    ahead_s: float
    report: Report

    async def jobs(self, instant: bool) -> Sequence[float]:
        due: list[float] = []
        jobs: list[zhero.Job[float]] = []
        at, at_ms = time.monotonic() + self.ahead_s, round((time.time() + self.ahead_s) * 1000)
        if instant:
            at += at_ms / 1000 - (time.time() + at - time.monotonic())
            jobs = list(await self.node.enqueue_many(tell.options(run_at=at_ms), [{} for _ in range(self.count)]))
            due = [at] * self.count
        else:
            for _ in range(self.count):
                due.append(time.monotonic() + self.ahead_s)
                jobs.append(await tell.on(self.node).options(run_in=self.ahead_s).enqueue())
                await asyncio.sleep(0)
        started = await asyncio.gather(*(job.result(timeout=PATIENCE_S) for job in jobs))
        late = [(it - when) * 1e3 for it, when in zip(started, due, strict=True)]
        self.report.count("started early", 0, sum(it < (-1 if instant else 0) for it in late))  # wall clocks by 1 ms
        self.report.count("due later", self.count, len(started))
        return self._told(late, instant)

    async def timers(self, instant: bool) -> Sequence[float]:
        loop = asyncio.get_running_loop()
        late: list[float] = []
        over = loop.create_future()

        def fired(due: float) -> None:
            late.append((time.monotonic() - due) * 1e3)
            if len(late) == self.count:
                over.set_result(None)

        at = time.monotonic() + self.ahead_s
        for _ in range(self.count):
            due = at if instant else time.monotonic() + self.ahead_s
            loop.call_at(due, fired, due)  # loop.time is this very clock
        await over
        return self._told(late, instant)

    def _told(self, late: Sequence[float], instant: bool) -> Sequence[float]:
        spans = [max(it, LATE_LEAST_MS) for it in late]
        return [max(spans)] if instant else [percentile(spans, share) for share in (0.5, 0.99)]


async def measure_late(folder: str, plan: Plan, ahead_s: float, report: Report) -> None:
    """On one node, where the clock of the owner is the own one."""
    async with Node(workers=WORKERS, runtime_dir=folder) as node:
        later = Later(node, plan.jobs, ahead_s, report)
        one_after_another = [column(f"late, {share}", "bare timer", "ms") for share in ("p50", "p99")]
        instant = [column("one instant: the last one", "bare timer", "ms")]
        for columns, at_once in ((one_after_another, False), (instant, True)):
            report.measures += columns
            await rounds(plan, columns, partial(later.jobs, at_once), partial(later.timers, at_once), warm_up=False)


# --- steal --------------------------------------------------------------------------------------------------------


async def measure_steal(folder: str, plan: Plan, report: Report) -> None:
    """A node with a backlog, and one whose own job ends."""
    steal = column("steal", "tcp", "us")
    report.measures.append(steal)
    async with Node(workers=1, backups=0, runtime_dir=folder) as node, other(folder, node, 1, 0) as it:

        async def stolen() -> Sequence[float]:
            end = await it.gate()
            jobs = await node.enqueue_many(slow, [{"seconds": BACKLOG_S} for _ in range(BACKLOG)])
            free_at = await end()
            ran = await asyncio.gather(*(job.result(timeout=PATIENCE_S) for job in jobs))
            there = [began for process, began, _ in ran if process == it.process.pid and began >= free_at]
            report.count("backlogs of which something is stolen", 1, bool(there))
            if not there:
                raise Wrong("nothing of a backlog is stolen")
            return [(min(there) - free_at) * 1e6]

        async def echoed() -> Sequence[float]:
            return (await timed(it.echo, 20))[:1]

        await rounds(plan, [steal], stolen, echoed)


# --- all of it ----------------------------------------------------------------------------------------------------


async def measure_all(plan: Plan, ahead_s: float, parts: Sequence[str], folder: str, report: Report) -> None:
    """The parts that are asked for, in their order."""
    if "same" in parts:
        async with Node(workers=WORKERS, runtime_dir=folder) as node:
            await one_by_one(node, "same node", "bare task", bare_task, plan, report)
    for backups in (0, 1) if "other" in parts else ():
        async with (
            Node(workers=0, backups=backups, runtime_dir=folder) as node,
            other(folder, node, WORKERS, backups) as it,
        ):
            name = f"other process, {backups} {'copies' if backups != 1 else 'copy'}"
            await one_by_one(node, name, "tcp", it.echo, plan, report)
    if "late" in parts:
        await measure_late(folder, plan, ahead_s, report)
    if "steal" in parts:
        await measure_steal(folder, plan, report)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--only", action="append", choices=PARTS, help="this part; again for more; default: all")
    made.add_argument("--be", nargs=3, metavar=("FOLDER", "WORKERS", "BACKUPS"), help="be the other process")
    args = made.parse_args(argv)
    logging.getLogger("zhero").setLevel(logging.CRITICAL)  # processes are killed here, and loops kept busy
    if args.be is not None:
        asyncio.run(be(args.be[0], int(args.be[1]), int(args.be[2])))
        return 0
    plan, parts = chosen(args), args.only or list(PARTS)
    report = Report("latency: how soon a job starts and its result is there", {**asdict(plan), "only": parts})
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        return run(measure_all(plan, AHEAD_S[args.quick], parts, folder, report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
