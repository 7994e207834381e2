"""Nodes in processes of their own, driven and watched by a program that is no member.

Each ends when the pipe to its stdin closes, so also when whoever drives it is killed; what they tell is gathered in a
`Told`, for the judge. The same cluster stands on one host or in a `Lab`, where its nodes can be cut from one another.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .lab import Lab
from .oracle import Run, Told, read

MEMBER = Path(__file__).with_name("member.py")
PORT = 7040
READY_S = 30.0
END_S = 10.0
LOOK_EVERY_S = 0.05
LINE_MAX_BYTES = 1 << 20
NUMBERS = 1_000_000
"""Each node numbers what it asks for from a multiple of this on."""


class Member:
    """A node, from outside."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.ready = asyncio.Event()
        self.ended = False  # it was told to end, or killed
        self.listening: list[asyncio.Task[None]] = []
        self.looks: asyncio.Future[dict[str, Any]] | None = None

    def say(self, *values: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(values).encode() + b"\n")

    async def look(self) -> dict[str, Any]:
        """How things look from there."""
        if self.looks is None or self.looks.done():
            self.looks = asyncio.get_running_loop().create_future()
            self.say("look")
        return await asyncio.wait_for(asyncio.shield(self.looks), READY_S)


class Cluster:
    """The processes, by name. Use it as a context manager: all are gone in the end, whatever happens.

    Args:
        folder: where the record and the runtime directory are.
        lab: the network in which they are; None: this host's own.
        settings: of each node, besides its name and addresses.
    """

    def __init__(self, folder: Path, lab: Lab | None = None, **settings: Any) -> None:
        self.told = Told()
        self.members: dict[str, Member] = {}
        self.troubles: list[str] = []
        self.said: list[str] = []
        self._record = folder / "record.jsonl"
        self._runtime_dir = folder / "runtime"
        self._lab = lab
        self._settings = settings
        self._count = 0
        if lab is not None:
            self.told.cuts = lab.cuts

    async def __aenter__(self) -> Self:
        self._runtime_dir.mkdir(mode=0o700, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        members = [*self.members.values()]
        for member in members:
            member.ended = True
            if member.process.stdin is not None:
                member.process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await asyncio.gather(*(member.process.wait() for member in members))
        except TimeoutError:
            pass
        finally:
            for member in members:
                await self._end(member)

    async def _end(self, member: Member) -> None:
        if member.process.returncode is None:
            member.process.kill()
        await member.process.wait()
        await asyncio.gather(*member.listening)

    # --- starting and killing -------------------------------------------------------------------------------------

    async def start(self, *names: str) -> None:
        """Start some at once, and wait until they have begun."""
        await asyncio.gather(*(self._start(name) for name in names))

    async def _start(self, name: str) -> None:
        self._count += 1
        settings = {"name": name, "cluster": "under-test", "runtime_dir": str(self._runtime_dir)}
        settings |= {"first": self._count * NUMBERS, "drain_timeout": 1, **self._settings}
        inside: list[str] = []
        if self._lab is not None:
            endpoints = {it: f"tcp://{self._lab.address(it)}:{PORT}" for it in self._lab.names}
            settings |= {"bind": endpoints[name], "join": list(endpoints.values()), **OPEN}
            inside = self._lab.inside(name)
        process = await asyncio.create_subprocess_exec(
            *(*inside, sys.executable, str(MEMBER), json.dumps(settings), str(self._record)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_MAX_BYTES,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(MEMBER.parents[2]), *_path()])},
        )
        member = self.members[name] = Member(name, process)
        self.told.names.append(name)
        member.listening = [asyncio.create_task(self._listen(member))]
        async with asyncio.timeout(READY_S):
            await member.ready.wait()
        if self.troubles:
            raise ChildProcessError(self.troubles[0])

    async def kill(self, name: str) -> None:
        """SIGKILL, and nothing else."""
        member = self.members.pop(name)
        member.ended = True
        self.told.kills[name] = time.monotonic()
        await self._end(member)

    # --- what they tell -------------------------------------------------------------------------------------------

    async def _listen(self, member: Member) -> None:
        assert member.process.stdout is not None
        while line := await member.process.stdout.readline():
            try:
                what, *told = json.loads(line)
            except ValueError:  # a traceback, or half a line of a killed node
                self.said.append(f"{member.name}: {line.decode(errors='replace').rstrip()}")
                continue
            self._hear(member, what, told)
        code = await member.process.wait()
        if not member.ended:
            self.troubles.append(f"{member.name} ended by itself, with exit code {code}: {self.said[-3:]}")
        member.ready.set()
        if member.looks is not None and not member.looks.done():
            member.looks.cancel()

    def _hear(self, member: Member, what: str, told: list[Any]) -> None:
        if what == "ready":
            member.ready.set()
        elif what == "asked":
            self.told.asked.add(told[0])
        elif what == "call":
            self.told.calls.append(told[0])
        elif what == "copies":
            self.told.copies[member.name].append((told[0], told[1], told[2]))
        elif what == "looks" and member.looks is not None:
            member.looks.set_result(told[0])
        else:
            self.said.append(f"{member.name}: {' '.join(map(str, told))}")

    # --- asking ---------------------------------------------------------------------------------------------------

    def load(self, per_second: float) -> None:
        """Each of them enqueues so much from now on."""
        for member in self.members.values():
            member.say("load", per_second)

    def runs(self) -> list[Run]:
        """What handlers have written down so far."""
        return read(self._record)

    async def looks(self) -> dict[str, dict[str, Any]]:
        """How things look from each of them, by name."""
        members = list(self.members.values())
        found = await asyncio.gather(*(member.look() for member in members))
        return {member.name: it for member, it in zip(members, found, strict=True)}

    async def one(self, within_s: float) -> float:
        """Wait until all see the same members and the same owner, who alone believes to be that.

        Returns:
            After how many seconds.

        Raises:
            AssertionError: not within that time; says how things look then.
        """
        return await self._until(self._is_one, within_s, "the cluster is not one")

    async def whole(self, within_s: float) -> float:
        """Wait until, besides, no job lacks copies. Returns and raises: see `one`."""
        return await self._until(
            lambda looks: self._is_one(looks) and not any(it["degraded"] for it in looks.values()),
            within_s,
            "copies are missing, or the cluster is not one",
        )

    async def answered(self, within_s: float) -> float:
        """Wait until no enqueue is without an answer. Returns and raises: see `one`."""
        return await self._until(
            lambda looks: not any(it["waits"] for it in looks.values()), within_s, "enqueues have no answer"
        )

    def _is_one(self, looks: dict[str, dict[str, Any]]) -> bool:
        everybody = sorted(self.members)
        owners = {it["owner"] for it in looks.values()}
        seen_alike = all(it["alive"] == everybody for it in looks.values())
        return (
            seen_alike and len(owners) == 1 and [name for name, it in looks.items() if it["is_owner"]] == list(owners)
        )

    async def _until(
        self, condition: Callable[[dict[str, dict[str, Any]]], bool], within_s: float, complaint: str
    ) -> float:
        began_s = time.monotonic()
        while True:
            looks = await self.looks()
            if self.troubles:
                raise AssertionError(self.troubles[0])
            now_s = time.monotonic()
            if condition(looks):
                if self._is_one(looks):
                    self.told.one.append(now_s)
                return now_s - began_s
            if now_s - began_s > within_s:
                raise AssertionError(f"after {within_s:g} s {complaint}: {json.dumps(looks)}")
            await asyncio.sleep(LOOK_EVERY_S)


OPEN: dict[str, Any] = {"insecure": True}
"""What allows a node to be reached by others than this host."""


def _path() -> list[str]:
    given = os.environ.get("PYTHONPATH")
    return [given] if given else []
