"""Snapshots for people: jobs, members, schedules as they were at one moment, with texts and aware datetimes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from . import codec
from .core.messages import ClusterStatus
from .core.values import QUEUE_OF, JobInfo, Life, job_text
from .errors import ParamsInvalid


@dataclass(frozen=True, slots=True)
class JobView:
    """A job at one moment.

    Attributes:
        state: delayed, ready, lent, running, spread or dead.
        queue: global, local, delayed or processing; None for a dead letter and for an "all" job on its way.
        run_at: not before; None: as soon as possible.
        node: who runs it, or is to.
        parent: for the part of an "all" job, that job's id.
        number: for a periodic task, the round.
        error: of the last run, if it went wrong.
    """

    id: str
    name: str
    scope: str
    params: dict[str, Any]
    state: str
    queue: str | None
    priority: int
    attempt: int
    tries: int
    enqueued_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    node: str | None
    parent: str | None
    number: int
    error: str | None
    traceback: str | None

    @classmethod
    def of(cls, info: JobInfo, names: Mapping[Life, str] | None = None) -> JobView:
        """The view of what an engine tells. `names`: of members."""
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
            enqueued_at=_moment(info.enqueued_at_ms),
            run_at=_moment(info.run_at_ms) if info.run_at_ms else None,
            started_at=_moment(info.started_at_ms) if info.started_at_ms else None,
            node=_name(info.node, names),
            parent=job_text(info.parent) if info.parent else None,
            number=info.number,
            error=f"{failure.kind}: {failure.message}" if failure is not None else None,
            traceback=failure.traceback or None if failure is not None else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; params that JSON has no word for are shown as Python writes them."""
        return {name: plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member at one moment. `slots`: jobs it takes at once; `busy`: how many it has."""

    name: str
    node: str
    endpoint: str
    pid: int
    version: str
    owner: bool
    slots: int
    busy: int
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanView:
    """The schedule of a periodic task. `due_in`: seconds; None while a round runs, or when stopped."""

    task: str
    frequency: float
    number: int
    due_in: float | None
    stopped: bool


@dataclass(frozen=True, slots=True)
class StatusView:
    """The cluster at one moment. `missing`: tasks that jobs wait for and that no member has."""

    members: tuple[MemberView, ...]
    queues: dict[str, int]
    dead: int
    plans: tuple[PlanView, ...]
    missing: tuple[str, ...]
    uptime: float

    @classmethod
    def of(cls, status: ClusterStatus) -> StatusView:
        members = tuple(
            MemberView(
                it.member.name,
                it.member.life.node.hex(),
                it.member.endpoint,
                it.member.pid,
                it.member.version,
                it.owner,
                it.slots,
                it.busy,
                tuple(it.tasks),
            )
            for it in status.members
        )
        plans = tuple(
            PlanView(
                it.task,
                it.frequency_ms / 1000,
                it.number,
                None if it.due_in_ms is None else it.due_in_ms / 1000,
                it.stopped,
            )
            for it in status.plans
        )
        return cls(members, status.queues, status.dead, plans, tuple(status.missing), status.uptime_ms / 1000)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: plain(value) for name, value in asdict(self).items()}


def plain(value: Any) -> Any:
    """The value in types that JSON has."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]  # pyright: ignore
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _params(encoded: bytes) -> dict[str, Any]:
    try:
        return dict(codec.decode(encoded))
    except (ParamsInvalid, TypeError, ValueError):
        return {}


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _name(life: Life | None, names: Mapping[Life, str] | None) -> str | None:
    if life is None:
        return None
    return (names or {}).get(life) or life.node.hex()[:8]
