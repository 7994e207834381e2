"""See the docstring of the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..measure import Plan, Report, Wrong, chosen, parser
from . import __doc__ as question
from .environments import ROOT, Unusable, prepared, versions
from .kill import strike
from .rows import Amounts, take
from .stage import redis_program
from .systems import NAMES, SYSTEMS, System
from .tables import Results, as_json, measures, text

PLAN = Plan(jobs=2_000, repeats=3, seconds=2)
QUICK = Plan(jobs=200, repeats=1, seconds=0.4)
"""`jobs`: those that are due later; `seconds`: about how long a system sustains its jobs in each round."""
AMOUNTS = {False: (100, 0.05, 2.0), True: (20, 0.04, 1.0)}
"""Quick or not -> jobs whose start is timed, seconds between them, how far ahead delayed ones are due."""
KILL_JOBS = {False: 1_000, True: 400}
KILL_LIMIT_S = {False: 90.0, True: 3.0}
NOT_HERE = 3
"""Exit code when what is needed is not on this machine: nothing was measured, and nothing is wrong with zhero."""


async def measure_all(
    systems: Sequence[System], pythons: dict[str, str], plan: Plan, args: argparse.Namespace, results: Results
) -> None:
    """All turns of all systems, then the kills; what fails of one is told, and the others go on."""
    amounts = Amounts(plan.seconds, *AMOUNTS[args.quick][:2], plan.jobs, AMOUNTS[args.quick][2])
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        for number in range(plan.repeats):
            first = number * len(systems) // plan.repeats  # each round begins with another one
            for system in [*systems[first:], *systems[:first]]:
                told(f"round {number + 1} of {plan.repeats}: {system.name}")
                place = Path(folder, f"{number}-{system.name.replace(' ', '-')}")
                place.mkdir(mode=0o700)
                turns = results.turns.setdefault(system.name, [])
                try:
                    turns.append(await take(system, pythons[system.name], place, amounts))
                except Wrong as error:
                    results.fail(system.name, f"round {number + 1}: {error}")
                    turns.append(None)
                shutil.rmtree(place)
        if args.kill_limit:
            await kill_all(systems, pythons, args, Path(folder), results)


async def kill_all(
    systems: Sequence[System], pythons: dict[str, str], args: argparse.Namespace, folder: Path, results: Results
) -> None:
    """One kill each. They work one after another, and wait for what is stranded together."""
    turn_of = asyncio.Lock()

    async def one(system: System) -> None:
        place = folder / f"kill-{system.module}"
        try:
            results.kills[system.name] = await strike(
                system, pythons[system.name], place, KILL_JOBS[args.quick], args.kill_limit, turn_of
            )
        except Wrong as error:
            results.fail(system.name, f"kill: {error}")
        told(f"killed a worker of {system.name}")

    await asyncio.gather(*(one(system) for system in systems if not system.alone))


def told(what: str) -> None:
    """Where we are, for those who wait."""
    print(what, file=sys.stderr, flush=True)


def usable(systems: Sequence[System], root: Path, results: Results) -> tuple[list[System], dict[str, str]]:
    """Those that can be run here, with their interpreters."""
    found: list[System] = []
    pythons: dict[str, str] = {}
    for system in systems:
        try:
            pythons[system.name] = prepared(system, root)
        except Unusable as error:
            results.fail(system.name, str(error))
            continue
        results.versions[system.name] = versions(system, pythons[system.name])
        found.append(system)
    return found, pythons


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert question is not None
    made = parser(question, PLAN, QUICK)
    made.add_argument("--only", action="append", choices=NAMES, help="this system; again for more; zhero always is")
    made.add_argument(
        "--kill-limit", type=float, help="s to wait for what is stranded; 0: no kill; default 90, quick 3"
    )
    made.add_argument("--environments", type=Path, default=ROOT, help="where the peers are installed, once")
    made.add_argument("--prepare", action="store_true", help="install them, and no more")
    args = made.parse_args(argv)
    if args.kill_limit is None:
        args.kill_limit = KILL_LIMIT_S[args.quick]
    plan = chosen(args)
    wanted = [it for it in SYSTEMS if not args.only or it.name in (*args.only, SYSTEMS[0].name)]
    report = Report(
        "peers: the same job through other task queues",
        {"jobs": plan.jobs, "repeats": plan.repeats, "seconds": plan.seconds, "systems": [it.name for it in wanted]},
    )
    results = Results(args.kill_limit)
    try:
        if any(it.broker for it in wanted):
            redis_program()
    except Wrong as error:
        print(f"not measured: {error}", file=sys.stderr)
        return NOT_HERE
    systems, pythons = usable(wanted, args.environments, results)
    if args.prepare:
        print(text(results, report))
        return 0
    asyncio.run(measure_all(systems, pythons, plan, args, results))
    report.measures.extend(measures(results))
    for system in systems:
        for turn in results.turns.get(system.name, []) if not system.broker else ():
            for row, (expected, counted) in turn.counted.items() if turn else ():
                report.count(f"{system.name}, {row}", expected, counted)
    print(json.dumps(as_json(results, report), indent=2) if args.json else text(results, report))
    own = [why for it in SYSTEMS if not it.broker for why in results.failed.get(it.name, [])]
    for line in (*report.wrong, *own):
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if report.wrong or own else 0


if __name__ == "__main__":
    sys.exit(main())
