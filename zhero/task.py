"""Tasks: definitions with metadata and a `run`, in each of the forms in which they can be written.

A decorated function, a class with metadata and a `run`, and an object shaped as the origin's all give the same: a
`Task`. Making one registers nothing; a node is given tasks. A task is used through a node: the one said by `on`, else
that of the job that is running, else the only one that this process runs.

`run` runs inline, here and now, on a round-tripped copy of its params, so that inline and queued runs behave alike.
`enqueue` takes its parameters and its result type from `run`. A function whose first parameter is named `api` receives
the node there; one that takes nothing but `params` receives the whole dict.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from . import codec
from .core.values import Scope, TaskSpec
from .errors import NotBound, ParamsInvalid, TaskInvalid
from .job import Hub, Job, JobOptions, Outcomes, Span, accepted, build_enqueue
from .options import OPTIONS, ORIGIN_NAMES, REQUIRED_OF_ORIGIN, Definition, define, nearest
from .runtime.handlers import Backoff, Handler, Source, current_or_none

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class Api(Protocol):
    """What a task can count on in its node."""

    def log(self, message: str, severity: str = "info") -> None: ...


A = TypeVar("A", bound=Api)

running_nodes: list[Hub] = []
"""The nodes that run in this process; a task finds its own here if there is just one."""


class Code:
    """The code of a task: what it wants to be called with, and whether params fit.

    Raises:
        TaskInvalid: it takes what can't be given by name.
    """

    def __init__(self, function: Callable[..., Any], where: str) -> None:
        self.function = function
        parameters = list(inspect.signature(function).parameters.values())
        self.wants_api = bool(parameters) and parameters[0].name == "api"
        if self.wants_api:
            parameters = parameters[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise TaskInvalid(f"{where}: parameter {parameter} of run can't be given by name, as all params are")
        self.wants_dict = len(parameters) == 1 and parameters[0].name == "params"
        named = [it for it in parameters if it.kind is not it.VAR_KEYWORD]
        self._signature = inspect.Signature(parameters)
        self._known = frozenset(it.name for it in named)
        self._required: frozenset[str] = frozenset(it.name for it in named if it.default is it.empty)
        self._open = self.wants_dict or len(named) < len(parameters)
        if self.wants_dict:
            self._required = frozenset()

    def call(self, params: dict[str, Any], api: Any) -> Any:
        """Call it with params that fit."""
        if self.wants_dict:
            return self.function(api, params) if self.wants_api else self.function(params)
        return self.function(api, **params) if self.wants_api else self.function(**params)

    def check(self, params: Mapping[str, Any], task: str) -> None:
        """Raises:
        ParamsInvalid: params do not fit; the message names the key.
        """
        keys = params.keys()
        if not self._required <= keys:
            raise ParamsInvalid(f"{task}: missing param {min(self._required - keys)!r}")
        if not self._open and not keys <= self._known:
            known = ", ".join(sorted(self._known)) or "none"
            raise ParamsInvalid(f"{task}: unexpected param {min(map(str, keys - self._known))!r}; it takes {known}")

    def params(self, args: tuple[Any, ...], given: dict[str, Any], task: str) -> dict[str, Any]:
        """Arguments of a call as params.

        Raises:
            ParamsInvalid: they do not fit.
        """
        if self.wants_dict:
            if len(args) > 1 or (args and not isinstance(args[0], Mapping)):
                raise ParamsInvalid(f"{task}: give params by name, or as one dict")
            return {**args[0], **given} if args else given
        if args:
            try:
                bound = self._signature.bind(*args, **given)
            except TypeError as error:
                raise ParamsInvalid(f"{task}: {error}") from None
            given = bound.arguments
            for parameter in self._signature.parameters.values():
                if parameter.kind is parameter.VAR_KEYWORD:
                    given.update(given.pop(parameter.name, {}))
        self.check(given, task)
        return given


class Ready(Generic[P, R]):
    """A task with options and a node, ready to be enqueued."""

    __slots__ = ("_hub", "_options", "_task")

    def __init__(self, task: Task, options: JobOptions, hub: Hub | None) -> None:
        self._task = task
        self._options = options
        self._hub = hub

    async def enqueue(self, *args: P.args, **params: P.kwargs) -> Job[R]:
        """Hand a job to the cluster; returns when it is held as promised.

        Raises:
            ParamsInvalid, TaskNotFound, AlreadyQueued, QueueFull, NotBound, NotRunning: nothing was enqueued.
        """
        hub, call = self._call(args, params)
        jobs = accepted(await hub.ask(call), self._task.spec.name)
        return Job(hub, jobs[0], self._task.spec.name)

    def enqueue_soon(self, *args: P.args, **params: P.kwargs) -> Job[R]:
        """The same from any thread, without waiting: `job.wait_accepted()` waits, and raises what was refused.

        Raises:
            ParamsInvalid, NotBound: nothing was enqueued.
        """
        hub, call = self._call(args, params)
        return Job(hub, call.jobs[0][0], self._task.spec.name, hub.ask_soon(call))

    def on(self, node: Hub) -> Ready[P, R]:
        """The same through that node or client."""
        return Ready(self._task, self._options, node)

    def _call(self, args: tuple[Any, ...], params: dict[str, Any]) -> tuple[Hub, Any]:
        task = self._task
        name = task.spec.name
        hub = self._hub or _hub_of(name)
        return hub, build_enqueue(hub, name, [task.code.params(args, params, name)], self._options)


def _hub_of(task: str) -> Hub:
    context = current_or_none()
    if context is not None and context.node is not None:
        return cast(Hub, context.node)
    if len(running_nodes) == 1:
        return running_nodes[0]
    why = "no node runs in this process" if not running_nodes else f"{len(running_nodes)} nodes run in this process"
    raise NotBound(f"{task}: {why}; start one, or say which: {task}.on(node)")


class _Runs(Protocol[P, V_co]):
    """Whatever has a `run`."""

    def run(self, *args: P.args, **kwargs: P.kwargs) -> V_co: ...


class Task:
    """A task in class form: subclass it, give it metadata and a `run`. The decorator makes one of a function.

    Attributes:
        name: default: the name of the class.
        scope: "any": one member runs it; "all": each does.
        frequency: ms or a timedelta; 0: never by itself.
        timeout: seconds or a timedelta that a run may take.
        retries: tries after the first; `backoff`: seconds, timedelta or `Backoff` before them.
        executor: "auto", "async", "thread" or "process".
        result_ttl: seconds or a timedelta for which a result can be asked for.
    """

    name: str = ""
    description: str = ""
    scope: Scope = "any"
    frequency: float | timedelta = 0
    fixed_rate: bool = False
    run_on_start: bool = False
    reenqueue_on_error: bool = True
    announce: bool = True
    priority: int = 0
    result_ttl: Span = 60
    timeout: Span | None = None
    retries: int = 0
    backoff: Span | Backoff | None = None
    executor: Literal["auto", "async", "thread", "process"] = "auto"

    _body: ClassVar[Callable[..., Any] | None] = None
    definition: Definition
    code: Code

    def __init_subclass__(cls, *, of_function: bool = False) -> None:
        super().__init_subclass__()
        body = None if of_function else cls.__dict__.get("run")
        if body is not None:
            cls._body = body
            cls.run = _inline(body)  # type: ignore[attr-defined]
        if cls._body is not None:
            where = f"class {cls.__qualname__} in module {cls.__module__}"
            for name, value in cls.__dict__.items():
                if name not in OPTIONS and not name.startswith("_") and not callable(value) and _misspelt(name):
                    raise TaskInvalid(f"{where}: unknown option {name!r}{nearest(name)}")
            define(cls._given(), cls._body, where)

    def __init__(self) -> None:
        cls = type(self)
        where = f"class {cls.__qualname__} in module {cls.__module__}"
        if cls._body is None:
            raise TaskInvalid(f"{where}: field run is missing: a task needs a method run")
        self._set(define(cls._given(), cls._body, where), Code(functools.partial(cls._body, self), where), where)

    def _set(self, definition: Definition, code: Code, where: str) -> None:
        self.definition = definition
        self.code = code
        self.name = definition.spec.name
        self.description = definition.description
        if definition.mode == "process" and code.wants_api:
            raise TaskInvalid(f"{where}: executor 'process' has no node to give: take the parameter api away")

    @classmethod
    def _given(cls) -> dict[str, Any]:
        """What the class says of itself."""
        given = {option: getattr(cls, option) for option in OPTIONS if getattr(cls, option) != getattr(Task, option)}
        given.setdefault("name", cls.__name__)
        doc = (cls.__dict__.get("__doc__") or "").strip().partition("\n")[0]
        if doc:
            given.setdefault("description", doc)
        return given

    @property
    def spec(self) -> TaskSpec:
        """What members tell one another of this task."""
        return self.definition.spec

    def __repr__(self) -> str:
        return f"<zhero.Task {self.name}>"

    def __zhero_call__(self, params: dict[str, Any], api: Any) -> Any:
        """Call the task's code; a child process does it through this."""
        return self.code.call(params, api)

    def handler(self, api: Any) -> Handler:
        """The task made ready to run on that node.

        Raises:
            TaskInvalid: executor "process", and its code can't be imported by a child process.
        """
        it = self.definition
        source = self._source() if it.mode == "process" else None
        code = self.code
        return Handler(
            it.spec.name, it.mode, lambda params: code.call(params, api), it.timeout_ms, it.retries, it.backoff, source
        )

    def _source(self) -> Source:
        where = self._importable()
        attribute = where.__qualname__
        if "<" in attribute:
            raise TaskInvalid(
                f"task {self.name!r}: executor 'process' needs a task that a child process can import, "
                f"and {attribute} is made inside a function: move it to the top of its module"
            )
        try:
            path: str | None = inspect.getfile(where)
        except (TypeError, OSError):
            path = None
        return Source(where.__module__, path, attribute, self.name)

    def _importable(self) -> Any:
        return type(self)

    @overload
    async def enqueue(self: _Runs[P, Coroutine[Any, Any, R]], *args: P.args, **params: P.kwargs) -> Job[R]: ...
    @overload
    async def enqueue(self: _Runs[P, R], *args: P.args, **params: P.kwargs) -> Job[R]: ...
    async def enqueue(self, *args: Any, **params: Any) -> Job[Any]:
        """Hand a job to the cluster; returns when it is held as promised.

        Raises:
            ParamsInvalid, TaskNotFound, AlreadyQueued, QueueFull, NotBound, NotRunning: nothing was enqueued.
        """
        return await self._ready().enqueue(*args, **params)

    @overload
    def enqueue_soon(self: _Runs[P, Coroutine[Any, Any, R]], *args: P.args, **params: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue_soon(self: _Runs[P, R], *args: P.args, **params: P.kwargs) -> Job[R]: ...
    def enqueue_soon(self, *args: Any, **params: Any) -> Job[Any]:
        """The same from any thread, without waiting: `job.wait_accepted()` waits, and raises what was refused."""
        return self._ready().enqueue_soon(*args, **params)

    @overload
    def options(
        self: _Runs[P, Coroutine[Any, Any, R]],
        *,
        run_in: Span | None = None,
        run_at: float | datetime | None = None,
        priority: int | None = None,
        id: str | None = None,
        announce: bool | None = None,
    ) -> Ready[P, R]: ...
    @overload
    def options(
        self: _Runs[P, R],
        *,
        run_in: Span | None = None,
        run_at: float | datetime | None = None,
        priority: int | None = None,
        id: str | None = None,
        announce: bool | None = None,
    ) -> Ready[P, R]: ...
    def options(
        self,
        *,
        run_in: Span | None = None,
        run_at: float | datetime | None = None,
        priority: int | None = None,
        id: str | None = None,
        announce: bool | None = None,
    ) -> Ready[Any, Any]:
        """The task with options for one enqueue.

        Args:
            run_in: seconds or a timedelta from now; not before.
            run_at: ms since the epoch or an aware datetime; not before. In the past: as soon as possible.
            priority: -100 to 100; higher first.
            id: a name of your own for the job: the same twice is one job, until 24 hours after its end.
            announce: whether start and end are logged.

        Raises:
            ParamsInvalid: one of them can't be.
        """
        made = JobOptions.of(run_in=run_in, run_at=run_at, priority=priority, id=id, announce=announce)
        return Ready(self, made, None)

    @overload
    def on(self: _Runs[P, Coroutine[Any, Any, R]], node: Hub) -> Ready[P, R]: ...
    @overload
    def on(self: _Runs[P, R], node: Hub) -> Ready[P, R]: ...
    def on(self, node: Hub) -> Ready[Any, Any]:
        """The task through that node or client."""
        return Ready(self, JobOptions(), node)

    def _ready(self) -> Ready[Any, Any]:
        return Ready(self, JobOptions(), None)


class FunctionTask(Task, Generic[P, V], of_function=True):
    """A task made of a function, which stays callable as it was."""

    def __init__(self, function: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
        self._set(define(given, function, where), Code(function, where), where)
        self._function = function
        self._inline = _inline(function)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """The function, as it was."""
        return cast(V, self._function(*args, **kwargs))

    def run(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """Run it inline, here and now, on a round-tripped copy of the params; no queue, no retries, no timeout."""
        return cast(V, self._inline(self, *args, **kwargs))

    def _importable(self) -> Any:
        return self._function


class AllFunctionTask(FunctionTask[P, V], of_function=True):
    """A function task of scope "all": what its jobs end with is one outcome per member.

    The overrides differ in nothing but that type, which a subclass may not narrow otherwise.
    """

    @overload  # type: ignore[override]
    async def enqueue(
        self: _Runs[P, Coroutine[Any, Any, R]], *args: P.args, **params: P.kwargs
    ) -> Job[Outcomes[R]]: ...
    @overload
    async def enqueue(self: _Runs[P, R], *args: P.args, **params: P.kwargs) -> Job[Outcomes[R]]: ...
    async def enqueue(self, *args: Any, **params: Any) -> Job[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Hand a job to the cluster; each member that has the task runs it once."""
        return await self._ready().enqueue(*args, **params)


def _inline(body: Callable[..., Any]) -> Callable[..., Any]:
    """`body` on round-tripped params and with a round-tripped result; called with the task first."""
    if inspect.iscoroutinefunction(body):

        async def run_async(task: Task, *args: Any, **given: Any) -> Any:
            params, api = _inline_params(task, args, given)
            return _copy(await task.code.call(params, api), "result")

        return functools.wraps(body)(run_async)

    def run_plain(task: Task, *args: Any, **given: Any) -> Any:
        params, api = _inline_params(task, args, given)
        return _copy(task.code.call(params, api), "result")

    return functools.wraps(body)(run_plain)


def _inline_params(task: Task, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    api: Any = None
    if task.code.wants_api:
        if args and not (len(args) == 1 and isinstance(args[0], Mapping)):
            api, args = args[0], args[1:]
        else:
            api = given.pop("api", None) or _hub_of(task.name)
    return _copy(task.code.params(args, given, task.name), "params"), api


def _copy(value: Any, name: str) -> Any:
    return codec.decode(codec.encode(value, name))


def _misspelt(name: str) -> bool:
    return "did you mean" in nearest(name)


class _Decorator(Protocol):
    """What `task(...)` returns."""

    @overload
    def __call__(self, function: Callable[[A, dict[str, Any]], V], /) -> FunctionTask[..., V]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[A, P], V], /) -> FunctionTask[P, V]: ...
    @overload
    def __call__(self, function: Callable[P, V], /) -> FunctionTask[P, V]: ...


class _AllDecorator(Protocol):
    """What `task(scope="all", ...)` returns."""

    @overload
    def __call__(self, function: Callable[[A, dict[str, Any]], V], /) -> AllFunctionTask[..., V]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[A, P], V], /) -> AllFunctionTask[P, V]: ...
    @overload
    def __call__(self, function: Callable[P, V], /) -> AllFunctionTask[P, V]: ...


@overload
def task(function: Callable[[A, dict[str, Any]], V], /) -> FunctionTask[..., V]: ...
@overload
def task(function: Callable[Concatenate[A, P], V], /) -> FunctionTask[P, V]: ...
@overload
def task(function: Callable[P, V], /) -> FunctionTask[P, V]: ...
@overload
def task(*, scope: Literal["all"], **options: Any) -> _AllDecorator: ...
@overload
def task(*, scope: Literal["any"] = "any", **options: Any) -> _Decorator: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task of a function; it stays callable as it was. Registers nothing.

    Args:
        options: name, description, scope, frequency, fixed_rate, run_on_start, reenqueue_on_error, announce, priority,
            result_ttl, timeout, retries, backoff, executor: see `Task`.

    Raises:
        TaskInvalid: an option is unknown or wrong.
    """
    if function is None:
        return functools.partial(_make, options=options)
    return _make(function, options)


def _make(function: Any, options: Mapping[str, Any]) -> Task:
    if not inspect.isfunction(function):
        raise TaskInvalid(f"@zhero.task is for functions, not {function!r}; a class derives from zhero.Task")
    return _of_function(function, options, f"function {function.__qualname__} in {function.__code__.co_filename}")


def _of_function(function: Callable[..., Any], options: Mapping[str, Any], where: str) -> Task:
    if options.get("scope") == "all":
        return AllFunctionTask[..., Any](function, options, where)
    return FunctionTask[..., Any](function, options, where)


def task_from(shape: Any, where: str = "definition") -> Task:
    """The task in a definition of any form: a `Task`, a subclass of it, or a dict or object shaped as the origin's.

    Raises:
        TaskInvalid: it is none, or a field is missing or wrong.
    """
    if isinstance(shape, Task):
        return shape
    if inspect.isclass(shape) and issubclass(shape, Task):
        return shape()
    if isinstance(shape, Mapping):
        fields = dict(cast(Mapping[str, Any], shape))
    else:
        wanted = (*OPTIONS, *ORIGIN_NAMES, "run")
        fields = {name: getattr(shape, name) for name in wanted if hasattr(shape, name)}
    if not fields:
        raise TaskInvalid(f"{where}: {shape!r} is no task")
    where = f"{where}, task {fields.get('name', '(no name)')!r}"
    for field in REQUIRED_OF_ORIGIN:
        if field not in fields:
            raise TaskInvalid(f"{where}: field {field} is missing")
    run = fields.pop("run")
    if not callable(run):
        raise TaskInvalid(f"{where}: field run must be a function, not {run!r}")
    given = {ORIGIN_NAMES.get(name, name): value for name, value in fields.items()}
    return _of_function(run, given, where)
