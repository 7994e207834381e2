"""The tasks of the demo, one of each kind; what they do is in `analysis` and `record`.

`analyse` runs in child processes: parsing holds the interpreter's lock, so threads would share one core. It is given
paths, not sources, as the files are where the nodes are. Results are kept until the demo is over, whoever is killed.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TypedDict

import zhero

from .analysis import Counts, analyse_file
from .record import BEGAN, ENDED, RANG, ROUND, note

RESULT_TTL_S = 900.0
"""Longer than the demo can take."""
ROUND_EVERY_MS = 1000


class Place(TypedDict):
    """Where a member is."""

    pid: int
    python: str
    system: str


@zhero.task(description="count what is in one source file", executor="process", result_ttl=RESULT_TTL_S, announce=False)
def analyse(root: str, path: str) -> Counts:
    """Analyse one file.

    Args:
        root: the folder that `path` is relative to.
    """
    note(BEGAN, path)
    counts = analyse_file(Path(root), path)
    note(ENDED, path)
    return counts


@zhero.task(description="be periodic", frequency=ROUND_EVERY_MS, priority=10, announce=False)
async def make_round() -> None:
    """Put the number of its round on record: one that is skipped or doubled would be seen there."""
    note(ROUND, str(zhero.current().number))


@zhero.task(description="be delayed", priority=10, result_ttl=RESULT_TTL_S, announce=False)
async def ring(api: zhero.Node) -> str:
    """Put on record that it was due.

    Returns:
        The node that it ran on.
    """
    note(RANG)
    return api.name


@zhero.task(description="say where each member is", scope="all", announce=False)
async def where_am_i() -> Place:
    """Which process this is, on what."""
    return {"pid": os.getpid(), "python": platform.python_version(), "system": platform.system()}


TASKS = (analyse, make_round, ring, where_am_i)
