"""What is asked of a node: its own process, clients and members call, and each call is answered now or later.

An enqueue waits until the node has found the others. What is to run now goes to this node's own slice; what is to run
later, has an id of the caller's own or is about a schedule goes to the owner of the delayed queue; what is about one
job to its home (`relay.py`); what is about the cluster to every member (`gather.py`). "Yes" is said when copies exist
of what it says; an enqueue whose copies take longer than `accept_timeout` hears `NOT_ACCEPTED`, and its jobs stay.

State: who enqueued before this node had joined, or while it does not know what is its own; until when an enqueue may
wait for copies. Bound: one per caller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..config import Limits
from .effects import Asker, Outbox, Peer
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
    Recall,
    Refusal,
    Refused,
    Retry,
    StartTask,
    StopTask,
)
from .owner import Ownership
from .query import Query, parts_of
from .relay import Relay
from .replication import Replication
from .roster import Roster
from .schedule import Schedule
from .streams import Stream, Streams
from .values import NO_PARAMS, JobId, Life, Outcome, State, Status

_CANCELLED = Outcome(Status.CANCELLED)
_OF_OWNER = (Enqueue, StopTask, StartTask)
RELAYED_MAX_BYTES = 1024 * 1024
"""Of the params of one call that another member has to take: it has to fit into a frame."""


class Calls:
    """Takes calls."""

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        membership: Membership,
        ownership: Ownership,
        replication: Replication,
        schedule: Schedule,
        intake: Intake,
        query: Query,
        gather: Gather,
        limits: Limits,
        outbox: Outbox,
        is_moving: Callable[[JobId], bool],
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._membership = membership
        self._ownership = ownership
        self._schedule = schedule
        self._intake = intake
        self._query = query
        self._gather = gather
        self._limits = limits
        self._outbox = outbox
        self._is_moving = is_moving
        self.relay = Relay(roster, limits, outbox, lambda: ownership.owner, self._here, self.answer)
        self._waiting: list[tuple[Asker, Call]] = []
        self._accepting: dict[Asker, tuple[int, Accepted]] = {}  # until when it may wait for copies
        self._take: dict[type[Any], Callable[[Asker, Any, int], None]] = {
            Enqueue: self._enqueue,
            Cancel: self._ask_home,
            Retry: self._ask_home,
            Discard: self._ask_home,
            AwaitResult: self._ask_home,
            StopTask: self._ask_owner,
            StartTask: self._ask_owner,
            **dict.fromkeys(ASKED_OF_ALL, self._ask_all),
        }
        self._do: dict[type[Any], Callable[[Asker, Any, int], None]] = {
            Enqueue: self._enqueue_at_owner,
            Cancel: self._cancel,
            Retry: self._retry,
            Discard: self._discard,
            AwaitResult: self._await_result,
            StopTask: self._stop_task,
            StartTask: self._start_task,
        }
        self._own_answers: dict[type[Any], Callable[[Any, int], Answer]] = {
            ListJobs: lambda call, now_ms: query.list_jobs(call.task, call.dead, call.limit, schedule.next_rounds()),
            FindJob: lambda call, now_ms: query.find(call.job, schedule.next_round(call.job)),
            CountJobs: lambda call, now_ms: query.count(self._planned()),
            AskStats: lambda call, now_ms: query.stats(),
            AskStatus: lambda call, now_ms: query.status(
                membership.statuses(ownership.owner, replication.degraded(), now_ms),
                schedule.infos(now_ms),
                self._planned(),
                now_ms,
            ),
        }

    def take(self, asker: Asker, call: Call, now_ms: int) -> None:
        """Somebody asks; `Leave` apart, which is the engine's."""
        unsure = not self._membership.is_member or self._streams.own.frozen
        if unsure and not isinstance(call, ASKED_OF_ALL) and not self._intake.closed:
            self._waiting.append((asker, call))
            return
        self._take[type(call)](asker, call, now_ms)

    def take_from_member(self, asker: Peer, call: Call, now_ms: int) -> None:
        """A member asks: answered here, or not at all."""
        to_owner = isinstance(call, _OF_OWNER)
        if type(call) not in self._do:
            self._outbox.answer(asker, Refused(Refusal.PARAMS_INVALID, "that is not asked of a member"))
        elif not self._here(asker, call, to_owner, now_ms):
            job = JobId(getattr(call, "job", 0))
            moving = to_owner or self._is_moving(job)
            self._outbox.answer(asker, Refused(Refusal.NOT_HOME if moving else Refusal.UNKNOWN_JOB, f"{job:032x}"))

    def _here(self, asker: Asker, call: Call, to_owner: bool, now_ms: int) -> bool:
        """Answer it, if this node is the owner, or the home of that job."""
        if to_owner:
            if not self._ownership.is_mine:
                return False
        else:
            job = JobId(getattr(call, "job", 0))
            stream = self._streams.holding(job)
            knows = stream is not None or any(it.slice.memory.outcome(job) is not None for it in self._streams)
            if (stream is not None and stream.frozen) or not (knows or self._schedule.next_round(job) is not None):
                return False
        self._do[type(call)](asker, call, now_ms)
        return True

    def give_up(self, asker: Asker) -> None:
        """Whoever asked waits no more."""
        self._waiting = [it for it in self._waiting if it[0] != asker or isinstance(it[1], Enqueue)]
        self._query.give_up(asker)
        self.relay.give_up(asker)
        self._accepting.pop(asker, None)

    def go_on(self, now_ms: int) -> None:
        """There is nothing to wait for any more: the others are found, or this node leaves."""
        waited, self._waiting = self._waiting, []
        for asker, call in waited:
            self.take(asker, call, now_ms)

    def put_again(self, asker: Asker, job: JobId, cancel: bool, now_ms: int) -> None:
        """Whoever waited here for a job that another is home of now."""
        if isinstance(asker, Peer):
            self._outbox.answer(asker, Refused(Refusal.NOT_HOME, f"{job:032x}"))
        else:
            self._ask_home(asker, Cancel(job) if cancel else AwaitResult(job), now_ms)

    # --- copies ---------------------------------------------------------------------------------------------------

    def _answer_when_held(self, stream: Stream, asker: Asker, answer: Answer) -> None:
        stream.when_held(self._limits.backups, partial(self.answer, asker, answer))

    def _accept(self, stream: Stream, asker: Asker, answer: Accepted, copies: int, now_ms: int) -> None:
        if stream.held(copies) >= stream.last and not stream.is_waited_for:
            self.answer(asker, answer)
            return
        self._accepting[asker] = (now_ms + self._limits.accept_timeout_ms, answer)
        stream.when_held(copies, partial(self._accepted, asker, answer))

    def _accepted(self, asker: Asker, answer: Accepted) -> None:
        waits = self._accepting.get(asker)
        if waits is not None and waits[1] is answer:
            del self._accepting[asker]
            self.answer(asker, answer)

    def tick(self, now_ms: int) -> None:
        """Whoever has waited too long for copies hears so."""
        for asker, (until_ms, answer) in list(self._accepting.items()):
            if now_ms >= until_ms:
                del self._accepting[asker]
                self.answer(asker, Refused(Refusal.NOT_ACCEPTED, f"{answer.jobs[0]:032x}"))

    def deadline_ms(self) -> int | None:
        deadlines = [self.relay.deadline_ms(), min((it[0] for it in self._accepting.values()), default=None)]
        return min((it for it in deadlines if it is not None), default=None)

    def forget_member(self, life: Life) -> None:
        """That life is over: it waits for nothing."""
        for asker in [it for it in self._accepting if isinstance(it, Peer) and it.life == life]:
            del self._accepting[asker]
        self._query.forget_member(life)

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
        answer = self.relay.honest(asker, answer)
        if isinstance(asker, Peer) and asker.life not in self._roster:
            return
        if isinstance(asker, int) or not isinstance(answer, Listed):
            self._outbox.answer(asker, answer)
            return
        for part, more in parts_of(answer, self._limits):
            self._outbox.answer(asker, part, more=more)

    def _planned(self) -> int:
        return len(self._schedule.next_rounds())

    # --- enqueue --------------------------------------------------------------------------------------------------

    def _enqueue(self, asker: Asker, call: Enqueue, now_ms: int) -> None:
        refused = self._intake.refusal(call)
        spec = self._roster.specs.get(call.task)
        if refused is not None:
            self.answer(asker, refused)
        elif call.delay_ms or call.keyed or (spec is not None and spec.frequency_ms):
            size = sum(len(params) + 25 for _, params in call.jobs)
            if not self._ownership.is_mine and size > RELAYED_MAX_BYTES and len(call.jobs) > 1:
                text = f"{size} bytes of params at once for later, limit {RELAYED_MAX_BYTES}"
                self.answer(asker, Refused(Refusal.TOO_LARGE, text))
            else:
                self._ask_owner(asker, call, now_ms)
        else:
            self._put(self._streams.own, asker, call, now_ms)

    def _enqueue_at_owner(self, asker: Asker, call: Enqueue, now_ms: int) -> None:
        stream = self._streams.delayed
        assert stream is not None
        refused = self._intake.refusal(call)
        spec = self._roster.specs.get(call.task)
        if refused is not None:
            self.answer(asker, refused)
        elif spec is not None and spec.frequency_ms:
            answer = self._enqueue_periodic(call, now_ms)
            if isinstance(answer, Accepted):
                self._accept(stream, asker, answer, self._limits.backups, now_ms)
            else:
                self.answer(asker, answer)
        else:
            self._put(stream, asker, call, now_ms)

    def _put(self, stream: Stream, asker: Asker, call: Enqueue, now_ms: int) -> None:
        answer, count = self._intake.put(stream, call, now_ms)
        self._query.counters(call.task)["enqueued"] += count
        if isinstance(answer, Accepted):
            spec = self._roster.specs.get(call.task)
            copies = self._limits.backups if spec is None or spec.backups is None else spec.backups
            self._accept(stream, asker, answer, copies, now_ms)
        else:
            self.answer(asker, answer)

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

    # --- single jobs and tasks ------------------------------------------------------------------------------------

    def _ask_home(self, asker: Asker, call: Cancel | Retry | Discard | AwaitResult, now_ms: int) -> None:
        self.relay.ask(asker, call, now_ms, to_owner=False)

    def _ask_owner(self, asker: Asker, call: Call, now_ms: int) -> None:
        self.relay.ask(asker, call, now_ms, to_owner=True)

    def _cancel(self, asker: Asker, call: Cancel, now_ms: int) -> None:
        job = call.job
        stream = self._streams.holding(job)
        if stream is None:
            skipped = self._schedule.skip(job, now_ms)
            delayed = self._streams.delayed
            if skipped and delayed is not None:
                self._answer_when_held(delayed, asker, Did(True))
            else:
                self.answer(asker, Did(False))
        elif not stream.slice.allows(job, Done):
            self.answer(asker, Did(False))
        elif self._cancel_now(stream, job, now_ms):
            self._answer_when_held(stream, asker, Did(True))
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
            return False
        executor = kept.records[job].executor
        if executor == self._roster.mine.life:
            self._outbox.stop(job)
        elif executor is not None:
            self._outbox.post(executor, Recall(stream.id, [job]))
        return False

    def _await_result(self, asker: Asker, call: AwaitResult, now_ms: int) -> None:
        planned = self._schedule.next_round(call.job) is not None
        for stream in self._streams:
            if call.job in stream.slice.memory:
                stream.when_held(self._limits.backups, partial(self._query.on_await, asker, call.job, planned=planned))
                return
        self._query.on_await(asker, call.job, planned=planned)

    def _retry(self, asker: Asker, call: Retry, now_ms: int) -> None:
        self._on_dead(asker, call.job, Revived)

    def _discard(self, asker: Asker, call: Discard, now_ms: int) -> None:
        self._on_dead(asker, call.job, Dropped)

    def _on_dead(self, asker: Asker, job: JobId, entry: type[Revived] | type[Dropped]) -> None:
        stream = self._streams.holding(job)
        if stream is None:
            self.answer(asker, Refused(Refusal.UNKNOWN_JOB, f"{job:032x}"))
        elif not stream.slice.allows(job, entry):
            self.answer(asker, Did(False))
        else:
            stream.append(Dropped(job) if entry is Dropped else Revived(job, self._new_target(stream, job)))
            self._answer_when_held(stream, asker, Did(True))

    def _new_target(self, stream: Stream, job: JobId) -> Life | None:
        """Who is to run a part whose member is gone; None: that is no such part."""
        dead = stream.slice.dead[job]
        if dead.target is None or dead.target in self._roster:
            return None
        able = [row.life for row in self._roster if dead.header.task in row.specs and row.has_workers]
        return able[0] if able else self._roster.mine.life

    def _stop_task(self, asker: Asker, call: StopTask, now_ms: int) -> None:
        refused = self._not_periodic(call.task)
        delayed = self._streams.delayed
        assert delayed is not None
        answer = refused or Did(self._schedule.stop(call.task, "somebody stopped it"))
        self._answer_when_held(delayed, asker, answer)

    def _start_task(self, asker: Asker, call: StartTask, now_ms: int) -> None:
        refused = self._not_periodic(call.task)
        delayed = self._streams.delayed
        assert delayed is not None
        if refused is not None:
            self.answer(asker, refused)
        else:
            started = self._schedule.start(self._roster.specs[call.task], 0, now_ms)
            self._answer_when_held(delayed, asker, Did(started is not None))

    def _not_periodic(self, task: str) -> Refused | None:
        spec = self._roster.specs.get(task)
        if spec is None:
            return Refused(Refusal.UNKNOWN_TASK, task)
        return None if spec.frequency_ms else Refused(Refusal.NOT_PERIODIC, task)
