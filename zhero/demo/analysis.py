"""The work: one source file -> its counts, all files in one plain loop, counts of files -> figures of all.

Nothing here knows of tasks. All values are plain dicts, tuples and lists, as they travel as params and results; two
analyses of the same bytes by the same Python are equal, whatever order or process they are made in.

A **branch** is a place where the way through a function forks: `if`, `elif`, `for`, `while`, `except`, `case`, a
conditional expression, each `for` and `if` of a comprehension, each `and` and `or`. A function has those of its own
code with its lambdas, decorators and defaults; not those of functions defined in it, which are counted by themselves.

A file that does not parse is a result too: the standard library has some that are broken on purpose, in order to test
its own parser.
"""

from __future__ import annotations

import ast
import heapq
import os
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

SOURCES_MAX_COUNT = 1_800
MOST_BRANCHING_COUNT = 10
"""How many functions are named, of each file (so that none of the whole's is missed) and of all."""

SKIPPED_FOLDERS = frozenset(("site-packages", "dist-packages", "__pycache__"))

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_FORKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.match_case)
_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop)
"""More than half of all nodes, with nothing in them to count."""


class Counts(TypedDict):
    """What is found in one file.

    Attributes:
        most_branching: branches, qualified name and line of the functions with most; most first.
        problem: why it did not parse, or could not be read; None if it did. What parsing tells is then 0.
    """

    bytes: int
    lines: int
    functions: int
    classes: int
    branches: int
    most_branching: list[tuple[int, str, int]]
    problem: str | None


class Figures(TypedDict):
    """What is found in all files.

    Attributes:
        not_parsed: path and reason of each file that did not parse, by path.
        most_branching: branches, path, qualified name and line; most first.
    """

    files: int
    bytes: int
    lines: int
    functions: int
    classes: int
    branches: int
    not_parsed: list[tuple[str, str]]
    most_branching: list[tuple[int, str, str, int]]


# --- which files --------------------------------------------------------------------------------------------------


def standard_library() -> Path:
    """The folder where this Python has its standard library."""
    return Path(sysconfig.get_path("stdlib"))


def list_sources(root: Path, limit: int = SOURCES_MAX_COUNT) -> list[str]:
    """The source files below a folder, without installed packages.

    Returns:
        Paths relative to it, with slashes, in order; the first `limit` of them.
    """
    found: list[str] = []
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in SKIPPED_FOLDERS]
        found += [Path(folder, name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    return sorted(found)[:limit]


# --- one file -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Scope:
    """The module (no name), or a function with its branches."""

    name: str
    line: int
    branches: int = 0


@dataclass(slots=True)
class _Found:
    scopes: list[_Scope] = field(default_factory=list[_Scope])
    classes: int = 0


def analyse_file(root: Path, path: str) -> Counts:
    """Read and analyse a file.

    Args:
        path: relative to `root`.
    """
    try:
        source = (root / path).read_bytes()
    except OSError as error:
        return _unparsed(b"", error)
    return analyse_source(source)


def analyse_source(source: bytes) -> Counts:
    """Analyse a file's content; its encoding is as it says in its first lines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is doubtful in these files is not ours to report
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deep
        return _unparsed(source, error)
    found = _walk(tree)
    module, functions = found.scopes[0], found.scopes[1:]
    return {
        "bytes": len(source),
        "lines": len(source.splitlines()),
        "functions": len(functions),
        "classes": found.classes,
        "branches": module.branches + sum(it.branches for it in functions),
        "most_branching": heapq.nsmallest(
            MOST_BRANCHING_COUNT,
            [(it.branches, it.name, it.line) for it in functions],
            key=lambda it: (-it[0], it[2], it[1]),
        ),
        "problem": None,
    }


def _unparsed(source: bytes, error: Exception) -> Counts:
    return {
        "bytes": len(source),
        "lines": len(source.splitlines()),
        "functions": 0,
        "classes": 0,
        "branches": 0,
        "most_branching": [],
        "problem": f"{type(error).__name__}: {error}",
    }


def _walk(tree: ast.Module) -> _Found:
    """All nodes, each with the scope and the prefix of names that it stands in: a stack, as trees may be deep."""
    module = _Scope("", 0)
    found = _Found([module])
    stack: list[tuple[ast.AST, _Scope, str]] = [(tree, module, "")]
    while stack:
        node, scope, prefix = stack.pop()
        if isinstance(node, _FUNCTIONS):
            scope = _Scope(prefix + node.name, node.lineno)
            found.scopes.append(scope)
            prefix = f"{scope.name}."
        elif isinstance(node, ast.ClassDef):
            found.classes += 1
            prefix = f"{prefix}{node.name}."
        elif isinstance(node, _FORKS):
            scope.branches += 1
        elif isinstance(node, ast.BoolOp):
            scope.branches += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            scope.branches += 1 + len(node.ifs)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, _LEAVES):
                stack.append((child, scope, prefix))
    return found


# --- all files ----------------------------------------------------------------------------------------------------


def analyse_all(root: Path, paths: Iterable[str], done: Callable[[], object]) -> dict[str, Counts]:
    """The plain loop: one file after the other, here.

    Args:
        done: called after each file.

    Returns:
        Path -> its counts.
    """
    counts: dict[str, Counts] = {}
    for path in paths:
        counts[path] = analyse_file(root, path)
        done()
    return counts


def merge(counts: Mapping[str, Counts]) -> Figures:
    """The figures of all files, whatever order they come in.

    Args:
        counts: path -> its counts.
    """
    named = [(it[0], path, *it[1:]) for path, found in counts.items() for it in found["most_branching"]]
    problems = [(path, found["problem"]) for path, found in sorted(counts.items())]
    return {
        "files": len(counts),
        "bytes": sum(it["bytes"] for it in counts.values()),
        "lines": sum(it["lines"] for it in counts.values()),
        "functions": sum(it["functions"] for it in counts.values()),
        "classes": sum(it["classes"] for it in counts.values()),
        "branches": sum(it["branches"] for it in counts.values()),
        "not_parsed": [(path, problem) for path, problem in problems if problem is not None],
        "most_branching": heapq.nsmallest(MOST_BRANCHING_COUNT, named, key=lambda it: (-it[0], it[1], it[3], it[2])),
    }
