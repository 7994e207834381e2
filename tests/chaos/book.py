"""What happened, for those who judge it: two append-only files that no node's memory has a part in.

The *book* is written by the handlers of jobs: a line when a run starts, one when it ends. It is what really ran. The
*receipts* are written by whoever enqueued, after it was told that a job is accepted. A line is one `write` to a file
opened for appending, so lines of several processes never mix and a process that is killed leaves whole ones. Moments
are of the system's monotonic clock, which all processes of the machine share.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

BOOK = "book"
RECEIPTS = "receipts"


@dataclass(frozen=True, slots=True)
class Run:
    """A start of a job. `node`: name of the process, never used again; `number`: the round, else 0."""

    job: str
    task: str
    node: str
    number: int
    token: tuple[int, int]
    at_s: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """A job that somebody was told is accepted. `run_in_s`: not before so long after `asked_at_s`."""

    job: str
    task: str
    by: str
    asked_at_s: float
    told_at_s: float
    run_in_s: float


class Pen:
    """Writes into both files, for one process.

    Args:
        folder: where they are.
        name: of the process.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._book, self._receipts = (_opened(folder / file) for file in (BOOK, RECEIPTS))

    def started(self, task: str, job: str, number: int, token: tuple[int, int]) -> None:
        """A run begins here."""
        self._run("start", task, job, number, token)

    def ended(self, task: str, job: str, number: int, token: tuple[int, int]) -> None:
        """It has come to its end."""
        self._run("end", task, job, number, token)

    def _run(self, what: str, task: str, job: str, number: int, token: tuple[int, int]) -> None:
        line = f"{what} {task} {job} {self._name} {number} {token[0]} {token[1]} {time.monotonic():.6f}\n"
        os.write(self._book, line.encode())

    def accepted(self, task: str, jobs: Iterable[str], asked_at_s: float, run_in_s: float = 0.0) -> None:
        """These were accepted, by one call."""
        self._tell("accepted", task, jobs, asked_at_s, run_in_s)

    def unsure(self, task: str, jobs: Iterable[str], asked_at_s: float, run_in_s: float = 0.0) -> None:
        """These may run, as it was said; they do not have to."""
        self._tell("unsure", task, jobs, asked_at_s, run_in_s)

    def refused(self, task: str, why: str, asked_at_s: float) -> None:
        """An enqueue raised."""
        self._tell("refused", task, ["_".join(why.split()) or "-"], asked_at_s, 0.0)

    def _tell(self, what: str, task: str, jobs: Iterable[str], asked_at_s: float, run_in_s: float) -> None:
        tail = f"{self._name} {asked_at_s:.6f} {time.monotonic():.6f} {run_in_s:.3f}"
        os.write(self._receipts, "".join(f"{what} {task} {job} {tail}\n" for job in jobs).encode())


def _opened(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@dataclass(slots=True)
class Reader:
    """Both files as far as they have been read: `read` takes in what is new.

    Attributes:
        runs: job -> its starts, in the order in which they were written.
        ends: job -> names of the processes in which a run of it came to its end.
        accepted: job -> its receipt.
        unsure: jobs that may run or not.
        refused: what enqueues raised.
    """

    folder: Path
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict[str, list[Run]](list))
    ends: dict[str, list[str]] = field(default_factory=lambda: defaultdict[str, list[str]](list))
    accepted: dict[str, Receipt] = field(default_factory=dict[str, Receipt])
    unsure: set[str] = field(default_factory=set[str])
    refused: list[str] = field(default_factory=list[str])
    _places: dict[str, int] = field(default_factory=lambda: {BOOK: 0, RECEIPTS: 0})
    _open: set[str] = field(default_factory=set[str])

    def read(self) -> None:
        """Take in what has been written since."""
        for words in self._new(BOOK):
            what, task, job, node, number, epoch, attempt, at_s = words
            if what == "start":
                run = Run(job, task, node, int(number), (int(epoch), int(attempt)), float(at_s))
                self.runs[job].append(run)
            else:
                self.ends[job].append(node)
                self._open.discard(job)
        for what, task, job, by, asked, told, run_in in self._new(RECEIPTS):
            if what == "accepted":
                self.accepted[job] = Receipt(job, task, by, float(asked), float(told), float(run_in))
                if job not in self.ends:
                    self._open.add(job)
            elif what == "unsure":
                self.unsure.add(job)
            else:
                self.refused.append(job)

    def _new(self, name: str) -> Iterable[list[str]]:
        file = self.folder / name
        if not file.exists():
            return
        with file.open("rb") as opened:
            opened.seek(self._places[name])
            data = opened.read()
        data = data[: data.rfind(b"\n") + 1]
        self._places[name] += len(data)
        for line in data.decode().splitlines():
            yield line.split()

    @property
    def missing(self) -> Collection[str]:
        """Accepted jobs of which no run has come to its end."""
        return self._open

    def starts(self) -> list[Run]:
        """All runs, by time."""
        return sorted((run for runs in self.runs.values() for run in runs), key=lambda it: it.at_s)


@dataclass(slots=True)
class Judgement:
    """What a trial came to; good as long as `wrong` is empty.

    Attributes:
        accepted: jobs.
        repeated: starts beyond one per job that a faulted process explains.
        lost: accepted jobs without an end.
        twice: jobs that started more often than faults explain, told with their runs.
        early: jobs that started before they might.
        stale: runs whose token is not above that of every earlier run of their job in another process.
        unknown: jobs that ran and that nobody has a receipt of, though no process that enqueued was killed.
    """

    accepted: int
    repeated: int
    lost: list[str]
    twice: list[str]
    early: list[str]
    stale: list[str]
    unknown: list[str]

    @property
    def wrong(self) -> list[str]:
        """Each broken promise, in words."""
        kinds = {"lost": self.lost, "twice": self.twice, "early": self.early, "stale": self.stale}
        kinds["unknown"] = self.unknown
        return [f"{kind}: {len(them)}, first {them[0]}" for kind, them in kinds.items() if them]


def judge(reader: Reader, faulted: Collection[str], enqueuers_faulted: bool) -> Judgement:
    """Compare what ran with what was promised.

    Args:
        reader: up to date.
        faulted: names of processes that were killed, or stopped for so long that they may have been given up: what
            they ran may run once more elsewhere.
        enqueuers_faulted: a process that enqueued was killed, so a receipt may have died with it.
    """
    repeated = 0
    twice: list[str] = []
    early: list[str] = []
    stale: list[str] = []
    unknown: list[str] = []
    for job, runs in reader.runs.items():
        well = [run for run in runs if run.node not in faulted]
        if len(well) > 1 or len({run.node for run in runs}) < len(runs):
            twice.append(f"{job} {[(it.node, it.token, round(it.at_s, 3)) for it in runs]}")
        elif len(runs) > 1:
            repeated += len(runs) - 1
        tokens = [run.token for run in sorted(well, key=lambda it: it.at_s)]
        if len(runs) > 1 and (len({run.token for run in runs}) < len(runs) or tokens != sorted(tokens)):
            stale.append(f"{job} {[(it.node, it.token) for it in runs]}")
        receipt = reader.accepted.get(job)
        if receipt is not None:
            if runs[0].at_s < receipt.asked_at_s + receipt.run_in_s:
                early.append(f"{job} {runs[0].at_s - receipt.asked_at_s - receipt.run_in_s:.4f} s")
        elif not runs[0].number and job not in reader.unsure and not enqueuers_faulted:
            unknown.append(job)
    return Judgement(len(reader.accepted), repeated, sorted(reader.missing), twice, early, stale, unknown)
