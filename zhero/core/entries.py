"""The entries of a slice: all that can happen to its jobs and schedules.

A job changes only by an entry that is applied through `Slice.apply`, here and, in the same order, wherever a copy of
the slice is kept. So an entry holds what was decided, never a question: what depends on a clock, on chance or on who
is here is settled before it is appended. Instants are ms on the home's clock.

An entry that concerns many jobs alike names them all: the price of an entry is paid once per turn, not per job.
"""

from __future__ import annotations

from dataclasses import dataclass

from .records import Chunk
from .values import Header, JobId, Life, Outcome, StreamId


@dataclass(slots=True)
class Put:
    """New jobs with one header. `due_at_ms`: 0: ready at once. `keyed`: their ids are remembered after the end.

    `more`: a part of a batch, which is put with its last part and not before, so that it is there as a whole or not.
    """

    header: Header
    jobs: list[tuple[JobId, bytes]]
    at_ms: int
    due_at_ms: int = 0
    keyed: bool = False
    more: bool = False


@dataclass(slots=True)
class Due:
    """Delayed jobs whose time has come."""

    jobs: list[JobId]


@dataclass(slots=True)
class Lent:
    """Given to an executor: each one's next attempt."""

    jobs: list[JobId]
    to: Life


@dataclass(slots=True)
class Returned:
    """Back from an executor that had not started them: the attempt is not counted."""

    jobs: list[JobId]


@dataclass(slots=True)
class Orphaned:
    """Their executor died. The attempt stays counted, but is no try. `killed`: those it may have been running."""

    jobs: list[JobId]
    killed: list[JobId]


@dataclass(slots=True)
class Adopted:
    """It turns out that a member holds these, each as that attempt: a home that died, or was away, had lent them."""

    jobs: list[JobId]
    attempts: list[int]
    to: Life


@dataclass(slots=True)
class Done:
    """Ended for good, each with the outcome at the same place of the other list."""

    jobs: list[JobId]
    outcomes: list[Outcome]
    at_ms: int


@dataclass(slots=True)
class Waits:
    """A run ended and another follows at `due_at_ms`. `counted`: it used up a try."""

    job: JobId
    outcome: Outcome
    due_at_ms: int
    counted: bool


@dataclass(slots=True)
class Died:
    """Out of tries, or discarded: a dead letter from now on."""

    job: JobId
    outcome: Outcome
    at_ms: int


@dataclass(slots=True)
class CancelAsked:
    """Somebody asked to cancel what has been lent: the verdict decides."""

    job: JobId


@dataclass(slots=True)
class Revived:
    """A person wants the dead letter run again, with its tries counted from new.

    `target`: it was the part of an "all" job at a member that is gone, so this one is to run it.
    """

    job: JobId
    target: Life | None = None


@dataclass(slots=True)
class Dropped:
    """The dead letter is forgotten."""

    job: JobId


@dataclass(slots=True)
class Spread:
    """An "all" job becomes one part per member; `skipped` members could not run it."""

    job: JobId
    members: list[Life]
    skipped: list[Life]
    at_ms: int


@dataclass(slots=True)
class Planned:
    """The schedule of a periodic task, new or changed. `number`: of the last round made."""

    task: str
    frequency_ms: int
    fixed_rate: bool
    number: int
    due_at_ms: int


@dataclass(slots=True)
class PlanStopped:
    """No further round, until it is planned again."""

    task: str


@dataclass(slots=True)
class Advanced:
    """Round `number` begins: the schedule moves on and the round's job is put, in one step.

    So whoever has one has the other: a home that dies neither skips nor doubles a round.
    `due_at_ms`: the next round, if it does not wait for the end of this one; else 0.
    """

    header: Header
    job: JobId
    number: int
    at_ms: int
    due_at_ms: int


@dataclass(slots=True)
class Imported:
    """What another was home of is of this home now. None of its live jobs is in the slice yet.

    `source`: the stream that it comes from; tokens of runs grow beyond those that it gave.
    """

    source: StreamId
    chunk: Chunk


@dataclass(slots=True)
class Moved:
    """Another home has these now."""

    jobs: list[JobId]


@dataclass(slots=True)
class Rehomed:
    """The home goes on under another life; what it runs itself it goes on running.

    `restarted`: not so, it is another process now. What the old one held is lost with it, and tokens of runs grow.
    """

    home: Life
    restarted: bool = False


Entry = (
    Put
    | Due
    | Lent
    | Returned
    | Orphaned
    | Adopted
    | Done
    | Waits
    | Died
    | CancelAsked
    | Revived
    | Dropped
    | Spread
    | Planned
    | PlanStopped
    | Advanced
    | Imported
    | Moved
    | Rehomed
)
