"""Refusals become errors that say what to do, and of which job they are."""

from __future__ import annotations

import asyncio

import pytest

from zhero.core.messages import Enqueue, Refusal, Refused
from zhero.core.values import JobId, job_text
from zhero.errors import (
    AlreadyQueued,
    JobNotFound,
    NotAccepted,
    NotReached,
    NotRunning,
    ParamsInvalid,
    QueueFull,
    TaskInvalid,
    TaskNotFound,
    ZheroError,
)
from zhero.job import enqueue_all
from zhero.refusals import error_of

from .hub import FakeHub


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        (Refusal.UNKNOWN_TASK, TaskNotFound),
        (Refusal.UNKNOWN_JOB, JobNotFound),
        (Refusal.ALREADY_QUEUED, AlreadyQueued),
        (Refusal.QUEUE_FULL, QueueFull),
        (Refusal.TOO_LARGE, ParamsInvalid),
        (Refusal.PARAMS_INVALID, ParamsInvalid),
        (Refusal.NOT_PERIODIC, TaskInvalid),
        (Refusal.LEAVING, NotRunning),
        (Refusal.NOT_ACCEPTED, NotAccepted),
        (Refusal.NOT_HOME, NotReached),
    ],
)
def test_each_refusal_is_an_error_that_has_its_detail(why: Refusal, kind: type[ZheroError], hub: FakeHub) -> None:
    error = error_of(Refused(why, "the {detail}"))
    assert type(error) is kind
    assert "the {detail}" in str(error)
    hub.answers[Enqueue] = Refused(why, "it")
    with pytest.raises(kind):
        asyncio.run(enqueue_all(hub, "tick", [{}]))


def test_every_refusal_has_an_error() -> None:
    for why in Refusal:
        assert isinstance(error_of(Refused(why, "x")), ZheroError)


def test_what_is_not_accepted_may_run_and_has_its_id(hub: FakeHub) -> None:
    hub.answers[Enqueue] = Refused(Refusal.NOT_ACCEPTED, "")
    with pytest.raises(NotAccepted, match="may still run") as caught:
        asyncio.run(enqueue_all(hub, "tick", [{}]))
    assert caught.value.may_run
    assert caught.value.job_id == job_text(JobId(1))
    assert caught.value.job_ids == (caught.value.job_id,)
    assert caught.value.job_id in str(caught.value)


def test_a_batch_that_is_not_accepted_has_the_ids_of_all_its_jobs(hub: FakeHub) -> None:
    hub.answers[Enqueue] = Refused(Refusal.NOT_ACCEPTED, job_text(JobId(1)))
    with pytest.raises(NotAccepted, match=f"3 jobs, of which the first is {1:032x}") as caught:
        asyncio.run(enqueue_all(hub, "tick", [{}, {}, {}]))
    assert caught.value.job_ids == tuple(job_text(JobId(number)) for number in (1, 2, 3))
    assert caught.value.job_id == caught.value.job_ids[0]


def test_a_round_that_is_not_accepted_has_the_id_that_its_owner_gave_it(hub: FakeHub) -> None:
    hub.answers[Enqueue] = Refused(Refusal.NOT_ACCEPTED, job_text(JobId(99)))
    with pytest.raises(NotAccepted) as caught:
        asyncio.run(enqueue_all(hub, "tick", [{}]))
    assert caught.value.job_ids == (job_text(JobId(99)),)
