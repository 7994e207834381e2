"""What a node and a client can be asked and told about jobs and tasks: the same methods on both."""

from __future__ import annotations

import concurrent.futures
import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from .core import messages as m
from .core.messages import Answer, Call
from .core.values import IdSource, JobId, Life, Queue, job_from_text, job_text
from .errors import JobNotFound, ZheroError
from .job import Job, JobOptions, accepted, build_enqueue, error_of, value_of
from .task import Task
from .views import JobView, StatusView


class Inspection:
    """Asks an engine, wherever it is. A subclass is a `Hub`."""

    _ids: IdSource

    @property
    @abstractmethod
    def payload_max_bytes(self) -> int:
        """The largest params of one job."""

    @abstractmethod
    async def ask(self, call: Call) -> Answer:
        """Put a call to the engine."""

    @abstractmethod
    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]:
        """The same from any thread."""

    @abstractmethod
    def wall_ms(self) -> float:
        """The wall clock."""

    @abstractmethod
    def waiting(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While a job waits for another."""

    @abstractmethod
    def waiting_sync(self) -> contextlib.AbstractContextManager[None]:
        """The same for a job in a thread."""

    def take_id(self) -> JobId:
        """A new job id."""
        return self._ids.take()

    async def enqueue(
        self, task: Task | str, params: Mapping[str, Any] | None = None, options: JobOptions | None = None
    ) -> Job[Any]:
        """Enqueue a job by the name of its task.

        Raises:
            ParamsInvalid, TaskNotFound, AlreadyQueued, QueueFull: nothing was enqueued.
        """
        return (await self._enqueue(task, [params or {}], options or JobOptions()))[0]

    async def enqueue_many(self, task: Task | str, batch: Sequence[Mapping[str, Any]]) -> list[Job[Any]]:
        """Enqueue one job for each params of `batch`: all of them, or none."""
        return await self._enqueue(task, batch, JobOptions()) if batch else []

    async def _enqueue(
        self, task: Task | str, batch: Sequence[Mapping[str, Any]], options: JobOptions
    ) -> list[Job[Any]]:
        name = task if isinstance(task, str) else task.name
        if not isinstance(task, str):
            for params in batch:
                task.code.check(params, name)
        jobs = accepted(await self.ask(build_enqueue(self, name, list(batch), options)), name)
        return [Job(self, job, name) for job in jobs]

    async def queue_length(self, queue: Queue | str) -> int:
        """Jobs in "global", "local", "delayed" or "processing".

        Raises:
            ValueError: there is no such queue.
        """
        counted = await self.ask(m.CountJobs())
        assert isinstance(counted, m.Counted)
        return counted.queues[Queue(queue).value]

    async def all_jobs(self, name: str | None = None) -> dict[str, JobView]:
        """Every live job by its id; `name`: only of that task."""
        return await self._list(m.ListJobs(name))

    async def failed_jobs(self, name: str | None = None) -> dict[str, JobView]:
        """Dead letters by their ids, the oldest first."""
        return await self._list(m.ListJobs(name, dead=True))

    async def _list(self, call: m.ListJobs) -> dict[str, JobView]:
        listed = await self.ask(call)
        assert isinstance(listed, m.Listed)
        names = await self._names()
        return {job_text(info.job): JobView.of(info, names) for info in listed.jobs}

    async def _names(self) -> dict[Life, str]:
        status = await self.ask(m.AskStatus())
        assert isinstance(status, m.ClusterStatus)
        return {it.member.life: it.member.name for it in status.members}

    async def job(self, job_id: str) -> JobView:
        """One job, live or a dead letter.

        Raises:
            JobNotFound: there is none of that id.
        """
        listed = await self.ask(m.FindJob(_parsed(job_id)))
        if isinstance(listed, m.Listed):
            return JobView.of(listed.jobs[0], await self._names())
        raise error_of(listed, job_id)

    async def result(self, job_id: str) -> Any:
        """Wait for the end of a job and return what its task returned.

        Raises:
            JobFailed, JobNotFound: see `Job.result`.
        """
        job = _parsed(job_id)
        ended = await self.ask(m.AwaitResult(job))
        if isinstance(ended, m.Ended):
            return value_of(job, "job", ended.outcome)
        raise error_of(ended, job_id)

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job. True: it will not run (any more)."""
        return await self._do(m.Cancel(_parsed(job_id)), job_id)

    async def retry(self, job_id: str) -> bool:
        """Run a dead letter again, its tries counted from new."""
        return await self._do(m.Retry(_parsed(job_id)), job_id)

    async def discard(self, job_id: str) -> bool:
        """Forget a dead letter."""
        return await self._do(m.Discard(_parsed(job_id)), job_id)

    async def stop_task(self, name: str) -> bool:
        """Stop the schedule of a periodic task, also while it runs. False: it was stopped."""
        return await self._do(m.StopTask(name), name)

    async def start_task(self, name: str) -> bool:
        """Start it again: the next round is due one period from now. False: it was started."""
        return await self._do(m.StartTask(name), name)

    async def _do(self, call: Call, what: str) -> bool:
        did = await self.ask(call)
        if isinstance(did, m.Did):
            return did.done
        raise error_of(did, what)

    async def stats(self) -> dict[str, Any]:
        """Counters since the start: totals by name, and the same by task under "tasks"."""
        stats = await self.ask(m.AskStats())
        assert isinstance(stats, m.Stats)
        return {**stats.totals, "tasks": stats.tasks}

    async def status(self) -> StatusView:
        """Members, owner, queues, schedules."""
        status = await self.ask(m.AskStatus())
        if isinstance(status, m.ClusterStatus):
            return StatusView.of(status)
        raise ZheroError(f"no status: {status}")


def _parsed(job_id: str) -> JobId:
    job = job_from_text(job_id)
    if job is None:
        raise JobNotFound(f"{job_id!r} is no job id: those are 32 hexadecimal digits")
    return job
