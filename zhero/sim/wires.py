"""What frames travel on between simulated processes: ways that are late, get cut, and break with what is on them.

A `Pipe` is one direction of one TCP connection: in order, late, and when it breaks, what is under way is lost or stays
in the sender's memory. A cut of the way from one place to another loses nothing by itself: what is under way stands
still until the cut is healed, as with packets that are sent again, unless the connection breaks meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ..core.messages import Frame

Later = Callable[[int, Callable[[], None]], None]
"""Microseconds from now, and what is to be done then."""
Load = Frame | bytes
"""A frame that has been through the codec, or bytes that are none."""

_AGAIN_US = 1_000_000
"""After a cut, what stood still is sent again within so long."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How good a network is. Spans in microseconds.

    Attributes:
        delay_us: the shortest and the longest time a frame takes, most often.
        slow_share: how many take longer, up to `slow_us`.
        drop_share: how many beats are lost by themselves.
    """

    delay_us: tuple[int, int] = (50, 5_000)
    slow_share: float = 0.02
    slow_us: int = 300_000
    drop_share: float = 0.01


class Ways:
    """Which places reach which others, and how long it takes.

    State: (from, to) that is cut -> since when; (from, to) -> when it was last healed; pipes that stand still.
    """

    def __init__(self, rng: Random, weather: Weather, now_us: Callable[[], int], later: Later) -> None:
        self.rng = rng
        self.weather = weather
        self.now_us = now_us
        self.later = later
        self.cuts: dict[tuple[str, str], int] = {}
        self.healed_us: dict[tuple[str, str], int] = {}
        self._still: list[Pipe] = []

    def delay_us(self) -> int:
        """How long the next frame takes."""
        weather, rng = self.weather, self.rng
        if rng.random() < weather.slow_share:
            return rng.randint(weather.delay_us[0], weather.slow_us)
        return rng.randint(*weather.delay_us)

    def reaches(self, source: str, target: str) -> bool:
        """Whether what one place sends gets to the other."""
        return (source, target) not in self.cuts

    def reaches_and_back(self, source: str, target: str) -> bool:
        return self.reaches(source, target) and self.reaches(target, source)

    def cut(self, source: str, target: str) -> None:
        """From now on nothing gets from one place to the other."""
        self.cuts.setdefault((source, target), self.now_us())

    def heal(self, source: str, target: str) -> None:
        """It gets there again."""
        if self.cuts.pop((source, target), None) is not None:
            self.healed_us[source, target] = self.now_us()
            still, self._still = self._still, []
            for pipe in still:
                pipe.go_on()

    def heal_all(self) -> None:
        """No way is cut any more."""
        for source, target in list(self.cuts):
            self.heal(source, target)

    def last_cut_us(self, source: str, target: str) -> int:
        """When the way was last cut, or is; long ago if never."""
        if (source, target) in self.cuts:
            return self.now_us()
        return self.healed_us.get((source, target), -(1 << 60))

    def stand_still(self, pipe: Pipe) -> None:
        """It goes on when the cut is healed."""
        self._still.append(pipe)


class Pipe:
    """One direction of one connection, from place to place."""

    def __init__(self, ways: Ways, source: str, target: str, deliver: Callable[[Load], None]) -> None:
        self.flying: deque[Load] = deque()
        self.is_open = True
        self._ways = ways
        self._source = source
        self._target = target
        self._deliver = deliver
        self._arrives_us = 0
        self._stands_still = False
        self._generation = 0

    def write(self, load: Load) -> None:
        """Send it; it arrives after what was sent before, or never."""
        self.flying.append(load)
        if not self._stands_still:
            self._expect(self._ways.delay_us())

    def shut(self, arriving_count: int = 0) -> list[Load]:
        """The connection is over; of what is under way, the first few still arrive.

        Returns:
            What does not.
        """
        flying = list(self.flying)
        self.flying = deque(flying[:arriving_count])
        self.is_open = bool(self.flying)
        return flying[arriving_count:]

    def go_on(self) -> None:
        """The cut is healed."""
        if not self._stands_still:
            return
        self._stands_still = False
        self._generation += 1
        again_us = self._ways.rng.randint(0, _AGAIN_US)
        for _ in self.flying:
            self._expect(again_us + self._ways.delay_us())

    def _expect(self, delay_us: int) -> None:
        now_us = self._ways.now_us()
        self._arrives_us = max(self._arrives_us, now_us + delay_us)
        generation = self._generation
        self._ways.later(self._arrives_us - now_us, lambda: self._arrive(generation))

    def _arrive(self, generation: int) -> None:
        if not self.flying or self._stands_still or generation != self._generation:
            return
        if not self._ways.reaches(self._source, self._target):
            self._stands_still = True
            self._ways.stand_still(self)
            return
        load = self.flying.popleft()
        self._deliver(load)
