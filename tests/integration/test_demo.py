"""The demo as people start it: three nodes, two of them killed; and every way in which it may end."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import zhero
from zhero.demo import __main__ as program
from zhero.demo.analysis import analyse_all, list_sources, standard_library
from zhero.demo.nodes import Nodes
from zhero.demo.record import Record

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="child processes are POSIX only"),
    pytest.mark.timeout(240),
]

PATIENCE_S = 120.0
PROJECT = Path(__file__).parents[2]
LAST_LINE = r"lost=(\d+) equal=(yes|no) nodes=(\d+) killed=(\d+)"
COUNTS = r"jobs=(\d+) done=(\d+) repeated=(\d+) running=(\d+) untold=(\d+)"


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

    def below(self) -> set[int]:
        """The processes that it started, and those that these started."""
        found: set[int] = set()
        new = {self.process.pid}
        while new:
            new = {child for pid in new for child in children_of(pid)} - found
            found |= new
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


def children_of(pid: int) -> set[int]:
    found: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.update(map(int, listed.read_text().split()))
        except OSError:  # that thread has just ended
            pass
    return found


def is_gone(pid: int) -> bool:
    """Whether it has ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for children in /proc")


# --- from its start to its end ------------------------------------------------------------------------------------


def test_a_small_run_loses_nothing_though_two_nodes_are_killed(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    with demo(tmp_path / "tmp", "--limit", "60", "--report", str(report)) as running:
        code, lines, errors = running.end()
    assert (code, errors) == (0, ""), lines
    assert lines[-1] == "lost=0 equal=yes nodes=3 killed=2"
    jobs, done, repeated, ran, untold = map(int, re.fullmatch(COUNTS, lines[-2]).groups())  # type: ignore[union-attr]
    assert (jobs, done) == (61, 61)
    assert repeated <= ran + untold
    assert all(line.isprintable() for line in lines)
    assert "| files | 60 |" in report.read_text()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert_story(lines)


def assert_story(lines: Sequence[str]) -> None:
    """It is told in this order: the one that enqueues is killed, then, when all is well again, the owner."""
    story = (
        r"· web-1, web-2, web-3 are a cluster; web-\d owns the delayed queue",
        r"· web-1 has enqueued 40 jobs, and they are accepted",
        r"! web-1 is killed, after \d+ files",
        r"· web-4 is started",
        r"· whole again after .* s: 3 members, nothing degraded, (?P<owner>web-[234]) owns",
        r"· (?P=owner) has enqueued 20 jobs, and they are accepted",
        r"· a delayed job is accepted, due in 4 s",
        r"! (?P=owner) is killed, after \d+ files",
        r"· web-5 is started",
        r"· whole again after .* s: 3 members, nothing degraded, web-[2345] owns",
    )
    told = "\n".join(line for line in lines if line.startswith(("·", "!")))
    assert re.fullmatch("\n".join(story), told), told


def test_on_a_terminal_the_cluster_is_shown_live(tmp_path: Path) -> None:
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
    assert re.search(r"web-1 .*killed", text)
    assert re.search(r"web-\d .*owner", text)
    assert "20/20 files" in text
    assert "\x1b[?25l" in text  # the cursor is hidden while the cluster is shown
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.rstrip().endswith("lost=0 equal=yes nodes=3 killed=2")


# --- other ends ---------------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "demo: interrupted\n"), (signal.SIGTERM, 143, "demo: terminated\n")],
    ids=["ctrl-c", "sigterm"],
)
def test_told_to_end_it_ends_all_children_and_takes_its_files_away(
    tmp_path: Path, number: signal.Signals, code: int, said: str
) -> None:
    with demo(tmp_path / "tmp") as running:
        until(lambda: running.has_said("· web-1 has enqueued") or running.process.poll() is not None, "no work")
        below = running.below()
        assert len(below) >= 3
        running.process.send_signal(number)
        ended, lines, errors = running.end()
        assert (ended, errors) == (code, said), lines
        assert not any(re.fullmatch(LAST_LINE, line) for line in lines)
        assert not any("Traceback" in line for line in lines)
        until(lambda: all(map(is_gone, below)), "a child is left")
    assert list((tmp_path / "tmp").iterdir()) == []


@needs_proc
def test_when_it_is_killed_its_nodes_end_by_themselves(tmp_path: Path) -> None:
    with demo(tmp_path / "tmp") as running:
        until(lambda: running.has_said("· web-1 has enqueued") or running.process.poll() is not None, "no work")
        below = running.below()
        assert len(below) >= 3
        running.process.kill()
        running.process.wait()
        until(lambda: all(map(is_gone, below)), "a child is left")


def test_an_interrupt_of_the_plain_loop_ends_it_too(tmp_path: Path) -> None:
    with demo(tmp_path / "tmp", "--limit", "200") as running:
        until(lambda: running.has_said("analysed in a plain loop") or running.process.poll() is not None, "no loop")
        running.process.send_signal(signal.SIGINT)
        code, _, errors = running.end()
    assert (code, errors) == (130, "demo: interrupted\n")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_wrong_usage_is_said_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--limit", "2"], ["--limit", "1801"], ["--report", str(tmp_path / "none" / "report.md")]):
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
    assert program.main(["--limit", "12"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "lost=0 equal=no nodes=3 killed=2"
    assert lines[-3].startswith("! 1 files have other figures than in the plain loop: ")


# --- nodes, from outside ------------------------------------------------------------------------------------------


def test_a_node_is_a_process_that_is_asked_through_a_client(tmp_path: Path) -> None:
    root = standard_library()
    paths = list_sources(root, 3)
    record = Record(tmp_path / "record")

    async def scenario() -> None:
        said: list[str] = []
        cluster = f"test-demo-{os.getpid()}"
        async with asyncio.timeout(PATIENCE_S), Nodes(tmp_path, tmp_path / "record", cluster, 2, said.append) as nodes:
            node = await nodes.start("web-1")
            endpoint = await node.endpoint
            jobs = await node.enqueue(root, paths)
            assert sorted(jobs.values()) == paths
            async with zhero.Client(cluster, endpoint, runtime_dir=nodes.runtime_dir) as client:
                results = {path: await client.result(job, PATIENCE_S) for job, path in jobs.items()}
            assert results == analyse_all(root, paths, lambda: None)
            kill = await nodes.kill("web-1")
            assert (kill.node, nodes.living) == ("web-1", {})
        assert (said, nodes.troubles) == ([], [])

    asyncio.run(scenario())
    assert sorted((it.kind, it.node, it.what) for it in record.read() if it.what in paths) == sorted(
        (kind, "web-1", path) for kind in ("began", "ended") for path in paths
    )


def test_a_node_that_ends_by_itself_is_a_trouble_and_holds_up_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        said: list[str] = []
        cluster = f"test-demo-{os.getpid()}"
        async with asyncio.timeout(PATIENCE_S), Nodes(tmp_path, tmp_path / "record", cluster, 2, said.append) as nodes:
            node = await nodes.start("web-1")
            await node.endpoint
            os.kill(node.process.pid, signal.SIGKILL)
            with pytest.raises(ChildProcessError, match="node web-1 has ended by itself, with exit code -9"):
                await node.enqueue(standard_library(), ["ast.py"])
            assert nodes.living == {}
            assert nodes.troubles == ["node web-1 has ended by itself, with exit code -9"]
            assert said == ["! node web-1 has ended by itself, with exit code -9"]

    asyncio.run(scenario())


def test_a_node_whose_stdin_ends_ends_too(tmp_path: Path) -> None:
    arguments = ("web-1", f"test-demo-{os.getpid()}", str(tmp_path / "runtime"), "1")
    (tmp_path / "runtime").mkdir(mode=0o700)
    process = subprocess.Popen(
        [sys.executable, "-m", "zhero.demo.node", *arguments],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert b'"ready"' in process.stdout.readline()
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
