"""A short program that is no node: it finds one that runs, hands it jobs and asks about them.

    python examples/client.py

The node is another process: `zhero run` with this file as its tasks. The client needs nothing of them but their names;
it finds the node by the name of the cluster, as every process of this user on this host can.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import zhero

CLUSTER = "example-client"


@zhero.task
async def convert(celsius: float) -> float:
    return celsius * 9 / 5 + 32


@asynccontextmanager
async def running_node() -> AsyncGenerator[None]:
    """A node in a process of its own, which SIGTERM tells to finish and end."""
    command = [sys.executable, "-m", "zhero", "run", "--tasks", __file__, "--cluster", CLUSTER, "--name", "worker-1"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        print("node ended with", await process.wait())


async def connected(stack: AsyncExitStack) -> zhero.Client:
    """A client, as soon as the node can be found; it is closed with the stack."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await stack.enter_async_context(zhero.Client(CLUSTER))
            except zhero.NotReached:
                await asyncio.sleep(0.05)


async def main() -> None:
    async with running_node(), AsyncExitStack() as stack:
        client = await connected(stack)
        job = await client.enqueue("convert", {"celsius": 100})
        print("100 degrees:", await job.result(timeout=5))

        jobs = await client.enqueue_many("convert", [{"celsius": celsius} for celsius in (0, 20, 37)])
        print("0, 20, 37 degrees:", [await job.result(timeout=5) for job in jobs])

        later = await client.enqueue("convert", {"celsius": -40}, run_in=3600)
        print("delayed:", await client.queue_length("delayed"))
        print("cancelled:", await client.cancel(later.id))
        status = await client.status()
        print("members:", [member.name for member in status.members])


if __name__ == "__main__":
    asyncio.run(main())
