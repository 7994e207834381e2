"""A disk under a journal that is none: it keeps what it was given, as the real one would give it back.

What is *written* survives the end of the process, what is *synced* also the loss of power. The order is kept: a disk
loses the end of what was not synced, never something in the middle.

State: what is synced, shelf by shelf, and what was written after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zhero.core.effects import Persist
from zhero.core.kept import (
    DEAD,
    DELAYED,
    KEYED,
    READY,
    Added,
    Cleared,
    Folded,
    Found,
    Noted,
    Renamed,
    Row,
    Shelf,
    Shelved,
    SpreadRow,
    Step,
)
from zhero.core.records import Chunk, Record
from zhero.core.values import JobId, NodeId


@dataclass(slots=True)
class _Kept:
    """A shelf. `rows`: job -> its row."""

    head: Shelf
    rows: dict[JobId, Row] = field(default_factory=dict[JobId, Row])


class Disk:
    """What a node has on its disk.

    Attributes:
        node: whose it is.
        boots: how often that was started.
    """

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.boots = 0
        self._shelves: dict[int, _Kept] = {}
        self._noted = Noted([], None)
        self._unsynced: list[Persist] = []

    def write(self, persist: Persist) -> None:
        """It survives the process from now on."""
        self._unsynced.append(persist)

    def sync(self) -> None:
        """All that was written survives the loss of power from now on."""
        for persist in self._unsynced:
            for step in persist.steps:
                self._take(step)
        self._unsynced.clear()

    def lose(self, count: int) -> int:
        """Power is lost: of what was written and not synced only the first `count` are there. Returns: how many not."""
        lost = max(0, len(self._unsynced) - count)
        del self._unsynced[count:]
        return lost

    @property
    def unsynced_count(self) -> int:
        return len(self._unsynced)

    def found(self) -> Found:
        """What a journal finds there."""
        self.sync()
        whole = [kept for kept in self._shelves.values() if kept.head.number >= 0]
        return Found([_found(kept) for kept in whole], self._noted)

    def _take(self, step: Step) -> None:
        if isinstance(step, Noted):
            self._noted = step
        elif isinstance(step, Shelved):
            number = -1 if step.is_copy else 0
            head = Shelf(step.shelf, step.stream, step.is_copy, step.behind_ms, step.stream.home, 1, number)
            if step.stream.name == "delayed":
                head.epoch = step.stream.epoch
            self._shelves[step.shelf] = _Kept(head)
        elif isinstance(step, Cleared):
            del self._shelves[step.shelf]
        elif isinstance(step, Renamed):
            self._shelves[step.shelf].head.stream = step.stream
        elif isinstance(step, Added):
            self._shelves[step.shelf].head.entries.extend(step.entries)
        else:
            self._fold(self._shelves[step.shelf], step)

    def _fold(self, kept: _Kept, step: Folded) -> None:
        head = kept.head
        head.home, head.epoch, head.number = step.home, step.epoch, step.number
        head.copies, head.taken, head.entries = step.copies, step.taken, []
        chunk = head.chunk
        chunk.headers[step.first_header :] = step.headers
        kept.rows.update((row[0], row) for row in step.rows)
        for job in step.gone:
            kept.rows.pop(job, None)
        if step.dead_only is not None:
            dead = set(step.dead_only)
            kept.rows = {job: row for job, row in kept.rows.items() if row[1] & ~KEYED != DEAD or job in dead}
        chunk.plans, chunk.rounds = step.plans.plans, step.plans.rounds
        if step.ended is not None:
            chunk.ended.extend(step.ended.ended)
            chunk.ids.extend(step.ended.ids)
            chunk.tombs.extend(step.ended.tombs)


def _found(kept: _Kept) -> Shelf:
    told = kept.head
    chunk = Chunk(
        headers=list(told.chunk.headers),
        plans=told.chunk.plans,
        rounds=told.chunk.rounds,
        ended=list(told.chunk.ended),
        ids=list(told.chunk.ids),
        tombs=list(told.chunk.tombs),
    )
    for job, kind, body in kept.rows.values():
        if kind & KEYED:
            chunk.keyed.append(job)
        kind &= ~KEYED
        if isinstance(body, bytes):
            assert kind in (READY, DELAYED)
            (chunk.ready if kind == READY else chunk.delayed).append((job, body))
        elif isinstance(body, Record):
            (chunk.dead if kind == DEAD else chunk.records).append(body)
        else:
            assert isinstance(body, SpreadRow)
            chunk.records += [body.record, *body.open]
            chunk.parts.append(body.parts)
    return Shelf(
        told.shelf,
        told.stream,
        told.is_copy,
        told.behind_ms,
        told.home,
        told.epoch,
        told.number,
        told.copies,
        told.taken,
        chunk=chunk,
        entries=list(told.entries),
    )
