"""What the README and the guides show works as it stands there.

Each program runs, and prints what its comments say after `->`. The web application, which is the first of the README,
runs under a server with three workers, and answers what the shell commands below it say.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

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


WEB = "README-in_a_web_application"
WORKERS = 3
PATIENCE_S = 60.0
PROGRAMS = dict(found for page in PAGES for found in programs_of(page))


def promised(program: str) -> list[str]:
    """What its comments say that it prints."""
    return re.findall(r"#.*-> (.*)$", program, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_there_are_programs_and_each_says_what_it_prints(page: str) -> None:
    programs = programs_of(page)
    assert len(programs) >= 3
    assert all(promised(program) for name, program in programs if name != WEB)
    assert all(PROGRAMS[name] == program for name, program in programs), "two stand under one heading"


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != WEB])
def test_a_program_prints_what_it_says(name: str, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(PROGRAMS[name], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in promised(PROGRAMS[name]) if line not in printed] == [], done.stdout


def test_the_web_application_comes_first_and_answers_as_it_says(tmp_path: Path) -> None:
    assert next(iter(PROGRAMS)) == WEB
    (said,) = promised((ROOT / "README.md").read_text(encoding="utf-8").partition("## A first job")[0])
    (tmp_path / "app.py").write_text(PROGRAMS[WEB], encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = f"http://127.0.0.1:{port}/thumbnails"
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--workers", str(WORKERS), "app:app"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
        try:
            job = _answer(f"{site}?picture=cat.png", "POST")
            assert [_answer(f"{site}/{job['id']}", "GET") for _ in range(WORKERS)] == [json.loads(said)] * WORKERS
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE_S)


def _answer(url: str, method: str) -> Any:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=PATIENCE_S) as response:
                return json.load(response)
        except OSError:  # nobody listens yet
            assert time.monotonic() < until_s, url
            time.sleep(0.05)
