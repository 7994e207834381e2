"""The two examples that the original task system came with, under a real `zhero run`.

There a task ended by calling `next`, and both `next(true)` and `next(null, true)` were success. Here it returns: True
and None are success alike, as is whatever else it returns.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE_S = 20.0
SHIPPED = Path(__file__).parents[2] / "tasks" / "greetings.py"

HELLO = """\
async def run(api, params):
    api.log("----- Hi There! ----", "green")
    return True


say_hello = {
    "name": "sayHello",
    "description": "I say hello",
    "scope": "any",
    "frequency": 1000,
    "run": run,
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tasks folder of an application, whose folder is the working directory."""
    (tmp_path / "zhero.toml").touch()
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks"


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def run_of(folder: Path) -> Generator[Callable[[], str]]:
    """A `zhero run` whose output so far the value reads; in the end SIGTERM ends it with exit code 0."""
    said = folder.parent / "said"
    found = Path(os.environ["ZHERO_RUNTIME_DIR"])
    with open(said, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "zhero", "run", "--tasks", str(folder)], stdout=file, stderr=file
        )
    try:
        until(lambda: process.poll() is not None or list(found.glob("*/*.json")), "the node did not start")
        yield said.read_text
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, said.read_text()
    finally:
        process.kill()  # no harm where it has ended
        process.wait()


def shell(*argv: str) -> str:
    """What the command line prints."""
    done = subprocess.run(
        [sys.executable, "-m", "zhero", *argv], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hello_is_said_every_second_when_it_returns_true(folder: Path) -> None:
    (folder / "any_name.py").write_text(HELLO)
    with run_of(folder) as said:
        until(lambda: said().count("succeeded sayHello") >= 2, "it was not said twice")
    assert said().count("----- Hi There! ----") >= 2
    assert "failed" not in said()


def test_hello_and_goodbye_live_in_one_file_and_return_nothing(folder: Path) -> None:
    shutil.copy(SHIPPED, folder)
    with run_of(folder) as said:
        assert shell("enqueue", "sayGoodbye", "--wait") == "null\n"
        assert said().count("----- Goodbye! ----") == 1
        until(lambda: "succeeded sayHello" in said(), "hello was not said")
        assert "----- Hi There! ----" in said()
        done = json.loads(shell("stats", "--json"))["tasks"]
        assert done["sayGoodbye"]["succeeded"] == 1
        assert done["sayHello"]["succeeded"] >= 1
        assert done["sayHello"]["dead"] == done["sayGoodbye"]["dead"] == 0
