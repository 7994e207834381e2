"""What has to survive the end of the process: the journal, as one more follower of each slice.

Whatever this node is home of or has a copy of has a shelf in the journal, if there is one (`kept.py`). Entries are
collected where they are applied, and at the end of each input all of them leave as one `Persist` with a ticket. When
the world says that the ticket is written, each slice learns how far the journal has it: `Stream.held` then counts the
journal as a follower that nobody can do without, and a copy's receipt says no more than what its journal has.

An entry is small, but there is one for each thing that happens; so from time to time a slice is *folded*: the state of
all jobs that were touched since the last fold takes the place of the entries. A job that came and went in between is
never written but as an entry and as an outcome. What comes as a snapshot is folded at once, piece by piece.

State: a shelf per slice, and for each what was touched since its last fold. Bound: `FOLD_COUNT` jobs, or what one
input brings; `FOLD_BYTES` of entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .effects import Outbox, Persist
from .entries import (
    Advanced,
    CancelAsked,
    Died,
    Done,
    Dropped,
    Entry,
    Imported,
    Planned,
    PlanStopped,
    Put,
    Rehomed,
    Revived,
    Spread,
    Waits,
)
from .jobs import Slice
from .kept import (
    DEAD,
    DELAYED,
    KEYED,
    LIVE,
    READY,
    SPREAD,
    Added,
    Cleared,
    Folded,
    Noted,
    Renamed,
    Row,
    Shelf,
    Shelved,
    SpreadRow,
    Step,
)
from .records import Chunk, Record, SpreadOut
from .replication import Copies, Copy
from .roster import Roster
from .streams import Stream, Streams
from .values import JobId, State, StreamId, part_id

FOLD_COUNT = 20_000
"""So many jobs are touched before a slice is folded: most of them have ended by then. It takes some 20 ms."""
FOLD_BYTES = 8 * 1024 * 1024
"""About so many bytes of entries, or a quarter of the slice's params."""
TAKEN_MAX_COUNT = 1_000
"""Streams that a slice remembers to have taken in; the oldest makes room."""


@dataclass(slots=True)
class _Shelf:
    """`touched`: job -> whether it came since the last fold, so that no row of it exists."""

    number: int
    kept: Stream | Copy
    name: StreamId
    touched: dict[JobId, bool] = field(default_factory=dict[JobId, bool])
    bytes: int = 0
    headers: int = 0
    taken: dict[StreamId, None] = field(default_factory=dict[StreamId, None])


class Persisting:
    """Hands to the journal what happens, and learns what is written.

    Args:
        is_on: whether there is a journal.
    """

    def __init__(self, roster: Roster, streams: Streams, copies: Copies, outbox: Outbox, *, is_on: bool) -> None:
        self._roster = roster
        self._streams = streams
        self._copies = copies
        self._outbox = outbox
        self.is_on = is_on
        self.failed = False  # nothing is written any more
        self._shelves: dict[int, _Shelf] = {}  # id of the stream or copy -> its shelf
        self._next = 1
        self._ticket = 0
        self._under_way: deque[tuple[int, list[tuple[Stream | Copy, int]]]] = deque()
        self._noted: tuple[int, StreamId | None] | None = None
        if is_on:
            streams.keep_entries()
            copies.keeps_entries = True

    @property
    def keeps(self) -> bool:
        """Whether there is a journal, and it is a good one."""
        return self.is_on and not self.failed

    def place(self, kept: Stream | Copy, found: Shelf) -> None:
        """That slice is on a shelf already: it was recovered from there."""
        taken = dict.fromkeys(found.taken)
        shelf = _Shelf(found.shelf, kept, found.stream, headers=len(found.chunk.headers), taken=taken)
        self._shelves[id(kept)] = shelf
        self._next = max(self._next, found.shelf + 1)
        for entry in found.entries:
            _touch(shelf, entry, kept.slice)

    # --- writing --------------------------------------------------------------------------------------------------

    def flush(self, delayed: StreamId | None, now_ms: int) -> None:
        """All that has happened since the last time goes to the journal. `delayed`: the delayed queue, as known."""
        if not self.keeps:
            return
        steps: list[Step] = []
        written: list[tuple[Stream | Copy, int]] = []
        here = {id(kept): (kept, name) for kept, name in self._all()}
        for key, shelf in list(self._shelves.items()):
            if key not in here:
                steps.append(Cleared(shelf.number))
                del self._shelves[key]
        for key, (kept, name) in here.items():
            shelf = self._shelves.get(key) or self._take(key, kept, name, steps)
            if shelf.name != name:
                shelf.name = name
                steps.append(Renamed(shelf.number, name))
            number = self._add(shelf, kept, steps, now_ms)
            if number is not None:
                written.append((kept, number))
        self._note(delayed, steps)
        if steps:
            self._ticket += 1
            self._under_way.append((self._ticket, written))
            self._outbox.want(Persist(self._ticket, steps))

    def _all(self) -> Iterator[tuple[Stream | Copy, StreamId]]:
        for stream in self._streams:
            yield stream, stream.id
        for name, copy in self._copies:
            yield copy, name

    def _take(self, key: int, kept: Stream | Copy, name: StreamId, steps: list[Step]) -> _Shelf:
        shelf = self._shelves[key] = _Shelf(self._next, kept, name)
        self._next += 1
        is_copy = isinstance(kept, Copy)
        steps.append(Shelved(shelf.number, name, is_copy, kept.behind_ms if isinstance(kept, Copy) else 0))
        return shelf

    def _note(self, delayed: StreamId | None, steps: list[Step]) -> None:
        if self._roster.mine.joined and self._noted != (self._roster.view, delayed):
            self._noted = (self._roster.view, delayed)
            nodes = [row.life.node for row in self._roster.others if row.joined]
            steps.append(Noted(nodes, delayed))

    def _add(self, shelf: _Shelf, kept: Stream | Copy, steps: list[Step], now_ms: int) -> int | None:
        """What is new of one slice. Returns: how far the journal will have it; None: as far as it had."""
        if isinstance(kept, Copy) and kept.pieces:
            pieces, kept.pieces = kept.pieces, []
            for piece in pieces:
                _touch_all(shelf, piece, is_new=True)
            steps.append(self._fold(shelf, kept, now_ms))
            return kept.number if kept.is_whole else None
        entries = kept.kept_entries
        if not entries:
            return None
        kept.kept_entries = []
        steps.append(Added(shelf.number, entries))
        for entry in entries:
            _touch(shelf, entry, kept.slice)
        if self._is_full(shelf, kept.slice):
            steps.append(self._fold(shelf, kept, now_ms))
        return kept.slice.last

    def _is_full(self, shelf: _Shelf, kept: Slice) -> bool:
        full = len(shelf.touched) >= FOLD_COUNT or shelf.bytes >= max(FOLD_BYTES, kept.bytes // 4)
        return full and not kept.is_midway

    def _fold(self, shelf: _Shelf, of: Stream | Copy, now_ms: int) -> Folded:
        kept = of.slice
        touched, shelf.touched, shelf.bytes = shelf.touched, {}, 0
        rows: list[Row] = []
        gone: list[JobId] = []
        ended = Chunk()
        for job, is_new in touched.items():
            row = _row(kept, job)
            if row is not None:
                rows.append(row)
            elif job not in kept and not is_new:
                gone.append(job)
            kept.memory.tell(job, ended)
        rows += [_spread_row(kept, job) for job in kept.parts]
        first, headers = shelf.headers, kept.headers_from(shelf.headers)
        shelf.headers += len(headers)
        is_whole = not isinstance(of, Copy) or of.is_whole
        forget_at_ms = max(
            [it.at_ms + it.ttl_ms for it in ended.ended] + [at_ms for _, at_ms in (*ended.ids, *ended.tombs)],
            default=0,
        )
        return Folded(
            shelf.number,
            kept.home,
            kept.epoch,
            kept.last if is_whole else -1,
            sorted(kept.copies_asked),
            list(shelf.taken)[-TAKEN_MAX_COUNT:],
            first,
            headers,
            rows,
            gone,
            list(kept.dead) if len(kept.dead) >= kept.limits.dead_max_count else None,
            kept.export_plans(),
            ended if forget_at_ms else None,
            forget_at_ms,
            now_ms,
        )

    # --- written --------------------------------------------------------------------------------------------------

    def on_persisted(self, ticket: int) -> None:
        """The journal has all up to that ticket."""
        while self._under_way and self._under_way[0][0] <= ticket:
            for kept, number in self._under_way.popleft()[1]:
                if isinstance(kept, Copy):
                    self._copies.on_written(kept, number)
                else:
                    kept.written = number

    def taken(self) -> Iterator[tuple[StreamId, StreamId]]:
        """Streams that are part of one that this node is home of, each with that one."""
        for shelf in self._shelves.values():
            if isinstance(shelf.kept, Stream):
                for source in shelf.taken:
                    yield source, shelf.name


def _row(kept: Slice, job: JobId) -> Row | None:
    """The row of a job; None: it has none of its own."""
    keyed = KEYED if job in kept.keyed else 0
    held = kept.ready.get(job)
    if held is not None:
        return job, READY | keyed, held
    held = kept.delayed.get(job)
    if held is not None:
        return job, DELAYED | keyed, held
    record = kept.records.get(job)
    if record is not None:
        spread = record.parent or record.state is State.SPREAD
        return None if spread else (job, LIVE | keyed, _still(record))
    dead = kept.dead.get(job)
    return None if dead is None else (job, DEAD, replace(dead))


def _spread_row(kept: Slice, job: JobId) -> Row:
    parts = kept.parts[job]
    told = SpreadOut(job, list(parts.open.items()), list(parts.ended.items()))
    open_parts = [_still(kept.records[part]) for part in parts.open]
    return job, SPREAD | (KEYED if job in kept.keyed else 0), SpreadRow(_still(kept.records[job]), told, open_parts)


def _still(record: Record) -> Record:
    """As it is now; that it has begun is no entry, and not kept."""
    if record.state is State.RUNNING:
        return replace(record, state=State.LENT, started_at_ms=0)
    return replace(record)


def _touch(shelf: _Shelf, entry: Entry, kept: Slice) -> None:
    """Note which jobs an entry is about, and about how large it is."""
    touched = shelf.touched
    shelf.bytes += 100
    if isinstance(entry, Put):
        for job, params in entry.jobs:
            touched.setdefault(job, True)
            shelf.bytes += 25 + len(params)
    elif isinstance(entry, Done):
        for job, outcome in zip(entry.jobs, entry.outcomes, strict=True):
            touched.setdefault(job, False)
            shelf.bytes += 40 + len(outcome.result)
    elif isinstance(entry, Advanced):
        touched.setdefault(entry.job, True)
    elif isinstance(entry, Spread):
        touched.setdefault(entry.job, False)
        for member in entry.members:
            touched.setdefault(part_id(entry.job, member.node), False)
    elif isinstance(entry, Waits | Died | CancelAsked | Revived | Dropped):
        touched.setdefault(entry.job, False)
        shelf.bytes += 400
    elif isinstance(entry, Imported):
        shelf.taken[entry.source] = None
        _touch_all(shelf, entry.chunk, is_new=False)
    elif isinstance(entry, Rehomed):
        for job in (*kept.records, *kept.dead):
            touched.setdefault(job, False)
    elif not isinstance(entry, Planned | PlanStopped):
        for job in entry.jobs:
            touched.setdefault(job, False)
        shelf.bytes += 20 * len(entry.jobs)


def _touch_all(shelf: _Shelf, chunk: Chunk, *, is_new: bool) -> None:
    touched = shelf.touched
    for queue in (chunk.ready, chunk.delayed):
        for job, held in queue:
            touched.setdefault(job, is_new)
            shelf.bytes += 25 + len(held)
    for record in (*chunk.records, *chunk.dead):
        touched.setdefault(record.job, is_new)
        shelf.bytes += 200 + len(record.params)
    for ended in chunk.ended:
        touched.setdefault(ended.job, is_new)
        shelf.bytes += 80 + len(ended.outcome.result)
    for marks in (chunk.ids, chunk.tombs):
        for job, _ in marks:
            touched.setdefault(job, is_new)
