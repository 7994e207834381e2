"""Many worlds, on all cores: each seed in one process of a pool, and one summary.

A seed that breaks a promise is reported with the command that replays it and the story of what it broke. Besides, what
only happens sometimes has to have happened in one of many seeds: a run that never had a full queue shows nothing
about full queues, and fails too.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .sometimes import RARELY, SOMETIMES
from .story import BrokenPromise
from .world import World

ENOUGH_SEEDS = 60
"""From so many seeds on, all of `SOMETIMES` has to have happened."""
MANY_SEEDS = 400
"""From so many on, all of `RARELY`, too."""


@dataclass(slots=True)
class Lived:
    """What became of one seed. `story`: of the promise that it broke; empty if it broke none."""

    seed: int
    seen: Counter[str] = field(default_factory=Counter[str])
    story: str = ""
    cpu_s: float = 0.0
    virtual_s: float = 0.0
    steps_count: int = 0
    jobs_count: int = 0


def live(seed: int) -> Lived:
    """Run one world to its end. What it holds grows until then, so nothing is gained by looking for garbage in it."""
    gc.disable()
    try:
        return _live(seed)
    finally:
        gc.enable()
        gc.collect()


def _live(seed: int) -> Lived:
    began_s = time.process_time()
    world = World(seed)
    lived = Lived(seed)
    try:
        world.run()
    except BrokenPromise as broken:
        lived.story = str(broken)
    except Exception:  # of the simulator itself: told like any other failure
        lived.story = traceback.format_exc()
    lived.seen = world.seen
    lived.cpu_s = time.process_time() - began_s
    lived.virtual_s = world.now_us / 1_000_000
    lived.steps_count = len(world.story)
    lived.jobs_count = world.jobs_count
    return lived


def live_all(seeds: Iterable[int], processes: int) -> Iterator[Lived]:
    """Run many worlds, several at a time; in the order in which they end."""
    if processes == 1:
        yield from map(live, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(live, seeds)


@dataclass(slots=True)
class Summary:
    """What many seeds have shown."""

    seen: Counter[str] = field(default_factory=Counter[str])
    broken: list[Lived] = field(default_factory=list[Lived])
    seeds_count: int = 0
    cpu_s: float = 0.0
    cpu_max_s: float = 0.0
    virtual_s: float = 0.0
    steps_count: int = 0
    jobs_count: int = 0

    def add(self, lived: Lived) -> None:
        self.seeds_count += 1
        self.seen.update(lived.seen)
        self.cpu_s += lived.cpu_s
        self.cpu_max_s = max(self.cpu_max_s, lived.cpu_s)
        self.virtual_s += lived.virtual_s
        self.steps_count += lived.steps_count
        self.jobs_count += lived.jobs_count
        if lived.story:
            self.broken.append(lived)

    @property
    def never(self) -> list[str]:
        """What should have happened, and did not."""
        asked = [*SOMETIMES, *(RARELY if self.seeds_count >= MANY_SEEDS else ())]
        return [what for what in asked if not self.seen[what]]

    @property
    def is_good(self) -> bool:
        return not self.broken and (self.seeds_count < ENOUGH_SEEDS or not self.never)

    def line(self) -> str:
        """All in one line."""
        mean_s = self.cpu_s / max(1, self.seeds_count)
        return (
            f"{self.seeds_count} seeds, {len(self.broken)} broken: {self.virtual_s:.0f} s virtual, "
            f"{self.steps_count} steps, {self.jobs_count} jobs, {self.cpu_s:.1f} s of CPU "
            f"({mean_s:.2f} a seed, at most {self.cpu_max_s:.2f})"
        )

    def lines(self) -> Iterator[str]:
        """The failures, the table of what happened, and the one line."""
        for lived in sorted(self.broken, key=lambda lived: lived.seed):
            yield f"seed {lived.seed} broke a promise; to replay it: python -m zhero.sim --seed {lived.seed} --trace"
            yield lived.story
            yield ""
        width = max(map(len, SOMETIMES))
        for what in [*SOMETIMES, *RARELY]:
            yield f"{what:<{width}} {self.seen[what]:>9}"
        if self.never and self.seeds_count >= ENOUGH_SEEDS:
            yield f"! never happened: {', '.join(self.never)}: the workload has a hole"
        yield self.line()
