"""What callers see of copies, owner and deaths: real processes, that are stopped and killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import zhero

PATIENCE_S = 40.0
CLUSTER = "delivery-test"
COMMON: dict[str, Any] = {"cluster": CLUSTER, "drain_timeout": 5}

TASKS = """
import asyncio, pathlib
import zhero

@zhero.task(delivery="at_most_once")
async def hold(place: str) -> None:
    pathlib.Path(place).write_text("begun")
    await asyncio.sleep(600)
"""
"""What the other process can run."""


@zhero.task(delivery="at_most_once")
async def hold(place: str) -> None:
    """As it is known to a node without workers."""


@zhero.task
async def double(number: int) -> int:
    return 2 * number


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so, for a bounded time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def other(folder: Path, profile: str = "fast") -> AsyncIterator[subprocess.Popen[bytes]]:
    """A node "two" in a process of its own; gone in the end, whatever happens."""
    file = folder / "tasks_of_two.py"
    file.write_text(TASKS)
    where = ["--tasks", str(file), "--cluster", CLUSTER, "--profile", profile, "--name", "two"]
    process = subprocess.Popen([sys.executable, "-m", "zhero", "run", *where], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def knows_two(node: zhero.Node) -> None:
    """Until the node knows the other one, its task and its workers."""
    await until(lambda: any(it.name == "two" and it.slots and "hold" in it.tasks for it in node.members()))


async def two_listens() -> None:
    """Until the other one has started, so that it is the older."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with zhero.Client(CLUSTER):
                    return
            except zhero.NotReached:
                await asyncio.sleep(0.05)


def test_without_a_copy_in_time_a_job_is_not_accepted_and_may_run(tmp_path: Path) -> None:
    async def main() -> None:
        node = zhero.Node([double], name="one", profile="lan", accept_timeout=2, **COMMON)
        async with node, other(tmp_path, "lan") as process:
            await knows_two(node)
            assert await (await double.enqueue(1)).result(PATIENCE_S) == 2
            process.send_signal(signal.SIGSTOP)
            kept, taken_back = await asyncio.gather(double.enqueue(3), double.enqueue(5), return_exceptions=True)
            assert isinstance(kept, zhero.NotAccepted)
            assert isinstance(taken_back, zhero.NotAccepted)
            assert (await node.job(kept.job_id)).attempt == 0
            assert await node.cancel(taken_back.job_id)
            process.send_signal(signal.SIGCONT)
            assert await node.result(kept.job_id, PATIENCE_S) == 6
            with pytest.raises(zhero.JobCancelled):
                await node.result(taken_back.job_id, PATIENCE_S)

    asyncio.run(main())


def test_without_copies_asked_for_nobody_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        node = zhero.Node([double], name="one", profile="lan", backups=0, **COMMON)
        async with node, other(tmp_path, "lan") as process:
            await knows_two(node)
            process.send_signal(signal.SIGSTOP)
            assert await (await double.enqueue(4)).result(PATIENCE_S) == 8

    asyncio.run(main())


def test_a_job_that_may_run_once_is_lost_with_its_executor(tmp_path: Path) -> None:
    async def main() -> None:
        node = zhero.Node([hold], name="one", profile="fast", workers=0, **COMMON)
        async with node, other(tmp_path) as process:
            await knows_two(node)
            begun = tmp_path / "begun"
            job = await hold.enqueue(str(begun))
            await until(begun.exists)
            process.kill()
            with pytest.raises(zhero.JobLost, match="at_most_once"):
                await job.result(PATIENCE_S)

    asyncio.run(main())


def test_the_owner_may_be_any_member_and_its_successor_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        node = zhero.Node([double], name="one", profile="fast", **COMMON)
        async with other(tmp_path) as process:
            await two_listens()
            async with node:
                await until(lambda: node.owner is not None and node.owner.name == "two")
                assert not node.is_owner
                events = node.events()
                process.kill()
                async with asyncio.timeout(PATIENCE_S):
                    changed = await anext(
                        it async for it in events if isinstance(it, zhero.MemberEvent) and it.kind == "owner_changed"
                    )
                assert (changed.name, changed.detail.endswith("this node")) == ("one", True)
                assert node.is_owner

    asyncio.run(main())
