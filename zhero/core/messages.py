"""What is said between processes, and what a caller asks of an engine.

A *call* asks for something; an *answer* is what comes back. Calls of the own process reach `Engine.call` as they
are; those of a client, which is no member, travel in a `Request` and are answered by `Response`s. A long list is
answered in several responses, all but the last marked `more`.

Members speak in two ways. What is repeated or outdated anyway (beats, probes, rumours) stands in `Frame.messages`,
may get lost, and costs nothing then. What has to arrive, once and in order, stands in `Frame.numbered` (`link.py`).

Dispatch is by type. Messages are never mutated once built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .entries import Entry
from .records import Chunk
from .values import Finished, JobId, JobInfo, Life, Member, Outcome, Rumour, Run, Standing, StreamId, TaskSpec

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
    DISK_FULL = "disk_full"
    NOT_HOME = "not_home"
    """Between members: somebody else answers that, or will in a moment."""
    NOT_ACCEPTED = "not_accepted"
    """The copies that were promised do not exist yet, but still may: the job is held, and may run."""


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
    """Jobs; `total` counts also those that a limit left out; `silent`: members that did not answer, by name."""

    jobs: list[JobInfo]
    total: int
    silent: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Counted:
    """Queue name -> jobs in it. `silent`: members that did not answer, by name."""

    queues: dict[str, int]
    silent: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Stats:
    """Counters since the start of the node: `totals` name -> count; `tasks` task -> name -> count.

    Names: enqueued, started, succeeded, retried, dead, cancelled. `silent`: members that did not answer, by name.
    `dropped`: why -> how often somebody was turned away, or a frame dropped.
    """

    totals: dict[str, int]
    tasks: dict[str, dict[str, int]]
    silent: list[str] = field(default_factory=list[str])
    dropped: dict[str, int] = field(default_factory=dict[str, int])


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
    """One member. `slots`: jobs it runs at once; `busy`: how many it holds now; `joined`: its join number.

    `silent_ms`: how long ago it was last heard; `lagging`: alive, but its loop is late; `mine`: of the speaker itself;
    `degraded`: jobs it is home of that have fewer copies than was asked for.
    """

    member: Member
    owner: bool
    slots: int
    busy: int
    tasks: list[str]
    standing: Standing = Standing.ALIVE
    joined: int = 1
    lagging: bool = False
    silent_ms: int = 0
    mine: bool = False
    degraded: int = 0


@dataclass(slots=True)
class ClusterStatus:
    """The cluster at one moment. `missing`: tasks that wait and that no member has; `silent`: who did not answer."""

    members: list[MemberStatus]
    queues: dict[str, int]
    dead: int
    plans: list[PlanInfo]
    missing: list[str]
    uptime_ms: int
    silent: list[str] = field(default_factory=list[str])


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
    """The answer to `Hello`.

    `payload_max_bytes`: the largest params that this cluster takes; `now_ms`: the clock of the node; 0: it says nothing
    of it.
    """

    member: Member
    payload_max_bytes: int
    now_ms: int = 0


@dataclass(slots=True)
class Rejected:
    """A frame that this node can't talk to: of another cluster or version. The only answer to it."""

    why: str


# --- between members ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Beat:
    """What a member publishes twice a second, also while its loop is blocked.

    Attributes:
        number: from 1, one more each time.
        joined: its join number; 0: not yet.
        view: hash of whom it believes to be here.
        tasks: hash of its task table.
        slots, held: jobs it wants to hold, and does.
        age_ms: how long ago its loop last turned.
        paused: its listener takes no connections at the moment, so a refused connect shows nothing.
        at_ms: its clock when this was made, or a little earlier; 0: not said.
    """

    number: int
    joined: int
    view: int
    tasks: int
    slots: int
    held: int
    age_ms: int
    paused: bool = False
    at_ms: int = 0


@dataclass(slots=True)
class Ping:
    """Are you there, and do you know me? Answered by a `Pong` if so."""

    ref: int


@dataclass(slots=True)
class Pong:
    ref: int


@dataclass(slots=True)
class PingFor:
    """Is that one there? Asked of another member by one that does not hear it."""

    ref: int
    target: Life


@dataclass(slots=True)
class PongFor:
    """`heard`: it was heard just now; False: not by me either."""

    ref: int
    target: Life
    heard: bool


@dataclass(slots=True)
class ProbeFor:
    """Does the host of that one refuse connections to it? Asked by a member that was refused."""

    ref: int
    target: Life


@dataclass(slots=True)
class ProbedFor:
    """`refused`: the connect was refused, and nothing was heard of it since the question."""

    ref: int
    target: Life
    refused: bool


@dataclass(slots=True)
class Rumours:
    """News of members."""

    told: list[Rumour]


@dataclass(slots=True)
class Sync:
    """All that the sender believes of members, itself first. `wanted`: the same is wanted back."""

    told: list[Rumour]
    wanted: bool


@dataclass(slots=True)
class IdentityInUse:
    """The process that wants to join has the identity of one that is alive: this one."""

    member: Member


@dataclass(slots=True)
class AskTasks:
    """Send me your task table."""


@dataclass(slots=True)
class Tasks:
    """The task table of the sender."""

    specs: list[TaskSpec]


@dataclass(slots=True)
class Ask:
    """A question that is put to every member; `ref` comes back in each `Answered`."""

    ref: int
    call: Call


@dataclass(slots=True)
class Answered:
    """What this member says to `ref`; `more`: another part of it follows."""

    ref: int
    answer: Answer
    more: bool = False


# --- copies -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Follow:
    """Keep a copy of this stream: `Copied` pieces follow, then its entries from `number + 1` on.

    `at_ms`: the clock of its home.
    """

    stream: StreamId
    number: int
    at_ms: int = 0


@dataclass(slots=True)
class Copied:
    """A piece of the slice; `last`: it is whole now."""

    stream: StreamId
    chunk: Chunk
    last: bool


@dataclass(slots=True)
class Entries:
    """The next entries of a stream that is followed; `first`: number of the first one."""

    stream: StreamId
    first: int
    entries: list[Entry]


@dataclass(slots=True)
class Received:
    """All entries up to `number` are in the copy; -1: there is none any more."""

    stream: StreamId
    number: int


@dataclass(slots=True)
class Followers:
    """Who has a whole copy of the stream: with whom to agree when its home dies."""

    stream: StreamId
    followers: list[Life]


@dataclass(slots=True)
class Unfollow:
    """The copy is needed no more."""

    stream: StreamId


@dataclass(slots=True)
class Have:
    """The home of that stream is dead, and the sender's copy reaches to `number`."""

    stream: StreamId
    number: int


# --- loans --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Grant:
    """Run these; `more`: there is more where they come from."""

    stream: StreamId
    runs: list[Run]
    more: bool


@dataclass(slots=True)
class Began:
    """These have been started: for people."""

    stream: StreamId
    jobs: list[JobId]


@dataclass(slots=True)
class Reported:
    """How runs ended, kept until they are `Settled`; `window`: the sender may be lent so many at once by this home.

    `GiveBack` says the same of the window. None: as many as it has slots.
    """

    stream: StreamId
    reports: list[Finished]
    window: int | None


@dataclass(slots=True)
class GiveBack:
    """These were not started: there is no slot for them, or the task is gone."""

    stream: StreamId
    jobs: list[JobId]
    window: int | None


@dataclass(slots=True)
class Settled:
    """The home and its backups know how these ended."""

    stream: StreamId
    jobs: list[JobId]


@dataclass(slots=True)
class Recall:
    """Stop these, or do not begin them: they are cancelled, or somebody else's."""

    stream: StreamId
    jobs: list[JobId]


@dataclass(slots=True)
class CannotStop:
    """That one runs on."""

    stream: StreamId
    job: JobId


@dataclass(slots=True)
class Hungry:
    """The sender has room: this home may lend it `window` jobs at once, of either slice. None: as many as slots."""

    window: int | None


@dataclass(slots=True)
class Sated:
    """There is nothing to lend to the receiver now: its room is somebody else's."""


@dataclass(slots=True)
class Waiting:
    """There are ready jobs here that nobody has room for."""


@dataclass(slots=True)
class CheckLoans:
    """Are these still held? Asked where nothing was heard of them for long."""

    stream: StreamId
    jobs: list[JobId]


@dataclass(slots=True)
class NotHeld:
    """These are not."""

    stream: StreamId
    jobs: list[JobId]


# --- changing homes -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class AskHeld:
    """What is held of that stream, and has it another home? Its old home is dead, has come back, or does not turn."""

    ref: int
    stream: StreamId


@dataclass(slots=True)
class Loaned:
    """A job held for another home; `report`: how its run has ended."""

    run: Run
    started: bool
    report: Finished | None = None


@dataclass(slots=True)
class Held:
    """The answer to `AskHeld`; `into`: the stream that took it over; `more`: another part of the answer follows."""

    ref: int
    loans: list[Loaned]
    into: StreamId | None
    more: bool


@dataclass(slots=True)
class Took:
    """What was in one stream is in the other now, and so are its loans."""

    stream: StreamId
    into: StreamId


@dataclass(slots=True)
class Offer:
    """A piece of a slice that is to have another home; with the `last` one it is whole. `at_ms`: the sender's clock."""

    stream: StreamId
    chunk: Chunk
    last: bool
    at_ms: int = 0


@dataclass(slots=True)
class OfferTaken:
    """Copies of all that was offered exist under its new home."""

    stream: StreamId
    into: StreamId


@dataclass(slots=True)
class OfferRefused:
    """The receiver can't take it: it leaves itself, or does not own the delayed queue."""

    stream: StreamId


@dataclass(slots=True)
class Owns:
    """The delayed queue is that stream now."""

    stream: StreamId


Message = (
    Request
    | Response
    | GiveUp
    | Hello
    | Welcome
    | Rejected
    | Beat
    | Ping
    | Pong
    | PingFor
    | PongFor
    | ProbeFor
    | ProbedFor
    | Rumours
    | Sync
    | AskTasks
    | Tasks
    | Ask
    | Answered
    | IdentityInUse
    | Follow
    | Copied
    | Entries
    | Received
    | Followers
    | Unfollow
    | Have
    | Grant
    | Began
    | Reported
    | GiveBack
    | Settled
    | Recall
    | CannotStop
    | Hungry
    | Sated
    | Waiting
    | CheckLoans
    | NotHeld
    | AskHeld
    | Held
    | Took
    | Offer
    | OfferTaken
    | OfferRefused
    | Owns
)


@dataclass(slots=True)
class Frame:
    """What one process says to another in one turn.

    Attributes:
        to: None where the sender does not know it yet, or speaks to all.
        messages: may get lost.
        numbered: arrive once and in order, over this frame or a later one; only between members.
        first: number of the first of `numbered`; 0: there is none.
        ack: all numbered messages up to this one, the other way, have arrived; 0: none has.
    """

    sender: Life
    to: Life | None
    messages: list[Message]
    numbered: list[Message] = field(default_factory=list["Message"])
    first: int = 0
    ack: int = 0


def about_bytes(answer: Answer) -> int:
    """About how many bytes it takes on the wire."""
    if isinstance(answer, Listed):
        return sum(map(about_bytes_of, answer.jobs)) + 64
    if isinstance(answer, Stats):
        return 100 * len(answer.tasks) + 200
    if isinstance(answer, Ended):
        return len(answer.outcome.result) + 500
    return 1_000


def about_bytes_of(info: JobInfo) -> int:
    """About how many bytes it takes on the wire."""
    failure = info.outcome.failure if info.outcome is not None else None
    told = 0 if failure is None else len(failure.message) + len(failure.traceback)
    return len(info.params) + told + 512
