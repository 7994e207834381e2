"""One trouble after the other over five real processes; the same for long: `make chaos ROUNDS=n`."""

from __future__ import annotations

import asyncio

import pytest

from .herd import herd
from .storm import Storm

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

FAULTLESS = ["block", "hold in C", "stop for a moment", "join", "leave"]


def test_no_fault_makes_anything_run_twice() -> None:
    async def main() -> None:
        async with herd(("work", "other"), profile="fast") as of:
            it = Storm(of, 3, "fast")
            await it.begin()
            for name in FAULTLESS:
                await it.trouble(name)
            await asyncio.gather(*(child.ask("rest") for child in of.living))
            await of.done()
            assert of.check(enqueuers_faulted=False).repeated == 0

    asyncio.run(main())


def test_faults_lose_nothing() -> None:
    async def main() -> None:
        async with herd(("work", "other"), profile="fast") as of:
            it = Storm(of, 5, "fast")
            await it.begin()
            for name in ("stop for long", "kill beside a blocked one", "kill the owner"):
                await it.trouble(name)
            await asyncio.gather(*(child.ask("rest") for child in of.living))
            await of.done()
            of.check()

    asyncio.run(main())
