"""Who runs what: ready jobs go to the members that have room for them.

The home decides, by itself: each job that it lends goes to the member whose turn it is, of those that have the task,
room, and a loop that turns. A turn moves a member on by 1 / slots, so shares follow slots whatever the order in which
results come back; a member that had no room keeps its turn. Room is a window, not a count of tokens: what a member
holds of this home is known here, and how much it may hold is what it last said (`loans.py`), so saying it twice changes
nothing. An idle member that has been told of waiting jobs asks for some, one slot at a time; that is all the stealing
there is, for a job stays at its home until somebody has a slot for it.

A node is quicker with its own jobs than with those it sends, so of a burst of short ones it would run nearly all. While
a member that has no room answers quickly (`QUICK_MS`) no other runs ahead of it by more than `LEAD_COUNT` jobs for each
of its slots; one that is busy for longer is not waited for, and what it has missed is forgiven.

The slices of a home take turns, so a job that has just become due never waits behind a flood of others; order within
a slice is that of `ready.py`. The first run of a job begins when its copies exist; a later one, and each of a job that
may run at most once, when copies know that it was lent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..errors import Bug
from .effects import Outbox
from .entries import Done, Lent, Returned
from .loans import Loans
from .messages import CheckLoans, Grant, Hungry, Sated, Waiting
from .records import Record
from .roster import Roster, Row
from .streams import Stream, Streams
from .values import JobId, Life, Outcome, Run, State, Status, StreamId

STRIDE = 1_000_000
"""How far a lend moves the turn of a member with one slot."""
QUICK_MS = 50
"""A member that was lent to, or answered, within so long is waited for."""
LEAD_COUNT = 4
GRANT_MAX_COUNT = 200
CHECK_MS = 5_000
"""How often loans that were there the last time are asked after."""
GRANT_BYTES = 128 * 1024


@dataclass(slots=True)
class _Account:
    """What this home knows of one member. `window`: None: as many as its slots.

    `asked`: it was told that jobs wait here; `offered`: it has room and waits for an answer. `last_first`: which slice
    it is served from first the next time.
    """

    turn: int
    window: int | None = None
    asked: bool = False
    offered: bool = False
    quick_until_ms: int = 0
    last_first: bool = False


class Stealing:
    """Lends ready jobs. State: whose turn it is, and what each member said of its room."""

    def __init__(self, roster: Roster, streams: Streams, loans: Loans, outbox: Outbox) -> None:
        self._roster = roster
        self._streams = streams
        self._loans = loans
        self._outbox = outbox
        self._accounts: dict[Life, _Account] = {}
        self._grants: dict[tuple[Life, str], tuple[Stream, list[Run]]] = {}
        self._holds_back_until_ms: int | None = None
        self.closed = False  # nothing is lent any more
        self.doubtful = False  # it is not known whether others still count this node: nothing begins
        self._put_off: list[tuple[Stream, JobId, Life, Run]] = []  # until there is no doubt
        self._to_begin = 0  # lent to this node, and waiting until copies know
        self._now_ms = 0
        self._check_at_ms = 0
        self._checked: dict[tuple[StreamId, JobId], int] = {}  # lent to others at the last check -> attempt

    # --- what members say -----------------------------------------------------------------------------------------

    def _account(self, life: Life) -> _Account:
        account = self._accounts.get(life)
        if account is None:
            turn = min((it.turn for it in self._accounts.values()), default=0)
            account = self._accounts[life] = _Account(turn)
        return account

    def on_hungry(self, sender: Life, message: Hungry) -> None:
        account = self._account(sender)
        account.window, account.asked = message.window, False
        account.offered = message.window is not None

    def on_window(self, sender: Life, window: int | None, now_ms: int) -> None:
        """It has said how much it may hold, with a report or what it gave back."""
        account = self._account(sender)
        account.window = window
        account.quick_until_ms = now_ms + QUICK_MS

    def forget(self, life: Life) -> None:
        """That life is over."""
        self._accounts.pop(life, None)

    def be_reborn(self, before: Life) -> None:
        """To all others this node is a new one."""
        self._accounts.clear()

    # --- lending --------------------------------------------------------------------------------------------------

    def settle(self, now_ms: int) -> None:
        """Lend all that there is room for."""
        self._holds_back_until_ms = None
        self._now_ms = now_ms
        put_off, self._put_off = self._put_off, []
        for stream, job, to, run in put_off:
            self._begin_if_lent(stream, job, to, run)
        streams = [stream for stream in self._streams if not stream.frozen]
        if not self.closed and any(stream.slice.count(State.READY) for stream in streams):
            self._lend_all(streams, now_ms)
        self._post_grants(streams)

    @property
    def own_waits(self) -> bool:
        """Whether this node has ready jobs that it could run itself."""
        specs = self._roster.mine.specs
        return not self.closed and any(
            task in specs
            for stream in self._streams
            if not stream.frozen and stream.slice.count(State.READY)
            for task in stream.slice.waiting_tasks()
        )

    def _room(self, row: Row) -> int:
        if row is self._roster.mine:
            return self._loans.own_room - self._to_begin
        if row.lagging or not row.slots:
            return 0
        window = self._account(row.life).window
        return (row.slots if window is None else window) - self._lent_to(row.life)

    def _lent_to(self, life: Life) -> int:
        return sum(stream.slice.lent.get(life, 0) for stream in self._streams)

    def _lend_all(self, streams: list[Stream], now_ms: int) -> None:
        rooms: dict[Life, int] = {}
        rows = {row.life: row for row in self._roster}
        for life, row in rows.items():
            room = self._room(row)
            if room > 0:
                rooms[life] = room
        self._forgive()
        while rooms:
            life = min(rooms, key=lambda it: (self._account(it).turn, it))
            row = rows[life]
            if self._must_wait(life, rooms, now_ms):
                del rooms[life]
                continue
            alone = len(rooms) == 1
            count = self._lend_some(streams, row, min(rooms[life], GRANT_MAX_COUNT) if alone else 1, now_ms)
            if not count:
                del rooms[life]
                continue
            account = self._account(life)
            account.turn += count * STRIDE // max(1, row.slots)
            rooms[life] -= count
            if rooms[life] <= 0:
                del rooms[life]

    def _must_wait(self, life: Life, rooms: dict[Life, int], now_ms: int) -> bool:
        """Whether that one is so far ahead of another that answers quickly that it lets it catch up first."""
        turn, waits = self._account(life).turn, False
        for row in self._roster:
            account = self._accounts.get(row.life)
            if account is None or row.life in rooms or row.lagging or account.quick_until_ms <= now_ms:
                continue
            if turn - account.turn > LEAD_COUNT * STRIDE and self._lent_to(row.life):
                waits = True
                self._holds_back_until_ms = min(self._holds_back_until_ms or (1 << 62), account.quick_until_ms)
        return waits

    def _forgive(self) -> None:
        """Whoever had no room for long does not get all that it has missed."""
        most = max((it.turn for it in self._accounts.values()), default=0)
        for account in self._accounts.values():
            account.turn = max(account.turn, most - 2 * LEAD_COUNT * STRIDE)

    def _lend_some(self, streams: list[Stream], row: Row, count: int, now_ms: int) -> int:
        """Lend that member up to so many jobs; the slices take turns."""
        if len(streams) > 1:
            account = self._account(row.life)  # each member has its own turns, or two could fall into step
            if account.last_first:
                streams = streams[::-1]
            account.last_first = not account.last_first
        lent = 0
        for place, stream in enumerate(streams):
            still_to_serve = len(streams) - place
            share = -(-(count - lent) // still_to_serve)
            lent += self._lend(stream, row, share, now_ms)
        return lent

    def _lend(self, stream: Stream, row: Row, count: int, now_ms: int) -> int:
        kept, life = stream.slice, row.life
        jobs = kept.take(count, life, row.specs)
        if not jobs:
            return 0
        stream.append(Lent(jobs, life))
        for job in jobs:
            record = kept.records[job]
            run = _run(stream, record)
            copies = kept.copies_of(record.header)
            if (copies or kept.is_journaled) and (record.attempt > 1 or record.header.once):
                self._to_begin += row is self._roster.mine
                stream.when_held(copies, partial(self._begin_when_held, stream, job, life, run))
            else:
                self._begin(stream, life, run)
        self._account(life).quick_until_ms = now_ms + QUICK_MS
        return len(jobs)

    def _begin_when_held(self, stream: Stream, job: JobId, to: Life, run: Run) -> None:
        self._to_begin -= to == self._roster.mine.life
        self._begin_if_lent(stream, job, to, run)

    def _begin_if_lent(self, stream: Stream, job: JobId, to: Life, run: Run) -> None:
        if self.doubtful:
            self._put_off.append((stream, job, to, run))
            return
        record = stream.slice.records.get(job)
        if record is None or record.executor != to or record.attempt != run.attempt:
            return
        if stream.frozen:
            return  # whoever is home of it then asks after it
        if record.cancel_asked:
            stream.append(Done([job], [Outcome(Status.CANCELLED)], self._now_ms))
        elif to == self._roster.mine.life and self.closed:
            stream.append(Returned([job]))
        else:
            self._begin(stream, to, run)

    def _begin(self, stream: Stream, to: Life, run: Run) -> None:
        if to == self._roster.mine.life:
            self._loans.take(stream.id, run)
        else:
            self._grants.setdefault((to, stream.name), (stream, []))[1].append(run)

    # --- saying ---------------------------------------------------------------------------------------------------

    def _post_grants(self, streams: list[Stream]) -> None:
        grants, self._grants = self._grants, {}
        served = {life for life, _ in grants}
        waiting = {
            task for stream in streams if stream.slice.count(State.READY) for task in stream.slice.waiting_tasks()
        }
        for (life, _), (stream, runs) in grants.items():
            row = self._roster.get(life)
            more = row is not None and not waiting.isdisjoint(row.specs)
            for part in _parts(runs):
                size = 100 + sum(120 + len(run.params) for run in part)
                self._outbox.post(life, Grant(stream.id, part, more), size)
        for row in self._roster.others:
            account = self._accounts.get(row.life)
            if account is None:
                continue
            if account.offered:
                account.offered = False
                if row.life not in served:
                    self._outbox.post(row.life, Sated())
            elif (
                waiting
                and not account.asked
                and account.window is not None
                and account.window < row.slots
                and row.life not in served
                and not waiting.isdisjoint(row.specs)
            ):
                account.asked = True
                self._outbox.post(row.life, Waiting())

    # --- loans that got lost --------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[tuple[Stream, list[JobId]]]:
        """Ask after what was lent long ago: a home may have died between a lend and its grant.

        Links are in order, so whoever does not hold a job by then has never been given it.

        Returns:
            What is lent to this node itself, and not held.
        """
        if now_ms < self._check_at_ms:
            return []
        self._check_at_ms = now_ms + CHECK_MS
        before, self._checked = self._checked, {}
        lost: list[tuple[Stream, list[JobId]]] = []
        for stream in self._streams:
            if stream.frozen or not stream.slice.lent:
                continue
            old: dict[Life, list[JobId]] = {}
            for record in stream.slice.records.values():
                if record.executor is not None:
                    self._checked[stream.id, record.job] = record.attempt
                    if before.get((stream.id, record.job)) == record.attempt:
                        old.setdefault(record.executor, []).append(record.job)
            for life, jobs in old.items():
                if life == self._roster.mine.life:
                    lost.append((stream, [job for job in jobs if not self._loans.holds(job, stream.id)]))
                elif life in self._roster:
                    for first in range(0, len(jobs), GRANT_MAX_COUNT):
                        self._outbox.post(life, CheckLoans(stream.id, jobs[first : first + GRANT_MAX_COUNT]), 4_000)
        return lost

    def deadline_ms(self) -> int | None:
        """When this node stops waiting for another to catch up, and when it next asks after old loans."""
        waits = self._holds_back_until_ms is not None and not self.doubtful
        deadlines = [self._holds_back_until_ms] if waits and self._holds_back_until_ms is not None else []
        if self._roster.others and any(stream.slice.lent for stream in self._streams if not stream.frozen):
            deadlines.append(self._check_at_ms)
        return min(deadlines, default=None)

    def check(self) -> None:
        """Raises:
        Bug: a grant was made and not said.
        """
        if self._grants:
            raise Bug("grants are left unsaid")


def _run(stream: Stream, record: Record) -> Run:
    kept = stream.slice
    return Run(
        record.job,
        record.header,
        record.params,
        record.attempt,
        record.tries + 1,
        kept.epoch,
        record.enqueued_at_ms,
        kept.round_of(record),
    )


def _parts(runs: list[Run]) -> list[list[Run]]:
    parts: list[list[Run]] = [[]]
    size = 0
    for run in runs:
        size += 120 + len(run.params)
        if parts[-1] and size > GRANT_BYTES:
            parts.append([])
            size = 120 + len(run.params)
        parts[-1].append(run)
    return parts
