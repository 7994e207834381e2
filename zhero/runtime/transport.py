"""Sockets: bytes between processes, frames between the transport and the driver.

One ROUTER hears everybody. It sets no routing ids: libzmq gives each connection a random one, which is only "this
connection"; who speaks stands in the frame. A client, which is no member, is answered on the connection it last spoke
on; what can't be sent is dropped (a `Send` is a wish).

The socket lives on the driver's loop, watched by its descriptor and drained with plain non-blocking calls: a tenth of
the price of `zmq.asyncio` per message. The descriptor is edge-triggered, so it is drained until it is empty, in turns
of bounded length, and looked at again after sends.

Nothing that arrives can raise here: it is counted (`dropped`: why -> frames) and dropped. A frame of another cluster
or version is answered with `Rejected`, so that a client can say what is wrong.

Bounds: `FRAME_MAX_BYTES` a frame, `CLIENTS_MAX_COUNT` connections remembered; libzmq's own queues by high-water marks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import zmq

from .. import wire
from ..config import CLIENTS_MAX_COUNT, DRAIN_TURN_MAX_MS, FRAME_MAX_BYTES
from ..core.messages import Frame, Message, Rejected
from ..core.values import Life
from ..errors import BindFailed

_LINGER_MS = 200
_BACKLOG = 1024
_HANDSHAKE_MS = 5_000
_QUEUED_FRAMES_MAX = 10_000


class Transport:
    """The inbox of one node.

    Args:
        cluster: name of the cluster; frames of others are refused.
        receive: called on the loop with each frame.
    """

    def __init__(self, cluster: str, receive: Callable[[Frame], None]) -> None:
        self.dropped: dict[str, int] = {}
        self._tag = wire.cluster_tag(cluster)
        self._receive = receive
        self._me: Life | None = None
        self._connections: dict[Life, bytes] = {}  # client -> routing id; the one silent for longest first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._continues: asyncio.Handle | None = None

    def open(self, bind: str, me: Life) -> str:
        """Listen, on the running loop.

        Returns:
            The endpoint, with the port that the system chose.

        Raises:
            BindFailed: the address is in use, or not of this host.
        """
        self._me = me
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._inbox = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, _LINGER_MS),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.MAXMSGSIZE, FRAME_MAX_BYTES),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.BACKLOG, _BACKLOG),
            (zmq.SNDHWM, _QUEUED_FRAMES_MAX),
            (zmq.RCVHWM, _QUEUED_FRAMES_MAX),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.IPV6, 1 if "[" in bind else 0),
        ):
            self._inbox.setsockopt(option, value)
        try:
            self._inbox.bind(bind)
        except zmq.ZMQError as error:
            self._inbox.close(0)
            self._context.term()
            reason = error.strerror or str(error)
            raise BindFailed(
                f"can't listen at {bind}: {reason}; choose another port, or port 0 for a free one"
            ) from error
        endpoint = self._inbox.getsockopt_string(zmq.LAST_ENDPOINT)
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(self._inbox.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._drain)
        return endpoint

    def close(self) -> None:
        """Stop listening; what has been said gets a moment to leave."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._descriptor)
        if self._continues is not None:
            self._continues.cancel()
        self._inbox.close()
        self._context.term()
        self._loop = None
        self._connections.clear()

    def send(self, to: Life, messages: list[Message]) -> None:
        """Say something to a client that has spoken to us."""
        connection = self._connections.get(to)
        if connection is None or self._loop is None:
            self._count("unknown receiver")
            return
        assert self._me is not None
        for frame in _frames(self._me, to, messages, self._tag):
            self._put(connection, frame, to)
        self._look_again()

    def _put(self, connection: bytes, data: bytes, to: Life) -> None:
        try:
            self._inbox.send(connection, zmq.SNDMORE | zmq.NOBLOCK)
            self._inbox.send(data, zmq.NOBLOCK)
        except zmq.Again:
            self._count("receiver is slow")
        except zmq.ZMQError:
            self._count("receiver is gone")
            self._connections.pop(to, None)

    def _look_again(self) -> None:
        """A send may have swallowed the edge that announces what has arrived."""
        if self._continues is None and self._loop is not None:
            self._continues = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Read all that has arrived, for a bounded time."""
        self._continues = None
        receive, until = self._inbox.recv, time.monotonic() + DRAIN_TURN_MAX_MS / 1000
        while time.monotonic() < until:
            try:
                connection = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            data, more = self._rest()
            if more:
                self._count("extra parts")
            elif data:
                self._take(connection, data)
            if self._loop is None:  # closed by what was read
                return
        self._look_again()

    def _rest(self) -> tuple[bytes, bool]:
        """The one part that belongs behind a routing id, and whether there was more (read and thrown away)."""
        if not self._inbox.getsockopt(zmq.RCVMORE):
            return b"", False
        data = self._inbox.recv()
        more = False
        while self._inbox.getsockopt(zmq.RCVMORE):
            self._inbox.recv()
            more = True
        return data, more

    def _take(self, connection: bytes, data: bytes) -> None:
        try:
            frame = wire.decode(data, self._tag)
        except wire.WireError as error:
            self._count(type(error).__name__)
            if not isinstance(error, wire.WireInvalid):
                self._reject(connection, str(error))
            return
        if frame.to is not None and frame.to != self._me:
            self._count("for another life")
            return
        self._connections.pop(frame.sender, None)
        self._connections[frame.sender] = connection
        if len(self._connections) > CLIENTS_MAX_COUNT:
            del self._connections[next(iter(self._connections))]
        self._receive(frame)

    def _reject(self, connection: bytes, why: str) -> None:
        assert self._me is not None
        data = wire.encode(Frame(self._me, None, [Rejected(why)]), self._tag)
        self._put(connection, data, self._me)

    def _count(self, why: str) -> None:
        self.dropped[why] = self.dropped.get(why, 0) + 1


def _frames(me: Life, to: Life, messages: list[Message], tag: bytes) -> list[bytes]:
    """One frame with all messages, or one each where that is too large; what is too large by itself is left out."""
    try:
        return [wire.encode(Frame(me, to, messages), tag)]
    except wire.WireInvalid:
        frames: list[bytes] = []
        for message in messages:
            try:
                frames.append(wire.encode(Frame(me, to, [message]), tag))
            except wire.WireInvalid:
                continue
        return frames
