"""Speaking to one node: frames out, and frames back on the same connection.

A DEALER, living on the loop of its owner: watched by its descriptor and drained with plain non-blocking calls, as the
inbox of a node is (`transport`), and for the same reasons. libzmq connects in the background and again after a loss;
what is sent meanwhile waits, or is lost. So nothing here says that a frame has arrived: the answer does.

Nothing that arrives can raise: bytes that are no frame, and frames of or for another life, are dropped.

Bounds: `FRAME_MAX_BYTES` a frame; libzmq's own queues by high-water marks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import zmq

from .. import wire
from ..config import DRAIN_TURN_MAX_MS, FRAME_MAX_BYTES
from ..core.messages import Frame, Message
from ..core.values import Life
from ..errors import NotReached
from .auth import PLAIN, Keyring
from .sockets import Complaints, Context

_HANDSHAKE_MS = 5_000
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 1_000
_QUEUED_FRAMES_MAX = 10_000


class Connection:
    """A DEALER to one node, on the running loop.

    Args:
        context: that the socket belongs to.
        endpoint: of the node.
        me: who speaks.
        tag: of the cluster.
        keyring: what nodes are spoken to with.
        key: names the one of it that this node listens with.

    Attributes:
        peer: whom to speak to and hear; None: not known yet, so anybody at that endpoint.

    Raises:
        NotReached: there can be no such endpoint.
    """

    def __init__(
        self, context: Context, endpoint: str, me: Life, tag: bytes, keyring: Keyring = PLAIN, key: str = ""
    ) -> None:
        self.peer: Life | None = None
        self._me = me
        self._tag = tag
        self._loop = asyncio.get_running_loop()
        self._continues: asyncio.Handle | None = None
        self._closed = False
        self._socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, FRAME_MAX_BYTES),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
            (zmq.SNDHWM, _QUEUED_FRAMES_MAX),
            (zmq.RCVHWM, _QUEUED_FRAMES_MAX),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.IPV6, 1 if "[" in endpoint else 0),
        ):
            self._socket.setsockopt(option, value)
        keyring.speak(self._socket, key)
        self._complaints = Complaints(context, self._socket, lambda why: self._refuse(why))
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._complaints.close()
            self._socket.close(0)
            raise NotReached(f"{endpoint}: {error.strerror or error}") from error

    def open(self, hear: Callable[[Frame], None], refuse: Callable[[str], None]) -> None:
        """Call `hear` with each frame of the peer, `refuse` when it speaks for another cluster or version."""
        self._hear, self._refuse = hear, refuse
        self._loop.add_reader(self._socket.fileno(), self._drain)

    def close(self, linger_ms: int) -> None:
        """End it; what has been said gets that long to leave."""
        self._closed = True
        self._complaints.close()
        self._loop.remove_reader(self._socket.fileno())
        if self._continues is not None:
            self._continues.cancel()
        self._socket.close(linger_ms)

    def send(self, messages: list[Message]) -> None:
        """Say something; what does not leave at once is lost, and repeated by whoever needs it.

        Raises:
            WireInvalid: it is too large for a frame.
        """
        data = wire.encode(Frame(self._me, self.peer, messages), self._tag)
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            pass
        self._look_again()  # a send may have swallowed the edge that announces what has arrived

    def _look_again(self) -> None:
        if self._continues is None and not self._closed:
            self._continues = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Read all that has arrived, for a bounded time. A frame has one part; other parts are no frames."""
        self._continues = None
        until = time.monotonic() + DRAIN_TURN_MAX_MS / 1000
        while not self._closed and time.monotonic() < until:
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(data)
        self._look_again()

    def _take(self, data: bytes) -> None:
        try:
            frame = wire.decode(data, self._tag)
        except wire.WireInvalid:
            return
        except wire.WireError as error:
            self._refuse(str(error))
            return
        if frame.to in (None, self._me) and self.peer in (None, frame.sender):
            self._hear(frame)
