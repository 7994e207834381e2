"""A node with a journal comes back: what the journal had is taken up again, once it is known whose it is by now.

Slices are rebuilt, each from the state at its last fold and the entries after it. What this node was home of comes back
frozen; its copies of others' slices wait for their homes. When it has joined, and all are here that were here when it
went, or `solo_after` has passed, it asks whose its slices are (`handover.Reunion`): if nobody's, it goes on with them
under its new life; if another took them over, that one gets what is here. What the old process was running has died
with it. A node that was alone before asks nobody, and goes on at once.

A copy is dropped if its home lives: that one makes a new copy. If its home comes back it asks, and the copy is dropped
then; if it does not, its backups take over from their copies, as after any death.

A journal that was damaged is no home's any more: the journal gives it as copies that are not whole (`number` 0), under
a new identity, so that any copy that another has wins over it.

State: what waits for those that were here. Bound: one per shelf of the journal.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import Limits
from ..errors import Bug
from .effects import Outbox
from .facts import Recovered
from .handover import Reunion
from .jobs import Slice
from .kept import Found, Shelf
from .loans import Loans
from .owner import Ownership
from .persisting import Persisting
from .relay import Relay
from .replication import Copies, Copy
from .roster import Roster
from .streams import Stream, Streams
from .takeover import Takeover
from .values import NodeId, StreamId


class Recovery:
    """Takes up what a journal has found."""

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        copies: Copies,
        loans: Loans,
        takeover: Takeover,
        ownership: Ownership,
        reunion: Reunion,
        persisting: Persisting,
        relay: Relay,
        limits: Limits,
        outbox: Outbox,
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._copies = copies
        self._loans = loans
        self._takeover = takeover
        self._ownership = ownership
        self._reunion = reunion
        self._persisting = persisting
        self._relay = relay
        self._limits = limits
        self._outbox = outbox
        self._waited_for: Sequence[NodeId] = ()  # who was here when this node went
        self._until_ms: int | None = None  # how long for; None: it has not joined yet
        self._homes_wait = False
        self._copies_wait: list[StreamId] = []

    def take(self, found: Found) -> None:
        """Rebuild all slices; nothing of them is lent or decided yet."""
        count = 0
        for shelf in found.shelves:
            kept = _rebuilt(shelf, self._limits)
            if shelf.is_copy:
                copy = Copy(kept, kept.last, shelf.behind_ms, True, written=kept.last)
                self._copies.put(shelf.stream, copy)
                if shelf.is_damaged:
                    copy.pieces = list(kept.export())  # it is on no shelf yet
                else:
                    self._persisting.place(copy, shelf)
                self._copies_wait.append(shelf.stream)
                self._takeover.expected[shelf.stream] = None
                continue
            stream = Stream(kept, shelf.stream.epoch)
            stream.home, stream.frozen = shelf.stream.home, True
            self._streams.begin(stream)
            self._persisting.place(stream, shelf)
            self._homes_wait = True
            count += len(kept)
        self._waited_for = found.noted.nodes
        delayed = found.noted.delayed
        owned_here = any(it.stream.name == "delayed" and not it.is_copy for it in found.shelves)
        if delayed is not None and not owned_here and self._waited_for:
            self._ownership.waits_for_owner = True
        for source, into in self._persisting.taken():
            self._loans.moved[source] = self._name_to_be(into)
        if found.shelves:
            self._outbox.tell(Recovered(count, len(self._copies_wait)))

    def settle(self, now_ms: int) -> None:
        """Go on as soon as all are here that were, or have had their time."""
        if not self._is_open or not self._roster.mine.joined:
            return
        self._relay.doubt(now_ms)
        if self._until_ms is None:
            self._until_ms = now_ms + self._limits.solo_after_ms
        nodes = {row.life.node for row in self._roster.others}
        over = now_ms >= self._until_ms
        if over or all(node in nodes for node in self._waited_for):
            if self._homes_wait:
                self._homes_wait = False
                self._reunion.recover(now_ms)
            if over or not self._waited_for:
                self._ownership.waits_for_owner = False
        for stream in list(self._copies_wait):
            if self._is_settled(stream, over=over, now_ms=now_ms):
                self._copies_wait.remove(stream)
                self._takeover.expected.pop(stream, None)
        if self._ownership.owner is not None:
            self._ownership.waits_for_owner = False

    def _is_settled(self, stream: StreamId, *, over: bool, now_ms: int) -> bool:
        """Whether it is known what becomes of a copy. `over`: its home has had its time, whoever has copies decides."""
        copy = self._copies.get(stream)
        if copy is None:
            return True
        if stream.home in self._roster:
            self._copies.drop(stream)
            return True
        if over:
            copy.followers = [row.life for row in self._roster.others]
            self._takeover.begin(stream, now_ms)
        return over

    @property
    def _is_open(self) -> bool:
        return self._homes_wait or bool(self._copies_wait) or self._ownership.waits_for_owner

    def on_given(self, stream: Stream) -> None:
        """That one has another home now: so has what it had taken in."""
        into = self._loans.moved.get(stream.id)
        if into is not None and stream.home != self._roster.mine.life:
            name = self._name_to_be(stream.id)
            for source in [source for source, it in self._loans.moved.items() if it == name]:
                self._loans.moved[source] = into

    def _name_to_be(self, stream: StreamId) -> StreamId:
        """The name under which this node will go on with a stream of before."""
        return StreamId(stream.name, self._roster.mine.life, stream.epoch + (stream.name == "delayed"))

    def deadline_ms(self) -> int | None:
        """When those that were here have had their time."""
        return self._until_ms if self._is_open else None


def _rebuilt(shelf: Shelf, limits: Limits) -> Slice:
    """The slice that was on a shelf; of a damaged one, what makes sense of it."""
    kept = Slice(shelf.stream.name, shelf.home, shelf.epoch, limits)
    kept.take_in(shelf.chunk)
    kept.epoch = shelf.epoch
    kept.last = max(0, shelf.number)
    kept.copies_asked.update(shelf.copies)
    for entry in shelf.entries:
        try:
            kept.apply(entry)
        except (Bug, LookupError):
            if not shelf.is_damaged:
                raise
    if shelf.is_damaged:
        kept.last = 0
    kept.endings.clear()
    return kept
