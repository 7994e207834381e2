"""What the engine says in each transcript of this folder is what stands there. See `harness.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .harness import play

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
REWRITE = os.environ.get("ZHERO_REWRITE") == "1"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_conversation_goes_as_written(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    played = play(written)
    if REWRITE:
        path.write_text(played, encoding="utf-8")
    else:
        assert played == written
