"""A client over real sockets, against a node whose engine, inbox and workers the test moves by hand."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from zhero import client as client_module
from zhero import codec
from zhero.client import Client
from zhero.config import Limits
from zhero.core.effects import Effect, Send, Start
from zhero.core.engine import Engine
from zhero.core.messages import Enqueue, Frame, Hello, Message, Request
from zhero.core.values import Failure, Finished, Life, Member, NodeId, Outcome, Run, Status, TaskSpec, Verdict
from zhero.errors import (
    AlreadyQueued,
    JobFailed,
    JobNotFound,
    NotReached,
    NotRunning,
    ParamsInvalid,
    TaskInvalid,
    TaskNotFound,
)
from zhero.runtime.discovery import Directory, Entry
from zhero.runtime.transport import Transport

CLUSTER = "client-test"
PATIENCE_S = 10.0
SPECS = [TaskSpec("add"), TaskSpec("tick", frequency_ms=3_600_000)]


class HandNode:
    """A real engine behind a real inbox; runs are kept in `runs` until the test ends them.

    `deaf`: messages of these kinds are not heard, once for each time that the kind stands there.
    """

    def __init__(self, cluster: str = CLUSTER, limits: Limits | None = None) -> None:
        self.heard: list[Message] = []
        self.deaf: list[type[Message]] = []
        self.mute = False
        self.runs: list[Run] = []
        self._transport = Transport(cluster, self._receive, rng=Random(1))
        self._life = Life(NodeId(os.urandom(16)), 1, 0)
        self._cluster = cluster
        self._limits = limits or Limits()
        self._now_ms = 1_000

    def open(self, root: Path, bind: str = "tcp://127.0.0.1:0") -> None:
        self.endpoint = self._transport.open(bind, self._life)
        self._transport.listen()
        member = Member(self._life, "hand", self.endpoint, os.getpid(), "0")
        self.engine = Engine(member, self._limits, self._now_ms, Random(1))
        self.carry_out(self.engine.define(SPECS, self._now_ms))
        entry = Entry(self._life.node, 1, "hand", self.endpoint, os.getpid(), "0", 1)
        Directory(root, self._cluster).announce(entry)

    def close(self) -> None:
        self._transport.gate.close()
        self._transport.close()
        self._transport.term()

    def work(self, slots: int) -> None:
        self.carry_out(self.engine.capacity(slots, self._now_ms))

    def end(self, run: Run, outcome: Outcome, verdict: Verdict = Verdict.DONE) -> None:
        self.carry_out(self.engine.started([run.job], self._now_ms))
        self.carry_out(self.engine.finished([Finished(run.job, run.attempt, verdict, outcome)], self._now_ms))

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and not self.mute:
                self._transport.send(effect.to, effect.frame)
            elif isinstance(effect, Start):
                self.runs += effect.runs

    def _receive(self, frame: Frame) -> None:
        kept: list[Message] = []
        for message in frame.messages:
            if frame.to in (None, self._life):  # others are not for this node; its engine has to see that
                self.heard.append(message)
            if type(message) in self.deaf:
                self.deaf.remove(type(message))
            else:
                kept.append(message)
        self.carry_out(self.engine.receive(Frame(frame.sender, frame.to, kept), self._now_ms))

    def calls(self, kind: type[Any]) -> list[Any]:
        return [it.call for it in self.heard if isinstance(it, Request) and isinstance(it.call, kind)]


@asynccontextmanager
async def hand_node(root: Path, bind: str = "tcp://127.0.0.1:0", **given: Any) -> AsyncGenerator[HandNode]:
    node = HandNode(**given)
    node.open(root, bind)
    try:
        yield node
    finally:
        node.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so, for a bounded time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def go(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3 * PATIENCE_S):
            await work

    asyncio.run(bounded())


# --- finding a node -----------------------------------------------------------------------------------------------


def test_a_client_finds_the_node_of_this_host(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir), Client(CLUSTER) as client:
            status = await client.status()
            assert [member.name for member in status.members] == ["hand"]
            assert client.payload_max_bytes == Limits().payload_max_bytes

    go(work())


def test_a_client_joins_an_endpoint_without_the_directory(own_runtime_dir: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node:
            elsewhere = tmp_path / "elsewhere"
            async with Client(CLUSTER, [node.endpoint], runtime_dir=elsewhere, insecure=True) as client:
                assert (await client.status()).members
            assert not elsewhere.exists()

    go(work())


def test_a_node_that_is_gone_is_passed_over_and_its_entry_removed(own_runtime_dir: Path) -> None:
    async def work() -> None:
        gone = HandNode()
        gone.open(own_runtime_dir)
        gone.close()
        async with hand_node(own_runtime_dir):
            assert len(Directory(own_runtime_dir, CLUSTER).entries()) == 2
            async with Client(CLUSTER) as client:
                assert (await client.status()).members
            assert len(Directory(own_runtime_dir, CLUSTER).entries()) == 1

    go(work())


def test_a_stranger_that_holds_the_port_costs_only_its_share_of_the_time(own_runtime_dir: Path) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            endpoint = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
            async with (
                hand_node(own_runtime_dir) as node,
                Client(CLUSTER, [endpoint, node.endpoint], 2.0, insecure=True) as client,
            ):
                assert (await client.status()).members

    go(work())


def test_no_node_is_not_reached_and_says_how_to_get_one() -> None:
    async def work() -> None:
        with pytest.raises(NotReached, match=f"no node of cluster {CLUSTER} runs here"):
            async with Client(CLUSTER):
                pass

    go(work())


def test_silence_at_an_endpoint_is_not_reached() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            endpoint = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
            with pytest.raises(NotReached, match="does not answer"):
                async with Client(CLUSTER, [endpoint], 0.2):
                    pass

    go(work())


def test_an_endpoint_that_can_not_be_is_not_reached() -> None:
    async def work() -> None:
        with pytest.raises(NotReached, match=r"no-such-host\.invalid"):
            async with Client(CLUSTER, ["tcp://no-such-host.invalid:1"], 0.3):
                pass

    go(work())


def test_a_node_of_another_cluster_says_so(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir, cluster="other") as node:
            with pytest.raises(NotReached, match="another cluster"):
                async with Client(CLUSTER, [node.endpoint], PATIENCE_S, insecure=True):
                    pass

    go(work())


def test_a_client_that_is_not_open_says_so() -> None:
    async def work() -> None:
        client = Client(CLUSTER)
        with pytest.raises(NotRunning, match="async with"):
            await client.status()

    go(work())


# --- jobs ---------------------------------------------------------------------------------------------------------


def test_a_job_is_enqueued_and_its_result_comes_back(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            node.work(1)
            job = await client.enqueue("add", {"a": 1, "b": {2, 3}})
            (run,) = node.runs
            assert codec.decode(run.params) == {"a": 1, "b": {2, 3}}
            waits = [asyncio.ensure_future(it) for it in (job.result(), client.result(job.id))]
            await until(lambda: len(node.heard) >= 4)
            node.end(run, Outcome(Status.SUCCEEDED, codec.encode((1, "x"), "result")))
            assert await asyncio.gather(*waits) == [(1, "x"), (1, "x")]

    go(work())


def test_a_failure_comes_back_with_its_remote_traceback(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            node.work(1)
            job = await client.enqueue("add")
            failure = Failure("ValueError", "no", "Traceback: there")
            node.end(node.runs[0], Outcome(Status.FAILED, b"", failure), Verdict.DEAD)
            with pytest.raises(JobFailed, match="ValueError: no") as raised:
                await client.result(job.id)
            assert raised.value.remote_traceback == "Traceback: there"
            failed = await client.failed_jobs()
            assert [view.error for view in failed.values()] == ["ValueError: no"]
            assert await client.retry(job.id) is True
            assert await client.retry(job.id) is False
            assert await client.failed_jobs() == {}

    go(work())


def test_waiting_for_a_result_has_its_limit_and_the_node_hears_of_it(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            job = await client.enqueue("add")
            with pytest.raises(TimeoutError):
                await job.result(timeout=0.05)
            await until(lambda: type(node.heard[-1]).__name__ == "GiveUp")

    go(work())


def test_a_thread_enqueues_and_waits_through_the_loop_of_the_client(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            node.work(1)
            job = await client.enqueue("add")
            waits = asyncio.ensure_future(asyncio.to_thread(job.result_sync, PATIENCE_S))
            await until(lambda: node.runs)
            node.end(node.runs[0], Outcome(Status.SUCCEEDED, codec.encode(7, "result")))
            assert await waits == 7

    go(work())


def test_many_jobs_go_in_one_message(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            jobs = await client.enqueue_many("add", [{"a": number} for number in range(1000)])
            assert len({job.id for job in jobs}) == 1000
            assert len(node.calls(Enqueue)) == 1
            assert await client.queue_length("global") == 1000

    go(work())


def test_more_than_a_message_holds_is_refused_before_anything_is_queued(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            large = {"a": b"x" * 500_000}
            with pytest.raises(ParamsInvalid, match="split"):
                await client.enqueue_many("add", [large] * 5)
            assert await client.queue_length("global") == 0
            assert node.calls(Enqueue) == []

    go(work())


def test_a_payload_over_the_limit_of_the_cluster_is_refused_at_the_door(own_runtime_dir: Path) -> None:
    async def work() -> None:
        limits = Limits(payload_max_bytes=100)
        async with hand_node(own_runtime_dir, limits=limits) as node, Client(CLUSTER) as client:
            with pytest.raises(ParamsInvalid, match="max_payload"):
                await client.enqueue("add", {"a": "x" * 100})
            assert node.calls(Enqueue) == []

    go(work())


def test_a_long_list_comes_in_parts_and_is_whole(own_runtime_dir: Path) -> None:
    async def work() -> None:
        limits = Limits(answer_max_bytes=2_000)
        async with hand_node(own_runtime_dir, limits=limits), Client(CLUSTER) as client:
            jobs = await client.enqueue_many("add", [{"a": number} for number in range(200)])
            found = await client.all_jobs("add")
            assert set(found) == {job.id for job in jobs}
            assert sorted(view.params["a"] for view in found.values()) == list(range(200))

    go(work())


def test_refusals_become_the_errors_that_they_mean(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir), Client(CLUSTER) as client:
            with pytest.raises(TaskNotFound, match="nobody"):
                await client.enqueue("nobody")
            with pytest.raises(AlreadyQueued, match="tick"):
                await client.enqueue("tick")
            with pytest.raises(TaskInvalid, match="add"):
                await client.stop_task("add")
            with pytest.raises(JobNotFound, match="0" * 32):
                await client.job("0" * 32)
            with pytest.raises(JobNotFound, match="32 hexadecimal digits"):
                await client.cancel("nonsense")
            with pytest.raises(ValueError, match="no queue 'bogus'"):
                await client.queue_length("bogus")

    go(work())


def test_a_job_is_found_counted_and_cancelled(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir), Client(CLUSTER) as client:
            job = await client.enqueue("add", run_in=3600)
            view = await client.job(job.id)
            assert (view.name, view.queue) == ("add", "delayed")
            assert await client.queue_length("delayed") == 2  # and the next round of tick
            assert await client.cancel(job.id) is True
            assert await client.queue_length("delayed") == 1
            assert (await client.stats()).totals["cancelled"] == 1

    go(work())


def test_a_running_job_is_shown_with_the_name_of_its_node(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            node.work(1)
            job = await client.enqueue("add")
            view = await client.job(job.id)
            assert (view.queue, view.node) == ("local", "hand")

    go(work())


def test_a_schedule_is_stopped_and_started(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir), Client(CLUSTER) as client:
            assert await client.stop_task("tick") is True
            assert await client.stop_task("tick") is False
            assert [plan.stopped for plan in (await client.status()).plans] == [True]
            assert await client.start_task("tick") is True
            assert [plan.stopped for plan in (await client.status()).plans] == [False]

    go(work())


# --- loss ---------------------------------------------------------------------------------------------------------


def test_an_enqueue_that_got_lost_is_repeated_with_the_same_id(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER, timeout=0.5) as client:
            node.deaf = [Request]
            job = await client.enqueue("add")
            first, second = node.calls(Enqueue)
            assert first.jobs == second.jobs
            assert set(await client.all_jobs("add")) == {job.id}

    go(work())


def test_an_enqueue_whose_answer_got_lost_is_one_job(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER, timeout=1.0) as client:
            node.mute = True
            enqueuing = asyncio.ensure_future(client.enqueue("add"))
            await until(lambda: node.calls(Enqueue))
            node.mute = False
            job = await enqueuing
            assert len(node.calls(Enqueue)) == 2
            assert set(await client.all_jobs("add")) == {job.id}

    go(work())


def test_an_enqueue_waits_as_long_as_its_node_may_wait_for_copies(
    own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHERO_ACCEPT_TIMEOUT", "60")

    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER, timeout=0.2) as client:
            node.mute = True
            enqueuing = asyncio.ensure_future(client.enqueue("add"))
            with pytest.raises(NotReached):
                await client.stats()
            node.mute = False
            assert (await enqueuing).id

    go(work())


def test_a_result_whose_answer_got_lost_is_asked_for_again(
    own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "REPEAT_SLOW_S", 0.1)

    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            node.work(1)
            job = await client.enqueue("add")
            waits = asyncio.ensure_future(job.result())
            await until(lambda: len(node.heard) >= 3)
            node.mute = True
            node.end(node.runs[0], Outcome(Status.SUCCEEDED, codec.encode(7, "result")))
            node.mute = False
            assert await waits == 7

    go(work())


def test_no_answer_in_time_is_not_reached(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER, timeout=0.2) as client:
            node.mute = True
            with pytest.raises(NotReached, match="hand"):
                await client.status()

    go(work())


def test_who_waits_for_a_result_learns_that_the_node_has_died(
    own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "GREETING_S", 0.05)

    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            job = await client.enqueue("add")
            waits = asyncio.ensure_future(job.result())
            await until(lambda: len(node.heard) >= 3)
            node.close()
            with pytest.raises(NotReached, match="hand"):
                await waits

    go(work())


def test_who_waits_for_a_result_waits_on_while_the_node_answers(
    own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "GREETING_S", 0.02)

    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            node.work(1)
            job = await client.enqueue("add")
            waits = asyncio.ensure_future(job.result())
            await until(lambda: sum(isinstance(it, Hello) for it in node.heard) > 3 * client_module.GREETINGS_MAX)
            assert not waits.done()
            node.end(node.runs[0], Outcome(Status.SUCCEEDED, codec.encode(7, "result")))
            assert await waits == 7

    go(work())


def test_who_still_waits_when_the_client_closes_is_told(own_runtime_dir: Path) -> None:
    async def work() -> None:
        async with hand_node(own_runtime_dir) as node:
            async with Client(CLUSTER) as client:
                job = await client.enqueue("add")
                waits = asyncio.ensure_future(job.result())
                await until(lambda: len(node.heard) >= 3)
            with pytest.raises(NotRunning, match="closed"):
                await waits

    go(work())


def test_a_node_that_starts_anew_at_the_same_endpoint_is_another_one(
    own_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "GREETING_S", 0.05)

    async def work() -> None:
        async with hand_node(own_runtime_dir) as node, Client(CLUSTER) as client:
            job = await client.enqueue("add")
            waits = asyncio.ensure_future(job.result())
            await until(lambda: len(node.heard) >= 3)
            node.close()
            async with hand_node(own_runtime_dir, bind=node.endpoint) as anew:
                with pytest.raises(NotReached, match="hand"):
                    await waits
                assert anew.heard == []

    go(work())
