"""Params and results <-> bytes: what a task receives equals what was passed, or the caller is told at once.

A value is encoded once, where it is enqueued or returned, and decoded once, where it is used; in between it is bytes.
A task that runs inline gets the same round-tripped copy, so inline and queued runs can't differ. The bytes are
msgpack, and what msgpack would change on the way (tuples into lists, sets, dates, integers beyond 64 bits) has a
code of its own. Types are taken exactly: a subclass, an enum member, a dataclass is refused with the path to it,
never turned into something alike.

| code | type               | payload                                                                  |
|------|--------------------|--------------------------------------------------------------------------|
| 1    | int beyond 64 bits | two's complement, big-endian                                             |
| 2    | tuple              | array of its elements                                                    |
| 3, 4 | set, frozenset     | array of its elements, ordered by their bytes: equal sets are equal bytes |
| 5, 7 | datetime, time     | array: ISO text, fold, offset in us or nil, zone key or nil, name or nil  |
| 6    | date               | ISO text                                                                 |
| 8    | timedelta          | array: days, seconds, microseconds                                       |
| 9    | Decimal            | its text                                                                 |
| 10   | UUID               | its 16 bytes                                                             |
| -1   | datetime in UTC    | msgpack's own timestamp: read, never written                             |

A `ZoneInfo` travels as its key together with the offset of that moment. Where the zone is unknown or has other rules,
the moment stays right and the zone becomes that fixed offset, as any other kind of tzinfo does. Two references to one
object become two equal objects.

Bounds: lists and dicts nest `LEVELS_MAX` deep (msgpack's own stack), tuples and sets `NESTED_MAX` deep in one
another, because each of those costs a packer of its own and its C stack. Decoding preallocates at most 10,000 places
a level (msgpack since 1.2.4), so hostile bytes can't ask for more than those levels hold.

Cost: 0.5 us to encode a small dict, 0.5 us to decode it. The happy path is one call into C; the path to a culprit is
looked for only after a failure. A fresh packer per call costs 0.1 us and makes threads and nesting no concern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType, Packer, unpackb

from .errors import ParamsInvalid

LEVELS_MAX = 1024
"""Levels of lists and dicts."""
NESTED_MAX = 8
"""Tuples and sets in one another; with `LEVELS_MAX` lists in each, they take 3 MiB of C stack."""

_PATH_MAX_LENGTH = 200
_KEY_MAX_LENGTH = 40
_BUFFER_BYTES = 512  # to begin with; it grows
_MICROSECOND = timedelta(microseconds=1)

_INT, _TUPLE, _SET, _FROZENSET, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID = range(1, 11)

_type_of: Callable[[object], type[object]] = type  # so that checkers know what `type` of an `Any` is

_PLAIN = frozenset(
    (type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID),
)
_SUPPORTED = (
    "None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, "
    "datetime, date, time, timedelta, Decimal and UUID"
)


def encode(value: object, name: str) -> bytes:
    """The bytes of a value.

    Args:
        value: what a task is to receive, or has returned.
        name: what errors call it, such as "params".

    Raises:
        ParamsInvalid: it holds what can't be sent; the message names the path to it.
    """
    try:
        data: bytes = Packer(default=_PACK[0], strict_types=True, buf_size=_BUFFER_BYTES).pack(value)
    except Exception as error:  # a foreign tzinfo may raise anything
        why = _explain(value, name)
        if why:  # says all; what lies below is up to a thousand frames of the packer
            raise ParamsInvalid(why) from None
        raise ParamsInvalid(f"{name} can't be sent: {error}") from error
    if len(data.translate(None, _STRANGE)) != len(data) and not _is_supported(value):
        raise ParamsInvalid(_explain(value, name))
    return data


def decode(data: bytes) -> Any:
    """The value behind `encode`.

    Raises:
        ParamsInvalid: the bytes are not what `encode` makes.
    """
    try:
        return unpackb(data, ext_hook=_UNPACK[0], strict_map_key=False, timestamp=3)
    except Exception as error:  # whatever bytes may cause: too short, no text, no date, an unhashable key
        raise ParamsInvalid(f"these bytes are no encoded value: {error or type(error).__name__}") from error


# --- to bytes -----------------------------------------------------------------------------------------------------


def _pack_moment(value: datetime | time) -> bytes:
    zone = value.tzinfo
    key: str | None = zone.key if type(zone) is ZoneInfo else None
    offset = value.utcoffset()
    name = None
    if zone is not None and key is None:
        if offset is None:
            raise ValueError("its time zone has no fixed offset")
        name = value.tzname()
        if name == timezone(offset).tzname(None):
            name = None
    offset_us = None if offset is None else offset // _MICROSECOND
    return _plain_bytes([value.replace(tzinfo=None).isoformat(), value.fold, offset_us, key, name])


def _plain_bytes(value: list[Any]) -> bytes:
    packed: bytes = Packer(buf_size=_BUFFER_BYTES).pack(value)
    return packed


_PACK_PLAIN: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    int: (_INT, lambda value: value.to_bytes(value.bit_length() // 8 + 1, signed=True)),
    datetime: (_DATETIME, _pack_moment),
    date: (_DATE, lambda value: value.isoformat().encode()),
    time: (_TIME, _pack_moment),
    timedelta: (_TIMEDELTA, lambda value: _plain_bytes([value.days, value.seconds, value.microseconds])),
    Decimal: (_DECIMAL, lambda value: str(value).encode()),
    UUID: (_UUID, lambda value: value.bytes),
}

_PACK_NESTED: dict[type, int] = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}


def _pack_extended(nested: int, value: Any) -> ExtType:
    """What msgpack can't keep as it is; `nested`: how many tuples and sets it is in."""
    kind = _type_of(value)
    plain = _PACK_PLAIN.get(kind)
    if plain is not None:
        return ExtType(plain[0], plain[1](value))
    if kind not in _PACK_NESTED:
        raise TypeError(f"unsupported type {kind.__name__}")
    if nested == NESTED_MAX:
        raise ValueError("nested too deep")
    packer = Packer(default=_PACK[nested + 1], strict_types=True, buf_size=_BUFFER_BYTES)
    if kind is tuple:
        return ExtType(_TUPLE, packer.pack(list(value)))
    return ExtType(_PACK_NESTED[kind], packer.pack(sorted(value, key=packer.pack)))


_PACK = [partial(_pack_extended, nested) for nested in range(NESTED_MAX + 1)]


# --- from bytes ---------------------------------------------------------------------------------------------------


def _unpack_moment(kind: type[datetime] | type[time], payload: bytes) -> datetime | time:
    text, fold, offset_us, key, name = unpackb(payload)
    value = kind.fromisoformat(text).replace(fold=fold)
    if offset_us is not None:
        offset = timedelta(microseconds=offset_us)
        value = value.replace(tzinfo=timezone(offset) if name is None else timezone(offset, name))
    return value if key is None else _in_zone(value, key)


def _in_zone(value: datetime | time, key: str) -> datetime | time:
    """In that zone, if it is known here and agrees on the offset; else as it is."""
    try:
        placed = value.replace(tzinfo=ZoneInfo(key))
    except (LookupError, ValueError, OSError):
        if value.tzinfo is None:
            raise
        return value
    return placed if placed.utcoffset() == value.utcoffset() else value


def _unpack_timedelta(payload: bytes) -> timedelta:
    days, seconds, microseconds = unpackb(payload)
    return timedelta(days, seconds, microseconds)


_UNPACK_PLAIN: dict[int, Callable[[bytes], Any]] = {
    _INT: lambda payload: int.from_bytes(payload, signed=True),
    _DATETIME: partial(_unpack_moment, datetime),
    _DATE: lambda payload: date.fromisoformat(payload.decode()),
    _TIME: partial(_unpack_moment, time),
    _TIMEDELTA: _unpack_timedelta,
    _DECIMAL: lambda payload: Decimal(payload.decode()),
    _UUID: lambda payload: UUID(bytes=payload),
}

_UNPACK_NESTED: dict[int, Callable[[Any], Any]] = {_TUPLE: tuple, _SET: set, _FROZENSET: frozenset}


def _unpack_extended(nested: int, code: int, payload: bytes) -> Any:
    plain = _UNPACK_PLAIN.get(code)
    if plain is not None:
        return plain(payload)
    if code not in _UNPACK_NESTED:
        raise ValueError(f"unknown code {code}")
    if nested == NESTED_MAX:
        raise ValueError("nested too deep")
    elements = unpackb(payload, ext_hook=_UNPACK[nested + 1], strict_map_key=False, timestamp=3)
    if type(elements) is not list:
        raise ValueError(f"code {code} without a list of elements")
    return _UNPACK_NESTED[code](elements)


_UNPACK = [partial(_unpack_extended, nested) for nested in range(NESTED_MAX + 1)]


# --- what can't be sent -------------------------------------------------------------------------------------------

_STRANGE = bytes((*range(0xC4, 0xCA), *range(0xD4, 0xD9)))
"""First bytes of msgpack's bin and ext. Where none occurs, nothing has slipped through: the packer takes a bytearray
or memoryview for bytes and lets an `ExtType` of the caller's pass, whatever `strict_types` says."""


def _is_supported(value: object) -> bool:
    """Whether a value that the packer has taken, so is finite, holds only what comes back as it was."""
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        kind = _type_of(one)
        if kind in _PLAIN:
            continue
        if kind is dict:
            waiting.extend(one)
            waiting.extend(one.values())
        elif kind is list or kind in _PACK_NESTED:
            waiting.extend(one)
        else:
            return False
    return True


@dataclass(slots=True)
class _Place:
    """A value on the way down from the root. `levels`, `nested`: as the limits count them."""

    value: Any
    step: str
    above: _Place | None
    levels: int
    nested: int


def _explain(value: object, name: str) -> str:
    """Why a value can't be sent, with the path to the first culprit; empty if none is found."""
    ways: list[Iterator[_Place]] = [iter((_Place(value, name, None, 0, 0),))]
    while ways:
        place = next(ways[-1], None)
        if place is None:
            ways.pop()
            continue
        fault = _fault(place)
        if fault:
            return f"{_path(place)}: {fault}"
        ways.append(_inside(place))
    return ""


def _fault(place: _Place) -> str:
    value = place.value
    kind = _type_of(value)
    if kind in _PLAIN:
        return _fault_of_plain(value)
    if kind is not dict and kind is not list and kind not in _PACK_NESTED:
        return f"a value of type {kind.__qualname__} can't be sent; supported are {_SUPPORTED}"
    above = place.above
    while above is not None:
        if above.value is value:
            return "contains itself"
        above = above.above
    if place.levels >= LEVELS_MAX:
        return f"lists and dicts are nested deeper than {LEVELS_MAX}"
    if kind in _PACK_NESTED and place.nested >= NESTED_MAX:
        return f"tuples and sets are nested deeper than {NESTED_MAX}"
    return ""


def _fault_of_plain(value: Any) -> str:
    try:
        Packer(default=_PACK[0], strict_types=True, buf_size=_BUFFER_BYTES).pack(value)
    except UnicodeEncodeError:
        return "text with lone surrogates can't be sent"
    except Exception as error:
        return f"this {type(value).__name__} can't be sent: {error}"
    return ""


def _inside(place: _Place) -> Iterator[_Place]:
    value = place.value
    kind = _type_of(value)
    if kind is dict:
        for key, item in value.items():
            yield _Place(key, " (a key)", place, place.levels + 1, place.nested)
            yield _Place(item, f"[{_key_text(key)}]", place, place.levels + 1, place.nested)
    elif kind is list:
        for index, item in enumerate(value):
            yield _Place(item, f"[{index}]", place, place.levels + 1, place.nested)
    elif kind is tuple:
        for index, item in enumerate(value):
            yield _Place(item, f"[{index}]", place, 1, place.nested + 1)
    elif kind in _PACK_NESTED:
        for item in value:
            yield _Place(item, " (an element)", place, 0, place.nested + 1)


def _key_text(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= _KEY_MAX_LENGTH else text[:_KEY_MAX_LENGTH] + "..."


def _path(place: _Place) -> str:
    steps: list[str] = []
    above: _Place | None = place
    while above is not None:
        steps.append(above.step)
        above = above.above
    text = "".join(reversed(steps))
    return text if len(text) <= _PATH_MAX_LENGTH else text[:_PATH_MAX_LENGTH] + "..."
