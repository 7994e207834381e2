"""What do more nodes bring, and what do they cost?

Rows, each beside what it can best be compared with:

- `cpu jobs`: jobs of 5 ms of CPU in child processes, on two nodes with one worker each; beside them one such node. A
  third node, which runs nothing, enqueues them all. A ratio of 0.5 is twice as fast.
- `one view`: real nodes that start at once, until each counts all alive; beside them three. Processes of several nodes
  take turns on few cores, so most of it is the start of Python.
- `chatter`: bytes that such an idle node hands to TCP per second; beside them its beats alone. Only on Linux.
- `one view, simulated`: as in `bench.members`, for as many as `--nodes` says: virtual time, with all checks of the
  simulator, which take CPU with the square of the nodes.

    python -m bench.scale [--quick] [--json] [--jobs n] [--repeats n] [--seconds s] [--nodes n]... [--only part]...
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import zhero
from zhero.config import PROFILES

from .jobs import burn
from .measure import Plan, Report, Wrong, chosen, column, parser, rounds, run
from .members import beats_bytes_per_s, herd, one_view, watched

PLAN = Plan(jobs=600, repeats=3, seconds=60)
QUICK = Plan(jobs=60, repeats=2, seconds=5)
PARTS = ("cpu", "real", "sim")
CROWDS = {False: (10, 50), True: (10,)}
SIMULATED = {False: (100, 200), True: (50,)}
NODES_PER_PROCESS = 10
WATCHED_S = {False: 10.0, True: 1.0}
JOB_S = 0.005
"""CPU time of a job."""
PATIENCE_S = 120.0
PROFILE = "lan"


# --- more cores ---------------------------------------------------------------------------------------------------


async def be(folder: str) -> None:
    """A node with one worker, until killed."""
    async with zhero.Node([burn], workers=1, cluster="bench", runtime_dir=folder):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def cluster(count: int) -> AsyncGenerator[zhero.Node]:
    """So many processes with a node that runs jobs, and one here that does not."""
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        async with zhero.Node([burn], workers=0, cluster="bench", runtime_dir=folder) as node:
            command = [sys.executable, "-m", "bench.scale", "--be", folder]
            children = [await asyncio.create_subprocess_exec(*command) for _ in range(count)]
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while sum(it.standing == "alive" for it in node.members()) <= count:
                        await asyncio.sleep(0.01)
                yield node
            finally:
                for child in children:
                    child.kill()
                    await child.wait()


async def burned(node: zhero.Node, name: str, jobs: int, report: Report) -> Sequence[float]:
    """Ms per job, all enqueued together, until the last result is here."""
    began = time.perf_counter()
    made = await node.enqueue_many(burn, [{"seconds": JOB_S} for _ in range(jobs)])
    try:
        async with asyncio.timeout(PATIENCE_S):
            results = await asyncio.gather(*(job.result() for job in made))
    except TimeoutError:
        raise Wrong(f"{name}: jobs still wait after {PATIENCE_S:g} s") from None
    report.count(name, jobs, sum(turns > 0 for turns in results))
    return [(time.perf_counter() - began) / jobs * 1e3]


async def measure_cpu(plan: Plan, report: Report) -> None:
    """Two nodes, and one."""
    measure = column("cpu jobs, 2 nodes", "1 node", "ms/job")
    report.measures.append(measure)
    async with cluster(2) as two, cluster(1) as one:
        await rounds(
            plan,
            [measure],
            partial(burned, two, "cpu jobs, 2 nodes", plan.jobs, report),
            partial(burned, one, "cpu jobs, 1 node", plan.jobs, report),
        )


# --- more nodes ---------------------------------------------------------------------------------------------------


async def measure_crowd(nodes: int, watched_s: float, report: Report) -> None:
    """So many real nodes, and three."""
    view = column(f"one view, {nodes} nodes", "3 nodes", "ms")
    chatter = column(f"chatter, {nodes} nodes", "beats alone", "bytes/s per node")
    report.measures += [view, chatter] if sys.platform == "linux" else [view]
    for count, kept in ((3, view.baseline), (nodes, view.subject)):
        async with herd(PROFILE) as of:
            began = time.perf_counter()
            names = [f"node-{number}" for number in range(count)]
            for start in range(0, count, NODES_PER_PROCESS):
                await of.start(names[start : start + NODES_PER_PROCESS])
            await of.agree(count, heard=False)
            kept.append((time.perf_counter() - began) * 1e3)
            if count == nodes:
                await of.agree(count)
                chatter.subject.append((await watched(of.children, watched_s))[0])
                chatter.baseline.append(beats_bytes_per_s(nodes, PROFILES[PROFILE]))
                told = [await child.ask() for child in of.children]
                report.count(f"still counted alive, {nodes} nodes", nodes * nodes, sum(sum(it["alive"]) for it in told))


def measure_simulated(nodes: int, report: Report) -> None:
    """So many simulated nodes, and three."""
    virtual = column(f"one view, {nodes} simulated", "3 simulated", "virtual ms")
    report.measures.append(virtual)
    virtual.subject.append(one_view(nodes, 0, PROFILE, report)[0])
    virtual.baseline.append(one_view(3, 0, PROFILE, report)[0])


# --- all of it ----------------------------------------------------------------------------------------------------


async def measure_all(plan: Plan, quick: bool, parts: Sequence[str], simulated: Sequence[int], report: Report) -> None:
    """The parts that are asked for, in their order."""
    if "cpu" in parts:
        await measure_cpu(plan, report)
    for nodes in CROWDS[quick] if "real" in parts else ():
        await measure_crowd(nodes, WATCHED_S[quick], report)
    for nodes in simulated if "sim" in parts else ():
        measure_simulated(nodes, report)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument(
        "--nodes", action="append", type=int, help="simulated; again for more; default 100, 200; quick 50"
    )
    made.add_argument("--only", action="append", choices=PARTS, help="this part; again for more; default: all")
    made.add_argument("--be", type=Path, metavar="FOLDER", help="be a node that runs jobs")
    args = made.parse_args(argv)
    logging.getLogger("zhero").setLevel(logging.CRITICAL)  # processes are killed here, and loops kept busy
    if args.be is not None:
        asyncio.run(be(str(args.be)))
        return 0
    plan, parts = chosen(args), args.only or list(PARTS)
    simulated: Sequence[int] = args.nodes or SIMULATED[args.quick]
    report = Report("scale: what more nodes bring and cost", {**asdict(plan), "nodes": list(simulated), "only": parts})
    return run(measure_all(plan, args.quick, parts, simulated, report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
