"""What all adapters share: where Redis is, how many jobs at once, and the marks that jobs leave.

Runs in the environment of each peer, so it needs nothing but the standard library. A mark is one `write` of fixed size
to a file opened for appending: it costs every system the same, is never torn, and is still there when its writer has
been killed.
"""

from __future__ import annotations

import os
import struct
import time

REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379")
MARKS = os.environ.get("BENCH_MARKS", os.devnull)
SLOTS = int(os.environ.get("BENCH_SLOTS", "8"))
"""Jobs that a worker is to run at the same time, where it can run several."""
LONG = os.environ.get("BENCH_LONG") == "1"
"""The jobs are not no-ops: a worker had better not fetch many ahead."""
WORK_S = 0.010
TO = "ann@example.com"
AT_ONCE = 100
"""Calls under way at the same time where a peer has no call for many jobs."""

MARK = struct.Struct("<qqd")
"""Number of the job, id of the process, seconds of the monotonic clock, which all processes of a machine share."""

_descriptor: int | None = None


def mark(number: int) -> None:
    """A job has started. Also after a fork: a file opened for appending may be shared."""
    global _descriptor
    if _descriptor is None:
        _descriptor = os.open(MARKS, os.O_WRONLY | os.O_APPEND)
    os.write(_descriptor, MARK.pack(number, os.getpid(), time.monotonic()))


def mark_end(number: int) -> None:
    """A job is done."""
    mark(-number - 1)
