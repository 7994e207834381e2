"""What was in one slice comes into another: by a takeover, when a home leaves, or when two that were apart meet.

The rules, record by record (they are the same whoever brings what to whom, so that order does not matter):

- what has ended on either side has ended, and a dead letter of either side is one;
- what a member holds stays with that member; two that hold the same job both run it, and the home here listens to one;
- what is here stays as it is, what is not is taken in;
- of two schedules of a task the one with the higher round number holds, and a round that the other had made and nobody
  has begun is dropped.

All of it becomes entries of the stream that takes in, so its copies follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .entries import Adopted, Died, Done, Imported, Moved, Orphaned, Returned, Revived
from .jobs import Slice
from .messages import Loaned
from .records import Chunk, Plan, Record, SpreadOut, whole_of
from .streams import Stream
from .values import NO_JOB, Failure, JobId, Life, Outcome, State, Status, StreamId

POISON_KILLS = 3
"""A job that so many members died of is not run again."""
_LOST = Outcome(Status.LOST)
_WAITS = (State.READY, State.DELAYED)
_OVER = (State.ABSENT, State.DEAD)


def merge(stream: Stream, chunk: Chunk, source: StreamId, now_ms: int) -> int:
    """Take a piece of another slice in, its instants already on this node's clock.

    Returns:
        How many live jobs came in.
    """
    kept = stream.slice
    over = {it.job: it.outcome for it in chunk.ended}
    over.update((it.job, it.outcome) for it in chunk.dead if it.outcome is not None)
    over = {job: outcome for job, outcome in over.items() if kept.state(job) not in _OVER}
    _end(stream, over, now_ms)
    for record in chunk.records:
        dead = kept.dead.get(record.job)
        if dead is not None and record.attempt >= dead.attempt and not record.parent:
            stream.append(Revived(record.job, record.target))  # somebody wanted it run again over there
        if record.executor is not None and kept.state(record.job) in _WAITS:
            stream.append(Adopted([record.job], [record.attempt], record.executor))

    def is_new(job: JobId) -> bool:
        return job not in kept and job not in kept.memory

    tasks = {plan.task for plan in chunk.plans if plan.task not in kept.plans}
    fresh = chunk.only(is_new, tasks)
    # A part goes with its whole, and a whole with its parts.
    spread = {it.job for it in fresh.parts}
    fresh.records = [it for it in fresh.records if not it.parent or it.parent in spread]
    fresh.dead = [it for it in chunk.dead if is_new(it.job) or (it.job in over and it.job not in kept)]
    live = set(fresh.jobs)
    fresh.parts = [_with_ends(stream, it, live) for it in fresh.parts]
    fresh.keyed = [job for job in fresh.keyed if job in live]
    known = tasks | kept.plans.keys()
    fresh.rounds = [it for it in chunk.rounds if (it[0] in live or it[0] in kept) and it[1] in known]
    fresh.rounds = [it for it in fresh.rounds if it[0] not in kept.rounds and it[0] not in kept.dead]
    for plan in fresh.plans:
        if plan.running not in live and kept.state(plan.running) in _OVER:
            plan.running = NO_JOB
    both = [merged for plan in chunk.plans if plan.task not in tasks and (merged := _merged(kept, plan, live))]
    fresh.plans = fresh.plans + both
    stream.append(Imported(source, fresh))
    _drop_second_rounds(stream, chunk.plans)
    for it in fresh.parts:
        if not it.open:
            stream.append(Done([it.job], [whole_of([outcome for _, outcome in it.ended])], now_ms))
    return len(live)


def _end(stream: Stream, over: dict[JobId, Outcome], now_ms: int) -> None:
    """These have ended at another home; the parts of one that has, too."""
    ends: dict[JobId, Outcome] = {}
    for job in over:
        parts = stream.slice.parts.get(job)
        for part in parts.open if parts is not None else ():
            ends[part] = over.get(part, _LOST)
    for job, outcome in over.items():
        ends.setdefault(job, outcome)
    if ends:
        stream.append(Done(list(ends), list(ends.values()), now_ms))


def _with_ends(stream: Stream, it: SpreadOut, live: set[JobId]) -> SpreadOut:
    """An "all" job that comes in, some of whose parts may have ended here."""
    ended = list(it.ended)
    for part, member in it.open:
        if part not in live:
            ended.append((member, stream.slice.memory.outcome(part) or _LOST))
    return SpreadOut(it.job, [(part, member) for part, member in it.open if part in live], ended)


def _merged(kept: Slice, plan: Plan, live: set[JobId]) -> Plan | None:
    """The schedule of a task that both have; None: it stays as it is here."""
    ours = kept.plans[plan.task]
    running = ours.running
    if not running and (plan.running in live or kept.state(plan.running) not in _OVER):
        running = plan.running
    number, due_at_ms = max(ours.number, plan.number), max(ours.due_at_ms, plan.due_at_ms)
    merged = replace(ours, number=number, due_at_ms=due_at_ms, running=running, stopped=ours.stopped or plan.stopped)
    return None if merged == ours else merged


def _drop_second_rounds(stream: Stream, plans: Sequence[Plan]) -> None:
    """Of two rounds of a task the one that came in is not run, if nobody has begun it."""
    kept = stream.slice
    second = [plan.running for plan in plans if plan.running and plan.running != kept.plans[plan.task].running]
    second = [job for job in second if kept.state(job) is State.READY]
    if second:
        stream.append(Moved(second))


def adopt(
    stream: Stream,
    executor: Life,
    loans: Sequence[Loaned],
    asked: Sequence[JobId],
    source: StreamId,
    now_ms: int,
) -> None:
    """A member has said all that it holds of a stream which is part of this one now.

    Args:
        asked: jobs that the stream showed as lent to it: what it does not hold was never given to it.
    """
    kept = stream.slice
    told = {it.run.job: it for it in loans}
    for job in asked:
        record = kept.records.get(job)
        if job not in told and record is not None and record.executor == executor and kept.allows(job, Returned):
            if record.cancel_asked:
                stream.append(Done([job], [Outcome(Status.CANCELLED)], now_ms))
            else:
                stream.append(Returned([job]))
    for job, loan in told.items():
        state = kept.state(job)
        record = kept.records.get(job)
        if record is not None and loan.report is not None and record.attempt >= loan.run.attempt:
            continue  # that run's end is known already
        if state in _WAITS:
            stream.append(Adopted([job], [loan.run.attempt], executor))
        elif state is State.ABSENT and job not in kept.memory:
            stream.append(Imported(source, _chunk_of(loan, executor)))


def _chunk_of(loan: Loaned, executor: Life) -> Chunk:
    """A job of which only its executor knows: copies were not asked for, or it came from the other side of a split."""
    run = loan.run
    record = Record(run.job, run.header, run.params, run.enqueued_at_ms, State.LENT, run.attempt, run.tries - 1)
    record.executor = executor
    if run.header.scope == "all":
        record.target = executor  # what is lent of such a job is a part, and nobody else's
    return Chunk(records=[record])


def orphan(stream: Stream, life: Life, now_ms: int, *, unseen: bool = False) -> None:
    """That member is gone: what it held is run again, as far as it may be.

    Args:
        unseen: this node was not the home, so it can't tell what had been started there.
    """
    kept = stream.slice
    for parts in list(kept.parts.values()):
        lost = [part for part, member in parts.open.items() if member == life]
        if lost:
            stream.append(Done(lost, [_LOST] * len(lost), now_ms))
    revived = [it.job for it in kept.records.values() if it.target == life and it.state in _WAITS]
    if revived:
        stream.append(Done(revived, [_LOST] * len(revived), now_ms))
    if life not in kept.lent:
        return
    again: list[JobId] = []
    killed: list[JobId] = []
    for record in [it for it in kept.records.values() if it.executor == life]:
        may_have_begun = unseen or record.state is State.RUNNING
        if record.header.once or record.target == life:
            stream.append(Done([record.job], [_LOST], now_ms))
        elif record.cancel_asked:
            stream.append(Done([record.job], [Outcome(Status.CANCELLED)], now_ms))
        elif may_have_begun and record.kills + 1 >= POISON_KILLS:
            stream.append(Died(record.job, _poisoned(record), now_ms))
        else:
            again.append(record.job)
            if may_have_begun:
                killed.append(record.job)
    if again:
        stream.append(Orphaned(again, killed))


def _poisoned(record: Record) -> Outcome:
    what = f"{POISON_KILLS} members died while they ran it, {record.attempt} runs in all; it is not run again"
    return Outcome(Status.CRASHED, b"", Failure("Poisoned", what))
