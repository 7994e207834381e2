"""Three nodes, and one is killed with its work: everything that it had accepted is done all the same.

    python examples/three_nodes_and_a_kill.py

Three processes of this file are the cluster. web-1 enqueues sixty jobs; when a quarter of them has ended it gets
SIGKILL, which nobody can catch. Its backup takes over what web-1 answered for: jobs that others were running run on,
those that web-1 itself was running start again, the others start where there is room. This program is no member: it
reads what the jobs write down when they start and end, and asks a survivor who owns the delayed queue.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import zhero

CLUSTER = "example-three-nodes-and-a-kill"
NODES = ("web-1", "web-2", "web-3")
JOBS = 60
PATIENCE_S = 40.0


# --- what each node does ------------------------------------------------------------------------------------------


@zhero.task(announce=False)
async def work(api: zhero.Node, number: int, book: str) -> None:
    """`book`: a file, in which its start and its end are written down."""
    note(book, f"{number} starts {api.name}")
    await asyncio.sleep(0.1)
    note(book, f"{number} ends {api.name}")


def note(book: str, line: str) -> None:
    with open(book, "a") as file:  # a short line that is appended is written as a whole
        file.write(f"{line}\n")


async def be_a_node(name: str, book: str) -> None:
    """Work until the program that started this process closes its end of the pipe; web-1 enqueues first."""
    async with zhero.Node(tasks=[work], cluster=CLUSTER, name=name, workers=4) as node:
        if name == NODES[0]:
            while sum("work" in it.tasks for it in node.members() if it.standing == "alive") < len(NODES):
                await asyncio.sleep(0.05)
            jobs = await node.enqueue_many(work, [{"number": number, "book": book} for number in range(JOBS)])
            print(len(jobs), flush=True)
        await asyncio.to_thread(sys.stdin.read)


# --- who starts and kills them ------------------------------------------------------------------------------------


@asynccontextmanager
async def running_node(name: str, book: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, name, str(book)), stdin=pipe, stdout=pipe, stderr=nothing
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def main(book: Path) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S):
        first, *_ = [await stack.enter_async_context(running_node(name, book)) for name in NODES]
        assert first.stdout is not None
        accepted = int(await first.stdout.readline())
        while len(told(book, "ends")) < accepted // 4:
            await asyncio.sleep(0.01)
        first.kill()
        await first.wait()
        print("accepted:", accepted, "jobs by web-1")
        print("killed: web-1, when", len(told(book, "ends")), "of them had ended")

        try:
            while len(told(book, "ends")) < accepted:
                await asyncio.sleep(0.05)
        finally:
            print("ended:", len(told(book, "ends")), "of", accepted)
        by_name = Counter(name for names in told(book, "ends").values() for name in names)
        for name in sorted(by_name):
            print(f"{name}: {by_name[name]} jobs")
        print("started again:", sum(len(names) > 1 for names in told(book, "starts").values()))

        client = await stack.enter_async_context(zhero.Client(CLUSTER))
        while (owner := (await client.status()).owner) is None or owner.name == NODES[0]:
            await asyncio.sleep(0.05)
        print("owner: one of the survivors")


def told(book: Path, what: str) -> dict[str, list[str]]:
    """Number of each job of which that is written down -> names of the nodes that wrote it."""
    found: dict[str, list[str]] = {}
    for line in book.read_text().splitlines():
        number, happened, name = line.split()
        if happened == what:
            found.setdefault(number, []).append(name)
    return found


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(be_a_node(*sys.argv[1:]))
    else:
        with tempfile.NamedTemporaryFile() as written:
            asyncio.run(main(Path(written.name)))
