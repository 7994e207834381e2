"""Child processes for jobs that need a core of their own, or that must be killable.

A pool of our own, because a job that ran out of time has to be killed, and alone: `concurrent.futures` breaks the
whole pool when one child dies, and takes no child back. A child is started when none is idle, kept, and taken again,
the one used last first; as whoever calls `run` holds a slot of the executor, there are at most as many as slots.

All children are started by one thread that lives as long as they do, because the kernel's "kill it when its parent
dies" means the *thread* that started it. The same thread waits for children that have ended, so the loop never does.

A child lives in a process group of its own: Ctrl-C in the terminal does not reach it, and what its job has started
is killed with it. How the two talk is told in `child`; here the loop's end of the connection is one `asyncio.Protocol`.

    idle --ask--> busy --answer--> idle
      \\             \\--- end of connection: crashed, the exit code says how
       \\-------------\\-- kill: the connection is aborted, the thread waits for the end

Invariant: a process is in `_processes` from its start until it has been waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from ..core.values import Failure, Run, Status
from .child import HEAD_BYTES, pack_request, pack_welcome, unpack_ending
from .handlers import MESSAGE_MAX_LENGTH, TRACEBACK_MAX_BYTES, Ending, Raised, Source

END_MAX_S = 1.0
"""How long a child that hung up may take to end by itself, so that its exit code is its own."""
ANSWER_EXTRA_BYTES = TRACEBACK_MAX_BYTES + 4 * MESSAGE_MAX_LENGTH + 4 * 1024
"""What an answer may have beyond the result."""

_START = "from zhero.runtime.child import main; main()"

Process = subprocess.Popen[bytes]


class Processes:
    """Runs calls in child processes, for coroutines of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, result_max_bytes: int) -> None:
        self._loop = loop
        self._result_max_bytes = result_max_bytes
        self._keeper: ThreadPoolExecutor | None = None
        self._processes: set[Process] = set()  # the keeper's
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []
        self._outdated: set[_Child] = set()
        self._closed = False

    async def run(self, run: Run, source: Source) -> Ending:
        """Have a child run a job. Cancelled, it kills the child.

        Raises:
            OSError: no process can be started.
        """
        child = self._idle.pop() if self._idle else await self._start()
        try:
            ending = await child.ask(pack_request(run, source, self._result_max_bytes))
        except BaseException:
            child.kill()
            raise
        if child in self._outdated:
            child.kill()
        elif child in self._children:
            self._idle.append(child)
        return ending

    def renew(self) -> None:
        """Code has changed: let children that hold the old one end, busy ones after their job."""
        self._outdated.update(self._children)
        for child in self._idle:
            child.kill()
        self._idle.clear()

    async def close(self) -> None:
        """Kill all children; at return they are gone, and so is the thread."""
        self._closed = True
        if self._keeper is None:
            return
        self._idle.clear()
        for child in self._children:
            child.kill()
        try:
            # One thread, so this comes after a start that is still on its way.
            await self._loop.run_in_executor(self._keeper, self._end_all)
        finally:
            self._keeper.shutdown(wait=True)

    async def _start(self) -> _Child:
        if self._keeper is None:
            self._keeper = ThreadPoolExecutor(1, "zhero-children")
        starting = self._loop.run_in_executor(self._keeper, self._spawn)
        try:
            process, connection = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._unwanted)
            raise
        child = _Child(self._loop, process, self._lost, self._result_max_bytes + ANSWER_EXTRA_BYTES)
        self._children.add(child)
        try:
            await self._loop.create_unix_connection(lambda: child, sock=connection)
        except BaseException:
            child.kill()
            self._lost(child)
            connection.close()
            raise
        child.tell(pack_welcome())
        return child

    def _unwanted(self, starting: asyncio.Future[tuple[Process, socket.socket]]) -> None:
        """A child came after whoever started it had been cancelled."""
        if starting.cancelled() or starting.exception() is not None:
            return
        process, connection = starting.result()
        connection.close()
        _kill(process)
        if not self._closed:
            self._loop.run_in_executor(self._keeper, self._bury, process)

    def _lost(self, child: _Child) -> None:
        """The connection to a child has ended, and so has the child, or it soon will."""
        if child not in self._children:
            return
        self._children.discard(child)
        self._outdated.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        if not self._closed:
            ended = self._loop.run_in_executor(self._keeper, self._bury, child.process)
            ended.add_done_callback(lambda ended: child.crashed(ended.result()))

    # --- in the keeper --------------------------------------------------------------------------------------------

    def _spawn(self) -> tuple[Process, socket.socket]:
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
                process_group=0,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._processes.add(process)
        return process, ours

    def _bury(self, process: Process) -> int:
        """Wait for the end of a process. Returns its exit code, or less than 0: minus the signal that killed it."""
        try:
            process.wait(END_MAX_S)
        except subprocess.TimeoutExpired:
            _kill(process)
        code = process.wait()
        self._processes.discard(process)
        return code

    def _end_all(self) -> None:
        for process in self._processes:
            _kill(process)
        for process in self._processes:
            process.wait()
        self._processes.clear()


class _Child(asyncio.Protocol):
    """A child, as the loop sees it: at most one question at a time, and its answer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        process: Process,
        lost: Callable[[_Child], None],
        answer_max_bytes: int,
    ) -> None:
        self.process = process
        self._loop = loop
        self._tell_lost = lost
        self._answer_max_bytes = answer_max_bytes
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[Ending] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is no subclass

    def tell(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    async def ask(self, frame: bytes) -> Ending:
        self._answer = self._loop.create_future()
        self.tell(frame)
        return await self._answer

    def kill(self) -> None:
        _kill(self.process)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = HEAD_BYTES + int.from_bytes(self._received[:HEAD_BYTES])
        if len(self._received) < HEAD_BYTES or (len(self._received) < end <= self._answer_max_bytes):
            return
        try:
            if len(self._received) != end or self._answer is None:
                raise ValueError("more than an answer")
            ending = unpack_ending(bytes(self._received[HEAD_BYTES:]))
        except (ValueError, TypeError):  # a job wrote to a descriptor that is not its own
            self.kill()
            return
        self._received.clear()
        answer, self._answer = self._answer, None
        if not answer.done():
            answer.set_result(ending)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell_lost(self)

    def crashed(self, code: int) -> None:
        """It has ended; if it still owed an answer, this is the one."""
        if self._answer is not None and not self._answer.done():
            text = f"the child process that ran the job {_told(code)}"
            self._answer.set_result(Raised(Failure("JobCrashed", text), status=Status.CRASHED))


def _kill(process: Process) -> None:
    """Kill a process with its group; one that has ended already, and been waited for, is let alone."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # it is not a leader yet, or has just ended
            process.kill()


def _told(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
