"""The sockets of one simulated node: what it asks of the network, by life, as the driver over ZeroMQ keeps it.

State: life -> member, channel; beats endpoint -> subscription, shared by lives that had the same one; endpoint ->
channel that was opened to knock there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..core.messages import Frame
from ..core.values import Life, Member
from .network import Channel, Network, Process, Subscription

_KNOCK_US = (3_000_000, 8_000_000)


class Owner(Process, Protocol):
    """A node, as its sockets see it."""

    def hear(self, frame: Frame) -> None:
        """A beat arrives."""
        ...

    def peer_lost(self, life: Life) -> None:
        """A connection to that one's endpoint is lost, or so it seems."""
        ...


class Sockets:
    """What one node has open."""

    def __init__(self, network: Network, owner: Owner, endpoint: str, beats: str) -> None:
        self._network = network
        self._owner = owner
        self._channels: dict[Life, Channel] = {}
        self._members: dict[Life, Member] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._knocks: dict[str, Channel] = {}
        self._closed = False
        network.listen(endpoint, owner)
        network.listen(beats, owner)

    def connect(self, member: Member) -> None:
        """There will be frames for it, and its beats are wanted. Again: at other endpoints."""
        life = member.life
        known = self._members.get(life)
        if known is not None and (known.endpoint, known.beats) == (member.endpoint, member.beats):
            return
        if known is not None:
            self.disconnect(life)
        self._members[life] = member
        self._channels[life] = self._network.open(self._owner, member.endpoint, self._lost(life))
        if member.beats and member.beats not in self._subscriptions:
            beats = member.beats
            self._subscriptions[beats] = self._network.subscribe(
                self._owner, beats, lambda: self._lost_beats(beats), self._owner.hear
            )

    def disconnect(self, life: Life) -> None:
        """Nothing more for it."""
        member = self._members.pop(life, None)
        if member is None:
            return
        self._channels.pop(life).linger()
        if all(other.beats != member.beats for other in self._members.values()):
            subscription = self._subscriptions.pop(member.beats, None)
            if subscription is not None:
                subscription.close()

    def send(self, to: Life, frame: Frame) -> None:
        """To a member, or to a client on the connection it last spoke on."""
        channel = self._channels.get(to)
        if channel is not None:
            channel.send(frame)
        else:
            self._network.answer(self._owner, to, frame)

    def knock(self, endpoint: str, frame: Frame) -> None:
        """To whoever listens there."""
        channel = self._knocks.get(endpoint)
        if channel is None:
            channel = self._knocks[endpoint] = self._network.open(self._owner, endpoint, _nobody_cares)
            ways = self._network.ways
            ways.later(ways.rng.randint(*_KNOCK_US), lambda: self._knocked(endpoint))
        channel.send(frame)

    def probe(self, member: Member, tell: Callable[[bool], None]) -> None:
        """Try a plain connect to its inbox."""
        self._network.probe(self._owner, member.endpoint, tell)

    def publish(self, frame: Frame) -> None:
        """To all who have subscribed."""
        if not self._closed:
            self._network.publish(self._owner, frame)

    def close(self, *, killed: bool) -> None:
        """The process is gone."""
        self._closed = True
        self._network.end(self._owner, killed=killed)

    def _knocked(self, endpoint: str) -> None:
        channel = self._knocks.pop(endpoint, None)
        if channel is not None and not self._closed:
            channel.linger()

    def _lost(self, life: Life) -> Callable[[], None]:
        return lambda: self._owner.peer_lost(life)

    def _lost_beats(self, endpoint: str) -> None:
        for life, member in list(self._members.items()):
            if member.beats == endpoint:
                self._owner.peer_lost(life)


def _nobody_cares() -> None:
    pass
