"""What a definition may say of a task, and the units at the door.

Everything that comes from a user is read here once and becomes whole milliseconds: bare numbers of the origin's two
words, `frequency` and `run_at`, are milliseconds (`run_at` since the Unix epoch); any other span is seconds. A span may
be a `timedelta`, an instant an aware `datetime`. Spans and instants are rounded up, so nothing is ever early.

An unknown word is refused with the nearest known one: a misspelt option must not silently be the default. The spelling
of the origin (`toAnnounce`, `runAt`) is accepted wherever options are.

The readers raise `ValueError` with what would be right; whoever knows the task, or the job, makes it `TaskInvalid` or
`ParamsInvalid` with the name of the field.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeGuard, cast

from .config import BACKUPS_MAX, FREQUENCY_MIN_MS, NAME_MAX_LENGTH, PRIORITY_MAX, SPAN_MAX_MS
from .core.values import TaskSpec
from .errors import TaskInvalid
from .runtime.handlers import Backoff

Executor = Literal["auto", "async", "thread", "process"]
Delivery = Literal["at_least_once", "at_most_once"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEAR_ENOUGH = 0.75
"""How alike (0 to 1) a word has to be to an option to be taken for its misspelling."""
_SPECIAL_SPELLINGS = {"to_announce": "announce"}


@dataclass(frozen=True, slots=True)
class Definition:
    """A task's options, read.

    Attributes:
        spec: what other members have to know.
        timeout_ms: how long a run may take; None: for ever.
        retries: how many runs may follow a failed first one.
        executor: where it is to run; "auto": coroutine functions on the loop, others in a thread.
    """

    spec: TaskSpec
    description: str
    timeout_ms: int | None
    retries: int
    backoff: Backoff
    executor: Executor


# --- spans and instants -------------------------------------------------------------------------------------------


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and (isinstance(value, int) or value == value)


def _whole_ms(milliseconds: float) -> int:
    # What a product of floats is above the whole number that was meant is no reason to round up.
    return math.ceil(round(milliseconds, 6))


def _bounded(span_ms: int | None) -> int:
    if span_ms is None or not 0 <= span_ms <= SPAN_MAX_MS:
        raise ValueError("must be between 0 and ten years")
    return span_ms


def span_ms(value: object) -> int:
    """A span given in seconds or as a `timedelta`, in ms.

    Raises:
        ValueError: it is none, is negative or is longer than ten years.
    """
    if isinstance(value, timedelta):
        return _bounded(-(-value // timedelta(milliseconds=1)))
    if not _is_number(value):
        raise ValueError("give seconds as a number, or a timedelta")
    return _bounded(_whole_ms(value * 1000) if abs(value) <= SPAN_MAX_MS else None)


def frequency_ms(value: object) -> int:
    """A period given in milliseconds or as a `timedelta`; 0: never by itself.

    Raises:
        ValueError: it is none, is negative, is longer than ten years, or so short that seconds must have been meant.
    """
    if isinstance(value, timedelta):
        period_ms = _bounded(-(-value // timedelta(milliseconds=1)))
    elif _is_number(value):
        period_ms = _bounded(_whole_ms(value) if abs(value) <= SPAN_MAX_MS else None)
    else:
        raise ValueError("give milliseconds as a number, or a timedelta; 0: never by itself")
    if 0 < period_ms < FREQUENCY_MIN_MS:
        raise ValueError(
            f"a frequency is in milliseconds and at least {FREQUENCY_MIN_MS}; "
            f"for seconds write frequency={period_ms * 1000} or timedelta(seconds={period_ms})"
        )
    return period_ms


def instant_ms(value: object) -> int:
    """An instant given as ms since the Unix epoch or as an aware `datetime`, in ms since the epoch.

    Raises:
        ValueError: it is none, or a datetime without a time zone.
    """
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("this datetime has no time zone; give an aware one, such as datetime.now(UTC)")
        return -(-(value - _EPOCH) // timedelta(milliseconds=1))
    if isinstance(value, timedelta):
        raise ValueError("this is a span, not an instant; use run_in")
    if not _is_number(value) or abs(value) == math.inf:
        raise ValueError("give milliseconds since the Unix epoch as a number, or an aware datetime")
    return _whole_ms(value)


# --- other values -------------------------------------------------------------------------------------------------


def name(value: object) -> str:
    """The name of a task.

    Raises:
        ValueError: it is empty, too long, or no printable text.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError("give a name, as text")
    if len(value) > NAME_MAX_LENGTH or not value.isprintable() or value != value.strip():
        raise ValueError(f"must be printable, without spaces around it, of at most {NAME_MAX_LENGTH} characters")
    return value


def flag(value: object) -> bool:
    """Raises:
    ValueError: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise ValueError("give True or False")
    return value


def priority(value: object) -> int:
    """Raises:
    ValueError: it is no int within the bounds.
    """
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > PRIORITY_MAX:
        raise ValueError(f"give an int from {-PRIORITY_MAX} to {PRIORITY_MAX}; higher runs first")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("give a text")
    return value


def _one_of(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"give one of {', '.join(repr(choice) for choice in choices)}")
        return value

    return read


def _timeout_ms(value: object) -> int | None:
    if value is None:
        return None
    timeout_ms = span_ms(value)
    if not timeout_ms:
        raise ValueError("must be more than 0; None: as long as it takes")
    return timeout_ms


def _retries(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("give an int of at least 0: how many runs may follow a failed first one")
    return value


def _backups(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= BACKUPS_MAX:
        raise ValueError(f"give an int from 0 to {BACKUPS_MAX}: copies at other members; None: as the node is set")
    return value


def _backoff(value: object) -> Backoff:
    if value is None:
        return Backoff()
    if not isinstance(value, Backoff):
        first_ms = span_ms(value)
        return Backoff(first_ms, max_ms=max(first_ms, Backoff().max_ms))
    if not (0 <= value.first_ms <= SPAN_MAX_MS and 0 <= value.max_ms <= SPAN_MAX_MS):
        raise ValueError("first_ms and max_ms must be between 0 and ten years")
    if not (math.isfinite(value.factor) and value.factor >= 1 and 0 <= value.jitter <= 1):
        raise ValueError("factor must be at least 1, jitter between 0 and 1")
    return value


# --- all options of a task ----------------------------------------------------------------------------------------

_READERS: dict[str, Callable[[object], Any]] = {
    "name": name,
    "description": _text,
    "scope": _one_of("any", "all"),
    "frequency": frequency_ms,
    "fixed_rate": flag,
    "run_on_start": flag,
    "announce": flag,
    "timeout": _timeout_ms,
    "retries": _retries,
    "backoff": _backoff,
    "priority": priority,
    "backups": _backups,
    "delivery": _one_of("at_least_once", "at_most_once"),
    "executor": _one_of("auto", "async", "thread", "process"),
    "result_ttl": span_ms,
    "reenqueue_on_error": flag,
}

NAMES = tuple(_READERS)
"""All options of a task."""

_OF_SPEC = {
    **{same: same for same in ("name", "scope", "fixed_rate", "run_on_start", "announce", "priority", "backups")},
    "reenqueue_on_error": "reenqueue_on_error",
    "frequency": "frequency_ms",
    "result_ttl": "result_ttl_ms",
}


def plain_spelling(word: str) -> str:
    """`toAnnounce` and `runAt` of the origin as `announce` and `run_at`."""
    snake = re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found[0].lower()}", word)
    return _SPECIAL_SPELLINGS.get(snake, snake)


def respelt(fields: Mapping[str, object], known: Iterable[str], word: str) -> dict[str, object]:
    """The fields in our spelling.

    Args:
        known: what may be among them.
        word: what errors call one of them.

    Raises:
        ValueError: one is unknown, or given in both spellings.
    """
    known = sorted(known)
    found: dict[str, object] = {}
    for given, value in cast("Mapping[object, object]", fields).items():
        plain = plain_spelling(given) if isinstance(given, str) else ""
        if plain not in known:
            near = difflib.get_close_matches(plain, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"unknown {word} {given!r}; {hint}")
        if plain in found:
            raise ValueError(f"{plain} is given twice, as {given!r} too")
        found[plain] = value
    return found


def misspelt(word: str) -> str | None:
    """The option that an attribute's name is so near to that it must be meant, or None."""
    plain = plain_spelling(word)
    if plain in NAMES:
        return plain if plain != word else None
    near = difflib.get_close_matches(plain, NAMES, 1, _NEAR_ENOUGH)
    return near[0] if near else None


def read(field: str, value: object, place: str) -> Any:
    """One option of a task, in the form that `Definition` has it.

    Raises:
        TaskInvalid: naming the place and the field.
    """
    try:
        return _READERS[field](value)
    except ValueError as error:
        raise TaskInvalid(f"{place}: {field}={_shown(value)}: {error}") from None


def define(fields: Mapping[str, object], place: str) -> Definition:
    """All options of a task, read; what is not among them has its default.

    Args:
        fields: in our spelling, the name among them.
        place: what errors call the task.

    Raises:
        TaskInvalid: naming the place and the field; also where two of them contradict each other.
    """
    values = {field: read(field, value, place) for field, value in fields.items()}
    if "name" not in values:
        raise TaskInvalid(f"{place}: name is missing")
    _refuse_contradictions(values, place)
    once = values.get("delivery") == "at_most_once"
    spec = TaskSpec(**{ours: values[field] for field, ours in _OF_SPEC.items() if field in values}, once=once)
    return Definition(
        spec,
        values.get("description", ""),
        values.get("timeout"),
        values.get("retries", 0),
        values.get("backoff", Backoff()),
        values.get("executor", "auto"),
    )


def _refuse_contradictions(values: Mapping[str, Any], place: str) -> None:
    if values.get("delivery") == "at_most_once" and values.get("retries"):
        raise TaskInvalid(
            f"{place}: delivery='at_most_once': a run that has begun is never followed by another, "
            f"and retries={values['retries']} asks for that: leave one of the two out"
        )
    if values.get("backups") == 0 and values.get("frequency"):
        raise TaskInvalid(
            f"{place}: backups=0: a periodic task runs once per period, whoever dies, and without a copy "
            "a death could skip a round or run it twice: leave backups out, or give 1 or 2"
        )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
