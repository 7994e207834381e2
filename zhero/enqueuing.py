"""How jobs are handed over by the name of their task: the same on a node and on a client, which are both hubs."""

from __future__ import annotations

import concurrent.futures
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from .core.messages import Answer, Call
from .core.values import JobId
from .errors import ParamsInvalid, TaskInvalid
from .inspection import Inspection, id_of
from .job import NO_OPTIONS, Job, JobOptions, enqueue_all
from .task import Task


class Enqueuing(Inspection):
    """A `Hub` with what can be done through any hub."""

    @property
    @abstractmethod
    def payload_max_bytes(self) -> int: ...

    @abstractmethod
    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]: ...

    @abstractmethod
    def take_id(self) -> JobId: ...

    @abstractmethod
    def waiting(self) -> AbstractAsyncContextManager[None]: ...

    @abstractmethod
    def waiting_sync(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def wall_ms(self) -> float: ...

    def find_task(self, name: str) -> Task | None:
        """The task of a name where it is at hand, so that params are checked before they are sent."""
        return None

    async def enqueue(
        self,
        task: str | Task,
        params: Mapping[str, Any] | None = None,
        *,
        run_in: float | timedelta | None = None,
        run_at: float | datetime | None = None,
        priority: int | None = None,
        id: str | None = None,
        announce: bool | None = None,
    ) -> Job[Any]:
        """Hand a job to the cluster; it is accepted when this returns.

        Args:
            task: or its name.
            params: of the job.
            run_in, run_at, priority, id, announce: as those of `Task.options`, in place of what those said.

        Raises:
            TaskNotFound, TaskInvalid, ParamsInvalid, AlreadyQueued, QueueFull: nothing was enqueued.
            NotAccepted: it is held, but its copies did not exist in time; it may run.
            NotReached: no answer came, so the job may have been enqueued or not.
        """
        options = _options_of(task).given(run_in=run_in, run_at=run_at, priority=priority, id=id, announce=announce)
        batch: list[Mapping[str, Any]] = [{} if params is None else params]
        (job,) = await enqueue_all(self, self._checked(task, batch), batch, options)
        return job

    async def enqueue_many(self, task: str | Task, batch: Sequence[Mapping[str, Any]]) -> list[Job[Any]]:
        """Hand many jobs to the cluster, in one message: all or none.

        Args:
            task: or its name; what `Task.options` said holds for each job.
            batch: params of each job.

        Raises:
            ParamsInvalid: also if they are too much for one message.
            TaskNotFound, AlreadyQueued, QueueFull, NotAccepted, NotReached: as `enqueue`.
        """
        return await enqueue_all(self, self._checked(task, batch), batch, _options_of(task))

    async def result(self, job_id: str, timeout: float | None = None) -> Any:
        """Wait until a job has ended, whoever enqueued it, and return what its task returned.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            JobFailed, JobNotFound, TimeoutError: as `Job.result`.
        """
        return await Job[Any](self, f"job {job_id}", id_of(job_id)).result(timeout)

    def _checked(self, task: str | Task, batch: Sequence[Mapping[str, Any]]) -> str:
        """The name of a task, whose params are checked here where the task is at hand."""
        if not isinstance(task, str | Task):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may pass anything
            raise TaskInvalid(f"{task!r} is no task: give one, or its name")
        found, name = (self.find_task(task), task) if isinstance(task, str) else (task, task.name)
        for params in batch:
            if not isinstance(params, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ParamsInvalid(f"task {name}: params={params!r}: give a dict")
            if found is not None:
                found.check_params(params)
        return name


def _options_of(task: str | Task) -> JobOptions:
    """What a task was given by `Task.options`; none of a mere name."""
    return task.job_options if isinstance(task, Task) else NO_OPTIONS
