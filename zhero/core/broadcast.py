"""Scope "all": every member that has the task and a worker runs the job once.

A job of scope "all" is spread at the moment it is ready: one part per member of that moment, as one entry, and each
part is from then on a job like any other (lent, retried, cancelled, a dead letter), but only its member may run it.
So nothing here repeats what jobs have anyway. Members without the task or without a worker are reported as skipped; a
member that joins later does not run it. If no member has the task at all the job waits, as any other. When the last
part has ended the job has, and its outcome names every member's.

A round of a periodic "all" is skipped at a member that is still busy with an earlier round, so no backlog builds up
there and a slow member does not delay the others.

State: none of its own; a slice keeps which parts of a job are open.
"""

from __future__ import annotations

from .entries import Done, Spread
from .jobs import Slice
from .records import whole_of
from .roster import Roster, Row
from .steps import Ending
from .streams import Stream, Streams
from .values import JobId, Life, State, part_id


class Broadcast:
    """Spreads jobs of scope "all", and ends them with their last part."""

    def __init__(self, roster: Roster, streams: Streams) -> None:
        self._roster = roster
        self._streams = streams

    def settle(self, now_ms: int) -> None:
        """Spread every "all" job that is ready and that some member has the task of; the others wait for one."""
        for stream in self._streams:
            if stream.frozen:
                continue
            for job in stream.slice.take_to_spread(self._roster.specs):
                self._spread(stream, job, now_ms)

    def _spread(self, stream: Stream, job: JobId, now_ms: int) -> None:
        kept = stream.slice
        info = kept.info(job)
        assert info is not None
        runs: list[Life] = []
        skipped: list[Life] = []
        for row in self._roster:
            life = row.member.life
            able = info.task in row.specs and row.has_workers and not (info.number and _busy(kept, row, info.task))
            # The part may be live: an older one of the same id, which was a caller's own, that a person tries again.
            able = able and kept.state(part_id(job, life.node)) in (State.ABSENT, State.DEAD)
            (runs if able else skipped).append(life)
        stream.append(Spread(job, runs, skipped, now_ms))
        self._end_if_whole(stream, job, now_ms)

    def on_ended(self, stream: Stream, ending: Ending) -> None:
        """A job has ended: if it was the last open part of another, that one ends too."""
        if ending.record.parent:
            self._end_if_whole(stream, ending.record.parent, ending.at_ms)

    def _end_if_whole(self, stream: Stream, job: JobId, now_ms: int) -> None:
        parts = stream.slice.parts.get(job)
        if parts is not None and not parts.open:
            stream.append(Done([job], [whole_of(list(parts.ended.values()))], now_ms))


def _busy(kept: Slice, row: Row, task: str) -> bool:
    """Whether that member still has a part of an earlier round of the task."""
    return any(
        row.member.life in parts.open.values() and kept.records[job].header.task == task and job in kept.rounds
        for job, parts in kept.parts.items()
    )
