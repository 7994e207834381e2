"""Notices a loop that is blocked, and says by which job.

The loop leaves a mark four times a second (`turned`, from a chain of `call_later`); a small daemon thread looks twice a
second how old it is. One warning when the mark is older than `warn_ms`, naming what is on the loop then, and one line
when the loop turns again.

It is the loop itself that says how long it was blocked, from the age of its last mark: so a job that never lets the
thread run either (an extension that holds the interpreter's lock) is reported at least afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from ..config import BLOCKED_WARN_MS

MARK_S = 0.25
LOOK_S = 0.5


class Heart:
    """Watches one loop.

    Args:
        who: what is on the loop right now, or None; called from the thread.
        warn_ms: how old the last mark must be for a warning.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        logger: logging.Logger,
        who: Callable[[], str | None],
        *,
        warn_ms: int = BLOCKED_WARN_MS,
    ) -> None:
        self._loop = loop
        self._log = logger
        self._who = who
        self._warn_s = warn_ms / 1000
        self._turned_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="zhero-heart", daemon=True)

    def start(self) -> None:
        """Begin to watch; on the loop."""
        self._turned_at = time.monotonic()
        self._timer = self._loop.call_later(MARK_S, self.turned)
        self._thread.start()

    def stop(self) -> None:
        """End; on the loop. The thread is gone at return."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()
        self._thread.join()

    def turned(self) -> None:
        """The loop turns: leave a mark, and say so if that was long in coming."""
        now = time.monotonic()
        blocked_s = now - self._turned_at
        self._turned_at = now
        if blocked_s > self._warn_s:
            self._log.warning("the event loop turns again: it was blocked for %.1f s", blocked_s)
        self._timer = self._loop.call_later(MARK_S, self.turned)

    def _watch(self) -> None:
        warned_of = -1.0
        while not self._stopped.wait(LOOK_S):
            mark = self._turned_at
            blocked_s = time.monotonic() - mark
            if blocked_s > self._warn_s and mark != warned_of:
                warned_of = mark
                who = self._who() or "something that is no job"
                self._log.warning("the event loop has been blocked for %.1f s by %s", blocked_s, who)
