"""A job as its home keeps it once it has been claimed, and a piece of a slice as it goes to another member.

A `Chunk` is what a copy begins with, what a taker-over brings into its own slice, and what moves when a home leaves or
yields. Queued jobs stay what they are, bytes: the number of a header (here in the chunk's own list), two instants and
the params. Instants are ms on the clock of the home that it comes from; `shifted` turns them into another's.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace

from .values import NO_JOB, NOTHING, Header, JobId, Life, Outcome, State, Status

HEAD = 16
"""Bytes before the params of a queued job: header number (4), enqueued at (6), due at (6; 0: was never delayed)."""


@dataclass(slots=True)
class Record:
    """A job that has been claimed at least once: its mutable state at the home.

    `attempt` counts starts (a fencing token grows with it), `tries` the ended ones that count against `retries`.
    `target`: the one member that may run it, for a part of an "all" job. `keyed`: of a dead letter, whether its id was
    the caller's own. `kills`: members that died while they ran it.
    """

    job: JobId
    header: Header
    params: bytes
    enqueued_at_ms: int
    state: State
    attempt: int = 0
    tries: int = 0
    executor: Life | None = None
    due_at_ms: int = 0
    started_at_ms: int = 0
    cancel_asked: bool = False
    parent: JobId = NO_JOB
    target: Life | None = None
    outcome: Outcome | None = None
    keyed: bool = False
    kills: int = 0


@dataclass(slots=True)
class Parts:
    """An "all" job on its way: part -> member still to end, and how the others did."""

    open: dict[JobId, Life]
    ended: dict[Life, Outcome]


@dataclass(slots=True)
class Plan:
    """The schedule of a periodic task. `due_at_ms`: of the next round, unless `running` or `stopped`.

    `number`: of the last round made; it only grows.
    """

    task: str
    frequency_ms: int
    fixed_rate: bool
    number: int
    due_at_ms: int
    running: JobId = NO_JOB
    stopped: bool = False

    @property
    def waits(self) -> bool:
        return not self.stopped and self.running == NO_JOB


@dataclass(slots=True)
class Remembered:
    """The outcome of a job that has ended. `parts`: of an "all" job."""

    job: JobId
    outcome: Outcome
    at_ms: int
    ttl_ms: int
    parts: list[tuple[Life, Outcome]] | None = None


@dataclass(slots=True)
class SpreadOut:
    """The parts of an "all" job on its way."""

    job: JobId
    open: list[tuple[JobId, Life]]
    ended: list[tuple[Life, Outcome]]


@dataclass(slots=True)
class Chunk:
    """A piece of a slice. `tombs`: ids of jobs that have ended, and when to forget that; `epoch`: of the slice."""

    headers: list[Header] = field(default_factory=list[Header])
    ready: list[tuple[JobId, bytes]] = field(default_factory=list[tuple[JobId, bytes]])
    delayed: list[tuple[JobId, bytes]] = field(default_factory=list[tuple[JobId, bytes]])
    records: list[Record] = field(default_factory=list[Record])
    dead: list[Record] = field(default_factory=list[Record])
    parts: list[SpreadOut] = field(default_factory=list[SpreadOut])
    plans: list[Plan] = field(default_factory=list[Plan])
    rounds: list[tuple[JobId, str, int]] = field(default_factory=list[tuple[JobId, str, int]])
    keyed: list[JobId] = field(default_factory=list[JobId])
    ended: list[Remembered] = field(default_factory=list[Remembered])
    ids: list[tuple[JobId, int]] = field(default_factory=list[tuple[JobId, int]])
    tombs: list[tuple[JobId, int]] = field(default_factory=list[tuple[JobId, int]])
    epoch: int = 0

    @property
    def jobs(self) -> list[JobId]:
        """The live ones."""
        return [job for job, _ in (*self.ready, *self.delayed)] + [record.job for record in self.records]

    def shifted(self, span_ms: int) -> Chunk:
        """The same with all instants that much later."""
        return replace(
            self,
            ready=[(job, _shift(held, span_ms)) for job, held in self.ready],
            delayed=[(job, _shift(held, span_ms)) for job, held in self.delayed],
            records=[_shift_record(record, span_ms) for record in self.records],
            dead=[_shift_record(record, span_ms) for record in self.dead],
            plans=[replace(plan, due_at_ms=max(1, plan.due_at_ms + span_ms)) for plan in self.plans],
            ended=[replace(it, at_ms=it.at_ms + span_ms) for it in self.ended],
            ids=[(job, at_ms + span_ms) for job, at_ms in self.ids],
            tombs=[(job, at_ms + span_ms) for job, at_ms in self.tombs],
        )

    def only(self, takes: Callable[[JobId], bool], plans: Container[str]) -> Chunk:
        """What is about jobs that `takes`, and the plans of tasks that are in `plans`."""
        return replace(
            self,
            ready=[it for it in self.ready if takes(it[0])],
            delayed=[it for it in self.delayed if takes(it[0])],
            records=[it for it in self.records if takes(it.job)],
            dead=[it for it in self.dead if takes(it.job)],
            parts=[it for it in self.parts if takes(it.job)],
            plans=[it for it in self.plans if it.task in plans],
            rounds=[it for it in self.rounds if takes(it[0])],
            keyed=[job for job in self.keyed if takes(job)],
            ended=[it for it in self.ended if takes(it.job)],
            ids=[it for it in self.ids if takes(it[0])],
        )


def _shift(held: bytes, span_ms: int) -> bytes:
    enqueued, due = int.from_bytes(held[4:10]), int.from_bytes(held[10:HEAD])
    due = max(1, due + span_ms) if due else 0
    return held[:4] + max(0, enqueued + span_ms).to_bytes(6) + due.to_bytes(6) + held[HEAD:]


def _shift_record(record: Record, span_ms: int) -> Record:
    due = record.due_at_ms
    return replace(
        record,
        enqueued_at_ms=max(0, record.enqueued_at_ms + span_ms),
        due_at_ms=max(1, due + span_ms) if due else 0,
        started_at_ms=0,
        state=State.LENT if record.state is State.RUNNING else record.state,
    )


def whole_of(parts: list[Outcome]) -> Outcome:
    """The outcome of an "all" job: good if every member that ran it did well."""
    ran = [part for part in parts if part.status is not Status.SKIPPED]
    if not ran:
        return Outcome(Status.SKIPPED)
    if all(part.status is Status.CANCELLED for part in ran):
        return Outcome(Status.CANCELLED)
    bad = next((part for part in ran if part.status is not Status.SUCCEEDED), None)
    return Outcome(Status.SUCCEEDED, NOTHING) if bad is None else Outcome(Status.FAILED, b"", bad.failure)
