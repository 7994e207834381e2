"""The smallest whole program: a node inside it, one job, its result.

    python examples/hello.py

`enqueue` returns when the job is accepted; a worker of the node runs it; `result` waits for its end, and raises
`JobFailed`, with the traceback of where it ran, if it failed.
"""

from __future__ import annotations

import asyncio

import zhero


@zhero.task
async def greet(name: str, greeting: str = "hello") -> str:
    return f"{greeting} {name}"


@zhero.task
async def divide(a: int, b: int) -> float:
    return a / b


async def main() -> None:
    async with zhero.Node(tasks=[greet, divide]):
        job = await greet.enqueue("Ann")
        print("result:", await job.result(timeout=5))

        print("inline, no queue:", await greet.run("Bob", greeting="good morning"))

        failing = await divide.enqueue(1, 0)
        try:
            await failing.result(timeout=5)
        except zhero.JobFailed as error:
            print("failed:", error)


if __name__ == "__main__":
    asyncio.run(main())
