"""Judges a cluster from outside: keeps the accounts of all jobs and shows each event to those who check a promise.

What one engine has to do step by step, jobs that stay with it, is a model's to say (`ledger.py`); where jobs travel,
copies are made and homes change, the way is the engine's affair. What counts is what callers get to know and executors
get to run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..config import Limits
from ..core.effects import Send, Tell
from ..core.facts import Degraded, OwnerChanged, TookOver
from ..core.gather import ASKED_OF_ALL
from ..core.messages import Enqueue, Offer
from ..core.values import Finished, Run
from .accounts import Accounts
from .everywhere import Everywhere
from .losses import Losses
from .network import Network
from .node import Node
from .promises import Promises
from .rounds import Rounds
from .scene import Scene
from .story import Step
from .told import Told
from .troubles import Troubles
from .workload import Kind


class Outside:
    """The judge of a world of several nodes."""

    def __init__(
        self, kinds: Sequence[Kind], limits: Limits, scene: Scene, network: Network, seen: Counter[str]
    ) -> None:
        specs = [kind.spec for kind in kinds]
        self.accounts = accounts = Accounts(specs)
        self.troubles = troubles = Troubles(network)
        self.promises = Promises(accounts, troubles, scene, seen)
        self.rounds = Rounds(kinds, accounts, troubles, scene, seen)
        self.everywhere = Everywhere(accounts, troubles, seen)
        self.losses = Losses(specs, limits.backups, accounts, troubles, seen)
        self.told = Told(accounts, troubles, self.losses, scene, seen)
        self._seen = seen
        self._now_us = network.ways.now_us
        self._owner: Node | None = None

    def register(self, node: Node) -> None:
        """A process begins."""
        self.troubles.register(node)

    def after(self, node: Node, step: Step) -> None:
        """Judge a step.

        Raises:
            BrokenPromise: whichever it was.
        """
        self.troubles.after(node, step)
        self._count_offers(node, step)
        if step.what != "define" and not step.is_about_jobs:
            return
        self.rounds.after(step)
        for _, call in step.calls:
            self._seen["question to all"] += isinstance(call, ASKED_OF_ALL)
            self._seen["enqueue before joining"] += isinstance(call, Enqueue) and not step.joined
        answered = self.accounts.after(node, step)
        for account in self.accounts.ends_in_step:
            self.promises.on_end(account)
            if account.scope == "all" and not account.parent and not account.number:
                self.everywhere.on_end(node, account, step.at_us)
        for call, since_us, answer in answered:
            self.told.on_answer(node, call, since_us, answer)
            self.everywhere.on_answer(answer, step.at_us)
        for effect in step.effects:
            if isinstance(effect, Tell):
                self._count(node, effect.fact)

    def ran(self, node: Node, run: Run, report: Finished | None) -> None:
        """An executor begins a run, or ends it with that report.

        Raises:
            BrokenPromise: whichever it was.
        """
        at_us = self._now_us()
        if report is not None:
            self.accounts.ended(run, node, report, at_us)
            self._seen["retry"] += report.verdict.value == "retry"
            return
        account = self.accounts.of(run, node)
        homes = [one for one in self.troubles.processes if not one.is_over and one.engine.streams.holding(run.job)]
        self.promises.on_begin(account, run, node, homes, at_us)
        assert account is not None
        self.accounts.began(account, run, node, homes, at_us)
        self.rounds.on_begin(account, run, node, at_us)

    def ended(self, node: Node) -> None:
        """A process is over."""
        self.troubles.on_end(node, self._now_us())

    def _count_offers(self, node: Node, step: Step) -> None:
        """What one node was home of goes to another: when it leaves, or when it has come back and is not the home."""
        for effect in step.effects:
            if isinstance(effect, Send) and any(isinstance(one, Offer) for one in effect.frame.numbered):
                self._seen["hand-over on leave" if node.notes.leaving else "reconcile"] += 1

    def _count(self, node: Node, fact: object) -> None:
        if isinstance(fact, TookOver):
            self._seen["takeover"] += 1
            self._seen["adoption"] += fact.jobs > 0
        elif isinstance(fact, Degraded):
            self._seen["degraded"] += fact.jobs > 0
        elif isinstance(fact, OwnerChanged) and fact.mine:
            self._seen["owner change"] += self._owner is not None
            self._seen["two owners met"] += self._owner is not None and not self._owner.is_over
            self._owner = node

    def jobs_count(self) -> int:
        """How many jobs there ever were."""
        return len(self.accounts.jobs)
