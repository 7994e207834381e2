"""What is asked of a cluster: tasks of many kinds, and callers who enqueue, cancel, wait and look at random.

A `Kind` is a task as a world needs it: its definition and how its runs go, since nothing is really run. A `Workload`
draws calls; what it drew and what it was answered it remembers, so that later calls concern jobs that exist. Each
world leaves some kinds of calls out and stresses others (swarm testing): a mix of everything would hide what only
much of one thing shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, cast

from ..codec import encode
from ..config import SPAN_MAX_MS, Limits
from ..core.messages import (
    Accepted,
    Answer,
    AskStats,
    AskStatus,
    AwaitResult,
    Call,
    Cancel,
    CountJobs,
    Discard,
    Enqueue,
    FindJob,
    Listed,
    ListJobs,
    Retry,
    StartTask,
    StopTask,
)
from ..core.values import (
    NO_PARAMS,
    Failure,
    Finished,
    IdSource,
    JobId,
    Outcome,
    Run,
    State,
    Status,
    TaskSpec,
    Verdict,
    keyed_id,
)

End = Literal["done", "raise", "time_out", "crash", "snooze", "discard"]

_BAD: dict[End, Status] = {"raise": Status.FAILED, "time_out": Status.TIMED_OUT, "crash": Status.CRASHED}


@dataclass(frozen=True, slots=True)
class Kind:
    """A task and how its runs go.

    Attributes:
        run_ms: the shortest and the longest run.
        ends: how a run ends -> how often, relative to one another.
        retries: bad ends after which it runs again.
        backoff_ms: the shortest and the longest wait before that.
        stoppable: whether a run can be ended from outside.
    """

    spec: TaskSpec
    run_ms: tuple[int, int] = (0, 20)
    ends: tuple[tuple[End, int], ...] = (("done", 1),)
    retries: int = 0
    backoff_ms: tuple[int, int] = (1, 500)
    stoppable: bool = True

    def course(self, run: Run, rng: Random) -> tuple[int, Finished]:
        """How one run goes.

        Returns:
            How long it takes, in ms, and what its executor reports at its end.
        """
        takes_ms = rng.randint(*self.run_ms)
        (end,) = rng.choices([end for end, _ in self.ends], [share for _, share in self.ends])
        if end == "done":
            result = encode({"by": run.attempt, "of": rng.getrandbits(16)}, "result")
            return takes_ms, Finished(run.job, run.attempt, Verdict.DONE, Outcome(Status.SUCCEEDED, result))
        if end == "snooze":
            outcome = Outcome(Status.FAILED, failure=Failure("Snooze", "not yet"))
            return takes_ms, Finished(run.job, run.attempt, Verdict.SNOOZE, outcome, rng.randint(*self.backoff_ms))
        if end == "discard":
            outcome = Outcome(Status.DISCARDED, failure=Failure("Discard", "never"))
            return takes_ms, Finished(run.job, run.attempt, Verdict.DEAD, outcome)
        outcome = Outcome(_BAD[cast(Any, end)], failure=Failure("ValueError", f"run {run.attempt} went wrong"))
        if run.tries <= self.retries:
            return takes_ms, Finished(run.job, run.attempt, Verdict.RETRY, outcome, rng.randint(*self.backoff_ms))
        return takes_ms, Finished(run.job, run.attempt, Verdict.DEAD, outcome)


_TROUBLE: tuple[tuple[End, int], ...] = (("done", 10), ("raise", 4), ("time_out", 1), ("crash", 1), ("snooze", 2))

KINDS = (
    Kind(TaskSpec("quick"), run_ms=(0, 5)),
    Kind(TaskSpec("email", result_ttl_ms=3000), run_ms=(2, 60), ends=_TROUBLE, retries=3),
    Kind(TaskSpec("report", announce=False), run_ms=(100, 2000), ends=(("done", 5), ("time_out", 1)), retries=1),
    Kind(TaskSpec("flaky"), run_ms=(1, 100), ends=(("done", 2), ("raise", 4), ("crash", 2), ("discard", 1)), retries=1),
    Kind(TaskSpec("urgent", priority=50), run_ms=(0, 20)),
    Kind(TaskSpec("lazy", priority=-10), run_ms=(0, 20)),
    Kind(TaskSpec("forgotten", result_ttl_ms=0), run_ms=(0, 30), ends=(("done", 4), ("raise", 1))),
    Kind(TaskSpec("stubborn", result_ttl_ms=3000), run_ms=(50, 2000), ends=_TROUBLE, retries=1, stoppable=False),
    Kind(TaskSpec("tell_all", scope="all"), run_ms=(1, 300), ends=_TROUBLE, retries=2),
    Kind(TaskSpec("tell_all_once", scope="all", result_ttl_ms=0), run_ms=(1, 100)),
    Kind(TaskSpec("rare", result_ttl_ms=60_000), run_ms=(0, 50)),
    Kind(TaskSpec("casual", backups=0), run_ms=(0, 50)),
    Kind(TaskSpec("once", once=True), run_ms=(0, 500)),
)
"""Tasks that run when somebody enqueues them."""

PERIODIC = (
    Kind(TaskSpec("tick", frequency_ms=1000), run_ms=(0, 400)),
    Kind(TaskSpec("clock", frequency_ms=500, fixed_rate=True), run_ms=(0, 1300)),
    Kind(TaskSpec("warm", frequency_ms=3000, run_on_start=True), run_ms=(0, 50), ends=_TROUBLE, retries=1),
    Kind(TaskSpec("sweep", scope="all", frequency_ms=2000), run_ms=(0, 3000)),
    Kind(TaskSpec("pulse", scope="all", frequency_ms=700, fixed_rate=True), run_ms=(0, 800), ends=_TROUBLE, retries=1),
    Kind(
        TaskSpec("fragile", frequency_ms=800, reenqueue_on_error=False),
        run_ms=(0, 20),
        ends=(("done", 4), ("raise", 1)),
    ),
    Kind(
        TaskSpec("fragile_all", scope="all", frequency_ms=1500, run_on_start=True, reenqueue_on_error=False),
        ends=(("done", 4), ("crash", 1)),
    ),
    Kind(TaskSpec("poll", frequency_ms=150, priority=5, result_ttl_ms=1000), run_ms=(0, 20), ends=_TROUBLE, retries=2),
)
"""Tasks that run by themselves."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is drawn once per world. Spans in virtual ms.

    Attributes:
        load_ms: how long callers go on asking.
        pace_ms: mean time between two calls of one caller.
        workers, window: slots of the executor, and how many more jobs it holds in advance.
        clients: callers over the network, besides the local one.
        reload_every_ms: mean time between two of them; 0: never.
        all_return: definitions that have vanished come back when the load ends.
        leaves: a node is told to leave when the load ends.
    """

    load_ms: int
    pace_ms: int
    workers: int
    window: int
    clients: int
    reload_every_ms: int
    all_return: bool
    leaves: bool
    limits: Limits

    @classmethod
    def draw(cls, rng: Random) -> Options:
        limits = Limits(
            payload_max_bytes=4096,
            batch_max_count=400,
            answer_max_bytes=rng.choice((2048, 262144)),
            backups=rng.choice((0, 1, 1, 1, 1, 2)),
        )
        if rng.random() < 0.4:
            limits = replace(
                limits,
                jobs_max=rng.choice((20, 60, 150)),
                jobs_max_bytes=rng.choice((2_000, 20_000, 1 << 30)),
                dead_max_count=rng.choice((1, 3, 10)),
                results_max_count=rng.choice((5, 20, 100)),
                ids_max_count=rng.choice((3, 1000)),
                id_ttl_ms=rng.choice((4_000, 3_600_000)),
                waiters_max_count=rng.choice((3, 1000)),
            )
        return cls(
            load_ms=rng.randint(20_000, 40_000),
            pace_ms=rng.choice((100, 150, 250)),
            workers=rng.choice((1, 1, 2, 4, 8)),
            window=rng.choice((0, 0, 1, 4)),
            clients=rng.randint(1, 3),
            reload_every_ms=rng.choice((0, 4_000, 10_000)),
            all_return=rng.random() < 0.5,
            leaves=rng.random() < 0.3,
            limits=limits,
        )


_FLOODS_MAX_COUNT = 6
"""In one world: each costs as much as all the rest of it."""


class Workload:
    """Draws calls for all callers of one world.

    Args:
        kinds: the tasks there are; None: all that run when enqueued, and this share of the periodic ones.
        alone: there is only one node; where there are more, all of them have the same definition of a task.
    """

    def __init__(
        self,
        rng: Random,
        limits: Limits,
        kinds: Sequence[Kind] | None = None,
        periodic: float = 0.85,
        *,
        alone: bool = True,
    ) -> None:
        self._rng = rng
        self._limits = limits
        self._count = 0
        self._floods_left = _FLOODS_MAX_COUNT
        self._jobs: deque[JobId] = deque(maxlen=60)  # jobs that somebody has enqueued or seen
        self._dead: deque[JobId] = deque(maxlen=10)
        self._sent: dict[IdSource, deque[Enqueue]] = {}  # of each caller: only whom it has told may it tell again
        self._alone = alone
        self.kinds = [*KINDS, *_some_of(PERIODIC, periodic, rng)] if kinds is None else [*kinds]
        self._called = [kind for kind in self.kinds if not kind.spec.frequency_ms]
        self._periodic = [kind.spec.name for kind in self.kinds if kind.spec.frequency_ms]
        ways: list[tuple[Callable[[IdSource], Call], float]] = [
            (self._one, 30),
            (self._later, 12),
            (self._batch, 4),
            (self._flood, 0.4),
            (self._keyed, 5),
            (self._again, 4),
            (self._twins, 1),
            (self._cancel, 12),
            (lambda ids: Retry(self._dead_one()), 5),
            (lambda ids: Discard(self._dead_one()), 2),
            (lambda ids: AwaitResult(self._some()), 15),
            (lambda ids: StopTask(rng.choice(self._periodic)), 2),
            (lambda ids: StartTask(rng.choice(self._periodic)), 4),
            (self._schedule, 2),
            (lambda ids: ListJobs(rng.choice((None, "email", "tick")), limit=rng.choice((0, 0, 5))), 5),
            (lambda ids: ListJobs(dead=True), 5),
            (lambda ids: FindJob(self._some()), 4),
            (lambda ids: CountJobs(), 3),
            (lambda ids: AskStats(), 1),
            (lambda ids: AskStatus(), 1),
            (self._wrong, 3),
        ]
        self._ways = [way for way, _ in ways]
        self._shares = [share * rng.choice((0.2, 1, 1, 2.5)) for _, share in ways]

    def draw(self, ids: IdSource) -> Call:
        """What a caller asks for next; new jobs take their ids from `ids`."""
        (way,) = self._rng.choices(self._ways, self._shares)
        call = way(ids)
        if isinstance(call, Enqueue):
            self._sent.setdefault(ids, deque(maxlen=30)).append(call)
        return call

    def note(self, call: Call, answer: Answer) -> None:
        """What a caller was answered."""
        if isinstance(answer, Accepted):
            self._jobs.extend(answer.jobs[:3])
        elif isinstance(answer, Listed):
            for info in answer.jobs[:5]:
                (self._dead if info.state is State.DEAD else self._jobs).append(info.job)

    def last_wish(self, ids: IdSource) -> Call:
        """An enqueue like any other, for a node that is to refuse it."""
        return self._one(ids)

    def reload(self) -> list[TaskSpec]:
        """The definitions after somebody has worked on them: some changed, some gone, most as ever."""
        rng = self._rng
        specs: list[TaskSpec] = []
        for kind in self.kinds:
            spec = kind.spec
            if rng.random() < 0.12:
                continue
            if self._alone and spec.frequency_ms and rng.random() < 0.3:
                period_ms = rng.choice((0, spec.frequency_ms // 2, spec.frequency_ms * 3))
                spec = replace(spec, frequency_ms=period_ms, fixed_rate=rng.random() < 0.5)
            specs.append(spec)
        return specs

    # --- calls ----------------------------------------------------------------------------------------------------

    def _params(self) -> bytes:
        self._count += 1
        return encode({"n": self._count, "text": "x" * self._rng.choice((0, 3, 40, 300))}, "params")

    def _some(self) -> JobId:
        """A job that somebody knows, most often a young one; now and then one that nobody does."""
        if not self._jobs or self._rng.random() < 0.05:
            return JobId(self._rng.getrandbits(128))
        return self._jobs[-1 - min(int(self._rng.expovariate(0.15)), len(self._jobs) - 1)]

    def _dead_one(self) -> JobId:
        return self._rng.choice(self._dead) if self._dead and self._rng.random() < 0.9 else self._some()

    def _enqueue(self, ids: list[JobId], delay_ms: int = 0, task: str = "", keyed: bool = False) -> Enqueue:
        rng = self._rng
        return Enqueue(
            task or rng.choice(self._called).spec.name,
            [(job, self._params()) for job in ids],
            rng.choice((None, None, None, -100, 0, 7)),
            rng.choice((None, None, True, False)),
            delay_ms,
            keyed,
        )

    def _one(self, ids: IdSource) -> Call:
        return self._enqueue([ids.take()])

    def _delay_ms(self) -> int:
        return self._rng.choice(
            (1, self._rng.randint(1, 50), self._rng.randint(1, 3_000), self._rng.randint(1, 20_000))
        )

    def _later(self, ids: IdSource) -> Call:
        return self._enqueue([ids.take()], self._delay_ms())

    def _batch(self, ids: IdSource) -> Call:
        count = self._rng.randint(2, 12)
        return self._enqueue([ids.take() for _ in range(count)], self._rng.choice((0, 0, self._delay_ms())))

    def _flood(self, ids: IdSource) -> Call:
        if not self._floods_left:
            return self._batch(ids)
        self._floods_left -= 1
        count = self._rng.randint(60, 160)
        task = self._rng.choice(("quick", "urgent", "lazy", "tell_all_once"))
        return self._enqueue([ids.take() for _ in range(count)], task=task)

    def _keyed(self, ids: IdSource) -> Call:
        task = self._rng.choice(self._called).spec.name
        delay_ms = self._rng.choice((0, self._delay_ms()))
        return self._enqueue([keyed_id(task, f"order-{self._rng.randint(1, 4)}")], delay_ms, task, keyed=True)

    def _again(self, ids: IdSource) -> Call:
        sent = self._sent.get(ids)
        return self._rng.choice(sent) if sent else self._one(ids)

    def _twins(self, ids: IdSource) -> Call:
        twin = ids.take()
        return self._enqueue([twin, ids.take(), twin])

    def _cancel(self, ids: IdSource) -> Call:
        return Cancel(self._some())

    def _schedule(self, ids: IdSource) -> Call:
        delay_ms = self._rng.choice((0, 0, self._rng.randint(1, 5_000)))
        call = self._enqueue([ids.take()], delay_ms, self._rng.choice(self._periodic))
        if self._rng.random() < 0.9:
            call.jobs = [(job, NO_PARAMS) for job, _ in call.jobs]
        return call

    def _wrong(self, ids: IdSource) -> Call:
        """What must be refused."""
        call = self._enqueue([ids.take()])
        too_much = self._limits.payload_max_bytes + 1
        return self._rng.choice(
            (
                replace(call, task="nobody_has_this"),
                replace(call, jobs=[(ids.take(), bytes(too_much))]),
                replace(call, jobs=[]),
                replace(call, jobs=[(ids.take(), b"\x80")] * (self._limits.batch_max_count + 1)),
                replace(call, priority=101),
                replace(call, delay_ms=SPAN_MAX_MS + 1),
                replace(call, delay_ms=-1),
                StopTask("quick"),
                StartTask("nobody_has_this"),
            )
        )


def _some_of(kinds: Sequence[Kind], share: float, rng: Random) -> list[Kind]:
    some = [kind for kind in kinds if rng.random() < share]
    return some or [rng.choice(kinds)]
