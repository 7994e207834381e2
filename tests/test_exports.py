"""The public names: one more or one less is a decision, and made here."""

from __future__ import annotations

import inspect

import zhero
from zhero import errors

PUBLIC = [
    # tasks and nodes
    "Backoff",
    "Node",
    "Task",
    "current",
    "task",
    "task_from",
    # jobs and their inspection
    "Context",
    "Client",
    "ClusterView",
    "Draft",
    "Job",
    "JobView",
    "MemberOutcome",
    "MemberView",
    "Outcomes",
    "Queue",
    "StatsView",
    # events
    "Event",
    "Events",
    "EventsDropped",
    "JobEvent",
    "MemberEvent",
    "NodeEvent",
    "TaskEvent",
    # what a task may raise
    "Discard",
    "Retry",
    "Signal",
    "Snooze",
    # errors
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
    # about the package
    "__version__",
]


def test_the_public_names_are_these() -> None:
    assert sorted(zhero.__all__) == sorted(PUBLIC)


def test_every_public_name_is_there() -> None:
    assert [name for name in PUBLIC if not hasattr(zhero, name)] == []


def test_every_error_and_signal_is_public() -> None:
    made = {name for name, it in inspect.getmembers(errors, inspect.isclass) if it.__module__ == errors.__name__}
    assert made - set(PUBLIC) == set()


def test_every_public_class_and_function_is_documented() -> None:
    named = [(name, getattr(zhero, name)) for name in PUBLIC if not name.startswith("__")]
    assert [name for name, it in named if not (it.__doc__ or "").strip()] == []
