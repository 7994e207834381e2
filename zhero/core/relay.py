"""Calls that another member has to answer: it owns the delayed queue, or is home of the job.

What is about the queue goes to its owner; what is about a job goes to everybody, for nobody keeps a table of homes, and
all but its home say that they do not know it. Where the one that is to answer dies, or hands on what was asked for, the
question is put again, under a new number, to whoever has taken over; what was to run later is then due after what is
left of its span. That a job is unknown is believed at once if nobody has gone lately, else only when it has been said
for `PATIENCE_MS`: its home may be changing.

An owner that was asked to take jobs, and has not answered, may have taken them, or may do so when it wakes. So if the
next one refuses them, that is no refusal: whoever asked hears `NOT_ACCEPTED`, for they may run.

State: number of the question -> who asked it, what, and of whom. Bound: one per caller that waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..config import Limits
from .effects import Asker, Outbox, Peer
from .messages import Answer, Answered, Ask, AwaitResult, Call, Cancel, Did, Enqueue, GiveUp, Refusal, Refused
from .roster import Roster
from .values import Life

PATIENCE_MS = 6_000
AGAIN_MS = 250
FIRST_REF = 1 << 48
"""Numbers from here on are not those of `gather.py`."""


@dataclass(slots=True)
class _Errand:
    """What is asked, and for whom.

    Attributes:
        open: who has still to answer.
        again_at_ms: when it is put again, if nobody has.
        may_run: an owner was asked that has not answered.
    """

    asker: Asker
    call: Call
    to_owner: bool
    since_ms: int
    open: list[Life] = field(default_factory=list[Life])
    again_at_ms: int | None = None
    doubt_since_ms: int | None = None
    may_run: bool = False

    def honest(self, answer: Answer) -> Answer:
        """That answer, in the light of who else was asked."""
        if not self.may_run or not isinstance(self.call, Enqueue) or not isinstance(answer, Refused):
            return answer
        if answer.why is Refusal.ALREADY_QUEUED:
            return answer  # a periodic task has one schedule, whoever made it
        return Refused(Refusal.NOT_ACCEPTED, f"{self.call.jobs[0][0]:032x}")


class Relay:
    """Has calls answered by others.

    Args:
        owner: who owns the delayed queue; None: not known.
        here: answers a call here if that can be done; False: it can't.
        answer: tells whoever asked.
    """

    def __init__(
        self,
        roster: Roster,
        limits: Limits,
        outbox: Outbox,
        owner: Callable[[], Life | None],
        here: Callable[[Asker, Call, bool, int], bool],
        answer: Callable[[Asker, Answer], None],
    ) -> None:
        self._roster = roster
        self._limits = limits
        self._outbox = outbox
        self._owner = owner
        self._here = here
        self._answer = answer
        self._ref = FIRST_REF
        self._errands: dict[int, _Errand] = {}
        self._gone_at_ms: int | None = None
        self._trying_here: _Errand | None = None

    def ask(self, asker: Asker, call: Call, now_ms: int, *, to_owner: bool) -> None:
        """Have it answered: by the owner, or by whoever is home of the job."""
        self.give_up(asker)
        self._put(_Errand(asker, call, to_owner, now_ms), now_ms)

    def _put(self, errand: _Errand, now_ms: int) -> None:
        errand.again_at_ms = None
        call = errand.call
        if isinstance(call, Enqueue) and call.delay_ms and now_ms > errand.since_ms:
            call = replace(call, delay_ms=max(1, call.delay_ms - (now_ms - errand.since_ms)))
        self._trying_here = errand
        answered = self._here(errand.asker, call, errand.to_owner, now_ms)
        self._trying_here = None
        if answered:
            return
        self._ref += 1
        self._errands[self._ref] = errand
        if errand.to_owner:
            owner = self._owner()
            errand.open = [] if owner is None or owner not in self._roster else [owner]
        else:
            errand.open = [row.life for row in self._roster.others]
        for life in errand.open:
            self._outbox.post(life, Ask(self._ref, call), _about_bytes(call))
        if not errand.open:
            self._not_known(self._ref, errand, now_ms)

    def honest(self, asker: Asker, answer: Answer) -> Answer:
        """What this node itself says now to a call that others were asked before."""
        errand = self._trying_here
        return answer if errand is None or errand.asker != asker else errand.honest(answer)

    def on_answered(self, sender: Life, message: Answered, now_ms: int) -> bool:
        """Returns: whether that was an answer to a question of here."""
        if message.ref < FIRST_REF:
            return False
        errand = self._errands.get(message.ref)
        if errand is None or sender not in errand.open:
            return True
        answer = message.answer
        if not isinstance(answer, Refused) or answer.why not in (Refusal.UNKNOWN_JOB, Refusal.NOT_HOME):
            del self._errands[message.ref]
            self._answer(errand.asker, errand.honest(answer))
            for life in errand.open:
                if life != sender:
                    self._outbox.post(life, GiveUp(message.ref))
            return True
        errand.open.remove(sender)
        if answer.why is Refusal.NOT_HOME:
            errand.doubt_since_ms = errand.doubt_since_ms or now_ms
        if not errand.open:
            self._not_known(message.ref, errand, now_ms)
        return True

    def _not_known(self, ref: int, errand: _Errand, now_ms: int) -> None:
        """Nobody has it: say so, or ask again."""
        if errand.to_owner:
            if now_ms - errand.since_ms < self._limits.accept_timeout_ms:
                errand.again_at_ms = now_ms + AGAIN_MS
                return
            refused = Refused(Refusal.NOT_ACCEPTED, "the owner of the delayed queue is not known, or does not answer")
        else:
            lately = self._gone_at_ms is not None and now_ms - self._gone_at_ms < PATIENCE_MS
            if errand.doubt_since_ms is None and lately:
                errand.doubt_since_ms = now_ms
            if errand.doubt_since_ms is not None and now_ms - errand.doubt_since_ms < PATIENCE_MS:
                errand.again_at_ms = now_ms + AGAIN_MS
                return
            job = getattr(errand.call, "job", 0)
            if isinstance(errand.call, Cancel):
                self._errands.pop(ref, None)
                self._answer(errand.asker, Did(False))
                return
            refused = Refused(Refusal.UNKNOWN_JOB, f"{job:032x}")
        self._errands.pop(ref, None)
        self._answer(errand.asker, refused)

    def give_up(self, asker: Asker) -> None:
        """Whoever asked waits no more."""
        for ref in [ref for ref, it in self._errands.items() if it.asker == asker]:
            errand = self._errands.pop(ref)
            if isinstance(errand.call, AwaitResult):
                for life in errand.open:
                    self._outbox.post(life, GiveUp(ref))

    # --- lives ----------------------------------------------------------------------------------------------------

    def on_gone(self, life: Life, now_ms: int) -> None:
        """It answers nothing any more, and its own questions matter to nobody."""
        self._gone_at_ms = now_ms
        for ref, errand in list(self._errands.items()):
            if isinstance(errand.asker, Peer) and errand.asker.life == life:
                del self._errands[ref]
            elif life in errand.open:
                errand.open.remove(life)
                errand.doubt_since_ms = now_ms
                errand.may_run = True
                if not errand.open:
                    self._not_known(ref, errand, now_ms)

    def doubt(self, now_ms: int) -> None:
        """Somebody who was here may come back: that a job is not known now may change."""
        self._gone_at_ms = now_ms

    def ask_owner_again(self, now_ms: int) -> None:
        """There is another owner: what was asked of the last one is put to it."""
        for ref, errand in list(self._errands.items()):
            asked = self._roster.get(errand.open[0]) if errand.open else None
            if errand.to_owner and (asked is None or asked.lagging):  # else that one says what has become of it
                del self._errands[ref]
                errand.may_run = errand.may_run or bool(errand.open)
                self._put(errand, now_ms)

    def be_reborn(self, now_ms: int) -> None:
        """All links begin anew."""
        self._gone_at_ms = now_ms
        for errand in self._errands.values():
            errand.may_run = errand.may_run or bool(errand.open)
            errand.open.clear()
            errand.doubt_since_ms = now_ms
            errand.again_at_ms = now_ms + AGAIN_MS

    # --- time -----------------------------------------------------------------------------------------------------

    def settle(self, now_ms: int) -> None:
        for ref, errand in list(self._errands.items()):
            if errand.again_at_ms is not None and now_ms >= errand.again_at_ms:
                del self._errands[ref]
                self._put(errand, now_ms)
            elif (
                errand.to_owner
                and errand.again_at_ms is None
                and now_ms - errand.since_ms >= self._limits.accept_timeout_ms
            ):
                errand.open.clear()
                self._not_known(ref, errand, now_ms)

    def deadline_ms(self) -> int | None:
        least: int | None = None
        for errand in self._errands.values():
            at_ms = errand.again_at_ms
            if at_ms is None and errand.to_owner:
                at_ms = errand.since_ms + self._limits.accept_timeout_ms
            if at_ms is not None and (least is None or at_ms < least):
                least = at_ms
        return least


def _about_bytes(call: Call) -> int:
    if isinstance(call, Enqueue):
        return 150 + sum(len(params) + 25 for _, params in call.jobs)
    return 64
