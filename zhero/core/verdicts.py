"""What an executor reports becomes entries: a run has begun, or ended in one of several ways.

The verdict is the executor's, so a home needs no definition to act on it. A report of an older attempt, or of a job
that has ended meanwhile, is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import SPAN_MAX_MS
from .effects import Outbox
from .entries import Died, Done, Entry, Waits
from .facts import JobRetried, JobStarted, VerdictIgnored
from .query import Query
from .replication import Stream, Streams
from .roster import Roster
from .steps import Record
from .values import Finished, JobId, Outcome, Status, Verdict, after

_CANCELLED = Outcome(Status.CANCELLED)


class Verdicts:
    """Takes what executors report."""

    def __init__(self, roster: Roster, streams: Streams, query: Query, outbox: Outbox) -> None:
        self._roster = roster
        self._streams = streams
        self._query = query
        self._outbox = outbox

    def on_started(self, jobs: Sequence[JobId], now_ms: int) -> None:
        """The executor has begun these."""
        for job in jobs:
            for stream in self._streams:
                record = stream.slice.note_started(job, now_ms)
                if record is not None:
                    header = record.header
                    self._query.counters(header.task)["started"] += 1
                    if self._outbox.listening:
                        self._outbox.tell(JobStarted(job, header.task, header.announce, record.attempt))
                    break

    def on_finished(self, reports: Sequence[Finished], now_ms: int) -> None:
        """The executor has ended these, one way or another. A report of a run that is over already is ignored."""
        done: dict[str, tuple[Stream, list[JobId], list[Outcome]]] = {}
        seen: set[JobId] = set()
        for report in reports:
            stream, record = self._lent(report)
            if stream is None or record is None or report.job in seen:
                self._outbox.tell(VerdictIgnored(report.job, report.attempt))
                continue
            seen.add(report.job)
            self._roster.mine.held -= 1
            if report.verdict is Verdict.DONE:
                _, jobs, outcomes = done.setdefault(stream.slice.name, (stream, [], []))
                jobs.append(report.job)
                outcomes.append(report.outcome)
            else:
                self._act_on(stream, record, report, now_ms)
        for stream, jobs, outcomes in done.values():
            stream.append(Done(jobs, outcomes, now_ms))

    def _lent(self, report: Finished) -> tuple[Stream | None, Record | None]:
        """The record that waits for this report; none for that of an older attempt, or of a job ended meanwhile."""
        for stream in self._streams:
            record = stream.slice.records.get(report.job)
            if record is not None:
                waits = record.attempt == report.attempt and record.executor == self._roster.mine.life
                return stream, record if waits else None
        return None, None

    def _act_on(self, stream: Stream, record: Record, report: Finished, now_ms: int) -> None:
        job, verdict, outcome = record.job, report.verdict, report.outcome
        again = verdict in (Verdict.RETRY, Verdict.SNOOZE)
        entry: Entry
        if verdict is Verdict.CANCELLED or (again and record.cancel_asked):
            entry = Done([job], [_CANCELLED], now_ms)
        elif again:
            delay_ms = max(1, min(report.delay_ms, SPAN_MAX_MS))
            entry = Waits(job, outcome, after(now_ms, delay_ms), verdict is Verdict.RETRY)
            self._query.counters(record.header.task)["retried"] += verdict is Verdict.RETRY
            if self._outbox.listening or verdict is Verdict.RETRY:
                self._outbox.tell(
                    JobRetried(
                        job,
                        record.header.task,
                        record.header.announce,
                        record.attempt,
                        delay_ms,
                        verdict is Verdict.SNOOZE,
                        outcome.failure,
                    )
                )
        else:
            entry = Died(job, outcome, now_ms)
        stream.append(entry)
