"""A node under trial: one process, started by `herd.Herd` as `python -m tests.chaos.member`.

It is told what to do by lines of JSON on stdin, `[number, what, {arguments}]`, and answers each with a line on stdout,
`[number, answer]`. It ends when stdin does, which is also when whoever started it is gone; `leave` ends it as an
application would. What it runs and what it was told accepted stands in the book (`book.py`).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import zhero

from .book import Pen

LINE_MAX_BYTES = 1024 * 1024
pen: Pen
"""Of this process; the handlers write with it."""


async def write_down(ms: float) -> None:
    """Be a run: told in the book, `ms` long."""
    it = zhero.current()
    pen.started(it.task, it.job_id, it.number, it.token)
    if ms:
        await asyncio.sleep(ms / 1000)
    pen.ended(it.task, it.job_id, it.number, it.token)


@zhero.task(announce=False)
async def work(ms: float = 0) -> None:
    await write_down(ms)


@zhero.task(announce=False)
async def other(ms: float = 0) -> None:
    """As work, for a second kind of job."""
    await write_down(ms)


@zhero.task(announce=False, frequency=1000)
async def tick() -> None:
    await write_down(20)


@zhero.task(announce=False, frequency=100)
async def quick_tick() -> None:
    await write_down(0)


@zhero.task(announce=False, scope="all")
async def everywhere(ms: float = 0) -> str:
    await write_down(ms)
    node: zhero.Node = zhero.current().node
    return node.name


@zhero.task(announce=False)
async def block(seconds: float, in_c: bool = False) -> None:
    """Hold up the loop of whoever runs this; `in_c`: with the interpreter's lock held, so that no thread runs."""
    it = zhero.current()
    pen.started(it.task, it.job_id, it.number, it.token)
    hold_up(seconds, in_c)
    pen.ended(it.task, it.job_id, it.number, it.token)


def hold_up(seconds: float, in_c: bool) -> None:
    if in_c:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


TASKS = {it.name: it for it in (work, other, tick, quick_tick, everywhere, block)}


class Member:
    """What one process can be told to do: its methods, by name."""

    def __init__(self, node: zhero.Node) -> None:
        self._node = node
        self._loads: list[asyncio.Task[None]] = []
        self._rests = False

    async def enqueue(self, task: str, params: dict[str, Any], run_in: float = 0.0, priority: int = 0) -> str | None:
        """One job; its id, or None if it was not surely accepted."""
        asked_at_s = time.monotonic()
        try:
            job = await self._node.enqueue(task, params, run_in=run_in or None, priority=priority)
        except zhero.NotAccepted as error:
            pen.unsure(task, [error.job_id], asked_at_s, run_in)
            return None
        except zhero.ZheroError as error:
            pen.refused(task, f"{type(error).__name__}: {error}", asked_at_s)
            return None
        pen.accepted(task, [job.id], asked_at_s, run_in)
        return job.id

    async def enqueue_many(self, task: str, params: dict[str, Any], count: int) -> int:
        """As one batch; how many were accepted."""
        asked_at_s = time.monotonic()
        try:
            jobs = await self._node.enqueue_many(task, [params] * count)
        except zhero.NotAccepted as error:
            pen.unsure(task, error.job_ids, asked_at_s)
            return 0
        except zhero.ZheroError as error:
            pen.refused(task, f"{type(error).__name__}: {error}", asked_at_s)
            return 0
        pen.accepted(task, [job.id for job in jobs], asked_at_s)
        return len(jobs)

    async def delayed(self, task: str, params: dict[str, Any], count: int, first: float, last: float) -> int:
        """So many jobs that become due at even distances, `first` to `last` seconds from when each is enqueued."""
        step = (last - first) / max(1, count - 1)
        ids: list[str | None] = []
        for begin in range(0, count, 100):
            some = range(begin, min(begin + 100, count))
            ids += await asyncio.gather(*(self.enqueue(task, params, run_in=first + step * it) for it in some))
        return sum(it is not None for it in ids)

    async def load(self, task: str, params: dict[str, Any], gap: float, at_once: int = 1) -> None:
        """Go on enqueueing until `rest`: so many callers, each waiting `gap` seconds after each job."""

        async def caller() -> None:
            while not self._rests:
                await self.enqueue(task, params)
                await asyncio.sleep(gap)

        self._rests = False
        self._loads += [asyncio.create_task(caller()) for _ in range(at_once)]

    async def rest(self) -> None:
        """No more of that; returns when the last enqueue has."""
        self._rests = True
        await asyncio.gather(*self._loads)
        self._loads.clear()

    async def state(self) -> dict[str, Any]:
        """How this node sees itself and the others."""
        members = self._node.members()
        owner = self._node.owner
        return {
            "alive": sorted(it.name for it in members if it.standing == "alive" and not it.lagging),
            "tasks": min(len(it.tasks) for it in members if it.standing == "alive"),
            "owner": owner.name if owner is not None else None,
            "degraded": sum(it.degraded for it in members if it.is_me),
        }

    async def queues(self) -> dict[str, int]:
        """Lengths of the queues, of the whole cluster."""
        return {name: await self._node.queue_length(name) for name in ("global", "delayed", "processing")}

    async def outcomes(self, job: str, timeout: float) -> dict[str, str]:
        """Of an "all" job: name of each member -> what became of it there."""
        told: zhero.Outcomes[str] = await self._node.result(job, timeout)
        return {name: it.status for name, it in told.items()}

    async def hold_up(self, seconds: float, in_c: bool = False) -> None:
        """Block this process's loop, or all of its threads, soon."""
        asyncio.get_running_loop().call_later(0.01, hold_up, seconds, in_c)


async def serve(name: str, folder: str, settings: dict[str, Any], tasks: list[str]) -> None:
    """Be a node until stdin ends."""
    global pen
    pen = Pen(Path(folder), name)
    lines = asyncio.StreamReader(LINE_MAX_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    node = zhero.Node([TASKS[it] for it in tasks], name=name, runtime_dir=Path(folder, "runtime"), **settings)
    doing: set[asyncio.Task[None]] = set()
    async with node:
        member = Member(node)
        view = next(it for it in node.members() if it.is_me)
        _tell([0, {"id": view.id, "endpoint": view.endpoint}])
        while line := await lines.readline():
            number, what, arguments = json.loads(line)
            if what == "leave":
                await member.rest()
                _tell([number, await node.aclose()])
                return
            task = asyncio.create_task(_do(number, getattr(member, what), arguments))
            doing.add(task)
            task.add_done_callback(doing.discard)
        await node.aclose(0)  # nobody waits for what is left


async def _do(number: int, what: Callable[..., Awaitable[Any]], arguments: dict[str, Any]) -> None:
    try:
        answer: Any = await what(**arguments)
    except (zhero.ZheroError, TimeoutError) as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    _tell([number, answer])


def _tell(what: list[Any]) -> None:
    try:
        print(json.dumps(what), flush=True)
    except OSError:  # whoever listened is gone: the end of stdin comes too
        pass


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    asyncio.run(serve(**json.loads(sys.argv[1])))
