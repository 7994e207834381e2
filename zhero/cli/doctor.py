"""`zhero doctor`: what is wrong, one line per check, and what to do about it.

Settings of the environment and of files are looked at like everything else, and what is wrong with them is a problem;
what is typed is checked as for every other command, and is wrong usage.
"""

from __future__ import annotations

import argparse
from collections import Counter

from ..errors import ConfigError
from ..runtime.discovery import Directory, runtime_path
from ..settings import Settings, resolve
from .checks import Finding, Found, Site, judge, left_behind, worst
from .output import printable, show_json
from .probes import look


def doctor(args: argparse.Namespace) -> bool:
    """Look, repair what may be repaired, and tell.

    Returns:
        Whether there is no problem.

    Raises:
        ConfigError: what was typed can't be.
    """
    found = look(_settings(args))
    findings = judge(found)
    fixed = _fix(found) if args.fix else []
    if args.json:
        show_json(
            {
                "worst": worst(findings),
                "fixed": fixed,
                "checks": [
                    {"what": it.what, "level": it.level, "found": it.found, "advice": it.advice} for it in findings
                ],
            }
        )
    else:
        _show(findings, fixed)
    return worst(findings) != "problem"


def _settings(args: argparse.Namespace) -> Settings | str:
    try:
        resolve()
    except ConfigError as error:
        return str(error)
    return resolve(cluster=args.cluster, join=args.join, secret_file=args.secret_file, insecure=args.insecure)


def _fix(found: Found) -> list[str]:
    """Remove what nodes that are gone have left; the names of those."""
    if not isinstance(found.site, Site):
        return []
    settings, gone = found.site.settings, left_behind(found.site)
    directory = Directory(runtime_path(settings.runtime_dir), settings.cluster)
    for it in gone:
        directory.remove_stale(it.entry)
    return [it.entry.name for it in gone]


def _show(findings: list[Finding], fixed: list[str]) -> None:
    width = max(len(printable(it.what)) for it in findings)
    for it in findings:
        advice = f"; {it.advice}" if it.advice else ""
        print(f"{it.level:<7}  {printable(it.what):<{width}}  {printable(it.found + advice)}")
    for name in fixed:
        print(f"removed  entry {printable(name)}")
    counts = Counter(it.level for it in findings)
    print(f"problems: {counts['problem']}, warnings: {counts['warning']}")
