"""What people see: on a terminal the live cluster and drawn tables, where rich is installed; else plain lines.

Plain lines have no control codes and are flushed one by one, so that a pipe or a log shows them when they are said.
What is printed may be text of others (paths, errors): characters that a terminal would act on are shown, not sent.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from ..cli.output import printable
from .picture import MEMBERS, Picture

if TYPE_CHECKING:
    from rich.console import RenderableType

Advance = Callable[[], None]
Show = Callable[[Picture], None]

PLAIN_EVERY_S = 1.0
"""A plain line shows the cluster so often."""
CELL_MAX_LENGTH = 90
"""Characters of a cell of a plain table; the rest is left out."""


class Screen(Protocol):
    """Where the demo says things."""

    def line(self, text: str) -> None:
        """Say one line."""
        ...

    def bar(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """A bar that is there while it is entered; what it gives is called once per step done."""
        ...

    def live(self) -> AbstractContextManager[Show]:
        """The cluster as it is, while it is entered; what it gives is called with each new picture."""
        ...

    def table(self, title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Show rows under headers."""
        ...


def choose(*, plain: bool) -> Screen:
    """The best one that stdout can show.

    Args:
        plain: only plain lines, whatever stdout is.
    """
    if plain or not sys.stdout.isatty() or importlib.util.find_spec("rich") is None:
        return PlainScreen()
    return RichScreen()


class PlainScreen:
    """Lines of text. It has no bar."""

    def line(self, text: str) -> None:
        print(printable(text), flush=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Generator[Advance]:
        self.line(f"{title}: {total} files")
        yield lambda: None

    @contextmanager
    def live(self) -> Generator[Show]:
        next_s = 0.0

        def show(picture: Picture) -> None:
            nonlocal next_s
            if picture.after_s >= next_s:
                next_s = picture.after_s + PLAIN_EVERY_S
                self.line(picture.line())

        yield show

    def table(self, title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        cells = [list(headers), *([_short(text) for text in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        self.line("")
        self.line(title)
        for row in cells:
            self.line("  " + "  ".join(map(str.ljust, row, widths)).rstrip())


class RichScreen:
    """A terminal, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def line(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(printable(text)), soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Generator[Advance]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            shown = progress.add_task(title, total=total)
            yield lambda: progress.advance(shown)

    @contextmanager
    def live(self) -> Generator[Show]:
        from rich.live import Live

        with Live(console=self._console, refresh_per_second=8, transient=True) as live:
            yield lambda picture: live.update(_drawn(picture))

    def table(self, title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers, title=title, title_justify="left", header_style="bold")
        for row in rows:
            table.add_row(*(Text(printable(text)) for text in row))
        self._console.print()
        self._console.print(table)


def _drawn(picture: Picture) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(*MEMBERS, header_style="bold")
    for row in picture.rows():
        style = "red" if row[1].startswith(("killed", "dead")) else "green" if row[2] else ""
        table.add_row(*(Text(printable(text)) for text in row), style=style)
    done = Table.grid(padding=(0, 1))
    done.add_row(
        ProgressBar(total=picture.total or 1, completed=picture.ended, width=40),
        f"{picture.ended}/{picture.total} files",
        f"{picture.after_s:.1f} s",
    )
    return Group(table, Text(printable(f"queues: {picture.queues()}")), done)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= CELL_MAX_LENGTH else text[: CELL_MAX_LENGTH - 3] + "..."
