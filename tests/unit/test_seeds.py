"""Whom a node knocks at: who stands in the runtime directory, or what a person has named."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from zhero.core.values import NodeId
from zhero.runtime import seeds as module
from zhero.runtime.discovery import Directory, Entry
from zhero.runtime.seeds import Seeds

LOGGER = logging.getLogger("zhero.test")
ME = NodeId(bytes(16))


def entry(number: int, endpoint: str) -> Entry:
    return Entry(NodeId(number.to_bytes(16)), 5, f"node-{number}", endpoint, 1, "0", number)


def listener(host: str = "127.0.0.1") -> tuple[socket.socket, str]:
    made = socket.socket()
    made.bind((host, 0))
    made.listen()
    return made, f"tcp://{host}:{made.getsockname()[1]}"


def write(root: Path, *entries: Entry) -> Directory:
    for one in entries:
        Directory(root, "shop").announce(one)
    return Directory(root, "shop")


def seeds(directory: Directory, join: Sequence[str] = ()) -> Seeds:
    return Seeds(join, directory, ME, LOGGER)


def test_neighbours_are_seeds_and_the_node_itself_is_none(own_runtime_dir: Path) -> None:
    alive, endpoint = listener()
    with alive:
        directory = write(own_runtime_dir, entry(0, "tcp://127.0.0.1:1"), entry(1, endpoint))
        assert asyncio.run(seeds(directory).look(())) == [endpoint]
        assert len(directory.entries()) == 2


def test_entries_of_the_dead_are_removed(own_runtime_dir: Path) -> None:
    dead, gone = listener()
    dead.close()
    alive, endpoint = listener("127.0.0.2")
    with alive:
        directory = write(own_runtime_dir, entry(1, gone), entry(2, endpoint))
        assert asyncio.run(seeds(directory).look(())) == [endpoint]
        assert [it.name for it in directory.entries()] == ["node-2"]


def test_members_that_are_known_are_not_tried(own_runtime_dir: Path) -> None:
    dead, gone = listener()
    dead.close()
    directory = write(own_runtime_dir, entry(1, gone))
    look = seeds(directory).look
    assert asyncio.run(look({(NodeId((1).to_bytes(16)), 5)})) == [gone]
    assert asyncio.run(look({(NodeId((1).to_bytes(16)), 4)})) == []  # an earlier start of it is known, not this one
    assert directory.entries() == []


def test_of_many_neighbours_only_some_are_tried_and_those_that_answered_not_soon_again(
    own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    alive = "tcp://127.0.0.1:3"

    async def all_refused(endpoints: Sequence[str], within_s: float) -> list[bool]:
        tried.extend(endpoints)
        return [endpoint != alive for endpoint in endpoints]

    monkeypatch.setattr(module, "all_refused", all_refused)
    endpoints = [f"tcp://127.0.0.1:{port}" for port in range(1, 31)]
    directory = write(own_runtime_dir, *(entry(port, f"tcp://127.0.0.1:{port}") for port in range(1, 31)))
    look = seeds(directory).look
    assert asyncio.run(look(())) == [alive, *endpoints[module.TRIED_AT_ONCE :]]
    assert tried == endpoints[: module.TRIED_AT_ONCE]
    assert asyncio.run(look(())) == [alive]  # none of the others is: so all are tried, and removed
    assert sorted(tried) == sorted(endpoints)
    assert [it.endpoint for it in directory.entries()] == [alive]


def test_a_neighbour_on_every_address_is_reached_at_the_nearest(own_runtime_dir: Path) -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        port = everywhere.getsockname()[1]
        directory = write(own_runtime_dir, entry(1, f"tcp://0.0.0.0:{port}"))
        assert asyncio.run(seeds(directory).look(())) == [f"tcp://127.0.0.1:{port}"]


def test_what_a_person_names_replaces_the_neighbours(own_runtime_dir: Path) -> None:
    alive, endpoint = listener()
    with alive:
        directory = write(own_runtime_dir, entry(1, endpoint))
        named = seeds(directory, ["tcp://10.0.0.7:7040", "tcp://10.0.0.7:7040", "tcp://[fd00::1]:7040"])
        assert asyncio.run(named.look(())) == ["tcp://10.0.0.7:7040", "tcp://[fd00::1]:7040"]


def test_a_name_is_looked_up_each_time_and_keeps_what_it_stood_for_while_it_is_not_known(
    own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        known: list[str] = []

        async def getaddrinfo(host: str, port: int, **options: object) -> list[object]:
            if not known:
                raise socket.gaierror(socket.EAI_AGAIN, "try again")
            return [(0, 0, 0, "", (address, port)) for address in known]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        named = seeds(Directory(own_runtime_dir, "shop"), ["tcp://jobs:7040"])
        assert await named.look(()) == []
        assert await named.look(()) == []
        known[:] = ["10.0.0.1"]
        assert await named.look(()) == ["tcp://10.0.0.1:7040"]
        known[:] = ["10.0.0.1", "10.0.0.2"]
        assert await named.look(()) == ["tcp://10.0.0.1:7040", "tcp://10.0.0.2:7040"]
        known.clear()
        assert await named.look(()) == ["tcp://10.0.0.1:7040", "tcp://10.0.0.2:7040"]

    asyncio.run(main())
    assert len(caplog.records) == 2  # once each time that it stopped being known
