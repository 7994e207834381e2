"""The executor and jobs on the loop. Threads and child processes have files of their own."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from zhero.codec import decode, encode
from zhero.core.values import SUCCEEDED, Finished, Header, JobId, Run, Status, Verdict, job_text
from zhero.errors import Discard, NotRunning, Retry, Snooze
from zhero.runtime import executor as executor_module
from zhero.runtime.executor import Executor
from zhero.runtime.handlers import TRACEBACK_MAX_BYTES, Backoff, Handler, current, current_or_none, span_ms

PATIENCE_S = 10.0
Function = Callable[[dict[str, Any]], Any]


def task(
    name: str, call: Function, *, timeout_ms: int | None = None, retries: int = 0, backoff: Backoff | None = None
) -> Handler:
    return Handler(name, "async", call, timeout_ms, retries, backoff or Backoff(), None)


class Stage:
    """An executor, open within `async with`, and what it has reported."""

    def __init__(self, *handlers: Handler, workers: int = 2, result_max_bytes: int = 1000) -> None:
        self.started: list[int] = []
        self.ended: dict[int, Finished] = {}
        self.order: list[int] = []
        self.handlers = {handler.name: handler for handler in handlers}
        self._news = asyncio.Event()
        self._made = 0
        self.executor = Executor(
            workers,
            self.handlers,
            lambda: asyncio.get_running_loop().call_soon(self._take) and None,
            node="the node",
            rng=random.Random(1),
            logger=logging.getLogger("zhero.test"),
            result_max_bytes=result_max_bytes,
        )

    def _take(self) -> None:
        self.started += self.executor.take_started()
        for finished in self.executor.take_finished():
            assert finished.job not in self.ended, "reported twice"
            self.ended[finished.job] = finished
            self.order.append(finished.job)
        self._news.set()

    def make(self, name: str, *, tries: int = 1, data: bytes | None = None, **params: Any) -> Run:
        self._made += 1
        data = encode(params, "params") if data is None else data
        return Run(JobId(self._made), Header(name), data, attempt=tries, tries=tries, epoch=7, enqueued_at_ms=5)

    def submit(self, name: str, *, tries: int = 1, data: bytes | None = None, **params: Any) -> JobId:
        run = self.make(name, tries=tries, data=data, **params)
        self.executor.submit([run])
        return run.job

    async def end_of(self, job: int) -> Finished:
        async with asyncio.timeout(PATIENCE_S):
            while job not in self.ended:
                self._news.clear()
                await self._news.wait()
        return self.ended[job]

    async def run(self, name: str, *, tries: int = 1, data: bytes | None = None, **params: Any) -> Finished:
        return await self.end_of(self.submit(name, tries=tries, data=data, **params))

    async def __aenter__(self) -> Self:
        self.executor.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        others = asyncio.all_tasks()
        await self.executor.close()
        workers = {it for it in asyncio.all_tasks() if it.get_name() == "zhero-worker" or it not in others}
        assert not workers, "close left workers behind"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def turns() -> None:
    """Let the loop do all that can be done at once."""
    for _ in range(20):
        await asyncio.sleep(0)


def outcome_of(call: Function, *, tries: int = 1, retries: int = 0, backoff: Backoff | None = None) -> Finished:
    """Run one job to its end."""

    async def scenario() -> Finished:
        async with Stage(task("it", call, retries=retries, backoff=backoff)) as stage:
            return await stage.run("it", tries=tries)

    return asyncio.run(scenario())


def raising(error: BaseException) -> Function:
    async def call(params: dict[str, Any]) -> None:
        raise error

    return call


async def nothing(params: dict[str, Any]) -> None:
    pass


async def echo(params: dict[str, Any]) -> dict[str, Any]:
    return params


# --- how runs end -------------------------------------------------------------------------------------------------


def test_a_job_receives_its_params_and_its_result_is_reported_encoded() -> None:
    async def scenario() -> None:
        async with Stage(task("echo", echo)) as stage:
            finished = await stage.run("echo", a=(1, 2), b=timedelta(days=1))
            assert (finished.verdict, finished.outcome.status) == (Verdict.DONE, Status.SUCCEEDED)
            assert decode(finished.outcome.result) == {"a": (1, 2), "b": timedelta(days=1)}
            assert stage.started == [finished.job]

    asyncio.run(scenario())


def test_a_job_that_returns_nothing_has_the_shared_outcome() -> None:
    assert outcome_of(nothing).outcome is SUCCEEDED


def test_any_awaitable_is_awaited() -> None:
    def call(params: dict[str, Any]) -> Awaitable[str]:
        return asyncio.ensure_future(asyncio.sleep(0, "late"))

    assert decode(outcome_of(call).outcome.result) == "late"


def test_a_failed_job_is_retried_with_backoff_until_its_tries_are_used_up() -> None:
    backoff = Backoff(first_ms=100, factor=3, jitter=0)
    fail = raising(ValueError("no"))
    verdicts = [outcome_of(fail, tries=tries, retries=2, backoff=backoff) for tries in (1, 2, 3)]
    assert [(it.verdict, it.delay_ms) for it in verdicts] == [
        (Verdict.RETRY, 100),
        (Verdict.RETRY, 300),
        (Verdict.DEAD, 0),
    ]
    failure = verdicts[2].outcome.failure
    assert failure is not None
    assert (verdicts[2].outcome.status, failure.kind, failure.message) == (Status.FAILED, "ValueError", "no")


def test_backoff_is_bounded_and_shortened_by_chance() -> None:
    backoff = Backoff(first_ms=1000, factor=2, max_ms=60_000, jitter=0.5)
    waits = [backoff.wait_ms(tries, random.Random(seed)) for tries in (1, 10, 5000) for seed in range(50)]
    assert all(500 <= wait <= 1000 for wait in waits[:50])
    assert all(30_000 <= wait <= 60_000 for wait in waits[50:])
    assert len(set(waits)) > 50


@pytest.mark.parametrize(
    ("signal", "tries", "verdict", "status", "delay_ms"),
    [
        (Retry("later", run_in=1.5), 1, Verdict.RETRY, Status.FAILED, 1500),
        (Retry(run_in=timedelta(microseconds=1)), 1, Verdict.RETRY, Status.FAILED, 1),
        (Retry(), 1, Verdict.RETRY, Status.FAILED, 250),
        (Retry(run_in=1), 2, Verdict.DEAD, Status.FAILED, 0),
        (Snooze("busy", run_in=2), 1, Verdict.SNOOZE, Status.FAILED, 2000),
        (Snooze(run_in=0), 9, Verdict.SNOOZE, Status.FAILED, 0),
        (Discard("never"), 1, Verdict.DEAD, Status.DISCARDED, 0),
    ],
)
def test_a_signal_says_what_becomes_of_the_job(
    signal: Exception, tries: int, verdict: Verdict, status: Status, delay_ms: int
) -> None:
    backoff = Backoff(first_ms=250, jitter=0)
    finished = outcome_of(raising(signal), tries=tries, retries=1, backoff=backoff)
    assert (finished.verdict, finished.outcome.status, finished.delay_ms) == (verdict, status, delay_ms)
    assert finished.outcome.failure is not None
    assert finished.outcome.failure.message == str(signal)


@pytest.mark.parametrize("span", [-1, float("nan"), float("inf"), 1e300, True, "5", None, timedelta(days=9999)])
def test_a_span_that_is_none_fails_the_job_for_good_and_says_so(span: Any) -> None:
    finished = outcome_of(raising(Snooze(run_in=span)), retries=5)
    assert (finished.verdict, finished.outcome.status) == (Verdict.DEAD, Status.FAILED)
    assert finished.outcome.failure is not None
    assert "run_in=" in finished.outcome.failure.message


@pytest.mark.parametrize(("span", "ms"), [(0.0001, 1), (0.1, 100), (1.1, 1100), (2, 2000), (0, 0), (2.0005, 2001)])
def test_spans_are_rounded_up_to_milliseconds(span: float, ms: int) -> None:
    assert span_ms(span) == ms


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        Unprintable(),
        ExceptionGroup("several", [ValueError("one"), Unprintable()]),
        ValueError("a lone surrogate \ud800"),
        ValueError("long " * 100_000),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_exception_hurts_the_executor(error: BaseException) -> None:
    async def scenario() -> None:
        async with Stage(task("bad", raising(error)), task("good", nothing), workers=1) as stage:
            finished = await stage.run("bad")
            assert (finished.verdict, finished.outcome.status) == (Verdict.DEAD, Status.FAILED)
            assert finished.outcome.failure is not None
            assert len(str(finished.outcome.failure).encode()) < 100_000
            assert (await stage.run("good")).verdict is Verdict.DONE

    asyncio.run(scenario())


def test_a_traceback_shows_the_code_of_the_task_and_keeps_its_end() -> None:
    def deep(levels: int) -> None:
        if levels == 0:
            raise ValueError("down here " + "x" * 2 * TRACEBACK_MAX_BYTES + " the end")
        deep(levels - 1)

    async def call(params: dict[str, Any]) -> None:
        deep(20)

    failure = outcome_of(call).outcome.failure
    assert failure is not None
    assert len(failure.traceback.encode()) <= TRACEBACK_MAX_BYTES
    assert failure.traceback.rstrip().endswith("the end")
    failure = outcome_of(raising(ValueError("short"))).outcome.failure
    assert failure is not None
    assert failure.traceback.count("File ") == 1
    assert __file__ in failure.traceback


def test_a_result_that_cannot_be_sent_fails_the_job_for_good() -> None:
    async def call(params: dict[str, Any]) -> Any:
        return {"x": [1, object()]}

    finished = outcome_of(call, retries=5)
    assert finished.verdict is Verdict.DEAD
    assert finished.outcome.failure is not None
    assert finished.outcome.failure.kind == "ParamsInvalid"
    assert "result['x'][1]" in finished.outcome.failure.message


def test_a_result_that_is_too_large_fails_the_job_for_good() -> None:
    async def call(params: dict[str, Any]) -> str:
        return "x" * 1001

    finished = outcome_of(call, retries=5)
    assert finished.verdict is Verdict.DEAD
    assert finished.outcome.failure is not None
    assert "1000" in finished.outcome.failure.message


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x90"])
def test_params_that_cannot_be_read_fail_the_job_for_good(data: bytes) -> None:
    async def scenario() -> None:
        async with Stage(task("echo", echo, retries=5)) as stage:
            finished = await stage.run("echo", data=data)
            assert (finished.verdict, finished.outcome.status) == (Verdict.DEAD, Status.FAILED)

    asyncio.run(scenario())


def test_a_job_whose_task_is_gone_is_dead() -> None:
    async def scenario() -> None:
        async with Stage(workers=1) as stage:
            finished = await stage.run("gone")
            assert (finished.verdict, finished.outcome.status) == (Verdict.DEAD, Status.FAILED)
            assert finished.outcome.failure is not None
            assert finished.outcome.failure.kind == "TaskNotFound"
            stage.handlers["gone"] = task("gone", nothing)
            assert (await stage.run("gone")).verdict is Verdict.DONE

    asyncio.run(scenario())


def test_a_keyboard_interrupt_reaches_the_loop_and_the_job_is_reported() -> None:
    finished: list[Finished] = []

    async def scenario() -> None:
        stage = Stage(task("it", raising(KeyboardInterrupt())))
        stage.executor.open()
        stage.submit("it")
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            finished.extend(stage.executor.take_finished() or stage.ended.values())
            await stage.executor.close()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(scenario())
    assert [it.outcome.status for it in finished] == [Status.FAILED]


# --- slots --------------------------------------------------------------------------------------------------------


class Crowd:
    """Jobs that stay until they are let go, and how many were there at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.gate = asyncio.Event()

    async def stay(self, params: dict[str, Any]) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.gate.wait()
        self.inside -= 1


def test_of_k_plus_one_sleeping_jobs_exactly_k_run_at_once() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        async with Stage(task("stay", crowd.stay), workers=3) as stage:
            jobs = [stage.submit("stay") for _ in range(4)]
            await until(lambda: crowd.inside == 3)
            await turns()
            assert (crowd.inside, stage.started) == (3, jobs[:3])
            crowd.gate.set()
            for job in jobs:
                await stage.end_of(job)
            assert (crowd.most, stage.started) == (3, jobs)

    asyncio.run(scenario())


def test_jobs_start_in_the_order_in_which_they_were_submitted() -> None:
    async def scenario() -> None:
        async with Stage(task("it", nothing), workers=1) as stage:
            runs = [stage.make("it") for _ in range(100)]
            stage.executor.submit(runs)
            await stage.end_of(runs[-1].job)
            assert stage.started == stage.order == [run.job for run in runs]

    asyncio.run(scenario())


def test_an_executor_without_slots_wants_and_runs_nothing() -> None:
    async def scenario() -> None:
        async with Stage(task("it", nothing), workers=0) as stage:
            assert stage.executor.capacity() == 0

    asyncio.run(scenario())


def test_wake_is_called_once_until_what_piled_up_is_taken() -> None:
    async def scenario() -> None:
        woken: list[None] = []
        executor = Executor(
            2,
            {"it": task("it", nothing)},
            lambda: woken.append(None),
            node=None,
            rng=random.Random(),
            logger=logging.getLogger("zhero.test"),
        )
        executor.open()
        stage = Stage()
        for round_ in (1, 2):
            executor.submit([stage.make("it") for _ in range(5)])
            await until(lambda: len(executor.finished) == 5)
            assert len(woken) == round_
            assert (len(executor.take_started()), len(executor.take_finished())) == (5, 5)
        await executor.close()

    asyncio.run(scenario())


def test_more_jobs_than_slots_are_wanted_only_while_jobs_are_short() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        async with Stage(task("it", nothing), task("stay", crowd.stay), workers=2) as stage:
            assert stage.executor.capacity() == 2
            runs = [stage.make("it") for _ in range(200)]
            stage.executor.submit(runs)
            await stage.end_of(runs[-1].job)
            assert stage.executor.capacity() > 10
            job = stage.submit("stay")
            await until(lambda: stage.executor.capacity() == 2)
            crowd.gate.set()
            await stage.end_of(job)

    asyncio.run(scenario())


def test_a_burst_of_jobs_that_never_suspend_lets_the_loop_turn() -> None:
    async def scenario() -> None:
        turns = 0
        burst_over = False

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not burst_over:
                asyncio.get_running_loop().call_soon(turn)

        async def spin(params: dict[str, Any]) -> None:
            sum(range(20_000))

        async with Stage(task("spin", spin), workers=1) as stage:
            runs = [stage.make("spin") for _ in range(100)]
            turn()
            stage.executor.submit(runs)
            await stage.end_of(runs[-1].job)
            burst_over = True
        assert turns > 10

    asyncio.run(scenario())


# --- context ------------------------------------------------------------------------------------------------------

COLOUR: ContextVar[str] = ContextVar("colour", default="none")


def test_context_variables_that_a_job_sets_end_with_it() -> None:
    async def scenario() -> None:
        async def paint(params: dict[str, Any]) -> list[str]:
            seen = [COLOUR.get()]
            COLOUR.set(params["colour"])
            await asyncio.sleep(0)
            return [*seen, COLOUR.get()]

        COLOUR.set("the opener's")
        async with Stage(task("paint", paint), workers=1) as stage:
            for colour in ("red", "blue"):
                finished = await stage.run("paint", colour=colour)
                assert decode(finished.outcome.result) == ["the opener's", colour]
            assert COLOUR.get() == "the opener's"

    asyncio.run(scenario())


def test_jobs_that_run_at_once_do_not_see_each_others_context_variables() -> None:
    async def scenario() -> None:
        async def paint(params: dict[str, Any]) -> bool:
            COLOUR.set(params["colour"])
            for _ in range(5):
                await asyncio.sleep(0)
                if COLOUR.get() != params["colour"]:
                    return False
            return True

        async with Stage(task("paint", paint), workers=4) as stage:
            jobs = [stage.submit("paint", colour=str(number)) for number in range(8)]
            assert all([decode((await stage.end_of(job)).outcome.result) for job in jobs])

    asyncio.run(scenario())


def test_current_is_the_job_in_all_that_it_starts_and_nothing_outside() -> None:
    async def scenario() -> None:
        async def name_of_current() -> str:
            return current().job_id

        async def call(params: dict[str, Any]) -> None:
            here = current()
            assert (here.task, here.attempt, here.tries, here.node) == ("it", 3, 3, "the node")
            assert (here.token, here.enqueued_at_ms, here.number) == ((7, 3), 5, 0)
            assert await asyncio.create_task(name_of_current()) == here.job_id == job_text(JobId(1))

        async with Stage(task("it", call)) as stage:
            assert (await stage.run("it", tries=3)).verdict is Verdict.DONE

    asyncio.run(scenario())
    assert current_or_none() is None
    with pytest.raises(NotRunning, match="outside a job"):
        current()


def test_the_job_on_the_loop_is_known_while_it_runs_and_not_while_it_waits() -> None:
    async def scenario() -> None:
        seen: list[str | None] = []
        gate = asyncio.Event()

        async def call(params: dict[str, Any]) -> None:
            seen.append(stage.executor.who())
            await gate.wait()
            seen.append(stage.executor.who())

        async with Stage(task("it", call)) as stage:
            job = stage.submit("it")
            await until(lambda: len(seen) == 1)
            assert stage.executor.who() is None
            gate.set()
            await stage.end_of(job)
            assert seen == [f"job {job_text(job)} (it)"] * 2

    asyncio.run(scenario())


# --- ending runs --------------------------------------------------------------------------------------------------


async def sleep_long(params: dict[str, Any]) -> None:
    await asyncio.sleep(1000)


def test_a_job_that_runs_too_long_is_cancelled_and_has_timed_out() -> None:
    async def scenario() -> None:
        handler = task("long", sleep_long, timeout_ms=30, retries=1, backoff=Backoff(first_ms=100, jitter=0))
        async with Stage(handler, workers=1) as stage:
            began = asyncio.get_running_loop().time()
            finished = await stage.run("long")
            assert asyncio.get_running_loop().time() - began >= 0.03
            assert (finished.verdict, finished.delay_ms) == (Verdict.RETRY, 100)
            finished = await stage.run("long", tries=2)
            assert (finished.verdict, finished.outcome.status) == (Verdict.DEAD, Status.TIMED_OUT)
            assert finished.outcome.failure is not None
            assert "0.03 s" in finished.outcome.failure.message
            assert "sleep_long" in finished.outcome.failure.traceback

    asyncio.run(scenario())


def test_an_earlier_deadline_is_met_while_a_later_one_is_awaited() -> None:
    async def scenario() -> None:
        handlers = [task("slow", sleep_long, timeout_ms=60_000), task("quick", sleep_long, timeout_ms=20)]
        async with Stage(*handlers) as stage:
            stage.submit("slow")
            assert (await stage.run("quick")).outcome.status is Status.TIMED_OUT
            assert (await stage.run("quick")).outcome.status is Status.TIMED_OUT

    asyncio.run(scenario())


def test_a_handler_that_swallows_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "CANCEL_AGAIN_S", 0.01)

    async def scenario() -> None:
        async def stubborn(params: dict[str, Any]) -> str:
            for _ in range(3):
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    pass
            return "at last"

        handlers = [task("stubborn", stubborn), task("limited", stubborn, timeout_ms=10), task("next", echo)]
        async with Stage(*handlers, workers=1) as stage:
            assert (await stage.run("limited")).outcome.status is Status.TIMED_OUT, "what comes too late is no result"
            job = stage.submit("stubborn")
            await until(lambda: job in stage.started)
            assert stage.executor.cancel(job)
            finished = await stage.end_of(job)
            assert finished.verdict is Verdict.DONE, "it came to its end all the same"
            assert decode(finished.outcome.result) == "at last"
            assert (await stage.run("next")).verdict is Verdict.DONE

    asyncio.run(scenario())


def test_a_running_job_can_be_cancelled_and_is_not_retried() -> None:
    async def scenario() -> None:
        async def cleans_up_badly(params: dict[str, Any]) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                raise ValueError("while cleaning up")

        handlers = [task("long", sleep_long, retries=5), task("bad", cleans_up_badly, retries=5), task("it", nothing)]
        async with Stage(*handlers, workers=1) as stage:
            for name, why in (("long", None), ("bad", "ValueError")):
                job = stage.submit(name)
                await until(lambda job=job: job in stage.started)  # type: ignore[misc]
                assert stage.executor.cancel(job)
                finished = await stage.end_of(job)
                assert (finished.verdict, finished.outcome.status) == (Verdict.CANCELLED, Status.CANCELLED)
                failure = finished.outcome.failure
                assert (failure and failure.kind) == why
            assert (await stage.run("it")).verdict is Verdict.DONE

    asyncio.run(scenario())


def test_a_job_that_has_not_started_is_removed_when_cancelled() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        async with Stage(task("stay", crowd.stay), workers=1) as stage:
            first, second, third = (stage.submit("stay") for _ in range(3))
            await until(lambda: first in stage.started)
            assert stage.executor.cancel(second)
            assert (await stage.end_of(second)).verdict is Verdict.CANCELLED
            crowd.gate.set()
            await stage.end_of(third)
            assert stage.started == [first, third]
            assert stage.executor.cancel(first), "one that has ended needs no stopping"
            assert stage.ended[first].verdict is Verdict.DONE

    asyncio.run(scenario())


@pytest.mark.parametrize("suspends", [True, False])
def test_a_handler_that_cancels_its_own_task_harms_no_other_job(suspends: bool) -> None:
    async def scenario() -> None:
        async def call(params: dict[str, Any]) -> None:
            worker = asyncio.current_task()
            assert worker is not None
            worker.cancel()
            if suspends:
                await asyncio.sleep(0)

        async def suspend(params: dict[str, Any]) -> None:
            await asyncio.sleep(0)

        async with Stage(task("self", call), task("next", suspend), workers=1) as stage:
            runs = [stage.make(name) for name in ("self", "next", "self", "next")]
            stage.executor.submit(runs)
            ended = [await stage.end_of(run.job) for run in runs]
            mine = Status.FAILED if suspends else Status.SUCCEEDED
            assert [it.outcome.status for it in ended] == [mine, Status.SUCCEEDED] * 2

    asyncio.run(scenario())


@pytest.mark.parametrize("has_been_given_a_job", [False, True])
def test_an_idle_worker_that_somebody_cancels_takes_no_job_with_it(has_been_given_a_job: bool) -> None:
    async def scenario() -> None:
        async with Stage(task("it", nothing), workers=1) as stage:
            await stage.run("it")
            await turns()
            job = stage.submit("it") if has_been_given_a_job else None
            for worker in asyncio.all_tasks():
                if worker.get_name() == "zhero-worker":
                    worker.cancel()
            job = job or stage.submit("it")
            assert (await stage.end_of(job)).verdict is Verdict.DONE
            assert (await stage.run("it")).verdict is Verdict.DONE

    asyncio.run(scenario())


def test_timeouts_and_task_groups_work_in_a_handler_as_anywhere() -> None:
    async def scenario() -> None:
        async def call(params: dict[str, Any]) -> list[str]:
            seen: list[str] = []
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(1000)
            except TimeoutError:
                seen.append("timeout")
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(1000))
                    group.create_task(raising(ValueError("in group"))({}))
            except* ValueError:
                seen.append("group")
            child = asyncio.create_task(asyncio.sleep(1000))
            child.cancel()
            try:
                await child
            except asyncio.CancelledError:
                seen.append("child")
            return seen

        async with Stage(task("it", call), workers=1) as stage:
            for _ in range(3):
                assert decode((await stage.run("it")).outcome.result) == ["timeout", "group", "child"]

    asyncio.run(scenario())


# --- waiting for other jobs ---------------------------------------------------------------------------------------


def test_with_one_slot_a_job_can_wait_for_another() -> None:
    async def scenario() -> None:
        async def parent(params: dict[str, Any]) -> Any:
            child = stage.submit("echo", x=1)
            async with stage.executor.waiting():
                assert stage.executor.capacity() == 2
                return decode((await stage.end_of(child)).outcome.result)

        async with Stage(task("parent", parent), task("echo", echo), workers=1) as stage:
            assert decode((await stage.run("parent")).outcome.result) == {"x": 1}
            assert stage.executor.capacity() == 1

    asyncio.run(scenario())


def test_a_job_waits_for_several_at_once() -> None:
    async def scenario() -> None:
        async def result_of(job: JobId) -> Any:
            async with stage.executor.waiting():
                return decode((await stage.end_of(job)).outcome.result)

        async def parent(params: dict[str, Any]) -> Any:
            if not params["depth"]:
                return 1
            children = [stage.submit("parent", depth=params["depth"] - 1) for _ in range(3)]
            return sum(await asyncio.gather(*(result_of(child) for child in children)))

        async with Stage(task("parent", parent), workers=1) as stage:
            assert decode((await stage.run("parent", depth=3)).outcome.result) == 27
            assert stage.executor.capacity() == 1

    asyncio.run(scenario())


def test_a_job_that_comes_back_goes_before_new_jobs() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        over = asyncio.Event()
        trace: list[str] = []

        async def parent(params: dict[str, Any]) -> None:
            async with stage.executor.waiting():
                await over.wait()
                trace.append("wants to come back")
            trace.append("is back")

        async def other(params: dict[str, Any]) -> None:
            trace.append("other")

        handlers = [task("parent", parent), task("stay", crowd.stay), task("other", other)]
        async with Stage(*handlers, workers=1) as stage:
            stage.submit("parent")
            stage.submit("stay")
            await until(lambda: crowd.inside == 1)
            others = [stage.submit("other") for _ in range(3)]
            over.set()
            await until(lambda: len(trace) == 1)
            crowd.gate.set()
            await stage.end_of(others[-1])
            assert trace == ["wants to come back", "is back", "other", "other", "other"]

    asyncio.run(scenario())


def test_never_more_jobs_run_than_there_are_slots_however_they_wait() -> None:
    chance = random.Random(5)
    working = most = 0

    async def scenario() -> None:
        async def work() -> None:
            nonlocal working, most
            working += 1
            most = max(most, working)
            await asyncio.sleep(chance.random() / 1000)
            working -= 1

        async def call(params: dict[str, Any]) -> None:
            await work()
            for _ in range(params["waits"]):
                async with stage.executor.waiting():
                    await asyncio.sleep(chance.random() / 1000)
                await work()

        async with Stage(task("it", call), workers=3) as stage:
            jobs = [stage.submit("it", waits=chance.randrange(4)) for _ in range(200)]
            for job in jobs:
                assert (await stage.end_of(job)).verdict is Verdict.DONE
            assert stage.started == jobs
            assert stage.executor.capacity() == 3

    asyncio.run(scenario())
    assert most == 3


@pytest.mark.parametrize("place", ["while it waits", "on its way back"])
def test_a_job_whose_wait_times_out_goes_on_with_a_slot(place: str) -> None:
    async def scenario() -> None:
        crowd = Crowd()
        gave_up = asyncio.Event()
        over = asyncio.Event()
        limit = asyncio.timeout(None)

        async def parent(params: dict[str, Any]) -> str:
            try:
                async with limit, stage.executor.waiting():
                    await over.wait()
            except TimeoutError:
                gave_up.set()
            return "gave up" if gave_up.is_set() and crowd.inside == 0 else "went on beside the other"

        async with Stage(task("parent", parent), task("stay", crowd.stay), workers=1) as stage:
            job = stage.submit("parent")
            stage.submit("stay")
            await until(lambda: crowd.inside == 1)
            if place == "on its way back":
                over.set()
                await turns()
            limit.reschedule(asyncio.get_running_loop().time())
            await turns()
            assert not gave_up.is_set(), "it has to wait for the slot"
            crowd.gate.set()
            assert decode((await stage.end_of(job)).outcome.result) == "gave up"

    asyncio.run(scenario())


@pytest.mark.parametrize("place", ["while it waits", "on its way back"])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_waiting_job_that_is_told_to_stop_ends_without_a_slot(how: str, place: str) -> None:
    async def scenario() -> None:
        crowd = Crowd()
        over = asyncio.Event()

        async def parent(params: dict[str, Any]) -> None:
            async with stage.executor.waiting():
                await over.wait()

        limit_ms = 50 if how == "timeout" else None
        handlers = [task("parent", parent, timeout_ms=limit_ms), task("stay", crowd.stay)]
        async with Stage(*handlers, workers=1) as stage:
            job = stage.submit("parent")
            stage.submit("stay")
            await until(lambda: crowd.inside == 1)
            if place == "on its way back":
                over.set()
                await turns()
            if how == "cancel":
                stage.executor.cancel(job)
            finished = await stage.end_of(job)
            assert finished.outcome.status is (Status.CANCELLED if how == "cancel" else Status.TIMED_OUT)
            assert (crowd.inside, stage.executor.capacity()) == (1, 1)
            crowd.gate.set()
            await until(lambda: len(stage.ended) == 2)

    asyncio.run(scenario())


def test_a_part_of_a_job_that_still_waits_when_the_job_ends_takes_no_slot() -> None:
    async def scenario() -> None:
        left: list[asyncio.Task[None]] = []
        gate = asyncio.Event()
        crowd = Crowd()

        async def part() -> None:
            async with stage.executor.waiting():
                await gate.wait()

        async def call(params: dict[str, Any]) -> None:
            left.append(asyncio.create_task(part()))
            await asyncio.sleep(0)

        async with Stage(task("leaves", call), task("stay", crowd.stay), workers=1) as stage:
            assert (await stage.run("leaves")).verdict is Verdict.DONE
            jobs = [stage.submit("stay") for _ in range(2)]
            await until(lambda: crowd.inside == 1)
            gate.set()
            await left[0]
            crowd.gate.set()
            for job in jobs:
                assert (await stage.end_of(job)).verdict is Verdict.DONE
            assert (crowd.most, stage.executor.capacity()) == (1, 1)

    asyncio.run(scenario())


def test_waiting_outside_of_a_job_does_nothing() -> None:
    async def scenario() -> None:
        async with Stage() as stage, stage.executor.waiting():
            assert stage.executor.capacity() == 2

    asyncio.run(scenario())


# --- the end ------------------------------------------------------------------------------------------------------


def test_close_ends_what_runs_and_begins_nothing_new() -> None:
    async def scenario() -> None:
        cleaned: list[str] = []

        async def call(params: dict[str, Any]) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0)
                cleaned.append("up")

        async with Stage(task("it", call), workers=2) as stage:
            for _ in range(5):
                stage.submit("it")
            await until(lambda: len(stage.started) == 2)
        assert (cleaned, len(stage.started)) == (["up", "up"], 2)
        assert not stage.ended
        assert not stage.executor.take_finished()

    asyncio.run(scenario())


@pytest.mark.parametrize("ignores", [asyncio.CancelledError, BaseException])
def test_close_ends_a_handler_that_will_not_stop(
    ignores: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor_module, "CANCEL_AGAIN_S", 0.01)

    async def scenario() -> None:
        async def stubborn(params: dict[str, Any]) -> None:
            for _ in range(5):  # in the end it has to, or the collector complains
                try:
                    await asyncio.sleep(1000)
                except ignores:
                    pass

        async with Stage(task("stubborn", stubborn)) as stage:
            job = stage.submit("stubborn")
            await until(lambda: job in stage.started)

    asyncio.run(scenario())
    assert any("stubborn" in record.getMessage() for record in caplog.records)


def test_a_loop_that_ends_without_close_is_not_held_up() -> None:
    async def scenario() -> None:
        stage = Stage(task("it", sleep_long), workers=2)
        stage.executor.open()
        job = stage.submit("it")
        await until(lambda: job in stage.started)

    asyncio.run(scenario())


def test_two_hundred_lives_leave_no_thread_and_no_descriptor() -> None:
    async def scenario() -> None:
        function = Handler("thread", "thread", lambda params: None, 1000, 0, Backoff(), None)
        async with Stage(task("it", nothing), function) as stage:
            assert (await stage.run("it")).verdict is Verdict.DONE
            assert (await stage.run("thread")).verdict is Verdict.DONE

    asyncio.run(scenario())
    descriptors, threads = len(os.listdir("/proc/self/fd")) if Path("/proc").exists() else 0, threading.active_count()
    for _ in range(200):
        asyncio.run(scenario())
    assert threading.active_count() == threads
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors
