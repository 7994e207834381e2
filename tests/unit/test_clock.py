"""The clock of a node: steady, rounded down, never early."""

from __future__ import annotations

import time

import pytest

from zhero.runtime.clock import Clock

HOUR_NS = 3600 * 10**9
START_NS = 1_800_000_000_123_456_789


class Hands:
    """Two clocks that a test moves by hand."""

    def __init__(self) -> None:
        self.wall = START_NS
        self.steady = 77 * HOUR_NS

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady)


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_it_starts_at_the_wall_rounded_down(hands: Hands) -> None:
    assert hands.clock().now_ms() == 1_800_000_000_123


def test_it_advances_with_the_steady_clock_and_only_by_whole_milliseconds(hands: Hands) -> None:
    clock = hands.clock()
    hands.steady += 543_210
    assert clock.now_ms() == 1_800_000_000_123
    hands.steady += 1
    assert clock.now_ms() == 1_800_000_000_124


@pytest.mark.parametrize("jump_ns", [-24 * HOUR_NS, 24 * HOUR_NS])
def test_a_jump_of_the_wall_moves_nothing_that_is_due(hands: Hands, jump_ns: int) -> None:
    clock = hands.clock()
    due_at_ms = clock.now_ms() + 60_000
    waits = clock.seconds_until(due_at_ms)
    hands.wall += jump_ns
    assert clock.now_ms() == due_at_ms - 60_000
    assert clock.seconds_until(due_at_ms) == waits


def test_wall_time_is_read_afresh(hands: Hands) -> None:
    clock = hands.clock()
    hands.wall += HOUR_NS
    assert clock.wall_ms() == pytest.approx((START_NS + HOUR_NS) / 1e6, abs=0.001)


def test_it_never_falls_even_if_its_source_does(hands: Hands) -> None:
    clock = hands.clock()
    hands.steady += 10 * HOUR_NS
    seen = clock.now_ms()
    hands.steady -= HOUR_NS
    assert clock.now_ms() == seen
    hands.steady += HOUR_NS + 1_000_000
    assert clock.now_ms() == seen + 1


@pytest.mark.parametrize("span_ms", [1, 7, 1_000, 86_400_000, 10 * 365 * 86_400_000])
@pytest.mark.parametrize("fraction_ns", [0, 1, 456_789, 999_999])
def test_a_timer_armed_with_what_is_left_is_not_early(hands: Hands, span_ms: int, fraction_ns: int) -> None:
    hands.wall = START_NS // 1_000_000 * 1_000_000 + fraction_ns
    clock = hands.clock()
    at_ms = clock.now_ms() + span_ms
    left_ns = span_ms * 1_000_000 - fraction_ns
    seconds = clock.seconds_until(at_ms)
    assert left_ns < seconds * 1e9 < left_ns + 2_000
    hands.steady += int(seconds * 1e9)
    assert clock.now_ms() >= at_ms


def test_nothing_is_left_of_an_instant_that_is_reached_or_past(hands: Hands) -> None:
    clock = hands.clock()
    assert clock.seconds_until(clock.now_ms()) == 0.0
    assert clock.seconds_until(0) == 0.0


def test_the_real_clock_agrees_with_the_wall_at_its_start() -> None:
    before_ms = time.time_ns() // 1_000_000
    now_ms = Clock().now_ms()
    assert before_ms - 1 <= now_ms <= time.time_ns() // 1_000_000 + 1
