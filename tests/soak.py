"""Seeds, kills and partitions in turn, for as long as is asked for: `make soak MINUTES=n`.

    python -m tests.soak [--minutes m] [--seed n] [--jobs p]

A round is 60 worlds of the simulator, then one round of real processes that are killed and otherwise troubled
(`tests.chaos`), then real processes in a network that falls apart (`tests.partitions`). One line per trial:

    round 1  seeds       ok     61.2 s   60 seeds, 0 broken: ...
    round 1  chaos       ok     48.0 s   ...

The first broken promise ends it with exit code 1, all that the trial has said, and the command that repeats it. Each
trial is such a command, in a process group of its own, which is ended with this one. What this machine can't do is said
once, and left out. The line that matters of a trial is its last.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .partitions.lab import why_not

ROOT = Path(__file__).parents[1]
ROUND_SEEDS = 60
SEED_MAX = 10**9
TRIAL_S = 1_800.0
"""A trial that takes longer has failed."""
END_S = 15.0
"""What a trial that is told to end gets for it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A command. `environment`: besides what is there."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        set_before = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*set_before, shlex.join(self.command)])


def seeds(seed: int, jobs: int) -> Trial:
    count = str(ROUND_SEEDS)
    return Trial([sys.executable, "-m", "zhero.sim", "--seeds", count, "--from", str(seed), "--jobs", str(jobs)])


def chaos(seed: int, jobs: int) -> Trial:
    return Trial([sys.executable, "-m", "tests.chaos", "--rounds", "1", "--seed", str(seed)])


def partitions(seed: int, jobs: int) -> Trial:
    return Trial([sys.executable, "-m", "pytest", "-q", "-s", "tests/partitions"], {"SEED": str(seed)})


TRIALS: dict[str, Callable[[int, int], Trial]] = {"seeds": seeds, "chaos": chaos, "partitions": partitions}
"""Name -> the command for a seed and so many processes."""


def unable() -> dict[str, str]:
    """Which trials this machine can't do, and why."""
    found: dict[str, str] = {}
    if importlib.util.find_spec("tests.chaos") is None:
        found["chaos"] = "there is no tests/chaos"
    why = why_not()
    if why:
        found["partitions"] = why
    return found


def run(trial: Trial) -> tuple[bool, str]:
    """Whether it went well, and all that it said."""
    process = subprocess.Popen(
        trial.command,
        cwd=ROOT,
        env={**os.environ, **trial.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=TRIAL_S)
        return process.returncode == 0, said
    except subprocess.TimeoutExpired:
        return False, f"it took longer than {TRIAL_S:.0f} s\n{_end(process)}"
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[str]) -> str:
    """Have it tidy up, as with Ctrl-C; then it is killed. Returns what it said."""
    for how in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            said, _ = process.communicate(timeout=END_S)
            return said
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    return ""


def soak(minutes: float, seed: int, jobs: int, trials: Mapping[str, Callable[[int, int], Trial]]) -> int:
    """Go on until the time is over or a promise is broken; returns the exit code."""
    ends_s = time.monotonic() + minutes * 60
    number = 0
    while True:
        number += 1
        for name, make in trials.items():
            trial = make(seed, jobs)
            began_s = time.monotonic()
            is_well, said = run(trial)
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
            took_s = time.monotonic() - began_s
            print(f"round {number}  {name:<11} {'ok' if is_well else 'BROKEN':<6} {took_s:6.1f} s   {last}", flush=True)
            if not is_well:
                print(f"{said}\nto repeat it: {trial}", flush=True)
                return 1
            if time.monotonic() >= ends_s:
                return 0
        seed = (seed + ROUND_SEEDS) % SEED_MAX


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, metavar="M", help="a trial that has begun ends (10)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the first round; default: any")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="P", help="for seeds; all cores")
    options = parser.parse_args(arguments)
    seed = random.randrange(SEED_MAX) if options.seed is None else options.seed
    cannot = unable()
    for name, why in cannot.items():
        print(f"! no {name}: {why}")
    print(f"from seed {seed}", flush=True)
    able = {name: make for name, make in TRIALS.items() if name not in cannot}
    try:
        return soak(options.minutes, seed, options.jobs, able)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
