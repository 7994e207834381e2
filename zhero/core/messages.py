"""What is said between processes, and what a caller asks of an engine.

A *call* asks for something; an *answer* is what comes back. Calls of the own process reach `Engine.call` as they
are; those of a client, which is no member, travel in a `Request` and are answered by `Response`s. A long list is
answered in several responses, all but the last marked `more`.

Dispatch is by type. Messages are never mutated once built.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .values import JobId, JobInfo, Life, Member, Outcome

# --- calls --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Enqueue:
    """Take these jobs of one task: all of them, or none.

    Attributes:
        jobs: id and encoded params of each.
        priority, announce: None: as the definition says.
        delay_ms: span from now; 0: as soon as possible.
        keyed: the ids are the callers' own, remembered after their end: the same id twice is one job.
    """

    task: str
    jobs: list[tuple[JobId, bytes]]
    priority: int | None = None
    announce: bool | None = None
    delay_ms: int = 0
    keyed: bool = False


@dataclass(slots=True)
class Cancel:
    """Do not run it (any more). Answer: `Did(True)` if it will not run; False if it has ended, or runs on."""

    job: JobId


@dataclass(slots=True)
class Retry:
    """Run a dead letter again, with its tries counted from new."""

    job: JobId


@dataclass(slots=True)
class Discard:
    """Forget a dead letter."""

    job: JobId


@dataclass(slots=True)
class AwaitResult:
    """Answered by `Ended` when the job has ended."""

    job: JobId


@dataclass(slots=True)
class StopTask:
    """Stop the schedule of a periodic task, also while it runs."""

    task: str


@dataclass(slots=True)
class StartTask:
    """Start the schedule of a periodic task again: the next round is due one period from now."""

    task: str


@dataclass(slots=True)
class ListJobs:
    """The live jobs, or the dead letters; `task`: only of that one; `limit`: 0 for all."""

    task: str | None = None
    dead: bool = False
    limit: int = 0


@dataclass(slots=True)
class FindJob:
    """One job, also if it is a dead letter."""

    job: JobId


@dataclass(slots=True)
class CountJobs:
    """How many jobs are in each queue."""


@dataclass(slots=True)
class AskStats:
    """What has been done since the start."""


@dataclass(slots=True)
class AskStatus:
    """Who is here, who owns the delayed queue, how much is to do."""


@dataclass(slots=True)
class Leave:
    """Take nothing new, do what is ready, and answer `Left`: at the latest in `within_ms`."""

    within_ms: int


Call = (
    Enqueue
    | Cancel
    | Retry
    | Discard
    | AwaitResult
    | StopTask
    | StartTask
    | ListJobs
    | FindJob
    | CountJobs
    | AskStats
    | AskStatus
    | Leave
)

# --- answers ------------------------------------------------------------------------------------------------------


class Refusal(Enum):
    """Why a call was refused; `zhero.job.error_of` says which error each becomes."""

    UNKNOWN_TASK = "unknown_task"
    UNKNOWN_JOB = "unknown_job"
    ALREADY_QUEUED = "already_queued"
    QUEUE_FULL = "queue_full"
    TOO_LARGE = "too_large"
    PARAMS_INVALID = "params_invalid"
    NOT_PERIODIC = "not_periodic"
    LEAVING = "leaving"


@dataclass(slots=True)
class Refused:
    why: Refusal
    detail: str


@dataclass(slots=True)
class Accepted:
    """The jobs are held as promised."""

    jobs: list[JobId]


@dataclass(slots=True)
class Did:
    done: bool


@dataclass(slots=True)
class PartEnded:
    """What became of an "all" job at one member."""

    member: Member
    outcome: Outcome


@dataclass(slots=True)
class Ended:
    """How a job ended; of an "all" job, at each member (`parts` is None for scope "any")."""

    job: JobId
    outcome: Outcome
    parts: list[PartEnded] | None = None


@dataclass(slots=True)
class Listed:
    """Jobs; `total` counts also those that a limit left out."""

    jobs: list[JobInfo]
    total: int


@dataclass(slots=True)
class Counted:
    """Queue name -> jobs in it."""

    queues: dict[str, int]


@dataclass(slots=True)
class Stats:
    """Counters since the start of the node: `totals` name -> count; `tasks` task -> name -> count.

    Names: enqueued, started, succeeded, retried, dead, cancelled.
    """

    totals: dict[str, int]
    tasks: dict[str, dict[str, int]]


@dataclass(slots=True)
class PlanInfo:
    """The schedule of one periodic task.

    `due_in_ms`: None while a round runs, when it is stopped, or while no member has the task.
    """

    task: str
    frequency_ms: int
    number: int
    due_in_ms: int | None
    stopped: bool


@dataclass(slots=True)
class MemberStatus:
    """One member. `slots`: jobs it runs at once; `busy`: how many it holds now."""

    member: Member
    owner: bool
    slots: int
    busy: int
    tasks: list[str]


@dataclass(slots=True)
class ClusterStatus:
    """The cluster at one moment. `missing`: tasks that wait here and that no member has."""

    members: list[MemberStatus]
    queues: dict[str, int]
    dead: int
    plans: list[PlanInfo]
    missing: list[str]
    uptime_ms: int


@dataclass(slots=True)
class Left:
    """The node has nothing to do any more, or its time is up. `lost`: accepted jobs that will not run."""

    lost: int


Answer = Refused | Accepted | Did | Ended | Listed | Counted | Stats | ClusterStatus | Left

# --- between a client and a member --------------------------------------------------------------------------------


@dataclass(slots=True)
class Request:
    """A client's call; `ref` comes back in the response."""

    ref: int
    call: Call


@dataclass(slots=True)
class Response:
    """The answer to `ref`; `more`: another part of it follows."""

    ref: int
    answer: Answer
    more: bool = False


@dataclass(slots=True)
class GiveUp:
    """The client does not wait for the answer to `ref` any more. What was asked for goes on."""

    ref: int


@dataclass(slots=True)
class Hello:
    """The first thing a client says: who are you?"""


@dataclass(slots=True)
class Welcome:
    """The answer to `Hello`. `payload_max_bytes`: the largest params that this cluster takes."""

    member: Member
    payload_max_bytes: int


@dataclass(slots=True)
class Rejected:
    """A frame that this node can't talk to: of another cluster or version. The only answer to it."""

    why: str


Message = Request | Response | GiveUp | Hello | Welcome | Rejected


@dataclass(slots=True)
class Frame:
    """What one process says to another in one turn. `to`: None where the sender does not know it yet."""

    sender: Life
    to: Life | None
    messages: list[Message]
