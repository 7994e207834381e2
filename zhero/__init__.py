"""zhero: background tasks with no broker. The processes of an application are the cluster.

import zhero

@zhero.task(retries=5)
async def send_email(to: str, subject: str = "hi") -> str: ...

async with zhero.Node(tasks=[send_email]) as node:
    job = await send_email.enqueue(to="ann@example.com")
    text = await job.result(timeout=5)
"""

from ._version import __version__
from .client import Client
from .core.values import Queue
from .draft import Draft
from .errors import (
    AlreadyQueued,
    BindFailed,
    Bug,
    ClusterError,
    ConfigError,
    DataDirInvalid,
    DataDirLocked,
    Discard,
    JobCancelled,
    JobCrashed,
    JobDiscarded,
    JobFailed,
    JobLost,
    JobNotFound,
    JobTimedOut,
    NodeError,
    NotAccepted,
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
from .events import Event, Events, EventsDropped, JobEvent, MemberEvent, NodeEvent, TaskEvent
from .job import Job
from .node import Node
from .outcomes import MemberOutcome, Outcomes
from .runtime.handlers import Backoff, Context, current
from .task import Task
from .views import ClusterView, JobView, MemberView, StatsView

# isort: split
# Last, as a module of this package has the same name.
from .forms import task, task_from

__all__ = [
    "Backoff",
    "Client",
    "ClusterView",
    "Context",
    "Draft",
    "Event",
    "Events",
    "EventsDropped",
    "Job",
    "JobEvent",
    "JobView",
    "MemberEvent",
    "MemberOutcome",
    "MemberView",
    "Node",
    "NodeEvent",
    "Outcomes",
    "Queue",
    "StatsView",
    "Task",
    "TaskEvent",
    "current",
    "task",
    "task_from",
    "Discard",
    "Retry",
    "Signal",
    "Snooze",
    "AlreadyQueued",
    "BindFailed",
    "Bug",
    "ClusterError",
    "ConfigError",
    "DataDirInvalid",
    "DataDirLocked",
    "JobCancelled",
    "JobCrashed",
    "JobDiscarded",
    "JobFailed",
    "JobLost",
    "JobNotFound",
    "JobTimedOut",
    "NodeError",
    "NotAccepted",
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
