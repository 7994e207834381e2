"""Who may import whom. A module imports only from lower floors: never from its own floor, never from above, no rings.

The table below is the architecture. A new file has to be entered in it, and a file that is gone taken out.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "zhero"

FLOORS = """
core runtime sim cli demo
errors _version
config core.values
core.due core.facts core.ready core.records core.roster
core.entries core.memory
core.kept core.messages core.plans core.steps
core.effects core.jobs
core.gather core.link core.loans core.relay core.streams
core.inquiry core.intake core.merging core.query core.replication core.schedule core.swim
core.broadcast core.persisting core.probing core.stealing core.takeover core.verdicts
core.handover core.joining core.reports
core.membership core.owner
core.calls core.recovery
core.leaving
core.engine
codec wire lines
runtime.auth runtime.clock runtime.datadir runtime.descriptors runtime.discovery runtime.handlers runtime.sockets
runtime.wal
runtime.connection runtime.gate runtime.journal runtime.peers runtime.reach
runtime.beats
runtime.child runtime.heart runtime.mailbox runtime.seeds runtime.slots runtime.threads runtime.transport
runtime.network runtime.processes
runtime.executor
runtime.driver sim.clock sim.story sim.wires
sim.alarm sim.books sim.network sim.notes sim.scene sim.sometimes sim.workload
sim.callers sim.executor sim.heart sim.ledger sim.sockets
sim.plans
sim.checkers
sim.node
sim.accounts sim.members sim.place sim.troubles
sim.everywhere sim.faults sim.losses sim.promises sim.rounds
sim.told
sim.outside
sim.settling
sim.world
sim.seeds
events views outcomes refusals options signature
job
task
forms draft
loader inspection
settings enqueuing
client node
cli.checks cli.output
cli.parser cli.generate cli.commands cli.probes cli.run
cli.doctor
cli.main
__init__ __main__ sim.__main__
demo.analysis demo.picture demo.record
demo.report demo.screen demo.verdict
demo.tasks
demo.node
demo.nodes
demo.run
demo.__main__
"""
"""Lowest first. On the first line: packages, whose own `__init__` is only a docstring."""

NEVER = [("runtime", "sim"), ("sim", "runtime")]
"""The two worlds: the first may not import the second, on whatever floors they stand."""

PURE = ("errors", "config", "core")
PURE_IMPORTS = {
    *("__future__", "typing", "collections", "dataclasses", "enum"),
    *("heapq", "bisect", "math", "hashlib", "itertools", "functools", "operator"),
}
PURE_NAMES = {"random": {"Random"}, "datetime": {"timedelta"}}
"""What the core takes only as a type or a plain value: no time, no chance, no I/O is its own."""

THIRD_PARTY = {"zmq", "msgpack", "rich", "uvloop"}


def module_of(file: Path, package: Path) -> str:
    """The dotted name of a file below its package; a subpackage's `__init__` has the name of the folder."""
    parts = file.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imported(file: Path, package: Path) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of each thing that a file imports, wherever in it; relative modules made whole."""
    folder = (package.name, *file.relative_to(package).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, base, alias.name


def problems(package: Path, floors: str) -> list[str]:
    """What is wrong with a package's imports, each with file and line."""
    levels = [line.split() for line in floors.strip().splitlines()]
    floor_of = {module: level for level, modules in enumerate(levels) for module in modules}
    files = {module_of(file, package): file for file in sorted(package.rglob("*.py"))}
    found = [f"the table of floors names {module}, which is gone" for module in floor_of if module not in files]
    for module, file in files.items():
        if module not in floor_of:
            found.append(f"{file}:1: {module} is not in the table of floors")
            continue
        for line, base, name in imported(file, package):
            complaint = _complaint(module, base, name, package.name, floor_of, files)
            if complaint:
                found.append(f"{file}:{line}: {module} {complaint}")
    return found


def _complaint(
    module: str, base: str, name: str, package: str, floor_of: dict[str, int], files: dict[str, Path]
) -> str | None:
    if not is_below(base, package):
        top = base.partition(".")[0]
        if any(is_below(module, pure) for pure in PURE):
            allowed = top in PURE_IMPORTS or name in PURE_NAMES.get(base, ())
            return None if allowed else f"is pure and may not import {base} {name}".rstrip()
        known = top in sys.stdlib_module_names or top in THIRD_PARTY
        return None if known else f"imports {base}, which is no dependency"
    inside = base.removeprefix(package).lstrip(".")
    target = f"{inside}.{name}".strip(".")
    if target not in files:
        target = inside or "__init__"
    if target not in floor_of:
        return f"imports {target}, which is not in the table of floors"
    if any(is_below(module, one) and is_below(target, other) for one, other in NEVER):
        return f"imports {target}: the two worlds may not know one another"
    if floor_of[target] >= floor_of[module]:
        return f"imports {target}, which does not stand on a lower floor"
    return None


def test_every_import_leads_to_a_lower_floor() -> None:
    found = problems(PACKAGE, FLOORS)
    assert not found, "\n" + "\n".join(found)


# --- the check itself ---------------------------------------------------------------------------------------------

SMALL = """
core runtime sim
errors config
core.values
runtime.driver sim.world
sim.late
node
__init__
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for level in SMALL.split():
        file = tmp_path / "zhero" / (level.replace(".", "/") + ".py")
        if level in ("core", "runtime", "sim"):
            file = tmp_path / "zhero" / level / "__init__.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "zhero"


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("core/values.py", "from ..config import LIMIT"),
        ("core/values.py", "from collections.abc import Mapping\nfrom random import Random"),
        ("errors.py", "from datetime import timedelta"),
        ("runtime/driver.py", "import asyncio, zmq\nfrom .. import config\nfrom ..core import values"),
        ("node.py", "import zhero.runtime.driver\nfrom .runtime import driver"),
        ("__init__.py", "from .node import Node"),
    ],
)
def test_what_stands_lower_may_be_imported(file: str, code: str, package: Path) -> None:
    (package / file).write_text(code)
    assert problems(package, SMALL) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("config.py", "from .errors import Bug", "imports errors, which does not stand on a lower floor"),
        ("config.py", "from .core.values import JobId", "imports core.values, which does not"),
        ("core/values.py", "from .. import node", "imports node, which does not"),
        ("core/values.py", "import zhero.node", "imports node, which does not"),
        ("node.py", "from zhero import Node", "imports __init__, which does not"),
        ("node.py", "from . import Node", "imports __init__, which does not"),
        ("node.py", "from .missing import Node", "imports missing"),
        ("sim/late.py", "from ..runtime.driver import Driver", "may not know one another"),
        ("sim/late.py", "from ..runtime import driver", "may not know one another"),
        ("core/values.py", "import time", "is pure and may not import time"),
        ("core/values.py", "import random", "is pure and may not import random"),
        ("core/values.py", "from random import random", "is pure and may not import random random"),
        ("errors.py", "from datetime import datetime", "is pure and may not import datetime datetime"),
        ("config.py", "import msgpack", "is pure and may not import msgpack"),
        ("node.py", "import requests", "imports requests, which is no dependency"),
    ],
)
def test_anything_else_is_refused_with_file_and_line(file: str, line: str, complaint: str, package: Path) -> None:
    (package / file).write_text(f"if True:\n    def late() -> None:\n        {line}\n")
    (told,) = problems(package, SMALL)
    assert told.startswith(f"{package / file}:3: ")
    assert complaint in told


def test_a_file_that_is_not_in_the_table_is_refused(package: Path) -> None:
    (package / "core" / "extra.py").touch()
    assert problems(package, SMALL) == [f"{package / 'core' / 'extra.py'}:1: core.extra is not in the table of floors"]


def test_a_line_of_the_table_without_a_file_is_refused(package: Path) -> None:
    assert problems(package, SMALL + "\nextra") == ["the table of floors names extra, which is gone"]
