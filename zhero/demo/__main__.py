"""`python -m zhero.demo`: the jobs on a node, the same in one plain loop, and whether they agree.

| exit code | what |
|---|---|
| 0 | every job gave its result, and the figures are equal |
| 1 | something was lost, differs or went wrong; a line says what |
| 2 | wrong usage |
| 130 | Ctrl-C |
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import zhero

from . import report
from .analysis import SOURCES_MAX_COUNT, analyse_all, list_sources, standard_library
from .run import Order, Taken, cores, run_on_one_node
from .screen import Screen, choose, shown_log
from .verdict import Run, Verdict, judge, read_runs

FINE, FAILED, INTERRUPTED = 0, 1, 130


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
    try:
        with tempfile.TemporaryDirectory(prefix="zhero-demo-") as folder:
            verdict = _demo(options, Path(folder), choose(plain=options.plain))
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has seen enough, and there is nobody to tell how it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (zhero.ZheroError, OSError) as error:  # with TimeoutError, which is an OSError
        print(f"demo: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    return FINE if verdict.is_good else FAILED


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m zhero.demo",
        description="Analyse the source of the standard library, one job per file, and compare with a plain loop.",
    )
    parser.add_argument("--limit", type=int, default=SOURCES_MAX_COUNT, metavar="N", help="the first N files only")
    parser.add_argument("--report", type=Path, metavar="PATH", help="keep the report there")
    parser.add_argument("--plain", action="store_true", help="plain lines also on a terminal")
    options = parser.parse_args(argv)
    if not 1 <= options.limit <= SOURCES_MAX_COUNT:
        parser.error(f"--limit is from 1 to {SOURCES_MAX_COUNT}")
    if options.report is not None and not options.report.absolute().parent.is_dir():
        parser.error(f"--report: there is no folder {options.report.absolute().parent}")
    return options


def _demo(options: argparse.Namespace, folder: Path, screen: Screen) -> Verdict:
    root = standard_library()
    paths = list_sources(root, options.limit)
    if not paths:
        raise FileNotFoundError(f"no source of the standard library in {root}")
    kept = options.report.absolute() if options.report is not None else None
    order = Order(root, paths, folder / "runs", kept or folder / "report.md")
    screen.line(f"{len(paths)} files of Python {platform.python_version()} in {root}; one node, {cores()} workers")
    with shown_log("zhero", screen):
        taken = asyncio.run(run_on_one_node(order, screen))
    # What the node leaves is taken away now: in a collection amid the loop, Python would lose a Ctrl-C.
    gc.collect()
    # Afterwards and outside of the loop: the two do not share the cores, and Ctrl-C ends it at once.
    started_s = time.perf_counter()
    with screen.bar("analysed in a plain loop", len(paths)) as advance:
        by_loop = analyse_all(root, paths, advance)
    loop_s = time.perf_counter() - started_s
    runs = read_runs(order.record)
    verdict = judge(taken.accepted, taken.results, runs, by_loop, taken.inline, nodes=len(taken.places), killed=0)
    _show_figures(taken, screen)
    _show_run(taken, runs, loop_s, screen)
    _show_report(order.report, taken, screen, is_kept=kept is not None)
    for problem in verdict.problems:
        screen.line(f"! {problem}")
    screen.line(verdict.line)
    return verdict


def _show_figures(taken: Taken, screen: Screen) -> None:
    figures = taken.figures
    if figures["not_parsed"]:
        screen.table("files that do not parse", report.NOT_PARSED, report.not_parsed(figures))
    screen.table("functions with most branches", report.MOST_BRANCHING, report.most_branching(figures))
    screen.table("all files", report.TOTALS, report.totals(figures))


def _show_run(taken: Taken, runs: Sequence[Run], loop_s: float, screen: Screen) -> None:
    screen.line("")
    for name, place in taken.places.items():
        screen.line(f"member {name}: process {place['pid']}, Python {place['python']}, {place['system']}")
    shares = Counter(run.pid for run in runs).values()
    screen.line(
        f"by jobs: {taken.took_s:.1f} s in {len(shares)} child processes ({' + '.join(map(str, shares))} runs), "
        f"with their start; plain loop: {loop_s:.1f} s in this process; ratio {loop_s / taken.took_s:.2f}"
    )
    path, counts = taken.inline
    screen.line(f"inline: {path} has {counts['functions']} functions and {counts['branches']} branches")


def _show_report(file: Path, taken: Taken, screen: Screen, *, is_kept: bool) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    where = f"in {file}" if is_kept else "in a temporary folder; --report PATH keeps it"
    screen.line(
        f"report: {lines} lines, {taken.report_bytes} bytes, written by a delayed job "
        f"{taken.report_after_s:.2f} s after it was enqueued, {where}"
    )


if __name__ == "__main__":
    sys.exit(main())
