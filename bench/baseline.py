"""What does moving and running a job cost at the least, with nothing of zhero but its bytes?

The physical limit that zhero's figures are shares of (`throughput`), measured beside something still barer:

- `one process`: params are encoded, kept under an id, taken again in order, decoded, and the function awaited; beside
  the function alone.
- `two processes`: the producer encodes params and sends `BATCH` jobs per frame over a DEALER; the worker keeps them,
  acknowledges, decodes, awaits the function and says in one frame which are done. At most `WINDOW` batches are under
  way. Beside one process that does the same with no sockets.
- `bytes alone`: the same frames there and back, with nothing encoded, kept or run in between; beside two processes.

No promise is kept here: no copies, no retries, no members, no fairness, no reports. What is lost is lost.

    python -m bench.baseline [--quick] [--json] [--jobs n] [--repeats n] [--seconds s]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import zmq
from msgpack import packb, unpackb

from . import jobs
from .jobs import TO, Marks
from .measure import Plan, Report, chosen, column, parser, rounds, run
from .processes import Child, cpu_s, start, within

PLAN = Plan(jobs=50_000, repeats=9, seconds=15)
QUICK = Plan(jobs=10_000, repeats=3, seconds=3)
BATCH = 1_000
"""Jobs in a frame."""
WINDOW = 8
"""Frames that are under way."""
LOOK_MS = 1
"""How long the producer waits for what comes back before it lets its loop turn."""


async def one_process(count: int) -> None:
    """Encode, keep, take, decode, run: in one loop."""
    kept: dict[int, bytes] = {}
    line: deque[int] = deque()
    for number in range(count):
        kept[number] = packb({"to": TO, "number": number})
        line.append(number)
    while line:
        await jobs.no_op(**unpackb(kept.pop(line.popleft())))


class Bare:
    """The producer's side of two bare processes, on the loop of the caller, which is not blocked for long."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._inbox = self._context.socket(zmq.ROUTER)
        self._out = self._context.socket(zmq.DEALER)
        self._out.setsockopt(zmq.LINGER, 0)
        self._child: Child | None = None
        self._id = 0

    async def open(self) -> None:
        """Start the worker."""
        port = self._inbox.bind_to_random_port("tcp://127.0.0.1")
        self._child = await start("bench.baseline", "--be", "worker", "--answer", f"tcp://127.0.0.1:{port}")
        told = await within(self._child.hear(), "the bare worker does not start")
        self._out.connect(told["endpoint"])

    async def close(self) -> None:
        """End both."""
        if self._child is not None:
            await self._child.end()
        self._context.destroy(0)

    async def cpu_s(self) -> float:
        """CPU time of the worker so far."""
        assert self._child is not None
        told = await self._child.ask("cpu")
        return float(told["cpu_s"])

    async def marks(self) -> list[int]:
        """What has run there since the last time."""
        assert self._child is not None
        return list((await self._child.ask("marks"))["marks"])

    async def move(self, count: int, *, run: bool = True) -> None:
        """Have so many jobs run there, or only their bytes moved."""
        kept: dict[bytes, bytes] = {}
        sent = done = under_way = 0
        poller = zmq.Poller()
        poller.register(self._inbox, zmq.POLLIN)
        ready = None if run else packb([0, [(bytes(16), packb({"to": TO, "number": 1_000_000}))] * BATCH])
        while done < count:
            while under_way < WINDOW and sent < count:
                size = min(BATCH, count - sent)
                data = self._batch(kept, sent, size) if ready is None else ready
                await self._send(data)
                sent += size
                under_way += 1
            if not poller.poll(LOOK_MS):
                await asyncio.sleep(0)
                continue
            self._inbox.recv()
            kind, said = unpackb(self._inbox.recv())
            if kind == 0:
                continue  # an acknowledgement: from here on the caller could be told
            under_way -= 1
            done += len(said) if ready is None else BATCH
            for job in said:
                kept.pop(job, None)
            await asyncio.sleep(0)

    def _batch(self, kept: dict[bytes, bytes], first: int, size: int) -> bytes:
        batch: list[tuple[bytes, bytes]] = []
        for number in range(first, first + size):
            self._id += 1
            job = self._id.to_bytes(16)
            kept[job] = packb({"to": TO, "number": number})
            batch.append((job, kept[job]))
        data: bytes = packb([1, batch])
        return data

    async def _send(self, data: bytes) -> None:
        while True:
            try:
                self._out.send(data, zmq.NOBLOCK)
                return
            except zmq.Again:
                await asyncio.sleep(0.001)


async def work(answer: str) -> None:
    """The worker's side, a process of its own: it has nothing else to do, so it may block its loop."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inbox, out = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    out.setsockopt(zmq.LINGER, 0)
    port = inbox.bind_to_random_port("tcp://127.0.0.1")
    out.connect(answer)
    Child.tell({"endpoint": f"tcp://127.0.0.1:{port}"})
    poller = zmq.Poller()
    poller.register(inbox, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if sys.stdin.fileno() in ready:
            asked = sys.stdin.readline()
            if not asked:
                break
            if asked.startswith("marks"):
                Child.tell({"marks": jobs.marks})
                jobs.marks.clear()
            else:
                Child.tell({"cpu_s": cpu_s()})
        if inbox in ready:
            inbox.recv()
            kind, batch = unpackb(inbox.recv())
            out.send(packb([0, len(batch)]))
            if kind == 0:
                out.send(packb([1, [b""]]))
                continue
            kept = dict(batch)
            for params in kept.values():
                await jobs.no_op(**unpackb(params))
            out.send(packb([1, list(kept)]))
    context.destroy(0)


# --- all of it ----------------------------------------------------------------------------------------------------


async def measure_all(plan: Plan, report: Report) -> None:
    """Every measure."""
    count = plan.jobs
    alone = column("one process", "function alone", "us/job")
    both = column("two processes", "one process", "us/job")
    moved = column("bytes alone", "two processes", "us/job")
    report.measures += [alone, both, moved]
    bare = Bare()
    try:
        await bare.open()
        await rounds(plan, [alone], partial(_in_one, count, report), partial(_function, count, report))
        await rounds(plan, [both], partial(_in_two, bare, count, report), partial(_in_one, count, report))
        await rounds(plan, [moved], partial(_bytes, bare, count), partial(_in_two, bare, count, report))
    finally:
        await bare.close()


async def _function(count: int, report: Report) -> list[float]:
    began = time.perf_counter()
    for number in range(count):
        await jobs.no_op(to=TO, number=number)
    taken = time.perf_counter() - began
    Marks(report, "function alone").take(count)
    return [1e6 * taken / count]


async def _in_one(count: int, report: Report) -> list[float]:
    began = time.perf_counter()
    await one_process(count)
    taken = time.perf_counter() - began
    Marks(report, "one process").take(count)
    return [1e6 * taken / count]


async def _in_two(bare: Bare, count: int, report: Report) -> list[float]:
    began = time.perf_counter()
    await bare.move(count)
    taken = time.perf_counter() - began
    report.count("two processes", count, len(set(await bare.marks()) & set(range(count))))
    return [1e6 * taken / count]


async def _bytes(bare: Bare, count: int) -> list[float]:
    began = time.perf_counter()
    await bare.move(count, run=False)
    return [1e6 * (time.perf_counter() - began) / count]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--be", choices=["worker"], help="be the other process")
    made.add_argument("--answer", help="endpoint that it answers to")
    args = made.parse_args(argv)
    if args.be is not None:
        asyncio.run(work(args.answer))
        return 0
    plan = chosen(args)
    options: dict[str, Any] = {**asdict(plan), "batch": BATCH, "window": WINDOW}
    report = Report("the physical limit: the same bytes and the same coroutine, and nothing else", options)
    return run(measure_all(plan, report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
