"""A slice: what its entries make of its jobs, seen from outside."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from zhero.config import Limits
from zhero.core import jobs
from zhero.core.entries import (
    Advanced,
    CancelAsked,
    Died,
    Done,
    Due,
    Lent,
    Planned,
    PlanStopped,
    Put,
    Returned,
    Revived,
    Spread,
    Waits,
)
from zhero.core.jobs import Slice
from zhero.core.memory import TOMB_MS
from zhero.core.values import (
    NO_JOB,
    SUCCEEDED,
    Header,
    JobId,
    Life,
    NodeId,
    Outcome,
    State,
    Status,
    part_id,
    round_id,
)
from zhero.errors import Bug

ME, OTHER = (Life(NodeId(bytes([number]) * 16), 1, 0) for number in range(2))
MAIL, CLEAN, TICK = Header("mail"), Header("clean", "all"), Header("tick")
FAILED, CANCELLED = Outcome(Status.FAILED), Outcome(Status.CANCELLED)
ALL = {"mail", "clean", "tick"}
A, B, C = (JobId(number) for number in range(1, 4))


class Checked(Slice):
    """A slice that is checked after each entry."""

    def apply(self, entry: object) -> None:
        super().apply(entry)  # type: ignore[arg-type]  # any entry
        self.check()


def a_slice(**limits: int) -> Checked:
    return Checked("own", ME, 1, replace(Limits(), **limits))


def put(*ids: JobId, header: Header = MAIL, at_ms: int = 1, due_at_ms: int = 0, params: bytes = b"\x80") -> Put:
    return Put(header, [(job, params) for job in ids], at_ms, due_at_ms)


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_queued_job_shows_all_that_was_put() -> None:
    kept = a_slice()
    header = Header("mail", priority=7)
    kept.apply(put(A, header=header, at_ms=1_700_000_000_123, due_at_ms=1_700_000_005_000, params=b"\x81\xa1a\x01"))
    info = kept.info(A)
    assert info is not None
    assert (info.job, info.task, info.scope, info.priority, info.params) == (A, "mail", "any", 7, b"\x81\xa1a\x01")
    assert (info.state, info.enqueued_at_ms, info.run_at_ms) == (State.DELAYED, 1_700_000_000_123, 1_700_000_005_000)
    assert (info.attempt, info.tries, info.home, info.node, info.parent, info.outcome) == (0, 0, ME, None, NO_JOB, None)


def test_a_job_keeps_its_params_and_its_times_through_its_life() -> None:
    kept = a_slice()
    kept.apply(put(A, at_ms=5, due_at_ms=9, params=b"params"))
    kept.apply(Due([A]))
    kept.apply(Lent([A], ME))
    kept.note_started(A, 12)
    kept.apply(Waits(A, FAILED, 30, counted=True))
    kept.apply(Due([A]))
    kept.apply(Lent([A], ME))
    kept.apply(Died(A, FAILED, 40))
    kept.apply(Revived(A))
    info = kept.info(A)
    assert info is not None
    assert (info.params, info.enqueued_at_ms, info.attempt, info.tries) == (b"params", 5, 2, 0)
    assert (info.run_at_ms, info.started_at_ms, info.outcome) == (0, 0, FAILED)


def test_bytes_and_counts_follow_every_job() -> None:
    kept = a_slice()
    kept.apply(put(A, B, params=b"12345"))
    kept.apply(put(C, due_at_ms=9, params=b"123"))
    assert (len(kept), kept.bytes) == (3, 13)
    assert (kept.count(State.READY), kept.count(State.DELAYED)) == (2, 1)
    kept.apply(Lent([A, B], ME))
    kept.note_started(A, 2)
    assert (kept.count(State.READY), kept.count(State.LENT), kept.count(State.RUNNING)) == (0, 1, 1)
    kept.apply(Died(A, FAILED, 3))
    assert (len(kept), kept.bytes, kept.count(State.DEAD)) == (2, 8, 1)
    kept.apply(Revived(A))
    assert (len(kept), kept.bytes, kept.count(State.DEAD)) == (3, 13, 0)
    kept.apply(Done([B, C], [SUCCEEDED, CANCELLED], 4))
    assert (len(kept), kept.bytes, list(kept.live())) == (1, 5, [A])


def test_an_attempt_is_each_start_and_a_try_each_that_counts() -> None:
    kept = a_slice()
    kept.apply(put(A))
    for counted in (True, False, True):
        kept.apply(Lent([A], ME))
        kept.apply(Waits(A, FAILED, 5, counted))
        kept.apply(Due([A]))
    info = kept.info(A)
    assert info is not None
    assert (info.attempt, info.tries) == (3, 2)


def test_what_comes_back_unstarted_counts_no_attempt_and_goes_first() -> None:
    kept = a_slice()
    kept.apply(put(A, B, C))
    assert kept.take(2, ME, ALL) == [A, B]
    kept.apply(Lent([A, B], OTHER))
    kept.apply(Returned([B]))
    info = kept.info(B)
    assert info is not None
    assert (info.attempt, info.node, info.state) == (0, None, State.READY)
    assert kept.take(3, ME, ALL) == [B, C]


def test_jobs_become_due_in_the_order_of_their_times() -> None:
    kept = a_slice()
    kept.apply(put(A, due_at_ms=30))
    kept.apply(put(B, due_at_ms=10))
    kept.apply(put(C, due_at_ms=20))
    kept.apply(Done([C], [CANCELLED], 5))
    assert kept.next_due_ms() == 10
    assert kept.due(9) == []
    assert kept.due(30) == [B, A]
    kept.apply(Due([B, A]))
    assert kept.next_due_ms() is None
    assert kept.take(9, ME, ALL) == [B, A]


def test_a_job_that_was_cancelled_is_claimed_by_nobody() -> None:
    kept = a_slice()
    kept.apply(put(A, B))
    kept.apply(Done([A], [CANCELLED], 5))
    assert kept.waiting_tasks() == {"mail": 1}
    assert kept.take(9, ME, ALL) == [B]
    kept.apply(Lent([B], ME))
    assert kept.waiting_tasks() == {}


def test_cancelling_leaves_nothing_behind_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "STALE_MAX", 20)
    kept = Slice("own", ME, 1, Limits(results_max_count=10))
    kept.apply(Put(CLEAN, [(A, b"")], 1))
    kept.apply(Spread(A, [ME], [], 1))
    tracemalloc.start()
    for number in range(100, 1100):
        job = JobId(number)
        kept.apply(put(job))
        kept.apply(Done([job], [CANCELLED], 1))
        kept.apply(put(job, header=CLEAN))
        kept.apply(Spread(job, [ME], [], 1))
        kept.apply(Done([part_id(job, ME.node)], [CANCELLED], 1))
        kept.apply(Done([job], [CANCELLED], 1))
        kept.apply(put(job, due_at_ms=10**9))
        kept.apply(Done([job], [CANCELLED], 1))
        kept.endings.clear()
    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken_bytes < 40_000
    assert len(kept) == 2
    kept.check()


def test_a_copy_that_only_hears_what_was_decided_keeps_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "STALE_MAX", 20)
    copy = Slice("own", ME, 1, Limits(results_max_count=10))
    tracemalloc.start()
    for number in range(1, 2000):
        job = JobId(number)
        copy.apply(put(job, due_at_ms=5))
        copy.apply(Due([job]))
        copy.apply(Lent([job], ME))
        copy.apply(Done([job], [SUCCEEDED], 5))
        copy.endings.clear()
    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken_bytes < 40_000
    copy.check()


# --- ends -------------------------------------------------------------------------------------------------------------


def test_an_end_is_told_with_the_job_as_it_was() -> None:
    kept = a_slice()
    kept.apply(put(A))
    kept.apply(Lent([A], ME))
    kept.note_started(A, 7)
    kept.apply(Done([A], [SUCCEEDED], 9))
    (ending,) = kept.endings
    assert (ending.record.job, ending.record.started_at_ms, ending.outcome, ending.at_ms) == (A, 7, SUCCEEDED, 9)
    assert (ending.parts, ending.number, ending.displaced) == (None, 0, None)
    assert kept.memory.outcome(A) is SUCCEEDED


def test_of_a_job_whose_outcome_is_not_kept_it_is_known_for_a_while_that_it_has_ended() -> None:
    kept = a_slice()
    kept.apply(put(A, header=Header("mail", result_ttl_ms=0)))
    kept.apply(Done([A], [CANCELLED], 1))
    assert kept.memory.outcome(A) is None
    kept.memory.forget(TOMB_MS)
    assert A in kept.memory
    kept.memory.forget(TOMB_MS + 1)
    assert A not in kept.memory


def test_the_oldest_dead_letter_makes_room_and_is_named() -> None:
    kept = a_slice(dead_max_count=2)
    kept.apply(put(A, B, C))
    kept.apply(Lent([A, B, C], ME))
    for job in (B, A, C):
        kept.apply(Died(job, FAILED, 1))
    assert list(kept.dead) == [A, C]
    displaced = [ending.displaced and ending.displaced.job for ending in kept.endings]
    assert displaced == [None, None, B]


def test_an_id_of_the_callers_own_is_live_then_remembered_and_after_a_revival_live_again() -> None:
    kept = a_slice(id_ttl_ms=100)
    kept.apply(Put(MAIL, [(A, b"")], 1, keyed=True))
    kept.apply(put(B))
    assert kept.keyed == {A}
    kept.apply(Lent([A, B], ME))
    kept.apply(Died(A, FAILED, 10))
    kept.apply(Died(B, FAILED, 10))
    for job in (A, B):
        kept.memory.drop(job)  # the outcome, so that what is left is the id
    assert (kept.keyed, A in kept.memory, B in kept.memory) == (set(), True, False)
    kept.apply(Revived(A))
    kept.apply(Revived(B))
    assert kept.keyed == {A}
    kept.apply(Done([A], [CANCELLED], 90))
    kept.memory.forget(189)
    kept.memory.drop(A)
    assert A in kept.memory


# --- scope "all" ------------------------------------------------------------------------------------------------------


def spread(kept: Slice, job: JobId = A, members: tuple[Life, ...] = (ME, OTHER)) -> list[JobId]:
    kept.apply(put(job, header=CLEAN, params=b"12"))
    assert kept.take_to_spread(ALL) == [job]
    kept.apply(Spread(job, list(members), [], 2))
    return [part_id(job, member.node) for member in members]


def test_each_part_is_for_its_member_alone() -> None:
    kept = a_slice()
    mine, others = spread(kept)
    assert kept.state(A) is State.SPREAD
    assert kept.take(9, ME, ALL) == [mine]
    assert kept.take(9, OTHER, ALL) == [others]
    assert kept.bytes == 6
    info = kept.info(mine)
    assert info is not None
    assert (info.parent, info.node, info.scope) == (A, ME, "all")


def test_a_part_that_waits_for_a_retry_comes_back_to_its_member() -> None:
    kept = a_slice()
    mine, _ = spread(kept)
    kept.take(9, ME, ALL)
    kept.apply(Lent([mine], ME))
    kept.apply(Waits(mine, FAILED, 5, counted=True))
    kept.apply(Due([mine]))
    assert kept.take(9, ME, ALL) == [mine]
    kept.apply(Lent([mine], ME))
    kept.apply(Returned([mine]))
    assert kept.take(9, ME, ALL) == [mine]


def test_a_job_knows_how_each_of_its_parts_ended() -> None:
    kept = a_slice()
    mine, others = spread(kept)
    kept.apply(Lent([mine], ME))
    kept.apply(Lent([others], OTHER))
    kept.apply(Died(others, FAILED, 5))
    kept.apply(Done([mine], [SUCCEEDED], 5))
    assert kept.parts[A].open == {}
    kept.apply(Done([A], [FAILED], 5))
    assert kept.endings[-1].parts == {OTHER: FAILED, ME: SUCCEEDED}
    assert kept.memory.parts(A) == {OTHER: FAILED, ME: SUCCEEDED}
    assert kept.state(others) is State.DEAD


def test_a_dead_part_that_is_tried_again_is_a_job_of_its_own_for_the_same_member() -> None:
    kept = a_slice()
    mine, _ = spread(kept)
    kept.apply(Lent([mine], ME))
    kept.apply(Died(mine, FAILED, 5))
    kept.apply(Revived(mine))
    info = kept.info(mine)
    assert info is not None
    assert info.parent == NO_JOB
    assert kept.take(9, OTHER, ALL) == [part_id(A, OTHER.node)]
    assert kept.take(9, ME, ALL) == [mine]


def test_the_same_job_may_be_spread_again_when_a_part_of_the_first_is_a_dead_letter() -> None:
    kept = a_slice()
    (part,) = spread(kept, members=(ME,))
    kept.apply(Lent([part], ME))
    kept.apply(Died(part, FAILED, 5))
    kept.apply(Done([A], [FAILED], 5))
    assert spread(kept, members=(ME,)) == [part]
    assert (kept.state(part), kept.count(State.DEAD)) == (State.READY, 0)


# --- schedules --------------------------------------------------------------------------------------------------------

ROUND = round_id("tick", 8)


def planned(*, fixed_rate: bool = False) -> Checked:
    kept = a_slice()
    kept.apply(Planned("tick", 100, fixed_rate, 7, 1000))
    return kept


def test_a_round_moves_the_schedule_on_and_puts_its_job_in_one_step() -> None:
    kept = planned()
    kept.apply(Advanced(TICK, ROUND, 8, 1001, 0))
    plan = kept.plans["tick"]
    assert (plan.number, plan.running, plan.waits) == (8, ROUND, False)
    assert kept.state(ROUND) is State.READY
    info = kept.info(ROUND)
    assert info is not None
    assert (info.number, info.enqueued_at_ms) == (8, 1001)


def test_the_entry_that_ends_a_round_says_when_the_next_one_is_due() -> None:
    kept = planned()
    kept.apply(Advanced(TICK, ROUND, 8, 1001, 0))
    kept.apply(Lent([ROUND], ME))
    kept.apply(Waits(ROUND, FAILED, 1500, counted=True))
    assert not kept.plans["tick"].waits
    kept.apply(Due([ROUND]))
    kept.apply(Lent([ROUND], ME))
    kept.apply(Died(ROUND, FAILED, 1600))
    plan = kept.plans["tick"]
    assert (plan.waits, plan.due_at_ms, kept.rounds) == (True, 1701, {})
    assert kept.endings[-1].number == 8


@pytest.mark.parametrize(("end_ms", "due_ms"), [(1001, 1100), (1099, 1100), (1100, 1200), (1101, 1200), (9999, 10000)])
def test_a_fixed_rate_keeps_its_grid(end_ms: int, due_ms: int) -> None:
    kept = planned(fixed_rate=True)
    kept.apply(Advanced(TICK, ROUND, 8, 1001, 0))
    kept.apply(Done([ROUND], [CANCELLED], end_ms))
    assert kept.plans["tick"].due_at_ms == due_ms


@pytest.mark.parametrize("fixed_rate", [False, True])
def test_a_time_that_was_planned_while_a_round_ran_holds_if_it_is_later(fixed_rate: bool) -> None:
    kept = planned()
    kept.apply(Advanced(TICK, ROUND, 8, 1001, 0))
    kept.apply(PlanStopped("tick"))
    kept.apply(Planned("tick", 100, fixed_rate, 8, 5000))
    assert kept.plans["tick"].running == ROUND
    kept.apply(Done([ROUND], [CANCELLED], 1100))
    assert kept.plans["tick"].due_at_ms == 5000


def test_a_part_of_a_round_is_of_that_round() -> None:
    kept = a_slice()
    kept.apply(Planned("clean", 100, False, 7, 1000))
    job = round_id("clean", 8)
    kept.apply(Advanced(CLEAN, job, 8, 1001, 1100))
    kept.apply(Spread(job, [ME], [], 1001))
    part = part_id(job, ME.node)
    info = kept.info(part)
    assert info is not None
    assert info.number == 8
    kept.apply(Lent([part], ME))
    kept.apply(Died(part, FAILED, 1005))
    kept.apply(Done([job], [FAILED], 1005))
    assert [ending.number for ending in kept.endings] == [8, 8]
    assert (kept.plans["clean"].waits, kept.plans["clean"].due_at_ms) == (True, 1100)
    kept.apply(Revived(part))
    kept.apply(Done([part], [CANCELLED], 1010))
    assert kept.endings[-1].number == 0


def test_a_round_that_is_not_next_is_a_bug() -> None:
    for entry in (
        Advanced(TICK, round_id("tick", 7), 7, 1001, 0),
        Advanced(Header("unknown"), round_id("unknown", 1), 1, 1001, 0),
        Planned("tick", 100, False, 6, 1000),
    ):
        with pytest.raises(Bug):
            planned().apply(entry)
    kept = planned()
    kept.apply(Advanced(TICK, ROUND, 8, 1001, 0))
    with pytest.raises(Bug):
        kept.apply(Advanced(TICK, round_id("tick", 9), 9, 1002, 0))
    kept = planned()
    kept.apply(PlanStopped("tick"))
    with pytest.raises(Bug):
        kept.apply(Advanced(TICK, ROUND, 8, 1001, 0))


# --- the checks themselves --------------------------------------------------------------------------------------------


def test_the_check_finds_what_is_broken() -> None:
    def lose_a_job(kept: Slice) -> None:
        del kept.ready[A]

    def count_bytes_twice(kept: Slice) -> None:
        kept.bytes += 1

    def claim_and_forget(kept: Slice) -> None:
        kept.take(1, ME, ALL)

    def take_due_and_forget(kept: Slice) -> None:
        kept.due(10**9)

    def two_places(kept: Slice) -> None:
        kept.delayed[A] = kept.ready[A]

    def no_executor(kept: Slice) -> None:
        kept.records[C].executor = None

    def id_of_nobody(kept: Slice) -> None:
        kept.keyed.add(JobId(99))

    def round_of_nobody(kept: Slice) -> None:
        kept.rounds[JobId(99)] = ("tick", 7)

    for breaking in (
        lose_a_job,
        count_bytes_twice,
        claim_and_forget,
        take_due_and_forget,
        two_places,
        no_executor,
        id_of_nobody,
        round_of_nobody,
    ):
        kept = planned()
        kept.apply(put(C))
        kept.apply(Lent(kept.take(1, ME, ALL), ME))
        kept.apply(put(A))
        kept.apply(put(B, due_at_ms=50))
        kept.apply(CancelAsked(C))
        breaking(kept)
        with pytest.raises(Bug):
            kept.check()
