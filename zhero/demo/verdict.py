"""What became of the jobs: counted from records, and able to say no.

Four things are laid side by side: what was accepted, what results came, what runs the handlers themselves put on
record, and what the plain loop found. The record is a file with one line per run, appended in one write at the very
start of the run, so that a run whose process is killed is on it, and so that any number of processes can share it.

| word     | what                                                                                          |
|----------|-----------------------------------------------------------------------------------------------|
| done     | accepted, and a result came                                                                   |
| lost     | accepted, and no result came, for whatever reason                                             |
| repeated | runs on record beyond the first of each file; allowed after a death (at least once), so no fault |
| equal    | the results are those of the plain loop: of each file, none missing, none too many            |
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .analysis import Counts

NAMED_MAX_COUNT = 5
"""How many files a complaint names."""


class Run(NamedTuple):
    """One run of a handler: in which process, of which file."""

    pid: int
    path: str


def record_run(record: Path, path: str) -> None:
    """Put a run that begins in this process on record."""
    line = f"{os.getpid()}\t{path}\n".encode()
    descriptor = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_runs(record: Path) -> list[Run]:
    """All runs on record; none, if there was none."""
    try:
        text = record.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = (line.partition("\t") for line in text.split("\n")[:-1])
    return [Run(int(pid), path) for pid, _, path in lines]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it went.

    Attributes:
        problems: sentences; empty if all is well.
    """

    jobs: int
    done: int
    lost: int
    repeated: int
    nodes: int
    killed: int
    equal: bool
    problems: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not self.problems

    @property
    def line(self) -> str:
        """For scripts."""
        return (
            f"demo: jobs={self.jobs} done={self.done} lost={self.lost} repeated={self.repeated} "
            f"nodes={self.nodes} killed={self.killed} equal={'yes' if self.equal else 'no'}"
        )


def judge(
    accepted: Sequence[str],
    results: Mapping[str, Counts],
    runs: Sequence[Run],
    by_loop: Mapping[str, Counts],
    inline: tuple[str, Counts],
    *,
    nodes: int,
    killed: int,
) -> Verdict:
    """Compare what was promised with what came.

    Args:
        accepted: the file of each accepted job.
        results: file -> what its job resulted in.
        runs: on record.
        by_loop: file -> what the plain loop found.
        inline: a file and what the inline run found in it.
    """
    lost = [path for path in accepted if path not in results]
    times = Counter(run.path for run in runs)
    different = sorted(path for path in {*results, *by_loop} if results.get(path) != by_loop.get(path))
    different_inline = [inline[0]] if by_loop.get(inline[0]) != inline[1] else []
    # Without this, a record that was never written would pass for one that shows no repetition.
    unrecorded = [path for path in accepted if path in results and path not in times]
    complaints = (
        ("jobs were accepted and gave no result", lost),
        ("files have other figures than in the plain loop", different),
        ("inline runs have other figures than the plain loop", different_inline),
        ("results came of which no run is on record", unrecorded),
        ("files were analysed for which there was no job", sorted({*times} - {*accepted})),
    )
    return Verdict(
        jobs=len(accepted),
        done=len(accepted) - len(lost),
        lost=len(lost),
        repeated=sum(times.values()) - len(times),
        nodes=nodes,
        killed=killed,
        equal=not different and not different_inline,
        problems=tuple(_complaint(what, paths) for what, paths in complaints if paths),
    )


def _complaint(what: str, paths: Sequence[str]) -> str:
    more = ", ..." if len(paths) > NAMED_MAX_COUNT else ""
    return f"{len(paths)} {what}: {', '.join(paths[:NAMED_MAX_COUNT])}{more}"
