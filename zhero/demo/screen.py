"""What people see: on a terminal a live bar and drawn tables, where rich is installed; else plain lines.

Lines may come from any thread (log records do). Plain lines have no control codes and are flushed one by one, so that
a pipe or a log shows them when they are said. What is printed may be text of others (paths, errors): characters that a
terminal would act on are shown, not sent.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from ..cli.output import printable

Advance = Callable[[], None]

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
    """Lines of text. It has no bar: the demo's periodic task says how far it is."""

    def line(self, text: str) -> None:
        print(printable(text), flush=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Generator[Advance]:
        self.line(f"{title}: {total} files")
        yield lambda: None

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

    def table(self, title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers, title=title, title_justify="left", header_style="bold")
        for row in rows:
            table.add_row(*(Text(printable(text)) for text in row))
        self._console.print()
        self._console.print(table)


class ScreenHandler(logging.Handler):
    """Log records as lines of the screen, so that a bar and they do not run into one another."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        try:
            for text in self.format(record).splitlines():
                self._screen.line(text)
        except OSError:  # nobody reads any more: the demo finds out by itself, a node must not over a line of its log
            pass


@contextmanager
def shown_log(name: str, screen: Screen) -> Generator[None]:
    """While entered, what is logged under that name from INFO upward is said on the screen."""
    logger, handler = logging.getLogger(name), ScreenHandler(screen)
    level_before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= CELL_MAX_LENGTH else text[: CELL_MAX_LENGTH - 3] + "..."
