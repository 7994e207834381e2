"""Trials in which processes are killed: of each kind of node one, the owner again and again, one of two, any of five.

Each returns what it measured, and raises `Failed` when a promise was broken: an accepted job lost, or run again though
no killed process was running it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from .book import Run
from .herd import Child, Failed, Herd, herd

HOME_JOBS = 10_000
DELAYED_JOBS = 1_000
STALL_MAX_S = 1.0
"""What an enqueue may take while a backup is killed."""
LOAD_MS = 20


@dataclass(slots=True)
class Deaths:
    """What some kills of one kind came to; spans in seconds, one per kill unless it is said otherwise.

    Attributes:
        elsewhere_s: from the kill to the first job that the death had held up and another process started.
        late_s: how late the latest job was (delayed jobs), or how long the longest enqueue took.
        repeated: runs that were killed and came again.
    """

    elsewhere_s: list[float] = field(default_factory=list[float])
    late_s: list[float] = field(default_factory=list[float])
    accepted: int = 0
    repeated: int = 0

    def total(self, of: Herd) -> None:
        """Judge the whole trial."""
        judgement = of.check()
        self.accepted, self.repeated = judgement.accepted, judgement.repeated


def first_after(runs: Iterable[Run], at_s: float) -> float:
    """Seconds from a moment to the first of these runs after it."""
    moments = [run.at_s for run in runs if run.at_s > at_s]
    if not moments:
        raise Failed("no job started elsewhere after a kill")
    return min(moments) - at_s


def taken_over(of: Herd, jobs: Iterable[str], victim: str, at_s: float) -> list[Run]:
    """Runs elsewhere, after a kill, of those of these jobs whose home the victim was: their tokens show it."""
    runs = [run for job in jobs for run in of.book.runs.get(job, ())]
    before = max((run.token[0] for run in runs if run.at_s <= at_s), default=1 << 62)
    return [run for run in runs if run.at_s > at_s and run.node != victim and run.token[0] > before]


def by(of: Herd, name: str, task: str = "work") -> list[str]:
    """Jobs that a process has enqueued."""
    return [job for job, it in of.book.accepted.items() if (it.by, it.task) == (name, task)]


async def three(of: Herd) -> list[Child]:
    """Three processes of which the second has the copies of the first."""
    first, second = await of.start(), await of.start()
    await of.settled()
    return [first, second, await of.start()]


async def kill_homes(rounds: int, jobs: int = HOME_JOBS, profile: str = "lan") -> Deaths:
    """A home is killed as soon as a batch of its jobs is accepted."""
    deaths = Deaths()
    async with herd(profile=profile) as of:
        await of.start_all(3)
        for number in range(rounds):
            await of.settled()
            victim = of.living[number % 3]
            if await victim.ask("enqueue_many", task="work", params={"ms": 5}, count=jobs) != jobs:
                raise Failed("a batch was not accepted")
            at_s = await of.kill(victim)
            await of.done()
            deaths.elsewhere_s.append(first_after(taken_over(of, by(of, victim.name), victim.name, at_s), at_s))
            of.check()
            await of.start()
        deaths.total(of)
    return deaths


async def kill_backups(rounds: int, seconds: float = 2.0, profile: str = "lan") -> Deaths:
    """A backup is killed while its home takes jobs, one by one."""
    deaths = Deaths()
    async with herd(profile=profile) as of:
        home, victim, _ = await three(of)
        for _ in range(rounds):
            await of.settled()
            await home.ask("load", task="work", params={"ms": 2}, gap=0.002, at_once=4)
            await asyncio.sleep(seconds / 2)
            at_s = await of.kill(victim)
            await asyncio.sleep(seconds)
            await home.ask("rest")
            await of.done()
            receipts = [it for it in of.book.accepted.values() if it.by == home.name and it.told_at_s > at_s]
            deaths.late_s.append(max(it.told_at_s - it.asked_at_s for it in receipts))
            accepted = sorted(it.told_at_s for it in receipts if it.asked_at_s > at_s)
            deaths.elsewhere_s.append(accepted[0] - at_s)
            of.check()
            victim = next(child for child in of.living if child is not home)  # it was chosen when it was alone
            await of.start()
        deaths.total(of)
    if of.book.refused or of.book.unsure:
        raise Failed(f"not accepted: {of.book.refused or of.book.unsure}")
    return deaths


async def kill_executors(rounds: int, profile: str = "lan") -> Deaths:
    """A process is killed that runs jobs of a home that has no workers."""
    deaths = Deaths()
    async with herd(profile=profile) as of:
        home = await of.start(workers=0)
        await of.start_all(2)
        for _ in range(rounds):
            await of.settled()
            victim = of.living[1]
            await home.ask("enqueue_many", task="work", params={"ms": 150}, count=100)

            def runs(name: str = victim.name) -> bool:
                of.book.read()
                return any(run.node == name and job not in of.book.ends for job, (run, *_) in of.book.runs.items())

            await of.until(runs, "the executor runs nothing")
            at_s = await of.kill(victim)
            await of.done()
            again = [runs[-1] for runs in of.book.runs.values() if runs[0].node == victim.name and len(runs) > 1]
            if again:
                deaths.elsewhere_s.append(first_after(again, at_s))
            of.check()
            await of.start()
        deaths.total(of)
    return deaths


async def kill_owners(rounds: int, jobs: int = DELAYED_JOBS, profile: str = "lan") -> Deaths:
    """The owner of the delayed queue is killed in the middle of the time in which jobs become due."""
    deaths = Deaths()
    async with herd(profile=profile) as of:
        await of.start_all(3)
        for _ in range(rounds):
            await of.settled()
            owner = await of.owner()
            asker = next(child for child in of.living if child is not owner)
            before = set(of.book.accepted)
            count = await asker.ask("delayed", task="work", params={"ms": 1}, count=jobs, first=1, last=4)
            if count != jobs:
                raise Failed(f"{count} of {jobs} delayed jobs were accepted")
            await asyncio.sleep(1.5)
            at_s = await of.kill(owner)
            await of.done()
            new = {job: it for job, it in of.book.accepted.items() if job not in before}
            deaths.elsewhere_s.append(first_after(taken_over(of, new, owner.name, at_s), at_s))
            deaths.late_s.append(max(of.book.runs[job][0].at_s - it.told_at_s - it.run_in_s for job, it in new.items()))
            of.check()
            await of.start()
        deaths.total(of)
    return deaths


async def kill_owner_every(gap_s: float, seconds: float, profile: str = "lan") -> Deaths:
    """The owner is killed again and again, beside a periodic task of 1 s.

    `elsewhere_s`: from each kill to the next round elsewhere; `late_s`: between any two rounds, beyond the period.
    """
    deaths = Deaths()
    async with herd(("tick",), profile=profile) as of:
        await of.start_all(3)
        await of.settled()
        await of.until(lambda: of.book.read() or len(of.book.runs) >= 2, "no rounds")
        kills: list[tuple[str, float]] = []
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            next_s = time.monotonic() + gap_s
            await of.whole()
            owner = await of.owner()
            kills.append((owner.name, await of.kill(owner)))
            await of.start()
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        await of.whole()
        seen = len(of.book.runs)
        await of.until(lambda: of.book.read() or len(of.book.runs) >= seen + 2, "rounds have ended")
        starts = of.book.starts()
        for name, at_s in kills:
            deaths.elsewhere_s.append(first_after((run for run in starts if run.node != name), at_s))
        numbers = sorted({run.number for run in starts})
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise Failed(f"rounds were left out: {numbers}")
        firsts = sorted(min(run.at_s for run in runs) for runs in of.book.runs.values())
        deaths.late_s = [max(0.0, later - sooner - 1.0) for sooner, later in itertools.pairwise(firsts)]
        early = [span for span in map(float.__sub__, firsts[1:], firsts) if span < 0.99]
        if early:
            raise Failed(f"rounds came too soon: {early}")
        deaths.total(of)
        deaths.accepted = len(numbers)
    return deaths


async def two_one_two(rounds: int, profile: str = "lan") -> Deaths:
    """One of two is killed and comes back, under load. `elsewhere_s`: until the one that is left shows `degraded`."""
    deaths = Deaths()
    async with herd(profile=profile) as of:
        await of.start()
        await of.start()
        for number in range(rounds):
            await of.settled()
            for child in of.living:
                await child.ask("load", task="work", params={"ms": LOAD_MS}, gap=0.005, at_once=2)
            await asyncio.sleep(0.5)
            at_s = await of.kill(of.living[number % 2])
            (left,) = of.living

            async def shows(child: Child = left) -> bool:
                return bool((await child.ask("state"))["degraded"])

            await of.until(shows, "degraded is not shown")
            deaths.elsewhere_s.append(time.monotonic() - at_s)
            begun = len(of.book.runs)
            await of.until(
                lambda begun=begun: of.book.read() or len(of.book.runs) > begun + 50, "alone it stands still"
            )
            await of.start()
            await of.whole()  # so degraded is cleared, under load
            deaths.late_s.append(time.monotonic() - at_s)
            await left.ask("rest")
            await of.done()
            of.check()
        deaths.total(of)
    return deaths


async def kill_any(kills: int, seed: int, nodes: int = 5, profile: str = "lan") -> Deaths:
    """Under load, any process is killed, every third time the owner; a new one comes and copies become whole."""
    deaths, chance = Deaths(), random.Random(seed)
    async with herd(("work", "other"), profile=profile) as of:

        async def load(child: Child) -> None:
            await child.ask("load", task="work", params={"ms": LOAD_MS}, gap=0.04, at_once=2)

        await of.start_all(nodes)
        for child in of.living:
            await load(child)
        for number in range(kills):
            await of.settled()
            victim = chance.choice(of.living) if number % 3 else await of.owner()
            asker = next(child for child in of.living if child is not victim)
            await asker.ask("delayed", task="other", params={}, count=20, first=0.05, last=1)
            at_s = await of.kill(victim)
            await load(await of.start())
            await of.whole()
            of.check(ended=False)
            over = taken_over(of, by(of, victim.name), victim.name, at_s)
            if over:
                deaths.elsewhere_s.append(first_after(over, at_s))
        await asyncio.gather(*(child.ask("rest") for child in of.living))
        await of.done()
        deaths.total(of)
    return deaths
