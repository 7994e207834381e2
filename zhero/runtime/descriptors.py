"""Descriptors: whether this process may open as many files as a node needs.

A node takes about 30 for itself and 6 per member. At the limit libzmq can't take a connection, and may end the process
where it can't wake its own thread; so it is asked before the start, and the soft limit raised where the hard one lets.
"""

from __future__ import annotations

import os
import sys

from ..errors import ConfigError

NEEDED_COUNT = 128
"""What must be free at the start: a node and a dozen members."""
WANTED_COUNT = 4_096
"""What the soft limit is raised to, if the hard one allows."""


def ensure_descriptors() -> None:
    """See to it that a node can start, and meet others.

    Raises:
        ConfigError: the system allows too few.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    limit = soft
    if soft < WANTED_COUNT:
        wanted = WANTED_COUNT if hard == resource.RLIM_INFINITY else min(hard, WANTED_COUNT)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
            limit = max(soft, wanted)
        except (OSError, ValueError):
            pass
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = 0
    if limit - used < NEEDED_COUNT:
        raise ConfigError(
            f"this process may have {limit} files open, and has {used}: a node needs {NEEDED_COUNT} more. Raise the "
            f"limit (ulimit -n {WANTED_COUNT}; LimitNOFILE= of a service)"
        )
