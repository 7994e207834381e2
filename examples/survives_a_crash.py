"""A journal: a process is killed in the middle of its work, and the next one goes on with it.

The program starts itself once more as the process that is killed. Jobs that it had accepted run in the next one; those
whose end was recorded do not run again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import zhero


@zhero.task
async def resize(picture: int) -> str:
    print(f"resizing {picture}", flush=True)
    await asyncio.sleep(0.05)
    return f"{picture}.jpg"


def node(folder: Path) -> zhero.Node:
    # durability="power" would sync each accept to the disk; "process" survives the death of processes.
    return zhero.Node(resize, workers=2, cluster="survives", runtime_dir=folder / "run", data_dir=folder / "data")


async def first(folder: Path) -> None:
    async with node(folder) as it:
        jobs = await it.enqueue_many(resize, [{"picture": n} for n in range(8)])
        await jobs[2].result(timeout=10)
        print("\n".join(["killed", *(job.id for job in jobs)]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


async def second(folder: Path, ids: list[str]) -> None:
    async with node(folder) as it:
        results = [await it.result(job_id, timeout=10) for job_id in ids]
        print("results:", results)


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o700)
        child = await asyncio.create_subprocess_exec(sys.executable, __file__, name, stdout=asyncio.subprocess.PIPE)
        said, _ = await child.communicate()
        before, _, ids = said.decode().partition("killed\n")
        print("before the crash:", sorted(set(before.split()) - {"resizing"}), flush=True)
        await second(folder, ids.split())


if __name__ == "__main__":
    asyncio.run(first(Path(sys.argv[1])) if sys.argv[1:] else main())
