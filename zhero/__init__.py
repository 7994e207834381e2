"""zhero: background tasks with no broker. The processes of an application are the cluster.

import zhero

@zhero.task(retries=5)
async def send_email(to: str, subject: str = "hi") -> str: ...

async with zhero.Node(tasks=[send_email]) as node:
    job = await send_email.enqueue(to="ann@example.com")
    text = await job.result(timeout=5)
"""

from ._version import __version__
from .core.values import Queue
from .errors import (
    AlreadyQueued,
    BindFailed,
    Bug,
    ClusterError,
    ConfigError,
    Discard,
    JobCancelled,
    JobCrashed,
    JobDiscarded,
    JobFailed,
    JobLost,
    JobNotFound,
    JobTimedOut,
    NodeError,
    NotBound,
    NotReached,
    NotRunning,
    ParamsInvalid,
    QueueFull,
    Retry,
    RuntimeDirInvalid,
    Signal,
    Snooze,
    TaskDuplicate,
    TaskError,
    TaskInvalid,
    TaskNotFound,
    ZheroError,
)
from .job import Job, JobOptions, MemberOutcome, Outcomes
from .node import Node
from .runtime.handlers import Backoff, Context, current
from .task import Task, task
from .views import JobView, MemberView, StatusView

__all__ = [
    "Backoff",
    "Context",
    "Job",
    "JobOptions",
    "JobView",
    "MemberOutcome",
    "MemberView",
    "Node",
    "Outcomes",
    "Queue",
    "StatusView",
    "Task",
    "current",
    "task",
    "Discard",
    "Retry",
    "Signal",
    "Snooze",
    "AlreadyQueued",
    "BindFailed",
    "Bug",
    "ClusterError",
    "ConfigError",
    "JobCancelled",
    "JobCrashed",
    "JobDiscarded",
    "JobFailed",
    "JobLost",
    "JobNotFound",
    "JobTimedOut",
    "NodeError",
    "NotBound",
    "NotReached",
    "NotRunning",
    "ParamsInvalid",
    "QueueFull",
    "RuntimeDirInvalid",
    "TaskDuplicate",
    "TaskError",
    "TaskInvalid",
    "TaskNotFound",
    "ZheroError",
    "__version__",
]
