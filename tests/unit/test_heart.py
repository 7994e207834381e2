"""The watch over the loop, and the beats that go on while it is blocked."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import zmq

from zhero import wire
from zhero.core.messages import Beat, Frame
from zhero.core.values import Life, NodeId
from zhero.runtime.beats import Publisher
from zhero.runtime.heart import Heart, Pulse
from zhero.runtime.sockets import Context, new_context

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


# --- beats --------------------------------------------------------------------------------------------------------

TAG = wire.cluster_tag("heart-test")
ME = Life(NodeId(bytes(16)), 1, 0)
BEAT = Beat(number=0, joined=1, view=2, tasks=3, slots=4, held=5, age_ms=0)


class Ear(threading.Thread):
    """Hears beats in a thread of its own, so also while the loop is blocked."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(name="ear", daemon=True)
        self.beats: list[Beat] = []
        self.moments: list[float] = []
        self.closed = threading.Event()
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.setsockopt(zmq.RCVTIMEO, 50)
        self._socket.connect(endpoint)

    def run(self) -> None:
        while not self.closed.is_set():
            try:
                data = self._socket.recv()
            except zmq.Again:
                continue
            self.moments.append(time.monotonic())
            (beat,) = wire.decode(data, TAG).messages
            assert isinstance(beat, Beat)
            self.beats.append(beat)
        self._socket.close(0)

    def wait_for(self, condition: Callable[[list[Beat]], bool]) -> None:
        """From whatever thread: blocks it until the beats are such, for a bounded time."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self.beats):
            assert time.monotonic() < deadline, self.beats[-3:]
            time.sleep(0.005)


@contextmanager
def beating(
    *, beat_ms: int, stuck_after_ms: int = 60_000, marked: Callable[[], None] = lambda: None
) -> Iterator[tuple[Heart, Ear]]:
    """A heart of the running loop that beats, and an ear; both are gone in the end."""
    context = new_context()
    publisher = Publisher(context, TAG, "tcp://127.0.0.1:0")
    ear = Ear(context, publisher.endpoint)
    ear.start()
    pulse = Pulse(publisher, beat_ms, marked, stuck_after_ms)
    heart = Heart(asyncio.get_running_loop(), LOGGER, lambda: "job 7 (spin)", pulse=pulse)
    heart.start()
    try:
        yield heart, ear
    finally:
        heart.stop()
        ear.closed.set()
        ear.join()
        context.term()


def sleep_long(until: Callable[[], bool]) -> None:
    while not until():
        time.sleep(0.05)


def spin(until: Callable[[], bool]) -> None:
    count = 0
    while count % 100_000 or not until():
        count += 1


@pytest.mark.parametrize("block", [sleep_long, spin])
def test_beats_go_on_while_the_loop_is_blocked_and_say_how_old_its_last_turn_is(
    block: Callable[[Callable[[], bool]], None],
) -> None:
    async def scenario() -> None:
        with beating(beat_ms=50) as (heart, ear):
            heart.show(Frame(ME, None, [BEAT]), news=False)
            async with asyncio.timeout(PATIENCE_S):
                while not ear.beats:
                    await asyncio.sleep(0.01)
            deadline = time.monotonic() + PATIENCE_S
            block(lambda: ear.beats[-1].age_ms > 1_000 or time.monotonic() > deadline)
            ages = [beat.age_ms for beat in ear.beats]
            assert max(ages) > 1_000
            assert ages[-10:] == sorted(ages[-10:])
            async with asyncio.timeout(PATIENCE_S):
                while ear.beats[-1].age_ms > 500:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_beat_is_the_snapshot_with_a_number_that_grows_by_one() -> None:
    async def scenario() -> None:
        with beating(beat_ms=20) as (heart, ear):
            heart.show(Frame(ME, None, [BEAT]), news=False)
            ear.wait_for(lambda beats: len(beats) >= 20)
            first = ear.beats[0]
            assert [beat.number for beat in ear.beats] == list(range(first.number, first.number + len(ear.beats)))
            assert (first.joined, first.view, first.tasks, first.slots, first.held) == (1, 2, 3, 4, 5)

    asyncio.run(scenario())


def test_nothing_is_published_before_there_is_something() -> None:
    async def scenario() -> None:
        with beating(beat_ms=20) as (heart, ear):
            await asyncio.sleep(0.2)
            assert ear.beats == []
            heart.show(Frame(ME, None, [BEAT]), news=True)
            ear.wait_for(lambda beats: bool(beats))

    asyncio.run(scenario())


def test_news_are_published_at_once_and_much_news_not_much_more_often() -> None:
    async def scenario() -> None:
        with beating(beat_ms=60_000) as (heart, ear):

            def told(view: int) -> Callable[[list[Beat]], bool]:
                return lambda beats: bool(beats) and beats[-1].view == view

            deadline = time.monotonic() + PATIENCE_S
            while not ear.beats:  # until it has subscribed
                assert time.monotonic() < deadline
                heart.show(Frame(ME, None, [BEAT]), news=True)
                time.sleep(0.01)
            begun, before = time.monotonic(), len(ear.beats)
            for view in range(100, 1_000):
                heart.show(Frame(ME, None, [Beat(0, 1, view, 0, 0, 0, 0)]), news=True)
                time.sleep(0.0005)
            ear.wait_for(told(999))
            windows = (time.monotonic() - begun) / 0.05
            assert len(ear.beats) - before <= windows + 2

    asyncio.run(scenario())


def test_a_loop_that_is_stuck_for_too_long_falls_silent_until_it_turns(lines: Lines) -> None:
    async def scenario() -> None:
        with beating(beat_ms=20, stuck_after_ms=300) as (heart, ear):
            heart.show(Frame(ME, None, [BEAT]), news=False)
            ear.wait_for(lambda beats: bool(beats) and beats[-1].age_ms > 100)
            deadline = time.monotonic() + PATIENCE_S
            while not any("give this node up" in told for told in lines.lines):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.1)  # what was on its way has arrived
            silent = len(ear.beats)
            time.sleep(0.5)
            assert len(ear.beats) == silent
            assert max(beat.age_ms for beat in ear.beats) <= 300
            number = ear.beats[-1].number
            async with asyncio.timeout(PATIENCE_S):
                while len(ear.beats) == silent:
                    await asyncio.sleep(0.01)
            assert ear.beats[-1].number >= number + 1

    asyncio.run(scenario())


def test_the_chain_of_marks_asks_for_a_snapshot() -> None:
    async def scenario() -> None:
        marked = asyncio.Event()
        with beating(beat_ms=1_000, marked=marked.set):
            async with asyncio.timeout(PATIENCE_S):
                await marked.wait()

    asyncio.run(scenario())


def test_a_snapshot_that_can_not_be_sent_does_not_end_the_heart(lines: Lines) -> None:
    async def scenario() -> None:
        with beating(beat_ms=20) as (heart, ear):
            heart.show(Frame(ME, None, [Beat(0, 1, 2**70, 0, 0, 0, 0)]), news=True)
            assert lines.first.wait(PATIENCE_S)
            heart.show(Frame(ME, None, [BEAT]), news=True)
            ear.wait_for(lambda beats: bool(beats))

    asyncio.run(scenario())


def test_two_hundred_hearts_leave_no_thread_and_no_descriptor() -> None:
    async def scenario() -> None:
        context = new_context()
        before = 0
        for number in range(200):
            publisher = Publisher(context, TAG, "tcp://127.0.0.1:0")
            heart = Heart(asyncio.get_running_loop(), LOGGER, lambda: None, pulse=Pulse(publisher, 500, lambda: None))
            heart.start()
            heart.show(Frame(ME, None, [BEAT]), news=True)
            heart.stop()
            if number == 4:
                before = len(os.listdir("/proc/self/fd"))
        context.term()
        async with asyncio.timeout(PATIENCE_S):
            while len(os.listdir("/proc/self/fd")) > before:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert not [it for it in threading.enumerate() if it.name == "zhero-heart"]
