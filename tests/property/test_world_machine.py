"""A world that hypothesis drives: any order of calls, pauses, reloads and time keeps every promise."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, precondition, rule

from zhero.core.messages import (
    Accepted,
    AwaitResult,
    Call,
    Cancel,
    CountJobs,
    Discard,
    Enqueue,
    FindJob,
    ListJobs,
    Retry,
    StartTask,
    StopTask,
)
from zhero.core.values import JobId, keyed_id
from zhero.sim.story import BrokenPromise
from zhero.sim.workload import KINDS, PERIODIC
from zhero.sim.world import World

CALLED = [kind.spec.name for kind in KINDS]
ROUNDS = [kind.spec.name for kind in PERIODIC]
PARAMS = [b"\x80", b"\x81\xa1n\x01", b"\x81\xa1n\xd9\x20" + b"x" * 32]
SPANS_MS = st.sampled_from([0, 1, 7, 100, 1500, 10_000])


class AnyWorld(RuleBasedStateMachine):
    """One node and one caller; what a seed would draw is drawn here, and shrunk when it fails."""

    jobs = Bundle("jobs")

    @initialize(seed=st.integers(0, 10))
    def begin(self, seed: int) -> None:
        self.world = World(seed, loaded=False)
        self.do(self.world.start)

    def do(self, act: Any) -> None:
        """Anything may break a promise; then the story is told too."""
        try:
            act()
        except BrokenPromise as broken:
            broken.tell(self.world.story)
            raise

    def ask(self, call: Call) -> Any:
        ref: list[int] = []
        self.do(lambda: ref.append(self.world.local.ask(call)))
        return self.world.local.answers.get(ref[0])

    def pass_time(self, span_ms: int) -> None:
        self.do(lambda: self.world.run_until(self.world.now_us + span_ms * 1000))

    @rule(
        target=jobs,
        task=st.sampled_from(CALLED),
        count=st.sampled_from([1, 1, 2, 9]),
        delay_ms=SPANS_MS,
        priority=st.sampled_from([None, -7, 7]),
        params=st.sampled_from(PARAMS),
    )
    def enqueue(self, task: str, count: int, delay_ms: int, priority: int | None, params: bytes) -> Any:
        ids = self.world.local.ids()
        jobs = [(ids.take(), params) for _ in range(count)]
        answer = self.ask(Enqueue(task, jobs, priority, None, delay_ms))
        return multiple(*answer.jobs[:2]) if isinstance(answer, Accepted) else multiple()

    @rule(target=jobs, task=st.sampled_from(CALLED), key=st.sampled_from("ab"), delay_ms=SPANS_MS)
    def enqueue_under_an_id_of_ones_own(self, task: str, key: str, delay_ms: int) -> JobId:
        job = keyed_id(task, key)
        self.ask(Enqueue(task, [(job, PARAMS[0])], delay_ms=delay_ms, keyed=True))
        return job

    @rule(job=jobs, kind=st.sampled_from([Cancel, AwaitResult, Retry, Discard, FindJob]))
    def ask_about(self, job: JobId, kind: Any) -> None:
        self.ask(kind(job))

    @rule(dead=st.booleans())
    def list_and_count(self, dead: bool) -> None:
        self.ask(ListJobs(dead=dead))
        self.ask(CountJobs())

    @rule(task=st.sampled_from(ROUNDS), kind=st.sampled_from([StopTask, StartTask]))
    def stop_or_start(self, task: str, kind: Any) -> None:
        self.ask(kind(task))

    @rule(task=st.sampled_from(ROUNDS), delay_ms=SPANS_MS)
    def schedule(self, task: str, delay_ms: int) -> None:
        self.ask(Enqueue(task, [(self.world.local.ids().take(), PARAMS[0])], delay_ms=delay_ms))

    @rule(which=st.integers(0, 30))
    def cancel_the_round_to_come(self, which: int) -> None:
        rounds = self.world.node.plans.next_rounds()
        if rounds:
            self.ask(Cancel(rounds[which % len(rounds)][1]))

    @rule()
    def reload(self) -> None:
        self.do(lambda: self.world.node.define(self.world.workload.reload()))

    @rule(slots=st.integers(0, 3))
    def resize(self, slots: int) -> None:
        self.do(lambda: self.world.node.executor.resize(slots))

    @precondition(lambda self: not self.world.node.is_paused)
    @rule(span_ms=st.sampled_from([10, 3000, 60_000]))
    def pause(self, span_ms: int) -> None:
        self.world.node.pause(span_ms)

    @rule(span_ms=SPANS_MS)
    def let_time_pass(self, span_ms: int) -> None:
        self.pass_time(span_ms)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.do(self.world.settle)


AnyWorld.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestAnyWorld = AnyWorld.TestCase
