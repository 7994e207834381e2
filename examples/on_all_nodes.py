"""A job for every node: scope "all".

    python examples/on_all_nodes.py

Each member of that moment runs it once, and the result says what became of it at each of them. Nodes do not form a
cluster yet, so here that is one member.
"""

from __future__ import annotations

import asyncio
import os

import zhero

settings = {"debug": False}
"""What each process of an application has for itself."""


@zhero.task(scope="all")
async def set_debug(on: bool) -> int:
    settings["debug"] = on
    return os.getpid()


@zhero.task(scope="all")
async def check_disk(needed_bytes: int) -> int:
    raise OSError(f"less than {needed_bytes} bytes are free")


async def main() -> None:
    async with zhero.Node(tasks=[set_debug, check_disk], name="web-1"):
        job = await set_debug.enqueue(True)
        outcomes = await job.result(timeout=5)
        print("all did it:", outcomes.ok)
        for member, pid in outcomes.results().items():
            print(f"{member}: done in {'this process' if pid == os.getpid() else f'process {pid}'}")
        print("debug:", settings["debug"])

        job = await check_disk.enqueue(1_000_000_000)
        outcomes = await job.result(timeout=5)  # does not raise: it may have failed on some only
        print("all did it:", outcomes.ok)
        for member, error in outcomes.failed.items():
            print(f"{member}: {error}")


if __name__ == "__main__":
    asyncio.run(main())
