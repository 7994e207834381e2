"""What is done to a cluster: crashes, pauses, cuts and the like, now and then, as the scene of a world says.

Each kind is a method that does it once, to whomever it draws, and sees to its own end. When the load is over `heal`
ends everything at once: no way is cut, nobody is held up, and whoever has to be there for the others to meet is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Protocol

from ..config import STUCK_AFTER_MS
from ..core.messages import Leave
from .network import Network
from .node import Node
from .place import Place
from .scene import Scene


class Stage(Protocol):
    """The world, as those see it who break things in it."""

    rng: Random
    scene: Scene
    now_us: int
    seen: Counter[str]
    network: Network
    places: list[Place]

    def later(self, delay_us: int, act: Callable[[], None]) -> None: ...

    def start_at(self, place: Place) -> Node:
        """A new process at that place."""
        ...

    def hurry(self, within_ms: int) -> None:
        """The load is to end in so many ms at the latest."""
        ...


class Faults:
    """Breaks things, as long as it may."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._rng = stage.rng
        self._seen = stage.seen
        self._ways = stage.network.ways
        self._active = False
        self._healed = False
        self._cuts: dict[tuple[str, str], int] = {}  # how many faults cut that way
        self._kinds: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "leave": self._leave,
            "pause": lambda: self._hold_up(self._pause),
            "block": lambda: self._hold_up(self._block),
            "freeze": self._freeze,
            "cut": self._cut,
            "one-way cut": self._cut_one_way,
            "split": self._split,
            "bridge": self._bridge,
            "flap": self._flap,
            "swizzle": self._swizzle,
            "loss": self._lose,
            "false hint": self._hint,
            "twin": self._twin,
        }

    def start(self) -> None:
        """From now on things break."""
        self._active = True
        for kind, mean_ms in self._stage.scene.faults.items():
            self._wait(kind, mean_ms)

    def stop(self) -> None:
        """Nothing new breaks; what is broken lasts as long as it was to."""
        self._active = False

    def heal(self) -> None:
        """What is broken is mended."""
        self._active = False
        self._healed = True
        self._cuts.clear()
        self._ways.heal_all()
        for node in self._living():
            node.wake_up()
        first = self._stage.places[0]
        others_know = any(first.endpoint in place.seeds for place in self._stage.places if place.living)
        if first.living is None and (others_know or not self._living()):
            self._stage.start_at(first)  # without it, those who start later and know only it meet nobody

    # --- when -----------------------------------------------------------------------------------------------------

    def _wait(self, kind: str, mean_ms: int) -> None:
        self._later_ms(self._rng.expovariate(1) * mean_ms, lambda: self._strike(kind, mean_ms))

    def _strike(self, kind: str, mean_ms: int) -> None:
        if self._active:
            self._kinds[kind]()
            self._wait(kind, mean_ms)

    def _later_ms(self, span_ms: float, act: Callable[[], None]) -> None:
        self._stage.later(int(span_ms * 1000), act)

    def _span_ms(self) -> int:
        """How long something lasts: most often too short or just long enough to be taken for a death."""
        rng = self._rng
        return rng.choice((rng.randint(50, 800), rng.randint(500, 4_000), rng.randint(3_000, 15_000)))

    # --- whom -----------------------------------------------------------------------------------------------------

    def _living(self) -> list[Node]:
        return [node for place in self._stage.places if (node := place.living) is not None]

    def _some_place(self) -> Place | None:
        places = [place for place in self._stage.places if place.living is not None]
        return self._rng.choice(places) if places else None

    def _two_places(self) -> tuple[str, str]:
        one, other = self._rng.sample([place.name for place in self._stage.places], 2)
        return one, other

    # --- processes ------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        place = self._some_place()
        if place is None or place.living is None:
            return
        between = self._rng.randint(0, 6) if self._rng.random() < 0.5 else None
        place.living.crash(between)
        self._seen["crash"] += 1
        self._come_back(place)

    def _leave(self) -> None:
        place = self._some_place()
        if place is None or place.local is None:
            return
        place.local.asking = False
        place.local.ask(Leave(self._rng.choice((0, 500, 3_000))))
        self._seen["leave"] += 1
        self._come_back(place)

    def _come_back(self, place: Place) -> None:
        """Most often there is a next process; at once, or so late that nobody counts on it."""
        if self._rng.random() < self._stage.scene.returns:
            rng = self._rng
            wait_ms = rng.choice((rng.randint(1, 100), rng.randint(100, 2_000), rng.randint(2_000, 15_000)))
            self._later_ms(wait_ms, lambda: self._start_again(place))

    def _start_again(self, place: Place) -> None:
        if self._healed:
            return
        if place.living is not None:  # it takes its time to leave, or to crash
            self._later_ms(500, lambda: self._start_again(place))
            return
        self._seen["restart at the same endpoint"] += 1
        self._stage.start_at(place)

    def _twin(self) -> None:
        """Somebody copies a data directory: two processes with one id."""
        place, empty = self._some_place(), [place for place in self._stage.places if place.node is None]
        if place is None or place.living is None or not empty:
            return
        self._seen["two processes with one id"] += 1
        twin = self._rng.choice(empty)
        twin.node_id = place.living.life.node
        self._stage.start_at(twin)

    def _hold_up(self, how: Callable[[Node], None]) -> None:
        nodes = self._living()
        if nodes:
            how(self._rng.choice(nodes))

    def _pause(self, node: Node) -> None:
        rng = self._rng
        if rng.random() < 0.05:
            self._seen["pause of minutes"] += 1
            node.pause(rng.randint(60_000, 240_000))
            self._stage.hurry(5_000)
        else:
            node.pause(rng.choice((rng.randint(10, 100), rng.randint(100, 5_000), rng.randint(2_000, 12_000))))

    def _block(self, node: Node) -> None:
        rng = self._rng
        if rng.random() < 0.05 and not self._stage.scene.calm:
            node.block(STUCK_AFTER_MS + rng.randint(1_000, 20_000))
            self._stage.hurry(75_000)
        else:
            node.block(rng.randint(1_000, 20_000))

    def _freeze(self) -> None:
        place = self._some_place()
        if place is None:
            return
        span_ms = self._span_ms()
        frozen = [other.living for other in self._stage.places if other.host == place.host and other.living]
        for node in frozen:
            node.pause(span_ms)
        self._seen["whole host frozen"] += len(frozen) > 1

    # --- ways -----------------------------------------------------------------------------------------------------

    def _sever(self, source: str, target: str, span_ms: int) -> None:
        """Cut one way for a while; another fault may cut it, too."""
        way = (source, target)
        self._cuts[way] = self._cuts.get(way, 0) + 1
        self._ways.cut(source, target)
        self._later_ms(span_ms, lambda: self._mend(way))

    def _mend(self, way: tuple[str, str]) -> None:
        if self._healed:
            return
        self._cuts[way] -= 1
        if not self._cuts[way]:
            self._ways.heal(*way)

    def _sever_both(self, one: str, other: str, span_ms: int) -> None:
        self._sever(one, other, span_ms)
        self._sever(other, one, span_ms)
        if self._rng.random() < 0.3:
            self._stage.network.lose(one, other)

    def _cut(self) -> None:
        self._seen["cut"] += 1
        self._sever_both(*self._two_places(), self._span_ms())

    def _cut_one_way(self) -> None:
        self._seen["one-way cut"] += 1
        self._sever(*self._two_places(), self._span_ms())

    def _split(self) -> None:
        """Two halves that do not see one another."""
        self._seen["split"] += 1
        names = self._rng.sample([place.name for place in self._stage.places], len(self._stage.places))
        middle = self._rng.randint(1, len(names) - 1)
        span_ms = self._rng.choice((self._span_ms(), self._rng.randint(8_000, 20_000)))
        for one in names[:middle]:
            for other in names[middle:]:
                self._sever_both(one, other, span_ms)

    def _bridge(self) -> None:
        """Two halves, and one between them that sees both."""
        names = self._rng.sample([place.name for place in self._stage.places], len(self._stage.places))
        rest = names[1:]
        if len(rest) < 2:
            return
        self._seen["bridge"] += 1
        middle = self._rng.randint(1, len(rest) - 1)
        span_ms = self._span_ms()
        for one in rest[:middle]:
            for other in rest[middle:]:
                self._sever_both(one, other, span_ms)

    def _flap(self) -> None:
        """A way that is there and is not, again and again."""
        self._seen["flap"] += 1
        one, other = self._two_places()
        for number in range(self._rng.randint(3, 8)):
            self._later_ms(number * 2_000, lambda: self._flap_once(one, other))

    def _flap_once(self, one: str, other: str) -> None:
        if self._active:
            self._sever_both(one, other, 1_000)

    def _swizzle(self) -> None:
        """One place after another is cut off, and they come back in another order."""
        self._seen["swizzle"] += 1
        names = [place.name for place in self._stage.places]
        for number, name in enumerate(self._rng.sample(names, min(len(names), 4))):
            self._later_ms(number * 700, partial(self._isolate, name))

    def _isolate(self, name: str) -> None:
        if self._active:
            span_ms = self._rng.randint(2_000, 9_000)
            for place in self._stage.places:
                if place.name != name:
                    self._sever_both(name, place.name, span_ms)

    def _lose(self) -> None:
        self._seen["connections lost"] += 1
        self._stage.network.lose(*self._two_places())

    def _hint(self) -> None:
        """A connection seems to be lost, and is not."""
        nodes = self._living()
        if len(nodes) > 1:
            node, other = self._rng.sample(nodes, 2)
            self._seen["false hint"] += 1
            node.peer_lost(other.life)
