"""How evenly is work spread over nodes, how soon does an urgent job start, and does each run once?

Real processes, none of which is killed (but in `all`). Rows, each beside what is promised or would be ideal:

- `shares`: one of three processes enqueues 300 jobs of 10 ms, as a batch (full load) or one by one (low load), with
  equal workers and with 1, 2 and 4; of each round the share that is furthest from fair, as a ratio to it.
- `lone`: a periodic task that is alone; on how many of three processes its 30 rounds ran.
- `flood`: one process has more jobs of 10 ms than can be run; until one job at another process, and one that becomes
  due, have started.
- `drain`: 100,000 jobs at one process, and nine more join; the share of each process of what ran after that, times ten.
- `once`: 200,000 jobs, enqueued by three processes while others join and leave; microseconds per job, beside the same
  on one process that is alone.
- `all`: a job for all of five processes, of which one is killed and one blocked while another joins; until its end.

A job that is lost or run twice fails the bench; a share beyond its bounds and a job that is late are wrong counts.

    python -m bench.spread [--quick] [--json] [--repeats n] [--only part]... [--profile name]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.chaos import spread
from tests.chaos.herd import Failed
from zhero.config import PROFILES

from .measure import Plan, Report, Wrong, chosen, column, parser, run

PLAN = Plan(jobs=200_000, repeats=20, seconds=0)
QUICK = Plan(jobs=3_000, repeats=1, seconds=0)
"""`jobs`: of `once`; half as many in `drain`, over ten processes (quick: four)."""
PARTS = ("shares", "lone", "flood", "drain", "once", "all")
LONE_ROUNDS = 5
ALL_ROUNDS = 5
ALL_PROMISED_S = 3.5
"""The parts take 1.5 s, and a loop is blocked for 2."""


async def measure_all(plan: Plan, quick: bool, profile: str, parts: Sequence[str], report: Report) -> None:
    """The parts that are asked for, in their order."""

    def tell(name: str, against: str, unit: str, it: spread.Spread, ideal: float) -> None:
        made = column(name, against, unit)
        made.subject.extend(it.values)
        made.baseline.extend([ideal] * len(it.values))
        report.measures.append(made)
        report.count(f"{name}: jobs that ran once", it.jobs, it.jobs)
        report.count(f"{name}: within bounds", len(it.values), len(it.values) - it.beyond)

    async def measure(part: str) -> None:
        match part:
            case "shares":
                for workers in ((8, 8, 8), (1, 2, 4)):
                    for full in (False, True):
                        it = await spread.shares(plan.repeats, workers, full=full, profile=profile)
                        load = "full" if full else "low"
                        words = "/".join(map(str, workers))
                        tell(f"furthest share, {words}, {load} load", "fair", "of fair", it, 1)
            case "lone":
                for _ in range(min(LONE_ROUNDS, plan.repeats)):
                    it = await spread.lone_rounds(profile)
                    tell("processes with a round", "promised", "processes", it, 2)
            case "flood":
                it = await spread.flood(plan.repeats, profile=profile)
                tell("urgent beside a flood", "promised", "s", it, spread.PROMPT_S)
            case "drain":
                it = await spread.drain(plan.jobs // 2, 3 if quick else 9, profile=profile)
                tell("share after joins", "fair", "of fair", it, 1)
            case "once":
                alone = await spread.come_and_go(max(1_000, plan.jobs // 10), nodes=1, profile=profile)
                it = await spread.come_and_go(plan.jobs, profile=profile)
                tell("once, joins and leaves", "one alone", "us/job", it, alone.values[0])
            case _:
                it = await spread.everywhere(min(ALL_ROUNDS, plan.repeats), profile)
                tell("all: end", "promised", "s", it, ALL_PROMISED_S)

    for part in parts:
        try:
            await measure(part)
        except Failed as error:
            raise Wrong(f"{part}: {error}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--profile", choices=PROFILES, default="lan", help="of the nodes; default lan")
    made.add_argument("--only", action="append", choices=PARTS, help="this part; again for more; default: all")
    args = made.parse_args(argv)
    plan, parts = chosen(args), args.only or list(PARTS)
    options = {"repeats": plan.repeats, "jobs": plan.jobs, "profile": args.profile, "only": parts}
    report = Report("spread: who runs what, and how soon", options)
    return run(measure_all(plan, args.quick, args.profile, parts, report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
