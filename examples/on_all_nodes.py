"""A job for every node: scope "all".

    python examples/on_all_nodes.py

Three nodes: one in this program, two as processes of their own (`zhero run` with this file as their tasks). Each member
of that moment runs the job once, and the result says what became of it at each of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import zhero

CLUSTER = "example-on-all-nodes"

settings = {"debug": False}
"""What each process of an application has for itself."""


@zhero.task(scope="all")
async def set_debug(on: bool) -> int:
    settings["debug"] = on
    return os.getpid()


@zhero.task(scope="all")
async def check_disk(api: zhero.Node, needed_bytes: int) -> str:
    if api.name == "web-1":
        raise OSError(f"less than {needed_bytes} bytes are free")
    return "enough"


@asynccontextmanager
async def running_node(name: str) -> AsyncGenerator[None]:
    """A node in a process of its own, which SIGTERM tells to finish and end."""
    command = [sys.executable, "-m", "zhero", "run", "--tasks", __file__, "--cluster", CLUSTER, "--name", name]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def all_here(node: zhero.Node) -> None:
    """Until this one knows the others, their tasks, and that they have workers: else they would be skipped."""
    async with asyncio.timeout(30):
        while sum("set_debug" in it.tasks and it.slots > 0 for it in node.members() if it.standing == "alive") < 3:
            await asyncio.sleep(0.05)


async def main() -> None:
    async with (
        zhero.Node(tasks=[set_debug, check_disk], name="web-1", cluster=CLUSTER) as node,
        running_node("web-2"),
        running_node("web-3"),
    ):
        await all_here(node)
        job = await set_debug.enqueue(True)
        outcomes = await job.result(timeout=20)
        print("all did it:", outcomes.ok)
        for member, pid in sorted(outcomes.results().items()):
            print(f"{member}: done in {'this process' if pid == os.getpid() else 'another process'}")
        print("debug:", settings["debug"])

        checking = await check_disk.enqueue(1_000_000_000)
        checked = await checking.result(timeout=20)  # does not raise: it may have failed on some only
        print("all did it:", checked.ok)
        print("enough on:", sorted(checked.results()))
        for member, error in checked.failed.items():
            print(f"{member}: {error}")


if __name__ == "__main__":
    asyncio.run(main())
