"""Snapshots for people: what the core tells about jobs, members and the cluster, in the words of the public face.

A view is frozen and says how things were at one moment; asking again makes a new one. Ids are texts, instants are
aware datetimes in UTC, params are decoded, and what is not (yet) so is None. `to_dict` is the same for JSON: instants
as ISO text, and whatever JSON has no form for (bytes, sets, a Decimal, a key that is no text) as its `repr`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from .codec import decode
from .core.messages import ClusterStatus, MemberStatus, PlanInfo, Stats
from .core.values import NO_JOB, QUEUE_OF, JobInfo, Life, Scope, Standing, job_text
from .errors import ParamsInvalid

QueueName = Literal["global", "local", "delayed", "processing"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HERE = (Standing.ALIVE, Standing.SUSPECT)
_LEVELS_MAX = 100
"""Levels of a value that `plain` shows; below stands "..."."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job at one moment.

    Attributes:
        id: 32 hexadecimal digits.
        name: of its task.
        scope: "any": one member runs it; "all": each does.
        params: as they were enqueued; empty if they can't be read here.
        state: where it is in its life ("ready", "running", "dead", ...).
        queue: the queue it is in; None if it is in none (a dead letter).
        priority: -100..100; higher runs first.
        attempt: number of its last start; 0: never started.
        tries: ended runs that count against `retries`.
        run_at: not before; None: as soon as possible.
        started_at: begin of its last run.
        node: name of the member that runs it or is to run it, else the first digits of its id.
        parent: id of the "all" job that this is one member's part of.
        number: the round, of a periodic task; else 0.
        status: how its last run ended, if one has: "failed", "timed_out", ...
        error: what went wrong in that run.
        traceback: where, in the process that ran it.
    """

    id: str
    name: str
    scope: Scope
    params: Mapping[str, Any]
    state: str
    queue: QueueName | None
    priority: int
    attempt: int
    tries: int
    enqueued_at: datetime | None
    run_at: datetime | None
    started_at: datetime | None
    node: str | None
    parent: str | None
    number: int
    status: str | None
    error: str | None
    traceback: str | None

    @classmethod
    def of(cls, info: JobInfo, names: Mapping[Life, str] | None = None) -> JobView:
        """The view of what the core tells. `names`: of the members, where they are known."""
        queue = QUEUE_OF.get(info.state)
        failure = info.outcome.failure if info.outcome is not None else None
        return cls(
            id=job_text(info.job),
            name=info.task,
            scope=info.scope,
            params=_params(info.params),
            state=info.state.value,
            queue=queue.value if queue is not None else None,
            priority=info.priority,
            attempt=info.attempt,
            tries=info.tries,
            enqueued_at=_instant(info.enqueued_at_ms),
            run_at=_instant(info.run_at_ms),
            started_at=_instant(info.started_at_ms),
            node=_name_of(info.node, names or {}) if info.node is not None else None,
            parent=job_text(info.parent) if info.parent != NO_JOB else None,
            number=info.number,
            status=info.outcome.status.value if info.outcome is not None else None,
            error=f"{failure.kind}: {failure.message}" if failure is not None else None,
            traceback=(failure.traceback or None) if failure is not None else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member at one moment.

    Attributes:
        id: of the node, 32 hexadecimal digits; another one after each start.
        owner: whether it holds the delayed queue.
        slots: jobs that it runs at once.
        busy: jobs that it holds now.
        tasks: names of those that it can run.
        standing: "alive", "suspect", "dead" or "left".
        joined: its join number; the member with the lowest is the oldest.
        lagging: alive, but its event loop is late.
        silent_ms: how long ago it was last heard.
        is_me: whether it is the node that was asked, where that is one in this process.
        degraded: jobs it is home of that have fewer copies than was asked for.
        answered: False: it was asked about itself and gave no answer, so what stands here is what others know.
    """

    id: str
    name: str
    endpoint: str
    pid: int
    version: str
    owner: bool
    slots: int
    busy: int
    tasks: tuple[str, ...]
    standing: str = "alive"
    joined: int = 1
    lagging: bool = False
    silent_ms: int = 0
    is_me: bool = False
    degraded: int = 0
    answered: bool = True

    @classmethod
    def of(cls, status: MemberStatus, me: Life | None = None, silent: Collection[str] = ()) -> MemberView:
        """The view of what the core tells. `me`: the node in this process; `silent`: names of who did not answer."""
        member = status.member
        return cls(
            id=member.life.node.hex(),
            name=member.name,
            endpoint=member.endpoint,
            pid=member.pid,
            version=member.version,
            owner=status.owner,
            slots=status.slots,
            busy=status.busy,
            tasks=tuple(status.tasks),
            standing=status.standing.value,
            joined=status.joined,
            lagging=status.lagging,
            silent_ms=status.silent_ms,
            is_me=member.life == me,
            degraded=status.degraded,
            answered=member.name not in silent,
        )

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class PlanView:
    """The schedule of a periodic task at one moment.

    Attributes:
        name: of the task.
        number: of the last round made.
        due_in_ms: until the next round; None while one runs, or when it is stopped.
    """

    name: str
    frequency_ms: int
    number: int
    due_in_ms: int | None
    stopped: bool

    @classmethod
    def of(cls, info: PlanInfo) -> PlanView:
        return cls(info.task, info.frequency_ms, info.number, info.due_in_ms, info.stopped)

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cluster at one moment.

    Attributes:
        queues: name -> jobs in it.
        dead: dead letters.
        plans: schedules of the periodic tasks.
        missing: tasks that jobs wait for and that no member has.
        degraded: jobs, of all members, that have fewer copies than was asked for.
        uptime_ms: of the node that was asked.
        silent: names of members that did not answer, so that what they hold is not counted.
    """

    members: tuple[MemberView, ...]
    queues: Mapping[QueueName, int]
    dead: int
    plans: tuple[PlanView, ...]
    missing: tuple[str, ...]
    uptime_ms: int
    degraded: int = 0
    silent: tuple[str, ...] = ()

    @classmethod
    def of(cls, status: ClusterStatus) -> ClusterView:
        return cls(
            members=tuple(MemberView.of(member, silent=status.silent) for member in status.members),
            queues=cast("dict[QueueName, int]", dict(status.queues)),
            dead=status.dead,
            plans=tuple(PlanView.of(plan) for plan in status.plans),
            missing=tuple(status.missing),
            uptime_ms=status.uptime_ms,
            degraded=sum(member.degraded for member in status.members if member.standing in _HERE),
            silent=tuple(status.silent),
        )

    @property
    def owner(self) -> MemberView | None:
        """The member that holds the delayed queue, any of them; None while it is not known who does."""
        return next((member for member in self.members if member.owner), None)

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return _fields(self)


@dataclass(frozen=True, slots=True)
class StatsView:
    """What has been done since the start: enqueued, started, succeeded, retried, dead, cancelled.

    Attributes:
        totals: name -> count, over all tasks.
        tasks: task -> name -> count.
        dropped: why -> how often somebody was turned away at the door ("denied: wrong secret"), or a frame dropped.
    """

    totals: Mapping[str, int]
    tasks: Mapping[str, Mapping[str, int]]
    dropped: Mapping[str, int]

    @classmethod
    def of(cls, stats: Stats) -> StatsView:
        return cls(
            dict(stats.totals), {task: dict(counts) for task, counts in stats.tasks.items()}, dict(stats.dropped)
        )

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return _fields(self)


View = JobView | MemberView | PlanView | ClusterView | StatsView


def plain(value: object, levels: int = _LEVELS_MAX) -> Any:
    """A value as JSON can hold it; parts that it can't are shown by their `repr`.

    Args:
        value: params, a result, a view.
        levels: how deep to go.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, View):
        return _fields(value)
    if isinstance(value, Mapping | list | tuple):
        if not levels:
            return "..."
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return {key if isinstance(key, str) else repr(key): plain(item, levels - 1) for key, item in items}
        return [plain(item, levels - 1) for item in cast("list[object] | tuple[object, ...]", value)]
    return repr(value)


def _fields(view: View) -> dict[str, Any]:
    return {field.name: plain(getattr(view, field.name)) for field in fields(view)}


def _params(data: bytes) -> dict[str, Any]:
    """A job must be seen also where its params can't be: one of another version may have made them."""
    try:
        params = decode(data)
    except ParamsInvalid:
        return {}
    return cast("dict[str, Any]", params) if isinstance(params, dict) else {}


def _instant(at_ms: int) -> datetime | None:
    return _EPOCH + timedelta(milliseconds=at_ms) if at_ms else None


def _name_of(life: Life, names: Mapping[Life, str]) -> str:
    return names.get(life) or life.node.hex()[:8]
