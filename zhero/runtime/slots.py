"""Room for so many jobs at once, and who gets it next.

A worker holds a slot while it runs jobs, and is parked without one while there is nothing to do. A job that waits for
another one's result gives its slot back meanwhile and takes one again at the end, before any new job does: or with one
slot the two would wait for each other for ever.

    slots = free + held by workers + promised to whom they were granted

A slot that is granted is a future that is done; whoever waits for it owns the slot from that moment, and has to release
it if he can't use it any more. A run that was told to stop goes on without a slot: it is to unwind, and must not have
to wait for that until others end.

Invariant: at most `count` jobs run that neither wait nor were told to stop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ..core.values import Run
from .handlers import Running


class Holder(Running):
    """A run, as far as slots go.

    slot: whether it has one, as it does at first; waits: how many parts of it wait for other jobs; ended: it is over.
    """

    __slots__ = ("ended", "slot", "waits")

    slot: bool
    waits: int
    ended: bool


class Slots:
    """The slots of an executor.

    Args:
        count: how many.
        queue: what is to be run.
        hire: makes a worker, which holds a slot from the start.
        changed: told when `waiting_count` changes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count: int,
        queue: deque[Run],
        hire: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.free = count
        self.waiting_count = 0  # runs without a slot
        self.parked: list[asyncio.Future[None]] = []
        self.returning: deque[asyncio.Future[None]] = deque()
        self._loop = loop
        self._queue = queue
        self._hire = hire
        self._changed = changed
        self._closed = False

    def close(self) -> None:
        """Nothing more is run. Who waits for a slot is let go on as workers end and release theirs."""
        self._closed = True
        self._queue.clear()

    def employ(self) -> None:
        """Give a free slot to a worker: the one parked last, else a new one."""
        self.free -= 1
        while self.parked:
            if _grant(self.parked.pop()):
                return
        self._hire()

    def release(self) -> None:
        """A slot is not needed any more: it goes to a job that comes back, else to a new one."""
        while self.returning:
            if _grant(self.returning.popleft()):
                return
        self.free += 1
        if self._queue:
            self.employ()

    async def park(self) -> None:
        """Wait, without a slot, until one is granted."""
        place = self._loop.create_future()
        self.parked.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.release()
            elif place in self.parked:
                self.parked.remove(place)
            raise

    def end(self, holder: Holder) -> bool:
        """A run is over. Returns whether its worker holds a slot."""
        holder.ended = True
        if not holder.slot:
            self.waiting_count -= 1
        return holder.slot

    def give_back(self, holder: Holder) -> None:
        """A part of a run begins to wait; with the first one its slot is another's."""
        holder.waits += 1
        if holder.slot and not holder.ended:
            holder.slot = False
            self.waiting_count += 1
            self.release()
            self._changed()

    async def take_back(self, holder: Holder) -> None:
        """A part of a run has waited; with the last one it gets a slot again, unless it is to stop."""
        holder.waits -= 1
        if not self._needs_slot(holder):
            return
        interrupted = None
        if self.free:
            self.free -= 1
        else:
            place = self._loop.create_future()
            self.returning.append(place)
            while not place.done():
                try:
                    await asyncio.shield(place)
                except asyncio.CancelledError as error:
                    if holder.stop is not None or self._closed:
                        if not place.cancel():
                            self.release()
                        raise
                    interrupted = error  # by a timeout inside the job, say: it goes on, so not without a slot
        if self._needs_slot(holder):
            holder.slot = True
            self.waiting_count -= 1
            self._changed()
        else:
            self.release()
        if interrupted is not None:
            raise interrupted

    def _needs_slot(self, holder: Holder) -> bool:
        content = holder.slot or holder.waits or holder.ended or holder.stop is not None
        return not content and not self._closed


def _grant(place: asyncio.Future[None]) -> bool:
    """Let who waits there go on, with a slot. False: nobody does any more."""
    if place.done():
        return False
    place.set_result(None)
    return True
