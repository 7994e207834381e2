"""What a journal is given, and what it gives back: the steps by which a slice is kept on a disk.

A journal has *shelves*. Each holds one slice, of which this node is home or has a copy: its entries in order (`Added`)
on top of the latest state of its jobs (`Folded`), which takes the place of all entries up to there. So what a job went
through costs one entry a turn, and only one that outlives a fold costs a row. `persisting.py` says when; here is what.

A job's row is (id, kind, body): `READY` and `DELAYED` are bytes as in `Slice.ready`, with the number of a header of the
same shelf; `LIVE` and `DEAD` are records; `SPREAD` is an "all" job on its way, with all its open parts. `KEYED` is
added where the id is the caller's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .entries import Entry
from .records import Chunk, Record, SpreadOut
from .values import Header, JobId, Life, NodeId, StreamId

READY, DELAYED, LIVE, DEAD, SPREAD = range(5)
KEYED = 8


class DiskFault(Enum):
    """Why a journal could not write."""

    FULL = "full"
    FAILED = "failed"


@dataclass(slots=True)
class SpreadRow:
    """The body of a row of kind `SPREAD`."""

    record: Record
    parts: SpreadOut
    open: list[Record]


Body = bytes | Record | SpreadRow
Row = tuple[JobId, int, Body]


@dataclass(slots=True)
class Shelved:
    """A shelf is taken for a slice, empty at first. `behind_ms`: of a copy, how far the clock of its home is behind."""

    shelf: int
    stream: StreamId
    is_copy: bool
    behind_ms: int


@dataclass(slots=True)
class Renamed:
    """What is on the shelf goes on under another name."""

    shelf: int
    stream: StreamId


@dataclass(slots=True)
class Added:
    """The next entries of a slice."""

    shelf: int
    entries: list[Entry]


@dataclass(slots=True)
class Folded:
    """The latest state of all that has changed since the last fold; no entry before this is needed any more.

    Attributes:
        number: of the last entry; -1: a copy that is not whole yet.
        copies: how many copies its jobs have asked for.
        taken: streams that are part of this one.
        headers: those that have come since the last fold, numbered from `first_header` on.
        gone: jobs that may have a row, and are not there any more.
        dead_only: if not None, all dead letters: rows of others go.
        plans: schedules and rounds, all of them.
        ended: how jobs have ended since the last fold, to be forgotten at `forget_at_ms`; None: none has.
    """

    shelf: int
    home: Life
    epoch: int
    number: int
    copies: list[int]
    taken: list[StreamId]
    first_header: int
    headers: list[Header]
    rows: list[Row]
    gone: list[JobId]
    dead_only: list[JobId] | None
    plans: Chunk
    ended: Chunk | None
    forget_at_ms: int
    now_ms: int


@dataclass(slots=True)
class Cleared:
    """What was on the shelf is not needed any more."""

    shelf: int


@dataclass(slots=True)
class Noted:
    """Who is here besides this node, and which is the delayed queue: who comes back later waits for them."""

    nodes: list[NodeId]
    delayed: StreamId | None


Step = Shelved | Renamed | Added | Folded | Cleared | Noted


@dataclass(slots=True)
class Shelf:
    """What a journal has found on a shelf: the state at the last fold, and the entries after it."""

    shelf: int
    stream: StreamId
    is_copy: bool
    behind_ms: int
    home: Life
    epoch: int
    number: int
    copies: list[int] = field(default_factory=list[int])
    taken: list[StreamId] = field(default_factory=list[StreamId])
    is_damaged: bool = False  # only what could still be read
    chunk: Chunk = field(default_factory=Chunk)
    entries: list[Entry] = field(default_factory=list[Entry])


@dataclass(slots=True)
class Found:
    """All that a journal has found. An empty one is that of a node that has never been."""

    shelves: list[Shelf] = field(default_factory=list[Shelf])
    noted: Noted = field(default_factory=lambda: Noted([], None))
