"""The beat of a simulated node: on time also while its loop is blocked, for as long as that may last.

A beat is made of the snapshot that the engine left at its last turn, and says how long ago that was. A process that is
stopped says nothing; a loop that has not turned for `STUCK_AFTER_MS` makes its heart fall silent, until it turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Protocol

from ..config import STUCK_AFTER_MS
from ..core.messages import Beat, Frame
from .story import BrokenPromise

Later = Callable[[int, Callable[[], None]], None]
"""Microseconds from now, and what is to be done then."""

_JITTER_US = 20_000


class Body(Protocol):
    """The node that a heart beats for."""

    @property
    def is_over(self) -> bool: ...

    @property
    def is_stopped(self) -> bool: ...

    def snapshot(self) -> tuple[Frame, int]:
        """What is to be published, and how many ms ago the loop last turned."""
        ...

    def publish(self, frame: Frame) -> None: ...


class Heart:
    """Beats on and on, until its node is over."""

    def __init__(self, body: Body, rng: Random, later: Later, every_us: int, seen: Counter[str]) -> None:
        self._body = body
        self._rng = rng
        self._later = later
        self._every_us = every_us
        self._seen = seen
        self._number = 0

    def start(self) -> None:
        """The first beat comes soon."""
        self._later(self._rng.randint(0, _JITTER_US), self._beat)

    def _beat(self) -> None:
        body = self._body
        if body.is_over:
            return
        self._later(self._every_us + self._rng.randint(0, _JITTER_US), self._beat)
        if body.is_stopped:
            return
        frame, age_ms = body.snapshot()
        if age_ms >= STUCK_AFTER_MS:
            self._seen["heart silent"] += 1
            return
        beat = frame.messages[0] if len(frame.messages) == 1 else None
        if frame.to is not None or frame.numbered or not isinstance(beat, Beat) or beat.number or beat.age_ms:
            raise BrokenPromise(f"a snapshot for beats is {frame}")
        self._number += 1
        body.publish(replace(frame, messages=[replace(beat, number=self._number, age_ms=age_ms)]))
