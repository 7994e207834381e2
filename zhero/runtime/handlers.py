"""What an executor knows of a task, and what running code knows of its job.

A `Handler` is a task made ready to run: where (on the loop, in a thread, in a child process), for how long, how often.
What its code raises becomes a `Raised`, the same in every place it may run: an exception leaves its process as text.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Literal

from ..config import SPAN_MAX_MS
from ..core.values import Failure, Run, Verdict, job_text
from ..errors import Discard, NotRunning, Retry, Snooze

Mode = Literal["async", "thread", "process"]

TRACEBACK_MAX_LENGTH = 16_384
MESSAGE_MAX_LENGTH = 4_096


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next try: exponential, less a random share, so that failures spread out.

    Attributes:
        first_ms: before the second try.
        factor: by which each wait is longer than the one before.
        max_ms: the longest wait.
        jitter: the share of a wait that chance may take off, 0 to 1.
    """

    first_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 3_600_000
    jitter: float = 0.5

    def wait_ms(self, tries: int, rng: Random) -> int:
        """The wait after that many tries, from 1."""
        grown = min(float(self.max_ms), self.first_ms * self.factor ** min(tries - 1, 64))
        return max(1, round(grown * (1 - self.jitter * rng.random())))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a child process finds a task: `attribute` of `module`, which may have to be loaded from `path`."""

    module: str
    path: str | None
    attribute: str


@dataclass(frozen=True, slots=True)
class Handler:
    """A task made ready to run.

    Attributes:
        call: takes the params as a dict; in mode "async" it returns a coroutine.
        timeout_ms: None: a run may take as long as it likes.
        retries: further tries after the first.
        source: set for mode "process".
    """

    name: str
    mode: Mode
    call: Callable[[dict[str, Any]], Any]
    timeout_ms: int | None
    retries: int
    backoff: Backoff
    source: Source | None


class Context:
    """The job that the calling code runs as; see `current`.

    Attributes:
        node: the node that runs it; None in a child process.
        cancelled: somebody asked to cancel the job. Code in a thread can't be interrupted: it may look here.
    """

    __slots__ = ("_run", "cancelled", "node")

    def __init__(self, run: Run, node: Any) -> None:
        self._run = run
        self.node = node
        self.cancelled = False

    @property
    def job_id(self) -> str:
        return job_text(self._run.job)

    @property
    def task(self) -> str:
        return self._run.header.task

    @property
    def attempt(self) -> int:
        """Number of this start, from 1."""
        return self._run.attempt

    @property
    def tries(self) -> int:
        """How many starts count against `retries`, this one included."""
        return self._run.tries

    @property
    def token(self) -> tuple[int, int]:
        """A fencing token (epoch, attempt): it grows with every start of the job, wherever that is.

        Source: M. Kleppmann, "How to do distributed locking", 2016.
        """
        return self._run.epoch, self._run.attempt

    @property
    def round_number(self) -> int:
        """For a periodic task the number of the round, the same wherever it is made; else 0."""
        return self._run.number


_current: ContextVar[Context] = ContextVar("zhero_job")


def enter(context: Context) -> None:
    """From here on, in this context, `current()` is that job."""
    _current.set(context)


def current() -> Context:
    """The job that the calling code runs as.

    Raises:
        NotRunning: it does not run as a job.
    """
    context = _current.get(None)
    if context is None:
        raise NotRunning("zhero.current() is for code that runs as a job; inline runs and other code have none")
    return context


def current_or_none() -> Context | None:
    """The job that the calling code runs as, if any."""
    return _current.get(None)


@dataclass(frozen=True, slots=True)
class Raised:
    """What a run ended with instead of a result. `wait_ms`: None: by the task's backoff."""

    verdict: Verdict
    failure: Failure
    wait_ms: int | None = None


def raised_by(error: BaseException) -> Raised:
    """What an exception out of a task means."""
    try:
        if isinstance(error, Retry):
            wait_ms = None if error.run_in is None else span_ms(error.run_in)
            return Raised(Verdict.RETRY, failure_of(error), wait_ms)
        if isinstance(error, Snooze):
            return Raised(Verdict.SNOOZE, failure_of(error), span_ms(error.run_in))
    except (TypeError, ValueError) as wrong:
        return Raised(Verdict.DEAD, failure_of(wrong))
    if isinstance(error, Discard):
        return Raised(Verdict.DEAD, failure_of(error))
    return Raised(Verdict.RETRY, failure_of(error))


def failure_of(error: BaseException) -> Failure:
    """An exception as text; never raises, whatever the exception does."""
    kind = type(error).__qualname__
    try:
        message = str(error)
    except Exception:
        message = "(its text can't be had)"
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception:
        trace = ""
    return Failure(kind, _clean(message)[:MESSAGE_MAX_LENGTH], _clean(trace)[-TRACEBACK_MAX_LENGTH:])


def _clean(text: str) -> str:
    """Without the lone surrogates that no encoding takes."""
    return text.encode("utf-8", "replace").decode()


def span_ms(span: object) -> int:
    """Seconds or a timedelta as whole ms, rounded up.

    Raises:
        TypeError, ValueError: it is no span, is negative, or is over ten years.
    """
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"a span is seconds or a timedelta, not {span!r}")
    if not 0 <= seconds * 1000 <= SPAN_MAX_MS:
        raise ValueError(f"a span is 0 to ten years, not {span!r}")
    return math.ceil(round(seconds * 1000, 6))
