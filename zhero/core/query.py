"""What people ask: lists, counts, results. Answers are built from roster and slices at the moment of the question.

A job is counted in exactly one queue: global (ready), local (taken by a node, not started), delayed (with retry waits
and the next round of each schedule) or processing (started). An "all" job that has been spread is in none, its parts
are. Who waits for a result is kept here, per job, and answered when the job ends.

State: job -> those who wait for its end; counters by task. Bounds: `waiters_max_count`; one set of counters per task.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Limits
from ..errors import Bug
from .effects import Asker, Outbox, Peer
from .messages import (
    Answer,
    ClusterStatus,
    Counted,
    Did,
    Ended,
    Listed,
    MemberStatus,
    PartEnded,
    PlanInfo,
    Refusal,
    Refused,
    Stats,
    about_bytes_of,
)
from .roster import Roster
from .steps import Ending
from .streams import Stream, Streams
from .values import QUEUE_OF, JobId, JobInfo, Life, Member, Outcome, Queue, State, Status

_COUNTERS = ("enqueued", "started", "succeeded", "retried", "dead", "cancelled")


class Query:
    """Answers questions and tells waiters."""

    def __init__(self, roster: Roster, streams: Streams, limits: Limits, outbox: Outbox, now_ms: int) -> None:
        self._roster = roster
        self._streams = streams
        self._limits = limits
        self._outbox = outbox
        self._since_ms = now_ms
        self._waiters: dict[JobId, list[tuple[Asker, bool]]] = {}  # job -> (who, wants to know if cancelled)
        self._waits_for: dict[Asker, JobId] = {}
        self._counters: dict[str, dict[str, int]] = {}
        self.dropped: dict[str, int] = {}  # why -> count, as the world tells; bound: reasons that stand in its code

    # --- waiting for an end ---------------------------------------------------------------------------------------

    def on_await(self, asker: Asker, job: JobId, *, planned: bool) -> None:
        """Answer with `Ended`, now or when the job ends. `planned`: it is the next round of a schedule."""
        for stream in self._streams:
            kept = stream.slice
            outcome = kept.memory.outcome(job)
            if outcome is None and kept.state(job) is State.DEAD:
                outcome = kept.dead[job].outcome
            if outcome is not None:
                self._outbox.answer(asker, self._ended(job, outcome, kept.memory.parts(job)))
                return
        if not planned and self._streams.holding(job) is None:
            self._outbox.answer(asker, Refused(Refusal.UNKNOWN_JOB, f"{job:032x}"))
            return
        self.wait(asker, job, cancel=False)

    def wait(self, asker: Asker, job: JobId, *, cancel: bool) -> None:
        """Have `asker` told when the job ends; `cancel`: only whether it ended as cancelled.

        A client that repeats its request, with the same ref, waits once.
        """
        self.give_up(asker)
        if len(self._waits_for) >= self._limits.waiters_max_count:
            self._outbox.answer(asker, Refused(Refusal.QUEUE_FULL, "too many callers wait for results"))
            return
        self._waiters.setdefault(job, []).append((asker, cancel))
        self._waits_for[asker] = job

    def give_up(self, asker: Asker) -> None:
        """`asker` does not wait any more."""
        job = self._waits_for.pop(asker, None)
        if job is not None:
            left = [waiter for waiter in self._waiters.pop(job) if waiter[0] != asker]
            if left:
                self._waiters[job] = left

    def count_ended(self, ending: Ending) -> None:
        """Count it."""
        status = ending.outcome.status
        if ending.parts is None:  # of an "all" job its parts are counted
            counters = self.counters(ending.record.header.task)
            if status is Status.SUCCEEDED:
                counters["succeeded"] += 1
            elif status is Status.CANCELLED:
                counters["cancelled"] += 1
            else:
                counters["dead"] += 1

    def on_ended(self, ending: Ending) -> None:
        """Copies know of it: tell those who wait."""
        self._tell_waiters(ending.record.job, ending.outcome, ending.parts)

    def waits_for(self, job: JobId) -> bool:
        """Whether anybody wants to know how that job ends."""
        return job in self._waiters

    def take_waiters(self, stream: Stream) -> list[tuple[Asker, JobId, bool]]:
        """Another home answers for these jobs now: who waits for which, and whether for a cancel."""
        taken: list[tuple[Asker, JobId, bool]] = []
        for job in [job for job in self._waiters if job in stream.slice or stream.slice.memory.outcome(job)]:
            taken += [(asker, job, cancel) for asker, cancel in self._waiters[job]]
        for asker, _, _ in taken:
            self.give_up(asker)
        return taken

    def forget_member(self, life: Life) -> None:
        """It waits for nothing any more."""
        for asker in [it for it in self._waits_for if isinstance(it, Peer) and it.life == life]:
            self.give_up(asker)

    def on_skipped(self, job: JobId) -> None:
        """The next round of a schedule will not be."""
        self._tell_waiters(job, Outcome(Status.CANCELLED), None)

    def _tell_waiters(self, job: JobId, outcome: Outcome, parts: dict[Life, Outcome] | None) -> None:
        for asker, cancel in self._waiters.pop(job, ()):
            del self._waits_for[asker]
            if cancel:
                self._outbox.answer(asker, Did(outcome.status is Status.CANCELLED))
            else:
                self._outbox.answer(asker, self._ended(job, outcome, parts))

    def on_cannot_cancel(self, job: JobId) -> None:
        """The job runs on: whoever wanted it cancelled, or the job it is a part of, hears so now, not at its end."""
        for stream in self._streams:
            record = stream.slice.records.get(job)
            if record is not None and record.parent:
                self._refuse_cancel(record.parent)
        self._refuse_cancel(job)

    def _refuse_cancel(self, job: JobId) -> None:
        for asker, cancel in self._waiters.get(job, [])[:]:
            if cancel:
                self.give_up(asker)
                self._outbox.answer(asker, Did(False))

    def _ended(self, job: JobId, outcome: Outcome, parts: dict[Life, Outcome] | None) -> Ended:
        if parts is None:
            return Ended(job, outcome)
        return Ended(job, outcome, [PartEnded(self._member(life), part) for life, part in parts.items()])

    def _member(self, life: Life) -> Member:
        """Whoever that was; of one that is forgotten, its id is left."""
        found = self._roster.member(life)
        return Member(life, life.node.hex()[:8], "", 0, "") if found is None else found

    # --- lists ----------------------------------------------------------------------------------------------------

    def find(self, job: JobId, planned: JobInfo | None) -> Listed | Refused:
        """One job. `planned`: the next round of a schedule, if that is what was asked for."""
        info = planned or self._find(job)
        return Refused(Refusal.UNKNOWN_JOB, f"{job:032x}") if info is None else Listed([info], 1)

    def _find(self, job: JobId) -> JobInfo | None:
        for stream in self._streams:
            info = stream.slice.info(job)
            if info is not None:
                return info
        return None

    def list_jobs(self, task: str | None, dead: bool, limit: int, planned: list[JobInfo]) -> Listed:
        """Live jobs or dead letters, each once."""
        jobs: list[JobInfo] = []
        total = 0
        for info in self._infos(dead, [] if dead else planned):
            if task is None or info.task == task:
                total += 1
                if not limit or total <= limit:
                    jobs.append(info)
        return Listed(jobs, total)

    def _infos(self, dead: bool, planned: list[JobInfo]) -> Iterator[JobInfo]:
        for stream in self._streams:
            kept = stream.slice
            for job in list(kept.dead if dead else kept.live()):
                info = kept.info(job)
                assert info is not None
                if info.state is not State.SPREAD:
                    yield info
        yield from planned

    # --- counts ---------------------------------------------------------------------------------------------------

    def count(self, planned_count: int) -> Counted:
        """Queue -> jobs; `planned_count`: schedules between rounds, shown as delayed."""
        queues = {queue.value: 0 for queue in Queue}
        for stream in self._streams:
            for state, queue in QUEUE_OF.items():
                queues[queue.value] += stream.slice.count(state)
        queues[Queue.DELAYED.value] += planned_count
        return Counted(queues)

    def counters(self, task: str) -> dict[str, int]:
        """Name -> count of one task, to add to."""
        counters = self._counters.get(task)
        if counters is None:
            counters = self._counters[task] = dict.fromkeys(_COUNTERS, 0)
        return counters

    def stats(self) -> Stats:
        tasks = {task: dict(counters) for task, counters in self._counters.items()}
        totals = {name: sum(counters[name] for counters in tasks.values()) for name in _COUNTERS}
        return Stats(totals, tasks, [], dict(self.dropped))

    def status(
        self, members: list[MemberStatus], plans: list[PlanInfo], planned_count: int, now_ms: int
    ) -> ClusterStatus:
        return ClusterStatus(
            members=members,
            queues=self.count(planned_count).queues,
            dead=sum(stream.slice.count(State.DEAD) for stream in self._streams),
            plans=plans,
            missing=sorted(self.missing()),
            uptime_ms=now_ms - self._since_ms,
        )

    def unfinished(self) -> int:
        """Accepted jobs that have not ended; an "all" job is one, whatever parts it has."""
        parts = sum(len(parts.open) for stream in self._streams for parts in stream.slice.parts.values())
        return self._streams.jobs_count - parts

    def missing(self) -> dict[str, int]:
        """Tasks that no member has and that ready jobs wait for -> how many jobs, at most."""
        missing: dict[str, int] = {}
        for stream in self._streams:
            for task, count in stream.slice.waiting_tasks().items():
                if count and task not in self._roster.specs:
                    missing[task] = missing.get(task, 0) + count
        return missing

    def check(self) -> None:
        """Raises:
        Bug: those who wait are not kept alike in both directions, or too many.
        """
        waits_for = {asker: job for job, waiters in self._waiters.items() for asker, _ in waiters}
        if waits_for != self._waits_for or len(waits_for) > self._limits.waiters_max_count:
            raise Bug(f"{len(waits_for)} wait for jobs, {len(self._waits_for)} are known to")


def parts_of(answer: Answer, limits: Limits) -> list[tuple[Answer, bool]]:
    """An answer cut into what fits into frames, each with whether more follows; only lists are long."""
    if not isinstance(answer, Listed):
        return [(answer, False)]
    parts: list[list[JobInfo]] = [[]]
    size = 0
    for info in answer.jobs:
        info_size = about_bytes_of(info)
        size += info_size
        if parts[-1] and size > limits.answer_max_bytes:
            parts.append([])
            size = info_size
        parts[-1].append(info)
    last = len(parts) - 1
    return [(Listed(part, answer.total, answer.silent), place < last) for place, part in enumerate(parts)]
