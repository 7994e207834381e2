"""`zhero`: from a command line to an exit code.

| code | what |
|---|---|
| 0 | fine |
| 1 | the thing asked for failed: a job, a cancel, a port in use, jobs that were lost; `doctor` found a problem |
| 2 | wrong usage: options, settings, a task that is wrong or that nobody has, params |
| 3 | no cluster was reached |
| 130 | Ctrl-C |

What goes wrong is one line on stderr, never a traceback. A reader that closes the pipe has seen enough: that is fine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence

from .. import settings
from ..client import Client
from ..errors import ConfigError, NotReached, TaskError, ZheroError
from ..runtime.auth import generate as generate_key
from .commands import COMMANDS
from .doctor import doctor
from .generate import generate
from .output import say, show_json, show_table
from .parser import build
from .run import run

FINE, FAILED, WRONG_USAGE, NOT_REACHED, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line says.

    Args:
        argv: without the name of the program; None: that of this process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show a letter is no reason to fail
    try:
        args = build(_version()).parse_args(argv)
        done = _do(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse has said what it had to
        return stop.code if isinstance(stop.code, int) else FAILED
    except BrokenPipeError:
        # What is still in the buffer must not raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ZheroError, OSError) as error:
        say(str(error))
        return _code(error)
    return FINE if done else FAILED


def _do(args: argparse.Namespace) -> bool:
    if args.command == "run":
        return run(args)
    if args.command == "generate":
        for file in generate(args.name, args.scope, args.frequency, args.dir):
            print(file)
        return True
    if args.command == "keygen":
        print(generate_key())
        return True
    if args.command == "config":
        _show_config(as_json=args.json)
        return True
    if args.command == "doctor":
        return doctor(args)
    return asyncio.run(_ask(args))


async def _ask(args: argparse.Namespace) -> bool:
    async with Client(args.cluster, args.join, secret_file=args.secret_file, insecure=args.insecure) as client:
        return await COMMANDS[args.command](client, args)


def _show_config(*, as_json: bool) -> None:
    explained = settings.resolve().explain()
    if as_json:
        show_json({name: {"value": value, "origin": origin} for name, value, origin in explained})
    else:
        show_table(("SETTING", "VALUE", "ORIGIN"), explained)


def _code(error: Exception) -> int:
    if isinstance(error, NotReached):
        return NOT_REACHED
    return WRONG_USAGE if isinstance(error, ConfigError | TaskError) else FAILED


def _version() -> str:
    try:
        return importlib.metadata.version("zhero")
    except importlib.metadata.PackageNotFoundError:  # run from its sources, never installed
        return "unknown"
