"""Who runs what: ready jobs go to the members that have room for them.

Credit is a window, not a count of tokens: a member says how many unfinished jobs it wants to hold (`capacity`), and
what it holds is known here, so saying it twice changes nothing. Its own capacity the node hears from its executor.
A member is lent only jobs whose task it has registered. The slices of a home take turns, so a job that has just become
due never waits behind a flood of others; order within a slice is that of `ready.py`.

With one node there is one member to lend to, itself; a member with no workers is a home that lends nothing to itself.
"""

from __future__ import annotations

from ..errors import Bug
from .effects import Outbox
from .entries import Lent
from .replication import Stream, Streams
from .roster import Roster, Row
from .steps import Record
from .values import Run, State


class Stealing:
    """Lends ready jobs. State: whose turn it is; the rest is in roster and slices."""

    def __init__(self, roster: Roster, streams: Streams, outbox: Outbox) -> None:
        self._roster = roster
        self._streams = streams
        self._outbox = outbox
        self._last_first = False

    def settle(self) -> None:
        """Lend all that there is room for. Jobs do not travel yet: a node lends to itself."""
        self._fill(self._roster.mine)

    def _fill(self, row: Row) -> None:
        room = row.capacity - row.held
        while room > 0:
            streams = list(self._streams)
            if self._last_first:
                streams.reverse()
            self._last_first = not self._last_first
            lent = 0
            for place, stream in enumerate(streams):
                still_to_serve = len(streams) - place
                share = -(-(room - lent) // still_to_serve)
                lent += self._lend(stream, row, share)
            if not lent:
                return
            room -= lent

    def _lend(self, stream: Stream, row: Row, count: int) -> int:
        """Lend up to `count` jobs of one slice to that member."""
        kept = stream.slice
        jobs = kept.take(count, row.member.life, row.specs)
        if jobs:
            stream.append(Lent(jobs, row.member.life))
            row.held += len(jobs)
            for job in jobs:
                self._outbox.start(self._run(stream, kept.records[job]))
        return len(jobs)

    def _run(self, stream: Stream, record: Record) -> Run:
        kept = stream.slice
        return Run(
            record.job,
            record.header,
            record.params,
            record.attempt,
            record.tries + 1,
            kept.epoch,
            record.enqueued_at_ms,
            kept.round_of(record),
        )

    def check(self) -> None:
        """Raises:
        Bug: the jobs that a member holds are miscounted.
        """
        held = sum(stream.slice.count(state) for stream in self._streams for state in (State.LENT, State.RUNNING))
        if held != sum(row.held for row in self._roster):
            raise Bug(f"{held} jobs are lent, {[row.held for row in self._roster]} counted")
