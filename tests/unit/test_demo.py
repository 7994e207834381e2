"""The parts of the demo: what is counted in a file, what is merged, a picture, and a verdict that can say no."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zhero.demo import analysis, record, report, screen
from zhero.demo.analysis import Counts, analyse_all, analyse_file, analyse_source, list_sources, merge
from zhero.demo.picture import Picture
from zhero.demo.record import BEGAN, ENDED, RANG, ROUND, Entry, Record, Run, note, runs_of
from zhero.demo.tasks import analyse
from zhero.demo.verdict import Kill, Verdict, judge, rang_on, rounds, shares
from zhero.views import ClusterView, MemberView

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


def ran(node: str, path: str, began_s: float, ended_s: float | None = None) -> list[Entry]:
    """What is on record of a run."""
    began = [Entry(BEGAN, node, began_s, path)]
    return began if ended_s is None else [*began, Entry(ENDED, node, ended_s, path)]


def judged(**other: Any) -> Verdict:
    """The verdict on two files where all went well but what is said."""
    facts: dict[str, Any] = {
        "accepted": ["a.py", "b.py"],
        "results": BOTH,
        "rang": True,
        "entries": [*ran("web-1", "b.py", 1.0, 1.5), *ran("web-2", "a.py", 1.0, 2.0)],
        "by_loop": BOTH,
        "kills": [],
        "nodes": 3,
        **other,
    }
    return judge(**facts)


def test_all_went_well() -> None:
    verdict = judged(kills=[Kill("web-1", 3.0), Kill("web-2", 4.0)])
    assert verdict.is_good
    assert verdict.counts == "jobs=3 done=3 repeated=0 running=0 untold=0"
    assert verdict.line == "lost=0 equal=yes nodes=3 killed=2"


def test_a_job_without_a_result_is_lost_and_makes_the_figures_unequal() -> None:
    verdict = judged(results={"b.py": B})
    assert not verdict.is_good
    assert verdict.counts == "jobs=3 done=2 repeated=0 running=0 untold=0"
    assert verdict.line == "lost=1 equal=no nodes=3 killed=0"
    assert verdict.problems[0] == "1 jobs were accepted and gave no result: a.py"


def test_a_delayed_job_that_never_ran_is_lost() -> None:
    verdict = judged(rang=False)
    assert verdict.line == "lost=1 equal=yes nodes=3 killed=0"
    assert verdict.problems == ("1 jobs were accepted and gave no result: the delayed job",)


def test_what_a_killed_node_was_running_may_run_again() -> None:
    entries = [*ran("web-1", "a.py", 1.0), *ran("web-1", "b.py", 1.0, 1.9), *ran("web-2", "a.py", 2.5, 2.6)]
    verdict = judged(entries=entries, kills=[Kill("web-1", 2.0)])
    assert verdict.is_good
    assert verdict.counts == "jobs=3 done=3 repeated=1 running=1 untold=0"
    (cut,) = verdict.interrupted
    assert cut.elsewhere_s == 0.5
    assert cut.sentence == "web-1 was killed with 1 jobs running and 0 ended but not told: first elsewhere after 0.50 s"


def test_what_a_killed_node_had_ended_may_run_again_if_nobody_knew() -> None:
    entries = [*ran("web-1", "a.py", 1.0, 1.9), *ran("web-1", "b.py", 1.0, 1.8), *ran("web-2", "a.py", 2.5, 2.6)]
    verdict = judged(entries=entries, kills=[Kill("web-1", 2.0)])
    assert verdict.is_good
    assert verdict.counts == "jobs=3 done=3 repeated=1 running=0 untold=1"


def test_a_kill_that_interrupts_nothing_is_said_so() -> None:
    (cut,) = judged(kills=[Kill("web-1", 3.0)]).interrupted
    assert cut.sentence == "web-1 was killed with 0 jobs running and 0 ended but not told: none began elsewhere"


@pytest.mark.parametrize("killed", [[], ["web-3"], ["web-1"]])
def test_more_runs_than_kills_explain_are_a_fault(killed: list[str]) -> None:
    entries = [*ran("web-1", "b.py", 1.0, 1.5)]
    for at_s in (1.0, 2.0, 3.0):
        entries += ran("web-1" if at_s == 1.0 else "web-2", "a.py", at_s, at_s + 0.5)
    verdict = judged(entries=entries, kills=[Kill(node, 2.0) for node in killed])
    assert not verdict.is_good
    assert verdict.problems == ("1 files were analysed again though no node was killed that ran them: a.py",)
    assert verdict.line == f"lost=0 equal=yes nodes=3 killed={len(killed)}"


def test_what_else_went_wrong_is_a_fault() -> None:
    verdict = judged(troubles=["web-2 has ended by itself"])
    assert not verdict.is_good
    assert verdict.problems == ("web-2 has ended by itself",)


def other(field: str) -> Counts:
    """A, with another value in one field."""
    changed: Any = {**A}
    changed[field] = [(0, "b", 1)] if field == "most_branching" else "SyntaxError" if field == "problem" else 99
    return changed


@pytest.mark.parametrize("field", list(A))
def test_figures_that_differ_in_anything_are_unequal(field: str) -> None:
    verdict = judged(results={"a.py": other(field), "b.py": B})
    assert (verdict.equal, verdict.lost, verdict.is_good) == (False, 0, False)
    assert verdict.line == "lost=0 equal=no nodes=3 killed=0"


def test_results_of_the_wrong_files_are_unequal_though_their_sum_is_right() -> None:
    verdict = judged(results={"a.py": B, "b.py": A})
    assert merge({"a.py": B, "b.py": A})["branches"] == merge(BOTH)["branches"]
    assert not verdict.equal


def test_a_result_without_a_run_on_record_is_not_believed() -> None:
    verdict = judged(entries=ran("web-1", "a.py", 1.0, 2.0))
    assert not verdict.is_good
    assert verdict.problems == ("1 results came of which no run is on record: b.py",)


def test_a_run_that_nobody_asked_for_is_a_fault() -> None:
    runs = [it for path in ("a.py", "b.py", "c.py") for it in ran("web-1", path, 1.0, 2.0)]
    assert judged(entries=runs).problems == ("1 files were analysed for which there was no job: c.py",)


def test_a_complaint_names_a_few_files() -> None:
    paths = [f"{i}.py" for i in range(9)]
    (lost, *_) = judged(accepted=paths, results={}).problems
    assert lost == "9 jobs were accepted and gave no result: 0.py, 1.py, 2.py, 3.py, 4.py, ..."


def test_shares_rounds_and_the_delayed_job_are_read_from_the_record() -> None:
    entries = [
        *ran("web-1", "a.py", 1.0, 2.0),
        Entry(ROUND, "web-1", 1.0, "7"),
        *ran("web-2", "b.py", 1.0),
        Entry(ROUND, "web-2", 2.0, "8"),
        *ran("web-2", "c.py", 1.0),
        Entry(ROUND, "web-3", 4.5, "8"),
        Entry(RANG, "web-3", 5.0, ""),
    ]
    assert list(shares(entries).items()) == [("web-2", 2), ("web-1", 1)]
    assert rounds(entries) == "3 rounds of the periodic task, 1 of them twice, longest pause 2.5 s"
    assert rang_on(entries) == ("web-3", 5.0)
    assert (shares([]), rounds([]), rang_on([])) == ({}, "no round of the periodic task", None)


# --- the record ---------------------------------------------------------------------------------------------------

RECORDS_MANY = """
from zhero.demo.record import note
for number in range(300):
    note("began", str(number))
"""


def test_processes_share_a_record(tmp_path: Path) -> None:
    shared = tmp_path / "record"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDS_MANY],
            cwd=Path(__file__).parents[2],
            env={**os.environ, record.RECORD: str(shared), record.NODE: name},
        )
        for name in "ab"
    ]
    try:
        assert [it.wait(60) for it in writers] == [0, 0]
    finally:
        for it in writers:
            it.kill()
            it.wait()
    entries = Record(shared).read()
    assert sorted((it.node, int(it.what)) for it in entries) == [(name, i) for name in "ab" for i in range(300)]


def be_in(monkeypatch: pytest.MonkeyPatch, node: str, place: Path) -> None:
    monkeypatch.setenv(record.RECORD, str(place))
    monkeypatch.setenv(record.NODE, node)


def test_a_reader_takes_in_what_is_new_and_leaves_a_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "record"
    be_in(monkeypatch, "web-1", place)
    reader = Record(place)
    assert reader.read() == []
    note(BEGAN, "ä b.py")
    assert [(it.kind, it.node, it.what) for it in reader.read()] == [(BEGAN, "web-1", "ä b.py")]
    with place.open("ab") as file:
        file.write(b"ended\tweb-1\t12")
        file.flush()
        assert reader.read() == []
        file.write(b".5\ta.py\n")
    assert reader.read() == [Entry(ENDED, "web-1", 12.5, "a.py")]
    assert len(reader.entries) == 2


def test_runs_are_paired_from_their_begins_and_ends() -> None:
    entries = [
        *ran("web-1", "a.py", 1.0),
        *ran("web-2", "b.py", 1.5, 2.0),
        Entry(ROUND, "web-2", 2.5, "1"),
        *ran("web-2", "a.py", 3.0, 4.0),
        Entry(ENDED, "web-3", 5.0, "c.py"),
    ]
    assert runs_of(entries) == [
        Run("web-1", "a.py", 1.0, None),
        Run("web-2", "b.py", 1.5, 2.0),
        Run("web-2", "a.py", 3.0, 4.0),
    ]


def test_the_task_is_the_function_and_puts_its_run_on_record_only_in_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, a="def f(x):\n if x: pass\n")
    expected = analyse_file(tmp_path, "a.py")
    assert analyse.run(root=str(tmp_path), path="a.py") == expected
    be_in(monkeypatch, "web-9", tmp_path / "record")
    assert analyse.run(root=str(tmp_path), path="a.py") == expected
    (run,) = runs_of(Record(tmp_path / "record").read())
    assert (run.node, run.path) == ("web-9", "a.py")
    assert run.ended_s is not None
    assert run.ended_s >= run.began_s


# --- text ---------------------------------------------------------------------------------------------------------


def test_the_report_has_the_figures(tmp_path: Path) -> None:
    put(tmp_path, a="def f(x):\n if x: pass\n", c="def (")
    text = report.as_markdown(merge(analyse_all(tmp_path, ["a.py", "c.py"], lambda: None)), "3.x")
    assert "| files | 2 |" in text
    assert "| of these parsed | 1 |" in text
    assert "| 1 | f | a.py:1 |" in text
    assert "| c.py | SyntaxError: " in text


def test_a_cell_of_the_report_stays_in_its_column() -> None:
    figures = merge({"a|b.py": {**A, "problem": "bad\n| thing"}})
    assert "| a\\|b.py | bad \\| thing |" in report.as_markdown(figures, "3.x")


# --- the picture and the screen -----------------------------------------------------------------------------------


def member(name: str, joined: int, **other: Any) -> MemberView:
    facts: dict[str, Any] = {"owner": False, "slots": 2, "busy": 1, **other}
    return MemberView(name, name, "tcp://127.0.0.1:1", 40 + joined, "1", tasks=(), joined=joined, **facts)


def picture(**other: Any) -> Picture:
    view = ClusterView(
        members=(member("web-3", 3, lagging=True), member("web-2", 2, owner=True), member("web-1", 1)),
        queues={"global": 5, "local": 1, "delayed": 2, "processing": 3},
        dead=0,
        plans=(),
        missing=(),
        uptime_ms=1,
        degraded=4,
        silent=("web-1",),
    )
    facts: dict[str, Any] = {
        "after_s": 12.34,
        "view": view,
        "ended": 7,
        "total": 10,
        "shares": {"web-0": 1, "web-2": 5, "web-1": 2},
        "killed": {"web-0", "web-1"},
        **other,
    }
    return Picture(**facts)


def test_a_picture_has_a_row_for_each_member_and_for_those_that_only_the_record_knows() -> None:
    assert picture().rows() == [
        ("web-1", "killed (seen alive)", "", "-", "2", "25 %", "41"),
        ("web-2", "alive", "owner", "1 of 2", "5", "62 %", "42"),
        ("web-3", "lagging", "", "1 of 2", "0", "0 %", "43"),
        ("web-0", "killed", "", "-", "1", "12 %", "-"),
    ]
    queues = "global 5, local 1, delayed 2, processing 3, degraded 4, no answer from web-1"
    assert picture().line() == (
        " 12.3 s  7/10 files | web-1 killed (seen alive), web-2* 5, web-3 lagging, web-0 killed | " + queues
    )


def test_a_picture_of_nothing_says_so() -> None:
    empty = picture(view=None, shares={}, killed=(), ended=0)
    assert empty.line() == " 12.3 s  0/10 files | no members | nobody has answered yet"


def test_a_plain_screen_shows_a_picture_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.PlainScreen().live() as show:
        for after_s in (0.1, 0.5, 1.0, 1.2, 1.9, 3.0):
            show(picture(after_s=after_s))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" s ")[0].strip() for line in lines] == ["0.1", "1.2", "3.0"]


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
