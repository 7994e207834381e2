"""Processes of nodes, started, killed and ended by a program that is no member.

Each has a session of its own, so that Ctrl-C reaches only the program; and ends when the program's end of the pipe to
its stdin closes, so also if the program is killed. What they say is told in `node`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .node import LINE_MAX_BYTES
from .record import NODE, RECORD
from .verdict import Kill

END_S = 10.0
"""How long a node may take to end by itself; then it is killed."""

Say = Callable[[str], None]


@dataclass(slots=True)
class NodeProcess:
    """A node, from outside."""

    name: str
    process: asyncio.subprocess.Process
    endpoint: asyncio.Future[str]
    batch: dict[str, str] = field(default_factory=dict[str, str])  # job id -> path, of the batch that it is telling
    enqueued: asyncio.Future[dict[str, str]] | None = None
    ending: bool = False  # it is to end: no complaint when it does
    listening: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    async def enqueue(self, root: Path, paths: list[str]) -> dict[str, str]:
        """Have it enqueue an analysis of each file.

        Returns:
            Job id -> path: what has been accepted.

        Raises:
            ChildProcessError: it refused, or ended.
        """
        self.enqueued = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps([str(root), paths]).encode() + b"\n")  # type: ignore[union-attr]
        return await self.enqueued


class Nodes:
    """The processes, by name.

    Args:
        folder: where they find one another, and where the record is.
        cluster: its name.
        workers: of each node.
        say: tells people a line.
    """

    def __init__(self, folder: Path, record: Path, cluster: str, workers: int, say: Say) -> None:
        self.living: dict[str, NodeProcess] = {}
        self.kills: list[Kill] = []
        self.troubles: list[str] = []  # nodes that ended by themselves
        self.runtime_dir = folder / "runtime"
        self._record = record
        self._cluster = cluster
        self._workers = workers
        self._say = say
        self._ended: list[NodeProcess] = []

    async def __aenter__(self) -> Self:
        self.runtime_dir.mkdir(mode=0o700)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        nodes = [*self.living.values()]
        for node in nodes:
            node.ending = True
            if node.process.stdin is not None:
                node.process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await asyncio.gather(*(node.process.wait() for node in nodes))
        except TimeoutError:
            names = ", ".join(node.name for node in nodes if node.process.returncode is None)
            self._say(f"! killed, as they did not end in {END_S:.0f} s: {names}")
        finally:
            for node in nodes:
                if node.process.returncode is None:
                    node.process.kill()
                    await node.process.wait()
            await asyncio.gather(*(it for node in [*nodes, *self._ended] for it in node.listening))

    # --- starting and killing -------------------------------------------------------------------------------------

    async def start(self, name: str) -> NodeProcess:
        """Start one. Its endpoint is there when it has begun."""
        arguments = (name, self._cluster, str(self.runtime_dir), str(self._workers))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "zhero.demo.node", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_MAX_BYTES,
            env={**os.environ, RECORD: str(self._record), NODE: name},
            start_new_session=True,
        )
        node = NodeProcess(name, process, asyncio.get_running_loop().create_future())
        self.living[name] = node
        node.listening = [asyncio.create_task(self._listen(node)), asyncio.create_task(self._listen_to_errors(node))]
        return node

    async def kill(self, name: str) -> Kill:
        """SIGKILL, which it can neither catch nor delay; at return it is gone.

        Raises:
            ChildProcessError: it had ended before by itself.
        """
        node = self.living.pop(name)
        self._ended.append(node)
        node.ending = True
        at_s = time.monotonic()
        if node.process.returncode is None:
            node.process.kill()
        if await node.process.wait() != -signal.SIGKILL:
            raise ChildProcessError(f"node {name} had ended before it was killed")
        kill = Kill(name, at_s)
        self.kills.append(kill)
        return kill

    # --- what they say --------------------------------------------------------------------------------------------

    async def _listen(self, node: NodeProcess) -> None:
        assert node.process.stdout is not None
        while line := await node.process.stdout.readline():
            if line.endswith(b"\n"):  # a killed node may leave half a line
                self._hear(node, *json.loads(line))
        code = await node.process.wait()
        error = ChildProcessError(f"node {node.name} has ended by itself, with exit code {code}")
        for waited in (node.endpoint, node.enqueued):
            if waited is not None and not waited.done():
                waited.set_exception(error)
                waited.exception()  # not everybody who asked still looks
        if not node.ending:
            self.living.pop(node.name, None)
            self._ended.append(node)
            self.troubles.append(str(error))
            self._say(f"! {error}")

    async def _listen_to_errors(self, node: NodeProcess) -> None:
        assert node.process.stderr is not None
        while line := await node.process.stderr.readline():
            self._say(f"{node.name}: {line.decode(errors='replace').rstrip()}")

    def _hear(self, node: NodeProcess, what: str, *told: Any) -> None:
        match what, told:
            case "ready", [endpoint]:
                node.endpoint.set_result(endpoint)
            case "accepted", [job, path]:
                node.batch[job] = path
            case "enqueued", [_]:
                self._answer(node, node.batch)
            case "refused", [why]:
                self._answer(node, ChildProcessError(f"node {node.name} could not enqueue: {why}"))
            case _:
                self._say(f"{node.name}: {' '.join(map(str, told))}")

    def _answer(self, node: NodeProcess, answer: dict[str, str] | Exception) -> None:
        waited, node.batch = node.enqueued, {}
        if waited is None or waited.done():
            return
        if isinstance(answer, Exception):
            waited.set_exception(answer)
        else:
            waited.set_result(answer)
