"""Whom to knock at: the endpoints where other members may be found.

Either what a person has said (`join`), where a name may stand for many addresses (the headless service of a cluster
manager) and for others each time; or, with nothing said, the neighbours in the runtime directory. There an entry that
belongs to no known member is tried, and removed if the connect is refused: it was left behind by a kill.

Both are looked at again: soon after the start, when many may start at once, then every `LOOK_EVERY_S` seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence

from ..core.values import NodeId
from .discovery import CONNECT_TIMEOUT_S, Directory, nearby
from .reach import all_refused, resolve

LOOK_AFTER_S = (0.5, 1.0, 2.0)
LOOK_EVERY_S = 5.0
SEEDS_MAX_COUNT = 1_000
TRIED_AT_ONCE = 8
"""Entries that are tried together. Where one of them is alive the rest is for the next look: it is only tidied up, and
when many start at once each would try all."""
SOUND_S = 30.0
"""An entry that did not refuse is not tried again for so long."""


class Seeds:
    """The seeds of one node.

    Args:
        join: endpoints, also with names; empty: those in the directory.
        node: the own id.
    """

    def __init__(self, join: Sequence[str], directory: Directory, node: NodeId, logger: logging.Logger) -> None:
        self._join = join
        self._directory = directory
        self._node = node
        self._log = logger
        self._stood_for: dict[str, list[str]] = {}  # seed -> what it stood for last
        self._sound: dict[tuple[NodeId, int], float] = {}  # node and boot -> when it did not refuse; bound: the entries
        self._warned: set[str] = set()  # bound: `join`

    async def look(self, known: Collection[tuple[NodeId, int]]) -> list[str]:
        """The endpoints as they are now, none with a name.

        Args:
            known: node and boot of members that are alive; their entries are not tried.
        """
        found = await self._named() if self._join else await self._neighbours(known)
        return list(dict.fromkeys(found))[:SEEDS_MAX_COUNT]

    async def _named(self) -> list[str]:
        found: list[str] = []
        for seed in self._join:
            try:
                self._stood_for[seed] = await resolve(seed)
                self._warned.discard(seed)
            except OSError as error:
                if seed not in self._warned:
                    self._warned.add(seed)
                    self._log.warning("! seed %s is not known (%s); it is looked up again", seed, error)
            found += self._stood_for.get(seed, [])
        return found

    async def _neighbours(self, known: Collection[tuple[NodeId, int]]) -> list[str]:
        others = {(it.node, it.boot): it for it in self._directory.entries() if it.node != self._node}
        now = time.monotonic()
        self._sound = {key: at for key, at in self._sound.items() if key in others and now - at < SOUND_S}
        strangers = [entry for key, entry in others.items() if key not in known and key not in self._sound]
        for first in range(0, len(strangers), TRIED_AT_ONCE):
            batch = strangers[first : first + TRIED_AT_ONCE]
            refused = await all_refused([entry.endpoint for entry in batch], CONNECT_TIMEOUT_S)
            for entry, is_gone in zip(batch, refused, strict=True):
                if is_gone:
                    self._directory.remove_stale(entry)
                    del others[entry.node, entry.boot]
                else:
                    self._sound[entry.node, entry.boot] = now
            if not all(refused):
                break
        return [nearby(entry.endpoint) for entry in others.values()]
