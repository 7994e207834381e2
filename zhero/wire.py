"""Messages as bytes, and back.

A frame is `zh`, a version byte, and a msgpack array: cluster tag (8 bytes), sender, receiver or nil, messages. Magic
and version stand outside, so that a node of another version can at least say which it speaks. A message is an array:
its number in `KINDS`, then its fields in the order of its class. Nested classes are arrays of their fields; where one
of several may stand, its number comes first. Nothing carries a name, so the format is as small as it can be.

Numbers are never given away twice. A field may be added at the end of a class if it has a default: decoders ignore
fields that they do not know and fill in those that are missing. Any other change needs a new version byte. Golden
bytes in the tests guard all of this.

The codecs are compiled once, at import, from the type hints of the classes. Decoding checks every type and bound, and
raises a `WireError` for whatever is off and nothing else: bytes come from anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum
from hashlib import blake2b
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

import msgpack

from .config import FRAME_MAX_BYTES, MESSAGES_MAX_COUNT
from .core import messages as m
from .core.messages import Frame, Message
from .core.values import Life
from .errors import ZheroError

MAGIC = b"zh"
VERSION = 1
TAG_BYTES = 8


class WireError(ZheroError):
    """Bytes that can't be taken."""


class WireInvalid(WireError):
    """They make no sense, or are too many."""


class WireVersion(WireError):
    """They are of another version of the format."""


class WireCluster(WireError):
    """They are of another cluster."""


KINDS: dict[int, type[Any]] = {
    1: m.Request,
    2: m.Response,
    3: m.GiveUp,
    4: m.Hello,
    5: m.Welcome,
    6: m.Rejected,
    20: m.Enqueue,
    21: m.Cancel,
    22: m.Retry,
    23: m.Discard,
    24: m.AwaitResult,
    25: m.StopTask,
    26: m.StartTask,
    27: m.ListJobs,
    28: m.FindJob,
    29: m.CountJobs,
    30: m.AskStats,
    31: m.AskStatus,
    32: m.Leave,
    60: m.Refused,
    61: m.Accepted,
    62: m.Did,
    63: m.Ended,
    64: m.Listed,
    65: m.Counted,
    66: m.Stats,
    67: m.ClusterStatus,
    68: m.Left,
}
"""Number -> class, for whatever stands where one of several may."""

NUMBERS = {kind: number for number, kind in KINDS.items()}

_type_of: Callable[[object], type[Any]] = type  # as a function, so that checkers leave an `Any` alone

Pack = Callable[[Any], Any]
"""A value -> what msgpack can pack."""
Unpack = Callable[[Any], Any]
"""What msgpack unpacked -> the value; raises WireInvalid."""


def cluster_tag(cluster: str) -> bytes:
    """The eight bytes that stand for a cluster's name in every frame."""
    return blake2b(cluster.encode(), digest_size=TAG_BYTES).digest()


def encode(frame: Frame, tag: bytes) -> bytes:
    """The bytes of a frame.

    Raises:
        WireInvalid: it is over `FRAME_MAX_BYTES`.
    """
    to = None if frame.to is None else _pack_life(frame.to)
    body = [tag, _pack_life(frame.sender), to, [_pack_message(message) for message in frame.messages]]
    data = MAGIC + bytes([VERSION]) + msgpack.packb(body)
    if len(data) > FRAME_MAX_BYTES:
        raise WireInvalid(f"a frame of {len(data)} bytes, limit {FRAME_MAX_BYTES}")
    return data


def decode(data: bytes, tag: bytes) -> Frame:
    """The frame in some bytes.

    Raises:
        WireInvalid, WireVersion, WireCluster: and nothing else, whatever they are.
    """
    if len(data) > FRAME_MAX_BYTES or data[:2] != MAGIC or len(data) < 4:
        raise WireInvalid("no frame of zhero, or too large")
    if data[2] != VERSION:
        raise WireVersion(f"wire version {data[2]}; this node speaks {VERSION}")
    try:
        body: Any = msgpack.unpackb(data[3:], strict_map_key=False, ext_hook=_no_extension)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireInvalid(f"no msgpack: {error}") from None
    if _type_of(body) is not list or len(body) < 4:
        raise WireInvalid("no frame")
    seen, sender, to, said = body[:4]
    if _type_of(seen) is not bytes or len(seen) != TAG_BYTES:
        raise WireInvalid("no cluster tag")
    if seen != tag:
        raise WireCluster("another cluster")
    if _type_of(said) is not list or len(said) > MESSAGES_MAX_COUNT:
        raise WireInvalid("no messages, or too many")
    receiver = None if to is None else _unpack_life(to)
    return Frame(_unpack_life(sender), receiver, [_unpack_message(item) for item in said])


def _no_extension(code: int, body: bytes) -> object:
    raise ValueError(f"extension type {code}")


# --- the compiler -------------------------------------------------------------------------------------------------


def _codec(hint: Any) -> tuple[Pack, Unpack]:
    """How a value of that type is packed and unpacked."""
    if isinstance(hint, NewType):
        if hint.__name__ == "JobId":
            return lambda job: job.to_bytes(16), _unpack_job
        return _same, _bytes_of(16)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hint is Life:
        return _pack_life, _unpack_life
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _same, _one_of({value: value for value in args})
    if origin is Union or origin is UnionType:
        return _union_codec([arg for arg in args if arg is not NoneType], optional=NoneType in args)
    if origin is list:
        return _list_codec(args[0])
    if origin is dict:
        return _dict_codec(args[1])
    if origin is tuple:
        return _tuple_codec(args)
    if issubclass(hint, Enum):
        return lambda member: member.value, _one_of({member.value: member for member in hint})
    return _class_codec(hint)


def _same(value: Any) -> Any:
    return value


def _exactly(kind: type[Any]) -> Unpack:
    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not kind:
            raise WireInvalid(f"{_type_of(raw).__name__} for {kind.__name__}")
        return raw

    return unpack


def _whole(raw: Any) -> int:
    if _type_of(raw) is not int or not -(2**62) < raw < 2**62:
        raise WireInvalid("no whole number, or out of bounds")
    return int(raw)


def _bytes_of(count: int) -> Unpack:
    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not bytes or len(raw) != count:
            raise WireInvalid(f"not {count} bytes")
        return raw

    return unpack


def _unpack_job(raw: Any) -> int:
    if _type_of(raw) is not bytes or len(raw) != 16:
        raise WireInvalid("no job id")
    return int.from_bytes(raw)


def _one_of(values: dict[Any, Any]) -> Unpack:
    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not str or raw not in values:
            raise WireInvalid("an unknown value")
        return values[raw]

    return unpack


def _pack_life(life: Life) -> list[Any]:
    return [life.node, life.boot, life.life]


def _unpack_life(raw: Any) -> Life:
    if _type_of(raw) is not list or len(raw) != 3:
        raise WireInvalid("no life")
    node, boot, life = raw
    if _type_of(node) is not bytes or len(node) != 16 or _whole(boot) < 0 or _whole(life) < 0:
        raise WireInvalid("no life")
    return Life(node, boot, life)


def _list_codec(item: Any) -> tuple[Pack, Unpack]:
    pack_item, unpack_item = _codec(item)

    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not list:
            raise WireInvalid("no list")
        return [unpack_item(each) for each in raw]

    return lambda values: [pack_item(value) for value in values], unpack


def _tuple_codec(items: tuple[Any, ...]) -> tuple[Pack, Unpack]:
    codecs = [_codec(item) for item in items]

    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not list or len(raw) != len(codecs):
            raise WireInvalid("no tuple of that length")
        return tuple(codec[1](each) for codec, each in zip(codecs, raw, strict=True))

    return lambda values: [codec[0](value) for codec, value in zip(codecs, values, strict=True)], unpack


def _dict_codec(item: Any) -> tuple[Pack, Unpack]:
    pack_item, unpack_item = _codec(item)

    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not dict or not all(_type_of(key) is str for key in raw):
            raise WireInvalid("no table of names")
        return {key: unpack_item(value) for key, value in raw.items()}

    return lambda values: {key: pack_item(value) for key, value in values.items()}, unpack


def _class_codec(kind: type[Any]) -> tuple[Pack, Unpack]:
    """A dataclass as an array of its fields."""
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    names = [field.name for field in fields]
    codecs = [_codec(hints[name]) for name in names]
    packs = [(name, codec[0]) for name, codec in zip(names, codecs, strict=True)]
    unpacks = [codec[1] for codec in codecs]
    required = sum(field.default is dataclasses.MISSING for field in fields)

    def pack(value: Any) -> list[Any]:
        return [pack_field(getattr(value, name)) for name, pack_field in packs]

    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not list or len(raw) < required:
            raise WireInvalid(f"no {kind.__name__}, or too short")
        return kind(*[unpack_field(each) for unpack_field, each in zip(unpacks, raw, strict=False)])

    return pack, unpack


def _union_codec(kinds: list[Any], *, optional: bool) -> tuple[Pack, Unpack]:
    """None or a value; or one of several numbered classes, its number first."""
    if len(kinds) == 1:
        pack_some, unpack_some = _codec(kinds[0])
        return (
            lambda value: None if value is None else pack_some(value),
            lambda raw: None if raw is None else unpack_some(raw),
        )
    assert not optional
    codecs = {kind: _class_codec(kind) for kind in kinds}
    unpacks = {NUMBERS[kind]: codec[1] for kind, codec in codecs.items()}

    def pack(value: Any) -> list[Any]:
        kind = _type_of(value)
        return [NUMBERS[kind], *codecs[kind][0](value)]

    def unpack(raw: Any) -> Any:
        if _type_of(raw) is not list or not raw:
            raise WireInvalid("no message")
        number, *fields = raw
        if _type_of(number) is not int or number not in unpacks:
            raise WireInvalid("a message of unknown kind")
        return unpacks[number](fields)

    return pack, unpack


_PLAIN: dict[Any, tuple[Pack, Unpack]] = {
    int: (_same, _whole),
    str: (_same, _exactly(str)),
    bytes: (_same, _exactly(bytes)),
    bool: (_same, _exactly(bool)),
}

_pack_message, _unpack_message = _codec(Message)
