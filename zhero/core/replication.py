"""Copies: each slice is followed by other members, so that it survives its home.

The home chooses followers, the own slice's by rendezvous hash (a member on another host first), the delayed one's by
age: the next-oldest are the standbys of the owner. A new one gets a snapshot and then every entry, over the link, in
order; so its copy is whole once the last piece has come, and a receipt for entry n stands for all up to n. A home sends
at most one message of entries per turn and follower; a follower one receipt.

Only a member that is dead or has left lowers the number of copies that are waited for. One that owes a receipt for
`SLOW_MS` gets a helper: the next in line follows too, and replaces it when its own copy is whole.

State: here the followers of each stream (`streams.py`); of others, the copies that this node keeps. Bound: as many
copies as there are members that chose this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from ..config import LINK_FRAME_BYTES, Limits
from ..errors import Bug
from .effects import Outbox
from .entries import Done, Entry, Imported, Put
from .facts import Degraded
from .jobs import Slice
from .messages import Copied, Entries, Follow, Followers, Have, Received, Unfollow
from .records import Chunk
from .roster import Roster, Row
from .streams import Follower, Stream, Streams
from .values import Life, StreamId

TELL_MS = 2_000
"""Copies that are missing for longer are worth a word: after each join and death some are, for a moment."""
SLOW_MS = 1_000
"""A follower that owes a receipt for longer gets a helper."""

NO_COPY = -1
"""What is received where no copy is kept any more."""


class Replication:
    """Sees to it that what this node is home of has its copies."""

    def __init__(self, roster: Roster, streams: Streams, limits: Limits, outbox: Outbox) -> None:
        self._roster = roster
        self._streams = streams
        self._limits = limits
        self._outbox = outbox
        self._told_degraded = 0
        self._degraded_since_ms: int | None = None
        self._look_at_ms: int | None = None
        self.closed = False  # the node has left

    def on_received(self, sender: Life, message: Received, now_ms: int) -> None:
        stream = self._streams.get(message.stream)
        follower = None if stream is None else stream.followers.get(sender)
        if stream is not None and follower is not None and message.number == NO_COPY:
            del stream.followers[sender]  # it has taken this home for gone, for a while
            self._tell_followers(stream)
            return
        if stream is None or follower is None or not follower.receipt < message.number <= stream.last:
            return
        was_whole = follower.receipt >= 0
        follower.receipt = message.number
        follower.waits_since_ms = 0 if message.number == stream.last else now_ms
        if not was_whole:
            self._tell_followers(stream)

    def _tell_followers(self, stream: Stream) -> None:
        whole = [life for life, it in stream.followers.items() if it.receipt >= 0]
        for life in whole:
            self._outbox.post(life, Followers(stream.id, whole))

    # --- choosing -------------------------------------------------------------------------------------------------

    def settle(self, now_ms: int) -> bool:
        """Choose followers, hand entries on, let go on what has its copies.

        Returns:
            Whether anything went on.
        """
        went_on = False
        self._look_at_ms = None
        if self.closed:
            return False
        for stream in list(self._streams):
            if stream.home != self._roster.mine.life:
                continue  # it is not known yet whose it is
            self._choose(stream, now_ms)
            self._flush(stream, now_ms)
            self._look_later(stream, now_ms)
            went_on = stream.release() or went_on
        return went_on

    def _choose(self, stream: Stream, now_ms: int) -> None:
        others = self._roster.others
        gone = [life for life in stream.followers if life not in self._roster]
        for life in gone:
            del stream.followers[life]
        if gone:
            self._tell_followers(stream)
        stream.others_count = sum(1 for row in others if row.joined)
        wanted = min(self._wanted(stream), stream.others_count)
        followers = stream.followers
        if len(followers) < wanted or self._is_slow(stream, wanted, now_ms):
            for row in self._candidates(stream):
                if len(followers) > wanted or (len(followers) == wanted and row.lagging):
                    break
                if row.life not in followers:
                    self._begin(stream, row.life, now_ms)
                if len(followers) >= wanted and not self._is_slow(stream, wanted, now_ms):
                    break
        if len(followers) > wanted:
            self._let_go(stream, wanted)

    def _wanted(self, stream: Stream) -> int:
        return max([self._limits.backups, *stream.slice.copies_asked])

    def _is_slow(self, stream: Stream, wanted: int, now_ms: int) -> bool:
        """Whether one keeps its home waiting, and nobody helps yet."""
        if not 0 < len(stream.followers) <= wanted:
            return False
        return any(it.waits_since_ms and now_ms - it.waits_since_ms >= SLOW_MS for it in stream.followers.values())

    def _let_go(self, stream: Stream, wanted: int) -> None:
        """More follow than have to: whoever is furthest behind goes, once enough others are up to date."""
        followers = stream.followers
        last = max(followers, key=lambda life: (-followers[life].receipt, followers[life].waits_since_ms))
        up_to_date = sum(1 for life, it in followers.items() if life != last and it.receipt == stream.last)
        if up_to_date >= wanted:
            del followers[last]
            self._outbox.post(last, Unfollow(stream.id))
            self._tell_followers(stream)

    def _candidates(self, stream: Stream) -> list[Row]:
        rows = [row for row in self._roster.others if row.joined]
        if stream.name == "delayed":
            return sorted(rows, key=lambda row: (row.lagging, row.joined, row.life))
        node, host = stream.slice.home.node, _host(self._roster.mine)

        def rank(row: Row) -> tuple[bool, bool, bytes]:
            return row.lagging, _host(row) == host, blake2b(node + row.life.node, digest_size=8).digest()

        return sorted(rows, key=rank)

    def _begin(self, stream: Stream, to: Life, now_ms: int) -> None:
        self._flush(stream, now_ms)
        stream.followers[to] = Follower(waits_since_ms=now_ms)
        post, stream_id = self._outbox.post, stream.id
        post(to, Follow(stream_id, stream.last, now_ms))
        for chunk in stream.slice.export():
            post(to, Copied(stream_id, chunk, False), LINK_FRAME_BYTES // 2)
        post(to, Copied(stream_id, stream.slice.export_plans(), True))

    # --- handing on -----------------------------------------------------------------------------------------------

    def _flush(self, stream: Stream, now_ms: int) -> None:
        if not stream.pending:
            return
        entries, stream.pending = stream.pending, []
        if not stream.followers:
            return
        first = stream.last - len(entries) + 1
        for part, size in _parts(entries):
            for life in stream.followers:
                self._outbox.post(life, Entries(stream.id, first, part), size)
            first += len(part)
        for follower in stream.followers.values():
            follower.waits_since_ms = follower.waits_since_ms or now_ms

    def retire(self, stream: Stream) -> None:
        """It has another home: no copies of it are needed any more."""
        for life in stream.followers:
            self._outbox.post(life, Unfollow(stream.id))
        stream.followers.clear()
        stream.pending.clear()

    def renew(self, stream: Stream) -> None:
        """Its home goes on under another life: all copies begin anew."""
        stream.followers.clear()
        stream.pending.clear()

    # --- for people -----------------------------------------------------------------------------------------------

    def degraded(self) -> int:
        """Jobs that have fewer copies than was asked for. A node that has always been alone misses none."""
        if not self._roster.others and not self._roster.gone:
            return 0
        return sum(self._lacking(stream) for stream in self._streams)

    def _lacking(self, stream: Stream) -> int:
        whole = sum(1 for it in stream.followers.values() if it.receipt >= 0)
        return len(stream.slice) if whole < self._limits.backups else 0

    def warn(self, now_ms: int) -> None:
        """Tell of copies that have been missing for long, once, and when there are enough again."""
        degraded = self.degraded()
        if bool(degraded) is bool(self._told_degraded):
            self._degraded_since_ms = None
        elif not degraded or (self._degraded_since_ms is not None and now_ms - self._degraded_since_ms >= TELL_MS):
            self._outbox.tell(Degraded(degraded))
            self._told_degraded, self._degraded_since_ms = degraded, None
        elif self._degraded_since_ms is None:
            self._degraded_since_ms = now_ms

    def _look_later(self, stream: Stream, now_ms: int) -> None:
        """A follower that owes a receipt will count as slow."""
        for follower in stream.followers.values():
            at_ms = follower.waits_since_ms + SLOW_MS
            if follower.waits_since_ms and now_ms < at_ms and (self._look_at_ms is None or at_ms < self._look_at_ms):
                self._look_at_ms = at_ms

    def deadline_ms(self) -> int | None:
        """When the next follower that owes a receipt counts as slow, or missing copies are worth a word."""
        if self._degraded_since_ms is None:
            return self._look_at_ms
        warn_at_ms = self._degraded_since_ms + TELL_MS
        return warn_at_ms if self._look_at_ms is None else min(warn_at_ms, self._look_at_ms)

    def check(self) -> None:
        """Raises:
        Bug: somebody follows who is not here, or has received what was not said.
        """
        for stream in self._streams:
            for life, follower in stream.followers.items():
                if life not in self._roster or follower.receipt > stream.last:
                    raise Bug(f"{life} follows {stream.id} up to {follower.receipt}, it has {stream.last}")


def _host(row: Row) -> str:
    return row.member.endpoint.rpartition(":")[0]


def _parts(entries: list[Entry]) -> list[tuple[list[Entry], int]]:
    """Entries in messages of a bearable size, each with about how many bytes it takes."""
    parts: list[tuple[list[Entry], int]] = []
    part: list[Entry] = []
    size = 0
    for entry in entries:
        its_size = _about_bytes(entry)
        if part and size + its_size > LINK_FRAME_BYTES:
            parts.append((part, size))
            part, size = [], 0
        part.append(entry)
        size += its_size
    parts.append((part, size))
    return parts


def _about_bytes(entry: Entry) -> int:
    if isinstance(entry, Put):
        return 150 + sum(len(params) + 25 for _, params in entry.jobs)
    if isinstance(entry, Done):
        return 50 + sum(len(outcome.result) + 30 for outcome in entry.outcomes)
    if isinstance(entry, Imported):
        return LINK_FRAME_BYTES // 2
    jobs = getattr(entry, "jobs", ())
    return 100 + 20 * len(jobs)


# --- copies of others' slices -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Copy:
    """What this node has of another's slice. `is_whole`: all pieces of the snapshot have come.

    `behind_ms`: what the clock of its home lacks to this node's, or a little more, as the first message showed.
    """

    slice: Slice
    number: int
    behind_ms: int
    is_whole: bool = False
    followers: list[Life] = field(default_factory=list[Life])
    written: int = -1  # up to which entry the journal has it, if there is one
    pieces: list[Chunk] = field(default_factory=list[Chunk])  # not yet given to it
    kept_entries: list[Entry] = field(default_factory=list[Entry])  # the same


class Copies:
    """The copies that this node keeps for others."""

    def __init__(self, limits: Limits, outbox: Outbox) -> None:
        self._limits = limits
        self._outbox = outbox
        self._copies: dict[StreamId, Copy] = {}
        self._owed: dict[StreamId, None] = {}  # receipts to say
        self.keeps_entries = False  # there is a journal, and a receipt says no more than what it has

    def __contains__(self, stream: StreamId) -> bool:
        return stream in self._copies

    def __iter__(self) -> Iterator[tuple[StreamId, Copy]]:
        return iter(self._copies.items())

    def get(self, stream: StreamId) -> Copy | None:
        """A whole copy of that stream."""
        copy = self._copies.get(stream)
        return copy if copy is not None and copy.is_whole else None

    def of(self, home: Life) -> list[StreamId]:
        """What that member was home of."""
        return [stream for stream in self._copies if stream.home == home]

    def drop(self, stream: StreamId) -> None:
        """It is needed no more, or no good."""
        self._copies.pop(stream, None)
        self._owed.pop(stream, None)

    def on_follow(self, sender: Life, message: Follow, now_ms: int) -> None:
        if message.stream.home == sender:
            home, name = message.stream.home, message.stream.name
            kept = Slice(name, home, 0, self._limits)
            self._copies[message.stream] = Copy(kept, message.number, now_ms - message.at_ms)

    def on_copied(self, sender: Life, message: Copied) -> None:
        copy = self._copies.get(message.stream)
        if copy is None or copy.is_whole or message.stream.home != sender:
            return
        copy.slice.epoch = max(copy.slice.epoch, message.chunk.epoch)
        copy.slice.take_in(message.chunk)
        if message.last:
            copy.is_whole = True
            copy.slice.last = copy.number
        if self.keeps_entries:
            copy.pieces.append(message.chunk)
        elif message.last:
            self._owed[message.stream] = None

    def on_entries(self, sender: Life, message: Entries) -> None:
        copy = self._copies.get(message.stream)
        if copy is None and message.stream.home == sender:
            self._owed[message.stream] = None  # else it would wait for receipts for ever
        if copy is None or not copy.is_whole or message.stream.home != sender:
            return
        if message.first != copy.number + 1:
            raise Bug(f"entries of {message.stream} from {message.first} on, after {copy.number}")
        for entry in message.entries:
            copy.slice.apply(entry)
        copy.slice.endings.clear()
        copy.number += len(message.entries)
        if self.keeps_entries:
            copy.kept_entries += message.entries
        else:
            self._owed[message.stream] = None

    def put(self, stream: StreamId, copy: Copy) -> None:
        """It was recovered."""
        self._copies[stream] = copy

    def on_written(self, copy: Copy, number: int) -> None:
        """The journal has that copy up to there."""
        copy.written = number
        stream = next((it for it, kept in self._copies.items() if kept is copy), None)
        if stream is not None:
            self._owed[stream] = None

    def on_followers(self, sender: Life, message: Followers) -> None:
        copy = self._copies.get(message.stream)
        if copy is not None and message.stream.home == sender:
            copy.followers = message.followers

    def on_unfollow(self, sender: Life, message: Unfollow) -> None:
        if message.stream.home == sender:
            self.drop(message.stream)

    def settle(self) -> None:
        """Say what has been received."""
        for stream in self._owed:
            copy = self._copies.get(stream)
            if copy is None:
                self._outbox.post(stream.home, Received(stream, NO_COPY))
            elif not self.keeps_entries:
                self._outbox.post(stream.home, Received(stream, copy.number))
            elif copy.written >= 0:
                self._outbox.post(stream.home, Received(stream, copy.written))
        self._owed.clear()

    def forget(self, roster: Roster, now_ms: int) -> None:
        """Outcomes and ids whose time is over, by the clocks of their homes."""
        for stream, copy in self._copies.items():
            behind_ms = roster.behind_ms(stream.home)
            copy.slice.memory.forget(now_ms - (copy.behind_ms if behind_ms is None else behind_ms))

    def have(self, stream: StreamId) -> Have:
        """How far the copy of that stream reaches."""
        copy = self.get(stream)
        return Have(stream, 0 if copy is None else copy.number + 1)
