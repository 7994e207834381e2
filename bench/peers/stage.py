"""The processes of one system: its Redis, the producer, workers; and the marks that its jobs leave.

All are children in sessions of their own, so that all of a worker can be killed at once, as a container is, and nothing
outlives the stage: `close` kills each session that was opened.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..measure import Wrong
from .adapters.common import MARK
from .environments import environment, last_line
from .systems import System

ADAPTERS = Path(__file__).parent / "adapters"
ROOT = Path(__file__).parents[2]
START_MAX_S = 30.0
ANSWER_MAX_S = 120.0
"""After that an order has failed."""
NO_REDIS = (
    "redis-server is not on this machine, and the peers need one: install it (apt-get install redis-server, "
    "brew install redis). It is started here on a port of loopback, and stopped; no service has to run."
)

_SOME_REDIS = "redis://127.0.0.1:1/0"
_commands: dict[tuple[str, str, str, str], list[str]] = {}
"""Module, what is started, slots, long jobs -> the command, with `_SOME_REDIS` where the Redis is named."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a job has left: at its start, and long ones at their end too."""

    number: int
    process: int
    at: float
    end: bool


def marks_of(read: bytes) -> list[Mark]:
    """All whole marks in the bytes of a file."""
    whole = len(read) - len(read) % MARK.size
    return [
        Mark(-number - 1 if number < 0 else number, process, at, number < 0)
        for number, process, at in MARK.iter_unpack(read[:whole])
    ]


def redis_program() -> str:
    """Where Redis is.

    Raises:
        Wrong: nowhere.
    """
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise Wrong(NO_REDIS)
    return found


def used_memory(info: str) -> int:
    """Bytes that Redis says it uses, out of its answer to INFO."""
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name == "used_memory":
            return int(value)
    raise Wrong("Redis does not say how much memory it uses")


def resident_bytes(process: int) -> int:
    """Memory of a process that is in RAM."""
    if sys.platform == "linux":
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    asked = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(asked.stdout) * 1024


class Stage:
    """One system, from its Redis to its marks.

    Args:
        python: interpreter of its environment.
        folder: its own, and empty.
        slots: jobs that a worker is to run at once.
        long: its jobs take time, so workers should not fetch many.
    """

    def __init__(self, system: System, python: str, folder: Path, slots: int = 8, long: bool = False) -> None:
        self.system = system
        self.workers: list[asyncio.subprocess.Process] = []
        self.producer: asyncio.subprocess.Process | None = None
        self.marks_file = folder / "marks"
        self.marks_file.touch()
        self._python = python
        self._folder = folder
        self._redis: asyncio.subprocess.Process | None = None
        self._port = 0
        self._log = (folder / "log").open("ab")
        self._producer_log = (folder / "producer.log").open("ab")  # its last words are an answer, so nobody else's
        self._sessions: list[asyncio.subprocess.Process] = []
        self._environment = environment(
            BENCH_MARKS=str(self.marks_file),
            BENCH_FOLDER=str(folder),
            BENCH_SLOTS=str(slots),
            BENCH_LONG="1" if long else "0",
            BENCH_ALONE="1" if system.alone else "0",
            PYTHONPATH=os.pathsep.join([str(ADAPTERS), *([] if system.packages else [str(ROOT)])]),
        )

    async def __aenter__(self) -> Stage:
        try:
            if self.system.broker:
                await self._start_redis()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- processes ------------------------------------------------------------------------------------------------

    async def start_producer(self) -> None:
        """The process that enqueues."""
        self.producer = await self._spawn(["producer.py", self.system.module], told=True)

    async def start_worker(self) -> asyncio.subprocess.Process:
        """One more worker."""
        return await self.spawn_worker(await asyncio.to_thread(self.worker_command))

    async def spawn_worker(self, command: list[str]) -> asyncio.subprocess.Process:
        """One more worker, by a command that is known already."""
        worker = await self._spawn(command)
        self.workers.append(worker)
        return worker

    async def start_beside(self) -> None:
        """What the system needs beside its workers."""
        if command := await asyncio.to_thread(self._command, "BESIDE"):
            await self._spawn(command)

    def worker_command(self) -> list[str]:
        """How a worker is started: asked of the adapter, which takes as long as to import it."""
        return self._command("WORKER")

    def _command(self, name: str) -> list[str]:
        key = (self.system.module, name, self._environment["BENCH_SLOTS"], self._environment["BENCH_LONG"])
        if key not in _commands:
            code = f"import json, {self.system.module} as it; print(json.dumps(getattr(it, {name!r}, [])))"
            asked = subprocess.run(
                [self._python, "-c", code],
                env={**self._environment, "BENCH_REDIS": _SOME_REDIS},
                cwd=ADAPTERS,
                capture_output=True,
                text=True,
                timeout=START_MAX_S,
                check=False,
            )
            if asked.returncode:
                raise Wrong(f"{self.system.name}: {last_line(asked.stderr)}")
            _commands[key] = json.loads(asked.stdout)
        return [word.replace(_SOME_REDIS, self._environment.get("BENCH_REDIS", "")) for word in _commands[key]]

    async def _spawn(self, arguments: list[str], told: bool = False) -> asyncio.subprocess.Process:
        made = await asyncio.create_subprocess_exec(
            self._python,
            *arguments,
            stdin=asyncio.subprocess.PIPE if told else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if told else self._log,
            stderr=self._producer_log if told else self._log,
            cwd=ADAPTERS,
            env=self._environment,
            start_new_session=True,
            limit=1 << 24,
        )
        self._sessions.append(made)
        return made

    async def kill(self, child: asyncio.subprocess.Process) -> None:
        """All processes of its session, at once."""
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await child.wait()

    async def close(self) -> None:
        """Kill what is left of all of it."""
        for child in reversed(self._sessions):
            await self.kill(child)
        self._sessions.clear()
        if self._redis is not None:
            self._redis.kill()
            await self._redis.wait()
            self._redis = None
        self._log.close()
        self._producer_log.close()

    # --- orders ---------------------------------------------------------------------------------------------------

    async def order(self, do: str, **what: Any) -> dict[str, Any]:
        """Have the producer do something, and wait until it has.

        Raises:
            Wrong: it ended, or takes too long.
        """
        assert self.producer is not None
        assert self.producer.stdin is not None
        assert self.producer.stdout is not None
        self.producer.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                line = await self.producer.stdout.readline()
        except TimeoutError:
            raise Wrong(f"{self.system.name}: {do} takes longer than {ANSWER_MAX_S:g} s") from None
        if not line:
            words = last_line((self._folder / "producer.log").read_text(errors="replace"))
            raise Wrong(f"{self.system.name}: its producer has ended: {words}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def said(self) -> str:
        """What its processes said last."""
        return last_line((self._folder / "log").read_text(errors="replace"))

    # --- marks ----------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Marks so far."""
        return os.stat(self.marks_file).st_size // MARK.size

    def marks(self) -> list[Mark]:
        """All marks so far."""
        return marks_of(self.marks_file.read_bytes())

    def wipe(self) -> None:
        """Forget the marks so far. Only while nothing runs."""
        os.truncate(self.marks_file, 0)

    async def reach(self, count: int, within_s: float) -> bool:
        """Wait until there are so many marks; False: there are not, after so long."""
        until = time.monotonic() + within_s
        while self.count() < count:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.002)
        return True

    # --- Redis ----------------------------------------------------------------------------------------------------

    async def _start_redis(self) -> None:
        self._port = free_port()
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._redis = await asyncio.create_subprocess_exec(
            redis_program(),
            *options,
            *("--dir", str(self._folder), "--daemonize", "no"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._environment["BENCH_REDIS"] = f"redis://127.0.0.1:{self._port}/0"
        until = time.monotonic() + START_MAX_S
        while True:
            try:
                await self._asked("PING")
                return
            except OSError:
                if self._redis.returncode is not None or time.monotonic() > until:
                    raise Wrong(f"redis-server does not start: {self.said()}") from None
                await asyncio.sleep(0.01)

    async def redis_bytes(self) -> int:
        """Memory that Redis uses."""
        return used_memory(await self._asked("INFO memory"))

    async def _asked(self, command: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(command.encode() + b"\r\n")
            head = (await reader.readline()).decode()
            return (await reader.readexactly(int(head[1:]))).decode() if head.startswith("$") else head
        finally:
            writer.close()


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def session_of(process: int) -> int:
    """The session of a process, which is the id of the child that began it; 0: it is gone."""
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return 0
