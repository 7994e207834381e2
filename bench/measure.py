"""What every bench does the same way: rounds of subject and baseline in turn, their statistics, and how they are shown.

A figure alone says little on a machine that is shared or whose clock moves: the same code runs at half the speed a
minute later. So each **measure** has a baseline, taken in the same run, in the same round, next to the subject; which
of the two goes first changes from round to round. Its **ratio** is computed within each round, where both saw the same
machine, and the rounds give its spread.

Everything measured is a *cost*: microseconds per job, bytes per job, milliseconds. A ratio is therefore "how many times
as much as the baseline", less is better, and 1 is free.

Percentiles are by nearest rank: always a value that was measured, never one between two. Over few rounds the p99 is the
greatest of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import zmq

import zhero

ROUNDS_MIN = 3
"""So many rounds are made even when the time for a measure is over: fewer have no spread."""

Take = Callable[[], Awaitable[Sequence[float]]]
"""One round of one side: a cost per column of the measure."""


class Wrong(Exception):
    """A bench did not do what it is to measure, so its figures mean nothing."""


# --- statistics ---------------------------------------------------------------------------------------------------


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of all values does not exceed.

    Args:
        values: in any order, at least one.
        share: more than 0, at most 1; 0.5 is the median.
    """
    rank = math.ceil(share * len(values))
    return sorted(values)[max(rank, 1) - 1]


@dataclass(frozen=True, slots=True)
class Spread:
    """How values of one kind lie."""

    min: float
    median: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(min(values), percentile(values, 0.5), percentile(values, 0.99), max(values))


def ratios(subject: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Subject through baseline, round by round."""
    return [mine / other for mine, other in zip(subject, baseline, strict=True)]


@dataclass(frozen=True, slots=True)
class Measure:
    """What one question gave. `subject` and `baseline`: one cost a round, in `unit`."""

    name: str
    against: str
    unit: str
    subject: list[float]
    baseline: list[float]

    def as_json(self) -> dict[str, Any]:
        """The measure with its statistics; the raw rounds last."""
        return {
            "name": self.name,
            "against": self.against,
            "unit": self.unit,
            "rounds": len(self.subject),
            "subject": asdict(Spread.of(self.subject)),
            "baseline": asdict(Spread.of(self.baseline)),
            "ratio": asdict(Spread.of(ratios(self.subject, self.baseline))),
            "subject_rounds": self.subject,
            "baseline_rounds": self.baseline,
        }


# --- rounds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        jobs: per round.
        repeats: rounds of each measure, after one that only warms up.
        seconds: a measure that takes longer ends after the round it is in, but not before `ROUNDS_MIN` or `repeats`.
    """

    jobs: int
    repeats: int
    seconds: float


async def rounds(plan: Plan, columns: Sequence[Measure], subject: Take, baseline: Take, warm_up: bool = True) -> None:
    """Take subject and baseline in turn and put their costs into the columns, after one round that is thrown away.

    Args:
        plan: how many rounds.
        columns: what a round gives, in the order in which subject and baseline return it.
        warm_up: False: the first round counts too, as nothing of it is left for the next.
    """
    if warm_up:
        await baseline()
        await subject()
    until = time.perf_counter() + plan.seconds
    for number in range(plan.repeats):
        if number >= ROUNDS_MIN and time.perf_counter() >= until:
            break
        if number % 2:
            mine, other = await subject(), await baseline()
        else:
            other, mine = await baseline(), await subject()
        for column, cost, base in zip(columns, mine, other, strict=True):
            column.subject.append(cost)
            column.baseline.append(base)


def column(name: str, against: str, unit: str) -> Measure:
    """A measure that has no rounds yet."""
    return Measure(name, against, unit, [], [])


# --- what is told -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """All that one script found.

    Attributes:
        counts: what was to be done and what was done: name -> (expected, counted).
        machine: on what it ran; its load is that before anything was measured.
    """

    question: str
    options: dict[str, Any]
    measures: list[Measure] = field(default_factory=list[Measure])
    counts: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def count(self, name: str, expected: int, counted: int) -> None:
        """Add to what was to be done and to what was."""
        before = self.counts.get(name, (0, 0))
        self.counts[name] = (before[0] + expected, before[1] + counted)

    @property
    def wrong(self) -> list[str]:
        """What was not done as often as it was to be."""
        return [
            f"{name}: {got} instead of {expected}" for name, (expected, got) in self.counts.items() if expected != got
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "machine": self.machine,
            "options": self.options,
            "measures": [measure.as_json() for measure in self.measures],
            "counts": {name: {"expected": want, "counted": got} for name, (want, got) in self.counts.items()},
            "wrong": self.wrong,
        }


def machine() -> dict[str, Any]:
    """On what it ran. Nothing in it tells whose machine it was."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "zhero": zhero.__version__,
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgpack": metadata.version("msgpack"),
    }


def run(measuring: Coroutine[Any, Any, None], report: Report, as_json: bool) -> int:
    """Measure, then print the report; the exit code is 0 only if its figures mean anything."""
    try:
        asyncio.run(measuring)
    except Wrong as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report.as_json(), indent=2) if as_json else text(report))
    for line in report.wrong:
        print(f"wrong count: {line}", file=sys.stderr)
    return 1 if report.wrong else 0


def text(report: Report) -> str:
    """A report for people."""
    head = ["measure", "baseline", "unit", "median", "min..max", "baseline's", "ratio", "min..max"]
    rows = [head, *(_row(measure) for measure in report.measures)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    lines = [report.question, machine_line(report.machine), ""]
    for row in rows:
        words = (
            word.ljust(width) if place < 3 else word.rjust(width)
            for place, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(words).rstrip())
    wanted, counted = (sum(pair[place] for pair in report.counts.values()) for place in (0, 1))
    return "\n".join([*lines, "", f"counted: {counted:,} of {wanted:,}"])


def machine_line(it: dict[str, Any]) -> str:
    """What `machine` found, in words."""
    return (
        f"{it['python']}, zhero {it['zhero']}, pyzmq {it['pyzmq']} (libzmq {it['libzmq']}), msgpack {it['msgpack']}; "
        f"{it['system']} {it['processor']}, {it['cores']} cores, load {it['load']}"
    )


def _row(measure: Measure) -> list[str]:
    subject, baseline = Spread.of(measure.subject), Spread.of(measure.baseline)
    ratio = Spread.of(ratios(measure.subject, measure.baseline))
    return [
        measure.name,
        measure.against,
        measure.unit,
        short(subject.median),
        f"{short(subject.min)}..{short(subject.max)}",
        short(baseline.median),
        short(ratio.median),
        f"{short(ratio.min)}..{short(ratio.max)}",
    ]


def short(value: float) -> str:
    """Three digits are more than such a figure is good for."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(digits, 0)}f}"


# --- the command line ---------------------------------------------------------------------------------------------


def parser(description: str, plan: Plan, quick: Plan) -> argparse.ArgumentParser:
    """The options that all scripts have; their defaults are those of `plan`, or with --quick those of `quick`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--jobs", type=_positive, help=f"per round; default {plan.jobs:,}, quick {quick.jobs:,}")
    made.add_argument("--repeats", type=_positive, help=f"rounds; default {plan.repeats}, quick {quick.repeats}")
    made.add_argument(
        "--seconds", type=float, help=f"most for a measure; default {plan.seconds:g}, quick {quick.seconds:g}"
    )
    made.add_argument("--quick", action="store_true", help="less of everything")
    made.add_argument("--json", action="store_true", help="for programs, with every round")
    made.set_defaults(plan=plan, quick_plan=quick)
    return made


def chosen(args: argparse.Namespace) -> Plan:
    """What the options of `parser` come to."""
    base: Plan = args.quick_plan if args.quick else args.plan
    return Plan(
        base.jobs if args.jobs is None else args.jobs,
        base.repeats if args.repeats is None else args.repeats,
        base.seconds if args.seconds is None else args.seconds,
    )


def _positive(said: str) -> int:
    number = int(said)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
