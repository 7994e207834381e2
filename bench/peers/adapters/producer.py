"""The process that enqueues: does what it is told by lines of JSON, and answers each with one.

    python producer.py MODULE

Orders: `many` (count), `clients` (count, clients), `paced` (count, gap_s), `later` (count, span_s), `work` (count),
`meet` (count: of processes that are to know one another, where they have to). Numbers of jobs start at `first`. An
answer has `began` and `ended`, in seconds of the monotonic clock, and for `paced` and `later` also `at`: when each call
was made, or what was asked for is due.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

THREADS = 40
"""In which the calls of clients are made where a peer's are blocking ones, as web frameworks do."""


async def done(result: object) -> None:
    """A call of an adapter, which is a coroutine or is over already."""
    if inspect.isawaitable(result):
        await result


async def clients(producer: object, first: int, count: int, clients: int) -> None:
    """So many clients, each of which awaits its call before it makes the next."""
    numbers = iter(range(first, first + count))  # shared by all
    if inspect.iscoroutinefunction(producer.one):

        async def client() -> None:
            for number in numbers:
                await producer.one(number)

        await asyncio.gather(*(client() for _ in range(clients)))
        return
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:

        async def waiting() -> None:
            for number in numbers:
                await loop.run_in_executor(pool, producer.one, number)

        await asyncio.gather(*(waiting() for _ in range(clients)))


async def obey(producer: object, order: dict) -> dict:
    """One order; what is answered."""
    first, count = order.get("first", 0), order.get("count", 0)
    at: list[float] = []
    began = time.monotonic()
    match order["do"]:
        case "many":
            await done(producer.many(range(first, first + count)))
        case "work":
            await done(producer.work(range(first, first + count)))
        case "clients":
            await clients(producer, first, count, order["clients"])
        case "paced":
            for number in range(first, first + count):
                at.append(time.monotonic())
                await done(producer.one(number))
                await asyncio.sleep(order["gap_s"] * random.uniform(0.5, 1.5))
        case "later":
            for number in range(first, first + count):
                at.append(time.monotonic() + order["span_s"])
                await done(producer.later(number, order["span_s"]))
                await asyncio.sleep(0)
        case "meet":
            if meet := getattr(producer, "meet", None):
                await meet(count)
        case what:
            raise ValueError(f"an order that nobody knows: {what}")
    return {"began": began, "ended": time.monotonic(), "at": at}


async def main(module: str) -> None:
    loop, orders = asyncio.get_running_loop(), asyncio.Queue()
    loop.add_reader(sys.stdin, lambda: orders.put_nowait(sys.stdin.readline()))
    producer = importlib.import_module(module).Producer()
    await done(producer.open())
    while line := await orders.get():
        print(json.dumps(await obey(producer, json.loads(line))), flush=True)
    loop.remove_reader(sys.stdin)
    await done(producer.close())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
