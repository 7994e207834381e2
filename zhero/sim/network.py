"""Carries frames between processes, as bytes, with delay, and loses connections.

Between two processes there is one connection at a time: what is sent over it arrives in order, or, when it is lost,
up to some frame and no further. What is sent while there is none is lost. A frame goes through the real codec on both
sides; bytes that are no frame are counted and dropped, as a node does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .. import wire
from ..core.messages import Frame
from ..core.values import Life
from ..errors import ZheroError
from .story import BrokenPromise

Later = Callable[[int, Callable[[], None]], None]
"""Microseconds from now, and what is to be done then."""
Receive = Callable[[Frame], None]

_DELAY_US = (50, 5_000)
_SLOW_DELAY_US = 300_000
_SLOW_SHARE = 0.02


@dataclass(slots=True)
class _Way:
    """One direction of one connection."""

    arrives_us: int = 0
    lost: bool = False


class Network:
    """All connections of one world."""

    def __init__(self, rng: Random, cluster: str, now_us: Callable[[], int], later: Later) -> None:
        self.garbage_count = 0
        self.lost_count = 0
        self._rng = rng
        self._tag = wire.cluster_tag(cluster)
        self._now_us = now_us
        self._later = later
        self._processes: dict[Life, Receive] = {}
        self._ways: dict[tuple[Life, Life], _Way] = {}

    def attach(self, life: Life, receive: Receive) -> None:
        """A process listens."""
        self._processes[life] = receive

    def connect(self, one: Life, other: Life) -> None:
        """They have a new connection."""
        self._ways[one, other] = _Way()
        self._ways[other, one] = _Way()

    def lose(self, one: Life, other: Life) -> None:
        """Their connection breaks: what is under way on it never arrives."""
        for ends in ((one, other), (other, one)):
            way = self._ways.pop(ends, None)
            if way is not None:
                way.lost = True

    def send(self, frame: Frame, to: Life) -> None:
        """Say it to that process."""
        data = wire.encode(frame, self._tag)
        if wire.decode(data, self._tag) != frame:
            raise BrokenPromise(f"the codec changes {frame}")
        self.send_bytes(frame.sender, to, data)

    def send_bytes(self, sender: Life, to: Life, data: bytes) -> None:
        """The same with any bytes."""
        way = self._ways.get((sender, to))
        if way is None:
            self.lost_count += 1
            return
        slow = self._rng.random() < _SLOW_SHARE
        delay_us = self._rng.randint(_DELAY_US[0], _SLOW_DELAY_US if slow else _DELAY_US[1])
        now_us = self._now_us()
        way.arrives_us = max(way.arrives_us, now_us + delay_us)
        self._later(way.arrives_us - now_us, lambda: self._arrive(way, to, data))

    def spoil(self, frame: Frame) -> bytes:
        """A frame with some of its bytes changed, missing or added."""
        data = bytearray(wire.encode(frame, self._tag))
        place = self._rng.randrange(len(data))
        how = self._rng.randrange(4)
        if how == 0:
            data[place] ^= 1 << self._rng.randrange(8)
        elif how == 1:
            del data[place:]
        elif how == 2:
            data += self._rng.randbytes(5)
        else:
            data = bytearray(self._rng.randbytes(place))
        return bytes(data)

    def _arrive(self, way: _Way, to: Life, data: bytes) -> None:
        if way.lost:
            self.lost_count += 1
            return
        try:
            frame = wire.decode(data, self._tag)
        except ZheroError:
            self.garbage_count += 1
            return
        self._processes[to](frame)
