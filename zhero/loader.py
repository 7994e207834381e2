"""Finds tasks: in a folder, a module, or a list.

A folder is read recursively in the order of its paths; dot-files, folders like `__pycache__` and what is not Python are
passed over. A file is imported under the application's own module name where the folder can be imported, so that
`from tasks.mail import send_email` is the same object; else under a name of its own. What counts is what a file
defines: a task that it imports belongs to the other file.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import TaskDuplicate, TaskError, TaskInvalid
from .task import FunctionTask, Task, task_from

logger = logging.getLogger("zhero")


def load(source: str | Path | ModuleType | Iterable[Any]) -> list[Task]:
    """The tasks of a folder or file (path), a module, or an iterable of definitions.

    Raises:
        TaskInvalid: a definition or its file is wrong; names file, task and field.
        TaskDuplicate: two definitions have one name; names both places.
    """
    found: list[tuple[str, Task]] = []
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            logger.warning("! tasks folder %s is missing: no tasks loaded", path)
        for file in _files(path):
            found += [(str(file), task) for task in _tasks_of(_import(file, path), str(file))]
    elif isinstance(source, ModuleType):  # before the iterables: nothing says that a module is none
        found = [(source.__name__, task) for task in _tasks_of(source, source.__name__)]
    else:
        shapes: Iterable[Any] = source
        found = [("list of tasks", task_from(shape)) for shape in shapes]
    return unique(found)


def unique(found: Iterable[tuple[str, Task]]) -> list[Task]:
    """The tasks, each once.

    Raises:
        TaskDuplicate: two have one name.
    """
    by_name: dict[str, tuple[str, Task]] = {}
    for where, task in found:
        other = by_name.get(task.name)
        if other is not None and other[1] is not task:
            raise TaskDuplicate(f"task {task.name!r} is defined twice: in {other[0]} and in {where}; rename one")
        by_name[task.name] = (where, task)
    return [task for _, task in by_name.values()]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.py")):
        parts = file.relative_to(path).parts
        if not any(part.startswith((".", "__")) for part in parts):
            yield file


def _import(file: Path, folder: Path) -> ModuleType:
    try:
        name = _own_name(file)
        if name is not None:
            return importlib.import_module(name)
        digest = blake2b(str(file.resolve()).encode(), digest_size=4).hexdigest()
        name = f"zhero_tasks_{digest}_{file.stem}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except TaskError as error:
        raise TaskInvalid(f"{file}: {error}") from error
    except SyntaxError as error:
        raise TaskInvalid(f"{file}, line {error.lineno}: syntax error: {error.msg}") from error
    except Exception as error:
        raise TaskInvalid(f"{file}: can't be imported: {type(error).__name__}: {error}") from error


def _own_name(file: Path) -> str | None:
    """The application's own name for a file, if Python would import just that file by it."""
    resolved = file.resolve()
    for entry in sys.path:
        root = Path(entry or ".").resolve()
        if not resolved.is_relative_to(root):
            continue
        parts = resolved.relative_to(root).with_suffix("").parts
        if not all(part.isidentifier() for part in parts):
            continue
        name = ".".join(parts)
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == resolved:
            return name
    return None


def _tasks_of(module: ModuleType, where: str) -> list[Task]:
    tasks: list[Task] = []
    for name, shape in vars(module).items():
        if name.startswith("_") or not _is_own(shape, module):
            continue
        try:
            tasks.append(task_from(shape, where))
        except TaskError as error:
            raise TaskInvalid(f"{where}: {error}" if where not in str(error) else str(error)) from error
    return tasks


def _is_own(shape: Any, module: ModuleType) -> bool:
    """Whether it is a definition made in that module."""
    if isinstance(shape, FunctionTask):
        return shape.__module__ == module.__name__
    if isinstance(shape, Task):
        return type(shape).__module__ == module.__name__
    if inspect.isclass(shape):
        return issubclass(shape, Task) and shape.__module__ == module.__name__ and hasattr(shape, "run")
    if isinstance(shape, dict):
        return "name" in shape and "run" in shape
    return False
