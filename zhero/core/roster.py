"""Who is here: one row per member, the node's own first, and who was here before.

A member is its life (node, boot, life). Lives of one node are ordered, the later one holds; DEAD and LEFT are final for
a life, so whoever was given up comes back under a new one. Within a life, what has the higher count of refutations
holds; at the same count a suspicion outweighs being alive.

State: life -> row of the living (alive or suspect); node -> its living life; life -> those that are gone, the oldest
first. Bounds: `MEMBERS_MAX_COUNT` each. `view` is a hash of who is living, with their join numbers: equal views have
equal hashes. `specs` is
what the members can run, all together: what an enqueue and a schedule are checked against.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from ..config import MEMBERS_MAX_COUNT
from ..errors import Bug
from .values import Life, Member, NodeId, Rumour, Standing, TaskSpec


@dataclass(slots=True)
class Row:
    """A member.

    Attributes:
        specs: task name -> its definition there; `tasks`: hash of them, as the member says; 0: not heard yet.
        capacity: of the own row, unfinished jobs that its executor wants to hold.
        slots, busy: how many it wants to hold and does, as its last beat said.
        count, joined: see `Rumour`.
        heard_at_ms: when it was last heard, by itself or through another.
        beats_count: number of its last beat; 0: none has arrived, so there was no connection to it yet.
        view: as its last beat said.
        lagging: its loop is late, as its last beat said: `age_ms` since it turned. `paused`: its listener is.
        behind_ms: what its clock lacks to this node's, or a little more; None: not known yet.
    """

    member: Member
    specs: dict[str, TaskSpec] = field(default_factory=dict[str, TaskSpec])
    capacity: int = 0
    tasks: int = 0
    slots: int = 0
    busy: int = 0
    standing: Standing = Standing.ALIVE
    count: int = 0
    joined: int = 0
    heard_at_ms: int = 0
    beats_count: int = 0
    view: int = 0
    lagging: bool = False
    paused: bool = False
    age_ms: int = 0
    behind_ms: int | None = None

    @property
    def has_workers(self) -> bool:
        return self.capacity > 0 or self.slots > 0

    @property
    def life(self) -> Life:
        return self.member.life

    @property
    def rumour(self) -> Rumour:
        """What this node says of it."""
        return Rumour(self.member, self.standing, self.count, self.joined)


@dataclass(slots=True)
class Gone:
    """A life that is over. `standing`: DEAD or LEFT."""

    member: Member
    standing: Standing
    count: int
    joined: int
    since_ms: int
    behind_ms: int | None = None

    @property
    def rumour(self) -> Rumour:
        """What this node says of it."""
        return Rumour(self.member, self.standing, self.count, self.joined)


class Roster:
    """All members that this node knows of."""

    def __init__(self, me: Member) -> None:
        self.mine = Row(me, tasks=hash_of({}))
        self.gone: dict[Life, Gone] = {}
        self.specs: dict[str, TaskSpec] = {}
        self.arrived: list[Row] = []  # since the engine last took them
        self.departed: list[Gone] = []
        self._rows = {me.life: self.mine}
        self._lives: dict[NodeId, Life] = {me.life.node: me.life}
        self._view: int | None = None
        self._order: list[Row] | None = None

    # --- reading --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __contains__(self, life: Life) -> bool:
        return life in self._rows

    def get(self, life: Life) -> Row | None:
        """The row of a living member."""
        return self._rows.get(life)

    def of_node(self, node: NodeId) -> Row | None:
        """The row of the living life of that node."""
        life = self._lives.get(node)
        return None if life is None else self._rows[life]

    def member(self, life: Life) -> Member | None:
        """Whoever lives or lived under that life, as far as it is remembered."""
        row = self._rows.get(life)
        if row is not None:
            return row.member
        if life.node == self.mine.life.node:
            return replace(self.mine.member, life=life)
        gone = self.gone.get(life)
        return None if gone is None else gone.member

    @property
    def others(self) -> list[Row]:
        """The living ones but this node, in the order of their lives: the same wherever the same are known."""
        if self._order is None:
            self._order = sorted((row for row in self._rows.values() if row is not self.mine), key=lambda row: row.life)
        return self._order

    @property
    def joined_max(self) -> int:
        """The highest join number of those that are living."""
        return max(row.joined for row in self._rows.values())

    @property
    def view(self) -> int:
        """Hash of the lives that are here, and of their numbers."""
        if self._view is None:
            hashed = blake2b(digest_size=8)
            for (node, boot, life), row in sorted(self._rows.items(), key=lambda item: item[0]):
                hashed.update(node + boot.to_bytes(8) + life.to_bytes(8) + row.joined.to_bytes(8))
            self._view = int.from_bytes(hashed.digest())
        return self._view

    # --- changing -------------------------------------------------------------------------------------------------

    def define(self, specs: Iterable[TaskSpec]) -> dict[str, TaskSpec]:
        """This node's tasks, all of them.

        Returns:
            What `specs` was before.
        """
        self.mine.specs = {spec.name: spec for spec in specs}
        self.mine.tasks = hash_of(self.mine.specs)
        return self.gather_specs()

    def gather_specs(self) -> dict[str, TaskSpec]:
        """Somebody's tasks have changed. Where two differ on one the own definition counts, else the oldest member's.

        Returns:
            What `specs` was before.
        """
        before = dict(self.specs)
        self.specs.clear()
        for row in sorted(self._rows.values(), key=lambda row: (row is not self.mine, row.joined, row.life)):
            for spec in row.specs.values():
                self.specs.setdefault(spec.name, spec)
        return before

    def is_outlived(self, life: Life) -> bool:
        """Whether a later life of that node has been here, and is gone: then this one is over, too."""
        return any(gone.node == life.node and gone > life for gone in self.gone)

    def behind_ms(self, life: Life) -> int | None:
        """What that member's clock lacks, or lacked, to this node's; None: its beats were not heard."""
        row = self._rows.get(life)
        if row is not None:
            return row.behind_ms
        gone = self.gone.get(life)
        return None if gone is None else gone.behind_ms

    def signs(self, life: Life) -> tuple[object, ...] | None:
        """What a beat of that member may change for others than those who watch its health; None: it is none."""
        row = self._rows.get(life)
        return None if row is None else (row.standing, row.lagging, row.slots, row.tasks, row.view, row.age_ms > 5_000)

    def name_of(self, life: Life) -> str:
        """As people see it."""
        member = self.member(life)
        return life.node.hex()[:8] if member is None else member.name

    def add(self, told: Rumour, now_ms: int) -> Row | None:
        """A new member; None: there is no room for it."""
        if len(self._rows) >= MEMBERS_MAX_COUNT:
            return None
        life = told.member.life
        row = Row(told.member, count=told.count, joined=told.joined, heard_at_ms=now_ms)
        self._rows[life] = row
        self._lives[life.node] = life
        self._view = self._order = None
        self.arrived.append(row)
        return row

    def number(self, row: Row, count: int, joined: int) -> None:
        """That is what it says of itself."""
        row.count, row.joined = count, joined
        self._view = None

    def remove(self, row: Row, standing: Standing, now_ms: int) -> None:
        """It is dead, or has left."""
        del self._rows[row.life]
        del self._lives[row.life.node]
        self._view = self._order = None
        gone = Gone(row.member, standing, row.count, row.joined, now_ms, row.behind_ms)
        self.departed.append(gone)
        self.bury(gone)

    def bury(self, gone: Gone) -> None:
        """Remember a life that is over; where there are too many, the oldest is forgotten."""
        self.gone.setdefault(gone.member.life, gone)
        if len(self.gone) > MEMBERS_MAX_COUNT:
            del self.gone[next(iter(self.gone))]

    def forget(self, before_ms: int) -> None:
        """Those that are gone since before that moment are not remembered any more."""
        for life in [life for life, gone in self.gone.items() if gone.since_ms < before_ms]:
            del self.gone[life]

    def be_reborn(self) -> None:
        """This node goes on under its next life."""
        mine = self.mine
        node, boot, life = mine.life
        del self._rows[mine.life]
        mine.member = replace(mine.member, life=Life(node, boot, life + 1))
        mine.count = 0
        self._rows = {mine.life: mine, **self._rows}
        self._lives[node] = mine.life
        self._view = self._order = None

    def check(self) -> None:
        """Raises:
        Bug: rows and lives disagree, or a bound is broken.
        """
        if {life.node: life for life in self._rows} != self._lives or len(self._lives) != len(self._rows):
            raise Bug(f"lives {list(self._lives.values())}, rows {list(self._rows)}")
        if any(life in self._rows for life in self.gone):
            raise Bug("a member is here and gone")
        if len(self._rows) > MEMBERS_MAX_COUNT or len(self.gone) > MEMBERS_MAX_COUNT:
            raise Bug("the roster is too large")


def hash_of(specs: dict[str, TaskSpec]) -> int:
    """Hash of a task table; never 0."""
    hashed = blake2b(digest_size=8)
    for name in sorted(specs):
        hashed.update(repr(specs[name]).encode("utf-8", "backslashreplace") + b"\n")
    return int.from_bytes(hashed.digest()) or 1
