"""What the core reports upward, past tense. Nothing depends on whether anybody listens.

A fact becomes a log line and an event for `node.events()`; the engine builds those of jobs that go well only while
`Engine.listening` is set, so they cost nothing when nobody does. What goes wrong is always told.
"""

from __future__ import annotations

from dataclasses import dataclass

from .values import Failure, JobId, Life, Status


@dataclass(slots=True)
class JobQueued:
    """Accepted. `run_in_ms`: 0 if it is ready at once."""

    job: JobId
    task: str
    announce: bool
    run_in_ms: int


@dataclass(slots=True)
class JobStarted:
    job: JobId
    task: str
    announce: bool
    attempt: int


@dataclass(slots=True)
class JobRetried:
    """A run ended without success and the job waits for its next one."""

    job: JobId
    task: str
    announce: bool
    attempt: int
    run_in_ms: int
    snoozed: bool
    failure: Failure | None


@dataclass(slots=True)
class JobEnded:
    job: JobId
    task: str
    announce: bool
    attempt: int
    status: Status
    ran_ms: int
    failure: Failure | None


@dataclass(slots=True)
class TaskScheduled:
    """A periodic task has its schedule; the first or next round is due in `run_in_ms`."""

    task: str
    run_in_ms: int


@dataclass(slots=True)
class TaskUnscheduled:
    """A periodic task is stopped: by a person, by an error that it does not survive, or its definition is gone."""

    task: str
    why: str


@dataclass(slots=True)
class TaskMissing:
    """Jobs wait for a task that no member has."""

    task: str
    waiting: int


@dataclass(slots=True)
class DeadLetterDropped:
    """The store of dead letters is full: the oldest one made room."""

    job: JobId
    task: str


@dataclass(slots=True)
class VerdictIgnored:
    """An executor reported a run that the home does not wait for: of an older attempt, or ended meanwhile."""

    job: JobId
    attempt: int


@dataclass(slots=True)
class PeerMisbehaved:
    """Somebody said what makes no sense; it was dropped."""

    peer: Life
    what: str


Fact = (
    JobQueued
    | JobStarted
    | JobRetried
    | JobEnded
    | TaskScheduled
    | TaskUnscheduled
    | TaskMissing
    | DeadLetterDropped
    | VerdictIgnored
    | PeerMisbehaved
)
