"""The lines that `breakages.py` changes are there, and one that is changed is noticed."""

from __future__ import annotations

import pytest

from .. import breakages
from ..breakages import BREAKAGES, Breakage, NoLonger, changed, main

LEAST_COUNT = 25
PROMISES = {f"P{number}" for number in range(1, 8)}


@pytest.mark.parametrize("what", BREAKAGES)
def test_every_mutation_still_applies(what: str) -> None:
    file, text = changed(BREAKAGES[what])
    assert text != file.read_text(encoding="utf-8")
    compile(text, str(file), "exec")


def test_there_are_enough_and_some_for_each_promise() -> None:
    assert len(BREAKAGES) >= LEAST_COUNT
    assert {it.promise for it in BREAKAGES.values()} == PROMISES


@pytest.mark.parametrize(
    "it",
    [Breakage("P1", "loans", "no such line", ""), Breakage("P1", "loans", "self", ""), Breakage("P1", "gone", "x", "")],
)
def test_one_that_does_not_apply_says_so(it: Breakage) -> None:
    with pytest.raises(NoLonger, match=r"mutation no longer applies: .* times in zhero/core/"):
        changed(it)


def test_one_is_caught_by_a_seed_that_gets_through_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "12", "--jobs", "1", "a target is forgotten"]) == 0
    caught, why, summary = capsys.readouterr().out.splitlines()
    assert caught.startswith("P5  caught by seed ")
    assert caught.endswith("a target is forgotten")
    assert why.strip()
    assert summary == "1 of 1 caught"


def test_what_changes_nothing_survives_and_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(what: str, scene: str, first: int, last: int) -> dict[str, object]:
        return {"seed": None, "cpu_s": 0.0}

    monkeypatch.setattr(breakages, "_child", nothing)
    assert main(["--seeds", "2", "--jobs", "1", "credit is lost"]) == 1
    survived, summary = capsys.readouterr().out.splitlines()
    assert survived.startswith("P6  survived 2 seeds")
    assert summary == "0 of 1 caught"


def test_a_seed_that_fails_anyway_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(what: str, scene: str, first: int, last: int) -> dict[str, object]:
        seed = first if what or first == 0 else None
        return {"seed": seed, "broke": "P1: lost", "cpu_s": 0.5}

    monkeypatch.setattr(breakages, "_child", look)
    assert main(["--seeds", "5", "--jobs", "1", "credit is lost"]) == 0
    assert capsys.readouterr().out.startswith("P6  caught by seed 1")
