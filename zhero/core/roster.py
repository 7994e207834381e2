"""Who is here: one row per member, the node's own first.

State: life -> row. Alone, a node is a roster of one. `specs` is what the cluster as a whole can run: it is what an
enqueue, a schedule and a slice are checked against.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .values import Life, Member, TaskSpec


@dataclass(slots=True)
class Row:
    """A member. `capacity`: unfinished jobs it wants to hold; `held`: those it does, as this node knows."""

    member: Member
    specs: dict[str, TaskSpec] = field(default_factory=dict[str, TaskSpec])
    capacity: int = 0
    held: int = 0

    @property
    def has_workers(self) -> bool:
        return self.capacity > 0


class Roster:
    """All members that this node knows of."""

    def __init__(self, me: Member) -> None:
        self.mine = Row(me)
        self._rows = {me.life: self.mine}
        self.specs: dict[str, TaskSpec] = {}

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __getitem__(self, life: Life) -> Row:
        return self._rows[life]

    def define(self, specs: Iterable[TaskSpec]) -> dict[str, TaskSpec]:
        """This node's tasks, all of them.

        Returns:
            What `specs` was before.
        """
        before = dict(self.specs)
        self.mine.specs = {spec.name: spec for spec in specs}
        self.specs.clear()
        self.specs.update(self.mine.specs)
        return before
