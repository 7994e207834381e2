"""Addresses: where others reach a node, what names stand for, and who refuses a connect."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Awaitable, Callable

import pytest
import zmq

from zhero.runtime.discovery import address_of
from zhero.runtime.reach import Place, all_refused, is_loopback, is_refused, place_of, resolve
from zhero.runtime.sockets import bind, new_context, new_socket

PATIENCE_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def names(known: dict[str, list[str]]) -> Callable[..., Awaitable[list[object]]]:
    """A name server for a loop: name -> addresses; others are not known."""

    async def getaddrinfo(host: str, port: int, **options: object) -> list[object]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(0, 0, 0, "", (address, port)) for address in known[host]]

    return getaddrinfo


# --- where a node is reached --------------------------------------------------------------------------------------


def test_a_node_is_reached_where_it_is_bound() -> None:
    assert place_of("tcp://127.0.0.1:40123", "tcp://127.0.0.1:40999", None, []) == Place(
        "tcp://127.0.0.1:40123", "tcp://127.0.0.1:40999", False
    )
    assert place_of("tcp://[::1]:7040", "tcp://[::1]:7041", None, []).beats == "tcp://[::1]:7041"


def test_a_node_is_reached_where_a_person_says_and_its_beats_one_port_above() -> None:
    bound = ("tcp://0.0.0.0:7040", "tcp://0.0.0.0:7041")
    assert place_of(*bound, "tcp://203.0.113.5:9000", []) == Place(
        "tcp://203.0.113.5:9000", "tcp://203.0.113.5:9001", True
    )
    assert place_of("tcp://0.0.0.0:40123", "tcp://0.0.0.0:40999", "tcp://web-1:0", []) == Place(
        "tcp://web-1:40123", "tcp://web-1:40999", True
    )


def test_a_node_on_every_address_is_reached_at_one_that_this_host_has() -> None:
    place = place_of("tcp://0.0.0.0:7040", "tcp://0.0.0.0:7041", None, ["tcp://127.0.0.1:7050"])
    host, port = address_of(place.endpoint) or ("", 0)
    assert (port, place.advertised) == (7040, False)
    assert host not in ("0.0.0.0", "*", "")
    assert place.beats == place.endpoint.replace("7040", "7041")
    with socket.socket() as probe:
        probe.bind((host, 0))  # only an address of this host can be bound


def test_the_way_to_the_first_seed_that_is_elsewhere_says_which_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def towards(host: str, family: socket.AddressFamily) -> str | None:
        asked.append(host)
        return "10.0.0.3" if host == "10.0.0.7" else None

    monkeypatch.setattr("zhero.runtime.reach._address_towards", towards)
    seeds = ["tcp://127.0.0.1:7050", "tcp://10.0.0.7:7040", "tcp://10.9.9.9:7040"]
    assert place_of("tcp://0.0.0.0:7040", "tcp://0.0.0.0:7041", None, seeds).endpoint == "tcp://10.0.0.3:7040"
    assert asked == ["10.0.0.7"]


def test_without_a_way_out_it_is_the_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhero.runtime.reach._address_towards", lambda host, family: None)
    assert place_of("tcp://0.0.0.0:7040", "tcp://0.0.0.0:7041", None, []).endpoint == "tcp://127.0.0.1:7040"
    assert place_of("tcp://[::]:7040", "tcp://[::]:7041", None, []).endpoint == "tcp://[::1]:7040"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("a", False)]
)
def test_what_only_this_host_reaches_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# --- names --------------------------------------------------------------------------------------------------------


def test_a_name_stands_for_each_of_its_addresses_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        known = names({"jobs.internal": ["10.0.0.1", "10.0.0.2", "10.0.0.1", "fd00::7"]})
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", known)
        assert await resolve("tcp://jobs.internal:7040") == [
            "tcp://10.0.0.1:7040",
            "tcp://10.0.0.2:7040",
            "tcp://[fd00::7]:7040",
        ]
        with pytest.raises(OSError, match="no such name"):
            await resolve("tcp://nobody.internal:7040")

    asyncio.run(main())


def test_localhost_is_a_name_that_is_known() -> None:
    assert "tcp://127.0.0.1:7040" in asyncio.run(resolve("tcp://localhost:7040"))


@pytest.mark.parametrize(
    ("endpoint", "near"),
    [
        ("tcp://10.0.0.7:7040", "tcp://10.0.0.7:7040"),
        ("tcp://0.0.0.0:7040", "tcp://127.0.0.1:7040"),
        ("tcp://[::]:7040", "tcp://[::1]:7040"),
    ],
)
def test_addresses_need_no_look_up(endpoint: str, near: str) -> None:
    assert asyncio.run(resolve(endpoint)) == [near]


# --- probes -------------------------------------------------------------------------------------------------------


def test_only_a_refusal_is_a_refusal() -> None:
    async def main() -> None:
        assert await is_refused(f"tcp://127.0.0.1:{free_port()}")
        with socket.socket() as bound, socket.socket() as mute:
            # Bound and not listening: the connect is refused, as after a kill.
            bound.bind(("127.0.0.1", 0))
            assert await is_refused(f"tcp://127.0.0.1:{bound.getsockname()[1]}")
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            assert not await is_refused(f"tcp://127.0.0.1:{mute.getsockname()[1]}", 0.1)
        assert not await is_refused("tcp://no-such-name.invalid:7040", 0.5)
        assert not await is_refused("nonsense")

    asyncio.run(main())


def test_a_node_answers_a_probe_at_once_by_itself() -> None:
    async def main() -> None:
        context = new_context()
        inbox = new_socket(context, zmq.ROUTER, send_max=1, receive_max=1)
        try:
            endpoint = bind(inbox, "tcp://127.0.0.1:0", "can't listen at")
            async with asyncio.timeout(PATIENCE_S):
                assert not await is_refused(endpoint, PATIENCE_S * 2)
        finally:
            inbox.close(0)
            context.term()

    asyncio.run(main())


def test_a_listener_that_goes_after_it_has_taken_the_connect_has_refused_it() -> None:
    async def main() -> None:
        dying = socket.socket()
        dying.bind(("127.0.0.1", 0))
        dying.listen()
        probe = asyncio.ensure_future(is_refused(f"tcp://127.0.0.1:{dying.getsockname()[1]}", PATIENCE_S))
        await asyncio.to_thread(select.select, [dying], [], [], PATIENCE_S)  # the connect has been taken
        dying.close()
        assert await probe

    asyncio.run(main())


def test_a_host_that_says_nothing_is_waited_for_no_longer_than_said_and_nothing_stays() -> None:
    async def main() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            endpoint = f"tcp://127.0.0.1:{full.getsockname()[1]}"
            before = len(os.listdir("/proc/self/fd"))
            async with asyncio.timeout(PATIENCE_S):
                # The queue of the listener fills up; what comes then gets no answer at all.
                answers = await all_refused([endpoint] * 20, 0.1)
            assert answers == [False] * 20
            assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())


def test_a_name_is_refused_only_if_all_its_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(
            asyncio.get_running_loop(), "getaddrinfo", names({"two": ["127.0.0.1", "127.0.0.2"], "none": []})
        )
        with socket.socket() as listening:
            listening.bind(("127.0.0.2", 0))
            listening.listen()
            port = listening.getsockname()[1]
            assert not await is_refused(f"tcp://two:{port}", 0.1)
        assert await is_refused(f"tcp://two:{port}")
        assert not await is_refused(f"tcp://none:{port}")

    asyncio.run(main())
