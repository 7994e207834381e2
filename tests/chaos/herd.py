"""Processes of nodes under trial, started, killed, stopped and ended by a supervisor that is no member.

It keeps which processes were faulted, so that `judge` knows what may have run again, and reads the book. Whatever
happens, `close` ends all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhero.config import PROFILES

from .book import Judgement, Reader, judge

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""How long anything is waited for; after that the trial has failed."""
LOOK_S = 0.02
BEATS_HEARD = 3
"""So many beats nodes get to connect: a connection that is not up yet cannot be lost, and only silence would tell."""


class Failed(AssertionError):
    """Something that was to happen did not."""


@dataclass(eq=False, slots=True)
class Child:
    """A process with a node. `name`: of this process alone, never used again."""

    name: str
    process: asyncio.subprocess.Process
    id: str = ""
    stopped: bool = False
    answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict[int, "asyncio.Future[Any]"])
    said: list[str] = field(default_factory=list[str])
    listening: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _last: int = 0

    def tell(self, what: str, **arguments: Any) -> asyncio.Future[Any]:
        """Have it do something; the future has the answer, or raises when the process is gone."""
        self._last += 1
        answer = self.answers[self._last] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_looked_at)
        assert self.process.stdin is not None
        if self.process.returncode is None:
            self.process.stdin.write(json.dumps([self._last, what, arguments]).encode() + b"\n")
        else:
            answer.set_exception(Failed(f"{self.name} is gone"))
        return answer

    async def ask(self, what: str, **arguments: Any) -> Any:
        """The same, waiting.

        Raises:
            Failed: no answer, or an error.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self.tell(what, **arguments)
        except TimeoutError:
            raise Failed(f"{self.name} does not answer {what}: {' | '.join(self.said[-3:])}") from None
        if isinstance(answer, dict) and "error" in answer:
            raise Failed(f"{self.name}, asked to {what}: {answer['error']}")
        return answer

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if not line.endswith(b"\n"):  # a killed process may leave half a line
                break
            number, answer = json.loads(line)
            waited = self.answers.pop(number, None)
            if waited is not None and not waited.done():
                waited.set_result(answer)
        for waited in self.answers.values():
            if not waited.done():
                waited.set_exception(Failed(f"{self.name} has ended"))

    async def listen_to_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said.append(line.decode(errors="replace").rstrip())


def _looked_at(answer: asyncio.Future[Any]) -> None:
    """Not everybody who tells waits for the answer."""
    if not answer.cancelled():
        answer.exception()


class Herd:
    """The processes of one cluster.

    Args:
        folder: of the book, and where they find one another.
        tasks: names of those that each node has.
        settings: of each node, the profile among them.
    """

    def __init__(self, folder: Path, tasks: Iterable[str], settings: dict[str, Any]) -> None:
        self.living: list[Child] = []
        self.book = Reader(folder)
        self.killed_at_s: dict[str, float] = {}
        self.faulted: set[str] = set()
        self.history: list[str] = []
        self._folder = folder
        self._tasks = list(tasks)
        self._settings = settings
        self._began_s = time.monotonic()
        self._count = 0
        self._all: list[Child] = []

    def note(self, what: str) -> None:
        """For people who want to know how it came to that."""
        self.history.append(f"{time.monotonic() - self._began_s:8.3f} {what}")

    # --- starting and ending --------------------------------------------------------------------------------------

    async def start(self, tasks: Iterable[str] | None = None, **settings: Any) -> Child:
        """A new process; returns when its node has begun."""
        self._count += 1
        name = f"n{self._count}"
        given = {"name": name, "folder": str(self._folder), "settings": {**self._settings, **settings}}
        given["tasks"] = self._tasks if tasks is None else list(tasks)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.member", json.dumps(given)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        child = Child(name, process)
        self.living.append(child)
        self._all.append(child)
        ready = child.answers[0] = asyncio.get_running_loop().create_future()
        ready.add_done_callback(_looked_at)
        child.listening = [asyncio.create_task(child.listen()), asyncio.create_task(child.listen_to_errors())]
        try:
            async with asyncio.timeout(PATIENCE_S):
                child.id = (await ready)["id"]
        except (TimeoutError, Failed):
            raise Failed(f"{name} does not start: {' | '.join(child.said[-5:])}") from None
        self.note(f"{name} has started")
        return child

    async def start_all(self, count: int, **settings: Any) -> None:
        """So many, the first before the others."""
        await self.start(**settings)
        await asyncio.gather(*(self.start(**settings) for _ in range(count - 1)))

    async def kill(self, child: Child) -> float:
        """SIGKILL; returns when it was sent, on the clock of the book."""
        self.faulted.add(child.name)
        self.living.remove(child)
        at_s = self.killed_at_s[child.name] = time.monotonic()
        child.process.kill()
        self.note(f"{child.name} is killed")
        if await child.process.wait() != -signal.SIGKILL:
            raise Failed(f"{child.name} had ended before by itself: {' | '.join(child.said[-5:])}")
        return at_s

    def stop(self, child: Child, *, faulted: bool = True) -> None:
        """SIGSTOP: it stands still, with its sockets open. `faulted`: so long that others may give it up."""
        if faulted:
            self.faulted.add(child.name)
        child.stopped = True
        os.kill(child.process.pid, signal.SIGSTOP)
        self.note(f"{child.name} is stopped")

    def go_on(self, child: Child) -> None:
        """SIGCONT."""
        child.stopped = False
        os.kill(child.process.pid, signal.SIGCONT)
        self.note(f"{child.name} goes on")

    async def leave(self, child: Child) -> None:
        """It ends as an application does, handing over what it has."""
        self.living.remove(child)
        self.note(f"{child.name} leaves")
        lost = await child.ask("leave")
        async with asyncio.timeout(PATIENCE_S):
            code = await child.process.wait()
        if lost or code:
            raise Failed(f"{child.name} left {lost} jobs behind, exit code {code}: {' | '.join(child.said[-5:])}")
        self.note(f"{child.name} has left")

    async def close(self) -> None:
        """End all that are left, however they are."""
        for child in self._all:
            if child.process.returncode is None:
                child.process.kill()
                await child.process.wait()
            await asyncio.gather(*child.listening)

    # --- waiting --------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], otherwise: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until something is so; the condition may be a coroutine function.

        Raises:
            Failed: it is not, for too long.
        """
        until_s = time.monotonic() + patience_s
        while True:
            so = condition()
            if await so if asyncio.iscoroutine(so) else so:
                return
            if time.monotonic() > until_s:
                raise Failed("\n".join([otherwise, *self.history[-20:], *self.words()]))
            await asyncio.sleep(LOOK_S)

    def words(self) -> list[str]:
        """The last that each process said on stderr."""
        return [f"{child.name}: {line}" for child in self._all for line in child.said[-6:]]

    async def whole(self) -> None:
        """Until all that live know one another and their tasks, agree on an owner, and no job lacks a copy."""

        async def so() -> bool:
            states = await self.states()
            names = sorted(child.name for child in self.living)
            owners = {it["owner"] for it in states}
            return (
                all(it["alive"] == names and it["tasks"] and not it["degraded"] for it in states)
                and len(owners) == 1
                and owners <= set(names)
            )

        await self.until(so, "copies do not become whole")
        self.note("whole")

    async def settled(self) -> None:
        """Whole, and for so long that each death will be noticed at once."""
        await self.whole()
        await asyncio.sleep(BEATS_HEARD * PROFILES[self._settings["profile"]].beat_ms / 1000)

    async def states(self) -> list[dict[str, Any]]:
        """How each living process sees itself and the others."""
        return list(await asyncio.gather(*(child.ask("state") for child in self.living if not child.stopped)))

    async def owner(self) -> Child:
        """The process that owns the delayed queue."""
        (name,) = {it["owner"] for it in await self.states()}
        return next(child for child in self.living if child.name == name)

    async def done(self, patience_s: float = PATIENCE_S) -> None:
        """Until every job that was accepted so far has come to an end."""

        def so() -> bool:
            self.book.read()
            return not self.book.missing

        await self.until(so, "accepted jobs do not end", patience_s)

    def judge(self, *, enqueuers_faulted: bool = True) -> Judgement:
        """What happened so far, against what was promised."""
        self.book.read()
        return judge(self.book, self.faulted, enqueuers_faulted)

    def check(self, *, ended: bool = True, enqueuers_faulted: bool = True) -> Judgement:
        """The same. `ended`: all that was accepted is to have come to its end.

        Raises:
            Failed: a promise was broken.
        """
        judgement = self.judge(enqueuers_faulted=enqueuers_faulted)
        if not ended:
            judgement.lost.clear()
        if judgement.wrong:
            raise Failed("\n".join([*judgement.wrong, *self.history[-40:], *self.words()]))
        return judgement


@contextlib.asynccontextmanager
async def herd(tasks: Iterable[str] = ("work",), **settings: Any) -> AsyncGenerator[Herd]:
    """A cluster without processes yet."""
    with tempfile.TemporaryDirectory(prefix="zhero-chaos-") as folder:
        Path(folder, "runtime").mkdir(mode=0o700)
        made = Herd(Path(folder), tasks, {"cluster": "chaos", "drain_timeout": 20, "profile": "lan", **settings})
        try:
            yield made
        finally:
            await made.close()
