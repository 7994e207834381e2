"""Real sockets on loopback: what arrives, what is dropped and counted, and who is told that a connection is lost."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import zmq

from zhero import wire
from zhero.config import FRAME_MAX_BYTES, LINK_FRAME_BYTES
from zhero.core.messages import Beat, Frame, Hello, Message, Ping, Pong, Request, StopTask
from zhero.core.values import Life, Member, NodeId
from zhero.errors import BindFailed
from zhero.runtime import beats
from zhero.runtime.discovery import address_of
from zhero.runtime.peers import KNOCKS_MAX_COUNT
from zhero.runtime.transport import Transport

CLUSTER = "transport-test"
TAG = wire.cluster_tag(CLUSTER)
PATIENCE_S = 10.0
ANY_PORT = "tcp://127.0.0.1:0"
BEAT = Beat(number=1, joined=1, view=2, tasks=3, slots=4, held=5, age_ms=6)


def life(number: int, boot: int = 1) -> Life:
    return Life(NodeId(number.to_bytes(16)), boot, 0)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so, for a bounded time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


class Place:
    """A transport with its publisher, and what it has heard."""

    def __init__(self, number: int, cluster: str = CLUSTER) -> None:
        self.life = life(number)
        self.heard: list[Frame] = []
        self.lost: list[Life] = []
        self.rejections: list[tuple[str, str]] = []
        self.transport = Transport(
            cluster,
            self.heard.append,
            rng=Random(number),
            lost=self.lost.append,
            rejected=lambda endpoint, why: self.rejections.append((endpoint, why)),
        )
        self.inbox = self.transport.open(ANY_PORT, self.life)
        self.publisher = self.transport.publisher(ANY_PORT)
        self.transport.listen()

    @property
    def member(self) -> Member:
        return Member(self.life, f"place {self.life.boot}", self.inbox, 1, "0", self.publisher.endpoint)

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.transport.dropped)

    def frame(self, to: Life | None, *messages: Message) -> Frame:
        return Frame(self.life, to, list(messages))

    def messages(self) -> list[Message]:
        return [message for frame in self.heard for message in frame.messages]

    def close(self) -> None:
        self.publisher.close()
        self.transport.gate.close()
        self.transport.close()
        self.transport.term()


class Raw:
    """A bare socket that says what it likes, and hears what comes back."""

    def __init__(self, kind: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)

    async def hear(self) -> bytes:
        await until(lambda: self.socket.poll(0))
        return self.socket.recv()

    def close(self) -> None:
        self.socket.close(0)
        self._context.term()


def run(main: Callable[[Callable[[Any], Any]], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a loop; what it hands to `keep` is closed in the end, the newest first."""

    async def whole() -> None:
        kept: list[Any] = []

        def keep(made: Any) -> Any:
            kept.append(made)
            return made

        try:
            await main(keep)
        finally:
            for made in reversed(kept):
                made.close()

    asyncio.run(whole())


# --- frames -------------------------------------------------------------------------------------------------------


def test_members_speak_over_connections_of_their_own_in_order() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = keep(Place(1)), keep(Place(2))
        one.transport.connect(two.member)
        two.transport.connect(one.member)
        for ref in range(500):
            one.transport.send(two.life, one.frame(two.life, Ping(ref)))
            two.transport.send(one.life, two.frame(one.life, Pong(ref)))
        await until(lambda: len(one.heard) == len(two.heard) == 500)
        assert two.messages() == [Ping(ref) for ref in range(500)]
        assert one.messages() == [Pong(ref) for ref in range(500)]
        assert one.dropped == two.dropped == {}

    run(main)


def test_a_frame_keeps_all_that_stands_in_it() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = keep(Place(1)), keep(Place(2))
        one.transport.connect(two.member)
        said = Frame(one.life, two.life, [Ping(1)], [Ping(2), Ping(3)], 17, 5)
        one.transport.send(two.life, said)
        for_another = Frame(one.life, life(99), [Ping(4)])
        one.transport.send(two.life, for_another)
        await until(lambda: len(two.heard) == 2)
        assert two.heard == [said, for_another]

    run(main)


def test_a_knock_reaches_whoever_listens_there() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = keep(Place(1)), keep(Place(2))
        for ref in range(3):
            one.transport.knock(two.inbox, one.frame(None, Ping(ref)))
        await until(lambda: len(two.heard) == 3)
        assert two.messages() == [Ping(0), Ping(1), Ping(2)]

    run(main)


def test_knocks_at_many_doors_keep_few_connections() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one = keep(Place(1))
        before = len(os.listdir("/proc/self/fd"))
        for port in range(20_000, 20_000 + KNOCKS_MAX_COUNT + 100):
            one.transport.knock(f"tcp://127.0.0.1:{port}", one.frame(None, Ping(1)))
        # Each has one descriptor, and a second one while it tries to connect.
        await until(lambda: len(os.listdir("/proc/self/fd")) - before <= 2 * KNOCKS_MAX_COUNT)

    run(main)


def test_a_client_is_answered_on_its_own_connection_and_a_stranger_is_not_known() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, client = keep(Place(1)), keep(Raw(zmq.DEALER))
        client.socket.connect(one.inbox)
        client.socket.send(wire.encode(Frame(life(7), None, [Hello()]), TAG))
        await until(lambda: one.heard)
        one.transport.send(life(7), one.frame(life(7), Pong(1)))
        assert wire.decode(await client.hear(), TAG) == Frame(one.life, life(7), [Pong(1)])
        one.transport.send(life(8), one.frame(life(8), Pong(2)))
        assert one.dropped == {"unknown receiver": 1}

    run(main)


def test_what_is_too_large_for_one_frame_goes_in_several_and_what_is_too_large_alone_is_dropped() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = keep(Place(1)), keep(Place(2))
        one.transport.connect(two.member)
        large = [Request(ref, StopTask("x" * (FRAME_MAX_BYTES * 2 // 3))) for ref in range(3)]
        impossible = Request(9, StopTask("x" * FRAME_MAX_BYTES))
        one.transport.send(two.life, Frame(one.life, two.life, [large[0], impossible], [large[1], large[2]], 7, 3))
        await until(lambda: len(two.heard) == 3)
        assert [(frame.messages, frame.numbered, frame.first, frame.ack) for frame in two.heard] == [
            ([large[0]], [], 0, 3),
            ([], [large[1]], 7, 3),
            ([], [large[2]], 8, 3),
        ]
        assert one.dropped == {"can't be sent": 1}

    run(main)


def test_nothing_is_lost_of_many_large_frames_while_the_loop_has_other_things_to_do() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = keep(Place(1)), keep(Place(2))
        one.transport.connect(two.member)
        for ref in range(100):
            one.transport.send(two.life, one.frame(two.life, Request(ref, StopTask("x" * LINK_FRAME_BYTES))))
            await asyncio.sleep(0)
        await until(lambda: len(two.heard) == 100)
        assert [message.ref for message in two.messages()] == list(range(100))

    run(main)


def test_a_member_that_moves_is_spoken_to_at_its_new_place() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two, three = keep(Place(1)), keep(Place(2)), keep(Place(3))
        one.transport.connect(two.member)
        moved = Member(two.life, "two", three.inbox, 1, "0", three.publisher.endpoint)
        one.transport.connect(moved)
        one.transport.connect(moved)
        one.transport.send(two.life, one.frame(two.life, Ping(1)))
        await until(lambda: three.heard)
        assert two.heard == []
        one.transport.disconnect(two.life)
        one.transport.disconnect(two.life)
        one.transport.send(two.life, one.frame(two.life, Ping(2)))
        assert one.dropped == {"unknown receiver": 1}

    run(main)


# --- what makes no sense ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([b"no frame at all"], "WireInvalid"),
        ([b"zh"], "WireInvalid"),
        ([wire.encode(Frame(life(7), None, [Hello()]), TAG)[:-3]], "WireInvalid"),
        ([b"zh\x63 of the future"], "WireVersion"),
        ([wire.encode(Frame(life(7), None, [Hello()]), wire.cluster_tag("another"))], "WireCluster"),
        ([wire.encode(Frame(life(7), None, [Hello()]), TAG), b"more"], "extra parts"),
        ([b"1", b"2", b"3", b"4"], "extra parts"),
    ],
)
def test_bytes_that_are_no_frame_are_counted_and_dropped_and_the_next_one_is_heard(
    parts: list[bytes], why: str
) -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, raw = keep(Place(1)), keep(Raw(zmq.DEALER))
        raw.socket.connect(one.inbox)
        raw.socket.send_multipart(parts)
        raw.socket.send_multipart([b""])  # an empty one is how some sockets say hello
        raw.socket.send(wire.encode(Frame(life(7), None, [Hello()]), TAG))
        await until(lambda: one.heard)
        assert one.messages() == [Hello()]
        assert one.dropped == {why: 1}

    run(main)


def test_bytes_that_are_not_even_zeromq_and_frames_over_the_limit_do_no_harm() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, raw = keep(Place(1)), keep(Raw(zmq.DEALER))
        with socket.create_connection(address_of(one.inbox), PATIENCE_S) as stranger:
            stranger.sendall(os.urandom(100_000))
        raw.socket.connect(one.inbox)
        raw.socket.send(bytes(FRAME_MAX_BYTES + 1))  # libzmq drops the connection, and makes it again
        await asyncio.sleep(0)
        later = keep(Raw(zmq.DEALER))
        later.socket.connect(one.inbox)
        later.socket.send(wire.encode(Frame(life(7), None, [Hello()]), TAG))
        await until(lambda: one.heard)
        assert one.messages() == [Hello()]

    run(main)


def test_a_knock_at_another_cluster_is_answered_with_what_is_wrong_and_told_once() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, other = keep(Place(1)), keep(Place(2, "another"))
        for ref in range(3):
            one.transport.knock(other.inbox, one.frame(None, Ping(ref)))
        await until(lambda: other.dropped.get("WireCluster") == 3 and one.dropped.get("answer to a member") == 3)
        assert other.heard == one.heard == []
        ((endpoint, why),) = one.rejections
        assert endpoint == other.inbox
        assert "another cluster" in why

    run(main)


def test_endpoints_that_can_not_be_are_counted() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one = keep(Place(1))
        one.transport.knock("tcp://127.0.0.1", one.frame(None, Ping(1)))
        one.transport.connect(Member(life(2), "odd", "nonsense", 1, "0", "tcp://"))
        one.transport.send(life(2), one.frame(life(2), Ping(1)))
        assert one.dropped == {"bad endpoint": 3, "unknown receiver": 1}

    run(main)


# --- beats --------------------------------------------------------------------------------------------------------


async def hear_beats(listener: Place, publisher: Place, count: int = 1) -> None:
    """Publish until that many beats have been heard: the first ones come before the subscription."""
    wanted = len(listener.heard) + count
    async with asyncio.timeout(PATIENCE_S):
        while len(listener.heard) < wanted:
            publisher.publisher.publish(publisher.frame(None, BEAT))
            await asyncio.sleep(0.01)


def test_beats_of_all_members_are_heard_on_one_socket() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two, three = keep(Place(1)), keep(Place(2)), keep(Place(3))
        one.transport.connect(two.member)
        one.transport.connect(three.member)
        await hear_beats(one, two)
        await hear_beats(one, three)
        assert {frame.sender for frame in one.heard} == {two.life, three.life}
        assert one.heard[0] == Frame(two.life, None, [BEAT])

    run(main)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([b"no frame"], "WireInvalid"),
        ([wire.encode(Frame(life(2), None, [BEAT]), wire.cluster_tag("another"))], "WireCluster"),
        ([wire.encode(Frame(life(2), None, [BEAT, Ping(1)]), TAG)], "no beat"),
        ([wire.encode(Frame(life(2), life(1), [BEAT]), TAG)], "no beat"),
        ([wire.encode(Frame(life(2), None, [BEAT], [Ping(1)], 1), TAG)], "no beat"),
        ([wire.encode(Frame(life(2), None, [BEAT]), TAG), b"more"], "extra parts"),
    ],
)
def test_what_is_published_and_is_no_beat_is_counted_and_dropped(parts: list[bytes], why: str) -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, raw = keep(Place(1)), keep(Raw(zmq.PUB))
        raw.socket.bind(ANY_PORT)
        beats = raw.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        one.transport.connect(Member(life(2), "odd", ANY_PORT.replace(":0", ":1"), 1, "0", beats))

        def shouted() -> bool:
            raw.socket.send_multipart(parts)
            return why in one.dropped

        await until(shouted)
        assert one.heard == []
        assert set(one.dropped) == {why}

    run(main)


def test_a_lost_connection_is_a_hint_for_every_life_at_that_endpoint() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two, three = keep(Place(1)), keep(Place(2)), keep(Place(3))
        again = Member(life(2, boot=2), "two", two.inbox, 2, "0", two.publisher.endpoint)
        one.transport.connect(two.member)
        one.transport.connect(again)
        one.transport.connect(three.member)
        await hear_beats(one, two)
        await hear_beats(one, three)
        assert one.lost == []
        two.publisher.close()
        await until(lambda: one.lost)
        assert one.lost == [two.life, again.life]
        await hear_beats(one, three, 3)
        assert len(one.lost) == 2

    run(main)


def test_beats_that_arrive_together_are_read_together_and_before_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        monkeypatch.setattr(beats, "REST_S", 1000.0)
        one = keep(Place(1))
        monkeypatch.undo()
        witness, two = keep(Place(3)), keep(Place(2))
        one.transport.connect(two.member)
        await hear_beats(one, two)
        witness.transport.connect(two.member)
        await hear_beats(witness, two)
        heard = len(one.heard)
        last = replace(BEAT, number=99)
        two.publisher.publish(two.frame(None, last))
        await until(lambda: witness.messages()[-1] == last)
        assert len(one.heard) == heard, "it rests"
        two.publisher.close()
        await until(lambda: one.lost)
        assert one.messages()[-1] == last

    run(main)


def test_beats_are_heard_after_a_rest_and_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        monkeypatch.setattr(beats, "REST_S", 0.01)
        one, two = keep(Place(1)), keep(Place(2))
        one.transport.connect(two.member)
        await hear_beats(one, two)
        for pause_s in (0.0, 0.005, 0.015, 0.05) * 3:
            await asyncio.sleep(pause_s)
            heard = len(one.heard)
            two.publisher.publish(two.frame(None, BEAT))
            await until(lambda heard=heard: len(one.heard) > heard)

    run(main)


def test_a_life_that_is_disconnected_gives_no_hint_and_another_one_there_is_heard_on() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = keep(Place(1)), keep(Place(2))
        again = Member(life(2, boot=2), "two", two.inbox, 2, "0", two.publisher.endpoint)
        one.transport.connect(two.member)
        one.transport.connect(again)
        one.transport.disconnect(two.life)
        await hear_beats(one, two)
        two.publisher.close()
        await until(lambda: one.lost)
        assert one.lost == [again.life]

    run(main)


def test_hints_come_not_too_often_and_the_last_loss_is_never_swallowed() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one = keep(Place(1))
        inbox, port = ANY_PORT.replace(":0", ":1"), 0
        losses = 5
        for number in range(losses):
            raw = Raw(zmq.PUB)
            try:
                raw.socket.bind(f"tcp://127.0.0.1:{port}")
                beats = raw.socket.getsockopt_string(zmq.LAST_ENDPOINT)
                _, port = address_of(beats) or ("", 0)
                one.transport.connect(Member(life(2), "flaps", inbox, 1, "0", beats))
                heard = len(one.heard)

                def is_heard(raw: Raw = raw, heard: int = heard) -> bool:
                    raw.socket.send(wire.encode(Frame(life(2), None, [BEAT]), TAG))
                    return len(one.heard) > heard

                await until(is_heard)
                told = len(one.lost)
            finally:
                raw.close()
            if number == losses - 1:
                await until(lambda told=told: len(one.lost) > told)  # the last one is told, if late
        assert 1 <= len(one.lost) <= losses

    run(main)


# --- life ---------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_a_typed_error_and_leaves_nothing_behind() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one = keep(Place(1))
        before = len(os.listdir("/proc/self/fd"))
        other = Transport(CLUSTER, lambda frame: None, rng=Random(2))
        with pytest.raises(BindFailed, match="can't listen at"):
            other.open(one.inbox, life(2))
        with pytest.raises(BindFailed, match="can't publish beats"):
            one.transport.publisher(one.inbox)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    run(main)


def test_a_closed_transport_takes_and_sends_nothing() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = Place(1), keep(Place(2))
        one.transport.connect(two.member)
        one.close()
        one.transport.send(two.life, one.frame(two.life, Ping(1)))
        one.transport.knock(two.inbox, one.frame(None, Ping(1)))
        one.transport.connect(two.member)
        one.transport.disconnect(two.life)
        assert one.dropped == {}

    run(main)


def test_what_was_said_last_still_leaves() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        one, two = Place(1), keep(Place(2))
        one.transport.connect(two.member)
        for ref in range(50):
            one.transport.send(two.life, one.frame(two.life, Ping(ref)))
        one.close()
        await until(lambda: len(two.heard) == 50)

    run(main)


def test_fifty_lives_leave_no_descriptor() -> None:
    async def main(keep: Callable[[Any], Any]) -> None:
        two = keep(Place(2))
        before = 0
        for number in range(50):
            one = Place(1)
            one.transport.connect(two.member)
            two.transport.connect(one.member)
            one.transport.knock(two.inbox, one.frame(None, Ping(number)))
            one.close()
            two.transport.disconnect(one.life)
            if number == 4:
                before = len(os.listdir("/proc/self/fd"))
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    run(main)
