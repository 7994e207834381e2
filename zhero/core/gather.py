"""One answer to a question about the whole cluster.

The question goes to every living member over its link, and each answers for what it is home of. When all have
answered, or `answer_ms` is over, or those that have not are gone, the answers become one, which names who did not
answer: a member that is lagging may be late, and that is said, not guessed.

State: number of the question -> who has still to answer, and what the others said. Bound: `QUESTIONS_MAX_COUNT`; one
more is answered by this node alone, with all others named as silent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..config import Profile
from .effects import Asker, Outbox
from .messages import (
    Answer,
    Answered,
    Ask,
    AskStats,
    AskStatus,
    Call,
    ClusterStatus,
    Counted,
    CountJobs,
    FindJob,
    Listed,
    ListJobs,
    PlanInfo,
    Refused,
    Stats,
)
from .roster import Roster
from .values import JobId, JobInfo, Life

ASKED_OF_ALL = (ListJobs, FindJob, CountJobs, AskStats, AskStatus)
"""Calls that are about the whole cluster."""
QUESTIONS_MAX_COUNT = 10_000


@dataclass(slots=True)
class _Question:
    asker: Asker
    call: Call
    until_ms: int
    open: dict[Life, str]  # who has still to answer -> its name
    answers: list[Answer]
    silent: list[str] = field(default_factory=list[str])


class Gather:
    """Asks all members and puts their answers together."""

    def __init__(self, roster: Roster, profile: Profile, outbox: Outbox) -> None:
        self._roster = roster
        self._profile = profile
        self._outbox = outbox
        self._ref = 0
        self._questions: dict[int, _Question] = {}
        self._complete: list[tuple[Asker, Answer]] = []

    def ask(self, asker: Asker, call: Call, own: Answer, now_ms: int) -> None:
        """Put it to every other member; `own`: what this node says itself."""
        others = {row.life: row.member.name for row in self._roster.others}
        question = _Question(asker, call, now_ms + self._profile.answer_ms, others, [own])
        if not others or len(self._questions) >= QUESTIONS_MAX_COUNT:
            question.silent += others.values()
            self._end(question)
            return
        self._ref += 1
        self._questions[self._ref] = question
        for life in others:
            self._outbox.post(life, Ask(self._ref, call))

    def on_answered(self, sender: Life, message: Answered, now_ms: int) -> None:
        question = self._questions.get(message.ref)
        if question is None or sender not in question.open:
            return
        question.answers.append(message.answer)
        if not message.more:
            del question.open[sender]

    def be_reborn(self) -> None:
        """All links begin anew: nobody will answer what was asked before."""
        for question in self._questions.values():
            question.silent += question.open.values()
            question.open.clear()

    def settle(self, now_ms: int) -> None:
        """End what has all its answers, or all that it will get."""
        for ref, question in list(self._questions.items()):
            for life in [life for life in question.open if life not in self._roster]:
                question.silent.append(question.open.pop(life))
            if not question.open or now_ms >= question.until_ms:
                del self._questions[ref]
                question.silent += question.open.values()
                self._end(question)

    def _end(self, question: _Question) -> None:
        self._complete.append((question.asker, _merged(question)))

    def take_complete(self) -> list[tuple[Asker, Answer]]:
        """Who is to be answered, and what."""
        complete, self._complete = self._complete, []
        return complete

    def deadline_ms(self) -> int | None:
        return min((question.until_ms for question in self._questions.values()), default=None)


def _merged(question: _Question) -> Answer:
    answers, silent = question.answers, sorted(question.silent)
    listed = [answer for answer in answers if isinstance(answer, Listed)]
    if isinstance(question.call, ListJobs):
        return _merge_lists(listed, question.call.limit, silent)
    if isinstance(question.call, FindJob):
        if listed:
            return replace(listed[0], silent=silent)
        refused = next(answer for answer in answers if isinstance(answer, Refused))
        unasked = f" ({', '.join(silent)} did not answer)" if silent else ""
        return Refused(refused.why, refused.detail + unasked)
    if isinstance(question.call, CountJobs):
        return Counted(_sum([it.queues for it in answers if isinstance(it, Counted)]), silent)
    if isinstance(question.call, AskStats):
        return _merge_stats([it for it in answers if isinstance(it, Stats)], silent)
    return _merge_status([it for it in answers if isinstance(it, ClusterStatus)], silent)


def _merge_lists(lists: list[Listed], limit: int, silent: list[str]) -> Listed:
    jobs: dict[JobId, JobInfo] = {}
    total = 0
    for listed in lists:
        jobs.update((info.job, info) for info in listed.jobs)
        total += listed.total
    found = list(jobs.values())
    return Listed(found[:limit] if limit else found, total, silent)


def _sum(tables: list[dict[str, int]]) -> dict[str, int]:
    summed: dict[str, int] = {}
    for table in tables:
        for name, count in table.items():
            summed[name] = summed.get(name, 0) + count
    return summed


def _merge_stats(stats: list[Stats], silent: list[str]) -> Stats:
    tasks: dict[str, dict[str, int]] = {}
    for it in stats:
        for task, counters in it.tasks.items():
            tasks[task] = _sum([tasks.get(task, {}), counters])
    return Stats(_sum([it.totals for it in stats]), tasks, silent, _sum([it.dropped for it in stats]))


def _merge_status(statuses: list[ClusterStatus], silent: list[str]) -> ClusterStatus:
    """The first is this node's own, and says who the members are; what each says of itself is nearer the truth."""
    own = statuses[0]
    of_itself = {it.member.life: it for status in statuses for it in status.members if it.mine}
    plans: dict[str, PlanInfo] = {}
    for status in reversed(statuses):
        plans.update((plan.task, plan) for plan in status.plans)
    members = [
        replace(it, slots=told.slots, busy=told.busy, tasks=told.tasks, degraded=told.degraded)
        if (told := of_itself.get(it.member.life)) is not None
        else it
        for it in own.members
    ]
    known = {task for it in members for task in it.tasks}
    missing = {task for status in statuses for task in status.missing} - known
    return ClusterStatus(
        members=members,
        queues=_sum([it.queues for it in statuses]),
        dead=sum(it.dead for it in statuses),
        plans=sorted(plans.values(), key=lambda plan: plan.task),
        missing=sorted(missing),
        uptime_ms=own.uptime_ms,
        silent=silent,
    )
