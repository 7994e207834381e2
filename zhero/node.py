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
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar, cast

from . import codec, settings
from ._version import __version__
from .config import PROFILES
from .core.facts import DiskFailed, Fact, IdentityTaken
from .core.messages import Answer, Call
from .core.values import IdSource, JobId
from .draft import Draft
from .enqueuing import Enqueuing
from .errors import NotRunning, ParamsInvalid, TaskNotFound
from .events import BUFFER_MAX_COUNT, Events, event_of
from .forms import task
from .loader import load
from .runtime.datadir import DataDir, slot
from .runtime.driver import Driver, Setup
from .runtime.handlers import Handler
from .runtime.journal import Journal
from .runtime.network import Site
from .task import Task, running_nodes
from .views import MemberView

F = TypeVar("F", bound=Callable[..., Any])

MEMBERS_PATIENCE_S = 10.0
"""How long another thread waits for a turn of the node's loop."""

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
        join: endpoints of nodes to reach, also with names; default: the nodes of this user on this host.
        advertise: where others reach this node, if that is not where it is bound.
        profile: how fast members notice things: "fast", "lan" (the default) or "wan"; the same for all.
        cluster: nodes with the same one work together; default: from the project.
        workers: jobs run at once; 0: none. Default 8.
        backups: copies of each job that have to be at other members before it is accepted, 0 to 2; as far as there are
            others. Default 1.
        accept_timeout: seconds that an enqueue waits for these copies; then `NotAccepted`. Default 10.
        drain_timeout: seconds that work gets to end when the node stops. Default 30.
        solo_after: seconds after which it works alone where no neighbour can be reached. Default 5.
        stuck_after: seconds without a turn of its loop after which others give the node up. Default 60.
        max_jobs, max_bytes, max_payload: limits; beyond them an enqueue is refused.
        data_dir: a directory of this node's own, for the journal of what has to survive the process; "auto": the first
            that is free of those of this project, `.zhero/CLUSTER/0, 1, ...`. Default: none.
        durability: with a data directory, what an accepted job survives: "process" (the default): the death of every
            process; "power": a power cut too, at the price of a sync; "memory": nothing is kept.
        runtime_dir: where processes find one another; default: the user's own.
        secret: keeps out whoever does not hold it, see `zhero keygen`; several, the current one first, while it is
            changed. Default: one of this user on this host, and only this host reaches the node.
        secret_file: holds it, one a line.
        insecure: no secret and no encryption, on any bind: only in a network that is trusted wholly.

    Raises:
        ConfigError, TaskInvalid, TaskDuplicate: before anything is started.
    """

    def __init__(
        self,
        tasks: str | Path | ModuleType | Task | Iterable[Any] | None = None,
        *,
        name: str | None = None,
        bind: str | None = None,
        join: str | Iterable[str] | None = None,
        advertise: str | None = None,
        profile: str | None = None,
        cluster: str | None = None,
        workers: int | None = None,
        backups: int | None = None,
        accept_timeout: float | None = None,
        drain_timeout: float | None = None,
        solo_after: float | None = None,
        stuck_after: float | None = None,
        max_jobs: int | None = None,
        max_bytes: int | None = None,
        max_payload: int | None = None,
        data_dir: str | Path | None = None,
        durability: str | None = None,
        runtime_dir: str | Path | None = None,
        secret: str | Iterable[str] | None = None,
        secret_file: str | Path | None = None,
        insecure: bool | None = None,
    ) -> None:
        self.settings = settings.resolve(
            name=name,
            bind=bind,
            join=join if join is None or isinstance(join, str) else list(join),
            advertise=advertise,
            profile=profile,
            cluster=cluster,
            workers=workers,
            backups=backups,
            accept_timeout=accept_timeout,
            drain_timeout=drain_timeout,
            solo_after=solo_after,
            stuck_after=stuck_after,
            max_jobs=max_jobs,
            max_bytes=max_bytes,
            max_payload=max_payload,
            data_dir=data_dir,
            durability=durability,
            runtime_dir=runtime_dir,
            secret=secret if secret is None or isinstance(secret, str) else list(secret),
            secret_file=secret_file,
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
        self._place: DataDir | None = None
        self._thread: threading.Thread | None = None
        self._stopped: asyncio.Event | None = None
        self._pid = 0  # of the process it was started in
        self._stopping: asyncio.Task[int] | None = None  # once this node has to stop by itself
        self._events: weakref.WeakSet[Events] = weakref.WeakSet()
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
        place = self._data_dir()
        driver = Driver(
            Setup(
                site=Site(
                    *(it.name, it.cluster, it.bind, it.join, it.advertise, it.runtime_dir, __version__),
                    it.secret,
                    it.insecure,
                ),
                workers=it.workers,
                limits=it.limits,
                profile=PROFILES[it.profile],
                stuck_after_ms=round(it.stuck_after * 1000),
                node=self,
                boundary=self._bad_params,
                on_fact=self._on_fact,
                heard=lambda: bool(self._events),
                journal=None
                if place is None
                else lambda now_ms: Journal(place.folder, it.cluster, it.durability, now_ms),
            ),
            self._handlers,
            self._log,
        )
        self._stopped = asyncio.Event()
        self._pid = os.getpid()
        for other in list(running_nodes):
            if isinstance(other, Node) and other._pid != self._pid:
                running_nodes.remove(other)  # it stayed behind in the process that forked
        try:
            await driver.start([it.spec for it in self._tasks.values()])
        except BaseException:
            if place is not None:
                place.close()
            raise
        self._driver, self._place = driver, place
        running_nodes.append(self)

    def _data_dir(self) -> DataDir | None:
        """The data directory, which is this node's from now on; None: it keeps nothing.

        Raises:
            DataDirLocked, DataDirInvalid: and how to mend it.
        """
        it = self.settings
        if it.data_dir is None or it.durability == "memory":
            return None
        if not it.takes_a_slot:
            return DataDir(it.data_dir)
        warnings: list[str] = []
        found = slot(it.data_dir, warnings)
        for text in warnings:
            self._log.warning("! %s", text)
        return found

    async def aclose(self, drain_timeout: float | None = None) -> int:
        """Stop: take nothing new, let work end for at most `drain_timeout` seconds.

        Returns:
            How many accepted jobs will not run, as nobody else has them.
        """
        driver = self._driver
        if driver is None or self not in running_nodes or self._pid != os.getpid():
            return 0
        try:
            lost = await driver.stop(self.settings.drain_timeout if drain_timeout is None else drain_timeout)
        finally:
            if self in running_nodes:
                running_nodes.remove(self)
            for events in self._events:
                events.end()
            if self._stopped is not None:
                self._stopped.set()
            place, self._place = self._place, None
            if place is not None:
                place.close()
        if lost:
            self._log.warning("! node %s stopped with %d jobs that will not run", self.name, lost)
        return lost

    async def wait_stopped(self) -> None:
        """Until the node has stopped, for whatever reason; on the loop it was started on.

        Raises:
            NotRunning: it has not been started.
        """
        self._running()
        assert self._stopped is not None
        await self._stopped.wait()

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
        if self._thread is None or self._driver is None or self not in running_nodes or self._pid != os.getpid():
            return 0
        lost = asyncio.run_coroutine_threadsafe(self.aclose(drain_timeout), self._driver.loop).result()
        self._thread.join()
        return lost

    async def _serve(self, ready: concurrent.futures.Future[None]) -> None:
        try:
            await self._open()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self.wait_stopped()

    def take_id(self) -> JobId:
        """A new job id; from any thread."""
        with self._ids_lock:
            return self._ids.take()

    # --- members and events ---------------------------------------------------------------------------------------

    def members(self) -> list[MemberView]:
        """Who is in the cluster, as this node believes now: dead and departed members as long as they are remembered.

        From another thread than that of the node's loop it waits for a turn of that loop.

        Raises:
            NotRunning: the node does not run.
            TimeoutError: from another thread: the node's loop is blocked.
        """
        driver = self._running()
        if driver.is_here:
            return self._members(driver)
        found: concurrent.futures.Future[list[MemberView]] = concurrent.futures.Future()

        def look() -> None:
            try:
                found.set_result(self._members(driver))
            except BaseException as error:
                found.set_exception(error)

        try:
            driver.loop.call_soon_threadsafe(look)
        except RuntimeError:  # its loop is closed
            raise NotRunning(f"node {self.name} is not running") from None
        return found.result(MEMBERS_PATIENCE_S)

    def _members(self, driver: Driver) -> list[MemberView]:
        return [MemberView.of(status, driver.me) for status in driver.members()]

    @property
    def owner(self) -> MemberView | None:
        """The member that holds the delayed queue, as this node believes: any of them. See `members`.

        None while it is not known: before the node has joined, and for a moment after the owner has died.
        """
        return next((member for member in self.members() if member.owner), None)

    @property
    def is_owner(self) -> bool:
        """Whether this node holds the delayed queue. See `members`."""
        owner = self.owner
        return owner is not None and owner.is_me

    def events(self, buffer: int = BUFFER_MAX_COUNT) -> Events:
        """What happens from now on: to members, to this node, and to the jobs and tasks that it is in charge of.

        Args:
            buffer: so many unread events are kept; then the oldest are dropped, and `EventsDropped` says how many.

        Raises:
            NotRunning: the node does not run.
        """
        driver = self._running()
        events = Events(buffer)
        if driver.is_here:
            self._add_events(driver, events)
        else:
            driver.loop.call_soon_threadsafe(self._add_events, driver, events)
        return events

    def _add_events(self, driver: Driver, events: Events) -> None:
        if self not in running_nodes:
            events.end()
        else:
            self._events.add(events)
            driver.listen()

    def _on_fact(self, fact: Fact) -> None:
        """What the engine tells; on the loop."""
        if self._events:
            event = event_of(fact)
            if event is not None:
                for events in self._events:
                    events.push(event)
        if isinstance(fact, IdentityTaken | DiskFailed) and self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self.aclose(0))

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
        if self._pid != os.getpid():
            raise NotRunning(
                f"node {self.name} was started before this process was forked (gunicorn --preload?), and works there "
                "alone: make and start a node in each worker, after the fork"
            )
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
