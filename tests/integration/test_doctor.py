"""`zhero doctor` beside real nodes: some answer, one is stopped, one is killed, one is of another cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import zhero
from zhero.cli.main import main
from zhero.runtime.discovery import Directory, Entry, runtime_dir

PATIENCE_S = 30.0
CLUSTER = "doctor-test"

CHILD = """
import asyncio, json, sys, time

wall_ns, off_ns = time.time_ns, 1_000_000 * int(sys.argv[2])
time.time_ns = lambda: wall_ns() + off_ns  # before anybody takes the clock

import zhero

async def main():
    async with zhero.Node([], **json.loads(sys.argv[1])):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zhero.toml").write_text(f'cluster = "{CLUSTER}"\nprofile = "fast"\n')
    monkeypatch.chdir(tmp_path)


@contextmanager
def child(name: str, *, clock_off_ms: int = 0, **given: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A node in a process of its own, whose wall clock is so far off; gone in the end, whatever happens."""
    command = [sys.executable, "-c", CHILD, json.dumps({"name": name, **given}), str(clock_off_ms)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def entry_of(name: str, cluster: str = CLUSTER) -> Entry:
    """Its entry in the runtime directory, as soon as it is there."""
    directory = Directory(runtime_dir(), cluster)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for entry in directory.entries():
            if entry.name == name:
                return entry
        time.sleep(0.02)
    raise AssertionError(f"{name} has not shown itself")


def doctor(capsys: Capture, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and what was found by what was looked at."""
    code = main(["doctor", "--json", *options])
    told = json.loads(capsys.readouterr().out)
    return code, {it["what"]: it for it in told["checks"]}


def until(capsys: Capture, what: str, word: str, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Look until a check says this, for a bounded time."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        code, told = doctor(capsys, *options)
        if what in told and word in told[what]["found"]:
            return code, told
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def test_nodes_that_answer_are_found_by_entries_and_by_seeds(capsys: Capture) -> None:
    with child("one"), child("two"):
        seed = entry_of("one").endpoint
        code, told = until(capsys, "cluster", "2 members", "--join", seed)
        assert code == 0
        assert told[f"seed {seed}"]["level"] == "ok"
        for name in ("one", "two"):
            assert told[f"node {name}"]["level"] == "ok"
            assert f"zhero {zhero.__version__}" in told[f"node {name}"]["found"]
            assert "clock" in told[f"node {name}"]["found"]
        assert main(["doctor"]) == 0
        assert "node two" in capsys.readouterr().out


def test_a_member_is_found_that_only_another_one_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ZHERO_SECRET", "one passphrase for all")
    with child("one"), child("two"):
        seed = entry_of("one").endpoint
        until(capsys, "cluster", "2 members")
        monkeypatch.setenv("ZHERO_RUNTIME_DIR", str(tmp_path / "elsewhere"))
        code, told = doctor(capsys, "--join", seed)
        assert code == 0
        assert told["node two"]["level"] == "ok"
        assert told["cluster"]["found"].startswith("2 members")


def test_a_node_that_is_stopped_is_a_problem_and_well_again_when_it_goes_on(capsys: Capture) -> None:
    with child("one"), child("two") as stopped:
        entry_of("two")
        until(capsys, "cluster", "2 members")
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            code, told = doctor(capsys)
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        assert code == 1
        assert told["node two"]["level"] == "problem"
        assert "does not answer" in told["node two"]["found"]
        code, told = until(capsys, "cluster", "2 members")
        assert told["node two"]["level"] == "ok"


def test_a_node_that_was_killed_is_left_behind_and_removed(capsys: Capture) -> None:
    with child("one") as killed:
        entry_of("one")
        killed.kill()
        killed.wait()
        code, told = doctor(capsys)
        assert (code, told["entry one"]["level"]) == (0, "warning")
        assert main(["doctor", "--fix", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fixed"] == ["one"]
        code, told = doctor(capsys)
        assert code == 0
        assert "entry one" not in told


@pytest.mark.parametrize(("off_ms", "where"), [(30_000, "ahead"), (-30_000, "behind")])
def test_a_clock_that_is_off_is_said_with_the_cure(off_ms: int, where: str, capsys: Capture) -> None:
    with child("one"), child("two", clock_off_ms=off_ms):
        until(capsys, "cluster", "2 members")
        code, told = until(capsys, "node two", where)
        assert code == 0  # a warning: work goes on, and only a `run_at` may be early or late
        assert told["node two"]["level"] == "warning"
        assert "NTP" in told["node two"]["advice"]
        assert told["node one"]["level"] == "ok"


def test_a_seed_of_another_cluster_is_a_problem_that_says_so(capsys: Capture) -> None:
    with child("stranger", cluster="another"):
        seed = entry_of("stranger", "another").endpoint
        code, told = doctor(capsys, "--join", seed)
        assert code == 1
        assert "another cluster" in told[f"seed {seed}"]["found"]
        assert CLUSTER in told[f"seed {seed}"]["advice"]


def test_a_bind_that_one_of_the_nodes_has_is_fine(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with child("one"):
        monkeypatch.setenv("ZHERO_BIND", entry_of("one").endpoint)
        code, told = until(capsys, "cluster", "one member")
        assert code == 0
        assert told["bind"]["found"].endswith("node one of this cluster")


def test_a_node_in_this_process_tells_its_clock() -> None:
    async def ahead_ms() -> int:
        async with zhero.Node([], name="one"), zhero.Client() as client:
            return client.welcome.now_ms - time.time_ns() // 1_000_000

    assert abs(asyncio.run(ahead_ms())) < PATIENCE_S * 1000


def test_two_that_do_not_know_one_another_are_a_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Of one cluster, on one host, and each with a runtime directory of its own."""
    monkeypatch.setenv("ZHERO_SECRET", "one passphrase for both")
    folders = [str(tmp_path / name) for name in ("left", "right")]
    with child("one", runtime_dir=folders[0]), child("two", runtime_dir=folders[1]):
        seeds: list[str] = []
        for name, folder in zip(("one", "two"), folders, strict=True):
            monkeypatch.setenv("ZHERO_RUNTIME_DIR", folder)
            seeds.append(entry_of(name).endpoint)
        monkeypatch.setenv("ZHERO_RUNTIME_DIR", str(tmp_path / "third"))
        code, told = doctor(capsys, "--join", seeds[0], "--join", seeds[1])
        assert code == 1
        assert told["cluster"]["level"] == "problem"
        assert "one counts one; two counts two" in told["cluster"]["found"]
