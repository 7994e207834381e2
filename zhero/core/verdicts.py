"""What executors report becomes entries: a run has begun, or ended in one of several ways.

The verdict is the executor's, so a home needs no definition to act on it. A report counts if the job is lent to that
executor as that attempt; one of an older attempt or life, or of a job that has ended meanwhile, is ignored. A remote
executor keeps what it has reported until copies know of it too (`Settled`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..config import SPAN_MAX_MS
from .effects import Outbox
from .entries import Died, Done, Entry, Orphaned, Returned, Waits
from .facts import JobRetried, JobStarted, VerdictIgnored
from .messages import Settled
from .query import Query
from .records import Record
from .roster import Roster
from .streams import Stream
from .values import Finished, JobId, Life, Outcome, State, Status, Verdict, after

_CANCELLED = Outcome(Status.CANCELLED)


class Verdicts:
    """Takes what executors report of jobs that this node is home of."""

    def __init__(self, roster: Roster, query: Query, outbox: Outbox) -> None:
        self._roster = roster
        self._query = query
        self._outbox = outbox

    def on_started(self, stream: Stream, executor: Life, jobs: Sequence[JobId], now_ms: int) -> None:
        """The executor has begun these."""
        for job in jobs:
            held = stream.slice.records.get(job)
            if held is None or held.executor != executor:
                continue
            record = stream.slice.note_started(job, now_ms)
            if record is not None:
                header = record.header
                self._query.counters(header.task)["started"] += 1
                if self._outbox.listening:
                    self._outbox.tell(JobStarted(job, header.task, header.announce, record.attempt))

    def on_reports(self, stream: Stream, executor: Life, reports: Sequence[Finished], now_ms: int) -> None:
        """The executor has ended these, one way or another."""
        jobs: list[JobId] = []
        outcomes: list[Outcome] = []
        seen: set[JobId] = set()
        for report in reports:
            record = stream.slice.records.get(report.job)
            waits = record is not None and record.executor == executor and record.attempt == report.attempt
            if record is None or not waits or report.job in seen:
                self._outbox.tell(VerdictIgnored(report.job, report.attempt))
                continue
            seen.add(report.job)
            if report.verdict is Verdict.DONE:
                jobs.append(report.job)
                outcomes.append(report.outcome)
            else:
                self._act_on(stream, record, report, now_ms)
        if jobs:
            stream.append(Done(jobs, outcomes, now_ms))
        if executor != self._roster.mine.life:
            settled = Settled(stream.id, [report.job for report in reports])
            stream.when_held(stream.slice.limits.backups, partial(self._settle, executor, settled))

    def _settle(self, executor: Life, settled: Settled) -> None:
        if executor in self._roster:
            self._outbox.post(executor, settled, 60 + 20 * len(settled.jobs))

    def on_back(self, stream: Stream, executor: Life, jobs: Sequence[JobId], now_ms: int) -> None:
        """It has not started these."""
        back: list[JobId] = []
        for job in jobs:
            record = stream.slice.records.get(job)
            if record is None or record.executor != executor or record.state is not State.LENT:
                continue
            if record.cancel_asked:
                stream.append(Done([job], [_CANCELLED], now_ms))
            else:
                back.append(job)
        for job in reversed(back):  # each comes before all others
            stream.append(Returned([job]))

    def on_not_held(self, stream: Stream, executor: Life, jobs: Sequence[JobId], now_ms: int) -> None:
        """It does not know of these: they got lost with a home, or between two."""
        again: list[JobId] = []
        for job in jobs:
            record = stream.slice.records.get(job)
            if record is None or record.executor != executor:
                continue
            if record.cancel_asked or record.header.once:
                status = Status.CANCELLED if record.cancel_asked else Status.LOST
                stream.append(Done([job], [Outcome(status)], now_ms))
            else:
                again.append(job)
        if again:
            stream.append(Orphaned(again, []))

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
