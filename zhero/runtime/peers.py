"""Speaking to members: one send-only DEALER each, and short-lived ones to knock where a member may be.

A DEALER keeps what is said while there is no connection, and may deliver it to the next process on that port: a frame
says to which life it is, and the engine there looks. It never speaks back, with one exception: a node of another
cluster or version says so (`Rejected`), which is told once per endpoint. All else that arrives is dropped.

A send never blocks. Where a queue is full the frame is dropped and counted; the link above repeats what matters.

State: life -> its DEALER; several lives may have one endpoint. Bound: what the engine connects to, so its roster.
Endpoint -> a DEALER that has knocked there and is closed some seconds after the last time; bound: `KNOCKS_MAX_COUNT`,
beyond which the oldest is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

import zmq

from .. import wire
from ..core.messages import Frame, Rejected
from ..core.values import Life
from .auth import Keyring
from .sockets import Complaints, Context, Drops, Socket, Watch, connect, encoded, new_socket, read_parts

KNOCK_S = 5.0
"""How long a connection stays that was only made to knock."""
KNOCKS_MAX_COUNT = 256
_QUEUED_FRAMES_MAX = 1_000
_ANSWERS_MAX = 100
"""Frames that wait unread; there is nothing in them for us."""
_TOLD_MAX_COUNT = 256

Rejection = Callable[[str, str], None]
"""Endpoint, why: who listens there wants nothing to do with this node."""


class _Dealer:
    """One connection, to speak only."""

    def __init__(
        self,
        socket: Socket,
        endpoint: str,
        hear: Callable[[str, list[bytes]], None],
        complaints: Complaints | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.closes: asyncio.TimerHandle | None = None  # only of one that has knocked
        self._complaints = complaints
        self._socket = socket
        self._watch = Watch(socket, lambda: hear(endpoint, read_parts(socket, 1)))

    def send(self, data: bytes) -> bool:
        """False: the queue is full."""
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._watch.look_again()
        return True

    def close(self) -> None:
        if self.closes is not None:
            self.closes.cancel()
        if self._complaints is not None:
            self._complaints.close()
        self._watch.close()
        self._socket.close()


class Peers:
    """The connections of one node to others, on the running loop.

    Args:
        tag: of the cluster.
        keyring: what members are spoken to with.
        rejected: told once of an endpoint where a node of another cluster, version or secret listens.
    """

    def __init__(
        self, context: Context, tag: bytes, keyring: Keyring, rng: Random, drop: Drops, rejected: Rejection
    ) -> None:
        self._context = context
        self._tag = tag
        self._keyring = keyring
        self._rng = rng
        self._drop = drop
        self._rejected = rejected
        self._told: set[str] = set()  # endpoints that were told of; emptied when there are too many
        self._peers: dict[Life, _Dealer] = {}
        # Endpoint and key -> who knocks, the one that was used longest ago first.
        self._knocks: dict[tuple[str, str], _Dealer] = {}
        self._refused: dict[str, set[str]] = {}  # endpoint -> keys that it has refused; bound: `_knocks`

    def __contains__(self, life: Life) -> bool:
        return life in self._peers

    def connect(self, life: Life, endpoint: str, key: str = "") -> None:
        """From now on there are frames for this life; again: it has moved, if the endpoint is another.

        Args:
            key: see `Member`.
        """
        known = self._peers.get(life)
        if known is not None and known.endpoint == endpoint:
            return
        self.disconnect(life)
        dealer = self._dealer(endpoint, key)
        if dealer is not None:
            self._peers[life] = dealer

    def disconnect(self, life: Life) -> None:
        """No more of this one; what has been said gets a moment to leave."""
        dealer = self._peers.pop(life, None)
        if dealer is not None:
            dealer.close()

    def send(self, to: Life, frame: Frame) -> None:
        """Say this to a connected life."""
        self._put(self._peers[to], frame)

    def knock(self, endpoint: str, frame: Frame) -> None:
        """Say this to whoever listens there, with each key: nobody knows which one it is."""
        for key in self._keyring.marks:
            place = endpoint, key
            dealer = self._knocks.pop(place, None) or self._dealer(endpoint, key, knocks=True)
            if dealer is None:
                return
            if dealer.closes is not None:
                dealer.closes.cancel()
            self._knocks[place] = dealer
            dealer.closes = asyncio.get_running_loop().call_later(KNOCK_S, partial(self._end_knock, place))
            self._put(dealer, frame)
            if len(self._knocks) > KNOCKS_MAX_COUNT:
                self._end_knock(next(iter(self._knocks)))

    def close(self) -> None:
        """End all; what has been said gets a moment to leave."""
        for dealer in (*self._peers.values(), *self._knocks.values()):
            dealer.close()
        self._peers.clear()
        self._knocks.clear()

    def _end_knock(self, place: tuple[str, str]) -> None:
        self._knocks.pop(place).close()
        self._refused.pop(place[0], None)

    def _dealer(self, endpoint: str, key: str, *, knocks: bool = False) -> _Dealer | None:
        socket = new_socket(self._context, zmq.DEALER, send_max=_QUEUED_FRAMES_MAX, receive_max=_ANSWERS_MAX)
        self._keyring.speak(socket, key)
        complaints = Complaints(self._context, socket, partial(self._on_refused, endpoint, key)) if knocks else None
        if connect(socket, endpoint, self._rng):
            return _Dealer(socket, endpoint, self._hear, complaints)
        if complaints is not None:
            complaints.close()
        socket.close(0)
        self._drop("bad endpoint")
        return None

    def _put(self, dealer: _Dealer, frame: Frame) -> None:
        for data in encoded(frame, self._tag, self._drop):
            if not dealer.send(data):
                self._drop("receiver is slow")

    def _hear(self, endpoint: str, parts: list[bytes]) -> None:
        """What comes back: nothing, or that we are not wanted."""
        self._drop("answer to a member")
        why = self._rejection(parts)
        if why is not None:
            self._reject(endpoint, why)

    def _on_refused(self, endpoint: str, key: str, why: str) -> None:
        refused = self._refused.setdefault(endpoint, set())
        refused.add(key)
        if len(refused) == len(self._keyring.marks):
            self._reject(endpoint, why)

    def _reject(self, endpoint: str, why: str) -> None:
        if endpoint in self._told:
            return
        if len(self._told) >= _TOLD_MAX_COUNT:
            self._told.clear()
        self._told.add(endpoint)
        self._rejected(endpoint, why)

    def _rejection(self, parts: list[bytes]) -> str | None:
        """Why whoever sent this can't be talked to: what it says, or that its frames are of another cluster."""
        try:
            frame = wire.decode(parts[0], self._tag)
        except wire.WireInvalid:
            return None
        except wire.WireError as error:
            return str(error)
        return next((message.why for message in frame.messages if isinstance(message, Rejected)), None)
