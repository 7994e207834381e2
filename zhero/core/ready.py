"""The order in which ready jobs are claimed.

Higher priority first; within a priority the tasks take turns, and within a task it is first in, first out. So a flood
of one task does not hold up another, and jobs of a task that nobody can run hold up nothing. Every 16th claim serves
one of the lower priorities, each in turn, so nothing starves.

A job that any member may run stands in one queue for all, a part of an "all" job in its member's own; the two take
turns. An "all" job that is still to be spread stands in a third.

Removal is lazy: an id whose job is no longer ready is stale, and stays until it is met or `prune`d. Whether a job is
ready only the slice knows (`is_ready`). Bounds: the live jobs of the slice, and the stale ids that it suffers.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence

from .values import Header, JobId, Life

LOWEST_EVERY = 16
"""One claim in so many does not go to the highest priority, but to the others in turn, down to the lowest."""

IsReady = Callable[[JobId], bool]


class ReadyQueue:
    """Ids of ready jobs in the order of their claims. State: priority -> task -> ids; no level and no line is empty."""

    __slots__ = ("_claims", "_levels", "_order", "_size")

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, deque[JobId]]] = {}
        self._order: list[int] = []  # negated priorities, ascending: the highest first
        self._claims = 0
        self._size = 0

    def __len__(self) -> int:
        """Ids in line, stale ones included."""
        return self._size

    def __iter__(self) -> Iterator[JobId]:
        for level in self._levels.values():
            for line in level.values():
                yield from line

    def push(self, task: str, priority: int, jobs: Sequence[JobId]) -> None:
        """Behind all others of their task and priority."""
        if jobs:
            self._line(task, priority).extend(jobs)
            self._size += len(jobs)

    def push_front(self, task: str, priority: int, job: JobId) -> None:
        """Before all others of its task and priority: a job that was claimed and came back."""
        self._line(task, priority).appendleft(job)
        self._size += 1

    def _line(self, task: str, priority: int) -> deque[JobId]:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = {}
            insort(self._order, -priority)
        line = level.get(task)
        if line is None:
            line = level[task] = deque()
        return line

    def _close(self, priority: int, task: str) -> None:
        """The line is empty."""
        level = self._levels[priority]
        del level[task]
        if not level:
            del self._levels[priority]
            self._order.remove(-priority)

    def take(self, count: int, is_ready: IsReady, runnable: Container[str]) -> list[JobId]:
        """Claim up to `count` jobs of the tasks in `runnable`, in order; stale ids are dropped on the way.

        Cost: O(1) a job while one priority and one task wait, O(priorities + tasks) in between.
        """
        taken: dict[JobId, None] = {}  # an id put, cancelled and put again stands in line twice
        while len(taken) < count:
            for negated in self._claim_order():
                job = self._take_from(-negated, is_ready, runnable)
                if job is not None:
                    taken[job] = None
                    break
            else:
                break
        return list(taken)

    def _claim_order(self) -> list[int]:
        self._claims += 1
        order = self._order
        if self._claims % LOWEST_EVERY or len(order) < 2:
            return order[:]
        place = 1 + self._claims // LOWEST_EVERY % (len(order) - 1)
        return order[place:] + order[:place]

    def _take_from(self, priority: int, is_ready: IsReady, runnable: Container[str]) -> JobId | None:
        level = self._levels[priority]
        while True:
            for task in level:
                if task in runnable:
                    break
            else:
                return None
            line = level[task]
            while line:
                job = line.popleft()
                self._size -= 1
                if is_ready(job):
                    if not line:
                        self._close(priority, task)
                    elif len(level) > 1:
                        level[task] = level.pop(task)  # the other tasks of this priority come first now
                    return job
            self._close(priority, task)

    def waiting(self, is_ready: IsReady) -> dict[str, int]:
        """Task -> ids in line: at least one is of a ready job, stale ones are counted too.

        Cost: O(tasks), and O(1) for each stale id that leaves the head of its line.
        """
        counts: dict[str, int] = {}
        for priority, level in list(self._levels.items()):
            for task, line in list(level.items()):
                while line and not is_ready(line[0]):
                    line.popleft()
                    self._size -= 1
                if line:
                    counts[task] = counts.get(task, 0) + len(line)
                else:
                    self._close(priority, task)
        return counts

    def prune(self, is_ready: IsReady) -> None:
        """Drop every stale id, and each id but its first mention."""
        kept = [
            (task, priority, [job for job in dict.fromkeys(line) if is_ready(job)])
            for priority, level in self._levels.items()
            for task, line in level.items()
        ]
        self._levels, self._order, self._size = {}, [], 0
        for task, priority, jobs in kept:
            self.push(task, priority, jobs)


class ReadyLines:
    """Where each ready job of a slice stands, by who may run it."""

    __slots__ = ("_is_ready", "_pinned", "_shared", "_shared_first", "_to_spread")

    def __init__(self, is_ready: IsReady) -> None:
        self._is_ready = is_ready
        self._shared = ReadyQueue()
        self._pinned: dict[Life, ReadyQueue] = {}  # member -> its parts; bound: members that had parts ready
        self._shared_first: set[Life] = set()  # members whose own parts come second the next time
        self._to_spread = ReadyQueue()

    def _queues(self) -> Iterator[ReadyQueue]:
        yield self._shared
        yield self._to_spread
        yield from self._pinned.values()

    def __len__(self) -> int:
        """Ids in line, stale ones included."""
        pinned = sum(map(len, self._pinned.values())) if self._pinned else 0
        return len(self._shared) + len(self._to_spread) + pinned

    def __iter__(self) -> Iterator[JobId]:
        for queue in self._queues():
            yield from queue

    def _queue_of(self, header: Header, target: Life | None) -> ReadyQueue:
        if target is not None:
            return self._pinned.setdefault(target, ReadyQueue())
        return self._to_spread if header.scope == "all" else self._shared

    def push(self, header: Header, jobs: Sequence[JobId], target: Life | None) -> None:
        """They have become ready. `target`: the one member that may run them."""
        self._queue_of(header, target).push(header.task, header.priority, jobs)

    def push_front(self, header: Header, job: JobId, target: Life | None) -> None:
        """It was claimed and came back."""
        self._queue_of(header, target).push_front(header.task, header.priority, job)

    def take(self, count: int, member: Life, runnable: Container[str]) -> list[JobId]:
        """Claim up to `count` jobs that `member` may run: half of them its own parts, if there are so many."""
        is_ready, shared, pinned = self._is_ready, self._shared, self._pinned.get(member)
        if not pinned:
            return shared.take(count, is_ready, runnable)
        if member in self._shared_first:
            first, second = shared, pinned
            self._shared_first.remove(member)
        else:
            first, second = pinned, shared
            self._shared_first.add(member)
        taken = first.take(-(-count // 2), is_ready, runnable)
        taken += second.take(count - len(taken), is_ready, runnable)
        return taken + first.take(count - len(taken), is_ready, runnable)

    def take_to_spread(self, runnable: Container[str]) -> list[JobId]:
        """Claim all "all" jobs of the tasks in `runnable`."""
        count = len(self._to_spread)
        return self._to_spread.take(count, self._is_ready, runnable) if count else []

    def waiting(self) -> dict[str, int]:
        """Task -> jobs in line: at least one, at most so many."""
        counts: dict[str, int] = {}
        for queue in self._queues():
            for task, count in queue.waiting(self._is_ready).items():
                counts[task] = counts.get(task, 0) + count
        return counts

    def rename(self, before: Life, now: Life) -> None:
        """A member goes on under another life."""
        if before in self._pinned:
            self._pinned[now] = self._pinned.pop(before)
        self._shared_first.discard(before)

    def prune(self) -> None:
        """Drop every stale id."""
        for queue in self._queues():
            queue.prune(self._is_ready)
        self._pinned = {member: queue for member, queue in self._pinned.items() if queue}
        self._shared_first &= self._pinned.keys()
