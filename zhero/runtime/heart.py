"""The heart: a small thread that notices when the loop is blocked, and says by which job.

The loop leaves the time of its last turn every quarter of a second; the thread looks twice a second how old that is.
A loop that has not turned for `BLOCKED_WARN_MS` is reported once, with the job that is on it, and once more when it
turns again. The thread needs only moments of the interpreter lock, so it sees what blocks everything else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from ..config import BLOCKED_WARN_MS

_TURN_S = 0.25
_LOOK_S = 0.5


class Heart:
    """Watches one loop.

    Args:
        who: names the job that is on the loop at this moment, or None.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger, who: Callable[[], str | None]) -> None:
        self._loop = loop
        self._log = logger
        self._who = who
        self._turned_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="zhero-heart", daemon=True)

    def start(self) -> None:
        """Begin to watch; on the loop."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; on the loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._stop.set()
        self._thread.join()

    def _turn(self) -> None:
        self._turned_at = time.monotonic()
        self._timer = self._loop.call_later(_TURN_S, self._turn)

    def _watch(self) -> None:
        blocked_at: float | None = None
        culprit = "code outside of jobs"
        while not self._stop.wait(_LOOK_S):
            turned_at = self._turned_at
            late_s = time.monotonic() - turned_at - _TURN_S
            if blocked_at is not None and turned_at != blocked_at:
                self._log.warning(
                    "! the loop turns again after %.1f s: it was blocked by %s", turned_at - blocked_at, culprit
                )
                blocked_at = None
            if blocked_at is None and late_s * 1000 > BLOCKED_WARN_MS:
                blocked_at = turned_at
                culprit = self._who() or "code outside of jobs"
                self._log.warning(
                    "! the loop is blocked, for %.1f s so far, by %s: nothing else runs here meanwhile; use a plain "
                    'function or executor="process" for such work',
                    late_s,
                    culprit,
                )
