"""Storms over real processes, for as many rounds as are asked for.

    python -m tests.chaos [--rounds n] [--seed n] [--profile name]

A round is one storm of every kind of trouble, and kills of each kind of node. One line per trial; the first broken
promise ends it, with what had happened, and exit code 1. The seed decides what happens to whom; when it happens is the
machine's, so a seed that failed once may pass.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Coroutine
from typing import Any

from zhero.config import PROFILES

from . import kills
from .herd import Failed
from .storm import storm

TROUBLES = 11
"""Of a storm: each kind once."""
KILLS = 3


def trials(seed: int, profile: str) -> dict[str, Coroutine[Any, Any, Any]]:
    """One round: name -> what is to be awaited."""
    return {
        "storm": storm(TROUBLES, seed, profile),
        "homes": kills.kill_homes(1, profile=profile),
        "backups": kills.kill_backups(1, profile=profile),
        "executors": kills.kill_executors(1, profile=profile),
        "owners": kills.kill_owners(1, profile=profile),
        "any": kills.kill_any(KILLS, seed, profile=profile),
    }


def main() -> int:
    """Run them; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each next has one more")
    parser.add_argument("--profile", choices=PROFILES, default="fast")
    args = parser.parse_args()
    for seed in range(args.seed, args.seed + args.rounds):
        left = trials(seed, args.profile)
        while left:
            name = next(iter(left))
            began_s = time.monotonic()
            try:
                came_to = asyncio.run(left.pop(name))
            except (Failed, TimeoutError) as error:
                print(f"seed {seed} {name}: FAILED\n{error}", flush=True)
                for trial in left.values():
                    trial.close()
                return 1
            told = f"{came_to.accepted} accepted, {came_to.repeated} repeated"
            print(f"seed {seed} {name}: {told}, {time.monotonic() - began_s:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
