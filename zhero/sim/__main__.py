"""`python -m zhero.sim`: run seeded worlds, replay one, or go on for a while."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from dataclasses import fields

from .seeds import Summary, live_all
from .story import BrokenPromise
from .world import World

ROUND_SEEDS = 60
_SEED_MAX = 10**9

EPILOG = """examples:
  python -m zhero.sim --seeds 200             200 worlds on all cores, one summary
  python -m zhero.sim --seed 17               one world: what was drawn, and how it went
  python -m zhero.sim --seed 17 --trace       the same with every step
  python -m zhero.sim --soak --minutes 30     new worlds for half an hour, one line per round
"""


def main(arguments: list[str] | None = None) -> int:
    """Returns: 0 if every promise was kept, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m zhero.sim",
        description="Run the engine in seeded worlds under faults, in virtual time, and check every promise.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, metavar="N", help="replay the world of this seed")
    what.add_argument("--seeds", type=int, metavar="N", help="run so many seeds")
    what.add_argument("--soak", action="store_true", help="run new seeds until --minutes are over")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every step")
    parser.add_argument("--from", type=int, dest="first", metavar="K", help="the first seed (0; with --soak, any)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="P", help="processes (all cores)")
    parser.add_argument("--minutes", type=float, default=10, metavar="M", help="with --soak (10)")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or (options.seeds is not None and options.seeds < 1):
        parser.error("--seeds and --jobs are at least 1")
    try:
        if options.seed is not None:
            return replay(options.seed, trace=options.trace)
        if options.soak:
            first = random.randrange(_SEED_MAX) if options.first is None else options.first
            return soak(options.minutes, first, options.jobs)
        return run(options.seeds or 0, options.first or 0, options.jobs)
    except KeyboardInterrupt:
        return 130


def replay(seed: int, *, trace: bool) -> int:
    """Run one world and tell of it; the same text each time."""
    world = World(seed)
    for drawn in (world.options, world.scene):
        for one in fields(drawn):
            print(f"{one.name}: {getattr(drawn, one.name)}")
    broken = None
    try:
        world.run()
    except BrokenPromise as error:
        broken = error
    if trace:
        for step in world.story:
            print("\n".join(step.lines()))
    about = f"{world.now_us / 1_000_000:.3f} s virtual, {len(world.story)} steps, {world.jobs_count} jobs"
    if broken is None:
        print(f"seed {seed}: every promise was kept; {about}")
        return 0
    print(f"seed {seed}: a promise was broken; {about}")
    print(broken)
    return 1


def run(count: int, first: int, processes: int) -> int:
    """Run `count` seeds and print the summary."""
    summary = Summary()
    for lived in live_all(range(first, first + count), processes):
        summary.add(lived)
    print("\n".join(summary.lines()))
    return 0 if summary.is_good else 1


def soak(minutes: float, first: int, processes: int) -> int:
    """Run round after round of new seeds; stop at the first broken promise."""
    ends_s = time.monotonic() + minutes * 60
    while True:
        summary = Summary()
        for lived in live_all(range(first, first + ROUND_SEEDS), processes):
            summary.add(lived)
        print(f"from {first}: {summary.line()}", flush=True)
        if not summary.is_good:
            print("\n".join(summary.lines()))
            return 1
        if time.monotonic() >= ends_s:
            return 0
        first += ROUND_SEEDS


if __name__ == "__main__":
    sys.exit(main())
