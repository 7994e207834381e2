"""From whom reports come, and what else an end means: the way between executors and the slices of this node.

An executor is this node or another member; either way its report counts for the stream that it names, if this node
decides about that one. What it says of its room (`window`) counts even where the report does not. When a job of a slice
has ended, those who count, wait, spread or plan are told of it here, all in one place.

State: none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from .broadcast import Broadcast
from .effects import Outbox
from .facts import DeadLetterDropped, JobEnded
from .messages import Began, CannotStop, GiveBack, NotHeld, Reported
from .query import Query
from .roster import Roster
from .schedule import Schedule
from .stealing import Stealing
from .streams import Stream, Streams
from .values import Finished, JobId, Life, Status, StreamId
from .verdicts import Verdicts


class Reports:
    """Hands reports to the slices they are about, and ends to all who care.

    Args:
        backups: at how many others an end has to be held before whoever waits is told.
    """

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        verdicts: Verdicts,
        stealing: Stealing,
        query: Query,
        broadcast: Broadcast,
        schedule: Schedule,
        outbox: Outbox,
        backups: int,
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._verdicts = verdicts
        self._stealing = stealing
        self._query = query
        self._broadcast = broadcast
        self._schedule = schedule
        self._outbox = outbox
        self._backups = backups

    # --- of the own executor --------------------------------------------------------------------------------------

    def on_own_started(self, jobs: Sequence[JobId], now_ms: int) -> None:
        """These have begun here."""
        for stream in self._streams:
            self._verdicts.on_started(stream, self._roster.mine.life, jobs, now_ms)

    def on_own(self, reports: Sequence[tuple[StreamId, Finished]], now_ms: int) -> None:
        """These have ended here; each with the stream that it is of."""
        by_stream: dict[StreamId, list[Finished]] = {}
        for name, report in reports:
            by_stream.setdefault(name, []).append(report)
        for name, ended in by_stream.items():
            stream = self._streams.deciding(name)
            if stream is not None:
                self._verdicts.on_reports(stream, self._roster.mine.life, ended, now_ms)

    # --- of other members -----------------------------------------------------------------------------------------

    def on_began(self, sender: Life, message: Began, now_ms: int) -> None:
        stream = self._streams.deciding(message.stream)
        if stream is not None:
            self._verdicts.on_started(stream, sender, message.jobs, now_ms)

    def on_reported(self, sender: Life, message: Reported, now_ms: int) -> None:
        self._stealing.on_window(sender, message.window, now_ms)
        stream = self._streams.deciding(message.stream)
        if stream is not None:
            self._verdicts.on_reports(stream, sender, message.reports, now_ms)

    def on_give_back(self, sender: Life, message: GiveBack, now_ms: int) -> None:
        self._stealing.on_window(sender, message.window, now_ms)
        stream = self._streams.deciding(message.stream)
        if stream is not None:
            self._verdicts.on_back(stream, sender, message.jobs, now_ms)

    def on_cannot_stop(self, sender: Life, message: CannotStop, now_ms: int) -> None:
        stream = self._streams.deciding(message.stream)
        record = None if stream is None else stream.slice.records.get(message.job)
        if record is not None and record.executor == sender:
            self._query.on_cannot_cancel(message.job)

    def on_not_held(self, sender: Life, message: NotHeld, now_ms: int) -> None:
        stream = self._streams.deciding(message.stream)
        if stream is not None:
            self._verdicts.on_not_held(stream, sender, message.jobs, now_ms)

    # --- ends -----------------------------------------------------------------------------------------------------

    def settle(self, stream: Stream) -> bool:
        """Tell of the jobs of a slice that have ended. Returns: whether any has."""
        endings, stream.slice.endings = stream.slice.endings, []
        for ending in endings:
            record, outcome = ending.record, ending.outcome
            if self._outbox.listening or outcome.status is not Status.SUCCEEDED:
                ran_ms = ending.at_ms - record.started_at_ms if record.started_at_ms else 0
                self._outbox.tell(
                    JobEnded(
                        record.job,
                        record.header.task,
                        record.header.announce,
                        record.attempt,
                        outcome.status,
                        ran_ms,
                        outcome.failure,
                    )
                )
            if ending.displaced is not None:
                displaced = ending.displaced
                self._outbox.tell(DeadLetterDropped(displaced.job, displaced.header.task))
            self._query.count_ended(ending)
            if self._query.waits_for(record.job):
                stream.when_held(self._backups, partial(self._query.on_ended, ending))
            self._broadcast.on_ended(stream, ending)
            if stream is self._streams.delayed:
                self._schedule.on_ended(ending)
        return bool(endings)
