"""`python -m zhero.demo`: the jobs on three nodes, the same in one plain loop, and whether they agree.

| exit code | what |
|---|---|
| 0 | every job gave its result though two nodes were killed, and the figures are equal |
| 1 | something was lost, differs or went wrong; a line says what |
| 2 | wrong usage |
| 130 | Ctrl-C |
| 143 | SIGTERM; no child is left behind, nor by any other end |
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import zhero

from . import report
from .analysis import SOURCES_MAX_COUNT, Figures, analyse_all, list_sources, merge, standard_library
from .run import WORKERS, Order, Taken, run_on_three_nodes
from .screen import Screen, choose
from .verdict import Verdict, judge, rang_on, rounds, shares

FINE, FAILED, INTERRUPTED, TERMINATED = 0, 1, 130, 143
FILES_COUNT, FILES_MIN_COUNT = 1_200, 12
"""How many files are analysed unless the user says otherwise: work for half a minute on a small machine."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: without the name of the program; None: that of this process.

    Returns:
        The exit code.
    """
    options = _parsed(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show a letter is no reason to fail
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with tempfile.TemporaryDirectory(prefix="zhero-demo-") as folder:
            verdict = _demo(options, Path(folder), choose(plain=options.plain))
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit:
        print("demo: terminated", file=sys.stderr)
        return TERMINATED
    except BrokenPipeError:  # whoever reads has seen enough, and there is nobody to tell how it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (zhero.ZheroError, OSError) as error:  # with TimeoutError, which is an OSError
        print(f"demo: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    finally:
        signal.signal(signal.SIGTERM, before)
    return FINE if verdict.is_good else FAILED


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(TERMINATED)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m zhero.demo",
        description="Analyse the source of the standard library on three nodes, two of which are killed, and compare.",
    )
    parser.add_argument(
        "--limit", type=int, default=FILES_COUNT, metavar="N", help="the first N files only (%(default)s)"
    )
    parser.add_argument("--report", type=Path, metavar="PATH", help="keep the report there")
    parser.add_argument("--plain", action="store_true", help="plain lines also on a terminal")
    options = parser.parse_args(argv)
    if not FILES_MIN_COUNT <= options.limit <= SOURCES_MAX_COUNT:
        parser.error(f"--limit is from {FILES_MIN_COUNT} to {SOURCES_MAX_COUNT}")
    if options.report is not None and not options.report.absolute().parent.is_dir():
        parser.error(f"--report: there is no folder {options.report.absolute().parent}")
    return options


def _demo(options: argparse.Namespace, folder: Path, screen: Screen) -> Verdict:
    root = standard_library()
    paths = list_sources(root, options.limit)
    if not paths:
        raise FileNotFoundError(f"no source of the standard library in {root}")
    screen.line(f"{len(paths)} files of Python {platform.python_version()} in {root}; three nodes of {WORKERS} workers")
    taken = asyncio.run(run_on_three_nodes(Order(root, paths, folder), screen))
    # What the cluster's loop leaves is taken away now: in a collection amid the plain loop, Python would lose a Ctrl-C.
    gc.collect()
    # Afterwards and outside of the loop: the two do not share the cores, and Ctrl-C ends it at once.
    started_s = time.perf_counter()
    with screen.bar("analysed in a plain loop", len(paths)) as advance:
        by_loop = analyse_all(root, paths, advance)
    loop_s = time.perf_counter() - started_s
    verdict = judge(
        taken.accepted,
        taken.results,
        taken.rang,
        taken.entries,
        by_loop,
        taken.kills,
        nodes=len(taken.members),
        troubles=taken.troubles,
    )
    _show_figures(merge(taken.results), options.report, screen)
    _show_run(taken, verdict, loop_s, screen)
    for problem in verdict.problems:
        screen.line(f"! {problem}")
    screen.line(verdict.counts)
    screen.line(verdict.line)
    return verdict


def _show_figures(figures: Figures, file: Path | None, screen: Screen) -> None:
    if figures["not_parsed"]:
        screen.table("files that do not parse", report.NOT_PARSED, report.not_parsed(figures))
    screen.table("functions with most branches", report.MOST_BRANCHING, report.most_branching(figures))
    screen.table("all files", report.TOTALS, report.totals(figures))
    if file is not None:
        file.write_text(report.as_markdown(figures, platform.python_version()), encoding="utf-8")
        screen.line(f"report: in {file}")


def _show_run(taken: Taken, verdict: Verdict, loop_s: float, screen: Screen) -> None:
    screen.line("")
    for name, place in taken.places.items():
        screen.line(f"member {name}: process {place['pid']}, Python {place['python']}, {place['system']}")
    counts = shares(taken.entries)
    shared = ", ".join(f"{name} {count} ({100 * count / sum(counts.values()):.0f} %)" for name, count in counts.items())
    screen.line(f"runs: {shared}")
    for it in verdict.interrupted:
        screen.line(it.sentence)
    screen.line(f"repeated: {verdict.repeated} runs beyond one of each file")
    screen.line(rounds(taken.entries))
    rang = rang_on(taken.entries)
    if rang is not None:
        screen.line(f"the delayed job ran on {rang[0]}, {rang[1] - taken.ring_at_s:.2f} s after it was due")
    screen.line(f"by jobs: {taken.took_s:.1f} s, with two kills and what they cost; plain loop: {loop_s:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
