"""How a node becomes a member, and how views that differ become one again.

A node that knows seeds or neighbours says `Sync` to each until one takes it in: a member answers with all that it
believes, and with the newcomer's join number, one more than the highest it knows. Of nodes that start together and
find no member, the one with the lowest life begins the cluster as number 1. Who is not answered at all begins alone
after `solo_after_ms`; who knows nobody begins at once.

Views heal by three means. A beat carries a hash of the sender's view: where it differs for `sync_ms` the two compare
all that they believe, in one exchange. A life that was given up and still speaks is told so, and comes back under its
next one. And seeds, as well as those that are dead, are tried again and again (`retry_ms`), which is what ends a split
after which neither side knows the other any more.

State: what to try, and when. Bounds: `JOIN` addresses as they are given; `RETRY_COUNT` dead ones at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ..config import Profile
from .effects import Knock, Outbox
from .facts import Death, Joined
from .messages import Frame, IdentityInUse, Message, Rumours, Sync
from .probing import Probing
from .roster import Gone, Roster, Row
from .swim import Swim
from .values import Life, Member, Rumour, Standing

FIRST_RETRY_MS = 200
"""An unanswered join is repeated after this span, then after twice as long, up to `beat_ms` times 4."""
FOUND_AFTER_MS = 400
"""A node that has looked for members in vain for so long may begin the cluster for others who have not joined."""
YIELD_MS = 2_500
"""It does not as long as one that was started earlier has been heard to look for members, within this span."""
RETRY_COUNT = 8
SYNC_PER_BEAT = 4
"""At most so many exchanges of views are begun per beat interval."""


class Joining:
    """Finds members, and lets them in.

    Args:
        joined: called when this node has become a member.
        solo_after_ms: without an answer for so long it begins alone.
    """

    def __init__(
        self,
        roster: Roster,
        swim: Swim,
        probing: Probing,
        profile: Profile,
        outbox: Outbox,
        rng: Random,
        joined: Callable[[int], None],
        solo_after_ms: int,
    ) -> None:
        self._roster = roster
        self._swim = swim
        self._probing = probing
        self._profile = profile
        self._outbox = outbox
        self._rng = rng
        self._joined = joined
        self._solo_after_ms = solo_after_ms
        self._seeds: dict[str, None] = {}
        self._solo_at_ms: int | None = None
        self._found_at_ms = 0
        self._retry_at_ms: int | None = None
        self._retry_span_ms = FIRST_RETRY_MS
        self._differs_since_ms: dict[Life, int] = {}
        self._sync_again_ms = 0
        self._told_at_ms: dict[Life, int] = {}

    @property
    def is_member(self) -> bool:
        return self._roster.mine.joined > 0

    # --- seeds ----------------------------------------------------------------------------------------------------

    def start(self, seeds: Sequence[str], now_ms: int) -> None:
        """Begin: alone if there is nobody to look for."""
        self._seeds = dict.fromkeys(seed for seed in seeds if seed != self._roster.mine.member.endpoint)
        if self._seeds:
            self._solo_at_ms = now_ms + self._solo_after_ms
            self._found_at_ms = now_ms + FOUND_AFTER_MS
            self._retry_at_ms = now_ms
        else:
            self._become(1, now_ms)

    def on_seeds(self, seeds: Sequence[str], now_ms: int) -> None:
        """What the addresses of others are now; new ones are tried at once."""
        found = dict.fromkeys(seed for seed in seeds if seed != self._roster.mine.member.endpoint)
        if any(seed not in self._seeds for seed in found):
            self._retry_at_ms = now_ms
        self._seeds = found

    def _become(self, number: int, now_ms: int) -> None:
        mine = self._roster.mine
        # Several may have given this node a number each; from this count on there is one.
        self._roster.number(mine, mine.count + 1, number)
        self._solo_at_ms = None
        self._retry_at_ms = self._next_retry_ms(now_ms)
        self._swim.spread(mine.rumour)
        if self._roster.others or self._seeds:
            self._outbox.tell(Joined(number, len(self._roster.others)))
        self._joined(now_ms)

    def _next_retry_ms(self, now_ms: int) -> int:
        span_ms = self._profile.retry_ms
        return now_ms + span_ms // 2 + self._rng.randrange(span_ms)

    def _retry(self, now_ms: int) -> None:
        """Try the seeds and, as a member, those that are dead."""
        here = {row.member.endpoint for row in self._roster}
        tried = [seed for seed in self._seeds if seed not in here]
        if self.is_member:
            dead = [gone for gone in self._roster.gone.values() if gone.standing is Standing.DEAD]
            places = list(dict.fromkeys(gone.member.endpoint for gone in dead))
            places = [place for place in places if place not in here and place not in self._seeds]
            tried += self._rng.sample(places, min(RETRY_COUNT, len(places)))
            self._retry_at_ms = self._next_retry_ms(now_ms)
        else:
            self._retry_at_ms = now_ms + self._retry_span_ms
            self._retry_span_ms = min(4 * self._profile.beat_ms, 2 * self._retry_span_ms)
        for endpoint in tried:
            self._knock(endpoint, self._sync(wanted=True))

    def _knock(self, endpoint: str, message: Message) -> None:
        self._outbox.want(Knock(endpoint, Frame(self._swim.me, None, [message])))

    # --- views ----------------------------------------------------------------------------------------------------

    def _sync(self, *, wanted: bool) -> Sync:
        told = [self._roster.mine.rumour]
        told += [row.rumour for row in self._roster.others]
        return Sync(told, wanted)

    def on_sync(self, sender: Life, message: Sync, now_ms: int) -> None:
        """What another believes, itself first: maybe one that wants to join, maybe one of another cluster."""
        if not message.told or message.told[0].member.life != sender or sender.node == self._swim.me.node:
            self._hear_a_rival(sender, message)
            return
        its = message.told[0]
        row = self._roster.get(sender)
        if row is None:
            row = self._let_in(its, now_ms)
        if row is None:
            return
        row.heard_at_ms = max(row.heard_at_ms, now_ms)
        for told in message.told:
            if told.member.life == self._swim.me and told.joined and not self.is_member:
                self._become(told.joined, now_ms)
        self._swim.hear(sender, message.told, now_ms)
        if message.wanted and sender in self._roster:
            self._outbox.send(sender, self._sync(wanted=False))

    def meet(self, member: Member) -> None:
        """That one counts this node as a member, and this one has not heard of it."""
        if not self._swim.left:
            self._knock(member.endpoint, self._sync(wanted=True))

    def _hear_a_rival(self, sender: Life, message: Sync) -> None:
        """Somebody says that it is this node: a copy that wants to join, or, where both are members, the later one."""
        if not message.told or sender.node != self._swim.me.node or sender.boot == self._swim.me.boot:
            return
        its = message.told[0]
        if self.is_member and (not its.joined or sender.boot > self._swim.me.boot):
            self._knock(its.member.endpoint, IdentityInUse(self._roster.mine.member))

    def _let_in(self, its: Rumour, now_ms: int) -> Row | None:
        """A process that is no member here speaks. None: it is not let in, now or at all."""
        life = its.member.life
        earlier = self._roster.of_node(life.node)
        if earlier is not None and earlier.life.boot != life.boot:
            self._probing.contest(earlier, its.member, now_ms)
            return None
        if earlier is not None and earlier.life > life:
            return None
        if earlier is not None:
            self._swim.die(earlier, Death.REPLACED, now_ms)
        if its.joined:
            return self._admit(its, now_ms) if self.is_member else self._swim.admit(its, now_ms)
        if not self.is_member:
            if not self._is_founder(life):
                self._found_at_ms = now_ms + YIELD_MS  # that one is to begin, and to let us in
                self._knock(its.member.endpoint, self._sync(wanted=True))  # it may not know of us
            if now_ms < self._found_at_ms:
                return None  # its next try finds us wiser
            self._become(1, now_ms)
        number = self._roster.joined_max + 1
        return self._admit(Rumour(its.member, Standing.ALIVE, its.count, number), now_ms)

    def _is_founder(self, other: Life) -> bool:
        """Of two that have not joined, who begins the cluster: whoever was started first, as far as clocks agree."""
        mine = self._swim.me
        return (mine.boot, mine.node) < (other.boot, other.node)

    def _admit(self, told: Rumour, now_ms: int) -> Row | None:
        row = self._swim.admit(told, now_ms)
        if row is not None:
            self._swim.spread(row.rumour)
        return row

    def on_view(self, row: Row, now_ms: int) -> None:
        """A beat has said what that member's view is."""
        if row.view == self._roster.view:
            if self._differs_since_ms:
                self._differs_since_ms.pop(row.life, None)
            return
        since_ms = self._differs_since_ms.setdefault(row.life, now_ms)
        if now_ms - since_ms >= self._profile.sync_ms and now_ms >= self._sync_again_ms:
            self._differs_since_ms[row.life] = now_ms
            self._sync_again_ms = now_ms + self._profile.beat_ms // SYNC_PER_BEAT
            self._outbox.send(row.life, self._sync(wanted=True))

    # --- ghosts ---------------------------------------------------------------------------------------------------

    def on_ghost(self, gone: Gone, now_ms: int) -> None:
        """A life that is over here speaks: it has to know, and not more often than it can answer."""
        life = gone.member.life
        if gone.standing is Standing.LEFT:
            return  # the last that it said may come after its farewell
        if now_ms - self._told_at_ms.get(life, -self._profile.beat_ms) >= self._profile.beat_ms:
            self._told_at_ms[life] = now_ms
            self._knock(gone.member.endpoint, Rumours([gone.rumour]))

    def be_reborn(self, now_ms: int) -> None:
        """Whoever gave this node up does not listen to its new life before it knows of it: tell everybody at once."""
        for row in self._roster.others:
            self._outbox.send(row.life, Sync([self._roster.mine.rumour], True))
        self._retry_at_ms = now_ms

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        if self._solo_at_ms is not None and now_ms >= self._solo_at_ms:
            self._become(1, now_ms)
        if self._retry_at_ms is not None and now_ms >= self._retry_at_ms:
            self._retry(now_ms)

    def settle(self) -> None:
        """Forget what was noted of those that are gone."""
        if len(self._differs_since_ms) > len(self._roster.others):
            for life in [life for life in self._differs_since_ms if life not in self._roster]:
                del self._differs_since_ms[life]
        if len(self._told_at_ms) > len(self._roster.gone):
            for life in [life for life in self._told_at_ms if life not in self._roster.gone]:
                del self._told_at_ms[life]

    def deadline_ms(self) -> int | None:
        """Nothing to try for a node that knows nobody and has seen nobody die."""
        if self._swim.left:
            return None
        deadlines = [] if self._solo_at_ms is None else [self._solo_at_ms]
        if self._retry_at_ms is not None and (self._seeds or self._roster.gone or not self.is_member):
            deadlines.append(self._retry_at_ms)
        return min(deadlines, default=None)
