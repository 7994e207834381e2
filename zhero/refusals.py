"""Refusals of the core as the errors that callers get, each with what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence

from .core.messages import Refusal, Refused
from .core.values import JobId, job_from_text, job_text
from .errors import (
    AlreadyQueued,
    JobNotFound,
    NotAccepted,
    NotReached,
    NotRunning,
    ParamsInvalid,
    QueueFull,
    TaskInvalid,
    TaskNotFound,
    ZheroError,
)

_ERRORS: dict[Refusal, tuple[type[ZheroError], str]] = {
    Refusal.UNKNOWN_TASK: (TaskNotFound, "no member has a task named {!r}: is it among the tasks of a node?"),
    Refusal.UNKNOWN_JOB: (
        JobNotFound,
        "job {} is not known: it never was, or it ended longer ago than its result is kept (result_ttl)",
    ),
    Refusal.ALREADY_QUEUED: (AlreadyQueued, "task {} runs by itself, and its next round is queued already"),
    Refusal.QUEUE_FULL: (QueueFull, "full: {}; nothing was enqueued"),
    Refusal.DISK_FULL: (QueueFull, "{}: make room there; nothing was enqueued"),
    Refusal.TOO_LARGE: (ParamsInvalid, "too large: {}"),
    Refusal.PARAMS_INVALID: (ParamsInvalid, "{}"),
    Refusal.NOT_PERIODIC: (TaskInvalid, "task {} has no frequency, so it has no schedule to stop or start"),
    Refusal.LEAVING: (NotRunning, "{}"),
    Refusal.NOT_HOME: (
        NotReached,
        "job {} is changing hands, and its new home has not answered yet: ask again, it is not lost",
    ),
}


def error_of(refused: Refused, jobs: Sequence[JobId] = ()) -> ZheroError:
    """The error that a refusal means; its detail is the name, the id or the limit that it is about.

    Args:
        jobs: ids of those that were to be enqueued.
    """
    if refused.why is Refusal.NOT_ACCEPTED:
        return _not_accepted(refused.detail, jobs)
    kind, text = _ERRORS[refused.why]
    return kind(text.format(refused.detail))


def _not_accepted(detail: str, jobs: Sequence[JobId]) -> NotAccepted:
    told = job_from_text(detail)  # of a round of a periodic task only the owner knows the id
    ids = [job_text(job) for job in (jobs if told is None or len(jobs) > 1 else [told])]
    one = f"job {ids[0]} is" if ids else "the job is"
    which = one if len(ids) < 2 else f"{len(ids)} jobs, of which the first is {ids[0]}, are"
    why = f" ({detail})" if told is None and detail else ""
    return NotAccepted(
        f"{which} held, but after accept_timeout by fewer other members than were asked for (backups){why}. Each may "
        "still run, as soon as its copies exist: wait for its result by its id, or cancel it. Enqueued once more it is "
        "another job and may run twice, unless it has an id of your own: options(id=...)",
        job_id=ids[0] if ids else "",
        job_ids=tuple(ids),
    )
