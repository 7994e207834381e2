"""A task that runs by itself: once per period in the whole cluster, however many nodes there are.

    python examples/periodic.py

A bare `frequency` is in milliseconds. The first round is due one period after the start (with `run_on_start=True` at
once), each further one a period after the end of the last. Nobody enqueues it; it can be stopped and started again.
"""

from __future__ import annotations

import asyncio
import time

import zhero

ends: list[float] = []
"""When the rounds ended, on the monotonic clock, in seconds."""
three_rounds = asyncio.Event()


@zhero.task(frequency=200, announce=False)
async def tick() -> None:
    early = bool(ends) and time.monotonic() - ends[-1] < 0.2
    print(f"round {len(ends) + 1}: {'TOO EARLY' if early else 'not early'}")
    ends.append(time.monotonic())
    if len(ends) == 3:
        three_rounds.set()


async def main() -> None:
    async with zhero.Node(tasks=[tick]) as node:
        try:
            await tick.enqueue()
        except zhero.AlreadyQueued as error:
            print("refused:", error)

        await three_rounds.wait()
        print("stopped:", await node.stop_task("tick"))
        (plan,) = (await node.status()).plans
        print("schedule:", plan.name, "stopped" if plan.stopped else "running")


if __name__ == "__main__":
    asyncio.run(main())
