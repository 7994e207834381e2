"""Clocks of simulated processes: each is off by some span, and goes a little too fast or too slow.

True time counts microseconds since the world began, and nobody in it can read that. So whatever compares the clocks of
two nodes, or takes a span of one clock for the same span of another, goes wrong here, as it would in life.
"""

from __future__ import annotations

from collections.abc import Callable

_MILLION = 1_000_000


class Clock:
    """The clock of one process.

    Args:
        now_us: true time.
        begun_ms: what this clock said when the world began, in ms since the epoch.
        drift_ppm: how much too fast it goes, in millionths.
    """

    def __init__(self, now_us: Callable[[], int], begun_ms: int, drift_ppm: int = 0) -> None:
        self.begun_ms = begun_ms
        self.drift_ppm = drift_ppm
        self._now_us = now_us

    def us(self) -> int:
        """Now, in microseconds since the world began, as this clock counts them."""
        return self._own_us(self._now_us())

    def ms(self) -> int:
        """Now, in ms since the epoch: what an engine is told."""
        return self.begun_ms + self.us() // 1000

    def true_us(self, at_ms: int) -> int:
        """The true instant from which on it says that, or more."""
        own_us = (at_ms - self.begun_ms) * 1000
        true_us = own_us * _MILLION // (_MILLION + self.drift_ppm)
        while self._own_us(true_us) >= own_us:
            true_us -= 1
        while self._own_us(true_us) < own_us:
            true_us += 1
        return true_us

    def _own_us(self, true_us: int) -> int:
        return true_us + true_us * self.drift_ppm // _MILLION
