"""Every tunable number, with its unit and its bounds.

`Limits` bounds what an engine may hold: each container of the core names the field here that bounds it, and what
happens there. What a user sets (`Settings`) is checked against `BOUNDS` with an error that names the setting.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
SOLO_AFTER_MS = 5_000
"""A node whose neighbours do not answer works alone after so long, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine holds at most.

    Attributes:
        jobs_max: live jobs; beyond it a new one is refused (`QueueFull`). Retries and rounds never are.
        jobs_max_bytes: bytes of their params; the same.
        payload_max_bytes: encoded params of one job, and its result.
        batch_max_count: jobs in one `enqueue_many`.
        results_max_count: outcomes that each slice keeps for later askers; the oldest makes room.
        dead_max_count: dead letters of each slice; the oldest makes room, and that is reported.
        ids_max_count: ids of the callers' own that each slice remembers after the end; the oldest makes room.
        id_ttl_ms: how long an id of the caller's own is remembered after its job's end.
        waiters_max_count: callers who wait for results; beyond it the next one is refused.
        answer_max_bytes: of a list that is sent to a client, per frame.
        backups: copies of each slice at other members, as far as there are others.
        accept_timeout_ms: how long an enqueue waits for them.
        solo_after_ms: a node whose neighbours do not answer works alone after so long.
    """

    jobs_max: int = 2_000_000
    jobs_max_bytes: int = 1024 * MIB
    payload_max_bytes: int = MIB
    batch_max_count: int = 100_000
    results_max_count: int = 100_000
    dead_max_count: int = 10_000
    ids_max_count: int = 1_000_000
    id_ttl_ms: int = 24 * 3600 * 1000
    waiters_max_count: int = 1_000_000
    answer_max_bytes: int = 256 * 1024
    backups: int = 1
    accept_timeout_ms: int = 10_000
    solo_after_ms: int = SOLO_AFTER_MS


@dataclass(frozen=True, slots=True)
class Profile:
    """How fast members notice things; spans in ms. `PROFILES` has one per kind of network.

    The shape of the rules is SWIM's with Lifeguard's (Das et al. 2002; arXiv 1707.00788), the numbers are near those of
    memberlist; what is published by everybody to everybody replaces the random probes.

    Attributes:
        beat_ms: between two beats.
        silence_ms: nothing heard for so long: the member is asked, directly and through others.
        ping_ms: no answer for so long: it is suspected.
        suspicion_ms: a suspect that is not heard is dead after so long, times log10 of the members;
        suspicion_max: times as much while nobody else has confirmed the suspicion.
        lag_ms: a loop that has not turned for longer is lagging.
        pause_ms: an own turn that comes so late makes a node ask whether it is still counted.
        retry_ms: how often dead members and seeds are tried, more or less.
        sync_ms: how long two views may differ before they are compared.
        resend_ms: a numbered message without a receipt is said again after so long.
        answer_ms: how long a question to all members waits for answers.
        refused_ms: how long a second opinion on a refused connect is waited for.
    """

    beat_ms: int = 500
    silence_ms: int = 2_000
    ping_ms: int = 500
    suspicion_ms: int = 4_000
    suspicion_max: int = 6
    lag_ms: int = 1_000
    pause_ms: int = 2_000
    retry_ms: int = 30_000
    sync_ms: int = 700
    resend_ms: int = 1_000
    answer_ms: int = 2_000
    refused_ms: int = 300


PROFILES: dict[str, Profile] = {
    "lan": Profile(),
    "fast": Profile(
        beat_ms=200, silence_ms=800, ping_ms=250, suspicion_ms=1_500, retry_ms=5_000, sync_ms=300, resend_ms=400
    ),
    "wan": Profile(
        silence_ms=5_000, ping_ms=2_000, suspicion_ms=15_000, resend_ms=3_000, answer_ms=5_000, refused_ms=1_000
    ),
}

STUCK_AFTER_MS = 60_000
"""A loop that has not turned for so long is given up: its heart falls silent."""
LINK_WINDOW_COUNT = 256
"""Numbered messages to one member that are under way without a receipt; the rest waits."""
LINK_WINDOW_BYTES = 4 * MIB
"""About how many bytes of them."""
LINK_FRAME_BYTES = 256 * 1024
"""About how large a frame between members gets, unless one message is larger."""
MEMBERS_MAX_COUNT = 2_000
"""Rows of the roster; whoever comes beyond it is not taken in."""
TOMBSTONE_MS = 24 * 3600 * 1000
"""How long a dead or departed life is remembered."""

FREQUENCY_MIN_MS = 10
"""A `frequency` of 1 to 9 is refused: it is milliseconds, and whoever writes 5 means seconds."""
PRIORITY_MAX = 100
BACKUPS_MAX = 2
"""Copies of a job besides its home's: two survive the death of any two members, and each is paid by every enqueue."""
SPAN_MAX_MS = 10 * 365 * 24 * 3600 * 1000
"""Ten years: the longest wait a job or a period may have."""
NAME_MAX_LENGTH = 200
"""Characters in the name of a task, a node or a cluster."""

FRAME_MAX_BYTES = 2 * MIB
"""A larger frame makes libzmq drop the connection."""
MESSAGES_MAX_COUNT = 10_000
"""Messages in one frame."""
CLIENTS_MAX_COUNT = 1_024
"""Client connections that are remembered for answers; the one silent for longest makes room."""
DRAIN_TURN_MAX_MS = 5
"""How long one turn of the driver reads from the inbox before it lets others run."""
BLOCKED_WARN_MS = 1_000
"""A loop that has not turned for longer is reported, with the job that holds it."""

CLUSTER_PATTERN = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_MAX_LENGTH - 1}}}"
"""Names of clusters: they are file names too."""
ENTRY_MAX_BYTES = 64 * 1024
"""Of one node's file in the runtime directory; a larger one is skipped."""
ENTRIES_MAX_COUNT = 10_000
"""Files read from the runtime directory of one cluster; the rest is skipped."""

BOUNDS: dict[str, tuple[float, float]] = {
    "workers": (0, 10_000),
    "backups": (0, BACKUPS_MAX),
    "accept_timeout": (0.1, 3600),
    "solo_after": (0, 3600),
    "drain_timeout": (0, 24 * 3600),
    "max_jobs": (1, 100_000_000),
    "max_bytes": (1, 1024 * 1024 * MIB),
    "max_payload": (1, FRAME_MAX_BYTES - 64 * 1024),
}
"""Least and most of each number that a user sets. Timeouts in seconds; a payload must fit into a frame."""
