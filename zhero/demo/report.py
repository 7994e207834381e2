"""Figures as text: rows for tables on the screen, and the report as a file."""

from __future__ import annotations

from collections.abc import Sequence

from .analysis import Figures

Row = tuple[str, ...]

TOTALS = ("FIGURE", "COUNT")
MOST_BRANCHING = ("BRANCHES", "FUNCTION", "WHERE")
NOT_PARSED = ("FILE", "WHY IT DOES NOT PARSE")


def totals(figures: Figures) -> list[Row]:
    """Rows for `TOTALS`."""
    parsed = figures["files"] - len(figures["not_parsed"])
    counted = (
        ("files", figures["files"]),
        ("of these parsed", parsed),
        ("bytes", figures["bytes"]),
        ("lines", figures["lines"]),
        ("functions", figures["functions"]),
        ("classes", figures["classes"]),
        ("branches", figures["branches"]),
    )
    return [(name, f"{count:,}") for name, count in counted]


def most_branching(figures: Figures) -> list[Row]:
    """Rows for `MOST_BRANCHING`."""
    return [(str(branches), name, f"{path}:{line}") for branches, path, name, line in figures["most_branching"]]


def not_parsed(figures: Figures) -> list[Row]:
    """Rows for `NOT_PARSED`."""
    return list(figures["not_parsed"])


def as_markdown(figures: Figures, python: str) -> str:
    """The report.

    Args:
        python: the version whose standard library it is about.
    """
    parts = [f"# The standard library of Python {python}"]
    parts += ["## All files", _table(TOTALS, totals(figures))]
    parts += ["## Functions with most branches", _table(MOST_BRANCHING, most_branching(figures))]
    if figures["not_parsed"]:
        parts += ["## Files that do not parse", _table(NOT_PARSED, not_parsed(figures))]
    return "\n\n".join(parts) + "\n"


def _table(headers: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
