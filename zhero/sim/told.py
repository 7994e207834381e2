"""What callers are told (P7): an outcome that a run really had, and never that an accepted job is not known.

An outcome of success is one that an executor reported; so is a failure, and of an "all" job each part of it. That a job
is cancelled is only told where somebody wanted it. An accepted job that has not ended is not unknown, wherever it is
asked for, unless something has gone wrong shortly before, or the answer itself says who has not been heard, or the two
have not met yet.
"""

from __future__ import annotations

from collections import Counter

from ..core.gather import ASKED_OF_ALL
from ..core.messages import (
    Answer,
    AwaitResult,
    Call,
    Cancel,
    ClusterStatus,
    Counted,
    Discard,
    Ended,
    Enqueue,
    FindJob,
    Leave,
    Listed,
    Refusal,
    Refused,
    Retry,
    Stats,
)
from ..core.values import NO_JOB, JobId, Outcome, Status, part_id
from .accounts import Account, Accounts
from .losses import Losses
from .node import Node
from .scene import Scene
from .story import BrokenPromise, text
from .troubles import Troubles

_ABOUT_ONE = (AwaitResult, Cancel, FindJob, Retry, Discard)
_SHORTLY_US = 12_000_000
_POISON_COUNT = 3
"""A job whose runs have ended with so many processes is given up."""


class Told:
    """Checks P7 of all nodes."""

    def __init__(
        self, accounts: Accounts, troubles: Troubles, losses: Losses, scene: Scene, seen: Counter[str]
    ) -> None:
        self._losses = losses
        self._accounts = accounts
        self._troubles = troubles
        self._scene = scene
        self._seen = seen

    def on_answer(self, node: Node, call: Call, since_us: int, answer: Answer) -> None:
        """Judge an answer.

        Raises:
            BrokenPromise: it is not true.
        """
        if isinstance(call, ASKED_OF_ALL):
            self._seen["answer of all"] += 1
            silent = isinstance(answer, (Listed, Counted, Stats, ClusterStatus)) and answer.silent
            self._seen["answer that names who is silent"] += bool(silent)
        if isinstance(call, Enqueue) and isinstance(answer, Refused):
            self._on_refused(call, answer)
        elif isinstance(answer, Ended):
            self._check_end(answer)
        elif isinstance(call, _ABOUT_ONE) and isinstance(answer, Refused) and answer.why is Refusal.UNKNOWN_JOB:
            self._check_unknown(node, call.job, answer.detail, since_us)

    def _on_refused(self, call: Enqueue, answer: Refused) -> None:
        if answer.why is not Refusal.NOT_ACCEPTED:
            self._seen[f"refused: {answer.why.value}"] += 1
            return
        self._seen["not accepted"] += 1
        if self._scene.calm and not self._scene.faults:
            raise BrokenPromise("P7: a job is not accepted in time, and nothing has gone wrong", call.jobs[0][0])

    def _check_unknown(self, node: Node, job: JobId, detail: str, since_us: int) -> None:
        account = self._accounts.jobs.get(job)
        if "did not answer" in detail:
            return
        if account is None or not account.accepted_us or account.accepted_us >= since_us:
            return
        if account.is_over or account.cancelled_us or not 0 <= node.joined_us <= since_us:
            return
        if self._troubles.two_owners_us >= since_us - _SHORTLY_US or not self._troubles.knows_home(node, job):
            return
        if not self._troubles.any(since_us - _SHORTLY_US) and not self._losses.may_be_lost(account):
            raise BrokenPromise(f"P7: {node.place} says that an accepted job is unknown, and it has not ended", job)

    def unanswered(self, living: list[Node]) -> tuple[str, JobId] | None:
        """Who has asked, and what about, and is not answered, though all is done; None: nobody.

        Who waits for what does not end may wait.
        """
        for (node, asker), (call, since_us) in self._accounts.open.items():
            if node not in living or not isinstance(asker, int) or asker in node.given_up:
                continue
            if isinstance(call, (AwaitResult, Cancel)):
                account = self._accounts.jobs.get(call.job)
                if account is None or account.number or not account.is_over:
                    continue
                return f"P7: nobody told {asker} at {node.place} that the job has ended", call.job
            if not isinstance(call, Leave):
                about = call.jobs[0][0] if isinstance(call, Enqueue) and call.jobs else NO_JOB
                return f"P7: {text(call)} of {asker} at {node.place} is never answered, asked at {since_us} us", about
        return None

    # --- ends -----------------------------------------------------------------------------------------------------

    def _check_end(self, answer: Ended) -> None:
        account = self._accounts.jobs.get(answer.job)
        if account is None:
            return  # a round that never was: it has been skipped
        if answer.parts is None:
            self._check_outcome(account, answer.outcome)
            return
        for part in answer.parts:
            of_part = self._accounts.jobs.get(part_id(answer.job, part.member.life.node))
            if of_part is not None:
                self._check_outcome(of_part, part.outcome)
            elif part.outcome.status in (Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CRASHED):
                raise BrokenPromise(f"P7: {text(part)} is told, and it never ran there", answer.job)

    def _check_outcome(self, account: Account, outcome: Outcome) -> None:
        status = outcome.status
        if status is Status.CANCELLED:
            whole = self._accounts.jobs.get(account.parent, account)
            right = bool(account.cancel_asked_us or whole.cancel_asked_us) or account.number > 0
        elif status in (Status.SKIPPED, Status.LOST):
            right = status is Status.LOST or account.scope == "all"
        else:
            right = any(ran.report is not None and ran.report.outcome == outcome for ran in account.ran)
            right = right or (status is not Status.SUCCEEDED and self._is_poison(account))
        if not right:
            raise BrokenPromise(f"P7: {text(outcome)} is told, and no run ended so", account.job)

    def _is_poison(self, account: Account) -> bool:
        """Whether it is given up since processes end when they run it."""
        return sum(ran.node.is_over and not ran.ended_us for ran in account.ran) >= _POISON_COUNT
