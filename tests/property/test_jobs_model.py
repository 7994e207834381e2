"""Whatever is asked for, whatever ends and however time passes: jobs are where a small model of them says.

The model knows of a job whether it waits (and until when), is lent, or is a dead letter. It learns from the engine only
what starts, and judges that: nothing starts that does not wait, or before its time, or without room; and while there
is room nothing ready waits. After each step a copy of each slice, made of its entries alone, equals the original.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zhero.config import Limits
from zhero.core.entries import Entry
from zhero.core.jobs import Slice
from zhero.core.messages import Accepted, Cancel, Did, Discard, Enqueue, Refusal, Refused, Retry, StartTask, StopTask
from zhero.core.streams import Stream
from zhero.core.values import NO_PARAMS, JobId, State, TaskSpec, Verdict, part_id

from ..conversations.harness import ME, Node

SPECS = (
    TaskSpec("mail"),
    TaskSpec("sms", priority=5, result_ttl_ms=0),
    TaskSpec("clean", "all"),
    TaskSpec("tick", frequency_ms=300),
    TaskSpec("sweep", "all", frequency_ms=700, fixed_rate=True, reenqueue_on_error=False),
)
LIMITS = Limits(jobs_max=12, dead_max_count=2, results_max_count=4, ids_max_count=2, id_ttl_ms=2000)
STATES = {"delayed": "waits", "ready": "waits", "lent": "lent", "running": "lent", "spread": "spread", "dead": "dead"}


@dataclass
class Known:
    """A live job or a dead letter. `parent`: the "all" job whose one part it is; `slice`: which one has it."""

    task: str
    slice: str
    state: str = "waits"
    not_before_ms: int = 0
    attempt: int = 0
    tries: int = 0
    cancel_asked: bool = False
    parent: JobId | None = None

    @property
    def is_whole(self) -> bool:
        return self.task == "clean" and self.parent is None and self.state == "waits" and not self.attempt


class Jobs(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.node = Node(limits=LIMITS)
        self.known: dict[JobId, Known] = {}
        self.tasks: set[str] = set()
        self.capacity = 0
        self.held_before = 0
        self.copies = [(stream.slice, copy_by_entries(stream)) for stream in self.node.engine.streams]
        self.define({spec.name for spec in SPECS})

    def pick(self, choice: int, *states: str) -> JobId:
        jobs = [job for job, known in self.known.items() if known.state in states]
        return jobs[choice % len(jobs)]

    def has(self, *states: str) -> bool:
        return any(known.state in states for known in self.known.values())

    # --- what the model makes of it -------------------------------------------------------------------------------

    def close(self, job: JobId) -> Known:
        """It has ended, and so has the job whose part it was."""
        known = self.known.pop(job)
        if known.parent is not None:
            self.known.pop(known.parent, None)
        return known

    def die(self, job: JobId) -> None:
        known = self.close(job)
        dead = [one for one, other in self.known.items() if (other.state, other.slice) == ("dead", known.slice)]
        if len(dead) == LIMITS.dead_max_count:
            del self.known[dead[0]]
        self.known[job] = replace(known, state="dead", tries=known.tries + 1, parent=None)

    def is_ready(self, known: Known) -> bool:
        due = known.not_before_ms <= self.node.now_ms
        return known.state == "waits" and due and known.task in self.tasks

    def judge(self) -> None:
        """What has come of the last step: jobs were spread, others have started."""
        for job, known in list(self.known.items()):
            if known.is_whole and self.is_ready(known):
                if self.capacity:
                    known.state = "spread"
                    self.known[part_id(job, ME.life.node)] = Known("clean", known.slice, parent=job)
                else:
                    del self.known[job]
        for run in self.node.starts:
            if run.number:  # rounds begin by themselves
                self.known.setdefault(run.job, Known(run.header.task, "delayed"))
            known = self.known[run.job]
            assert self.is_ready(known)
            assert run.header.task == known.task
            known.state = "lent"
            known.attempt += 1
            assert (run.attempt, run.tries) == (known.attempt, known.tries + 1)
        held = sum(known.state == "lent" for known in self.known.values())
        assert held <= max(self.capacity, self.held_before)
        self.held_before = held
        if held < self.capacity:
            assert not [job for job, known in self.known.items() if self.is_ready(known)]

    # --- steps ----------------------------------------------------------------------------------------------------

    @rule(tasks=st.sets(st.sampled_from([spec.name for spec in SPECS]), min_size=3))
    def define(self, tasks: set[str]) -> None:
        self.tasks = tasks
        self.node.define(*(spec for spec in SPECS if spec.name in tasks))
        self.judge()

    @rule(capacity=st.integers(0, 3))
    def change_capacity(self, capacity: int) -> None:
        self.capacity = capacity
        self.node.capacity(capacity)
        self.judge()

    @rule(
        task=st.sampled_from(["mail", "sms", "clean"]),
        count=st.integers(1, 3),
        delay_ms=st.sampled_from([0, 0, 1, 50, 400]),
        keyed=st.booleans(),
    )
    def enqueue(self, task: str, count: int, delay_ms: int, keyed: bool) -> None:
        jobs = [self.node.new_id() for _ in range(count)]
        live = sum(len(stream.slice) for stream in self.node.engine.streams)
        answer = self.node.ask(Enqueue(task, [(job, b"12") for job in jobs], delay_ms=delay_ms, keyed=keyed))
        if task not in self.tasks:
            assert answer == Refused(Refusal.UNKNOWN_TASK, task)
        elif live + count > LIMITS.jobs_max:
            assert isinstance(answer, Refused)
        else:
            assert answer == Accepted(jobs)
            not_before_ms = self.node.now_ms + delay_ms + 1 if delay_ms else 0
            where = "delayed" if delay_ms or keyed else "own"
            self.known.update((job, Known(task, where, not_before_ms=not_before_ms)) for job in jobs)
        self.judge()

    @precondition(lambda self: self.has("waits", "lent", "spread", "dead"))
    @rule(choice=st.integers(0, 99))
    def enqueue_again(self, choice: int) -> None:
        job = self.pick(choice, "waits", "lent", "spread", "dead")
        if "mail" in self.tasks:
            assert self.node.ask(Enqueue("mail", [(job, NO_PARAMS)])) == Accepted([job])
        self.judge()

    @precondition(lambda self: self.has("lent"))
    @rule(choice=st.integers(0, 99))
    def start(self, choice: int) -> None:
        self.node.started(self.pick(choice, "lent"))
        self.judge()

    @precondition(lambda self: self.has("lent"))
    @rule(choice=st.integers(0, 99), verdict=st.sampled_from(Verdict), delay_ms=st.sampled_from([1, 60]))
    def finish(self, choice: int, verdict: Verdict, delay_ms: int) -> None:
        job = self.pick(choice, "lent")
        known = self.known[job]
        again = verdict in (Verdict.RETRY, Verdict.SNOOZE) and not known.cancel_asked
        self.node.finished(job, verdict, delay_ms=delay_ms)
        if again:
            known.state, known.not_before_ms = "waits", self.node.now_ms + delay_ms + 1
            known.tries += verdict is Verdict.RETRY
        elif verdict is Verdict.DEAD:
            self.die(job)
        else:
            self.close(job)
        self.judge()

    @precondition(lambda self: self.has("waits", "lent", "spread", "dead"))
    @rule(choice=st.integers(0, 99))
    def cancel(self, choice: int) -> None:
        job = self.pick(choice, "waits", "lent", "spread", "dead")
        state = self.known[job].state
        answer = self.node.ask(Cancel(job))
        touched = [part_id(job, ME.life.node)] if state == "spread" else [job]
        waits = state != "dead" and self.known[touched[0]].state == "waits"
        assert answer == (Did(False) if state == "dead" else Did(True) if waits else None)
        if waits:
            self.close(touched[0])
        elif state != "dead":
            assert self.node.stops == touched
            self.known[touched[0]].cancel_asked = True
        self.judge()

    @precondition(lambda self: self.has("dead"))
    @rule(choice=st.integers(0, 99))
    def retry(self, choice: int) -> None:
        job = self.pick(choice, "dead")
        assert self.node.ask(Retry(job)) == Did(True)
        known = self.known.pop(job)
        known.state, known.tries, known.not_before_ms, known.cancel_asked = "waits", 0, 0, False
        self.known[job] = known
        self.judge()

    @precondition(lambda self: self.has("dead"))
    @rule(choice=st.integers(0, 99))
    def discard(self, choice: int) -> None:
        job = self.pick(choice, "dead")
        assert self.node.ask(Discard(job)) == Did(True)
        del self.known[job]
        self.judge()

    @rule(task=st.sampled_from(["tick", "sweep"]), stop=st.booleans())
    def stop_or_start(self, task: str, stop: bool) -> None:
        self.node.ask(StopTask(task) if stop else StartTask(task))
        self.judge()

    @rule(span_ms=st.sampled_from([0, 1, 2, 49, 60, 400, 3000]))
    def tick(self, span_ms: int) -> None:
        self.node.tick(span_ms)
        self.judge()

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        listed = {info.job: info for info in (*self.node.jobs(), *self.node.jobs(dead=True))}
        for job, known in self.known.items():
            info = listed.pop(job, None) or self.node.find(job)
            assert info is not None, known
            assert (STATES[info.state.value], info.task) == (known.state, known.task)
            assert (info.attempt, info.tries) == (known.attempt, known.tries)
        assert all(info.number for info in listed.values())

    @invariant()
    def a_copy_made_of_entries_alone_is_equal(self) -> None:
        for kept, copy in self.copies:
            copy.endings.clear()
            copy.check()
            assert look(kept) == look(copy)


def copy_by_entries(stream: Stream) -> Slice:
    """A slice that is made of all that a stream has from now on."""
    kept = stream.slice
    copy = Slice(kept.name, kept.home, kept.epoch, LIMITS)

    def tap(number: int, entry: Entry) -> None:
        assert number == stream.last
        copy.apply(entry)

    stream.tap = tap
    return copy


def look(kept: Slice) -> dict[str, Any]:
    """What can be seen of a slice, but for what is no entry: that a run has begun."""
    seen = {name: getattr(kept, name) for name in ("ready", "delayed", "parts", "plans", "rounds", "keyed", "bytes")}
    for name, records in (("records", kept.records), ("dead", kept.dead)):
        seen[name] = [
            replace(record, started_at_ms=0, state=State.LENT if record.state is State.RUNNING else record.state)
            for record in records.values()
        ]
    return seen


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
