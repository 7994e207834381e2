"""The order in which ready jobs are claimed.

Higher priority first; within a priority the tasks take turns, and within a task it is first in, first out. So a flood
of one task does not hold up another, and jobs of a task that nobody can run hold up nothing. Every 16th claim serves
the lowest priority that waits, so nothing starves.

Removal is lazy: an id whose job is no longer ready stays until it is met or `prune`d. State: priority -> task -> ids.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Container, Iterable

from .values import JobId

LOWEST_EVERY = 16
"""One claim in so many goes to the lowest priority that waits."""


class ReadyQueue:
    """Ids of ready jobs in the order of their claims. Bound: the live jobs of the slice, and as many stale ids."""

    __slots__ = ("_claims", "_levels", "_order")

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, deque[JobId]]] = {}
        self._order: list[int] = []  # negated priorities, ascending: the highest first
        self._claims = 0

    def push(self, task: str, priority: int, jobs: Iterable[JobId]) -> None:
        """Behind all others of their task and priority."""
        self._line(task, priority).extend(jobs)

    def push_front(self, task: str, priority: int, job: JobId) -> None:
        """Before all others of its task and priority: a job that was claimed and came back."""
        self._line(task, priority).appendleft(job)

    def _line(self, task: str, priority: int) -> deque[JobId]:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = {}
            insort(self._order, -priority)
        line = level.get(task)
        if line is None:
            line = level[task] = deque()
        return line

    def take(self, count: int, is_ready: Callable[[JobId], bool], runnable: Container[str]) -> list[JobId]:
        """Claim up to `count` jobs of the tasks in `runnable`, in order; stale ids are dropped on the way.

        Cost: O(1) a job while one priority and one task wait, O(tasks) in between.
        """
        taken: dict[JobId, None] = {}  # an id put, cancelled and put again stands in line twice
        while len(taken) < count:
            self._claims += 1
            lowest_first = self._claims % LOWEST_EVERY == 0
            for negated in self._order[::-1] if lowest_first else tuple(self._order):
                job = self._take_from(-negated, is_ready, runnable)
                if job is not None:
                    taken[job] = None
                    break
            else:
                break
        return list(taken)

    def _take_from(self, priority: int, is_ready: Callable[[JobId], bool], runnable: Container[str]) -> JobId | None:
        level = self._levels[priority]
        for task in level:
            if task not in runnable:
                continue
            line = level[task]
            while line:
                job = line.popleft()
                if is_ready(job):
                    if len(level) > 1:
                        level[task] = level.pop(task)  # the other tasks of this priority come first now
                    return job
            del level[task]
            if not level:
                del self._levels[priority]
                self._order.remove(-priority)
                return None
            return self._take_from(priority, is_ready, runnable)
        return None

    def waiting(self) -> dict[str, int]:
        """Task -> ids in line, stale ones included."""
        counts: dict[str, int] = {}
        for level in self._levels.values():
            for task, line in level.items():
                counts[task] = counts.get(task, 0) + len(line)
        return counts

    def prune(self, is_ready: Callable[[JobId], bool]) -> None:
        """Drop every stale id, and each id but its first mention."""
        for level in self._levels.values():
            for task, line in level.items():
                level[task] = deque(dict.fromkeys(job for job in line if is_ready(job)))
