"""Who is silent, and whether that is its fault or ours.

Everybody hears everybody's beats, so nobody is probed as long as it beats. Three ways to find out about a death:

1. *Refused.* A connection to the member was up and is lost (a hint), so a plain connect is tried. Where it is refused
   nobody listens there any more, the host itself says so. One other member is asked to try too; if it does not answer
   in `refused_ms` it does not count. Well under a second after a SIGKILL. It shows nothing where the address is not
   the member's own socket, where the listener is paused, or where a beat came meanwhile.
2. *Silence.* Nothing heard for `silence_ms`: it is pinged, and up to `HELPERS` others are asked whether they hear it.
   No good answer in time: it is suspected (`swim.py`).
3. It says farewell.

A node's own pause (its process was stopped, its machine asleep) is never counted as the silence of others: all that is
waited for is put off by it. After a longer one (`pause_ms`) it may have been given up meanwhile, so it is *doubtful*,
and starts nothing, until a member answers it, or by its own detection none is left.

A member whose loop is late says so in its beats, which its heart goes on sending: it is lagging, not silent.

State: what is being asked, by the number of the question. Bound: `ERRANDS_MAX_COUNT`, and one question per member.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ..config import Profile
from .effects import Knock, Outbox, Probe
from .facts import Confirmed, Death, Paused, PeerLagging
from .messages import Beat, Frame, IdentityInUse, Ping, PingFor, Pong, PongFor, ProbedFor, ProbeFor
from .roster import Roster, Row
from .swim import Swim
from .values import Life, Member, Standing

HELPERS = 3
ERRANDS_MAX_COUNT = 1_000
"""Questions of others that this node is asking on; more are not answered."""
PROBE_EVERY_MS = 1_000
"""A member is not connected to for a probe more often."""


@dataclass(slots=True)
class _Check:
    """A silent member is asked: suspected at `until_ms` unless something is heard of it.

    `rival`: another process says that it is the same node; then it is not suspected but replaced.
    """

    ref: int
    since_ms: int
    until_ms: int
    rival: Member | None = None


@dataclass(slots=True)
class _Connect:
    """A member is tried. `refused`: here; then another's opinion is waited for until `until_ms`."""

    ref: int
    since_ms: int
    refused: bool = False
    until_ms: int | None = None


@dataclass(slots=True)
class _Errand:
    """Asked for another member. `ref`: its number of the question; `ping`: it is a ping, else a connect."""

    asker: Life
    ref: int
    target: Life
    ping: bool
    since_ms: int
    until_ms: int


class Probing:
    """Asks after silent members, for itself and for others."""

    def __init__(self, roster: Roster, swim: Swim, profile: Profile, outbox: Outbox, rng: Random, now_ms: int) -> None:
        self._roster = roster
        self._swim = swim
        self._profile = profile
        self._outbox = outbox
        self._rng = rng
        self._ref = 0
        self._checks: dict[Life, _Check] = {}
        self._connects: dict[Life, _Connect] = {}
        self._tried_at_ms: dict[Life, int] = {}
        self._errands: dict[int, _Errand] = {}
        self._turned_at_ms = now_ms
        self._ticked_at_ms = now_ms
        self._doubt_ref = 0  # the ping that ends the doubt; 0: there is none
        self._doubt_again_ms = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether this node does not know if it is still counted: it starts nothing."""
        return self._doubt_ref != 0

    # --- the own pause --------------------------------------------------------------------------------------------

    def notice(self, now_ms: int) -> None:
        """The first thing in each turn: has this node slept?"""
        late_ms = now_ms - self._turned_at_ms - self._profile.beat_ms
        self._turned_at_ms = now_ms
        if late_ms < self._profile.beat_ms or not self._roster.others:
            return
        for row in self._roster.others:
            row.heard_at_ms += late_ms
        grace_ms = late_ms + self._profile.beat_ms + 2 * self._profile.ping_ms
        for check in self._checks.values():
            check.until_ms += grace_ms
            check.since_ms += late_ms
        for errand in self._errands.values():
            errand.until_ms += late_ms
        self._connects.clear()
        self._swim.shift(grace_ms)
        self._swim.ail()
        if late_ms >= self._profile.pause_ms and not self._swim.left:
            if not self._doubt_ref:
                self._outbox.tell(Paused(late_ms))
            self._ask_about_me(now_ms)

    def _ask_about_me(self, now_ms: int) -> None:
        self._ref += 1
        self._doubt_ref = self._ref
        self._doubt_again_ms = now_ms + self._profile.ping_ms
        for row in self._roster.others:
            self._outbox.send(row.life, Ping(self._ref))

    def _confirm_if_alone(self) -> None:
        if not self._roster.others:
            self._confirm()

    def _confirm(self) -> None:
        self._doubt_ref = 0
        self._outbox.tell(Confirmed())

    def be_reborn(self, now_ms: int) -> None:
        """A new life: whether that one is counted is open again, if it was."""
        if self._doubt_ref:
            self._ask_about_me(now_ms)

    # --- hearing --------------------------------------------------------------------------------------------------

    def heard(self, row: Row, now_ms: int) -> None:
        """Something came from that member itself."""
        if now_ms > row.heard_at_ms:
            row.heard_at_ms = now_ms
        if self._checks:
            check = self._checks.get(row.life)
            if check is not None and check.rival is None:
                del self._checks[row.life]
        if row.standing is Standing.SUSPECT:
            self._swim.relieve(row)

    def on_beat(self, row: Row, beat: Beat) -> None:
        """A member's beat, as far as its health goes."""
        row.beats_count, row.view = beat.number, beat.view
        row.slots, row.busy, row.paused = beat.slots, beat.held, beat.paused
        row.age_ms = beat.age_ms
        lagging = beat.age_ms > self._profile.lag_ms
        if lagging is not row.lagging:
            row.lagging = lagging
            self._outbox.tell(PeerLagging(row.member, beat.age_ms, lagging))

    def on_ping(self, sender: Life, message: Ping, now_ms: int) -> None:
        self._outbox.send(sender, Pong(message.ref))

    def on_pong(self, sender: Life, message: Pong, now_ms: int) -> None:
        if self._doubt_ref and message.ref == self._doubt_ref:
            self._confirm()
        check = self._checks.get(sender)
        if check is not None and check.ref == message.ref:
            self._swim.recover()
            del self._checks[sender]
            row = self._roster.get(sender)
            if check.rival is not None and row is not None:
                self._refuse(check.rival, row)
        errand = self._errands.get(message.ref)
        if errand is not None and errand.ping and errand.target == sender:
            del self._errands[message.ref]
            self._outbox.send(errand.asker, PongFor(errand.ref, sender, True))

    def on_ping_for(self, sender: Life, message: PingFor, now_ms: int) -> None:
        target = self._roster.get(message.target)
        if target is None or target is self._roster.mine:
            self._outbox.send(sender, PongFor(message.ref, message.target, target is not None))
        elif now_ms - target.heard_at_ms <= 2 * self._profile.beat_ms:
            self._outbox.send(sender, PongFor(message.ref, message.target, True))
        elif len(self._errands) < ERRANDS_MAX_COUNT:
            ref = self._go(sender, message.ref, message.target, True, now_ms, self._profile.ping_ms)
            self._outbox.send(target.life, Ping(ref))

    def on_pong_for(self, sender: Life, message: PongFor, now_ms: int) -> None:
        row, check = self._roster.get(message.target), self._checks.get(message.target)
        if row is None or check is None or check.ref != message.ref or check.rival is not None:
            return
        if message.heard:
            row.heard_at_ms = max(row.heard_at_ms, now_ms)
            del self._checks[message.target]

    def _go(self, asker: Life, ref: int, target: Life, ping: bool, now_ms: int, span_ms: int) -> int:
        self._ref += 1
        self._errands[self._ref] = _Errand(asker, ref, target, ping, now_ms, now_ms + span_ms)
        return self._ref

    # --- refused connects -----------------------------------------------------------------------------------------

    def on_lost(self, life: Life, now_ms: int) -> None:
        """A connection to that member was up and is lost."""
        row = self._roster.get(life)
        if row is not None and row is not self._roster.mine:
            self._try(row, now_ms)

    def _try(self, row: Row, now_ms: int) -> None:
        tried_at_ms = self._tried_at_ms.get(row.life)
        if not self._can_show(row) or row.life in self._connects:
            return
        if tried_at_ms is not None and now_ms - tried_at_ms < PROBE_EVERY_MS:
            return
        self._ref += 1
        self._tried_at_ms[row.life] = now_ms
        self._connects[row.life] = _Connect(self._ref, now_ms, until_ms=now_ms + 2 * PROBE_EVERY_MS)
        self._outbox.want(Probe(row.member))

    def _can_show(self, row: Row) -> bool:
        """Whether a refused connect would show that it is dead."""
        return row.beats_count > 0 and not row.member.advertised and not row.paused

    def on_probed(self, life: Life, refused: bool, now_ms: int) -> None:
        """A plain connect to that member has ended."""
        row = self._roster.get(life)
        for ref, errand in list(self._errands.items()):
            if not errand.ping and errand.target == life:
                silent = row is None or row.heard_at_ms <= errand.since_ms
                self._outbox.send(errand.asker, ProbedFor(errand.ref, life, refused and silent))
                del self._errands[ref]
        connect = self._connects.get(life)
        if connect is None:
            return
        if row is None or not refused or not self._can_show(row) or row.heard_at_ms > connect.since_ms:
            del self._connects[life]
            return
        helpers = [other for other in self._roster.others if other is not row and other.standing is Standing.ALIVE]
        if not helpers:
            self._die(row, now_ms)
            return
        connect.refused, connect.until_ms = True, now_ms + self._profile.refused_ms
        self._outbox.send(self._rng.choice(helpers).life, ProbeFor(connect.ref, life))

    def on_probe_for(self, sender: Life, message: ProbeFor, now_ms: int) -> None:
        target = self._roster.get(message.target)
        if target is None or not target.beats_count:
            if message.target in self._roster.gone:  # given up here already
                self._outbox.send(sender, ProbedFor(message.ref, message.target, True))
            # Else it was never heard here, as by a member that has only just come: that is no opinion, so say none.
        elif target is self._roster.mine or not self._can_show(target):
            self._outbox.send(sender, ProbedFor(message.ref, message.target, False))
        elif len(self._errands) < ERRANDS_MAX_COUNT:
            self._go(sender, message.ref, message.target, False, now_ms, 2 * PROBE_EVERY_MS)
            self._outbox.want(Probe(target.member))

    def on_probed_for(self, sender: Life, message: ProbedFor, now_ms: int) -> None:
        connect, row = self._connects.get(message.target), self._roster.get(message.target)
        if connect is None or row is None or connect.ref != message.ref or not connect.refused:
            return
        if message.refused and row.heard_at_ms <= connect.since_ms:
            self._die(row, now_ms)
        else:
            del self._connects[message.target]

    def _die(self, row: Row, now_ms: int) -> None:
        self._connects.pop(row.life, None)
        self._swim.die(row, Death.REFUSED, now_ms)

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Ask after those that are silent, and draw conclusions where nobody answered."""
        self._ticked_at_ms = now_ms
        for row in list(self._roster.others):
            check = self._checks.get(row.life)
            if check is not None:
                if now_ms >= check.until_ms:
                    del self._checks[row.life]
                    if check.rival is not None:
                        if row.heard_at_ms > check.since_ms:
                            self._refuse(check.rival, row)
                        else:
                            self._swim.die(row, Death.REPLACED, now_ms)
                        continue
                    self._swim.suspect(row, self._swim.me, now_ms)
                    self._try(row, now_ms)
            elif now_ms >= self._silent_at_ms(row):
                self._ask_after(row, now_ms)
        for life, connect in list(self._connects.items()):
            if connect.until_ms is not None and now_ms >= connect.until_ms:
                tried = self._roster.get(life)
                del self._connects[life]
                if connect.refused and tried is not None and tried.heard_at_ms <= connect.since_ms:
                    self._die(tried, now_ms)
        for ref, errand in list(self._errands.items()):
            if now_ms >= errand.until_ms:
                del self._errands[ref]
                if errand.ping:
                    self._outbox.send(errand.asker, PongFor(errand.ref, errand.target, False))
        if self._doubt_ref and now_ms >= self._doubt_again_ms:
            self._ask_about_me(now_ms)

    def settle(self) -> None:
        """Forget questions about those that are gone."""
        for asked in (self._checks, self._connects, self._tried_at_ms):
            if asked:
                for life in [life for life in asked if life not in self._roster]:
                    del asked[life]
        if self._doubt_ref:
            self._confirm_if_alone()

    def _ask_after(self, row: Row, now_ms: int) -> None:
        self._ref += 1
        span_ms = 2 * self._profile.ping_ms * self._swim.patience
        self._checks[row.life] = _Check(self._ref, now_ms, now_ms + span_ms)
        self._outbox.send(row.life, Ping(self._ref))
        helpers = [other for other in self._roster.others if other is not row and other.standing is Standing.ALIVE]
        for helper in self._rng.sample(helpers, min(HELPERS, len(helpers))):
            self._outbox.send(helper.life, PingFor(self._ref, row.life))
        self._try(row, now_ms)

    def _refuse(self, rival: Member, row: Row) -> None:
        """The one that is known is alive: the other has to stop."""
        self._outbox.want(Knock(rival.endpoint, Frame(self._swim.me, None, [IdentityInUse(row.member)])))

    def contest(self, row: Row, rival: Member, now_ms: int) -> None:
        """Another process says that it is this node: it is, if the one that we know does not answer."""
        if row.life not in self._checks:
            self._ref += 1
            # Longer than a beat takes: its heart speaks for it while its loop is blocked.
            span_ms = max(2 * self._profile.beat_ms, self._profile.ping_ms)
            self._checks[row.life] = _Check(self._ref, now_ms, now_ms + span_ms, rival)
            self._outbox.send(row.life, Ping(self._ref))

    def _silent_at_ms(self, row: Row) -> int:
        return row.heard_at_ms + self._profile.silence_ms * self._swim.patience

    def deadline_ms(self) -> int | None:
        """While there are others a tick is needed at each beat: for their silence, and for an own pause."""
        if not self._roster.others:
            return None
        deadlines = [self._ticked_at_ms + self._profile.beat_ms]
        deadlines += [check.until_ms for check in self._checks.values()]
        deadlines += [connect.until_ms for connect in self._connects.values() if connect.until_ms is not None]
        deadlines += [errand.until_ms for errand in self._errands.values()]
        if self._doubt_ref:
            deadlines.append(self._doubt_again_ms)
        return min(deadlines)
