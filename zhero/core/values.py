"""Values that the protocol speaks of: ids, lives, headers, outcomes. All immutable.

A job is named by a 128-bit integer. Whoever enqueues makes it: 64 random bits drawn once per process and a counter
(reference: 0.14 us against 1.7 us for a uuid4, and ids of one process grow). Ids that several nodes must make alike
are hashes: the round of a periodic task (`round_id`), an id of the caller's own (`keyed_id`), the part of a job of
scope "all" for one member (`part_id`).

What jobs enqueued alike have in common is one shared `Header`, so that a queued job is its params and ten bytes more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Literal, NamedTuple, NewType

JobId = NewType("JobId", int)
"""128 bits."""
NodeId = NewType("NodeId", bytes)
"""16 random bytes."""

Scope = Literal["any", "all"]

NO_JOB = JobId(0)


class Life(NamedTuple):
    """One life of one process: what a peer is always called by.

    node: whose; boot: which start of it (ms since the epoch, grows); life: its return after having been given up.
    """

    node: NodeId
    boot: int
    life: int


@dataclass(frozen=True, slots=True)
class Member:
    """A process that takes part, as the others see it.

    Attributes:
        endpoint: of its inbox, where others dial it.
        beats: endpoint of what it publishes; empty for one that nobody can join.
        advertised: the endpoints were given by a person (a proxy, a container's host), so a connect that is refused
            there shows nothing.
        key: names the secret with which it listens, of several that its cluster may have; empty: none.
    """

    life: Life
    name: str
    endpoint: str
    pid: int
    version: str
    beats: str = ""
    advertised: bool = False
    key: str = ""


class Standing(Enum):
    """What is believed of a member. DEAD and LEFT are final for a life."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Rumour:
    """What one member says of another, or of itself.

    Attributes:
        count: how often the member has refuted; only it may raise this, and it cancels nothing but a suspicion.
        joined: its join number, from 1; 0: it has not joined yet. The lowest is the oldest.
    """

    member: Member
    standing: Standing
    count: int
    joined: int


class StreamId(NamedTuple):
    """One stream of entries under one home: what is fenced as a whole.

    name: "own", the slice of that member, or "delayed", the one that is elected; epoch: of the delayed slice, higher
    with each owner; of others always 1.
    """

    name: str
    home: Life
    epoch: int


class IdSource:
    """Makes job ids: a random origin in the upper 64 bits, a counter below.

    Cost: one addition an id.
    """

    __slots__ = ("_next",)

    def __init__(self, origin: int) -> None:
        self._next = (origin & 0xFFFF_FFFF_FFFF_FFFF) << 64 | 1

    def take(self) -> JobId:
        made = self._next
        self._next += 1
        return JobId(made)


def job_text(job: JobId) -> str:
    """The id as people see it: 32 hexadecimal digits."""
    return f"{job:032x}"


def job_from_text(text: str) -> JobId | None:
    """The id behind `job_text`, or None if the text is none."""
    if len(text) != 32 or any(c not in "0123456789abcdef" for c in text):
        return None
    return JobId(int(text, 16))


def _digest(kind: bytes, *parts: bytes) -> JobId:
    hashed = blake2b(kind, digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(4))
        hashed.update(part)
    return JobId(int.from_bytes(hashed.digest()))


def round_id(task: str, number: int) -> JobId:
    """The job of round `number` of a periodic task: the same on every node that makes it."""
    return _digest(b"round", task.encode(), number.to_bytes(8))


def keyed_id(task: str, key: str) -> JobId:
    """The job a caller names itself (`options(id=...)`), one name space per task."""
    return _digest(b"keyed", task.encode(), key.encode())


def part_id(parent: JobId, node: NodeId) -> JobId:
    """The part of an "all" job that one member runs."""
    return _digest(b"part", parent.to_bytes(16), node)


def after(now_ms: int, span_ms: int) -> int:
    """The instant that is surely `span_ms` after this one: a clock is read rounded down, so it takes one ms more."""
    return now_ms + span_ms + 1


def span_until(now_ms: int, at_ms: int) -> int:
    """How far away an instant made by `after` is: the span, without the ms that was added."""
    return max(0, at_ms - now_ms - 1)


@dataclass(frozen=True, slots=True)
class Header:
    """What jobs enqueued alike have in common.

    Attributes:
        task: name of the definition.
        scope: "any": one member runs it; "all": each does.
        priority: -100..100; higher is claimed first.
        announce: whether start and end are logged; errors always are.
        result_ttl_ms: how long the outcome can be asked for after the end.
        backups: copies that have to exist before it is accepted; None: as many as the node has by default.
        once: at most once: a run that may have begun is never begun again.
    """

    task: str
    scope: Scope = "any"
    priority: int = 0
    announce: bool = True
    result_ttl_ms: int = 60_000
    backups: int | None = None
    once: bool = False


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What members tell one another about a task. Spans in ms.

    Attributes:
        frequency_ms: 0: never by itself; else the period.
        fixed_rate: periods count from due to due, not from end to due.
        run_on_start: the first round is due at once, not after one period.
        reenqueue_on_error: a periodic task goes on after a round that failed.
    """

    name: str
    scope: Scope = "any"
    frequency_ms: int = 0
    fixed_rate: bool = False
    run_on_start: bool = False
    announce: bool = True
    priority: int = 0
    result_ttl_ms: int = 60_000
    reenqueue_on_error: bool = True
    backups: int | None = None
    once: bool = False


class Status(Enum):
    """How a run, or a whole job, ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    LOST = "lost"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as text: the only form in which it leaves its process."""

    kind: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `result` is encoded (present only if it succeeded)."""

    status: Status
    result: bytes = b""
    failure: Failure | None = None


NOTHING = b"\xc0"
"""None, encoded."""
NO_PARAMS = b"\x80"
"""No params, encoded."""
SUCCEEDED = Outcome(Status.SUCCEEDED, NOTHING)
"""The outcome of every run that returns nothing: shared, so that it costs no object."""


class Verdict(Enum):
    """What the executor says is to become of a job; a home needs no definition to act on it."""

    DONE = "done"
    RETRY = "retry"
    SNOOZE = "snooze"
    DEAD = "dead"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Run:
    """One start of a job, as an executor receives it.

    Attributes:
        attempt: number of this start, from 1; grows with each, so (epoch, attempt) is a fencing token.
        tries: how many starts count against `retries`, this one included.
        number: the round, for a periodic task; else 0.
    """

    job: JobId
    header: Header
    params: bytes
    attempt: int
    tries: int
    epoch: int
    enqueued_at_ms: int
    number: int = 0


@dataclass(slots=True)
class Finished:
    """What an executor reports of a run. `delay_ms`: the wait of a RETRY or SNOOZE."""

    job: JobId
    attempt: int
    verdict: Verdict
    outcome: Outcome
    delay_ms: int = 0


class State(Enum):
    """Where a job is in its life; the steps between them are the table of `steps.py`."""

    DELAYED = "delayed"
    READY = "ready"
    LENT = "lent"
    RUNNING = "running"
    SPREAD = "spread"
    DEAD = "dead"
    ABSENT = "absent"

    __hash__ = object.__hash__  # a member is one object; Enum's own is no C function, and felt with every job


class Queue(Enum):
    """The queues as people see them."""

    GLOBAL = "global"
    LOCAL = "local"
    DELAYED = "delayed"
    PROCESSING = "processing"


QUEUE_OF: dict[State, Queue] = {
    State.READY: Queue.GLOBAL,
    State.LENT: Queue.LOCAL,
    State.DELAYED: Queue.DELAYED,
    State.RUNNING: Queue.PROCESSING,
}


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as it is at one moment, for people. Instants in ms on the home's clock; 0: not yet.

    Attributes:
        node: the member that runs it, or is to run it.
        parent: for a part of an "all" job, that job; else 0.
        number: for a periodic task, the round; else 0.
        outcome: of the last run that ended: the failure a retry waits for, or that of a dead letter.
    """

    job: JobId
    task: str
    scope: Scope
    state: State
    priority: int
    params: bytes
    attempt: int
    tries: int
    enqueued_at_ms: int
    run_at_ms: int
    started_at_ms: int
    home: Life
    node: Life | None
    parent: JobId
    number: int
    outcome: Outcome | None
