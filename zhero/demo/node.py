"""A node of the demo: one process, started by `nodes.NodeProcess` as `python -m zhero.demo.node`.

It works until its stdin ends, which is when whoever started it closes the pipe or is gone, by whatever end: so no node
is left behind. Both directions speak JSON, one value per line:

    stdin     ["root", ["path", ...]]           enqueue these, as one batch
    stdout    ["ready", endpoint]               once, when it has begun
              ["accepted", job id, path]        one for each job of a batch, then
              ["enqueued", count]
              ["refused", why]                  nothing, or not surely, was enqueued
              ["said", line]                    of its log, from WARNING upward
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys

import zhero

from .tasks import TASKS, analyse

LINE_MAX_BYTES = 4 * 1024 * 1024
"""Of a line on stdin: all paths of a batch."""


class _Teller(logging.Handler):
    """Log records as lines on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            _tell("said", line)


def _tell(*values: object) -> None:
    try:
        print(json.dumps(values), flush=True)
    except OSError:  # whoever listened is gone: the end of stdin comes too, and ends this node
        pass


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(LINE_MAX_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _enqueue(node: zhero.Node, root: str, paths: list[str]) -> None:
    try:
        jobs = await node.enqueue_many(analyse, [{"root": root, "path": path} for path in paths])
    except zhero.ZheroError as error:
        _tell("refused", f"{type(error).__name__}: {error}")
        return
    for job, path in zip(jobs, paths, strict=True):
        _tell("accepted", job.id, path)
    _tell("enqueued", len(jobs))


async def serve(name: str, cluster: str, runtime_dir: str, workers: int) -> None:
    """Be a node until stdin ends."""
    lines = await _lines()
    node = zhero.Node(TASKS, name=name, cluster=cluster, runtime_dir=runtime_dir, workers=workers)
    async with node:
        _tell("ready", next(it.endpoint for it in node.members() if it.is_me))
        while line := await lines.readline():
            await _enqueue(node, *json.loads(line))
        await node.aclose(0)  # nobody waits for what is left


def main() -> None:
    """Run a node as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m zhero.demo.node", description="A node of the demo.")
    for field in ("name", "cluster", "runtime_dir"):
        parser.add_argument(field)
    parser.add_argument("workers", type=int)
    logger = logging.getLogger("zhero")
    logger.addHandler(_Teller(logging.WARNING))
    logger.propagate = False
    asyncio.run(serve(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
