"""How jobs ended, as callers see it: the exception of one that failed, and what became of an "all" job at each member.

An exception leaves its process only as text; here it becomes a `JobFailed`, with the traceback of the process that ran
the job, both as an attribute and in what Python prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from .codec import decode
from .core.messages import PartEnded
from .core.values import Outcome, Status
from .errors import JobCancelled, JobCrashed, JobDiscarded, JobFailed, JobLost, JobTimedOut

R_co = TypeVar("R_co", covariant=True)

_FAILURES: dict[Status, tuple[type[JobFailed], str]] = {
    Status.FAILED: (JobFailed, "failed"),
    Status.TIMED_OUT: (JobTimedOut, "ran longer than its timeout"),
    Status.CANCELLED: (JobCancelled, "was cancelled"),
    Status.DISCARDED: (JobDiscarded, "was discarded by its task"),
    Status.CRASHED: (JobCrashed, "ended with the child process that ran it"),
    Status.LOST: (
        JobLost,
        "is lost: its node died while it may have been running, and it may not begin twice "
        "(delivery='at_most_once'): look what it has done before you enqueue it again",
    ),
    Status.SKIPPED: (JobFailed, "was skipped: no member could run it"),
}


def failure_of(outcome: Outcome, job_id: str, task: str) -> JobFailed:
    """The exception for a job that ended without a result."""
    kind, what = _FAILURES[outcome.status]
    failure = outcome.failure
    if failure is None:
        return kind(f"{task} {what} (job {job_id})", job_id=job_id, kind=outcome.status.value)
    text = f"{failure.kind}: {failure.message}" if failure.message else failure.kind
    error = kind(f"{task} {what}: {text}", job_id=job_id, kind=failure.kind, remote_traceback=failure.traceback)
    if failure.traceback:
        error.add_note(f"where it ran:\n{failure.traceback}")
    return error


def _failure_at(member: str, outcome: Outcome, job_id: str, task: str) -> JobFailed:
    """The same for the part of one member, which no other can run."""
    if outcome.status is Status.LOST:
        return JobLost(f"{task} is lost at {member}, which was gone before it had ended (job {job_id})", job_id=job_id)
    return failure_of(outcome, job_id, task)


@dataclass(frozen=True, slots=True)
class MemberOutcome(Generic[R_co]):
    """What became of an "all" job at one member.

    Attributes:
        member: its name.
        status: "succeeded", "skipped" (it has no worker, or not the task), "failed", "timed_out", ...
        value: what the task returned there; None unless it succeeded.
        error: why it did not succeed, where it ran; else None.
    """

    member: str
    status: str
    value: R_co | None = None
    error: JobFailed | None = None


class Outcomes(Mapping[str, MemberOutcome[R_co]]):
    """What became of an "all" job: name of the member -> its outcome.

    Members of one name are told apart by the first digits of their ids: `web-1a2b3c4d`.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, MemberOutcome[R_co]]) -> None:
        self._members = dict(members)

    @classmethod
    def of(cls, parts: Sequence[PartEnded], job_id: str, task: str) -> Outcomes[Any]:
        """The outcomes that the core tells of."""
        named = Counter(part.member.name for part in parts)
        members: dict[str, MemberOutcome[Any]] = {}
        for part in parts:
            name, outcome = part.member.name, part.outcome
            if named[name] > 1:
                name = f"{name}-{part.member.life.node.hex()[:8]}"
            if outcome.status is Status.SUCCEEDED:
                members[name] = MemberOutcome(name, outcome.status.value, decode(outcome.result))
            else:
                error = None if outcome.status is Status.SKIPPED else _failure_at(name, outcome, job_id, task)
                members[name] = MemberOutcome(name, outcome.status.value, None, error)
        return Outcomes(members)

    def __getitem__(self, member: str) -> MemberOutcome[R_co]:
        return self._members[member]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"Outcomes({ {name: member.status for name, member in self._members.items()} })"

    @property
    def ok(self) -> bool:
        """Whether a member ran it, and none failed."""
        return not self.failed and len(self.skipped) < len(self)

    @property
    def skipped(self) -> list[str]:
        """Members that had no worker for it, or not the task."""
        return [name for name, member in self._members.items() if member.status == Status.SKIPPED.value]

    @property
    def failed(self) -> dict[str, JobFailed]:
        """Name -> error of each member that ran it without success."""
        return {name: member.error for name, member in self._members.items() if member.error is not None}

    def results(self) -> dict[str, R_co]:
        """Name -> what the task returned, of each member where it succeeded."""
        done = Status.SUCCEEDED.value
        return {name: cast("R_co", member.value) for name, member in self._members.items() if member.status == done}
