"""Stands for the threads, coroutines and children that run jobs: runs nothing, reports everything.

It holds what it is given, starts as many at once as it has slots, and reports each start and each end, as a real one
does: in batches, later than it happened, and, where the engine has to bear it, once more than it should. A run takes
the time and has the end that its `Kind` draws.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import Random

from ..core.values import Finished, JobId, Outcome, Run, Status, Verdict
from .story import BrokenPromise
from .workload import Kind

Later = Callable[[int, Callable[[], None]], None]
"""Microseconds from now, and what is to be done then."""
Watch = Callable[[Run, Finished | None], None]
"""A run, and its end; None: it begins."""


class Executor:
    """The simulated executor of one node.

    Args:
        wake: asks for a turn, in which what there is to report is taken.
        slots: how many jobs run at once.
        window: how many more are held in advance.
        watch: sees each run when it really begins, and again with its end.
    """

    def __init__(
        self,
        rng: Random,
        kinds: Mapping[str, Kind],
        later: Later,
        wake: Callable[[], None],
        slots: int,
        window: int,
        watch: Watch,
    ) -> None:
        self.slots = slots
        self.window = window
        self._rng = rng
        self._kinds = kinds
        self._later = later
        self._wake = wake
        self.watch = watch
        self._queued: deque[Run] = deque()
        self._running: dict[JobId, Run] = {}
        self._stopping: set[JobId] = set()
        self._started: list[JobId] = []
        self._finished: list[Finished] = []
        self._reported: deque[Finished] = deque(maxlen=20)

    @property
    def capacity(self) -> int:
        return self.slots + self.window if self.slots else 0

    def submit(self, runs: list[Run]) -> None:
        """Run these, now or as soon as a slot is free."""
        self._queued.extend(runs)
        self._fill()

    def stop(self, job: JobId) -> bool:
        """End that run; False: it can't be. Its end is reported in any case, now or later."""
        for run in self._queued:
            if run.job == job:
                self._queued.remove(run)
                self._report(_cancelled(run))
                return True
        current = self._running.get(job)
        if current is None:
            return True  # its end waits to be reported
        if not self._kinds[current.header.task].stoppable:
            return False
        if job not in self._stopping:
            self._stopping.add(job)
            self._later(self._rng.randint(0, 20_000), lambda: self._end(current, _cancelled(current)))
        return True

    def resize(self, slots: int) -> None:
        """A job that waits for another gave its slot back, or took it again."""
        self.slots = slots
        self._fill()
        self._wake()

    def repeat(self, *reports: Finished) -> None:
        """Say again what was said before."""
        self._finished.extend(reports)
        self._wake()

    def take_started(self) -> list[JobId]:
        started, self._started = self._started, []
        return started

    def take_finished(self) -> list[Finished]:
        """The ends since the last time, and now and then an old one again."""
        finished, self._finished = self._finished, []
        if finished and self._reported and self._rng.random() < 0.05:
            finished.insert(self._rng.randint(0, len(finished)), self._rng.choice(self._reported))
        if finished and self._rng.random() < 0.01:
            finished.append(finished[0])
        self._reported.extend(finished)
        return finished

    def _fill(self) -> None:
        while self._queued and len(self._running) < self.slots:
            self._begin(self._queued.popleft())

    def _begin(self, run: Run) -> None:
        if run.job in self._running:
            raise BrokenPromise("P2: two runs of one job at once", run.job)
        self._running[run.job] = run
        self._started.append(run.job)
        self.watch(run, None)
        takes_ms, finished = self._kinds[run.header.task].course(run, self._rng)
        self._later(takes_ms * 1000 + self._rng.randint(0, 999), lambda: self._end(run, finished))
        self._wake()

    def _end(self, run: Run, finished: Finished) -> None:
        if self._running.get(run.job) is not run:
            return  # it was stopped before
        del self._running[run.job]
        self._stopping.discard(run.job)
        self.watch(run, finished)
        self._report(finished)
        self._fill()

    def _report(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._wake()


def _cancelled(run: Run) -> Finished:
    return Finished(run.job, run.attempt, Verdict.CANCELLED, Outcome(Status.CANCELLED))
