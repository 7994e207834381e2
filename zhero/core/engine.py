"""The one class that the worlds talk to: wires the protocols, routes what comes in, returns what is to be done.

Pure: no socket, clock, thread or log. Messages, calls, reports and time go in; effects come out, and a deadline. A
world (the driver over ZeroMQ, the simulator) owes the engine:

- time in whole ms that never runs backwards, passed into each input;
- `tick` not long after `deadline_ms()` (early or twice does no harm);
- every effect carried out, in the order given: `Send` may get lost, `Reply` and `Start` not;
- for each `Run` of a `Start` one `started` and, later, one `finished`; after `Stop` a `finished` soon, or
  `cannot_stop`;
- `capacity` whenever the number of jobs that its executor wants to hold has changed.

A job's way: `call(Enqueue)` puts it (`Put`), `settle` lends it (`Lent`, effect `Start`), `started` marks it,
`finished` ends it (`Done`), and whoever waits is told (`Reply`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..config import SPAN_MAX_MS, Limits
from .broadcast import Broadcast
from .effects import Asker, Effect, Outbox
from .entries import CancelAsked, Died, Done, Dropped, Entry, Revived, Waits
from .facts import (
    DeadLetterDropped,
    JobEnded,
    JobRetried,
    JobStarted,
    PeerMisbehaved,
    TaskMissing,
    VerdictIgnored,
)
from .intake import Intake
from .jobs import Slice
from .messages import (
    Accepted,
    AskStats,
    AskStatus,
    AwaitResult,
    Call,
    Cancel,
    CountJobs,
    Did,
    Discard,
    Enqueue,
    FindJob,
    Frame,
    GiveUp,
    Hello,
    Leave,
    Left,
    ListJobs,
    Refusal,
    Refused,
    Request,
    Retry,
    StartTask,
    StopTask,
    Welcome,
)
from .query import Query
from .replication import Stream, Streams
from .roster import Roster
from .schedule import Schedule
from .stealing import Stealing
from .steps import Record
from .values import Finished, JobId, Member, Outcome, State, Status, TaskSpec, Verdict, after

_CANCELLED = Outcome(Status.CANCELLED)


class Engine:
    """The protocol of one node."""

    def __init__(self, me: Member, limits: Limits, now_ms: int) -> None:
        self.me = me
        self.limits = limits
        self._outbox = Outbox()
        self._roster = Roster(me)
        self._streams = Streams(Stream(Slice("own", me.life, 1, limits)), Stream(Slice("delayed", me.life, 1, limits)))
        specs = self._roster.specs
        self._schedule = Schedule(me.life, self._streams, specs, self._outbox)
        self._intake = Intake(me.name, self._streams, specs, limits, self._outbox)
        self._stealing = Stealing(self._roster, self._streams, self._outbox)
        self._broadcast = Broadcast(self._roster, self._streams)
        self._query = Query(self._roster, self._streams, limits, self._outbox, now_ms)
        self._missing: set[str] = set()  # tasks that were warned of: jobs wait for them
        self._leave_askers: list[Asker] = []  # told when nothing is left to do
        self._leave_by_ms = 0
        self._calls: dict[type[Any], Callable[[Asker, Any, int], None]] = {
            Enqueue: self._enqueue,
            Cancel: self._cancel,
            Retry: self._retry,
            Discard: self._discard,
            AwaitResult: self._await_result,
            StopTask: self._stop_task,
            StartTask: self._start_task,
            ListJobs: self._list_jobs,
            FindJob: self._find_job,
            CountJobs: lambda asker, call, now_ms: self._outbox.answer(asker, self._query.count(self._planned())),
            AskStats: lambda asker, call, now_ms: self._outbox.answer(asker, self._query.stats()),
            AskStatus: self._ask_status,
            Leave: self._leave,
        }

    # --- input ----------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> Streams:
        """What this node is home of; for copies (`Stream.tap`) and for checks."""
        return self._streams

    @property
    def listening(self) -> bool:
        """Whether facts about jobs that go well are made: they cost something, and most of the time nobody listens."""
        return self._outbox.listening

    @listening.setter
    def listening(self, listening: bool) -> None:
        self._outbox.listening = listening

    def define(self, specs: Iterable[TaskSpec], now_ms: int) -> list[Effect]:
        """These are the tasks of this node, at start and after a reload. Periodic ones get their schedules."""
        before = self._roster.define(specs)
        self._intake.on_tasks()
        self._schedule.on_tasks(before, now_ms)
        self._missing.clear()
        self._warn_of_missing()
        return self._settle(now_ms)

    def _warn_of_missing(self) -> None:
        """Tell of each task, once, that jobs have come to wait for and that no member has."""
        missing = self._query.missing()
        for task, count in missing.items():
            if task not in self._missing:
                self._outbox.tell(TaskMissing(task, count))
        self._missing = set(missing)

    def call(self, ref: int, call: Call, now_ms: int) -> list[Effect]:
        """A call of the own process; a `Reply` with this `ref` follows, now or later."""
        self._calls[type(call)](ref, call, now_ms)
        return self._settle(now_ms)

    def give_up(self, ref: int) -> None:
        """The caller does not wait for the reply any more; what it asked for goes on."""
        self._query.give_up(ref)

    def receive(self, frame: Frame, now_ms: int) -> list[Effect]:
        """A frame from another process. Never raises for what it says."""
        for message in frame.messages:
            if isinstance(message, Request):
                if isinstance(message.call, Leave):
                    self._outbox.tell(PeerMisbehaved(frame.sender, "a client can't make a node leave"))
                else:
                    self._calls[type(message.call)]((frame.sender, message.ref), message.call, now_ms)
            elif isinstance(message, Hello):
                self._outbox.send(frame.sender, Welcome(self.me, self.limits.payload_max_bytes))
            elif isinstance(message, GiveUp):
                self._query.give_up((frame.sender, message.ref))
            else:
                self._outbox.tell(PeerMisbehaved(frame.sender, f"sent a {type(message).__name__}"))
        return self._settle(now_ms)

    def capacity(self, count: int, now_ms: int) -> list[Effect]:
        """How many unfinished jobs the executor wants to hold."""
        self._roster.mine.capacity = count
        return self._settle(now_ms)

    def started(self, jobs: Sequence[JobId], now_ms: int) -> list[Effect]:
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
        return self._outbox.drain()

    def finished(self, reports: Sequence[Finished], now_ms: int) -> list[Effect]:
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
        return self._settle(now_ms)

    def cannot_stop(self, job: JobId, now_ms: int) -> list[Effect]:
        """The run that was to be stopped can't be: it goes on to its end."""
        self._query.on_cannot_cancel(job)
        return self._settle(now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Time has passed."""
        for stream in self._streams:
            stream.slice.memory.forget(now_ms)
        self._schedule.tick(now_ms, rounds=not self._intake.closed)
        self._warn_of_missing()
        return self._settle(now_ms)

    def deadline_ms(self) -> int | None:
        """When `tick` is next needed; None: not before something else happens."""
        deadlines = [self._schedule.deadline_ms(rounds=not self._intake.closed)]
        deadlines += [stream.slice.memory.deadline_ms() for stream in self._streams]
        deadlines.append(self._leave_by_ms if self._leave_askers else None)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def check(self) -> None:
        """Raises:
        Bug: an invariant does not hold.
        """
        for stream in self._streams:
            stream.slice.check()
        self._stealing.check()
        self._schedule.check()
        self._query.check()

    # --- calls ----------------------------------------------------------------------------------------------------

    def _enqueue(self, asker: Asker, call: Enqueue, now_ms: int) -> None:
        refused = self._intake.refusal(call)
        spec = self._roster.specs.get(call.task)
        if refused is not None:
            self._outbox.answer(asker, refused)
        elif spec is not None and spec.frequency_ms:
            self._outbox.answer(asker, self._enqueue_periodic(call, now_ms))
        else:
            answer, count = self._intake.put(call, now_ms)
            self._query.counters(call.task)["enqueued"] += count
            self._outbox.answer(asker, answer)

    def _enqueue_periodic(self, call: Enqueue, now_ms: int) -> Accepted | Refused:
        """A periodic task is not put but scheduled: its next round is the job, with an id of its own."""
        if len(call.jobs) > 1:
            return Refused(Refusal.PARAMS_INVALID, f"{call.task} is periodic: it can be enqueued only once")
        refused = self._intake.no_room(0, 0)
        if refused is not None:
            return refused
        job = self._schedule.start(self._roster.specs[call.task], call.delay_ms, now_ms)
        return Refused(Refusal.ALREADY_QUEUED, call.task) if job is None else Accepted([job])

    def _cancel(self, asker: Asker, call: Cancel, now_ms: int) -> None:
        job = call.job
        stream = self._streams.holding(job)
        if stream is None:
            self._outbox.answer(asker, Did(self._schedule.skip(job, now_ms)))
        elif not stream.slice.allows(job, Done):
            self._outbox.answer(asker, Did(False))
        elif self._cancel_now(stream, job, now_ms):
            self._outbox.answer(asker, Did(True))
        else:
            self._query.wait(asker, job, cancel=True)

    def _cancel_now(self, stream: Stream, job: JobId, now_ms: int) -> bool:
        """Cancel a live job; False: it has been lent, so its verdict decides."""
        kept = stream.slice
        state = kept.state(job)
        if state in (State.READY, State.DELAYED):
            stream.append(Done([job], [_CANCELLED], now_ms))
            return True
        stream.append(CancelAsked(job))
        if state is State.SPREAD:
            for part in list(kept.parts[job].open):
                self._cancel_now(stream, part, now_ms)
        else:
            self._outbox.stop(job)
        return False

    def _await_result(self, asker: Asker, call: AwaitResult, now_ms: int) -> None:
        self._query.on_await(asker, call.job, planned=self._schedule.next_round(call.job) is not None)

    def _retry(self, asker: Asker, call: Retry, now_ms: int) -> None:
        self._outbox.answer(asker, self._on_dead(call.job, Revived))

    def _discard(self, asker: Asker, call: Discard, now_ms: int) -> None:
        self._outbox.answer(asker, self._on_dead(call.job, Dropped))

    def _on_dead(self, job: JobId, entry: type[Revived] | type[Dropped]) -> Did | Refused:
        stream = self._streams.holding(job)
        if stream is None:
            return Refused(Refusal.UNKNOWN_JOB, f"{job:032x}")
        if not stream.slice.allows(job, entry):
            return Did(False)
        stream.append(entry(job))
        return Did(True)

    def _stop_task(self, asker: Asker, call: StopTask, now_ms: int) -> None:
        refused = self._not_periodic(call.task)
        self._outbox.answer(asker, refused or Did(self._schedule.stop(call.task, "somebody stopped it")))

    def _start_task(self, asker: Asker, call: StartTask, now_ms: int) -> None:
        refused = self._not_periodic(call.task)
        if refused is not None:
            self._outbox.answer(asker, refused)
        else:
            started = self._schedule.start(self._roster.specs[call.task], 0, now_ms)
            self._outbox.answer(asker, Did(started is not None))

    def _not_periodic(self, task: str) -> Refused | None:
        spec = self._roster.specs.get(task)
        if spec is None:
            return Refused(Refusal.UNKNOWN_TASK, task)
        return None if spec.frequency_ms else Refused(Refusal.NOT_PERIODIC, task)

    def _list_jobs(self, asker: Asker, call: ListJobs, now_ms: int) -> None:
        self._query.list_jobs(asker, call.task, call.dead, call.limit, self._schedule.next_rounds())

    def _find_job(self, asker: Asker, call: FindJob, now_ms: int) -> None:
        self._query.find(asker, call.job, self._schedule.next_round(call.job))

    def _ask_status(self, asker: Asker, call: AskStatus, now_ms: int) -> None:
        plans = self._schedule.infos(now_ms)
        self._outbox.answer(asker, self._query.status(plans, self._planned(), now_ms))

    def _planned(self) -> int:
        return len(self._schedule.next_rounds())

    # --- verdicts -------------------------------------------------------------------------------------------------

    def _lent(self, report: Finished) -> tuple[Stream | None, Record | None]:
        """The record that waits for this report; none for that of an older attempt, or of a job ended meanwhile."""
        for stream in self._streams:
            record = stream.slice.records.get(report.job)
            if record is not None:
                waits = record.attempt == report.attempt and record.executor == self.me.life
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

    # --- settling -------------------------------------------------------------------------------------------------

    def _settle(self, now_ms: int) -> list[Effect]:
        """Let every protocol act on what has changed, until nothing changes any more."""
        while True:
            self._broadcast.settle(now_ms)
            self._stealing.settle()
            endings = False
            for stream in self._streams:
                if stream.slice.endings:
                    endings = True
                    self._on_endings(stream)
            if not endings:
                break
        for job in self._schedule.skipped:
            self._query.on_skipped(job)
        self._schedule.skipped.clear()
        if self._leave_askers:
            self._leave_if_done(now_ms)
        return self._outbox.drain()

    def _on_endings(self, stream: Stream) -> None:
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
            self._query.on_ended(ending)
            self._broadcast.on_ended(stream, ending)
            self._schedule.on_ended(ending)

    # --- leaving --------------------------------------------------------------------------------------------------

    def _leave(self, asker: Asker, call: Leave, now_ms: int) -> None:
        self._intake.closed = True
        self._leave_askers.append(asker)
        self._leave_by_ms = now_ms + call.within_ms

    def _leave_if_done(self, now_ms: int) -> None:
        """Nobody takes over from a node that is alone, so it works on what can still end before its time is up."""
        if now_ms < self._leave_by_ms and self._can_go_on():
            return
        for asker in self._leave_askers:
            self._outbox.answer(asker, Left(self._query.unfinished()))
        self._leave_askers = []

    def _can_go_on(self) -> bool:
        mine = self._roster.mine
        if mine.held:
            return True
        due_ms = self._schedule.deadline_ms(rounds=False)
        soon = due_ms is not None and due_ms < self._leave_by_ms
        ready = any(
            task in mine.specs
            for stream in self._streams
            for task, count in stream.slice.waiting_tasks().items()
            if count
        )
        return mine.has_workers and (soon or ready)
