"""The demo as people start it, and on a node where things go wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import zhero
from zhero.demo import __main__ as program
from zhero.demo.analysis import analyse_all, list_sources, standard_library
from zhero.demo.run import Order, run_on_one_node
from zhero.demo.screen import PlainScreen
from zhero.demo.tasks import show_progress
from zhero.demo.verdict import Verdict, judge, read_runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="child processes are POSIX only")

PATIENCE_S = 60.0
PROJECT = Path(__file__).parents[2]
LAST_LINE = r"demo: jobs=(\d+) done=(\d+) lost=(\d+) repeated=(\d+) nodes=(\d+) killed=(\d+) equal=(yes|no)"


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so, for a bounded time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Demo:
    """A running demo and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(iter(self.process.stdout.readline, ""))

    def has_said(self, start: str) -> bool:
        return any(line.startswith(start) for line in self.said)

    def children(self) -> set[int]:
        found: set[int] = set()
        for listed in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            try:
                found.update(map(int, listed.read_text().split()))
            except OSError:  # that thread has just ended
                pass
        return found

    def end(self) -> tuple[int, list[str], str]:
        """Its exit code, its lines, and what it said on stderr."""
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code, [line.rstrip("\n") for line in self.said], errors

    def close(self) -> None:
        self._reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def demo(folder: Path, *argv: str) -> Generator[Demo]:
    """The demo in a process of its own, with a folder for its temporary files; killed in the end if it still runs."""
    folder.mkdir(exist_ok=True)
    # Where tests run in the background Ctrl-C may be ignored, and a new process would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "zhero.demo", *argv],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    running = Demo(process)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        running.close()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# --- from its start to its end ------------------------------------------------------------------------------------


def test_a_small_run_ends_well_and_leaves_only_the_report(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    with demo(tmp_path / "tmp", "--limit", "40", "--report", str(report)) as running:
        code, lines, errors = running.end()
    assert (code, errors) == (0, "")
    assert re.fullmatch(LAST_LINE, lines[-1])
    assert lines[-1] == "demo: jobs=40 done=40 lost=0 repeated=0 nodes=1 killed=0 equal=yes"
    assert all(line.isprintable() for line in lines)
    assert any(line.startswith("by jobs: ") for line in lines)
    assert "| files | 40 |" in report.read_text()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_on_a_terminal_there_is_a_live_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "zhero.demo", "--limit", "20"],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    try:
        shown, deadline = b"", time.monotonic() + PATIENCE_S
        while select.select([ours], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:  # on Linux the end of a terminal is an error
                break
            if not data:
                break
            shown += data
        assert process.wait(PATIENCE_S) == 0, shown.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = shown.decode()
    assert "analysed by jobs" in text
    assert "20/20" in text
    assert "\x1b[?25l" in text  # the cursor is hidden while the bar is there
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.rstrip().endswith("demo: jobs=20 done=20 lost=0 repeated=0 nodes=1 killed=0 equal=yes")


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for children in /proc")
def test_an_interrupt_while_jobs_run_ends_it_at_once_and_whole(tmp_path: Path) -> None:
    with demo(tmp_path / "tmp") as running:
        until(lambda: running.has_said("progress:") or running.process.poll() is not None, "no progress was printed")
        children = running.children()
        assert children
        running.process.send_signal(signal.SIGINT)
        code, lines, errors = running.end()
        assert (code, errors) == (130, "demo: interrupted\n")
        assert not any(re.fullmatch(LAST_LINE, line) for line in lines)
        assert not any("Traceback" in line for line in lines)
        # It did not go on until all was done.
        assert any(re.match(r"! node demo stopped with \d+ jobs that will not run", line) for line in lines)
        until(lambda: all(map(is_gone, children)), "a child is left")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_interrupt_of_the_plain_loop_ends_it_too(tmp_path: Path) -> None:
    with demo(tmp_path / "tmp", "--limit", "400") as running:
        until(lambda: running.has_said("analysed in a plain loop") or running.process.poll() is not None, "no loop")
        running.process.send_signal(signal.SIGINT)
        code, _, errors = running.end()
    assert (code, errors) == (130, "demo: interrupted\n")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_wrong_usage_is_said_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--limit", "0"], ["--limit", "1801"], ["--report", str(tmp_path / "none" / "report.md")]):
        with pytest.raises(SystemExit) as stop:
            program.main(argv)
        assert stop.value.code == 2
        assert capsys.readouterr().out == ""


def test_a_demo_whose_loop_finds_something_else_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def finds_one_line_more(root: Path, paths: list[str], done: Callable[[], object]) -> object:
        counts = analyse_all(root, paths, done)
        counts[paths[1]]["lines"] += 1
        return counts

    monkeypatch.setattr(program, "analyse_all", finds_one_line_more)
    assert program.main(["--limit", "5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "demo: jobs=5 done=5 lost=0 repeated=0 nodes=1 killed=0 equal=no"
    assert lines[-2].startswith("! 1 files have other figures than in the plain loop: ")


def test_a_job_that_fails_beside_the_analysis_is_one_line_and_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["--limit", "3", "--report", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("demo: JobFailed: write_report failed: IsADirectoryError")
    assert told.err.count("\n") == 1
    assert not re.search(LAST_LINE, told.out)


# --- what the counts count ----------------------------------------------------------------------------------------


def verdict_of(paths: list[str], record: Path, report: Path) -> Verdict:
    """Run these on a node, and judge."""
    root = standard_library()
    taken = asyncio.run(run_on_one_node(Order(root, paths, record, report), PlainScreen()))
    by_loop = analyse_all(root, paths, lambda: None)
    return judge(
        taken.accepted, taken.results, read_runs(record), by_loop, taken.inline, nodes=len(taken.places), killed=0
    )


def test_a_file_that_is_given_to_two_jobs_is_counted_as_repeated(tmp_path: Path) -> None:
    a, b = list_sources(standard_library(), 2)
    verdict = verdict_of([a, b, a], tmp_path / "runs", tmp_path / "report.md")
    assert verdict.line == "demo: jobs=3 done=3 lost=0 repeated=1 nodes=1 killed=0 equal=yes"


def test_jobs_that_end_without_a_result_are_counted_as_lost(tmp_path: Path) -> None:
    """No run can be put on record in a folder that is not there, so each job fails."""
    paths = list_sources(standard_library(), 3)
    verdict = verdict_of(paths, tmp_path / "none" / "runs", tmp_path / "report.md")
    assert verdict.line == "demo: jobs=3 done=0 lost=3 repeated=0 nodes=1 killed=0 equal=no"
    assert not verdict.is_good


def test_progress_is_a_periodic_task() -> None:
    said: list[str] = []

    async def scenario() -> None:
        twice = asyncio.Event()

        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                said.append(record.getMessage())
                if len(said) == 2:
                    twice.set()

        logger, listener = logging.getLogger("zhero"), Listener()
        async with zhero.Node([show_progress]) as node:
            level_before = logger.level
            logger.setLevel(logging.INFO)
            logger.addHandler(listener)
            try:
                await asyncio.wait_for(twice.wait(), PATIENCE_S)
            finally:
                logger.removeHandler(listener)
                logger.setLevel(level_before)
            assert await node.stop_task(show_progress.name)

    asyncio.run(scenario())
    pattern = r"progress: 0 of 0 files, queues: global \d+, local \d+, delayed \d+, processing \d+"
    assert [bool(re.fullmatch(pattern, line)) for line in said] == [True, True]
