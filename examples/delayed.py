"""Jobs for later: after a span, at an instant, and one that is cancelled before its time.

    python examples/delayed.py

A job never starts before its time; when all workers are busy it starts later. Until it is due it is in the queue
"delayed".
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import zhero


@zhero.task
async def remind(text: str, not_before: float) -> str:
    """`not_before`: seconds, on the monotonic clock."""
    early = time.monotonic() < not_before
    return f"{text}: {'TOO EARLY' if early else 'not early'}"


async def main() -> None:
    async with zhero.Node(tasks=[remind]) as node:
        now = time.monotonic()
        at = datetime.now(UTC) + timedelta(seconds=0.6)
        jobs = [
            await remind.options(run_in=0.3).enqueue("run_in", now + 0.3),
            await remind.options(run_at=at).enqueue("run_at", now + 0.6),
            await remind.enqueue("at once", now),
        ]
        never = await remind.options(run_in=timedelta(hours=1)).enqueue("in an hour", 0)

        print("delayed:", await node.queue_length("delayed"))
        print("cancelled:", await never.cancel())
        for job in jobs:
            print(await job.result(timeout=10))
        print("delayed:", await node.queue_length("delayed"))


if __name__ == "__main__":
    asyncio.run(main())
