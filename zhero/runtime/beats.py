"""Beats: what every member publishes, and hears of all others.

A PUB socket drops what a subscriber does not take in time, and all that is published before it has subscribed: right
for what is said again half a second later, and wrong for anything else. A queue of `_BEHIND_MAX` beats a subscriber
keeps what is old from arriving as if it were news.

Each member hears each other one twice a second, so in a large cluster most of what an idle node does is to wake up for
beats. Those that arrive within `REST_S` after others are read together, which halves its CPU time with 50 members; a
hint is given only after all beats that came before it.

One SUB socket hears all members. Several lives may have one endpoint (a restart on the same port), so connections are
counted. Its monitor tells of connections that were up and are lost: a hint that those lives may be over, told within
milliseconds of a kill. It is no more than a hint (a proxy, a network, a full table of descriptors may be the cause), so
it is given at most every `HINT_S` per endpoint; one that comes sooner waits, since it may be the one that matters.

State: life -> endpoint of its beats, and back; endpoint -> the hint that waits. Bound: the lives that the engine
connects to. The monitor's queue has no limit, as libzmq would wait in it for a loop that is blocked; it holds one event
per lost connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

import zmq

from .. import wire
from ..core.messages import Beat, Frame
from ..core.values import Life
from .auth import PLAIN, Keyring
from .gate import Gate
from .sockets import Context, Drops, Watch, bind, connect, new_socket, read_parts

HINT_S = 0.25
REST_S = 0.1
"""Beats that arrive within this span after others are read together."""
_BEHIND_MAX = 8
_QUEUED_BEATS_MAX = 10_000
_MONITOR = "inproc://zhero-beats"


class Publisher:
    """The PUB socket. Made by one thread, then used and closed by one other.

    Args:
        tag: of the cluster.
        endpoint: where to publish.
        keyring: who may listen.
        gate: counts who may not.

    Attributes:
        endpoint: with the port that the system chose.

    Raises:
        BindFailed: it is in use.
    """

    def __init__(
        self, context: Context, tag: bytes, endpoint: str, keyring: Keyring = PLAIN, gate: Gate | None = None
    ) -> None:
        self._tag = tag
        self._socket = new_socket(context, zmq.PUB, send_max=_BEHIND_MAX, receive_max=_BEHIND_MAX, linger_ms=0)
        keyring.serve(self._socket)
        try:
            self.endpoint = bind(
                self._socket,
                endpoint,
                "can't publish beats (they need a port besides that of the inbox, one above it where that is set) at",
            )
        except BaseException:
            self._socket.close(0)
            raise
        if gate is not None:
            gate.watch(self._socket)

    def publish(self, frame: Frame) -> None:
        """To all who listen. Never blocks."""
        try:
            self._socket.send(wire.encode(frame, self._tag), zmq.NOBLOCK)
        except zmq.Again:
            pass

    def close(self) -> None:
        self._socket.close(0)


class Listener:
    """The SUB socket, on the running loop.

    Args:
        tag: of the cluster.
        keyring: what members are spoken to with.
        receive: called with each frame that holds a beat.
        lost: called with each life whose connection was up and is lost.
    """

    def __init__(
        self,
        context: Context,
        tag: bytes,
        keyring: Keyring,
        rng: Random,
        drop: Drops,
        receive: Callable[[Frame], None],
        lost: Callable[[Life], None],
    ) -> None:
        self._tag = tag
        self._keyring = keyring
        self._rng = rng
        self._drop = drop
        self._receive = receive
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._endpoint_of: dict[Life, str] = {}
        self._lives_at: dict[str, list[Life]] = {}
        self._hinted_at: dict[str, float] = {}
        self._hints: dict[str, asyncio.TimerHandle] = {}
        self._socket = new_socket(context, zmq.SUB, send_max=0, receive_max=_QUEUED_BEATS_MAX, linger_ms=0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.monitor(_MONITOR, zmq.EVENT_DISCONNECTED)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect(_MONITOR)
        self._beats = Watch(self._socket, self._read, rest_s=REST_S)
        self._watches = (self._beats, Watch(self._monitor, self._read_event))

    def connect(self, life: Life, endpoint: str, key: str = "") -> None:
        """Hear this life; again: it has moved, if the endpoint is another. `key`: see `Member`."""
        if self._endpoint_of.get(life) == endpoint:
            return
        self.disconnect(life)
        if endpoint in self._lives_at:
            # Another process may listen there by now, and the next try to reach it be seconds away.
            self._socket.disconnect(endpoint)
        self._keyring.speak(self._socket, key)
        if not connect(self._socket, endpoint, self._rng):
            self._drop("bad endpoint")
            return
        self._endpoint_of[life] = endpoint
        self._lives_at.setdefault(endpoint, []).append(life)
        self._look_again()

    def disconnect(self, life: Life) -> None:
        """Do not hear it any more, unless another life is there."""
        endpoint = self._endpoint_of.pop(life, None)
        if endpoint is None:
            return
        lives = self._lives_at[endpoint]
        lives.remove(life)
        if not lives:
            del self._lives_at[endpoint]
            self._hinted_at.pop(endpoint, None)
            hint = self._hints.pop(endpoint, None)
            if hint is not None:
                hint.cancel()
            self._socket.disconnect(endpoint)
            self._look_again()

    def close(self) -> None:
        """Hear nothing any more."""
        for watch in self._watches:
            watch.close()
        for hint in self._hints.values():
            hint.cancel()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._endpoint_of.clear()
        self._lives_at.clear()

    def _look_again(self) -> None:
        for watch in self._watches:
            watch.look_again()

    def _read(self) -> None:
        parts = read_parts(self._socket, 1)
        if len(parts) > 1:
            self._drop("extra parts")
            return
        try:
            frame = wire.decode(parts[0], self._tag)
        except wire.WireError as error:
            self._drop(type(error).__name__)
            return
        if frame.to is None and not frame.numbered and all(isinstance(it, Beat) for it in frame.messages):
            self._receive(frame)
        else:
            self._drop("no beat")

    def _read_event(self) -> None:
        """Only one kind of event is asked for, so its endpoint is all there is to know."""
        endpoint = read_parts(self._monitor, 2)[-1].decode(errors="replace")
        if endpoint not in self._lives_at or endpoint in self._hints:
            return
        wait_s = self._hinted_at.get(endpoint, 0.0) + HINT_S - self._loop.time()
        if wait_s <= 0:
            self._hint(endpoint)
        else:
            self._hints[endpoint] = self._loop.call_later(wait_s, partial(self._hint, endpoint))

    def _hint(self, endpoint: str) -> None:
        self._hints.pop(endpoint, None)
        self._hinted_at[endpoint] = self._loop.time()
        self._beats.look()  # what was said before the loss must not be taken for what was said after it
        for life in list(self._lives_at.get(endpoint, ())):
            self._lost(life)
