"""What the tasks system promises, from outside, on one node: rows of `docs/semantics.md` that need all its parts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import zhero

PATIENCE_S = 20.0

QUEUES = [queue.value for queue in zhero.Queue]

EVERYTHING: dict[str, Any] = {
    "moment": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "span": timedelta(milliseconds=1500),
    "money": Decimal("10.50"),
    "uuid": UUID(int=7),
    "many": {1, 2, 3},
    "frozen": frozenset({"a"}),
    "pair": (1, (2, [3])),
    "bytes": b"\x00\xff",
    "text": "\N{SNOWMAN}",
    "big": 2**200,
    "negative": -(2**64),
    "keys": {1: "int", "1": "text", (1, 2): "tuple"},
    "none": None,
    "flag": True,
    "number": 0.1,
}


@zhero.task
async def same(**params: Any) -> dict[str, Any]:
    return params


@zhero.task
def same_in_a_thread(**params: Any) -> dict[str, Any]:
    return params


@zhero.task(executor="process")
def same_in_a_process(**params: Any) -> dict[str, Any]:
    return params


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            now = condition()
            if now if isinstance(now, bool) else await now:
                return
            await asyncio.sleep(0.005)


async def lengths(node: zhero.Node) -> dict[str, int]:
    return {queue: await node.queue_length(queue) for queue in QUEUES}


def types_of(value: Any) -> Any:
    """Its types all the way down, as 1 == True and [1] is easily taken for (1,)."""
    if isinstance(value, dict):
        return {key: (type(key), types_of(it)) for key, it in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [types_of(it) for it in value]
    return type(value)


# --- rows 4 and 20: inline ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["any", "all"])
def test_an_inline_run_touches_no_queue_and_no_schedule(scope: Any) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    @zhero.task(scope=scope, frequency=3_600_000)
    async def sweep(fail: bool = False) -> str:
        began.set()
        await go_on.wait()
        if fail:
            raise LookupError("nothing to sweep")
        return "swept"

    async def main() -> None:
        async with zhero.Node([sweep], workers=1, drain_timeout=0) as node:
            before = await lengths(node), (await node.status()).plans, await node.all_jobs()
            assert before[0] == {"global": 0, "local": 0, "delayed": 1, "processing": 0}
            running = asyncio.ensure_future(sweep.run())
            await began.wait()
            assert await lengths(node) == before[0]
            go_on.set()
            assert await running == "swept"
            with pytest.raises(LookupError, match="nothing to sweep"):
                await sweep.run(fail=True)
            with pytest.raises(LookupError):
                await node.task({"name": "sweep", "params": {"fail": True}}).run()
            assert await node.task({"name": "sweep"}).run() == "swept"
            (plan,) = (await node.status()).plans
            assert (plan.number, plan.stopped) == (before[1][0].number, False)
            assert await lengths(node) == before[0]
            assert {job: it.run_at for job, it in (await node.all_jobs()).items()} == {
                job: it.run_at for job, it in before[2].items()
            }

    asyncio.run(main())


# --- row 6 and T22: runAction -------------------------------------------------------------------------------------


def test_an_action_that_can_not_be_run_or_fails_is_a_failed_job(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with zhero.Node(drain_timeout=5) as node:

            @node.action
            async def refuse(why: str) -> None:
                raise PermissionError(why)

            with pytest.raises(zhero.ParamsInvalid, match="'action' is missing"):
                await node.enqueue("runAction", {"why": "not today"})
            for params, why in [
                ({"action": "refuse", "why": "not today"}, "not today"),
                ({"action": "refuse"}, "'why' is missing"),
                ({"action": "nothing"}, "no action named 'nothing'"),
            ]:
                with pytest.raises(zhero.JobFailed, match=why):
                    await (await node.enqueue("runAction", params)).result(PATIENCE_S)
                with pytest.raises((PermissionError, zhero.TaskError), match=why):
                    await node.task({"name": "runAction", "params": params}).run()
            assert (await node.stats()).tasks["runAction"]["dead"] == 3

    asyncio.run(main())
    assert len([it for it in caplog.records if it.levelno == logging.ERROR]) == 3


# --- row 14 -------------------------------------------------------------------------------------------------------


def test_a_task_without_a_frequency_never_runs_by_itself() -> None:
    @zhero.task(frequency=0)
    async def never() -> str:
        return "asked"

    async def main() -> None:
        async with zhero.Node([never], drain_timeout=5) as node:
            assert (await node.status()).plans == ()
            assert await lengths(node) == dict.fromkeys(QUEUES, 0)
            assert await (await never.enqueue()).result(PATIENCE_S) == "asked"
            assert await never.run() == "asked"

    asyncio.run(main())


# --- rows 19 and T28: accepted is held ----------------------------------------------------------------------------


def test_an_enqueue_that_nobody_can_hold_raises() -> None:
    async def main() -> None:
        node = zhero.Node([same], workers=0, max_bytes=300, drain_timeout=0)
        with pytest.raises(zhero.NotRunning):
            await node.enqueue(same)
        async with node:
            kept = [await same.enqueue(text="x" * 90) for _ in range(3)]
            with pytest.raises(zhero.QueueFull, match="max_bytes"):
                await same.enqueue(text="x" * 90)
            assert list(await node.all_jobs()) == [job.id for job in kept]
        with pytest.raises(zhero.NotRunning):
            await node.enqueue(same)

    asyncio.run(main())


# --- row 21 and T18: params ---------------------------------------------------------------------------------------


def test_params_are_equal_inline_and_queued_however_they_run() -> None:
    async def main() -> None:
        async with zhero.Node([same, same_in_a_thread, same_in_a_process], drain_timeout=5) as node:
            for name in ("same", "same_in_a_thread", "same_in_a_process"):
                queued = await (await node.enqueue(name, EVERYTHING)).result(PATIENCE_S)
                inline = await node.task({"name": name, "params": EVERYTHING}).run()
                assert queued == inline == EVERYTHING
                assert types_of(queued) == types_of(inline) == types_of(EVERYTHING)
            assert await (await same.enqueue()).result(PATIENCE_S) == await same.run() == {}

    asyncio.run(main())


def test_params_are_those_of_the_moment_of_the_enqueue() -> None:
    async def main() -> None:
        async with zhero.Node([same], drain_timeout=5) as node:
            params: dict[str, Any] = {"list": [1], "dict": {"a": {1}}}
            passed = {"list": [1], "dict": {"a": {1}}}
            job = await node.enqueue("same", params)
            soon = same.enqueue_soon(**params)
            params["list"].append(2)
            params["dict"]["a"].add(2)
            params["more"] = True
            assert await job.result(PATIENCE_S) == passed
            assert await soon.result(PATIENCE_S) == passed
            received = await same.run(**passed)
            assert received == passed
            assert received["list"] is not passed["list"]

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [object(), [1, {"deep": object()}], lambda: None, 3 + 4j])
def test_what_can_not_be_sent_is_refused_inline_and_queued_with_its_key(wrong: Any) -> None:
    async def main() -> None:
        async with zhero.Node([same], drain_timeout=5) as node:
            for way in (same.run, same.enqueue):
                with pytest.raises(zhero.ParamsInvalid, match=r"task same: params\['some'\]"):
                    await way(some=wrong)
            with pytest.raises(zhero.ParamsInvalid, match=r"params\['some'\]"):
                node.task({"name": "same", "params": {"some": wrong}})
            assert await node.all_jobs() == {}

    asyncio.run(main())


# --- row 22 and T12: run_at ---------------------------------------------------------------------------------------


def test_a_time_that_is_over_is_now() -> None:
    async def main() -> None:
        async with zhero.Node([same], drain_timeout=5) as node:
            long_ago = datetime(1999, 1, 1, tzinfo=UTC)
            for run_at in (0, 1, time.time() * 1000 - 5, long_ago):
                assert await (await same.options(run_at=run_at).enqueue(a=1)).result(PATIENCE_S) == {"a": 1}
            job = await node.task({"name": "same", "runAt": 946684800000, "params": {"b": 2}}).enqueue()
            assert await job.result(PATIENCE_S) == {"b": 2}
            assert await lengths(node) == dict.fromkeys(QUEUES, 0)

    asyncio.run(main())


def test_no_job_starts_before_the_very_millisecond_that_was_asked_for() -> None:
    started: dict[float, float] = {}

    @zhero.task
    async def note(run_at: float) -> None:
        started[run_at] = time.time() * 1000

    async def main() -> None:
        async with zhero.Node([note], drain_timeout=5):
            soon = time.time() * 1000 + 50
            jobs = [await note.options(run_at=soon + part).enqueue(soon + part) for part in (0, 0.1, 0.9, 1, 7.5, 33)]
            for job in jobs:
                await job.result(PATIENCE_S)

    asyncio.run(main())
    assert len(started) == 6
    assert all(at >= run_at for run_at, at in started.items()), started


# --- row 23: toAnnounce -------------------------------------------------------------------------------------------


def test_a_job_that_is_not_announced_makes_no_line_but_for_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zhero")

    @zhero.task
    async def loud(fail: bool = False) -> None:
        if fail:
            raise ValueError("so loud")

    @zhero.task(announce=False)
    async def quiet(fail: bool = False) -> None:
        if fail:
            raise ValueError("so quiet")

    rounds = 0

    @zhero.task(frequency=20, announce=False)
    async def beat() -> None:
        nonlocal rounds
        rounds += 1

    async def main() -> list[zhero.Job[Any]]:
        async with zhero.Node([loud, quiet, beat], drain_timeout=5) as node:
            told = [await loud.options(run_in=0.01).enqueue(), await quiet.options(announce=True).enqueue()]
            untold = [
                await quiet.options(run_in=0.01).enqueue(),
                await loud.options(announce=False).enqueue(),
                await node.task({"name": "loud", "toAnnounce": False}).enqueue(),
            ]
            for job in (*told, *untold):
                await job.result(PATIENCE_S)
            for job in (await quiet.enqueue(fail=True), await loud.options(announce=False).enqueue(fail=True)):
                with pytest.raises(zhero.JobFailed):
                    await job.result(PATIENCE_S)
            await until(lambda: rounds >= 3)
            lines = [it.getMessage() for it in caplog.records]
            for job in told:
                of_job = [line for line in lines if job.id in line]
                assert [word for line in of_job for word in ("queued", "started", "succeeded") if word in line] == [
                    "queued",
                    "started",
                    "succeeded",
                ]
            return untold

    untold = asyncio.run(main())
    lines = [it.getMessage() for it in caplog.records]
    assert not [line for line in lines for job in untold if job.id in line]
    assert not [line for line in lines if "beat" in line and "scheduled" not in line]
    errors = [it.getMessage() for it in caplog.records if it.levelno == logging.ERROR]
    assert ["so quiet" in errors[0], "so loud" in errors[1], len(errors)] == [True, True, 2]


def test_failures_are_logged_also_where_nothing_else_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "zhero")

    @zhero.task(retries=1, backoff=0.001)
    async def fail() -> None:
        raise ValueError("no luck")

    async def main() -> None:
        async with zhero.Node([fail, same], drain_timeout=5):
            await (await same.enqueue()).result(PATIENCE_S)
            with pytest.raises(zhero.JobFailed):
                await (await fail.enqueue()).result(PATIENCE_S)

    asyncio.run(main())
    retried, failed = caplog.records
    assert (retried.levelno, failed.levelno) == (logging.WARNING, logging.ERROR)
    assert "retry of fail" in retried.getMessage()
    assert "ValueError: no luck" in failed.getMessage()


# --- row 24: success ----------------------------------------------------------------------------------------------


def test_whatever_is_returned_is_success_and_whatever_is_raised_is_failure() -> None:
    values = [None, True, False, 0, "", [], (None, True), {"error": "no"}, b"x"]
    errors = [ValueError("x"), KeyError("k"), Exception(), AssertionError(), StopAsyncIteration()]

    @zhero.task
    async def give(number: int) -> Any:
        return values[number]

    @zhero.task
    def give_in_a_thread(number: int) -> Any:
        return values[number]

    @zhero.task
    async def fail(number: int) -> None:
        raise errors[number]

    async def main() -> None:
        async with zhero.Node([give, give_in_a_thread, fail], drain_timeout=5) as node:
            for it in (give, give_in_a_thread):
                results = [await (await it.enqueue(number)).result(PATIENCE_S) for number in range(len(values))]
                assert results == values
                assert [type(result) for result in results] == [type(value) for value in values]
            for number, error in enumerate(errors):
                with pytest.raises(zhero.JobFailed) as failed:
                    await (await fail.enqueue(number)).result(PATIENCE_S)
                assert failed.value.kind == type(error).__name__
            stats = (await node.stats()).totals
            assert (stats["succeeded"], stats["dead"]) == (2 * len(values), len(errors))

    asyncio.run(main())


# --- row 25: api.log ----------------------------------------------------------------------------------------------


def test_a_task_logs_with_a_severity_or_a_colour(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zhero")
    severities = {"debug": 10, "info": 20, "notice": 20, "warning": 30, "error": 40}
    colours = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white", "grey", "gray", "bold"]

    @zhero.task(announce=False)
    async def say(api: zhero.Node, params: dict[str, Any]) -> None:
        api.log("plain")
        for how in params["how"]:
            api.log(f"in {how} %s", how)

    async def main() -> None:
        async with zhero.Node([say], drain_timeout=5) as node:
            await (await node.enqueue(say, {"how": [*severities, *colours]})).result(PATIENCE_S)
            with pytest.raises(zhero.JobFailed, match="no severity or colour 'purple'"):
                await (await node.enqueue(say, {"how": ["purple"]})).result(PATIENCE_S)

    asyncio.run(main())
    said = {it.getMessage(): it for it in caplog.records if it.name == "zhero"}
    assert said["plain"].levelno == logging.INFO
    for how in (*severities, *colours):
        record = said[f"in {how} %s"]
        assert record.levelno == severities.get(how, logging.INFO)
        assert vars(record)["colour"] == how


# --- rows 26 to 28: inspection ------------------------------------------------------------------------------------


def test_the_queues_add_up_to_the_jobs_listed_and_no_job_is_missing_while_it_moves() -> None:
    go_on = asyncio.Event()

    @zhero.task
    async def hold() -> None:
        await go_on.wait()

    async def main() -> None:
        async with zhero.Node([hold, same], workers=2, drain_timeout=5) as node:
            kept = await node.enqueue_many(hold, [{}] * 5)
            kept += [await same.options(run_in=3600).enqueue(n=number) for number in range(3)]
            await until(lambda: processing(node, 2))
            by_queue = await lengths(node)
            assert by_queue == {"global": 3, "local": 0, "delayed": 3, "processing": 2}
            listed = await node.all_jobs()
            assert sorted(listed) == sorted(job.id for job in kept)
            assert {queue: [it.queue for it in listed.values()].count(queue) for queue in QUEUES} == by_queue
            assert len(await node.all_jobs(name="same")) == 3
            with pytest.raises(ValueError, match="no queue 'nothing'"):
                await node.queue_length("nothing")
            go_on.set()
            for job in kept[:5]:
                await job.result(PATIENCE_S)
            assert await lengths(node) == {"global": 0, "local": 0, "delayed": 3, "processing": 0}

    asyncio.run(main())


async def processing(node: zhero.Node, count: int) -> bool:
    return await node.queue_length("processing") == count


# --- rows 29 and 36 -----------------------------------------------------------------------------------------------


def test_a_node_without_workers_takes_jobs_and_runs_none() -> None:
    async def main() -> None:
        async with zhero.Node([same], workers=0, drain_timeout=0) as node:
            jobs = [await same.enqueue(n=number) for number in range(3)]
            with pytest.raises(TimeoutError):
                await jobs[0].result(0.1)
            assert await lengths(node) == {"global": 3, "local": 0, "delayed": 0, "processing": 0}
            assert await same.run(a=1) == {"a": 1}
            assert [await job.cancel() for job in jobs] == [True] * 3

    asyncio.run(main())


def test_as_many_enqueues_as_there_are_are_as_many_runs() -> None:
    runs = 0

    @zhero.task
    async def count() -> None:
        nonlocal runs
        runs += 1

    async def main() -> None:
        async with zhero.Node([count], drain_timeout=5) as node:
            draft = node.task({"name": "count"})
            jobs = [await count.enqueue() for _ in range(5)] + [await draft.enqueue(), await draft.enqueue()]
            jobs += await node.enqueue_many("count", [{}] * 5)
            for job in jobs:
                await job.result(PATIENCE_S)
            assert len({job.id for job in jobs}) == 12

    asyncio.run(main())
    assert runs == 12


# --- row 30: a blocked loop ---------------------------------------------------------------------------------------


def test_a_job_that_blocks_the_loop_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def warnings() -> list[str]:
        return [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]

    @zhero.task
    async def spin() -> None:
        until_s = time.monotonic() + PATIENCE_S
        while not warnings() and time.monotonic() < until_s:
            sum(range(1000))

    async def main() -> str:
        async with zhero.Node([spin], drain_timeout=5):
            job = await spin.enqueue()
            await job.result(PATIENCE_S)
            await until(lambda: len(warnings()) >= 2)
            return job.id

    job = asyncio.run(main())
    first, second = warnings()[:2]
    assert "blocked" in first
    assert "spin" in first
    assert job in first
    assert "turns again" in second


# --- row 31 and T1 ------------------------------------------------------------------------------------------------


def test_five_periodic_tasks_share_one_node_for_twenty_rounds() -> None:
    ended: dict[str, list[float]] = {f"tick{number}": [] for number in range(5)}
    too_soon: list[str] = []

    def periodic(name: str) -> zhero.Task:
        @zhero.task(name=name, frequency=10)
        async def tick() -> None:
            if ended[name] and (time.monotonic() - ended[name][-1]) < 0.01:
                too_soon.append(name)
            await asyncio.sleep(0)
            ended[name].append(time.monotonic())

        return tick

    async def main() -> None:
        async with zhero.Node([periodic(name) for name in ended], workers=1, drain_timeout=5):
            await until(lambda: min(len(it) for it in ended.values()) >= 20)

    asyncio.run(main())
    assert too_soon == []


# --- bad input: what keeps a node from starting -------------------------------------------------------------------


def test_what_keeps_a_node_from_starting_is_typed_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()

    async def main() -> None:
        async with zhero.Node() as node:
            endpoint = (await node.status()).members[0].endpoint
            wrong: list[tuple[dict[str, Any], type[zhero.ZheroError], str]] = [
                ({"bind": endpoint}, zhero.BindFailed, "choose another port"),
                ({"runtime_dir": tmp_path / "taken"}, zhero.RuntimeDirInvalid, "set ZHERO_RUNTIME_DIR"),
            ]
            for settings, kind, cure in wrong:
                with pytest.raises(kind, match=cure):
                    await zhero.Node([same], **settings).__aenter__()
                with pytest.raises(kind, match=cure):
                    await asyncio.to_thread(zhero.Node([same], **settings).start)
            with pytest.raises(zhero.TaskNotFound):  # the node that runs is still the only one
                await node.enqueue(same)

    asyncio.run(main())
