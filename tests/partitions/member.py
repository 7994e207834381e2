"""A node under test, in a process of its own: it works, enqueues as it is told, and tells what it was told.

    python member.py SETTINGS RECORD

Every run of a handler leaves lines in the file RECORD, which all nodes append to: what is not there has not happened.
What callers were told goes to stdout. Both are judged by `oracle.py`. It ends when its stdin does.

    stdin     ["load", per second]    enqueue so much from now on; 0: nothing
              ["look"]                say how things look from here
    stdout    ["ready"]               it has begun
              ["asked", number]       an enqueue begins
              ["call", {...}]         one enqueue: what was asked, when, and what came of it
              ["copies", at, stream, [name, ...]]    who follows one of this node's streams now
              ["looks", {...}]
              ["said", line]          of its log, from WARNING upward
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import time
from typing import Any

import zhero

LOOK_EVERY_S = 0.02
"""How often a node looks who follows its streams."""
LINE_MAX_BYTES = 1 << 16

_record = -1
_name = ""


def tell(*values: object) -> None:
    try:
        print(json.dumps(values), flush=True)
    except OSError:  # whoever listened is gone: the end of stdin comes too
        pass


def note(what: str, **more: object) -> None:
    """A line in the record, written whole or not at all."""
    here = zhero.current()
    line = {"what": what, "at_s": time.monotonic(), "node": _name, "task": here.task, "job": here.job_id}
    line |= {"token": here.token, "number": here.number, **more}
    os.write(_record, json.dumps(line).encode() + b"\n")


@zhero.task(announce=False)
async def work(number: int, ms: int) -> None:
    note("began", n=number)
    await asyncio.sleep(ms / 1000)
    note("ended", n=number)


@zhero.task(announce=False, frequency=1_000)
async def ring() -> None:
    note("began")
    await asyncio.sleep(0.05)
    note("ended")


@zhero.task(announce=False, scope="all")
async def tidy(number: int) -> None:
    note("began", n=number)
    note("ended", n=number)


class Caller:
    """Enqueues at a steady pace, of every kind, and tells what came of it."""

    def __init__(self, node: zhero.Node, first: int) -> None:
        self._node = node
        self._next = first
        self._rng = random.Random(first)
        self._pace = 0.0
        self._paced = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()

    def pace(self, per_second: float) -> None:
        self._pace = per_second
        if per_second:
            self._paced.set()
        else:
            self._paced.clear()

    @property
    def waits(self) -> int:
        """Calls that have no answer yet."""
        return len(self._calls)

    async def run(self) -> None:
        while True:
            await self._paced.wait()
            call = asyncio.create_task(self._call())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.sleep(self._rng.expovariate(self._pace or 1.0))

    async def _call(self) -> None:
        rng, number = self._rng, self._next
        self._next += 1
        kind = rng.choices(("now", "long", "later", "all"), (60, 10, 25, 5))[0]
        delay_s = rng.uniform(0.3, 4.0) if kind == "later" else 0.0
        ms = rng.randint(1_500, 4_000) if kind == "long" else rng.randint(0, 200)
        told: dict[str, Any] = {"n": number, "kind": kind, "node": _name, "asked_s": time.monotonic()}
        told |= {"delay_s": delay_s, "homes": self._homes(kind)}
        tell("asked", number)
        try:
            if kind == "all":
                job = await tidy.on(self._node).enqueue(number)
            else:
                bound = work.on(self._node)
                job = await (bound.options(run_in=delay_s) if delay_s else bound).enqueue(number, ms)
            told |= {"came": "accepted", "job": job.id}
        except zhero.NotAccepted as error:
            told |= {"came": "unsure", "job": error.job_id}
        except zhero.ZheroError as error:
            told |= {"came": "refused", "why": f"{type(error).__name__}: {error}"}
        told |= {"told_s": time.monotonic(), "homes": sorted({*told["homes"], *self._homes(kind)})}
        tell("call", told)

    def _homes(self, kind: str) -> list[str]:
        """Who is or becomes the home of a job of that kind that is enqueued here."""
        owner = self._node.owner
        if kind != "later":
            return [_name]
        return [_name, *([owner.name] if owner is not None else [])]


def followers(node: zhero.Node) -> dict[str, list[str]]:
    """Stream -> who has or gets copies of it. Nothing public says so: it is nobody's business but a judge's."""
    engine = node._driver._engine  # type: ignore[union-attr]
    names = engine._roster.name_of
    return {stream.name: sorted(names(life) for life in stream.followers) for stream in engine._streams}


async def watch(node: zhero.Node) -> None:
    """Tell who follows, whenever that changes."""
    shown: dict[str, list[str]] = {}
    while True:
        now = followers(node)
        for stream, names in now.items():
            if names != shown.get(stream):
                tell("copies", time.monotonic(), stream, names)
        shown = now
        await asyncio.sleep(LOOK_EVERY_S)


def looks(node: zhero.Node, caller: Caller) -> dict[str, Any]:
    """How things look from here. `alive`: who is, and is known to be able to run jobs."""
    members = [it for it in node.members() if it.standing in ("alive", "suspect")]
    mine = next(it for it in members if it.is_me)
    return {
        "alive": sorted(it.name for it in members if it.standing == "alive" and it.slots and tidy.name in it.tasks),
        "owner": next((it.name for it in members if it.owner), None),
        "is_owner": node.is_owner,
        "degraded": mine.degraded,
        "waits": caller.waits,
    }


class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            tell("said", line)


async def main() -> None:
    global _record, _name
    settings = json.loads(sys.argv[1])
    _record, _name = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), settings["name"]
    logger = logging.getLogger("zhero")
    logger.addHandler(_Teller(logging.WARNING))
    logger.propagate = False
    first = settings.pop("first")
    lines = asyncio.StreamReader(LINE_MAX_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with zhero.Node([work, ring, tidy], **settings) as node:
        caller = Caller(node, first)
        tasks = [asyncio.create_task(caller.run()), asyncio.create_task(watch(node))]
        tell("ready")
        while line := await lines.readline():
            match json.loads(line):
                case ["load", per_second]:
                    caller.pace(per_second)
                case ["look"]:
                    tell("looks", looks(node, caller))
        for task in tasks:
            task.cancel()
        await node.aclose(0)  # nobody waits for what is left


if __name__ == "__main__":
    asyncio.run(main())
