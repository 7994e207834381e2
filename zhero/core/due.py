"""The order in which delayed jobs become ready: the one due first first, then by id.

A heap of (due at, job). Removal is lazy: a place whose job has moved on is stale, and stays until it is met or
`prune`d. Whether a job waits for that instant only the slice knows. Bounds: the delayed jobs of the slice, and the
stale places that it suffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush

from .values import JobId

_Place = tuple[int, JobId]


class DueQueue:
    """Delayed jobs by the instant each waits for, in ms on the home's clock.

    Args:
        waits: whether a job is delayed until that instant.
    """

    __slots__ = ("_heap", "_waits")

    def __init__(self, waits: Callable[[int, JobId], bool]) -> None:
        self._waits = waits
        self._heap: list[_Place] = []

    def __len__(self) -> int:
        """Places in the heap, stale ones included."""
        return len(self._heap)

    def __iter__(self) -> Iterator[_Place]:
        return iter(self._heap)

    def push(self, due_at_ms: int, job: JobId) -> None:
        heappush(self._heap, (due_at_ms, job))

    def first_ms(self) -> int | None:
        """When the first job is due."""
        while self._heap:
            due_at_ms, job = self._heap[0]
            if self._waits(due_at_ms, job):
                return due_at_ms
            heappop(self._heap)
        return None

    def take(self, now_ms: int) -> list[JobId]:
        """Take out the jobs whose time has come, in order."""
        due: dict[JobId, None] = {}  # an id put, cancelled and put again may be here twice
        while self._heap and self._heap[0][0] <= now_ms:
            due_at_ms, job = heappop(self._heap)
            if self._waits(due_at_ms, job):
                due[job] = None
        return list(due)

    def prune(self) -> None:
        """Drop every stale place."""
        self._heap = [place for place in dict.fromkeys(self._heap) if self._waits(*place)]
        heapify(self._heap)
