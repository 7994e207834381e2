"""The run on one node: hand over the jobs, take their results, and one job of each other kind.

The results are taken as they come, each awaited by a coroutine of its own, so that a job that gives none holds up
nobody; what has not come after `PATIENCE_S` counts as lost. When the run is broken off, the node is closed without a
drain: the jobs that wait would only be done for nobody.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zhero

from .analysis import Counts, Figures, merge
from .screen import Screen
from .tasks import TASKS, Place, analyse, show_progress, where_am_i, write_report

PATIENCE_S = 300.0
"""How long the results may take: far more than they do anywhere, so that a demo that is stuck says so."""
REPORT_IN_S = 1.0
"""The delay of the job that writes the report."""
INLINE = "ast.py"
"""The file that is analysed inline, if it is among them."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        root: the folder of the sources.
        paths: the sources, relative to it.
        record: the file where runs are put on record.
        report: the file to write the report to.
    """

    root: Path
    paths: Sequence[str]
    record: Path
    report: Path


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it.

    Attributes:
        accepted: the file of each accepted job.
        results: file -> its counts.
        took_s: from the first job handed over to the last result taken.
        figures: the results merged.
        inline: a file and its counts.
        places: member -> where it is.
        report_bytes: the length of the report.
        report_after_s: from the enqueueing of the delayed job to its result.
    """

    accepted: list[str]
    results: dict[str, Counts]
    took_s: float
    figures: Figures
    inline: tuple[str, Counts]
    places: dict[str, Place]
    report_bytes: int
    report_after_s: float


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


async def run_on_one_node(order: Order, screen: Screen) -> Taken:
    """Do all of it on a node in this process.

    Raises:
        ZheroError: the node can't be started, or a job failed that is not the analysis of a file.
        TimeoutError: such a job did not end.
    """
    cluster = f"demo-{os.getpid()}"  # of its own: it must not meet the nodes of whoever runs it
    async with zhero.Node(TASKS, name="demo", cluster=cluster, workers=cores()) as node:
        screen.line(f"from another terminal: zhero status --cluster {cluster}")
        try:
            return await _run(node, order, screen)
        except BaseException:
            await node.aclose(0)
            raise


async def _run(node: zhero.Node, order: Order, screen: Screen) -> Taken:
    members = await (await where_am_i.enqueue()).result(PATIENCE_S)
    started_s = time.perf_counter()
    params = [{"root": str(order.root), "path": path, "record": str(order.record)} for path in order.paths]
    jobs = await node.enqueue_many(analyse, params)
    with screen.bar("analysed by jobs", len(jobs)) as advance:
        results = await _results(jobs, order.paths, advance)
    took_s = time.perf_counter() - started_s
    figures = merge(results)
    asked_s = time.perf_counter()
    report = await write_report.options(run_in=REPORT_IN_S).enqueue(path=str(order.report), figures=figures)
    inline = INLINE if INLINE in order.paths else order.paths[0]
    counts = analyse.run(root=str(order.root), path=inline)
    report_bytes = await report.result(PATIENCE_S)
    report_after_s = time.perf_counter() - asked_s
    await node.stop_task(show_progress.name)
    return Taken(
        accepted=list(order.paths),  # a batch is accepted as a whole
        results=results,
        took_s=took_s,
        figures=figures,
        inline=(inline, counts),
        places=members.results(),
        report_bytes=report_bytes,
        report_after_s=report_after_s,
    )


async def _results(
    jobs: Sequence[zhero.Job[Any]], paths: Sequence[str], advance: Callable[[], None]
) -> dict[str, Counts]:
    results: dict[str, Counts] = {}

    async def take(job: zhero.Job[Any], path: str) -> None:
        try:
            results[path] = await job.result()
        except zhero.ZheroError:  # the node has logged why; without a result it is lost
            pass
        advance()

    taking = [asyncio.create_task(take(job, path)) for job, path in zip(jobs, paths, strict=True)]
    try:
        await asyncio.wait(taking, timeout=PATIENCE_S)
    finally:
        for it in taking:
            it.cancel()
        await asyncio.gather(*taking, return_exceptions=True)
    return results
