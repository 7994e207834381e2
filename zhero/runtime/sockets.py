"""What all sockets of a node have in common: their options, the watch over what arrives, the frames that leave.

The options are the answers to what is known of libzmq: a frame has a limit, or a peer could fill the memory; a
connection is given up that does not get through in time; the first try to connect again comes after a random span, or
all would come at once after a split; keepalive lets connections to vanished hosts end. There are no heartbeats of
libzmq's own, which can end the process (libzmq 3937, 4767), and no routing ids, which can be taken twice (2019).

A socket lives on the driver's loop, watched by its descriptor and read with plain non-blocking calls: a tenth of the
price of `zmq.asyncio` per message. The descriptor is edge-triggered, so a socket is read until it is empty, in turns of
bounded length, and looked at again after sends. One that brings many small messages which can wait rests between reads.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import struct
import time
from collections.abc import Callable, Iterator
from random import Random

import zmq

from .. import wire
from ..config import DRAIN_TURN_MAX_MS, FRAME_MAX_BYTES
from ..core.messages import Frame
from ..errors import BindFailed

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

SOCKETS_MAX_COUNT = 8_192
"""Of one context: a member takes one, a knock another."""
LINGER_MS = 200
"""How long what has been said may take to leave, after the end."""
RECONNECT_MS = (100, 300)
RECONNECT_MAX_MS = 5_000
CONNECT_TIMEOUT_MS = 3_000
HANDSHAKE_MS = 5_000
BACKLOG = 1_024
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_COUNT = 60, 30, 3


def new_context() -> Context:
    """A context with room for the sockets of a large cluster."""
    context: Context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, SOCKETS_MAX_COUNT)
    return context


def new_socket(context: Context, kind: int, *, send_max: int, receive_max: int, linger_ms: int = LINGER_MS) -> Socket:
    """A socket with the options that all have.

    Args:
        kind: `zmq.ROUTER`, ...
        send_max, receive_max: frames that may wait per connection.
    """
    made = context.socket(kind)
    for option, value in (
        (zmq.LINGER, linger_ms),
        (zmq.SNDHWM, send_max),
        (zmq.RCVHWM, receive_max),
        (zmq.MAXMSGSIZE, FRAME_MAX_BYTES),
        (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S),
        (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_EVERY_S),
        (zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT),
    ):
        made.setsockopt(option, value)
    return made


def bind(socket: Socket, endpoint: str, what: str) -> str:
    """Listen.

    Args:
        what: is listened for; begins the error.

    Returns:
        The endpoint, with the port that the system chose.

    Raises:
        BindFailed: the address is in use, or not of this host.
    """
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        reason = error.strerror or str(error)
        raise BindFailed(f"{what} {endpoint}: {reason}; choose another port, or port 0 for a free one") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def connect(socket: Socket, endpoint: str, rng: Random) -> bool:
    """Connect in the background, and again whenever the connection is lost.

    Returns:
        False if there can be no such endpoint.
    """
    for option, value in (
        (zmq.RECONNECT_IVL, rng.randint(*RECONNECT_MS)),  # libzmq spreads it only where there is no maximum
        (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
        (zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS),
        (zmq.IPV6, 1 if "[" in endpoint else 0),
    ):
        socket.setsockopt(option, value)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError:
        return False
    return True


class Complaints:
    """Tells when whoever listens refuses a handshake, or speaks another way; on the running loop.

    Args:
        socket: connects somewhere, later.
        hear: called with what is wrong, for people.
    """

    _numbers = itertools.count()

    def __init__(self, context: Context, socket: Socket, hear: Callable[[str], None]) -> None:
        self._hear = hear
        self._watched = socket
        endpoint = f"inproc://zhero-complaints-{next(self._numbers)}"
        socket.monitor(endpoint, _HANDSHAKE_FAILED)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(endpoint)
        self._watch = Watch(self._monitor, self._read)

    def close(self) -> None:
        """Hear no more; before the socket is closed."""
        self._watch.close()
        self._watched.disable_monitor()
        self._monitor.close(0)

    def _read(self) -> None:
        event, value = struct.unpack("=hi", read_parts(self._monitor, 2)[0])
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and value == errno.EAGAIN:
            return  # silence
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            self._hear("one of the two encrypts and the other does not: give both the same secret")
        else:
            self._hear("it holds another secret, or is no node")


class Drops:
    """Counts what was dropped: why -> how often. Bound: one entry per reason that stands in the code."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __call__(self, why: str) -> None:
        self.counts[why] = self.counts.get(why, 0) + 1


class Watch:
    """Reads a socket on the running loop whenever something has arrived.

    Args:
        read: reads and handles one message; raises `zmq.Again` where there is none.
        rest_s: after something was read nobody looks for so long, and what arrives meanwhile is read together. To be
            woken costs several times what it costs to read a small message.
    """

    def __init__(self, socket: Socket, read: Callable[[], None], *, rest_s: float = 0.0) -> None:
        self._read = read
        self._rest_s = rest_s
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._again: asyncio.Handle | None = None
        self._is_resting = False
        self._closed = False
        self._loop.add_reader(self._descriptor, self.look)
        self.look_again()

    def look_again(self) -> None:
        """Have a look soon: a send may have swallowed the edge that announces what has arrived."""
        if self._again is None and not self._closed:
            self._again = self._loop.call_soon(self._look_after)

    def close(self) -> None:
        """Watch no longer; before the socket is closed."""
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        if self._again is not None:
            self._again.cancel()

    def look(self) -> None:
        """Read all that is there, up to a limit of time; the rest soon."""
        count, until = 0, time.monotonic() + DRAIN_TURN_MAX_MS / 1000
        while not self._closed and time.monotonic() < until:
            try:
                self._read()
            except zmq.Again:
                if self._rest_s:
                    self._rest(count > 0)
                return
            count += 1
        self.look_again()

    def _look_after(self) -> None:
        self._again = None
        self.look()

    def _rest(self, has_read: bool) -> None:
        """Rest, or after a rest in which nothing arrived be woken again by what does."""
        if self._again is not None or self._closed:
            return
        if has_read:
            self._again = self._loop.call_later(self._rest_s, self._look_after)
        if has_read is not self._is_resting:
            self._is_resting = has_read
            if has_read:
                self._loop.remove_reader(self._descriptor)
            else:
                self._loop.add_reader(self._descriptor, self.look)


def read_parts(socket: Socket, parts_max: int) -> list[bytes]:
    """One message; parts beyond `parts_max` are read and thrown away, all but one that shows that they were there.

    Raises:
        zmq.Again: there is none.
    """
    parts = [socket.recv(zmq.NOBLOCK)]
    while socket.getsockopt(zmq.RCVMORE):
        part = socket.recv()
        if len(parts) <= parts_max:
            parts.append(part)
    return parts


def encoded(frame: Frame, tag: bytes, drop: Callable[[str], None]) -> Iterator[bytes]:
    """A frame as bytes; one that is too large as several, with one message each; what can't be sent is left out."""
    try:
        yield wire.encode(frame, tag)
        return
    except wire.WireInvalid:
        pass
    single = [Frame(frame.sender, frame.to, [message], [], 0, frame.ack) for message in frame.messages]
    single += [
        Frame(frame.sender, frame.to, [], [message], frame.first + place, frame.ack)
        for place, message in enumerate(frame.numbered)
    ]
    for one in single:
        try:
            yield wire.encode(one, tag)
        except wire.WireInvalid:
            drop("can't be sent")
