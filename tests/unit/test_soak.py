"""The soak: what goes well goes on, what breaks stops it with the way to repeat it."""

from __future__ import annotations

import sys

import pytest

from .. import soak
from ..soak import Trial, chaos, partitions, run, seeds


def said(code: str) -> Trial:
    return Trial([sys.executable, "-c", code], {"WHAT": "a b"})


def test_each_trial_is_a_command_that_can_be_repeated() -> None:
    assert str(seeds(7, 2)).endswith("-m zhero.sim --seeds 60 --from 7 --jobs 2")
    assert str(chaos(7, 2)).endswith("-m tests.chaos --rounds 1 --seed 7")
    assert str(partitions(7, 2)).startswith("SEED=7 ")


def test_a_trial_says_how_it_ended_and_sees_what_is_set_for_it() -> None:
    assert run(said("import os; print(os.environ['WHAT'])")) == (True, "a b\n")
    assert run(said("print('oh'); raise SystemExit(3)")) == (False, "oh\n")


def test_a_trial_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "TRIAL_S", 0.5)
    is_well, told = run(said("import time; print('begun', flush=True); time.sleep(600)"))
    assert not is_well
    assert told.startswith("it took longer than")


def test_it_stops_at_the_first_that_breaks_and_says_how_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    trials = {
        "good": lambda seed, jobs: said("print('all is well')"),
        "bad": lambda seed, jobs: said(f"print('story'); print('seed {seed}'); raise SystemExit(1)"),
    }
    assert soak.soak(1, 5, 1, trials) == 1
    good, bad, *rest = capsys.readouterr().out.splitlines()
    assert good.startswith("round 1  good        ok")
    assert good.endswith("all is well")
    assert bad.startswith("round 1  bad         BROKEN")
    assert rest[:2] == ["story", "seed 5"]
    assert rest[-1].startswith("to repeat it: WHAT=")


def test_it_ends_when_its_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.soak(0, 5, 1, {"good": lambda seed, jobs: said("print('fine')")}) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
