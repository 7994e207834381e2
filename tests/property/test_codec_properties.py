"""Whatever is supported comes back the same, and whatever bytes come in, nothing but `ParamsInvalid` comes out."""

from __future__ import annotations

from datetime import datetime, time, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from zhero.codec import decode, encode
from zhero.errors import ParamsInvalid

# --- strategies ---------------------------------------------------------------------------------------------------


def fixed_zones() -> st.SearchStrategy[timezone]:
    offsets = st.timedeltas(-timezone.max.utcoffset(None), timezone.max.utcoffset(None))
    return st.builds(timezone, offsets) | st.builds(timezone, offsets, st.text(max_size=5))


def hashable_scalars(*, nan: bool) -> st.SearchStrategy[Any]:
    """Without NaN they can be compared, so be keys."""
    zones = st.none() | fixed_zones() | st.timezones()
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**200), 2**200),
        st.floats(allow_nan=nan),
        st.text(),
        st.binary(),
        st.datetimes(timezones=zones),
        st.datetimes(timezones=zones).map(lambda moment: moment.replace(fold=1)),
        st.dates(),
        st.times(timezones=zones),
        st.timedeltas(),
        st.decimals(allow_nan=nan),
        st.uuids(),
    )


SCALARS = hashable_scalars(nan=True)
HASHABLES = st.recursive(
    hashable_scalars(nan=False),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
VALUES = st.recursive(
    SCALARS | HASHABLES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLES, inner, max_size=4),
        st.sets(HASHABLES, max_size=4),
        st.frozensets(HASHABLES, max_size=4),
    ),
    max_leaves=15,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))  # in the same order
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, float | Decimal):
        return repr(one) == repr(other)  # tells -0.0 from 0.0 and one NaN from another
    if isinstance(one, datetime | time) and one.tzinfo is not None:
        return (
            one.replace(tzinfo=None) == other.replace(tzinfo=None)
            and one.fold == other.fold
            and one.utcoffset() == other.utcoffset()
            and same_zone(one.tzinfo, other.tzinfo)
        )
    return bool(one == other) and getattr(one, "fold", 0) == getattr(other, "fold", 0)


def same_zone(one: Any, other: Any) -> bool:
    if isinstance(one, ZoneInfo):
        return one is other
    return type(one) is type(other) and repr(one) == repr(other)


# --- properties ---------------------------------------------------------------------------------------------------


@given(VALUES)
def test_a_value_comes_back_with_all_its_types(value: Any) -> None:
    data = encode(value, "params")
    back = decode(data)
    assert same(back, value)
    assert encode(back, "params") == data


@given(st.binary(max_size=200))
def test_random_bytes_are_a_value_or_refused(data: bytes) -> None:
    decode_or_refuse(data)


@given(VALUES, st.data())
@settings(max_examples=300)
def test_damaged_bytes_are_a_value_or_refused(value: Any, draw: st.DataObject) -> None:
    data = bytearray(encode(value, "params"))
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(st.integers(0, max(0, len(data) - 1)))
        match draw.draw(st.sampled_from(["flip", "cut", "insert", "put"])):
            case "flip" if data:
                data[place] ^= 1 << draw.draw(st.integers(0, 7))
            case "cut":
                del data[place:]
            case "insert":
                data[place:place] = draw.draw(st.binary(max_size=4))
            case _:
                data[place : place + 1] = bytes([draw.draw(st.integers(0xC0, 0xDF))])
    decode_or_refuse(bytes(data))


def decode_or_refuse(data: bytes) -> None:
    """What is accepted is a value like any other: it can be sent on."""
    try:
        value = decode(data)
    except ParamsInvalid:
        return
    assert same(decode(encode(value, "params")), value)


@given(VALUES)
def test_no_beginning_of_a_value_is_a_value(value: Any) -> None:
    data = encode(value, "params")
    for length in range(len(data)):
        try:
            decode(data[:length])
        except ParamsInvalid:
            continue
        raise AssertionError(f"{data[:length]!r} was accepted")
