"""Jobs in threads."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Self

import pytest

from zhero.codec import decode, encode
from zhero.core.values import SUCCEEDED, Finished, Header, JobId, Run, Status, Verdict, job_text
from zhero.errors import Retry
from zhero.runtime import threads as threads_module
from zhero.runtime.executor import Executor
from zhero.runtime.handlers import Backoff, Ending, Handler, current
from zhero.runtime.threads import Threads

PATIENCE_S = 10.0
Function = Callable[[dict[str, Any]], Any]
COLOUR: ContextVar[str] = ContextVar("colour", default="none")


def task(call: Function, *, timeout_ms: int | None = None, retries: int = 0) -> Handler:
    return Handler(call.__name__, "thread", call, timeout_ms, retries, Backoff(), None)


class Stage:
    """An executor, open within `async with`, and what it has reported."""

    def __init__(self, *handlers: Handler, workers: int = 2) -> None:
        self.started: list[int] = []
        self.ended: dict[int, Finished] = {}
        self._made = 0
        self.executor = Executor(
            workers,
            {handler.name: handler for handler in handlers},
            lambda: asyncio.get_running_loop().call_soon(self._take) and None,
            node="the node",
            rng=random.Random(1),
            logger=logging.getLogger("zhero.test"),
        )

    def _take(self) -> None:
        self.started += self.executor.take_started()
        for finished in self.executor.take_finished():
            assert finished.job not in self.ended, "reported twice"
            self.ended[finished.job] = finished

    def submit(self, call: Function, **params: Any) -> JobId:
        self._made += 1
        run = Run(JobId(self._made), Header(call.__name__), encode(params, "params"), 1, 1, 0, 0)
        self.executor.submit([run])
        return run.job

    async def end_of(self, job: JobId) -> Finished:
        await until(lambda: job in self.ended)
        return self.ended[job]

    async def run(self, call: Function, **params: Any) -> Finished:
        return await self.end_of(self.submit(call, **params))

    async def __aenter__(self) -> Self:
        self.executor.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.executor.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


def our_threads() -> set[str]:
    return {it.name for it in threading.enumerate() if it.name.startswith("zhero-")}


def test_a_function_runs_in_a_thread_of_ours_with_its_params_and_its_context() -> None:
    def where(params: dict[str, Any]) -> list[Any]:
        here = current()
        seen = [threading.current_thread().name, here.job_id, here.node, here.cancelled, params["x"], COLOUR.get()]
        COLOUR.set("the job's")
        return seen

    async def scenario() -> None:
        COLOUR.set("the opener's")
        async with Stage(task(where)) as stage:
            for _ in range(2):
                job = stage.submit(where, x=(1, 2))
                name, *seen = decode((await stage.end_of(job)).outcome.result)
                assert name.startswith("zhero-thread-")
                assert seen == [job_text(job), "the node", False, (1, 2), "the opener's"]

    asyncio.run(scenario())


def test_what_a_function_raises_is_judged_as_on_the_loop() -> None:
    def fails(params: dict[str, Any]) -> None:
        raise ValueError("no")

    def exits(params: dict[str, Any]) -> None:
        raise SystemExit

    def asks(params: dict[str, Any]) -> None:
        raise Retry(run_in=2)

    def returns_badly(params: dict[str, Any]) -> object:
        return object()

    async def scenario() -> None:
        async with Stage(*(task(it, retries=1) for it in (fails, exits, asks, returns_badly))) as stage:
            assert [(await stage.run(it)).verdict for it in (fails, exits, asks, returns_badly)] == [
                Verdict.RETRY,
                Verdict.RETRY,
                Verdict.RETRY,
                Verdict.DEAD,
            ]
            failure = stage.ended[1].outcome.failure
            assert failure is not None
            assert (failure.kind, failure.traceback.count("File ")) == ("ValueError", 1)
            assert stage.ended[3].delay_ms == 2000

    asyncio.run(scenario())


def test_the_pool_grows_to_what_is_needed_at_once_and_its_threads_are_used_again() -> None:
    gate = threading.Event()

    def stay(params: dict[str, Any]) -> None:
        assert gate.wait(PATIENCE_S)

    async def scenario() -> None:
        async with Stage(task(stay), workers=3) as stage:
            before = our_threads()
            jobs = [stage.submit(stay) for _ in range(4)]
            await until(lambda: len(stage.started) == 3)
            await until(lambda: len(our_threads() - before) == 3)
            assert len(stage.started) == 3
            gate.set()
            for job in jobs:
                assert (await stage.end_of(job)).verdict is Verdict.DONE
            for _ in range(20):
                await stage.run(stay)
            assert len(our_threads() - before) == 3
        assert not our_threads() - before

    asyncio.run(scenario())


def test_many_results_all_come_home() -> None:
    def double(params: dict[str, Any]) -> int:
        return int(params["x"]) * 2

    async def scenario() -> None:
        async with Stage(task(double), workers=8) as stage:
            jobs = [stage.submit(double, x=x) for x in range(1000)]
            results = [decode((await stage.end_of(job)).outcome.result) for job in jobs]
            assert results == [x * 2 for x in range(1000)]

    asyncio.run(scenario())


def test_a_function_that_runs_too_long_fails_at_once_and_its_late_end_is_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = threading.Event()
    ended = threading.Event()

    def stay(params: dict[str, Any]) -> str:
        try:
            assert gate.wait(PATIENCE_S)
            return "late"
        finally:
            ended.set()

    def quick(params: dict[str, Any]) -> None:
        pass

    async def scenario() -> None:
        async with Stage(task(stay, timeout_ms=20), task(quick), workers=1) as stage:
            before = our_threads()
            try:
                job = stage.submit(stay)
                assert (await stage.end_of(job)).outcome.status is Status.TIMED_OUT
                assert any(job_text(job) in it.getMessage() for it in caplog.records)
                assert (await stage.run(quick)).verdict is Verdict.DONE, "the slot is free again"
                assert len(our_threads() - before) == 2, "the abandoned thread has been replaced"
            finally:
                gate.set()
            await until(ended.is_set)
            await until(lambda: len(our_threads() - before) == 1)
            assert (await stage.run(quick)).verdict is Verdict.DONE
            assert len(stage.ended) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_a_function_can_only_be_asked_to_stop_and_its_result_counts(fails: bool) -> None:
    def polls(params: dict[str, Any]) -> str:
        here = current()
        while not here.cancelled:
            pause.wait(0.001)
        if fails:
            raise InterruptedError("stopped")
        return "stopped"

    pause = threading.Event()

    async def scenario() -> None:
        async with Stage(task(polls, retries=5), workers=1) as stage:
            job = stage.submit(polls)
            await until(lambda: job in stage.started)
            assert not stage.executor.cancel(job)
            finished = await stage.end_of(job)
            assert finished.verdict is (Verdict.CANCELLED if fails else Verdict.DONE)

    asyncio.run(scenario())


def test_a_job_in_a_thread_can_wait_for_another_with_one_slot() -> None:
    def child(params: dict[str, Any]) -> int:
        return 1

    def parent(params: dict[str, Any]) -> int:
        children.put_nowait(None)
        with executor.waiting_sync():
            assert answered.wait(PATIENCE_S)
        return 2

    answered = threading.Event()

    async def scenario() -> None:
        nonlocal children, executor
        children = asyncio.Queue()
        async with Stage(task(child), task(parent), workers=1) as stage:
            executor = stage.executor
            job = stage.submit(parent)
            other = stage.submit(child)
            await stage.end_of(other)
            assert job not in stage.ended
            answered.set()
            assert decode((await stage.end_of(job)).outcome.result) == 2
            assert (await stage.run(child)).verdict is Verdict.DONE
            assert executor.capacity() == 1
            with pytest.raises(RuntimeError, match="block the event loop"), executor.waiting_sync():
                pass

    children: asyncio.Queue[None]
    executor: Executor
    asyncio.run(scenario())


def test_close_leaves_a_busy_thread_behind_and_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "JOIN_MAX_S", 1000.0)
    begun, gate = threading.Event(), threading.Event()

    def stay(params: dict[str, Any]) -> None:
        begun.set()
        gate.wait(PATIENCE_S)

    async def scenario() -> None:
        async with Stage(task(stay), workers=2) as stage:
            stage.submit(stay)
            await until(begun.is_set)
        assert our_threads(), "it has waited for the end"

    try:
        asyncio.run(scenario())
    finally:
        gate.set()


def test_a_thread_that_waits_for_a_slot_is_let_go_by_close() -> None:
    gate, waiting = threading.Event(), threading.Event()

    def parent(params: dict[str, Any]) -> None:
        with executor.waiting_sync():
            waiting.set()
            gate.wait(PATIENCE_S)

    def stay(params: dict[str, Any]) -> None:
        gate.wait(PATIENCE_S)
        executor_closed.wait(PATIENCE_S)

    executor_closed = threading.Event()

    async def scenario() -> None:
        nonlocal executor
        async with Stage(task(parent), task(stay), workers=1) as stage:
            executor = stage.executor
            stage.submit(parent)
            await until(waiting.is_set)
            stage.submit(stay)
            await until(lambda: len(stage.started) == 2)
            gate.set()  # parent comes back and finds the slot taken
        assert asyncio.all_tasks() == {asyncio.current_task()}
        executor_closed.set()
        await until(lambda: not our_threads())

    executor: Executor
    asyncio.run(scenario())


def test_a_thread_that_comes_back_after_close_does_not_need_the_loop() -> None:
    gate, waiting, ended = threading.Event(), threading.Event(), threading.Event()

    def parent(params: dict[str, Any]) -> None:
        with executor.waiting_sync():
            waiting.set()
            gate.wait(PATIENCE_S)
        ended.set()

    async def scenario() -> None:
        nonlocal executor
        async with Stage(task(parent), workers=1) as stage:
            executor = stage.executor
            stage.submit(parent)
            await until(waiting.is_set)
        gate.set()
        assert ended.wait(PATIENCE_S)  # while this blocks the loop

    executor: Executor
    asyncio.run(scenario())


def test_threads_whose_calls_are_given_up_end_with_them() -> None:
    gate = threading.Event()
    begun: list[str] = []

    def stay() -> Ending:
        begun.append(threading.current_thread().name)
        gate.wait(PATIENCE_S)
        return SUCCEEDED

    async def scenario() -> None:
        threads = Threads(asyncio.get_running_loop())
        try:
            for count in range(1, 21):
                running = asyncio.ensure_future(threads.run(stay, copy_context()))
                await until(lambda count=count: len(begun) == count)  # type: ignore[misc]
                running.cancel()
                await asyncio.wait([running])
            assert len(our_threads()) == 20
            gate.set()
            assert await threads.run(stay, copy_context()) is SUCCEEDED
            await until(lambda: len(our_threads()) == 1)
        finally:
            gate.set()
            threads.close()
        assert not our_threads()

    asyncio.run(scenario())


def test_a_call_that_is_given_up_before_it_began_is_skipped() -> None:
    begun: list[str] = []

    def work(name: str) -> Callable[[], Ending]:
        def call() -> Ending:
            begun.append(name)
            return SUCCEEDED

        return call

    async def scenario() -> None:
        threads = Threads(asyncio.get_running_loop())
        interval = sys.getswitchinterval()
        try:
            await threads.run(work("first"), copy_context())
            sys.setswitchinterval(100)  # the thread can't run before this one lets it
            given_up = threads.run(work("given up"), copy_context())
            given_up.send(None)
            with pytest.raises(asyncio.CancelledError):
                given_up.throw(asyncio.CancelledError())
            sys.setswitchinterval(interval)
            await threads.run(work("last"), copy_context())
            await until(lambda: len(our_threads()) == 1)
        finally:
            sys.setswitchinterval(interval)
            threads.close()

    asyncio.run(scenario())
    assert begun == ["first", "last"]
