"""Tasks found in folders, modules and lists, and found again after an edit."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zhero.errors import TaskDuplicate, TaskInvalid
from zhero.forms import task
from zhero.loader import Reloader, load
from zhero.task import Task

HEAD = "from zhero.forms import task\nfrom zhero.task import Task\n"

HELLO_AND_GOODBYE = """
@task(name="sayHello", frequency=1000)
async def hello(api, params):
    api.log("Hello")

@task(name="sayGoodbye", frequency=2000)
async def goodbye(api, params):
    api.log("Goodbye")
"""

_stamps = itertools.count(1_700_000_000)


@pytest.fixture(autouse=True)
def imports_undone() -> Iterator[None]:
    """What a test imports is gone after it, and so are the folders it has added."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an application, from which it imports."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(file: Path, code: str, *, head: str = HEAD) -> Path:
    """A file with a time of its own, so that an edit is seen however quick it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(head + code)
    stamp = next(_stamps)
    os.utime(file, (stamp, stamp))
    return file


def one_task(name: str, body: str = "pass") -> str:
    return f"@task(name={name!r})\ndef {name}():\n    {body}\n"


def names(tasks: list[Task]) -> list[str]:
    return [one.name for one in tasks]


# --- folders ---


def test_a_file_with_two_tasks_has_two_and_a_file_with_one_has_it_under_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "tasks" / "greetings.py", HELLO_AND_GOODBYE)
    write(tmp_path / "tasks" / "whatever.py", one_task("sayHi"))
    assert names(load(tmp_path / "tasks")) == ["sayHello", "sayGoodbye", "sayHi"]


def test_a_folder_is_loaded_recursively_and_in_a_fixed_order(tmp_path: Path) -> None:
    for number, path in enumerate(["z.py", "b/a.py", "b/c/d.py", "a.py", "b.py"]):
        write(tmp_path / path, one_task(f"task{number}"))
    assert names(load(tmp_path)) == ["task3", "task1", "task2", "task4", "task0"]


def test_hidden_foreign_and_compiled_files_are_left_out(tmp_path: Path) -> None:
    for path in [".hidden.py", ".git/hook.py", "__pycache__/old.py", "notes.txt", "old.pyc", "__main__.py", "x.py.bak"]:
        write(tmp_path / path, "raise SystemExit('loaded')")
    write(tmp_path / "good.py", one_task("good"))
    assert names(load(tmp_path)) == ["good"]


def test_a_missing_folder_is_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "zhero"):
        assert load(tmp_path / "tasks") == []
    assert "tasks" in caplog.text


def test_a_folder_may_be_relative_and_a_file_may_be_loaded_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "tasks" / "one.py", one_task("one"))
    write(tmp_path / "tasks" / "two.py", one_task("two"))
    assert names(load("tasks", base=tmp_path)) == ["one", "two"]
    assert names(load(str(file))) == ["one"]


def test_all_forms_are_found(tmp_path: Path) -> None:
    code = """
    from types import SimpleNamespace

    @task
    async def decorated(): ...

    class Cleaning(Task):
        name = "class"
        def run(self): ...

    class Sized(Task):
        name = "instance"
        def __init__(self, size): self.size = size
        def run(self): return self.size

    sized = Sized(5)

    def run(api, params): ...

    as_dict = {"name": "dict", "description": "d", "scope": "any", "frequency": 0, "run": run}
    as_object = SimpleNamespace(name="object", description="d", scope="all", frequency=0, run=run)

    class Origin:
        name, description, scope, frequency = "own", "d", "any", 0
        def run(self, api, params): ...

    origin = Origin()
    """
    write(tmp_path / "forms.py", "\n".join(line[4:] for line in code.splitlines()))
    tasks = {one.name: one for one in load(tmp_path)}
    assert list(tasks) == ["decorated", "class", "instance", "dict", "object", "own"]
    assert tasks["instance"].handler(None).call({}) == 5


def test_what_is_no_task_is_left_alone(tmp_path: Path) -> None:
    code = """
class _Base(Task):
    def run(self): ...

class Mixin(Task):
    retries = 3

class Good(_Base, Mixin):
    name = "good"

class Evasive:
    def __getattr__(self, name):
        raise RuntimeError("asked")

import subprocess, asyncio
settings = {"name": "app", "description": "of mine"}
commands = [{"run": len}]
"""
    write(tmp_path / "good.py", code)
    write(tmp_path / "other.py", "from zhero.forms import task\nfrom zhero.task import Task, FunctionTask\n")
    (loaded,) = load(tmp_path)
    assert (loaded.name, loaded.definition.retries) == ("good", 3)


def test_a_foreign_object_that_makes_up_attributes_is_not_asked(app: Path) -> None:
    write(
        app / "lib.py",
        "class Proxy:\n    def __getattr__(self, name):\n        raise RuntimeError(name)\nproxy = Proxy()\n",
    )
    write(app / "tasks" / "one.py", "from lib import proxy\n" + one_task("one"))
    assert names(load("tasks")) == ["one"]


# --- module names ---


def test_the_application_imports_the_same_object(app: Path) -> None:
    write(app / "tasks" / "mail.py", one_task("send_email"))
    (loaded,) = load("tasks")
    assert importlib.import_module("tasks.mail").send_email is loaded


def test_a_file_that_was_imported_before_is_not_run_again(app: Path) -> None:
    write(app / "tasks" / "__init__.py", "")
    write(app / "tasks" / "sub" / "mail.py", one_task("send_email"))
    module = importlib.import_module("tasks.sub.mail")
    (loaded,) = load(app / "tasks")
    assert loaded is module.send_email


def test_a_folder_that_can_not_be_imported_is_loaded_all_the_same(tmp_path: Path) -> None:
    write(tmp_path / "my-tasks" / "os.py", one_task("one"))
    write(tmp_path / "my-tasks" / "1st.py", one_task("first"))
    (first, one) = load(tmp_path / "my-tasks")
    assert names([first, one]) == ["first", "one"]
    assert os.path is sys.modules["os"].path
    assert load(tmp_path / "my-tasks") == [first, one]


def test_a_name_that_something_else_has_is_not_taken(app: Path) -> None:
    write(app / "json.py", one_task("one"))  # `json` has been imported from elsewhere
    assert names(load(app / "json.py")) == ["one"]
    assert hasattr(sys.modules["json"], "dumps")


def test_a_task_that_a_file_imports_is_not_its_own(app: Path) -> None:
    write(app / "tasks" / "a.py", "from tasks.b import one\n" + one_task("two"))
    write(app / "tasks" / "b.py", one_task("one"))
    write(app / "tasks" / "__init__.py", "from tasks.b import one\n")
    write(app / "lib" / "shared.py", one_task("shared") + "class Other(Task):\n    name = 'o'\n")
    write(app / "tasks" / "c.py", "from lib.shared import *\nurgent = shared.options(priority=9)\n")
    assert names(load("tasks")) == ["two", "one", "shared"]


# --- bad files ---


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: .*no_such_module_anywhere"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("@task(frequency=5)\ndef tick(): ...\n", "task tick: frequency=5"),
        ("@task(frequncy=5)\ndef tick(): ...\n", "task tick: unknown option 'frequncy'"),
        ("class Tick(Task):\n    scope = 'some'\n    def run(self): ...\n", "class Tick: scope='some'"),
        ("class Tick(Task):\n    def run(self): ...\n", "class Tick: name is missing"),
        ("class Tick(Task):\n    name = 'tick'\n", "class Tick: run is missing"),
        (
            "class Tick(Task):\n    name = 'tick'\n    def run(self): ...\n    def __init__(self, n): ...\n",
            "class Tick: can't be made without arguments",
        ),
        (
            "tick = {'name': 'tick', 'description': 'd', 'scope': 'any', 'run': print}\n",
            "task tick: frequency is missing",
        ),
        ("tick = {'description': 'd', 'scope': 'any', 'frequency': 0, 'run': print}\n", "name is missing"),
        ("tick = {'name': 'tick', 'description': 'd', 'scope': 'any', 'frequency': 0}\n", "task tick: run is missing"),
        (
            "tick = {'name': 'tick', 'description': 'd', 'scope': 'any', 'frequency': '5', 'run': print}\n",
            "frequency='5'",
        ),
    ],
)
def test_a_bad_file_is_told_with_its_name_the_task_and_the_field(code: str, complaint: str, tmp_path: Path) -> None:
    write(tmp_path / "good.py", one_task("good"))
    file = write(tmp_path / "tick.py", code)
    with pytest.raises(TaskInvalid, match=complaint) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert caught.value.__cause__ is not None


def test_a_bad_file_leaves_no_half_module_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    file = write(tmp_path / "tick.py", "1 / 0\n")
    with pytest.raises(TaskInvalid):
        load(tmp_path)
    assert set(sys.modules) == before
    write(file, one_task("tick"))
    assert names(load(tmp_path)) == ["tick"]


def test_two_tasks_of_one_name_are_told_with_both_places(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, one_task("same")) for name in ("one.py", "two.py"))
    with pytest.raises(TaskDuplicate, match="'same'") as caught:
        load(tmp_path)
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


# --- modules and lists ---


@task
def listed() -> int:
    return 1


class Listed(Task):
    name = "class"

    def run(self) -> int:
        return 2


ORIGIN: dict[str, Any] = {"name": "dict", "description": "d", "scope": "any", "frequency": 0, "run": lambda params: 3}


def test_a_list_may_have_tasks_in_any_form_and_each_several_times(tmp_path: Path) -> None:
    write(tmp_path / "one.py", one_task("one"))
    given = [listed, Listed, ORIGIN, tmp_path, listed, listed.options(priority=3), Listed, ORIGIN, str(tmp_path)]
    tasks = load(given)
    assert names(tasks) == ["listed", "class", "dict", "one"]
    assert [one.handler(None).call({}) for one in tasks] == [1, 2, 3, None]


def test_a_single_task_needs_no_list() -> None:
    assert [names(load(one)) for one in (listed, Listed, ORIGIN)] == [["listed"], ["class"], ["dict"]]


def test_a_bad_element_of_a_list_is_refused() -> None:
    with pytest.raises(TaskInvalid):
        load([listed, 5])
    with pytest.raises(TaskInvalid, match="decorate it"):
        load([len])


def test_two_tasks_of_one_name_in_a_list_are_told_with_both_places() -> None:
    other = task(name="listed")(lambda: None)
    with pytest.raises(TaskDuplicate, match=r"item 1 of the list and in item 3"):
        load([listed, Listed, other])


def test_a_module_has_its_own_tasks_and_those_it_has_collected(app: Path) -> None:
    write(app / "one.py", one_task("one"))
    write(app / "all_tasks.py", "from one import one\nfrom zhero.task import Task\n" + one_task("two"))
    assert names(load(importlib.import_module("all_tasks"))) == ["one", "two"]


def test_a_package_has_those_of_all_its_modules(app: Path) -> None:
    write(app / "jobs" / "__init__.py", "from jobs.mail import mail\n" + one_task("first"))
    write(app / "jobs" / "mail.py", one_task("mail"))
    write(app / "jobs" / "deep" / "clean.py", one_task("clean"))
    assert names(load(importlib.import_module("jobs"))) == ["mail", "first", "clean"]


def test_a_bad_definition_in_a_module_is_told_with_its_name() -> None:
    module = ModuleType("mine")
    module.__dict__["tick"] = {**ORIGIN, "frequency": 5}
    with pytest.raises(TaskInvalid, match=r"^module mine: task dict: frequency=5"):
        load(module)


# --- reloading ---


def result_of(tasks: list[Task], name: str) -> Any:
    return next(one for one in tasks if one.name == name).handler(None).call({})


@pytest.fixture(params=["importable", "not-importable"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tasks folder, with a name in the application and without one."""
    if request.param == "importable":
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path / "tasks"
    return tmp_path / "my-tasks"


def test_an_edit_is_seen_and_loaded(folder: Path) -> None:
    file = write(folder / "one.py", one_task("one", "return 1"))
    write(folder / "two.py", one_task("two", "return 2"))
    reloader = Reloader(folder)
    old = reloader.load()
    assert reloader.changed() == set()
    write(file, one_task("one", "return 9"))
    assert reloader.changed() == {file}
    new = reloader.reload()
    assert reloader.changed() == set()
    assert (result_of(new, "one"), result_of(new, "two")) == (9, 2)
    assert result_of(old, "one") == 1  # whatever runs it still can
    assert next(one for one in new if one.name == "two") is next(one for one in old if one.name == "two")


def test_an_edit_that_changes_neither_second_nor_size_is_loaded(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = write(app / "tasks" / "one.py", one_task("one", "return 1"))
    reloader = Reloader("tasks")
    reloader.load()
    seconds = int(file.stat().st_mtime)
    file.write_text(HEAD + one_task("one", "return 9"))
    os.utime(file, ns=(0, seconds * 10**9 + 5))
    assert reloader.changed() == {file}
    assert result_of(reloader.reload(), "one") == 9


def test_the_application_imports_what_was_reloaded(app: Path) -> None:
    file = write(app / "tasks" / "one.py", one_task("one"))
    reloader = Reloader("tasks")
    reloader.load()
    write(file, one_task("one", "return 9"))
    (new,) = reloader.reload()
    assert sys.modules["tasks.one"].one is new
    assert sys.modules["tasks"].one is sys.modules["tasks.one"]


def test_new_files_come_and_files_that_are_gone_go(folder: Path) -> None:
    file = write(folder / "one.py", one_task("one"))
    reloader = Reloader([folder])
    reloader.load()
    new = write(folder / "sub" / "two.py", one_task("two"))
    file.unlink()
    assert reloader.changed() == {file, new}
    assert names(reloader.reload()) == ["two"]
    assert reloader.changed() == set()


@pytest.mark.parametrize("broken", ["def one(:\n", "1 / 0\n", "@task(frequency=5)\ndef one(): ...\n", one_task("two")])
def test_a_broken_edit_is_told_once_and_leaves_everything_as_it_was(broken: str, app: Path) -> None:
    one = write(app / "tasks" / "one.py", one_task("one", "return 1"))
    write(app / "tasks" / "two.py", one_task("two", "return 2"))
    alone = write(app / "tasks" / "also.py", one_task("also", "return 3"))
    reloader = Reloader("tasks")
    old = reloader.load()
    modules = {name: sys.modules[name] for name in ("tasks.one", "tasks.two", "tasks.also")}

    write(alone, one_task("also", "return 33"))
    write(one, broken)
    with pytest.raises((TaskInvalid, TaskDuplicate), match=r"one\.py"):
        reloader.reload()
    assert reloader.changed() == set()
    assert {name: sys.modules[name] for name in modules} == modules
    assert [result_of(old, name) for name in ("one", "two", "also")] == [1, 2, 3]

    write(one, one_task("one", "return 11"))
    assert reloader.changed() == {one}
    new = reloader.reload()
    assert [result_of(new, name) for name in ("one", "two", "also")] == [11, 2, 33]


def test_a_broken_file_may_be_removed_again(folder: Path) -> None:
    write(folder / "one.py", one_task("one"))
    reloader = Reloader(folder)
    reloader.load()
    broken = write(folder / "two.py", "1 / 0\n")
    with pytest.raises(TaskInvalid):
        reloader.reload()
    broken.unlink()
    assert reloader.changed() == {broken}
    assert names(reloader.reload()) == ["one"]


def test_a_folder_that_appears_later_is_loaded_then(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reloader = Reloader("tasks", base=tmp_path)
    assert reloader.load() == []
    caplog.clear()
    assert reloader.changed() == set()
    assert caplog.records == []
    file = write(tmp_path / "tasks" / "one.py", one_task("one"))
    assert reloader.changed() == {file}
    assert names(reloader.reload()) == ["one"]


def test_a_running_coroutine_keeps_its_code(folder: Path) -> None:
    code = "@task\nasync def one(go):\n    await go.wait()\n    return value()\ndef value():\n    return {}\n"
    file = write(folder / "one.py", code.format(1))
    reloader = Reloader(folder)
    (old,) = reloader.load()

    async def main() -> tuple[int, int]:
        go = asyncio.Event()
        running = asyncio.ensure_future(old.call({"go": go}, None))
        await asyncio.sleep(0)
        write(file, code.format(9))
        (new,) = reloader.reload()
        go.set()
        return await running, await new.call({"go": go}, None)

    assert asyncio.run(main()) == (1, 9)
