"""What an executor knows of a task, what a running job may ask, and how a call can end.

A `Handler` is all that is left of a task definition down here: what to call, how, and what to do when it fails.

A call ends as an `Outcome` (it returned, the result is encoded) or as `Raised` (anything else). Both are plain data
made where the call ran, be it on the loop, in a thread or in a child process: no exception object and no traceback
with its frames travels. What is to become of the job is decided in one place, by `Handler.verdict`.

`Running` is what the context variable of a job holds. `current()` makes a `Context` of it when asked, since most jobs
never ask and a `Context` costs more than a whole no-op job may.

Text of foreign exceptions is cut (`MESSAGE_MAX_LENGTH`, `TRACEBACK_MAX_BYTES`) and freed of lone surrogates, so that it
can always be encoded; an exception whose `__str__` raises is described by its type.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal

from ..codec import decode, encode
from ..config import SPAN_MAX_MS
from ..core.values import SUCCEEDED, Failure, Finished, Outcome, Run, Status, Verdict, job_text
from ..errors import Discard, NotRunning, ParamsInvalid, Retry, Snooze

TRACEBACK_MAX_BYTES = 16 * 1024
"""Of a traceback; its end is kept, where the error is."""
MESSAGE_MAX_LENGTH = 4 * 1024
"""Characters of an exception's message; its beginning is kept."""

_OUR_MODULES = f"{__package__}."


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a job that failed runs again: exponential, shortened by chance.

    Attributes:
        first_ms: after the first try.
        factor: by how much each further wait is longer.
        max_ms: no wait is longer.
        jitter: the part of a wait, 0 to 1, that is up to chance, so that jobs that failed together do not return so.
    """

    first_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 3_600_000
    jitter: float = 0.5

    def wait_ms(self, tries: int, rng: random.Random) -> int:
        """The wait after that many tries."""
        try:
            base_ms = min(float(self.max_ms), self.first_ms * self.factor ** (tries - 1))
        except OverflowError:
            base_ms = self.max_ms
        return round(base_ms * (1 - self.jitter * rng.random()))


@dataclass(frozen=True, slots=True)
class Source:
    """How a child process finds the function of a task.

    Attributes:
        module: its module; `__main__` is imported from its path as `__mp_main__`, as multiprocessing does.
        path: the file of the module, for one that can't be imported by name.
        attribute: dotted name, within the module, of a task object, a task class or a function.
        name: of the task: what is looked for where the attribute is missing.
    """

    module: str | None
    path: str | None
    attribute: str
    name: str


@dataclass(slots=True)
class Raised:
    """A call that ended without a result.

    Attributes:
        failure: what was raised, as text.
        then: "retry" while tries are left, "snooze" costs no try, "dead": never again.
        status: how the run ended.
        delay_ms: the wait before the next run; None: by the backoff.
    """

    failure: Failure
    then: Literal["retry", "snooze", "dead"] = "retry"
    status: Status = Status.FAILED
    delay_ms: int | None = None


Ending = Outcome | Raised
"""How a call ended; an `Outcome` is always that of a success."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A task, as far as running it goes.

    Attributes:
        mode: "async" on the loop, "thread", or "process" (`source` says how the child finds it).
        call: takes the params and runs the task; for "async" it returns an awaitable. The node is bound already.
        timeout_ms: how long a run may take; None: for ever.
        retries: how many runs may follow a failed first one.
    """

    name: str
    mode: Literal["async", "thread", "process"]
    call: Callable[[dict[str, Any]], Any]
    timeout_ms: int | None
    retries: int
    backoff: Backoff
    source: Source | None

    def verdict(self, run: Run, ending: Ending, stop: Status | None, rng: random.Random) -> Finished:
        """What is to become of a job whose run ended so.

        Args:
            stop: what it was told to stop for: CANCELLED (a result counts all the same, anything else is its end) or
                TIMED_OUT (whatever it did then came too late); or None.
        """
        if stop is Status.TIMED_OUT:
            trace = ending.failure.traceback if isinstance(ending, Raised) and self.mode == "async" else ""
            text = f"timed out after {(self.timeout_ms or 0) / 1000:g} s"
            ending = Raised(Failure("JobTimedOut", text, trace), status=Status.TIMED_OUT)
        if isinstance(ending, Outcome):
            return Finished(run.job, run.attempt, Verdict.DONE, ending)
        if stop is Status.CANCELLED:
            why = None if ending.failure.kind == "CancelledError" else ending.failure
            return Finished(run.job, run.attempt, Verdict.CANCELLED, Outcome(Status.CANCELLED, failure=why))
        outcome = Outcome(ending.status, failure=ending.failure)
        if ending.then == "snooze":
            return Finished(run.job, run.attempt, Verdict.SNOOZE, outcome, ending.delay_ms or 0)
        if ending.then == "dead" or run.tries > self.retries:
            return Finished(run.job, run.attempt, Verdict.DEAD, outcome)
        delay_ms = self.backoff.wait_ms(run.tries, rng) if ending.delay_ms is None else ending.delay_ms
        return Finished(run.job, run.attempt, Verdict.RETRY, outcome, delay_ms)


# --- the job that runs --------------------------------------------------------------------------------------------


class Running:
    """One run in progress. `stop`: why it is to end before its time, or None."""

    __slots__ = ("node", "run", "stop")

    def __init__(self, run: Run, node: Any) -> None:
        self.run = run
        self.node = node
        self.stop: Status | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The job that runs, as `zhero.current()` shows it.

    Attributes:
        job_id: 32 hexadecimal digits.
        task: name of the task.
        attempt: number of this start, from 1.
        tries: how many starts count against `retries`, this one included.
        epoch: how often the home of the job has changed; the first part of `token`.
        number: the round, for a periodic task; else 0.
        enqueued_at_ms: when it was enqueued, ms since the epoch.
        node: the `Node` that runs it; None in a child process.
    """

    job_id: str
    task: str
    attempt: int
    tries: int
    epoch: int
    number: int
    enqueued_at_ms: int
    node: Any
    _running: Running = field(repr=False, compare=False)

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token, an ordered pair: a later run of this job has a greater one, wherever it runs.

        A run that was given up (its node was paused or cut off) may still write. A store that keeps the greatest token
        it has seen of a job can refuse that, in one statement:

            UPDATE invoices SET state = 'paid', epoch = :epoch, attempt = :attempt
            WHERE job = :job AND (epoch, attempt) <= (:epoch, :attempt)

        If no row was changed, a later run was here. Tokens of different jobs say nothing about one another.
        """
        return self.epoch, self.attempt

    @property
    def cancelled(self) -> bool:
        """Whether the job is to stop. Only a job in a thread needs to ask; nothing else can end it."""
        return self._running.stop is not None


RUNNING: ContextVar[Running] = ContextVar("zhero_running")
"""Set in the context of each job, and so in that of all it starts."""


def current_or_none() -> Context | None:
    """The job that this code runs in, or None outside of one."""
    running = RUNNING.get(None)
    if running is None:
        return None
    run = running.run
    return Context(
        job_text(run.job),
        run.header.task,
        run.attempt,
        run.tries,
        run.epoch,
        run.number,
        run.enqueued_at_ms,
        running.node,
        running,
    )


def current() -> Context:
    """The job that this code runs in.

    Raises:
        NotRunning: it runs in none.
    """
    context = current_or_none()
    if context is None:
        raise NotRunning(
            "zhero.current() was called outside a job: only code that a node runs as a job has a current job "
            "(a thread that the job started has one only in a copy of the job's context)"
        )
    return context


# --- how calls end ------------------------------------------------------------------------------------------------


def attempted(call: Callable[[dict[str, Any]], Any], params: bytes, result_max_bytes: int) -> Ending:
    """Decode, call, encode: a whole run of a plain function. Never raises."""
    values = decoded(params)
    if isinstance(values, Raised):
        return values
    try:
        value = call(values)
    except BaseException as error:
        return raised(error)
    return returned(value, result_max_bytes)


def decoded(params: bytes) -> dict[str, Any] | Raised:
    """The params of a run; what can't be read now will not be readable later either."""
    try:
        values = decode(params)
    except ParamsInvalid as error:
        return Raised(failure(error), "dead")
    if not isinstance(values, dict):
        return Raised(Failure("ParamsInvalid", f"params are a {type(values).__name__}, not a dict"), "dead")
    return values  # pyright: ignore[reportUnknownVariableType]  # keys: what encode was given


def returned(value: object, result_max_bytes: int) -> Ending:
    """The ending of a call that returned; a result that can't be sent is a fault that a retry would not mend."""
    if value is None:
        return SUCCEEDED
    try:
        result = encode(value, "result")
    except Exception as error:
        return Raised(failure(error), "dead")
    if len(result) > result_max_bytes:
        text = (
            f"the result has {len(result)} bytes, more than the {result_max_bytes} allowed: store it, return its place"
        )
        return Raised(Failure("ResultTooLarge", text), "dead")
    return Outcome(Status.SUCCEEDED, result)


def raised(error: BaseException) -> Raised:
    """The ending of a call that raised, be it an error or a signal of `zhero.errors`."""
    try:
        if isinstance(error, Retry):
            return Raised(failure(error), delay_ms=None if error.run_in is None else span_ms(error.run_in))
        if isinstance(error, Snooze):
            return Raised(failure(error), "snooze", delay_ms=span_ms(error.run_in))
    except ValueError as wrong:
        return Raised(Failure(type(error).__name__, str(wrong), failure(error).traceback), "dead")
    if isinstance(error, Discard):
        return Raised(failure(error), "dead", Status.DISCARDED)
    return Raised(failure(error))


def span_ms(span: float | timedelta) -> int:
    """A wait that a task asks for, in ms, rounded up.

    Raises:
        ValueError: it is none, is negative or is longer than ten years.
    """
    if isinstance(span, timedelta):
        span_ms = -(-span // timedelta(milliseconds=1))
    elif isinstance(span, bool) or not isinstance(span, int | float) or not math.isfinite(span):  # pyright: ignore[reportUnnecessaryIsInstance]  # a task may pass anything
        raise ValueError(f"run_in={span!r} is no span: give seconds as a number, or a timedelta")
    else:
        # What a product of floats is above the whole number that was meant is no reason to round up.
        span_ms = math.ceil(round(min(max(span, -1), SPAN_MAX_MS) * 1000, 6))
    if not 0 <= span_ms <= SPAN_MAX_MS:
        raise ValueError(f"run_in={span!r} must be between 0 and ten years")
    return span_ms


def failure(error: BaseException) -> Failure:
    """An exception as text."""
    try:
        message = str(error)
    except Exception:
        message = f"a {type(error).__name__} whose text can't be had"
    return Failure(type(error).__name__, _sound(message[:MESSAGE_MAX_LENGTH]), _traceback_text(error))


def _traceback_text(error: BaseException) -> str:
    try:
        shown = traceback.format_exception(type(error), error, _from_foreign_code(error.__traceback__))
    except Exception as fault:  # formatting calls code of the exception
        return f"(no traceback: formatting it raised {type(fault).__name__})"
    data = "".join(shown).encode(errors="backslashreplace")
    return data[-TRACEBACK_MAX_BYTES:].decode(errors="ignore")


def _from_foreign_code(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our own frames above the task's; all of it if there are none but ours."""
    foreign = trace
    while foreign is not None and foreign.tb_frame.f_globals.get("__name__", "").startswith(_OUR_MODULES):
        foreign = foreign.tb_next
    return foreign or trace


def _sound(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
