"""What pages say that code can check.

The map from requirements to tests in `docs/semantics.md`, and that from faults to tests in `docs/faults.md`: every test
they name exists, and nothing is left out.
The times in `docs/members.md` are those of the profiles.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zhero.config import PROFILES

HERE = Path(__file__).parent
MAP = HERE.parent / "docs" / "semantics.md"
FAULTS = HERE.parent / "docs" / "faults.md"

ROWS = [str(number) for number in (*range(1, 39), *range(41, 46), 47)]
TRAPS = ["T1", "T10", "T11", "T12", "T13", "T13b", "T17", "T18", "T19", "T20", "T21", "T22", "T28", "T30"]

SCENARIOS = [str(number) for number in range(1, 45)]
RESULTS = ("kept", "open: ", "-")

NEEDS_NO_TEST = ("not built", "rows 11 to 13", "waits for the journal")
"""What may stand where no test is named."""


def lines_of(text: str) -> Iterator[list[str]]:
    """The cells of each line of the tables whose last column is that of the tests."""
    is_map = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            is_map = False
        elif cells[-1] == "tests":
            is_map = True
        elif is_map and not set(cells[0]) <= set("-"):
            yield cells


def faults_of(text: str) -> list[str]:
    """What is wrong with a map: tests that there are not, and lines that name none and do not say why."""
    faults: list[str] = []
    for cells in lines_of(text):
        tests = re.findall(r"`([^`]+)`", cells[-1])
        if not [test for test in tests if test.endswith((".py", ".txt")) or "::" in test]:
            if not any(why in cells[-1] for why in NEEDS_NO_TEST):
                faults.append(f"{cells[0]}: names no test")
            continue
        faults += [f"{cells[0]}: there is no {test}" for test in tests if not exists(test)]
    return faults


def exists(test: str) -> bool:
    """Whether there is a test, or a file of tests, of this name."""
    name, _, function = test.partition("::")
    file = HERE / name
    if not file.is_file():
        return False
    if file.suffix == ".txt":
        return not function
    defined = {
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    return function in defined if function else bool(defined) or "TestCase" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [MAP, FAULTS], ids=lambda page: page.stem)
def test_every_test_of_the_map_exists(page: Path) -> None:
    assert faults_of(page.read_text(encoding="utf-8")) == []


def test_every_fault_is_in_its_map_with_its_last_result() -> None:
    lines = list(lines_of(FAULTS.read_text(encoding="utf-8")))
    assert [cells[0] for cells in lines] == SCENARIOS
    assert [cells[0] for cells in lines if not cells[4].startswith(RESULTS)] == []
    assert [cells[0] for cells in lines if cells[4] == "kept" and "`" not in cells[5]] == []


def test_every_test_that_the_page_on_security_names_exists() -> None:
    assert faults_of((MAP.parent / "security.md").read_text(encoding="utf-8")) == []


def test_every_requirement_and_trap_is_in_the_map() -> None:
    named = [cells[0] for cells in lines_of(MAP.read_text(encoding="utf-8"))]
    assert [row for row in (*ROWS, *TRAPS) if named.count(row) != 1] == []


def test_every_test_that_tries_the_whole_system_is_in_the_map() -> None:
    """`test_semantics.py` is there for the map alone."""
    file = HERE / "integration" / "test_semantics.py"
    names = re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    text = MAP.read_text(encoding="utf-8")
    assert [name for name in names if f"`integration/test_semantics.py::{name}`" not in text] == []


def test_the_times_of_each_profile_are_those_that_the_page_on_members_tells() -> None:
    text = (MAP.parent / "members.md").read_text(encoding="utf-8")
    for name, it in PROFILES.items():
        suspect_ms = it.silence_ms + it.ping_ms
        spans_ms = (it.beat_ms, it.silence_ms, suspect_ms, suspect_ms + it.suspicion_ms)
        row = " | ".join([name, *(f"{ms / 1000:g} s" for ms in spans_ms)])
        assert f"| {row} |" in text
        assert f"up to {it.suspicion_max} times as long" in " ".join(text.split())


@pytest.mark.parametrize(
    ("tests", "fault"),
    [
        ("`unit/test_clock.py::test_nothing_of_the_kind`", "there is no unit/test_clock.py::test_nothing_of_the_kind"),
        ("`unit/test_of_nothing.py`", "there is no unit/test_of_nothing.py"),
        ("`conversations/nothing.txt`", "there is no conversations/nothing.txt"),
        ("`conversations/all.txt` `conversations/al.txt`", "there is no conversations/al.txt"),
        ("`unit/test_clock.py::real_clock`", "there is no unit/test_clock.py::real_clock"),
        ("later", "names no test"),
        ("", "names no test"),
    ],
)
def test_a_map_that_leads_nowhere_is_noticed(tests: str, fault: str) -> None:
    text = f"| row | what | tests |\n|---|---|---|\n| 7 | it works | {tests} |\n"
    assert faults_of(text) == [f"7: {fault}"]
