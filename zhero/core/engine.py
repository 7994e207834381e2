"""The one class that the worlds talk to: wires the protocols, routes what comes in, returns what is to be done.

Pure: no socket, clock, thread or log. Messages, calls, reports and time go in; effects come out, and a deadline. A
world (the driver over ZeroMQ, the simulator) owes the engine:

- time in whole ms that never runs backwards, passed into each input;
- `tick` not long after `deadline_ms()` (early or twice does no harm);
- every effect carried out, in the order given: `Send` may get lost, `Reply` and `Start` not;
- for each `Probe` one `probed`, and frames to those of `Connect`;
- for each `Run` of a `Start` one `started` and, later, one `finished`; after `Stop` a `finished` soon, or
  `cannot_stop`;
- `capacity` whenever the number of jobs that its executor wants to hold has changed;
- `settle`, or a `tick`, within the same turn after inputs with `more`: calls and reports of the own process that come
  in one turn are acted on once, and said to each peer in one frame; an answer that is there does not wait for that.

A job's way: `call(Enqueue)` puts it (`Put`); copies get the entry, and their receipts let the caller be told and the
job into the line; `settle` lends it (`Lent`), to this node (effect `Start`) or to another (`Grant`); there `started`
marks it and `finished` reports it; that ends it (`Done`), and when copies know, whoever waits is told (`Reply`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Any

from ..config import PROFILES, Limits, Profile
from .broadcast import Broadcast
from .calls import Calls
from .effects import Effect, Outbox, Peer
from .facts import (
    DiskFailed,
    DiskFull,
    PeerMisbehaved,
    Reborn,
    TaskMissing,
    VerdictIgnored,
)
from .gather import ASKED_OF_ALL, Gather
from .handover import Handover, Reunion
from .inquiry import Inquiries
from .intake import Intake
from .jobs import Slice
from .kept import DiskFault, Found
from .leaving import Leaving
from .loans import Loans
from .membership import Membership
from .merging import orphan
from .messages import (
    Answered,
    Ask,
    AskHeld,
    Beat,
    Began,
    Call,
    CannotStop,
    CheckLoans,
    Copied,
    Entries,
    Follow,
    Followers,
    Frame,
    GiveBack,
    GiveUp,
    Grant,
    Have,
    Held,
    Hello,
    Hungry,
    Leave,
    MemberStatus,
    Message,
    NotHeld,
    Offer,
    OfferRefused,
    OfferTaken,
    Owns,
    Recall,
    Received,
    Reported,
    Request,
    Sated,
    Settled,
    Took,
    Unfollow,
    Waiting,
    Welcome,
    about_bytes,
)
from .owner import Ownership
from .persisting import Persisting
from .query import Query, parts_of
from .recovery import Recovery
from .replication import Copies, Replication
from .reports import Reports
from .roster import Gone, Roster, Row
from .schedule import Schedule
from .stealing import Stealing
from .streams import Stream, Streams
from .takeover import Takeover
from .values import Finished, JobId, Life, Member, StreamId, TaskSpec
from .verdicts import Verdicts


class Engine:
    """The protocol of one node."""

    def __init__(
        self,
        me: Member,
        limits: Limits,
        now_ms: int,
        rng: Random,
        *,
        profile: Profile = PROFILES["lan"],
        seeds: Sequence[str] = (),
        journal: bool = False,
    ) -> None:
        """`journal`: there is one, and nothing begins before `recovered`."""
        self.limits = limits
        outbox = self._outbox = Outbox()
        roster = self._roster = Roster(me)
        self._membership = Membership(
            roster,
            profile,
            outbox,
            rng,
            now_ms,
            self._on_joined,
            self._on_reborn,
            self._on_tasks_changed,
            limits.solo_after_ms,
        )
        self._gather = Gather(roster, profile, outbox)
        streams = self._streams = Streams(Stream(Slice("own", me.life, 1, limits)))
        self._replication = Replication(roster, streams, limits, outbox)
        self._copies = Copies(limits, outbox)
        self._intake = Intake(me.name, streams, roster.specs, limits, outbox)
        self._loans = Loans(roster, outbox, lambda stream: streams.deciding(stream) is not None)
        self._schedule = Schedule(streams, roster.specs, outbox, self._loans.rounds)
        self._stealing = Stealing(roster, streams, self._loans, outbox)
        self._broadcast = Broadcast(roster, streams)
        self._query = Query(roster, streams, limits, outbox, now_ms)
        self._verdicts = Verdicts(roster, self._query, outbox)
        self._ownership = Ownership(roster, streams, limits, outbox, self._loans.moved, self._on_owner_changed)
        self._inquiries = Inquiries(roster, self._loans, outbox)
        self._takeover = Takeover(
            roster,
            streams,
            self._copies,
            self._loans,
            self._inquiries,
            outbox,
            self._ownership.begin,
            self._verdicts.on_reports,
        )
        self._handover = Handover(
            roster,
            streams,
            self._loans,
            self._replication,
            self._takeover,
            outbox,
            self._target_of,
            self._on_given,
            self._on_resumed,
        )
        self._reunion = Reunion(
            roster,
            streams,
            self._loans,
            self._inquiries,
            self._replication,
            self._takeover,
            self._handover,
            outbox,
            self._on_resumed,
        )
        self._calls = Calls(
            roster,
            streams,
            self._membership,
            self._ownership,
            self._replication,
            self._schedule,
            self._intake,
            self._query,
            self._gather,
            limits,
            outbox,
            self._takeover.knows,
        )
        self.has_more = False  # `settle` is to follow
        self._missing: set[str] = set()  # tasks that were warned of: jobs wait for them
        self._looks_for_missing = False
        self._reports = Reports(
            roster,
            streams,
            self._verdicts,
            self._stealing,
            self._query,
            self._broadcast,
            self._schedule,
            outbox,
            limits.backups,
        )
        self._hear: dict[type[Any], Callable[[Life, Any, int], None]] = self._table()
        self._persisting = Persisting(roster, streams, self._copies, outbox, is_on=journal)
        self._recovery = Recovery(
            roster,
            streams,
            self._copies,
            self._loans,
            self._takeover,
            self._ownership,
            self._reunion,
            self._persisting,
            self._calls.relay,
            limits,
            outbox,
        )
        self._leaving = Leaving(
            roster,
            streams,
            self._membership,
            self._intake,
            self._calls,
            self._loans,
            self._stealing,
            self._schedule,
            self._replication,
            self._takeover,
            self._handover,
            self._ownership,
            self._persisting,
            self._query,
            outbox,
        )
        self._seeds = seeds
        if not journal:
            self._membership.start(seeds, now_ms)

    # --- input ----------------------------------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        """This node; its life changes when others had given it up."""
        return self._roster.mine.member

    @property
    def joined(self) -> bool:
        """False: it still looks for the others, and enqueues wait."""
        return self._membership.is_member

    @property
    def owner(self) -> Life | None:
        """Who owns the delayed queue; None: not known at the moment."""
        return self._ownership.owner

    def members(self, now_ms: int) -> list[MemberStatus]:
        """Who is here, as this node believes."""
        return self._membership.statuses(self._ownership.owner, self._replication.degraded(), now_ms)

    def beat(self, now_ms: int) -> Frame:
        """What is to be published, twice a second, with number and age of the last turn put in."""
        return self._membership.beat(now_ms, 0 if self._loans.closed else self._roster.mine.slots)

    @property
    def streams(self) -> Streams:
        """What this node is home of; for copies (`Stream.tap`) and for checks."""
        return self._streams

    def dropped(self, counts: dict[str, int]) -> None:
        """Why -> how often the world turned somebody away, or dropped a frame, since its start; for `stats`."""
        self._query.dropped = counts

    @property
    def listening(self) -> bool:
        """Whether facts about jobs that go well are made: they cost something, and most of the time nobody listens."""
        return self._outbox.listening

    @listening.setter
    def listening(self, listening: bool) -> None:
        self._outbox.listening = listening

    def define(self, specs: Iterable[TaskSpec], now_ms: int) -> list[Effect]:
        """These are the tasks of this node, at start and after a reload. Periodic ones get their schedules."""
        self._membership.notice(now_ms)
        before = self._roster.define(specs)
        for row in self._roster.others:
            self._membership.show_tasks(row.life)
        self._follow_tasks(before, now_ms)
        return self._settle(now_ms)

    def _follow_tasks(self, before: dict[str, TaskSpec], now_ms: int) -> None:
        self._intake.on_tasks()
        if self._ownership.is_mine:
            self._schedule.on_tasks(before, now_ms)
        self._missing.clear()
        self._warn_of_missing()

    def _on_tasks_changed(self, now_ms: int) -> None:
        before = self._roster.gather_specs()
        if before != self._roster.specs:
            self._follow_tasks(before, now_ms)

    def _warn_of_missing(self) -> None:
        """Tell of each task, once, that jobs have come to wait for and that no member has."""
        missing = self._query.missing()
        for task, count in missing.items():
            if task not in self._missing:
                self._outbox.tell(TaskMissing(task, count))
        self._missing = set(missing)

    def call(self, ref: int, call: Call, now_ms: int, *, more: bool = False) -> list[Effect]:
        """A call of the own process; a `Reply` with this `ref` follows, now or later. `more`: see the module."""
        self._membership.notice(now_ms)
        if isinstance(call, Leave):
            self._leaving.begin(ref, call, now_ms)
        else:
            self._calls.take(ref, call, now_ms)
        # Whoever waits for a round that was just skipped is told before the next call may plan it anew.
        return self._put_off() if more and not self._schedule.skipped else self._settle(now_ms)

    def give_up(self, ref: int) -> None:
        """The caller does not wait for the reply any more; what it asked for goes on."""
        self._calls.give_up(ref)

    def receive(self, frame: Frame, now_ms: int) -> list[Effect]:
        """A frame from another process. Never raises for what it says."""
        self._membership.notice(now_ms)
        if frame.to is None and not frame.numbered and len(frame.messages) == 1:
            before = self._roster.signs(frame.sender)
            if before is not None and isinstance(frame.messages[0], Beat):
                self._membership.receive(frame, now_ms)
                if self._roster.signs(frame.sender) == before:
                    return self._drain(now_ms)  # most beats change nothing
                return self._settle(now_ms)
        for message in self._membership.receive(frame, now_ms):
            self._follow_roster(now_ms)
            if frame.sender in self._roster:
                self._hear_member(frame.sender, message, now_ms)
            else:
                self._hear_client(frame.sender, message, now_ms)
        if self._membership.has_farewells:
            self._handover.settle(now_ms)  # what they leave behind may have come with it
            self._membership.hear_farewells(now_ms)
        return self._settle(now_ms)

    def _hear_member(self, sender: Life, message: Message, now_ms: int) -> None:
        hear = self._hear.get(type(message))
        if hear is None:
            self._outbox.tell(PeerMisbehaved(sender, f"sent a {type(message).__name__}"))
        else:
            hear(sender, message, now_ms)

    def _table(self) -> dict[type[Any], Callable[[Life, Any, int], None]]:
        """What members say about jobs -> who hears it."""
        copies, loans, takeover, handover = self._copies, self._loans, self._takeover, self._handover
        return {
            Ask: self._on_ask,
            Answered: self._on_answered,
            GiveUp: lambda sender, it, now_ms: self._calls.give_up(Peer(sender, it.ref)),
            Follow: copies.on_follow,
            Copied: lambda sender, it, now_ms: copies.on_copied(sender, it),
            Entries: lambda sender, it, now_ms: copies.on_entries(sender, it),
            Followers: lambda sender, it, now_ms: copies.on_followers(sender, it),
            Unfollow: lambda sender, it, now_ms: copies.on_unfollow(sender, it),
            Received: self._replication.on_received,
            Have: takeover.on_have,
            AskHeld: lambda sender, it, now_ms: takeover.on_ask_held(sender, it),
            Held: self._inquiries.on_held,
            Took: self._on_took,
            Owns: self._ownership.on_owns,
            Offer: handover.on_offer,
            OfferTaken: handover.on_taken,
            OfferRefused: handover.on_refused,
            Grant: lambda sender, it, now_ms: loans.on_grant(sender, it),
            Recall: lambda sender, it, now_ms: loans.on_recall(sender, it),
            Settled: lambda sender, it, now_ms: loans.on_settled(sender, it),
            Sated: lambda sender, it, now_ms: loans.on_sated(sender, it),
            Waiting: lambda sender, it, now_ms: loans.on_waiting(sender, it),
            CheckLoans: lambda sender, it, now_ms: loans.on_check(sender, it),
            Hungry: lambda sender, it, now_ms: self._stealing.on_hungry(sender, it),
            Began: self._reports.on_began,
            Reported: self._reports.on_reported,
            GiveBack: self._reports.on_give_back,
            CannotStop: self._reports.on_cannot_stop,
            NotHeld: self._reports.on_not_held,
        }

    def _on_ask(self, sender: Life, message: Ask, now_ms: int) -> None:
        if isinstance(message.call, ASKED_OF_ALL):
            for part, more in parts_of(self._calls.own_answer(message.call, now_ms), self.limits):
                self._outbox.post(sender, Answered(message.ref, part, more), about_bytes(part))
        else:
            self._calls.take_from_member(Peer(sender, message.ref), message.call, now_ms)

    def _on_answered(self, sender: Life, message: Answered, now_ms: int) -> None:
        if not self._calls.relay.on_answered(sender, message, now_ms):
            self._gather.on_answered(sender, message, now_ms)

    def _hear_client(self, sender: Life, message: Message, now_ms: int) -> None:
        if isinstance(message, Request):
            if isinstance(message.call, Leave):
                self._outbox.tell(PeerMisbehaved(sender, "a client can't make a node leave"))
            else:
                self._calls.take((sender, message.ref), message.call, now_ms)
        elif isinstance(message, Hello):
            self._outbox.send(sender, Welcome(self.me, self.limits.payload_max_bytes, now_ms))
        elif isinstance(message, GiveUp):
            self._calls.give_up((sender, message.ref))
        elif sender not in self._roster.gone:  # else it has left meanwhile
            self._outbox.tell(PeerMisbehaved(sender, f"sent a {type(message).__name__}"))

    def seeds(self, endpoints: Sequence[str], now_ms: int) -> list[Effect]:
        """The addresses of others, as they are known now."""
        self._membership.notice(now_ms)
        self._membership.on_seeds(endpoints, now_ms)
        return self._settle(now_ms)

    def peer_lost(self, life: Life, now_ms: int) -> list[Effect]:
        """A hint: a connection to that member was up and is lost."""
        self._membership.notice(now_ms)
        self._membership.on_lost(life, now_ms)
        return self._settle(now_ms)

    def probed(self, life: Life, refused: bool, now_ms: int) -> list[Effect]:
        """The end of a `Probe`; `refused`: the host said that nobody listens there, nothing less."""
        self._membership.notice(now_ms)
        self._membership.on_probed(life, refused, now_ms)
        return self._settle(now_ms)

    def recovered(self, found: Found, now_ms: int) -> list[Effect]:
        """What the journal held at start; before all else, and even if it was empty."""
        self._recovery.take(found)
        self._membership.start(self._seeds, now_ms)
        return self._settle(now_ms)

    def persisted(self, ticket: int, now_ms: int) -> list[Effect]:
        """The journal holds all up to that ticket."""
        self._membership.notice(now_ms)
        self._persisting.on_persisted(ticket)
        return self._settle(now_ms)

    def persist_failed(self, fault: DiskFault, why: str, now_ms: int) -> list[Effect]:
        """The journal can't write: it is full, and what waits is tried again; or it is no good any more."""
        self._membership.notice(now_ms)
        if fault is DiskFault.FAILED:
            self._persisting.failed = True
            self._outbox.tell(DiskFailed(why))
        elif not self._intake.disk_full:
            self._intake.disk_full = True
            self._outbox.tell(DiskFull(is_over=False))
        return self._settle(now_ms)

    def disk_has_room(self, now_ms: int) -> list[Effect]:
        """The journal can write again."""
        self._membership.notice(now_ms)
        if self._intake.disk_full:
            self._intake.disk_full = False
            self._outbox.tell(DiskFull(is_over=True))
        return self._settle(now_ms)

    def capacity(self, count: int, now_ms: int, ahead: int = 0, *, more: bool = False) -> list[Effect]:
        """How many unfinished jobs the executor wants to hold; `ahead`: so many of them only while jobs are short."""
        self._membership.notice(now_ms)
        mine = self._roster.mine
        mine.capacity, mine.slots = count, count - ahead
        return self._put_off() if more else self._settle(now_ms)

    def started(self, jobs: Sequence[JobId], now_ms: int, *, more: bool = False) -> list[Effect]:
        """The executor has begun these."""
        self._membership.notice(now_ms)
        own = self._loans.on_started(jobs)
        if own:
            self._reports.on_own_started(own, now_ms)
        if more:
            return self._put_off()
        return self._settle(now_ms) if len(own) < len(jobs) else self._drain(now_ms)

    def finished(self, reports: Sequence[Finished], now_ms: int, *, more: bool = False) -> list[Effect]:
        """The executor has ended these, one way or another. A report of a run that is over already is ignored."""
        self._membership.notice(now_ms)
        own, unknown = self._loans.on_finished(reports)
        self._reports.on_own(own, now_ms)
        for report in unknown:
            self._outbox.tell(VerdictIgnored(report.job, report.attempt))
        return self._put_off() if more else self._settle(now_ms)

    def cannot_stop(self, job: JobId, now_ms: int) -> list[Effect]:
        """The run that was to be stopped can't be: it goes on to its end."""
        self._membership.notice(now_ms)
        if self._loans.cannot_stop(job):
            self._query.on_cannot_cancel(job)
        return self._settle(now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Time has passed."""
        self._membership.notice(now_ms)
        self._membership.tick(now_ms)
        self._follow_roster(now_ms)
        for stream in self._streams:
            stream.slice.memory.forget(now_ms)
        self._copies.forget(self._roster, now_ms)
        self._schedule.tick(now_ms, rounds=not self._intake.closed)
        for stream, lost in self._stealing.tick(now_ms):
            self._verdicts.on_not_held(stream, self.me.life, lost, now_ms)
        self._calls.tick(now_ms)
        self._looks_for_missing = True
        return self._settle(now_ms)

    def settle(self, now_ms: int) -> list[Effect]:
        """Let everybody act on what has come in with `more`."""
        return self._settle(now_ms)

    def deadline_ms(self) -> int | None:
        """When `tick` is next needed; None: not before something else happens."""
        if self.has_more:
            return 0
        deadlines = [self._schedule.deadline_ms(rounds=not self._intake.closed)]
        deadlines += [stream.slice.memory.deadline_ms() for stream in self._streams]
        deadlines.append(self._leaving.deadline_ms())
        deadlines += [
            self._membership.deadline_ms(),
            self._gather.deadline_ms(),
            self._calls.deadline_ms(),
            self._stealing.deadline_ms(),
            self._replication.deadline_ms(),
            self._inquiries.deadline_ms(),
            self._takeover.deadline_ms(),
            self._ownership.deadline_ms(),
            self._recovery.deadline_ms(),
        ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def check(self) -> None:
        """Not while it `has_more`.

        Raises:
            Bug: an invariant does not hold.
        """
        for stream in self._streams:
            stream.slice.check()
        self._membership.check()
        self._replication.check()
        self._loans.check()
        self._stealing.check()
        if self._ownership.is_mine:
            self._schedule.check()
        self._query.check()

    # --- settling -------------------------------------------------------------------------------------------------

    def _settle(self, now_ms: int) -> list[Effect]:
        """Let every protocol act on what has changed, until nothing changes any more."""
        self.has_more = False
        self._membership.settle()
        self._follow_roster(now_ms)
        self._copies.settle()
        self._recovery.settle(now_ms)
        self._ownership.settle(self._takeover, self._handover, self._copies, now_ms)
        self._takeover.settle(now_ms)
        self._inquiries.settle(now_ms)
        self._handover.settle(now_ms)
        self._ownership.open(now_ms)
        self._calls.relay.settle(now_ms)
        while True:
            self._reports.on_own(self._loans.take_late(), now_ms)
            self._stealing.doubtful = self._membership.is_doubtful
            if not self._membership.is_doubtful:
                self._broadcast.settle(now_ms)
                self._stealing.settle(now_ms)
            went_on = False
            for stream in self._streams:
                went_on = self._reports.settle(stream) or went_on
            if not (self._replication.settle(now_ms) or went_on):
                break
        self._replication.warn(now_ms)
        if self._looks_for_missing:
            self._looks_for_missing = False
            self._warn_of_missing()
        self._loans.settle(self._loans.has_line and self._stealing.own_waits)
        self._roster.mine.busy = self._loans.held_count
        delayed = self._streams.delayed
        for job in self._schedule.skipped:
            if delayed is not None:
                delayed.when_held(self.limits.backups, partial(self._query.on_skipped, job))
        self._schedule.skipped.clear()
        self._leaving.settle(now_ms)
        self._gather.settle(now_ms)
        for asker, answer in self._gather.take_complete():
            self._calls.answer(asker, answer)
        return self._drain(now_ms)

    def _put_off(self) -> list[Effect]:
        """What is to be done at once: the rest follows with `settle`."""
        self.has_more = True
        return self._outbox.drain()

    def _drain(self, now_ms: int) -> list[Effect]:
        self._persisting.flush(self._ownership.known, now_ms)
        self._membership.link.pack(now_ms)
        return self._outbox.drain()

    # --- lives ----------------------------------------------------------------------------------------------------

    def _on_joined(self, now_ms: int) -> None:
        """The others are found, or there are none: what has waited for that goes on."""
        self._ownership.settle(self._takeover, self._handover, self._copies, now_ms)
        self._calls.go_on(now_ms)

    def _on_reborn(self, before: Life, now_ms: int) -> None:
        """Others gave this node up: it goes on under its next life, once it knows what is still its own."""
        self._loans.be_reborn(before)
        self._stealing.be_reborn(before)
        self._handover.be_reborn(now_ms)
        self._inquiries.be_reborn()
        self._takeover.be_reborn()
        self._calls.relay.be_reborn(now_ms)
        self._gather.be_reborn()
        for row in self._roster.others:
            self._membership.show_tasks(row.life)
        self._reunion.begin(now_ms)
        self._outbox.tell(Reborn(self.me.life))

    def _follow_roster(self, now_ms: int) -> None:
        """Members have come or gone."""
        roster = self._roster
        while roster.arrived or roster.departed:
            arrived, roster.arrived = roster.arrived, []
            departed, roster.departed = roster.departed, []
            for row in arrived:
                self._on_arrived(row)
            for gone in departed:
                self._on_gone(gone, now_ms)

    def _on_arrived(self, row: Row) -> None:
        if row.life in self._roster:
            self._membership.show_tasks(row.life)
            self._ownership.on_arrived(row)

    def _on_gone(self, gone: Gone, now_ms: int) -> None:
        life = gone.member.life
        self._ownership.on_gone(life, now_ms)
        self._handover.on_gone(life, now_ms)
        self._loans.forget_home(life)
        self._stealing.forget(life)
        for stream in self._streams:
            if not stream.frozen:
                orphan(stream, life, now_ms)
        self._takeover.on_gone(life, now_ms)
        self._calls.forget_member(life)
        self._calls.relay.on_gone(life, now_ms)
        self._leaving.on_gone(life)
        self._on_tasks_changed(now_ms)

    # --- homes ----------------------------------------------------------------------------------------------------

    def _on_owner_changed(self, now_ms: int) -> None:
        if self._ownership.is_mine and self._ownership.owner == self.me.life:
            self._schedule.on_tasks({}, now_ms)
        self._calls.relay.ask_owner_again(now_ms)

    def _on_took(self, sender: Life, message: Took, now_ms: int) -> None:
        if message.stream.home.node != self.me.life.node:
            self._takeover.drop(message.stream)  # else this node asks already whose it is, and all will tell
        mine = self._streams.get(message.stream)
        self._loans.on_took(message)
        self._ownership.on_took(message, now_ms)
        if mine is not None and mine.name == "delayed" and not mine.frozen:
            # This node's loop did not turn, and a standby went on: it gets what it may not know of.
            self._handover.give(mine, message.into.home, lambda into, at_ms: None, now_ms)

    def _on_given(self, stream: Stream, now_ms: int) -> None:
        """A stream of this node has another home."""
        self._recovery.on_given(stream)
        waiters = self._query.take_waiters(stream)
        if stream.name == "own":
            self._streams.begin(Stream(Slice("own", self.me.life, stream.slice.epoch, self.limits)))
        else:
            self._streams.delayed = None
            self._ownership.lose(now_ms)
        stream.let_go()
        for asker, job, cancel in waiters:
            self._calls.put_again(asker, job, cancel, now_ms)
        if not self._streams.own.frozen:
            self._calls.go_on(now_ms)

    def _on_resumed(self, stream: Stream, now_ms: int) -> None:
        if stream.name == "delayed":
            self._ownership.renew(now_ms)
        else:
            self._calls.go_on(now_ms)

    def _target_of(self, stream: StreamId) -> Stream | None:
        """What takes in the slice that another hands over; None: nothing here can."""
        if stream.name == "own":
            return self._streams.own
        if self._streams.delayed is None and self._ownership.known not in (None, stream):
            return None
        return self._ownership.begin(stream.epoch + 1)
