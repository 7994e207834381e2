"""The parts of the demo: what is counted in a file, what is merged, and a verdict that can say no."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zhero.demo import analysis, report, screen
from zhero.demo.analysis import Counts, analyse_all, analyse_file, analyse_source, list_sources, merge
from zhero.demo.tasks import analyse, write_report
from zhero.demo.verdict import Run, Verdict, judge, read_runs, record_run

# --- one file -----------------------------------------------------------------------------------------------------

SAMPLE = b'''\
"""A module."""
if True:
    pass

class Outer:
    class Inner:
        async def method(self, a, b):
            async for it in a:
                if it and b or it:
                    return [x for x in it if x for y in x]
    def other(self):
        def inner(a):
            while a:
                a -= 1
            return lambda b: 1 if b else 2
        for it in self:
            yield it
'''


def test_a_file_is_counted_by_function() -> None:
    assert analyse_source(SAMPLE) == {
        "bytes": len(SAMPLE),
        "lines": 17,
        "functions": 3,
        "classes": 2,
        # one of the module itself
        "branches": 1 + 7 + 1 + 2,
        "most_branching": [(7, "Outer.Inner.method", 7), (2, "Outer.other.inner", 12), (1, "Outer.other", 11)],
        "problem": None,
    }


@pytest.mark.parametrize(
    ("body", "branches"),
    [
        ("pass", 0),
        ("if a: pass", 1),
        ("if a: pass\n    elif b: pass\n    else: pass", 2),
        ("for x in a: pass\n    else: pass", 1),
        ("while a: pass", 1),
        ("try: pass\n    except A: pass\n    except B: pass\n    finally: pass", 2),
        ("try: pass\n    except* A: pass", 1),
        ("match a:\n        case 1: pass\n        case _: pass", 2),
        ("return a if b else c", 1),
        ("return a and b and c", 2),
        ("return a and b or c", 2),
        ("return not a", 0),
        ("return [x for x in a]", 1),
        ("return {x: y for x in a if x if y for y in x}", 4),
        ("with a as b: pass", 0),
        ("return a.b[c if d else e](*f, **g)", 1),
    ],
)
def test_what_is_a_branch(body: str, branches: int) -> None:
    counts = analyse_source(f"def f(a, b):\n    {body}\n".encode())
    assert counts["problem"] is None
    assert counts["most_branching"] == [(branches, "f", 1)]
    assert counts["branches"] == branches


def test_decorators_and_defaults_are_the_functions_own() -> None:
    counts = analyse_source(b"@a if b else c\ndef f(x=[i for i in y]): pass\n")
    assert counts["most_branching"] == [(2, "f", 2)]


def test_of_many_functions_those_with_most_branches_are_named_ties_by_line() -> None:
    source = "".join(f"def f{i}():\n" + "    if a: pass\n" * (i % 4 + 1) for i in range(20))
    named = analyse_source(source.encode())["most_branching"]
    assert len(named) == analysis.MOST_BRANCHING_COUNT
    assert [name for _, name, _ in named] == [f"f{i}" for i in (3, 7, 11, 15, 19, 2, 6, 10, 14, 18)]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (b"", 0),
        (b"x = 1", 1),
        (b"x = 1\n", 1),
        (b"x = 1\r\ny = 2\r\n", 2),
        (b"x = 1\ry = 2\r", 2),
        (b"\xef\xbb\xbfx = '\xc3\xa4'\n", 1),
        (b"# -*- coding: latin-1 -*-\nx = '\xe4'\n", 2),
        (b"# ", 1),
        (b"x = '\\d'\n", 1),
    ],
    ids=["empty", "no newline", "newline", "crlf", "cr", "bom", "latin-1", "comment", "doubtful escape"],
)
def test_odd_but_right(source: bytes, lines: int) -> None:
    counts = analyse_source(source)
    assert counts["problem"] is None
    assert (counts["bytes"], counts["lines"]) == (len(source), lines)


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        (b"def f(:\n", ["SyntaxError"]),
        (b"if a:\nb\n", ["IndentationError"]),
        (b"x = 1\0\n", ["ValueError", "SyntaxError"]),  # which, depends on the version
        (b"x = '\xe4'\n", ["SyntaxError"]),
        (b"# coding: no-such\n", ["SyntaxError"]),
        (b"\xef\xbb\xbf# coding: latin-1\n", ["SyntaxError"]),
        (b"(" * 5000, ["SyntaxError", "MemoryError", "RecursionError"]),
        (b"x = " + b"-" * 100_000 + b"1\n", ["SyntaxError", "MemoryError", "RecursionError"]),
    ],
    ids=["syntax", "indentation", "null", "encoding", "coding", "bom and coding", "brackets", "deep"],
)
def test_what_does_not_parse_is_a_result(source: bytes, kinds: list[str]) -> None:
    counts = analyse_source(source)
    assert (counts["problem"] or "").partition(":")[0] in kinds
    assert (counts["bytes"], counts["lines"]) == (len(source), len(source.splitlines()))
    assert (counts["functions"], counts["branches"], counts["most_branching"]) == (0, 0, [])


def test_a_tree_deeper_than_python_recurses_is_walked() -> None:
    depth = sys.getrecursionlimit() + 200
    counts = analyse_source(f"x = a{'.b' * depth} if c else d\n".encode())
    assert (counts["problem"], counts["branches"]) == (None, 1)


def test_a_file_that_can_not_be_read_is_a_result(tmp_path: Path) -> None:
    assert (analyse_file(tmp_path, "none.py")["problem"] or "").startswith("FileNotFoundError")


# --- all files ----------------------------------------------------------------------------------------------------


def put(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_sources_are_listed_in_order_without_installed_packages(tmp_path: Path) -> None:
    put(tmp_path, b="", a__z="", a__b__c="", B="", site="")
    for folder in ("site-packages", "a/dist-packages", "a/__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").touch()
    (tmp_path / "a" / "data.txt").touch()
    assert list_sources(tmp_path) == ["B.py", "a/b/c.py", "a/z.py", "b.py", "site.py"]
    assert list_sources(tmp_path, 2) == ["B.py", "a/b/c.py"]


def test_this_python_has_sources() -> None:
    root = analysis.standard_library()
    paths = list_sources(root)
    assert 100 < len(paths) <= analysis.SOURCES_MAX_COUNT
    assert {"ast.py", "asyncio/events.py"} <= {*paths}


def test_figures_do_not_depend_on_the_order_of_results(tmp_path: Path) -> None:
    put(tmp_path, a="def f(x):\n if x: pass\n", b="def f(x): return x\nclass C: pass\n", c="def (")
    steps: list[int] = []
    counts = analyse_all(tmp_path, ["a.py", "b.py", "c.py"], lambda: steps.append(1))
    figures = merge(counts)
    assert len(steps) == 3
    assert figures == merge(dict(reversed(counts.items())))
    assert (figures["files"], figures["lines"], figures["functions"], figures["classes"]) == (3, 5, 2, 1)
    assert figures["branches"] == 1
    assert figures["most_branching"] == [(1, "a.py", "f", 1), (0, "b.py", "f", 1)]
    assert [path for path, _ in figures["not_parsed"]] == ["c.py"]


def test_none_of_the_most_branching_functions_is_missed_when_one_file_has_them_all(tmp_path: Path) -> None:
    many = "".join(f"def f{i:02}(x):\n" + " if x: pass\n" * (i + 2) for i in range(12))
    put(tmp_path, a="def f(x):\n if x: pass\n", b=many)
    named = merge(analyse_all(tmp_path, ["a.py", "b.py"], lambda: None))["most_branching"]
    assert [name for _, _, name, _ in named] == [f"f{i:02}" for i in range(11, 1, -1)]


# --- the verdict --------------------------------------------------------------------------------------------------

A, B = analyse_source(b"def a(): pass\n"), analyse_source(b"b = 1 if c else 2\n")
BOTH = {"a.py": A, "b.py": B}


def judged(**other: Any) -> Verdict:
    """The verdict on two files where all went well but what is said."""
    facts: dict[str, Any] = {
        "accepted": ["a.py", "b.py"],
        "results": BOTH,
        "runs": [Run(1, "b.py"), Run(2, "a.py")],
        "by_loop": BOTH,
        "inline": ("a.py", A),
        "nodes": 1,
        "killed": 0,
        **other,
    }
    return judge(**facts)


def test_all_went_well() -> None:
    verdict = judged()
    assert verdict.is_good
    assert verdict.line == "demo: jobs=2 done=2 lost=0 repeated=0 nodes=1 killed=0 equal=yes"


def test_a_job_without_a_result_is_lost_and_makes_the_figures_unequal() -> None:
    verdict = judged(results={"b.py": B})
    assert not verdict.is_good
    assert verdict.line == "demo: jobs=2 done=1 lost=1 repeated=0 nodes=1 killed=0 equal=no"
    assert verdict.problems[0] == "1 jobs were accepted and gave no result: a.py"


def test_a_job_that_ran_again_is_repeated_and_no_fault() -> None:
    verdict = judged(runs=[Run(1, "a.py"), Run(1, "b.py"), Run(2, "a.py"), Run(3, "a.py")], nodes=3, killed=2)
    assert verdict.is_good
    assert verdict.line == "demo: jobs=2 done=2 lost=0 repeated=2 nodes=3 killed=2 equal=yes"


def other(field: str) -> Counts:
    """A, with another value in one field."""
    changed: Any = {**A}
    changed[field] = [(0, "b", 1)] if field == "most_branching" else "SyntaxError" if field == "problem" else 99
    return changed


@pytest.mark.parametrize("field", list(A))
def test_figures_that_differ_in_anything_are_unequal(field: str) -> None:
    verdict = judged(results={"a.py": other(field), "b.py": B})
    assert (verdict.equal, verdict.lost, verdict.is_good) == (False, 0, False)
    assert verdict.line.endswith("equal=no")


def test_results_of_the_wrong_files_are_unequal_though_their_sum_is_right() -> None:
    verdict = judged(results={"a.py": B, "b.py": A})
    assert merge({"a.py": B, "b.py": A})["branches"] == merge(BOTH)["branches"]
    assert not verdict.equal


def test_an_inline_run_that_differs_is_unequal() -> None:
    assert not judged(inline=("a.py", B)).equal
    assert not judged(inline=("c.py", A)).equal


def test_a_result_without_a_run_on_record_is_not_believed() -> None:
    verdict = judged(runs=[Run(1, "a.py")])
    assert not verdict.is_good
    assert verdict.problems == ("1 results came of which no run is on record: b.py",)


def test_a_run_that_nobody_asked_for_is_a_fault() -> None:
    verdict = judged(runs=[Run(1, "a.py"), Run(1, "b.py"), Run(1, "c.py")])
    assert verdict.problems == ("1 files were analysed for which there was no job: c.py",)


def test_a_complaint_names_a_few_files() -> None:
    paths = [f"{i}.py" for i in range(9)]
    (lost, *_) = judged(accepted=paths, results={}).problems
    assert lost == "9 jobs were accepted and gave no result: 0.py, 1.py, 2.py, 3.py, 4.py, ..."


# --- runs on record -----------------------------------------------------------------------------------------------

RECORDS_MANY = """
import sys
from pathlib import Path
from zhero.demo.verdict import record_run
for number in range(300):
    record_run(Path(sys.argv[1]), f"{sys.argv[2]}/{number}.py")
"""


def test_processes_share_a_record(tmp_path: Path) -> None:
    record = tmp_path / "runs"
    writers = [
        subprocess.Popen([sys.executable, "-c", RECORDS_MANY, str(record), name], cwd=Path(__file__).parents[2])
        for name in "ab"
    ]
    try:
        assert [it.wait(60) for it in writers] == [0, 0]
    finally:
        for it in writers:
            it.kill()
            it.wait()
    runs = read_runs(record)
    assert sorted(run.path for run in runs) == sorted(f"{name}/{i}.py" for name in "ab" for i in range(300))
    assert {run.pid for run in runs} == {it.pid for it in writers}


def test_no_record_is_no_run_and_a_torn_line_is_none(tmp_path: Path) -> None:
    record = tmp_path / "runs"
    assert read_runs(record) == []
    record_run(record, "ä b.py")
    with record.open("ab") as file:
        file.write(b"12")
    assert [run.path for run in read_runs(record)] == ["ä b.py"]


# --- tasks and text -----------------------------------------------------------------------------------------------


def test_the_task_is_the_function_and_puts_its_run_on_record_when_asked_to(tmp_path: Path) -> None:
    put(tmp_path, a="def f(x):\n if x: pass\n")
    record = tmp_path / "runs"
    expected = analyse_file(tmp_path, "a.py")
    assert analyse.run(root=str(tmp_path), path="a.py") == expected
    assert not record.exists()
    assert analyse.run(root=str(tmp_path), path="a.py", record=str(record)) == expected
    assert [run.path for run in read_runs(record)] == ["a.py"]


def test_the_report_has_the_figures(tmp_path: Path) -> None:
    put(tmp_path, a="def f(x):\n if x: pass\n", c="def (")
    figures = merge(analyse_all(tmp_path, ["a.py", "c.py"], lambda: None))
    written = write_report.run(path=str(tmp_path / "report.md"), figures=figures)
    data = (tmp_path / "report.md").read_bytes()
    assert written == len(data)
    text = data.decode()
    assert "| files | 2 |" in text
    assert "| of these parsed | 1 |" in text
    assert "| 1 | f | a.py:1 |" in text
    assert "| c.py | SyntaxError: " in text


def test_a_cell_of_the_report_stays_in_its_column() -> None:
    figures = merge({"a|b.py": {**A, "problem": "bad\n| thing"}})
    assert "| a\\|b.py | bad \\| thing |" in report.as_markdown(figures, "3.x")


# --- the screen ---------------------------------------------------------------------------------------------------


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_without_control_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = screen.choose(plain=False)
    chosen.line("\x1b[31mred\r")
    with chosen.bar("work", 2) as advance:
        advance()
        advance()
    chosen.table("title", ("NAME", "COUNT"), [("a\x1b", "1"), ("x" * 200, "2")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["\\x1b[31mred\\r", "work: 2 files"]
    assert lines[3:6] == ["title", f"  NAME{' ' * 86}  COUNT", f"  a\\x1b{' ' * 85}  1"]
    assert all(line.isprintable() for line in lines)


def test_plain_is_plain_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(screen.choose(plain=True), screen.PlainScreen)
    assert isinstance(screen.choose(plain=False), screen.RichScreen)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert isinstance(screen.choose(plain=False), screen.PlainScreen)


def test_the_log_is_shown_while_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("demo-of-a-test")
    with screen.shown_log(logger.name, screen.PlainScreen()):
        logger.info("one\ntwo")
        logger.debug("not this")
    logger.info("nor this")
    assert capsys.readouterr().out == "one\ntwo\n"
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


def test_a_log_line_that_nobody_reads_does_not_raise_where_it_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    shown = screen.PlainScreen()
    with pytest.raises(BrokenPipeError):
        shown.line("said by the demo itself")
    logger = logging.getLogger("demo-of-a-test")
    with screen.shown_log(logger.name, shown):
        logger.info("said by a node")
