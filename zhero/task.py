"""Tasks: what is to be done, defined once, in any of three forms.

    @zhero.task(retries=5)                     class CleanLogFiles(zhero.Task):         zhero.task_from({
    async def send_email(to: str): ...             name = "cleanLogFiles"                   "name": "sayHi", ...,
                                                   async def run(self, max_bytes): ...      "run": say_hi})

All give a `Task`: a `Definition` (its options), a `Signature` (how its function takes params) and the function itself.
Defining registers nothing: a node is given its tasks. A task finds its way to a node by name when it is used: the node
chosen with `on`, else that of the running job, else the only one that runs in this process (`running_nodes`).

`options` and `on` return a twin, that differs in nothing else, so what they return is used like the task itself.

`run` is the function, here and now, on a copy of the params that has gone through the codec: what a queued run would
be given. In the class form the class's own `run` stays as it is written; each instance has its inline one before it.

Types: a function's parameters are read by the same *names* as in `signature`, so the protocols below name them; `Never`
for the node accepts whatever type it is annotated with. `FunctionTask` has the parameters of the call (Q) and those of
the params (P), what the function returns (C) and what a job of it results in (R). The class form has only its `run`,
from which `enqueue` takes both. `tests/typing` has what mypy and pyright make of it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Never, ParamSpec, Protocol, Self, TypeVar, cast, overload

from . import options
from .codec import decode, encode
from .core.values import Scope, TaskSpec
from .errors import NotBound, ParamsInvalid, TaskInvalid
from .job import NO_OPTIONS, Hub, Job, JobOptions, enqueue_all, enqueue_soon
from .options import Definition, Delivery, Executor
from .runtime.handlers import Backoff, Handler, Source, current_or_none
from .signature import Signature

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
C_co = TypeVar("C_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)

Async = Coroutine[Any, Any, R]

running_nodes: list[Hub] = []
"""The nodes that run in this process; each puts itself here while it does."""


class Runs(Protocol[P, C_co]):
    """Whatever has a `run`."""

    def run(self, *args: P.args, **kwargs: P.kwargs) -> C_co: ...


class RunsAsOrigin(Protocol[C_co]):
    """Whatever has a `run` in the origin's form."""

    def run(self, api: Never, params: dict[str, Any]) -> C_co: ...


class Task:
    """A task. As a base class: give it metadata and a `run`.

    Attributes:
        name: under which it is enqueued.
        description: for people; default: the first line of the docstring.
        scope: "any": one member runs a job; "all": each does.
        frequency: 0: never by itself; else the period, in milliseconds or as a timedelta.
        fixed_rate: periods count from due to due, not from end to due.
        run_on_start: the first round is due at once, not after one period.
        announce: whether start and end of jobs are logged; errors always are.
        timeout: how long a run may take, in seconds or as a timedelta; None: as long as it takes.
        retries: how many runs may follow a failed first one.
        backoff: the first wait before such a run, in seconds or as a timedelta, or a `Backoff`.
        priority: -100..100; higher runs first.
        backups: copies of a job that have to be at other members before it is accepted, 0 to 2; None: as many as the
            node that takes it is set to.
        delivery: "at_least_once": a job whose node died runs again elsewhere; "at_most_once": a run that may have begun
            is never begun again, so its job may be lost.
        executor: "async" on the loop, "thread", "process"; "auto": "async" for coroutine functions, else "thread".
        result_ttl: how long the outcome of a job can be asked for, in seconds or as a timedelta.
        reenqueue_on_error: a periodic task goes on after a round that failed.
    """

    name: str
    description: str
    scope: Scope = "any"
    frequency: float | timedelta = 0
    fixed_rate: bool = False
    run_on_start: bool = False
    announce: bool = True
    timeout: float | timedelta | None = None
    retries: int = 0
    backoff: float | timedelta | Backoff | None = None
    priority: int = 0
    backups: int | None = None
    delivery: Delivery = "at_least_once"
    executor: Executor = "auto"
    result_ttl: float | timedelta = 60
    reenqueue_on_error: bool = True

    _definition: Definition
    _signature: Signature
    _function: Callable[..., Any]
    _home: Any
    _mode: Literal["async", "thread", "process"]
    _hub: Hub | None = None
    _job_options: JobOptions = NO_OPTIONS

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            return
        place = f"class {cls.__qualname__}"
        for field, value in vars(cls).items():
            if field in options.NAMES:
                options.read(field, value, place)
            elif not field.startswith("_") and not callable(value):
                meant = options.misspelt(field)
                if meant is not None:
                    raise TaskInvalid(
                        f"{place}: unknown option {field}; did you mean {meant}? (or choose another word)"
                    )

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Made for the class form; `FunctionTask` has its own.

        Raises:
            TaskInvalid: naming the class and the field.
        """
        task = super().__new__(cls)
        place = f"class {cls.__qualname__}"
        if cls.run is Task.run:
            raise TaskInvalid(f"{place}: run is missing: write `async def run(self, ...)`")
        said = {field: getattr(cls, field, None) for field in options.NAMES}
        fields = {field: value for field, value in said.items() if value is not getattr(Task, field, None)}
        task._set_up(options.define(fields, place), task.run, cls, place)
        task._put_inline_run()
        return task

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    # --- use ------------------------------------------------------------------------------------------------------

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the task does. Called by users, it runs inline, on a round-tripped copy of the params."""
        raise NotImplementedError

    @overload
    async def enqueue(self: RunsAsOrigin[Async[R]], *args: Any, **kwargs: Any) -> Job[R]: ...
    @overload
    async def enqueue(self: RunsAsOrigin[R], *args: Any, **kwargs: Any) -> Job[R]: ...
    @overload
    async def enqueue(self: Runs[P, Async[R]], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def enqueue(self: Runs[P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    async def enqueue(self, *args: Any, **kwargs: Any) -> Job[Any]:
        """Hand a job to the cluster; accepted when this returns.

        Args:
            args, kwargs: the params, as the function takes them, without the node.

        Raises:
            ParamsInvalid: they do not fit the function, or can't be sent.
            NotBound: no node runs here, or several do; choose one with `on`.
            TaskNotFound, AlreadyQueued, QueueFull, NotRunning: nothing was enqueued.
            NotAccepted: it is held, but its copies did not exist in time; it may run.
        """
        return await self._enqueue(args, kwargs)

    @overload
    def enqueue_soon(self: RunsAsOrigin[Async[R]], *args: Any, **kwargs: Any) -> Job[R]: ...
    @overload
    def enqueue_soon(self: RunsAsOrigin[R], *args: Any, **kwargs: Any) -> Job[R]: ...
    @overload
    def enqueue_soon(self: Runs[P, Async[R]], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue_soon(self: Runs[P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    def enqueue_soon(self, *args: Any, **kwargs: Any) -> Job[Any]:
        """Hand a job to the cluster from any thread, without waiting; `Job.wait_accepted` says how that went.

        Raises:
            ParamsInvalid, NotBound: as `enqueue`. What is refused later is raised by `Job.wait_accepted`, and logged.
        """
        return self._enqueue_soon(args, kwargs)

    def options(
        self,
        *,
        run_in: float | timedelta | None = None,
        run_at: float | datetime | None = None,
        priority: int | None = None,
        id: str | None = None,
        announce: bool | None = None,
    ) -> Self:
        """The task, with options for the jobs that are enqueued with what this returns.

        Args:
            run_in: seconds or a timedelta from now.
            run_at: ms since the Unix epoch or an aware datetime; past: now.
            priority: -100..100; higher runs first.
            id: the caller's own name for the job: the same twice is one job.
            announce: whether its start and end are logged.

        Raises:
            ParamsInvalid: naming the option.
        """
        twin = self._twin()
        twin._job_options = self._job_options.given(
            run_in=run_in, run_at=run_at, priority=priority, id=id, announce=announce
        )
        return twin

    def on(self, node: Hub) -> Self:
        """The task, bound to that node or client."""
        twin = self._twin()
        twin._hub = node
        twin._put_inline_run()
        return twin

    # --- what a node needs ----------------------------------------------------------------------------------------

    @property
    def spec(self) -> TaskSpec:
        """What other members have to know of it."""
        return self._definition.spec

    @property
    def definition(self) -> Definition:
        """Its options, read. Twins share it, and nothing else does."""
        return self._definition

    @property
    def job_options(self) -> JobOptions:
        """What `options` said."""
        return self._job_options

    @property
    def is_async(self) -> bool:
        """Whether a call of it returns an awaitable."""
        called = getattr(self._function, "__call__", None)  # noqa: B004  # of an object that is used as a function
        return inspect.iscoroutinefunction(self._function) or inspect.iscoroutinefunction(called)

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Whether the function can be called with these.

        Raises:
            ParamsInvalid: naming the task and the key.
        """
        self._signature.check(self.name, params)

    def call(self, params: dict[str, Any], api: Any) -> Any:
        """The function with these params, as they are."""
        return self._signature.caller(self._function, api)(params)

    def __zhero_call__(self, params: dict[str, Any], api: Any) -> Any:
        """What a child process calls."""
        return self.call(params, api)

    def handler(self, api: Any) -> Handler:
        """What an executor runs.

        Args:
            api: the node, for a function that takes it.
        """
        definition = self._definition
        return Handler(
            self.name,
            self._mode,
            self._signature.caller(self._function, api),
            definition.timeout_ms,
            definition.retries,
            definition.backoff,
            self._source() if self._mode == "process" else None,
        )

    # --- inside ---------------------------------------------------------------------------------------------------

    def _set_up(self, definition: Definition, function: Callable[..., Any], home: Any, place: str) -> None:
        """Take what the task consists of.

        Args:
            function: what runs, bound if it is a method.
            home: the function or class that is found in a module.
            place: what errors call the task.
        """
        try:
            self._signature = Signature(function)
        except ValueError as error:
            raise TaskInvalid(f"{place}: run: {error}") from None
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TaskInvalid(f"{place}: run: it yields; return what it has to give, as a list for example")
        self._definition = definition
        self._function = function
        self._home = home
        self._mode = self._mode_of(definition.executor, place)
        self.name = definition.spec.name
        self.description = definition.description or (inspect.getdoc(home) or "").partition("\n")[0]

    def _mode_of(self, executor: Executor, place: str) -> Literal["async", "thread", "process"]:
        place = f"{place}: executor={executor!r}"
        if executor == "auto":
            return "async" if self.is_async else "thread"
        if executor == "async" and not self.is_async:
            raise TaskInvalid(f"{place}: a plain function would block the loop; use 'thread', or write `async def`")
        if executor == "thread" and self.is_async:
            raise TaskInvalid(
                f"{place}: a coroutine function runs on the loop or in a process; write `def` for a thread"
            )
        if executor == "process":
            if self._signature.takes_api:
                raise TaskInvalid(f"{place}: there is no node in a child process, so run can't take api")
            if "<" in getattr(self._home, "__qualname__", "<") or inspect.ismethod(self._home):
                raise TaskInvalid(f"{place}: a child process has to find it: define it at the top level of a module")
        return executor

    def _put_inline_run(self) -> None:
        """Before a class's own `run`, for those who call it."""
        self.__dict__["run"] = functools.wraps(self._function)(functools.partial(self._inline))

    def _twin(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def _inline(self, *args: Any, **kwargs: Any) -> Any:
        api = None
        if self._signature.takes_api:
            if args and hasattr(args[0], "log"):  # a class's `run` may be called as it is written
                api, args = args[0], args[1:]
            else:
                api = self._node()
        params = self._signature.params_of(self.name, args, kwargs)
        try:
            copy = decode(encode(params, "params"))
        except ParamsInvalid as error:
            raise ParamsInvalid(f"task {self.name}: {error}") from error
        return self.call(copy, api)

    async def _enqueue(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Job[Any]:
        params = self._signature.params_of(self.name, args, kwargs)
        (job,) = await enqueue_all(self._node(), self.name, [params], self._job_options)
        return job

    def _enqueue_soon(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Job[Any]:
        params = self._signature.params_of(self.name, args, kwargs)
        return enqueue_soon(self._node(), self.name, params, self._job_options)

    def _node(self) -> Hub:
        if self._hub is not None:
            return self._hub
        context = current_or_none()
        if context is not None and context.node is not None:
            return cast("Hub", context.node)
        if len(running_nodes) == 1:
            return running_nodes[0]
        if running_nodes:
            why = f"{len(running_nodes)} nodes run in this process; choose one"
        else:
            why = "no node runs in this process; start one (`async with zhero.Node(tasks=...)`), or choose a client"
        raise NotBound(f"task {self.name}: {why}: task.on(node).enqueue(...)")

    def _source(self) -> Source:
        """Where a child process finds this task: by the name it has in its module, if it has one."""
        module = sys.modules.get(self._home.__module__)
        named = [name for name, value in vars(module).items() if value is self] if module is not None else []
        if not named and self._signature.takes_dict and not isinstance(self._home, type):
            raise TaskInvalid(
                f"task {self.name}: executor='process': a child process finds only its function, which "
                "takes `params`; decorate it with @zhero.task, or name its params one by one"
            )
        attribute = named[0] if named else self._home.__qualname__
        return Source(self._home.__module__, getattr(module, "__file__", None), attribute, self.name)


class FunctionTask(Task, Generic[Q, P, C_co, R_co]):
    """A task made of a function, which can be called as before.

    Args:
        function: what it does.
        fields: its options, in our spelling.
        place: what errors call it.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return object.__new__(cls)

    def __init__(self, function: Callable[..., Any], fields: Mapping[str, Any], place: str) -> None:
        definition = options.define(fields, place)
        functools.update_wrapper(self, function)
        for field, value in fields.items():
            setattr(self, field, value)
        self._set_up(definition, function, function, place)

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> C_co:
        """Call the function, as if it were no task."""
        return cast("C_co", self._function(*args, **kwargs))

    def run(self, *args: P.args, **kwargs: P.kwargs) -> C_co:
        """Run it inline: here and now, on a round-tripped copy of the params, with the node where it takes one.

        Raises:
            ParamsInvalid: the params do not fit the function, or can't be sent.
            NotBound: it takes the node, and there is none or more than one; choose with `on`.
        """
        return cast("C_co", self._inline(*args, **kwargs))

    # The base reads the types off `run`, here they are parameters of the class: checkers can't see that it is the same.
    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:  # type: ignore[override]
        return await self._enqueue(args, kwargs)

    def enqueue_soon(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:  # type: ignore[override]
        return self._enqueue_soon(args, kwargs)

    def _put_inline_run(self) -> None:
        """Its `run` is inline already."""
