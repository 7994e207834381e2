"""What a run of all systems came to, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..measure import Measure, Report, Spread, machine_line, ratios, short
from .kill import Outcome
from .rows import CLIENTS, FIRST, LATE_P50, LATE_P99, MEMORY, START_P50, START_P99, SUSTAINED, UNITS, Turn
from .systems import BASELINE, SYSTEMS, System

RATES = (SUSTAINED, CLIENTS)
"""Rows that people read in jobs per second."""
ALONE = "zhero alone"


@dataclass(frozen=True, slots=True)
class Goal:
    """What zhero wants to be. With `times`: so many times less than the best peer; without: a cost, `miss` None is that
    of the best peer."""

    question: str
    row: str
    subject: str
    goal: float
    miss: float | None
    times: bool = True
    acks: bool = False
    """Only peers that acknowledge after the run are compared."""


GOALS = (
    Goal("sustained, two processes", SUSTAINED, BASELINE, 15, 10, acks=True),
    Goal("sustained, 500 clients", CLIENTS, BASELINE, 8, 5, acks=True),
    Goal("sustained, one process alone", SUSTAINED, ALONE, 25, 15, acks=True),
    Goal("enqueue to start, alone, p50", START_P50, ALONE, 10, 5),
    Goal("enqueue to start, alone, p99", START_P99, ALONE, 10, 5),
    Goal("enqueue to start, two processes, p50", START_P50, BASELINE, 3, 2),
    Goal("delayed jobs late, p50, ms", LATE_P50, BASELINE, 1, None, times=False),
    Goal("delayed jobs late, p99, ms", LATE_P99, BASELINE, 5, None, times=False),
    Goal("process start to first job, ms", FIRST, ALONE, 130, None, times=False),
    Goal("memory per queued job and copy, bytes", MEMORY, BASELINE, 350, 600, times=False),
)


@dataclass(slots=True)
class Results:
    """All of one run.

    Attributes:
        turns: system -> its turns, one a round; None: it failed in that round.
        kills: system -> what the kill cost.
        versions: system -> what was installed.
        failed: system -> why it, or a part of it, is not in the tables.
    """

    kill_limit_s: float
    turns: dict[str, list[Turn | None]] = field(default_factory=dict[str, "list[Turn | None]"])
    kills: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    failed: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])

    def fail(self, system: str, why: str) -> None:
        self.failed.setdefault(system, []).append(why)

    def costs(self, system: str, row: str) -> list[float | None]:
        """One a round; None: there is none."""
        return [None if turn is None else turn.figures.get(row) for turn in self.turns.get(system, [])]

    def pairs(self, row: str, one: str, other: str) -> tuple[list[float], list[float]]:
        """The costs of two systems in the rounds that both have."""
        both = zip(self.costs(one, row), self.costs(other, row), strict=False)
        kept = [(mine, its) for mine, its in both if mine is not None and its is not None]
        return [mine for mine, _ in kept], [its for _, its in kept]

    def known(self, system: str, row: str) -> list[float]:
        return [cost for cost in self.costs(system, row) if cost is not None]

    def best(self, row: str, acks: bool) -> str | None:
        """The peer with the least median cost."""
        peers = [it.name for it in SYSTEMS if it.broker and (it.acks or not acks) and self.known(it.name, row)]
        return min(peers, key=lambda name: Spread.of(self.known(name, row)).median, default=None)


def measures(results: Results) -> list[Measure]:
    """Each row of zhero beside each of the others."""
    found: list[Measure] = []
    for row, unit in UNITS.items():
        for system in SYSTEMS:
            mine, its = results.pairs(row, BASELINE, system.name)
            if system.name != BASELINE and mine:
                found.append(Measure(row, system.name, unit, mine, its))
    return found


def reached(results: Results, goal: Goal) -> dict[str, Any] | None:
    """How a goal came out; None: nothing was measured for it."""
    best = results.best(goal.row, goal.acks)
    own = results.known(goal.subject, goal.row)
    if not own or (best is None and (goal.times or goal.miss is None)):
        return None
    mine, its = ([], []) if best is None else results.pairs(goal.row, goal.subject, best)
    if best is not None and not mine:
        return None
    theirs = Spread.of(its).median if its else None
    spread = Spread.of(ratios(its, mine) if goal.times else own)
    miss = goal.miss if goal.miss is not None else theirs
    assert miss is not None
    good = spread.median >= goal.goal if goal.times else spread.median <= goal.goal
    enough = spread.median >= miss if goal.times else spread.median <= miss
    return {
        "question": goal.question,
        "zhero": Spread.of(own).median,
        "best_peer": best,
        "best_peers": theirs,
        "unit": UNITS[goal.row],
        "got": asdict(spread),
        "goal": goal.goal,
        "miss": miss,
        "times": goal.times,
        "verdict": "reached" if good else "between" if enough else "MISSED",
    }


def as_json(results: Results, report: Report) -> dict[str, Any]:
    """Everything, with every round."""
    return {
        **report.as_json(),
        "systems": {
            it.name: {"versions": results.versions[it.name], "held": it.held, "acknowledged": it.acknowledged}
            for it in SYSTEMS
            if it.name in results.versions
        },
        "early": {name: sum(turn.early for turn in turns if turn) for name, turns in results.turns.items()},
        "kills": {name: asdict(outcome) for name, outcome in results.kills.items()},
        "kill_limit_s": results.kill_limit_s,
        "goals": [told for goal in GOALS if (told := reached(results, goal))],
        "failed": results.failed,
    }


def text(results: Results, report: Report) -> str:
    """For people."""
    shown = [it for it in SYSTEMS if it.name in results.versions]
    parts = [f"{report.question}\n{machine_line(report.machine)}", _promises(shown, results)]
    parts += [part for row in UNITS if (part := _row(row, shown, results))]
    if results.kills:
        parts.append(_kills(shown, results))
    goals = [told for goal in GOALS if (told := reached(results, goal))]
    if goals:
        parts.append(_goals(goals))
    parts += [f"{name}: {why}" for name, said in results.failed.items() for why in said]
    return "\n\n".join(parts)


def _promises(shown: Sequence[System], results: Results) -> str:
    rows = [["system", "versions", "a job is held in", "acknowledged"]]
    rows += [[it.name, results.versions[it.name], it.held, it.acknowledged] for it in shown]
    return aligned(rows, 4) + "\nRedis keeps nothing on disk here: what it holds is gone when it is."


def _row(row: str, shown: Sequence[System], results: Results) -> str | None:
    unit = "jobs/s" if row in RATES else UNITS[row]
    rows = [[f"{row}, {unit}", "median", "min..max", "zhero is", "min..max"]]
    for system in shown:
        known = results.known(system.name, row)
        if not known:
            continue
        spread = Spread.of([1e6 / cost for cost in known] if row in RATES else known)
        line = [system.name, short(spread.median), f"{short(spread.min)}..{short(spread.max)}"]
        mine, its = results.pairs(row, BASELINE, system.name)
        if system.name != BASELINE and mine:
            times = Spread.of(ratios(its, mine))
            line += [f"{short(times.median)}x", f"{short(times.min)}..{short(times.max)}"]
        else:
            line += ["", ""]
        early = sum(turn.early for turn in results.turns[system.name] if turn)
        if row == LATE_P50 and early:
            line[-1] += f"  {early:,} jobs started early"
        rows.append(line)
    return aligned(rows, 1) if len(rows) > 1 else None


def _kills(shown: Sequence[System], results: Results) -> str:
    rows = [["one of two workers killed", "jobs", "was running", "lost", "run twice", "stranded", "for s, the longest"]]
    for system in shown:
        if it := results.kills.get(system.name):
            waited = f"over {results.kill_limit_s:g}" if it.lost else short(it.stranded_s)
            cells = (it.jobs, it.running, it.lost, it.again, it.stranded)
            rows.append([system.name, *(f"{cell:,}" for cell in cells), waited if it.stranded else "-"])
    return aligned(rows, 1) + f"\nLost: not ended {results.kill_limit_s:g} s after the kill."


def _goals(goals: Sequence[dict[str, Any]]) -> str:
    rows = [["goal", "wanted", "a miss", "got", "min..max", "verdict", "zhero", "best peer"]]
    for told in goals:
        mark, got = "x" if told["times"] else "", told["got"]
        peer = f"{told['best_peer']} {short(told['best_peers'])} {told['unit']}" if told["best_peer"] else ""
        rows.append(
            [
                told["question"],
                f"{told['goal']:g}{mark}",
                f"{short(told['miss'])}{mark}",
                f"{short(got['median'])}{mark}",
                f"{short(got['min'])}..{short(got['max'])}",
                told["verdict"],
                f"{short(told['zhero'])} {told['unit']}",
                peer,
            ]
        )
    return aligned(rows, 1)


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns under one another; the first so many begin at the left."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines: list[str] = []
    for row in rows:
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
