"""What is measured of each system, a turn at a time.

A turn starts all of a system anew: its Redis, its producer, its worker. What is measured is a cost; jobs per second are
shown of it in tables. Rows:

- `first job`: a job waits, a worker is started; ms from then to the start of the job. Alone: from the start of the
  process.
- `sustained`: one producer enqueues by the call for many jobs while one worker runs them; us per job from the first
  call to the start of the last job.
- `clients`: the same by 500 clients, each of which awaits one call after another.
- `start`: ms from a call to the start of its job, one now and then, nothing else to do.
- `late`: ms after it was due that a job starts, all enqueued one after another for a while ahead.
- `memory`: bytes per queued job, in Redis, or in each of the processes that hold it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..measure import Wrong, percentile
from .stage import Stage, resident_bytes
from .systems import System

SUSTAINED, CLIENTS = "sustained", "500 clients"
START_P50, START_P99 = "start, p50", "start, p99"
LATE_P50, LATE_P99 = "late, p50", "late, p99"
FIRST, MEMORY = "first job", "memory"
UNITS = {
    SUSTAINED: "us/job",
    CLIENTS: "us/job",
    START_P50: "ms",
    START_P99: "ms",
    LATE_P50: "ms",
    LATE_P99: "ms",
    FIRST: "ms",
    MEMORY: "bytes/job",
}
"""Row -> unit of its cost."""
CLIENT_COUNT = 500
PATIENCE_S = 60.0
"""How long jobs may stay undone before a row is given up."""
WARM_UP = 50
LATE_LEAST_MS = 0.001
"""What is not late at all, or early, counts as this: a ratio needs something."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is measured in a turn.

    Attributes:
        seconds: about how long jobs are enqueued and run in `sustained`; in `clients` half of it.
        starts, gap_s: jobs of `start`, and the time from one to the next.
        later, ahead_s: jobs of `late`, and how far ahead they are due.
    """

    seconds: float
    starts: int
    gap_s: float
    later: int
    ahead_s: float


@dataclass(slots=True)
class Turn:
    """What one turn gave: row -> cost; and what has to be told besides."""

    figures: dict[str, float] = field(default_factory=dict[str, float])
    counted: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Row -> jobs that were to run, and marks that were found."""
    early: int = 0
    """Delayed jobs that started before they were due."""


async def take(system: System, python: str, folder: Path, amounts: Amounts) -> Turn:
    """One turn of one system.

    Raises:
        Wrong: it does not run.
    """
    turn = Turn()
    (folder / "run").mkdir(mode=0o700)
    (folder / "memory").mkdir(mode=0o700)
    async with Stage(system, python, folder / "run") as stage:
        turn.figures[FIRST] = await first_job(stage)
        await enqueued(stage, turn, "warm-up", WARM_UP, "many")
        count = max(WARM_UP, round(system.rate * amounts.seconds))
        turn.figures[SUSTAINED] = await enqueued(stage, turn, SUSTAINED, count, "many")
        count = max(CLIENT_COUNT, count // 2)
        turn.figures[CLIENTS] = await enqueued(stage, turn, CLIENTS, count, "clients", clients=CLIENT_COUNT)
        starts = await spans_ms(stage, turn, START_P50, amounts.starts, "paced", gap_s=amounts.gap_s)
        late = await spans_ms(stage, turn, LATE_P50, amounts.later, "later", span_s=amounts.ahead_s)
        turn.early = sum(span < 0 for span in late)
        late = [max(span, LATE_LEAST_MS) for span in late]
        for row, spans, share in (
            (START_P50, starts, 0.5),
            (START_P99, starts, 0.99),
            (LATE_P50, late, 0.5),
            (LATE_P99, late, 0.99),
        ):
            turn.figures[row] = percentile(spans, share)
    async with Stage(system, python, folder / "memory", slots=0, long=True) as stage:
        jobs = max(1_000, round(system.rate * amounts.seconds))
        if not system.alone:
            turn.figures[MEMORY] = await memory(stage, jobs)
    return turn


async def first_job(stage: Stage) -> float:
    """Ms from the start of a worker to its first job, or of all that there is."""
    began = time.monotonic()
    await stage.start_producer()
    await stage.order("many", first=0, count=1)
    if not stage.system.alone:
        command = await asyncio.to_thread(stage.worker_command)
        began = time.monotonic()
        await stage.spawn_worker(command)
    if not await stage.reach(1, PATIENCE_S):
        raise Wrong(f"{stage.system.name}: no job has run after {PATIENCE_S:g} s: {stage.said()}")
    taken_ms = (stage.marks()[0].at - began) * 1e3
    await stage.start_beside()
    return taken_ms


async def enqueued(stage: Stage, turn: Turn, row: str, count: int, do: str, **what: int) -> float:
    """Us per job, from the first call to the start of the last job."""
    answer = await ran(stage, turn, row, count, do, **what)
    began: float = answer["began"]
    return (max(mark.at for mark in stage.marks()) - began) / count * 1e6


async def spans_ms(stage: Stage, turn: Turn, row: str, count: int, do: str, **what: float) -> Sequence[float]:
    """Ms from the moment that the producer tells of a job to the start of the job."""
    answer = await ran(stage, turn, row, count, do, **what)
    return [(mark.at - answer["at"][mark.number]) * 1e3 for mark in stage.marks()]


async def ran(stage: Stage, turn: Turn, row: str, count: int, do: str, **what: float) -> dict[str, Any]:
    """Have jobs enqueued and wait until each has run.

    Raises:
        Wrong: they have not, after so long.
    """
    stage.wipe()
    answer = await stage.order(do, first=0, count=count, **what)
    whole = await stage.reach(count, PATIENCE_S)
    turn.counted[row] = (count, stage.count())
    if not whole:
        raise Wrong(f"{stage.system.name}, {row}: {stage.count()} of {count} jobs have run after {PATIENCE_S:g} s")
    return answer


async def memory(stage: Stage, jobs: int) -> float:
    """Bytes that a queued job takes where it is held."""
    await stage.start_producer()
    if not stage.system.broker:
        await stage.start_worker()
        await stage.order("meet", count=2)
    await stage.order("many", first=0, count=WARM_UP)
    before = await held_bytes(stage)
    await stage.order("many", first=0, count=jobs)
    copies = 1 if stage.system.broker else 2
    return (await held_bytes(stage) - before) / jobs / copies


async def held_bytes(stage: Stage) -> int:
    """Of all that hold jobs."""
    if stage.system.broker:
        return await stage.redis_bytes()
    assert stage.producer is not None
    assert sys.platform != "win32"
    return sum(resident_bytes(child.pid) for child in (stage.producer, *stage.workers))
