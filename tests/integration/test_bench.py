"""Each bench runs, counts right, and tells its figures in one form. What the figures are is not looked at."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import jobs
from bench.jobs import Marks
from bench.measure import Report, Wrong

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100.0

LOCAL = [
    ("enqueue, one by one", "bare loop"),
    ("enqueue, 100 in flight", "bare loop"),
    ("enqueue_many, by 1,000", "bare loop"),
    ("run a full queue", "bare loop"),
    ("enqueue_many and run", "bare loop"),
    ("round trip, p50", "bare await"),
    ("round trip, p99", "bare await"),
    ("round trip, p50", "bare task"),
    ("round trip, p99", "bare task"),
    ("functions in threads", "thread pool"),
    ("functions in processes", "process pool"),
]
MEMORY = [
    ("ready: memory", "deque of bytes"),
    ("ready: full gc pass", "deque of bytes"),
    ("delayed: memory", "deque of bytes"),
    ("delayed: full gc pass", "deque of bytes"),
]
JOURNAL = [
    *(
        (f"{level}: {what}", "memory")
        for level in ("process", "power")
        for what in ("enqueue_many", "enqueue_many and run", "accept, p50", "accept, p99")
    ),
    ("load 200 delayed jobs", "read the file"),
]
STARTUP = [("first job", "bare loop"), ("import zhero", "bare python")]
BASELINE = [("one process", "function alone"), ("two processes", "one process"), ("bytes alone", "two processes")]
THROUGHPUT = [
    (f"{nodes}: {what}", against)
    for nodes, against in (("1 node", "bare loop"), ("2 nodes, backups=1", "bare processes"))
    for what in ("one by one", "100 in flight", "enqueue_many", "drain", "sustained")
]

MEMBERS = [
    ("SIGKILL to dead", "port refuses"),
    ("SIGSTOP to dead", "promised"),
    *(
        (f"{what}, {nodes} nodes", against)
        for nodes in (3, 10)
        for what, against in (("chatter", "beats alone"), ("idle cpu", "one alone"))
        if what == "idle cpu" or sys.platform == "linux"
    ),
    ("one view, 50 simulated", "3 simulated"),
    ("one view, 50 simulated", "3 simulated"),
]
LATENCY = [
    *(
        (f"{place}, {state}: to {what}, {share}", against)
        for place, against in (
            ("same node", "bare task"),
            ("other process, 0 copies", "tcp"),
            ("other process, 1 copy", "tcp"),
        )
        for state in ("idle", "half load")
        for what in ("start", "result")
        for share in ("p50", "p99")
    ),
    ("late, p50", "bare timer"),
    ("late, p99", "bare timer"),
    ("one instant: the last one", "bare timer"),
    ("steal", "tcp"),
]
CPU_JOBS = [("cpu jobs, 2 nodes", "1 node")]
CROWD = [
    ("one view, 10 nodes", "3 nodes"),
    *([("chatter, 10 nodes", "beats alone")] if sys.platform == "linux" else []),
    ("one view, 20 simulated", "3 simulated"),
]


def bench(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"bench.{script}", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.mark.parametrize(
    ("script", "options", "expected", "rounds"),
    [
        ("local", ["--jobs", "1200", "--repeats", "2"], LOCAL, 2),
        ("local", ["--jobs", "1000", "--repeats", "1", "--cpu"], LOCAL, 1),
        ("baseline", ["--jobs", "2500", "--repeats", "2"], BASELINE, 2),
        ("throughput", ["--quick", "--jobs", "1200", "--repeats", "1"], THROUGHPUT, 1),
        ("memory", ["--jobs", "20000", "--repeats", "1"], MEMORY, 1),
        ("startup", ["--repeats", "1"], STARTUP, 1),
        ("journal", ["--jobs", "200", "--repeats", "1"], JOURNAL, 1),
        ("members", ["--quick", "--repeats", "1"], MEMBERS, 1),
        ("latency", ["--quick", "--jobs", "50", "--repeats", "1"], LATENCY, 1),
        ("scale", ["--quick", "--jobs", "10", "--repeats", "1", "--only", "cpu"], CPU_JOBS, 1),
        (
            "scale",
            ["--quick", "--repeats", "1", "--nodes", "20", "--only", "real", "--only", "sim"],
            CROWD,
            1,
        ),
    ],
)
def test_a_bench_tells_its_figures(
    script: str, options: list[str], expected: list[tuple[str, str]], rounds: int
) -> None:
    ended = bench(script, "--json", *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    told: dict[str, Any] = json.loads(ended.stdout)
    assert told["machine"].keys() >= {"system", "processor", "cores", "python", "zhero", "pyzmq", "libzmq", "msgpack"}
    assert told["options"]["repeats"] == rounds
    assert [(measure["name"], measure["against"]) for measure in told["measures"]] == expected
    for measure in told["measures"]:
        assert measure["rounds"] == len(measure["subject_rounds"]) == len(measure["baseline_rounds"]) == rounds
        for side in ("subject", "baseline", "ratio"):
            spread = measure[side]
            assert 0 < spread["min"] <= spread["median"] <= spread["p99"] <= spread["max"] < math.inf, measure["name"]
    assert told["wrong"] == []
    assert told["counts"]
    for name, count in told["counts"].items():
        assert count["counted"] == count["expected"], name


def test_every_run_is_counted() -> None:
    """Of each measure, in the round that warms up and in the two after it."""
    ended = bench("local", "--json", "--jobs", "100", "--repeats", "2")
    counts = {name: count["counted"] for name, count in json.loads(ended.stdout)["counts"].items()}
    assert counts == {
        "enqueue, one by one": 300,
        "enqueue, 100 in flight": 300,
        "enqueue_many, by 1,000": 300,
        "enqueue_many and run": 300,
        "bare loop": 24_000,
        "round trip": 60,
        "bare await": 30,
        "bare task": 30,
        "functions in threads": 30,
        "thread pool": 30,
        "functions in processes": 12,
        "process pool": 12,
        "after the end": 0,
    }


def test_people_get_a_table() -> None:
    ended = bench("startup", "--repeats", "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "first job" in ended.stdout
    assert "counted: 8 of 8" in ended.stdout


def test_each_kill_is_counted_and_a_part_can_be_had_alone() -> None:
    ended = bench("members", "--quick", "--json", "--repeats", "2", "--only", "kill")
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    (measure,) = told["measures"]
    assert (measure["name"], measure["rounds"]) == ("SIGKILL to dead", 2)
    assert told["counts"] == {"counted dead after SIGKILL": {"expected": 4, "counted": 4}}
    assert told["options"]["profile"] == "fast"


# --- the counts themselves ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_marks() -> Iterator[None]:
    jobs.marks.clear()
    yield
    jobs.marks.clear()
    for descriptor in jobs.descriptors.values():
        os.close(descriptor)
    jobs.descriptors.clear()


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ([0, 1, 2], []),
        ([2, 0, 1], []),
        ([0, 2], ["runs: 2 instead of 3"]),
        ([0, 1, 1, 2], ["runs, again or not asked for: 1 instead of 0"]),
        ([0, 1, 1], ["runs: 2 instead of 3", "runs, again or not asked for: 1 instead of 0"]),
        ([0, 1, 2, 7], ["runs, again or not asked for: 1 instead of 0"]),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_what_is_lost_and_what_runs_twice_is_noticed(
    found: list[int], wrong: list[str], in_file: bool, tmp_path: Path
) -> None:
    file = tmp_path / "marks" if in_file else None
    for number in found:
        if file is None:
            asyncio.run(jobs.no_op(to="ann", number=number))
        else:
            file.touch()
            jobs.child_no_op(path=str(file), number=number)
    report = Report("question", {})
    marks = Marks(report, "runs", file)
    marks.take(3)
    assert report.wrong == wrong
    marks.take(0)  # nothing of it is left for the next round
    assert report.wrong == wrong


def test_jobs_that_never_run_fail_a_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.01)
    jobs.marks.append(0)
    with pytest.raises(Wrong, match="runs: 1 of 2 jobs"):
        asyncio.run(Marks(Report("question", {}), "runs").reach(2))
