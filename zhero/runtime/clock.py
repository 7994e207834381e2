"""One clock for a node: int milliseconds that look like wall time and never jump.

The wall is read once, at the start; from then on the boot-time clock is added to it. So a step of the wall clock (NTP,
a person) moves nothing that is due, and the time a machine sleeps counts: a job due during a suspend is due on waking.
Where the system has no boot-time clock the monotonic one stands in (on macOS it counts sleep as well).

The wall as it is now is asked for only at the door: to turn a `run_at` into a span, and for what people read.

Invariant: `now_ms` never falls. It is rounded down, so nothing counts as due before it is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

NS_PER_MS = 1_000_000
ROUNDING_NS = 1_000
"""Added to a span before it becomes a float of seconds: more than what a float of ten years loses."""


def since_boot_ns() -> int:
    """Nanoseconds since some moment before this process: sleep counts where the system can tell."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return time.monotonic_ns()


class Clock:
    """Tells the time of this process.

    Args:
        wall_ns: reads the wall clock, in ns since the epoch.
        steady_ns: reads a clock that only goes forward, in ns.
    """

    __slots__ = ("_last_ms", "_origin_ns", "_steady_ns", "_wall_ns")

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = since_boot_ns) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._origin_ns = wall_ns() - steady_ns()
        self._last_ms = 0

    def now_ms(self) -> int:
        """The time that the core is given. Never falls; safe from any thread."""
        now = (self._origin_ns + self._steady_ns()) // NS_PER_MS
        if now < self._last_ms:
            return self._last_ms
        self._last_ms = now
        return now

    def wall_ms(self) -> float:
        """The wall clock as it is now, in ms since the epoch: what `run_at` is measured against."""
        return self._wall_ns() / NS_PER_MS

    def seconds_until(self, at_ms: int) -> float:
        """How long to sleep so that `now_ms() >= at_ms` afterwards: a microsecond late at most, never early; 0: now."""
        left_ns = at_ms * NS_PER_MS - (self._origin_ns + self._steady_ns())
        return (left_ns + ROUNDING_NS) / 1e9 if left_ns > 0 else 0.0
