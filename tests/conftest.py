"""What holds for every test: its own runtime directory, and nothing left running when it is over."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing about the code: machines are shared.
settings.register_profile("zhero", deadline=None)
settings.load_profile("zhero")

PATIENCE_S = 5.0
"""How long after a test its threads and children may take to end."""


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("zhero-")}


def _children() -> dict[int, str]:
    """Process id -> command of each child, ended but unreaped ones too. Empty where the system can't tell."""
    found: dict[int, str] = {}
    for listed in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listed.read_text().split()
        except OSError:  # that thread has just ended
            continue
        for pid in pids:
            try:
                command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # that child has just ended
                continue
            # multiprocessing keeps this one for as long as the interpreter runs.
            if "multiprocessing.resource_tracker" not in command:
                found[int(pid)] = command.strip() or "(ended, not waited for)"
    return found


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Fail a test that leaves threads of ours or child processes behind, and end those children."""
    threads_before, children_before = _threads(), _children().keys()
    yield
    deadline = time.monotonic() + PATIENCE_S
    while True:
        threads = _threads() - threads_before
        children = {pid: command for pid, command in _children().items() if pid not in children_before}
        if not threads and not children:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    left = [f"thread {thread.name}" for thread in threads] + [f"child {pid}: {it}" for pid, it in children.items()]
    pytest.fail("left running: " + ", ".join(sorted(left)))


@pytest.fixture(autouse=True)
def own_runtime_dir(nothing_left_running: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory for this test alone, so that it meets no node but its own, nor the journal of one."""
    path = Path(tempfile.mkdtemp(prefix="zhero-test-"))
    monkeypatch.setenv("ZHERO_RUNTIME_DIR", str(path))
    monkeypatch.setenv("ZHERO_DATA_DIR", "none")
    yield path
    shutil.rmtree(path, ignore_errors=True)
