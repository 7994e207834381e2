"""The network side of a node, without an engine: what it is asked to do, and what it tells."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from zhero.core.effects import Connect, Disconnect, Knock, Probe, Send
from zhero.core.messages import Beat, Frame, Ping
from zhero.core.values import Life, Member, NodeId
from zhero.runtime import network as module
from zhero.runtime.discovery import address_of
from zhero.runtime.gate import Gate
from zhero.runtime.network import Network, Site

PATIENCE_S = 15.0
LOGGER = logging.getLogger("zhero.test")


class Heard:
    """An engine's ears."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: list[Life] = []
        self.probes: list[tuple[Life, bool]] = []
        self.looks: list[list[str]] = []

    def receive(self, frame: Frame) -> None:
        self.frames.append(frame)

    def peer_lost(self, life: Life) -> None:
        self.lost.append(life)

    def probed(self, life: Life, refused: bool) -> None:
        self.probes.append((life, refused))

    def seeds(self, endpoints: list[str]) -> None:
        self.looks.append(endpoints)

    def known(self) -> set[tuple[NodeId, int]]:
        return set()


class Side:
    """An open network, its ears, and the node as others see it."""

    def __init__(self, network: Network, heard: Heard, me: Member, seeds: list[str]) -> None:
        self.network, self.heard, self.me, self.seeds = network, heard, me, seeds

    def ping(self, to: Life | None, ref: int = 1) -> Frame:
        return Frame(self.me.life, to, [Ping(ref)])


def answer_at(gate: Gate, ended: threading.Event) -> None:
    while not ended.is_set():
        gate.wait(0.02)


@asynccontextmanager
async def side(number: int, **given: Any) -> AsyncIterator[Side]:
    life = Life(NodeId(number.to_bytes(16)), number, 0)
    site = Site(f"side-{number}", "network-test", "tcp://127.0.0.1:0", (), None, None, "0")
    heard = Heard()
    network = Network(replace(site, **given), life, heard, LOGGER, Random(number))
    me, seeds = await network.open()
    network.listen()
    ended = threading.Event()
    door = threading.Thread(target=answer_at, args=[network.gate, ended], name="zhero-door")
    door.start()
    try:
        yield Side(network, heard, me, seeds)
    finally:
        network.leave()
        ended.set()
        door.join()
        network.publisher.close()
        network.gate.close()
        await network.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so, for a bounded time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def name_server(known: dict[str, str], asked: list[str]) -> Any:
    """Name -> address; whatever else is asked for is not known."""

    async def getaddrinfo(host: str, port: int, **options: object) -> list[object]:
        asked.append(host)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(0, 0, 0, "", (known[host], port))]

    return getaddrinfo


def named(member: Member, name: str) -> Member:
    """The same member, as one that has advertised a name."""
    _, port = address_of(member.endpoint) or ("", 0)
    _, beats_port = address_of(member.beats) or ("", 0)
    return replace(member, endpoint=f"tcp://{name}:{port}", beats=f"tcp://{name}:{beats_port}", advertised=True)


def test_it_says_where_the_node_is_and_shows_it_to_neighbours_until_it_leaves(own_runtime_dir: Path) -> None:
    async def main() -> None:
        async with side(1) as one:
            assert one.seeds == []
            assert (one.me.name, one.me.pid, one.me.advertised) == ("side-1", os.getpid(), False)
            assert address_of(one.me.endpoint) != address_of(one.me.beats)
            async with side(2) as two:
                assert two.seeds == [one.me.endpoint]
                await until(lambda: [two.me.endpoint] in one.heard.looks)
            await until(lambda: one.heard.looks[-1] == [])
        assert list(own_runtime_dir.glob("*/*")) == []

    asyncio.run(main())


def test_what_the_engine_wants_is_done() -> None:
    async def main() -> None:
        async with side(1) as one, side(2) as two:
            one.network.carry_out(Knock(two.me.endpoint, one.ping(None, 1)))
            one.network.carry_out(Connect(two.me))
            one.network.carry_out(Send(two.me.life, one.ping(two.me.life, 2)))
            await until(lambda: len(two.heard.frames) == 2)
            beat = Frame(two.me.life, None, [Beat(1, 1, 0, 0, 0, 0, 0)])

            def heard() -> bool:
                two.network.publisher.publish(beat)
                return beat in one.heard.frames

            await until(heard)
            one.network.carry_out(Probe(two.me))
            await until(lambda: one.heard.probes == [(two.me.life, False)])
            two.network.publisher.close()
            await until(lambda: one.heard.lost == [two.me.life])
            one.network.carry_out(Disconnect(two.me.life))
            one.network.carry_out(Send(two.me.life, one.ping(two.me.life, 3)))
            # The probe looked whether the port is open, and went.
            await until(lambda: two.network.dropped().get("denied: unfinished handshake"))
            assert one.network.dropped()["unknown receiver"] == 1
        async with side(1) as one:
            one.network.carry_out(Probe(two.me))
            await until(lambda: one.heard.probes == [(two.me.life, True)])

    asyncio.run(main())


def test_a_member_with_a_name_is_reached_once_the_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        known: dict[str, str] = {}
        asked: list[str] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", name_server(known, asked))
        monkeypatch.setattr(module, "NAME_AGAIN_S", 0.02)
        async with side(1) as one, side(2) as two:
            one.network.carry_out(Connect(named(two.me, "two.internal")))
            await until(lambda: len(asked) >= 3)
            one.network.carry_out(Send(two.me.life, one.ping(two.me.life, 1)))  # lost, as it may be
            known["two.internal"] = "127.0.0.1"

            def arrived() -> bool:
                one.network.carry_out(Send(two.me.life, one.ping(two.me.life, 2)))
                return bool(two.heard.frames)

            await until(arrived)
            assert two.heard.frames[0].messages == [Ping(2)]
            one.network.carry_out(Knock(named(two.me, "two.internal").endpoint, one.ping(None, 3)))
            await until(lambda: one.ping(None, 3) in two.heard.frames)

    asyncio.run(main())


def test_a_name_is_looked_up_no_longer_than_its_member_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asked: list[str] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", name_server({}, asked))
        monkeypatch.setattr(module, "NAME_AGAIN_S", 0.01)
        async with side(1) as one, side(2) as two:
            one.network.carry_out(Connect(named(two.me, "gone.internal")))
            await until(lambda: len(asked) >= 2)
            one.network.carry_out(Disconnect(two.me.life))
            tasks = [task for task in asyncio.all_tasks() if task.get_name() == "zhero-network"]
            await until(lambda: sum(not task.done() for task in tasks) <= 2)  # each side looks for seeds
            # A member that has moved to an address needs no name any more.
            one.network.carry_out(Connect(named(two.me, "gone.internal")))
            one.network.carry_out(Connect(two.me))
            one.network.carry_out(Send(two.me.life, one.ping(two.me.life, 1)))
            await until(lambda: two.heard.frames)

    asyncio.run(main())


def test_after_the_end_nothing_is_done_and_no_task_is_left() -> None:
    async def main() -> None:
        async with side(1) as one, side(2) as two:
            pass
        for effect in (
            Knock(two.me.endpoint, one.ping(None)),
            Connect(two.me),
            Send(two.me.life, one.ping(two.me.life)),
            Probe(two.me),
            Disconnect(two.me.life),
        ):
            one.network.carry_out(effect)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert one.heard.probes == []

    asyncio.run(main())


def test_where_a_start_fails_nothing_is_left(own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))

        async def look(self: object, known: object) -> list[str]:
            raise asyncio.CancelledError

        monkeypatch.setattr(module.Seeds, "look", look)
        with pytest.raises(asyncio.CancelledError):
            async with side(1):
                pass
        assert list(own_runtime_dir.glob("*/*")) == []
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    asyncio.run(main())
