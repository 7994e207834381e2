"""What is remembered of jobs that have ended: outcomes for those who ask late, and ids of the callers' own.

An outcome is kept for the `result_ttl` of its job, an id of the caller's own for `id_ttl`, so that the same id twice is
one job. Neither is a job any more: forgetting is no entry, each copy of a slice does it by its own clock.

Bounds: `results_max_count` outcomes and `ids_max_count` ids; beyond, the oldest makes room.
"""

from __future__ import annotations

from collections import deque

from ..config import Limits
from .values import JobId, Life, Outcome


class Memory:
    """Outcomes and ids, in the order in which they are to be forgotten."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._outcomes: dict[JobId, Outcome] = {}
        self._parts: dict[JobId, dict[Life, Outcome]] = {}  # of the "all" jobs in _outcomes
        self._lines: dict[int, deque[tuple[int, JobId]]] = {}  # ttl -> (forget at ms, job), in order
        self._ids: dict[JobId, None] = {}
        self._id_line: deque[tuple[int, JobId]] = deque()

    def __contains__(self, job: JobId) -> bool:
        return job in self._outcomes or job in self._ids

    def outcome(self, job: JobId) -> Outcome | None:
        return self._outcomes.get(job)

    def parts(self, job: JobId) -> dict[Life, Outcome] | None:
        """For an "all" job: member -> outcome there."""
        return self._parts.get(job)

    def keep(self, job: JobId, outcome: Outcome, parts: dict[Life, Outcome] | None, at_ms: int, ttl_ms: int) -> None:
        """Remember how a job ended at `at_ms`, for `ttl_ms`."""
        self._outcomes[job] = outcome
        if parts is not None:
            self._parts[job] = parts
        self._lines.setdefault(ttl_ms, deque()).append((at_ms + ttl_ms, job))
        if len(self._outcomes) > self._limits.results_max_count:
            longest = max(self._lines.values(), key=len)
            self.drop(longest.popleft()[1])

    def drop(self, job: JobId) -> None:
        """Forget how a job ended: its time is over, or it is live again."""
        self._outcomes.pop(job, None)
        self._parts.pop(job, None)

    def keep_id(self, job: JobId, at_ms: int) -> None:
        """Remember that a job with an id of the caller's own has been."""
        self._ids[job] = None
        self._id_line.append((at_ms + self._limits.id_ttl_ms, job))
        if len(self._ids) > self._limits.ids_max_count:
            self._ids.pop(self._id_line.popleft()[1], None)

    def forget(self, now_ms: int) -> None:
        """Drop all whose time is over."""
        for line in self._lines.values():
            while line and line[0][0] <= now_ms:
                self.drop(line.popleft()[1])
        while self._id_line and self._id_line[0][0] <= now_ms:
            self._ids.pop(self._id_line.popleft()[1], None)

    def deadline_ms(self) -> int | None:
        """When something is next to be forgotten."""
        heads = [line[0][0] for line in self._lines.values() if line]
        if self._id_line:
            heads.append(self._id_line[0][0])
        return min(heads, default=None)

    def __len__(self) -> int:
        return len(self._outcomes)
