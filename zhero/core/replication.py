"""Streams: the order of a slice's entries, and the slices that a node is home of.

Whoever is home appends; the stream numbers the entry and applies it to the slice. What has been appended is all that
a copy of the slice needs: `tap` hands each entry on in order. One node has streams without followers, so an entry is
held as promised as soon as it is applied.

State: per stream, the number of its last entry. Invariant: numbers grow by one, applied in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .entries import Entry
from .jobs import Slice
from .values import JobId


class Stream:
    """A slice and the numbers of its entries."""

    __slots__ = ("last", "slice", "tap")

    def __init__(self, kept: Slice) -> None:
        self.slice = kept
        self.last = 0
        self.tap: Callable[[int, Entry], None] | None = None

    def append(self, entry: Entry) -> None:
        """Decide it: from here on it has happened."""
        self.slice.apply(entry)
        self.last += 1
        if self.tap is not None:
            self.tap(self.last, entry)


class Streams:
    """What this node is home of: its own slice, and `delayed`, as long as it is the owner."""

    __slots__ = ("_all", "delayed", "own")

    def __init__(self, own: Stream, delayed: Stream) -> None:
        self.own = own
        self.delayed = delayed
        self._all = (own, delayed)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._all)

    def holding(self, job: JobId) -> Stream | None:
        """The stream whose slice has that job, live or as a dead letter."""
        for stream in self._all:
            if job in stream.slice:
                return stream
        return None

    @property
    def jobs_count(self) -> int:
        return len(self.own.slice) + len(self.delayed.slice)

    @property
    def jobs_bytes(self) -> int:
        return self.own.slice.bytes + self.delayed.slice.bytes
