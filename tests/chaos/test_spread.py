"""Who runs what, over real processes: a short round of each trial. Many, with figures: `python -m bench.spread`."""

from __future__ import annotations

import asyncio

import pytest

from . import spread

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

FAST = "fast"


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("workers", [(8, 8, 8), (1, 2, 4)])
def test_shares_follow_workers(workers: tuple[int, ...], full: bool) -> None:
    found = asyncio.run(spread.shares(1, workers, full=full, profile=FAST))
    assert (found.jobs, found.beyond) == (spread.JOBS, 0), found.values


def test_a_lone_periodic_task_goes_round() -> None:
    assert asyncio.run(spread.lone_rounds(FAST)).jobs == spread.ROUNDS_SEEN


def test_a_flood_holds_up_nobody_else() -> None:
    """Within a second here, where others may have the cores; the flood takes longer."""
    assert asyncio.run(spread.flood(1, within_s=1, profile=FAST)).beyond == 0


def test_each_job_runs_once_while_nodes_come_and_go() -> None:
    assert asyncio.run(spread.come_and_go(3_000, 0.7, profile=FAST)).jobs == 3_000


def test_an_all_job_tells_what_became_of_it_at_each_member() -> None:
    assert asyncio.run(spread.everywhere(1, FAST)).jobs == 1
