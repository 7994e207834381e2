"""The end of a world: nothing breaks any more, so nodes have to agree, and what was accepted has to end.

First everything that is broken is mended. Then views become one, a question to all is answered by all, and there is one
owner. Then what is left to do is done, by the model where one node was alone, from outside where there were several;
and each schedule goes on by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from ..config import SOLO_AFTER_MS, Profile
from ..core.messages import AskStatus, ClusterStatus, Leave
from .faults import Faults
from .members import disagreement
from .node import Node
from .outside import Outside
from .place import Place
from .scene import Scene
from .story import BrokenPromise, text
from .workload import Options, Workload

QUIET_MAX_US = 120_000_000
JOB_MAX_US = 20_000_000
"""How long after the load all has to be over, and how much longer for each job that is left."""
QUIET_SHARED_MAX_US = 90_000_000
WATCHED_MAX_COUNT = 5
"""Schedules are watched where there are so many nodes at most, since it costs: time has to pass."""
IDLE_US = 10_000_000
"""How long a world with nothing to do is watched."""
IDLE_MAX_PER_S = 1.0
"""Frames besides beats that a node says per second when nothing happens, and the seeds and dead ones it tries."""


class Stage(Protocol):
    """The world, as its end sees it."""

    rng: Random
    seen: Counter[str]
    scene: Scene
    options: Options
    profile: Profile
    workload: Workload
    places: list[Place]
    faults: Faults
    outside: Outside | None
    now_us: int
    loaded: bool

    @property
    def living(self) -> list[Node]: ...

    def run_until(self, at_us: int, enough: Callable[[], bool] | None = None) -> None:
        """Let all happen that is to happen by then, or until it is enough."""
        ...


class Settling:
    """How one world ends."""

    def __init__(self, world: Stage) -> None:
        self._world = world

    def run(self) -> None:
        """Let it end.

        Raises:
            BrokenPromise: nodes do not agree, or something does not end.
        """
        world = self._world
        world.faults.heal()
        for place in world.places:
            node = place.living
            if node is not None:
                node.executor.resize(place.workers)
                if world.options.all_return and node.notes.specs:
                    node.define([kind.spec for kind in world.workload.kinds])
        self._agree()
        if world.loaded and world.scene.idle and world.scene.nodes > 1:
            self._be_idle()
        if world.options.leaves and world.loaded and world.living:
            self._let_one_leave()
        if world.outside is None:
            self._end_alone()
        else:
            self._end_together(world.outside)

    def _let_one_leave(self) -> None:
        world = self._world
        place = world.rng.choice([place for place in world.places if place.living is not None])
        assert place.local is not None
        place.local.ask(Leave(world.rng.choice((0, 500, 10_000))))
        place.local.ask(world.workload.last_wish(place.local.ids()))

    # --- what is left to do ---------------------------------------------------------------------------------------

    def _end_alone(self) -> None:
        world = self._world
        ends_ms = {node: node.clock.ms() for node in world.living}
        most_us = QUIET_MAX_US + JOB_MAX_US * sum(len(node.ledger.books.live) for node in ends_ms)
        world.run_until(world.now_us + most_us, lambda: all(_is_done(node, at_ms) for node, at_ms in ends_ms.items()))
        for node, at_ms in ends_ms.items():
            ledger = node.ledger
            if ledger.leaving and not node.leaving.left and not node.is_over:
                raise BrokenPromise("it was told to leave, and never does")
            for job in [] if ledger.leaving or node.is_over else ledger.unfinished(at_ms):
                raise BrokenPromise("P1: the load is over, and the job never ends", job.job, job.task)
            world.seen["job of a task gone"] += any(job.task not in ledger.specs for job in ledger.books.live.values())

    def _end_together(self, outside: Outside) -> None:
        world = self._world
        most_us = QUIET_SHARED_MAX_US + self.heal_bound_us()
        losses, told = outside.losses, outside.told

        def is_done() -> bool:
            leaving = any(node.notes.leaving for node in world.living)
            return not leaving and losses.open(world.living) is None and told.unanswered(world.living) is None

        world.run_until(world.now_us + most_us, is_done)
        for node in world.living:
            if node.notes.leaving:
                raise BrokenPromise(f"{node.place} was told to leave, and never does")
        losses.check(world.living)
        unanswered = told.unanswered(world.living)
        if unanswered is not None:
            raise BrokenPromise(*unanswered)
        since_us, patience_us = world.now_us, outside.rounds.patience_us()
        if patience_us and len(world.living) <= WATCHED_MAX_COUNT and world.rng.random() < 0.5:
            world.run_until(since_us + patience_us)
            outside.rounds.check_all_go_on(world.living, since_us)

    # --- agreement ------------------------------------------------------------------------------------------------

    def heal_bound_us(self) -> int:
        """So long after all is healed everybody may still be wrong about somebody."""
        profile = self._world.profile
        silence_ms = 8 * (profile.silence_ms + 2 * profile.ping_ms)
        suspicion_ms = 2 * profile.suspicion_ms * profile.suspicion_max
        return 1000 * (SOLO_AFTER_MS + silence_ms + suspicion_ms + 2 * profile.retry_ms + 10_000)

    def _agree(self) -> None:
        """All is healed: views become one, and a question to all is answered by all."""
        world = self._world
        began_us, why = world.now_us, ""

        def agreed() -> bool:
            nonlocal why
            why = disagreement(world.living)
            return not why

        world.run_until(began_us + self.heal_bound_us(), agreed)
        if not agreed():
            raise BrokenPromise(f"{(world.now_us - began_us) / 1e6:.1f} s after all was healed {why}")
        world.seen["agreed after faults"] += bool(world.scene.faults)
        answers_us = world.now_us + 1000 * (8 * world.profile.resend_ms + 2 * world.profile.answer_ms)
        while why := self._ask_all():
            if world.now_us >= answers_us:
                raise BrokenPromise(why)
            world.seen["question repeated after faults"] += 1

    def _ask_all(self) -> str:
        """Each asks all; a link that has just been healed may need some time.

        Returns:
            Who is not answered by whom; empty: all are by all.
        """
        world = self._world
        asked = [(place.local, place.local.ask(AskStatus())) for place in world.places if place.living and place.local]
        world.run_until(
            world.now_us + world.profile.answer_ms * 1100,
            lambda: all(ref in local.answers for local, ref in asked),
        )
        for local, ref in asked:
            answer = local.answers.get(ref)
            if not isinstance(answer, ClusterStatus):
                return f"a question to all is answered by {text(answer)}"
            if answer.silent or len(answer.members) != len(asked):
                return f"{len(asked)} live, {len(answer.members)} are listed, and {answer.silent} do not answer"
        return ""

    def _be_idle(self) -> None:
        """Nobody does anything: nodes have little to say."""
        world = self._world
        world.seen["idle"] += 1
        before = {node: node.said_count for node in world.living}
        world.run_until(world.now_us + IDLE_US)
        for node, count in before.items():
            tried_per_s = 2 * (8 + len(world.places)) / (world.profile.retry_ms / 1000)
            said_per_s = (node.said_count - count) / (IDLE_US / 1_000_000)
            if said_per_s > IDLE_MAX_PER_S + tried_per_s:
                raise BrokenPromise(f"{node.place} says {said_per_s:.1f} frames a second, and nothing happens")


def _is_done(node: Node, at_ms: int) -> bool:
    """Whether nothing is left of what it had accepted by then."""
    ledger = node.ledger
    return node.is_over or node.leaving.left or (not ledger.leaving and not ledger.unfinished(at_ms))
