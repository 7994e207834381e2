"""Whether all that was accepted has ended, once nothing is wrong any more (P1, P6).

A job has ended when a process said so. One that has not is either still somewhere, and then it has to end, or it is
lost: and that is excused only if at some moment since it was accepted its home and all its copies can have died before
new ones were made (`Troubles.may_be_lost`). A job whose task no living member can run waits, and has no end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..core.values import JobId, State, TaskSpec
from .accounts import Account, Accounts
from .node import Node
from .story import BrokenPromise
from .troubles import MENDS_US, Troubles


class Losses:
    """Checks P1 and P6 of all nodes."""

    def __init__(
        self, specs: Iterable[TaskSpec], backups: int, accounts: Accounts, troubles: Troubles, seen: Counter[str]
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._backups = backups
        self._accounts = accounts
        self._troubles = troubles
        self._seen = seen

    def open(self, living: list[Node]) -> Account | JobId | None:
        """Something that still has to end; None: all is over that can be."""
        for account in self._unfinished():
            holder = self._holder(living, account.job)
            if holder is None or self._is_dead_again(holder, account):
                continue
            if self._can_go_on(living, holder, account.job):
                return account
        return next(self._left_over(living), None)

    def check(self, living: list[Node]) -> None:
        """Everything is over, or has an excuse.

        Raises:
            BrokenPromise: something never ends, or is lost.
        """
        for account in self._unfinished():
            holder = self._holder(living, account.job)
            if holder is None:
                self._on_lost(account)
            elif self._is_dead_again(holder, account):
                self._seen["excused: a revival is forgotten"] += 1
            elif self._can_go_on(living, holder, account.job):
                raise BrokenPromise(f"P1: the job never ends at {holder.place}", account.job)
            else:
                self._seen["job of a task gone"] += 1
        for job in self._left_over(living):
            raise BrokenPromise("P6: a job is left over, and nobody ends it", job)

    def may_be_lost(self, account: Account) -> bool:
        """Whether all that held the job can be gone."""
        asked = self._specs[account.task].backups
        backups = self._backups if asked is None else asked
        return self._troubles.may_be_lost(backups, account.accepted_us)

    def _on_lost(self, account: Account) -> None:
        if not self.may_be_lost(account):
            assert account.acceptor is not None
            raise BrokenPromise(f"P1: an accepted job is lost, {account.acceptor.place} had it", account.job)
        self._seen["job lost with all its holders"] += 1

    def _unfinished(self) -> Iterator[Account]:
        for account in self._accounts.asked_for():
            if account.accepted_us and not account.is_over and not account.cancelled_us:
                yield account

    def _left_over(self, living: list[Node]) -> Iterator[JobId]:
        """Live jobs that are no rounds, and that somebody could run."""
        for node in living:
            for stream in node.engine.streams:
                for job in list(stream.slice.live()):
                    info = stream.slice.info(job)
                    if info is not None and not info.number and self._can_go_on(living, node, job):
                        yield job

    def _holder(self, living: list[Node], job: JobId) -> Node | None:
        """Who is home of it, live or as a dead letter."""
        return next((node for node in living if node.engine.streams.holding(job) is not None), None)

    def _is_dead_again(self, holder: Node, account: Account) -> bool:
        """Whether it is a dead letter that a home revived which was no home any more, or did not live to tell."""
        stream = holder.engine.streams.holding(account.job)
        dead = stream is not None and stream.slice.state(account.job) is State.DEAD
        excused = max(self._troubles.two_owners_us, self._troubles.last_us()) >= account.revived_us - MENDS_US
        return dead and account.revived_us > 0 and excused

    def _can_go_on(self, living: list[Node], holder: Node, job: JobId) -> bool:
        """Whether somebody who may run it is able to. A part is for one member, also when it has been revived;
        a whole job hangs on its parts.
        """
        stream = holder.engine.streams.holding(job)
        info = None if stream is None else stream.slice.info(job)
        if stream is None or info is None:
            return False
        if info.state is State.SPREAD:
            return any(self._can_go_on(living, holder, part) for part in stream.slice.parts[job].open)
        able = [node for node in living if info.task in node.notes.specs and node.notes.capacity]
        if info.node is None:
            return bool(able)
        there = [node for node in living if node.life == info.node]
        return not there or there[0] in able
