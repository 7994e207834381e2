"""An environment for each peer, made once and kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .systems import System

ROOT = Path(__file__).parents[1] / ".peers"
"""Where they are kept, unless said otherwise."""
INSTALL_MAX_S = 300.0
_READY = ".ready"
"""File made last in an environment: what is installed in it, so that one broken off is made again."""
_VERSIONS = (
    "import json, importlib.metadata as m;"
    "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
)


class Unusable(Exception):
    """A peer can't be run here; says why."""


def pythons() -> Iterator[str]:
    """Interpreters that may be here, the own one first."""
    yield sys.executable
    for minor in range(12, 16):
        if found := shutil.which(f"python3.{minor}"):
            yield found
        for path in sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")):
            yield str(path)


def python_of(least: tuple[int, int]) -> str:
    """An interpreter of at least this version.

    Raises:
        Unusable: there is none.
    """
    for candidate in pythons():
        code = f"import sys; sys.exit(sys.version_info < {least!r})"
        # A shim of a version manager is there also for versions that are not.
        try:
            asked = subprocess.run([candidate, "-c", code], capture_output=True, timeout=60, check=False)
        except OSError:
            continue
        if asked.returncode == 0:
            return candidate
    raise Unusable(f"needs Python {least[0]}.{least[1]}, and there is none here")


def prepared(system: System, root: Path) -> str:
    """The interpreter of a system's environment, which is made if it isn't there.

    Raises:
        Unusable: it can't be.
    """
    if not system.packages:
        return sys.executable
    folder = root / system.module
    python, ready = folder / "bin" / "python", folder / _READY
    wanted = json.dumps(system.packages)
    if ready.is_file() and ready.read_text() == wanted:
        return str(python)
    base = python_of(system.python)
    print(f"installing {system.name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _told([base, "-m", "venv", str(folder)])
    _told([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *system.packages])
    ready.write_text(wanted)
    return str(python)


def _told(command: list[str]) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_MAX_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"can't be installed: {error}") from error
    if ended.returncode:
        raise Unusable(f"can't be installed: {last_line(ended.stderr)}")


def last_line(said: str) -> str:
    """What a program that failed said last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def versions(system: System, python: str) -> str:
    """Of a system's packages, in words for the table."""
    asked = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, timeout=60, check=False)
    found: dict[str, str] = json.loads(asked.stdout or "{}")
    names = [package.split("[")[0].lower() for package in system.packages] or ["zhero"]
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def environment(**more: str) -> dict[str, str]:
    """Variables for a process that runs in an environment of its own: nothing of ours leaks into it."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, **more}
