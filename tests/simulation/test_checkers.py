"""The checkers can fail: an engine that is broken in one line is caught within a few seeds, and by a promise."""

from __future__ import annotations

import pytest

from zhero.sim.world import World

from .. import mutations
from ..mutations import BROKEN, MEMBERS_BROKEN, ROUGH, caught_by, main

SEEDS_MAX = 12
"""Within so many seeds each has to be caught."""

ROUGH_SEEDS_MAX = 24
"""The same, of worlds in which members have a hard time."""


@pytest.mark.parametrize("what", BROKEN)
def test_an_engine_that_is_broken_in_one_line_is_caught(what: str) -> None:
    assert caught_by(what, range(SEEDS_MAX)) is not None, f"{SEEDS_MAX} seeds have not noticed that {what}"


@pytest.mark.parametrize("what", MEMBERS_BROKEN)
def test_members_that_are_broken_in_one_line_are_caught(what: str) -> None:
    assert caught_by(what, range(ROUGH_SEEDS_MAX)) is not None, f"{ROUGH_SEEDS_MAX} seeds have not noticed that {what}"


def test_members_that_are_whole_are_not() -> None:
    for seed in range(ROUGH_SEEDS_MAX):
        World(seed, scene=ROUGH).run()


# --- the script ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_script_says_of_each_which_seed_caught_it(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    some = ["a ready job is never lent", "jobs start early"]
    assert main(["--seeds", str(SEEDS_MAX), "--jobs", jobs, *some]) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert [line.partition("seed")[0] for line in lines] == ["caught by ", "caught by "]
    assert [line[25:] for line in lines] == some
    assert summary == "2 of 2 caught"


def test_what_survives_and_what_breaks_the_simulator_fail_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fall_over(live: pytest.MonkeyPatch) -> None:
        live.setattr(mutations, "live", None)

    monkeypatch.setitem(mutations.MUTATIONS, "nothing is wrong", lambda patch: None)
    monkeypatch.setitem(mutations.MUTATIONS, "nothing works", fall_over)
    assert main(["--seeds", "2", "--jobs", "1", "nothing is wrong", "nothing works"]) == 1
    survived, broke, summary = capsys.readouterr().out.splitlines()
    assert survived.split() == ["survived", "2", "seeds", "nothing", "is", "wrong"]
    assert broke.startswith("broke the simulator")
    assert summary == "0 of 2 caught"


def test_a_mutation_that_there_is_not_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["no such thing"])
    assert stop.value.code == 2
