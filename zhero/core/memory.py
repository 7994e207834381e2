"""What is remembered of jobs that have ended: outcomes for those who ask late, and ids of the callers' own.

An outcome is kept for the `result_ttl` of its job, an id of the caller's own for `id_ttl`, so that the same id twice is
one job. Neither is a job any more: forgetting is no entry, each copy of a slice does it by its own clock.

A job can end twice: a dead letter that is tried again. The place in line of its first end is stale from then on, and
must not take the memory of the second with it: what leaves a line is forgotten only if it is what is kept.

Bounds: `results_max_count` outcomes and `ids_max_count` ids; beyond, the one that ended first makes room. Stale places
are taken out when there are more of them than of others.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator

from ..config import Limits
from .records import Chunk, Remembered
from .values import JobId, Life, Outcome

STALE_MAX = 1000
"""So many stale places are suffered however little is kept."""

TOMB_MS = 60_000
"""That a job has ended is known for at least so long, whatever its `result_ttl`: longer than a loop may be late."""

_Place = tuple[int, JobId, Outcome, int]
"""Forget at ms, job, outcome, for how long it is kept in ms."""


class Memory:
    """Outcomes and ids, in the order in which they are to be forgotten."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._outcomes: dict[JobId, _Place] = {}
        self._parts: dict[JobId, dict[Life, Outcome]] = {}  # of the "all" jobs in _outcomes
        self._lines: dict[int, deque[_Place]] = {}  # ttl -> places in the order of their ends; none empty
        self._ids: dict[JobId, int] = {}  # -> forget at ms
        self._id_line: deque[tuple[int, JobId]] = deque()
        self._tombs: dict[JobId, int] = {}  # -> forget at ms
        self._tomb_line: deque[tuple[int, JobId]] = deque()
        self._stale = 0

    def __contains__(self, job: JobId) -> bool:
        return job in self._outcomes or job in self._ids or job in self._tombs

    def __len__(self) -> int:
        """Outcomes that are kept."""
        return len(self._outcomes)

    def outcome(self, job: JobId) -> Outcome | None:
        place = self._outcomes.get(job)
        return None if place is None else place[2]

    def parts(self, job: JobId) -> dict[Life, Outcome] | None:
        """For an "all" job: member -> outcome there."""
        return self._parts.get(job)

    def keep(self, job: JobId, outcome: Outcome, parts: dict[Life, Outcome] | None, at_ms: int, ttl_ms: int) -> None:
        """Remember how a job ended at `at_ms`, for `ttl_ms`."""
        place = self._outcomes[job] = (at_ms + ttl_ms, job, outcome, ttl_ms)
        if parts is not None:
            self._parts[job] = parts
        self._lines.setdefault(ttl_ms, deque()).append(place)
        while len(self._outcomes) > self._limits.results_max_count:
            self._leave(min(self._lines, key=lambda ttl: self._lines[ttl][0][0] - ttl))

    def export(self) -> Iterator[Remembered]:
        """All outcomes, in no order that matters."""
        for line in self._lines.values():
            for place in line:
                if self._is_kept(place):
                    yield self._remembered(place)

    def _remembered(self, place: _Place) -> Remembered:
        forget_at_ms, job, outcome, ttl = place
        parts = self._parts.get(job)
        return Remembered(job, outcome, forget_at_ms - ttl, ttl, None if parts is None else list(parts.items()))

    def tell(self, job: JobId, to: Chunk) -> None:
        """Put all that is remembered of one job there."""
        place = self._outcomes.get(job)
        if place is not None:
            to.ended.append(self._remembered(place))
        if job in self._ids:
            to.ids.append((job, self._ids[job]))
        if job in self._tombs:
            to.tombs.append((job, self._tombs[job]))

    def export_ids(self) -> Iterator[tuple[JobId, int]]:
        """Ids of the callers' own, each with when it is to be forgotten."""
        yield from self._ids.items()

    def export_tombs(self) -> Iterator[tuple[JobId, int]]:
        """Others that have ended, each with when that is to be forgotten."""
        yield from self._tombs.items()

    def take_in(self, ended: list[Remembered], ids: list[tuple[JobId, int]], tombs: list[tuple[JobId, int]]) -> None:
        """They come from another slice; what is known here already stays as it is."""
        for job, forget_at_ms in tombs:
            if job not in self._tombs:
                self.entomb(job, forget_at_ms - TOMB_MS)
        for it in ended:
            if it.job not in self._outcomes:
                self.keep(it.job, it.outcome, None if it.parts is None else dict(it.parts), it.at_ms, it.ttl_ms)
        for job, forget_at_ms in ids:
            if job not in self._ids:
                self._ids[job] = forget_at_ms
                insort(self._id_line, (forget_at_ms, job))

    def drop(self, job: JobId) -> None:
        """Forget how a job ended: it is live again."""
        if self._outcomes.pop(job, None) is None:
            return
        self._parts.pop(job, None)
        self._stale += 1
        if self._stale > STALE_MAX + len(self._outcomes):
            self._stale = 0
            lines = {ttl: deque(filter(self._is_kept, line)) for ttl, line in self._lines.items()}
            self._lines = {ttl: line for ttl, line in lines.items() if line}

    def entomb(self, job: JobId, at_ms: int) -> None:
        """A job whose outcome is not kept for long has ended: that it was is known for a while all the same.

        So a request that is repeated, or a home that was away, does not make it run again.
        """
        forget_at_ms = self._tombs[job] = at_ms + TOMB_MS
        self._tomb_line.append((forget_at_ms, job))
        while len(self._tomb_line) > self._limits.ids_max_count:
            self._leave_tombs()

    def _leave_tombs(self) -> None:
        forget_at_ms, job = self._tomb_line.popleft()
        if self._tombs.get(job) == forget_at_ms:
            del self._tombs[job]

    def keep_id(self, job: JobId, at_ms: int) -> None:
        """Remember that a job with an id of the caller's own has been; from its last end on."""
        forget_at_ms = self._ids[job] = at_ms + self._limits.id_ttl_ms
        self._id_line.append((forget_at_ms, job))
        while len(self._ids) > self._limits.ids_max_count or len(self._id_line) > 2 * self._limits.ids_max_count:
            self._leave_ids()

    def forget(self, now_ms: int) -> None:
        """Drop all whose time is over."""
        for ttl in list(self._lines):
            while ttl in self._lines and self._lines[ttl][0][0] <= now_ms:
                self._leave(ttl)
        while self._id_line and self._id_line[0][0] <= now_ms:
            self._leave_ids()
        while self._tomb_line and self._tomb_line[0][0] <= now_ms:
            self._leave_tombs()

    def _leave(self, ttl: int) -> None:
        """The first in that line leaves it."""
        line = self._lines[ttl]
        place = line.popleft()
        if not line:
            del self._lines[ttl]
        if self._is_kept(place):
            del self._outcomes[place[1]]
            self._parts.pop(place[1], None)

    def _leave_ids(self) -> None:
        forget_at_ms, job = self._id_line.popleft()
        if self._ids.get(job) == forget_at_ms:
            del self._ids[job]

    def _is_kept(self, place: _Place) -> bool:
        return self._outcomes.get(place[1]) is place

    def deadline_ms(self) -> int | None:
        """When something is next to be forgotten."""
        heads = [line[0][0] for line in self._lines.values()]
        if self._id_line:
            heads.append(self._id_line[0][0])
        if self._tomb_line:
            heads.append(self._tomb_line[0][0])
        return min(heads, default=None)
