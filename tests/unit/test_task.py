"""Definitions in all their forms, inline runs, and which node a task goes to."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from zhero.codec import decode
from zhero.core.values import Header, JobId, Run, TaskSpec, keyed_id
from zhero.errors import NotBound, ParamsInvalid, TaskInvalid
from zhero.forms import task, task_from
from zhero.runtime.child import find
from zhero.runtime.handlers import RUNNING, Backoff, Running
from zhero.task import Task, running_nodes

from .hub import FakeHub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """The only node of the process."""
    made = FakeHub()
    running_nodes.append(made)
    yield made
    running_nodes.remove(made)


@task(description="send one email", timeout=30, retries=5, priority=3)
async def send_email(to: str, subject: str = "hi") -> str:
    """Not this."""
    return f"{to}: {subject}"


@task
def add(a: int, b: int) -> int:
    """Add two numbers.

    And no more.
    """
    return a + b


class Clean(Task):
    """Delete what is old."""

    name = "clean"
    scope = "all"
    frequency = 60_000
    result_ttl = timedelta(minutes=5)

    async def run(self, max_bytes: int = 10) -> list[Any]:
        return [type(self).__name__, max_bytes]


def say_hi(api: Any, params: dict[str, Any]) -> str:
    api.log("hi", "green")
    return f"hi {params}"


ORIGIN: dict[str, Any] = {
    "name": "sayHi",
    "description": "I say hi",
    "scope": "any",
    "frequency": 1000,
    "run": say_hi,
}

# --- all forms give the same record ---


def test_a_decorated_function_is_a_task_with_its_options() -> None:
    assert isinstance(send_email, Task)
    assert send_email.spec == TaskSpec("send_email", priority=3)
    assert send_email.description == "send one email"
    definition = send_email.definition
    assert (definition.timeout_ms, definition.retries, definition.backoff) == (30_000, 5, Backoff())


def test_a_decorated_function_stays_what_it_was() -> None:
    assert asyncio.run(send_email("ann", subject="x")) == "ann: x"
    assert add(1, b=2) == 3
    assert add.__name__ == "add"
    assert add.__module__ == __name__
    assert (add.__doc__ or "").startswith("Add two numbers.")
    assert str(inspect.signature(add)) == "(a: 'int', b: 'int') -> 'int'"


def test_the_description_is_the_first_line_of_the_docstring_where_none_is_given() -> None:
    assert add.description == "Add two numbers."
    assert Clean().description == "Delete what is old."


def test_a_class_is_a_task_with_its_options() -> None:
    clean = Clean()
    assert clean.spec == TaskSpec("clean", "all", 60_000, result_ttl_ms=300_000)
    assert clean.name == "clean"


def test_a_class_inherits_its_options() -> None:
    class Cleaner(Clean):
        name = "cleaner"
        retries = 2

    assert Cleaner().spec == TaskSpec("cleaner", "all", 60_000, result_ttl_ms=300_000)
    assert Cleaner().definition.retries == 2


def test_a_class_says_the_same_as_the_decorator_where_it_says_nothing() -> None:
    class Plain(Task):
        name = "plain"

        def run(self) -> None: ...

    @task(name="plain")
    def plain() -> None: ...

    assert Plain().definition == plain.definition


@pytest.mark.parametrize("shape", [dict, lambda fields: SimpleNamespace(**fields)])
def test_the_form_of_the_origin_is_a_task(shape: Callable[[dict[str, Any]], object]) -> None:
    made = task_from(shape({**ORIGIN, "toAnnounce": False}))
    assert made.spec == TaskSpec("sayHi", "any", 1000, announce=False)
    assert made.description == "I say hi"


def test_an_object_of_the_origin_may_have_attributes_of_its_own() -> None:
    class SayHi:
        name = "sayHi"
        description = "I say hi"
        scope = "any"
        frequency = 0

        def __init__(self) -> None:
            self.greeting = "hello"

        async def run(self, api: object, params: dict[str, Any]) -> str:
            return self.greeting

    made = task_from(SayHi())
    assert made.handler(None).mode == "async"
    assert asyncio.run(made.call({}, None)) == "hello"


def test_a_task_and_a_class_are_forms_too() -> None:
    assert task_from(add) is add
    assert isinstance(task_from(Clean), Clean)


# --- bad definitions ---


@pytest.mark.parametrize("missing", sorted(ORIGIN))
def test_the_form_of_the_origin_needs_each_of_its_fields(missing: str) -> None:
    with pytest.raises(TaskInvalid, match=f"{missing} is missing"):
        task_from({field: value for field, value in ORIGIN.items() if field != missing})


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("name", 5), ("description", None), ("scope", "some"), ("frequency", "1000"), ("run", "no function")],
)
def test_the_form_of_the_origin_needs_the_right_values(field: str, wrong: object) -> None:
    with pytest.raises(TaskInvalid, match=f"^task .*: {field}="):
        task_from({**ORIGIN, field: wrong})


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(TaskInvalid, match=r"task add: unknown option 'retry'; did you mean retries\?"):
        task(retry=3)(add.__wrapped__)  # type: ignore[call-overload,attr-defined]
    with pytest.raises(TaskInvalid, match=r"task sayHi: unknown option 'frequncy'; did you mean frequency\?"):
        task_from({**ORIGIN, "frequncy": 5})
    with pytest.raises(TaskInvalid, match=r"unknown option frequncy; did you mean frequency\?"):
        task_from(SimpleNamespace(**ORIGIN, frequncy=5))


def test_a_frequency_in_seconds_is_refused_with_the_names_of_task_and_field() -> None:
    with pytest.raises(TaskInvalid, match=r"task tick: frequency=5: .*milliseconds"):

        @task(frequency=5)
        def tick() -> None: ...


def test_a_class_with_a_wrong_option_can_not_be_made() -> None:
    with pytest.raises(TaskInvalid, match=r"class .*Wrong: frequency=5: .*milliseconds"):

        class Wrong(Task):
            frequency = 5


def test_a_class_with_a_misspelt_option_can_not_be_made() -> None:
    with pytest.raises(TaskInvalid, match=r"class .*Wrong: unknown option frequncy; did you mean frequency\?"):

        class Wrong(Task):
            frequncy = 1000


def test_a_class_without_name_or_run_is_refused_when_it_is_used() -> None:
    class Nameless(Task):
        def run(self) -> None: ...

    class Idle(Task):
        name = "idle"

    with pytest.raises(TaskInvalid, match=r"class .*Nameless: name is missing"):
        Nameless()
    with pytest.raises(TaskInvalid, match=r"class .*Idle: run is missing"):
        Idle()


@pytest.mark.parametrize("wrong", [5, "sayHi", None, len, lambda: None])
def test_what_is_no_definition_is_refused(wrong: object) -> None:
    with pytest.raises(TaskInvalid):
        task_from(wrong)


class NoTask:
    def run(self) -> None: ...


@pytest.mark.parametrize("wrong", [5, NoTask, add, "name"])
def test_only_functions_are_decorated(wrong: Any) -> None:
    with pytest.raises(TaskInvalid):
        task(wrong)


def test_a_function_without_a_name_needs_one() -> None:
    with pytest.raises(TaskInvalid, match="name is missing"):
        task(lambda: None)
    assert task(name="quick")(lambda: None).name == "quick"


def test_a_function_that_yields_is_refused() -> None:
    with pytest.raises(TaskInvalid, match="task numbers: run: it yields"):

        @task
        def numbers() -> Iterator[int]:
            yield 1


def test_a_callback_of_the_origin_is_refused() -> None:
    def run(api: object, params: dict[str, Any], next: Any) -> None: ...

    with pytest.raises(TaskInvalid, match=r"task sayHi: run: .*no callbacks"):
        task_from({**ORIGIN, "run": run})


# --- where it runs ---


async def for_the_loop() -> None: ...
def for_a_thread() -> None: ...
def with_api(api: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "executor", "mode"),
    [
        (for_the_loop, "auto", "async"),
        (for_the_loop, "async", "async"),
        (for_the_loop, "process", "process"),
        (for_a_thread, "auto", "thread"),
        (for_a_thread, "thread", "thread"),
        (for_a_thread, "process", "process"),
        (with_api, "auto", "thread"),
    ],
)
def test_the_executor_follows_from_the_function(function: Callable[..., Any], executor: Any, mode: str) -> None:
    assert task(name="it", executor=executor)(function).handler(None).mode == mode


@pytest.mark.parametrize(
    ("function", "executor", "complaint"),
    [
        (for_a_thread, "async", "would block the loop"),
        (for_the_loop, "thread", "runs on the loop"),
        (with_api, "process", "can't take api"),
        (lambda: None, "process", "top level of a module"),
    ],
)
def test_an_executor_that_can_not_run_it_is_refused(
    function: Callable[..., Any], executor: Any, complaint: str
) -> None:
    with pytest.raises(TaskInvalid, match=f"task it: executor='{executor}': .*{complaint}"):
        task(name="it", executor=executor)(function)


def test_a_local_class_can_not_run_in_a_process() -> None:
    class Local(Task):
        name = "local"
        executor = "process"

        def run(self) -> None: ...

    with pytest.raises(TaskInvalid, match=r"executor='process': .*top level"):
        Local()


class Sized(Task):
    name = "sized"
    executor = "process"

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def run(self) -> int:
        return self.size


@task(executor="process")
def in_a_child(n: int) -> int:
    return n


larger = Sized(7)


@pytest.mark.parametrize(
    ("made", "attribute"), [(in_a_child, "in_a_child"), (Sized(), "Sized"), (larger, "larger")], ids=str
)
def test_a_child_process_is_told_where_the_task_is(made: Task, attribute: str) -> None:
    source = made.handler(None).source
    assert source is not None
    assert (source.module, source.path) == (__name__, __file__)
    assert (source.attribute, source.name) == (attribute, made.name)


def takes_n(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("made", "params", "result"),
    [
        (in_a_child, {"n": 3}, 3),
        (Sized(), {}, 1),
        (larger, {}, 7),
        (task_from({**ORIGIN, "run": takes_n, "executor": "process"}), {"n": 3}, 3),
    ],
    ids=str,
)
def test_a_child_process_finds_it_there(made: Task, params: dict[str, Any], result: int) -> None:
    source = made.handler(None).source
    assert source is not None
    assert find(source)(params) == result


def test_a_dict_whose_function_takes_all_params_can_not_run_in_a_process() -> None:
    made = task_from({**ORIGIN, "run": takes_params, "executor": "process"})
    with pytest.raises(TaskInvalid, match="decorate it with"):
        made.handler(None)


def takes_params(params: dict[str, Any]) -> int:
    return len(params)


def test_a_handler_has_what_an_executor_needs() -> None:
    handler = send_email.handler(None)
    assert (handler.name, handler.mode, handler.timeout_ms, handler.retries) == ("send_email", "async", 30_000, 5)
    assert handler.source is None
    assert asyncio.run(handler.call({"to": "ann"})) == "ann: hi"


def test_a_handler_gives_the_node_to_a_function_that_takes_it(hub: FakeHub) -> None:
    assert task_from(ORIGIN).handler(hub).call({"a": 1}) == "hi {'a': 1}"
    assert hub.said == [("hi", "green")]


# --- inline ---


def test_an_inline_run_needs_no_node_and_returns_what_the_function_returns() -> None:
    assert asyncio.run(send_email.run("ann", subject="x")) == "ann: x"
    assert add.run(1, b=2) == 3
    assert asyncio.run(Clean().run(3)) == ["Clean", 3]


def test_an_inline_run_works_on_a_copy() -> None:
    given: list[Any] = [1, (2, {3})]

    @task
    def change(values: list[Any]) -> list[Any]:
        values.append("changed")
        return values

    assert change.run(given) == [1, (2, {3}), "changed"]
    assert given == [1, (2, {3})]


def test_an_inline_run_of_a_class_works_on_a_copy() -> None:
    class Change(Task):
        name = "change"

        def run(self, values: list[int]) -> list[int]:
            values.append(5)
            return values

    given = [1]
    assert Change().run(given) == [1, 5]
    assert given == [1]


def test_a_class_may_call_the_run_of_its_base() -> None:
    class Cleaner(Clean):
        name = "cleaner"

        async def run(self, max_bytes: int = 10) -> list[Any]:
            return [*await super().run(max_bytes * 2), "cleaner"]

    assert asyncio.run(Cleaner().run(3)) == ["Cleaner", 6, "cleaner"]


@pytest.mark.parametrize("run", [add.run, add.enqueue_soon, lambda **given: asyncio.run(add.enqueue(**given))])
def test_params_that_do_not_fit_are_refused_inline_and_queued_alike(run: Callable[..., Any], hub: FakeHub) -> None:
    with pytest.raises(ParamsInvalid, match="task add: param 'b' is missing"):
        run(a=1)
    with pytest.raises(ParamsInvalid, match="task add: unexpected param 'c'"):
        run(a=1, b=2, c=3)
    with pytest.raises(ParamsInvalid, match=r"task add: params\['b'\]"):
        run(a=1, b=object())
    assert hub.calls == []


def test_what_an_inline_run_raises_reaches_the_caller() -> None:
    @task
    async def fail() -> None:
        raise LookupError("nothing here")

    with pytest.raises(LookupError, match="nothing here"):
        asyncio.run(fail.run())


def test_an_inline_run_gives_the_node_to_a_function_that_takes_it(hub: FakeHub) -> None:
    made = task_from(ORIGIN)
    assert made.run(a=1) == "hi {'a': 1}"
    assert made.run({"a": 1}) == "hi {'a': 1}"
    other = FakeHub()
    assert made.on(other).run(a=1) == "hi {'a': 1}"
    assert made.run(other, {"a": 1}) == "hi {'a': 1}"
    assert (len(hub.said), len(other.said)) == (2, 2)


def test_a_class_that_takes_the_node_is_run_as_it_is_written_or_without_it(hub: FakeHub) -> None:
    class Hi(Task):
        name = "hi"

        def run(self, api: FakeHub, params: dict[str, Any]) -> Any:
            return (api, params)

    other = FakeHub()
    assert Hi().run(other, {"a": 1}) == (other, {"a": 1})
    assert Hi().run({"a": 1}) == (hub, {"a": 1})  # type: ignore[call-arg,arg-type]
    assert Hi().on(other).run(a=1) == (other, {"a": 1})  # type: ignore[call-arg]


# --- which node ---


def test_a_task_goes_to_the_only_node_of_the_process(hub: FakeHub) -> None:
    job = asyncio.run(send_email.enqueue("ann"))
    (call,) = hub.enqueued
    assert call.task == "send_email"
    assert [(f"{job_id:032x}", decode(data)) for job_id, data in call.jobs] == [(job.id, {"to": "ann"})]


def test_a_task_goes_to_the_node_that_is_chosen(hub: FakeHub) -> None:
    other = FakeHub()
    asyncio.run(send_email.on(other).enqueue("ann"))
    assert (len(hub.calls), len(other.calls)) == (0, 1)


def test_a_task_goes_to_the_node_of_the_running_job(hub: FakeHub) -> None:
    other = FakeHub()
    run = Run(JobId(1), Header("outer"), b"", 1, 1, 0, 0)

    async def job() -> None:
        RUNNING.set(Running(run, other))
        await send_email.enqueue("ann")

    asyncio.run(job())
    assert (len(hub.calls), len(other.calls)) == (0, 1)


def test_without_a_node_a_task_is_not_bound() -> None:
    with pytest.raises(NotBound, match="task send_email: no node runs in this process; start one"):
        asyncio.run(send_email.enqueue("ann"))


def test_with_several_nodes_a_task_is_not_bound(hub: FakeHub) -> None:
    other = FakeHub()
    running_nodes.append(other)
    try:
        with pytest.raises(NotBound, match=r"2 nodes run in this process; choose one: .*\.on\(node\)"):
            asyncio.run(send_email.enqueue("ann"))
        with pytest.raises(NotBound):
            send_email.enqueue_soon("ann")
    finally:
        running_nodes.remove(other)


def test_wrong_params_are_told_before_a_missing_node() -> None:
    with pytest.raises(ParamsInvalid):
        asyncio.run(send_email.enqueue(topic="x"))  # type: ignore[call-arg]


# --- options of a job ---


def test_options_are_for_the_jobs_of_what_they_return(hub: FakeHub) -> None:
    async def main() -> None:
        await send_email.options(run_in=30, priority=5, announce=False).enqueue("ann")
        await send_email.options(id="one").on(hub).enqueue("ann")
        await send_email.enqueue("ann")

    asyncio.run(main())
    later, keyed, plain = hub.enqueued
    assert (later.delay_ms, later.priority, later.announce, later.keyed) == (30_000, 5, False, False)
    assert (keyed.jobs[0][0], keyed.keyed) == (keyed_id("send_email", "one"), True)
    assert (plain.delay_ms, plain.priority, plain.announce, plain.keyed) == (0, None, None, False)


def test_options_add_up(hub: FakeHub) -> None:
    asyncio.run(send_email.options(run_in=30, priority=5).options(run_in=1).enqueue("ann"))
    assert (hub.enqueued[0].delay_ms, hub.enqueued[0].priority) == (1000, 5)


def test_a_wrong_option_of_a_job_is_refused_at_once() -> None:
    with pytest.raises(ParamsInvalid, match="run_in=-1"):
        send_email.options(run_in=-1)


def test_a_twin_is_used_like_its_task() -> None:
    class Sum(Task):
        name = "sum"

        def __init__(self, start: int) -> None:
            self.start = start

        def run(self, n: int) -> int:
            return self.start + n

    made = Sum(40)
    twin = made.options(priority=1)
    assert isinstance(twin, Sum)
    assert (twin.start, twin.run(2), twin.name, twin.definition) == (40, 42, "sum", made.definition)
    assert send_email.options(priority=1).definition is send_email.definition
    assert add.options(priority=1)(1, 2) == 3
