"""Jobs as their callers hold them, and the way from a call to the engine and back.

Node and client are both a `Hub`: whoever can put a call to an engine. What both have in common stands here once: how
params become bytes, options spans, refusals errors, outcomes results.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar, cast

from . import codec
from .config import PRIORITY_MAX, SPAN_MAX_MS
from .core import messages
from .core.messages import Accepted, Answer, AwaitResult, Call, Cancel, Did, Ended, Enqueue, FindJob, Refusal, Refused
from .core.values import JobId, Outcome, Status, job_text, keyed_id
from .errors import (
    AlreadyQueued,
    Bug,
    JobCancelled,
    JobCrashed,
    JobDiscarded,
    JobFailed,
    JobLost,
    JobNotFound,
    JobTimedOut,
    NotRunning,
    ParamsInvalid,
    QueueFull,
    TaskInvalid,
    TaskNotFound,
    ZheroError,
)
from .runtime.handlers import span_ms
from .views import JobView

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Span = float | timedelta
"""Seconds, or a timedelta."""


class Hub(Protocol):
    """A node or a client: whoever can put a call to an engine."""

    @property
    def payload_max_bytes(self) -> int: ...

    async def ask(self, call: Call) -> Answer: ...

    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]: ...

    def take_id(self) -> JobId: ...

    def wall_ms(self) -> float: ...

    def waiting(self) -> contextlib.AbstractAsyncContextManager[None]: ...

    def waiting_sync(self) -> contextlib.AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How jobs are enqueued; `of` checks. `run_at_ms`: since the Unix epoch."""

    run_in_ms: int = 0
    run_at_ms: float | None = None
    priority: int | None = None
    key: str | None = None
    announce: bool | None = None

    @classmethod
    def of(
        cls,
        *,
        run_in: Span | None = None,
        run_at: float | datetime | None = None,
        priority: int | None = None,
        id: str | None = None,
        announce: bool | None = None,
    ) -> JobOptions:
        """Options from what a user gives.

        Raises:
            ParamsInvalid: one of them can't be; the message names it.
        """
        if run_in is not None and run_at is not None:
            raise ParamsInvalid("run_in and run_at are two ways to say the same thing: give one of them")
        try:
            wait_ms = 0 if run_in is None else span_ms(run_in)
        except (TypeError, ValueError) as error:
            raise ParamsInvalid(f"run_in: {error}") from None
        if priority is not None and (type(priority) is not int or abs(priority) > PRIORITY_MAX):
            raise ParamsInvalid(f"priority: an int from {-PRIORITY_MAX} to {PRIORITY_MAX}, not {priority!r}")
        if id is not None and (type(id) is not str or not 0 < len(id) <= 200):
            raise ParamsInvalid(f"id: a text of 1 to 200 characters, not {id!r}")
        if announce is not None and type(announce) is not bool:
            raise ParamsInvalid(f"announce: True or False, not {announce!r}")
        return cls(wait_ms, None if run_at is None else _instant_ms(run_at), priority, id, announce)

    def delay_ms(self, wall_ms: float) -> int:
        """The span from now after which the job may run, in whole ms, rounded up."""
        if self.run_at_ms is None:
            return self.run_in_ms
        return max(0, math.ceil(self.run_at_ms - math.floor(wall_ms)))


def _instant_ms(run_at: object) -> float:
    if isinstance(run_at, datetime):
        if run_at.tzinfo is None:
            raise ParamsInvalid("run_at: a datetime needs a time zone, as in datetime.now(timezone.utc)")
        return run_at.timestamp() * 1000
    if type(run_at) not in (int, float):
        raise ParamsInvalid(f"run_at: milliseconds since the epoch or an aware datetime, not {run_at!r}")
    instant = cast(float, run_at)
    if not 0 <= instant < 4_102_444_800_000 + SPAN_MAX_MS:
        raise ParamsInvalid(f"run_at: milliseconds since the epoch, not {run_at!r}")
    return instant


def build_enqueue(hub: Hub, task: str, batch: list[Mapping[str, Any]], options: JobOptions) -> Enqueue:
    """The call that enqueues one job per params of `batch`.

    Raises:
        ParamsInvalid: params can't be sent, are too large, or not what an option allows.
    """
    limit = hub.payload_max_bytes
    if options.key is not None and len(batch) != 1:
        raise ParamsInvalid("an id of your own is for one job")
    jobs: list[tuple[JobId, bytes]] = []
    for params in batch:
        encoded = codec.encode(dict(params), "params")
        if len(encoded) > limit:
            raise ParamsInvalid(
                f"params of {task} take {len(encoded):,} bytes, the limit is {limit:,} (max_payload): "
                "send a path or a key to what is large"
            )
        jobs.append((hub.take_id() if options.key is None else keyed_id(task, options.key), encoded))
    delay_ms = options.delay_ms(hub.wall_ms())
    if delay_ms > SPAN_MAX_MS:
        raise ParamsInvalid("run_at is more than ten years ahead; it is milliseconds, not microseconds")
    return Enqueue(task, jobs, options.priority, options.announce, delay_ms, options.key is not None)


def accepted(answer: Answer, task: str) -> list[JobId]:
    """The ids in the answer to an enqueue.

    Raises:
        ZheroError: it was refused.
    """
    if isinstance(answer, Accepted):
        return answer.jobs
    raise error_of(answer, task)


def error_of(answer: Answer, what: str) -> ZheroError:
    """The error that a refusal becomes. `what`: the task or job it is about."""
    if not isinstance(answer, Refused):
        return Bug(f"unexpected answer {answer}")
    why, detail = answer.why, answer.detail
    match why:
        case Refusal.UNKNOWN_TASK:
            return TaskNotFound(f"no member has a task named {what!r}: `zhero status` shows those that there are")
        case Refusal.UNKNOWN_JOB:
            return JobNotFound(f"no job {what}: it never was, or its result is kept no longer (result_ttl)")
        case Refusal.ALREADY_QUEUED:
            return AlreadyQueued(f"periodic task {what} is scheduled already, once for the whole cluster")
        case Refusal.QUEUE_FULL:
            return QueueFull(f"the queue is full: {detail}; nothing was enqueued")
        case Refusal.TOO_LARGE | Refusal.PARAMS_INVALID:
            return ParamsInvalid(f"{what}: {detail}")
        case Refusal.NOT_PERIODIC:
            return TaskInvalid(f"task {what} has no frequency, so there is no schedule to start or stop")
        case Refusal.LEAVING:
            return NotRunning(f"{detail}; nothing was enqueued")


_FAILURES: dict[Status, type[JobFailed]] = {
    Status.FAILED: JobFailed,
    Status.TIMED_OUT: JobTimedOut,
    Status.CRASHED: JobCrashed,
    Status.DISCARDED: JobDiscarded,
    Status.CANCELLED: JobCancelled,
    Status.LOST: JobLost,
}


def failure_of(job: JobId, task: str, outcome: Outcome) -> JobFailed:
    """The error of a job that ended without a result."""
    failure = outcome.failure
    kind = failure.kind if failure is not None else outcome.status.value
    message = f"{task} {outcome.status.value.replace('_', ' ')}"
    if failure is not None:
        message += f": {failure.kind}: {failure.message}" if failure.message else f": {failure.kind}"
    trace = failure.traceback if failure is not None else ""
    error = _FAILURES[outcome.status](message, job_id=job_text(job), kind=kind, remote_traceback=trace)
    if trace:
        error.add_note(f"where it was raised:\n{trace}")
    return error


@dataclass(frozen=True, slots=True)
class MemberOutcome(Generic[R_co]):
    """What became of an "all" job at one member. `error`: set if it ran and went wrong."""

    member: str
    status: str
    value: R_co | None
    error: JobFailed | None


class Outcomes(Mapping[str, MemberOutcome[R]]):
    """How an "all" job ended: member name -> outcome there.

    Two members of one name are told apart by the beginning of their node ids.
    """

    def __init__(self, outcomes: dict[str, MemberOutcome[R]]) -> None:
        self._outcomes = outcomes

    def __getitem__(self, member: str) -> MemberOutcome[R]:
        return self._outcomes[member]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)

    def __repr__(self) -> str:
        return f"Outcomes({ {name: it.status for name, it in self._outcomes.items()} })"

    @property
    def ok(self) -> bool:
        """Whether every member that ran it did well."""
        return not self.failed

    @property
    def failed(self) -> dict[str, JobFailed]:
        """Member -> error, of those that did not do well."""
        return {name: it.error for name, it in self._outcomes.items() if it.error is not None}

    @property
    def skipped(self) -> list[str]:
        """Members that did not run it: they have not the task, no worker, or are busy with an earlier round."""
        return [name for name, it in self._outcomes.items() if it.status == Status.SKIPPED.value]

    @property
    def results(self) -> dict[str, R]:
        """Member -> what the task returned there."""
        done = {name: it for name, it in self._outcomes.items() if it.status == Status.SUCCEEDED.value}
        return {name: cast(R, it.value) for name, it in done.items()}


class Job(Generic[R]):
    """An enqueued job. Made by `enqueue`; cheap to keep, cheap to drop.

    Attributes:
        id: 32 hexadecimal digits.
        task: name of its task.
    """

    __slots__ = ("_hub", "_job", "_soon", "task")

    def __init__(self, hub: Hub, job: JobId, task: str, soon: concurrent.futures.Future[Answer] | None = None) -> None:
        self._hub = hub
        self._job = job
        self._soon = soon
        self.task = task

    @property
    def id(self) -> str:
        return job_text(self._job)

    def __repr__(self) -> str:
        return f"<zhero.Job {self.task} {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end of the job and return what its task returned: of an "all" job, `Outcomes`.

        A job that waits for another one gives its slot back meanwhile.

        Args:
            timeout: seconds; None: as long as it takes.

        Raises:
            TimeoutError: it has not ended in that time; it goes on.
            JobFailed: or a subclass: it ended without a result.
            JobNotFound: its result is kept no longer.
        """
        async with self._hub.waiting():
            async with asyncio.timeout(timeout):
                if self._soon is not None:
                    accepted(await asyncio.wrap_future(self._soon), self.task)
                answer = await self._hub.ask(AwaitResult(self._job))
        return self._result(answer)

    def result_sync(self, timeout: float | None = None) -> R:
        """The same for synchronous code; not on an event loop."""
        _refuse_loop("await job.result()")
        with self._hub.waiting_sync():
            if self._soon is not None:
                accepted(self._soon.result(timeout), self.task)
            answer = self._hub.ask_soon(AwaitResult(self._job)).result(timeout)
        return self._result(answer)

    def wait_accepted(self, timeout: float | None = None) -> None:
        """For a job of `enqueue_soon`: wait until it is held as promised; not on an event loop.

        Raises:
            ZheroError: it was refused; nothing was enqueued.
        """
        if self._soon is not None:
            _refuse_loop("await task.enqueue()")
            accepted(self._soon.result(timeout), self.task)

    async def cancel(self) -> bool:
        """Cancel it. True: it will not run (any more). False: it has ended, or runs on in a thread."""
        answer = await self._hub.ask(Cancel(self._job))
        if isinstance(answer, Did):
            return answer.done
        raise error_of(answer, self.id)

    async def view(self) -> JobView:
        """The job as it is now.

        Raises:
            JobNotFound: it is live no more, and no dead letter.
        """
        answer = await self._hub.ask(FindJob(self._job))
        if isinstance(answer, messages.Listed):
            return JobView.of(answer.jobs[0])
        raise error_of(answer, self.id)

    def _result(self, answer: Answer) -> R:
        if not isinstance(answer, Ended):
            raise error_of(answer, self.id)
        if answer.parts is not None:
            return cast(R, self._outcomes(answer.parts))
        return cast(R, value_of(self._job, self.task, answer.outcome))

    def _outcomes(self, parts: list[messages.PartEnded]) -> Outcomes[Any]:
        names = [part.member.name for part in parts]
        outcomes: dict[str, MemberOutcome[Any]] = {}
        for part in parts:
            name = part.member.name
            if names.count(name) > 1:
                name += f" ({part.member.life.node.hex()[:8]})"
            status, value, error = part.outcome.status, None, None
            if status is Status.SUCCEEDED:
                value = codec.decode(part.outcome.result)
            elif status is not Status.SKIPPED:
                error = failure_of(self._job, self.task, part.outcome)
            outcomes[name] = MemberOutcome(name, status.value, value, error)
        return Outcomes(outcomes)


def value_of(job: JobId, task: str, outcome: Outcome) -> Any:
    """What a task returned.

    Raises:
        JobFailed: it did not.
    """
    if outcome.status is Status.SUCCEEDED:
        return codec.decode(outcome.result)
    raise failure_of(job, task, outcome)


def _refuse_loop(instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise NotRunning(f"this would block the event loop of the calling code: use {instead}")
