"""Rings a simulated node at the deadline of its engine: mostly at it, now and then a little early, late or twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from .clock import Clock


class World(Protocol):
    """What an alarm needs of it."""

    rng: Random
    now_us: int
    seen: Counter[str]

    def later(self, delay_us: int, act: Callable[[], None]) -> None: ...


class Alarm:
    """Of one node.

    Args:
        clock: of the node; deadlines are instants on it.
        do: has something done by the node, now or, where it does not turn, when it does again.
        tick: what is done then.
    """

    def __init__(
        self, world: World, clock: Clock, do: Callable[[Callable[[], None]], None], tick: Callable[[], None]
    ) -> None:
        self._world = world
        self._clock = clock
        self._do = do
        self._tick = tick
        self._at_ms: int | None = None
        self._number = 0

    def set(self, deadline_ms: int | None) -> None:
        """This is the deadline from now on; None: there is none."""
        if deadline_ms == self._at_ms:
            return
        self._at_ms = deadline_ms
        self._number += 1
        if deadline_ms is None:
            return
        world, number = self._world, self._number
        at_us = self._clock.true_us(deadline_ms)
        chance = world.rng.random()
        if chance < 0.03:
            world.seen["tick early"] += 1
            at_us -= world.rng.randint(1, 5_000)
        elif chance < 0.15:
            world.seen["tick late"] += 1
            at_us += world.rng.randint(1, 20_000)
        world.later(max(0, at_us - world.now_us), lambda: self._do(lambda: self._ring(number)))

    def _ring(self, number: int) -> None:
        if number != self._number:
            return
        self._at_ms = None
        self._tick()
        if self._world.rng.random() < 0.03:
            self._world.seen["tick twice"] += 1
            self._tick()
