"""Two slices that were one and went on apart come together: nothing is lost, and what has ended has ended.

A slice lives through some entries, is copied as a taker-over would, and both go on: jobs are put, lent, end, fail, are
cancelled or tried again on either side. Then one takes the other in. Whatever they did:

- the invariants of a slice hold, and a copy made of the entries is equal;
- a job that was live on both sides, or live on one and unknown to the other, is live;
- a job that ended on one side is not live, unless somebody wanted it run again there or its end left no mark;
- a dead letter of either side is one still, or its job is live, or has ended for good on the other.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from zhero.config import Limits
from zhero.core.entries import (
    CancelAsked,
    Died,
    Done,
    Dropped,
    Due,
    Entry,
    Lent,
    Orphaned,
    Put,
    Returned,
    Revived,
    Spread,
    Waits,
)
from zhero.core.jobs import Slice
from zhero.core.merging import merge
from zhero.core.records import Chunk, Parts
from zhero.core.streams import Stream
from zhero.core.values import SUCCEEDED, Header, JobId, Life, NodeId, Outcome, State, Status, StreamId

LIMITS = Limits(backups=0)
A, B, C = (Life(NodeId(letter * 16), 1, 0) for letter in (b"a", b"b", b"c"))
HEADERS = (Header("mail"), Header("sms", priority=3), Header("clean", "all"))
FAILED, CANCELLED = Outcome(Status.FAILED), Outcome(Status.CANCELLED)
NONE = Parts({}, {})
IDS = [JobId(number) for number in range(1, 7)]

Said = list[tuple[int, int, bool]]
"""For each entry: which job, which of the entries that it allows, and a choice that some of them have."""

steps = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.booleans()), max_size=25)


def entries_of(kept: Slice, job: JobId, choice: int, flag: bool, at_ms: int) -> list[Entry]:
    """What may happen to a job next."""
    state, info = kept.state(job), kept.info(job)
    if info is None:
        if job in kept.memory or job not in IDS:
            return []
        return [Put(HEADERS[job % 3], [(job, b"12")], at_ms, at_ms + 50 if flag else 0, keyed=job == 1)]
    whole = info.scope == "all" and not info.parent
    entries: dict[State, list[Entry]] = {
        State.DELAYED: [Due([job]), Done([job], [CANCELLED], at_ms)],
        State.READY: [
            Spread(job, [A, B] if flag else [C], [], at_ms) if whole else Lent([job], (A, B, C)[choice % 3]),
            Done([job], [CANCELLED], at_ms),
        ],
        State.LENT: [
            Returned([job]),
            Orphaned([job], [job] if flag else []),
            Done([job], [SUCCEEDED], at_ms),
            Waits(job, FAILED, at_ms + 70, flag),
            Died(job, FAILED, at_ms),
            CancelAsked(job),
        ],
        State.SPREAD: [CancelAsked(job)] if kept.parts.get(job, NONE).open else [Done([job], [SUCCEEDED], at_ms)],
        State.DEAD: [Dropped(job)] if info.parent else [Dropped(job), Revived(job)],
    }
    return entries[state]


def live_through(stream: Stream, said: Said, at_ms: int) -> None:
    kept = stream.slice
    for number, (which, choice, flag) in enumerate(said):
        jobs = [*IDS, *(part for parts in kept.parts.values() for part in parts.open)]
        entries = entries_of(kept, jobs[which % len(jobs)], choice, flag, at_ms + number)
        if entries:
            stream.append(entries[choice % len(entries)])
    kept.endings.clear()
    kept.check()


def copy_of(kept: Slice, home: Life) -> Stream:
    copy = Slice("own", home, 1, LIMITS)
    for chunk in (*kept.export(), kept.export_plans()):
        copy.take_in(chunk)
    return Stream(copy)


def seen(kept: Slice) -> dict[JobId, tuple[object, ...]]:
    live = {job: kept.info(job) for job in (*kept.live(), *kept.dead)}
    return {
        job: (it.state, it.task, it.params, it.attempt, it.tries, it.node, it.run_at_ms, it.parent)
        for job, it in live.items()
        if it is not None
    }


@given(steps)
@settings(max_examples=150, deadline=None)
def test_a_slice_in_pieces_is_the_same_slice(said: Said) -> None:
    stream = Stream(Slice("own", A, 1, LIMITS))
    live_through(stream, said, 1_000)
    copy = copy_of(stream.slice, A).slice
    copy.check()
    assert seen(copy) == seen(stream.slice)
    assert (copy.keyed, copy.bytes, copy.lent) == (stream.slice.keyed, stream.slice.bytes, stream.slice.lent)
    for job in IDS:
        assert copy.memory.outcome(job) == stream.slice.memory.outcome(job)
        assert (job in copy.memory) is (job in stream.slice.memory)


@given(steps, steps, steps)
@settings(max_examples=400, deadline=None)
def test_two_that_went_on_apart_come_together(
    first: Said,
    of_one: Said,
    of_other: Said,
) -> None:
    one = Stream(Slice("own", A, 1, LIMITS))
    live_through(one, first, 1_000)
    other = copy_of(one.slice, B)
    live_through(one, of_one, 2_000)
    live_through(other, of_other, 2_000)
    before = {"one": seen(one.slice), "other": seen(other.slice)}
    ended = {name: {job for job in IDS if job in it.slice.memory} for name, it in (("one", one), ("other", other))}
    follower = copy_of(other.slice, C).slice
    entries: list[Entry] = []
    other.tap = lambda number, entry: entries.append(entry)
    chunks: list[Chunk] = [*one.slice.export(), one.slice.export_plans()]
    for chunk in chunks:
        merge(other, chunk, StreamId("own", A, 1), 3_000)
    kept = other.slice
    kept.check()
    for entry in entries:
        follower.apply(entry)
    follower.check()
    assert seen(follower) == seen(kept)
    after = seen(kept)
    for job in IDS:
        was = [before[name].get(job) for name in ("one", "other")]
        over = [job in ended[name] for name in ("one", "other")]
        states = [None if it is None else it[0] for it in was]
        is_live = [it is not None and it is not State.DEAD for it in states]
        if any(is_live) and not any(over):
            by_its_parts = State.SPREAD in states and job in kept.memory
            assert by_its_parts or job in after, (job, states)
            assert by_its_parts or after[job][0] is not State.DEAD
        if any(over) and not any(is_live):
            assert job not in after or after[job][0] is State.DEAD
        if State.DEAD in states and not any(over[place] and states[place] is None for place in (0, 1)):
            assert job in after, (job, states, over)
