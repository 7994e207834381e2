"""All errors, and the signals a task may raise.

Theory: an error is raised before anything is queued and says what to do about it. Everything derives from
`ZheroError`, grouped by who can mend it: the definition (`TaskError`), this process (`NodeError`), the cluster
(`ClusterError`), the job itself (`JobFailed`), the settings (`ConfigError`). `Bug` is ours: a broken invariant.

`Retry`, `Snooze` and `Discard` are no errors: a task raises them to say how its run is to be taken.
"""

from __future__ import annotations

from datetime import timedelta


class ZheroError(Exception):
    """Base of every error that zhero raises."""


class TaskError(ZheroError):
    """A definition or its use is wrong; the code that defines or enqueues has to change."""


class TaskNotFound(TaskError):
    """No member has a task of that name."""


class TaskInvalid(TaskError):
    """A definition is wrong; the message names the file, the task and the field."""


class TaskDuplicate(TaskError):
    """Two definitions have one name."""


class ParamsInvalid(TaskError):
    """Params do not fit the task, or can't be encoded; the message names the key."""


class NodeError(ZheroError):
    """This process can't do what was asked of it."""


class NotBound(NodeError):
    """A task was used without a node: none runs here, or several do."""


class NotRunning(NodeError):
    """The node has not been started, is leaving, or has stopped."""


class BindFailed(NodeError):
    """The node can't listen at the address asked for."""


class QueueFull(NodeError):
    """`max_jobs` or `max_bytes` is reached; nothing was enqueued."""


class DataDirLocked(NodeError):
    """Another process uses the data directory; each node needs one of its own."""


class DataDirInvalid(NodeError):
    """The data directory can't be used; the message says why, and what to do."""


class RuntimeDirInvalid(NodeError):
    """The directory in which the nodes of this user find one another can't be used."""


class ClusterError(ZheroError):
    """The cluster can't do what was asked of it."""


class NotReached(ClusterError):
    """Nobody answered who could: no node runs, or none at the given address, or a job is just changing hands."""


class AlreadyQueued(ClusterError):
    """A periodic task is scheduled already; one schedule exists per cluster."""


class NotAccepted(ClusterError):
    """A job is held, and its copies at other members (`backups`) did not all exist within `accept_timeout`.

    It is not refused: it starts as soon as its copies exist, unless it is cancelled. So to enqueue it once more may
    mean to run it twice; with an id of the caller's own (`options(id=...)`) both are one job.

    Attributes:
        job_id: the job, as text: to wait for, or to cancel. Of a batch the first.
        job_ids: all jobs of the batch.
        may_run: whether it may run nevertheless: always True, as nobody can know that it will not.
    """

    may_run = True

    def __init__(self, message: str, *, job_id: str = "", job_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.job_ids = job_ids


class JobNotFound(ClusterError):
    """No member knows this job: it never was, or it ended longer ago than its result is kept."""


class JobFailed(ZheroError):
    """A job ended without a result. `str()` has the reason, `remote_traceback` where it was raised.

    Attributes:
        job_id: the job, as text.
        kind: name of the exception that the task raised, or how the job ended.
        remote_traceback: the traceback in the process that ran it; empty where there was none.
    """

    def __init__(self, message: str, *, job_id: str = "", kind: str = "", remote_traceback: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id
        self.kind = kind
        self.remote_traceback = remote_traceback


class JobTimedOut(JobFailed):
    """The job ran longer than its `timeout`."""


class JobCancelled(JobFailed):
    """The job was cancelled."""


class JobDiscarded(JobFailed):
    """The task raised `Discard`."""


class JobLost(JobFailed):
    """The job can't run any more, and nobody knows how far it came.

    It may run at most once, and its node died while it may have been running; or it was one member's part of an "all"
    job, and that member is gone.
    """


class JobCrashed(JobFailed):
    """The child process that ran the job died."""


class ConfigError(ZheroError):
    """A setting is wrong; the message names the setting, its origin and what would be right."""


class Bug(ZheroError):
    """An invariant of zhero itself is broken. Please report it with the story it carries."""


class Signal(Exception):
    """Base of what a task raises to say how its run is to be taken."""


class Retry(Signal):
    """Run the job again; this run counts as a try.

    Args:
        run_in: seconds or a timedelta to wait; None: by the task's backoff.
        why: shown in inspection.
    """

    def __init__(self, why: str = "", *, run_in: float | timedelta | None = None) -> None:
        super().__init__(why)
        self.run_in = run_in


class Snooze(Signal):
    """Not yet: run the job later; this run costs no try.

    Args:
        run_in: seconds or a timedelta to wait.
        why: shown in inspection.
    """

    def __init__(self, why: str = "", *, run_in: float | timedelta) -> None:
        super().__init__(why)
        self.run_in = run_in


class Discard(Signal):
    """Never run the job again: it becomes a dead letter, whatever `retries` says."""
