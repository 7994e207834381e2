"""What may become of a job that does not succeed at once.

    python examples/retries.py

    raise anything           failed: again after a growing wait, while `retries` last
    raise Retry(run_in=...)  the same, after that wait
    raise Snooze(run_in=...) not yet: again later, and it costs no try
    raise Discard("why")     never again

A job that failed for good is a dead letter: kept, with its traceback, until a person retries or discards it.
"""

from __future__ import annotations

import asyncio

import zhero

shop = {"open": False, "calls": 0, "stock": 0}
"""A service that is not always there."""


@zhero.task(retries=3, backoff=0.05)  # seconds
async def call_shop() -> str:
    shop["calls"] += 1
    if shop["calls"] == 1:
        raise ConnectionError("nobody answers")
    if shop["calls"] == 2:
        raise zhero.Retry("it is busy", run_in=0.05)
    return f"reached at try {zhero.current().tries}"


@zhero.task  # no retries, and it may snooze nevertheless
async def buy(thing: str) -> str:
    if not shop["open"]:
        shop["open"] = True
        raise zhero.Snooze(run_in=0.05)
    if thing == "moon":
        raise zhero.Discard("not for sale")
    if not shop["stock"]:
        raise LookupError("out of stock")
    return f"bought a {thing}"


async def main() -> None:
    async with zhero.Node(tasks=[call_shop, buy]) as node:
        print("call_shop:", await (await call_shop.enqueue()).result(timeout=10))

        for thing in ("lamp", "moon"):
            try:
                await (await buy.enqueue(thing)).result(timeout=10)
            except zhero.JobDiscarded as error:
                print("discarded:", error)
            except zhero.JobFailed as error:
                print("failed:", error)

        for job_id, letter in (await node.failed_jobs("buy")).items():
            print("dead letter:", letter.params["thing"], "-", letter.error)
            if letter.status == "failed":
                shop["stock"] = 1
                await node.retry(job_id)
                print("retried:", await node.result(job_id, timeout=10))


if __name__ == "__main__":
    asyncio.run(main())
