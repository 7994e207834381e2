"""The checkers can fail: an engine that is broken in one line is caught within a few seeds, and by a promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from zhero.core.broadcast import Broadcast
from zhero.core.engine import Engine
from zhero.core.entries import Dropped, Lent, Planned
from zhero.core.intake import Intake
from zhero.core.jobs import Slice
from zhero.core.memory import Memory
from zhero.core.messages import Accepted, Did
from zhero.core.plans import Plans
from zhero.core.query import Query
from zhero.core.ready import ReadyQueue
from zhero.core.replication import Stream
from zhero.core.schedule import Schedule
from zhero.core.stealing import Stealing
from zhero.core.values import SUCCEEDED
from zhero.sim.seeds import live

SEEDS_MAX = 8
"""Within so many seeds each has to be caught."""

Patch = Callable[[pytest.MonkeyPatch], None]


def wrap(where: type, name: str, change: Callable[..., Any]) -> Patch:
    """`change(original, self, *arguments)` takes the place of a method."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(where, name)
        monkeypatch.setattr(where, name, lambda self, *args, **kwargs: change(original, self, *args, **kwargs))

    return patch


def lose_the_last_of_a_batch(put: Any, kept: Slice, entry: Any) -> None:
    put(kept, replace(entry, jobs=entry.jobs[:-1]) if len(entry.jobs) > 1 else entry)


def drop_what_ended(append: Any, stream: Stream, entry: Any) -> None:
    if type(entry).__name__ != "Done" or stream.last % 7:
        append(stream, entry)


def spoil_params(run: Any, stealing: Stealing, stream: Any, record: Any) -> Any:
    made = run(stealing, stream, record)
    return replace(made, params=made.params[:-1] + b"\xc3")


def forget_to_number(lend: Any, kept: Slice, entry: Lent) -> None:
    lend(kept, entry)
    for job in entry.jobs:
        kept.records[job].attempt -= 1


def forget_the_rest_of_a_plan(ended: Any, plans: Plans, job: Any, at_ms: int) -> None:
    due_at_ms = {task: plan.due_at_ms for task, plan in plans.plans.items()}
    ended(plans, job, at_ms)
    for task, plan in plans.plans.items():
        plan.due_at_ms = due_at_ms[task]


def lose_a_plan(ended: Any, plans: Plans, job: Any, at_ms: int) -> None:
    task, _ = plans.rounds.get(job, ("", 0))
    ended(plans, job, at_ms)
    if task == "tick":
        plans.plans[task].due_at_ms = 1 << 60


def double_a_round(advance: Any, schedule: Schedule, plan: Any, now_ms: int) -> None:
    advance(schedule, plan, now_ms)
    if plan.waits:
        advance(schedule, plan, now_ms)


def stop_nothing(stop: Any, schedule: Schedule, task: str, why: str) -> bool:
    return task in schedule._streams.delayed.slice.plans


def count_every_missed_period(advance: Any, schedule: Schedule, plan: Any, now_ms: int) -> None:
    due_at_ms = plan.due_at_ms
    advance(schedule, plan, now_ms)
    if plan.waits:
        plan.due_at_ms = due_at_ms + plan.frequency_ms


def last_in_first_out(push: Any, queue: ReadyQueue, task: str, priority: int, jobs: Any) -> None:
    for job in jobs:
        queue.push_front(task, priority, job)


def never_claim_the_lower(order: Any, queue: ReadyQueue) -> Any:
    return order(queue)[:1]


def cancel_what_runs(cancel: Any, engine: Engine, asker: Any, call: Any, now_ms: int) -> None:
    stream = engine.streams.holding(call.job)
    if stream is not None and call.job in stream.slice.records:
        engine._outbox.answer(asker, Did(True))
    else:
        cancel(engine, asker, call, now_ms)


def accept_without_keeping(put: Any, intake: Intake, call: Any, now_ms: int) -> Any:
    answer, count = put(intake, call, now_ms)
    if isinstance(answer, Accepted):
        return answer, count
    return Accepted([job for job, _ in call.jobs]), 0


def lend_one_too_many(fill: Any, stealing: Stealing, row: Any) -> None:
    row.capacity += 1
    fill(stealing, row)
    row.capacity -= 1


def lose_a_dead_letter(die: Any, kept: Slice, entry: Any) -> None:
    die(kept, entry)
    kept.apply(Dropped(entry.job))


def tell_a_copy_less(append: Any, stream: Stream, entry: Any) -> None:
    if isinstance(entry, Planned) and entry.task == "clock" and stream.last > 20:
        stream.tap, tap = None, stream.tap
        append(stream, entry)
        stream.tap = tap
    else:
        append(stream, entry)


BROKEN: dict[str, Patch] = {
    "a verdict is dropped": wrap(Stream, "append", drop_what_ended),
    "the last job of a batch is lost": wrap(Slice, "_put", lose_the_last_of_a_batch),
    "jobs start early": wrap(Slice, "due", lambda due, kept, now_ms: due(kept, now_ms + 3)),
    "params are changed": wrap(Stealing, "_run", spoil_params),
    "attempts are not counted": wrap(Slice, "_lend", forget_to_number),
    "an id that is known makes a second job": wrap(Intake, "_is_known", lambda known, intake, job: False),
    "what is refused is accepted": wrap(Intake, "put", accept_without_keeping),
    "nobody is told of an end": wrap(Query, "_tell_waiters", lambda tell, query, job, outcome, parts: None),
    "a wrong outcome is told": wrap(
        Query, "_ended", lambda ended, query, job, outcome, parts: ended(query, job, SUCCEEDED, parts)
    ),
    "results are forgotten at once": wrap(Memory, "keep", lambda keep, memory, *args: None),
    "a run that goes on counts as cancelled": wrap(Engine, "_cancel", cancel_what_runs),
    "a dead letter is lost": wrap(Slice, "_die", lose_a_dead_letter),
    "a plan forgets its rest": wrap(Plans, "ended", forget_the_rest_of_a_plan),
    "a plan is lost": wrap(Plans, "ended", lose_a_plan),
    "a round is made twice": wrap(Schedule, "_advance", double_a_round),
    "a missed period is made up for": wrap(Schedule, "_advance", count_every_missed_period),
    "a stopped task goes on": wrap(Schedule, "stop", stop_nothing),
    "the last come first": wrap(ReadyQueue, "push", last_in_first_out),
    "the highest priority is all that counts": wrap(ReadyQueue, "_claim_order", never_claim_the_lower),
    "more is lent than asked for": wrap(Stealing, "_fill", lend_one_too_many),
    'an "all" job does not end with its parts': wrap(Broadcast, "on_ended", lambda ended, *args: None),
    "a copy misses an entry": wrap(Stream, "append", tell_a_copy_less),
    "time passes, and nothing becomes due": wrap(Slice, "due", lambda due, kept, now_ms: []),
    "a ready job is never lent": wrap(Stealing, "settle", lambda settle, stealing: None),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_engine_that_is_broken_in_one_line_is_caught(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[what](monkeypatch)
    for seed in range(SEEDS_MAX):
        story = live(seed).story
        if story:
            assert not story.startswith("Traceback"), f"the simulator itself fell over:\n{story}"
            return
    pytest.fail(f"{SEEDS_MAX} seeds have not noticed that {what}")
