"""A node that leaves: it takes nothing new, hands over what is left, waits for what runs, and says farewell.

Its slices go to the oldest member that takes them (`handover.py`); a job that has not begun here goes back to its home.
A node that is alone, or that nobody takes over from, works on until its time is up instead, or with a journal leaves to
that what has not begun. Only when all homes have confirmed how their jobs ended here is it gone.

State: who waits to hear that this node has left, and until when; members that have refused what it leaves. Bound: the
roster.
"""

from __future__ import annotations

from functools import partial

from .calls import Calls
from .effects import Asker, Outbox
from .handover import Handover
from .intake import Intake
from .loans import Loans
from .membership import Membership
from .messages import Leave, Left
from .owner import Ownership
from .persisting import Persisting
from .query import Query
from .replication import Replication
from .roster import Roster, Row
from .schedule import Schedule
from .stealing import Stealing
from .streams import Streams
from .takeover import Takeover
from .values import Life, StreamId


class Leaving:
    """Ends this node's part in the cluster."""

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        membership: Membership,
        intake: Intake,
        calls: Calls,
        loans: Loans,
        stealing: Stealing,
        schedule: Schedule,
        replication: Replication,
        takeover: Takeover,
        handover: Handover,
        ownership: Ownership,
        persisting: Persisting,
        query: Query,
        outbox: Outbox,
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._membership = membership
        self._intake = intake
        self._calls = calls
        self._loans = loans
        self._stealing = stealing
        self._schedule = schedule
        self._replication = replication
        self._takeover = takeover
        self._handover = handover
        self._ownership = ownership
        self._persisting = persisting
        self._query = query
        self._outbox = outbox
        self._askers: list[Asker] = []
        self._until_ms = 0
        self._refused_by: dict[Life, None] = {}

    def begin(self, asker: Asker, call: Leave, now_ms: int) -> None:
        """Take nothing new from now on; again: with another limit."""
        self._intake.closed = self._handover.closed = True
        self._calls.go_on(now_ms)
        self._askers.append(asker)
        self._until_ms = now_ms + call.within_ms

    def on_gone(self, life: Life) -> None:
        """That life is over."""
        self._refused_by.pop(life, None)

    def deadline_ms(self) -> int | None:
        """When the time is up."""
        return self._until_ms if self._askers else None

    def settle(self, now_ms: int) -> None:
        """Hand over what is left to do, and wait for what runs; a node that is alone works on instead."""
        if not self._askers:
            return
        heir = self._heir()
        if heir is not None:
            self._loans.give_all_back()
            self._stealing.closed = self._takeover.closed = self._ownership.closed = True
            for stream in list(self._streams):
                if not stream.frozen and (len(stream.slice) or stream.slice.dead or stream.name == "delayed"):
                    self._handover.give(stream, heir.life, partial(self._on_gift, heir.life), now_ms)
        else:  # whoever was to have it is gone: go on, or leave to the journal what has not begun
            self._loans.closed = self._stealing.closed = self._persisting.keeps
        busy = self._handover.is_giving or self._loans.is_busy or self._streams.own.frozen
        if now_ms < self._until_ms and (busy or (heir is None and self._can_go_on())):
            return
        self._replication.closed = True
        for stream in self._streams:
            if not (len(stream.slice) or stream.slice.dead):
                self._replication.retire(stream)
            else:
                self._replication.renew(stream)  # whoever has a copy takes over
        self._membership.leave()
        for asker in self._askers:
            self._outbox.answer(asker, Left(0 if self._persisting.keeps else self._query.unfinished()))
        self._askers = []

    def _heir(self) -> Row | None:
        """Who is to have what this node leaves behind: the oldest that takes it."""
        rows = [row for row in self._roster.others if row.joined and row.life not in self._refused_by]
        return min(rows, key=lambda row: (row.lagging, row.joined, row.life), default=None)

    def _on_gift(self, heir: Life, into: StreamId | None, now_ms: int) -> None:
        if into is None:
            self._refused_by[heir] = None

    def _can_go_on(self) -> bool:
        mine = self._roster.mine
        if self._loans.is_busy or self._persisting.keeps:
            lent = any(life in self._roster for stream in self._streams for life in stream.slice.lent)
            return self._loans.is_busy or lent  # how that ends is to be recorded here
        due_ms = self._schedule.deadline_ms(rounds=False)
        soon = due_ms is not None and due_ms < self._until_ms
        ready = any(
            task in mine.specs
            for stream in self._streams
            for task, count in stream.slice.waiting_tasks().items()
            if count
        )
        return mine.has_workers and (soon or ready)
