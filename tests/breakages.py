"""What several nodes do together, broken in one line of the text each: does the simulator notice?

`mutations.py` breaks single methods. Here are the lines on which the promises between nodes rest: receipts, copies,
loans, takeovers, schedules, parts of "all", honest answers. Each is tried in a process of its own, whose modules are
read with that one line changed, in worlds in which members have a hard time; and each seed that notices is also run
with the code as it is, which has to get through: else the seed shows nothing, and the next ones are tried.

    python -m tests.breakages [--seeds n] [--jobs p] [what]...

    P1  caught by seed 3     4.1 s   a receipt counts for more than it says
        P1: an accepted job is lost ...

Exit code 1 if any survives. A line that the code does not have any more is an error that says so: `test_breakages.py`
sees to it that every one still applies. `make mutations` runs this too.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
SEEDS = 200
TRIAL_S = 1_200.0
"""A trial that takes longer has failed: a world that does not end shows nothing."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """One line, changed.

    Attributes:
        promise: which one it breaks.
        file: below `zhero/core`, without its ending.
        old: occurs exactly once in it.
        new: what stands there instead.
        scene: in which worlds it is tried, by name; see `scenes`.
    """

    promise: str
    file: str
    old: str
    new: str
    scene: str = "hard"


BREAKAGES: dict[str, Breakage] = {
    # --- P1: what is accepted is never lost ---
    "a receipt counts for more than it says": Breakage(
        "P1", "replication", "follower.receipt = message.number", "follower.receipt = stream.last", "far"
    ),
    "a snapshot is not taken in": Breakage("P1", "replication", "copy.slice.take_in(message.chunk)", "pass", "deaths"),
    "entries do not reach a copy": Breakage(
        "P1", "replication", "            copy.slice.apply(entry)", "            pass", "deaths"
    ),
    "a backup that is dead counts as one": Breakage(
        "P1", "replication", "gone = [life for life in stream.followers if life not in self._roster]", "gone = []"
    ),
    "a takeover takes nothing over": Breakage(
        "P1", "takeover", "count += merge(target, chunk.shifted(behind_ms), stream, now_ms)", "count += 0", "deaths"
    ),
    "nobody looks after a dead home": Breakage(
        "P1", "takeover", "            if best == self._roster.mine.life:", "            if False:", "deaths"
    ),
    "what a leaver hands over is dropped": Breakage(
        "P1", "handover", "            merge(target, chunk, stream, now_ms)", "            pass", "calm"
    ),
    "what a dead member ran is not run again": Breakage(
        "P1", "merging", "        stream.append(Orphaned(again, killed))", "        pass", "deaths"
    ),
    "an enqueue is accepted before its copies exist": Breakage(
        "P1", "streams", "if not waits and self.held(copies) >= self.slice.last:", "if True:", "far"
    ),
    # --- P2: with no fault everything starts once ---
    "a run is told to nobody who asks what is held": Breakage(
        "P2", "loans", "told, into = self.held_of(stream), ", "told, into = [], ", "deaths"
    ),
    "the own loans of a dead home are forgotten": Breakage(
        "P2",
        "inquiry",
        "inquiry.loans[self._roster.mine.life] = self._loans.held_of(stream)",
        "inquiry.loans[self._roster.mine.life] = []",
        "deaths",
    ),
    "how a run ended is forgotten before it is settled": Breakage(
        "P2", "loans", "                self._unsettled[report.job] = loan", "                pass", "deaths"
    ),
    "what goes back unstarted costs an attempt": Breakage(
        "P2", "jobs", "            record.attempt -= 1\n", "", "calm"
    ),
    # --- P3: nothing early ---
    "clocks of two homes are taken for one": Breakage(
        "P3", "takeover", "chunk.shifted(behind_ms)", "chunk.shifted(-20_000)"
    ),
    # --- P4: one round per period ---
    "a round is numbered twice": Breakage(
        "P4",
        "schedule",
        "        number = plan.number + 1\n        due_at_ms = 0",
        "        number = plan.number + (plan.number % 4 > 0)\n        due_at_ms = 0",
    ),
    "of two schedules the lower round holds": Breakage(
        "P4", "merging", "max(ours.number, plan.number)", "min(ours.number, plan.number)"
    ),
    "schedules are not taken over": Breakage(
        "P4", "takeover", "(*copy.slice.export(), copy.slice.export_plans())", "copy.slice.export()", "deaths"
    ),
    # --- P5: "all" runs on each member ---
    "a target is forgotten": Breakage(
        "P5",
        "broadcast",
        "(runs if able else skipped).append(life)",
        "(runs if able and not runs else skipped).append(life)",
        "calm",
    ),
    'an "all" job does not end with its last part': Breakage(
        "P5", "broadcast", "if parts is not None and not parts.open:", "if False:", "calm"
    ),
    # --- P6: it mends by itself ---
    "two owners meet, and neither yields": Breakage(
        "P6", "owner", "handover.give(stream, known.home, lambda into, at_ms: None, now_ms)", "pass"
    ),
    "the heir of the delayed queue tells nobody": Breakage(
        "P6",
        "owner",
        "            self.tell_all()\n        self._to_open = False",
        "            pass\n        self._to_open = False",
    ),
    "who comes back does not ask whose its jobs are": Breakage(
        "P6", "handover", "self._inquiries.begin(stream.id, self._decide, self._takeover.hear_late, now_ms)", "pass"
    ),
    "a slice that nobody took stays frozen": Breakage(
        "P6",
        "handover",
        "gift = self._gifts.pop(stream)\n        gift.stream.frozen = False\n",
        "gift = self._gifts.pop(stream)\n",
    ),
    "the fence of terms is turned round": Breakage(
        "P6", "owner", "return self._rank(one) < self._rank(other)", "return self._rank(one) > self._rank(other)"
    ),
    "credit is lost": Breakage(
        "P6", "loans", "                self._outbox.post(home, Hungry(None))", "                pass", "calm"
    ),
    "nobody asks after a loan that got lost": Breakage(
        "P6", "stealing", "if before.get((stream.id, record.job)) == record.attempt:", "if False:"
    ),
    # --- P7: answers are honest ---
    "who waits too long for copies hears nothing": Breakage(
        "P7", "calls", 'self.answer(asker, Refused(Refusal.NOT_ACCEPTED, f"{answer.jobs[0]:032x}"))', "pass"
    ),
    "what nobody knows counts as cancelled": Breakage(
        "P7", "relay", "self._answer(errand.asker, Did(False))", "self._answer(errand.asker, Did(True))"
    ),
    "who waited where a job was at home is forgotten": Breakage(
        "P7", "calls", "self._ask_home(asker, Cancel(job) if cancel else AwaitResult(job), now_ms)", "pass"
    ),
}


class NoLonger(LookupError):
    """A mutation no longer applies."""


def changed(it: Breakage) -> tuple[Path, str]:
    """The file that is broken, and its text then.

    Raises:
        NoLonger: it does not have that line, or more than once.
    """
    file = ROOT / "zhero" / "core" / f"{it.file}.py"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    count = text.count(it.old)
    if count != 1:
        raise NoLonger(
            f"mutation no longer applies: {it.old.strip()!r} stands {count} times in zhero/core/{it.file}.py"
        )
    return file, text.replace(it.old, it.new)


class _Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, whose text is another than that of its file."""

    def __init__(self, name: str, file: Path, text: str) -> None:
        self._name, self._file, self._text = name, file, text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._file, loader=self)  # type: ignore[arg-type]

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._text, str(self._file), "exec"), module.__dict__)


def break_it(it: Breakage) -> None:
    """From now on that module is read broken. It must not have been read yet."""
    file, text = changed(it)
    name = f"zhero.core.{it.file}"
    assert name not in sys.modules, f"{name} has been read already"
    sys.meta_path.insert(0, _Broken(name, file, text))


# --- one process --------------------------------------------------------------------------------------------------


def look_for(scene: str, first: int, last: int) -> dict[str, object]:
    """The first seed of these in whose world a promise is broken, and which."""
    from zhero.errors import Bug
    from zhero.sim.scene import Scene
    from zhero.sim.story import BrokenPromise
    from zhero.sim.wires import Weather
    from zhero.sim.world import World

    hard = Scene(
        nodes=4,
        hosts=2,
        profile="fast",
        later=1,
        drift_ppm=100,
        returns=0.9,
        faults={
            **{"crash": 5_000, "leave": 9_000, "pause": 6_000, "freeze": 15_000},
            **{"cut": 6_000, "split": 6_000, "bridge": 12_000, "loss": 4_000},
        },
    )
    calm = Scene(nodes=3, hosts=3, profile="fast", calm=True, faults={"leave": 12_000, "block": 9_000, "loss": 4_000})
    # Few deaths, and long after the start: each has to be survived, and excuses nothing that comes later.
    deaths = Scene(nodes=3, hosts=3, profile="fast", faults={"crash": 10_000}, returns=1.0)
    # The same where a frame is long on its way: who dies takes along what was said too early.
    far = replace(deaths, weather=Weather((100_000, 300_000), 0.0))
    scenes = {"hard": hard, "calm": calm, "deaths": deaths, "far": far}
    for seed in range(first, last):
        try:
            World(seed, scene=scenes[scene]).run()
        except (BrokenPromise, Bug) as broken:
            return {"seed": seed, "broke": str(broken).strip().splitlines()[0]}
    return {"seed": None}


def _child(what: str, scene: str, first: int, last: int) -> dict[str, object]:
    """Look for a seed in a process of its own, with that breakage or, if `what` is empty, with none."""
    command = [sys.executable, "-m", "tests.breakages", "--child", what, scene, str(first), str(last)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TRIAL_S)
    if done.returncode:
        raise ChildProcessError((done.stderr.strip() or "?").splitlines()[-1])
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- all of them --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one. `seed`: that caught it."""

    what: str
    seed: int | None
    said: str
    cpu_s: float

    def lines(self, seeds_count: int) -> Iterator[str]:
        came = f"caught by seed {self.seed}" if self.seed is not None else f"survived {seeds_count} seeds"
        yield f"{BREAKAGES[self.what].promise}  {came:<20} {self.cpu_s:6.1f} s   {self.what}"
        if self.said:
            yield f"    {self.said}"


def tried(what: str, seeds_count: int) -> Tried:
    """Try one, up to the first seed that catches it and gets through without it."""
    scene, first, cpu_s = BREAKAGES[what].scene, 0, 0.0
    while True:
        try:
            found = _child(what, scene, first, seeds_count)
        except (ChildProcessError, subprocess.TimeoutExpired) as error:
            return Tried(what, None, f"broke the simulator: {error}", cpu_s)
        cpu_s += float(str(found["cpu_s"]))
        seed = found["seed"]
        if not isinstance(seed, int):
            return Tried(what, None, "", cpu_s)
        if _child("", scene, seed, seed + 1)["seed"] is None:
            return Tried(what, seed, str(found["broke"]), cpu_s)
        first = seed + 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Try them; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--child"]:
        what, scene, first, last = given[1:]
        if what:
            break_it(BREAKAGES[what])
        found = look_for(scene, int(first), int(last))
        print(json.dumps({**found, "cpu_s": time.process_time()}))
        return 0
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"at most, of each ({SEEDS})")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="P", help="at once; default: all cores"
    )
    parser.add_argument("what", nargs="*", help="of these only; default: all")
    options = parser.parse_args(given)
    unknown = [what for what in options.what if what not in BREAKAGES]
    if unknown or options.seeds < 1 or options.jobs < 1:
        parser.error(f"there is no {unknown[0]!r}" if unknown else "--seeds and --jobs are at least 1")
    chosen: list[str] = options.what or list(BREAKAGES)
    for what in chosen:
        changed(BREAKAGES[what])
    survived = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for it in pool.map(partial(tried, seeds_count=options.seeds), chosen):
            survived += it.seed is None
            print("\n".join(it.lines(options.seeds)), flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
