"""The jobs that are measured. They stand apart because child processes have to find them by the name of this module.

Each does nothing but leave a mark with its number, and takes two small params, as most jobs take some. The baseline
calls the very same functions, so it pays for the mark as well.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable
from pathlib import Path

import zhero

from .measure import Report, Wrong

TO = "ann@example.com"
PATIENCE_S = 60.0
"""How long what was enqueued may stay undone before a bench gives up."""

marks: list[int] = []
"""A number for each run in this process. Threads append to it too: that is one step of the interpreter."""
descriptors: dict[str, int] = {}
"""Files of marks that this process has opened; a child keeps them until it ends."""


async def no_op(to: str, number: int) -> None:
    marks.append(number)


def plain_no_op(to: str, number: int) -> None:
    marks.append(number)


def child_no_op(path: str, number: int) -> None:
    """Leaves its mark in a file, as the process that counts is another."""
    descriptor = descriptors.get(path)
    if descriptor is None:
        descriptor = descriptors[path] = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"%d\n" % number)


@zhero.task(executor="process")
def burn(seconds: float) -> int:
    """Take so much CPU time; leaves no mark but its result, which is more than 0."""
    until, turns = time.process_time() + seconds, 0
    while time.process_time() < until:
        turns += 1
    return turns


on_loop = zhero.task(name="noOp")(no_op)
in_thread = zhero.task(name="plainNoOp")(plain_no_op)
in_process = zhero.task(name="childNoOp", executor="process")(child_no_op)


class Marks:
    """Counts runs, and tells which did not happen exactly once. Without a file: those in this process.

    Args:
        report: takes the counts.
        name: what was counted.
    """

    def __init__(self, report: Report, name: str, file: Path | None = None) -> None:
        self._report = report
        self._name = name
        self._file = file
        self._expected = 0

    async def reach(self, count: int) -> None:
        """Wait until so many runs have left a mark.

        Raises:
            Wrong: they have not after `PATIENCE_S`.
        """
        until = time.perf_counter() + PATIENCE_S
        while (found := self._found()) < count:
            if time.perf_counter() > until:
                raise Wrong(f"{self._name}: {found} of {count} jobs have run after {PATIENCE_S:g} s")
            await asyncio.sleep(0.0005)

    def take(self, count: int) -> None:
        """Count the marks of a round, in which the numbers from 0 up to `count` had to run once each."""
        found = self._read()
        once = len(set(found) & set(range(count)))
        again = len(found) - once
        self._report.count(self._name, count, once)
        if again:
            self._report.count(f"{self._name}, again or not asked for", 0, again)
        marks.clear()
        if self._file is not None:
            self._file.write_bytes(b"")

    def _found(self) -> int:
        return len(marks) if self._file is None else self._file.read_bytes().count(b"\n")

    def _read(self) -> list[int]:
        return marks if self._file is None else [int(line) for line in self._file.read_text().split()]


async def within_patience(waited_for: Awaitable[object], name: str) -> None:
    """Wait for something that must happen.

    Raises:
        Wrong: it has not after `PATIENCE_S`.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            await waited_for
    except TimeoutError:
        raise Wrong(f"{name}: still waiting after {PATIENCE_S:g} s") from None
