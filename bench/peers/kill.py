"""The same kill for all: one of two workers is killed in the middle of 1,000 jobs of 10 ms.

All processes of that worker get SIGKILL at once. What it was running, and what it had fetched, is **stranded**: what it
was running until it starts again elsewhere; what it had fetched can be told only by its end, if that comes more than a
second after everything else was done. What has not ended after a limit counts as lost, although a system may bring
it back later: its own documentation says when, and the table says the limit.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..measure import Wrong
from .rows import PATIENCE_S, WARM_UP
from .stage import Mark, Stage, session_of
from .systems import System

SLOTS = 4
QUIET_S = 1.0
"""When nothing has ended for so long, what ends after it was stranded."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a kill cost.

    Attributes:
        running: jobs that the killed worker was running.
        lost: jobs that have not ended at the limit.
        again: jobs that started more than once.
        stranded: jobs that started again, or ended, only when somebody had noticed, or never.
        stranded_s: the longest of those that did, from the kill; 0: none did.
    """

    jobs: int
    running: int
    lost: int
    again: int
    stranded: int
    stranded_s: float


def judged(marks: Sequence[Mark], jobs: int, killed_at: float, victim: frozenset[int]) -> Outcome:
    """What the marks of a run say.

    Args:
        victim: ids of the processes that were killed.
    """
    starts = Counter(mark.number for mark in marks if not mark.end)
    ended = sorted((mark.at, mark.number) for mark in marks if mark.end)
    done = {number for _, number in ended}
    cut = {mark.number for mark in marks if mark.process in victim and not mark.end}
    cut -= {mark.number for mark in marks if mark.process in victim and mark.end}
    spans = dict.fromkeys(cut, 0.0)
    for mark in marks:
        if mark.number in cut and mark.process not in victim and not mark.end:
            spans[mark.number] = max(spans[mark.number], mark.at - killed_at)
    quiet_from = killed_at
    first_end: dict[int, float] = {}
    for at, number in ended:
        first_end.setdefault(number, at)
    for at, number in sorted((at, number) for number, at in first_end.items()):
        if at > killed_at and at - quiet_from > QUIET_S:
            spans.setdefault(number, at - killed_at)
        elif at > killed_at:
            quiet_from = at
    lost = set(range(jobs)) - done
    return Outcome(
        jobs,
        len(cut),
        len(lost),
        sum(count > 1 for count in starts.values()),
        len(spans.keys() | lost),
        max(spans.values(), default=0.0),
    )


async def strike(
    system: System, python: str, folder: Path, jobs: int, limit_s: float, turn_of: asyncio.Lock
) -> Outcome:
    """Kill a worker and see what becomes of its jobs.

    Args:
        turn_of: held while work is done, not while what is stranded is waited for.

    Raises:
        Wrong: there was nothing to kill.
    """
    folder.mkdir(mode=0o700)
    async with Stage(system, python, folder, slots=SLOTS, long=True) as stage:
        async with turn_of:
            killed_at, victim = await _until_killed(stage, jobs)
            await _until_quiet(stage, jobs, killed_at, limit_s)
        while not _all_ended(stage, jobs) and time.monotonic() < killed_at + limit_s:
            await asyncio.sleep(0.1)
        return judged(stage.marks(), jobs, killed_at, victim)


async def _until_killed(stage: Stage, jobs: int) -> tuple[float, frozenset[int]]:
    await stage.start_producer()
    for _ in range(2):
        await stage.start_worker()
    await stage.order("meet", count=3)
    await _both_run(stage)
    stage.wipe()
    ordered = asyncio.create_task(stage.order("work", first=0, count=jobs))
    try:
        victim = stage.workers[0]
        if not await stage.reach(2 * jobs // 3, PATIENCE_S):  # two marks each: a third of them has run
            raise Wrong(f"{stage.system.name}: {stage.count()} marks of {jobs} jobs after {PATIENCE_S:g} s")
        processes = frozenset(
            process for process in {mark.process for mark in stage.marks()} if session_of(process) == victim.pid
        )
        killed_at = time.monotonic()
        await stage.kill(victim)
        await ordered
    finally:
        ordered.cancel()
    return killed_at, processes


async def _both_run(stage: Stage) -> None:
    """Until both workers have run jobs."""
    until, first = time.monotonic() + PATIENCE_S, 0
    while time.monotonic() < until:
        await stage.order("work", first=first, count=WARM_UP)
        first += WARM_UP
        await stage.reach(2 * first, PATIENCE_S)
        if len({session_of(mark.process) for mark in stage.marks()}) > 1:
            return
    raise Wrong(f"{stage.system.name}: only one of two workers runs jobs")


async def _until_quiet(stage: Stage, jobs: int, killed_at: float, limit_s: float) -> None:
    """Until all has ended, or nothing has happened for a while."""
    count, since = stage.count(), time.monotonic()
    while not _all_ended(stage, jobs) and time.monotonic() < min(since + QUIET_S, killed_at + limit_s):
        await asyncio.sleep(0.05)
        if stage.count() != count:
            count, since = stage.count(), time.monotonic()


def _all_ended(stage: Stage, jobs: int) -> bool:
    return len({mark.number for mark in stage.marks() if mark.end}) >= jobs
