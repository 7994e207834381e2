"""What the core reports upward, past tense. Nothing depends on whether anybody listens.

A fact becomes a log line and an event for `node.events()`; the engine builds those of jobs that go well only while
`Engine.listening` is set, so they cost nothing when nobody does. What goes wrong is always told.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .values import Failure, JobId, Life, Member, Status


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


@dataclass(slots=True)
class PeerJoined:
    """A member that was not here before."""

    member: Member
    joined: int


@dataclass(slots=True)
class PeerSuspected:
    """Nothing is heard of it; unless that changes it is dead in `dead_in_ms`."""

    member: Member
    dead_in_ms: int


@dataclass(slots=True)
class PeerRefuted:
    """It was suspected, and it is well."""

    member: Member


class Death(Enum):
    """How a death was found out: nobody listens there any more, silence, others said so, another listens there."""

    REFUSED = "refused"
    SILENT = "silent"
    TOLD = "told"
    REPLACED = "replaced"


@dataclass(slots=True)
class PeerDied:
    """A member is given up."""

    member: Member
    how: Death


@dataclass(slots=True)
class PeerLeft:
    """A member has said farewell."""

    member: Member


@dataclass(slots=True)
class PeerLagging:
    """Its loop has not turned for `age_ms`; not `lagging`: it does again."""

    member: Member
    age_ms: int
    lagging: bool


@dataclass(slots=True)
class Joined:
    """This node is a member now, with that join number; `others`: how many it knows."""

    joined: int
    others: int


@dataclass(slots=True)
class Paused:
    """This node did not run for `span_ms`: it asks its peers before it starts anything."""

    span_ms: int


@dataclass(slots=True)
class Confirmed:
    """The pause is over: a peer still counts this node, or nobody else is left."""


@dataclass(slots=True)
class Reborn:
    """This node had been given up by others: it goes on under a new life."""

    life: Life


@dataclass(slots=True)
class IdentityTaken:
    """Another process lives under this node's id: this one has to stop."""

    other: Member


@dataclass(slots=True)
class OwnerChanged:
    """The delayed queue has another owner; `mine`: it is this node."""

    owner: Member
    epoch: int
    mine: bool


@dataclass(slots=True)
class TookOver:
    """This node is the home of what that member was home of: `jobs` that had not ended."""

    name: str
    jobs: int


@dataclass(slots=True)
class Recovered:
    """The journal had so many jobs that this node was home of, and copies of so many slices of others."""

    jobs: int
    copies: int


@dataclass(slots=True)
class DiskFull:
    """The journal can't write: nothing new is taken, what runs goes on. `is_over`: it can again."""

    is_over: bool


@dataclass(slots=True)
class DiskFailed:
    """A write or sync of the journal has failed, so nobody knows what is on the disk: this node has to stop."""

    why: str


@dataclass(slots=True)
class Degraded:
    """Jobs of this node have fewer copies than was asked for; 0: all have them again."""

    jobs: int


Fact = (
    PeerJoined
    | PeerSuspected
    | PeerRefuted
    | PeerDied
    | PeerLeft
    | PeerLagging
    | Joined
    | Paused
    | Confirmed
    | Reborn
    | IdentityTaken
    | OwnerChanged
    | TookOver
    | Degraded
    | Recovered
    | DiskFull
    | DiskFailed
    | JobQueued
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
