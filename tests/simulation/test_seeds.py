"""Worlds from seeds: no promise is broken, a seed says the same again, and the checkers can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from zhero.core.engine import Engine
from zhero.core.jobs import Slice
from zhero.core.query import Query
from zhero.sim.seeds import live

SEEDS = range(24)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken(seed: int) -> None:
    lived = live(seed)
    assert lived.story == "", lived.story


def test_a_seed_lives_the_same_life_twice() -> None:
    first, second = live(3), live(3)
    assert first.seen == second.seen


def _no_waiter_is_told(query: Query, ending: Any) -> None: ...


def _due_early(kept: Slice, now_ms: int) -> list[Any]:
    return _due(kept, now_ms + 50)


_due = Slice.due


def _cancels_nothing(engine: Engine, asker: Any, call: Any, now_ms: int) -> None: ...


MUTATIONS: list[tuple[type, str, Callable[..., Any]]] = [
    (Query, "on_ended", _no_waiter_is_told),
    (Slice, "due", _due_early),
    (Engine, "_cancel", _cancels_nothing),
]


@pytest.mark.parametrize(("where", "name", "wrong"), MUTATIONS)
def test_a_broken_engine_is_caught(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, wrong: Callable[..., Any]
) -> None:
    monkeypatch.setattr(where, name, wrong)
    stories = [live(seed).story for seed in range(5)]
    assert any(story and not story.startswith("Traceback") for story in stories)
