"""Jobs that are described as a dict first, and tasks as objects: the original form.

    python examples/origin_style.py

`node.task({...})` checks name and params when it is made. It can then be enqueued, run here and now, or cancelled.
`runAction` is a task that every node has: it runs a function of the application by its name.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import zhero


async def send(api: zhero.Node, params: dict[str, Any]) -> str:
    api.log(f"to {params['to']}", "green")
    return f"sent to {params['to']}"


send_email = {
    "name": "sendEmail",
    "description": "I send an email",
    "scope": "any",
    "frequency": 0,
    "run": send,
}

node = zhero.Node(tasks=[send_email])


@node.action
async def count_users(country: str) -> int:
    return len(country)


async def main() -> None:
    async with node:
        draft = node.task({"name": "sendEmail", "params": {"to": "ann"}, "toAnnounce": True})
        job = await draft.enqueue()
        print("enqueued:", await job.result(timeout=5))
        print("here and now:", await draft.run())

        in_an_hour_ms = (time.time() + 3600) * 1000
        later = node.task({"name": "sendEmail", "runAt": in_an_hour_ms, "params": {"to": "bob"}})
        await later.enqueue()
        print("cancelled:", await later.cancel())

        try:
            node.task({"name": "sendFax"})
        except zhero.TaskNotFound as error:
            print("refused:", error)

        job = await node.enqueue("runAction", {"action": "count_users", "country": "Peru"})
        print("action:", await job.result(timeout=5))
        job = await node.enqueue("runAction", {"action": "nothing"})
        try:
            await job.result(timeout=5)
        except zhero.JobFailed as error:
            print("failed:", error)


if __name__ == "__main__":
    asyncio.run(main())
