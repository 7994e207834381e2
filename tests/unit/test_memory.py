"""What is remembered of jobs that have ended, for how long, and how much at most."""

from __future__ import annotations

import tracemalloc

import pytest

from zhero.config import Limits
from zhero.core.memory import Memory
from zhero.core.values import SUCCEEDED, JobId, Life, NodeId, Outcome, Status

FAILED = Outcome(Status.FAILED)
ME = Life(NodeId(b"n" * 16), 1, 0)
A, B, C, D = (JobId(number) for number in range(1, 5))


@pytest.fixture
def memory() -> Memory:
    return Memory(Limits(results_max_count=3, ids_max_count=2, id_ttl_ms=1000))


def test_an_outcome_is_kept_for_its_time_and_not_longer(memory: Memory) -> None:
    memory.keep(A, SUCCEEDED, None, 100, 50)
    assert memory.deadline_ms() == 150
    memory.forget(149)
    assert memory.outcome(A) is SUCCEEDED
    assert A in memory
    memory.forget(150)
    assert memory.outcome(A) is None
    assert A not in memory
    assert memory.deadline_ms() is None


def test_each_outcome_has_its_own_time(memory: Memory) -> None:
    memory.keep(A, SUCCEEDED, None, 100, 500)
    memory.keep(B, SUCCEEDED, None, 100, 50)
    assert memory.deadline_ms() == 150
    memory.forget(150)
    assert (memory.outcome(A), memory.outcome(B)) == (SUCCEEDED, None)
    assert memory.deadline_ms() == 600


def test_the_parts_of_a_job_are_kept_as_long_as_its_outcome(memory: Memory) -> None:
    memory.keep(A, SUCCEEDED, {ME: SUCCEEDED}, 100, 50)
    assert memory.parts(A) == {ME: SUCCEEDED}
    memory.forget(150)
    assert memory.parts(A) is None


def test_beyond_the_limit_the_one_that_ended_first_makes_room(memory: Memory) -> None:
    for at_ms, (job, ttl_ms) in enumerate([(A, 9000), (B, 50), (C, 50), (D, 50)]):
        memory.keep(job, SUCCEEDED, None, at_ms, ttl_ms)
    assert [job for job in (A, B, C, D) if job in memory] == [B, C, D]
    assert len(memory) == 3


def test_a_second_end_is_kept_for_the_whole_time(memory: Memory) -> None:
    memory.keep(A, FAILED, None, 0, 100)
    memory.drop(A)
    assert memory.outcome(A) is None
    memory.keep(A, SUCCEEDED, None, 90, 100)
    memory.forget(100)
    assert memory.outcome(A) is SUCCEEDED
    memory.forget(190)
    assert memory.outcome(A) is None


def test_the_limit_holds_also_after_second_ends(memory: Memory) -> None:
    memory.keep(A, FAILED, None, 0, 100)
    memory.drop(A)
    for job in (A, B, C, D):
        memory.keep(job, SUCCEEDED, None, 1, 100)
    assert [job for job in (A, B, C, D) if job in memory] == [B, C, D]


def test_what_was_dropped_many_times_takes_no_room(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhero.core.memory.STALE_MAX", 20)
    memory.keep(B, SUCCEEDED, None, 0, 10**6)
    tracemalloc.start()
    for at_ms in range(2000):
        memory.keep(A, FAILED, None, at_ms, 10**6)
        memory.drop(A)
    taken_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken_bytes < 20_000
    assert memory.outcome(B) is SUCCEEDED


def test_an_id_is_kept_for_its_time_and_not_longer(memory: Memory) -> None:
    memory.keep_id(A, 100)
    assert A in memory
    assert A in memory
    assert memory.outcome(A) is None
    assert memory.deadline_ms() == 1100
    memory.forget(1099)
    assert A in memory
    memory.forget(1100)
    assert A not in memory
    assert memory.deadline_ms() is None


def test_an_id_is_remembered_from_its_last_end_on(memory: Memory) -> None:
    memory.keep_id(A, 0)
    memory.keep_id(A, 500)
    memory.forget(1000)
    assert A in memory
    memory.forget(1500)
    assert A not in memory


def test_beyond_the_limit_the_oldest_id_makes_room(memory: Memory) -> None:
    for at_ms, job in enumerate((A, B, C)):
        memory.keep_id(job, at_ms)
    assert [job for job in (A, B, C) if job in memory] == [B, C]


def test_an_id_that_ends_again_and_again_pushes_out_no_other(memory: Memory) -> None:
    memory.keep_id(A, 0)
    for at_ms in range(1, 4):
        memory.keep_id(B, at_ms)
    assert B in memory
    memory.forget(999)
    assert B in memory
