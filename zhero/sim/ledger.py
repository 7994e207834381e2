"""What becomes of every job: a model of the tasks system, fed with what its callers and its executor see.

From the calls and their answers, the starts and the reports the ledger works out what each job has to be, with no look
into the engine, and after each step it compares. So every answer has to be the right one (P7), a job is there from
its `Accepted` to its end and not a step longer (P1), starts once per attempt (P2), never before its time nor as
something else (P3), and a job of scope "all" runs once at each member (P5).

Time is that of the node's clock here, but in microseconds, while the engine sees whole milliseconds: what it rounds the
wrong way is found.

State: the `Books`; definitions and capacity as the engine was told; `doubtful`: it does not know whether the others
still count it, and starts nothing. `skips`, `round_waits`, `round_answers`: what the
last step had about rounds that are still to come, for the checker of schedules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ..config import PRIORITY_MAX, SPAN_MAX_MS, Limits
from ..core.effects import Asker, Start, Stop, Tell
from ..core.engine import Engine
from ..core.entries import Advanced, Put, Rehomed, Spread
from ..core.facts import Confirmed, DeadLetterDropped, Paused, VerdictIgnored
from ..core.gather import ASKED_OF_ALL
from ..core.messages import (
    Accepted,
    Answer,
    AwaitResult,
    Call,
    Cancel,
    ClusterStatus,
    Counted,
    Did,
    Discard,
    Ended,
    Enqueue,
    GiveUp,
    Leave,
    Left,
    Listed,
    Refusal,
    Refused,
    Retry,
    Stats,
)
from ..core.values import NO_JOB, NO_PARAMS, Finished, JobId, Run, State, TaskSpec, Verdict, part_id
from .books import CANCELLED, Books, Job
from .story import BrokenPromise, Step, job_name, text

_WRONG_CALLS = (Refusal.TOO_LARGE, Refusal.PARAMS_INVALID)
_FLOOD_COUNT = 60
_COMPARE_ALL_EVERY = 50
_STATES = {
    State.READY: (State.READY, State.DELAYED),
    State.LENT: (State.LENT, State.RUNNING),
    State.SPREAD: (State.SPREAD,),
    State.DEAD: (State.DEAD,),
    State.ABSENT: (State.ABSENT,),
}
"""State here -> states there: this side does not tell waiting for a time from waiting for a slot."""


class Ledger:
    """Checks P1, P2, P3, P5 and P7 of one node."""

    def __init__(self, engine: Engine, limits: Limits, seen: Counter[str], answer_ms: int) -> None:
        self.books = Books(engine, limits, seen)
        self.specs: dict[str, TaskSpec] = {}
        self.capacity = 0
        self.leaving = False
        self.doubtful = False
        self.skips: list[tuple[JobId, bool]] = []
        self.round_waits: list[JobId] = []
        self.round_answers: list[tuple[JobId, Answer]] = []
        self._engine = engine
        self._limits = limits
        self._seen = seen
        self._steps_count = 0
        self._answer_ms = answer_ms
        self._gathers: dict[Asker, list[int]] = {}  # who has asked all members -> until when there must be answers
        self._gathered: dict[Asker, None] = {}  # who was answered so in this step
        self._put_in: dict[JobId, list[str]] = {}  # put in this step, and not yet found in a call -> slices
        self._calls: dict[type[Any], Callable[[Asker, Any, Answer | None, Step], None]] = {
            Enqueue: self._on_enqueue,
            Cancel: self._on_cancel,
            Retry: self._on_retry,
            Discard: self._on_discard,
            AwaitResult: self._on_await,
        }

    def unfinished(self, until_ms: int) -> list[Job]:
        """Live jobs that can go on and were there at that time: rounds never cease, and a task may be gone."""
        live = self.books.live.values()
        return [job for job in live if job.accepted_ms <= until_ms and job.task in self.specs]

    # --- a step ---------------------------------------------------------------------------------------------------

    def after(self, step: Step) -> None:
        """Judge a step.

        Raises:
            BrokenPromise: the engine did something else than it had to.
        """
        self.books.begin()
        self.skips, self.round_waits, self.round_answers = [], [], []
        self._put_in.clear()
        self._gathered.clear()
        for home, entry in step.entries:
            if isinstance(entry, Put):
                for job, _ in entry.jobs:
                    self._put_in.setdefault(job, []).append(home)
            elif isinstance(entry, Rehomed):
                self.books.rehome(entry.home)
        for effect in step.effects:
            if isinstance(effect, Tell) and isinstance(effect.fact, (Paused, Confirmed)):
                self.doubtful = isinstance(effect.fact, Paused)
        answers = step.answers()
        ignored = self._on_input(step)
        for asker, call in step.calls:
            self._on_call(asker, call, answers, step)
        for home, entry in step.entries:
            if isinstance(entry, Spread):
                self._on_spread(entry, step)
            elif isinstance(entry, Advanced):
                self._on_advanced(entry, home, step)
        self._check_answers(answers)
        for effect in step.effects:
            if isinstance(effect, Start):
                for run in effect.runs:
                    self._on_start(run, step)
        self._check_facts(step, ignored)
        self._compare()

    def _on_input(self, step: Step) -> int:
        """Returns: how many verdicts have to be ignored."""
        if step.what == "tick":
            self.books.ticked_ms = step.now_ms
            self._check_gathers(step)
        elif step.what == "define":
            self.specs = {spec.name: spec for spec in step.given}
        elif step.what == "capacity":
            self.capacity = step.given
        elif step.what == "started":
            self._on_started(step.given)
        elif step.what == "cannot_stop":
            self._on_cannot_stop(step.given)
        elif step.what == "give_up":
            self.books.waiters.pop(step.given, None)
        return self._on_finished(step.given, step) if step.what == "finished" else 0

    def _on_call(self, asker: Asker, call: Call | GiveUp, answers: dict[Asker, list[Answer]], step: Step) -> None:
        if isinstance(call, GiveUp):
            self.books.waiters.pop(asker, None)
            return
        if isinstance(call, Leave):
            self.leaving = True
            return
        handler = self._calls.get(type(call))
        got = answers.get(asker)
        later = self._waits(asker, call) or (asker in self._gathers and isinstance(call, ASKED_OF_ALL))
        at_once = got.pop(0) if got and not later else None
        if handler is not None:
            handler(asker, call, at_once, step)
        elif (
            at_once is None and isinstance(call, ASKED_OF_ALL) and (later or len(self._engine.members(step.now_ms)) > 1)
        ):
            self._gathers.setdefault(asker, []).append(step.now_ms + self._answer_ms)
            self._seen["question to all"] += 1
        elif at_once is None:
            raise BrokenPromise(f"P7: no answer to {text(call)} of {text(asker)}")

    def _check_gathers(self, step: Step) -> None:
        """Who asks all members is answered in time, whoever of them is silent."""
        answers = step.answers()
        for asker, untils_ms in self._gathers.items():
            if untils_ms[0] <= step.now_ms and asker not in answers:
                raise BrokenPromise(f"P7: {text(asker)} asked all members, and is never answered")

    def _on_gathered(self, asker: Asker, answer: Answer) -> None:
        self._gathered[asker] = None
        untils_ms = self._gathers[asker]
        untils_ms.pop(0)
        if not untils_ms:
            del self._gathers[asker]
        if isinstance(answer, (Listed, Counted, Stats, ClusterStatus)) and answer.silent:
            self._seen["answer that names who is silent"] += 1

    def asks_all(self, asker: Asker) -> bool:
        """Whether it has asked all members, and is not answered yet, or was in this step."""
        return asker in self._gathers or asker in self._gathered

    def _waits(self, asker: Asker, call: Call) -> bool:
        """Whether the answer comes when a job ends, and not with the call."""
        waiters = self.books.waiters
        full = len(waiters) - (asker in waiters) >= self._limits.waiters_max_count
        if full or not isinstance(call, (AwaitResult, Cancel)):
            return False
        job = self.books.jobs.get(call.job)
        if job is None or not job.is_live:
            return False
        return job.state is not State.READY or isinstance(call, AwaitResult)

    # --- calls ----------------------------------------------------------------------------------------------------

    def _on_enqueue(self, asker: Asker, call: Enqueue, answer: Answer | None, step: Step) -> None:
        books, limits = self.books, self._limits
        spec = self.specs.get(call.task)
        if isinstance(answer, Refused):
            self._check_refusal(call, spec, answer, step.now_ms)
            return
        if spec is not None and spec.frequency_ms and _is_for_a_round(call):
            return  # a round: what is answered then is checked with the schedules
        params = dict(reversed(call.jobs))  # of twins, the first counts
        if not isinstance(answer, Accepted) or params.keys() != set(answer.jobs):
            raise BrokenPromise(f"P7: {text(call)} was answered by {text(answer)}", *params)
        new = [job for job in params if job in self._put_in]
        if new and (spec is None or self.leaving or not self._is_right(call)):
            raise BrokenPromise(f"P7: {text(call)} must not be accepted", *new)
        for job in params:
            if job in new:
                assert spec is not None
                self._make(job, call, spec, params[job], step)
            elif not books.may_be_known(job):
                raise BrokenPromise("P7: accepted, but not there", job)
            else:
                self._seen["same id twice"] += 1
        if new and (len(books.live) > limits.jobs_max or books.bytes > limits.jobs_max_bytes):
            raise BrokenPromise(f"more is queued than the limits allow: {len(books.live)} jobs, {books.bytes} bytes")

    def _make(self, job: JobId, call: Enqueue, spec: TaskSpec, params: bytes, step: Step) -> None:
        if self.books.must_be_known(job, step.now_ms):
            raise BrokenPromise("P2: an id that is known made a second job", job)
        homes = self._put_in[job]
        made = Job(
            job,
            spec.name,
            spec.scope,
            spec.priority if call.priority is None else call.priority,
            params,
            step.now_ms,
            step.own_us + call.delay_ms * 1000 if call.delay_ms else 0,
            spec.result_ttl_ms,
            homes.pop(0),
            call.keyed,
        )
        if not homes:
            del self._put_in[job]
        self.books.enter(made)
        self.books.counters["enqueued"] += 1
        self._seen["batch"] += len(call.jobs) > 1
        self._seen["flood"] += len(call.jobs) >= _FLOOD_COUNT

    def _check_refusal(self, call: Enqueue, spec: TaskSpec | None, answer: Refused, now_ms: int) -> None:
        books, limits, why = self.books, self._limits, answer.why
        params = dict(reversed(call.jobs))  # of twins, the first counts
        new = [job for job in params if not books.must_be_known(job, now_ms)]
        periodic = spec is not None and spec.frequency_ms > 0
        if params and not new and why not in _WRONG_CALLS and not periodic:
            raise BrokenPromise(f"P7: refused as {why.value}, yet it is here", *params)
        taken = [job for job in params if job in self._put_in]
        if taken:
            raise BrokenPromise(f"P7: refused as {why.value}, yet taken", *taken)
        size = sum(len(params[job]) for job in new)
        wrong = not self._is_right(call) or (periodic and not _is_for_a_round(call))
        right = {
            Refusal.UNKNOWN_TASK: spec is None,
            Refusal.LEAVING: self.leaving,
            Refusal.QUEUE_FULL: len(books.live) + len(new) > limits.jobs_max
            or books.bytes + size > limits.jobs_max_bytes,
            Refusal.ALREADY_QUEUED: periodic,
        }.get(why, why in _WRONG_CALLS and wrong)
        if not right:
            raise BrokenPromise(f"P7: {text(call)} was refused as {why.value}", *params)
        self._seen[f"refused: {why.value}"] += 1

    def _is_right(self, call: Enqueue) -> bool:
        return (
            0 < len(call.jobs) <= self._limits.batch_max_count
            and all(job != NO_JOB and len(params) <= self._limits.payload_max_bytes for job, params in call.jobs)
            and 0 <= call.delay_ms <= SPAN_MAX_MS
            and abs(call.priority or 0) <= PRIORITY_MAX
        )

    def _on_cancel(self, asker: Asker, call: Cancel, answer: Answer | None, step: Step) -> None:
        job = self.books.jobs.get(call.job)
        if job is None or not self.books.is_here(call.job):
            if not isinstance(answer, Did):
                raise BrokenPromise(f"P7: cancel was answered by {text(answer)}", call.job)
            self.skips.append((call.job, answer.done))
        elif job.state in (State.LENT, State.SPREAD):
            if answer is None:
                self.books.waiters[asker] = (call.job, True)
            else:
                self._check_too_many(asker, answer)
            self._ask_to_end(job, step)
        elif answer != Did(job.state is State.READY):
            raise BrokenPromise(f"P7: cancel of {text(job)} was answered by {text(answer)}", call.job)
        elif job.state is State.READY:
            self._seen["cancel: waiting"] += 1
            self._seen["cancel: delayed"] += job.not_before_us > step.own_us
            self.books.end(job, CANCELLED, step.now_ms)

    def _ask_to_end(self, job: Job, step: Step) -> None:
        """It has been lent, or its parts have: what can't be taken back is asked to stop."""
        job.cancel_asked = True
        if job.state is State.SPREAD:
            self._seen["cancel: spread"] += 1
            for part in [self.books.jobs[part] for part in job.open]:
                if part.state is State.READY:
                    self.books.end(part, CANCELLED, step.now_ms)
                else:
                    self._ask_to_end(part, step)
            return
        self._seen["cancel: lent"] += 1
        if not any(isinstance(effect, Stop) and effect.job == job.job for effect in step.effects):
            raise BrokenPromise("a run that is cancelled has not been asked to stop", job.job)

    def _on_retry(self, asker: Asker, call: Retry, answer: Answer | None, step: Step) -> None:
        self._check_dead(call.job, answer)
        if answer == Did(True):
            self.books.revive(self.books.jobs[call.job])

    def _on_discard(self, asker: Asker, call: Discard, answer: Answer | None, step: Step) -> None:
        self._check_dead(call.job, answer)
        if answer == Did(True):
            self.books.drop(call.job)
            self._seen["discarded"] += 1

    def _check_dead(self, job: JobId, answer: Answer | None) -> None:
        known = self.books.jobs.get(job)
        if known is None or known.state is State.ABSENT:
            right = isinstance(answer, Refused) and answer.why is Refusal.UNKNOWN_JOB
        else:
            right = answer == Did(known.state is State.DEAD)
        if not right:
            raise BrokenPromise(f"P7: retry or discard of {text(known)} was answered by {text(answer)}", job)

    def _on_await(self, asker: Asker, call: AwaitResult, answer: Answer | None, step: Step) -> None:
        books = self.books
        job = books.jobs.get(call.job)
        if answer is None:
            if job is None or not job.is_live:
                self.round_waits.append(call.job)  # only a round that is still to come may be waited for
            books.waiters[asker] = (call.job, False)
        elif isinstance(answer, Refused) and answer.why is not Refusal.UNKNOWN_JOB:
            self._check_too_many(asker, answer)
        elif isinstance(answer, Refused):
            if job is not None and (books.is_here(call.job) or books.result_is_kept(job, step.now_ms)):
                raise BrokenPromise("P7: a result that has to be known is not", call.job)
            self._seen["result forgotten"] += job is not None
        elif job is None or job.outcome is None or answer != books.ended_answer(job):
            raise BrokenPromise(f"P7: a wrong result: {text(answer)}", call.job)

    def _check_too_many(self, asker: Asker, answer: Answer) -> None:
        waiters = self.books.waiters
        waiters.pop(asker, None)
        full = len(waiters) >= self._limits.waiters_max_count
        if not full or not isinstance(answer, Refused) or answer.why is not Refusal.QUEUE_FULL:
            raise BrokenPromise(f"P7: nobody may wait, said {text(answer)}, but only {len(waiters)} do")
        self._seen["too many waiters"] += 1

    # --- reports of the executor ----------------------------------------------------------------------------------

    def _on_started(self, jobs: list[JobId]) -> None:
        for one in jobs:
            job = self.books.jobs[one]
            if job.state is State.LENT and not job.started:
                job.started = True
                self.books.counters["started"] += 1

    def _on_finished(self, reports: list[Finished], step: Step) -> int:
        """Returns: how many of them concern no run that is waited for."""
        ignored = 0
        for report in reports:
            job = self.books.jobs.get(report.job)
            if job is None or job.state is not State.LENT or job.attempt != report.attempt:
                ignored += 1
                continue
            again = report.verdict in (Verdict.RETRY, Verdict.SNOOZE)
            if report.verdict is Verdict.DONE:
                self.books.end(job, report.outcome, step.now_ms)
            elif report.verdict is Verdict.CANCELLED or (again and job.cancel_asked):
                self.books.end(job, CANCELLED, step.now_ms)
            elif again:
                not_before_us = step.own_us + max(1, report.delay_ms) * 1000
                self.books.wait(job, not_before_us, counted=report.verdict is Verdict.RETRY)
            else:
                self.books.die(job, report.outcome, step.now_ms)
        self._seen["late verdict ignored"] += ignored
        return ignored

    def _on_cannot_stop(self, job: JobId) -> None:
        """It runs on, and so does what it is part of: who wants that cancelled hears so."""
        self._seen["cannot stop"] += 1
        parent = self.books.jobs[job].parent
        for asker, (awaited, cancel) in list(self.books.waiters.items()):
            if cancel and awaited in (job, parent):
                del self.books.waiters[asker]
                self.books.owed.append((asker, Did(False)))

    # --- what the engine does by itself ---------------------------------------------------------------------------

    def _on_advanced(self, entry: Advanced, home: str, step: Step) -> None:
        header = entry.header
        if self.books.is_here(entry.job):
            raise BrokenPromise("P4: a round that is here is made again", entry.job, header.task)
        made = Job(
            entry.job,
            header.task,
            header.scope,
            header.priority,
            NO_PARAMS,
            step.now_ms,
            0,
            header.result_ttl_ms,
            home,
            number=entry.number,
        )
        self.books.enter(made)

    def _on_spread(self, entry: Spread, step: Step) -> None:
        whole = self.books.jobs.get(entry.job)
        if whole is None or whole.scope != "all" or whole.state is not State.READY:
            raise BrokenPromise(f"P5: {text(whole)} is spread", entry.job)
        if step.own_us < whole.not_before_us:
            raise BrokenPromise("P3: spread before its time", entry.job)
        if whole.task not in self.specs:
            raise BrokenPromise("P1: spread, though no member has the task: it has to wait", entry.job)
        busy = whole.number > 0 and self._is_busy(whole.task)
        me = self._engine.me.life
        able = self.capacity > 0 and not busy and self._part_is_free(entry.job)
        if (entry.members, entry.skipped) != (([me], []) if able else ([], [me])):
            raise BrokenPromise(f"P5: spread over the wrong members, able={able}", entry.job)
        self._seen["spread"] += able
        self._seen["round skipped by a busy member"] += busy
        self.books.spread(whole, entry.members, entry.skipped, step.now_ms)

    def _is_busy(self, task: str) -> bool:
        """Whether an earlier round of the task still has an open part."""
        return any(
            other.state is State.SPREAD and other.task == task and other.number and other.open
            for other in self.books.live.values()
        )

    def _part_is_free(self, job: JobId) -> bool:
        """Whether no older part of this id is live: that of an older job, which a person wants tried again."""
        part = self.books.jobs.get(part_id(job, self._engine.me.life.node))
        return part is None or not part.is_live

    def _on_start(self, run: Run, step: Step) -> None:
        job = self.books.jobs.get(run.job)
        if job is None:
            raise BrokenPromise("P3: something starts that nobody has enqueued", run.job)
        if job.state is not State.READY:
            raise BrokenPromise(f"P2: a start of a job that is {job.state.value} ({text(job.outcome)})", run.job)
        if step.own_us < job.not_before_us:
            raise BrokenPromise(f"P3: started {job.not_before_us - step.own_us} us before its time", run.job)
        if job.task not in self.specs:
            raise BrokenPromise("a job starts whose task is not here", run.job)
        number = 0 if job.revived else job.number
        asked = (job.task, job.priority, job.params, job.accepted_ms, job.attempt + 1, job.tries + 1, number)
        header = run.header
        got = (header.task, header.priority, run.params, run.enqueued_at_ms, run.attempt, run.tries, run.number)
        if asked != got:
            raise BrokenPromise(f"P3: {text(asked)} was asked for, {text(got)} starts", run.job)
        self.books.lend(job)
        if self.books.held_count > self.capacity:
            raise BrokenPromise(f"{self.books.held_count} jobs held, {self.capacity} wanted", run.job)

    # --- checks ---------------------------------------------------------------------------------------------------

    def _check_answers(self, answers: dict[Asker, list[Answer]]) -> None:
        """Whoever waited for what has now ended is told, and nobody else is."""
        books = self.books
        for asker, owed in books.owed:
            got = answers.get(asker)
            if not got:
                raise BrokenPromise(f"P7: {text(asker)} is never told {text(owed)}", *_job_of(owed))
            if (told := got.pop(0)) != owed:
                raise BrokenPromise(f"P7: {text(asker)} is told {text(told)}, not {text(owed)}", *_job_of(owed))
        for asker, got in answers.items():
            awaited, _ = books.waiters.get(asker, (NO_JOB, False))
            if got and awaited != NO_JOB and not books.is_here(awaited):
                del books.waiters[asker]
                self.round_answers.append((awaited, got.pop(0)))  # a round that was to come, and now will not
            while got and asker in self._gathers:
                self._seen["answer of all"] += 1
                self._on_gathered(asker, got.pop(0))
            if got and not isinstance(got[0], Left):
                raise BrokenPromise(f"P7: {text(asker)} did not ask for {text(got[0])}", *_job_of(got[0]))

    def _check_facts(self, step: Step, ignored: int) -> None:
        facts = [effect.fact for effect in step.effects if isinstance(effect, Tell)]
        # In order within a slice; slices are independent streams, and nothing orders one's entries against another's.
        jobs = self.books.jobs
        told = [fact.job for fact in facts if isinstance(fact, DeadLetterDropped)]
        told.sort(key=lambda job: jobs[job].home)
        displaced = sorted(self.books.displaced, key=lambda job: jobs[job].home)
        if told != displaced:
            raise BrokenPromise(f"dead letters {text(displaced)} made room, told were {text(told)}", *displaced)
        count = sum(isinstance(fact, VerdictIgnored) for fact in facts)
        if count != ignored:
            raise BrokenPromise(f"{count} verdicts were ignored, not {ignored}")

    def _compare(self) -> None:
        """What the engine holds is what it has to hold."""
        books = self.books
        if self._put_in:
            raise BrokenPromise("P3: a job is made that nobody has enqueued", *self._put_in)
        self._steps_count += 1
        everything = self._steps_count % _COMPARE_ALL_EVERY == 0
        for job in books.jobs if everything else books.touched:
            state, known = self.state_there(job), books.jobs[job]
            if state not in _STATES[known.state]:
                raise BrokenPromise(f"P1: a job is {state.value} and has to be {known.state.value}", job, known.task)
        slices = [stream.slice for stream in self._engine.streams]
        got = (sum(map(len, slices)), sum(len(kept.dead) for kept in slices), sum(kept.bytes for kept in slices))
        asked = (len(books.live), len(books.dead), books.bytes)
        if got != asked:
            raise BrokenPromise(f"P1: (live, dead, bytes) are {got} and have to be {asked}")

    def state_there(self, job: JobId) -> State:
        """Where the engine has it.

        Raises:
            BrokenPromise: in two places.
        """
        states = [state for stream in self._engine.streams if (state := stream.slice.state(job)) is not State.ABSENT]
        if len(states) > 1:
            raise BrokenPromise("P1: a job is in two slices", job)
        return states[0] if states else State.ABSENT


def _is_for_a_round(call: Enqueue) -> bool:
    """Whether a periodic task can be enqueued so: once, and with no params."""
    return len(call.jobs) == 1 and call.jobs[0][1] == NO_PARAMS


def _job_of(answer: Answer) -> list[str]:
    return [job_name(answer.job)] if isinstance(answer, Ended) else []
