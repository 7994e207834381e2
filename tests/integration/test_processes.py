"""Jobs in child processes: they can be killed, they may die, and none outlives the node."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from zhero.codec import decode, encode
from zhero.core.values import Finished, Header, JobId, Run, Status, Verdict, job_text
from zhero.runtime.executor import Executor
from zhero.runtime.handlers import Backoff, Handler, Source

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="child processes are POSIX only")

PATIENCE_S = 30.0

MODULE = """
import asyncio, os, re, signal, subprocess, sys, time
from pathlib import Path

import zhero.errors
from zhero.runtime.handlers import current


def pid():
    return os.getpid()


def echo(**params):
    return params


async def echo_later(**params):
    await asyncio.sleep(0)
    return params


def about():
    here = current()
    return [here.job_id, here.task, here.node, here.token, here.tries, here.number, here.enqueued_at_ms]


def surroundings():
    return [os.getcwd(), sys.path, os.environ.get("PYTHONPATH"), __name__]


def fails():
    raise ValueError("in the child")


def retries():
    raise zhero.errors.Retry("soon", run_in=2)


def snoozes():
    raise zhero.errors.Snooze(run_in=3)


def discards():
    raise zhero.errors.Discard("never")


def exits_kindly():
    raise SystemExit(4)


def unsendable():
    return object()


def large():
    return "x" * 2_000_000


def exits():
    os._exit(3)


def segfaults():
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs_up():
    os.closerange(3, 100)


def sleeps(file):
    part = Path(file + ".part")
    part.write_text(str(os.getpid()))
    part.rename(file)
    time.sleep(1000)


def holds_the_interpreters_lock(file):
    part = Path(file + ".part")
    part.write_text(str(os.getpid()))
    part.rename(file)
    re.match("(a+)+$", "a" * 100 + "b")


def starts_another(file):
    other = subprocess.Popen(["sleep", "1000"])
    part = Path(file + ".part")
    part.write_text(str(other.pid))
    part.rename(file)
    time.sleep(1000)


def interrupts_itself():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return "still here"


def signals_of_a_child():
    code = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()


class Task:
    name = "renamed"

    def __zhero_call__(self, params, api):
        return ["called", params, api]


class Outer:
    class Inner(Task):
        pass


bound_elsewhere = Task()
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    file = tmp_path / "jobs_of_a_test.py"
    file.write_text(MODULE)
    return file


class Stage:
    """An executor whose tasks are the functions of a file, open within `async with`, and what it has reported."""

    def __init__(self, file: Path, *, workers: int = 2, timeout_ms: int | None = None, retries: int = 0) -> None:
        self.ended: dict[int, Finished] = {}
        self.started: list[int] = []
        self._handlers: dict[str, Handler] = {}
        self._file = file
        self._timeout_ms = timeout_ms
        self._retries = retries
        self._made = 0
        self.executor = Executor(
            workers,
            self._handlers,
            lambda: asyncio.get_running_loop().call_soon(self._take) and None,
            node="the node",
            rng=random.Random(1),
            logger=logging.getLogger("zhero.test"),
        )

    def _take(self) -> None:
        self.started += self.executor.take_started()
        for finished in self.executor.take_finished():
            assert finished.job not in self.ended, "reported twice"
            self.ended[finished.job] = finished

    def submit(self, attribute: str, source: Source | None = None, **params: Any) -> JobId:
        self._made += 1
        source = source or Source(None, str(self._file), attribute, attribute)
        backoff = Backoff(first_ms=100, jitter=0)

        def never(params: dict[str, Any]) -> None:
            raise AssertionError("called in the node")

        self._handlers[source.name] = Handler(
            source.name, "process", never, self._timeout_ms, self._retries, backoff, source
        )
        run = Run(JobId(2**100 + self._made), Header(source.name), encode(params, "params"), 2, 1, 7, 5, 9)
        self.executor.submit([run])
        return run.job

    async def end_of(self, job: JobId) -> Finished:
        await until(lambda: job in self.ended)
        return self.ended[job]

    async def run(self, attribute: str, source: Source | None = None, **params: Any) -> Finished:
        return await self.end_of(self.submit(attribute, source, **params))

    async def result(self, attribute: str, source: Source | None = None, **params: Any) -> Any:
        finished = await self.run(attribute, source, **params)
        assert finished.verdict is Verdict.DONE, finished
        return decode(finished.outcome.result)

    async def __aenter__(self) -> Self:
        self.executor.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.executor.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has, too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return not Path("/proc").exists() or not Path(f"/proc/{pid}").exists()


def children() -> list[str]:
    """Processes that this one has started and not waited for; none where the system can't tell."""
    return sorted(pid for it in Path("/proc/self/task").glob("*/children") for pid in it.read_text().split())


def test_a_function_runs_in_another_process_that_is_used_again(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module) as stage:
            first, second = await stage.result("pid"), await stage.result("pid")
            assert first == second != os.getpid()
            assert await stage.result("echo", a=(1, 2), b={"x": b"y"}) == {"a": (1, 2), "b": {"x": b"y"}}
            assert await stage.result("echo_later", a=1) == {"a": 1}
            assert await stage.result("echo", a="x" * 900_000) == {"a": "x" * 900_000}

    asyncio.run(scenario())


def test_a_job_in_a_child_knows_what_it_is(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module) as stage:
            job = stage.submit("about")
            seen = decode((await stage.end_of(job)).outcome.result)
            assert seen == [job_text(job), "about", None, (7, 2), 1, 9, 5]

    asyncio.run(scenario())


def test_a_child_has_the_nodes_directory_and_path_and_an_untouched_environment(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "as it was")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    async def scenario() -> None:
        source = Source("jobs_of_a_test", None, "surroundings", "surroundings")
        async with Stage(module) as stage:
            directory, path, python_path, name = await stage.result("surroundings", source)
            assert directory == str(tmp_path / "elsewhere")
            assert path == sys.path
            assert (python_path, name) == ("as it was", "jobs_of_a_test")

    asyncio.run(scenario())


def test_task_objects_and_classes_are_called_by_their_own_convention(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module, workers=1) as stage:
            for attribute in ("bound_elsewhere", "Task", "Outer.Inner", "name_that_was_rebound"):
                source = Source(None, str(module), attribute, "renamed")
                assert await stage.result("", source, x=1) == ["called", {"x": 1}, None]

    asyncio.run(scenario())


def test_what_a_child_does_not_find_fails_the_job_with_the_reason(module: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name\n")

    async def scenario() -> None:
        async with Stage(module, workers=1, retries=5) as stage:
            missing = await stage.run("no.such.thing")
            unimportable = await stage.run("", Source("broken", str(broken), "it", "it"))
            nowhere = await stage.run("", Source("__main__", None, "it", "it"))
            assert (missing.verdict, nowhere.verdict) == (Verdict.DEAD, Verdict.DEAD)
            assert missing.outcome.failure is not None
            assert missing.outcome.failure.kind == "TaskNotFound"
            assert unimportable.outcome.failure is not None
            assert "nothing_of_that_name" in unimportable.outcome.failure.traceback
            assert nowhere.outcome.failure is not None
            assert "put it into a module" in nowhere.outcome.failure.message
            assert await stage.result("echo") == {}

    asyncio.run(scenario())


def test_a_main_module_is_imported_without_running_it(tmp_path: Path) -> None:
    main = tmp_path / "program.py"
    main.write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n"
        "def it():\n    return [__name__, Point(1).x]\n"
        "if __name__ == '__main__':\n    raise SystemExit('the program was run')\n"
    )

    async def scenario() -> None:
        async with Stage(main) as stage:
            assert await stage.result("it", Source("__main__", str(main), "it", "it")) == ["__mp_main__", 1]

    asyncio.run(scenario())


def test_a_child_that_has_old_code_is_replaced_after_a_reload(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module) as stage:
            assert await stage.result("echo") == {}
            module.write_text("def echo():\n    return 'new code'\n")
            stage.executor.renew_children()
            assert await stage.result("echo") == "new code"

    asyncio.run(scenario())


def test_what_a_function_raises_comes_back_from_the_child(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module, workers=1, retries=1) as stage:
            names = ("fails", "retries", "snoozes", "discards", "exits_kindly", "unsendable", "large")
            ended = {name: await stage.run(name) for name in names}
            assert [(it.verdict, it.delay_ms) for it in ended.values()] == [
                (Verdict.RETRY, 100),
                (Verdict.RETRY, 2000),
                (Verdict.SNOOZE, 3000),
                (Verdict.DEAD, 0),
                (Verdict.RETRY, 100),
                (Verdict.DEAD, 0),
                (Verdict.DEAD, 0),
            ]
            failure = ended["fails"].outcome.failure
            assert failure is not None
            assert (failure.kind, failure.message) == ("ValueError", "in the child")
            assert str(module) in failure.traceback
            assert "child.py" not in failure.traceback
            assert ended["discards"].outcome.status is Status.DISCARDED

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("function", "told"), [("exits", "exit code 3"), ("segfaults", "SIGSEGV"), ("hangs_up", "exit code 1")]
)
def test_a_child_that_dies_fails_its_job_and_nothing_else(module: Path, function: str, told: str) -> None:
    async def scenario() -> None:
        async with Stage(module, workers=2, retries=1) as stage:
            before = await stage.result("pid")
            finished = await stage.run(function)
            assert (finished.verdict, finished.outcome.status) == (Verdict.RETRY, Status.CRASHED)
            assert finished.outcome.failure is not None
            assert told in finished.outcome.failure.message
            assert await stage.result("pid") != before
            assert is_gone(before)

    asyncio.run(scenario())


def test_an_idle_child_that_dies_is_replaced(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module, workers=1) as stage:
            before = await stage.result("pid")
            os.kill(before, signal.SIGKILL)
            await until(lambda: is_gone(before))
            # Where its end has not been noticed by now, the job that is given to it has crashed with it.
            finished = await stage.run("pid")
            assert finished.outcome.status in (Status.SUCCEEDED, Status.CRASHED)
            assert await stage.result("pid") != before

    asyncio.run(scenario())


async def pid_in(file: Path) -> int:
    await until(file.exists)
    return int(file.read_text())


@pytest.mark.parametrize("how", ["timeout", "cancel", "close"])
def test_a_job_that_is_to_stop_is_killed_with_all_that_it_started(module: Path, tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        pids: list[int] = []
        async with Stage(module, workers=2, timeout_ms=3000 if how == "timeout" else None) as stage:
            files = tmp_path / "one", tmp_path / "two"
            jobs = [stage.submit("sleeps", file=str(files[0])), stage.submit("starts_another", file=str(files[1]))]
            pids += [await pid_in(file) for file in files]
            if how == "cancel":
                assert all(stage.executor.cancel(job) for job in jobs)
            if how != "close":
                expected = Status.TIMED_OUT if how == "timeout" else Status.CANCELLED
                assert [(await stage.end_of(job)).outcome.status for job in jobs] == [expected] * 2
                assert (await stage.run("pid")).verdict is Verdict.DONE
        await until(lambda: all(is_gone(pid) for pid in pids))

    asyncio.run(scenario())


@pytest.mark.parametrize("then", ["cancel", "close"])
def test_a_job_that_ends_while_its_child_starts_leaves_none(
    module: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    before = children()  # multiprocessing keeps its resource tracker once it has been used
    popen = subprocess.Popen

    def slow_popen(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] = popen(*args, **options)
        begun.set()
        assert may_go_on.wait(PATIENCE_S)
        return process

    monkeypatch.setattr(subprocess, "Popen", slow_popen)

    async def scenario() -> None:
        async with Stage(module, workers=2) as stage:
            job = stage.submit("pid")
            await until(begun.is_set)
            if then == "cancel":
                assert stage.executor.cancel(job)
                assert (await stage.end_of(job)).verdict is Verdict.CANCELLED
                assert children() != before or not Path("/proc").exists()
                may_go_on.set()
                await until(lambda: children() == before)
            asyncio.get_running_loop().call_later(0.01, may_go_on.set)

    asyncio.run(scenario())


def test_no_more_children_than_slots_are_started(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module, workers=2) as stage:
            jobs = [stage.submit("pid") for _ in range(20)]
            pids = {decode((await stage.end_of(job)).outcome.result) for job in jobs}
            assert len(pids) <= 2

    asyncio.run(scenario())


def test_signals_meant_for_the_node_do_not_end_a_child_nor_are_they_off_in_what_it_starts(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module) as stage:
            assert await stage.result("interrupts_itself") == "still here"
            assert await stage.result("signals_of_a_child") == "True"

    asyncio.run(scenario())


def test_lives_with_children_leave_no_thread_and_no_descriptor(module: Path) -> None:
    async def scenario() -> None:
        async with Stage(module, workers=1) as stage:
            assert (await stage.run("pid")).verdict is Verdict.DONE

    asyncio.run(scenario())
    listed = Path("/proc/self/fd")
    descriptors, threads = len(os.listdir(listed)) if listed.exists() else 0, threading.active_count()
    for _ in range(5):
        asyncio.run(scenario())
    assert threading.active_count() == threads
    if descriptors:
        assert len(os.listdir(listed)) == descriptors


# --- the parent dies ----------------------------------------------------------------------------------------------

PARENT = """
import asyncio, logging, random, sys
from zhero.codec import encode
from zhero.core.values import Header, JobId, Run
from zhero.runtime.executor import Executor
from zhero.runtime.handlers import Backoff, Handler, Source

async def main(module, function, *files):
    handlers = {"it": Handler("it", "process", print, None, 0, Backoff(), Source(None, module, function, "it"))}
    executor = Executor(2, handlers, lambda: None, node=None, rng=random.Random(), logger=logging.getLogger())
    executor.open()
    runs = [encode({"file": file}, "params") for file in files]
    executor.submit([Run(JobId(n), Header("it"), params, 1, 1, 0, 0) for n, params in enumerate(runs)])
    await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def parent(module: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose two children run the function that the test asks for, each leaving its id in a file."""
    files = [str(tmp_path / "one"), str(tmp_path / "two")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PARENT, str(module), request.param, *files]
    with subprocess.Popen(command, env=environment) as process:
        yield process
        process.kill()


linux = pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's help")


@pytest.mark.parametrize("parent", ["sleeps", pytest.param("holds_the_interpreters_lock", marks=linux)], indirect=True)
def test_children_end_when_the_node_is_killed(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pids = [asyncio.run(pid_in(tmp_path / name)) for name in ("one", "two")]
    try:
        assert not any(is_gone(pid) for pid in pids)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + PATIENCE_S
        while not all(is_gone(pid) for pid in pids):
            assert time.monotonic() < deadline, "children outlive the node"
            time.sleep(0.01)
    finally:
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
