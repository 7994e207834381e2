"""The door: who is let in, and who was turned away.

libzmq asks here (ZAP) about each connection that has proved to hold a client key, and tells (monitors) of each that
failed before. One thread, the heart's, answers: a loop that a job blocks would let handshakes of members run out.
While nobody has answered, nobody is in.

What was turned away is counted by name, for `stats`, and told in the log at most every `TELL_S` seconds:

    wrong secret            it spoke CURVE, with keys of another secret
    not encrypted           it spoke NULL
    bad handshake           its handshake makes no sense
    unfinished handshake    it went away, or was silent, in the middle; also PLAIN, and a probe of somebody's that only
                            asked whether the port is open
    no ZMTP                 its bytes are of another protocol

State: counts by these names. Bound: those five. Events wait without limit, as libzmq would wait in them for us.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import time
from collections import deque
from collections.abc import Callable

import zmq

from .auth import DOMAIN, Keyring
from .sockets import HANDSHAKE_MS, Context, Socket, read_parts

TELL_S = 60.0
SETTLED_S = HANDSHAKE_MS / 1000 + 1
"""After so long a connection is in, or it has ended."""
TURN_MAX_COUNT = 100
"""Questions and events that are read from one socket before the clock is looked at."""
_ZAP = "inproc://zeromq.zap.01"
_WRONG_SECRET, _NOT_ENCRYPTED, _BAD = "denied: wrong secret", "denied: not encrypted", "denied: bad handshake"
_UNFINISHED, _NO_ZMTP = "denied: unfinished handshake", "denied: no ZMTP"
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILED
_TABLE_FULL = (errno.EMFILE, errno.ENFILE)


class Gate:
    """The door of one context. Made by one thread, then waited in and closed by one other; `ring` from any.

    Args:
        keyring: who is let in.
    """

    def __init__(self, context: Context, keyring: Keyring, logger: logging.Logger) -> None:
        self._context = context
        self._allowed = keyring.allowed
        self._log = logger
        self._counts: dict[str, int] = {}
        self._told_at: dict[str, float] = {}
        self._accepted = self._succeeded = self._failed = 0
        self._accepted_at: deque[tuple[float, int]] = deque()  # once a second, for `SETTLED_S`
        self._last_at = 0.0
        self._monitors: list[Socket] = []
        self._poller = zmq.Poller()
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)
        self._poller.register(self._bell.fileno(), zmq.POLLIN)
        self._zap: Socket | None = None
        if keyring.keys:
            self._zap = context.socket(zmq.ROUTER)
            self._zap.setsockopt(zmq.LINGER, 0)
            self._zap.bind(_ZAP)
            self._poller.register(self._zap, zmq.POLLIN)

    def watch(self, listening: Socket) -> None:
        """Count who is turned away by this socket."""
        endpoint = f"inproc://zhero-gate-{len(self._monitors)}"
        listening.monitor(endpoint, _EVENTS)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(endpoint)
        self._monitors.append(monitor)
        self._poller.register(monitor, zmq.POLLIN)

    def counts(self) -> dict[str, int]:
        """Why -> how many were turned away. Any thread."""
        counts = dict(self._counts)
        # What was taken so long ago is in, or has failed, or ended without a word about it.
        now = time.monotonic()
        if now - self._last_at > SETTLED_S:
            settled = self._accepted
        else:
            settled = next((count for at, count in list(self._accepted_at)[:1] if now - at > SETTLED_S), 0)
        if settled > self._succeeded + self._failed:
            counts[_NO_ZMTP] = settled - self._succeeded - self._failed
        return counts

    def ring(self) -> None:
        """Have `wait` return soon. Any thread."""
        try:
            self._rope.send(b"!")
        except OSError:  # it rings already, or nobody waits any more
            pass

    def wait(self, seconds: float, *, rung: bool = True) -> None:
        """Answer at the door for so long.

        Args:
            rung: return when somebody rings.
        """
        until = time.monotonic() + seconds
        while True:
            left_ms = max(0, round((until - time.monotonic()) * 1000))
            ready = dict(self._poller.poll(left_ms))
            if self._zap is not None and self._zap in ready:
                self._take(self._zap, self._answer)
            for monitor in self._monitors:
                if monitor in ready:
                    self._take(monitor, self._note)
            if rung and self._bell.fileno() in ready:
                self._quiet()
                return
            if time.monotonic() >= until:
                return
            if not rung and self._bell.fileno() in ready:
                self._quiet()

    def close(self) -> None:
        """Answer nobody any more: who has no answer yet stays out."""
        for it in (self._zap, *self._monitors):
            if it is not None:
                it.close(0)
        self._zap = None
        self._monitors.clear()
        self._bell.close()
        self._rope.close()

    def _quiet(self) -> None:
        try:
            self._bell.recv(4096)
        except BlockingIOError:
            pass

    @staticmethod
    def _take(asked: Socket, handle: Callable[[list[bytes]], None]) -> None:
        try:
            for _ in range(TURN_MAX_COUNT):
                handle(read_parts(asked, 16))
        except zmq.Again:
            pass

    # --- who may come in ------------------------------------------------------------------------------------------

    def _answer(self, parts: list[bytes]) -> None:
        """One question of libzmq's: the way back, an empty part, then version, id, domain, address, identity,
        mechanism and credentials (rfc 27)."""
        if b"" not in parts or self._zap is None:
            return
        middle = parts.index(b"") + 1
        way, asked = parts[:middle], parts[middle:]
        if len(asked) < 6:
            return
        _, number, domain, address, _, mechanism, *credentials = asked
        known = (
            domain == DOMAIN.encode()
            and mechanism == b"CURVE"
            and len(credentials) == 1
            and credentials[0] in self._allowed
        )
        if not known:
            self._tell(_WRONG_SECRET, address.decode("ascii", "replace"))
        status = (b"200", b"OK") if known else (b"400", b"not a member's key")
        try:
            self._zap.send_multipart([*way, b"1.0", number, *status, b"", b""], zmq.NOBLOCK)
        except zmq.ZMQError:  # it has not waited
            pass

    # --- who was turned away --------------------------------------------------------------------------------------

    def _note(self, parts: list[bytes]) -> None:
        event, value = struct.unpack("=hi", parts[0])
        if event == zmq.EVENT_ACCEPTED:
            self._note_accepted()
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._succeeded += 1
        elif event == zmq.EVENT_ACCEPT_FAILED:
            if value in _TABLE_FULL:
                self._count("no descriptor left")
        elif event & _FAILED:
            self._failed += 1
            self._count(_name_of(event, value))

    def _note_accepted(self) -> None:
        self._accepted += 1
        self._last_at = now = time.monotonic()
        if not self._accepted_at or now - self._accepted_at[-1][0] >= 1:
            self._accepted_at.append((now, self._accepted))
        while len(self._accepted_at) > 1 and now - self._accepted_at[1][0] > SETTLED_S:
            self._accepted_at.popleft()

    def _count(self, why: str) -> None:
        self._counts[why] = self._counts.get(why, 0) + 1
        if why != _UNFINISHED:  # anybody who looks whether the port is open
            self._tell(why, "")

    def _tell(self, why: str, address: str) -> None:
        now = time.monotonic()
        if now - self._told_at.get(why, -TELL_S) >= TELL_S:
            self._told_at[why] = now
            self._log.warning("! %s%s; `zhero stats` counts them", why, f", from {address}" if address else "")


def _name_of(event: int, value: int) -> str:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH or value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
        return _WRONG_SECRET
    if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return _UNFINISHED
    return _NOT_ENCRYPTED if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH else _BAD
