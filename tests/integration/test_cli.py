"""The command line against a real `zhero run`, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zhero.cli.main import main

PATIENCE_S = 20.0

TASKS = """\
import asyncio
import os
import time
from pathlib import Path

import zhero


@zhero.task()
async def add(a: int, b: int = 1) -> int:
    return a + b


@zhero.task()
async def fail() -> None:
    raise ValueError("no luck")


@zhero.task()
async def slow(folder: str, seconds: float) -> None:
    Path(folder, "started").touch()
    await asyncio.sleep(seconds)
    Path(folder, "ended").touch()


@zhero.task()
async def block(folder: str) -> None:
    Path(folder, "started").touch()
    time.sleep(600)


@zhero.task()
def thread(folder: str) -> None:
    Path(folder, "started").touch()
    time.sleep(600)


@zhero.task(executor="process")
def child(folder: str) -> None:
    Path(folder, "child.part").write_text(str(os.getpid()))
    Path(folder, "child.part").rename(Path(folder, "child"))
    time.sleep(600)


@zhero.task(frequency=3_600_000)
async def tick() -> None:
    pass
"""

APP = """\
import zhero


@zhero.task()
async def greet(name: str) -> str:
    return f"hello {name}"


node = zhero.Node(name="from-app", tasks=[greet])


def make() -> zhero.Node:
    return zhero.Node(name="from-factory", tasks=[greet])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An application's folder, which is the working directory."""
    (tmp_path / "zhero.toml").touch()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "some.py").write_text(TASKS)
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until something is so, for a bounded time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Running:
    """A `zhero run`. `log`: what it has said on stderr so far."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self.process = process
        self._file = file

    @property
    def log(self) -> str:
        return self._file.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(project: Path, *argv: str) -> Generator[Running]:
    """A node in its own process, reachable; killed in the end if it still runs."""
    runtime_dir = Path(os.environ["ZHERO_RUNTIME_DIR"])
    before = set(runtime_dir.glob("*/*.json"))
    file = project / f"log-{len(list(project.glob('log-*')))}"
    with open(file, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "zhero", "run", *argv], cwd=project, stdout=log, stderr=subprocess.STDOUT
        )
    node = Running(process, file)
    try:
        until(
            lambda: process.poll() is not None or set(runtime_dir.glob("*/*.json")) - before, "the node did not start"
        )
        assert process.poll() is None, node.log
        yield node
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def failing_run(project: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """A `zhero run` that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "zhero", "run", *argv],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


class Shell:
    """The command line in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *argv: str, code: int = 0) -> str:
        """What it prints on stdout, or on stderr where that is all; the exit code has to be `code`."""
        got = main(argv)
        told = self._capture.readouterr()
        assert got == code, told
        if code:
            assert told.err.startswith("zhero: ")
            assert told.err.count("\n") == 1
        return told.out or told.err

    def read(self, *argv: str) -> Any:
        return json.loads(self(*argv, "--json"))


@pytest.fixture
def zhero(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


# --- client commands ----------------------------------------------------------------------------------------------


def test_jobs_are_enqueued_waited_for_and_counted(project: Path, zhero: Shell) -> None:
    with running(project, "--name", "one", "--workers", "2") as node:
        assert zhero("enqueue", "add", "-p", "a=2", "--wait") == "3\n"
        assert zhero("enqueue", "add", "--json", '{"a": 2, "b": 5}', "--wait") == "7\n"
        assert "no luck" in zhero("enqueue", "fail", "--wait", code=1)
        assert zhero.read("stats")["totals"]["succeeded"] == 2
        assert zhero.read("stats")["tasks"]["fail"]["dead"] == 1

        status = zhero.read("status")
        (member,) = status["members"]
        assert (member["name"], member["owner"], member["pid"]) == ("one", True, node.process.pid)
        assert {"add", "fail", "slow", "tick"} <= set(member["tasks"])
        assert [plan["name"] for plan in status["plans"]] == ["tick"]
        assert status["queues"]["delayed"] == 1
        assert status["dead"] == 1
        assert zhero.read("members") == status["members"]
        for command in ("status", "members", "stats", "jobs", "failed"):
            assert zhero(command)
        assert node.stop() == 0


def test_dead_letters_are_listed_retried_and_discarded(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        zhero("enqueue", "fail", "--wait", code=1)
        (dead,) = zhero.read("failed")
        assert (dead["name"], dead["error"], dead["state"]) == ("fail", "ValueError: no luck", "dead")
        assert "some.py" in dead["traceback"]
        zhero("retry", dead["id"])
        until(lambda: zhero.read("stats")["tasks"]["fail"]["dead"] == 2, "it did not run again")
        zhero("discard", dead["id"])
        assert zhero.read("failed") == []
        zhero("discard", dead["id"], code=1)
        assert node.stop() == 0


def test_a_delayed_job_is_listed_and_cancelled(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        job = zhero("enqueue", "add", "-p", "a=1", "--in", "3600").strip()
        (view,) = zhero.read("jobs", "--name", "add")
        assert (view["id"], view["queue"], view["params"]) == (job, "delayed", {"a": 1})
        later = zhero("enqueue", "add", "-p", "a=1", "--at", "2099-01-01T00:00:00+00:00", code=2)
        assert "ten years" in later
        zhero("cancel", job)
        assert zhero.read("jobs", "--name", "add") == []
        zhero("cancel", job, code=1)
        assert node.stop() == 0


def test_a_schedule_is_stopped_and_started(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        zhero("stop-task", "tick")
        zhero("stop-task", "tick", code=1)
        assert zhero.read("status")["plans"][0]["stopped"] is True
        zhero("start-task", "tick")
        assert zhero.read("status")["plans"][0]["stopped"] is False
        assert "add" in zhero("stop-task", "add", code=2)
        assert "already" in zhero("enqueue", "tick", code=1)
        assert node.stop() == 0


def test_wrong_use_is_told_before_anything_is_queued(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        assert "nobody" in zhero("enqueue", "nobody", code=2)
        assert "bogus" in zhero("enqueue", "add", "-p", "bogus=1", code=2)
        assert "max_payload" in zhero("enqueue", "add", "--json", json.dumps({"a": "x" * 1024 * 1024}), code=2)
        assert "32 hexadecimal digits" in zhero("cancel", "nonsense", code=1)
        assert "not known" in zhero("retry", "0" * 32, code=1)
        assert zhero.read("status")["queues"]["global"] == 0
        assert node.stop() == 0


@pytest.mark.parametrize(
    ("setting", "params", "complaint"),
    [
        ({"ZHERO_MAX_JOBS": "3"}, "a=1", "3 jobs (max_jobs)"),
        ({"ZHERO_MAX_BYTES": "1000"}, "a=" + "x" * 300, "max_bytes"),
    ],
)
def test_a_full_queue_takes_no_more_and_keeps_what_it_has(
    setting: dict[str, str], params: str, complaint: str, project: Path, zhero: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    with running(project, "--workers", "0", "--drain-timeout", "0") as node:
        kept = [zhero("enqueue", "add", "-p", params).strip() for _ in range(3)]
        told = zhero("enqueue", "add", "-p", params, code=1)
        assert complaint in told
        assert "nothing was enqueued" in told
        assert [job["id"] for job in zhero.read("jobs", "--name", "add")] == kept
        assert node.stop() == 1


def test_a_node_that_is_killed_leaves_nothing_in_the_way(project: Path, zhero: Shell) -> None:
    entries = Path(os.environ["ZHERO_RUNTIME_DIR"])
    with running(project) as node:
        zhero("enqueue", "child", "-p", f"folder={project}")
        until((project / "child").exists, "the job did not start")
        child = int((project / "child").read_text())
        try:
            assert node.stop(signal.SIGKILL) == -signal.SIGKILL
            until(lambda: is_gone(child), "the child process outlives its node")
        finally:
            if not is_gone(child):
                os.kill(child, signal.SIGKILL)
    assert list(entries.glob("*/*.json"))
    assert "no node" in zhero("status", code=3)
    assert list(entries.glob("*/*.json")) == []
    with running(project) as node:
        assert zhero("enqueue", "add", "-p", "a=1", "--wait") == "2\n"
        assert node.stop() == 0


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has, too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    if not Path("/proc").exists():
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_without_a_node_no_cluster_is_reached(project: Path, zhero: Shell) -> None:
    for command in (["status"], ["jobs", "--json"], ["enqueue", "add"], ["cancel", "0" * 32]):
        assert "no node" in zhero(*command, code=3)


def test_another_cluster_is_another_one(project: Path, zhero: Shell) -> None:
    with running(project, "--cluster", "blue") as node:
        zhero("status", code=3)
        assert zhero.read("status", "--cluster", "blue")["cluster"] == "blue"
        (member,) = zhero.read("members", "--cluster", "blue")
        assert zhero.read("members", "--cluster", "blue", "--join", member["endpoint"]) == [member]
        assert "another cluster" in zhero("status", "--cluster", "red", "--join", member["endpoint"], code=3)
        assert node.stop() == 0


# --- run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_finish(number: int, project: Path, zhero: Shell) -> None:
    with running(project) as node:
        zhero("enqueue", "slow", "-p", f"folder={project}", "-p", "seconds=0.5")
        until((project / "started").exists, "the job did not start")
        assert node.stop(number) == 0
        assert (project / "ended").exists()
        assert "drain" in node.log
    assert "no node" in zhero("status", code=3)


def test_a_second_signal_stops_at_once_and_says_what_is_lost(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        zhero("enqueue", "slow", "-p", f"folder={project}", "-p", "seconds=600")
        until((project / "started").exists, "the job did not start")
        node.process.send_signal(signal.SIGTERM)
        until(lambda: "drain" in node.log, "it does not say that it drains")
        assert node.stop() == 1
        assert node.log.splitlines()[-1] == "zhero: accepted jobs that will not run any more: 1"
        assert not (project / "ended").exists()


def test_a_second_signal_stops_at_once_also_while_a_thread_is_at_work(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        zhero("enqueue", "thread", "-p", f"folder={project}")
        until((project / "started").exists, "the job did not start")
        node.process.send_signal(signal.SIGTERM)
        until(lambda: "drain" in node.log, "it does not say that it drains")
        assert node.stop() == 1


def test_a_third_signal_ends_even_a_node_whose_loop_is_blocked(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        zhero("enqueue", "block", "-p", f"folder={project}")
        until((project / "started").exists, "the job did not start")
        until(lambda: ended_by_signals(node), "it goes on")
        assert node.process.returncode == -signal.SIGINT


def ended_by_signals(node: Running) -> bool:
    if node.process.poll() is None:
        node.process.send_signal(signal.SIGINT)  # two that come together may count as one, so again and again
    return node.process.poll() is not None


def test_a_limit_ends_the_drain(project: Path, zhero: Shell) -> None:
    with running(project, "--drain-timeout", "0.1") as node:
        zhero("enqueue", "slow", "-p", f"folder={project}", "-p", "seconds=600")
        until((project / "started").exists, "the job did not start")
        assert node.stop() == 1


def test_log_lines_have_a_time_and_no_colour_in_a_file(project: Path, zhero: Shell) -> None:
    with running(project) as node:
        job = zhero("enqueue", "fail").strip()
        until(lambda: f"failed fail id={job}" in node.log, "the end of the job is not logged")
        assert node.stop() == 0
    assert "\x1b" not in node.log
    line = next(line for line in node.log.splitlines() if f"failed fail id={job}" in line)
    time.strptime(line[:8], "%H:%M:%S")
    assert line[8] == "."
    assert line[9:12].isdigit()


@pytest.mark.parametrize(("place", "name"), [("app:node", "from-app"), ("app:make", "from-factory")])
def test_a_node_of_an_application_is_run(place: str, name: str, project: Path, zhero: Shell) -> None:
    with running(project, place) as node:
        assert [member["name"] for member in zhero.read("members")] == [name]
        assert zhero("enqueue", "greet", "-p", "name=ann", "--wait") == '"hello ann"\n'
        assert node.stop() == 0


def test_a_missing_tasks_folder_is_a_notice(project: Path, zhero: Shell) -> None:
    (project / "tasks" / "some.py").unlink()
    (project / "tasks").rmdir()
    with running(project) as node:
        assert zhero.read("members")
        assert "tasks" in node.log
        assert node.stop() == 0


def test_task_files_import_one_another(project: Path, zhero: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as the installed command: the working directory is not on the path
    (project / "tasks" / "more.py").write_text("from tasks.some import add\nsame = add\n")
    with running(project, "--tasks", "tasks") as node:
        assert zhero("enqueue", "add", "-p", "a=1", "--wait") == "2\n"
        assert node.stop() == 0


def test_changed_task_files_are_loaded_again(project: Path, zhero: Shell) -> None:
    with running(project, "--reload") as node:
        assert zhero("enqueue", "add", "-p", "a=1", "--wait") == "2\n"
        (project / "tasks" / "some.py").write_text(TASKS.replace("return a + b", "return a - b"))
        until(lambda: zhero("enqueue", "add", "-p", "a=1", "--wait") == "0\n", "the new code is not used")
        (project / "tasks" / "some.py").write_text("def broken(:\n")
        until(lambda: "some.py" in node.log and "SyntaxError" in node.log, "the broken file is not named")
        assert zhero("enqueue", "add", "-p", "a=1", "--wait") == "0\n"
        assert node.stop() == 0


def test_what_keeps_a_node_from_starting_is_one_line(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = failing_run(project, "--bind", f"tcp://127.0.0.1:{port}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{port}" in done.stderr


def test_an_unusable_runtime_directory_is_one_line_with_the_cure(
    project: Path, zhero: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "taken").touch()
    monkeypatch.setenv("ZHERO_RUNTIME_DIR", str(project / "taken"))
    done = failing_run(project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "set ZHERO_RUNTIME_DIR" in done.stderr
    assert "set ZHERO_RUNTIME_DIR" in zhero("status", code=1)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--workers", "-1"], "workers"),
        (["--workers", "many"], "workers"),
        (["--bind", "tcp://0.0.0.0:0"], "insecure"),
        (["--bind", "nonsense"], "bind"),
        (["--drain-timeout", "soon"], "drain_timeout"),
        (["--cluster", "../evil"], "cluster"),
        (["app:nothing"], "nothing"),
        (["app:node", "--workers", "3"], "--workers"),
    ],
)
def test_wrong_options_of_run_are_wrong_usage(argv: list[str], complaint: str, project: Path) -> None:
    done = failing_run(project, *argv)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("zhero: ")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
        ("import zhero\n\n@zhero.task\nasync def add(): ...\n", "two tasks are named 'add'"),
        ("import zhero\n\nclass Clean(zhero.Task):\n    name = 'clean'\n", "run is missing"),
        ("CLEAN = {'name': 'clean', 'scope': 'any', 'frequency': 0, 'run': print}\n", "description is missing"),
        ("import zhero\n\n@zhero.task(frequency=5)\nasync def quick(): ...\n", "frequency"),
        ("import zhero\n\n@zhero.task(scope='some')\nasync def who(): ...\n", "scope"),
    ],
)
def test_a_bad_task_file_keeps_the_node_from_starting(text: str, complaint: str, project: Path) -> None:
    (project / "tasks" / "bad.py").write_text(text)
    done = failing_run(project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "bad.py" in done.stderr
    assert complaint in done.stderr
