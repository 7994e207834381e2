"""Work for the processor in child processes: it does not hold up the loop, uses other cores, and can be killed.

    python examples/processes.py

A child finds the task by its name in this file: so it stands at the top level, and what starts the program stands
below `if __name__ == "__main__"`. A run that takes longer than its `timeout`, in seconds, ends with its child, whatever
it does.
"""

from __future__ import annotations

import asyncio
import os

import zhero


@zhero.task(executor="process")
def count_primes(below: int) -> tuple[int, int]:
    """How many there are, and the process that counted."""
    found = sum(all(n % divisor for divisor in range(2, int(n**0.5) + 1)) for n in range(2, below))
    return found, os.getpid()


@zhero.task(executor="process", timeout=0.5)
def think_for_ever() -> None:
    while True:
        pass


@zhero.task(executor="process")
def crash() -> None:
    os.abort()


async def main() -> None:
    async with zhero.Node(tasks=[count_primes, think_for_ever, crash], workers=2):
        jobs = [await count_primes.enqueue(below) for below in (10_000, 20_000)]
        thinking = await think_for_ever.enqueue()

        for job in jobs:
            found, pid = await job.result(timeout=30)
            print("primes:", found, "counted in this process" if pid == os.getpid() else "counted in a child process")
        for failing in (thinking, await crash.enqueue()):
            try:
                await failing.result(timeout=30)
            except zhero.JobFailed as error:
                print(f"{type(error).__name__}: {error}")
        found, _ = await (await count_primes.enqueue(100)).result(timeout=30)
        print("and the node goes on:", found)


if __name__ == "__main__":
    asyncio.run(main())
