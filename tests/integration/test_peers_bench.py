"""The bench of other task queues, as far as it needs none of them: what it reads, judges and tells.

With a `redis-server` on the machine it would also start one; here it is told that there is none.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.measure import Report, Wrong
from bench.peers import __main__ as peers
from bench.peers import environments, stage
from bench.peers.adapters.common import MARK
from bench.peers.kill import Outcome, judged
from bench.peers.rows import FIRST, LATE_P50, MEMORY, START_P50, SUSTAINED, Amounts, Turn, take
from bench.peers.stage import Mark, marks_of, used_memory
from bench.peers.systems import SYSTEMS
from bench.peers.tables import Results, as_json, measures, text

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100.0
DEAD, ALIVE = 11, 12
DEAD_ONES = frozenset({DEAD})


# --- what is read -------------------------------------------------------------------------------------------------


def test_marks_are_read_back_and_a_torn_one_is_left_out() -> None:
    written = MARK.pack(7, DEAD, 1.5) + MARK.pack(-8, DEAD, 2.5)
    whole = [Mark(7, DEAD, 1.5, end=False), Mark(7, DEAD, 2.5, end=True)]
    assert marks_of(written) == whole
    assert marks_of(written + MARK.pack(9, DEAD, 3.5)[:-1]) == whole


def test_what_redis_says_of_its_memory_is_read() -> None:
    assert used_memory("# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\n") == 1_048_576
    with pytest.raises(Wrong, match="does not say"):
        used_memory("# Memory\r\n")


def test_the_last_that_a_program_said_is_what_is_told() -> None:
    assert environments.last_line("one\n\n  two  \n\n") == "two"
    assert environments.last_line("") == "it said nothing"


# --- a kill -------------------------------------------------------------------------------------------------------


def marks(*of: tuple[int, int, float, bool]) -> list[Mark]:
    return [Mark(number, process, at, end) for number, process, at, end in of]


def test_a_job_that_starts_again_elsewhere_was_stranded_until_then() -> None:
    found = marks(
        (0, DEAD, 1.0, False),
        (0, DEAD, 1.1, True),
        (1, DEAD, 1.9, False),
        (1, ALIVE, 2.25, False),
        (1, ALIVE, 2.3, True),
        (2, ALIVE, 1.9, False),
        (2, ALIVE, 2.2, True),
    )
    assert judged(found, 3, 2.0, DEAD_ONES) == Outcome(3, running=1, lost=0, again=1, stranded=1, stranded_s=0.25)


def test_what_ends_long_after_all_else_was_stranded_with_the_dead() -> None:
    found = marks((0, ALIVE, 2.1, False), (0, ALIVE, 2.2, True), (1, ALIVE, 62.0, False), (1, ALIVE, 62.1, True))
    assert judged(found, 2, 2.0, DEAD_ONES) == Outcome(
        2, running=0, lost=0, again=0, stranded=1, stranded_s=pytest.approx(60.1)
    )


def test_what_never_ends_is_lost_and_counted_once() -> None:
    found = marks((0, DEAD, 1.9, False), (1, ALIVE, 1.9, False), (1, ALIVE, 2.0, True))
    assert judged(found, 3, 2.0, DEAD_ONES) == Outcome(3, running=1, lost=2, again=0, stranded=2, stranded_s=0.0)


# --- what is not here ---------------------------------------------------------------------------------------------


def test_without_redis_it_says_how_to_get_one() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.peers", "--quick"],
        cwd=ROOT,
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == peers.NOT_HERE
    assert "not measured: redis-server is not on this machine" in ended.stderr
    assert "apt-get install redis-server" in ended.stderr


def test_a_peer_that_needs_another_python_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "pythons", lambda: iter([sys.executable, str(tmp_path / "none")]))
    assert environments.python_of((3, 11)) == sys.executable
    with pytest.raises(environments.Unusable, match=r"needs Python 9\.1"):
        environments.python_of((9, 1))


def test_a_peer_that_cannot_be_installed_is_reported_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")

    results = Results(0)
    celery = next(system for system in SYSTEMS if system.name == "Celery")
    monkeypatch.setattr(environments, "python_of", lambda least: sys.executable)
    monkeypatch.setattr(environments.subprocess, "run", fails)
    found, _ = peers.usable([celery], tmp_path, results)
    assert found == []
    assert results.failed == {"Celery": ["can't be installed: ERROR: no network"]}
    assert "Celery: can't be installed: ERROR: no network" in text(results, Report("question", {}))


# --- what is told -------------------------------------------------------------------------------------------------


def results_of_two() -> Results:
    def turn(cost: float) -> Turn:
        return Turn({SUSTAINED: cost, START_P50: cost, LATE_P50: 0.5, FIRST: 100.0, MEMORY: 200.0})

    results = Results(5)
    results.versions = {"zhero": "zhero 1", "zhero alone": "zhero 1", "ardiq": "ardiq 1", "Huey": "huey 1"}
    results.turns = {
        "zhero": [turn(10.0), turn(20.0)],
        "zhero alone": [turn(5.0), turn(10.0)],
        "ardiq": [turn(200.0), turn(400.0)],
        "Huey": [turn(50.0), None],
    }
    results.kills = {"zhero": Outcome(100, 4, 0, 4, 4, 0.05), "ardiq": Outcome(100, 4, 4, 0, 4, 0.0)}
    return results


def test_ratios_are_taken_within_rounds_and_goals_against_the_best_that_acknowledges() -> None:
    results = results_of_two()
    found = {(measure.name, measure.against): measure for measure in measures(results)}
    assert found[SUSTAINED, "ardiq"].as_json()["ratio"]["median"] == 0.05
    assert found[SUSTAINED, "Huey"].subject == [10.0]
    told = as_json(results, Report("question", {}))
    goals = {goal["question"]: goal for goal in told["goals"]}
    sustained = goals["sustained, two processes"]
    assert (sustained["best_peer"], sustained["got"]["median"], sustained["verdict"]) == ("ardiq", 20.0, "reached")
    start = goals["enqueue to start, alone, p50"]
    assert (start["best_peer"], start["got"]["median"], start["verdict"]) == ("Huey", 10.0, "reached")
    assert json.loads(json.dumps(told)) == told


def test_people_are_told_all_of_it() -> None:
    said = text(results_of_two(), Report("question", {}))
    assert "Redis keeps nothing on disk" in said
    assert "50,000..100,000" in said
    assert "over 5" in said
    assert "MISSED" not in said


# --- zhero itself takes its turn ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zhero", "zhero alone"])
def test_zhero_takes_its_turn_like_any_other(name: str, tmp_path: Path) -> None:
    system = next(system for system in SYSTEMS if system.name == name)
    amounts = Amounts(seconds=0.02, starts=3, gap_s=0.01, later=20, ahead_s=0.3)
    tmp_path.chmod(0o700)
    turn = asyncio.run(take(system, sys.executable, tmp_path, amounts))
    assert all(expected == counted for expected, counted in turn.counted.values())
    assert turn.early == 0
    assert all(cost > 0 for cost in turn.figures.values())


def test_a_stage_leaves_no_process_behind(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    async def main() -> list[int]:
        async with stage.Stage(SYSTEMS[0], sys.executable, tmp_path) as it:
            await it.start_producer()
            await it.start_worker()
            assert it.producer is not None
            with pytest.raises(Wrong, match="an order that nobody knows"):
                await it.order("dance")
            return [it.producer.pid, it.workers[0].pid]

    processes = asyncio.run(main())
    until = time.monotonic() + PATIENCE_S
    while any(stage.session_of(process) for process in processes) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(stage.session_of(process) for process in processes)
