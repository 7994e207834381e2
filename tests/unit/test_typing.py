"""What checkers infer of tasks and jobs is what `tests/typing` says. (Pyright reads it too, as part of `make lint`.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_mypy_infers_what_the_examples_say() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/typing"], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
