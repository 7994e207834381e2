"""What is to be done: a slice of jobs.

All jobs a member is home of form its slice: one ordered stream of entries, applied here one after the other. Two rules
above all others:

1. A job changes only in `Slice.apply`, by an entry, and only by a step that the table of `steps.py` has. What a race
   has overtaken is dropped before an entry is made of it (`allows`); any other step is a `Bug`.
2. A job that nobody has claimed yet is bytes under an integer, unseen by the garbage collector: number of its header,
   when it was enqueued, when it is due, its params. A `Record` exists from its first claim to its end.

Bounds: `Limits` names one for each container. The checks of `check()` are the invariants.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from ..config import Limits
from ..errors import Bug
from .entries import (
    Advanced,
    CancelAsked,
    Died,
    Done,
    Dropped,
    Due,
    Entry,
    Lent,
    Planned,
    PlanStopped,
    Put,
    Returned,
    Revived,
    Spread,
    Waits,
)
from .memory import Memory
from .ready import ReadyQueue
from .steps import STEPS, Ending, Parts, Plan, Record
from .values import (
    NO_JOB,
    NO_PARAMS,
    Header,
    JobId,
    JobInfo,
    Life,
    Outcome,
    State,
    Status,
    part_id,
)

_HEAD = 16
"""Bytes before the params of a queued job: header number (4), enqueued at (6), due at (6; 0: ready)."""


class Slice:
    """The jobs and schedules of one home, as its entries have made them."""

    def __init__(self, name: str, home: Life, epoch: int, limits: Limits) -> None:
        self.name = name
        self.home = home
        self.epoch = epoch
        self.limits = limits
        self.ready: dict[JobId, bytes] = {}
        self.delayed: dict[JobId, bytes] = {}
        self.records: dict[JobId, Record] = {}  # claimed once or more, and not ended
        self.dead: dict[JobId, Record] = {}  # oldest first; bound: dead_max_count
        self.parts: dict[JobId, Parts] = {}  # of each record in state SPREAD
        self.plans: dict[str, Plan] = {}
        self.rounds: dict[JobId, tuple[str, int]] = {}  # live job of a round -> task, number
        self.memory = Memory(limits)  # of those that ended
        self.keyed: set[JobId] = set()  # live jobs whose ids are the callers' own
        self.to_spread: deque[JobId] = deque()  # "all" jobs that are ready; may be stale
        self.pinned: dict[Life, deque[JobId]] = {}  # member -> its ready parts; may be stale
        self.endings: list[Ending] = []  # since the engine last took them
        self.bytes = 0  # params of all live jobs
        self._queue = ReadyQueue()
        self._stale = 0
        self._due: list[tuple[int, JobId]] = []  # heap; an entry whose job moved on is stale
        self._tally = dict.fromkeys(State, 0)  # records by state
        self._headers: list[Header] = []
        self._header_numbers: dict[Header, int] = {}
        self._apply: dict[type[Entry], Callable[..., None]] = {
            Put: self._put,
            Due: self._become_due,
            Lent: self._lend,
            Returned: self._return,
            Done: self._end,
            Waits: self._wait,
            Died: self._die,
            CancelAsked: self._ask_cancel,
            Revived: self._revive,
            Dropped: self._drop,
            Spread: self._spread,
            Planned: self._plan,
            PlanStopped: self._stop_plan,
            Advanced: self._advance,
        }

    # --- reading --------------------------------------------------------------------------------------------------

    def __contains__(self, job: JobId) -> bool:
        return job in self.ready or job in self.delayed or job in self.records or job in self.dead

    def __len__(self) -> int:
        """Live jobs; dead letters are none."""
        return len(self.ready) + len(self.delayed) + len(self.records)

    def state(self, job: JobId) -> State:
        if job in self.ready:
            return State.READY
        if job in self.delayed:
            return State.DELAYED
        record = self.records.get(job)
        if record is not None:
            return record.state
        return State.DEAD if job in self.dead else State.ABSENT

    def count(self, state: State) -> int:
        """Jobs in that state."""
        if state is State.READY:
            return len(self.ready) + self._tally[state]
        if state is State.DELAYED:
            return len(self.delayed) + self._tally[state]
        return len(self.dead) if state is State.DEAD else self._tally[state]

    def allows(self, job: JobId, entry: type[Entry]) -> bool:
        """Whether the step may be made now; False: a race has overtaken it, ignore it.

        Raises:
            Bug: the table has no such row.
        """
        return self._next(job, entry) is not None

    def _next(self, job: JobId, entry: type[Entry]) -> State | None:
        state = self.state(job)
        try:
            return STEPS[state, entry]
        except KeyError:
            raise Bug(f"job {job:032x} in slice {self.name}: {entry.__name__} in state {state.value}") from None

    def take(self, count: int, member: Life, runnable: Container[str]) -> list[JobId]:
        """Up to `count` ready jobs that `member` may run, in the order of their claims: lend them at once."""
        taken: list[JobId] = []
        pinned = self.pinned.get(member)
        while pinned and len(taken) < count:
            job = pinned.popleft()
            if self._is_ready(job):
                taken.append(job)
        if self.ready or self._tally[State.READY]:
            taken += self._queue.take(count - len(taken), self._is_ready, runnable)
        return taken

    def _is_ready(self, job: JobId) -> bool:
        if job in self.ready:
            return True
        record = self.records.get(job)
        return record is not None and record.state is State.READY

    def waiting_tasks(self) -> dict[str, int]:
        """Task -> jobs in the ready queue (an upper bound)."""
        return self._queue.waiting()

    def next_due_ms(self) -> int | None:
        """When the first delayed job is due."""
        while self._due:
            due_at_ms, job = self._due[0]
            if self._is_due_entry(due_at_ms, job):
                return due_at_ms
            heappop(self._due)
        return None

    def due(self, now_ms: int) -> list[JobId]:
        """The delayed jobs whose time has come, the one due first first: append `Due` with them at once."""
        due: dict[JobId, None] = {}
        while self._due and self._due[0][0] <= now_ms:
            due_at_ms, job = heappop(self._due)
            if self._is_due_entry(due_at_ms, job):
                due[job] = None
        return list(due)

    def _is_due_entry(self, due_at_ms: int, job: JobId) -> bool:
        held = self.delayed.get(job)
        if held is not None:
            return int.from_bytes(held[10:_HEAD]) == due_at_ms
        record = self.records.get(job)
        return record is not None and record.state is State.DELAYED and record.due_at_ms == due_at_ms

    def info(self, job: JobId) -> JobInfo | None:
        """The job as it is now, or its dead letter."""
        record = self.records.get(job) or self.dead.get(job)
        if record is None:
            held, state = self.ready.get(job), State.READY
            if held is None:
                held, state = self.delayed.get(job), State.DELAYED
            if held is None:
                return None
            record = self._unpack(job, held, state)
        header = record.header
        return JobInfo(
            job=job,
            task=header.task,
            scope=header.scope,
            state=record.state,
            priority=header.priority,
            params=record.params,
            attempt=record.attempt,
            tries=record.tries,
            enqueued_at_ms=record.enqueued_at_ms,
            run_at_ms=record.due_at_ms,
            started_at_ms=record.started_at_ms,
            home=self.home,
            node=record.executor or record.target,
            parent=record.parent,
            number=self.rounds.get(job, ("", 0))[1],
            outcome=record.outcome,
        )

    def live(self) -> Iterator[JobId]:
        """Every live job, in no order that matters."""
        yield from self.ready
        yield from self.delayed
        yield from self.records

    # --- changing -------------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Take the next entry of the stream.

        Raises:
            Bug: it is a step that `STEPS` does not have, or one that it ignores.
        """
        self._apply[type(entry)](entry)

    def note_started(self, job: JobId, now_ms: int) -> Record | None:
        """The executor says that it has begun: for people only, no entry. None: it has moved on."""
        record = self.records.get(job)
        if record is None or record.state is not State.LENT:
            return None
        self._move(record, State.RUNNING)
        record.started_at_ms = now_ms
        return record

    def _must(self, job: JobId, entry: Entry) -> State:
        to = self._next(job, type(entry))
        if to is None:
            raise Bug(f"job {job:032x} in slice {self.name}: entry {entry} should have been ignored")
        return to

    def _move(self, record: Record, to: State) -> None:
        self._tally[record.state] -= 1
        self._tally[to] += 1
        record.state = to

    def _unpack(self, job: JobId, held: bytes, state: State) -> Record:
        return Record(
            job,
            self._headers[int.from_bytes(held[:4])],
            held[_HEAD:],
            int.from_bytes(held[4:10]),
            state,
            due_at_ms=int.from_bytes(held[10:_HEAD]),
        )

    def _record(self, job: JobId) -> Record:
        """The record of a live job, made now if it had none."""
        record = self.records.get(job)
        if record is None:
            held, state = self.ready.pop(job, None), State.READY
            if held is None:
                held, state = self.delayed.pop(job), State.DELAYED
            record = self.records[job] = self._unpack(job, held, state)
            self._tally[state] += 1
        return record

    def _put(self, entry: Put) -> None:
        header, due_at_ms = entry.header, entry.due_at_ms
        number = self._header_numbers.get(header)
        if number is None:
            number = self._header_numbers[header] = len(self._headers)
            self._headers.append(header)
        head = number.to_bytes(4) + entry.at_ms.to_bytes(6) + due_at_ms.to_bytes(6)
        queue = self.delayed if due_at_ms else self.ready
        for job, params in entry.jobs:
            if job in self:
                self._must(job, entry)
            queue[job] = head + params
            self.bytes += len(params)
            if due_at_ms:
                heappush(self._due, (due_at_ms, job))
            if entry.keyed:
                self.keyed.add(job)
        if not due_at_ms:
            self._line_up(header, [job for job, _ in entry.jobs])

    def _line_up(self, header: Header, jobs: list[JobId]) -> None:
        if header.scope == "all":
            self.to_spread.extend(jobs)
        else:
            self._queue.push(header.task, header.priority, jobs)

    def _become_due(self, entry: Due) -> None:
        for job in entry.jobs:
            self._must(job, entry)
            record = self.records.get(job)
            if record is not None:
                self._move(record, State.READY)
                if record.target is not None:
                    self.pinned.setdefault(record.target, deque()).append(job)
                else:
                    self._line_up(record.header, [job])
                continue
            held = self.ready[job] = self.delayed.pop(job)
            self._line_up(self._headers[int.from_bytes(held[:4])], [job])

    def _lend(self, entry: Lent) -> None:
        for job in entry.jobs:
            self._must(job, entry)
            record = self._record(job)
            record.attempt += 1
            record.executor = entry.to
            self._move(record, State.LENT)

    def _return(self, entry: Returned) -> None:
        for job in entry.jobs:
            self._must(job, entry)
            record = self.records[job]
            record.attempt -= 1
            record.executor = None
            self._move(record, State.READY)
            if record.target is not None:
                self.pinned.setdefault(record.target, deque()).appendleft(job)
            else:
                self._queue.push_front(record.header.task, record.header.priority, job)

    def _end(self, entry: Done) -> None:
        for job, outcome in zip(entry.jobs, entry.outcomes, strict=True):
            state = self.state(job)
            self._must(job, entry)
            record = self._record(job)
            if state is State.READY or state is State.DELAYED:
                self._pass_by()
            if record.parent:
                self._part_ended(record, outcome)
            self._close(record, outcome, entry.at_ms)

    def _close(self, record: Record, outcome: Outcome, at_ms: int) -> None:
        """The job is live no more: its outcome is kept, its round is over, its engine hears of it."""
        job = record.job
        del self.records[job]
        self._tally[record.state] -= 1
        self.bytes -= len(record.params)
        parts = self.parts.pop(job).ended if record.state is State.SPREAD else None
        if record.header.result_ttl_ms > 0:
            self.memory.keep(job, outcome, parts, at_ms, record.header.result_ttl_ms)
        if job in self.keyed:
            self.keyed.remove(job)
            self.memory.keep_id(job, at_ms)
        if job in self.rounds:
            self._rest(job, at_ms)
        self.endings.append(Ending(record, outcome, at_ms, parts))

    def _wait(self, entry: Waits) -> None:
        job = entry.job
        self._must(job, entry)
        record = self.records[job]
        self._move(record, State.DELAYED)
        record.tries += entry.counted
        record.executor = None
        record.started_at_ms = 0
        record.due_at_ms = entry.due_at_ms
        record.outcome = entry.outcome
        heappush(self._due, (entry.due_at_ms, job))

    def _die(self, entry: Died) -> None:
        job = entry.job
        self._must(job, entry)
        record = self.records[job]
        record.tries += 1
        if record.parent:
            self._part_ended(record, entry.outcome)
        self._close(record, entry.outcome, entry.at_ms)
        self.dead[job] = replace(record, state=State.DEAD, outcome=entry.outcome)
        while len(self.dead) > self.limits.dead_max_count:
            del self.dead[next(iter(self.dead))]

    def _ask_cancel(self, entry: CancelAsked) -> None:
        self._must(entry.job, entry)
        self.records[entry.job].cancel_asked = True

    def _revive(self, entry: Revived) -> None:
        job = entry.job
        self._must(job, entry)
        record = self.dead.pop(job)
        record.state = State.READY
        record.tries = 0
        record.executor = None
        record.started_at_ms = 0
        record.due_at_ms = 0
        record.parent = NO_JOB
        record.cancel_asked = False
        self.records[job] = record
        self._tally[State.READY] += 1
        self.bytes += len(record.params)
        self.memory.drop(job)
        if record.target is not None:
            self.pinned.setdefault(record.target, deque()).append(job)
        else:
            self._line_up(record.header, [job])

    def _drop(self, entry: Dropped) -> None:
        self._must(entry.job, entry)
        del self.dead[entry.job]

    # --- scope "all" ----------------------------------------------------------------------------------------------

    def _spread(self, entry: Spread) -> None:
        self._must(entry.job, entry)
        record = self._record(entry.job)
        self._move(record, State.SPREAD)
        skipped = Outcome(Status.SKIPPED)
        parts = self.parts[entry.job] = Parts({}, dict.fromkeys(entry.skipped, skipped))
        for member in entry.members:
            job = part_id(entry.job, member.node)
            part = Record(job, record.header, record.params, record.enqueued_at_ms, State.READY)
            part.parent, part.target = entry.job, member
            self.records[job] = part
            self._tally[State.READY] += 1
            self.bytes += len(part.params)
            parts.open[job] = member
            self.pinned.setdefault(member, deque()).append(job)

    def _part_ended(self, part: Record, outcome: Outcome) -> None:
        parts = self.parts.get(part.parent)
        if parts is not None and part.job in parts.open:
            parts.ended[parts.open.pop(part.job)] = outcome

    # --- schedules ------------------------------------------------------------------------------------------------

    def _plan(self, entry: Planned) -> None:
        plan = self.plans.get(entry.task)
        running = plan.running if plan is not None else NO_JOB
        self.plans[entry.task] = Plan(
            entry.task, entry.frequency_ms, entry.fixed_rate, entry.number, entry.due_at_ms, running
        )

    def _stop_plan(self, entry: PlanStopped) -> None:
        self.plans[entry.task].stopped = True

    def _advance(self, entry: Advanced) -> None:
        plan = self.plans.get(entry.header.task)
        if plan is None or not plan.waits or entry.number <= plan.number:
            raise Bug(f"round {entry.number} of {entry.header.task} in slice {self.name} after {plan}")
        plan.number = entry.number
        if entry.due_at_ms:
            plan.due_at_ms = entry.due_at_ms
        else:
            plan.running = entry.job
        self.rounds[entry.job] = (entry.header.task, entry.number)
        self._put(Put(entry.header, [(entry.job, NO_PARAMS)], entry.at_ms))

    def _rest(self, job: JobId, at_ms: int) -> None:
        """The round is over: the same entry that ended it says when the next one is due."""
        task, _ = self.rounds.pop(job)
        plan = self.plans.get(task)
        if plan is None or plan.running != job:
            return
        plan.running = NO_JOB
        period = plan.frequency_ms
        if plan.fixed_rate:  # the first point of the grid that is still to come
            plan.due_at_ms += max(1, (at_ms - plan.due_at_ms) // period + 1) * period
        else:
            plan.due_at_ms = at_ms + period

    # --- upkeep ---------------------------------------------------------------------------------------------------

    def _pass_by(self) -> None:
        """A queued job was taken out of the middle: its id is stale in the ready queue or in the heap."""
        self._stale += 1
        if self._stale > 1000 + len(self):
            self._stale = 0
            self._queue.prune(self._is_ready)
            self.to_spread = deque(job for job in self.to_spread if self._is_ready(job))
            self._due = sorted(due for due in self._due if self._is_due_entry(*due))

    def check(self) -> None:
        """Raises:
        Bug: an invariant does not hold.
        """
        homes: list[dict[JobId, Any]] = [self.ready, self.delayed, self.records, self.dead]
        if len({job for home in homes for job in home}) != sum(len(home) for home in homes):
            raise Bug(f"slice {self.name}: a job is in two places")
        tally = dict.fromkeys(State, 0)
        for record in self.records.values():
            tally[record.state] += 1
            if (record.state in (State.LENT, State.RUNNING)) != (record.executor is not None):
                raise Bug(f"slice {self.name}: executor and state disagree in {record}")
            if (record.state is State.SPREAD) != (record.job in self.parts):
                raise Bug(f"slice {self.name}: parts and state disagree in {record}")
        if tally != self._tally:
            raise Bug(f"slice {self.name}: counted {tally}, kept {self._tally}")
        size = sum(len(held) - _HEAD for queue in (self.ready, self.delayed) for held in queue.values())
        if size + sum(len(record.params) for record in self.records.values()) != self.bytes:
            raise Bug(f"slice {self.name}: bytes are miscounted")
        dues = set(self._due)
        for job, held in self.delayed.items():
            if (int.from_bytes(held[10:_HEAD]), job) not in dues:
                raise Bug(f"slice {self.name}: delayed job {job:032x} would never become due")
        for record in self.records.values():
            if record.state is State.DELAYED and (record.due_at_ms, record.job) not in dues:
                raise Bug(f"slice {self.name}: retry wait {record.job:032x} would never end")
        for parent, parts in self.parts.items():
            if any(self.records[part].parent != parent for part in parts.open):
                raise Bug(f"slice {self.name}: a part of {parent:032x} is gone")
        for plan in self.plans.values():
            if plan.running != NO_JOB and plan.running not in self.rounds:
                raise Bug(f"slice {self.name}: {plan} waits for a round that has ended")
        if any(job not in self for job in self.rounds):
            raise Bug(f"slice {self.name}: a round is kept that has ended")
        if len(self.dead) > self.limits.dead_max_count or len(self.memory) > self.limits.results_max_count:
            raise Bug(f"slice {self.name}: a bound is broken")
        if any(job not in self for job in self.keyed):
            raise Bug(f"slice {self.name}: an id counts as live whose job has ended")
