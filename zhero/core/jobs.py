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
from typing import Any

from ..config import Limits
from ..errors import Bug
from .due import DueQueue
from .entries import (
    Adopted,
    Advanced,
    CancelAsked,
    Died,
    Done,
    Dropped,
    Due,
    Entry,
    Imported,
    Lent,
    Moved,
    Orphaned,
    Planned,
    PlanStopped,
    Put,
    Rehomed,
    Returned,
    Revived,
    Spread,
    Waits,
)
from .memory import TOMB_MS, Memory
from .plans import Plans
from .ready import ReadyLines
from .records import HEAD, Chunk, Parts, Record, Remembered, SpreadOut
from .steps import STEPS, Ending
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

CHUNK_BYTES = 128 * 1024
"""About how much of a slice goes into one piece of it."""
STALE_MAX = 1000
"""Stale places suffered in the lines of ready and of delayed jobs, however few are live; else as many as these."""


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
        self._schedules = Plans()
        self.plans = self._schedules.plans
        self.rounds = self._schedules.rounds
        self.memory = Memory(limits)  # of those that ended
        self.keyed: set[JobId] = set()  # live jobs whose ids are the callers' own
        self.endings: list[Ending] = []  # since the engine last took them
        self.bytes = 0  # params of all live jobs
        self.last = 0  # number of the last entry
        self.lent: dict[Life, int] = {}  # executor -> jobs it holds; no zeros
        self.copies_asked: set[int] = set()  # by jobs that ever were here
        self.withholds = False  # at the home: what an entry makes ready waits until copies of it exist
        self.is_journaled = False  # the same for jobs that ask for no copies: the journal is one
        self._withheld: dict[int, deque[tuple[int, Header, list[JobId], Life | None, bool]]] = {}  # copies -> in order
        self._batch: list[Put] = []  # parts of a batch whose last one is still to come
        self._lines = ReadyLines(self._is_ready)
        self._due = DueQueue(self._waits)
        self._tally = dict.fromkeys(State, 0)  # records by state
        self._headers: list[Header] = []
        self._header_numbers: dict[Header, int] = {}
        self._apply: dict[type[Entry], Callable[..., None]] = {
            Put: self._put,
            Due: self._become_due,
            Lent: self._lend,
            Returned: self._return,
            Orphaned: self._orphan,
            Adopted: self._adopt,
            Done: self._end,
            Waits: self._wait,
            Died: self._die,
            CancelAsked: self._ask_cancel,
            Revived: self._revive,
            Dropped: self._drop,
            Spread: self._spread,
            Planned: self._schedules.plan,
            PlanStopped: self._schedules.stop,
            Advanced: self._advance,
            Imported: self._import,
            Moved: self._give_away,
            Rehomed: self._rehome,
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
            raise self._bug(f"{entry.__name__} of job {job:032x} in state {state.value}") from None

    def take(self, count: int, member: Life, runnable: Container[str]) -> list[JobId]:
        """Up to `count` ready jobs of the tasks in `runnable` for `member`, in the order of their claims.

        They have left the line: lend them at once.
        """
        if count <= 0 or (not self.ready and not self._tally[State.READY]):
            return []  # asking for none takes no turn
        return self._lines.take(count, member, runnable)

    def take_to_spread(self, runnable: Container[str]) -> list[JobId]:
        """All ready "all" jobs of the tasks in `runnable`. They have left the line: spread them at once."""
        return self._lines.take_to_spread(runnable)

    def _is_ready(self, job: JobId) -> bool:
        if job in self.ready:
            return True
        record = self.records.get(job)
        return record is not None and record.state is State.READY

    def waiting_tasks(self) -> dict[str, int]:
        """Task -> ready jobs that nobody has claimed: at least one, and at most so many."""
        return self._lines.waiting()

    def next_due_ms(self) -> int | None:
        """When the first delayed job is due."""
        return self._due.first_ms()

    def due(self, now_ms: int) -> list[JobId]:
        """The delayed jobs whose time has come, the one due first first: append `Due` with them at once."""
        return self._due.take(now_ms)

    def _waits(self, due_at_ms: int, job: JobId) -> bool:
        held = self.delayed.get(job)
        if held is not None:
            return int.from_bytes(held[10:HEAD]) == due_at_ms
        record = self.records.get(job)
        return record is not None and record.state is State.DELAYED and record.due_at_ms == due_at_ms

    def round_of(self, record: Record) -> int:
        """Number of the round that a live job, or the one it is a part of, is; else 0."""
        return self.rounds.get(record.parent or record.job, ("", 0))[1]

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
            number=self.round_of(record),
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
        self.last += 1
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
            raise self._bug(f"{entry} of job {job:032x} should have been ignored")
        return to

    def _move(self, record: Record, to: State) -> None:
        self._tally[record.state] -= 1
        self._tally[to] += 1
        record.state = to

    def _lend_to(self, record: Record, to: Life) -> None:
        record.executor = to
        self.lent[to] = self.lent.get(to, 0) + 1

    def _take_back(self, record: Record) -> Life | None:
        """Nobody holds it any more.

        Returns:
            Who did.
        """
        executor, record.executor = record.executor, None
        if executor is not None:
            left = self.lent[executor] - 1
            if left:
                self.lent[executor] = left
            else:
                del self.lent[executor]
        return executor

    def _unpack(self, job: JobId, held: bytes, state: State) -> Record:
        return Record(
            job,
            self._headers[int.from_bytes(held[:4])],
            held[HEAD:],
            int.from_bytes(held[4:10]),
            state,
            due_at_ms=int.from_bytes(held[10:HEAD]),
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

    def _header_number(self, header: Header) -> int:
        number = self._header_numbers.get(header)
        if number is None:
            number = self._header_numbers[header] = len(self._headers)
            self._headers.append(header)
        return number

    def _put(self, entry: Put) -> None:
        if entry.more:
            self._batch.append(entry)
            return
        batch, self._batch = self._batch, []
        for part in batch:
            self._put_now(part)
        self._put_now(entry)

    def _put_now(self, entry: Put) -> None:
        header, due_at_ms = entry.header, entry.due_at_ms
        head = self._header_number(header).to_bytes(4) + entry.at_ms.to_bytes(6) + due_at_ms.to_bytes(6)
        queue = self.delayed if due_at_ms else self.ready
        for job, params in entry.jobs:
            if job in self:
                self._must(job, entry)
            queue[job] = head + params
            self.bytes += len(params)
            if due_at_ms:
                self._due.push(due_at_ms, job)
            if entry.keyed:
                self.keyed.add(job)
        if due_at_ms:
            self._tidy()
        else:
            self._line_up(header, [job for job, _ in entry.jobs])

    def copies_of(self, header: Header) -> int:
        """How many copies have to exist before such a job starts."""
        return self.limits.backups if header.backups is None else header.backups

    def _line_up(self, header: Header, jobs: list[JobId], target: Life | None = None, *, front: bool = False) -> None:
        """They are ready: behind the others, or before them; at the home once there are copies of that."""
        copies = self.copies_of(header)
        self.copies_asked.add(copies)
        if self.withholds and (copies or self.is_journaled):
            self._withheld.setdefault(copies, deque()).append((self.last, header, jobs, target, front))
        else:
            self._push(header, jobs, target, front)

    def _push(self, header: Header, jobs: list[JobId], target: Life | None, front: bool) -> None:
        if front:
            for job in jobs:
                self._lines.push_front(header, job, target)
        else:
            self._lines.push(header, jobs, target)
        self._tidy()

    def release(self, copies: int, number: int) -> None:
        """All entries up to that one have so many copies: what they made ready may be claimed."""
        waits = self._withheld.get(copies)
        while waits and waits[0][0] <= number:
            _, header, jobs, target, front = waits.popleft()
            self._push(header, [job for job in jobs if self._is_ready(job)], target, front)

    @property
    def withheld(self) -> dict[int, int]:
        """Copies asked for -> number of the first entry that waits for them."""
        return {copies: waits[0][0] for copies, waits in self._withheld.items() if waits}

    def _tidy(self) -> None:
        """Take out what is stale, where it is more than what is live. Called where something is added.

        At the home a claim takes its job out of the line; a copy only hears that it was lent, so all becomes stale.
        """
        most = STALE_MAX + 2 * len(self)
        if len(self._lines) > most:
            self._lines.prune()
        if len(self._due) > most:
            self._due.prune()

    def _become_due(self, entry: Due) -> None:
        for job in entry.jobs:
            self._must(job, entry)
            record = self.records.get(job)
            if record is not None:
                self._move(record, State.READY)
                self._line_up(record.header, [job], record.target)
                continue
            held = self.ready[job] = self.delayed.pop(job)
            self._line_up(self._headers[int.from_bytes(held[:4])], [job])

    def _lend(self, entry: Lent) -> None:
        for job in entry.jobs:
            self._must(job, entry)
            record = self._record(job)
            record.attempt += 1
            self._lend_to(record, entry.to)
            self._move(record, State.LENT)

    def _adopt(self, entry: Adopted) -> None:
        for job, attempt in zip(entry.jobs, entry.attempts, strict=True):
            self._must(job, entry)
            record = self._record(job)
            record.attempt = max(record.attempt, attempt)
            record.tries = min(record.tries, record.attempt - 1)  # two ran it as this attempt: it counts once
            self._lend_to(record, entry.to)
            self._move(record, State.LENT)

    def _orphan(self, entry: Orphaned) -> None:
        killed = set(entry.killed)
        for job in entry.jobs:
            self._must(job, entry)
            record = self.records[job]
            record.kills += job in killed
            record.started_at_ms = 0
            self._take_back(record)
            self._move(record, State.READY)
            self._line_up(record.header, [job], record.target, front=True)

    def _return(self, entry: Returned) -> None:
        for job in entry.jobs:
            self._must(job, entry)
            record = self.records[job]
            record.attempt -= 1
            self._take_back(record)
            self._move(record, State.READY)
            self._line_up(record.header, [job], record.target, front=True)

    def _end(self, entry: Done) -> None:
        for job, outcome in zip(entry.jobs, entry.outcomes, strict=True):
            self._must(job, entry)
            self._close(self._record(job), outcome, entry.at_ms)

    def _close(self, record: Record, outcome: Outcome, at_ms: int) -> Ending:
        """The job is live no more: its outcome is kept, its round is over, its engine hears of it."""
        job = record.job
        number = self.round_of(record)
        if record.parent:
            self._part_ended(record, outcome)
        executor = self._take_back(record)
        record.executor = executor  # for people: who ran it
        del self.records[job]
        self._tally[record.state] -= 1
        self.bytes -= len(record.params)
        parts = self.parts.pop(job).ended if record.state is State.SPREAD else None
        if record.header.result_ttl_ms > 0:
            self.memory.keep(job, outcome, parts, at_ms, record.header.result_ttl_ms)
        if job in self.keyed:
            self.keyed.remove(job)
            self.memory.keep_id(job, at_ms)
        if record.header.result_ttl_ms < TOMB_MS:
            self.memory.entomb(job, at_ms)
        self._schedules.ended(job, at_ms)
        ending = Ending(record, outcome, at_ms, parts, number)
        self.endings.append(ending)
        return ending

    def _wait(self, entry: Waits) -> None:
        job = entry.job
        self._must(job, entry)
        record = self.records[job]
        self._move(record, State.DELAYED)
        record.tries += entry.counted
        self._take_back(record)
        record.started_at_ms = 0
        record.due_at_ms = entry.due_at_ms
        record.outcome = entry.outcome
        self._due.push(entry.due_at_ms, job)
        self._tidy()

    def _die(self, entry: Died) -> None:
        job = entry.job
        self._must(job, entry)
        record = self.records[job]
        record.tries += 1
        keyed = job in self.keyed
        ending = self._close(record, entry.outcome, entry.at_ms)
        self.dead[job] = replace(record, state=State.DEAD, outcome=entry.outcome, keyed=keyed)
        if len(self.dead) > self.limits.dead_max_count:
            ending.displaced = self.dead.pop(next(iter(self.dead)))

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
        if entry.target is not None:
            record.target = entry.target
        record.started_at_ms = 0
        record.due_at_ms = 0
        record.parent = NO_JOB
        record.cancel_asked = False
        self.records[job] = record
        self._tally[State.READY] += 1
        self.bytes += len(record.params)
        self.memory.drop(job)
        if record.keyed:
            self.keyed.add(job)  # so that it is remembered from its second end on
        self._line_up(record.header, [job], record.target)

    def _drop(self, entry: Dropped) -> None:
        self._must(entry.job, entry)
        del self.dead[entry.job]

    def _advance(self, entry: Advanced) -> None:
        self._must(entry.job, entry)
        self._schedules.advance(entry)
        self._put_now(Put(entry.header, [(entry.job, NO_PARAMS)], entry.at_ms))

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
            self.dead.pop(job, None)  # of an older job with this id, which was a caller's own
            self.records[job] = part
            self._tally[State.READY] += 1
            self.bytes += len(part.params)
            parts.open[job] = member
            self._line_up(part.header, [job], member)

    def _part_ended(self, part: Record, outcome: Outcome) -> None:
        parts = self.parts.get(part.parent)
        if parts is not None and part.job in parts.open:
            parts.ended[parts.open.pop(part.job)] = outcome

    # --- lives ----------------------------------------------------------------------------------------------------

    def _rehome(self, entry: Rehomed) -> None:
        before, self.home = self.home, entry.home
        if entry.restarted:
            self._restart(before)
            return
        if before in self.lent:
            self.lent[self.home] = self.lent.pop(before)
        for record in (*self.records.values(), *self.dead.values()):
            if record.executor == before:
                record.executor = self.home
            if record.target == before:
                record.target = self.home
        for parts in self.parts.values():
            parts.open.update({job: self.home for job, member in parts.open.items() if member == before})
        self._lines.rename(before, self.home)
        for waits in self._withheld.values():
            for place, (number, header, jobs, target, front) in enumerate(waits):
                if target == before:
                    waits[place] = (number, header, jobs, self.home, front)

    def _restart(self, before: Life) -> None:
        """Parts of "all" jobs that were for the old process, and that it had not begun, are for the new one."""
        self.epoch += 1
        for record in (*self.records.values(), *self.dead.values()):
            if record.target == before and record.executor is None:
                record.target = self.home
                parts = self.parts.get(record.parent)
                if parts is not None and record.job in parts.open:
                    parts.open[record.job] = self.home
        self._lines.rename(before, self.home)

    # --- moving ---------------------------------------------------------------------------------------------------

    def _import(self, entry: Imported) -> None:
        self.epoch = max(self.epoch, entry.source.epoch, entry.chunk.epoch + 1)
        self.take_in(entry.chunk)

    def take_in(self, chunk: Chunk) -> None:
        """What a piece of another slice holds is held here too.

        Raises:
            Bug: one of its jobs is here already.
        """
        if any(job in self for job in chunk.jobs):
            raise self._bug("a job that comes from another slice is here already")
        numbers = [self._header_number(header).to_bytes(4) for header in chunk.headers]
        for queue, held_there in ((self.ready, chunk.ready), (self.delayed, chunk.delayed)):
            for job, held in held_there:
                place = int.from_bytes(held[:4])
                queue[job] = held = numbers[place] + held[4:]
                self.bytes += len(held) - HEAD
                if queue is self.ready:
                    self._line_up(chunk.headers[place], [job])
                else:
                    self._due.push(int.from_bytes(held[10:HEAD]), job)
        for it in chunk.parts:
            self.parts[it.job] = Parts(dict(it.open), dict(it.ended))
        for told in chunk.records:
            self._take_in_record(replace(told))
        for dead in chunk.dead:
            self.dead[dead.job] = replace(dead)
            if len(self.dead) > self.limits.dead_max_count:
                self.dead.pop(next(iter(self.dead)))
        self._schedules.take_in(chunk.plans, chunk.rounds)
        self.keyed.update(chunk.keyed)
        self.memory.take_in(chunk.ended, chunk.ids, chunk.tombs)
        self._tidy()

    def _take_in_record(self, record: Record) -> None:
        self.records[record.job] = record
        self._tally[record.state] += 1
        self.bytes += len(record.params)
        if record.executor is not None:
            self._lend_to(record, record.executor)
        if record.state is State.READY:
            self._line_up(record.header, [record.job], record.target)
        elif record.state is State.DELAYED:
            self._due.push(record.due_at_ms, record.job)

    def _give_away(self, entry: Moved) -> None:
        for job in entry.jobs:
            self._must(job, entry)
            if job in self.dead:
                del self.dead[job]
                continue
            held = self.ready.pop(job, None) or self.delayed.pop(job, None)
            if held is not None:
                self.bytes -= len(held) - HEAD
            else:
                record = self.records.pop(job)
                self._take_back(record)
                self._tally[record.state] -= 1
                self.bytes -= len(record.params)
                self.parts.pop(job, None)
            self._schedules.give_away(job)
            self.keyed.discard(job)

    def export(self, takes: Callable[[JobId], bool] | None = None) -> Iterator[Chunk]:
        """The slice in pieces: what `take_in` makes of them all is the same slice. `takes`: only these jobs.

        An "all" job and its parts are in one piece.
        """
        piece = _Piece(self.epoch)
        for queue, name in ((self.ready, "ready"), (self.delayed, "delayed")):
            for job, held in queue.items():
                if takes is None or takes(job):
                    piece.queued(name, job, held, self._headers[int.from_bytes(held[:4])])
                    self._export_marks(piece.chunk, job)
                    if piece.is_full:
                        yield piece.take()
        for job, record in self.records.items():
            if record.parent or (takes is not None and not takes(job)):
                continue
            parts = self.parts.get(job)
            for one in [job, *(parts.open if parts is not None else ())]:
                piece.record(self.records[one])
                self._export_marks(piece.chunk, one)
            if parts is not None:
                piece.chunk.parts.append(SpreadOut(job, list(parts.open.items()), list(parts.ended.items())))
            if piece.is_full:
                yield piece.take()
        for job, dead in self.dead.items():
            if takes is None or takes(job):
                piece.dead(dead)
                if piece.is_full:
                    yield piece.take()
        for ended in self.memory.export():
            piece.ended(ended)
            if piece.is_full:
                yield piece.take()
        for job, at_ms in self.memory.export_ids():
            piece.mark(piece.chunk.ids, job, at_ms)
            if piece.is_full:
                yield piece.take()
        for job, at_ms in self.memory.export_tombs():
            piece.mark(piece.chunk.tombs, job, at_ms)
            if piece.is_full:
                yield piece.take()
        yield piece.take()

    def _export_marks(self, chunk: Chunk, job: JobId) -> None:
        if job in self.keyed:
            chunk.keyed.append(job)

    def export_plans(self) -> Chunk:
        """The schedules, and which live jobs are rounds: after all pieces with jobs."""
        plans = [replace(plan) for plan in self.plans.values()]
        return Chunk(plans=plans, rounds=[(job, task, number) for job, (task, number) in self.rounds.items()])

    def headers_from(self, first: int) -> list[Header]:
        """The headers that queued jobs name by number, from that number on."""
        return self._headers[first:]

    @property
    def is_midway(self) -> bool:
        """Whether a batch is open: its jobs are in no queue yet."""
        return bool(self._batch)

    # --- upkeep ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises:
        Bug: an invariant does not hold.
        """
        self._schedules.check()
        homes: list[dict[JobId, Any]] = [self.ready, self.delayed, self.records, self.dead]
        if len({job for home in homes for job in home}) != sum(len(home) for home in homes):
            raise self._bug("a job is in two places")
        live = set(self.live())
        tally = dict.fromkeys(State, 0)
        for record in self.records.values():
            tally[record.state] += 1
            if (record.state in (State.LENT, State.RUNNING)) != (record.executor is not None):
                raise self._bug(f"executor and state disagree in {record}")
            if (record.state is State.SPREAD) != (record.job in self.parts):
                raise self._bug(f"parts and state disagree in {record}")
            if record.parent and (record.parent not in self.parts or record.job not in self.parts[record.parent].open):
                raise self._bug(f"{record} is no open part of its job")
        if tally != self._tally:
            raise self._bug(f"counted {tally}, kept {self._tally}")
        lent: dict[Life, int] = {}
        for record in self.records.values():
            if record.executor is not None:
                lent[record.executor] = lent.get(record.executor, 0) + 1
        if lent != self.lent:
            raise self._bug(f"lent {lent}, kept {self.lent}")
        size = sum(len(held) - HEAD for queue in (self.ready, self.delayed) for held in queue.values())
        if size + sum(len(record.params) for record in self.records.values()) != self.bytes:
            raise self._bug("bytes are miscounted")
        dues = set(self._due)
        lines = set(self._lines)
        lines.update(job for waits in self._withheld.values() for it in waits for job in it[2])
        waits = {(int.from_bytes(held[10:HEAD]), job) for job, held in self.delayed.items()}
        waits |= {(record.due_at_ms, job) for job, record in self.records.items() if record.state is State.DELAYED}
        if not waits <= dues:
            raise self._bug(f"delayed jobs would never become due: {sorted(waits - dues)}")
        ready = {job for job, record in self.records.items() if record.state is State.READY} | self.ready.keys()
        if not ready <= lines:
            raise self._bug(f"ready jobs would never be claimed: {sorted(ready - lines)}")
        for parent, parts in self.parts.items():
            if any(part not in self.records or self.records[part].parent != parent for part in parts.open):
                raise self._bug(f"a part of {parent:032x} is gone")
        if not self.rounds.keys() <= live:
            raise self._bug("a round is kept that has ended")
        if not self.keyed <= live:
            raise self._bug("an id counts as live whose job has ended")
        if len(self.dead) > self.limits.dead_max_count or len(self.memory) > self.limits.results_max_count:
            raise self._bug("a bound is broken")

    def _bug(self, what: str) -> Bug:
        return Bug(f"slice {self.name}: {what}")


class _Piece:
    """A chunk that is being filled."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.chunk = Chunk(epoch=epoch)
        self.size = 0
        self._numbers: dict[Header, int] = {}

    @property
    def is_full(self) -> bool:
        return self.size >= CHUNK_BYTES

    def take(self) -> Chunk:
        """The chunk, and begin the next one."""
        chunk, self.chunk, self.size = self.chunk, Chunk(epoch=self.epoch), 0
        self._numbers = {}
        return chunk

    def queued(self, queue: str, job: JobId, held: bytes, header: Header) -> None:
        number = self._numbers.get(header)
        if number is None:
            number = self._numbers[header] = len(self.chunk.headers)
            self.chunk.headers.append(header)
        (self.chunk.ready if queue == "ready" else self.chunk.delayed).append((job, number.to_bytes(4) + held[4:]))
        self.size += len(held) + 40

    def record(self, record: Record) -> None:
        lent = record.state is State.RUNNING
        self.chunk.records.append(replace(record, state=State.LENT, started_at_ms=0) if lent else replace(record))
        self.size += _size(record)

    def dead(self, record: Record) -> None:
        self.chunk.dead.append(replace(record))
        self.size += _size(record)

    def mark(self, marks: list[tuple[JobId, int]], job: JobId, at_ms: int) -> None:
        marks.append((job, at_ms))
        self.size += 40

    def ended(self, ended: Remembered) -> None:
        self.chunk.ended.append(ended)
        self.size += 80 + len(ended.outcome.result)


def _size(record: Record) -> int:
    failure = record.outcome.failure if record.outcome is not None else None
    return 200 + len(record.params) + (0 if failure is None else len(failure.message) + len(failure.traceback))
