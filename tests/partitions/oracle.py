"""Judges a run from outside: what callers were told against what handlers wrote.

What is held against it, by the numbers of the promises in `docs/faults.md`:

    P1  what was accepted has run to its end, once the cluster is one again
    P2  a job begins again only where something went wrong with it: its executor was killed in the middle, or a cut ran
        between its home, the members that hold its copies and whoever ran it first
    P3  nothing runs before its time; nothing runs that nobody asked for, or that was refused
    P4  the rounds of a periodic task: none left out, none twice, one frequency apart, but for two sides of a cut
    P5  an "all" job runs on each member, once

A cut ends when the cluster is one again: until then some still believe what the cut has shown them. All instants are
those of `time.monotonic`, which the processes of one machine share.

One kind of repeat is told apart and only counted (`broken_off`): two sides that have given one another up come back
under new lives when they meet, all of them, and what such a member ran just then is broken off and run again, also
where home, copies and executor were on one side. `docs/faults.md` says so too.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .lab import Cut

FREQUENCY_S = 1.0
ROUNDED_S = 0.01
"""Clocks are read here and there, in whole milliseconds."""
TOLD_S = 1.0
"""So long after its end a run may still be one that its home has not heard of."""
SHOWN_COUNT = 5
"""Of each kind of complaint, so many are shown whole."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a handler. `ended_s` is 0 where it never ended."""

    node: str
    task: str
    job: str
    number: int
    round: int
    token: tuple[int, int]
    began_s: float
    ended_s: float = 0.0


@dataclass(slots=True)
class Told:
    """What is known of a run of the cluster from outside.

    Attributes:
        calls: each enqueue that got an answer, as `member.py` tells it.
        asked: the numbers of all that were begun.
        copies: node -> (instant, stream, who follows it from then on), in order.
        cuts: ways that were cut, and when.
        one: instants at which the cluster was seen to be one.
        kills: node -> when it was killed.
        names: of all nodes there were.
    """

    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    asked: set[int] = field(default_factory=set[int])
    copies: dict[str, list[tuple[float, str, list[str]]]] = field(default_factory=lambda: defaultdict(list))
    cuts: list[Cut] = field(default_factory=list[Cut])
    one: list[float] = field(default_factory=list[float])
    kills: dict[str, float] = field(default_factory=dict[str, float])
    names: list[str] = field(default_factory=list[str])


def read(record: Path) -> list[Run]:
    """The runs that handlers have written down."""
    ended: dict[tuple[str, str, tuple[int, int]], float] = {}
    order: list[dict[str, Any]] = []
    if record.exists():
        for line in record.read_text(encoding="utf-8").splitlines():
            it = json.loads(line)
            if it["what"] == "began":
                order.append(it)
            else:
                ended[it["node"], it["job"], tuple(it["token"])] = it["at_s"]
    return [
        Run(
            it["node"],
            it["task"],
            it["job"],
            it.get("n", 0),
            it["number"],
            (it["token"][0], it["token"][1]),
            it["at_s"],
            ended.get((it["node"], it["job"], tuple(it["token"])), 0.0),
        )
        for it in order
    ]


def judge(told: Told, runs: list[Run]) -> list[str]:
    """What is wrong; empty: every promise was kept."""
    court = _Court(told, runs)
    found: list[str] = []
    for part in (court.lost(), court.strangers(), court.repeats(), court.rounds(), court.everywhere()):
        complaints = list(part)
        found += complaints[:SHOWN_COUNT]
        if len(complaints) > SHOWN_COUNT:
            found.append(f"... and {len(complaints) - SHOWN_COUNT} more of that kind")
    return found


def unfinished(told: Told, runs: list[Run]) -> int:
    """How many of the accepted jobs have not run to an end yet."""
    ended = {run.number for run in runs if run.ended_s and run.task != "ring"}
    return sum(1 for call in told.calls if call["came"] == "accepted" and call["n"] not in ended)


def summary(told: Told, runs: list[Run]) -> str:
    """One line on what there was to judge."""
    came = {it: sum(1 for call in told.calls if call["came"] == it) for it in ("accepted", "unsure", "refused")}
    jobs = {run.job for run in runs if run.task == "work"}
    again = sum(1 for run in runs if run.task == "work") - len(jobs)
    broken_off = len(_Court(told, runs).broken_off)
    rounds = [run.round for run in runs if run.task == "ring"]
    return (
        f"{came['accepted']} accepted, {came['unsure']} unsure, {came['refused']} refused; "
        f"{again} runs repeated, {broken_off} of them of one side, broken off at the healing; "
        f"{len(set(rounds))} rounds, {len(rounds) - len(set(rounds))} of them on two sides"
    )


class _Court:
    """The evidence, sorted."""

    def __init__(self, told: Told, runs: list[Run]) -> None:
        self._told = told
        self._calls = {call["n"]: call for call in told.calls}
        self._runs: dict[int, list[Run]] = defaultdict(list)
        self._rounds: dict[int, list[Run]] = defaultdict(list)
        for run in sorted(runs, key=lambda run: run.began_s):
            if run.task == "ring":
                self._rounds[run.round].append(run)
            else:
                self._runs[run.number].append(run)
        self._cuts = [Cut(it.ways, it.since_s, self._mended_s(it)) for it in told.cuts]
        self.broken_off: list[Run] = []
        self._repeats = list(self._judge_repeats())

    def _mended_s(self, cut: Cut) -> float:
        return min((at_s for at_s in self._told.one if at_s >= cut.until_s), default=float("inf"))

    # --- what excuses ---------------------------------------------------------------------------------------------

    def _divided(self, names: Iterable[str], since_s: float, until_s: float) -> bool:
        """Whether a cut ran between some of these, in that time."""
        some = set(names)
        return any(
            cut.since_s <= until_s and cut.until_s >= since_s and any(some.issuperset(way) for way in cut.ways)
            for cut in self._cuts
        )

    def _was_reborn_in(self, run: Run, names: Iterable[str], until_s: float) -> bool:
        """Whether one of these came back under a new life while that run went on, or was not settled yet."""
        some = set(names)
        open_s = (run.ended_s or until_s) + TOLD_S
        return any(
            run.began_s <= cut.until_s and open_s >= whole.until_s and any(some & {*way} for way in cut.ways)
            for cut, whole in zip(self._cuts, self._told.cuts, strict=True)
        )

    def _was_killed_in(self, run: Run) -> bool:
        """Whether its node was killed in the middle of it, as far as its home can know."""
        killed_s = self._told.kills.get(run.node)
        return (
            killed_s is not None and run.began_s <= killed_s and (not run.ended_s or killed_s <= run.ended_s + TOLD_S)
        )

    def _killed_between(self, since_s: float, until_s: float) -> bool:
        return any(since_s <= at_s <= until_s for at_s in self._told.kills.values())

    def _holders(self, homes: Iterable[str], since_s: float, until_s: float) -> set[str]:
        """These homes, and all who had or got copies of their streams in that time."""
        found = set(homes)
        for home in list(found):
            last: dict[str, list[str]] = {}
            for at_s, stream, names in self._told.copies.get(home, []):
                if at_s > until_s:
                    break
                if at_s < since_s:
                    last[stream] = names
                else:
                    found.update(names)
            for names in last.values():
                found.update(names)
        return found

    # --- the promises ---------------------------------------------------------------------------------------------

    def lost(self) -> Iterator[str]:
        for call in self._told.calls:
            if call["came"] == "accepted" and not any(run.ended_s for run in self._runs.get(call["n"], [])):
                began = [f"began at {run.node}" for run in self._runs.get(call["n"], [])]
                yield f"P1: lost: {_text(call)} {' '.join(began) or 'never began'}"

    def strangers(self) -> Iterator[str]:
        for number, runs in self._runs.items():
            call = self._calls.get(number)
            if number not in self._told.asked:
                yield f"P3: nobody asked for {number}, which ran at {runs[0].node}"
            elif call is not None and call["came"] == "refused":
                yield f"P3: refused, and it ran at {runs[0].node}: {_text(call)}"
            elif call is not None and runs[0].began_s < call["asked_s"] + call["delay_s"] - ROUNDED_S:
                early_ms = round((call["asked_s"] + call["delay_s"] - runs[0].began_s) * 1000)
                yield f"P3: {early_ms} ms early at {runs[0].node}: {_text(call)}"

    def repeats(self) -> Iterator[str]:
        yield from self._repeats

    def _judge_repeats(self) -> Iterator[str]:
        for number, runs in self._runs.items():
            call = self._calls.get(number)
            if call is None or call["kind"] == "all":
                continue
            # By their tokens: what was lent over a cut and given up may be the last to begin.
            in_order = sorted(runs, key=lambda run: (run.token, run.began_s))
            for earlier, later in itertools.pairwise(in_order):
                since_s, until_s = call["asked_s"], max(earlier.began_s, later.began_s)
                holders = self._holders(call["homes"], since_s, until_s) | {call["node"], earlier.node}
                if self._was_killed_in(earlier) or self._divided(holders, since_s, until_s):
                    continue
                if self._was_reborn_in(earlier, holders, until_s):
                    self.broken_off.append(later)
                else:
                    yield (
                        f"P2: at {earlier.node} {earlier.token}, {later.began_s - earlier.began_s:+.3f} s at "
                        f"{later.node} {later.token}, "
                        f"though {' '.join(sorted(holders))} were on one side: {_text(call)}"
                    )

    def rounds(self) -> Iterator[str]:
        everybody = self._told.names
        for number, runs in self._rounds.items():
            for earlier, later in itertools.pairwise(runs):
                since_s = earlier.began_s - FREQUENCY_S
                if not (self._was_killed_in(earlier) or self._divided(everybody, since_s, later.began_s)):
                    later_s = later.began_s - earlier.began_s
                    yield f"P4: round {number} at {earlier.node}, and {later_s:.3f} s later at {later.node}"
        numbers = sorted(self._rounds)
        for before, after in itertools.pairwise(numbers):  # they begin anywhere: at wall time / frequency
            if after != before + 1:
                yield f"P4: left out between round {before} and round {after}"
        in_time = sorted((run for runs in self._rounds.values() for run in runs), key=lambda run: run.began_s)
        for earlier, later in itertools.pairwise(in_time):
            apart_s = later.began_s - (earlier.ended_s or earlier.began_s)
            since_s = earlier.began_s - FREQUENCY_S
            excused = self._killed_between(since_s, later.began_s) or self._divided(everybody, since_s, later.began_s)
            if apart_s < FREQUENCY_S - ROUNDED_S and not excused:
                after = f"{apart_s:.3f} s after round {earlier.round} at {earlier.node}"
                yield f"P4: round {later.round} at {later.node} only {after}"

    def everywhere(self) -> Iterator[str]:
        everybody = set(self._told.names)
        for call in self._told.calls:
            if call["kind"] != "all" or call["came"] != "accepted":
                continue
            runs = self._runs.get(call["n"], [])
            last_s = max((run.began_s for run in runs), default=call["told_s"])
            at = [run.node for run in runs]
            if self._divided(everybody, call["asked_s"] - TOLD_S, last_s):
                continue
            twice = sorted({name for name in at if at.count(name) > 1})
            if twice:
                yield f"P5: twice at {' '.join(twice)}: {_text(call)}"
            if not self._killed_between(0.0, last_s) and set(at) != everybody:
                yield f"P5: not at {' '.join(sorted(everybody - set(at)))}: {_text(call)}"


def _text(call: dict[str, Any]) -> str:
    return f"{call['kind']} job {call.get('job', '')} (number {call['n']}, asked at {call['node']}, {call['came']})"
