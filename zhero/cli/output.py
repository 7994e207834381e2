"""What the command line prints: tables, JSON, and one line for what went wrong.

Answers go to stdout, all else to stderr, so that a pipe gets only answers. Tables are plain text; where stdout is a
terminal and rich is installed, it draws them. Text of others (params, errors, names) is printed without its control
characters: a job must not be able to write to the terminal of whoever lists it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from ..views import plain

CELL_MAX_LENGTH = 60
"""Characters of a cell; the rest is left out."""


def show_json(value: object) -> None:
    """One JSON document; parts that JSON can't hold as their `repr`."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def show_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under headers; None is shown as "-"."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        _draw(headers, cells)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(headers: Sequence[str], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def say(text: str) -> None:
    """One line for people, on stderr: what a script does not want to parse."""
    print(f"zhero: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """The text on one line, without anything that a terminal would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def span(ms: int) -> str:
    """A length of time, as people say it."""
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms >= size_ms:
            return f"{ms / size_ms:.3g}{unit}"
    return f"{ms}ms"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = printable(str(value))
    return text if len(text) <= CELL_MAX_LENGTH else text[: CELL_MAX_LENGTH - 3] + "..."
