"""How long does a killed process hold up the work of others, and is anything lost?

Three real processes under work, of which one gets SIGKILL, again and again; in `any` five. Rows, each beside what is
promised:

- `home`: 10,000 of its jobs are ready; until the first of them starts elsewhere.
- `backup`: while its home takes jobs one by one; until the next is accepted, and the longest that an enqueue took.
- `executor`: of jobs of another home; until the first that it was running starts again.
- `owner`: of 1,000 delayed jobs that become due around the kill; until the first of them starts elsewhere, and how late
  the latest of all was, beside that span in the same round.
- `rounds`: the owner every 3 s, with a periodic task of 1 s; until its next round, and what came between two rounds
  beyond the period.
- `two`: one of two, until the other shows that its jobs lack copies; and until they have them again.
- `any`: any of five under load, every third time the owner, each time copies are whole again.

What ran is taken from a file that the jobs write, what was accepted from one that the callers write; an accepted job
that did not end, or one that ran more often than the kills explain, fails the bench.

    python -m bench.kills [--quick] [--json] [--repeats kills] [--only part]... [--profile name] [--seed n]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.chaos import kills
from tests.chaos.herd import Failed
from zhero.config import PROFILES

from .measure import Plan, Report, Wrong, chosen, column, parser, run

PLAN = Plan(jobs=10_000, repeats=20, seconds=60)
QUICK = Plan(jobs=1_000, repeats=1, seconds=6)
"""`repeats`: kills of each kind; `seconds`: how long `rounds` lasts."""
PARTS = ("home", "backup", "executor", "owner", "rounds", "two", "any")
PROMISED_MS = 1_000.0
OWNER_EVERY_S = 3.0
TWO_ROUNDS = 5
ANY_TIMES = 5
"""`any` has so many times the kills of the others."""


def tell(report: Report, name: str, against: str, subject_s: Sequence[float], baseline_s: Sequence[float]) -> None:
    """A row, in ms."""
    measure = column(name, against, "ms")
    measure.subject.extend(max(1e3 * span, 0.001) for span in subject_s)
    measure.baseline.extend(1e3 * span for span in baseline_s)
    report.measures.append(measure)


def promised(values: Sequence[float]) -> list[float]:
    """The second within which the work goes on, for each."""
    return [PROMISED_MS / 1e3] * len(values)


async def measure_all(plan: Plan, profile: str, parts: Sequence[str], seed: int, report: Report) -> None:
    """The parts that are asked for, in their order."""
    for part in parts:
        try:
            await measure(part, plan, profile, seed, report)
        except Failed as error:
            raise Wrong(f"{part}: {error}") from None


async def measure(part: str, plan: Plan, profile: str, seed: int, report: Report) -> None:
    """One part."""
    second = None
    match part:
        case "home":
            deaths = await kills.kill_homes(plan.repeats, plan.jobs, profile)
        case "backup":
            deaths = await kills.kill_backups(plan.repeats, profile=profile)
            second = "backup: longest enqueue"
        case "executor":
            deaths = await kills.kill_executors(plan.repeats, profile)
        case "owner":
            deaths = await kills.kill_owners(plan.repeats, plan.jobs // 10, profile)
            tell(report, "owner: latest delayed job", "first elsewhere", deaths.late_s, deaths.elsewhere_s)
        case "rounds":
            deaths = await kills.kill_owner_every(OWNER_EVERY_S, plan.seconds, profile)
            second = "rounds: beyond the period"
        case "two":
            deaths = await kills.two_one_two(min(plan.repeats, TWO_ROUNDS), profile)
            second = "two: whole again"
        case _:
            deaths = await kills.kill_any(ANY_TIMES * plan.repeats, seed, profile=profile)
    what = {"backup": "next accepted", "rounds": "next round", "two": "degraded shown"}.get(part, "first elsewhere")
    tell(report, f"{part}: {what}", "promised", deaths.elsewhere_s, promised(deaths.elsewhere_s))
    if second is not None:
        tell(report, second, "promised", deaths.late_s, promised(deaths.late_s))
    report.count(f"{part}: accepted jobs that ended", deaths.accepted, deaths.accepted)
    report.count(f"{part}: runs repeated, all of killed processes", deaths.repeated, deaths.repeated)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--profile", choices=PROFILES, default="lan", help="of the nodes; default lan")
    made.add_argument("--only", action="append", choices=PARTS, help="this part; again for more; default: all")
    made.add_argument("--seed", type=int, default=1, help="of what `any` kills; default 1")
    args = made.parse_args(argv)
    plan, parts = chosen(args), args.only or list(PARTS)
    options = {"repeats": plan.repeats, "jobs": plan.jobs, "seconds": plan.seconds, "profile": args.profile}
    report = Report("kills: how long the work of others is held up", {**options, "only": parts, "seed": args.seed})
    return run(measure_all(plan, args.profile, parts, args.seed, report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
