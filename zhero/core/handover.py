"""A slice changes its home while both homes live: one leaves, or two that had been apart meet.

The giver freezes the slice (nothing of it is lent or decided any more), sends it piece by piece, and forgets it when
the receiver says that it has taken all in and that copies exist; until then its own copies stay. The receiver takes in
a whole or nothing, by the rules of `merging.py`, and tells everybody where the loans belong. If either dies in between
the other has all.

A node that comes back after it had been given up asks first whose its slice is (`Reunion`): if nobody's, it goes on
with it under its new life; if another member took it over, that one gets what is here. Where two took over from one
another, one of them gives and the other goes on: the lower life gives.

State: what is being given, and the pieces that have come. Bound: two slices; the pieces of one slice per giver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .effects import Outbox
from .entries import Rehomed
from .inquiry import Inquiries, Inquiry
from .loans import Loans
from .merging import merge
from .messages import Offer, OfferRefused, OfferTaken, Took
from .records import Chunk
from .replication import Replication
from .roster import Roster
from .streams import Stream, Streams
from .takeover import Takeover
from .values import JobId, Life, StreamId

OFFER_BYTES = 128 * 1024


@dataclass(slots=True)
class _Gift:
    """`ended`: called with the new stream, or None: it was not taken."""

    stream: Stream
    to: Life
    ended: Callable[[StreamId | None, int], None]


class Handover:
    """Gives slices away and takes them.

    Args:
        target: the stream that takes in what was that stream, or None: this node can't.
        on_given: told of each stream that has another home now, and of its jobs.
        on_renamed: told of a queue that was not taken, and goes on here under another name.
    """

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        loans: Loans,
        replication: Replication,
        takeover: Takeover,
        outbox: Outbox,
        target: Callable[[StreamId], Stream | None],
        on_given: Callable[[Stream, int], None],
        on_renamed: Callable[[Stream, int], None],
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._loans = loans
        self._replication = replication
        self._takeover = takeover
        self._outbox = outbox
        self._target = target
        self._on_given = on_given
        self._on_renamed = on_renamed
        self._gifts: dict[StreamId, _Gift] = {}
        self._pieces: dict[StreamId, list[Chunk]] = {}
        self._whole: list[tuple[Life, StreamId]] = []  # all pieces are here
        self.closed = False  # nothing is taken: the node leaves

    @property
    def is_giving(self) -> bool:
        return bool(self._gifts)

    # --- giving ---------------------------------------------------------------------------------------------------

    def give(self, stream: Stream, to: Life, ended: Callable[[StreamId | None, int], None], now_ms: int) -> None:
        """Send it there, all of it."""
        stream.frozen = True
        self._gifts[stream.id] = _Gift(stream, to, ended)
        for chunk in stream.slice.export():
            self._outbox.post(to, Offer(stream.id, chunk, False, now_ms), OFFER_BYTES)
        self._outbox.post(to, Offer(stream.id, stream.slice.export_plans(), True, now_ms))

    def on_taken(self, sender: Life, message: OfferTaken, now_ms: int) -> None:
        gift = self._gifts.get(message.stream)
        if gift is None or gift.to != sender:
            return
        del self._gifts[message.stream]
        self._replication.retire(gift.stream)
        self._loans.on_took(Took(message.stream, message.into))
        self._on_given(gift.stream, now_ms)
        gift.ended(message.into, now_ms)

    def on_refused(self, sender: Life, message: OfferRefused, now_ms: int) -> None:
        gift = self._gifts.get(message.stream)
        if gift is not None and gift.to == sender:
            self._fail(message.stream, now_ms)

    def _fail(self, stream: StreamId, now_ms: int) -> None:
        gift = self._gifts.pop(stream)
        gift.stream.frozen = False
        gift.ended(None, now_ms)
        if not gift.stream.frozen:  # else it is asked again whose it is
            self._loans.thaw(gift.stream.id)
            self._rename(gift.stream, now_ms)
            self._takeover.orphans(gift.stream, now_ms)

    def _rename(self, stream: Stream, now_ms: int) -> None:
        """Others may believe that it is part of a queue which is gone: from now on it is another one."""
        before = stream.id
        into = self._loans.latest(before)
        if into == before or stream.name != "delayed":
            return
        self._replication.renew(stream)
        stream.term = max(stream.term, into.epoch) + 1
        took = Took(before, stream.id)
        for row in self._roster.others:
            self._outbox.post(row.life, took)
        self._loans.on_took(took)
        self._on_renamed(stream, now_ms)

    # --- taking ---------------------------------------------------------------------------------------------------

    def on_offer(self, sender: Life, message: Offer, now_ms: int) -> None:
        if message.stream.home.node != sender.node:
            return
        # Never too little, or something would run too early: the message was on its way for a while.
        behind_ms = now_ms - message.at_ms
        said_ms = self._roster.behind_ms(sender)
        if said_ms is not None:
            behind_ms = min(behind_ms, said_ms)
        self._pieces.setdefault(message.stream, []).append(message.chunk.shifted(behind_ms))
        if message.last:
            self._whole.append((sender, message.stream))

    def settle(self, now_ms: int) -> None:
        """Take in what is whole, unless what takes it in is about to move itself; refuse it where this node leaves."""
        whole, self._whole = self._whole, []
        for sender, stream in whole:
            into = self._streams.own if stream.name == "own" else self._streams.delayed
            if into is not None and into.frozen and not self.closed:
                self._whole.append((sender, stream))
            else:
                self._take(sender, stream, now_ms)

    def _take(self, sender: Life, stream: StreamId, now_ms: int) -> None:
        chunks = self._pieces.pop(stream, None)
        if chunks is None or sender not in self._roster:
            return
        target = None if self.closed else self._target(stream)
        if target is None:
            self._outbox.post(sender, OfferRefused(stream))
            return
        for chunk in chunks:
            merge(target, chunk, stream, now_ms)
        into = target.id
        self._takeover.drop(stream)
        for row in self._roster.others:
            self._outbox.post(row.life, Took(stream, into))
        self._takeover.orphans(target, now_ms)
        self._loans.on_took(Took(stream, into))
        target.when_held(target.slice.limits.backups, lambda: self._confirm(sender, stream, into))

    def _confirm(self, sender: Life, stream: StreamId, into: StreamId) -> None:
        if sender in self._roster:
            self._outbox.post(sender, OfferTaken(stream, into))

    # --- lives ----------------------------------------------------------------------------------------------------

    def on_gone(self, life: Life, now_ms: int) -> None:
        """That life is over: what was given to it is not, what it was giving others take over."""
        for stream, gift in list(self._gifts.items()):
            if gift.to == life:
                self._fail(stream, now_ms)
        self._whole = [it for it in self._whole if it[0] != life]
        for stream in [it for it in self._pieces if it.home == life]:
            del self._pieces[stream]

    def be_reborn(self, now_ms: int) -> None:
        """All links begin anew."""
        self._pieces.clear()
        self._whole.clear()
        gifts, self._gifts = self._gifts, {}
        for gift in gifts.values():
            gift.stream.frozen = False


class Reunion:
    """A node that had been given up finds out what is still its own.

    Args:
        on_resumed: told of each stream with which it goes on, under its new name.
    """

    def __init__(
        self,
        roster: Roster,
        streams: Streams,
        loans: Loans,
        inquiries: Inquiries,
        replication: Replication,
        takeover: Takeover,
        handover: Handover,
        outbox: Outbox,
        on_resumed: Callable[[Stream, int], None],
    ) -> None:
        self._roster = roster
        self._streams = streams
        self._loans = loans
        self._inquiries = inquiries
        self._replication = replication
        self._takeover = takeover
        self._handover = handover
        self._outbox = outbox
        self._on_resumed = on_resumed
        self._asked: dict[StreamId, Stream] = {}  # old id -> the stream

    def begin(self, now_ms: int) -> None:
        """This node goes on under a new life. Nothing is lent or decided before it is known whose its slices are."""
        self._begin(now_ms, restarted=False)

    def recover(self, now_ms: int) -> None:
        """The same for what a journal had: the process is another one, and what it ran has died with it."""
        self._begin(now_ms, restarted=True)

    def _begin(self, now_ms: int, *, restarted: bool) -> None:
        for stream in self._streams:
            if restarted and stream.home == self._roster.mine.life:
                continue  # it has begun here
            stream.append(Rehomed(self._roster.mine.life, restarted))
            self._replication.renew(stream)
            self._ask(stream, now_ms)

    def _ask(self, stream: Stream, now_ms: int) -> None:
        stream.frozen = True
        self._asked[stream.id] = stream
        self._inquiries.begin(stream.id, self._decide, self._takeover.hear_late, now_ms)

    @property
    def is_open(self) -> bool:
        return bool(self._asked)

    def _decide(self, inquiry: Inquiry, now_ms: int) -> None:
        stream = self._asked.pop(inquiry.stream, None)
        if stream is None:
            return
        into = self._loans.latest(inquiry.into or inquiry.stream)  # it may have been taken over meanwhile
        if into != inquiry.stream and into.home in self._roster and not self._is_mutual(into.home):
            if stream.home.boot != self._roster.mine.life.boot:
                # What the old process ran is over; else whoever has it would count its death a second time.
                self._takeover.orphans(stream, now_ms)
            self._handover.give(stream, into.home, partial(self._given, stream), now_ms)
            return
        self._resume(stream, inquiry, now_ms)

    def _is_mutual(self, other: Life) -> bool:
        """Whether this node took over from that one as well, and is the one of the two that goes on."""
        mine = self._roster.mine.life
        moved = self._loans.moved.items()
        took = any(before.home.node == other.node and into.home.node == mine.node for before, into in moved)
        return took and mine.node > other.node

    def _resume(self, stream: Stream, inquiry: Inquiry, now_ms: int) -> None:
        """Nobody else has it."""
        lent: dict[Life, list[JobId]] = {}
        for record in stream.slice.records.values():
            if record.executor is not None and record.executor != stream.slice.home:
                lent.setdefault(record.executor, []).append(record.job)
        stream.frozen = False
        stream.home = self._roster.mine.life
        stream.term += stream.name == "delayed"
        self._takeover.take_loans(stream, inquiry, lent, now_ms)
        self._on_resumed(stream, now_ms)

    def _given(self, stream: Stream, into: StreamId | None, now_ms: int) -> None:
        if into is None:  # whoever had it is gone meanwhile, or has handed it on: ask again
            self._ask(stream, now_ms)
