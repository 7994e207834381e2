"""Every message comes back the same, and whatever bytes come in, nothing but a `WireError` comes out."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import EnumType
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import packb, unpackb

from zhero import wire
from zhero.core.entries import Entry
from zhero.core.messages import Answer, Call, Entries, Frame, Request, Response
from zhero.core.values import JobId, Life, NodeId, StreamId

TAG = wire.cluster_tag("garden")
HEADER = b"zh\x01"

# --- strategies ---------------------------------------------------------------------------------------------------


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type hint, with the bounds that the wire has."""
    origin, args = get_origin(hint), get_args(hint)
    leaves: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**63), 2**64 - 1),
        bool: st.booleans(),
        str: st.text(max_size=20),
        bytes: st.binary(max_size=20),
        NoneType: st.none(),
        JobId: st.integers(0, 2**128 - 1),
        NodeId: st.binary(min_size=16, max_size=16),
    }
    if hint in leaves:
        return leaves[hint]
    if origin is Literal:
        return st.sampled_from(args)
    if isinstance(hint, EnumType):
        return st.sampled_from(list(hint))
    if origin is list:
        return st.lists(values(args[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=3)
    if origin in (Union, UnionType):
        return st.one_of(*map(values, args))
    hints = get_type_hints(hint)
    names = [field.name for field in fields(hint)] if is_dataclass(hint) else hint._fields
    return st.builds(hint, *(values(hints[name]) for name in names))


FRAMES = values(Frame)
LIVES = values(Life)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)

# --- properties ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", wire.KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=20)
def test_each_kind_comes_back_the_same(kind: type, data: st.DataObject) -> None:
    said = data.draw(values(kind))
    if isinstance(said, Call):
        said = Request(1, said)
    elif isinstance(said, Answer):
        said = Response(1, said)
    elif isinstance(said, Entry):
        said = Entries(data.draw(values(StreamId)), 1, [said])
    comes_back(Frame(data.draw(LIVES), None, [said]))


@given(FRAMES)
def test_a_frame_comes_back_the_same(frame: Frame) -> None:
    comes_back(frame)


def comes_back(frame: Frame) -> None:
    data = wire.encode(frame, TAG)
    back = wire.decode(data, TAG)
    assert back == frame
    assert repr(back) == repr(frame)  # tells 1 from True and a Life from another tuple
    assert wire.encode(back, TAG) == data


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_a_frame_or_refused(data: bytes, headed: bool) -> None:
    decode_or_refuse(HEADER + data if headed else data)


@given(FRAMES, st.data())
@settings(max_examples=300)
def test_damaged_bytes_are_a_frame_or_refused(frame: Frame, draw: st.DataObject) -> None:
    data = bytearray(wire.encode(frame, TAG))
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


@given(FRAMES, st.data())
@settings(max_examples=300)
def test_a_field_replaced_by_anything_is_a_frame_or_refused(frame: Frame, draw: st.DataObject) -> None:
    """Well-formed msgpack of the wrong shape: what checks of types and lengths are for."""
    row = unpackb(wire.encode(frame, TAG)[len(HEADER) :])
    inner = row
    while True:
        place = draw.draw(st.integers(0, len(inner) - 1))
        deeper = inner[place]
        if not isinstance(deeper, list) or not deeper or draw.draw(st.integers(0, 4)) == 0:
            break
        inner = deeper
    match draw.draw(st.sampled_from(["put", "put", "drop", "insert", "append"])):
        case "drop":
            del inner[place]
        case "insert":
            inner.insert(place, draw.draw(JUNK))
        case "append":
            inner.append(draw.draw(JUNK))
        case _:
            inner[place] = draw.draw(JUNK)
    decode_or_refuse(HEADER + packb(row))


def decode_or_refuse(data: bytes) -> None:
    """What is accepted is a frame like any other: it can be sent on."""
    try:
        frame = wire.decode(data, TAG)
    except wire.WireError:
        return
    comes_back(frame)
