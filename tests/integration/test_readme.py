"""What the README and the guides show works as it stands there.

Each program runs, and prints what its comments say after `->`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/delivery.md"]


def programs_of(page: str) -> list[tuple[str, str]]:
    """Name and text of each program of a page, named after the heading it stands under."""
    text = (ROOT / page).read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(programs) == text.count("```python")
    headings = [re.findall(r"^## (.*)$", text[: text.index(program)], re.MULTILINE)[-1] for program in programs]
    names = [f"{Path(page).stem}-{heading.lower().replace(' ', '_')}" for heading in headings]
    return list(zip(names, programs, strict=True))


PROGRAMS = dict(found for page in PAGES for found in programs_of(page))


def promised(program: str) -> list[str]:
    """What its comments say that it prints."""
    return re.findall(r"#.*-> (.*)$", program, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_there_are_programs_and_each_says_what_it_prints(page: str) -> None:
    programs = programs_of(page)
    assert len(programs) >= 3
    assert all(promised(program) for _, program in programs)
    assert all(PROGRAMS[name] == program for name, program in programs), "two stand under one heading"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_it_says(name: str, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(PROGRAMS[name], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in promised(PROGRAMS[name]) if line not in printed] == [], done.stdout
