"""Everything at once that happens to processes: five of them under load, and one trouble after the other.

A trouble is drawn by chance: SIGKILL, a stop (shorter or longer than silence is borne), a restart, a restart of each in
turn, a join, a leave, a loop that is blocked, the interpreter's lock held in C; also a kill beside a process whose loop
stands still. Each begins when copies are whole again. A process that was killed, or stood still for so long that others
may have given it up, explains that what it ran comes again; nothing else does.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from zhero.config import PROFILES

from .herd import Child, Herd, herd

NODES = 5
NODES_MAX = 7
LOAD_MS = 15
STEP_S = 0.5
"""How long a trouble's end is left alone, under load."""


@dataclass(slots=True)
class Weathered:
    """What a storm came to. `troubles`: name -> how many."""

    accepted: int = 0
    repeated: int = 0
    troubles: Counter[str] = field(default_factory=Counter[str])


class Storm:
    """One storm over a herd.

    Args:
        seed: of what happens, and to whom.
    """

    def __init__(self, of: Herd, seed: int, profile: str) -> None:
        self._of = of
        self._chance = random.Random(seed)
        it = PROFILES[profile]
        self._short_s = it.silence_ms / 2000
        self._long_s = (it.silence_ms + it.ping_ms + it.suspicion_ms) * 1.5 / 1000
        self.troubles: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "kill the owner": self._kill_owner,
            "kill beside a blocked one": self._kill_beside_blocked,
            "stop for a moment": self._stop_briefly,
            "stop for long": self._stop_long,
            "restart": self._restart,
            "restart all": self._restart_all,
            "join": self._join,
            "leave": self._leave,
            "block": self._block,
            "hold in C": self._hold,
        }

    async def begin(self) -> None:
        """Five processes, all of which enqueue."""
        await self._of.start_all(NODES)
        for child in self._of.living:
            await self._load(child)

    async def trouble(self, name: str) -> None:
        """One of them, from whole copies to whole copies."""
        await self._of.settled()
        self._of.note(f"--- {name}")
        await self.troubles[name]()
        await asyncio.sleep(STEP_S)
        await self._of.whole()
        self._of.check(ended=False)

    async def _load(self, child: Child) -> None:
        await child.ask("load", task="work", params={"ms": LOAD_MS}, gap=0.05, at_once=2)
        await child.ask("delayed", task="other", params={}, count=20, first=0.1, last=3)

    def _any(self) -> Child:
        return self._chance.choice(self._of.living)

    async def _join(self) -> None:
        if len(self._of.living) >= NODES_MAX:
            await self._of.leave(self._any())
        await self._load(await self._of.start())

    async def _leave(self) -> None:
        if len(self._of.living) <= NODES - 2:
            await self._load(await self._of.start())
        await self._of.leave(self._any())

    async def _kill(self) -> None:
        await self._of.kill(self._any())
        await self._load(await self._of.start())

    async def _kill_owner(self) -> None:
        await self._of.kill(await self._of.owner())
        await self._load(await self._of.start())

    async def _kill_beside_blocked(self) -> None:
        blocked, victim = self._chance.sample(self._of.living, 2)
        await blocked.ask("hold_up", seconds=self._short_s * 2)
        await asyncio.sleep(0.05)
        await self._of.kill(victim)
        await self._load(await self._of.start())

    async def _restart(self) -> None:
        await self._of.leave(self._any())
        await self._load(await self._of.start())

    async def _restart_all(self) -> None:
        for child in list(self._of.living):
            await self._of.leave(child)
            await self._load(await self._of.start())

    async def _stop_briefly(self) -> None:
        child = self._any()
        self._of.stop(child, faulted=False)
        await asyncio.sleep(self._short_s)
        self._of.go_on(child)

    async def _stop_long(self) -> None:
        child = self._any()
        self._of.stop(child)
        await asyncio.sleep(self._long_s)
        self._of.go_on(child)

    async def _block(self) -> None:
        child = self._any()
        await child.ask("hold_up", seconds=self._long_s)
        self._of.note(f"{child.name} is blocked")
        await asyncio.sleep(self._long_s)

    async def _hold(self) -> None:
        child = self._any()
        await child.ask("hold_up", seconds=self._short_s, in_c=True)
        self._of.note(f"{child.name} is held in C")
        await asyncio.sleep(self._short_s)


async def storm(rounds: int, seed: int, profile: str = "lan") -> Weathered:
    """So many troubles, each kind about as often, and a judgement.

    Raises:
        Failed: a promise was broken.
    """
    done = Weathered()
    async with herd(("work", "other"), profile=profile) as of:
        it, chance = Storm(of, seed, profile), random.Random(seed)
        await it.begin()
        names: list[str] = []
        for _ in range(rounds):
            if not names:
                names = list(it.troubles)
                chance.shuffle(names)
            name = names.pop()
            await it.trouble(name)
            done.troubles[name] += 1
        await asyncio.gather(*(child.ask("rest") for child in of.living))
        await of.done()
        judgement = of.check()
        done.accepted, done.repeated = judgement.accepted, judgement.repeated
    return done
