"""The table of steps: each row does what it says, each race is ignored, and every other step is refused."""

from __future__ import annotations

from itertools import product

import pytest

from zhero.config import Limits
from zhero.core.entries import (
    Adopted,
    Advanced,
    CancelAsked,
    Died,
    Done,
    Dropped,
    Due,
    Entry,
    Lent,
    Moved,
    Orphaned,
    Planned,
    Put,
    Returned,
    Revived,
    Spread,
    Waits,
)
from zhero.core.jobs import Slice
from zhero.core.steps import STEPS
from zhero.core.values import NO_PARAMS, SUCCEEDED, Header, JobId, Life, NodeId, Outcome, State, Status
from zhero.errors import Bug

ME = Life(NodeId(b"n" * 16), 1, 0)
JOB = JobId(7)
HEADER = Header("mail")
FAILED = Outcome(Status.FAILED)

ENTRIES: dict[type[Entry], Entry] = {
    Put: Put(HEADER, [(JOB, NO_PARAMS)], 10),
    Advanced: Advanced(HEADER, JOB, 5, 10, 0),
    Due: Due([JOB]),
    Lent: Lent([JOB], ME),
    Returned: Returned([JOB]),
    Orphaned: Orphaned([JOB], [JOB]),
    Adopted: Adopted([JOB], [3], ME),
    Done: Done([JOB], [SUCCEEDED], 10),
    Waits: Waits(JOB, FAILED, 20, True),
    Died: Died(JOB, FAILED, 10),
    CancelAsked: CancelAsked(JOB),
    Revived: Revived(JOB),
    Dropped: Dropped(JOB),
    Spread: Spread(JOB, [], [ME], 10),
    Moved: Moved([JOB]),
}
"""One of each that is about a job."""

WAY: dict[State, list[Entry]] = {
    State.ABSENT: [],
    State.DELAYED: [Put(HEADER, [(JOB, NO_PARAMS)], 1, due_at_ms=9)],
    State.READY: [ENTRIES[Put]],
    State.LENT: [ENTRIES[Put], ENTRIES[Lent]],
    State.RUNNING: [ENTRIES[Put], ENTRIES[Lent]],
    State.SPREAD: [Put(Header("mail", "all"), [(JOB, NO_PARAMS)], 1), ENTRIES[Spread]],
    State.DEAD: [ENTRIES[Put], ENTRIES[Lent], ENTRIES[Died]],
}
"""State -> the entries that lead there."""


def slice_with_job_in(state: State) -> Slice:
    kept = Slice("own", ME, 1, Limits())
    kept.apply(Planned("mail", 1000, False, 4, 10))  # so that a round may begin
    for entry in WAY[state]:
        kept.apply(entry)
    if state is State.RUNNING:
        kept.note_started(JOB, 5)
    kept.check()
    assert kept.state(JOB) is state
    return kept


def refuse(kept: Slice, entry: Entry) -> None:
    """The entry is refused, and nothing has changed."""
    state, info = kept.state(JOB), kept.info(JOB)
    with pytest.raises(Bug, match=f"{JOB:032x}"):
        kept.apply(entry)
    assert (kept.state(JOB), kept.info(JOB)) == (state, info)
    kept.check()


def test_the_table_speaks_of_every_entry_that_is_about_a_job() -> None:
    assert {entry for _, entry in STEPS} == ENTRIES.keys()


@pytest.mark.parametrize(("state", "kind"), [row for row, to in STEPS.items() if to is not None])
def test_a_step_leads_where_the_table_says(state: State, kind: type[Entry]) -> None:
    kept = slice_with_job_in(state)
    assert kept.allows(JOB, kind)
    kept.apply(ENTRIES[kind])
    kept.check()
    assert kept.state(JOB) is STEPS[state, kind]


def test_a_put_with_a_due_time_leads_to_delayed() -> None:
    assert slice_with_job_in(State.DELAYED).state(JOB) is State.DELAYED


@pytest.mark.parametrize(("state", "kind"), [row for row, to in STEPS.items() if to is None])
def test_what_a_race_has_overtaken_is_to_be_ignored_and_no_entry(state: State, kind: type[Entry]) -> None:
    kept = slice_with_job_in(state)
    assert not kept.allows(JOB, kind)
    refuse(kept, ENTRIES[kind])


@pytest.mark.parametrize(("state", "kind"), [row for row in product(State, ENTRIES) if row not in STEPS])
def test_a_step_without_a_row_is_a_bug(state: State, kind: type[Entry]) -> None:
    kept = slice_with_job_in(state)
    with pytest.raises(Bug, match=f"{kind.__name__}.*{state.value}"):
        kept.allows(JOB, kind)
    refuse(kept, ENTRIES[kind])


def test_only_what_is_lent_can_start_and_only_once() -> None:
    for state in State:
        kept = slice_with_job_in(state)
        assert (kept.note_started(JOB, 8) is not None) is (state is State.LENT)
        kept.check()
