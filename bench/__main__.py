"""The short version of every bench, and one table of all at the end.

    python -m bench [script]... [--json]

Each script runs in a process of its own, one after another. One that can't be run on this machine, as the peers need a
`redis-server`, is named with what it said, and the others count.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from .measure import short

SCRIPTS = (
    *("throughput", "baseline", "local", "latency", "scale", "memory", "startup", "members", "journal"),
    "peers",
)
NOT_HERE = 3
"""Exit code of a script that can't be run on this machine."""
SCRIPT_MAX_S = 600.0


def there(script: str) -> bool:
    """Whether this tree has it."""
    return importlib.util.find_spec(f"bench.{script}") is not None


def ran(script: str) -> tuple[int, dict[str, Any], str]:
    """The short version of a script: its exit code, what it found, what it said besides."""
    command = [sys.executable, "-m", f"bench.{script}", "--quick", "--json"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SCRIPT_MAX_S, check=False)
    except subprocess.TimeoutExpired:
        return 1, {}, f"longer than {SCRIPT_MAX_S:g} s"
    lines = ended.stderr.strip().splitlines()
    return ended.returncode, json.loads(ended.stdout or "{}"), lines[-1] if lines else ""


def rows_of(script: str, found: dict[str, Any]) -> list[list[str]]:
    """The rows of a script in the table of all."""
    return [
        [
            script,
            it["name"],
            it["against"],
            it["unit"],
            short(it["subject"]["median"]),
            short(it["baseline"]["median"]),
            short(it["ratio"]["median"]),
        ]
        for it in found.get("measures", [])
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run them all; the exit code is 0 only if none failed."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("scripts", nargs="*", metavar="script", help=f"of {', '.join(SCRIPTS)}; default: all")
    made.add_argument("--json", action="store_true", help="for programs, with every round")
    args = made.parse_args(argv)
    if unknown := [script for script in args.scripts if script not in SCRIPTS]:
        made.error(f"no such script: {', '.join(unknown)}")
    rows = [["script", "measure", "baseline", "unit", "median", "baseline's", "ratio"]]
    told: dict[str, Any] = {}
    notes: list[str] = []
    failed: list[str] = []
    began = time.monotonic()
    for script in args.scripts or filter(there, SCRIPTS):
        print(f"{script} ...", file=sys.stderr, flush=True)
        code, found, said = ran(script)
        told[script] = found
        rows += rows_of(script, found)
        if code == NOT_HERE:
            notes.append(f"{script}: {said}")
        elif code:
            failed.append(script)
            notes.append(f"{script} failed: {said}")
    if args.json:
        print(json.dumps(told, indent=2))
    else:
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        for row in rows:
            cells = (
                word.ljust(width) if place < 4 else word.rjust(width)
                for place, (word, width) in enumerate(zip(row, widths, strict=True))
            )
            print("  ".join(cells).rstrip())
        print(f"\n{time.monotonic() - began:.0f} s; less is better, and a ratio is to the baseline of the same run")
    for note in notes:
        print(note, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
