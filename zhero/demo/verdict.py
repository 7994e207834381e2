"""What became of the jobs: counted from records, and able to say no.

Four things are laid side by side: what was accepted, what results the cluster gave in the end, what runs are on record,
and what the plain loop found.

| word     | what                                                                                              |
|----------|---------------------------------------------------------------------------------------------------|
| done     | accepted, and a result came                                                                       |
| lost     | accepted, and no result came, for whatever reason                                                 |
| repeated | runs on record beyond the first of each file; a node that is killed may cause those that it was   |
|          | running, or had ended so lately that nobody else knew (at least once); nothing else may           |
| equal    | the results are those of the plain loop: of each file, none missing, none too many                |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .analysis import Counts
from .record import BEGAN, RANG, ROUND, Entry, Run, runs_of

NAMED_MAX_COUNT = 5
"""How many files a complaint names."""
DELAYED = "the delayed job"
"""How a complaint names it among the files."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A node that got SIGKILL, at that instant (as in the record)."""

    node: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """What a kill interrupted.

    Attributes:
        running: runs that the node had begun and not ended.
        untold: runs that it had ended, and that were done again elsewhere: nobody else knew yet.
        elsewhere_s: from the kill to the moment at which the first of these began on another node; None: none did.
    """

    node: str
    running: int
    untold: int
    elsewhere_s: float | None

    @property
    def sentence(self) -> str:
        """For people."""
        after = (
            "none began elsewhere" if self.elsewhere_s is None else f"first elsewhere after {self.elsewhere_s:.2f} s"
        )
        return f"{self.node} was killed with {self.running} jobs running and {self.untold} ended but not told: {after}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it went.

    Attributes:
        jobs: accepted; with the delayed one.
        interrupted: by each kill, in order.
        nodes: members at the end.
        killed: nodes that got SIGKILL.
        problems: sentences; empty if all is well.
    """

    jobs: int
    done: int
    lost: int
    repeated: int
    interrupted: tuple[Interrupted, ...]
    nodes: int
    killed: int
    equal: bool
    problems: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not self.problems

    @property
    def counts(self) -> str:
        """For scripts: the line above the last one. `running`, `untold`: by all kills, the bound of `repeated`."""
        running, untold = sum(it.running for it in self.interrupted), sum(it.untold for it in self.interrupted)
        return f"jobs={self.jobs} done={self.done} repeated={self.repeated} running={running} untold={untold}"

    @property
    def line(self) -> str:
        """For scripts: the last line."""
        return f"lost={self.lost} equal={'yes' if self.equal else 'no'} nodes={self.nodes} killed={self.killed}"


def interrupted_by(kill: Kill, runs: Sequence[Run]) -> Interrupted:
    """What that kill interrupted."""
    here = {run.path: run for run in runs if run.node == kill.node}
    again = [run for run in runs if run.path in here and run.node != kill.node and run.began_s >= kill.at_s]
    return Interrupted(
        node=kill.node,
        running=sum(run.ended_s is None for run in here.values()),
        untold=len({run.path for run in again if here[run.path].ended_s is not None}),
        elsewhere_s=min((run.began_s - kill.at_s for run in again), default=None),
    )


def judge(
    accepted: Sequence[str],
    results: Mapping[str, Counts],
    rang: bool,
    entries: Sequence[Entry],
    by_loop: Mapping[str, Counts],
    kills: Sequence[Kill],
    *,
    nodes: int,
    troubles: Sequence[str] = (),
) -> Verdict:
    """Compare what was promised with what came.

    Args:
        accepted: the file of each accepted job.
        results: file -> what its job resulted in, as the cluster says.
        rang: whether the cluster gave the result of the delayed job.
        entries: the record.
        by_loop: file -> what the plain loop found.
        nodes: members at the end.
        troubles: what else is known to have gone wrong.
    """
    runs = runs_of(entries)
    ran_on: defaultdict[str, list[str]] = defaultdict(list)  # file -> nodes, once per run
    for run in runs:
        ran_on[run.path].append(run.node)
    killed = {it.node for it in kills}
    lost = [path for path in accepted if path not in results] + ([] if rang else [DELAYED])
    different = sorted(path for path in {*results, *by_loop} if results.get(path) != by_loop.get(path))
    complaints = (
        ("jobs were accepted and gave no result", lost),
        ("files have other figures than in the plain loop", different),
        # Without this, a record that was never written would pass for one that shows no repetition.
        ("results came of which no run is on record", [path for path in results if path not in ran_on]),
        ("files were analysed for which there was no job", sorted({*ran_on} - {*accepted})),
        ("files were analysed again though no node was killed that ran them", _unexplained(ran_on, killed)),
    )
    return Verdict(
        jobs=len(accepted) + 1,
        done=len(accepted) + 1 - len(lost),
        lost=len(lost),
        repeated=len(runs) - len(ran_on),
        interrupted=tuple(interrupted_by(it, runs) for it in kills),
        nodes=nodes,
        killed=len(kills),
        equal=not different,
        problems=(*troubles, *(_complaint(what, paths) for what, paths in complaints if paths)),
    )


def _unexplained(ran_on: Mapping[str, Sequence[str]], killed: set[str]) -> list[str]:
    """Files that ran more often than once plus once for each of their runs on a node that was killed."""
    return [path for path, nodes in ran_on.items() if len(nodes) > 1 + sum(node in killed for node in nodes)]


def shares(entries: Sequence[Entry]) -> dict[str, int]:
    """Node -> runs of analyses that it began, most first."""
    counts: defaultdict[str, int] = defaultdict(int)
    for it in entries:
        if it.kind == BEGAN:
            counts[it.node] += 1
    return dict(sorted(counts.items(), key=lambda share: (-share[1], share[0])))


def rounds(entries: Sequence[Entry]) -> str:
    """What is on record of the periodic task, for people."""
    made = [it for it in entries if it.kind == ROUND]
    if not made:
        return "no round of the periodic task"
    twice = len(made) - len({it.what for it in made})
    gap_s = max((b.at_s - a.at_s for a, b in pairwise(made)), default=0.0)
    return f"{len(made)} rounds of the periodic task, {twice} of them twice, longest pause {gap_s:.1f} s"


def rang_on(entries: Sequence[Entry]) -> tuple[str, float] | None:
    """Where and when the delayed job ran first; None: it did not."""
    return next(((it.node, it.at_s) for it in entries if it.kind == RANG), None)


def _complaint(what: str, paths: Sequence[str]) -> str:
    more = ", ..." if len(paths) > NAMED_MAX_COUNT else ""
    return f"{len(paths)} {what}: {', '.join(paths[:NAMED_MAX_COUNT])}{more}"
