"""Each program in examples/ runs, ends by itself, and prints what it is there to show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE_S = 60.0
ENDING_S = 5.0
"""What helps a server's workers to start and end may outlive them for a moment."""

SHOWN = {
    "hello": [
        "result: hello Ann",
        "inline, no queue: good morning Bob",
        "failed: divide failed: ZeroDivisionError: division by zero",
    ],
    "delayed": ["cancelled: True", "run_in: not early", "run_at: not early", "at once: not early", "delayed: 0"],
    "periodic": [
        "refused: task tick runs by itself, and its next round is queued already",
        "round 1: not early",
        "round 2: not early",
        "round 3: not early",
        "stopped: True",
        "schedule: tick stopped",
    ],
    "on_all_nodes": [
        "all did it: True",
        "web-1: done in this process",
        "web-2: done in another process",
        "web-3: done in another process",
        "debug: True",
        "all did it: False",
        "enough on: ['web-2', 'web-3']",
        "web-1: check_disk failed: OSError: less than 1000000000 bytes are free",
    ],
    "three_nodes_and_a_kill": [
        "accepted: 60 jobs by web-1",
        "killed: web-1",
        "ended: 60 of 60",
        "started again: ",
        "owner: one of the survivors",
    ],
    "survives_a_crash": [
        "before the crash: ['0', '1', '2'",
        "results: ['0.jpg', '1.jpg', '2.jpg', '3.jpg', '4.jpg', '5.jpg', '6.jpg', '7.jpg']",
    ],
    "retries": [
        "call_shop: reached at try 3",
        "failed: buy failed: LookupError: out of stock",
        "discarded: buy was discarded by its task: Discard: not for sale",
        "dead letter: lamp - LookupError: out of stock",
        "dead letter: moon - Discard: not for sale",
        "retried: bought a lamp",
    ],
    "processes": [
        "primes: 1229 counted in a child process",
        "primes: 2262 counted in a child process",
        "JobTimedOut: think_for_ever ran longer than its timeout",
        "JobCrashed: crash ended with the child process that ran it",
        "and the node goes on: 25",
    ],
    "sync_program": [
        "accepted",
        "cat.png at 200, resized in another thread",
        "cat.png at 800, resized in another thread",
        "jobs that will not run: 0",
    ],
    "plain_threads": [
        "POST: 202",
        "orders: 40",
        "GET: 200",
        "a chair, packed in another thread",
        "a lamp, packed in another thread",
        "jobs that will not run: 0",
    ],
    "web_app": [
        "members: 3",
        "POST: 202",
        "thumbnails: 30 made by ",
        "GET of no job: 404",
        "sweeps: 5 or more, each in one worker only: True",
        "server ended with 0",
    ],
    "inside_a_web_app": [
        "POST /reports: 202",
        "GET at once: 202",
        "GET later: 200 {'result': 'all is well with sales'}",
        "GET of no job: 404",
    ],
    "client": [
        "100 degrees: 212.0",
        "0, 20, 37 degrees: [32.0, 68.0, 98.6]",
        "delayed: 1",
        "cancelled: True",
        "members: ['worker-1']",
        "node ended with 0",
    ],
    "origin_style": [
        "enqueued: sent to ann",
        "here and now: sent to ann",
        "cancelled: True",
        "refused: no member has a task named 'sendFax'",
        "action: 4",
        "failed: runAction failed: TaskNotFound: no action named 'nothing' on this node",
    ],
    "chat_server": ["connected: 2", "ping round: {'alive': 1, 'dropped': 1}", "connected: 1"],
}
"""Example -> how lines of its output begin."""

LOGGED = {
    "hello": ["! failed divide "],
    "on_all_nodes": ["! failed check_disk "],
    "retries": ["! retry of call_shop ", "! failed buy ", "! discarded buy "],
    "processes": ["! crashed crash ", "! timed_out think_for_ever "],
    "origin_style": ["! failed runAction "],
}
"""Example -> how the log lines of what goes wrong in it on purpose begin. The others log nothing."""

NEEDS = {"web_app": ("starlette", "uvicorn")}
"""Those that use what zhero itself does not; without it they are not run."""

AS_MODULES = {"chat_server"}
"""Those that use what lies beside their folder."""


def run(name: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, which names what the program has left running; that is ended."""
    place = ["-m", f"examples.{name}"] if name in AS_MODULES else [str(EXAMPLES / f"{name}.py")]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *place],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            left = end_group(process.pid)
    return process.returncode, out, err + ("a process is left running" if left else "")


def end_group(group: int) -> bool:
    """End the processes of a group that do not end by themselves now that its first has; False: there are none."""
    until = time.monotonic() + ENDING_S
    while (left := runs(group)) and time.monotonic() < until:
        time.sleep(0.05)
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return left


def runs(group: int) -> bool:
    """Whether a process of the group runs. One that has ended, and that nobody waits for any more, does not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True, timeout=30)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return any(pgid == str(group) and not stat.startswith("Z") for pgid, stat in rows)


@pytest.mark.parametrize("name", SHOWN)
def test_the_example_shows_what_it_is_there_for(name: str) -> None:
    for module in NEEDS.get(name, ()):
        pytest.importorskip(module)
    code, out, err = run(name)
    assert code == 0, err
    logged = [line for line in err.splitlines() if line.startswith("! ")]
    begins = LOGGED.get(name, [])
    assert all(any(line.startswith(begin) for line in logged) for begin in begins), err
    assert all(line.startswith(tuple(begins)) for line in logged), err
    assert begins or err == "", err
    assert "a process is left running" not in err
    lines = out.splitlines()
    missing = [begin for begin in SHOWN[name] if not any(line.startswith(begin) for line in lines)]
    assert missing == [], out


def test_every_example_is_run_and_listed() -> None:
    programs = {file.stem for file in EXAMPLES.glob("*.py")}
    assert programs == set(SHOWN)
    readme = (EXAMPLES / "README.md").read_text()
    assert [name for name in programs if f"| `{name}.py` |" not in readme] == []
