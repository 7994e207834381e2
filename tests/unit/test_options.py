"""Options of tasks: units at the door, and what is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest

from zhero import options
from zhero.config import SPAN_MAX_MS
from zhero.core.values import TaskSpec
from zhero.errors import TaskInvalid
from zhero.runtime.handlers import Backoff


@pytest.mark.parametrize(
    ("given", "expected_ms"),
    [
        (0, 0),
        (1, 1000),
        (1.5, 1500),
        (0.0001, 1),
        (0.001, 1),
        (1.001, 1001),
        (0.1 + 0.2, 300),  # a hair above, by the arithmetic of floats
        (timedelta(seconds=2), 2000),
        (timedelta(microseconds=1), 1),
        (SPAN_MAX_MS // 1000, SPAN_MAX_MS),
    ],
)
def test_a_span_is_seconds_or_a_timedelta_and_never_rounded_down(given: Any, expected_ms: int) -> None:
    assert options.span_ms(given) == expected_ms


@pytest.mark.parametrize(
    "given",
    [-1, -0.001, math.nan, math.inf, -math.inf, True, "1", None, Fraction(1), timedelta(seconds=-1), 10**400, 1e300],
)
def test_what_is_no_span_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"seconds|between 0 and ten years"):
        options.span_ms(given)


@pytest.mark.parametrize(
    ("given", "expected_ms"),
    [(0, 0), (10, 10), (1000, 1000), (10.2, 11), (timedelta(seconds=1), 1000), (timedelta(0), 0)],
)
def test_a_frequency_is_milliseconds_or_a_timedelta(given: Any, expected_ms: int) -> None:
    assert options.frequency_ms(given) == expected_ms


@pytest.mark.parametrize("given", [1, 5, 9, 0.5, timedelta(milliseconds=9)])
def test_a_frequency_that_must_have_meant_seconds_is_refused_with_a_hint(given: Any) -> None:
    with pytest.raises(ValueError, match="milliseconds"):
        options.frequency_ms(given)


def test_the_hint_on_a_frequency_says_what_to_write() -> None:
    with pytest.raises(ValueError, match="frequency=5000"):
        options.frequency_ms(5)


@pytest.mark.parametrize("given", [-1, -1000, math.nan, math.inf, True, False, "1000", None, datetime.now(UTC)])
def test_what_is_no_frequency_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"milliseconds|between 0 and ten years"):
        options.frequency_ms(given)


@pytest.mark.parametrize(
    ("given", "expected_ms"),
    [
        (1893456000000, 1893456000000),
        (1893456000000.25, 1893456000001),
        (-5, -5),
        (datetime(2030, 1, 1, tzinfo=UTC), 1893456000000),
        (datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 1893456000000),
        (datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1893456000001),
    ],
)
def test_an_instant_is_ms_since_the_epoch_or_an_aware_datetime(given: Any, expected_ms: int) -> None:
    assert options.instant_ms(given) == expected_ms


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (datetime(2030, 1, 1), "aware"),
        (timedelta(seconds=1), "run_in"),
        (True, "number"),
        ("tomorrow", "number"),
        (math.nan, "number"),
        (math.inf, "number"),
    ],
)
def test_what_is_no_instant_is_refused_with_a_hint(given: Any, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        options.instant_ms(given)


def test_all_options_of_a_task_are_read() -> None:
    definition = options.define(
        {
            "name": "tick",
            "description": "now and then",
            "scope": "all",
            "frequency": 1000,
            "fixed_rate": True,
            "run_on_start": True,
            "announce": False,
            "timeout": 1.5,
            "backoff": 2,
            "priority": -7,
            "backups": 2,
            "delivery": "at_most_once",
            "executor": "thread",
            "result_ttl": timedelta(minutes=2),
            "reenqueue_on_error": False,
        },
        "task tick",
    )
    assert definition.spec == TaskSpec("tick", "all", 1000, True, True, False, -7, 120_000, False, 2, True)
    assert definition.description == "now and then"
    assert definition.timeout_ms == 1500
    assert definition.backoff == Backoff(2000)
    assert definition.executor == "thread"


def test_what_is_not_said_has_its_default() -> None:
    definition = options.define({"name": "tick"}, "task tick")
    assert definition.spec == TaskSpec("tick")
    assert (definition.timeout_ms, definition.retries, definition.backoff) == (None, 0, Backoff())
    assert definition.executor == "auto"


def test_retries_are_read() -> None:
    assert options.define({"name": "tick", "retries": 3}, "task tick").retries == 3


@pytest.mark.parametrize("given", [None, 0, 1, 2])
def test_copies_are_as_many_as_is_said_and_else_as_the_node_is_set(given: int | None) -> None:
    assert options.define({"name": "tick", "backups": given}, "task tick").spec.backups == given


@pytest.mark.parametrize(("given", "once"), [("at_least_once", False), ("at_most_once", True)])
def test_delivery_is_at_least_once_or_at_most_once(given: str, once: bool) -> None:
    assert options.define({"name": "tick", "delivery": given}, "task tick").spec.once is once


def test_at_most_once_and_retries_contradict_each_other() -> None:
    with pytest.raises(TaskInvalid, match=r"^task tick: delivery='at_most_once': .* retries=3 "):
        options.define({"name": "tick", "delivery": "at_most_once", "retries": 3}, "task tick")
    assert options.define({"name": "tick", "delivery": "at_most_once", "retries": 0}, "task tick").spec.once


def test_a_periodic_task_can_not_do_without_copies() -> None:
    with pytest.raises(TaskInvalid, match=r"^task tick: backups=0: .* a death could skip a round"):
        options.define({"name": "tick", "frequency": 1000, "backups": 0}, "task tick")
    assert options.define({"name": "tick", "frequency": 1000, "backups": 1}, "task tick").spec.backups == 1


def test_a_periodic_task_may_be_at_most_once() -> None:
    assert options.define({"name": "tick", "frequency": 1000, "delivery": "at_most_once"}, "task tick").spec.once


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", ["", "  ", " x", "a\nb", "x" * 201, 5, None]),
        ("description", [5, None, b"x"]),
        ("scope", ["some", "", "ANY", 1, None, ["any"]]),
        ("frequency", [-1, 5, True, "1000", math.nan, None]),
        ("fixed_rate", [1, None, "yes"]),
        ("run_on_start", [1]),
        ("announce", [0, "no"]),
        ("timeout", [0, -1, True, "5", math.nan]),
        ("retries", [-1, 1.0, True, "3", None]),
        ("backoff", [-1, "1", True, Backoff(-1), Backoff(factor=0.5), Backoff(jitter=2), Backoff(factor=math.nan)]),
        ("priority", [101, -101, 1.5, True, "high"]),
        ("backups", [-1, 3, 1.0, True, "1"]),
        ("delivery", ["exactly_once", "at_most", None, 1, True]),
        ("executor", ["fork", None, 1]),
        ("result_ttl", [-1, "60", None, True]),
        ("reenqueue_on_error", [None, 1]),
    ],
)
def test_a_wrong_value_is_refused_with_the_names_of_task_and_field(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(TaskInvalid, match=f"^task tick: {field}="):
            options.define({"name": "tick", field: value}, "task tick")


def test_each_option_has_its_wrong_values_tried() -> None:
    (tried,) = (
        mark
        for mark in test_a_wrong_value_is_refused_with_the_names_of_task_and_field.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    )
    assert sorted(field for field, _ in tried.args[1]) == sorted(options.NAMES)


def test_a_long_first_wait_is_not_cut_by_the_longest_wait() -> None:
    backoff = options.define({"name": "tick", "backoff": timedelta(hours=5)}, "task tick").backoff
    assert backoff.first_ms == backoff.max_ms == 5 * 3600 * 1000


def test_the_spelling_of_the_origin_is_accepted() -> None:
    given = {"toAnnounce": False, "runOnStart": True, "reenqueueOnError": False, "result_ttl": 5}
    assert options.respelt(given, options.NAMES, "option") == {
        "announce": False,
        "run_on_start": True,
        "reenqueue_on_error": False,
        "result_ttl": 5,
    }


def test_an_option_in_both_spellings_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        options.respelt({"toAnnounce": False, "announce": False}, options.NAMES, "option")


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ValueError, match=r"'frequncy'; did you mean frequency\?"):
        options.respelt({"frequncy": 1000}, options.NAMES, "option")
    with pytest.raises(ValueError, match="known are announce, "):
        options.respelt({"zzz": 1}, options.NAMES, "option")
    with pytest.raises(ValueError, match="unknown option 5"):
        options.respelt({5: 1}, options.NAMES, "option")  # type: ignore[dict-item]
