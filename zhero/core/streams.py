"""Streams: the order of a slice's entries, who has copies of it, and the slices that a node is home of.

Whoever is home appends; the stream numbers the entry and applies it to the slice at once. What may be seen of it from
outside waits until copies of it exist: jobs that it made ready stay out of the line (`Slice.release`), and whoever is
to be told waits here (`when_held`). An entry is *held* by so many copies when so many followers have said that they
have all entries up to it; where there are fewer other members than copies asked for, as many as there are do.

State: per stream, followers and what waits for them. Invariant: numbers grow by one, applied in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .entries import Entry
from .jobs import Slice
from .values import JobId, Life, StreamId


@dataclass(slots=True)
class Follower:
    """A member that keeps a copy. `receipt`: it has all up to there; -1: its copy is not whole yet.

    `waits_since_ms`: since when it owes the next receipt; 0: it owes none.
    """

    receipt: int = -1
    waits_since_ms: int = 0


class Stream:
    """A slice, the numbers of its entries and the copies of it.

    `term`: of the delayed slice, one more with each owner. `frozen`: its home may be another one by now: nothing of it
    is lent, and nothing decided.
    """

    __slots__ = (
        *("_waits", "followers", "frozen", "home", "kept_entries", "name", "others_count", "pending", "slice"),
        *("tap", "term", "written"),
    )

    def __init__(self, kept: Slice, term: int = 1) -> None:
        self.slice = kept
        self.term = term
        self.name = kept.name
        self.home = kept.home  # of the life under which it is known; the slice knows of the next one first
        self.followers: dict[Life, Follower] = {}
        self.others_count = 0  # members that could keep a copy
        self.frozen = False
        self.pending: list[Entry] = []  # not yet sent to the followers
        self.tap: Callable[[int, Entry], None] | None = None
        self.written: int | None = None  # number of the last entry that the journal has; None: there is none
        self.kept_entries: list[Entry] = []  # not yet given to it
        self._waits: dict[int, deque[tuple[int, Callable[[], None]]]] = {}  # copies -> what waits for them
        kept.withholds = True

    @property
    def id(self) -> StreamId:
        return StreamId(self.name, self.home, self.term)

    @property
    def last(self) -> int:
        """Number of the last entry."""
        return self.slice.last

    def append(self, entry: Entry) -> None:
        """Decide it: from here on it has happened."""
        self.slice.apply(entry)
        if self.others_count or self.followers:
            self.pending.append(entry)
        if self.written is not None:
            self.kept_entries.append(entry)
        if self.tap is not None:
            self.tap(self.slice.last, entry)

    def keep(self) -> None:
        """There is a journal: it gets all that is appended from now on, and nothing is held that it has not."""
        self.written = self.slice.last
        self.slice.is_journaled = True

    def held(self, copies: int) -> int:
        """All entries up to this one have so many copies, or as many as can be; the journal's is one more."""
        needed = min(copies, self.others_count)
        if not needed:
            return self.slice.last if self.written is None else self.written
        receipts = sorted((it.receipt for it in self.followers.values()), reverse=True)
        held = receipts[needed - 1] if len(receipts) >= needed else -1
        return held if self.written is None else min(held, self.written)

    def when_held(self, copies: int, act: Callable[[], None]) -> None:
        """Do it once all that has been decided so far has so many copies: now, or in `release`."""
        waits = self._waits.get(copies)
        if not waits and self.held(copies) >= self.slice.last:
            act()
        else:
            self.slice.copies_asked.add(copies)
            self._waits.setdefault(copies, deque()).append((self.slice.last, act))

    def release(self) -> bool:
        """Let go on what has its copies by now. Returns: whether anything did."""
        kept, went_on = self.slice, False
        for copies, first in kept.withheld.items():
            number = self.held(copies)
            if first <= number:
                kept.release(copies, number)
                went_on = True
        for copies, waits in self._waits.items():
            number = self.held(copies)
            while waits and waits[0][0] <= number:
                waits.popleft()[1]()
                went_on = True
        return went_on

    def let_go(self) -> None:
        """Another home holds all of it: nothing waits any more."""
        for waits in self._waits.values():
            while waits:
                waits.popleft()[1]()

    @property
    def is_waited_for(self) -> bool:
        """Whether anything waits for copies."""
        return any(self._waits.values()) or bool(self.slice.withheld)


class Streams:
    """What this node is home of: its own slice and, as long as it is the owner, the delayed one."""

    __slots__ = ("_keeps", "delayed", "on_new", "own")

    def __init__(self, own: Stream) -> None:
        self.own = own
        self.delayed: Stream | None = None
        self.on_new: Callable[[Stream], None] | None = None
        self._keeps = False

    def keep_entries(self) -> None:
        """There is a journal, for these and all to come."""
        self._keeps = True
        for stream in self:
            stream.keep()

    def __iter__(self) -> Iterator[Stream]:
        yield self.own
        if self.delayed is not None:
            yield self.delayed

    def begin(self, stream: Stream) -> Stream:
        """It is one of this node's from now on, in the place of the one of that name."""
        if stream.name == "own":
            self.own = stream
        else:
            self.delayed = stream
        if self._keeps:
            stream.keep()
        if self.on_new is not None:
            self.on_new(stream)
        return stream

    def get(self, stream: StreamId) -> Stream | None:
        """That stream, if this node is its home."""
        for mine in self:
            if mine.id == stream:
                return mine
        return None

    def deciding(self, stream: StreamId) -> Stream | None:
        """That stream, if this node is its home and decides about it now."""
        mine = self.get(stream)
        return None if mine is None or mine.frozen else mine

    def holding(self, job: JobId) -> Stream | None:
        """The stream whose slice has that job, live or as a dead letter."""
        for stream in self:
            if job in stream.slice:
                return stream
        return None

    @property
    def jobs_count(self) -> int:
        return sum(len(stream.slice) for stream in self)

    @property
    def jobs_bytes(self) -> int:
        return sum(stream.slice.bytes for stream in self)
