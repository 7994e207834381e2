"""The shapes in which a network falls apart. Each cuts a lab for a while and ends with all ways whole.

Who is on which side is drawn from `rng`. Nothing is waited for but the time: whatever nodes make of it is theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import permutations
from random import Random

from .lab import Lab, Way

FLAP_S = 1.0
STEP_S = 0.7

Shape = Callable[[Lab, Random, float], Awaitable[str]]
"""Cuts for about so many seconds; returns what was cut, for people."""


def between(some: Iterable[str], others: Iterable[str]) -> Iterator[Way]:
    """All ways from one group to another, and back."""
    there = list(others)
    for one in some:
        for other in there:
            yield one, other
            yield other, one


async def halves(lab: Lab, rng: Random, span_s: float) -> str:
    """Two of five here, three there."""
    names = rng.sample(lab.names, len(lab.names))
    few, many = names[: len(names) // 2], names[len(names) // 2 :]
    lab.cut(between(few, many))
    await asyncio.sleep(span_s)
    return f"{' '.join(sorted(few))} | {' '.join(sorted(many))}"


async def isolated(lab: Lab, rng: Random, span_s: float) -> str:
    """One sees nobody."""
    one, *others = rng.sample(lab.names, len(lab.names))
    lab.cut(between([one], others))
    await asyncio.sleep(span_s)
    return f"{one} alone"


async def one_way(lab: Lab, rng: Random, span_s: float) -> str:
    """One is not heard: by one other, or by anybody; or it hears nobody."""
    one, *others = rng.sample(lab.names, len(lab.names))
    how = rng.choice(("to one", "mute", "deaf"))
    if how == "to one":
        lab.cut([(one, others[0])])
    elif how == "mute":
        lab.cut((one, other) for other in others)
    else:
        lab.cut((other, one) for other in others)
    await asyncio.sleep(span_s)
    return f"{one} -> {others[0]}" if how == "to one" else f"{one} {how}"


async def bridge(lab: Lab, rng: Random, span_s: float) -> str:
    """Two groups, and one member between them that sees both."""
    middle, *rest = rng.sample(lab.names, len(lab.names))
    half = len(rest) // 2
    lab.cut(between(rest[:half], rest[half:]))
    await asyncio.sleep(span_s)
    return f"{' '.join(sorted(rest[:half]))} - {middle} - {' '.join(sorted(rest[half:]))}"


async def ring(lab: Lab, rng: Random, span_s: float) -> str:
    """Each sees its two neighbours and nobody else: of five, each sees another majority."""
    names = rng.sample(lab.names, len(lab.names))
    count = len(names)
    near = {frozenset((names[it], names[(it + 1) % count])) for it in range(count)}
    lab.cut(way for way in permutations(names, 2) if frozenset(way) not in near)
    await asyncio.sleep(span_s)
    return f"ring {' '.join(names)}"


async def flapping(lab: Lab, rng: Random, span_s: float) -> str:
    """Two sides that see one another every other second."""
    names = rng.sample(lab.names, len(lab.names))
    some = rng.randint(1, len(names) // 2)
    for _ in range(max(1, round(span_s / 2 / FLAP_S))):
        lab.cut(between(names[:some], names[some:]))
        await asyncio.sleep(FLAP_S)
        lab.heal()
        await asyncio.sleep(FLAP_S)
    return f"{' '.join(sorted(names[:some]))} ~ {' '.join(sorted(names[some:]))}"


async def swizzle(lab: Lab, rng: Random, span_s: float) -> str:
    """One after another is cut off, and they come back in another order."""
    going, coming = (rng.sample(lab.names, len(lab.names)) for _ in range(2))
    away: list[str] = []

    def cut() -> None:
        lab.cut(way for way in permutations(lab.names, 2) if away and not {*way}.isdisjoint(away))

    for name in going:
        away.append(name)
        cut()
        await asyncio.sleep(STEP_S)
    await asyncio.sleep(max(0.0, span_s - 2 * STEP_S * len(going)))
    for name in coming:
        away.remove(name)
        cut()
        await asyncio.sleep(STEP_S)
    return f"away {' '.join(going)}, back {' '.join(coming)}"


SHAPES: dict[str, Shape] = {
    "halves": halves,
    "isolated": isolated,
    "one way": one_way,
    "bridge": bridge,
    "ring": ring,
    "flapping": flapping,
    "swizzle": swizzle,
}
