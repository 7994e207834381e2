"""Who runs a job of scope "all" (P5): each member of that moment that has the task and a worker, once.

Which moment that is only its home knows, so what is asked is this: whoever was a member, had the task and a worker from
before the job was accepted until it ended, and with whom nothing went wrong, has run its part, or the answer says what
became of it there. Nobody runs a part that is another's.
"""

from __future__ import annotations

from collections import Counter

from ..core.messages import Answer, Ended
from ..core.values import JobId, Status, part_id
from .accounts import Account, Accounts
from .node import Node
from .story import BrokenPromise
from .troubles import Troubles

_SETTLED_US = 3_000_000
"""A member, and what it has, is known to all after so long."""


class Everywhere:
    """Checks P5 of all nodes."""

    def __init__(self, accounts: Accounts, troubles: Troubles, seen: Counter[str]) -> None:
        self._accounts = accounts
        self._troubles = troubles
        self._seen = seen

    def on_end(self, node: Node, account: Account, at_us: int) -> None:
        """An "all" job has ended: judge who ran it.

        Raises:
            BrokenPromise: a member was left out.
        """
        began_us = account.accepted_us
        if account.cancel_asked_us or not began_us or self._troubles.any(began_us - _SETTLED_US):
            return
        members = self._sure(node, account, began_us - _SETTLED_US)
        for member in members:
            part = self._accounts.jobs.get(part_id(account.job, member.life.node))
            if part is None or not part.ran:
                raise BrokenPromise(f"P5: {member.place} did not run its part", account.job)
        self._seen["spread"] += 1
        self._seen["spread over several"] += len(members) > 1

    def on_answer(self, answer: Answer, at_us: int) -> None:
        """Somebody is told how an "all" job ended.

        Raises:
            BrokenPromise: a member is missing in the answer.
        """
        if not isinstance(answer, Ended) or answer.parts is None:
            return
        account = self._accounts.jobs.get(answer.job)
        if account is None or not account.accepted_us or not account.ended:
            return
        told = {part.member.life.node: part.outcome.status for part in answer.parts}
        for member in self._sure(account.ended[-1].node, account, account.accepted_us - _SETTLED_US):
            if member.life.node not in told:
                raise BrokenPromise(f"P5: {member.place} is missing in the answer", answer.job)
            if told[member.life.node] is Status.SKIPPED and not account.number and self._ran(account, member):
                raise BrokenPromise(f"P5: {member.place} is said to be skipped, and ran it", answer.job)

    def _ran(self, account: Account, member: Node) -> bool:
        part = self._accounts.jobs.get(part_id(account.job, member.life.node))
        return part is not None and bool(part.ran)

    def _sure(self, home: Node, account: Account, since_us: int) -> list[Node]:
        """Who has been a member for its home, and able to run it, all the time."""
        return [
            member
            for member in self._troubles.processes
            if 0 <= member.joined_us <= since_us
            and (member is home or self._troubles.met_us(home, member) <= since_us)
            and not (member.is_over or member.notes.leaving or member.stands_still)
            and member.notes.changed_us <= since_us
            and account.task in member.notes.specs
            and member.notes.capacity > 0
            and part_id(account.job, member.life.node) not in self._accounts.cancelled
            and not self._older_part(account.job, member)
            and not self._troubles.excuse([member], since_us)
        ]

    def _older_part(self, job: JobId, member: Node) -> bool:
        """Whether a part of an earlier job with this id ran there: that one may still be live."""
        part = self._accounts.jobs.get(part_id(job, member.life.node))
        return part is not None and len(part.ran) > 1 and part.revived_us > 0
