"""A node at work: real loop, sockets, threads and child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

import zhero
from zhero.runtime.driver import CALLS_PER_TURN

QUICK: dict[str, Any] = {"bind": "tcp://127.0.0.1:0", "drain_timeout": 5}


@zhero.task
async def add(a: int, b: int = 1) -> int:
    return a + b


@zhero.task
def whoami(pair: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    return threading.current_thread().name, pair


@zhero.task(executor="process", timeout=20)
def square(n: int) -> int:
    if n < 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    return n * n


@zhero.task(scope="all")
async def everywhere() -> str:
    return "here"


class Fails(zhero.Task):
    """always raises"""

    name = "fails"

    async def run(self, why: str) -> None:
        raise ValueError(why)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_job_runs_and_its_result_comes_back() -> None:
    async def main() -> None:
        async with zhero.Node([add], **QUICK):
            job = await add.enqueue(2, b=3)
            assert await job.result(10) == 5
            assert await add.run(4) == 5
            assert await add(1) == 2

    asyncio.run(main())


def test_plain_functions_run_in_threads_and_tuples_stay_tuples() -> None:
    async def main() -> None:
        async with zhero.Node([whoami], **QUICK):
            name, pair = await (await whoami.enqueue((1, 2))).result(10)
            assert name.startswith("zhero-")
            assert pair == (1, 2)

    asyncio.run(main())


def test_a_child_process_that_crashes_fails_its_job_and_not_the_node() -> None:
    async def main() -> None:
        async with zhero.Node([square], **QUICK):
            assert await (await square.enqueue(7)).result(20) == 49
            with pytest.raises(zhero.JobCrashed, match="SIGSEGV"):
                await (await square.enqueue(-1)).result(20)
            assert await (await square.enqueue(3)).result(20) == 9

    asyncio.run(main())


def test_a_failure_carries_its_traceback_and_becomes_a_dead_letter() -> None:
    async def main() -> None:
        async with zhero.Node([Fails], **QUICK) as node:
            job = await node.enqueue("fails", {"why": "no reason"})
            with pytest.raises(zhero.JobFailed, match="no reason") as failed:
                await job.result(10)
            assert "raise ValueError(why)" in failed.value.remote_traceback
            dead = await node.failed_jobs()
            assert list(dead) == [job.id]
            assert await node.discard(job.id)
            assert await node.failed_jobs() == {}

    asyncio.run(main())


def test_retries_run_again_with_a_growing_token() -> None:
    tokens: list[tuple[int, int]] = []

    @zhero.task(retries=2, backoff=0.01)
    async def flaky() -> str:
        tokens.append(zhero.current().token)
        if len(tokens) < 3:
            raise RuntimeError("again")
        return "well"

    async def main() -> None:
        async with zhero.Node([flaky], **QUICK):
            assert await (await flaky.enqueue()).result(10) == "well"

    asyncio.run(main())
    assert tokens == [(1, 1), (1, 2), (1, 3)]


def test_exactly_as_many_jobs_run_at_once_as_there_are_workers() -> None:
    running = 0
    most = 0
    release = asyncio.Event()

    @zhero.task
    async def hold() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    async def main() -> None:
        async with zhero.Node([hold], workers=3, **QUICK) as node:
            jobs = await node.enqueue_many(hold, [{}] * 4)
            await until(lambda: running == 3)
            assert await node.queue_length("processing") == 3
            assert await node.queue_length(zhero.Queue.GLOBAL) == 1
            assert len(await node.all_jobs()) == 4
            release.set()
            for job in jobs:
                await job.result(10)

    asyncio.run(main())
    assert most == 3


def test_enqueue_returns_before_the_job_starts() -> None:
    async def main() -> None:
        started: list[int] = []

        @zhero.task
        async def note() -> None:
            started.append(1)

        async with zhero.Node([note], **QUICK):
            await (await note.enqueue()).result(10)
            job = await note.enqueue()
            assert started == [1]
            await job.result(10)

    asyncio.run(main())


def test_a_caller_that_never_lets_the_loop_turn_is_made_to_whether_it_comes_one_by_one_or_with_batches() -> None:
    async def main() -> None:
        async with zhero.Node([add], **QUICK) as node:
            loop, turns = asyncio.get_running_loop(), 0

            def turn() -> None:
                nonlocal turns
                turns += 1
                loop.call_soon(turn)

            loop.call_soon(turn)
            for _ in range(10):
                await node.enqueue_many(add, [{"a": 1}] * (CALLS_PER_TURN + 1))
            assert turns >= 10
            turns = 0
            for _ in range(10 * CALLS_PER_TURN):
                await add.enqueue(1)
            assert 1 <= turns <= 10

    asyncio.run(main())


def test_a_delayed_job_is_never_early() -> None:
    @zhero.task
    async def when() -> float:
        return time.time() * 1000

    async def main() -> None:
        async with zhero.Node([when], **QUICK) as node:
            run_at = time.time() * 1000 + 120
            jobs = [await when.options(run_at=run_at).enqueue() for _ in range(20)]
            assert await node.queue_length("delayed") == 20
            assert min([await job.result(10) for job in jobs]) >= run_at

    asyncio.run(main())


def test_five_periodic_tasks_all_keep_running() -> None:
    counts = dict.fromkeys(range(5), 0)

    def periodic(number: int) -> zhero.Task:
        @zhero.task(name=f"tick{number}", frequency=20)
        async def tick() -> None:
            counts[number] += 1

        return tick

    async def main() -> None:
        async with zhero.Node([periodic(number) for number in counts], **QUICK) as node:
            with pytest.raises(zhero.AlreadyQueued):
                await node.enqueue("tick0")
            await until(lambda: min(counts.values()) >= 5)
            assert await node.stop_task("tick0")
            assert not await node.stop_task("tick0")

    asyncio.run(main())


def test_one_worker_is_enough_for_a_job_that_awaits_another() -> None:
    @zhero.task
    async def outer() -> int:
        return await (await add.enqueue(20, 1)).result(10) * 2

    async def main() -> None:
        async with zhero.Node([outer, add], workers=1, **QUICK):
            assert await (await outer.enqueue()).result(10) == 42

    asyncio.run(main())


def test_timeout_and_cancel_end_a_coroutine() -> None:
    @zhero.task(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(60)

    @zhero.task
    async def endless() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with zhero.Node([slow, endless], **QUICK) as node:
            with pytest.raises(zhero.JobTimedOut):
                await (await slow.enqueue()).result(10)
            job = await endless.enqueue()
            while await node.queue_length("processing") == 0:
                await asyncio.sleep(0.005)
            assert await job.cancel()
            with pytest.raises(zhero.JobCancelled):
                await job.result(10)
            later = await endless.options(run_in=60).enqueue()
            assert await later.cancel()

    asyncio.run(main())


def test_an_all_job_has_one_outcome_per_member() -> None:
    async def main() -> None:
        async with zhero.Node([everywhere], name="one", **QUICK):
            outcomes = await (await everywhere.enqueue()).result(10)
            assert outcomes.results() == {"one": "here"}
            assert outcomes.ok

    asyncio.run(main())


def test_the_same_id_twice_is_one_job() -> None:
    async def main() -> None:
        async with zhero.Node([add], workers=0, drain_timeout=0) as node:
            first = await add.options(id="invoice-17").enqueue(1)
            second = await add.options(id="invoice-17").enqueue(1)
            assert first.id == second.id
            assert len(await node.all_jobs()) == 1

    asyncio.run(main())


def test_what_is_wrong_is_refused_before_anything_is_queued() -> None:
    async def main() -> None:
        async with zhero.Node([add], workers=0, max_jobs=2, drain_timeout=0) as node:
            with pytest.raises(zhero.ParamsInvalid, match="param 'a' is missing"):
                await add.enqueue()  # type: ignore[call-arg]
            with pytest.raises(zhero.ParamsInvalid, match=r"params\['a'\]"):
                await add.enqueue(object())  # type: ignore[arg-type]
            with pytest.raises(zhero.TaskNotFound, match="nobody"):
                await node.enqueue("nobody")
            with pytest.raises(zhero.ParamsInvalid, match="'c'"):
                await node.enqueue("add", {"a": 1, "c": 2})
            with pytest.raises(zhero.ParamsInvalid, match="param 'a' is missing"):
                await node.enqueue_many("add", [{"a": 1}, {}])
            with pytest.raises(zhero.ParamsInvalid, match="give a dict"):
                await node.enqueue("add", [1])  # type: ignore[arg-type]
            with pytest.raises(zhero.ParamsInvalid, match="give a dict"):
                await node.enqueue_many("add", {"a": 1})  # type: ignore[arg-type]
            with pytest.raises(zhero.TaskInvalid, match="3 is no task"):
                await node.enqueue(3)  # type: ignore[arg-type]
            with pytest.raises(zhero.ParamsInvalid, match="priority"):
                await node.enqueue(add, {"a": 1}, priority=1000)
            with pytest.raises(zhero.QueueFull):
                await node.enqueue_many(add, [{"a": n} for n in range(3)])
            assert await node.all_jobs() == {}

    asyncio.run(main())


def test_options_of_a_task_hold_for_jobs_that_a_node_is_handed() -> None:
    @zhero.task
    async def add(a: int) -> int:
        return a

    async def main() -> None:
        async with zhero.Node([add], workers=0, drain_timeout=0) as node:
            later = add.options(run_in=3600, priority=7)
            one = await node.enqueue(later, {"a": 1})
            many = await node.enqueue_many(later, [{"a": 2}, {"a": 3}])
            sooner = await node.enqueue(later, {"a": 4}, run_in=60)
            views = [await node.job(job.id) for job in (one, *many, sooner)]
            assert [(view.state, view.priority) for view in views] == [("delayed", 7)] * 4
            due = [view.run_at for view in views if view.run_at is not None]
            assert len(due) == 4
            assert due[3] < min(due[:3])

    asyncio.run(main())


def test_a_node_takes_one_task_as_it_is_and_refuses_what_is_none() -> None:
    assert "add" in zhero.Node(add).tasks
    with pytest.raises(zhero.TaskInvalid):
        zhero.Node(3)  # type: ignore[arg-type]


def test_actions_run_through_the_core_task() -> None:
    async def main() -> None:
        async with zhero.Node([], **QUICK) as node:

            @node.action
            def greet(name: str) -> str:
                return f"hi {name}"

            job = await node.enqueue("runAction", {"action": "greet", "name": "ann"})
            assert await job.result(10) == "hi ann"
            with pytest.raises(zhero.JobFailed, match="no action named"):
                await (await node.enqueue("runAction", {"action": "nothing"})).result(10)

    asyncio.run(main())


def test_synchronous_code_starts_enqueues_and_stops() -> None:
    node = zhero.Node([add], **QUICK)
    node.start()
    try:
        jobs = [add.enqueue_soon(number) for number in range(50)]
        assert [job.result_sync(10) for job in jobs] == list(range(1, 51))
        jobs[0].wait_accepted(10)
    finally:
        assert node.stop() == 0


def test_a_drain_that_is_cancelled_ends_everything_at_once() -> None:
    @zhero.task
    async def endless() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        node = zhero.Node([endless], drain_timeout=60)
        async with node:
            job = await endless.enqueue()
            waiter = asyncio.ensure_future(job.result())
            while await node.queue_length("processing") == 0:
                await asyncio.sleep(0.005)
            stopping = asyncio.ensure_future(node.aclose())
            await asyncio.sleep(0)
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            with pytest.raises(zhero.NotRunning):
                await waiter
            with pytest.raises(zhero.NotRunning):
                await node.stats()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_new_tasks_replace_the_old_ones_or_nothing_changes() -> None:
    @zhero.task(name="add")
    async def subtract(a: int, b: int = 1) -> int:
        return a - b

    async def main() -> None:
        async with zhero.Node([add], **QUICK) as node:
            with pytest.raises(zhero.TaskDuplicate, match="add"):
                node.set_tasks([subtract, add])
            assert await (await node.enqueue("add", {"a": 5})).result(10) == 6
            node.set_tasks([subtract])
            assert await (await node.enqueue("add", {"a": 5})).result(10) == 4

    asyncio.run(main())


def test_a_thread_that_gives_up_waiting_gets_a_timeout_and_the_job_goes_on() -> None:
    release = threading.Event()

    @zhero.task
    def hold() -> str:
        assert release.wait(20)
        return "held"

    node = zhero.Node([hold], **QUICK)
    node.start()
    try:
        job = hold.enqueue_soon()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                job.result_sync(0.01)
        release.set()
        assert job.result_sync(10) == "held"
    finally:
        release.set()
        node.stop()


def test_a_port_in_use_is_a_typed_error() -> None:
    async def main() -> None:
        async with zhero.Node([], bind="tcp://127.0.0.1:0") as node:
            endpoint = (await node.status()).members[0].endpoint
            with pytest.raises(zhero.BindFailed, match="choose another port"):
                await zhero.Node([], bind=endpoint).__aenter__()

    asyncio.run(main())


def test_two_hundred_starts_and_stops_leave_nothing_behind() -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(200):
            async with zhero.Node([add, whoami], workers=2, **QUICK):
                await (await add.enqueue(1)).result(10)
        assert len(os.listdir("/proc/self/fd")) <= before + 5
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
