"""What the README shows works as it stands there: each program runs, and prints what its comments say after `->`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
HEADINGS = [
    re.findall(r"^## (.*)$", README[: README.index(program)], re.MULTILINE)[-1].lower().replace(" ", "_")
    for program in PROGRAMS
]


def promised(program: str) -> list[str]:
    """What its comments say that it prints."""
    return re.findall(r"#.*-> (.*)$", program, re.MULTILINE)


def test_there_are_programs_and_each_says_what_it_prints() -> None:
    assert len(PROGRAMS) == README.count("```python") >= 4
    assert all(promised(program) for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=HEADINGS)
def test_a_program_of_the_readme_prints_what_it_says(program: str, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in promised(program) if line not in printed] == [], done.stdout
