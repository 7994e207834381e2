"""Trials without a fault (but one of "all"): who runs what, how soon, and that each job runs once.

Each returns what it measured, and raises `Failed` where a promise of evenness, promptness or "once" was broken.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .herd import Child, Failed, Herd, herd

JOBS = 300
JOB_MS = 10
EVEN = (0.25, 0.42)
"""Least and most of the jobs that each of three equal nodes runs."""
TOLERANCE = 0.25
"""How far shares may be from what the workers of a node are of all workers."""
ROUNDS_SEEN = 30
PROMPT_S = 0.2
"""Within which an urgent and a due job start, whatever flood there is."""
FLOOD_JOBS = 4_000
BATCH = 1_000
BACKLOG = 4_000
"""Jobs per process that enqueues: more are not accepted before some have ended."""


@dataclass(slots=True)
class Spread:
    """What a trial came to.

    Attributes:
        values: what its docstring says, one per round.
        jobs: that were accepted, and ended.
        beyond: rounds in which something was not within its bounds.
    """

    values: list[float] = field(default_factory=list[float])
    jobs: int = 0
    beyond: int = 0

    def total(self, of: Herd) -> None:
        """Judge the whole trial, in which nothing but a kill may have made a job run twice."""
        judgement = of.check(enqueuers_faulted=False)
        if judgement.repeated and not of.killed_at_s:
            raise Failed(f"{judgement.repeated} runs were repeated without a fault")
        self.jobs = judgement.accepted


def counted(of: Herd, jobs: Iterable[str]) -> Counter[str]:
    """Process -> how many of these it started first."""
    return Counter(of.book.runs[job][0].node for job in jobs)


async def shares(rounds: int, workers: Sequence[int], *, full: bool, profile: str = "lan") -> Spread:
    """One process enqueues 300 jobs of 10 ms, at once or as they can be run.

    `values`: of each round, the share that is furthest from what it should be, through that.
    """
    spread = Spread()
    async with herd(profile=profile) as of:
        for count in workers:
            await of.start(workers=count)
        await of.settled()
        producer = of.living[0]
        for _ in range(rounds):
            before = set(of.book.accepted)
            if full:
                await producer.ask("enqueue_many", task="work", params={"ms": JOB_MS}, count=JOBS)
            else:
                for _ in range(JOBS):
                    await producer.ask("enqueue", task="work", params={"ms": JOB_MS})
            await of.done()
            found = counted(of, of.book.accepted.keys() - before)
            fair = [JOBS * count / sum(workers) for count in workers]
            low, high = (JOBS * it for it in EVEN)
            bounds = (
                [(low, high)] * len(workers)
                if len(set(workers)) == 1
                else [(it * (1 - TOLERANCE), it * (1 + TOLERANCE)) for it in fair]
            )
            ran = [found[child.name] for child in of.living]
            spread.beyond += any(not low <= it <= high for it, (low, high) in zip(ran, bounds, strict=True))
            ratios = [it / its for it, its in zip(ran, fair, strict=True)]
            spread.values.append(max(ratios, key=lambda ratio: abs(ratio - 1)))
        spread.total(of)
    return spread


async def lone_rounds(profile: str = "lan") -> Spread:
    """A periodic task that is alone, over 30 rounds. `values`: of how many processes each had one."""
    spread = Spread()
    async with herd(("quick_tick",), profile=profile) as of:
        await of.start_all(3)
        await of.settled()
        of.book.read()
        before = len(of.book.ends)
        await of.until(lambda: of.book.read() or len(of.book.ends) >= before + ROUNDS_SEEN, "rounds have ended")
        starts = of.book.starts()[before : before + ROUNDS_SEEN]
        spread.values.append(len({run.node for run in starts}))
        if spread.values[-1] < 2:
            raise Failed("all rounds ran on one process")
        spread.total(of)
        spread.jobs = len(starts)
    return spread


async def flood(rounds: int, within_s: float = PROMPT_S, profile: str = "lan") -> Spread:
    """Jobs of 10 ms, more than can be run, at one process; then one job at another and one that becomes due.

    `values`: seconds until the later of the two started, from when it was accepted or due.
    """
    spread = Spread()
    async with herd(("work", "other"), profile=profile) as of:
        await of.start_all(3, workers=4)
        await of.settled()
        for number in range(rounds):
            first, second = of.living[number % 3], of.living[(number + 1) % 3]
            await first.ask("enqueue_many", task="work", params={"ms": JOB_MS}, count=FLOOD_JOBS)
            due, now = await asyncio.gather(
                second.ask("enqueue", task="other", params={}, run_in=0.5),
                second.ask("enqueue", task="other", params={}),
            )
            await asyncio.sleep(0.7)
            of.book.read()
            if not of.book.missing:
                raise Failed("the flood was over before the others were due")
            await of.done()
            late = []
            for job in (due, now):
                receipt = of.book.accepted[job]
                late.append(of.book.runs[job][0].at_s - max(receipt.told_at_s, receipt.asked_at_s + receipt.run_in_s))
            spread.values.append(max(late))
            spread.beyond += spread.values[-1] > within_s
        spread.total(of)
    return spread


async def drain(jobs: int, joiners: int, ms: float = 50, profile: str = "lan") -> Spread:
    """So many jobs at one process; then idle ones join. `values`: of each, its share of what ran then, through fair."""
    spread = Spread()
    async with herd(profile=profile) as of:
        home = await of.start()
        await asyncio.sleep(1)
        for begin in range(0, jobs, 50_000):
            await home.ask("enqueue_many", task="work", params={"ms": ms}, count=min(50_000, jobs - begin))
        await asyncio.gather(*(of.start() for _ in range(joiners)))
        await of.settled()
        at_s = time.monotonic()
        await of.done(jobs * ms / 1000 + 120)
        runs = [run for run in of.book.starts() if run.at_s > at_s]
        found = Counter(run.node for run in runs)
        spread.values = [found[child.name] * (joiners + 1) / len(runs) for child in of.living]
        spread.beyond = sum(abs(value - 1) > TOLERANCE for value in spread.values)
        spread.total(of)
    return spread


async def come_and_go(jobs: int, gap_s: float = 2.0, ms: float = 1.0, nodes: int = 3, profile: str = "lan") -> Spread:
    """Without a fault, processes enqueue, and others come and go in turn. `values`: microseconds per job.

    Args:
        nodes: that enqueue; 1: nobody comes, either.
    """
    spread = Spread()
    async with herd(profile=profile) as of:
        await of.start_all(nodes)
        await of.settled()
        began_s, feeding = time.monotonic(), list(of.living)
        passing = asyncio.create_task(_pass_by(of, gap_s)) if nodes > 1 else None

        async def feed(child: Child, count: int) -> None:
            for begin in range(0, count, BATCH):
                await child.ask("enqueue_many", task="work", params={"ms": ms}, count=min(BATCH, count - begin))
                await of.until(lambda: of.book.read() or len(of.book.missing) < nodes * BACKLOG, "jobs pile up")

        async def feed_all() -> None:
            parts = [jobs // nodes + (place < jobs % nodes) for place in range(nodes)]
            await asyncio.gather(*(feed(child, part) for child, part in zip(feeding, parts, strict=True)))
            await of.done()

        try:
            await (feed_all() if passing is None else _while(feed_all(), passing))
        finally:
            if passing is not None:
                passing.cancel()
                await asyncio.gather(passing, return_exceptions=True)
        spread.values.append(1e6 * (time.monotonic() - began_s) / jobs)
        spread.total(of)
        if spread.jobs != jobs:
            raise Failed(f"{spread.jobs} of {jobs} jobs were accepted: {of.book.refused[:3]}")
    return spread


async def _while(work: Coroutine[Any, Any, None], passing: asyncio.Task[None]) -> None:
    """Until the work is done; what passes by has to go well meanwhile."""
    working = asyncio.create_task(work)
    await asyncio.wait([working, passing], return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await passing
    await working


async def _pass_by(of: Herd, gap_s: float) -> None:
    """A process comes and works, then leaves, again and again."""
    while True:
        await of.start()
        await asyncio.sleep(gap_s)
        await of.leave(of.living[-1])
        await asyncio.sleep(gap_s / 2)


async def everywhere(rounds: int, profile: str = "lan") -> Spread:
    """An "all" job on five: one is killed, one blocked, and a sixth joins. `values`: seconds to its end."""
    spread = Spread()
    async with herd(("everywhere",), profile=profile) as of:
        await of.start_all(5)
        for _ in range(rounds):
            await of.settled()
            asker, victim, blocked, *_ = of.living
            expected = {child.name: "succeeded" for child in of.living if child is not victim}
            of.book.read()
            seen = len(of.book.runs)  # each part is a job of its own
            began_s = time.monotonic()
            job = await asker.ask("enqueue", task="everywhere", params={"ms": 1500})
            await of.until(lambda seen=seen: of.book.read() or len(of.book.runs) == seen + 5, "not all parts began")
            await blocked.ask("hold_up", seconds=2.0)
            joining = asyncio.create_task(of.start())
            await of.kill(victim)
            told = await asker.ask("outcomes", job=job, timeout=30)
            await joining
            spread.values.append(time.monotonic() - began_s)
            if told != {**expected, victim.name: "lost"}:
                raise Failed(
                    f"{victim.name} was killed, {blocked.name} blocked, {joining.result().name} joined: {told}"
                )
            of.book.read()
            ran = Counter(run.node for run in of.book.starts()[seen:])
            if ran.keys() != told.keys() or set(ran.values()) != {1}:
                raise Failed(f"parts ran more than once: {ran}")
        spread.jobs = rounds
    return spread
