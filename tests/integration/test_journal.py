"""Journals with real processes: killed under load, all at once, and started again; locked, damaged and left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zhero

PATIENCE_S = 60.0
CLUSTER = "journal-test"
ROUNDS = int(os.environ.get("ZHERO_CRASHES", "2"))
"""How often all nodes are killed; a long run takes 50."""
TASKS = """
import asyncio, os
import zhero

@zhero.task(result_ttl=600, announce=False)
async def note(n: int, wait: float = 0) -> int:
    with open(os.path.join(os.environ["RAN"], str(os.getpid())), "a") as file:
        file.write(f"{n} begun\\n")
    if wait:
        await asyncio.sleep(wait)
    with open(os.path.join(os.environ["RAN"], str(os.getpid())), "a") as file:
        file.write(f"{n} ended\\n")
    return n
"""


class Place:
    """A folder with tasks, journals, logs, and what has run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran = folder / "ran"
        self.ran.mkdir()
        (folder / "journal_tasks.py").write_text(TASKS)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, number: int, *options: str, data: str | None = None) -> subprocess.Popen[bytes]:
        log = self.folder / f"log-{len(self.processes)}"
        where = ["--data-dir", str(self.folder / (data or f"data-{number}"))]
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "zhero", "run", "--tasks", str(self.folder / "journal_tasks.py")),
                    *("--cluster", CLUSTER, "--name", f"node-{number}", "--profile", "fast", "--workers", "4"),
                    *(where if data != "" else ()),
                    *options,
                ],
                stdout=file,
                stderr=file,
                cwd=self.folder,
                env={**os.environ, "RAN": str(self.ran)},
            )
        self.processes.append(process)
        return process

    def log(self, number: int) -> str:
        return (self.folder / f"log-{number}").read_text()

    def counts(self) -> tuple[Counter[int], Counter[int]]:
        """Number of the job -> how often it has begun, and ended."""
        begun: Counter[int] = Counter()
        ended: Counter[int] = Counter()
        for file in self.ran.iterdir():
            for text in file.read_text().splitlines():
                number, _, what = text.partition(" ")
                (begun if what == "begun" else ended)[int(number)] += 1
        return begun, ended

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.delenv("ZHERO_DATA_DIR")
    made = Place(tmp_path)
    yield made
    made.kill()


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[zhero.Client]:
    """A client, as soon as anybody answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = zhero.Client(CLUSTER)
            await found.__aenter__()
            break
        except zhero.NotReached:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    try:
        yield found
    finally:
        with contextlib.suppress(zhero.ZheroError):
            await found.__aexit__(None, None, None)


async def formed(count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(zhero.ZheroError):
            async with client() as one:
                status = await one.status()
                if sum(it.standing == "alive" and it.answered for it in status.members) == count and status.owner:
                    return
        await asyncio.sleep(0.1)
    raise AssertionError(f"no cluster of {count}")


async def feed(accepted: dict[str, int], rng: random.Random) -> None:
    """Enqueue without an end; what was accepted goes there."""
    numbers = iter(range(1 << 30))
    with contextlib.suppress(zhero.ZheroError):
        async with client() as one:
            while True:
                batch = [{"n": next(numbers), "wait": rng.choice([0, 0, 0.02, 0.3])} for _ in range(20)]
                for job, params in zip(await one.enqueue_many("note", batch), batch, strict=True):
                    accepted[job.id] = int(params["n"])
                number = next(numbers)
                job = await one.enqueue("note", {"n": number}, run_in=rng.uniform(0.5, 3))
                accepted[job.id] = number
                await asyncio.sleep(0.05)


async def quiet() -> None:
    """Until nothing is left to do."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(zhero.ZheroError):
            async with client() as one:
                while sum((await one.status()).queues.values()):
                    assert time.monotonic() < deadline, (await one.status()).queues
                    await asyncio.sleep(0.1)
                return
        assert time.monotonic() < deadline


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_all_nodes_are_killed_under_load_and_lose_nothing(place: Place, seed: int) -> None:
    rng = random.Random(seed)

    async def scenario() -> None:
        for number in range(3):
            place.start(number)
        await formed(3)
        accepted: dict[str, int] = {}
        feeding = asyncio.ensure_future(feed(accepted, rng))
        await until(lambda: len(accepted) > 60, "nothing is accepted")
        recorded: set[int] = set()
        async with client() as one:  # what a client has heard to be done is recorded
            for id_, number in list(accepted.items())[:20]:
                with contextlib.suppress(zhero.ZheroError):
                    await one.result(id_, timeout=0.5)
                    recorded.add(number)
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        place.kill()
        feeding.cancel()
        before, _ = place.counts()
        order = [0, 1, 2]
        rng.shuffle(order)
        for number in order:
            place.start(number)
        await formed(3)
        await quiet()
        begun, ended = place.counts()
        assert set(accepted.values()) <= ended.keys()
        assert [number for number in recorded if begun[number] != before[number]] == []

    asyncio.run(scenario())


def test_one_that_does_not_come_back_is_made_up_for(place: Place) -> None:
    async def scenario() -> None:
        for number in range(3):
            place.start(number)
        await formed(3)
        async with client() as one:
            jobs = await one.enqueue_many("note", [{"n": n, "wait": 0.2} for n in range(100)])
            later = await one.enqueue("note", {"n": 1000}, run_in=3)
        assert len(jobs) == 100
        place.kill()
        for number in (1, 2):
            place.start(number)
        await formed(2)
        async with client() as one:
            assert await one.result(later.id, timeout=PATIENCE_S) == 1000
        await quiet()
        _, ended = place.counts()
        assert set(range(100)) <= ended.keys()

    asyncio.run(scenario())


def test_all_stop_at_once_and_the_rest_waits_in_the_journals(place: Place) -> None:
    async def scenario() -> None:
        for number in range(3):
            place.start(number, data="")  # slots of the project
        await formed(3)
        async with client() as one:
            await one.enqueue_many("note", [{"n": n, "wait": 0.3} for n in range(60)])
            await one.enqueue("note", {"n": 100}, run_in=2)
        for process in place.processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(PATIENCE_S) for process in place.processes] == [0, 0, 0], [
            place.log(number) for number in range(3)
        ]
        before, ended_before = place.counts()
        assert before == ended_before  # what ran has ended
        assert len(before) < 60
        assert len(list((place.folder / ".zhero" / CLUSTER).iterdir())) == 3
        for number in range(3):
            place.start(number, data="")
        await formed(3)
        await quiet()
        begun, _ = place.counts()
        assert begun == Counter({**dict.fromkeys(range(60), 1), 100: 1})

    asyncio.run(scenario())


def test_without_a_journal_the_last_one_says_how_many_jobs_are_lost(place: Place) -> None:
    async def scenario() -> None:
        process = place.start(0, "--no-data", "--drain-timeout", "0.5", data="")
        await formed(1)
        async with client() as one:
            await one.enqueue_many("note", [{"n": n, "wait": 5} for n in range(9)])
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE_S) == 1
        assert "accepted jobs that will not run any more: 9" in place.log(0)
        assert not (place.folder / ".zhero").exists()

    asyncio.run(scenario())


def test_a_directory_in_use_is_refused(place: Place) -> None:
    async def scenario() -> None:
        place.start(0)
        await formed(1)
        second = place.start(1, data="data-0")
        assert await asyncio.to_thread(second.wait, PATIENCE_S) == 1
        assert "data-0 is in use by process" in place.log(1)

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_journal_is_told_and_the_copy_of_another_wins(place: Place, how: str) -> None:
    async def scenario() -> None:
        for number in range(2):
            place.start(number)
        await formed(2)
        async with client() as one:
            await one.enqueue_many("note", [{"n": n, "wait": 0.5} for n in range(40)])
        place.kill()
        for name in ("journal.sqlite", "journal.sqlite-wal"):
            file = place.folder / "data-0" / name
            if how == "cut":
                with file.open("r+b") as opened:
                    opened.truncate(file.stat().st_size // 3)
            else:
                data = bytearray(file.read_bytes())
                for at in range(200, len(data), 997):
                    data[at] ^= 8
                file.write_bytes(data)
        for number in range(2):
            place.start(number)
        await formed(2)
        await quiet()
        _, ended = place.counts()
        assert set(range(40)) <= ended.keys()
        if how == "flipped":
            assert "is damaged" in place.log(2)
            assert list((place.folder / "data-0").glob("damaged-*"))

    asyncio.run(scenario())
