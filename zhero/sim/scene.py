"""What is drawn once per world of its cluster: how many nodes, how they find each other, and what is done to them.

Each world has some kinds of faults and not others (swarm testing): where everything goes wrong at once, what takes a
quiet minute to show never does. Some worlds have none at all, so that it is seen what happens then: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from .wires import Weather

MANY_COUNT = 50
_MANY_EVERY = 128
"""One seed in so many has `MANY_COUNT` nodes."""
_MANY_REST = 77

Seeds = Literal["all", "some", "first"]

FAULTS: dict[str, tuple[int, int]] = {
    "crash": (4_000, 15_000),
    "leave": (8_000, 20_000),
    "pause": (3_000, 12_000),
    "block": (4_000, 15_000),
    "freeze": (8_000, 20_000),
    "cut": (4_000, 12_000),
    "one-way cut": (4_000, 12_000),
    "split": (8_000, 20_000),
    "bridge": (8_000, 20_000),
    "flap": (8_000, 20_000),
    "swizzle": (12_000, 30_000),
    "loss": (1_000, 8_000),
    "false hint": (2_000, 8_000),
    "twin": (15_000, 40_000),
}
"""Kind -> the least and the greatest mean time between two of them, in virtual ms."""

_ALONE = ("crash", "pause", "block")
"""What can be done to a world of one node."""
_NO_FAULTS = ("leave", "block", "loss")
"""What must not be taken for one: a loop is late for less than `STUCK_AFTER_MS`, a connection is made anew."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn once per world of its cluster.

    Attributes:
        nodes: how many there are at first; `hosts`: on how many machines.
        profile: name of it.
        together: they start at once.
        seeds: whom each is told of at its start; `first_knows`: the first one too.
        discovers: they are told again and again who is there.
        later: more nodes that join while there is load.
        idle: nobody asks for anything.
        calm: nothing goes wrong: nodes come and go, loops are late, and no more.
        drift_ppm: clocks go so much too fast or slow, at most.
        advertised: how many of the nodes are reached through a proxy.
        faults: kind -> mean ms between two.
        returns: how likely a process that is gone has a successor.
    """

    nodes: int = 1
    hosts: int = 1
    profile: str = "lan"
    together: bool = True
    seeds: Seeds = "all"
    first_knows: bool = True
    discovers: bool = False
    later: int = 0
    idle: bool = False
    calm: bool = False
    drift_ppm: int = 0
    advertised: float = 0.0
    weather: Weather = field(default_factory=Weather)
    faults: dict[str, int] = field(default_factory=dict[str, int])
    returns: float = 0.8

    @classmethod
    def draw(cls, rng: Random, seed: int) -> Scene:
        many = seed % _MANY_EVERY == _MANY_REST
        nodes = MANY_COUNT if many else rng.choice((1, 1, 1, 2, 2, 3, 3, 3, 4, 5, 5, rng.randint(6, 9)))
        weather = Weather(drop_share=rng.choice((0.0, 0.005, 0.02)))
        calm = nodes > 1 and rng.random() < 0.35
        if rng.random() < 0.1 and not (many or calm):
            weather = Weather((100_000, 300_000), 0.02, 600_000, 0.02)
        return cls(
            nodes=nodes,
            hosts=rng.randint(1, nodes),
            profile=rng.choice(
                ("lan", "fast", "fast", "wan") if nodes <= 3 else ("lan", "fast") if nodes <= 5 else ("lan",)
            ),
            together=rng.random() < 0.5,
            seeds=rng.choice(("all", "some", "first")),
            first_knows=rng.random() < 0.5,
            discovers=rng.random() < 0.4,
            later=rng.choice((0, 0, 1, 2)) if 1 < nodes < MANY_COUNT else 0,
            idle=many or (nodes > 1 and rng.random() < 0.08),
            drift_ppm=rng.choice((0, 100, 10_000)),
            advertised=rng.choice((0.0, 0.0, 0.0, 0.5)),
            weather=weather,
            calm=calm,
            faults=_faults(rng, nodes, many=many, calm=calm),
            returns=rng.choice((0.5, 0.8, 1.0)) if nodes > 2 else 1.0,  # else nobody is left to do anything
        )


def _faults(rng: Random, nodes: int, *, many: bool, calm: bool) -> dict[str, int]:
    if rng.random() < 0.2:
        return {}
    able = [kind for kind in FAULTS if (kind in _NO_FAULTS if calm else nodes > 1 or kind in _ALONE)]
    share = rng.choice((0.15, 0.3, 0.5))
    slower = 3 if many else 1
    return {kind: slower * rng.randint(*FAULTS[kind]) for kind in able if rng.random() < share}
