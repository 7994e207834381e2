"""The tasks of the demo, one of each kind; what they do is in `analysis`, `verdict` and `report`.

`analyse` runs in child processes: parsing holds the interpreter's lock, so threads would share one core. It is given
paths, not sources, as the files are where the node is.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TypedDict

import zhero

from .analysis import Counts, Figures, analyse_file
from .report import as_markdown
from .verdict import record_run


class Place(TypedDict):
    """Where a member is."""

    pid: int
    python: str
    system: str


@zhero.task(description="count what is in one source file", executor="process", announce=False)
def analyse(root: str, path: str, record: str | None = None) -> Counts:
    """Analyse one file.

    Args:
        root: the folder that `path` is relative to.
        record: the file that runs are put on record in; None: this run is not to be counted.
    """
    if record is not None:
        record_run(Path(record), path)
    return analyse_file(Path(root), path)


@zhero.task(description="print how far it is", frequency=1000, priority=10, announce=False)
async def show_progress(api: zhero.Node) -> None:
    """Log a line: how many files are done, and what is in the four queues."""
    counts = (await api.stats()).tasks.get(analyse.name, {})
    queues = [f"{queue.value} {await api.queue_length(queue)}" for queue in zhero.Queue]
    done, known = counts.get("succeeded", 0), counts.get("enqueued", 0)
    api.log(f"progress: {done} of {known} files, queues: {', '.join(queues)}", "cyan")


@zhero.task(description="write the report")
def write_report(path: str, figures: Figures) -> int:
    """Write the figures to a file.

    Returns:
        The length of the report in bytes.
    """
    return Path(path).write_bytes(as_markdown(figures, platform.python_version()).encode())


@zhero.task(description="say where each member is", scope="all", announce=False)
async def where_am_i() -> Place:
    """Which process this is, on what."""
    return {"pid": os.getpid(), "python": platform.python_version(), "system": platform.system()}


TASKS = (analyse, show_progress, write_report, where_am_i)
