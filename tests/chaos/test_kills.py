"""Real processes are killed, each kind of node once or twice: nothing is lost, and only what they ran comes again.

The same trials many times, with what they measure: `python -m bench.kills`.
"""

from __future__ import annotations

import asyncio

import pytest

from . import kills

FAST = "fast"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


def test_a_home_with_ready_jobs() -> None:
    deaths = asyncio.run(kills.kill_homes(1, 3_000, FAST))
    assert (len(deaths.elsewhere_s), deaths.accepted) == (1, 3_000)


def test_a_backup_while_its_home_takes_jobs() -> None:
    deaths = asyncio.run(kills.kill_backups(1, 1.0, FAST))
    assert deaths.accepted > 100


def test_an_executor_with_lent_jobs() -> None:
    deaths = asyncio.run(kills.kill_executors(1, FAST))
    assert deaths.accepted == 100
    assert 0 < deaths.repeated <= 8


def test_the_owner_with_delayed_jobs() -> None:
    deaths = asyncio.run(kills.kill_owners(1, 300, FAST))
    assert deaths.accepted == 300


def test_the_owner_again_and_again_beside_a_periodic_task() -> None:
    deaths = asyncio.run(kills.kill_owner_every(2, 3, FAST))
    assert len(deaths.elsewhere_s) >= 2


def test_one_of_two_and_it_comes_back() -> None:
    deaths = asyncio.run(kills.two_one_two(1, FAST))
    assert len(deaths.elsewhere_s) == 1


def test_any_of_five_under_load() -> None:
    deaths = asyncio.run(kills.kill_any(3, seed=7, profile=FAST))
    assert deaths.accepted > 100
