"""A node: what an application starts, and through which it enqueues, asks and stops.

`async with Node(...)` lives on the application's own loop. `start()` and `stop()` are the same for synchronous code: a
loop of its own in a thread of its own; calls from other threads and loops find their way there. What decides stands in
the engine, what waits in the driver; here are settings, tasks and actions. A node that has stopped stays stopped.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar, cast

from . import codec, settings
from ._version import __version__
from .config import Limits
from .core.messages import Answer, Call
from .core.values import IdSource, JobId
from .draft import Draft
from .enqueuing import Enqueuing
from .errors import NotRunning, ParamsInvalid, TaskNotFound
from .forms import task
from .loader import load
from .runtime.driver import Driver, Setup
from .runtime.handlers import Handler
from .task import Task, running_nodes

F = TypeVar("F", bound=Callable[..., Any])

COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white", "grey", "gray", "bold")
"""The origin's colours, which its `log` took in the place of a severity."""
SEVERITIES = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Node(Enqueuing):
    """One process of the cluster.

    Args:
        tasks: a folder or file, a module, a task, or an iterable of those.
        name: shown to people; default: host and process id.
        bind: where to listen; default: loopback, a free port.
        cluster: nodes with the same one work together; default: from the project.
        workers: jobs run at once; 0: none. Default 8.
        drain_timeout: seconds that work gets to end when the node stops. Default 30.
        max_jobs, max_bytes, max_payload: limits; beyond them an enqueue is refused.
        runtime_dir: where processes find one another; default: the user's own.
        insecure: allow a bind that others than this host can reach.

    Raises:
        ConfigError, TaskInvalid, TaskDuplicate: before anything is started.
    """

    def __init__(
        self,
        tasks: str | Path | ModuleType | Task | Iterable[Any] | None = None,
        *,
        name: str | None = None,
        bind: str | None = None,
        cluster: str | None = None,
        workers: int | None = None,
        drain_timeout: float | None = None,
        max_jobs: int | None = None,
        max_bytes: int | None = None,
        max_payload: int | None = None,
        runtime_dir: str | Path | None = None,
        insecure: bool | None = None,
    ) -> None:
        self.settings = settings.resolve(
            name=name,
            bind=bind,
            cluster=cluster,
            workers=workers,
            drain_timeout=drain_timeout,
            max_jobs=max_jobs,
            max_bytes=max_bytes,
            max_payload=max_payload,
            runtime_dir=runtime_dir,
            insecure=insecure,
        )
        self.name = self.settings.name
        self._ids = IdSource(int.from_bytes(os.urandom(8)))
        self._ids_lock = threading.Lock()
        self._log = logging.getLogger("zhero")
        self._actions: dict[str, Task] = {}
        self._tasks: dict[str, Task] = {}
        self._handlers: dict[str, Handler] = {}
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None
        self._served: asyncio.Event | None = None
        given = self.settings.tasks or () if tasks is None else tasks
        several = isinstance(given, Iterable) and not isinstance(given, str | Mapping)
        self.set_tasks(cast("Iterable[Any]", given) if several else [given])

    # --- tasks and actions ----------------------------------------------------------------------------------------

    def set_tasks(self, tasks: Iterable[Any]) -> None:
        """These are the tasks from now on, besides the core ones; running jobs keep the code they have.

        Raises:
            TaskInvalid, TaskDuplicate: the tasks stay as they were.
        """
        found = {it.name: it for it in load([run_action, *tasks])}
        handlers = {name: it.handler(self) for name, it in found.items()}
        self._tasks = found
        self._handlers.clear()
        self._handlers.update(handlers)
        if self._driver is not None:
            self._driver.define([it.spec for it in found.values()])

    def task(self, fields: Mapping[str, object]) -> Draft:
        """A job in the origin's form, by the name of its task: `name`, `runAt`, `params`, `toAnnounce`.

        Raises:
            TaskNotFound, ParamsInvalid: see `Draft`.
        """
        return Draft(self, self.tasks.get, fields)

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of this node by name."""
        return dict(self._tasks)

    def action(self, function: F) -> F:
        """Register a function as an action, which the core task `runAction` runs by its name."""
        self._actions[function.__name__] = task(name=function.__name__)(function)
        return function

    async def run_named_action(self, name: str, params: dict[str, Any]) -> Any:
        """Run an action here.

        Raises:
            TaskNotFound: there is none of that name.
        """
        it = self._actions.get(name)
        if it is None:
            raise TaskNotFound(f"no action named {name!r} on this node: register it with @node.action")
        it.check_params(params)
        result = it.call(params, self)
        return await result if asyncio.iscoroutine(result) else result

    def log(self, message: str, severity: str = "info") -> None:
        """Write a line to the log `zhero`; takes a severity, or one of the origin's colours."""
        if severity not in SEVERITIES and severity not in COLOURS:
            known = ", ".join([*SEVERITIES, *COLOURS])
            raise ParamsInvalid(f"log: no severity or colour {severity!r}; known are {known}")
        self._log.log(SEVERITIES.get(severity, logging.INFO), "%s", message, extra={"colour": severity})

    # --- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        if self._driver is not None:
            raise NotRunning(f"node {self.name} has been started before: make a new one")
        it = self.settings
        limits = Limits(jobs_max=it.max_jobs, jobs_max_bytes=it.max_bytes, payload_max_bytes=it.max_payload)
        setup = Setup(
            it.name, it.cluster, it.bind, it.workers, it.runtime_dir, limits, __version__, self, self._bad_params
        )
        driver = Driver(setup, self._handlers, self._log)
        await driver.start([it.spec for it in self._tasks.values()])
        self._driver = driver
        running_nodes.append(self)

    async def aclose(self, drain_timeout: float | None = None) -> int:
        """Stop: take nothing new, let work end for at most `drain_timeout` seconds.

        Returns:
            How many accepted jobs will not run, as nobody else has them.
        """
        driver = self._driver
        if driver is None or self not in running_nodes:
            return 0
        try:
            lost = await driver.stop(self.settings.drain_timeout if drain_timeout is None else drain_timeout)
        finally:
            if self in running_nodes:
                running_nodes.remove(self)
            if self._served is not None:
                self._served.set()
        if lost:
            self._log.warning("! node %s stopped with %d jobs that will not run", self.name, lost)
        return lost

    def start(self) -> None:
        """Start it from synchronous code, on a loop of its own in a thread of its own.

        Raises:
            BindFailed, RuntimeDirInvalid: as when entered with `async with`.
        """
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve(ready)], name="zhero-node", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self, drain_timeout: float | None = None) -> int:
        """The end of `start`; returns how many accepted jobs will not run."""
        if self._thread is None or self._driver is None or self not in running_nodes:
            return 0
        lost = asyncio.run_coroutine_threadsafe(self.aclose(drain_timeout), self._driver.loop).result()
        self._thread.join()
        return lost

    async def _serve(self, ready: concurrent.futures.Future[None]) -> None:
        self._served = asyncio.Event()
        try:
            await self._open()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._served.wait()

    def take_id(self) -> JobId:
        """A new job id; from any thread."""
        with self._ids_lock:
            return self._ids.take()

    # --- the hub --------------------------------------------------------------------------------------------------

    @property
    def payload_max_bytes(self) -> int:
        """The largest params of one job."""
        return self.settings.max_payload

    def find_task(self, name: str) -> Task | None:
        """This node's own task of a name."""
        return self._tasks.get(name)

    async def ask(self, call: Call) -> Answer:
        """Put a call to the engine, from this node's loop or any other.

        Raises:
            NotRunning: the node does not run.
        """
        driver = self._running()
        if asyncio.get_running_loop() is driver.loop:
            return await driver.ask(call)
        return await asyncio.wrap_future(driver.ask_soon(call))

    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]:
        """The same from any thread."""
        return self._running().ask_soon(call)

    def _running(self) -> Driver:
        if self._driver is None:
            raise NotRunning(f"node {self.name} has not been started: use `async with node:` or node.start()")
        return self._driver

    def wall_ms(self) -> float:
        """The wall clock, ms since the epoch."""
        return time.time() * 1000

    def waiting(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While a job awaits another's result, its slot is another's."""
        driver = self._running()
        here = asyncio.get_running_loop() is driver.loop
        return driver.waiting() if here else contextlib.nullcontext()

    def waiting_sync(self) -> contextlib.AbstractContextManager[None]:
        """The same for a job in a thread."""
        return self._running().waiting_sync()

    def _bad_params(self, name: str, encoded: bytes) -> str | None:
        """What is wrong with params that come from a client."""
        it = self._tasks.get(name)
        try:
            params = codec.decode(encoded)
            if not isinstance(params, dict):
                return "params must be a table of names"
            if it is not None:
                it.check_params(params)  # pyright: ignore[reportUnknownArgumentType]
        except ParamsInvalid as error:
            return str(error)
        return None


@task(name="runAction", description="run the action named in params")
async def run_action(api: Node, action: str, **params: Any) -> Any:
    """The core task: an action is a function registered with `@node.action`; one that fails is a failed job."""
    return await api.run_named_action(action, params)
