"""What people ask about jobs and members, and tell them to do: the same questions on a node and on a client.

Both are a `Hub`: whatever can put a call to an engine. This is the one place that knows which call a question is and
which view its answer becomes; `Node` and `Client` inherit it, so the two can't drift apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from .core.messages import (
    Answer,
    AskStats,
    AskStatus,
    Call,
    Cancel,
    ClusterStatus,
    Counted,
    CountJobs,
    Did,
    Discard,
    FindJob,
    Listed,
    ListJobs,
    Refused,
    Retry,
    StartTask,
    Stats,
    StopTask,
)
from .core.values import JobId, JobInfo, Life, Queue, job_from_text
from .errors import Bug, JobNotFound
from .refusals import error_of
from .views import ClusterView, JobView, StatsView

A = TypeVar("A")


class Inspection(ABC):
    """The questions, over whatever can `ask`."""

    @abstractmethod
    async def ask(self, call: Call) -> Answer:
        """Put a call to an engine, and wait for its answer."""
        ...

    # --- jobs -----------------------------------------------------------------------------------------------------

    async def all_jobs(self, name: str | None = None) -> dict[str, JobView]:
        """The jobs in the four queues, each once, by id; the next round of each schedule is one too.

        Args:
            name: only jobs of this task.
        """
        return await self._list(ListJobs(name))

    async def failed_jobs(self, name: str | None = None) -> dict[str, JobView]:
        """The dead letters, by id: jobs that failed for good.

        Args:
            name: only jobs of this task.
        """
        return await self._list(ListJobs(name, dead=True))

    async def job(self, job_id: str) -> JobView:
        """One job, also if it is a dead letter.

        Raises:
            JobNotFound: nobody knows it, or it has ended.
        """
        listed = await self._answer(FindJob(id_of(job_id)), Listed)
        (view,) = await self._views(listed.jobs)
        return view

    async def queue_length(self, queue: Queue | str) -> int:
        """How many jobs are in a queue: "global", "local", "delayed" or "processing".

        Raises:
            ValueError: there is no such queue.
        """
        try:
            named = Queue(queue)
        except ValueError:
            known = ", ".join(known.value for known in Queue)
            raise ValueError(f"there is no queue {queue!r}, only {known}") from None
        return (await self._answer(CountJobs(), Counted)).queues[named.value]

    async def cancel(self, job_id: str) -> bool:
        """Do not run a job (any more).

        Returns:
            True if it will not run, or not to its end; False if it has ended, or runs on.
        """
        return await self._did(Cancel(id_of(job_id)))

    async def retry(self, job_id: str) -> bool:
        """Run a dead letter again, its tries counted from new.

        Returns:
            False if the job is no dead letter.

        Raises:
            JobNotFound: nobody knows it.
        """
        return await self._did(Retry(id_of(job_id)))

    async def discard(self, job_id: str) -> bool:
        """Forget a dead letter.

        Returns:
            False if the job is no dead letter.

        Raises:
            JobNotFound: nobody knows it.
        """
        return await self._did(Discard(id_of(job_id)))

    # --- tasks ----------------------------------------------------------------------------------------------------

    async def stop_task(self, name: str) -> bool:
        """Stop the schedule of a periodic task in the whole cluster, also while a round of it runs.

        Returns:
            False if it was stopped already.

        Raises:
            TaskNotFound: nobody has such a task.
            TaskInvalid: it is not periodic.
        """
        return await self._did(StopTask(name))

    async def start_task(self, name: str) -> bool:
        """Start the schedule of a periodic task again: its next round is due one period from now.

        Returns:
            False if it was not stopped.

        Raises:
            TaskNotFound: nobody has such a task.
            TaskInvalid: it is not periodic.
        """
        return await self._did(StartTask(name))

    # --- the cluster ----------------------------------------------------------------------------------------------

    async def stats(self) -> StatsView:
        """What has been done since the start."""
        return StatsView.of(await self._answer(AskStats(), Stats))

    async def status(self) -> ClusterView:
        """Who is here, who owns the delayed queue, how much is to do."""
        return ClusterView.of(await self._answer(AskStatus(), ClusterStatus))

    # --- from calls to views --------------------------------------------------------------------------------------

    async def _list(self, call: ListJobs) -> dict[str, JobView]:
        listed = await self._answer(call, Listed)
        return {view.id: view for view in await self._views(listed.jobs)}

    async def _views(self, infos: list[JobInfo]) -> list[JobView]:
        names: dict[Life, str] = {}
        if any(info.node is not None for info in infos):
            status = await self._answer(AskStatus(), ClusterStatus)
            names = {member.member.life: member.member.name for member in status.members}
        return [JobView.of(info, names) for info in infos]

    async def _did(self, call: Call) -> bool:
        return (await self._answer(call, Did)).done

    async def _answer(self, call: Call, kind: type[A]) -> A:
        answer = await self.ask(call)
        if isinstance(answer, Refused):
            raise error_of(answer)
        if not isinstance(answer, kind):
            raise Bug(f"{call} was answered with {answer}")
        return answer


def id_of(text: str) -> JobId:
    """The id behind its text.

    Raises:
        JobNotFound: it is no id.
    """
    job = job_from_text(text)
    if job is None:
        raise JobNotFound(f"there is no job {text!r}: an id has 32 hexadecimal digits")
    return job
