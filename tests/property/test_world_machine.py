"""Worlds that hypothesis drives: any order of calls, faults and time keeps every promise, of jobs and of members."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
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
    Leave,
    ListJobs,
    Retry,
    StartTask,
    StopTask,
)
from zhero.core.values import JobId, keyed_id
from zhero.sim.scene import Scene
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

    @precondition(lambda self: not self.world.node.is_stopped)
    @rule(span_ms=st.sampled_from([10, 3000, 60_000]))
    def pause(self, span_ms: int) -> None:
        self.world.node.pause(span_ms)

    @rule(span_ms=SPANS_MS)
    def let_time_pass(self, span_ms: int) -> None:
        self.pass_time(span_ms)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.do(self.world.settle)


PLACES = st.integers(0, 2)


class AnyCluster(RuleBasedStateMachine):
    """Three places and a process at each, as long as it lives.

    At the end those that live have to agree, and what they have accepted has to end.
    """

    jobs = Bundle("jobs")

    @initialize(
        seed=st.integers(0, 10), knows=st.sampled_from(["all", "first"]), profile=st.sampled_from(["lan", "fast"])
    )
    def begin(self, seed: int, knows: Any, profile: str) -> None:
        self.world = World(seed, loaded=False, scene=Scene(nodes=3, hosts=3, seeds=knows, profile=profile))
        self.do(self.world.start)
        self.let_time_pass(1500)

    def do(self, act: Any) -> None:
        """Anything may break a promise; then the story is told too."""
        try:
            act()
        except BrokenPromise as broken:
            broken.tell(self.world.story)
            raise

    def on_living(self, which: int, act: Any) -> None:
        node = self.world.places[which].living
        if node is not None:
            self.do(lambda: act(node))

    @rule(which=PLACES, effects_count=st.sampled_from([None, 0, 1, 3]))
    def crash(self, which: int, effects_count: int | None) -> None:
        self.on_living(which, lambda node: node.crash(effects_count))

    @rule(which=PLACES)
    def restart(self, which: int) -> None:
        if self.world.places[which].living is None:
            self.do(lambda: self.world.start_at(self.world.places[which]))

    @rule(which=PLACES)
    def leave(self, which: int) -> None:
        place = self.world.places[which]
        if place.living is not None and place.local is not None:
            ask = place.local.ask
            self.do(lambda: ask(Leave(0)))

    @rule(which=PLACES, span_ms=st.sampled_from([100, 3000, 20_000]))
    def pause(self, which: int, span_ms: int) -> None:
        self.on_living(which, lambda node: node.pause(span_ms))

    @rule(which=PLACES, span_ms=st.sampled_from([2000, 20_000]))
    def block(self, which: int, span_ms: int) -> None:
        self.on_living(which, lambda node: node.block(span_ms))

    @rule(one=PLACES, other=PLACES)
    def cut_one_way(self, one: int, other: int) -> None:
        if one != other:
            self.world.ways.cut(self.world.places[one].name, self.world.places[other].name)

    @rule(one=PLACES, other=PLACES)
    def heal(self, one: int, other: int) -> None:
        self.do(lambda: self.world.ways.heal(self.world.places[one].name, self.world.places[other].name))

    @rule(one=PLACES, other=PLACES)
    def lose_connections(self, one: int, other: int) -> None:
        if one != other:
            self.do(lambda: self.world.network.lose(self.world.places[one].name, self.world.places[other].name))

    def ask(self, which: int, call: Call) -> None:
        place = self.world.places[which]
        if place.living is not None and place.local is not None:
            ask = place.local.ask
            self.do(lambda: ask(call))

    @rule(
        target=jobs,
        which=PLACES,
        task=st.sampled_from(CALLED),
        count=st.sampled_from([1, 1, 2, 9]),
        delay_ms=SPANS_MS,
        params=st.sampled_from(PARAMS),
    )
    def enqueue(self, which: int, task: str, count: int, delay_ms: int, params: bytes) -> Any:
        local = self.world.places[which].local
        if local is None or self.world.places[which].living is None:
            return multiple()
        jobs = [(local.ids().take(), params) for _ in range(count)]
        self.ask(which, Enqueue(task, jobs, delay_ms=delay_ms))
        return multiple(*[job for job, _ in jobs[:2]])

    @rule(target=jobs, which=PLACES, task=st.sampled_from(CALLED), key=st.sampled_from("ab"), delay_ms=SPANS_MS)
    def enqueue_under_an_id_of_ones_own(self, which: int, task: str, key: str, delay_ms: int) -> JobId:
        job = keyed_id(task, key)
        self.ask(which, Enqueue(task, [(job, PARAMS[0])], delay_ms=delay_ms, keyed=True))
        return job

    @rule(which=PLACES, job=jobs, kind=st.sampled_from([Cancel, AwaitResult, Retry, Discard, FindJob]))
    def ask_about(self, which: int, job: JobId, kind: Any) -> None:
        self.ask(which, kind(job))

    @rule(which=PLACES, task=st.sampled_from(ROUNDS), kind=st.sampled_from([StopTask, StartTask]))
    def stop_or_start(self, which: int, task: str, kind: Any) -> None:
        self.ask(which, kind(task))

    @rule(which=PLACES)
    def ask_all(self, which: int) -> None:
        self.ask(which, CountJobs())

    @rule(span_ms=st.sampled_from([1, 100, 1500, 10_000]))
    def let_time_pass(self, span_ms: int) -> None:
        self.do(lambda: self.world.run_until(self.world.now_us + span_ms * 1000))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.do(self.world.settle)


def _thorough(examples: int, steps: int, *, shrinks: bool) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if shrinks else [])],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )


AnyWorld.TestCase.settings = _thorough(60, 30, shrinks=True)
AnyCluster.TestCase.settings = _thorough(25, 25, shrinks="ZHERO_SHRINK" in os.environ)  # it takes very long
TestAnyWorld = AnyWorld.TestCase
TestAnyCluster = AnyCluster.TestCase
