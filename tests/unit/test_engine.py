"""The engine as the worlds see it: what enters and what is refused, verdicts, clients, leaving, deadlines."""

from __future__ import annotations

import random

import pytest

from zhero.config import PRIORITY_MAX, SPAN_MAX_MS, Limits
from zhero.core.effects import Reply, Send, Start, Stop, Tell
from zhero.core.entries import Entry
from zhero.core.facts import (
    DeadLetterDropped,
    JobEnded,
    JobQueued,
    JobRetried,
    JobStarted,
    OwnerChanged,
    PeerMisbehaved,
    VerdictIgnored,
)
from zhero.core.messages import (
    Accepted,
    AwaitResult,
    Call,
    Cancel,
    Counted,
    CountJobs,
    Did,
    Discard,
    Ended,
    Enqueue,
    GiveUp,
    Hello,
    Leave,
    Left,
    Refusal,
    Refused,
    Request,
    Response,
    Retry,
    StartTask,
    StopTask,
    Welcome,
)
from zhero.core.values import (
    NO_JOB,
    NO_PARAMS,
    Finished,
    JobId,
    Outcome,
    State,
    Status,
    TaskSpec,
    Verdict,
    keyed_id,
    part_id,
)

from ..conversations.harness import BAD, GOOD, ME, START_MS, Node

MAIL, CLEAN = TaskSpec("mail"), TaskSpec("clean", "all")
TICK = TaskSpec("tick", frequency_ms=1000)
A, B = JobId(1001), JobId(1002)


def refusal(node: Node, call: Enqueue) -> Refusal:
    before = node.queues()
    answer = node.ask(call)
    assert isinstance(answer, Refused)
    assert node.starts == []
    assert node.queues() == before
    return answer.why


def mail(*jobs: JobId, size: int = 1, delay_ms: int = 0, priority: int | None = None) -> Enqueue:
    return Enqueue("mail", [(job, bytes(size)) for job in jobs], priority, None, delay_ms)


# --- what enters ------------------------------------------------------------------------------------------------------


def test_enqueue_returns_before_the_job_starts_even_with_a_free_slot() -> None:
    node = Node(MAIL, capacity=1)
    node.ask(mail(A))
    kinds = [type(effect) for effect in node.effects]
    assert kinds == [Tell, Reply, Start]


def test_nothing_is_said_to_anybody_when_a_job_runs_where_it_was_enqueued() -> None:
    node = Node(MAIL, CLEAN, TICK, capacity=2)
    for job in (*node.enqueue("mail"), *node.enqueue("mail", delay_ms=10)):
        node.tick(11)
        node.started(job)
        node.finished(job)
    (job,) = node.enqueue("clean")
    node.finished(part_id(job, ME.life.node))
    node.tick(1001)
    assert len(node.starts) == 1
    assert not [effect for effect in node.all_effects if isinstance(effect, Send)]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (Enqueue("nobody", [(A, NO_PARAMS)]), Refusal.UNKNOWN_TASK),
        (mail(), Refusal.TOO_LARGE),
        (mail(A, B, JobId(3), JobId(4)), Refusal.TOO_LARGE),
        (mail(A, size=101), Refusal.TOO_LARGE),
        (mail(A, delay_ms=-1), Refusal.PARAMS_INVALID),
        (mail(A, delay_ms=SPAN_MAX_MS + 1), Refusal.PARAMS_INVALID),
        (mail(A, priority=PRIORITY_MAX + 1), Refusal.PARAMS_INVALID),
        (mail(A, priority=-PRIORITY_MAX - 1), Refusal.PARAMS_INVALID),
        (mail(NO_JOB), Refusal.PARAMS_INVALID),
        (Enqueue("tick", [(A, NO_PARAMS), (B, NO_PARAMS)]), Refusal.PARAMS_INVALID),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_queued(call: Enqueue, why: Refusal) -> None:
    node = Node(MAIL, TICK, capacity=5, limits=Limits(batch_max_count=3, payload_max_bytes=100))
    assert refusal(node, call) is why


@pytest.mark.parametrize(
    "call", [mail(A, B, JobId(3)), mail(A, size=100), mail(A, delay_ms=SPAN_MAX_MS), mail(A, priority=-PRIORITY_MAX)]
)
def test_what_is_just_within_the_limits_is_taken(call: Enqueue) -> None:
    node = Node(MAIL, limits=Limits(batch_max_count=3, payload_max_bytes=100))
    assert node.ask(call) == Accepted([job for job, _ in call.jobs])


def test_a_full_queue_takes_nothing_new_all_or_none() -> None:
    node = Node(MAIL, limits=Limits(jobs_max=3, jobs_max_bytes=100))
    node.ask(mail(A, B))
    assert refusal(node, mail(JobId(3), JobId(4))) is Refusal.QUEUE_FULL
    assert refusal(node, mail(JobId(3), size=99)) is Refusal.QUEUE_FULL
    assert node.ask(mail(JobId(3), size=98)) == Accepted([JobId(3)])
    assert node.queues() == {"global": 3}
    node.ask(Cancel(A))
    assert node.ask(mail(JobId(4), size=0)) == Accepted([JobId(4)])


def test_neither_a_round_nor_a_retry_nor_a_part_is_refused_for_want_of_room() -> None:
    node = Node(MAIL, TICK, CLEAN, limits=Limits(jobs_max=2), capacity=2)
    first, second = node.enqueue("mail", 2)
    node.finished(first, Verdict.RETRY, delay_ms=10)
    node.finished(second, Verdict.DEAD)
    node.enqueue("clean")
    node.tick(1001)
    assert node.ask(Retry(second)) == Did(True)
    assert sum(node.queues().values()) == 4


def test_the_same_id_twice_is_one_job_wherever_the_first_is_by_then() -> None:
    node = Node(MAIL, capacity=1)
    call = mail(A)
    node.ask(call)
    for step in (
        lambda: node.started(A),
        lambda: node.finished(A, Verdict.RETRY, delay_ms=10),
        lambda: node.tick(11),
        lambda: node.finished(A, Verdict.DEAD),
        lambda: node.ask(Retry(A)),
        lambda: node.finished(A),
    ):
        step()
        assert node.ask(call) == Accepted([A])
        assert node.starts == []
        assert node.ask(mail(A, delay_ms=50)) == Accepted([A])
    assert node.stats()["enqueued"] == 1
    assert node.queues() == {}


def test_twins_in_one_call_are_one_job_with_the_params_of_the_first() -> None:
    node = Node(MAIL, capacity=5)
    answer = node.ask(Enqueue("mail", [(A, b"first"), (B, b"other"), (A, b"second")]))
    assert answer == Accepted([A, B, A])
    assert [(run.job, run.params) for run in node.starts] == [(A, b"first"), (B, b"other")]


def test_who_asks_again_is_told_accepted_even_when_there_is_no_room_or_the_node_leaves() -> None:
    node = Node(MAIL, capacity=1, limits=Limits(jobs_max=1))
    node.ask(mail(A))
    assert node.ask(mail(A)) == Accepted([A])
    assert refusal(node, mail(A, B)) is Refusal.QUEUE_FULL
    node.ask(Leave(1000))
    assert node.ask(mail(A)) == Accepted([A])
    assert refusal(node, mail(B)) is Refusal.LEAVING
    assert refusal(node, mail(A, B)) is Refusal.LEAVING


def test_an_id_of_the_callers_own_is_one_job_also_when_its_result_is_forgotten() -> None:
    node = Node(TaskSpec("mail", result_ttl_ms=0), capacity=1, limits=Limits(id_ttl_ms=70_000))
    job = keyed_id("mail", "invoice-17")
    call = Enqueue("mail", [(job, NO_PARAMS)], keyed=True)
    node.ask(call)
    node.finished(job)
    node.tick(69_999)
    assert node.ask(call) == Accepted([job])
    assert node.starts == []
    node.tick(1)
    node.ask(call)
    assert node.started_jobs == [job]


def test_an_id_of_the_callers_own_is_remembered_from_the_end_of_a_second_try_on() -> None:
    node = Node(MAIL, capacity=1, limits=Limits(id_ttl_ms=70_000))
    job = keyed_id("mail", "invoice-17")
    call = Enqueue("mail", [(job, NO_PARAMS)], keyed=True)
    node.ask(call)
    node.finished(job, Verdict.DEAD)
    node.tick(80_000)
    assert node.ask(call) == Accepted([job])  # the dead letter is still here
    node.ask(Retry(job))
    node.finished(job)
    node.tick(69_999)
    assert node.ask(call) == Accepted([job])
    assert node.starts == []


def test_what_is_delayed_or_has_an_id_of_the_callers_own_is_in_the_slice_that_is_elected_a_home() -> None:
    node = Node(MAIL)
    node.enqueue("mail", 1)
    node.enqueue("mail", 2, delay_ms=5)
    node.ask(Enqueue("mail", [(keyed_id("mail", "invoice-17"), NO_PARAMS)], keyed=True))
    assert [len(stream.slice) for stream in node.engine.streams] == [1, 3]


def test_a_job_can_differ_from_its_definition_in_priority_and_announcement() -> None:
    node = Node(TaskSpec("mail", priority=3, announce=True, result_ttl_ms=77), capacity=2)
    node.ask(Enqueue("mail", [(A, NO_PARAMS)]))
    node.ask(Enqueue("mail", [(B, NO_PARAMS)], priority=-1, announce=False))
    plain, special = node.runs[A].header, node.runs[B].header
    assert (plain.priority, plain.announce, plain.result_ttl_ms) == (3, True, 77)
    assert (special.priority, special.announce, special.result_ttl_ms) == (-1, False, 77)


def test_a_changed_definition_holds_for_the_next_job() -> None:
    node = Node(MAIL, capacity=2)
    node.enqueue("mail")
    node.define(TaskSpec("mail", priority=9))
    (job,) = node.enqueue("mail")
    assert node.runs[job].header.priority == 9


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", list(Verdict))
def test_each_verdict_has_its_end_and_frees_its_slot(verdict: Verdict) -> None:
    node = Node(MAIL, capacity=1)
    first, second = node.enqueue("mail", 2)
    node.finished(first, verdict, delay_ms=100)
    assert node.started_jobs == [second]
    states = {Verdict.DONE: State.ABSENT, Verdict.CANCELLED: State.ABSENT, Verdict.DEAD: State.DEAD}
    info = node.find(first)
    assert (info.state if info else State.ABSENT) is states.get(verdict, State.DELAYED)


def test_a_verdict_of_another_attempt_or_of_no_run_is_ignored() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.finished(job, Verdict.RETRY, delay_ms=10)
    node.tick(11)
    for stale in (
        Finished(job, 1, Verdict.DONE, GOOD),
        Finished(job, 3, Verdict.DONE, GOOD),
        Finished(JobId(99), 1, Verdict.DEAD, BAD),
    ):
        node.report(stale)
        assert node.facts == [VerdictIgnored(stale.job, stale.attempt)]
    info = node.find(job)
    assert info is not None
    assert (info.state, info.attempt) == (State.LENT, 2)


@pytest.mark.parametrize("second", list(Verdict))
def test_of_two_verdicts_on_one_run_in_one_report_the_first_counts(second: Verdict) -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.report(node.verdict(job), node.verdict(job, second, delay_ms=10))
    assert VerdictIgnored(job, 1) in node.facts
    assert node.ask(AwaitResult(job)) == Ended(job, GOOD)
    assert node.stats() == {"enqueued": 1, "succeeded": 1}


def test_many_verdicts_in_one_report_are_taken_each_for_itself() -> None:
    node = Node(MAIL, capacity=9)
    jobs = [*node.enqueue("mail", 3), *node.enqueue("mail", 2, delay_ms=5)]
    node.tick(6)
    verdicts = (Verdict.DONE, Verdict.DEAD, Verdict.RETRY, Verdict.DONE, Verdict.CANCELLED)
    node.report(*(node.verdict(job, verdict, delay_ms=50) for job, verdict in zip(jobs, verdicts, strict=True)))
    assert node.stats() == {"enqueued": 5, "succeeded": 2, "dead": 1, "retried": 1, "cancelled": 1}
    assert node.queues() == {"delayed": 1}


def test_a_retry_longer_than_the_longest_wait_is_cut_and_a_negative_one_is_the_shortest() -> None:
    node = Node(MAIL, capacity=2)
    long, short = node.enqueue("mail", 2)
    node.finished(long, Verdict.RETRY, delay_ms=10 * SPAN_MAX_MS)
    node.finished(short, Verdict.RETRY, delay_ms=-5)
    runs_at = {info.job: info.run_at_ms - START_MS for info in node.jobs()}
    assert runs_at == {long: SPAN_MAX_MS + 1, short: 2}


def test_a_dead_letter_that_makes_room_is_told() -> None:
    node = Node(MAIL, capacity=2, limits=Limits(dead_max_count=1))
    first, second = node.enqueue("mail", 2)
    node.finished(first, Verdict.DEAD)
    assert DeadLetterDropped(first, "mail") not in node.facts
    node.finished(second, Verdict.DEAD)
    assert DeadLetterDropped(first, "mail") in node.facts


# --- cancel, retry, discard -------------------------------------------------------------------------------------------


def test_what_waits_is_cancelled_at_once() -> None:
    node = Node(MAIL)
    for delay_ms in (0, 1000):
        (job,) = node.enqueue("mail", delay_ms=delay_ms)
        assert node.ask(Cancel(job)) == Did(True)
        assert node.ask(AwaitResult(job)) == Ended(job, Outcome(Status.CANCELLED))
        assert node.ask(Cancel(job)) == Did(False)
    assert node.engine.deadline_ms() == START_MS + MAIL.result_ttl_ms


@pytest.mark.parametrize("started", [False, True])
def test_what_was_lent_is_asked_to_stop_as_often_as_somebody_cancels_it(started: bool) -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    if started:
        node.started(job)
    refs: list[int] = []
    for _ in range(2):
        assert node.ask(Cancel(job)) is None
        assert node.effects == [Stop(job)]
        refs.append(node.last_ref)
    node.finished(job, Verdict.CANCELLED)
    assert node.answers == dict.fromkeys(refs, Did(True))


def test_a_cancel_that_could_not_be_done_is_told_at_once_and_holds_for_the_next_run() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.ask(AwaitResult(job))
    waiting = node.last_ref
    node.ask(Cancel(job))
    node.cannot_stop(job)
    assert node.answers == {node.last_ref: Did(False)}
    node.cannot_stop(job)
    assert node.answers == {}
    node.finished(job, Verdict.RETRY, delay_ms=10)
    assert node.answers == {waiting: Ended(job, Outcome(Status.CANCELLED))}
    assert node.jobs() == []


def test_a_cancel_is_over_when_a_person_has_the_job_tried_again() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.ask(Cancel(job))
    node.finished(job, Verdict.DEAD)
    node.ask(Retry(job))
    node.finished(job, Verdict.RETRY, delay_ms=10)
    assert node.queues() == {"delayed": 1}


def test_only_dead_letters_are_retried_and_discarded() -> None:
    node = Node(MAIL, capacity=1)
    live, dead = node.enqueue("mail", 2)
    node.finished(live, Verdict.RETRY, delay_ms=10)
    node.finished(dead, Verdict.DEAD)
    unknown = Refused(Refusal.UNKNOWN_JOB, f"{99:032x}")
    for call in (Retry, Discard):
        assert node.ask(call(live)) == Did(False)
        assert node.ask(call(JobId(99))) == unknown
    assert node.ask(Discard(dead)) == Did(True)
    assert node.ask(Retry(dead)) == Refused(Refusal.UNKNOWN_JOB, f"{dead:032x}")


# --- facts ------------------------------------------------------------------------------------------------------------


def test_facts_about_jobs_that_go_well_are_made_only_while_somebody_listens() -> None:
    node = Node(MAIL, capacity=4)
    single = (JobQueued, JobStarted, JobRetried, JobEnded)

    def live() -> list[type[object]]:
        node.all_effects.clear()
        fine, again, later, failed = node.enqueue("mail", 4)
        node.started(fine, again, later, failed)
        node.finished(fine)
        node.finished(again, Verdict.RETRY, delay_ms=10)
        node.finished(later, Verdict.SNOOZE, delay_ms=10)
        node.finished(failed, Verdict.DEAD)
        facts = [effect.fact for effect in node.all_effects if isinstance(effect, Tell)]
        return [type(fact) for fact in facts if isinstance(fact, single)]

    assert node.engine.listening
    assert live() == [*[JobQueued] * 4, *[JobStarted] * 4, JobEnded, JobRetried, JobRetried, JobEnded]
    node.engine.listening = False
    assert live() == [JobRetried, JobEnded]


def test_an_end_says_how_long_the_run_took() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.tick(5)
    node.started(job)
    node.tick(70)
    node.finished(job)
    assert node.facts == [JobEnded(job, "mail", True, 1, Status.SUCCEEDED, 70, None)]


def test_an_end_of_a_run_that_never_began_took_no_time_whatever_the_one_before_took() -> None:
    node = Node(MAIL, capacity=1)
    (job,) = node.enqueue("mail")
    node.started(job)
    node.finished(job, Verdict.RETRY, delay_ms=10)
    node.tick(11)
    node.finished(job, Verdict.CANCELLED)
    assert node.facts == [JobEnded(job, "mail", True, 2, Status.CANCELLED, 0, None)]


# --- clients ----------------------------------------------------------------------------------------------------------


def test_all_answers_to_one_frame_are_one_message_to_one_process() -> None:
    node = Node(MAIL, capacity=1)
    calls: list[Call] = [mail(A), AwaitResult(A), CountJobs(), Cancel(JobId(99))]
    node.say("cli", Hello(), *(Request(ref, call) for ref, call in enumerate(calls)))
    (send,) = [effect for effect in node.effects if isinstance(effect, Send)]
    assert send.to == node.clients["cli"]
    assert send.frame.messages == [
        Welcome(ME, Limits().payload_max_bytes, node.now_ms),
        Response(0, Accepted([A])),
        Response(2, Counted({"global": 1, "local": 0, "delayed": 0, "processing": 0})),
        Response(3, Did(False)),
    ]
    node.finished(A)
    assert node.messages == [Response(1, Ended(A, GOOD))]


def test_a_client_can_neither_make_the_node_leave_nor_answer_it() -> None:
    node = Node(MAIL)
    node.say("cli", Request(1, Leave(0)))
    node.say("cli", Response(1, Did(True)))
    told = [effect.fact for effect in node.all_effects if isinstance(effect, Tell)]
    assert [type(fact) for fact in told] == [OwnerChanged, PeerMisbehaved, PeerMisbehaved]
    assert isinstance(node.ask(mail(A)), Accepted)


def test_whatever_a_client_says_never_raises() -> None:
    rng = random.Random(5)
    node = Node(MAIL, CLEAN, TICK, capacity=2, limits=Limits(waiters_max_count=3, jobs_max=20))
    jobs = [JobId(number) for number in range(6)]
    for _ in range(1500):
        job = rng.choice(jobs)
        calls: list[Call] = [
            Enqueue(
                rng.choice(("mail", "clean", "tick", "nobody")),
                [(rng.choice(jobs), bytes(rng.randint(0, 3))) for _ in range(rng.randint(0, 3))],
                rng.choice((None, 5, -100, 1000)),
                rng.choice((None, False)),
                rng.choice((0, 0, 10, -1)),
                rng.random() < 0.2,
            ),
            Cancel(job),
            Retry(job),
            Discard(job),
            AwaitResult(job),
            StopTask(rng.choice(("tick", "mail", "nobody"))),
            StartTask(rng.choice(("tick", "mail", "nobody"))),
            Leave(0),
        ]
        ref = rng.randint(1, 3)
        node.say(
            rng.choice(("one", "two")), Request(ref, rng.choice(calls)), *([GiveUp(ref)] if rng.random() < 0.2 else [])
        )
        if rng.random() < 0.3:
            node.tick(rng.randint(0, 600))
        if node.runs and rng.random() < 0.5:
            node.finished(rng.choice(list(node.runs)), rng.choice(list(Verdict)), delay_ms=20)


# --- leaving ----------------------------------------------------------------------------------------------------------


def test_a_node_with_nothing_to_do_leaves_at_once_and_says_so_to_each_who_asks() -> None:
    node = Node(MAIL, TICK, capacity=1)
    assert node.ask(Leave(1000)) == Left(0)
    assert node.ask(Leave(1000)) == Left(0)


def test_a_node_leaves_when_its_last_job_has_ended() -> None:
    node = Node(MAIL, capacity=1)
    jobs = node.enqueue("mail", 3)
    assert node.ask(Leave(60_000)) is None
    for job in jobs:
        assert node.answers == {}
        node.finished(job)
    assert list(node.answers.values()) == [Left(0)]


def test_a_node_whose_time_is_up_leaves_whatever_runs() -> None:
    node = Node(MAIL, capacity=1)
    node.enqueue("mail", 3)
    node.ask(Leave(1000))
    assert node.engine.deadline_ms() == node.now_ms + 1000
    node.tick(999)
    assert node.answers == {}
    node.tick(1)
    assert list(node.answers.values()) == [Left(3)]
    assert node.engine.deadline_ms() is None


@pytest.mark.parametrize(
    ("delay_ms", "lost"), [(500, None), (998, None), (999, 1), (5000, 1)], ids=["soon", "just in time", "late", "far"]
)
def test_a_delayed_job_is_waited_for_only_if_it_is_due_in_time(delay_ms: int, lost: int | None) -> None:
    node = Node(MAIL, capacity=1)
    node.enqueue("mail", delay_ms=delay_ms)
    assert node.ask(Leave(1000)) == (None if lost is None else Left(lost))


def test_what_can_not_run_here_is_not_waited_for() -> None:
    node = Node(MAIL)
    node.enqueue("mail")
    assert node.ask(Leave(1000)) == Left(1)
    node = Node(MAIL, capacity=1)
    node.enqueue("mail", delay_ms=10)
    node.define()
    node.tick(11)
    assert node.ask(Leave(1000)) == Left(1)


def test_what_was_cancelled_in_its_queue_is_not_waited_for() -> None:
    node = Node(MAIL, CLEAN, capacity=1)
    (running,) = node.enqueue("mail")
    for task in ("mail", "clean"):
        (job,) = node.enqueue(task)
        node.ask(Cancel(job))
    node.finished(running)
    assert node.ask(Leave(60_000)) == Left(0)


def test_an_all_job_is_one_lost_job_whatever_parts_it_has() -> None:
    node = Node(CLEAN, MAIL, capacity=1)
    node.enqueue("mail")
    node.enqueue("clean", 2)
    node.ask(Leave(0))
    assert list(node.answers.values()) == [Left(3)]


# --- time -------------------------------------------------------------------------------------------------------------


def test_the_deadline_is_the_earliest_of_all_that_waits_for_a_time() -> None:
    node = Node(TaskSpec("mail", result_ttl_ms=300), capacity=1)
    assert node.engine.deadline_ms() is None
    (job,) = node.enqueue("mail")
    node.finished(job)
    assert node.engine.deadline_ms() == START_MS + 300
    node.enqueue("mail", delay_ms=200)
    assert node.engine.deadline_ms() == START_MS + 201
    node.define(MAIL, TaskSpec("tick", frequency_ms=100))
    assert node.engine.deadline_ms() == START_MS + 101


def test_ticks_at_the_deadlines_alone_keep_everything_going() -> None:
    node = Node(MAIL, TICK, CLEAN, capacity=3)
    node.enqueue("mail", 3, delay_ms=2500)
    node.enqueue("clean", delay_ms=1200)
    while node.now_ms < START_MS + 10_000:
        node.tick_until_due()
        for run in node.starts:
            node.finished(run.job)
    assert node.stats()["succeeded"] == 3 + 1 + 10


def test_every_entry_reaches_a_copy_in_order_with_its_number() -> None:
    node = Node(MAIL, capacity=1)
    heard: dict[str, list[int]] = {}
    for stream in node.engine.streams:
        name = stream.slice.name

        def tap(number: int, entry: Entry, name: str = name) -> None:
            heard.setdefault(name, []).append(number)

        stream.tap = tap
    for job in (*node.enqueue("mail"), *node.enqueue("mail", delay_ms=5)):
        node.tick(6)
        node.finished(job)
    assert heard == {"own": [1, 2, 3], "delayed": [1, 2, 3, 4]}
