"""Params and results to bytes and back: what is kept, what is refused, and what bytes may not do."""

from __future__ import annotations

import threading
import tracemalloc
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import pytest
from msgpack import ExtType, packb

from zhero.codec import LEVELS_MAX, NESTED_MAX, decode, encode
from zhero.core.values import NO_PARAMS, NOTHING
from zhero.errors import ParamsInvalid

BERLIN = "Europe/Berlin"
HOUR = timedelta(hours=1)
CET = timezone(HOUR, "CET")

needs_zones = pytest.mark.skipif(BERLIN not in available_timezones(), reason="no time zone data on this system")


def nested(wrap: Callable[[Any], Any], depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


# --- what is kept -------------------------------------------------------------------------------------------------

KEPT: list[Any] = [
    None,
    *(True, False, 0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1),
    *(2**64, -(2**63) - 1, 10**100, -(10**100), 2**71, -(2**71), 2**71 - 1),
    *(0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), 5e-324),
    *("", "text", "\x00", "Grüße 😀", b"", b"\x00\xff", bytes(range(256))),
    *([], [1, "a", [None]], (), (1,), ((1, [2]), "x"), [(1,)]),
    *(set(), {1}, frozenset(), frozenset({(1, 2)}), {frozenset({1})}),
    *({}, {"a": 1}, {1: "a", b"b": 2, (1, ("x",)): 3, None: 4, True is None: 5, 1.5: 6, frozenset({1}): 7}),
    {"z": 1, "a": 2},
    *(datetime(2026, 3, 4, 5, 6, 7, 8), datetime(2026, 10, 25, 2, 30, fold=1), datetime.min, datetime.max),
    datetime(2026, 3, 4, 5, 6, 7, 800000, UTC),
    datetime(2026, 3, 4, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    datetime(2026, 3, 4, tzinfo=timezone(timedelta(hours=1, seconds=2, microseconds=3))),
    datetime(2026, 3, 4, fold=1, tzinfo=CET),
    datetime(2026, 3, 4, tzinfo=timezone(timedelta(microseconds=1))),  # fromisoformat would take it for UTC
    *(date(2026, 3, 4), date.min, date.max),
    *(time(1, 2, 3, 4), time(1, 2, fold=1), time(1, tzinfo=UTC), time(1, tzinfo=CET)),
    *(timedelta(0), timedelta(days=-1, microseconds=1), timedelta.min, timedelta.max),
    *(Decimal("0.10"), Decimal("-0"), Decimal("1E+1000"), Decimal("Infinity"), Decimal("sNaN12")),
    UUID("12345678-1234-5678-1234-567812345678"),
]


@pytest.mark.parametrize("value", KEPT, ids=lambda value: repr(value)[:40])
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    back = decode(encode(value, "params"))
    assert type(back) is type(value)
    assert repr(back) == repr(value)  # tells tuples from lists, 1 from True, -0.0 from 0.0, NaN from NaN with a payload


@needs_zones
@pytest.mark.parametrize("fold", [0, 1])
def test_a_zone_is_kept_by_its_key(fold: int) -> None:
    moment = datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=ZoneInfo(BERLIN))
    back = decode(encode(moment, "params"))
    assert back.tzinfo is moment.tzinfo
    assert back.fold == fold
    assert back.utcoffset() == moment.utcoffset() == HOUR * (2 - fold)


@needs_zones
def test_a_time_of_day_keeps_its_zone() -> None:
    back = decode(encode(time(2, 30, tzinfo=ZoneInfo(BERLIN)), "params"))
    assert back == time(2, 30, tzinfo=ZoneInfo(BERLIN))
    assert back.tzinfo is ZoneInfo(BERLIN)


@needs_zones
def test_where_the_rules_of_a_zone_differ_the_moment_stays_right() -> None:
    data = encode(datetime(2026, 7, 1, 12, tzinfo=ZoneInfo(BERLIN)), "params")
    hour_us = HOUR // timedelta(microseconds=1)
    back = decode(data.replace(packb(2 * hour_us), packb(3 * hour_us)))
    assert back == datetime(2026, 7, 1, 9, tzinfo=UTC)
    assert back.utcoffset() == 3 * HOUR


@needs_zones
def test_where_a_zone_is_unknown_the_moment_stays_right() -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo(BERLIN))
    back = decode(encode(moment, "params").replace(BERLIN.encode(), b"Europe/Utopia"))
    assert back == moment
    assert back.tzinfo == timezone(2 * HOUR)


class Foreign(tzinfo):
    """A tzinfo of somebody else's."""

    def __init__(self, offset: timedelta | None) -> None:
        self.offset = offset

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        if self.offset == timedelta(0):
            raise RuntimeError("out of order")
        return self.offset

    def tzname(self, dt: datetime | None) -> str:
        return "FOREIGN"

    def dst(self, dt: datetime | None) -> timedelta | None:
        return None


def test_a_foreign_tzinfo_becomes_its_offset_and_name() -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=Foreign(3 * HOUR))
    back = decode(encode(moment, "params"))
    assert back == moment
    assert repr(back.tzinfo) == repr(timezone(3 * HOUR, "FOREIGN"))


@pytest.mark.parametrize("elements", [[f"name-{number}" for number in range(50)], [1, "1", b"1", 1.5, None, (1,)]])
def test_equal_sets_have_equal_bytes(elements: list[Any]) -> None:
    backwards = elements[::-1]
    assert encode(set(elements), "params") == encode(set(backwards), "params")
    assert encode(frozenset(elements), "params") == encode(frozenset(backwards), "params")


def test_a_value_is_a_snapshot() -> None:
    params = {"tags": ["a"]}
    data = encode(params, "params")
    params["tags"].append("b")
    assert decode(data) == {"tags": ["a"]}


def test_nothing_and_no_params_are_what_the_core_takes_them_for() -> None:
    assert encode(None, "result") == NOTHING
    assert encode({}, "params") == NO_PARAMS


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (2**64, "c70901010000000000000000"),
        ((1, 2), "c70302920102"),
        ({2, 1}, "c70303920102"),
        (frozenset((2, 1)), "c70304920102"),
        (datetime(2026, 1, 2, 3, 4), "c7190595b3323032362d30312d30325430333a30343a303000c0c0c0"),
        (date(2026, 1, 2), "c70a06323032362d30312d3032"),
        (time(3, 4), "c70e0795a830333a30343a303000c0c0c0"),
        (timedelta(1, 2, 3), "d60893010203"),
        (Decimal("1.0"), "c70309312e30"),
        (UUID(int=1), "d80a00000000000000000000000000000001"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_bytes_of_each_code_stay_what_they_are(value: Any, data: str) -> None:
    assert encode(value, "params").hex() == data
    assert decode(bytes.fromhex(data)) == value


def test_a_timestamp_of_msgpack_is_read_as_a_moment() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert decode(packb(moment, datetime=True)) == moment


def test_threads_encode_at_the_same_time() -> None:
    params = {"pairs": [(number, {number, str(number)}, 2**70 + number) for number in range(200)]}
    expected = encode(params, "params")
    wrong: list[int] = []

    def work() -> None:
        for turn in range(20):
            if encode(params, "params") != expected:
                wrong.append(turn)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- what is refused ----------------------------------------------------------------------------------------------


class Foo: ...


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Text(str): ...


class Count(int): ...


class Ratio(float): ...


class Moment(datetime): ...


class Span(timedelta): ...


@dataclass
class Box:
    size: int = 1


Pair = namedtuple("Pair", "one two")

REFUSED: list[Any] = [
    *(Foo(), Foo, Colour.RED, Level.LOW, Text("a"), Count(1), Ratio(1.5), OrderedDict(), Pair(1, 2), Box()),
    *(Moment(2026, 1, 1), Span(1), range(3), iter([]), 1j, lambda: None, len, NotImplemented, ...),
    *(bytearray(b"a"), memoryview(b"a"), ExtType(2, b"\x90"), {"a": 1}.keys(), ValueError("a")),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_would_not_come_back_as_it_was_is_refused(value: Any) -> None:
    with pytest.raises(ParamsInvalid) as caught:
        encode({"user": {"tags": ["a", b"b", (1,), value]}}, "params")
    kind = type(value).__qualname__
    assert str(caught.value).startswith(f"params['user']['tags'][3]: a value of type {kind} can't be sent; supported")
    assert "datetime" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Foo(), "params"),
        ([1, Foo()], "params[1]"),
        (("a", [Foo()]), "params[1][0]"),
        ({1: {b"b": Foo()}}, "params[1][b'b']"),
        ({"k" * 100: Foo()}, f"params['{'k' * 39}...]"),
        ({Foo: 1}, "params (a key)"),
        ({"a": {(1, Foo): 1}}, "params['a'] (a key)[1]"),
        ({"a": {(1, Foo)}}, "params['a'] (an element)[1]"),
        ({"a": Foo(), "b": Colour.RED}, "params['a']"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_error_names_the_path_to_the_first_culprit(value: Any, path: str) -> None:
    with pytest.raises(ParamsInvalid) as caught:
        encode(value, "params")
    assert str(caught.value).split(":")[0] == path


def test_the_error_comes_without_the_insides_of_the_packer() -> None:
    with pytest.raises(ParamsInvalid) as caught:
        encode([Foo()], "params")
    assert caught.value.__suppress_context__


def test_a_long_path_is_cut() -> None:
    with pytest.raises(ParamsInvalid, match=r"^params.{190,210}: a value of type Foo"):
        encode(nested(lambda value: {"step": value if value != 1 else Foo()}, 100), "params")


def test_the_error_does_not_show_values() -> None:
    with pytest.raises(ParamsInvalid) as caught:
        encode({"password": Text("hunter2"), "pair": Pair("hunter2", 1)}, "params")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["\ud800", {"a\udcff": 1}, [("ok", "\ud800")]], ids=ascii)
def test_text_with_lone_surrogates_is_refused(value: Any) -> None:
    with pytest.raises(ParamsInvalid, match="text with lone surrogates"):
        encode(value, "params")


@pytest.mark.parametrize("offset", [None, timedelta(0)], ids=["has none", "raises"])
def test_a_tzinfo_without_an_offset_is_refused(offset: timedelta | None) -> None:
    with pytest.raises(ParamsInvalid, match=r"^params\['at'\]: this datetime can't be sent: "):
        encode({"at": datetime(2026, 1, 1, tzinfo=Foreign(offset))}, "params")


def test_what_contains_itself_is_refused() -> None:
    list_in_itself: list[Any] = [1]
    list_in_itself.append(list_in_itself)
    dict_in_itself: dict[str, Any] = {}
    dict_in_itself["me"] = {"again": dict_in_itself}
    tuple_in_itself: tuple[list[Any]] = ([],)
    tuple_in_itself[0].append(tuple_in_itself)
    for value, path in (
        (list_in_itself, r"params\[1\]"),
        (dict_in_itself, r"params\['me'\]\['again'\]"),
        (tuple_in_itself, r"params\[0\]\[0\]"),
    ):
        with pytest.raises(ParamsInvalid, match=f"^{path}: contains itself$"):
            encode(value, "params")


@pytest.mark.parametrize(
    ("wrap", "most", "what"),
    [
        (lambda value: [value], LEVELS_MAX, f"nested deeper than {LEVELS_MAX}"),
        (lambda value: {"k": value}, LEVELS_MAX, f"nested deeper than {LEVELS_MAX}"),
        (lambda value: (value,), NESTED_MAX, f"nested deeper than {NESTED_MAX}"),
        (lambda value: frozenset((value,)), NESTED_MAX, f"nested deeper than {NESTED_MAX}"),
    ],
    ids=["list", "dict", "tuple", "frozenset"],
)
def test_depth_is_limited_and_all_up_to_the_limit_comes_back(wrap: Callable[[Any], Any], most: int, what: str) -> None:
    data = encode(nested(wrap, most), "params")
    assert encode(decode(data), "params") == data
    with pytest.raises(ParamsInvalid, match=what):
        encode(nested(wrap, most + 1), "params")
    with pytest.raises(ParamsInvalid, match=what):
        encode(nested(wrap, 20 * most), "params")


def test_the_deepest_value_fits_into_the_stack_of_a_thread() -> None:
    value = nested(lambda value: (nested_lists(value),), NESTED_MAX)
    sizes: list[int] = []
    thread = threading.Thread(target=lambda: sizes.append(len(decode(encode(value, "params")))))
    thread.start()
    thread.join()
    assert sizes == [1]


def nested_lists(value: Any) -> Any:
    for _ in range(LEVELS_MAX - 2):
        value = [value]
    return value


# --- what bytes may not do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # a code that msgpack never uses
        b"\x01\x01",  # more than one value
        b"\xa1",  # cut short
        b"\xa1\xff",  # no UTF-8
        b"\x81\x90\x01",  # a key that can't be hashed
        b"\xdd\xff\xff\xff\xff",  # an array of 4 Gi
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x02",
        b"\x91" * 5_000,
        b"\x91" * 5_000 + b"\x01",
        packb(ExtType(99, b"")),
        packb(ExtType(2, b"")),
        packb(ExtType(2, b"\x01")),
        packb(ExtType(2, b"\x91")),
        packb(ExtType(2, b"\x90\x90")),
        packb(ExtType(3, b"\x91\x90")),  # a list in a set
        packb(ExtType(5, packb("2026-01-01"))),
        packb(ExtType(5, packb(["no date", 0, None, None, None]))),
        packb(ExtType(5, packb(["2026-01-01T00:00:00", 2, None, None, None]))),
        packb(ExtType(5, packb(["2026-01-01T00:00:00", 0, 10**12, None, None]))),
        packb(ExtType(5, packb(["2026-01-01T00:00:00", 0, 0, None, 1]))),
        packb(ExtType(5, packb(["2026-01-01T00:00:00", 0, None, "No/Where", None]))),
        packb(ExtType(5, packb(["2026-01-01T00:00:00", 0, None, "../../etc/passwd", None]))),
        packb(ExtType(5, packb(["2026-01-01T00:00:00", 0, None, 5, None]))),
        packb(ExtType(6, b"2026-13-01")),
        packb(ExtType(7, packb(["25:00", 0, None, None, None]))),
        packb(ExtType(8, packb([10**10, 0, 0]))),
        packb(ExtType(8, packb([1, 2]))),
        packb(ExtType(9, b"one")),
        packb(ExtType(10, b"short")),
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a timestamp out of range
        b"\xc7\x00\xff",
    ],
    ids=lambda data: data[:16].hex() or "empty",
)
def test_bytes_that_encode_does_not_make_are_refused(data: bytes) -> None:
    with pytest.raises(ParamsInvalid, match="no encoded value"):
        decode(data)


def test_bytes_nested_deeper_than_a_value_may_be_are_refused() -> None:
    data = b"\x90"
    for _ in range(NESTED_MAX + 1):
        data = b"\x91" + packb(ExtType(2, data))
    with pytest.raises(ParamsInvalid, match="no encoded value"):
        decode(data)


def test_declared_lengths_do_not_take_memory() -> None:
    """Each of 1,000 arrays in one another claims to hold as many elements as there are bytes."""
    size = 1024 * 1024
    data = ((b"\xdd" + (size - 1).to_bytes(4)) * 1_000).ljust(size, b"\x00")
    tracemalloc.start()
    try:
        with pytest.raises(ParamsInvalid):
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 128 * size
