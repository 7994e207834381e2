"""A short program that is no node: it finds one that runs, hands it jobs and asks about them.

    python examples/client.py

The node is another process: `zhero run` with this file as its tasks. The client needs nothing of them but their names;
it finds the node by the name of the cluster, as every process of this user on this host can.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

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
        process.terminate()
        print("node ended with", await process.wait())


@asynccontextmanager
async def client_of_node() -> AsyncGenerator[zhero.Client]:
    """A client, once there is a node."""
    for _ in range(200):
        try:
            async with zhero.Client(CLUSTER) as client:
                yield client
                return
        except zhero.NotReached:
            await asyncio.sleep(0.05)
    raise zhero.NotReached("no node has started within 10 seconds")


async def main() -> None:
    async with running_node(), client_of_node() as client:
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
