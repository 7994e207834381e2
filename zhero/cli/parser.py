"""What can be typed: commands, their options, their help with an example each.

What is wrong with a command line is one line on stderr and exit code 2, as every other wrong use is. Settings are
taken as they are typed and checked where those of the environment and of files are, so that the message is the same.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from ..config import FREQUENCY_MIN_MS
from .output import printable


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"zhero: {printable(message)} (see {self.prog} --help)\n")


def build(version: str) -> Parser:
    """The parser of the whole command line. Parsed, `command` is the name of what to do."""
    parser = Parser(
        prog="zhero",
        description="Background tasks with no broker: your processes are the cluster.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zhero {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, what: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    _add_run(add("run", "run a node until SIGTERM or Ctrl-C, then drain it", "zhero run --tasks tasks --workers 16"))
    _add_enqueue(add("enqueue", "hand a job to the cluster", "zhero enqueue sendEmail -p to=ann@example.com --wait"))

    status = add("status", "show members, owner, queues and schedules", "zhero status --json")
    jobs = add("jobs", "list jobs that are not done yet", "zhero jobs --name sendEmail")
    failed = add("failed", "list dead letters: jobs that failed for good", "zhero failed --json")
    members = add("members", "list the members of the cluster", "zhero members")
    stats = add("stats", "show what has been done since the start", "zhero stats")
    for reading in (jobs, failed):
        reading.add_argument("--name", metavar="TASK", help="only jobs of this task")
    for reading in (status, jobs, failed, members, stats):
        reading.add_argument("--json", action="store_true", help="as one JSON document")
        _add_place(reading)

    an_id = "0123456789abcdef0123456789abcdef"
    for name, what in (
        ("cancel", "cancel a job: it will not run, or not to its end"),
        ("retry", "run a dead letter again"),
        ("discard", "forget a dead letter"),
    ):
        command = add(name, what, f"zhero {name} {an_id}")
        command.add_argument("id", metavar="ID", help="of the job, as the lists show it")
        _add_place(command)
    for name, what in (
        ("stop-task", "stop the schedule of a periodic task, also while it runs"),
        ("start-task", "start the schedule of a periodic task again"),
    ):
        command = add(name, what, f"zhero {name} sayHello")
        command.add_argument("name", metavar="NAME", help="of the task")
        _add_place(command)

    _add_generate(add("generate", "write the file of a new task, and its test", "zhero generate sayHello"))
    add("keygen", "make a secret for a cluster: all its nodes are given the same", "zhero keygen > zhero.secret")
    config = add("config", "show each setting, its value and where it was set", "zhero config")
    config.add_argument("--json", action="store_true", help="as one JSON document")
    doctor = add("doctor", "say what is wrong here and with the cluster, and what to do about it", "zhero doctor")
    doctor.add_argument(
        "--fix", action="store_true", help="remove what killed nodes have left in the runtime directory"
    )
    doctor.add_argument("--json", action="store_true", help="as one JSON document")
    _add_place(doctor)
    return parser


def _add_place(command: argparse.ArgumentParser) -> None:
    """Where the cluster is that a client command talks to."""
    _add_cluster(command)
    _add_protection(command, "speak without encryption, to nodes that run so")
    command.add_argument(
        "--join",
        action="append",
        metavar="ENDPOINT",
        help="a node to talk to, as tcp://127.0.0.1:7040; default: one of yours on this host",
    )


def _add_cluster(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cluster", metavar="NAME", help="of the cluster; default: that of this project")


def _add_protection(command: argparse.ArgumentParser, insecure: str) -> None:
    """A secret itself is never typed: others see what is, in the list of processes."""
    command.add_argument("--secret-file", metavar="FILE", help="holds the cluster's secret; or set ZHERO_SECRET")
    command.add_argument("--insecure", action="store_true", default=None, help=insecure)


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "node", nargs="?", metavar="MODULE:NODE", help="a node of your application, or a function that makes it"
    )
    run.add_argument("--tasks", action="append", metavar="DIR", help="load tasks from here; default: tasks")
    run.add_argument("--name", help="of the node, for people; default: host and process id")
    run.add_argument("--bind", metavar="ENDPOINT", help="listen here; default: a free port of 127.0.0.1")
    run.add_argument(
        "--join",
        action="append",
        metavar="ENDPOINT",
        help="a node of the cluster, as tcp://10.0.0.7:7040; again for more; default: yours on this host",
    )
    run.add_argument("--advertise", metavar="ENDPOINT", help="where others reach it, if that is not where it listens")
    run.add_argument("--profile", metavar="NAME", help="how fast members notice things: fast, lan (the default) or wan")
    run.add_argument("--workers", type=_number, metavar="COUNT", help="jobs run at once; 0: none, others run them")
    keeping = run.add_mutually_exclusive_group()
    keeping.add_argument(
        "--data-dir", metavar="DIR", help="keep the journal there; default: the first free of .zhero/CLUSTER/0, 1, ..."
    )
    keeping.add_argument("--no-data", action="store_true", help="keep no journal: jobs live in memory only")
    run.add_argument(
        "--durability", metavar="LEVEL", help="what an accepted job survives: memory, process (the default) or power"
    )
    run.add_argument(
        "--drain-timeout", type=_number, metavar="SECONDS", help="how long running jobs may go on when it stops"
    )
    _add_protection(run, "no secret and no encryption, on any bind: in a network that you trust wholly")
    run.add_argument("--reload", action="store_true", help="load task files again when they change")
    run.add_argument("--verbose", action="store_true", help="log what is only of use when looking for a fault")
    _add_cluster(run)


def _add_enqueue(enqueue: argparse.ArgumentParser) -> None:
    enqueue.add_argument("name", metavar="NAME", help="of the task")
    enqueue.add_argument(
        "-p",
        "--param",
        dest="params",
        action="append",
        default=[],
        type=_param,
        metavar="KEY=VALUE",
        help="a param; the value is JSON where it is JSON, else text",
    )
    enqueue.add_argument("--json", type=_params, default={}, metavar="PARAMS", help="all params, as a JSON object")
    enqueue.add_argument("--priority", type=int, metavar="N", help="-100 to 100; higher runs first")
    when = enqueue.add_mutually_exclusive_group()
    when.add_argument("--in", dest="run_in", type=float, metavar="SECONDS", help="not before so much time has passed")
    when.add_argument("--at", dest="run_at", type=_instant, metavar="TIME", help="not before, as 2030-01-31T12:00:00")
    enqueue.add_argument("--wait", action="store_true", help="wait for the end, and print the result")
    _add_place(enqueue)


def _add_generate(generate: argparse.ArgumentParser) -> None:
    generate.add_argument("name", metavar="NAME", help="of the task, such as sayHello")
    generate.add_argument("--scope", choices=("any", "all"), default="any", help="one member runs it, or all do")
    generate.add_argument(
        "--frequency", type=_frequency, default=0, metavar="MS", help="run it again and again; 0: never by itself"
    )
    generate.add_argument("--dir", type=Path, default=Path("tasks"), metavar="DIR", help="default: tasks")


# --- values -------------------------------------------------------------------------------------------------------


def _number(text: str) -> object:
    """A number; other text goes on as it is, to be refused with the name of the setting."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _param(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, _json(value)
    except (ValueError, RecursionError):
        return key, value


def _params(text: str) -> dict[str, Any]:
    try:
        params = _json(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"params are no JSON: {error}") from None
    if not isinstance(params, dict):
        raise argparse.ArgumentTypeError('params are not a JSON object such as {"to": "ann@example.com"}')
    return cast("dict[str, Any]", params)


def _json(text: str) -> object:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _instant(text: str) -> datetime:
    """An ISO time; without an offset it is local."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO time such as 2030-01-31T12:00:00") from None


def _frequency(text: str) -> int:
    try:
        frequency_ms = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of milliseconds") from None
    if frequency_ms and frequency_ms < FREQUENCY_MIN_MS:
        raise argparse.ArgumentTypeError(
            f"{frequency_ms} is too little: frequency is in milliseconds, 0 or at least {FREQUENCY_MIN_MS}"
        )
    return frequency_ms
