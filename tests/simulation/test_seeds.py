"""Worlds from seeds: no promise is broken, everything that matters happens, and a seed is the same world again."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

from zhero.core.query import Query
from zhero.sim import __main__ as command
from zhero.sim.__main__ import main
from zhero.sim.members import disagreement
from zhero.sim.scene import Scene
from zhero.sim.seeds import Lived, Summary, live, live_all
from zhero.sim.world import World

SEEDS = range(60)
FIXED = (
    63,
    66,
    71,
    91,
    102,
    117,
    119,
    135,
    168,
    223,
    239,
    397,
    511,
    548,
    666,
    763,
    864,
    868,
    892,
    914,
    929,
    977,
    1036,
    1139,
    1381,
)
"""Seeds that once broke a promise."""


@cache
def lived(seed: int) -> Lived:
    return live(seed)


@pytest.mark.parametrize("seed", [*SEEDS, *FIXED])
def test_no_promise_is_broken(seed: int) -> None:
    assert lived(seed).story == ""


def test_everything_that_matters_happens_in_some_seed() -> None:
    summary = Summary()
    for seed in SEEDS:
        summary.add(lived(seed))
    assert summary.never == []


def test_a_world_is_long_and_busy_enough() -> None:
    assert all(lived(seed).virtual_s >= 10 for seed in SEEDS)
    assert all(lived(seed).jobs_count >= 100 for seed in SEEDS if not lived(seed).seen["idle"])


def test_fifty_nodes_that_start_at_once_agree_within_seconds() -> None:
    world = World(0, loaded=False, scene=Scene(nodes=50, hosts=10))
    world.start()
    world.run_until(5_000_000)
    assert len(world.living) == 50
    assert disagreement(world.living) == ""


def test_a_seed_is_the_same_world_in_each_process() -> None:
    traces = {
        subprocess.run(
            [sys.executable, "-m", "zhero.sim", "--seed", "24", "--trace"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    (trace,) = traces
    assert len(trace.splitlines()) > 1000


def test_seeds_run_in_several_processes_as_they_do_in_one() -> None:
    several = {other.seed: other for other in live_all(range(2), processes=2)}
    assert all(several[seed].seen == lived(seed).seen for seed in range(2))


def test_the_summary_tells_how_to_replay_what_broke(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Query, "_tell_waiters", lambda *args: None)
    assert main(["--seeds", "1", "--from", "5", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert "python -m zhero.sim --seed 5 --trace" in told
    assert "is never told" in told
    assert main(["--seed", "5"]) == 1
    assert "is never told" in capsys.readouterr().out


def test_seeds_that_keep_every_promise_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--jobs", "1"]) == 0
    assert "1 seeds, 0 broken" in capsys.readouterr().out


def test_a_soak_runs_new_seeds_until_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ROUND_SEEDS", 1)
    assert main(["--soak", "--minutes", "0", "--from", "3", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith("from 3: 1 seeds, 0 broken")


def test_a_hole_in_the_workload_fails_a_run_of_many_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhero.sim.seeds.ENOUGH_SEEDS", 1)
    summary = Summary()
    summary.add(Lived(seed=1))
    assert not summary.is_good
    assert "! never happened: retry" in "\n".join(summary.lines())
