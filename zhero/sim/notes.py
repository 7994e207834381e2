"""What is plain to see of one process, without a model: its tasks and slots as it was told, and how far its end is.

Worlds of one node work all this out in the ledger, which needs it step by step; what the world itself asks of a node,
and what judges many nodes from outside, stands here.
"""

from __future__ import annotations

from collections import Counter

from ..core.effects import Tell
from ..core.facts import Confirmed, Paused
from ..core.messages import Leave, Left
from ..core.values import TaskSpec
from .story import Step


class Notes:
    """Of one process. Instants in true microseconds.

    Attributes:
        specs: its tasks; changed_us: when these, or whether it has slots at all, last changed.
        capacity: jobs its executor wants to hold.
        leaving, left: it was told to leave; it has said that it does. left_us: when; `abandoned`: jobs that it left
            behind.
        doubtful: it does not know whether the others still count it, and starts nothing.
    """

    def __init__(self, seen: Counter[str]) -> None:
        self.specs: dict[str, TaskSpec] = {}
        self.changed_us = 0
        self.capacity = 0
        self.leaving = False
        self.left = False
        self.left_us = 0
        self.abandoned = 0
        self.doubtful = False
        self._seen = seen

    def after(self, step: Step) -> None:
        """Note what this step shows."""
        if step.what == "define":
            self.specs = {spec.name: spec for spec in step.given}
            self.changed_us = step.at_us
        elif step.what == "capacity":
            if bool(step.given) is not bool(self.capacity):
                self.changed_us = step.at_us
            self.capacity = step.given
        self.leaving = self.leaving or any(isinstance(call, Leave) for _, call in step.calls)
        for effect in step.effects:
            if isinstance(effect, Tell) and isinstance(effect.fact, (Paused, Confirmed)):
                self.doubtful = isinstance(effect.fact, Paused)
        if self.leaving and not self.left:
            answers = [answer for told in step.answers().values() for answer in told if isinstance(answer, Left)]
            if answers:
                self.left, self.left_us, self.abandoned = True, step.at_us, answers[0].lost
                self._seen["left"] += 1
