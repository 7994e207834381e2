"""The watch over the loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from zhero.runtime.heart import Heart

PATIENCE_S = 20.0
LOGGER = logging.getLogger("zhero.test")


class Lines(logging.Handler):
    """Keeps what is logged, and tells when there is something."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.first = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.first.set()


@pytest.fixture
def lines() -> object:
    handler = Lines()
    LOGGER.addHandler(handler)
    yield handler
    LOGGER.removeHandler(handler)


def block_until_noticed(lines: Lines) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not lines.first.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize(("who", "named"), [("job 7 (spin)", "job 7 (spin)"), (None, "no job")])
def test_a_blocked_loop_is_reported_with_what_is_on_it_and_again_when_it_turns(
    lines: Lines, who: str | None, named: str
) -> None:
    async def scenario() -> None:
        heart = Heart(asyncio.get_running_loop(), LOGGER, lambda: who, warn_ms=300)
        heart.start()
        try:
            block_until_noticed(lines)
            async with asyncio.timeout(PATIENCE_S):
                while len(lines.lines) < 2:
                    await asyncio.sleep(0.01)
        finally:
            heart.stop()

    asyncio.run(scenario())
    assert named in lines.lines[0]
    assert "turns again" in lines.lines[1]
    assert len(lines.lines) == 2


def test_a_loop_that_turns_is_not_reported(lines: Lines) -> None:
    async def scenario() -> None:
        looked = asyncio.Event()
        heart = Heart(asyncio.get_running_loop(), LOGGER, lambda: None, warn_ms=60_000)
        heart.start()
        asyncio.get_running_loop().call_later(0.6, looked.set)  # the thread has looked once by then
        await looked.wait()
        heart.stop()

    asyncio.run(scenario())
    assert lines.lines == []


def test_two_hundred_lives_leave_no_thread() -> None:
    async def scenario() -> None:
        for _ in range(200):
            heart = Heart(asyncio.get_running_loop(), LOGGER, lambda: None)
            heart.start()
            heart.stop()

    asyncio.run(scenario())
    assert not [it for it in threading.enumerate() if it.name == "zhero-heart"]
