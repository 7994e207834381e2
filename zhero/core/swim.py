"""What is believed of members, and how news of them spreads.

The rules are SWIM's (Das, Gupta, Motivala 2002) with Lifeguard's (arXiv 1707.00788), as memberlist has them:

- Only a member itself raises its `count`. Being alive is believed at a higher count than known, a suspicion at the same
  count or a higher one. Whoever hears that it is suspected refutes, with a higher count, to all. Who suspects it at a
  lower count has missed that, and is told again.
- A suspect that is not heard is dead after a time that shrinks with each other member that says the same.
- Dead and left are final for a life. A member that learns that others gave it up goes on under its next life.
- News goes to everybody at once, over the links; nothing is passed on. Whoever misses it shows another view in its
  beats, and is told all (`joining.py`).

Hearing somebody is stronger than hearing of somebody: what a member says itself ends a suspicion here, and news of the
death of one whose voice was just heard is not believed but handed on to it, so that it can come back.

A member that takes the place of another (a later life of the same node, or the same port, which nobody else can listen
at) shows that the other is over.

State: life -> its suspicion. Bound: one per member.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ..config import TOMBSTONE_MS, Profile
from .effects import Connect, Disconnect, Outbox
from .facts import Death, IdentityTaken, PeerDied, PeerJoined, PeerLeft, PeerMisbehaved, PeerRefuted, PeerSuspected
from .link import Link
from .messages import Rumours
from .roster import Gone, Roster, Row
from .values import Life, Rumour, Standing

CONFIRMATIONS = 2
"""So many others who say the same make a suspicion as short as it gets."""
HEALTH_MAX = 7
"""Worst health score: this node waits so many times longer, and one, before it thinks ill of others."""
FORGET_EVERY_MS = 60_000


@dataclass(slots=True)
class _Suspicion:
    """Since when, and who said so besides whoever was first."""

    since_ms: int
    first: Life
    others: dict[Life, None] = field(default_factory=dict[Life, None])


class Swim:
    """What this node believes of others, and others of it.

    Args:
        reborn: called when this node begins its next life, with the one that is over.
    """

    def __init__(
        self, roster: Roster, link: Link, profile: Profile, outbox: Outbox, reborn: Callable[[Life, int], None]
    ) -> None:
        self._roster = roster
        self._link = link
        self._profile = profile
        self._outbox = outbox
        self._reborn = reborn
        self._suspicions: dict[Life, _Suspicion] = {}
        self._forget_at_ms: int | None = None
        self.left = False
        self.contested: list[Life] = []  # dead as others say, but just heard: to be looked at by whoever can
        self.health = 0  # Lifeguard's score: how far this node distrusts its own senses

    @property
    def me(self) -> Life:
        return self._roster.mine.life

    @property
    def patience(self) -> int:
        """How many times longer than usual this node waits for others."""
        return self.health + 1

    def ail(self) -> None:
        """Something shows that this node is slow itself."""
        self.health = min(HEALTH_MAX, self.health + 1)

    def recover(self) -> None:
        """An answer came in time."""
        self.health = max(0, self.health - 1)

    # --- news -----------------------------------------------------------------------------------------------------

    def spread(self, told: Rumour) -> None:
        """Tell everybody, also whom it is about."""
        for row in self._roster.others:
            self._outbox.send(row.life, Rumours([told]))

    def on_rumours(self, sender: Life, message: Rumours, now_ms: int) -> None:
        self.hear(sender, message.told, now_ms)

    def hear(self, sender: Life, told: list[Rumour], now_ms: int) -> None:
        """What `sender` believes. Where this node knows better, it says so."""
        better: list[Rumour] = []
        for rumour in told:
            if rumour.member.life.node == self.me.node:
                self._hear_of_me(sender, rumour, now_ms)
            else:
                self._hear_of(sender, rumour, better, now_ms)
        if better and sender in self._roster:
            self._outbox.send(sender, Rumours(better))

    def _hear_of(self, sender: Life, told: Rumour, better: list[Rumour], now_ms: int) -> None:
        life, over = told.member.life, told.standing in (Standing.DEAD, Standing.LEFT)
        gone = self._roster.gone.get(life)
        if gone is not None:
            if not over:
                better.append(gone.rumour)
            return
        row = self._roster.of_node(life.node)
        if row is not None and life < row.life:
            return
        if row is not None and life > row.life:
            self.die(row, Death.REPLACED, now_ms)
            row = None
        if row is None:
            if over:
                self._bury(told, now_ms)
            elif told.joined and not self._roster.is_outlived(life):
                self.admit(told, now_ms)
        elif told.standing is Standing.LEFT:
            self._leave(row, now_ms)
        elif told.standing is Standing.DEAD:
            self._hear_dead(row, told, now_ms)
        elif told.standing is Standing.SUSPECT:
            if told.count >= row.count:
                row.count = told.count
                self.suspect(row, sender, now_ms)
        elif told.count > row.count or (told.count == row.count and told.joined and not row.joined):
            self._roster.number(row, told.count, told.joined or row.joined)
            if row.member != told.member:
                row.member = told.member
                self._outbox.want(Connect(told.member))
            self.relieve(row)

    def _hear_dead(self, row: Row, told: Rumour, now_ms: int) -> None:
        if now_ms - row.heard_at_ms < self._profile.silence_ms * self.patience:
            self._outbox.send(row.life, Rumours([told]))
            self.contested.append(row.life)
        else:
            self.die(row, Death.TOLD, now_ms)

    def _hear_of_me(self, sender: Life, told: Rumour, now_ms: int) -> None:
        mine, life = self._roster.mine, told.member.life
        if life.boot > mine.life.boot:
            self._outbox.tell(IdentityTaken(told.member))
        if life != mine.life or self.left:
            return
        if told.standing is Standing.SUSPECT:
            if told.count >= mine.count:
                mine.count = told.count + 1
                self.ail()
                self.spread(mine.rumour)
            elif sender in self._roster:  # it has missed what was said to all
                self._outbox.send(sender, Rumours([mine.rumour]))
        elif told.standing in (Standing.DEAD, Standing.LEFT):
            self.be_reborn(now_ms)

    def be_reborn(self, now_ms: int) -> None:
        """Others gave this life up: begin the next one."""
        before = self.me
        self._roster.be_reborn()
        self._link.be_reborn(self.me)
        self._reborn(before, now_ms)

    # --- coming and going -----------------------------------------------------------------------------------------

    def admit(self, told: Rumour, now_ms: int) -> Row | None:
        """A member that was not known; None: there is no room for it."""
        member = told.member
        for other in self._roster.others:
            if other.member.endpoint == member.endpoint and not (other.member.advertised or member.advertised):
                if other.life.boot > member.life.boot:
                    return None  # news of one whose place has been taken
                self.die(other, Death.REPLACED, now_ms)
                break
        row = self._roster.add(told, now_ms)
        if row is None:
            self._outbox.tell(PeerMisbehaved(member.life, "can't be taken in: the roster is full"))
            return None
        self._outbox.want(Connect(member))
        self._link.open(member.life)
        self._outbox.tell(PeerJoined(member, row.joined))
        return row

    def suspect(self, row: Row, source: Life, now_ms: int) -> None:
        """`source`, this node or another, has not heard it for too long."""
        suspicion = self._suspicions.get(row.life)
        if suspicion is None:
            self._suspicions[row.life] = _Suspicion(now_ms, source)
            row.standing = Standing.SUSPECT
            self._outbox.tell(PeerSuspected(row.member, self._dead_at_ms(row.life) - now_ms))
        elif source == suspicion.first or source in suspicion.others:
            return
        else:
            suspicion.others[source] = None
        if source == self.me:
            for other in self._roster.others:
                if other is not row:
                    self._outbox.send(other.life, Rumours([row.rumour]))
        # Only it can refute, whoever suspects it may not reach it, and it may not know this node yet.
        self._outbox.send(row.life, Rumours([self._roster.mine.rumour, row.rumour]))

    def relieve(self, row: Row) -> None:
        """It is well after all."""
        if self._suspicions.pop(row.life, None) is not None:
            row.standing = Standing.ALIVE
            self._outbox.tell(PeerRefuted(row.member))

    def die(self, row: Row, how: Death, now_ms: int) -> None:
        """It is given up. Whoever finds out himself tells the others."""
        self._remove(row, Standing.DEAD, now_ms)
        self._outbox.tell(PeerDied(row.member, how))
        if how is not Death.TOLD:
            self.spread(Rumour(row.member, Standing.DEAD, row.count, row.joined))

    def _leave(self, row: Row, now_ms: int) -> None:
        self._remove(row, Standing.LEFT, now_ms)
        self._outbox.tell(PeerLeft(row.member))

    def _remove(self, row: Row, standing: Standing, now_ms: int) -> None:
        self._suspicions.pop(row.life, None)
        self._roster.remove(row, standing, now_ms)
        self._link.close(row.life)
        self._outbox.want(Disconnect(row.life))
        if self._forget_at_ms is None:
            self._forget_at_ms = now_ms + FORGET_EVERY_MS

    def _bury(self, told: Rumour, now_ms: int) -> None:
        self._roster.bury(Gone(told.member, told.standing, told.count, told.joined, now_ms))
        if self._forget_at_ms is None:
            self._forget_at_ms = now_ms + FORGET_EVERY_MS

    def leave(self) -> None:
        """Say farewell to everybody; nothing that is said of this life afterwards matters."""
        if not self.left:
            self.left = True
            self._roster.mine.standing = Standing.LEFT
            self.spread(self._roster.mine.rumour)

    # --- time -----------------------------------------------------------------------------------------------------

    def _dead_at_ms(self, life: Life) -> int:
        """When a suspect is given up.

        Source: memberlist `suspicion.go`: max - (max - min) * log(c + 1) / log(k + 1).
        """
        suspicion, members = self._suspicions[life], len(self._roster.others) + 1
        least = self._profile.suspicion_ms * max(1.0, math.log10(members))
        needed = min(CONFIRMATIONS, members - 2)
        span = least
        if needed > 0:
            most = least * self._profile.suspicion_max
            share = math.log(len(suspicion.others) + 1) / math.log(needed + 1)
            span = max(least, most - (most - least) * share)
        return suspicion.since_ms + round(span)

    def shift(self, span_ms: int) -> None:
        """This node did not run for a while: that is no one else's silence."""
        for suspicion in self._suspicions.values():
            suspicion.since_ms += span_ms

    def tick(self, now_ms: int) -> None:
        # A death makes the others' time shorter, so look again after each.
        while (life := next((it for it in self._suspicions if self._dead_at_ms(it) <= now_ms), None)) is not None:
            row = self._roster.get(life)
            assert row is not None
            self.die(row, Death.SILENT, now_ms)
        if self._forget_at_ms is not None and self._forget_at_ms <= now_ms:
            self._roster.forget(now_ms - TOMBSTONE_MS)
            self._forget_at_ms = now_ms + FORGET_EVERY_MS if self._roster.gone else None

    def deadline_ms(self) -> int | None:
        deadlines = [self._dead_at_ms(life) for life in self._suspicions]
        if self._forget_at_ms is not None:
            deadlines.append(self._forget_at_ms)
        return min(deadlines, default=None)
