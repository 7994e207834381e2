"""The cluster at one moment, as the screen shows it: rows of a table on a terminal, else one line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..views import ClusterView, MemberView

MEMBERS = ("MEMBER", "STANDING", "OWNER", "BUSY", "RUNS", "SHARE", "PROCESS")
UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be shown.

    Attributes:
        after_s: since the start.
        view: what the cluster last said; None: nothing yet.
        ended: files whose analysis has ended at least once; of `total`.
        shares: node -> runs that it began.
        killed: nodes that got SIGKILL.
    """

    after_s: float
    view: ClusterView | None
    ended: int
    total: int
    shares: Mapping[str, int]
    killed: Collection[str]

    def rows(self) -> list[tuple[str, ...]]:
        """Rows for `MEMBERS`: who is known, oldest first, then those whom nobody remembers but the record."""
        members = sorted(self._members(), key=lambda it: it.joined)
        names = {it.name for it in members}
        rows: list[tuple[str, ...]] = [
            (
                it.name,
                self._standing(it),
                "owner" if it.owner else "",
                f"{it.busy} of {it.slots}" if self._is_here(it) else UNKNOWN,
                *self._runs(it.name),
                str(it.pid),
            )
            for it in members
        ]
        gone = [name for name in sorted({*self.shares, *self.killed}) if name not in names]
        return rows + [
            (name, "killed" if name in self.killed else UNKNOWN, "", UNKNOWN, *self._runs(name), UNKNOWN)
            for name in gone
        ]

    def queues(self) -> str:
        """The four queues, missing copies, who did not answer."""
        if self.view is None:
            return "nobody has answered yet"
        parts = [f"{name} {count}" for name, count in self.view.queues.items()]
        parts.append(f"degraded {self.view.degraded}")
        if self.view.silent:
            parts.append(f"no answer from {', '.join(self.view.silent)}")
        return ", ".join(parts)

    def line(self) -> str:
        """All of it in a line."""
        members = ", ".join(
            f"{name}{'*' if owner else ''} {standing if standing != 'alive' else runs}"
            for name, standing, owner, _, runs, *_ in self.rows()
        )
        return f"{self.after_s:5.1f} s  {self.ended}/{self.total} files | {members or 'no members'} | {self.queues()}"

    def _members(self) -> tuple[MemberView, ...]:
        return () if self.view is None else self.view.members

    def _is_here(self, member: MemberView) -> bool:
        return member.standing in ("alive", "suspect") and member.name not in self.killed

    def _standing(self, member: MemberView) -> str:
        """Killed: it got the signal, and the others believe this of it as yet."""
        if member.name in self.killed:
            return "killed" if member.standing == "dead" else f"killed (seen {member.standing})"
        return "lagging" if member.lagging else member.standing

    def _runs(self, name: str) -> tuple[str, str]:
        runs, all_runs = self.shares.get(name, 0), sum(self.shares.values())
        return str(runs), f"{100 * runs / all_runs:.0f} %" if all_runs else UNKNOWN
