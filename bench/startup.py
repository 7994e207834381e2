"""How long from the start of a process to its first job, next to a bare Python that runs the same coroutine?

Each figure is one process: the clock starts before it is made, and stops when the byte arrives that its job writes.
Row `first job`: `import zhero`, a node, one job enqueued; the baseline imports asyncio and runs the coroutine. Row
`import zhero`: the byte is written when the import is done; the baseline imports nothing but os, which every Python has
loaded anyway. Modules are compiled in the round that warms up, into a folder of its own: as they are where zhero has
been used once.

    python -m bench.startup [--quick] [--json] [--repeats n] [--seconds s]
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from .measure import Plan, Report, Wrong, chosen, column, parser, rounds, run

PLAN = Plan(jobs=1, repeats=31, seconds=60)
QUICK = Plan(jobs=1, repeats=7, seconds=10)
CHILD_MAX_S = 60.0
"""After that a process that was started is ended, and the bench fails."""

MARK = b"!"
JOB = """
import os

async def first(to, number):
    os.write(1, b"!")
"""
NODE = f"""
import asyncio
import zhero
{JOB}
async def main(folder):
    task = zhero.task(first)
    async with zhero.Node([task], cluster="bench", runtime_dir=folder):
        job = await task.enqueue(to="ann@example.com", number=1)
        await job.result()

import sys
asyncio.run(main(sys.argv[1]))
"""
BARE_LOOP = f"""
import asyncio
{JOB}
asyncio.run(first(to="ann@example.com", number=1))
"""
IMPORT = """
import os
import zhero
os.write(1, b"!")
"""
BARE = """
import os
os.write(1, b"!")
"""


async def started(name: str, program: str, cache: Path, report: Report) -> Sequence[float]:
    """Ms from the start of a process that runs this program to its mark.

    Args:
        cache: folder of compiled modules.

    Raises:
        Wrong: it did not end well.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        command = [sys.executable, "-c", program, folder]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, env=environment) as child:
            assert child.stdout is not None
            try:
                select.select([child.stdout], [], [], CHILD_MAX_S)
                taken_ms = (time.perf_counter() - began) * 1e3
                written, _ = child.communicate(timeout=CHILD_MAX_S)
            finally:
                child.kill()
    if child.returncode != 0:
        raise Wrong(f"{name}: exit code {child.returncode}")
    report.count(name, 1, written.count(MARK))
    return [taken_ms]


async def measure_all(plan: Plan, cache: Path, report: Report) -> None:
    """Both, each beside its baseline."""
    for name, program, against, bare in (
        ("first job", NODE, "bare loop", BARE_LOOP),
        ("import zhero", IMPORT, "bare python", BARE),
    ):
        measure = column(name, against, "ms")
        report.measures.append(measure)
        subject = partial(started, name, program, cache, report)
        await rounds(plan, [measure], subject, partial(started, against, bare, cache, report))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    args = parser(__doc__, PLAN, QUICK).parse_args(argv)
    plan = chosen(args)
    report = Report("from the start of a process to its first job, next to a bare loop", asdict(plan))
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as cache:
        return run(measure_all(plan, Path(cache), report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
