"""Jobs as the origin made them: an object that is described first, and then enqueued, run or cancelled.

`node.task({"name": "sendEmail", "runAt": 1893456000000, "params": {"to": "ann"}, "toAnnounce": True})`
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from . import options
from .codec import decode
from .core.messages import Refusal, Refused
from .errors import JobNotFound, ParamsInvalid
from .job import NO_OPTIONS, Hub, Job, encode_params, enqueue_encoded
from .refusals import error_of


class Runnable(Protocol):
    """What a draft needs of its task."""

    @property
    def name(self) -> str: ...

    def check_params(self, params: Mapping[str, Any]) -> None: ...

    def call(self, params: dict[str, Any], api: Any) -> Any:
        """Run it here; returns an awaitable if it is one."""
        ...

    @property
    def is_async(self) -> bool: ...


_DRAFT_FIELDS = ("name", "params", "run_at", "run_in", "announce", "priority", "id")


class Draft:
    """A job as the origin made one: `node.task({"name": ..., "runAt": ..., "params": {...}, "toAnnounce": True})`.

    Everything is checked when it is made, and its params are as they were then. Enqueued twice, it is two jobs with two
    ids (unless it has an `id` of its own, which always is one job).

    Args:
        hub: what takes the job.
        find: the task of a name, or None.
        fields: `name`, and what else is to be said; `runAt` and `run_at` are the same.

    Raises:
        TaskNotFound: no task has that name.
        ParamsInvalid: a field is unknown or wrong, the name is missing, or the params do not fit the task.
    """

    __slots__ = ("_data", "_hub", "_job", "_options", "_task")

    def __init__(self, hub: Hub, find: Callable[[str], Runnable | None], fields: Mapping[str, object]) -> None:
        if not isinstance(fields, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may pass anything
            raise ParamsInvalid(f"a job is made of a dict with its name and params, not of {fields!r}")
        try:
            given = options.respelt(fields, _DRAFT_FIELDS, "field of a job")
        except ValueError as error:
            raise ParamsInvalid(str(error)) from None
        name, params = given.pop("name", None), given.pop("params", None)
        if not isinstance(name, str) or not name:
            raise ParamsInvalid(f"a job needs the name of its task, as text; name={name!r}")
        task = find(name)
        if task is None:
            raise error_of(Refused(Refusal.UNKNOWN_TASK, name))
        if not isinstance(params, Mapping | None):
            raise ParamsInvalid(f"task {name}: params={params!r}: give a dict")
        values = dict(cast("Mapping[str, Any]", params or {}))
        task.check_params(values)
        self._hub = hub
        self._task = task
        self._options = NO_OPTIONS.given(**cast("dict[str, Any]", given))
        self._options.delay_ms(hub.wall_ms())
        self._data = encode_params(hub, name, values)
        self._job: Job[Any] | None = None

    def __repr__(self) -> str:
        return f"<Draft of {self._task.name}, {self._job if self._job is not None else 'not enqueued'}>"

    async def enqueue(self) -> Job[Any]:
        """Enqueue it; accepted when this returns.

        Raises:
            AlreadyQueued, QueueFull, NotRunning: nothing was enqueued.
            NotAccepted: it is held, but its copies did not exist in time; it may run.
        """
        name = self._task.name
        self._job = await enqueue_encoded(self._hub, name, self._data, self._options)
        return self._job

    async def run(self) -> Any:
        """Run it here and now, whatever its `runAt` and the scope of its task; no queue knows of it.

        Returns:
            What the task returned. What it raises is raised here.
        """
        params = decode(self._data)
        if not self._task.is_async:
            return await asyncio.to_thread(self._task.call, params, self._hub)
        made = self._task.call(params, self._hub)
        return await made if inspect.isawaitable(made) else made

    async def cancel(self) -> bool:
        """Cancel the job that was enqueued last: True if it will not run (any more).

        Raises:
            JobNotFound: it has not been enqueued, or ended longer ago than its result is kept.
        """
        if self._job is None:
            raise JobNotFound(f"this job of {self._task.name} has not been enqueued")
        return await self._job.cancel()
