"""The judge can find for either side: each promise broken on paper is noticed, and what a cut excuses is excused."""

from __future__ import annotations

from typing import Any

import pytest

from .lab import Cut
from .oracle import Run, Told, judge, summary, unfinished
from .shapes import between

NAMES = ["n1", "n2", "n3"]
ROUND = 1_760_000_000


def call(came: str = "accepted", **given: Any) -> dict[str, Any]:
    told = {"n": 7, "kind": "now", "node": "n1", "homes": ["n1"], "asked_s": 10.0, "told_s": 10.1, "delay_s": 0.0}
    return {**told, "came": came, "job": "j7", **given}


def run(node: str = "n1", began_s: float = 10.2, ended_s: float = 10.3, **given: Any) -> Run:
    it = {"task": "work", "job": "j7", "number": 7, "round": 0, "token": (1, 1), **given}
    return Run(node=node, began_s=began_s, ended_s=ended_s, **it)


def ring(number: int, began_s: float, node: str = "n1") -> Run:
    return run(node, began_s, began_s + 0.05, task="ring", job=f"r{number}", number=0, round=ROUND + number)


def told(*calls: dict[str, Any], **given: Any) -> Told:
    it = Told(calls=list(calls), asked={call["n"] for call in calls}, names=list(NAMES))
    it.copies["n1"] = [(1.0, "own", ["n2"])]
    for name, value in given.items():
        setattr(it, name, value)
    return it


SPLIT = [Cut(frozenset(between(["n1", "n2"], ["n3"])), 9.0, 12.0)]
AGAIN = [run("n1"), run("n3", 11.0, 11.1, token=(1, 2))]


def promises(found: list[str]) -> list[str]:
    return [it.partition(":")[0] for it in found]


def test_what_ran_once_as_it_was_asked_for_is_no_complaint() -> None:
    assert judge(told(call()), [run()]) == []


@pytest.mark.parametrize(
    ("known", "runs", "promise"),
    [
        (told(call()), [], "P1"),
        (told(call()), [run(ended_s=0.0)], "P1"),
        (told(call()), [*AGAIN], "P2"),
        (told(call(), kills={"n1": 12.0}), [*AGAIN], "P2"),
        (told(call("refused")), [run()], "P3"),
        (told(call(delay_s=1.0)), [run()], "P3"),
        (told(), [run()], "P3"),
        (told(), [ring(1, 1.0), ring(1, 2.5)], "P4"),
        (told(), [ring(1, 1.0), ring(2, 1.5)], "P4"),
        (told(), [ring(1, 1.0), ring(3, 2.5)], "P4"),
        (told(call(kind="all")), [run("n1"), run("n2")], "P5"),
        (told(call(kind="all")), [run(name) for name in (*NAMES, "n1")], "P5"),
    ],
)
def test_each_broken_promise_is_noticed(known: Told, runs: list[Run], promise: str) -> None:
    assert promises(judge(known, runs)) == [promise]


def test_a_cut_excuses_only_those_whom_it_divides() -> None:
    to_the_other_side = told(call(), cuts=SPLIT, one=[12.5])
    to_the_other_side.copies["n1"] = [(1.0, "own", ["n3"])]
    assert judge(to_the_other_side, AGAIN) == []
    assert promises(judge(told(call(), cuts=SPLIT, one=[12.5]), AGAIN)) == ["P2"]


def test_a_cut_lasts_until_the_cluster_is_one_again_and_no_longer() -> None:
    late = [run("n3", 13.0, 13.1), run("n1", 13.5, 13.6, token=(1, 2))]
    assert judge(told(call(asked_s=12.2), cuts=SPLIT, one=[11.0, 14.0]), late) == []
    assert promises(judge(told(call(asked_s=12.7), cuts=SPLIT, one=[12.5]), late)) == ["P2"]


def test_a_run_that_is_broken_off_as_two_sides_meet_is_counted_and_no_other() -> None:
    known = told(call(), cuts=SPLIT, one=[12.5])
    again = run("n2", 12.4, 12.6, token=(1, 2))
    going_on = [run("n1", 11.5, 0.0), again]
    assert judge(known, going_on) == []
    assert "1 of them of one side" in summary(known, going_on)
    assert promises(judge(known, [run("n1", 10.2, 10.3), again])) == ["P2"]


def test_who_was_killed_in_the_middle_of_a_run_is_an_excuse_for_another() -> None:
    assert judge(told(call(), kills={"n1": 10.25}), AGAIN) == []
    assert promises(judge(told(call(), kills={"n2": 10.25}), AGAIN)) == ["P2"]


def test_what_has_no_end_yet_is_counted() -> None:
    assert unfinished(told(call(), call("unsure", n=8)), [run(ended_s=0.0)]) == 1
    assert unfinished(told(call()), [run()]) == 0
