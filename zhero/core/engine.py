"""The one class that the worlds talk to: wires the protocols, routes what comes in, returns what is to be done.

Pure: no socket, clock, thread or log. Messages, calls, reports and time go in; effects come out, and a deadline. A
world (the driver over ZeroMQ, the simulator) owes the engine:

- time in whole ms that never runs backwards, passed into each input;
- `tick` not long after `deadline_ms()` (early or twice does no harm);
- every effect carried out, in the order given: `Send` may get lost, `Reply` and `Start` not;
- for each `Probe` one `probed`, and frames to those of `Connect`;
- for each `Run` of a `Start` one `started` and, later, one `finished`; after `Stop` a `finished` soon, or
  `cannot_stop`;
- `capacity` whenever the number of jobs that its executor wants to hold has changed.

A job's way: `call(Enqueue)` puts it (`Put`), `settle` lends it (`Lent`, effect `Start`), `started` marks it,
`finished` ends it (`Done`), and whoever waits is told (`Reply`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from ..config import PROFILES, Limits, Profile
from .broadcast import Broadcast
from .calls import Calls
from .effects import Asker, Effect, Outbox
from .entries import Rehomed
from .facts import (
    DeadLetterDropped,
    JobEnded,
    PeerMisbehaved,
    Reborn,
    TaskMissing,
)
from .gather import ASKED_OF_ALL, Gather
from .intake import Intake
from .jobs import Slice
from .membership import Membership
from .messages import (
    Answered,
    Ask,
    Call,
    Frame,
    GiveUp,
    Hello,
    Leave,
    Left,
    MemberStatus,
    Message,
    Request,
    Welcome,
)
from .query import Query, about_bytes, parts_of
from .replication import Stream, Streams
from .roster import Roster
from .schedule import Schedule
from .stealing import Stealing
from .values import Finished, JobId, Life, Member, Status, TaskSpec
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
    ) -> None:
        self.limits = limits
        self._outbox = Outbox()
        self._roster = Roster(me)
        self._membership = Membership(
            self._roster, profile, self._outbox, rng, now_ms, self._on_joined, self._on_reborn
        )
        self._gather = Gather(self._roster, profile, self._outbox)
        self._streams = Streams(Stream(Slice("own", me.life, 1, limits)), Stream(Slice("delayed", me.life, 1, limits)))
        specs = self._roster.specs
        self._schedule = Schedule(self._streams, specs, self._outbox)
        self._intake = Intake(me.name, self._streams, specs, limits, self._outbox)
        self._stealing = Stealing(self._roster, self._streams, self._outbox)
        self._broadcast = Broadcast(self._roster, self._streams)
        self._query = Query(self._roster, self._streams, limits, self._outbox, now_ms)
        self._missing: set[str] = set()  # tasks that were warned of: jobs wait for them
        self._leave_askers: list[Asker] = []  # told when nothing is left to do
        self._leave_by_ms = 0
        self._calls = Calls(
            self._roster,
            self._streams,
            self._membership,
            self._schedule,
            self._intake,
            self._query,
            self._gather,
            limits,
            self._outbox,
        )
        self._verdicts = Verdicts(self._roster, self._streams, self._query, self._outbox)
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

    def members(self, now_ms: int) -> list[MemberStatus]:
        """Who is here, as this node believes."""
        return self._membership.statuses(self._streams.delayed.slice.home, now_ms)

    def beat(self, now_ms: int) -> Frame:
        """What is to be published, twice a second, with number and age of the last turn put in."""
        mine = self._roster.mine
        mine.slots, mine.busy = mine.capacity, mine.held
        return self._membership.beat()

    @property
    def streams(self) -> Streams:
        """What this node is home of; for copies (`Stream.tap`) and for checks."""
        return self._streams

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
        self._intake.on_tasks()
        if self.joined:
            self._schedule.on_tasks(before, now_ms)
        self._missing.clear()
        self._warn_of_missing()
        return self._settle(now_ms)

    def _warn_of_missing(self) -> None:
        """Tell of each task, once, that jobs have come to wait for and that no member has."""
        missing = self._query.missing()
        for task, count in missing.items():
            if task not in self._missing:
                self._outbox.tell(TaskMissing(task, count))
        self._missing = set(missing)

    def call(self, ref: int, call: Call, now_ms: int) -> list[Effect]:
        """A call of the own process; a `Reply` with this `ref` follows, now or later."""
        self._membership.notice(now_ms)
        if isinstance(call, Leave):
            self._leave(ref, call, now_ms)
        else:
            self._calls.take(ref, call, now_ms)
        return self._settle(now_ms)

    def give_up(self, ref: int) -> None:
        """The caller does not wait for the reply any more; what it asked for goes on."""
        self._query.give_up(ref)

    def receive(self, frame: Frame, now_ms: int) -> list[Effect]:
        """A frame from another process. Never raises for what it says."""
        self._membership.notice(now_ms)
        for message in self._membership.receive(frame, now_ms):
            if frame.sender in self._roster:
                self._hear_member(frame.sender, message, now_ms)
            else:
                self._hear_client(frame.sender, message, now_ms)
        return self._settle(now_ms)

    def _hear_member(self, sender: Life, message: Message, now_ms: int) -> None:
        if isinstance(message, Ask) and isinstance(message.call, ASKED_OF_ALL):
            for part, more in parts_of(self._calls.own_answer(message.call, now_ms), self.limits):
                self._outbox.post(sender, Answered(message.ref, part, more), about_bytes(part))
        elif isinstance(message, Answered):
            self._gather.on_answered(sender, message, now_ms)
        else:
            self._outbox.tell(PeerMisbehaved(sender, f"sent a {type(message).__name__}"))

    def _hear_client(self, sender: Life, message: Message, now_ms: int) -> None:
        if isinstance(message, Request):
            if isinstance(message.call, Leave):
                self._outbox.tell(PeerMisbehaved(sender, "a client can't make a node leave"))
            else:
                self._calls.take((sender, message.ref), message.call, now_ms)
        elif isinstance(message, Hello):
            self._outbox.send(sender, Welcome(self.me, self.limits.payload_max_bytes))
        elif isinstance(message, GiveUp):
            self._query.give_up((sender, message.ref))
        else:
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

    def capacity(self, count: int, now_ms: int) -> list[Effect]:
        """How many unfinished jobs the executor wants to hold."""
        self._membership.notice(now_ms)
        self._roster.mine.capacity = count
        return self._settle(now_ms)

    def started(self, jobs: Sequence[JobId], now_ms: int) -> list[Effect]:
        """The executor has begun these."""
        self._membership.notice(now_ms)
        self._verdicts.on_started(jobs, now_ms)
        return self._drain(now_ms)

    def finished(self, reports: Sequence[Finished], now_ms: int) -> list[Effect]:
        """The executor has ended these, one way or another. A report of a run that is over already is ignored."""
        self._membership.notice(now_ms)
        self._verdicts.on_finished(reports, now_ms)
        return self._settle(now_ms)

    def cannot_stop(self, job: JobId, now_ms: int) -> list[Effect]:
        """The run that was to be stopped can't be: it goes on to its end."""
        self._membership.notice(now_ms)
        self._query.on_cannot_cancel(job)
        return self._settle(now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Time has passed."""
        self._membership.notice(now_ms)
        self._membership.tick(now_ms)
        for stream in self._streams:
            stream.slice.memory.forget(now_ms)
        self._schedule.tick(now_ms, rounds=not self._intake.closed)
        self._warn_of_missing()
        return self._settle(now_ms)

    def deadline_ms(self) -> int | None:
        """When `tick` is next needed; None: not before something else happens."""
        deadlines = [self._schedule.deadline_ms(rounds=not self._intake.closed)]
        deadlines += [stream.slice.memory.deadline_ms() for stream in self._streams]
        deadlines.append(self._leave_by_ms if self._leave_askers else None)
        deadlines += [self._membership.deadline_ms(), self._gather.deadline_ms()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def check(self) -> None:
        """Raises:
        Bug: an invariant does not hold.
        """
        for stream in self._streams:
            stream.slice.check()
        self._membership.check()
        self._stealing.check()
        if self.joined:
            self._schedule.check()
        self._query.check()

    # --- settling -------------------------------------------------------------------------------------------------

    def _settle(self, now_ms: int) -> list[Effect]:
        """Let every protocol act on what has changed, until nothing changes any more."""
        self._membership.settle()
        while True:
            if not self._membership.is_doubtful:
                self._broadcast.settle(now_ms)
                self._stealing.settle()
            endings = False
            for stream in self._streams:
                if stream.slice.endings:
                    endings = True
                    self._on_endings(stream)
            if not endings:
                break
        for job in self._schedule.skipped:
            self._query.on_skipped(job)
        self._schedule.skipped.clear()
        if self._leave_askers:
            self._leave_if_done(now_ms)
        self._gather.settle(now_ms)
        for asker, answer in self._gather.take_complete():
            self._calls.answer(asker, answer)
        return self._drain(now_ms)

    def _drain(self, now_ms: int) -> list[Effect]:
        self._membership.link.pack(now_ms)
        return self._outbox.drain()

    # --- lives ----------------------------------------------------------------------------------------------------

    def _on_joined(self, now_ms: int) -> None:
        """The others are found, or there are none: what has waited for that goes on."""
        self._schedule.on_tasks({}, now_ms)
        self._calls.go_on(now_ms)

    def _on_reborn(self, before: Life, now_ms: int) -> None:
        """Others gave this node up: what it is home of, and runs, it goes on with under its next life."""
        for stream in self._streams:
            stream.append(Rehomed(self.me.life))
        self._gather.be_reborn()
        self._outbox.tell(Reborn(self.me.life))

    def _on_endings(self, stream: Stream) -> None:
        endings, stream.slice.endings = stream.slice.endings, []
        for ending in endings:
            record, outcome = ending.record, ending.outcome
            if self._outbox.listening or outcome.status is not Status.SUCCEEDED:
                ran_ms = ending.at_ms - record.started_at_ms if record.started_at_ms else 0
                self._outbox.tell(
                    JobEnded(
                        record.job,
                        record.header.task,
                        record.header.announce,
                        record.attempt,
                        outcome.status,
                        ran_ms,
                        outcome.failure,
                    )
                )
            if ending.displaced is not None:
                displaced = ending.displaced
                self._outbox.tell(DeadLetterDropped(displaced.job, displaced.header.task))
            self._query.on_ended(ending)
            self._broadcast.on_ended(stream, ending)
            self._schedule.on_ended(ending)

    # --- leaving --------------------------------------------------------------------------------------------------

    def _leave(self, asker: Asker, call: Leave, now_ms: int) -> None:
        self._intake.closed = True
        self._calls.go_on(now_ms)
        self._leave_askers.append(asker)
        self._leave_by_ms = now_ms + call.within_ms

    def _leave_if_done(self, now_ms: int) -> None:
        """Nobody takes over from a node that is alone, so it works on what can still end before its time is up."""
        if now_ms < self._leave_by_ms and self._can_go_on():
            return
        self._membership.leave()
        for asker in self._leave_askers:
            self._outbox.answer(asker, Left(self._query.unfinished()))
        self._leave_askers = []

    def _can_go_on(self) -> bool:
        mine = self._roster.mine
        if mine.held:
            return True
        due_ms = self._schedule.deadline_ms(rounds=False)
        soon = due_ms is not None and due_ms < self._leave_by_ms
        ready = any(
            task in mine.specs
            for stream in self._streams
            for task, count in stream.slice.waiting_tasks().items()
            if count
        )
        return mine.has_workers and (soon or ready)
