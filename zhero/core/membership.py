"""Who is a member, as one: wires link, rumours, probes and joining, and sorts what arrives.

A frame is heard if it is to this life, or to whoever is here, and:

- its sender is a member: it was just heard, its receipts and numbered messages go through the link;
- its sender's life is over: it is told so, and nothing else it says counts;
- its sender is a stranger: a client may ask, a process that wants to join says `Sync`, and a member of which this one
  has not heard may suspect it. The rest is dropped.

What is about jobs is handed on to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from ..config import Profile
from .effects import Outbox
from .facts import IdentityTaken, PeerMisbehaved
from .joining import Joining
from .link import Link
from .messages import (
    AskTasks,
    Beat,
    Frame,
    GiveUp,
    Hello,
    IdentityInUse,
    MemberStatus,
    Message,
    Ping,
    PingFor,
    Pong,
    PongFor,
    ProbedFor,
    ProbeFor,
    Request,
    Rumours,
    Sync,
    Tasks,
)
from .probing import Probing
from .roster import Roster, Row, hash_of
from .swim import Swim
from .values import Life, Rumour, Standing

OF_CLIENTS = (Request, GiveUp, Hello)
CREEP_MS = 6
"""What may be unsure, from one beat to the next, about another's clock: 1 % of the span between two."""
ASK_TASKS_MS = 2_000
"""A task table is not asked for more often."""


class Membership:
    """This node's place among the others.

    Args:
        on_joined: called when it has become a member.
        on_reborn: called when it goes on under its next life, with the one before.
        on_tasks_changed: called when another member has said what it can run.
    """

    def __init__(
        self,
        roster: Roster,
        profile: Profile,
        outbox: Outbox,
        rng: Random,
        now_ms: int,
        on_joined: Callable[[int], None],
        on_reborn: Callable[[Life, int], None],
        on_tasks_changed: Callable[[int], None],
        solo_after_ms: int,
    ) -> None:
        self._roster = roster
        self._outbox = outbox
        self._on_reborn = on_reborn
        self._on_tasks_changed = on_tasks_changed
        self.link = Link(roster.mine.life, profile, outbox)
        self._swim = Swim(roster, self.link, profile, outbox, self._be_reborn)
        self._probing = Probing(roster, self._swim, profile, outbox, rng, now_ms)
        self._joining = Joining(roster, self._swim, self._probing, profile, outbox, rng, on_joined, solo_after_ms)
        self._tasks_asked_ms: dict[Life, int] = {}
        self._farewells: list[tuple[Life, Rumours]] = []
        self._hear: dict[type[Any], Callable[[Life, Any, int], None]] = {
            Ping: self._probing.on_ping,
            Pong: self._probing.on_pong,
            PingFor: self._probing.on_ping_for,
            PongFor: self._probing.on_pong_for,
            ProbeFor: self._probing.on_probe_for,
            ProbedFor: self._probing.on_probed_for,
            Rumours: self._swim.on_rumours,
            Sync: self._joining.on_sync,
            Beat: self._on_beat,
            AskTasks: self._on_ask_tasks,
            Tasks: self._on_tasks,
            IdentityInUse: self._on_identity_in_use,
        }

    # --- input ----------------------------------------------------------------------------------------------------

    def start(self, seeds: Sequence[str], now_ms: int) -> None:
        """Look for the others."""
        self._joining.start(seeds, now_ms)

    def on_seeds(self, seeds: Sequence[str], now_ms: int) -> None:
        self._joining.on_seeds(seeds, now_ms)

    def notice(self, now_ms: int) -> None:
        """Before all else in a turn: has this node slept?"""
        self._probing.notice(now_ms)

    def on_lost(self, life: Life, now_ms: int) -> None:
        self._probing.on_lost(life, now_ms)

    def on_probed(self, life: Life, refused: bool, now_ms: int) -> None:
        self._probing.on_probed(life, refused, now_ms)

    def receive(self, frame: Frame, now_ms: int) -> list[Message]:
        """Hear a frame.

        Returns:
            What in it is not about membership: of a member, or of a client.
        """
        sender, me = frame.sender, self._roster.mine.life
        if frame.to is not None and frame.to != me:
            return []  # for another process, or for a life that is over: whoever said it learns so by our beats
        row = self._roster.get(sender)
        if row is self._roster.mine:
            return []
        if row is not None:
            if frame.to is None and not frame.numbered and len(frame.messages) == 1:
                (beat,) = frame.messages
                if type(beat) is Beat:  # nearly all that an idle node hears
                    self._hear_beat(row, beat, now_ms)
                    return []
            return self._receive_from(row, frame, now_ms)
        gone = self._roster.gone.get(sender)
        if gone is not None:
            self._hear_about_me(frame, now_ms)  # each may have given up the other
            self._joining.on_ghost(gone, now_ms)
            return []
        return self._receive_from_stranger(frame, now_ms)

    def _receive_from(self, row: Row, frame: Frame, now_ms: int) -> list[Message]:
        rest: list[Message] = []
        numbered = self.link.receive(frame, now_ms)
        for message in [*frame.messages, *numbered]:
            hear = self._hear.get(type(message))
            if hear is None:
                rest.append(message)
            elif isinstance(message, Rumours) and any(
                told.member.life == row.life and told.standing is Standing.LEFT for told in message.told
            ):
                self._farewells.append((row.life, message))  # after all else that it has said
            elif row.life in self._roster:  # it may have said farewell just now
                hear(row.life, message, now_ms)
        if row.life in self._roster:
            self._probing.heard(row, now_ms)
        contested, self._swim.contested = self._swim.contested, []
        for life in contested:
            self._probing.on_lost(life, now_ms)
        return rest

    def _receive_from_stranger(self, frame: Frame, now_ms: int) -> list[Message]:
        rest: list[Message] = []
        for message in frame.messages:
            if isinstance(message, OF_CLIENTS):
                rest.append(message)
            elif isinstance(message, Sync):
                self._joining.on_sync(frame.sender, message, now_ms)
            elif isinstance(message, IdentityInUse):
                self._on_identity_in_use(frame.sender, message, now_ms)
            elif type(message) not in self._hear:
                self._outbox.tell(PeerMisbehaved(frame.sender, f"sent a {type(message).__name__}"))
        self._hear_about_me(frame, now_ms)
        return rest

    def _hear_about_me(self, frame: Frame, now_ms: int) -> None:
        """One that is no member here says that this life is over there, or suspected: that is all that it may say."""
        for message in frame.messages:
            if isinstance(message, Rumours):
                about_me = [told for told in message.told if told.member.life == self._roster.mine.life]
                self._swim.hear(frame.sender, about_me, now_ms)
                self._answer_stranger(frame.sender, message, about_me)

    def _answer_stranger(self, sender: Life, message: Rumours, about_me: list[Rumour]) -> None:
        """A member of which this one has not heard says who it is, so that it can be refuted, and met."""
        its = next((told for told in message.told if told.member.life == sender), None)
        suspected = any(told.standing is Standing.SUSPECT for told in about_me)
        if its is not None and suspected and sender not in self._roster.gone:
            self._joining.meet(its.member)

    @property
    def has_farewells(self) -> bool:
        return bool(self._farewells)

    def hear_farewells(self, now_ms: int) -> None:
        """Those that left with this frame are gone, now that all that they said has been heard."""
        farewells, self._farewells = self._farewells, []
        for sender, message in farewells:
            self._swim.on_rumours(sender, message, now_ms)

    # --- beats and task tables ------------------------------------------------------------------------------------

    def beat(self, now_ms: int, slots: int) -> Frame:
        """What this node publishes; its heart puts the number and the age in."""
        mine = self._roster.mine
        beat = Beat(0, mine.joined, self._roster.view, mine.tasks, slots, mine.busy, 0, at_ms=now_ms)
        return Frame(mine.life, None, [beat])

    def _on_beat(self, sender: Life, beat: Beat, now_ms: int) -> None:
        row = self._roster.get(sender)
        assert row is not None
        self._hear_beat(row, beat, now_ms)

    def _hear_beat(self, row: Row, beat: Beat, now_ms: int) -> None:
        self._probing.on_beat(row, beat)
        if beat.at_ms:
            behind_ms = now_ms - beat.at_ms
            # The least is nearest the truth: all else was on its way for longer. It creeps, for clocks drift.
            row.behind_ms = behind_ms if row.behind_ms is None else min(behind_ms, row.behind_ms + CREEP_MS)
        self._probing.heard(row, now_ms)
        self._joining.on_view(row, now_ms)
        if beat.tasks != row.tasks:
            asked_ms = self._tasks_asked_ms.get(row.life)
            if asked_ms is None or now_ms - asked_ms >= ASK_TASKS_MS:
                self._tasks_asked_ms[row.life] = now_ms
                self._outbox.post(row.life, AskTasks())

    def _on_ask_tasks(self, sender: Life, message: AskTasks, now_ms: int) -> None:
        self.show_tasks(sender)

    def show_tasks(self, to: Life) -> None:
        """Say what this node can run."""
        specs = list(self._roster.mine.specs.values())
        self._outbox.post(to, Tasks(specs), 100 * len(specs))

    def _on_tasks(self, sender: Life, message: Tasks, now_ms: int) -> None:
        row = self._roster.get(sender)
        assert row is not None
        row.specs = {spec.name: spec for spec in message.specs}
        row.tasks = hash_of(row.specs)
        self._on_tasks_changed(now_ms)

    def _on_identity_in_use(self, sender: Life, message: IdentityInUse, now_ms: int) -> None:
        if message.member.life.node == self._roster.mine.life.node:
            self._outbox.tell(IdentityTaken(message.member))

    # --- being one ------------------------------------------------------------------------------------------------

    @property
    def is_member(self) -> bool:
        """False: it still looks for the others."""
        return self._joining.is_member

    @property
    def is_doubtful(self) -> bool:
        """Whether it does not know if the others still count it."""
        return self._probing.is_doubtful

    def _be_reborn(self, before: Life, now_ms: int) -> None:
        self._probing.be_reborn(now_ms)
        self._joining.be_reborn(now_ms)
        self._tasks_asked_ms.clear()
        self._on_reborn(before, now_ms)

    def leave(self) -> None:
        """Say farewell."""
        self._swim.leave()

    def statuses(self, owner: Life | None, degraded: int, now_ms: int) -> list[MemberStatus]:
        """What is known of each member, in the order in which they joined."""
        rows = sorted(self._roster, key=lambda row: (row.joined or 1 << 62, row.life))
        return [self._status(row, owner, degraded, now_ms) for row in rows]

    def _status(self, row: Row, owner: Life | None, degraded: int, now_ms: int) -> MemberStatus:
        mine = row is self._roster.mine
        return MemberStatus(
            member=row.member,
            owner=row.life == owner,
            slots=row.slots,
            busy=row.busy,
            tasks=sorted(row.specs),
            standing=row.standing,
            joined=row.joined,
            lagging=row.lagging,
            silent_ms=0 if mine else max(0, now_ms - row.heard_at_ms),
            mine=mine,
            degraded=degraded if mine else 0,
        )

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        self._probing.tick(now_ms)
        self._swim.tick(now_ms)
        self._joining.tick(now_ms)

    def settle(self) -> None:
        """After any change."""
        self._probing.settle()
        self._joining.settle()
        if len(self._tasks_asked_ms) > len(self._roster.others):
            for life in [life for life in self._tasks_asked_ms if life not in self._roster]:
                del self._tasks_asked_ms[life]

    def deadline_ms(self) -> int | None:
        deadlines = [it.deadline_ms() for it in (self._probing, self._swim, self._joining, self.link)]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def check(self) -> None:
        """Raises:
        Bug: an invariant does not hold.
        """
        self.link.check()
        self._roster.check()
