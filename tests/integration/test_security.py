"""Strangers at the ports of a live cluster: nobody gets in, nothing breaks, and each attempt is counted and named."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import zhero
from zhero import wire
from zhero.core.messages import Frame, Hello
from zhero.core.values import Life, NodeId
from zhero.errors import NotReached
from zhero.runtime.auth import KEY_FILE, Keyring, generate, keys_of
from zhero.runtime.discovery import address_of

CLUSTER = "security-test"
PATIENCE_S = 20.0
HALF_OPEN_COUNT = 300
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01"
SAID = b"", GREETING, GREETING + b"CURVE".ljust(52, b"\0"), b"GET / HTTP/1.1\r\n\r\n" * 9
"""Nothing, a greeting that stops, one that says CURVE and no more, and another protocol."""


@zhero.task
async def double(number: int) -> int:
    return 2 * number


def node(**given: Any) -> zhero.Node:
    return zhero.Node([double], cluster=CLUSTER, profile="fast", **given)


def go(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * PATIENCE_S):
            await work

    asyncio.run(bounded())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def counted(it: zhero.Node, why: str, count: int = 1) -> None:
    """Until `stats` says so; `why`: how the reasons begin."""
    async with asyncio.timeout(PATIENCE_S):
        while sum(n for name, n in (await it.stats()).dropped.items() if name.startswith(why)) < count:
            await asyncio.sleep(0.05)


def endpoint_of(it: zhero.Node) -> str:
    return next(member.endpoint for member in it.members() if member.is_me)


def place_of(it: zhero.Node) -> tuple[str, int]:
    return address_of(endpoint_of(it)) or ("", 0)


def free_pair() -> int:
    """A port that is free, as is the one above it, where beats are."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as lower:
            port: int = lower.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port


@pytest.fixture
def stranger() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.setsockopt(zmq.LINGER, 0)
    yield context
    context.destroy(0)


def curve(ring: Keyring) -> Callable[[zmq.Socket[bytes]], None]:
    return lambda made: ring.speak(made, "")


def wrong_client(right: str) -> Callable[[zmq.Socket[bytes]], None]:
    """It knows whom it speaks to, as one that has listened may, and has no key that is let in."""

    def protect(made: zmq.Socket[bytes]) -> None:
        public, secret = zmq.curve_keypair()
        made.setsockopt(zmq.CURVE_SERVERKEY, keys_of(right, CLUSTER).server_public)
        made.setsockopt(zmq.CURVE_PUBLICKEY, public)
        made.setsockopt(zmq.CURVE_SECRETKEY, secret)

    return protect


def plain_mechanism(made: zmq.Socket[bytes]) -> None:
    made.setsockopt(zmq.PLAIN_USERNAME, b"admin")
    made.setsockopt(zmq.PLAIN_PASSWORD, b"admin")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("null", "denied: not encrypted"),
        ("plain", "denied: unfinished handshake"),
        ("wrong secret", "denied: wrong secret"),
        ("wrong client key", "denied: wrong secret"),
    ],
)
def test_a_stranger_is_answered_nothing_hears_nothing_and_is_counted(
    how: str, why: str, own_runtime_dir: Path, stranger: zmq.Context[zmq.Socket[bytes]]
) -> None:
    async def work() -> None:
        port = free_pair()
        async with node(bind=f"tcp://127.0.0.1:{port}") as one:
            right = (own_runtime_dir / KEY_FILE).read_text().strip()
            protect = {
                "null": lambda made: None,
                "plain": plain_mechanism,
                "wrong secret": curve(Keyring((keys_of(generate(), CLUSTER),))),
                "wrong client key": wrong_client(right),
            }[how]
            with stranger.socket(zmq.DEALER) as dealer, stranger.socket(zmq.SUB) as subscriber:
                for made in (dealer, subscriber):
                    protect(made)
                subscriber.setsockopt(zmq.SUBSCRIBE, b"")
                dealer.connect(f"tcp://127.0.0.1:{port}")
                subscriber.connect(f"tcp://127.0.0.1:{port + 1}")
                hello = Frame(Life(NodeId(os.urandom(16)), 1, 0), None, [Hello()])
                dealer.send(wire.encode(hello, wire.cluster_tag(CLUSTER)))
                # Which of the two sides finds the other out first is open, and so what the second one is called.
                await counted(one, "denied: ", 2)
                if "secret" in why:
                    await counted(one, why)
                assert not dealer.poll(200)
                assert not subscriber.poll(0)
                assert len(one.members()) == 1
                assert await (await double.on(one).enqueue(number=21)).result(timeout=PATIENCE_S) == 42

    go(work())


def test_a_client_with_another_secret_is_told_so_at_once() -> None:
    async def work() -> None:
        async with node(secret=generate()) as one:
            for given in ({"secret": generate()}, {"insecure": True}, {}):
                began = time.monotonic()
                with pytest.raises(NotReached, match="secret"):
                    async with zhero.Client(CLUSTER, [endpoint_of(one)], PATIENCE_S, **given):
                        pass
                assert time.monotonic() - began < PATIENCE_S

    go(work())


def test_nodes_with_one_secret_meet_and_one_with_another_stays_out(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        secret = generate()
        async with node(name="one", secret=secret) as one, node(name="two", secret=secret) as two:
            await until(lambda: len(one.members()) == len(two.members()) == 2)
            async with node(name="three", secret=generate(), join=[endpoint_of(one)], solo_after=0.5) as three:
                await counted(one, "denied: wrong secret")
                await until(lambda: "another secret" in caplog.text)
                assert len(three.members()) == 1
            assert len(one.members()) == 2
            for number in range(100):
                assert await (await double.on(two).enqueue(number=number)).result(PATIENCE_S) == 2 * number

    go(work())


def test_a_blocked_loop_fails_no_handshake() -> None:
    async def work() -> None:
        secret = generate()
        async with node(name="one", secret=secret) as one:
            host, port = place_of(one)
            greeted = threading.Event()

            def shake_hands() -> None:
                context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
                made = context.socket(zmq.DEALER)
                Keyring((keys_of(secret, CLUSTER),)).speak(made, "")
                made.monitor("inproc://here", zmq.EVENT_HANDSHAKE_SUCCEEDED)
                monitor = context.socket(zmq.PAIR)
                monitor.connect("inproc://here")
                made.connect(f"tcp://{host}:{port}")
                if monitor.poll(PATIENCE_S * 1000):
                    greeted.set()
                context.destroy(0)

            thread = threading.Thread(target=shake_hands)
            thread.start()
            assert greeted.wait(PATIENCE_S)  # the loop does not turn meanwhile
            thread.join()

    go(work())


def test_what_was_recorded_of_an_earlier_run_opens_nothing(own_runtime_dir: Path) -> None:
    """A proxy writes down all that a client says to a node; said again, to the same and to the next run of it."""

    async def work() -> None:
        said: list[bytes] = []

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(*place)

            async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: bool) -> None:
                while data := await source.read(65_536):
                    if note:
                        said.append(data)
                    sink.write(data)

            tasks = [
                asyncio.ensure_future(pass_on(reader, back, True)),
                asyncio.ensure_future(pass_on(there, writer, False)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for it in tasks:
                it.cancel()
            writer.close()
            back.close()

        async with node(workers=0) as one:
            place = place_of(one)
            server = await asyncio.start_server(relay, "127.0.0.1", 0)
            async with server:
                endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                async with zhero.Client(CLUSTER, [endpoint]) as client:
                    await client.enqueue("double", {"number": 1})
            assert await one.queue_length("global") == 1
        async with node(workers=0) as two:
            _, writer = await asyncio.open_connection(*place_of(two))
            for data in said:
                writer.write(data)
                await asyncio.sleep(0.05)
            await counted(two, "denied: wrong secret")
            writer.close()
            assert await two.queue_length("global") == 0

    go(work())


def test_half_open_connections_and_garbage_are_given_up_and_members_are_unaffected() -> None:
    async def work() -> None:
        async with node(name="one") as one, node(name="two") as two:
            await until(lambda: len(one.members()) == len(two.members()) == 2)
            before = len(os.listdir("/proc/self/fd"))
            strangers = [socket.create_connection(place_of(one)) for _ in range(HALF_OPEN_COUNT)]
            try:
                for place, it in enumerate(strangers):
                    # Nothing, a greeting that stops, one that says CURVE and no more, and other protocols.
                    it.sendall(
                        (b"", GREETING, GREETING + b"CURVE".ljust(52, b"\0"), b"GET / HTTP/1.1\r\n\r\n" * 9)[place % 4]
                    )
                for number in range(50):
                    assert await (await double.on(two).enqueue(number=number)).result(PATIENCE_S) == 2 * number
                await counted(one, "denied: unfinished handshake", HALF_OPEN_COUNT // 2)
                await counted(one, "denied: no ZMTP", HALF_OPEN_COUNT // 5)
            finally:
                for it in strangers:
                    it.close()
            await until(lambda: len(os.listdir("/proc/self/fd")) < before + 30)
            assert len(one.members()) == len(two.members()) == 2

    go(work())


def test_a_member_gone_mad_breaks_nothing(own_runtime_dir: Path) -> None:
    """It holds the secret, and says what makes no sense: many parts, too large a frame, random and cut frames."""

    async def work() -> None:
        async with node(name="one") as one:
            right = (own_runtime_dir / KEY_FILE).read_text().strip()
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            mad = context.socket(zmq.DEALER)
            mad.setsockopt(zmq.SNDHWM, 100)
            Keyring((keys_of(right, CLUSTER),)).speak(mad, "")
            mad.connect(endpoint_of(one))
            whole = wire.encode(Frame(Life(NodeId(bytes(16)), 1, 0), None, [Hello()]), wire.cluster_tag(CLUSTER))

            def rave() -> None:
                for number in range(3_000):
                    cut = whole[: number % len(whole)]
                    flipped = bytearray(whole)
                    flipped[number % len(whole)] ^= 1 << number % 8
                    mad.send_multipart([os.urandom(number % 100), b"more"] * (number % 4) or [b""])
                    mad.send(struct.pack(">Q", number) + cut)
                    mad.send(cut)
                    mad.send(bytes(flipped))
                mad.send(bytes(wire.FRAME_MAX_BYTES + 1))

            try:
                await asyncio.to_thread(rave)
                await counted(one, "WireInvalid", 3_000)
                await counted(one, "extra parts", 1_000)
                for number in range(50):
                    assert await (await double.on(one).enqueue(number=number)).result(PATIENCE_S) == 2 * number
            finally:
                context.destroy(0)

    go(work())


def test_the_secret_is_changed_on_live_nodes_under_load_and_nothing_is_lost_or_repeated() -> None:
    """The documented way: first all accept the new one too, then all listen with it, then nobody knows the old one."""

    async def work() -> None:
        old, new = generate(), generate()
        runs: list[int] = []

        @zhero.task
        async def note(number: int) -> None:
            runs.append(number)

        async def begin(name: str, secret: list[str]) -> zhero.Node:
            made = zhero.Node([note], name=name, cluster=CLUSTER, profile="fast", secret=secret)
            await made.__aenter__()
            return made

        names = ("one", "two", "three")
        nodes = {name: await begin(name, [old]) for name in names}
        enqueued = 0

        async def load(it: zhero.Node) -> None:
            nonlocal enqueued
            for _ in range(20):
                number, enqueued = enqueued, enqueued + 1
                await note.on(it).enqueue(number=number)

        async def meet() -> None:
            await until(lambda: all(sum(m.standing == "alive" for m in it.members()) == 3 for it in nodes.values()))

        try:
            await meet()
            for secret in ([old, new], [new, old], [new]):
                for name in names:
                    await asyncio.gather(*map(load, nodes.values()))
                    await nodes.pop(name).aclose()
                    await asyncio.gather(*map(load, nodes.values()))
                    nodes[name] = await begin(name, secret)
                    await meet()
            await asyncio.gather(*map(load, nodes.values()))
            await until(lambda: len(runs) >= enqueued)
            assert sorted(runs) == list(range(enqueued))
        finally:
            for it in nodes.values():
                await it.aclose(1.0)

    go(work())
