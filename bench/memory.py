"""What does a queued job cost in memory, and in passes of the garbage collector, next to its params in a deque?

Each figure comes from a process of its own, which starts a node, holds so many small jobs or only their params, and
looks at its resident memory before and after. The baseline process starts the same node, so that what both import and
collect is the same, and keeps the encoded params as `bytes` in a deque. `ready`: on a node with no workers. `delayed`:
to run in an hour. A pass is `gc.collect()`, the median of several.

    python -m bench.memory [--quick] [--json] [--jobs n] [--repeats n] [--seconds s]
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import zhero
from zhero.codec import encode

from . import jobs
from .jobs import TO
from .measure import Plan, Report, Wrong, chosen, column, parser, percentile, rounds, run

PLAN = Plan(jobs=1_000_000, repeats=3, seconds=180)
QUICK = Plan(jobs=30_000, repeats=3, seconds=10)
BATCH = 1_000
PASSES = 5
"""Full passes of the collector, of which the median is taken; the first also takes what needs no more looking at."""
CHILD_MAX_S = 300.0
"""After that a measuring process is ended, and the bench fails."""

HOLDERS = ("deque", "ready", "delayed")


# --- in the process that holds them -------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
        return int(told.stdout) * 1024


def pass_ms() -> float:
    """How long the garbage collector takes to look at everything."""
    taken: list[float] = []
    for _ in range(PASSES):
        began = time.perf_counter()
        gc.collect()
        taken.append((time.perf_counter() - began) * 1e3)
    return percentile(taken, 0.5)


async def hold(holder: str, count: int, folder: Path) -> dict[str, float]:
    """Hold so many jobs, and tell what that costs."""
    node = zhero.Node([jobs.on_loop], cluster="bench", runtime_dir=folder, workers=0, max_jobs=max(count, 1))
    async with node:
        kept: deque[bytes] = deque()
        gc.collect()
        before = resident_bytes()
        if holder == "deque":
            kept.extend(encode({"to": TO, "number": number}, "params") for number in range(count))
            held = len(kept)
        elif holder == "ready":
            for start in range(0, count, BATCH):
                numbers = range(start, min(start + BATCH, count))
                await node.enqueue_many(jobs.on_loop, [{"to": TO, "number": number} for number in numbers])
            held = await node.queue_length("global")
        else:
            later = jobs.on_loop.options(run_in=3600)
            for number in range(count):
                await later.enqueue(to=TO, number=number)
            held = await node.queue_length("delayed")
        gc.collect()
        grown = resident_bytes() - before
        told = {"bytes": grown / count, "pass_ms": pass_ms(), "held": held}
        told["given_up"] = await node.aclose(drain_timeout=0)
    return told


# --- beside it ----------------------------------------------------------------------------------------------------


async def measured(holder: str, count: int, report: Report) -> Sequence[float]:
    """Bytes for each job, and ms of a pass, of a process that holds them.

    Raises:
        Wrong: it did not tell.
    """
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        command = [sys.executable, "-m", "bench.memory", "--hold", holder, "--jobs", str(count), "--folder", folder]
        child = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_MAX_S, check=False)
    if child.returncode != 0:
        raise Wrong(f"{holder}: exit code {child.returncode}: {child.stderr.strip()}")
    told = json.loads(child.stdout)
    report.count(f"{holder}, held", count, told["held"])
    report.count(f"{holder}, given up at the end", 0 if holder == "deque" else count, told["given_up"])
    return [told["bytes"], told["pass_ms"]]


async def measure_all(plan: Plan, report: Report) -> None:
    """Both kinds of queued jobs, each beside a deque of its own."""
    baseline = partial(measured, "deque", plan.jobs, report)
    for holder in ("ready", "delayed"):
        columns = [column(f"{holder}: memory", "deque of bytes", "bytes/job")]
        columns.append(column(f"{holder}: full gc pass", "deque of bytes", f"ms at {plan.jobs:,}"))
        report.measures += columns
        await rounds(plan, columns, partial(measured, holder, plan.jobs, report), baseline, warm_up=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--hold", choices=HOLDERS, help="be the process that holds them")
    made.add_argument("--folder", type=Path, help="runtime directory of that process")
    args = made.parse_args(argv)
    plan = chosen(args)
    if args.hold is not None:
        print(json.dumps(asyncio.run(hold(args.hold, plan.jobs, args.folder))))
        return 0
    report = Report(
        "one node: memory and garbage collection of queued jobs, next to a deque of their params", asdict(plan)
    )
    return run(measure_all(plan, report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
