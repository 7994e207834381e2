"""What can be said of a task, checked: from decorator, class or origin-shaped definition to one `Definition`.

Units at the door: `frequency` is the origin's word and keeps its unit, milliseconds; every other span is seconds. All
take a `timedelta` too. Whatever is wrong is a `TaskInvalid` that names the task and the field and says what would be
right; an unknown option is refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from .config import FREQUENCY_MIN_MS, NAME_MAX_LENGTH, PRIORITY_MAX, SPAN_MAX_MS
from .core.values import Scope, TaskSpec
from .errors import TaskInvalid
from .runtime.handlers import Backoff, span_ms

Mode = Literal["async", "thread", "process"]

OPTIONS = (
    "name",
    "description",
    "scope",
    "frequency",
    "fixed_rate",
    "run_on_start",
    "reenqueue_on_error",
    "announce",
    "priority",
    "result_ttl",
    "timeout",
    "retries",
    "backoff",
    "executor",
)
ORIGIN_NAMES = {
    "toAnnounce": "announce",
    "to_announce": "announce",
    "fixedRate": "fixed_rate",
    "runOnStart": "run_on_start",
    "reenqueueOnError": "reenqueue_on_error",
    "reEnqueuePeriodicTaskIfException": "reenqueue_on_error",
    "resultTtl": "result_ttl",
}
"""Spellings of the origin -> ours."""
REQUIRED_OF_ORIGIN = ("name", "description", "scope", "frequency", "run")


@dataclass(frozen=True, slots=True)
class Definition:
    """A task as it was defined, checked. `spec` is what members tell one another of it."""

    spec: TaskSpec
    description: str
    mode: Mode
    timeout_ms: int | None
    retries: int
    backoff: Backoff


def define(given: Mapping[str, Any], code: Callable[..., Any], where: str) -> Definition:
    """Check the options of a task.

    Args:
        given: option -> value, as the user wrote it.
        code: what runs; says whether it is a coroutine function, and gives defaults for name and description.
        where: for errors, what is being defined ("task send_email in tasks/mail.py").

    Raises:
        TaskInvalid: and which field is wrong, and how to mend it.
    """
    for option in given:
        if option not in OPTIONS:
            raise TaskInvalid(f"{where}: unknown option {option!r}{nearest(option)}")
    return _Reader(given, where).definition(code)


def nearest(option: str) -> str:
    """A hint at the known option that somebody may have meant."""
    near = difflib.get_close_matches(option, [*OPTIONS, *ORIGIN_NAMES], 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(OPTIONS)}"


class _Reader:
    """Reads the options of one task."""

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        self._given = given
        self._where = where

    def definition(self, code: Callable[..., Any]) -> Definition:
        name = self._text("name", getattr(code, "__name__", ""), NAME_MAX_LENGTH)
        self._where = f"{self._where}, task {name!r}" if f"{name!r}" not in self._where else self._where
        doc = (inspect.getdoc(code) or "").strip().partition("\n")[0]
        spec = TaskSpec(
            name=name,
            scope=self._scope(),
            frequency_ms=self._frequency_ms(),
            fixed_rate=self._flag("fixed_rate", False),
            run_on_start=self._flag("run_on_start", False),
            announce=self._flag("announce", True),
            priority=self._int("priority", 0, -PRIORITY_MAX, PRIORITY_MAX),
            result_ttl_ms=self._span_ms("result_ttl", 60),
            reenqueue_on_error=self._flag("reenqueue_on_error", True),
        )
        timeout = self._given.get("timeout")
        timeout_ms = None if timeout is None else self._span_ms("timeout", 0)
        if timeout_ms == 0:
            raise self._wrong("timeout", "more than 0 seconds")
        description = self._text("description", doc or name, 10_000)
        return Definition(
            spec,
            description,
            self._mode(code),
            timeout_ms,
            self._int("retries", 0, 0, 1_000_000),
            self._backoff(),
        )

    def _wrong(self, field: str, right: str) -> TaskInvalid:
        return TaskInvalid(f"{self._where}: {field} must be {right}, not {self._given.get(field)!r}")

    def _text(self, field: str, default: str, length_max: int) -> str:
        value = self._given.get(field, default)
        if type(value) is not str or not 0 < len(value) <= length_max or not value.strip().isprintable():
            raise self._wrong(field, f"a text of 1 to {length_max} characters")
        return value

    def _flag(self, field: str, default: bool) -> bool:
        value = self._given.get(field, default)
        if type(value) is not bool:
            raise self._wrong(field, "True or False")
        return value

    def _int(self, field: str, default: int, least: int, most: int) -> int:
        value = self._given.get(field, default)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(field, f"an int from {least} to {most}")
        return value

    def _span_ms(self, field: str, default: float) -> int:
        try:
            return span_ms(self._given.get(field, default))
        except (TypeError, ValueError):
            raise self._wrong(field, "seconds (0 to ten years) or a timedelta") from None

    def _scope(self) -> Scope:
        value: Any = self._given.get("scope", "any")
        if value not in ("any", "all"):
            raise self._wrong("scope", "'any' (one member runs it) or 'all' (each member does)")
        return "all" if value == "all" else "any"

    def _frequency_ms(self) -> int:
        value = self._given.get("frequency", 0)
        number = value.total_seconds() * 1000 if isinstance(value, timedelta) else value
        if type(number) not in (int, float) or not 0 <= number <= SPAN_MAX_MS:
            raise self._wrong("frequency", "milliseconds (0: never by itself) or a timedelta")
        if 0 < number < FREQUENCY_MIN_MS:
            raise self._wrong(
                "frequency",
                f"0 or at least {FREQUENCY_MIN_MS} milliseconds: for {number:g} seconds write {number * 1000:g}",
            )
        return math.ceil(number)

    def _mode(self, code: Callable[..., Any]) -> Mode:
        value = self._given.get("executor", "auto")
        if value not in ("auto", "async", "thread", "process"):
            raise self._wrong("executor", "'auto', 'async', 'thread' or 'process'")
        coroutine = inspect.iscoroutinefunction(code)
        if value == "async" and not coroutine:
            raise self._wrong("executor", "'thread' or 'process' (or left out), as its run is a plain function")
        if value == "thread" and coroutine:
            raise self._wrong("executor", "'async' or 'process' (or left out), as its run is a coroutine function")
        if value == "auto":
            return "async" if coroutine else "thread"
        return "process" if value == "process" else "async" if coroutine else "thread"

    def _backoff(self) -> Backoff:
        value = self._given.get("backoff")
        if value is None:
            return Backoff()
        if isinstance(value, Backoff):
            return value
        return Backoff(first_ms=max(1, self._span_ms("backoff", 0)))
