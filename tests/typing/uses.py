"""What type checkers have to make of the public face; checked, not run."""

from __future__ import annotations

from typing import assert_type

import zhero


@zhero.task
async def send(to: str, subject: str = "hi") -> int:
    return len(to + subject)


@zhero.task(scope="all")
async def clear(name: str) -> bool:
    return bool(name)


@zhero.task(retries=3)
def plain(n: int) -> str:
    return str(n)


async def uses() -> None:
    assert_type(await send.enqueue(to="ann"), zhero.Job[int])
    assert_type(await send.run("ann"), int)
    assert_type(await (await plain.options(run_in=5).enqueue(3)).result(), str)
    assert_type(await clear.enqueue("x"), zhero.Job[zhero.Outcomes[bool]])
    await send.enqueue(to=5)  # type: ignore[arg-type]  # pyright: ignore
    await plain.enqueue("x")  # type: ignore[arg-type]  # pyright: ignore
