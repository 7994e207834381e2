"""Other processes that a bench starts, asks and ends: one line of JSON each way over their standard streams."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Awaitable
from typing import Any, TypeVar

from .measure import Wrong

T = TypeVar("T")

LINE_MAX_BYTES = 64 * 1024 * 1024
"""Of one answer: the numbers of a million jobs."""
CHILD_MAX_S = 120.0
"""After that whatever is waited for fails the bench."""


class Child:
    """A process of this bench; it ends when its standard input does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> dict[str, Any]:
        """The next line that it says."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Wrong("a process has ended before its time")
        told: dict[str, Any] = json.loads(line)
        return told

    async def ask(self, what: str) -> dict[str, Any]:
        """Say a line to it, and hear the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(what.encode() + b"\n")
        return await within(self.hear(), f"no answer to {what}")

    async def end(self) -> None:
        """Let it end, or end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    @staticmethod
    def tell(what: dict[str, Any]) -> None:
        """In the process itself: one line to whoever measures."""
        print(json.dumps(what), flush=True)


async def start(module: str, *options: str) -> Child:
    """Run a module of the bench beside this one."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_MAX_BYTES,
    )
    return Child(process)


async def within(waited_for: Awaitable[T], otherwise: str) -> T:
    """Wait for something that must happen.

    Raises:
        Wrong: it does not, for too long.
    """
    try:
        async with asyncio.timeout(CHILD_MAX_S):
            return await waited_for
    except TimeoutError:
        raise Wrong(otherwise) from None


def cpu_s() -> float:
    """CPU time of this process so far, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
