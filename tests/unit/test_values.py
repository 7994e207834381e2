"""Ids: what makes them equal, and what must not."""

from __future__ import annotations

import pytest

from zhero.core.values import (
    NO_JOB,
    IdSource,
    JobId,
    NodeId,
    after,
    job_from_text,
    job_text,
    keyed_id,
    part_id,
    round_id,
    span_until,
)

NODES = [NodeId(bytes([number]) * 16) for number in range(3)]


def test_an_id_source_makes_ids_that_grow_and_none_of_another_source() -> None:
    one, other = IdSource(1), IdSource(2)
    made = [one.take() for _ in range(100)]
    assert made == sorted(set(made))
    assert not {other.take() for _ in range(100)} & set(made)
    assert NO_JOB not in made
    assert all(job < 1 << 128 for job in made)


def test_an_id_source_takes_only_64_bits_of_its_origin() -> None:
    assert IdSource((1 << 64) + 5).take() == IdSource(5).take()


@pytest.mark.parametrize("job", [JobId(1), JobId((1 << 128) - 1), round_id("tick", 3)])
def test_an_id_is_the_same_after_its_text(job: JobId) -> None:
    assert job_from_text(job_text(job)) == job
    assert len(job_text(job)) == 32


@pytest.mark.parametrize("text", ["", "1", "g" * 32, "A" * 32, "0" * 33, " " * 32, "-" + "0" * 31, "0x" + "0" * 30])
def test_a_text_that_is_no_id_is_none(text: str) -> None:
    assert job_from_text(text) is None


def test_ids_made_of_the_same_things_are_equal_wherever_they_are_made() -> None:
    assert round_id("tick", 7) == round_id("tick", 7) == JobId(0xDE90DA4CBD3CDB82A1E0A52917044FC3)
    assert keyed_id("mail", "invoice-17") == keyed_id("mail", "invoice-17")
    assert part_id(JobId(5), NODES[0]) == part_id(JobId(5), NODES[0])


def test_ids_made_of_different_things_differ() -> None:
    made = [
        *(round_id(task, number) for task in ("tick", "tock", "tick1") for number in range(20)),
        *(keyed_id(task, key) for task in ("mail", "mai", "tick") for key in ("l1", "1", "invoice", "")),
        *(part_id(JobId(job), node) for job in range(1, 5) for node in NODES),
    ]
    assert len(set(made)) == len(made)


def test_the_border_between_task_and_key_counts() -> None:
    assert keyed_id("ab", "c") != keyed_id("a", "bc")


def test_a_span_from_now_ends_in_a_later_millisecond_than_it_could_be_early() -> None:
    assert after(1000, 50) == 1051
    assert span_until(1000, after(1000, 50)) == 50
    assert span_until(2000, 1000) == 0
