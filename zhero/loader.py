"""Finds tasks: in a folder, a module, or whatever a program hands over.

A folder is walked recursively, in sorted order; files and folders that begin with a dot, `__pycache__`, `__main__.py`
and what is no `.py` file are left out. Each file is imported under the application's own name for it, where it has one
(`tasks/mail.py` below a folder of `sys.path` is `tasks.mail`), so that `from tasks.mail import send_email` elsewhere is
the same object; else under a name made from its path.

A file's tasks are those *defined* in it, whatever the file is called: task objects and classes, and dicts or objects in
the origin's form. What it imports belongs to the file that defines it. A class whose name begins with an underscore, an
abstract one, and one with neither name nor `run` are bases for others.

Whatever is wrong with a file is a `TaskInvalid` that names it, with the cause chained; two tasks of one name are a
`TaskDuplicate` that names both places. The same task met twice is one.

`Reloader` compares times and sizes of the files when asked. A changed file is run as a new module, so running jobs keep
the code they have, and one that does not load leaves everything as it was. It is compiled anew each time: compiled
files are told apart by seconds and size only, and an edit may change neither.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import linecache
import logging
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, TypeGuard, cast

from .errors import TaskDuplicate, TaskInvalid, ZheroError
from .forms import ORIGIN_FIELDS, task_from
from .task import Task

_log = logging.getLogger("zhero")

Stamp = tuple[int, int]
"""When a file was changed (ns), and its size: another stamp is another content."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A task, what it was made from, and where that was found, for people."""

    task: Task
    source: object
    place: str


def load(source: object, *, base: Path | None = None) -> list[Task]:
    """The tasks of a source, in a fixed order.

    Args:
        source: path of a folder or file; a module (of a package all modules in it); or an iterable of these and of
            tasks, in any form that `task_from` takes.
        base: what a relative path is relative to; default: the working directory.

    Raises:
        TaskInvalid: a definition is wrong, or a file can't be imported; names file, task and field.
        TaskDuplicate: two tasks have one name; names both places.
    """
    return _merged(_find(source, base or Path.cwd()))


def _find(source: object, base: Path) -> Iterator[_Found]:
    if isinstance(source, str | Path):
        _tell_if_missing(base / source)
        for file in _files(base / source):
            yield from _of_file(file, _import(file))
    elif isinstance(source, ModuleType):
        yield from _of_module(source, f"module {source.__name__}")
        for folder in getattr(source, "__path__", ()):
            for file in _files(Path(folder)):
                if file != Path(folder, "__init__.py").resolve():
                    yield from _of_file(file, _import(file))
    elif _is_several(source):
        for number, item in enumerate(source, 1):
            if isinstance(item, str | Path | ModuleType):
                yield from _find(item, base)
            else:
                yield _Found(task_from(item), item, f"item {number} of the list")
    else:
        yield _Found(task_from(source), source, "what was given")


def _is_several(source: object) -> TypeGuard[Iterable[object]]:
    return isinstance(source, Iterable) and not isinstance(source, Mapping)


def _merged(found: Iterable[_Found]) -> list[Task]:
    """Each task once. Twins made by `options` or `on` are their task."""
    first: dict[str, _Found] = {}
    for one in found:
        known = first.setdefault(one.task.name, one)
        if known.source is not one.source and known.task.definition is not one.task.definition:
            raise TaskDuplicate(f"two tasks are named {one.task.name!r}: in {known.place} and in {one.place}")
    return [one.task for one in first.values()]


# --- files --------------------------------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    """The files to load, sorted; none if there is no such folder, for a program may have no tasks yet."""
    path = path.resolve()
    if path.is_file():
        return [path]
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        found += [Path(folder, name) for name in names if _is_task_file(name)]
    return sorted(found)


def _tell_if_missing(path: Path) -> None:
    if not path.exists():
        _log.warning("! no tasks folder %s", path)


def _is_task_file(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(".") and name != "__main__.py"


def _import(file: Path) -> ModuleType:
    """The module of a file, imported if it is not.

    Raises:
        TaskInvalid: it can't be.
    """
    with _blaming(file):
        main = sys.modules.get("__main__")
        if main is not None and _is_of(main, file):
            return main
        for name in (*_names(file), _made_up_name(file)):
            module = sys.modules.get(name)
            if module is None and _has_spec(name, file):
                module = importlib.import_module(name)
            if module is not None and _is_of(module, file):
                return module
        return _execute(_made_up_name(file), file)


@contextmanager
def _blaming(file: Path) -> Generator[None]:
    """Whatever goes wrong is the fault of this file; but not what only ends the process."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except ZheroError as error:
        raise TaskInvalid(f"{file}: {error}") from error
    except BaseException as error:  # a file of an application may even call sys.exit
        raise TaskInvalid(f"{file}: can't be imported: {type(error).__name__}: {error}") from error


def _names(file: Path) -> Iterator[str]:
    """The names that the application may know the file by: one for each folder of `sys.path` above it."""
    module = file.parent if file.name == "__init__.py" else file.with_suffix("")
    for entry in sys.path:
        above = Path(entry or os.curdir).resolve()
        if above != module and module.is_relative_to(above):
            parts = module.relative_to(above).parts
            if all(part.isidentifier() for part in parts):
                yield ".".join(parts)


def _has_spec(name: str, file: Path) -> bool:
    """Whether importing that name would load this file."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):  # a package above the file imports what is not there
            raise
        return False
    return spec is not None and spec.origin is not None and _is_same(spec.origin, file)


def _is_of(module: ModuleType, file: Path) -> bool:
    return _is_same(getattr(module, "__file__", None) or "", file)


def _is_same(path: str, file: Path) -> bool:
    try:
        return os.path.samefile(path, file)
    except OSError:
        return False


def _made_up_name(file: Path) -> str:
    digest = blake2b(str(file).encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"zhero_tasks_{digest}_{file.stem}"


class _UncachedLoader(SourceFileLoader):
    """Compiles the file as it is now."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _execute(name: str, file: Path) -> ModuleType:
    """Run a file as a new module of that name; where it fails, the old one is still there."""
    package = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(
        name, file, loader=_UncachedLoader(name, str(file)), submodule_search_locations=package
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    old = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _put_module(name, old)
        raise
    _put_module(name, module)
    return module


def _put_module(name: str, module: ModuleType | None) -> None:
    """Make this the module of that name, for `import` and for its package."""
    package, _, last = name.rpartition(".")
    if module is None:
        sys.modules.pop(name, None)
        return
    sys.modules[name] = module
    if package in sys.modules:
        setattr(sys.modules[package], last, module)


# --- what is in a module ------------------------------------------------------------------------------------------


def _of_file(file: Path, module: ModuleType) -> Iterator[_Found]:
    with _blaming(file):
        own = [value for value in _values(module) if _is_defined_in(module, value)]
        found = [_Found(task_from(value), value, str(file)) for value in own]
    yield from found


def _of_module(module: ModuleType, place: str) -> Iterator[_Found]:
    """Of a module that was given as such, also the task objects that it has collected from others."""
    try:
        for value in _values(module):
            if isinstance(value, Task) or _is_defined_in(module, value):
                yield _Found(task_from(value), value, place)
    except TaskInvalid as error:
        raise TaskInvalid(f"{place}: {error}") from error


def _values(module: ModuleType) -> list[object]:
    """What may be tasks, each once, in the order of definition; of a class with a task object in the file only that."""
    values: dict[int, object] = {id(value): value for value in vars(module).values() if _is_candidate(module, value)}
    made = {type(value) for value in values.values() if isinstance(value, Task)}
    return [value for value in values.values() if not (isinstance(value, type) and value in made)]


def _is_candidate(module: ModuleType, value: object) -> bool:
    if isinstance(value, Task):
        return True
    if isinstance(value, type):
        return issubclass(value, Task) and not _is_base(value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        has = {field for field in ORIGIN_FIELDS if field in fields}
        return (callable(fields.get("run")) and len(has) > 1) or {"scope", "frequency"} <= has
    # Other objects are asked only if their class is of this file: a foreign one may make up whatever it is asked for.
    if type(value) is SimpleNamespace or type(value).__module__ == module.__name__:
        has = {field for field in ORIGIN_FIELDS if hasattr(value, field)}
        return len(has & {"run", "scope", "frequency"}) > 1
    return False


def _is_base(value: type[Task]) -> bool:
    nameless = value.run is Task.run and not hasattr(value, "name")
    return value.__name__.startswith("_") or inspect.isabstract(value) or nameless


def _is_defined_in(module: ModuleType, value: object) -> bool:
    """Whether it is this module's own, and not imported from the one where its code is."""
    if isinstance(value, type):
        return value.__module__ == module.__name__
    code = value
    if not isinstance(value, Task):
        code = (
            cast("Mapping[str, Any]", value).get("run") if isinstance(value, Mapping) else getattr(value, "run", None)
        )
    home = sys.modules.get(getattr(code, "__module__", None) or module.__name__)
    return home is None or home is module or all(other is not value for other in vars(home).values())


# --- reloading ----------------------------------------------------------------------------------------------------


class Reloader:
    """Loads the tasks of folders or files, and again those that change.

    State: file -> its stamp and its tasks; files that have changed and are not loaded yet. Bound: the files.

    Args:
        source: path of a folder or file, or several.
        base: what a relative path is relative to; default: the working directory.
    """

    def __init__(self, source: str | Path | Iterable[str | Path], *, base: Path | None = None) -> None:
        sources = [source] if isinstance(source, str | Path) else list(source)
        self._paths = [(base or Path.cwd()) / path for path in sources]
        self._stamps: dict[Path, Stamp] = {}
        self._found: dict[Path, list[_Found]] = {}
        self._stale: set[Path] = set()

    def load(self) -> list[Task]:
        """All tasks, for the first time.

        Raises:
            TaskInvalid, TaskDuplicate: as the function `load`.
        """
        for path in self._paths:
            _tell_if_missing(path)
        self._stamps = self._look()
        found = {file: list(_of_file(file, _import(file))) for file in self._stamps}
        tasks = _merged(one for ones in found.values() for one in ones)
        self._found = found
        return tasks

    def changed(self) -> set[Path]:
        """Files that are new, other or gone since they were last looked at by `load` or `reload`."""
        stamps = self._look()
        return {file for file in stamps.keys() | self._stamps.keys() if stamps.get(file) != self._stamps.get(file)}

    def reload(self) -> list[Task]:
        """All tasks, those of changed files anew.

        Raises:
            TaskInvalid, TaskDuplicate: a changed file is broken. What was loaded is still so, and the next change of a
                file is the next attempt, at everything that has changed.
        """
        stamps = self._look()
        self._stale |= {
            file for file, stamp in stamps.items() if stamp != self._stamps.get(file) or file not in self._found
        }
        self._stale &= stamps.keys()
        self._stamps = stamps
        linecache.checkcache()
        before = dict(sys.modules)
        made: list[ModuleType] = []
        found = {file: self._found[file] for file in stamps.keys() - self._stale}
        try:
            for file in sorted(self._stale):
                made.append(self._run_anew(file))
                found[file] = list(_of_file(file, made[-1]))
            tasks = _merged(one for file in stamps for one in found[file])
        except BaseException:
            for module in made:
                _put_module(module.__name__, before.get(module.__name__))
            raise
        self._found = found
        self._stale.clear()
        return tasks

    def _run_anew(self, file: Path) -> ModuleType:
        for name in (*_names(file), _made_up_name(file)):
            if name in sys.modules and _is_of(sys.modules[name], file):
                with _blaming(file):
                    return _execute(name, file)
        return _import(file)

    def _look(self) -> dict[Path, Stamp]:
        stamps: dict[Path, Stamp] = {}
        for path in self._paths:
            for file in _files(path):
                try:
                    stat = file.stat()
                except FileNotFoundError:  # gone between the walk and now
                    continue
                stamps[file] = (stat.st_mtime_ns, stat.st_size)
        return stamps
