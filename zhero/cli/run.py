"""`zhero run`: a node that works until it is told to stop.

The first SIGTERM or Ctrl-C drains it: nothing new is taken, running jobs finish, up to a limit. The second one stops
it at once; a third one is the system's own. Jobs that were accepted and will not run are named in the end, and in the
exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from .. import settings
from ..errors import ConfigError, NotRunning, TaskError, ZheroError
from ..loader import Reloader
from ..node import COLOURS, Node
from .output import say

LOOK_EVERY_S = 0.5
"""Between two looks for task files that have changed."""

_OF_LEVELS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31;1"}
_BY_NAME = {
    **{colour: str(code) for code, colour in enumerate(COLOURS[:8], 30)},
    **dict.fromkeys(("grey", "gray"), "90"),
    "bold": "1",
}
"""What a task may ask for with `api.log(message, colour)`, in the order of the terminal's codes."""


class Lines(logging.Formatter):
    """`HH:MM:SS.mmm message`, on a terminal in the colour that was asked for, or else that of its level."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _BY_NAME.get(getattr(record, "colour", ""), _OF_LEVELS.get(record.levelno))
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour else text


def run(args: argparse.Namespace) -> bool:
    """Run a node until it has been stopped.

    Returns:
        Whether every accepted job has run.

    Raises:
        ConfigError, TaskInvalid, BindFailed: and others, from making and starting the node.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(colours=sys.stderr.isatty()))
    logger = logging.getLogger("zhero")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if args.verbose else logging.INFO)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            lost = runner.run(_serve(args, logger))
    finally:
        logger.removeHandler(handler)
    if lost:
        say(f"accepted jobs that will not run any more: {lost}")
    return not lost


async def _serve(args: argparse.Namespace, logger: logging.Logger) -> int:
    node, reloader = _node(args)
    with _signals() as (stopping, at_once):
        async with node:
            watching = asyncio.ensure_future(_reload(node, reloader, logger)) if reloader is not None else None
            told = asyncio.ensure_future(stopping.wait())
            by_itself = asyncio.ensure_future(node.wait_stopped())
            await asyncio.wait([told, by_itself], return_when=asyncio.FIRST_COMPLETED)
            for ending in (watching, told, by_itself):
                if ending is not None:
                    ending.cancel()
            if not stopping.is_set():
                raise NotRunning(f"node {node.name} has stopped by itself; its log says why")
            logger.info("· draining: running jobs finish; once more to stop at once")
            draining = asyncio.ensure_future(node.aclose(args.drain_timeout))
            hurry = asyncio.ensure_future(at_once.wait())
            await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not draining.done():
                await node.aclose(0)
            return await draining


@contextlib.contextmanager
def _signals() -> Generator[tuple[asyncio.Event, asyncio.Event]]:
    """Events for the first and the second SIGTERM or Ctrl-C; the third is left to the system.

    The handlers are Python's own, not the loop's: they run also while a job blocks the loop.
    """
    loop, events, seen = asyncio.get_running_loop(), (asyncio.Event(), asyncio.Event()), 0

    def on_signal(number: int, frame: object) -> None:
        nonlocal seen
        seen += 1
        if seen > len(events):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            loop.call_soon_threadsafe(events[seen - 1].set)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield events
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _reload(node: Node, reloader: Reloader, logger: logging.Logger) -> None:
    """Give the node what has changed in its task files; a broken edit leaves the old tasks in place."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if reloader.changed():
            try:
                node.set_tasks(reloader.reload())
            except TaskError as error:
                logger.error("! not loaded again, the tasks stay as they were: %s", error)
            else:
                logger.info("· tasks loaded again")


def _node(args: argparse.Namespace) -> tuple[Node, Reloader | None]:
    """The node to run; with --reload, what looks for changes of its task files."""
    sys.path.insert(0, str(Path.cwd()))  # so that task files and applications import one another by their own names
    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in (
            *("tasks", "name", "bind", "join", "advertise", "profile", "cluster", "workers"),
            *("secret_file", "insecure"),
        )
    }
    given["data_dir"] = settings.NO_DATA if args.no_data else args.data_dir
    given["durability"] = args.durability
    if args.node is None:
        paths = settings.resolve(tasks=args.tasks).tasks or (Path("tasks"),)
        reloader = Reloader(paths) if args.reload else None
        if given["data_dir"] is None and settings.resolve(durability="memory").origins["data_dir"] == "default":
            given["data_dir"] = settings.AUTO
        given["tasks"] = paths if reloader is None else reloader.load()
        return Node(**given, drain_timeout=args.drain_timeout), reloader
    said = [name for name, value in given.items() if value is not None]
    if said:
        raise ConfigError(f"{args.node} brings its own settings: --{said[0]} can't be given with it")
    if args.reload:
        raise ConfigError(f"--reload is for task folders (--tasks), {args.node} brings its own tasks")
    return imported(args.node), None


def imported(place: str) -> Node:
    """The node that `module:name` names, or that the function of that name makes.

    Raises:
        ConfigError: there is none.
    """
    module_name, colon, name = place.partition(":")
    if not module_name or not colon or not name:
        raise ConfigError(f"{place!r} is not MODULE:NODE, such as app.main:node")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
        if not isinstance(found, Node) and callable(found):
            found = found()
    except ZheroError:
        raise
    except Exception as error:  # whatever the code of an application raises
        raise ConfigError(f"can't get a node from {place}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Node):
        raise ConfigError(f"{place} is no zhero.Node, and no function that makes one")
    return found


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """A quicker loop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
