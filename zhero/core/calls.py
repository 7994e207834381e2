"""What is asked of a node: its own process and clients call, and each call is answered now or later.

An enqueue waits until the node has found the others. What is about single jobs is answered by their home; what is about
the cluster is asked of every member (`gather.py`).

State: who enqueued before this node had joined. Bound: one per caller; it ends with `SOLO_AFTER_MS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import Limits
from .effects import Asker, Outbox
from .entries import CancelAsked, Done, Dropped, Revived
from .gather import ASKED_OF_ALL, Gather
from .intake import Intake
from .membership import Membership
from .messages import (
    Accepted,
    Answer,
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
    Listed,
    ListJobs,
    Refusal,
    Refused,
    Retry,
    StartTask,
    StopTask,
)
from .query import Query, parts_of
from .replication import Stream, Streams
from .roster import Roster
from .schedule import Schedule
from .values import NO_PARAMS, JobId, Outcome, State, Status

_CANCELLED = Outcome(Status.CANCELLED)


class Calls:
    """Takes calls."""

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        membership: Membership,
        schedule: Schedule,
        intake: Intake,
        query: Query,
        gather: Gather,
        limits: Limits,
        outbox: Outbox,
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._membership = membership
        self._schedule = schedule
        self._intake = intake
        self._query = query
        self._gather = gather
        self._limits = limits
        self._outbox = outbox
        self._before_joined: list[tuple[Asker, Enqueue]] = []
        self._take: dict[type[Any], Callable[[Asker, Any, int], None]] = {
            Enqueue: self._enqueue,
            Cancel: self._cancel,
            Retry: self._retry,
            Discard: self._discard,
            AwaitResult: self._await_result,
            StopTask: self._stop_task,
            StartTask: self._start_task,
            **dict.fromkeys(ASKED_OF_ALL, self._ask_all),
        }
        self._own_answers: dict[type[Any], Callable[[Any, int], Answer]] = {
            ListJobs: lambda call, now_ms: query.list_jobs(call.task, call.dead, call.limit, schedule.next_rounds()),
            FindJob: lambda call, now_ms: query.find(call.job, schedule.next_round(call.job)),
            CountJobs: lambda call, now_ms: query.count(self._planned()),
            AskStats: lambda call, now_ms: query.stats(),
            AskStatus: lambda call, now_ms: query.status(
                membership.statuses(streams.delayed.slice.home, now_ms), schedule.infos(now_ms), self._planned(), now_ms
            ),
        }

    def take(self, asker: Asker, call: Call, now_ms: int) -> None:
        """Somebody asks; `Leave` apart, which is the engine's."""
        self._take[type(call)](asker, call, now_ms)

    def go_on(self, now_ms: int) -> None:
        """There is nothing to wait for any more: the others are found, or this node leaves."""
        waited, self._before_joined = self._before_joined, []
        for asker, call in waited:
            self._enqueue_now(asker, call, now_ms)

    # --- the whole cluster ----------------------------------------------------------------------------------------

    def own_answer(self, call: Call, now_ms: int) -> Answer:
        """What this node says itself to a question that all are asked."""
        return self._own_answers[type(call)](call, now_ms)

    def _ask_all(self, asker: Asker, call: Call, now_ms: int) -> None:
        own = self.own_answer(call, now_ms)
        if self._roster.others:
            self._gather.ask(asker, call, own, now_ms)
        else:
            self.answer(asker, own)

    def answer(self, asker: Asker, answer: Answer) -> None:
        """A long list goes to a client in several parts."""
        if isinstance(asker, int) or not isinstance(answer, Listed):
            self._outbox.answer(asker, answer)
            return
        for part, more in parts_of(answer, self._limits):
            self._outbox.answer(asker, part, more=more)

    def _planned(self) -> int:
        return len(self._schedule.next_rounds())

    # --- single jobs and tasks ------------------------------------------------------------------------------------

    def _enqueue(self, asker: Asker, call: Enqueue, now_ms: int) -> None:
        if not self._membership.is_member:
            self._before_joined.append((asker, call))
        else:
            self._enqueue_now(asker, call, now_ms)

    def _enqueue_now(self, asker: Asker, call: Enqueue, now_ms: int) -> None:
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
        if call.jobs[0][1] != NO_PARAMS:
            return Refused(Refusal.PARAMS_INVALID, f"{call.task} is periodic: its rounds have no params")
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
