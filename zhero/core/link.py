"""A reliable, ordered link between two lives, over a network that loses messages silently.

libzmq drops what is queued in at least five places (reconnect, high-water marks, a peer that is not there yet, close,
buffers at a break), so only a receipt counts. What is *posted* to a member is numbered from 1 per pair of lives; the
receiver takes number n+1 after n and nothing else, and says how far it got on every frame it sends back, or in an empty
one after `ACK_MS`. What has no receipt after `resend_ms` is said again, all of it, less and less often. But whoever is
heard need not be waited for: a frame whose receipt says nothing new, though it could, makes it be said again at once.
That is what a receiver answers to a number after a gap, so a link that has rested goes on with the first new message.
What is *sent* is not numbered and may get lost.

A session belongs to two lives and ends with either: so for each posted message there are two ends, it has arrived or
that life is over, and never "maybe later". A frame on its way to a process that died may reach the next one on that
port; it says to whom it is, and is not heard.

Between two lives at most one frame per call of `pack`, unless they grow over `LINK_FRAME_BYTES`: a frame over the
limit of the wire would kill the connection each time.

State: peer life -> its session. Bounds: under way at most `LINK_WINDOW_COUNT` and about `LINK_WINDOW_BYTES` per peer;
the rest waits here, and `backlog` says how much.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ..config import LINK_FRAME_BYTES, LINK_WINDOW_BYTES, LINK_WINDOW_COUNT, MESSAGES_MAX_COUNT, Profile
from ..errors import Bug
from .effects import Outbox, Send
from .messages import Frame, Message
from .values import Life

ACK_MS = 20
"""A receipt waits so long for a frame that it can ride on."""
ACK_COUNT = 64
"""After so many numbered messages it waits no longer."""
STALE_SHARE = 10
"""A bare receipt without news counts when `resend_ms` divided by this has passed: it did not cross what was said."""
RESEND_MAX_TIMES = 8
"""Times `resend_ms`: the longest wait before the same is said again."""


@dataclass(slots=True)
class _Session:
    """One pair of lives. Numbers `acked + 1 .. acked + len(under_way)` have been said and have no receipt.

    `said_at_ms`: when the first of them was said last, or became the first.
    """

    acked: int = 0
    under_way: deque[tuple[Message, int]] = field(default_factory=deque[tuple[Message, int]])
    under_way_bytes: int = 0
    waiting: deque[tuple[Message, int]] = field(default_factory=deque[tuple[Message, int]])
    said_at_ms: int = 0
    resend_at_ms: int | None = None
    resend_times: int = 1
    received: int = 0
    receipted: int = 0
    ack_at_ms: int | None = None

    def fill(self) -> list[tuple[Message, int]]:
        """Take what waits, as far as the window goes."""
        taken: list[tuple[Message, int]] = []
        while self.waiting and len(self.under_way) < LINK_WINDOW_COUNT:
            message, about_bytes = self.waiting[0]
            if self.under_way and self.under_way_bytes + about_bytes > LINK_WINDOW_BYTES:
                break
            taken.append(self.waiting.popleft())
            self.under_way.append((message, about_bytes))
            self.under_way_bytes += about_bytes
        return taken


class Link:
    """All links of one node."""

    def __init__(self, me: Life, profile: Profile, outbox: Outbox) -> None:
        self._me = me
        self._profile = profile
        self._outbox = outbox
        self._sessions: dict[Life, _Session] = {}
        self._awake: dict[Life, None] = {}  # who has something under way, waiting or to be receipted

    # --- who ------------------------------------------------------------------------------------------------------

    def open(self, peer: Life) -> None:
        """It is a member."""
        self._sessions.setdefault(peer, _Session())

    def close(self, peer: Life) -> None:
        """That life is over: what was posted to it will not arrive, or has and nobody will know."""
        self._sessions.pop(peer, None)
        self._awake.pop(peer, None)
        self._outbox.posted.pop(peer, None)

    def be_reborn(self, me: Life) -> None:
        """The own life is over and the next one begins: so do all links."""
        self._me = me
        self._sessions = {peer: _Session() for peer in self._sessions}
        self._awake.clear()
        self._outbox.posted.clear()

    def backlog(self, peer: Life) -> int:
        """Messages to that member that the window holds back."""
        session = self._sessions.get(peer)
        return 0 if session is None else len(session.waiting)

    # --- hearing --------------------------------------------------------------------------------------------------

    def receive(self, frame: Frame, now_ms: int) -> list[Message]:
        """A frame of a member.

        Returns:
            Its numbered messages that are the next ones; what comes after a gap comes again.
        """
        session = self._sessions[frame.sender]
        if frame.to is not None:  # what is said to all holds no receipt
            self._take_receipt(session, frame, now_ms)
        if not frame.numbered or frame.first < 1:
            return []
        start = session.received + 1 - frame.first
        fresh = frame.numbered[start:] if 0 <= start < len(frame.numbered) else []
        session.received += len(fresh)
        self._awake[frame.sender] = None
        if not fresh or session.received - session.receipted >= ACK_COUNT:
            session.ack_at_ms = now_ms  # said twice, or after a gap: the other end has to know where we are
        elif session.ack_at_ms is None:
            session.ack_at_ms = now_ms + ACK_MS
        return fresh

    def _take_receipt(self, session: _Session, frame: Frame, now_ms: int) -> None:
        ack = frame.ack
        if ack == session.acked and session.under_way:
            patience_ms = self._profile.resend_ms // (1 if frame.numbered else STALE_SHARE)
            if now_ms - session.said_at_ms >= patience_ms:
                session.resend_times, session.resend_at_ms = 1, now_ms
        if not session.acked < ack <= session.acked + len(session.under_way):
            return
        while session.acked < ack:
            session.acked += 1
            session.under_way_bytes -= session.under_way.popleft()[1]
        session.resend_times, session.said_at_ms = 1, now_ms
        session.resend_at_ms = now_ms + self._profile.resend_ms if session.under_way else None

    # --- saying ---------------------------------------------------------------------------------------------------

    def pack(self, now_ms: int) -> None:
        """Make frames of all that was sent and posted, and of the receipts and repetitions that are due."""
        outbox = self._outbox
        if not outbox.loose and not outbox.posted and not self._awake:
            return
        loose, outbox.loose = outbox.loose, {}
        posted, outbox.posted = outbox.posted, {}
        for peer, messages in posted.items():
            session = self._sessions.get(peer)
            if session is not None:  # else that life is over
                session.waiting.extend(messages)
                self._awake[peer] = None
        for peer in list(self._awake):
            self._pack_session(peer, self._sessions[peer], loose.pop(peer, []), now_ms)
        for peer, said in loose.items():
            session = self._sessions.get(peer)
            self._say(peer, said, [], 0, session, now_ms)

    def _pack_session(self, peer: Life, session: _Session, loose: list[Message], now_ms: int) -> None:
        first = session.acked + len(session.under_way) + 1
        fresh = session.fill()
        if session.resend_at_ms is not None and now_ms >= session.resend_at_ms:
            first, fresh = session.acked + 1, list(session.under_way)
            session.resend_times = min(RESEND_MAX_TIMES, 2 * session.resend_times)
            session.said_at_ms = now_ms
            session.resend_at_ms = now_ms + self._profile.resend_ms * session.resend_times
        elif session.resend_at_ms is None and session.under_way:
            session.said_at_ms = now_ms
            session.resend_at_ms = now_ms + self._profile.resend_ms * session.resend_times
        ack_is_due = session.ack_at_ms is not None and now_ms >= session.ack_at_ms
        if fresh or loose or ack_is_due:
            for part in _parts(fresh) or [[]]:
                self._say(peer, loose, part, first if part else 0, session, now_ms)
                first, loose = first + len(part), []
        if not session.under_way and session.ack_at_ms is None:
            del self._awake[peer]

    def _say(
        self,
        peer: Life,
        loose: list[Message],
        numbered: list[Message],
        first: int,
        session: _Session | None,
        now_ms: int,
    ) -> None:
        ack = 0
        if session is not None:
            ack = session.receipted = session.received
            session.ack_at_ms = None
        self._outbox.want(Send(peer, Frame(self._me, peer, loose, numbered, first, ack)))

    # --- time -----------------------------------------------------------------------------------------------------

    def deadline_ms(self) -> int | None:
        """When `pack` has something to say without being asked."""
        least: int | None = None
        for peer in self._awake:
            session = self._sessions[peer]
            for at_ms in (session.resend_at_ms, session.ack_at_ms):
                if at_ms is not None and (least is None or at_ms < least):
                    least = at_ms
        return least

    def check(self) -> None:
        """Raises:
        Bug: a window is overrun, or a session that has something to do is not awake.
        """
        for peer, session in self._sessions.items():
            if len(session.under_way) > LINK_WINDOW_COUNT:
                raise Bug(f"{len(session.under_way)} messages are under way to {peer}")
            if sum(about for _, about in session.under_way) != session.under_way_bytes:
                raise Bug(f"the bytes under way to {peer} are miscounted")
            if bool(session.under_way) != (session.resend_at_ms is not None) or (
                session.waiting and not session.under_way
            ):
                raise Bug(f"nothing makes sure that {peer} gets what is under way to it")
            if (session.under_way or session.ack_at_ms is not None) and peer not in self._awake:
                raise Bug(f"something is to be said to {peer}, and nobody looks after it")


def _parts(messages: list[tuple[Message, int]]) -> list[list[Message]]:
    """Cut what is too much for one frame."""
    parts: list[list[Message]] = []
    room = -1
    for message, about_bytes in messages:
        if about_bytes > room or len(parts[-1]) >= MESSAGES_MAX_COUNT // 2:
            parts.append([])
            room = LINK_FRAME_BYTES
        parts[-1].append(message)
        room -= about_bytes
    return parts
