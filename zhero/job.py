"""Handles of jobs, and how a call for a job is made.

A *hub* is what takes the calls: a node, or a client of one. Here params become bytes (once, a snapshot of that moment),
units become whole milliseconds, a refusal becomes the error that it means, and an outcome a value or the exception that
ended the job.

`run_at` becomes a span at this door, on this process's clock: spans travel, instants do not. Every rounding is upward,
so nothing is early.

A job has ended for its caller when `result()` returns or raises; the job itself never notices who waits. Waiting inside
another job gives that one's slot back meanwhile (`Hub.waiting`), so `workers=1` can't deadlock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from . import options
from .codec import decode, encode
from .config import SPAN_MAX_MS, Limits
from .core.messages import (
    Accepted,
    Answer,
    AwaitResult,
    Call,
    Cancel,
    Did,
    Ended,
    Enqueue,
    FindJob,
    Listed,
    Refused,
)
from .core.values import JobId, Status, job_text, keyed_id
from .errors import Bug, NotAccepted, NotRunning, ParamsInvalid, TaskInvalid, ZheroError
from .outcomes import Outcomes, failure_of
from .refusals import error_of
from .views import JobView

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

BATCH_MAX_COUNT = Limits().batch_max_count

_log = logging.getLogger("zhero")


class Hub(Protocol):
    """What takes the calls of this process: a node, or a client."""

    @property
    def payload_max_bytes(self) -> int:
        """The largest encoded params of one job."""
        ...

    async def ask(self, call: Call) -> Answer:
        """Put a call, and wait for its answer.

        Raises:
            NotRunning, NotReached: there is nobody to answer.
        """
        ...

    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]:
        """The same from any thread, without waiting."""
        ...

    def take_id(self) -> JobId:
        """An id for a new job; from any thread, never the same twice."""
        ...

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """Around a wait for another job: the slot of the job that waits is another's meanwhile."""
        ...

    def waiting_sync(self) -> AbstractContextManager[None]:
        """The same for a job in a thread."""
        ...

    def wall_ms(self) -> float:
        """Ms since the epoch, by the clock that spans are counted on."""
        ...


# --- options of one job -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobOptions:
    """When and how a job is to run; None: not said.

    Attributes:
        run_in_ms: a span from its enqueueing.
        run_at_ms: an instant, ms since the epoch; not together with `run_in_ms`.
        key: an id of the caller's own.
    """

    run_in_ms: int | None = None
    run_at_ms: int | None = None
    priority: int | None = None
    key: str | None = None
    announce: bool | None = None

    def given(
        self,
        *,
        run_in: float | timedelta | None = None,
        run_at: float | datetime | None = None,
        priority: int | None = None,
        id: str | None = None,
        announce: bool | None = None,
    ) -> JobOptions:
        """These options with others in place of what is said anew.

        Args:
            run_in: seconds or a timedelta from now.
            run_at: ms since the Unix epoch or an aware datetime; past: now.
            priority: -100..100; higher runs first.
            id: the caller's own name for the job: the same twice is one job.
            announce: whether its start and end are logged.

        Raises:
            ParamsInvalid: naming the option.
        """
        read: dict[str, Any] = {
            "run_in_ms": _read("run_in", options.span_ms, run_in),
            "run_at_ms": _read("run_at", options.instant_ms, run_at),
            "priority": _read("priority", options.priority, priority),
            "key": _read("id", _key, id),
            "announce": _read("announce", options.flag, announce),
        }
        made = replace(self, **{field: value for field, value in read.items() if value is not None})
        if made.run_in_ms is not None and made.run_at_ms is not None:
            raise ParamsInvalid("run_in and run_at are both given: when is the job to run?")
        return made

    def delay_ms(self, wall_ms: float) -> int:
        """The span from now until it may run; 0: at once.

        Raises:
            ParamsInvalid: `run_at` is more than ten years off.
        """
        if self.run_at_ms is None:
            return self.run_in_ms or 0
        delay_ms = max(0, self.run_at_ms - math.floor(wall_ms))
        if delay_ms > SPAN_MAX_MS:
            raise ParamsInvalid(f"run_at={self.run_at_ms} is more than ten years off; it is in milliseconds")
        return delay_ms


NO_OPTIONS = JobOptions()


def _read(field: str, reader: Callable[[object], Any], value: object) -> Any:
    if value is None:
        return None
    try:
        return reader(value)
    except ValueError as error:
        raise ParamsInvalid(f"{field}={value!r}: {error}") from None


def _key(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("give a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("text with lone surrogates can't be an id") from None
    return value


# --- calls --------------------------------------------------------------------------------------------------------


def encode_params(hub: Hub, task: str, params: Mapping[str, Any]) -> bytes:
    """The params of a job as they travel.

    Raises:
        ParamsInvalid: one can't be sent, or all together are too large.
    """
    try:
        data = encode(params, "params")
    except ParamsInvalid as error:
        raise ParamsInvalid(f"task {task}: {error}") from error
    if len(data) > hub.payload_max_bytes:
        raise ParamsInvalid(
            f"task {task}: the params are {len(data)} bytes when encoded, more than the {hub.payload_max_bytes} "
            "allowed (max_payload): store what is large, and pass its place"
        )
    return data


def build_enqueue(hub: Hub, task: str, batch: Sequence[Mapping[str, Any]], job_options: JobOptions) -> Enqueue:
    """The call that enqueues one job for each of these params.

    Raises:
        ParamsInvalid: params can't be sent, there are too many, or one id is to name several jobs.
    """
    if len(batch) > BATCH_MAX_COUNT:
        allowed = f"{len(batch)} jobs at once, {BATCH_MAX_COUNT} are allowed"
        raise ParamsInvalid(f"task {task}: {allowed}: make several calls")
    return _call_of(hub, task, [encode_params(hub, task, params) for params in batch], job_options)


def _call_of(hub: Hub, task: str, batch: list[bytes], job_options: JobOptions) -> Enqueue:
    key = job_options.key
    if key is not None and len(batch) != 1:
        raise ParamsInvalid(f"task {task}: the id {key!r} names one job, and {len(batch)} are to be enqueued")
    return Enqueue(
        task,
        [(hub.take_id() if key is None else keyed_id(task, key), data) for data in batch],
        job_options.priority,
        job_options.announce,
        job_options.delay_ms(hub.wall_ms()),
        key is not None,
    )


async def enqueue_all(
    hub: Hub, task: str, batch: Sequence[Mapping[str, Any]], job_options: JobOptions = NO_OPTIONS
) -> list[Job[Any]]:
    """Enqueue one job for each of these params, all or none.

    Returns:
        Their handles, in the order of the params; all are accepted.

    Raises:
        ParamsInvalid: before anything is queued.
        TaskNotFound, AlreadyQueued, QueueFull, NotRunning: nothing was enqueued.
        NotAccepted: they are held, and may run.
    """
    if not batch:
        return []
    call = build_enqueue(hub, task, batch, job_options)
    return [Job(hub, task, job) for job in _accepted(await hub.ask(call), call.jobs)]


async def enqueue_encoded(hub: Hub, task: str, data: bytes, job_options: JobOptions) -> Job[Any]:
    """The same for one job whose params are encoded already."""
    call = _call_of(hub, task, [data], job_options)
    (job,) = _accepted(await hub.ask(call), call.jobs)
    return Job(hub, task, job)


def enqueue_soon(hub: Hub, task: str, params: Mapping[str, Any], job_options: JobOptions = NO_OPTIONS) -> Job[Any]:
    """Enqueue a job from any thread, without waiting until it is accepted.

    Raises:
        ParamsInvalid: before anything is queued. What is refused later is raised by `Job.wait_accepted` and logged.
    """
    call = build_enqueue(hub, task, [params], job_options)
    return Job(hub, task, call.jobs[0][0], hub.ask_soon(call))


def _accepted(answer: Answer, jobs: Sequence[tuple[JobId, bytes]]) -> list[JobId]:
    if isinstance(answer, Accepted):
        return answer.jobs
    raise _unexpected(answer, [job for job, _ in jobs])


def _unexpected(answer: Answer, jobs: Sequence[JobId] = ()) -> ZheroError:
    return error_of(answer, jobs) if isinstance(answer, Refused) else Bug(f"an answer that nobody asked for: {answer}")


# --- handles ------------------------------------------------------------------------------------------------------


class Job(Generic[R_co]):
    """A job that was enqueued. The handle holds nothing of it but its id.

    Attributes:
        task: name of its task.
    """

    __slots__ = ("_hub", "_id", "_pending", "task")

    def __init__(
        self, hub: Hub, task: str, job: JobId, pending: concurrent.futures.Future[Answer] | None = None
    ) -> None:
        self._hub = hub
        self._id = job
        self._pending = pending
        self.task = task
        if pending is not None:
            pending.add_done_callback(self._log_refusal)

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.task}>"

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return job_text(self._id)

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait until the job has ended.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            What the task returned; for scope "all" the `Outcomes`.

        Raises:
            JobFailed: it ended without a result; which of its subclasses says how. It has the remote traceback.
            JobNotFound: it ended longer ago than its result is kept.
            TimeoutError: it has not ended in time. The job goes on.
            Exception: for a job of `enqueue_soon` also as `wait_accepted`.
        """
        return cast("R_co", self._value_of(await self._ended(timeout)))

    @overload
    async def outcomes(self: Job[Outcomes[R]], timeout: float | None = None) -> Outcomes[R]: ...
    @overload
    async def outcomes(self: Job[R], timeout: float | None = None) -> Outcomes[R]: ...
    async def outcomes(self, timeout: float | None = None) -> Outcomes[Any]:
        """Wait until a job of scope "all" has ended at each member.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            TaskInvalid: the job is of scope "any".
            JobNotFound, TimeoutError: as `result`.
        """
        ended = await self._ended(timeout)
        if ended.parts is None:
            raise TaskInvalid(f'task {self.task} has scope "any": its jobs have one result, and no outcomes')
        return Outcomes.of(ended.parts, self.id, self.task)

    async def cancel(self) -> bool:
        """Do not run it (any more).

        Returns:
            True if it will not run, or was stopped; False if it has ended, or can't be stopped and runs on.

        Raises:
            JobNotFound: it ended longer ago than its result is kept.
        """
        await self._until_held()
        answer = await self._hub.ask(Cancel(self._id))
        if not isinstance(answer, Did):
            raise _unexpected(answer)
        return answer.done

    async def view(self) -> JobView:
        """The job as it is now.

        Raises:
            JobNotFound: it ended longer ago than its result is kept.
        """
        await self._until_held()
        answer = await self._hub.ask(FindJob(self._id))
        if not isinstance(answer, Listed) or not answer.jobs:
            raise _unexpected(answer)
        return JobView.of(answer.jobs[0])

    def wait_accepted(self, timeout: float | None = None) -> None:
        """Wait, in a thread without an event loop, until a job of `enqueue_soon` is accepted.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            TaskNotFound, AlreadyQueued, QueueFull, ParamsInvalid, NotRunning: it was refused.
            NotAccepted: it is held, and may run.
            TimeoutError: there was no answer in time. The job may be accepted still.
        """
        self._refuse_on_a_loop("wait_accepted")
        if self._pending is None:
            return
        with self._hub.waiting_sync():
            try:
                answer = self._pending.result(timeout)
            except TimeoutError:
                if self._pending.done():
                    raise
                raise TimeoutError(f"{self!r} was not accepted within {timeout} s") from None
        self._take_acceptance(answer)

    def result_sync(self, timeout: float | None = None) -> R_co:
        """`result` for a thread without an event loop: of a synchronous program, or a job in a thread.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            NotRunning: an event loop runs in this thread: `await job.result()` there.
            Exception: otherwise as `result` and `wait_accepted`.
        """
        self._refuse_on_a_loop("result_sync")
        until_s = None if timeout is None else time.monotonic() + timeout
        self.wait_accepted(timeout)
        with self._hub.waiting_sync():
            future = self._hub.ask_soon(AwaitResult(self._id))
            try:
                answer = future.result(None if until_s is None else max(0, until_s - time.monotonic()))
            except TimeoutError:
                if future.done():
                    raise
                future.cancel()
                raise self._too_late(timeout) from None
        return cast("R_co", self._value_of(self._as_ended(answer)))

    async def _ended(self, timeout: float | None) -> Ended:
        async with self._hub.waiting():
            limit = asyncio.timeout(timeout)
            try:
                async with limit:
                    await self._until_accepted()
                    answer = await self._hub.ask(AwaitResult(self._id))
            except TimeoutError:
                if limit.expired():
                    raise self._too_late(timeout) from None
                raise
        return self._as_ended(answer)

    async def _until_accepted(self) -> None:
        if self._pending is not None:
            # A caller who gives up waiting must not take the job back.
            self._take_acceptance(await asyncio.shield(asyncio.wrap_future(self._pending)))

    async def _until_held(self) -> None:
        """The same for questions that make sense also of a job that is held and not accepted."""
        try:
            await self._until_accepted()
        except NotAccepted:
            pass

    def _take_acceptance(self, answer: Answer) -> None:
        (self._id,) = _accepted(answer, [(self._id, b"")])
        self._pending = None

    def _log_refusal(self, pending: concurrent.futures.Future[Answer]) -> None:
        """Nobody may be waiting for the answer, and an error must not pass in silence."""
        if pending.cancelled():
            return
        error = pending.exception()
        if error is None and isinstance(answer := pending.result(), Refused):
            error = error_of(answer, [self._id])
        if error is not None:
            _log.error("! not accepted %s id=%s why=%s", self.task, self.id, error)

    def _as_ended(self, answer: Answer) -> Ended:
        if not isinstance(answer, Ended):
            raise _unexpected(answer)
        return answer

    def _value_of(self, ended: Ended) -> Any:
        if ended.parts is not None:
            return Outcomes.of(ended.parts, self.id, self.task)
        if ended.outcome.status is not Status.SUCCEEDED:
            raise failure_of(ended.outcome, self.id, self.task)
        return decode(ended.outcome.result)

    def _too_late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"{self!r} has not ended within {timeout} s; it goes on")

    def _refuse_on_a_loop(self, method: str) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise NotRunning(
            f"{method}() would block the event loop that runs in this thread, and the job may need it: "
            "await job.result() here"
        )
