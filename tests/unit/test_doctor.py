"""What `zhero doctor` makes of what it finds: a line for each check, and its level. And what it finds on this host."""

from __future__ import annotations

import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zhero.cli import checks
from zhero.cli.checks import Answer, Finding, Found, Place, Seed, Shown, Site, judge, left_behind, worst
from zhero.cli.main import main
from zhero.core.values import NodeId
from zhero.runtime.discovery import Directory, Entry, runtime_dir
from zhero.settings import resolve

ROOT = Path(__file__).parents[2]
VERSIONS = {"python": "3.11.7", "zhero": "0.1.0", "pyzmq": "26.0.0", "libzmq": "4.3.5", "msgpack": "1.2.4"}
ONE, TWO = "tcp://127.0.0.1:7040", "tcp://127.0.0.1:7050"
FAR = "tcp://10.0.0.7:7040"
MEMBERS = {"1": "web-1", "2": "web-2"}
WEB_1 = Answer(node="1", name="web-1", version="0.1.0", ahead_ms=0, within_ms=2, members=MEMBERS)
WEB_2 = replace(WEB_1, node="2", name="web-2")
REFUSED = Answer("refuses connections: nobody listens there", refused=True)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "zhero.toml").write_text('cluster = "garden"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(descriptors: int | None = 4096, versions: dict[str, str] | None = None, **given: Any) -> Found:
    """What is found where all is well, but for what is given."""
    settings = given.pop("settings", {})
    site = Site(resolve(**settings), (Place("/run/zhero", True), Place("/run/zhero/garden", True)))
    return Found(versions or VERSIONS, descriptors, replace(site, **given))


def line(what: str, of: Found) -> Finding:
    """The one finding about that."""
    (finding,) = [it for it in judge(of) if it.what == what]
    return finding


def entry(name: str, endpoint: str = ONE, *, pid: int = 42, boot: int = 1) -> Entry:
    return Entry(NodeId(name.encode().ljust(16)), boot, name, endpoint, pid, "0.1.0", boot)


# --- judgement ----------------------------------------------------------------------------------------------------


def test_where_all_is_well_every_line_is_fine() -> None:
    shown = (Shown(entry("web-1"), ONE, True), Shown(entry("web-2", TWO), TWO, True))
    findings = judge(found(shown=shown, answers={ONE: WEB_1, TWO: WEB_2}))
    assert {(it.level, it.advice) for it in findings} == {("ok", "")}
    assert [it.what for it in findings] == [
        *("versions", "settings", "descriptors", "runtime directory", "bind"),
        *("node web-1", "node web-2", "cluster"),
    ]
    assert line("cluster", found(answers={ONE: WEB_1})).found == "2 members, seen alike by all that answer"


def test_the_worst_level_counts() -> None:
    fine, odd, bad = (Finding("x", level, "") for level in ("ok", "warning", "problem"))
    assert [worst(of) for of in ([], [fine], [fine, odd], [odd, bad, fine])] == ["ok", "ok", "warning", "problem"]


def test_the_oldest_versions_are_those_that_the_package_asks_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"python": asked["requires-python"], **dict(it.split(">=") for it in asked["dependencies"])}
    for name, text in wanted.items():
        assert checks.NEEDED[name] == tuple(map(int, re.findall(r"\d+", text)))


@pytest.mark.parametrize(
    ("name", "version", "level"),
    [
        ("pyzmq", "25.9.9", "problem"),
        ("pyzmq", "27.0.0b1", "ok"),
        ("libzmq", "4.2.5", "problem"),
        ("msgpack", "1.2.3", "problem"),
        ("msgpack", "1.10", "ok"),
        ("python", "3.13.0rc1", "ok"),
    ],
)
def test_a_library_that_is_too_old_is_named(name: str, version: str, level: str) -> None:
    told = line("versions", found(versions={**VERSIONS, name: version}))
    assert told.level == level
    assert (name in told.advice) is (level != "ok")


def test_wrong_settings_are_a_problem_and_end_what_depends_on_them() -> None:
    findings = judge(Found(VERSIONS, 4096, "workers = 'x' (ZHERO_WORKERS): must be a whole number"))
    assert [(it.what, it.level) for it in findings] == [
        ("versions", "ok"),
        ("settings", "problem"),
        ("descriptors", "ok"),
    ]
    assert "ZHERO_WORKERS" in findings[1].found


def test_settings_are_told_with_their_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHERO_WORKERS", "2")
    told = line("settings", found()).found
    assert told.startswith("cluster garden; set: ")
    assert "workers (ZHERO_WORKERS)" in told
    assert "zhero.toml" in told


@pytest.mark.parametrize(
    ("limit", "members", "level"),
    [(None, 500, "ok"), (1024, 2, "ok"), (256, 2, "warning"), (64, 2, "problem"), (1024, 100, "warning")],
)
def test_few_descriptors(limit: int | None, members: int, level: str) -> None:
    many = replace(WEB_1, members={str(number): f"web-{number}" for number in range(members)})
    told = line("descriptors", found(limit, answers={ONE: many}))
    assert told.level == level
    assert ("ulimit -n" in told.advice) is (level != "ok")


def test_a_directory_that_a_node_would_refuse_is_a_problem() -> None:
    for places in (
        (Place("/run/zhero", True, "open to others: chmod 700 it"), Place("/run/zhero/garden", True)),
        (Place("/run/zhero", True), Place("/run/zhero/garden", True, "open to others: chmod 700 it")),
    ):
        told = line("runtime directory", found(places=places))
        assert (told.level, told.found) == ("problem", "open to others: chmod 700 it")
    assert line("runtime directory", found(places=(Place("/run/zhero", False),) * 2)).level == "ok"


def test_what_a_killed_node_left_is_a_warning_and_its_node_is_no_other_line() -> None:
    shown = Shown(entry("web-9"), ONE, runs=False)
    gone = found(shown=(shown,), answers={ONE: REFUSED})
    assert isinstance(gone.site, Site)
    assert left_behind(gone.site) == [shown]
    told = line("entry web-9", gone)
    assert (told.level, told.advice) == ("warning", "zhero doctor --fix removes it")
    assert "42" in told.found
    assert [it for it in judge(gone) if it.what == "node web-9"] == []


@pytest.mark.parametrize(
    ("runs", "answers"),
    [
        (True, {ONE: REFUSED}),  # it may be about to listen
        (False, {ONE: WEB_1}),  # its process is in another namespace
        (False, {}),  # one of too many: not tried
    ],
)
def test_an_entry_that_may_be_of_use_is_not_left_behind(runs: bool, answers: dict[str, Answer]) -> None:
    of = found(shown=(Shown(entry("web-9"), ONE, runs),), answers=answers)
    assert isinstance(of.site, Site)
    assert left_behind(of.site) == []


def test_a_file_that_is_no_entry_is_a_warning() -> None:
    told = line("runtime file", found(unreadable=("/run/zhero/garden/x.json",)))
    assert told.level == "warning"
    assert "x.json" in told.found


def test_a_port_in_use_is_a_problem_unless_it_is_a_node_of_this_cluster() -> None:
    taken = found(settings={"bind": ONE}, bind_wrong=f"{ONE}: Address already in use")
    assert line("bind", taken).level == "problem"
    assert isinstance(taken.site, Site)
    for runs, level in ((True, "ok"), (False, "problem")):
        shown = (Shown(entry("web-1"), ONE, runs),)
        told = line("bind", replace(taken, site=replace(taken.site, shown=shown, answers={ONE: REFUSED})))
        assert told.level == level
        assert ("web-1" in told.found) is runs
    assert line("bind", found(settings={"bind": ONE})).found == f"{ONE} is free"


@pytest.mark.parametrize(
    ("settings", "far", "level"),
    [
        ({}, True, "problem"),
        ({}, False, "ok"),
        ({"advertise": "tcp://203.0.113.5:0", "insecure": True}, True, "ok"),
        ({"bind": "tcp://0.0.0.0:0", "insecure": True}, True, "ok"),
    ],
)
def test_a_loopback_bind_can_not_be_answered_from_another_host(settings: dict[str, Any], far: bool, level: str) -> None:
    assert line("bind", found(settings=settings, seeds=(Seed(FAR, (FAR,), far),))).level == level


@pytest.mark.parametrize(
    ("seed", "answers", "level", "word"),
    [
        (Seed(ONE, (ONE,)), {ONE: WEB_1}, "ok", "answers"),
        (Seed(ONE, (ONE,)), {ONE: REFUSED}, "problem", "refuses connections"),
        (Seed(ONE, (ONE,)), {ONE: Answer("a frame of another cluster")}, "problem", "another cluster"),
        (Seed("tcp://web:7040", wrong="Name or service not known"), {}, "problem", "not known"),
        (Seed("tcp://web:7040", (ONE, TWO)), {ONE: WEB_1, TWO: WEB_2}, "ok", "all of 2 addresses"),
        (Seed("tcp://web:7040", (ONE, TWO)), {ONE: WEB_1, TWO: REFUSED}, "warning", f"{TWO} refuses"),
        (Seed("tcp://web:7040", (ONE, TWO)), {ONE: REFUSED, TWO: REFUSED}, "problem", f"{TWO} refuses"),
        (Seed("tcp://web:7040"), {}, "problem", "no address"),
    ],
)
def test_seeds(seed: Seed, answers: dict[str, Answer], level: str, word: str) -> None:
    told = line(f"seed {seed.name}", found(seeds=(seed,), answers=answers))
    assert told.level == level
    assert word in told.found
    assert bool(told.advice) is (level != "ok")


def test_the_advice_for_a_seed_says_whether_a_node_is_missing_or_is_another() -> None:
    for answer, word in ((REFUSED, "start a node"), (Answer("does not answer"), "cluster garden")):
        assert word in line(f"seed {ONE}", found(seeds=(Seed(ONE, (ONE,)),), answers={ONE: answer})).advice


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"version": "0.2.0"}, "warning", ["zhero 0.2.0", "zhero 0.1.0"]),
        ({"ahead_ms": 900}, "ok", ["900 ms ahead", "to within 2 ms"]),
        ({"ahead_ms": -1_500}, "warning", ["1500 ms behind", "NTP"]),
        ({"ahead_ms": -1_500, "within_ms": 600}, "ok", ["1500 ms behind"]),
        ({"ahead_ms": 3_600_000}, "problem", ["3600000 ms ahead"]),
        ({"ahead_ms": 1, "within_ms": 2}, "ok", ["its clock agrees"]),
        ({"ahead_ms": None}, "ok", []),
        ({"members": None}, "problem", ["does not say who its members are"]),
    ],
)
def test_a_node_that_answers(changes: dict[str, Any], level: str, words: list[str]) -> None:
    told = line("node web-1", found(answers={ONE: replace(WEB_1, **changes)}))
    assert told.level == level
    for word in words:
        assert word in f"{told.found} {told.advice}"


def test_an_older_node_that_does_not_tell_its_clock_has_no_wrong_one() -> None:
    assert "clock" not in line("node web-1", found(answers={ONE: replace(WEB_1, ahead_ms=None)})).found


def test_a_node_that_is_met_at_two_endpoints_is_one() -> None:
    of = found(seeds=(Seed(TWO, (TWO,)),), answers={ONE: WEB_1, TWO: WEB_1})
    assert line("node web-1", of).level == "ok"


@pytest.mark.parametrize(
    ("answer", "late", "word"),
    [
        (REFUSED, (), "advertise"),
        (Answer("does not answer"), (), "firewall"),
        (Answer("does not answer"), ("web-2",), "event loop is blocked"),
    ],
)
def test_a_member_that_others_know_and_that_does_not_answer_is_a_problem(
    answer: Answer, late: tuple[str, ...], word: str
) -> None:
    told = line("node web-2", found(known={TWO: "web-2"}, answers={ONE: replace(WEB_1, late=late), TWO: answer}))
    assert told.level == "problem"
    assert TWO in told.found
    assert word in f"{told.found} {told.advice}"


@pytest.mark.parametrize(
    ("first", "second", "level", "word"),
    [
        ({}, {"members": {"2": "web-2"}}, "problem", "web-2 counts web-2"),
        ({"suspects": ("web-2",)}, {}, "warning", "not heard at the moment: web-2"),
        ({"silent": ("web-2",)}, {}, "warning", "web-2 gave no answer"),
        ({"late": ("web-2",)}, {}, "warning", "late at web-2"),
        ({"members": None}, {}, "ok", "2 members"),
    ],
)
def test_the_cluster_as_its_members_see_it(
    first: dict[str, Any], second: dict[str, Any], level: str, word: str
) -> None:
    told = line("cluster", found(answers={ONE: replace(WEB_1, **first), TWO: replace(WEB_2, **second)}))
    assert told.level == level
    assert word in told.found


# --- this host ----------------------------------------------------------------------------------------------------


def doctor(capsys: Capture, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and what was found by what was looked at."""
    code = main(["doctor", "--json", *options])
    told = json.loads(capsys.readouterr().out)
    return code, {it["what"]: it for it in told["checks"]}


@pytest.fixture
def port() -> Iterator[int]:
    """One that somebody listens at."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        number: int = listening.getsockname()[1]
        yield number


def test_nothing_is_made_where_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ZHERO_RUNTIME_DIR", str(tmp_path / "some" / "where"))
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "problems: 0, warnings: 0"
    assert all(line.startswith("ok ") for line in told[:-1])
    assert "is made by the first node" in "".join(told)
    assert not (tmp_path / "some").exists()


def test_what_is_typed_wrong_is_wrong_usage(capsys: Capture) -> None:
    assert main(["doctor", "--join", "bogus"]) == 2
    assert "join = ['bogus']" in capsys.readouterr().err


def test_a_wrong_variable_and_a_wrong_file_are_problems_and_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ZHERO_WORKRES", "3")
    code, told = doctor(capsys)
    assert (code, told["settings"]["level"]) == (1, "problem")
    assert "did you mean ZHERO_WORKERS" in told["settings"]["found"]
    monkeypatch.delenv("ZHERO_WORKRES")
    (project / "zhero.toml").write_text("workers = \n")
    code, told = doctor(capsys)
    assert code == 1
    assert "zhero.toml" in told["settings"]["found"]


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX")
def test_a_directory_that_is_open_to_others_is_a_problem(own_runtime_dir: Path, capsys: Capture) -> None:
    own_runtime_dir.chmod(0o755)
    code, told = doctor(capsys)
    assert (code, told["runtime directory"]["level"]) == (1, "problem")
    assert "chmod 700" in told["runtime directory"]["found"]
    own_runtime_dir.chmod(0o700)
    runtime_dir(own_runtime_dir)
    (own_runtime_dir / "garden").mkdir(mode=0o750)
    assert doctor(capsys)[0] == 1


def test_a_file_in_the_place_of_the_directory_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZHERO_RUNTIME_DIR", str(tmp_path / "file"))
    code, told = doctor(capsys)
    assert code == 1
    assert "is a file" in told["runtime directory"]["found"]


@pytest.mark.parametrize("above", [0, 1])
def test_a_port_that_is_taken_is_a_problem_also_that_of_beats(
    above: int, port: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("ZHERO_BIND", f"tcp://127.0.0.1:{port - above}")
    code, told = doctor(capsys)
    assert (code, told["bind"]["level"]) == (1, "problem")
    assert "in use" in told["bind"]["found"]


def test_an_address_of_another_host_can_not_be_bound(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("ZHERO_BIND", "tcp://192.0.2.1:7040")
    monkeypatch.setenv("ZHERO_INSECURE", "1")
    code, told = doctor(capsys)
    assert (code, told["bind"]["level"]) == (1, "problem")


def test_an_entry_of_a_process_that_is_gone_is_removed_when_asked_for(own_runtime_dir: Path, capsys: Capture) -> None:
    directory = Directory(runtime_dir(), "garden")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listened at: refuses
        directory.announce(entry("web-9", f"tcp://127.0.0.1:{free.getsockname()[1]}", pid=2**31 - 1))
        code, told = doctor(capsys)
        assert (code, told["entry web-9"]["level"]) == (0, "warning")
        assert len(directory.entries()) == 1
        assert main(["doctor", "--fix"]) == 0
    assert "removed  entry web-9" in capsys.readouterr().out
    assert directory.entries() == []


def test_a_seed_without_a_node_and_a_name_without_an_address_are_problems(capsys: Capture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        seed = f"tcp://localhost:{free.getsockname()[1]}"
        code, told = doctor(capsys, "--join", seed, "--join", "tcp://zhero.invalid:7040")
    assert code == 1
    assert "refuses connections" in told[f"seed {seed}"]["found"]
    assert "not known" in told["seed tcp://zhero.invalid:7040"]["found"]
