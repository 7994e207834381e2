"""`zhero generate`: the file of a new task, and a test that passes.

    tasks/say_hello.py            defines sayHello
    tests/test_say_hello.py       runs it inline; beside the tasks folder

Both load and pass as they are. Nothing that exists is overwritten: then neither of the two is written.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from ..errors import TaskInvalid

TASK = '''\
"""The task {name}."""

from __future__ import annotations

import zhero


@zhero.task(name="{name}", description="{name}", scope="{scope}", frequency={frequency})
async def {function}() -> None:
    """What the task does stands here; its params are the arguments of this function."""
'''

TEST = '''\
"""Runs the task {name} here and now, with no node."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from {package}.{function} import {function}  # noqa: E402


def test_{function}_runs() -> None:
    assert asyncio.run({function}.run()) is None
'''

RESERVED = {*keyword.kwlist, "asyncio", "zhero"}
"""No names of functions in these files."""


def generate(name: str, scope: str, frequency_ms: int, folder: Path) -> list[Path]:
    """Write the files of a new task.

    Args:
        name: of the task; the files and the function get it in snake case.
        scope: "any" or "all".
        frequency_ms: 0: never by itself.
        folder: where tasks are; made if there is none.

    Returns:
        What was written.

    Raises:
        TaskInvalid: no file can have such a name.
        FileExistsError: one of the files is there.
        OSError: a file can't be written.
    """
    function = snake(name)
    if not re.fullmatch(r"[A-Za-z0-9_ .:-]+", name) or not function.isidentifier() or function in RESERVED:
        raise TaskInvalid(f"name {name!r}: a task that gets its own file needs a name such as sayHello")
    package = folder.resolve().name
    if not package.isidentifier() or keyword.iskeyword(package):
        raise TaskInvalid(f"folder {folder}: it needs a name that Python can import, such as tasks")
    words = {"name": name, "scope": scope, "frequency": frequency_ms, "function": function, "package": package}
    files = {
        folder / f"{function}.py": TASK.format(**words),
        folder.parent / "tests" / f"test_{function}.py": TEST.format(**words),
    }
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file} exists, and is left as it is")
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8") as stream:
            stream.write(text)
    return list(files)


def snake(name: str) -> str:
    """`sayHello`, `SayHello`, `say-hello` -> `say_hello`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"\W+", "_", parted).strip("_").lower()
