"""The forms of definition besides the class: the decorator, and the origin's object or dict.

The overloads say what a checker gets to know of a decorated function. Its form (`signature`) is told by the names of
its parameters, here as there; a coroutine function's result is what it returns when awaited; with scope "all" a job
results in the `Outcomes` of all members. In the origin's forms params are whatever the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Concatenate, Literal, Never, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from . import options
from .errors import TaskInvalid
from .options import Delivery, Executor
from .outcomes import Outcomes
from .runtime.handlers import Backoff
from .task import Async, FunctionTask, Task

P = ParamSpec("P")
R = TypeVar("R")
C_co = TypeVar("C_co", covariant=True)

ORIGIN_FIELDS = ("name", "description", "scope", "frequency", "run")
"""What a definition in the origin's form has to have."""


class ParamsFunction(Protocol[C_co]):
    """Takes the params as one dict."""

    def __call__(self, params: dict[str, Any]) -> C_co: ...


class OriginFunction(Protocol[C_co]):
    """Takes the node, and the params as one dict."""

    def __call__(self, api: Never, params: dict[str, Any]) -> C_co: ...


class ApiFunction(Protocol[P, C_co]):
    """Takes the node, then its params one by one."""

    def __call__(self, api: Never, *args: P.args, **kwargs: P.kwargs) -> C_co: ...


class TaskOptions(TypedDict, total=False):
    """The options of the decorator but `scope`, which decides on a type; `Task` says what they mean."""

    name: str
    description: str
    frequency: float | timedelta
    fixed_rate: bool
    run_on_start: bool
    announce: bool
    timeout: float | timedelta | None
    retries: int
    backoff: float | timedelta | Backoff | None
    priority: int
    backups: int | None
    delivery: Delivery
    executor: Executor
    result_ttl: float | timedelta
    reenqueue_on_error: bool


class _Options:
    """What was said so far; the same object is the decorator."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def _decorate(self, function: object) -> FunctionTask[..., ..., Any, Any]:
        if isinstance(function, type):
            raise TaskInvalid(f"class {function.__qualname__}: a task in class form derives from zhero.Task instead")
        if isinstance(function, Task):
            raise TaskInvalid(f"task {function.name}: it is a task already")
        if not callable(function):
            raise TaskInvalid(f"zhero.task decorates a function, not {function!r}; options are given by name")
        named = getattr(function, "__name__", "<function>")
        place = f"task {self._given.get('name', named)}"
        fields = _respelt(self._given, options.NAMES, place)
        if "<" not in named:
            fields.setdefault("name", named)
        return FunctionTask(function, fields, place)


class TaskDecoratorOnAll(_Options):
    """`@zhero.task(scope="all", ...)`"""

    @overload
    def __call__(self, function: OriginFunction[Async[R]], /) -> FunctionTask[..., ..., Async[R], Outcomes[R]]: ...
    @overload
    def __call__(self, function: OriginFunction[R], /) -> FunctionTask[..., ..., R, Outcomes[R]]: ...
    @overload
    def __call__(self, function: ParamsFunction[Async[R]], /) -> FunctionTask[..., ..., Async[R], Outcomes[R]]: ...
    @overload
    def __call__(self, function: ParamsFunction[R], /) -> FunctionTask[..., ..., R, Outcomes[R]]: ...
    @overload
    def __call__(
        self, function: ApiFunction[P, Async[R]], /
    ) -> FunctionTask[Concatenate[Any, P], P, Async[R], Outcomes[R]]: ...
    @overload
    def __call__(self, function: ApiFunction[P, R], /) -> FunctionTask[Concatenate[Any, P], P, R, Outcomes[R]]: ...
    @overload
    def __call__(self, function: Callable[P, Async[R]], /) -> FunctionTask[P, P, Async[R], Outcomes[R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> FunctionTask[P, P, R, Outcomes[R]]: ...
    def __call__(self, function: Any, /) -> Any:
        return self._decorate(function)


class TaskDecorator(_Options):
    """`@zhero.task` or `@zhero.task(retries=5, ...)`: make a function a task; it stays callable as it was.

    Options are those of `Task`; the name is the function's, if none is given.

    Raises:
        TaskInvalid: naming the task and the field; an unknown option with the nearest known one.
    """

    @overload
    def __call__(self, function: OriginFunction[Async[R]], /) -> FunctionTask[..., ..., Async[R], R]: ...
    @overload
    def __call__(self, function: OriginFunction[R], /) -> FunctionTask[..., ..., R, R]: ...
    @overload
    def __call__(self, function: ParamsFunction[Async[R]], /) -> FunctionTask[..., ..., Async[R], R]: ...
    @overload
    def __call__(self, function: ParamsFunction[R], /) -> FunctionTask[..., ..., R, R]: ...
    @overload
    def __call__(self, function: ApiFunction[P, Async[R]], /) -> FunctionTask[Concatenate[Any, P], P, Async[R], R]: ...
    @overload
    def __call__(self, function: ApiFunction[P, R], /) -> FunctionTask[Concatenate[Any, P], P, R, R]: ...
    @overload
    def __call__(self, function: Callable[P, Async[R]], /) -> FunctionTask[P, P, Async[R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> FunctionTask[P, P, R, R]: ...
    @overload
    def __call__(self, *, scope: Literal["all"], **given: Unpack[TaskOptions]) -> TaskDecoratorOnAll: ...
    @overload
    def __call__(self, *, scope: Literal["any"] = "any", **given: Unpack[TaskOptions]) -> TaskDecorator: ...
    def __call__(self, *function: Any, **given: Any) -> Any:
        if not given and len(function) == 1:
            return self._decorate(function[0])
        if function:
            raise TaskInvalid("zhero.task takes a function, or options by name, and not both")
        return TaskDecorator({**self._given, **given})


task = TaskDecorator({})


def task_from(definition: object) -> Task:
    """A task from whatever form it is defined in.

    Args:
        definition: a task, a class of tasks, or, as the origin had it, a dict or an object with `name`, `description`,
            `scope`, `frequency` and `run`.

    Raises:
        TaskInvalid: naming the task and the field that is missing, unknown or wrong.
    """
    if isinstance(definition, Task):
        return definition
    if isinstance(definition, type):
        if issubclass(definition, Task):
            return _made(definition)
        raise TaskInvalid(f"class {definition.__qualname__}: a task in class form derives from zhero.Task")
    if isinstance(definition, Mapping):
        return _from_fields(cast("Mapping[str, Any]", definition))
    if callable(definition) and not hasattr(definition, "run"):
        raise TaskInvalid(f"{definition!r} is no task; decorate it with @zhero.task")
    return _from_fields(_fields_of(definition))


def _made(definition: type[Task]) -> Task:
    try:
        return definition()
    except TypeError as error:  # its own __init__ needs to be told something
        raise TaskInvalid(f"class {definition.__qualname__}: can't be made without arguments: {error}") from error


def _from_fields(given: Mapping[str, Any]) -> Task:
    place = f"task {given.get('name', '<nameless>')}"
    fields = _respelt(given, (*options.NAMES, "run"), place)
    missing = next((field for field in ORIGIN_FIELDS if field not in fields), None)
    if missing is not None:
        raise TaskInvalid(f"{place}: {missing} is missing")
    function = fields.pop("run")
    if not callable(function):
        raise TaskInvalid(f"{place}: run={function!r}: give a function")
    made: FunctionTask[..., ..., Any, Any] = FunctionTask(function, fields, place)
    return made


def _fields_of(definition: object) -> dict[str, Any]:
    """The options among an object's attributes; it may have others, if none looks like a misspelt option."""
    fields: dict[str, Any] = {}
    for word in dir(definition):
        if word.startswith("_"):
            continue
        if word == "run" or options.plain_spelling(word) in options.NAMES:
            fields[word] = getattr(definition, word)
        elif (meant := options.misspelt(word)) is not None and not callable(getattr(definition, word)):
            raise TaskInvalid(f"{definition!r}: unknown option {word}; did you mean {meant}?")
    return fields


def _respelt(given: Mapping[str, Any], known: tuple[str, ...], place: str) -> dict[str, Any]:
    try:
        return options.respelt(given, known, "option")
    except ValueError as error:
        raise TaskInvalid(f"{place}: {error}") from None
