"""cleanOldCacheObjects: each node forgets what has expired in the cache of its own process.

    from tasks.clean_old_cache_objects import cache

    cache.put("price of 17", 9.99, ttl_s=30)
    cache.get("price of 17")

An expired object is never handed out; the task is there to free the memory of those that nobody asks for any more.
"""

from __future__ import annotations

import threading
import time

import zhero


class Cache:
    """Objects that are valid for a while. Used from any thread.

    State: key -> the object, and when it expires, on the monotonic clock in seconds. Bound: what is put in within the
    longest `ttl_s` and one period of the task.
    """

    def __init__(self) -> None:
        self._objects: dict[str, tuple[object, float]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, key: str, value: object, ttl_s: float) -> None:
        """Keep an object for `ttl_s` seconds, in the place of one of the same key."""
        with self._lock:
            self._objects[key] = value, time.monotonic() + ttl_s

    def get(self, key: str) -> object | None:
        """The object, or None: there is none, or it has expired."""
        value, until_s = self._objects.get(key, (None, 0.0))
        return value if time.monotonic() < until_s else None

    def remove_expired(self) -> int:
        """Forget what has expired; returns how many objects that were."""
        with self._lock:
            now_s = time.monotonic()
            old = [key for key, (_, until_s) in self._objects.items() if until_s <= now_s]
            for key in old:
                del self._objects[key]
        return len(old)


cache = Cache()
"""The cache of this process."""


@zhero.task(name="cleanOldCacheObjects", scope="all", frequency=10_000)  # milliseconds
async def clean_old_cache_objects() -> int:
    """Remove expired objects from the cache; the result says how many, for each node."""
    return cache.remove_expired()
