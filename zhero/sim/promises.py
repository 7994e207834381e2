"""What may run, when and how often, wherever in a cluster it does (P2, P3): every run is judged when it really begins.

- Nothing runs that nobody asked for, or that was refused, or that somebody has heard is cancelled.
- It runs with the params and as the task that were asked for, and not before its time. A span is counted by the clock
  of whoever keeps the job, so it may be shorter than asked for by as much as clocks go wrong, and by more than that
  where the job gets another home.
- A job is begun once, and again only after a run that wants another, or after a person wants it tried again. Whatever
  begins it once more needs an excuse: the process that ran it, or one that was its home, was killed, stood still, was
  cut off or was given up since then, or shortly before. Without one, (epoch, attempt) also grows with each run.
- It ends once, or has the same excuse.
"""

from __future__ import annotations

from collections import Counter

from ..config import PROFILES
from ..core.values import Run
from .accounts import Account, Accounts, Asked, goes_on
from .node import Node
from .scene import Scene
from .story import BrokenPromise, text
from .troubles import Troubles

SHORTLY_US = 8_000_000
"""What went wrong so long before a run may still show in it: a takeover goes on for a while."""
_MILLION = 1_000_000
_ROUNDED_US = 2_000


class Promises:
    """Checks P2 and P3 of all nodes."""

    def __init__(self, accounts: Accounts, troubles: Troubles, scene: Scene, seen: Counter[str]) -> None:
        self._accounts = accounts
        self._troubles = troubles
        self._drift_ppm = scene.drift_ppm
        self._seen = seen
        profile = PROFILES[scene.profile]
        self._shortly_us = SHORTLY_US + 1000 * (profile.silence_ms + profile.ping_ms)

    def on_begin(self, account: Account | None, run: Run, node: Node, homes: list[Node], at_us: int) -> None:
        """Judge a run before it is entered in its account.

        Raises:
            BrokenPromise: it must not begin, or not so.
        """
        if account is None:
            raise BrokenPromise("P3: something runs that nobody has asked for", run.job)
        self._check_content(account, run, node)
        if account.asked and not account.pending and not account.accepted_us:
            raise BrokenPromise("P3: a job runs that was refused", run.job)
        why = self._why_not(account, run, node, at_us)
        if why:
            excuse = self.excuse(account, [node, *homes])
            if not excuse:
                raise BrokenPromise(f"{why} at {node.place}, and nothing has gone wrong", run.job)
            if why.startswith("P2") and self._is_well_kept(account):
                raise BrokenPromise(f"{why} at {node.place}, and who runs or ran it lives", run.job)
            self._seen[f"excused: {why.partition(',')[0]}"] += 1
        if not account.ran and account.acceptor is not None and account.acceptor is not node:
            self._seen["job ran elsewhere"] += 1

    def _is_well_kept(self, account: Account) -> bool:
        """Whether its last run is that of a member that lives and has never been doubted: others died, no more."""
        last = account.ran[-1]
        since_us = min(account.accepted_us or last.at_us, last.at_us) - self._shortly_us
        return not last.node.notes.left and self._troubles.only_mended_deaths(last.node, since_us)

    def on_end(self, account: Account) -> None:
        """Somebody has said that the job has ended.

        Raises:
            BrokenPromise: once more, and without an excuse.
        """
        if len(account.ended) < 2:
            return
        last, before = account.ended[-1], account.ended[-2]
        if (last.fact.attempt, last.fact.status) == (before.fact.attempt, before.fact.status):
            return  # two who took themselves for its home have heard of the same end
        again = account.revival_asked_us >= before.at_us or self._asked_anew(account, before.at_us)
        if not again and not self.excuse(account, [last.node, before.node], before.at_us):
            raise BrokenPromise(f"P2: a job ends twice, here at {last.node.place}", account.job)

    def excuse(self, account: Account, others: list[Node], least_us: int = 1 << 60) -> str:
        """What has gone wrong with any who had to do with the job, since its last run, then, or shortly before."""
        concerned = dict.fromkeys([*others, *account.places])
        since_us = account.accepted_us
        if account.ran:
            last = account.ran[-1]
            since_us = last.at_us
            concerned.update(dict.fromkeys([last.node, *last.homes]))
            notes = last.node.notes
            cut_short = not last.ended_us or (notes.left and last.ended_us >= notes.left_us)
            if cut_short and (last.node.is_over or notes.left):
                return f"{last.node.place} is over, and with it the run"
        if account.parent in self._accounts.jobs:
            concerned.update(dict.fromkeys(self._accounts.jobs[account.parent].places))
        since_us = min(since_us, least_us) - self._shortly_us
        if self._troubles.two_owners_us >= since_us:
            return "there were two owners"
        return self._troubles.excuse(concerned, since_us)

    # --- what runs ------------------------------------------------------------------------------------------------

    def _check_content(self, account: Account, run: Run, node: Node) -> None:
        header = run.header
        if run.header.task != account.task:
            raise BrokenPromise(f"P3: {account.task} was asked for, {header.task} runs", run.job)
        if header.task not in node.notes.specs and not node.notes.changed_us:
            raise BrokenPromise(f"P3: {header.task} runs at {node.place}, which does not have it", run.job)
        asked = self._asked(account)
        if asked and all(run.params != one.params for one in asked):
            raise BrokenPromise(f"P3: {text(asked[0].params)} was asked for, {text(run.params)} runs", run.job)
        if asked and all(one.call.priority not in (None, header.priority) for one in asked):
            raise BrokenPromise(f"P3: priority {asked[0].call.priority} was asked for, not {header.priority}", run.job)
        charged = run.attempt > 1 and not account.ran and account.accepted_us > 0
        if charged and not self._troubles.any(account.accepted_us - self._shortly_us) and not self._troubles.ended:
            raise BrokenPromise(f"P2: the first run is attempt {run.attempt}, and nothing has gone wrong", run.job)
        if run.attempt < 1 or run.tries < 1 or run.tries > run.attempt:
            raise BrokenPromise(f"P3: attempt {run.attempt}, of those {run.tries} count", run.job)

    def _asked(self, account: Account) -> list[Asked]:
        """What was asked for it, or for the job that it is a part of."""
        parent = self._accounts.jobs.get(account.parent)
        return account.asked or (parent.asked if parent is not None else [])

    # --- whether it may -------------------------------------------------------------------------------------------

    def _why_not(self, account: Account, run: Run, node: Node, at_us: int) -> str:
        """Why it must not begin now, unless something has gone wrong; empty: it may."""
        early_us = self._early_us(account, at_us)
        if early_us > 0:
            raise BrokenPromise(f"P3: it begins {early_us // 1000} ms before its time at {node.place}", run.job)
        if not account.ran:
            cancelled = account.cancelled_us and not self._asked_anew(account, account.cancelled_us)
            return "P7: a job begins, and somebody has heard that it is cancelled," if cancelled else ""
        last = account.ran[-1]
        if account.revival_asked_us >= last.at_us or self._asked_anew(account, last.ended_us or at_us):
            return ""
        if not last.ended_us:
            return "P2: a job begins while it runs,"
        if not goes_on(last.report):
            return "P2: a job begins again after its end,"
        if account.cancelled_us > last.at_us:
            return "P7: a job begins again, and somebody has heard that it is cancelled,"
        if (run.epoch, run.attempt) <= last.fence:
            return f"P2: the fence stays at {last.fence} or falls to {(run.epoch, run.attempt)},"
        if at_us - last.ended_us < self._least_us(max(1, last.report.delay_ms if last.report else 0)):
            return "P3: a job is tried again before its time,"
        return ""

    def _early_us(self, account: Account, at_us: int) -> int:
        """How long before its time that is."""
        asked = self._asked(account)
        early_us = min((one.at_us + self._least_us(one.call.delay_ms) - at_us for one in asked), default=0)
        # Each new home turns its instants into those of another clock, by what it knew of the two some time ago.
        whole = self._accounts.jobs.get(account.parent, account)
        return early_us - whole.moved_count * 2 * self._drift_ppm * at_us // _MILLION

    def _least_us(self, span_ms: int) -> int:
        """How long a span lasts at least, by true time, whoever counts it."""
        return max(0, span_ms * 1000 * _MILLION // (_MILLION + self._drift_ppm) - _ROUNDED_US)

    def _asked_anew(self, account: Account, since_us: int) -> bool:
        """Whether the id may stand for a second job: it was asked for again, and the first may have been forgotten."""
        asked = self._asked(account)
        if len(asked) < 2:
            return False
        if asked[-1].at_us >= since_us - SHORTLY_US:
            return True
        return not asked[0].call.keyed and any(one.node is not asked[0].node for one in asked)
