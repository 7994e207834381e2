"""Sockets: bytes between processes, frames between the transport and the network.

One ROUTER hears everybody. It sets no routing ids: libzmq gives each connection a random one, which is only "this
connection"; who speaks stands in the frame. Members are spoken to over connections of our own (`peers`), and publish
their beats (`beats`). A client, which is no member, is answered on the connection it last spoke on; what can't be sent
is dropped (a `Send` is a wish).

Nothing that arrives can raise here: it is counted (`dropped`: why -> frames) and dropped. A frame of another cluster
or version is answered with `Rejected`, so that whoever sent it can be told what is wrong. To which life a frame speaks
is for the engine to judge.

Bounds: `FRAME_MAX_BYTES` a frame, `CLIENTS_MAX_COUNT` connections remembered; libzmq's own queues by high-water marks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from random import Random

import zmq

from .. import wire
from ..config import CLIENTS_MAX_COUNT
from ..core.messages import Frame, Rejected
from ..core.values import Life, Member
from .auth import PLAIN, Keyring
from .beats import Listener, Publisher
from .gate import Gate
from .peers import Peers, Rejection
from .sockets import Drops, Watch, bind, encoded, new_context, new_socket, read_parts

_QUEUED_FRAMES_MAX = 10_000


def _ignore_life(life: Life) -> None:
    pass


def _ignore_rejection(endpoint: str, why: str) -> None:
    pass


class Transport:
    """All sockets of one node but the one that publishes, and the gate, which is waited in by the heart.

    Args:
        cluster: name of the cluster; frames of others are refused.
        receive: called on the loop with each frame.
        keyring: who is let in, and what others are spoken to with.
        lost: called with each life whose connection was up and is lost; a hint.
        rejected: see `Peers`.
    """

    def __init__(
        self,
        cluster: str,
        receive: Callable[[Frame], None],
        *,
        rng: Random,
        lost: Callable[[Life], None] = _ignore_life,
        rejected: Rejection = _ignore_rejection,
        keyring: Keyring = PLAIN,
        logger: logging.Logger | None = None,
    ) -> None:
        self._keyring = keyring
        self._log = logger or logging.getLogger("zhero")
        self._tag = wire.cluster_tag(cluster)
        self._receive = receive
        self._rng = rng
        self._lost = lost
        self._rejected = rejected
        self.gate: Gate  # since `open`; the caller's to wait in, and to close before `term`
        self._drop = Drops()
        self._connections: dict[Life, bytes] = {}  # client -> routing id; the one silent for longest first
        self._open = False

    @property
    def dropped(self) -> Mapping[str, int]:
        """Why -> how often something was dropped."""
        return self._drop.counts

    def open(self, endpoint: str, me: Life) -> str:
        """Bind the inbox; nothing is read before `listen`.

        Args:
            me: the sender of what is said to strangers.

        Returns:
            The endpoint, with the port that the system chose.

        Raises:
            BindFailed: the address is in use, or not of this host.
        """
        self._me = me
        self._context = new_context()
        self.gate = Gate(self._context, self._keyring, self._log)
        self._inbox = new_socket(self._context, zmq.ROUTER, send_max=_QUEUED_FRAMES_MAX, receive_max=_QUEUED_FRAMES_MAX)
        self._inbox.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._keyring.serve(self._inbox)
        try:
            bound = bind(self._inbox, endpoint, "can't listen at")
        except BaseException:
            self._inbox.close(0)
            self.gate.close()
            self._context.term()
            raise
        self.gate.watch(self._inbox)
        return bound

    def publisher(self, endpoint: str) -> Publisher:
        """What publishes for this node; the caller's to close, before `term`.

        Raises:
            BindFailed: the endpoint is in use.
        """
        return Publisher(self._context, self._tag, endpoint, self._keyring, self.gate)

    def listen(self) -> None:
        """Read what arrives, on the running loop."""
        common = self._context, self._tag, self._keyring, self._rng, self._drop
        self._peers = Peers(*common, self._rejected)
        self._listener = Listener(*common, self._receive, self._lost)
        self._watch = Watch(self._inbox, self._read)
        self._open = True

    def close(self) -> None:
        """Close all sockets; what has been said gets a moment to leave, until `term` returns."""
        if self._open:
            self._open = False
            self._watch.close()
            self._listener.close()
            self._peers.close()
            self._connections.clear()
        self._inbox.close()

    def term(self) -> None:
        """Wait until what has been said has left, or its moment is over. Any thread; after `close`."""
        self._context.term()

    # --- out ------------------------------------------------------------------------------------------------------

    def connect(self, member: Member) -> None:
        """There will be frames for this member, and its beats are wanted; again: with other endpoints."""
        if self._open:
            self._connections.pop(member.life, None)
            self._peers.connect(member.life, member.endpoint, member.key)
            if member.beats:
                self._listener.connect(member.life, member.beats, member.key)

    def disconnect(self, life: Life) -> None:
        """No more of this one."""
        if self._open:
            self._peers.disconnect(life)
            self._listener.disconnect(life)

    def knock(self, endpoint: str, frame: Frame) -> None:
        """Say this to whoever listens there."""
        if self._open:
            self._peers.knock(endpoint, frame)

    def send(self, to: Life, frame: Frame) -> None:
        """Say this to a connected member, or to a client that has spoken to us."""
        if not self._open:
            return
        if to in self._peers:
            self._peers.send(to, frame)
            return
        connection = self._connections.get(to)
        if connection is None:
            self._drop("unknown receiver")
            return
        for data in encoded(frame, self._tag, self._drop):
            self._put(connection, data, to)
        self._watch.look_again()

    def _put(self, connection: bytes, data: bytes, to: Life) -> None:
        try:
            self._inbox.send(connection, zmq.SNDMORE | zmq.NOBLOCK)
            self._inbox.send(data, zmq.NOBLOCK)
        except zmq.Again:
            self._drop("receiver is slow")
        except zmq.ZMQError:
            self._drop("receiver is gone")
            self._connections.pop(to, None)

    # --- in -------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """One message: the routing id of its connection, then one part."""
        connection, *parts = read_parts(self._inbox, 2)
        if len(parts) > 1:
            self._drop("extra parts")
        elif parts and parts[0]:
            self._take(connection, parts[0])

    def _take(self, connection: bytes, data: bytes) -> None:
        try:
            frame = wire.decode(data, self._tag)
        except wire.WireError as error:
            self._drop(type(error).__name__)
            if not isinstance(error, wire.WireInvalid):
                self._reject(connection, str(error))
            return
        if frame.sender not in self._peers:
            self._connections.pop(frame.sender, None)
            self._connections[frame.sender] = connection
            if len(self._connections) > CLIENTS_MAX_COUNT:
                del self._connections[next(iter(self._connections))]
        self._receive(frame)

    def _reject(self, connection: bytes, why: str) -> None:
        data = wire.encode(Frame(self._me, None, [Rejected(why)]), self._tag)
        self._put(connection, data, self._me)
