"""Five nodes in a network that really falls apart, under load: nothing is lost, and it mends by itself.

`make partitions ROUNDS=n` runs each shape n times, the split in halves for 30 s, and prints what it has seen; without
ROUNDS, as in `make test`, each shape once and for a short while. What is drawn comes from SEED, which is printed.
Where the machine can't have such a network the tests are skipped, and say why.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import pytest

from .cluster import Cluster
from .lab import Lab, why_not
from .oracle import judge, summary, unfinished
from .shapes import SHAPES

NAMES = ["n1", "n2", "n3", "n4", "n5"]
PROFILE = os.environ.get("PARTITIONS_PROFILE", "fast")
ROUNDS = int(os.environ.get("ROUNDS") or 0)
SEED = int(os.environ.get("SEED") or random.randrange(1_000_000))
SHORT_S, LONG_S = 5.0, 12.0
SPLIT_S = 30.0
"""How long the halves do not see one another, where rounds are asked for."""
HEALED_S = 5.0
"""So long after the last way is whole there is one owner, and so one schedule."""
PER_SECOND = 4.0
"""Each node enqueues so much."""
GATHERED_S = 30.0
DRAINED_S = 40.0
CALM_S = 2.0
"""Of load before, and after the healing."""

_why_not = cache(why_not)


@pytest.fixture(scope="module", autouse=True)
def _machine_can() -> None:
    why = _why_not()
    if why:
        pytest.skip(f"no partitions tried: {why}")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(NAMES) as network:
        yield network


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", range(max(1, ROUNDS)))
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_lost_and_the_cluster_becomes_one_again(shape: str, number: int, lab: Lab, tmp_path: Path) -> None:
    rng = Random(f"{SEED} {shape} {number}")
    span_s = (SPLIT_S if shape == "halves" else LONG_S) if ROUNDS else SHORT_S

    async def main() -> None:
        async with Cluster(tmp_path, lab, profile=PROFILE) as cluster:
            await cluster.start(*NAMES)
            await cluster.one(GATHERED_S)
            cluster.load(PER_SECOND)
            await asyncio.sleep(CALM_S)
            await cluster.whole(GATHERED_S)
            drawn = await SHAPES[shape](lab, rng, span_s)
            lab.heal()
            healed_s = await cluster.one(HEALED_S if PROFILE == "fast" else GATHERED_S)
            await asyncio.sleep(CALM_S)
            cluster.load(0)
            await cluster.answered(DRAINED_S)
            ends_s = time.monotonic() + DRAINED_S
            while unfinished(cluster.told, cluster.runs()) and time.monotonic() < ends_s:
                await asyncio.sleep(0.1)
            await asyncio.sleep(CALM_S)
            runs = cluster.runs()
            seen = f"one after {healed_s:.2f} s; {summary(cluster.told, runs)}"
            print(f"{shape} (SEED={SEED}, round {number}; {drawn}): {seen}")
            found = judge(cluster.told, runs)
            if found:
                kept = _keep(tmp_path)
                pytest.fail("\n".join([f"SEED={SEED} {shape} round {number}: {drawn}; kept in {kept}", *found]))

    asyncio.run(main())


def _keep(folder: Path) -> Path:
    """Bring what was written where it is not tidied away."""
    return Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-kept"), dirs_exist_ok=True))
