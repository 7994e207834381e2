"""The record: what handlers did, in which node, when; a file that only grows.

A run puts a line there before anything else happens in it and another one at its end, each in one write to the end of
the file. So a run whose process is killed is on record, any number of processes share the file, and nobody has to be
asked afterwards who is not there any more.

Instants are seconds of the system's monotonic clock, which is one and the same for all processes of a machine.

Handlers find the file and the name of their node in two environment variables, which the child processes of a node
have from it; without them (a run outside of the demo's nodes) nothing is put on record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

RECORD, NODE = "DEMO_RECORD", "DEMO_NODE"
"""The environment variables."""

BEGAN, ENDED, ROUND, RANG = "began", "ended", "round", "rang"
"""A file's analysis began, and ended; a round of the periodic task; the delayed job."""


class Entry(NamedTuple):
    """A line. `what`: a path or the number of a round; `at_s`: when."""

    kind: str
    node: str
    at_s: float
    what: str


class Run(NamedTuple):
    """One run of an analysis. `ended_s`: None: its end is not on record."""

    node: str
    path: str
    began_s: float
    ended_s: float | None


def note(kind: str, what: str = "") -> None:
    """Put something on record, if this process belongs to a node of the demo."""
    place = os.environ.get(RECORD)
    if place is None:
        return
    line = f"{kind}\t{os.environ[NODE]}\t{time.monotonic():.6f}\t{what}\n".encode()
    descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


class Record:
    """A reader: the entries so far; `read` adds those that are new."""

    def __init__(self, place: Path) -> None:
        self.entries: list[Entry] = []
        self._place = place
        self._offset = 0

    def read(self) -> list[Entry]:
        """Returns: the new entries, in the order of the file; none, if there is no file yet."""
        try:
            with self._place.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        fields = (line.split("\t", 3) for line in whole.decode().split("\n")[:-1])
        new = [Entry(kind, node, float(at_s), what) for kind, node, at_s, what in fields]
        self.entries += new
        return new


def runs_of(entries: Iterable[Entry]) -> list[Run]:
    """The runs on record, in the order in which they began."""
    runs: list[Run] = []
    open_runs: dict[tuple[str, str], int] = {}
    for kind, node, at_s, what in entries:
        if kind == BEGAN:
            open_runs[node, what] = len(runs)
            runs.append(Run(node, what, at_s, None))
        elif kind == ENDED and (place := open_runs.pop((node, what), None)) is not None:
            runs[place] = runs[place]._replace(ended_s=at_s)
    return runs
