"""What happens, as it happens: the facts of the core, in the words of the public face.

An event is frozen and typed; the class says what it happened to, `kind` what happened. Whoever asks for events has a
buffer of its own. One that is not read fast enough loses the oldest, and is told how many (`EventsDropped`): a slow
reader costs nobody but itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal, Self

from .core import facts
from .core.values import Failure, JobId, Member, job_text

BUFFER_MAX_COUNT = 10_000

MemberEventKind = Literal["joined", "suspected", "refuted", "died", "left", "lagging", "recovered", "owner_changed"]
JobEventKind = Literal[
    "queued",
    "started",
    "retried",
    "snoozed",
    "succeeded",
    "failed",
    "timed_out",
    "crashed",
    "discarded",
    "cancelled",
    "lost",
    "skipped",
]
TaskEventKind = Literal["scheduled", "unscheduled", "missing"]
NodeEventKind = Literal[
    "joined",
    "paused",
    "confirmed",
    "reborn",
    "identity_taken",
    "took_over",
    "degraded",
    "recovered",
    "disk_full",
    "disk_has_room",
    "disk_failed",
]


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """Something about another member; only the owner may be this node itself.

    Attributes:
        kind: "refuted": it was suspected, and is well; "lagging": its event loop is late; "recovered": no more;
            "owner_changed": it holds the delayed queue now.
        id: of the node, 32 hexadecimal digits; another one after each start.
        detail: of a death, how it was found out: "refused", "silent", "told" or "replaced".
    """

    kind: MemberEventKind
    name: str
    id: str
    endpoint: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something about a job of this node.

    Attributes:
        kind: of an end, how it ended; "retried" and "snoozed": it will run again.
        id: 32 hexadecimal digits.
        name: of its task.
        attempt: number of the run; 0: none yet.
        ran_ms: of an end: how long the last run took.
        error: what went wrong.
    """

    kind: JobEventKind
    id: str
    name: str
    attempt: int = 0
    ran_ms: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something about a task: it has a schedule, none any more, or jobs wait for it and no member has it."""

    kind: TaskEventKind
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something about this node itself.

    Attributes:
        kind: "joined": it is a member now; "paused": it did not run for a while; "confirmed": that is over; "reborn":
            others had given it up; "identity_taken": another process lives under its id, so it stops; "took_over": it
            answers now for the jobs of a member that is gone; "degraded": jobs have fewer copies than was asked for;
            "recovered": its journal had jobs of before; "disk_full": its journal can't write, so nothing new is taken;
            "disk_has_room": it can again; "disk_failed": it never will, so this node stops.
        jobs: taken over, or degraded; 0 degraded: all have their copies again.
    """

    kind: NodeEventKind
    detail: str = ""
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class EventsDropped:
    """Here, `count` events are missing: they were not read in time."""

    count: int


Event = MemberEvent | JobEvent | TaskEvent | NodeEvent | EventsDropped


class Events:
    """Events as they come, from the moment this was made: `async for event in events`. Ends when the node stops.

    To be read by one reader, on whatever loop.

    Args:
        buffer: so many unread ones are kept.
    """

    def __init__(self, buffer: int = BUFFER_MAX_COUNT) -> None:
        if buffer < 1:
            raise ValueError("buffer must be 1 or more")
        self._unread: deque[Event] = deque(maxlen=buffer)
        self._dropped = 0
        self._lock = threading.Lock()  # the reader may be in another thread than the node
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None

    def push(self, event: Event) -> None:
        """One has happened; on the node's loop."""
        with self._lock:
            if len(self._unread) == self._unread.maxlen:
                self._dropped += 1
            self._unread.append(event)
        self._ring()

    def end(self) -> None:
        """There will be no more; what is unread can still be read."""
        self._ended = True
        self._ring()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._news is None:
            self._news, self._loop = asyncio.Event(), asyncio.get_running_loop()
        while True:
            self._news.clear()  # before the look, so that what comes after it is not missed
            with self._lock:
                if self._dropped:
                    count, self._dropped = self._dropped, 0
                    return EventsDropped(count)
                if self._unread:
                    return self._unread.popleft()
            if self._ended:
                raise StopAsyncIteration
            await self._news.wait()

    def _ring(self) -> None:
        if self._loop is not None and self._news is not None:
            try:
                self._loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:  # the reader's loop is closed
                pass


def event_of(fact: facts.Fact) -> Event | None:
    """The event that a fact is; None: it is of no use to anybody but the log."""
    match fact:
        case facts.JobQueued(job, task, _, _):
            return _of_job("queued", job, task)
        case facts.JobStarted(job, task, _, attempt):
            return _of_job("started", job, task, attempt)
        case facts.JobRetried(job, task, _, attempt, _, snoozed, failure):
            return _of_job("snoozed" if snoozed else "retried", job, task, attempt, failure=failure)
        case facts.JobEnded(job, task, _, attempt, status, ran_ms, failure):
            return _of_job(status.value, job, task, attempt, ran_ms, failure)
        case facts.TaskScheduled(task, run_in_ms):
            return TaskEvent("scheduled", task, f"next in {run_in_ms} ms")
        case facts.TaskUnscheduled(task, why):
            return TaskEvent("unscheduled", task, why)
        case facts.TaskMissing(task, waiting):
            return TaskEvent("missing", task, f"{waiting} jobs wait")
        case facts.DeadLetterDropped() | facts.VerdictIgnored() | facts.PeerMisbehaved():
            return None
        case _:
            return _of_members(fact)


def _of_members(fact: facts.Fact) -> Event | None:
    match fact:
        case facts.PeerJoined(member, joined):
            return _of_member("joined", member, f"number {joined}")
        case facts.PeerSuspected(member, dead_in_ms):
            return _of_member("suspected", member, f"dead in {dead_in_ms} ms")
        case facts.PeerRefuted(member):
            return _of_member("refuted", member)
        case facts.PeerDied(member, how):
            return _of_member("died", member, how.value)
        case facts.PeerLeft(member):
            return _of_member("left", member)
        case facts.PeerLagging(member, age_ms, lagging):
            return _of_member("lagging" if lagging else "recovered", member, f"{age_ms} ms" if lagging else "")
        case facts.Joined(joined, others):
            return NodeEvent("joined", f"number {joined}, {others} others")
        case facts.Paused(span_ms):
            return NodeEvent("paused", f"{span_ms} ms")
        case facts.Confirmed():
            return NodeEvent("confirmed")
        case facts.Reborn(life):
            return NodeEvent("reborn", f"life {life.life}")
        case facts.IdentityTaken(other):
            return NodeEvent("identity_taken", f"{other.name} at {other.endpoint}")
        case facts.OwnerChanged(owner, epoch, mine):
            return _of_member("owner_changed", owner, f"epoch {epoch}{', this node' if mine else ''}")
        case facts.TookOver(name, jobs):
            return NodeEvent("took_over", name, jobs)
        case facts.Degraded(jobs):
            return NodeEvent("degraded", jobs=jobs)
        case facts.Recovered(jobs):
            return NodeEvent("recovered", jobs=jobs)
        case facts.DiskFull(is_over):
            return NodeEvent("disk_has_room" if is_over else "disk_full")
        case facts.DiskFailed(why):
            return NodeEvent("disk_failed", why)
        case _:
            return None


def _of_job(
    kind: JobEventKind, job: JobId, task: str, attempt: int = 0, ran_ms: int = 0, failure: Failure | None = None
) -> JobEvent:
    error = f"{failure.kind}: {failure.message}" if failure is not None else None
    return JobEvent(kind, job_text(job), task, attempt, ran_ms, error)


def _of_member(kind: MemberEventKind, member: Member, detail: str = "") -> MemberEvent:
    return MemberEvent(kind, member.name, member.life.node.hex(), member.endpoint, detail)
