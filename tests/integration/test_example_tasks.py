"""The tasks in tasks/, each through a real node, with real files and real connections.

Other tests have folders named `tasks` of their own, so this one is imported within the tests, and forgotten after each.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import zhero
from zhero.loader import load

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "tasks"
PATIENCE_S = 20.0
MB = 1_000_000

FORM = {
    "sayHello": ("any", 1_000),
    "sayGoodbye": ("any", 0),
    "sayHi": ("any", 0),
    "cleanLogFiles": ("all", 60_000),
    "cleanOldCacheObjects": ("all", 10_000),
    "pingSocketClients": ("all", 60_000),
}
"""Task -> its scope and its frequency, ms."""


@pytest.fixture(autouse=True)
def imports_undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within a test `tasks` and `examples` are those of this project, each time anew."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tasks", "examples")]:
            del sys.modules[name]

    monkeypatch.syspath_prepend(str(ROOT))
    forget()
    yield
    forget()


@asynccontextmanager
async def shipped() -> AsyncGenerator[zhero.Node]:
    """A node with the whole folder."""
    async with zhero.Node(TASKS, name="one", bind="tcp://127.0.0.1:0", drain_timeout=5) as node:
        yield node


async def round_of(node: zhero.Node, name: str) -> Any:
    """What the next round of a periodic task results in, without waiting a whole period for it."""
    assert await node.stop_task(name)
    return await (await node.enqueue(name, run_in=0.01)).result(PATIENCE_S)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


# --- the folder ---------------------------------------------------------------------------------------------------


def test_the_folder_loads_without_complaint_and_has_exactly_these(caplog: pytest.LogCaptureFixture) -> None:
    found = load(TASKS)
    assert {task.name: (task.scope, task.spec.frequency_ms) for task in found} == FORM
    assert [task.name for task in found if not task.description] == []
    assert caplog.records == []


def test_running_all_of_them_with_their_defaults_changes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open(tmp_path / "big.log", "wb") as file:
        file.truncate(20 * MB)

    async def main() -> None:
        async with shipped() as node:
            for name, (_, frequency_ms) in FORM.items():
                if frequency_ms:
                    await round_of(node, name)
                else:
                    await (await node.enqueue(name)).result(PATIENCE_S)
            assert await node.failed_jobs() == {}

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == [tmp_path / "big.log"]
    assert (tmp_path / "big.log").stat().st_size == 20 * MB


# --- greetings ----------------------------------------------------------------------------------------------------


def test_hello_and_goodbye_are_said_in_colour(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zhero")

    async def main() -> None:
        async with shipped() as node:
            assert await round_of(node, "sayHello") is None
            assert await (await node.enqueue("sayGoodbye")).result(PATIENCE_S) is None

    asyncio.run(main())
    said = [(record.getMessage(), record.__dict__.get("colour")) for record in caplog.records]
    assert ("----- Hi There! ----", "green") in said
    assert ("----- Goodbye! ----", "blue") in said


def test_hi_is_said_to_somebody_and_returned() -> None:
    async def main() -> None:
        async with shipped() as node:
            assert await (await node.enqueue("sayHi", {"to": "Ann"})).result(PATIENCE_S) == "Hi, Ann!"
            assert await (await node.enqueue("sayHi")).result(PATIENCE_S) == "Hi, there!"

    asyncio.run(main())


# --- log files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `log` of the working directory, with files below and above ten megabytes."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "log"
    (folder / "inner.log").mkdir(parents=True)
    sizes = {"big.log": 10 * MB + 1, "limit.log": 10 * MB, "small.log": 5, "notes.txt": 20 * MB, "inner.log/x.log": 1}
    for name, size in sizes.items():
        with open(folder / name, "wb") as file:
            file.truncate(size)
    (folder / "link.log").symlink_to(folder / "notes.txt")
    return folder


def test_log_files_above_the_limit_are_deleted_and_nothing_else(logs: Path) -> None:
    async def main() -> None:
        async with shipped() as node:
            outcomes = await round_of(node, "cleanLogFiles")
            assert outcomes.results() == {"one": 1}
            assert (await round_of(node, "cleanLogFiles")).results() == {"one": 0}

    asyncio.run(main())
    left = sorted(path.name for path in logs.iterdir())
    assert left == ["inner.log", "limit.log", "link.log", "notes.txt", "small.log"]
    assert (logs / "inner.log" / "x.log").exists()


def test_an_application_cleans_its_own_folder_with_its_own_limit(logs: Path) -> None:
    from tasks.clean_log_files import CleanLogFiles

    class CleanOurLogs(CleanLogFiles):
        name = "cleanOurLogs"
        frequency = 0

        def run(self, folder: str = str(logs / "inner.log"), max_bytes: int = 0) -> int:
            return super().run(folder, max_bytes)

    clean = CleanOurLogs()

    async def main() -> None:
        async with zhero.Node([clean], name="one", drain_timeout=5) as node:
            job = await node.enqueue(clean)
            assert (await job.result(PATIENCE_S)).results() == {"one": 1}
            assert list((logs / "inner.log").iterdir()) == []
            assert (logs / "big.log").exists()
            job = await node.enqueue(clean, {"folder": str(logs), "max_bytes": 5})
            assert (await job.result(PATIENCE_S)).results() == {"one": 2}

    asyncio.run(main())
    assert sorted(path.name for path in logs.glob("*.log")) == ["inner.log", "link.log", "small.log"]


# --- cache --------------------------------------------------------------------------------------------------------


def test_expired_objects_leave_the_cache_and_others_stay() -> None:
    from tasks.clean_old_cache_objects import cache

    async def main() -> None:
        async with shipped() as node:
            cache.put("stale", object(), ttl_s=0)
            cache.put("renewed", 1, ttl_s=0)
            cache.put("renewed", 2, ttl_s=3600)
            assert len(cache) == 2
            assert (await round_of(node, "cleanOldCacheObjects")).results() == {"one": 1}
            assert len(cache) == 1
            assert cache.get("renewed") == 2
            assert cache.get("stale") is None

    asyncio.run(main())
    assert cache.remove_expired() == 0


def test_an_expired_object_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.clean_old_cache_objects import Cache

    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    own = Cache()
    own.put("key", "value", ttl_s=5)
    now_s = 104.9
    assert own.get("key") == "value"
    now_s = 105.0
    assert own.get("key") is None
    assert own.remove_expired() == 1
    assert len(own) == 0


# --- connected clients --------------------------------------------------------------------------------------------


class Connected:
    """A TCP client of a test. `alive`: whether it answers pings. `gone`: the server has ended the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, alive: bool) -> None:
        self.writer = writer
        self.heard: list[bytes] = []
        self.gone = asyncio.Event()
        self._reader = reader
        self._alive = alive

    async def listen(self) -> None:
        async for line in self._reader:
            self.heard.append(line)
            if line == b"ping\n" and self._alive:
                self.writer.write(b"pong\n")
        self.gone.set()
        self.writer.close()


@asynccontextmanager
async def chat_server() -> AsyncGenerator[Callable[..., Awaitable[Connected]]]:
    """A server, and what connects a client to it; all connections are ended in the end."""
    from examples.chat_server import chat
    from tasks.ping_socket_clients import clients

    server = await asyncio.start_server(chat, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, asyncio.TaskGroup() as group:

        async def connect(*, alive: bool) -> Connected:
            before = len(clients)
            one = Connected(*await asyncio.open_connection("127.0.0.1", port), alive=alive)
            group.create_task(one.listen())
            await until(lambda: len(clients) == before + 1)
            return one

        yield connect
        for client in clients:
            client.writer.close()
        await until(lambda: not clients)


def test_a_ping_round_keeps_clients_that_answer_and_drops_dead_ones() -> None:
    from tasks.ping_socket_clients import clients, ping_socket_clients

    # The same function without a period, so that it can be given other params.
    ping_now = zhero.task(name="pingNow", scope="all")(ping_socket_clients.__wrapped__)

    async def main() -> None:
        async with chat_server() as connect, shipped() as node:
            assert (await round_of(node, "pingSocketClients")).results() == {"one": {"alive": 0, "dropped": 0}}
            ann = await connect(alive=True)
            assert (await round_of(node, "pingSocketClients")).results() == {"one": {"alive": 1, "dropped": 0}}

            bob = await connect(alive=False)
            node.set_tasks([ping_now])
            job = await node.enqueue(ping_now, {"timeout_s": 1.0})
            assert (await job.result(PATIENCE_S)).results() == {"one": {"alive": 1, "dropped": 1}}
            await asyncio.wait_for(bob.gone.wait(), PATIENCE_S)
            assert (ann.heard, bob.heard) == ([b"ping\n"] * 2, [b"ping\n"])
            assert not ann.gone.is_set()
            assert len(clients) == 1

    asyncio.run(main())


def test_lines_of_a_chat_go_to_the_others_and_who_leaves_is_no_client_any_more() -> None:
    from tasks.ping_socket_clients import clients

    async def main() -> None:
        async with chat_server() as connect:
            ann, bob = await connect(alive=True), await connect(alive=True)
            ann.writer.write(b"hello\n")
            await until(lambda: bob.heard == [b"hello\n"])
            assert ann.heard == []
            ann.writer.close()
            await until(lambda: len(clients) == 1)

    asyncio.run(main())
