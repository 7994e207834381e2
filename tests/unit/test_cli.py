"""The command line without a node: what can be typed, what is printed, what is generated."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from zhero import codec
from zhero.cli import commands, output
from zhero.cli.generate import generate, snake
from zhero.cli.main import main
from zhero.cli.parser import build
from zhero.cli.run import Lines, imported
from zhero.client import Client
from zhero.core.messages import (
    Accepted,
    Answer,
    AskStats,
    AwaitResult,
    Call,
    Cancel,
    ClusterStatus,
    Did,
    Ended,
    Enqueue,
    Listed,
    ListJobs,
    MemberStatus,
    PartEnded,
    PlanInfo,
    Stats,
    StopTask,
)
from zhero.core.values import (
    NO_JOB,
    Failure,
    JobId,
    JobInfo,
    Life,
    Member,
    NodeId,
    Outcome,
    Standing,
    State,
    Status,
    job_text,
)
from zhero.errors import ConfigError, JobFailed, TaskInvalid

LIFE = Life(NodeId(bytes(16)), 1, 0)
MEMBER = Member(LIFE, "web-1", "tcp://127.0.0.1:7040", 42, "0.1.0")
AN_ID = "0123456789abcdef0123456789abcdef"

Capture = pytest.CaptureFixture[str]


class FakeClient(Client):
    """A client whose node is a function: call -> answer."""

    def __init__(self, node: Callable[[Any], Answer]) -> None:
        super().__init__("fake")
        self.asked: list[Call] = []
        self._answer_to = node

    async def ask(self, call: Call) -> Answer:
        self.asked.append(call)
        return self._answer_to(call)

    @property
    def payload_max_bytes(self) -> int:
        return 1024 * 1024


def parse(*argv: str) -> argparse.Namespace:
    return build("0").parse_args(argv)


def do(node: Callable[[Any], Answer], *argv: str) -> tuple[bool, FakeClient]:
    args = parse(*argv)

    async def work() -> tuple[bool, FakeClient]:
        client = FakeClient(node)
        return await commands.COMMANDS[args.command](client, args), client

    return asyncio.run(work())


# --- what can be typed --------------------------------------------------------------------------------------------


def test_a_value_of_a_param_is_json_where_it_is_json_and_else_text() -> None:
    args = parse(
        "enqueue", "t", "-p", "a=1", "-p", "b=x y", "-p", 'c={"d":[1]}', "-p", "e=", "-p", "f=NaN", "-p", "g=a=b"
    )
    assert dict(args.params) == {"a": 1, "b": "x y", "c": {"d": [1]}, "e": "", "f": "NaN", "g": "a=b"}


def test_a_value_nested_too_deeply_for_json_is_text() -> None:
    deep = "[" * 100_000
    assert dict(parse("enqueue", "t", "-p", f"a={deep}").params) == {"a": deep}


def test_a_time_without_an_offset_is_local() -> None:
    at = datetime(2030, 1, 31, 12)
    assert parse("enqueue", "t", "--at", "2030-01-31T12:00:00").run_at == at.astimezone()
    assert parse("enqueue", "t", "--at", "2030-01-31T12:00:00Z").run_at == at.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "COMMAND"),
        (["bogus"], "bogus"),
        (["status", "--bogus"], "--bogus"),
        (["status", "--js"], "--js"),
        (["status", "a\nb"], "unrecognized"),
        (["enqueue"], "NAME"),
        (["enqueue", "t", "-p", "novalue"], "'novalue' is not KEY=VALUE"),
        (["enqueue", "t", "-p", "=1"], "is not KEY=VALUE"),
        (["enqueue", "t", "--json", "{"], "params are no JSON"),
        (["enqueue", "t", "--json", "[1]"], "not a JSON object"),
        (["enqueue", "t", "--json", '{"a": NaN}'], "NaN"),
        (["enqueue", "t", "--json", '{"a":' * 100_000], "params are no JSON"),
        (["enqueue", "t", "--in", "soon"], "soon"),
        (["enqueue", "t", "--at", "tomorrow"], "no ISO time"),
        (["enqueue", "t", "--in", "1", "--at", "2030-01-01"], "not allowed with"),
        (["generate", "sayHi", "--scope", "some"], "some"),
        (["generate", "sayHi", "--frequency", "5"], "milliseconds"),
        (["generate", "sayHi", "--frequency", "-1000"], "milliseconds"),
        (["generate", "sayHi", "--frequency", "often"], "often"),
        (["cancel"], "ID"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(argv: list[str], complaint: str, capsys: Capture) -> None:
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("zhero: ")
    assert told.err.count("\n") == 1
    assert complaint in told.err


@pytest.mark.parametrize(
    "command",
    [
        *("run", "enqueue", "status", "jobs", "failed", "members", "stats", "cancel", "retry", "discard"),
        *("stop-task", "start-task", "generate", "config", "doctor"),
    ],
)
def test_each_command_has_help_with_an_example(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    assert f"example:\n  zhero {command}" in capsys.readouterr().out


def test_the_version_is_told(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("zhero ")


# --- client commands ----------------------------------------------------------------------------------------------


def accept(call: Enqueue) -> Answer:
    return Accepted([job for job, _ in call.jobs])


def test_enqueue_prints_the_id_of_the_job(capsys: Capture) -> None:
    done, client = do(
        accept, "enqueue", "add", "--json", '{"a": 1, "b": 2}', "-p", "b=3", "--in", "2", "--priority", "7"
    )
    (call,) = client.asked
    assert isinstance(call, Enqueue)
    ((job, params),) = call.jobs
    assert done
    assert capsys.readouterr().out == f"{job_text(job)}\n"
    assert codec.decode(params) == {"a": 1, "b": 3}
    assert (call.task, call.delay_ms, call.priority) == ("add", 2000, 7)


def ended(outcome: Outcome, parts: list[PartEnded] | None = None) -> Callable[[Any], Answer]:
    def node(call: Any) -> Answer:
        return Ended(call.job, outcome, parts) if isinstance(call, AwaitResult) else accept(call)

    return node


def test_enqueue_and_wait_prints_the_result_as_json(capsys: Capture) -> None:
    value = {"at": datetime(2030, 1, 1, tzinfo=UTC), "raw": b"x", "n": [1, None]}
    done, _ = do(ended(Outcome(Status.SUCCEEDED, codec.encode(value, "result"))), "enqueue", "add", "--wait")
    assert done
    assert json.loads(capsys.readouterr().out) == {"at": "2030-01-01T00:00:00+00:00", "raw": "b'x'", "n": [1, None]}


def test_enqueue_and_wait_raises_how_the_job_failed() -> None:
    failure = Failure("ValueError", "no", "Traceback")
    with pytest.raises(JobFailed, match="add failed: ValueError: no"):
        do(ended(Outcome(Status.FAILED, b"", failure)), "enqueue", "add", "--wait")


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_enqueue_and_wait_prints_what_became_of_an_all_job_at_each_member(status: Status, capsys: Capture) -> None:
    fine = status is Status.SUCCEEDED
    outcome = Outcome(status, codec.encode(1, "result")) if fine else Outcome(status, b"", Failure("ValueError", "no"))
    done, _ = do(ended(outcome, [PartEnded(MEMBER, outcome)]), "enqueue", "add", "--wait")
    assert done is fine
    assert json.loads(capsys.readouterr().out) == {
        "web-1": {
            "status": status.value,
            "value": 1 if fine else None,
            "error": None if fine else "add failed: ValueError: no",
        }
    }


STATUS = ClusterStatus(
    members=[MemberStatus(MEMBER, True, 8, 2, ["add", "tick"])],
    queues={"global": 3, "local": 0, "delayed": 1, "processing": 2},
    dead=4,
    plans=[
        PlanInfo("tick", 1000, 7, None, False),
        PlanInfo("tock", 90_000, 1, 1500, False),
        PlanInfo("rest", 90_000, 1, None, True),
    ],
    missing=["gone"],
    uptime_ms=65_000,
)


def test_status_shows_members_owner_queues_schedules_and_missing_tasks(capsys: Capture) -> None:
    done, _ = do(lambda call: STATUS, "status")
    told = capsys.readouterr()
    words = told.out.split()
    assert done
    for word in ("fake,", "web-1", "web-1,", "tcp://127.0.0.1:7040", "2/8", "tick", "runs", "1.5s", "stopped", "1.08m"):
        assert word in words
    assert " ".join(words).find("global 3 local 0 delayed 1 processing 2 dead 4") > 0
    assert "gone" in told.err


@pytest.mark.parametrize("jobs", [0, 3])
def test_status_says_how_many_jobs_have_too_few_copies(jobs: int, capsys: Capture) -> None:
    members = [replace(member, degraded=jobs) for member in STATUS.members[:1]]
    do(lambda call: replace(STATUS, members=members), "status")
    told = f"degraded: {jobs} jobs have fewer copies than asked for" in capsys.readouterr().out.splitlines()
    assert told == (jobs > 0)


def test_status_and_members_as_json(capsys: Capture) -> None:
    do(lambda call: STATUS, "status", "--json")
    status = json.loads(capsys.readouterr().out)
    assert (status["cluster"], status["dead"], status["missing"]) == ("fake", 4, ["gone"])
    do(lambda call: STATUS, "members", "--json")
    assert json.loads(capsys.readouterr().out) == status["members"]
    do(lambda call: STATUS, "members")
    header, row = capsys.readouterr().out.splitlines()
    assert (header.split()[0], row.split()[0]) == ("MEMBER", "web-1")


def test_each_member_is_shown_with_its_standing_and_who_did_not_answer(capsys: Capture) -> None:
    late = replace(MEMBER, name="web-2", life=Life(LIFE.node, 2, 0))
    found = replace(
        STATUS,
        members=[
            MemberStatus(MEMBER, True, 8, 2, ["add"], joined=1, mine=True),
            MemberStatus(late, False, 4, 4, [], Standing.SUSPECT, 3, lagging=True, silent_ms=2500, degraded=7),
            MemberStatus(replace(late, name="web-3"), False, 4, 0, [], joined=0),
        ],
        silent=["web-2"],
    )
    do(lambda call: found, "members")
    told = capsys.readouterr()
    assert [line.split()[:9] for line in told.out.splitlines()] == [
        ["MEMBER", "STANDING", "LAGGING", "OWNER", "JOINED", "BUSY", "DEGRADED", "ANSWERED", "HEARD"],
        ["web-1", "alive", "no", "yes", "1", "2/8", "0", "yes", "0ms"],
        ["web-2", "suspect", "yes", "no", "3", "4/4", "7", "no", "2.5s"],
        ["web-3", "alive", "no", "no", "-", "0/4", "0", "yes", "0ms"],
    ]
    assert "no answer from web-2" in told.err
    do(lambda call: found, "status")
    told = capsys.readouterr()
    assert "suspect" in told.out
    assert "no answer from web-2" in told.err

    do(lambda call: found, "status", "--json")
    status = json.loads(capsys.readouterr().out)
    assert status["silent"] == ["web-2"]
    keys = ("standing", "lagging", "owner", "joined", "busy", "slots", "degraded", "answered", "silent_ms")
    assert [status["members"][1][key] for key in keys] == ["suspect", True, False, 3, 4, 4, 7, False, 2500]
    do(lambda call: found, "members", "--json")
    assert json.loads(capsys.readouterr().out) == status["members"]


def info(params: dict[str, Any], state: State = State.READY, outcome: Outcome | None = None) -> JobInfo:
    data = codec.encode(params, "params")
    return JobInfo(JobId(5), "add", "any", state, 0, data, 0, 0, 1, 0, 0, LIFE, None, NO_JOB, 0, outcome)


def test_jobs_of_a_task_are_listed(capsys: Capture) -> None:
    def node(call: Any) -> Answer:
        return Listed([info({"a": 1})], 1)

    done, client = do(node, "jobs", "--name", "add")
    assert done
    assert client.asked == [ListJobs("add")]
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["ID", "TASK", "QUEUE"]
    assert row.split() == [job_text(JobId(5)), "add", "global", "-", "0", "-", "a=1"]
    do(node, "jobs", "--json")
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["params"]) == (job_text(JobId(5)), {"a": 1})


def test_dead_letters_are_listed_with_their_error_on_one_line(capsys: Capture) -> None:
    outcome = Outcome(Status.FAILED, b"", Failure("ValueError", "one\ntwo\x1b[31m"))
    done, client = do(lambda call: Listed([info({}, State.DEAD, outcome)], 1), "failed")
    assert done
    assert client.asked == [ListJobs(None, dead=True)]
    _, row = capsys.readouterr().out.splitlines()
    assert r"ValueError: one\ntwo\x1b[31m" in row


def test_an_empty_list_is_a_table_without_rows_and_an_empty_json_list(capsys: Capture) -> None:
    do(lambda call: Listed([], 0), "jobs")
    assert len(capsys.readouterr().out.splitlines()) == 1
    do(lambda call: Listed([], 0), "jobs", "--json")
    assert json.loads(capsys.readouterr().out) == []


def test_stats_are_shown_by_task_and_in_total(capsys: Capture) -> None:
    stats = Stats({"started": 3, "dead": 1}, {"b": {"started": 2, "dead": 1}, "a": {"started": 1, "dead": 0}})
    done, client = do(lambda call: stats, "stats")
    assert done
    assert client.asked == [AskStats()]
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert rows == [["TASK", "STARTED", "DEAD"], ["a", "1", "0"], ["b", "2", "1"], ["all", "3", "1"]]
    do(lambda call: stats, "stats", "--json")
    assert json.loads(capsys.readouterr().out)["totals"] == {"started": 3, "dead": 1}


@pytest.mark.parametrize(
    ("command", "target", "call"),
    [("cancel", AN_ID, Cancel(JobId(int(AN_ID, 16)))), ("stop-task", "tick", StopTask("tick"))],
)
@pytest.mark.parametrize("did", [True, False])
def test_what_could_not_be_done_is_said(command: str, target: str, call: Call, did: bool, capsys: Capture) -> None:
    done, client = do(lambda call: Did(did), command, target)
    assert done is did
    assert client.asked == [call]
    told = capsys.readouterr()
    assert told.out == ""
    assert (told.err == "") is did


# --- what is printed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "said"),
    [(0, "0ms"), (999, "999ms"), (1500, "1.5s"), (90_000, "1.5m"), (7_200_000, "2h"), (86_400_000, "1d")],
)
def test_spans_are_said_as_people_say_them(ms: int, said: str) -> None:
    assert output.span(ms) == said


def test_long_cells_are_cut(capsys: Capture) -> None:
    output.show_table(("A",), [("x" * 1000,)])
    assert capsys.readouterr().out.splitlines()[1] == "x" * (output.CELL_MAX_LENGTH - 3) + "..."


def test_text_that_is_no_valid_unicode_can_be_printed() -> None:
    assert output.printable("a\ud800\n") == r"a\ud800\n"


def test_a_reader_that_closes_the_pipe_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from zhero.cli.main import main; sys.exit(main(['config']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(30) == 0
    assert told == b""


def test_a_line_of_the_log_has_its_time_and_a_colour_only_on_a_terminal() -> None:
    record = logging.LogRecord("zhero", logging.ERROR, "", 0, "! failed", None, None)
    record.created, record.msecs = 0.0, 7.0
    plain = Lines(colours=False).format(record)
    assert plain.endswith(":00.007 ! failed")
    assert Lines(colours=True).format(record) == f"\x1b[31m{plain}\x1b[0m"


@pytest.mark.parametrize(
    ("asked", "code"),
    [("black", "30"), ("green", "32"), ("white", "37"), ("grey", "90"), ("gray", "90"), ("bold", "1"), ("info", None)],
)
def test_a_line_has_the_colour_that_its_task_asked_for(asked: str, code: str | None) -> None:
    record = logging.LogRecord("zhero", logging.INFO, "", 0, "hi", None, None)
    record.colour = asked
    plain = Lines(colours=False).format(record)
    assert Lines(colours=True).format(record) == (plain if code is None else f"\x1b[{code}m{plain}\x1b[0m")


# --- config -------------------------------------------------------------------------------------------------------


def test_config_shows_each_setting_with_its_origin(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("ZHERO_WORKERS", "3")
    assert main(["config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["workers"] == {"value": 3, "origin": "ZHERO_WORKERS"}
    assert shown["bind"]["origin"] == "default"
    assert main(["config"]) == 0
    assert ["workers", "3", "ZHERO_WORKERS"] in [row.split() for row in capsys.readouterr().out.splitlines()]


def test_a_wrong_setting_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("ZHERO_WORKERS", "many")
    assert main(["status"]) == 2
    assert "ZHERO_WORKERS" in capsys.readouterr().err


# --- run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("app", "MODULE:NODE"),
        ("no_such_module:node", "no_such_module"),
        ("json:no_such_name", "no_such_name"),
        ("json:JSONDecoder", "no zhero.Node"),
        ("json:loads", "TypeError"),
    ],
)
def test_what_is_no_node_is_refused(place: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        imported(place)


# --- generate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sayHello", "say_hello"),
        ("SayHello", "say_hello"),
        ("say-hello", "say_hello"),
        ("say hello.now", "say_hello_now"),
        ("HTTPServer2Go", "http_server2_go"),
        ("say_hello", "say_hello"),
    ],
)
def test_names_become_snake_case(name: str, expected: str) -> None:
    assert snake(name) == expected


def test_what_is_generated_passes_its_own_test(tmp_path: Path, capsys: Capture) -> None:
    assert (
        main(["generate", "sayHello", "--scope", "all", "--frequency", "1000", "--dir", str(tmp_path / "tasks")]) == 0
    )
    task, test = tmp_path / "tasks" / "say_hello.py", tmp_path / "tests" / "test_say_hello.py"
    assert capsys.readouterr().out.split() == [str(task), str(test)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_what_is_generated_is_as_formatters_and_linters_want_it(tmp_path: Path) -> None:
    files = [str(file) for file in generate("sayHello", "any", 0, tmp_path / "tasks")]
    for check in (["format", "--check"], ["check", "--select", "E,F,W,I,B,UP"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--isolated", "--no-cache", *files],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout


def test_nothing_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    test = tmp_path / "tests" / "test_say_hello.py"
    test.parent.mkdir()
    test.write_text("mine")
    assert main(["generate", "sayHello", "--dir", str(tmp_path / "tasks")]) == 1
    assert "exists" in capsys.readouterr().err
    assert test.read_text() == "mine"
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize("name", ["", "1st", "class", "asyncio", 'say"""', "say\\hello", "größe", "..", "../evil"])
def test_a_name_that_makes_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(TaskInvalid, match="name"):
        generate(name, "any", 0, tmp_path / "tasks")


def test_a_folder_that_can_not_be_imported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskInvalid, match="my-tasks"):
        generate("sayHello", "any", 0, tmp_path / "my-tasks")
