"""Beats for a loop that may be blocked, and says by which job it is.

The loop leaves a mark with each turn of the driver and four times a second (`mark`, a chain of `call_later`); a small
daemon thread looks twice a second how old it is. One warning when the mark is older than `warn_ms`, naming what is on
the loop then, and one line when the loop turns again. It is the loop itself that says how long it was blocked, from the
age of its last mark: so a job that never lets the thread run either (an extension that holds the interpreter's lock) is
reported at least afterwards.

The same thread publishes: every `beat_ms` the snapshot that the loop has left (`show`), with a number and with the age
of the mark filled in. So a member whose loop a job blocks is seen to be late, not dead. A snapshot that has news is
published at once, but not within `NEWS_MS` of the last beat. After `stuck_after_ms` without a turn the heart falls
silent, until the loop turns: who can do nothing must not be counted on for ever.

Between beats it waits in the gate, where it answers who may come in (`gate`): so a blocked loop fails no handshake. A
flood of strangers there delays no beat.

Publisher and gate are this thread's alone from `start` on; they are closed when the thread ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..config import BLOCKED_WARN_MS, STUCK_AFTER_MS
from ..core.messages import Beat, Frame, Message
from .beats import Publisher
from .gate import Gate

MARK_S = 0.25
LOOK_S = 0.5
NEWS_MS = 50
"""At least so long between two beats, whatever the news."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a heart publishes with, and how often.

    Attributes:
        on_mark: called on the loop with each mark of the chain.
        gate: where it waits between beats, and answers who may come in.
    """

    publisher: Publisher
    beat_ms: int
    on_mark: Callable[[], None]
    stuck_after_ms: int = STUCK_AFTER_MS
    gate: Gate | None = None


class Heart:
    """Watches one loop, and beats for it.

    Args:
        who: what is on the loop right now, or None; called from the thread.
        warn_ms: how old the last mark must be for a warning.
        pulse: None: it only watches.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        logger: logging.Logger,
        who: Callable[[], str | None],
        *,
        warn_ms: int = BLOCKED_WARN_MS,
        pulse: Pulse | None = None,
    ) -> None:
        self._loop = loop
        self._log = logger
        self._who = who
        self._warn_s = warn_ms / 1000
        self._pulse = pulse
        self._snapshot: Frame | None = None
        self._number = 0
        self._stuck_of = -1.0  # the mark at which it fell silent
        self._marked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._bell = threading.Event()  # news, or the end
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; on the loop."""
        self._marked_at = time.monotonic()
        self._timer = self._loop.call_later(MARK_S, self._chain)
        self._thread = threading.Thread(target=self._live, name="zhero-heart", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; on the loop. The thread is gone at return, and the publisher closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()
        self._ring()
        if self._thread is not None:
            self._thread.join()
            self._thread = None  # not for the garbage collector, in which an interrupt can get lost

    def show(self, snapshot: Frame, *, news: bool) -> None:
        """Publish this from now on; with news, at once. On the loop."""
        self._snapshot = snapshot
        if news:
            self._ring()

    def _ring(self) -> None:
        self._bell.set()
        if self._pulse is not None and self._pulse.gate is not None:
            self._pulse.gate.ring()

    def mark(self) -> None:
        """The loop turns: leave a mark, and say so if that was long in coming."""
        now = time.monotonic()
        blocked_s = now - self._marked_at
        self._marked_at = now
        if blocked_s > self._warn_s:
            self._log.warning("the event loop turns again: it was blocked for %.1f s", blocked_s)

    def _chain(self) -> None:
        self.mark()
        self._timer = self._loop.call_later(MARK_S, self._chain)
        if self._pulse is not None:
            self._pulse.on_mark()

    # --- in the thread --------------------------------------------------------------------------------------------

    def _live(self) -> None:
        beat_s = self._pulse.beat_ms / 1000 if self._pulse is not None else LOOK_S
        now = time.monotonic()
        look_at, beat_at, beaten_at, warned_of = now + LOOK_S, now, 0.0, -1.0
        try:
            while not self._stopped.is_set():
                now = time.monotonic()
                news = self._bell.is_set()
                if now >= beat_at or (news and now - beaten_at >= NEWS_MS / 1000):
                    self._bell.clear()
                    self._beat(now)
                    beaten_at, beat_at, news = now, now + beat_s, False
                if now >= look_at:
                    warned_of = self._look(now, warned_of)
                    look_at = now + LOOK_S
                if news:  # too soon after the last beat: it has to wait, and the bell rings already
                    self._wait(NEWS_MS / 1000 - (now - beaten_at), self._stopped)
                elif not self._stopped.is_set():
                    self._wait(min(look_at, beat_at) - time.monotonic(), self._bell)
        finally:
            if self._pulse is not None:
                self._pulse.publisher.close()
                if self._pulse.gate is not None:
                    self._pulse.gate.close()

    def _wait(self, seconds: float, event: threading.Event) -> None:
        gate = self._pulse.gate if self._pulse is not None else None
        if gate is None:
            event.wait(seconds)
        else:
            gate.wait(seconds, rung=event is self._bell or self._stopped.is_set())

    def _beat(self, now: float) -> None:
        snapshot, pulse, mark = self._snapshot, self._pulse, self._marked_at
        if pulse is None or snapshot is None:
            return
        age_ms = max(0, round((now - mark) * 1000))
        if age_ms > pulse.stuck_after_ms:
            if mark != self._stuck_of:
                self._stuck_of = mark
                self._log.error("! no turn of the event loop for %d s: others will give this node up", age_ms // 1000)
            return
        self._number += 1
        messages: list[Message] = [
            replace(it, number=self._number, age_ms=age_ms) if isinstance(it, Beat) else it for it in snapshot.messages
        ]
        try:
            pulse.publisher.publish(Frame(snapshot.sender, None, messages))
        except Exception:  # the thread has to live on, whatever is wrong with one snapshot
            self._log.exception("! a beat can't be published")

    def _look(self, now: float, warned_of: float) -> float:
        """Warn of a mark that is too old, once; returns which one was warned of last."""
        mark = self._marked_at
        blocked_s = now - mark
        if blocked_s <= self._warn_s or mark == warned_of:
            return warned_of
        who = self._who() or "something that is no job"
        self._log.warning("the event loop has been blocked for %.1f s by %s", blocked_s, who)
        return mark
