"""What a checker has to know of tasks and jobs, with no plugin. Read by mypy and pyright, never run.

`assert_type` says what has to be inferred; an ignored error proves that a wrong call is flagged, since an ignore that
ignores nothing is itself an error.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from zhero.forms import task
from zhero.job import Hub, Job
from zhero.outcomes import MemberOutcome, Outcomes
from zhero.task import FunctionTask, Task


class Node:
    """As far as tasks see it."""

    def log(self, message: str, severity: str = "info") -> None: ...
    async def queue_length(self, queue: str) -> int:
        raise NotImplementedError


@task
async def send_email(to: str, subject: str = "hi") -> str:
    return to + subject


@task(description="resize a picture", timeout=30, retries=5, executor="process", backoff=timedelta(seconds=1))
def resize(path: str, width: int) -> bytes:
    return path.encode() * width


@task(scope="all")
async def clean(max_bytes: int = 10) -> int:
    return max_bytes


@task(scope="all", frequency=60_000)
def clean_plainly(max_bytes: int = 10) -> int:
    return max_bytes


@task(delivery="at_most_once", backups=2)
async def charge(amount: int) -> str:
    return str(amount)


@task(scope="all", backups=None, delivery="at_least_once")
async def forget(key: str) -> bool:
    return bool(key)


@task
async def nothing() -> None: ...


@task
async def keywords_only(*, size: int) -> list[int]:
    return [size]


@task
async def whatever(**values: Any) -> int:
    return len(values)


@task
async def anything(value: Any, count: int) -> int:
    return count


# --- the node first ---


@task
async def with_node(api: Node, to: str) -> int:
    return await api.queue_length(to)


@task
def with_any_node(api: object, count: int) -> int:
    return count


@task(frequency=1000)
async def say_hello(api: Node, params: dict[str, Any]) -> None:
    api.log("----- Hi There! ----", "green")


@task
async def whole(params: dict[str, Any]) -> int:
    return len(params)


# --- in class form ---


class Clean(Task):
    name = "clean"
    description = "delete files above a size"
    scope = "all"
    frequency = timedelta(minutes=1)

    async def run(self, max_bytes: int = 10) -> int:
        return max_bytes


class Resize(Task):
    name = "resize"
    executor = "thread"
    backups = 0
    delivery = "at_most_once"

    def run(self, path: str, width: int) -> bytes:
        return path.encode() * width


class Origin(Task):
    name = "origin"

    async def run(self, api: Node, params: dict[str, Any]) -> int:
        return await api.queue_length("global")


class WrongMetadata(Task):
    name = 5  # type: ignore[assignment]
    scope = "some"  # type: ignore[assignment]
    retries = "5"  # type: ignore[assignment]
    backups = "1"  # type: ignore[assignment]
    delivery = "exactly_once"  # type: ignore[assignment]


# --- what is inferred ---


async def decorated(unknown: Any) -> None:
    assert_type(await send_email.enqueue("ann"), Job[str])
    assert_type(await send_email.enqueue(to="ann", subject="hi"), Job[str])
    assert_type(await (await send_email.enqueue(to="ann")).result(timeout=5), str)
    assert_type(await send_email.options(run_in=30, priority=5).enqueue(to="ann"), Job[str])
    assert_type(await send_email.options(run_at=datetime.now(UTC), id="one", announce=False).enqueue("ann"), Job[str])
    assert_type(send_email.enqueue_soon(to="ann"), Job[str])
    assert_type(send_email.enqueue_soon(to="ann").result_sync(5), str)
    assert_type(await send_email.run(to="ann"), str)
    assert_type(await send_email("ann"), str)
    assert_type(await resize.enqueue("a.png", width=3), Job[bytes])
    assert_type(resize.run("a.png", 3), bytes)
    assert_type(resize("a.png", 3), bytes)
    assert_type(await charge.enqueue(amount=5), Job[str])
    assert_type(await nothing.enqueue(), Job[None])
    assert_type(await keywords_only.enqueue(size=3), Job[list[int]])
    assert_type(await whatever.enqueue(a=1, b="x"), Job[int])
    assert_type(await anything.enqueue(value=object(), count=1), Job[int])
    assert_type(await send_email.enqueue(to=unknown), Job[str])  # an Any among the params does not blur the result
    assert_type(await resize.enqueue(unknown, unknown), Job[bytes])


async def on_all_members() -> None:
    assert_type(await clean.enqueue(max_bytes=5), Job[Outcomes[int]])
    assert_type(await (await clean.enqueue()).result(), Outcomes[int])
    assert_type(await (await clean.enqueue()).outcomes(), Outcomes[int])
    assert_type(await (await clean_plainly.enqueue()).result(), Outcomes[int])
    assert_type(await (await forget.enqueue("x")).result(), Outcomes[bool])
    outcomes = await (await clean.enqueue()).outcomes()
    assert_type(outcomes["web-1"], MemberOutcome[int])
    assert_type(outcomes.results(), dict[str, int])
    assert_type(await clean.run(5), int)


async def with_the_node(node: Node) -> None:
    assert_type(await with_node.enqueue(to="ann"), Job[int])
    assert_type(await with_node.run(to="ann"), int)
    assert_type(await with_node(node, "ann"), int)
    assert_type(await with_any_node.enqueue(3), Job[int])
    assert_type(await whole.enqueue(a=1, b=2), Job[int])
    assert_type(await whole.enqueue({"a": 1}), Job[int])
    await say_hello.enqueue()
    await say_hello.enqueue(to="ann")
    await say_hello.enqueue({"to": "ann"})
    await say_hello.run(to="ann")
    await say_hello(node, {"to": "ann"})


async def classes() -> None:
    assert_type(await Clean().enqueue(max_bytes=5), Job[int])
    assert_type(await (await Clean().enqueue()).outcomes(), Outcomes[int])
    assert_type(await Clean().options(run_in=3).enqueue(5), Job[int])
    assert_type(Clean().enqueue_soon(5), Job[int])
    assert_type(await Clean().run(5), int)
    assert_type(await Resize().enqueue("a.png", width=3), Job[bytes])
    assert_type(Resize().run("a.png", 3), bytes)
    assert_type(await Origin().enqueue(to="ann"), Job[int])


async def others(hub: Hub, some: Task, made: FunctionTask[..., ..., Any, int]) -> None:
    tasks: list[Task] = [send_email, resize, clean, say_hello, Clean(), some]
    assert_type(await some.enqueue(a=1), Job[Any])
    assert_type(await made.enqueue(a=1), Job[int])
    assert_type(await send_email.on(hub).enqueue(to="ann"), Job[str])
    coroutine: Coroutine[Any, Any, Job[str]] = send_email.enqueue(tasks[0].name)
    await coroutine


# --- what is flagged ---


async def wrong_params() -> None:
    await send_email.enqueue()  # type: ignore[call-arg]
    await send_email.enqueue(to="ann", topic="hi")  # type: ignore[call-arg]
    await send_email.enqueue("ann", "hi", "there")  # type: ignore[call-arg]
    await send_email.enqueue(to=5)  # type: ignore[arg-type]
    await send_email.options(run_in=3).enqueue(5)  # type: ignore[arg-type]
    send_email.enqueue_soon(to=5)  # type: ignore[arg-type]
    await send_email.run(to=5)  # type: ignore[arg-type]
    await resize.enqueue("a.png")  # type: ignore[call-arg]
    await clean.enqueue(max_bytes="5")  # type: ignore[arg-type]
    await nothing.enqueue(1)  # type: ignore[call-arg]
    await with_node.enqueue()  # type: ignore[call-arg]
    await with_node.enqueue(to=5)  # type: ignore[arg-type]
    await Clean().enqueue(max_bytes="5")  # type: ignore[call-overload]
    await Clean().enqueue(size=5)  # type: ignore[call-overload]
    await Resize().enqueue("a.png")  # type: ignore[call-arg]


async def wrong_options() -> None:
    task(frequncy=5)  # type: ignore[call-overload]
    task(retries="5")  # type: ignore[call-overload]
    task(scope="some")  # type: ignore[call-overload]
    task(backups="1")  # type: ignore[call-overload]
    task(delivery="exactly_once")  # type: ignore[call-overload]
    send_email.options(run_it=3)  # type: ignore[call-arg]
    send_email.options(run_in="3")  # type: ignore[arg-type]
    send_email.on("node")  # type: ignore[arg-type]
