"""Calls for jobs, their handles, and what they make of answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from zhero.codec import decode, encode
from zhero.config import SPAN_MAX_MS, Limits
from zhero.core.messages import (
    Accepted,
    AwaitResult,
    Cancel,
    Did,
    Ended,
    Enqueue,
    FindJob,
    Left,
    Listed,
    PartEnded,
    Refusal,
    Refused,
)
from zhero.core.values import (
    NOTHING,
    SUCCEEDED,
    Failure,
    JobId,
    JobInfo,
    Life,
    Member,
    NodeId,
    Outcome,
    State,
    Status,
    job_text,
    keyed_id,
)
from zhero.draft import Draft
from zhero.errors import (
    Bug,
    JobCancelled,
    JobCrashed,
    JobDiscarded,
    JobFailed,
    JobLost,
    JobNotFound,
    JobTimedOut,
    NotAccepted,
    NotRunning,
    ParamsInvalid,
    TaskInvalid,
    TaskNotFound,
    ZheroError,
)
from zhero.forms import task
from zhero.job import NO_OPTIONS, Job, build_enqueue, enqueue_all, enqueue_soon
from zhero.outcomes import Outcomes

from .hub import FakeHub

PATIENCE_S = 5.0


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


def job_of(hub: FakeHub) -> Job[Any]:
    return Job(hub, "tick", JobId(7))


def ended(outcome: Outcome, parts: list[PartEnded] | None = None) -> Ended:
    return Ended(JobId(7), outcome, parts)


def part(name: str, number: int, outcome: Outcome) -> PartEnded:
    life = Life(NodeId(bytes([number]) * 16), 1, 0)
    return PartEnded(Member(life, name, "tcp://127.0.0.1:1", 1, "0"), outcome)


# --- when ---


def test_run_in_is_a_span_in_whole_ms_rounded_up(hub: FakeHub) -> None:
    for given, expected_ms in [(0, 0), (0.0001, 1), (1.5, 1500), (timedelta(microseconds=1), 1)]:
        assert NO_OPTIONS.given(run_in=given).delay_ms(hub.wall_ms()) == expected_ms


@pytest.mark.parametrize(
    ("run_at", "wall_ms", "expected_ms"),
    [
        (2_000_000, 1_000_000.0, 1_000_000),
        (1_000_000, 999_999.5, 1),
        (1_000_000.2, 1_000_000.0, 1),
        (1_000_000, 1_000_000.9, 0),
        (5, 1_000_000.0, 0),
        (-5, 1_000_000.0, 0),
        (datetime(1970, 1, 1, 0, 16, 41, tzinfo=UTC), 1_000_000.0, 1000),
    ],
)
def test_run_at_becomes_a_span_that_is_never_early(run_at: Any, wall_ms: float, expected_ms: int) -> None:
    assert NO_OPTIONS.given(run_at=run_at).delay_ms(wall_ms) == expected_ms


def test_run_at_too_far_off_is_refused(hub: FakeHub) -> None:
    with pytest.raises(ParamsInvalid, match="ten years"):
        build_enqueue(hub, "tick", [{}], NO_OPTIONS.given(run_at=2_000_000 + SPAN_MAX_MS))


def test_run_in_and_run_at_together_are_refused() -> None:
    with pytest.raises(ParamsInvalid, match="both given"):
        NO_OPTIONS.given(run_in=1, run_at=5)
    with pytest.raises(ParamsInvalid, match="both given"):
        NO_OPTIONS.given(run_in=1).given(run_at=5)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("run_in", -1),
        ("run_in", "5"),
        ("run_in", True),
        ("run_in", SPAN_MAX_MS),
        ("run_at", datetime(2030, 1, 1)),
        ("run_at", "tomorrow"),
        ("run_at", True),
        ("run_at", timedelta(seconds=1)),
        ("priority", 101),
        ("priority", 1.5),
        ("priority", False),
        ("id", ""),
        ("id", 5),
        ("id", "\ud800"),
        ("announce", 1),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(option: str, wrong: Any) -> None:
    with pytest.raises(ParamsInvalid, match=f"^{option}="):
        NO_OPTIONS.given(**{option: wrong})


# --- enqueue ---


def test_each_job_has_an_id_of_its_own_and_its_params_as_they_are_now(hub: FakeHub) -> None:
    batch: list[dict[str, Any]] = [{"to": ["ann"]}, {"to": ["bob"]}]
    call = build_enqueue(hub, "mail", batch, NO_OPTIONS.given(priority=5, announce=False))
    batch[0]["to"].append("changed")
    assert [job for job, _ in call.jobs] == [JobId(1), JobId(2)]
    assert [decode(data) for _, data in call.jobs] == [{"to": ["ann"]}, {"to": ["bob"]}]
    assert (call.task, call.priority, call.announce, call.delay_ms, call.keyed) == ("mail", 5, False, 0, False)


def test_an_id_of_the_callers_own_is_always_the_same_job(hub: FakeHub) -> None:
    keyed = NO_OPTIONS.given(id="invoice-17")
    first, second = (build_enqueue(hub, "mail", [{}], keyed) for _ in range(2))
    assert first.jobs == second.jobs == [(keyed_id("mail", "invoice-17"), b"\x80")]
    assert first.keyed
    with pytest.raises(ParamsInvalid, match="names one job"):
        build_enqueue(hub, "mail", [{}, {}], keyed)


def test_params_that_can_not_be_sent_are_refused_with_task_and_key(hub: FakeHub) -> None:
    with pytest.raises(ParamsInvalid, match=r"task mail: params\['to'\]"):
        build_enqueue(hub, "mail", [{"to": "ann"}, {"to": object()}], NO_OPTIONS)


def test_params_that_are_too_large_are_refused_with_both_sizes(hub: FakeHub) -> None:
    size = hub.payload_max_bytes - len(encode({"x": b""}, "params")) - 1  # the length needs another byte
    build_enqueue(hub, "mail", [{"x": b"." * size}], NO_OPTIONS)
    with pytest.raises(ParamsInvalid, match="task mail: the params are 1001 bytes when encoded, more than the 1000"):
        build_enqueue(hub, "mail", [{"x": b"." * (size + 1)}], NO_OPTIONS)


def test_a_batch_that_is_too_large_is_refused(hub: FakeHub) -> None:
    too_many = [{}] * (Limits().batch_max_count + 1)
    with pytest.raises(ParamsInvalid, match="100001 jobs at once"):
        build_enqueue(hub, "mail", too_many, NO_OPTIONS)


def test_accepted_jobs_come_back_in_the_order_of_their_params(hub: FakeHub) -> None:
    jobs = asyncio.run(enqueue_all(hub, "mail", [{"n": 1}, {"n": 2}]))
    assert [job.id for job in jobs] == [job_text(JobId(1)), job_text(JobId(2))]
    assert repr(jobs[0]) == f"<Job {jobs[0].id} of mail>"


def test_the_id_of_a_job_is_the_one_that_was_accepted(hub: FakeHub) -> None:
    hub.answers[Enqueue] = Accepted([JobId(99)])  # as for a periodic task, whose round makes the id
    (job,) = asyncio.run(enqueue_all(hub, "tick", [{}]))
    assert job.id == job_text(JobId(99))
    job = enqueue_soon(hub, "tick", {})
    job.wait_accepted()
    assert job.id == job_text(JobId(99))


def test_an_empty_batch_asks_nobody(hub: FakeHub) -> None:
    assert asyncio.run(enqueue_all(hub, "mail", [])) == []
    assert hub.calls == []


# --- results ---


def test_the_result_is_what_the_task_returned(hub: FakeHub) -> None:
    hub.answers[AwaitResult] = ended(Outcome(Status.SUCCEEDED, encode((1, {2}), "result")))
    assert asyncio.run(job_of(hub).result()) == (1, {2})
    assert hub.calls == [AwaitResult(JobId(7))]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.FAILED, JobFailed),
        (Status.TIMED_OUT, JobTimedOut),
        (Status.CANCELLED, JobCancelled),
        (Status.DISCARDED, JobDiscarded),
        (Status.CRASHED, JobCrashed),
        (Status.LOST, JobLost),
    ],
)
def test_a_job_without_a_result_raises_how_it_ended(status: Status, kind: type[JobFailed], hub: FakeHub) -> None:
    hub.answers[AwaitResult] = ended(Outcome(status, failure=Failure("KeyError", "'x'", "Traceback: there")))
    with pytest.raises(JobFailed, match="KeyError: 'x'") as caught:
        asyncio.run(job_of(hub).result())
    error = caught.value
    assert type(error) is kind
    assert (error.job_id, error.kind, error.remote_traceback) == (job_text(JobId(7)), "KeyError", "Traceback: there")
    assert any("Traceback: there" in note for note in error.__notes__)


def test_a_job_that_ended_without_an_exception_says_so(hub: FakeHub) -> None:
    hub.answers[AwaitResult] = ended(Outcome(Status.CANCELLED))
    with pytest.raises(JobCancelled, match="tick was cancelled") as caught:
        asyncio.run(job_of(hub).result())
    assert (caught.value.kind, caught.value.remote_traceback) == ("cancelled", "")


def test_a_lost_job_says_why_it_does_not_run_again(hub: FakeHub) -> None:
    hub.answers[AwaitResult] = ended(Outcome(Status.LOST))
    with pytest.raises(JobLost, match=r"tick is lost: .* may not begin twice .*at_most_once"):
        asyncio.run(job_of(hub).result())


def test_a_lost_part_names_its_member() -> None:
    outcomes = Outcomes.of([part("a", 1, SUCCEEDED), part("b", 2, Outcome(Status.LOST))], "17", "tick")
    error = outcomes.failed["b"]
    assert type(error) is JobLost
    assert str(error) == "tick is lost at b, which was gone before it had ended (job 17)"
    assert (error.job_id, outcomes.ok) == ("17", False)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.SUCCEEDED], ids=str)
def test_every_status_without_a_result_is_an_error(status: Status, hub: FakeHub) -> None:
    hub.answers[AwaitResult] = ended(Outcome(status))
    with pytest.raises(JobFailed):
        asyncio.run(job_of(hub).result())


def test_a_wait_that_is_too_long_is_a_timeout_and_leaves_the_job_alone(hub: FakeHub) -> None:
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.01 s; it goes on"):
        asyncio.run(job_of(hub).result(timeout=0.01))
    assert hub.calls == [AwaitResult(JobId(7))]
    assert hub.waits == 0


def test_a_job_that_waits_for_another_gives_its_slot_back_meanwhile(hub: FakeHub) -> None:
    async def main() -> list[int]:
        seen = [hub.waits]
        waiting = asyncio.create_task(job_of(hub).result())
        while not hub.calls:
            await asyncio.sleep(0)
        seen.append(hub.waits)
        waiting.cancel()
        await asyncio.wait([waiting])
        return [*seen, hub.waits]

    assert asyncio.run(main()) == [0, 1, 0]


def test_an_answer_of_another_kind_is_a_bug(hub: FakeHub) -> None:
    hub.answers[AwaitResult] = Left(0)
    with pytest.raises(Bug):
        asyncio.run(job_of(hub).result())


# --- scope "all" ---


def test_the_result_of_an_all_job_is_what_became_of_it_at_each_member(hub: FakeHub) -> None:
    boom = Outcome(Status.FAILED, failure=Failure("KeyError", "'x'"))
    done = Outcome(Status.SUCCEEDED, encode(5, "result"))
    parts = [part("a", 1, done), part("b", 2, boom), part("c", 3, Outcome(Status.SKIPPED))]
    hub.answers[AwaitResult] = ended(Outcome(Status.FAILED, b"", boom.failure), parts)

    outcomes = asyncio.run(job_of(hub).result())
    assert isinstance(outcomes, Outcomes)
    assert {name: member.status for name, member in outcomes.items()} == {
        "a": "succeeded",
        "b": "failed",
        "c": "skipped",
    }
    assert (outcomes["a"].member, outcomes["a"].value, outcomes["a"].error) == ("a", 5, None)
    assert outcomes.results() == {"a": 5}
    assert outcomes.skipped == ["c"]
    assert [(name, str(error)) for name, error in outcomes.failed.items()] == [("b", "tick failed: KeyError: 'x'")]
    assert not outcomes.ok
    assert dict(asyncio.run(job_of(hub).outcomes())).keys() == {"a", "b", "c"}


def test_members_of_one_name_are_told_apart(hub: FakeHub) -> None:
    outcomes = Outcomes.of(
        [part("web", 0xA1, SUCCEEDED), part("web", 0xB2, SUCCEEDED), part("db", 3, SUCCEEDED)], "", ""
    )
    assert list(outcomes) == ["web-a1a1a1a1", "web-b2b2b2b2", "db"]


def test_an_all_job_went_well_if_a_member_ran_it_and_none_failed() -> None:
    skipped = part("b", 2, Outcome(Status.SKIPPED))
    assert Outcomes.of([part("a", 1, SUCCEEDED), skipped], "", "").ok
    assert not Outcomes.of([skipped], "", "").ok
    assert not Outcomes.of([], "", "").ok
    assert Outcomes.of([part("a", 1, Outcome(Status.SUCCEEDED, NOTHING))], "", "").results() == {"a": None}


def test_a_job_of_scope_any_has_no_outcomes(hub: FakeHub) -> None:
    hub.answers[AwaitResult] = ended(SUCCEEDED)
    with pytest.raises(TaskInvalid, match='scope "any"'):
        asyncio.run(job_of(hub).outcomes())


# --- cancel and view ---


@pytest.mark.parametrize("done", [True, False])
def test_cancel_says_whether_it_will_not_run(done: bool, hub: FakeHub) -> None:
    hub.answers[Cancel] = Did(done)
    assert asyncio.run(job_of(hub).cancel()) is done
    assert hub.calls == [Cancel(JobId(7))]


def test_a_view_shows_the_job_as_it_is(hub: FakeHub) -> None:
    home = Life(NodeId(b"n" * 16), 1, 0)
    info = JobInfo(JobId(7), "tick", "any", State.READY, 3, b"\x80", 0, 0, 5, 0, 0, home, None, JobId(0), 0, None)
    hub.answers[FindJob] = Listed([info], 1)
    view = asyncio.run(job_of(hub).view())
    assert (view.id, view.name, view.state, view.priority) == (job_text(JobId(7)), "tick", "ready", 3)


@pytest.mark.parametrize("ask", [Job.cancel, Job.view, Job.result], ids=str)
def test_a_job_that_nobody_knows_is_not_found(ask: Callable[[Job[Any]], Awaitable[Any]], hub: FakeHub) -> None:
    refused = Refused(Refusal.UNKNOWN_JOB, job_text(JobId(7)))
    hub.answers |= {Cancel: refused, FindJob: refused, AwaitResult: refused}

    async def main() -> None:
        await ask(job_of(hub))

    with pytest.raises(JobNotFound, match=job_text(JobId(7))):
        asyncio.run(main())


# --- from other threads ---


def test_a_job_of_another_thread_is_awaited_there_too(hub: FakeHub) -> None:
    hub.answers[AwaitResult] = ended(Outcome(Status.SUCCEEDED, encode("done", "result")))
    job = enqueue_soon(hub, "tick", {})
    job.wait_accepted()
    assert job.result_sync(PATIENCE_S) == "done"
    assert [type(call) for call in hub.calls] == [Enqueue, AwaitResult]


def test_a_synchronous_wait_ends_with_its_timeout(hub: FakeHub) -> None:
    hub.answers[Enqueue] = None
    job = enqueue_soon(hub, "tick", {})
    with pytest.raises(TimeoutError, match="was not accepted"):
        job.wait_accepted(0.01)
    with pytest.raises(TimeoutError, match="was not accepted"):
        job.result_sync(0.01)
    hub.pending.pop().set_result(Accepted([JobId(1)]))
    with pytest.raises(TimeoutError, match="it goes on"):
        job.result_sync(0.01)
    assert hub.pending.pop().cancelled()
    assert hub.waits == 0


def test_what_is_refused_later_is_raised_and_logged(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.answers[Enqueue] = Refused(Refusal.UNKNOWN_TASK, "tick")
    with caplog.at_level(logging.ERROR, "zhero"):
        job = enqueue_soon(hub, "tick", {})
    with pytest.raises(TaskNotFound, match="'tick'"):
        job.wait_accepted()
    with pytest.raises(TaskNotFound):
        job.result_sync()
    assert len(caplog.records) == 1


def test_a_job_that_is_not_accepted_can_be_cancelled_all_the_same(hub: FakeHub) -> None:
    hub.answers |= {Enqueue: Refused(Refusal.NOT_ACCEPTED, ""), Cancel: Did(True)}
    job = enqueue_soon(hub, "tick", {})
    with pytest.raises(NotAccepted) as caught:
        job.wait_accepted()
    assert caught.value.job_id == job.id
    assert asyncio.run(job.cancel())


def test_a_job_of_another_thread_can_be_awaited_on_a_loop(hub: FakeHub) -> None:
    hub.answers |= {Enqueue: None, AwaitResult: ended(SUCCEEDED), Cancel: Did(True)}

    async def main() -> None:
        job = enqueue_soon(hub, "tick", {})
        with pytest.raises(TimeoutError):
            await job.result(0.01)
        assert not hub.pending[0].cancelled()
        hub.pending[0].set_result(Accepted([JobId(1)]))
        assert await job.result() is None
        assert await job.cancel()

    asyncio.run(main())


def test_a_synchronous_wait_on_a_loop_is_refused(hub: FakeHub) -> None:
    async def main() -> None:
        job = enqueue_soon(hub, "tick", {})
        for wait in (job.wait_accepted, job.result_sync):
            with pytest.raises(NotRunning, match="await"):
                wait(1)

    asyncio.run(main())


def test_a_waiting_thread_is_woken(hub: FakeHub) -> None:
    hub.answers |= {Enqueue: None, AwaitResult: ended(SUCCEEDED)}
    job = enqueue_soon(hub, "tick", {})
    found: concurrent.futures.Future[Any] = concurrent.futures.Future()
    thread = threading.Thread(target=lambda: found.set_result(job.result_sync(PATIENCE_S)))
    thread.start()
    try:
        hub.pending[0].set_result(Accepted([JobId(1)]))
        assert found.result(PATIENCE_S) is None
    finally:
        thread.join(PATIENCE_S)


# --- drafts, the origin's form ---


@task(name="sendEmail")
async def send_email(to: str, extra: Any = None) -> str:
    return f"to {to}"


@task
def where() -> int:
    return threading.get_ident()


@task(scope="all")
async def with_node(api: FakeHub, params: dict[str, Any]) -> Any:
    api.log("here")
    return params


TASKS = {made.name: made for made in (send_email, where, with_node)}


def draft_of(hub: FakeHub, **fields: Any) -> Draft:
    return Draft(hub, TASKS.get, fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "sendEmail", "runAt": 1_005_000, "params": {"to": "ann"}, "toAnnounce": False},
        {"name": "sendEmail", "run_at": 1_005_000, "params": {"to": "ann"}, "announce": False},
        {"name": "sendEmail", "runIn": 5, "params": {"to": "ann"}, "to_announce": False},
    ],
)
def test_a_draft_is_enqueued_as_it_says(fields: dict[str, Any], hub: FakeHub) -> None:
    job = asyncio.run(draft_of(hub, **fields).enqueue())
    (call,) = hub.enqueued
    assert (call.task, call.delay_ms, call.announce) == ("sendEmail", 5000, False)
    assert [(job_text(made), decode(data)) for made, data in call.jobs] == [(job.id, {"to": "ann"})]


def test_a_draft_without_params_has_none(hub: FakeHub) -> None:
    asyncio.run(draft_of(hub, name="where").enqueue())
    assert hub.enqueued[0].jobs == [(JobId(1), b"\x80")]


@pytest.mark.parametrize(
    ("fields", "kind", "complaint"),
    [
        ({}, ParamsInvalid, "name"),
        ({"name": ""}, ParamsInvalid, "name"),
        ({"name": 5}, ParamsInvalid, "name"),
        ({"name": "unknown"}, TaskNotFound, "'unknown'"),
        ({"name": "where", "runAt": "tomorrow"}, ParamsInvalid, "run_at='tomorrow'"),
        ({"name": "where", "runAt": datetime(2030, 1, 1)}, ParamsInvalid, "aware"),
        ({"name": "where", "runAt": 1e18}, ParamsInvalid, "ten years"),
        ({"name": "where", "toAnnounce": "no"}, ParamsInvalid, "announce='no'"),
        ({"name": "where", "runAtt": 5}, ParamsInvalid, "'runAtt'; did you mean run_at"),
        ({"name": "where", "params": 5}, ParamsInvalid, "params=5"),
        ({"name": "where", "params": {"a": 1}}, ParamsInvalid, "task where: unexpected param 'a'"),
        ({"name": "sendEmail"}, ParamsInvalid, "'to' is missing"),
        ({"name": "sendEmail", "params": {"to": object()}}, ParamsInvalid, r"params\['to'\]"),
        ({"name": "sendEmail", "params": {"to": "x" * 2000}}, ParamsInvalid, "bytes"),
    ],
)
def test_improper_data_is_refused_when_a_draft_is_made(
    fields: dict[str, Any], kind: type[ZheroError], complaint: str, hub: FakeHub
) -> None:
    with pytest.raises(kind, match=complaint):
        draft_of(hub, **fields)
    assert hub.calls == []


def test_a_draft_is_made_of_a_dict(hub: FakeHub) -> None:
    with pytest.raises(ParamsInvalid):
        Draft(hub, TASKS.get, "sendEmail")  # type: ignore[arg-type]


def test_a_draft_keeps_its_params_as_they_were(hub: FakeHub) -> None:
    params: dict[str, Any] = {"to": "ann", "extra": [1]}
    draft = draft_of(hub, name="sendEmail", params=params)
    params["extra"].append(2)
    asyncio.run(draft.enqueue())
    assert decode(hub.enqueued[0].jobs[0][1]) == {"to": "ann", "extra": [1]}


def test_a_draft_enqueued_twice_is_two_jobs(hub: FakeHub) -> None:
    async def main() -> tuple[Job[Any], Job[Any]]:
        draft = draft_of(hub, name="where")
        return await draft.enqueue(), await draft.enqueue()

    first, second = asyncio.run(main())
    assert first.id != second.id


def test_a_draft_that_ran_inline_is_enqueued_as_late_as_it_says(hub: FakeHub) -> None:
    async def main() -> str:
        draft = draft_of(hub, name="sendEmail", runAt=1_005_000, params={"to": "ann"})
        result: str = await draft.run()
        await draft.enqueue()
        return result

    assert asyncio.run(main()) == "to ann"
    assert hub.enqueued[0].delay_ms == 5000


def test_a_draft_runs_inline_with_its_node_whatever_its_scope(hub: FakeHub) -> None:
    params = {"values": (1, 2)}
    assert asyncio.run(draft_of(hub, name="with_node", params=params).run()) == params
    assert hub.said == [("here", "info")]
    assert hub.calls == []


def test_a_plain_function_of_a_draft_does_not_block_the_loop(hub: FakeHub) -> None:
    assert asyncio.run(draft_of(hub, name="where").run()) != threading.get_ident()


def test_cancelling_a_draft_cancels_the_job_enqueued_last(hub: FakeHub) -> None:
    hub.answers[Cancel] = Did(True)

    async def main() -> bool:
        draft = draft_of(hub, name="where")
        with pytest.raises(JobNotFound, match="not been enqueued"):
            await draft.cancel()
        await draft.enqueue()
        await draft.enqueue()
        return await draft.cancel()

    assert asyncio.run(main()) is True
    assert hub.calls[-1] == Cancel(JobId(2))
