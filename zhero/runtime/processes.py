"""Child processes for work that would hold up the loop, and that has to be killable.

Children are started when needed, kept, and given one job at a time. All are started from one thread that lives as long
as this does, because on Linux the signal that ends an orphan hangs on the *thread* that started it. A child that dies
(a crash, or killed for a timeout or a cancel) is noticed by the end of its connection, reaped and forgotten.

State: idle children; all children. Bound: as many as the executor has slots.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import msgpack

from ..core.values import Failure, Run, Verdict
from .child import LENGTH_BYTES, request
from .handlers import Raised, Source

_CHUNK_BYTES = 65_536


class ChildDied(Exception):
    """A child process ended in the middle of a job; the text says how."""


class Child:
    """One child process and the connection to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                os.set_inheritable(theirs.fileno(), True)
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "zhero.runtime.child", str(theirs.fileno()), *sys.path],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self.connection = ours

    def kill(self) -> None:
        """End it now, whatever it does."""
        try:
            self.process.send_signal(signal.SIGKILL)
        except ProcessLookupError:
            pass

    def reap(self) -> str:
        """Wait for a child that is as good as dead, and say how it ended."""
        self.connection.close()
        self.kill()
        code = self.process.wait()
        if code >= 0:
            return f"the child process exited with code {code}"
        try:
            return f"the child process was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"the child process was killed by signal {-code}"


class Processes:
    """The children of one executor, on its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._idle: list[Child] = []
        self._children: set[Child] = set()
        self._outdated: set[Child] = set()
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._starter: threading.Thread | None = None

    async def run(self, source: Source, run: Run, on_child: Callable[[Child], None]) -> bytes | Raised:
        """Run one job in a child; `on_child` hears which, so that it can be killed.

        Raises:
            ChildDied: it died before it answered.
        """
        child = self._idle.pop() if self._idle else await self._start()
        on_child(child)
        try:
            await self._loop.sock_sendall(child.connection, request(source, run))
            answer = await self._read(child)
        except (OSError, asyncio.IncompleteReadError):
            self._children.discard(child)
            raise ChildDied(await self._in_starter(child.reap)) from None
        except BaseException:  # cancelled: the executor closes
            self._children.discard(child)
            child.kill()
            child.reap()
            raise
        if child in self._outdated:
            self._outdated.discard(child)
            self._children.discard(child)
            await self._in_starter(child.reap)
        else:
            self._idle.append(child)
        if answer[0] == "result":
            return bytes(answer[1])
        _, verdict, kind, message, trace, wait_ms = answer
        return Raised(Verdict(verdict), Failure(kind, message, trace), wait_ms)

    def renew(self) -> None:
        """Code has changed: children that are idle end now, the others after their job."""
        for child in self._idle:
            self._children.discard(child)
            child.reap()
        self._idle.clear()
        self._outdated |= self._children

    def close(self) -> None:
        """Kill and reap all children, and end the thread that started them."""
        for child in self._children:
            child.reap()
        self._children.clear()
        self._idle.clear()
        if self._starter is not None:
            self._orders.put(None)
            self._starter.join()

    async def _start(self) -> Child:
        child: Child = await self._in_starter(Child)
        self._children.add(child)
        return child

    async def _in_starter(self, work: Callable[[], Any]) -> Any:
        if self._starter is None:
            self._starter = threading.Thread(target=self._serve, name="zhero-children", daemon=True)
            self._starter.start()
        future: Future[Any] = Future()

        def carry_out() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._orders.put(carry_out)
        return await asyncio.shield(asyncio.wrap_future(future))

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            order()

    async def _read(self, child: Child) -> list[Any]:
        data = b""
        wanted = LENGTH_BYTES
        while len(data) < wanted:
            part = await self._loop.sock_recv(child.connection, min(_CHUNK_BYTES, wanted - len(data)))
            if not part:
                raise asyncio.IncompleteReadError(data, wanted)
            data += part
            if wanted == LENGTH_BYTES and len(data) == LENGTH_BYTES:
                wanted += int.from_bytes(data)
        answer: list[Any] = msgpack.unpackb(data[LENGTH_BYTES:])
        return answer
