"""Settings: which place wins, what is right, and how people are told that something is not."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from zhero.config import BOUNDS, Limits
from zhero.errors import ConfigError
from zhero.runtime.auth import Secret, generate
from zhero.settings import Settings, resolve


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project as the working directory, and no settings in the environment."""
    for name in [it for it in os.environ if it.startswith("ZHERO_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def origin_of(settings: Settings, setting: str) -> str:
    return next(origin for name, _, origin in settings.explain() if name == setting)


def problem(**given: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(**given)
    return str(caught.value)


# --- defaults -----------------------------------------------------------------------------------------------------


def test_the_defaults_need_no_setting() -> None:
    settings = resolve()
    assert settings.name.endswith(f"-{os.getpid()}")
    assert settings.bind == "tcp://127.0.0.1:0"
    assert settings.tasks is None
    assert settings.join == ()
    assert settings.workers == 8
    assert settings.backups == 1
    assert settings.accept_timeout == 10.0
    assert settings.advertise is None
    assert settings.profile == "lan"
    assert settings.solo_after == 5.0
    assert settings.stuck_after == 60.0
    assert settings.drain_timeout == 30.0
    assert settings.runtime_dir is None
    assert settings.insecure is False
    limits = Limits()
    assert settings.max_jobs == limits.jobs_max
    assert settings.max_bytes == limits.jobs_max_bytes
    assert settings.max_payload == limits.payload_max_bytes
    assert settings.limits == limits
    assert {origin for _, _, origin in settings.explain()} == {"default"}


def test_every_setting_is_explained() -> None:
    settings = resolve()
    assert {name for name, _, _ in settings.explain()} == {*Settings.__dataclass_fields__} - {"origins"}
    assert all(getattr(settings, name) == value for name, value, _ in settings.explain())


def test_every_default_number_is_within_its_bounds() -> None:
    settings = resolve()
    assert all(least <= getattr(settings, name) <= most for name, (least, most) in BOUNDS.items())


# --- the cluster of a project -------------------------------------------------------------------------------------


def test_the_cluster_is_named_after_the_project_and_its_place(project: Path) -> None:
    assert re.fullmatch("shop-[0-9a-f]{8}", resolve().cluster)
    (project / "pyproject.toml").write_text('[project]\nname = "web shop"\n')
    assert re.fullmatch("web-shop-[0-9a-f]{8}", resolve().cluster)


def test_every_folder_of_a_project_is_of_its_cluster(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "pyproject.toml").touch()
    above = resolve().cluster
    (project / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(project / "a" / "b")
    assert resolve().cluster == above


def test_projects_of_one_name_in_two_places_are_two_clusters(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()
    for place in ("a", "b"):
        folder = project / place / "same"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        names.add(resolve().cluster)
    assert len(names) == 2


@pytest.mark.parametrize("title", ["x" * 500, "Ünï çödé", "...", "", "a/../b", "日本"])
def test_any_title_of_a_project_makes_a_cluster_that_can_be_asked_for(title: str, project: Path) -> None:
    (project / "pyproject.toml").write_text(f'[project]\nname = "{title}"\n', encoding="utf-8")
    cluster = resolve().cluster
    assert resolve(cluster=cluster).cluster == cluster


# --- which place wins ---------------------------------------------------------------------------------------------


def test_arguments_win_over_the_environment_over_the_file_over_defaults(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (resolve().workers, origin_of(resolve(), "workers")) == (8, "default")
    (project / "pyproject.toml").write_text("[tool.zhero]\nworkers = 2\n")
    assert resolve().workers == 2
    assert origin_of(resolve(), "workers") == f"[tool.zhero] in {project / 'pyproject.toml'}"
    monkeypatch.setenv("ZHERO_WORKERS", "3")
    assert (resolve().workers, origin_of(resolve(), "workers")) == (3, "ZHERO_WORKERS")
    settings = resolve(workers=4)
    assert (settings.workers, origin_of(settings, "workers")) == (4, "argument")


def test_an_argument_equal_to_the_default_is_still_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHERO_WORKERS", "3")
    settings = resolve(workers=8)
    assert (settings.workers, origin_of(settings, "workers")) == (8, "argument")


@pytest.mark.parametrize(("setting", "value"), [("workers", 0), ("insecure", False), ("join", ()), ("tasks", [])])
def test_an_argument_that_is_empty_is_still_given(setting: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, text in {"WORKERS": "3", "INSECURE": "1", "JOIN": "tcp://a:1", "TASKS": "jobs"}.items():
        monkeypatch.setenv(f"ZHERO_{variable}", text)
    assert origin_of(resolve(**{setting: value}), setting) == "argument"
    assert not getattr(resolve(**{setting: value}), setting)


def test_none_and_an_empty_variable_are_as_good_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHERO_WORKERS", "")
    assert origin_of(resolve(workers=None), "workers") == "default"


def test_a_zhero_toml_has_the_settings_at_its_top(project: Path) -> None:
    (project / "zhero.toml").write_text('workers = 5\nname = "a"\n')
    assert resolve().workers == 5
    assert origin_of(resolve(), "name") == str(project / "zhero.toml")


def test_settings_are_found_from_below_and_the_nearest_project_counts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "zhero.toml").write_text("workers = 5\n")
    inner = project / "packages" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert resolve().workers == 5
    (inner / "pyproject.toml").write_text('[project]\nname = "inner"\n')
    assert resolve().workers == 8


def test_two_files_with_settings_are_refused(project: Path) -> None:
    (project / "zhero.toml").write_text("workers = 5\n")
    (project / "pyproject.toml").write_text("[tool.zhero]\nworkers = 5\n")
    assert "keep one of the two" in problem()


# --- values -------------------------------------------------------------------------------------------------------


def test_the_environment_can_say_everything(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "NAME": "web 1",
        "TASKS": f"jobs{os.pathsep}/srv/more",
        "BIND": "tcp://0.0.0.0:7040",
        "CLUSTER": "shop",
        "WORKERS": "0",
        "BACKUPS": "2",
        "ACCEPT_TIMEOUT": "1.5",
        "JOIN": "tcp://10.0.0.7:7040, tcp://web-2:7040",
        "ADVERTISE": "tcp://web-1:9000",
        "PROFILE": "wan",
        "SOLO_AFTER": "0",
        "STUCK_AFTER": "90",
        "DRAIN_TIMEOUT": "2.5",
        "MAX_JOBS": "10",
        "MAX_BYTES": "1000",
        "MAX_PAYLOAD": "100",
        "DATA_DIR": "data",
        "DURABILITY": "power",
        "RUNTIME_DIR": "run",
        "SECRET": "the first passphrase, the second passphrase",
        "SECRET_FILE": "",
        "INSECURE": "no",
    }
    for variable, text in told.items():
        monkeypatch.setenv(f"ZHERO_{variable}", text)
    settings = resolve()
    assert [(name, value) for name, value, _ in settings.explain()] == [
        ("name", "web 1"),
        ("tasks", (project / "jobs", Path("/srv/more"))),
        ("bind", "tcp://0.0.0.0:7040"),
        ("cluster", "shop"),
        ("workers", 0),
        ("backups", 2),
        ("accept_timeout", 1.5),
        ("join", ("tcp://10.0.0.7:7040", "tcp://web-2:7040")),
        ("advertise", "tcp://web-1:9000"),
        ("profile", "wan"),
        ("solo_after", 0.0),
        ("stuck_after", 90.0),
        ("drain_timeout", 2.5),
        ("max_jobs", 10),
        ("max_bytes", 1000),
        ("max_payload", 100),
        ("data_dir", project / "data"),
        ("durability", "power"),
        ("runtime_dir", project / "run"),
        ("secret", Secret(("the first passphrase", "the second passphrase"))),
        ("secret_file", None),
        ("insecure", False),
    ]
    origins = [origin for name, _, origin in settings.explain() if name not in ("secret_file", "insecure")]
    assert origins == [f"ZHERO_{variable}" for variable in told if variable not in ("SECRET_FILE", "INSECURE")]


def test_a_file_can_say_everything_and_its_paths_are_relative_to_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "zhero.toml").write_text(
        """
        name = "web 1"
        tasks = ["jobs", "/srv/more"]
        bind = "tcp://127.0.0.1:7040"
        cluster = "shop"
        workers = 0
        backups = 0
        accept_timeout = 3
        join = ["tcp://10.0.0.7:7040"]
        advertise = "tcp://203.0.113.5:9000"
        profile = "fast"
        solo_after = 12.5
        stuck_after = 30
        drain_timeout = 2
        max_jobs = 10
        max_bytes = 1000
        max_payload = 100
        data_dir = "data"
        durability = "power"
        runtime_dir = "run"
        secret_file = "secret.txt"
        """
    )
    (project / "secret.txt").write_text(f"# of the shop\n{generate()}\n")
    (project / "secret.txt").chmod(0o600)
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    settings = resolve()
    assert settings.tasks == (project / "jobs", Path("/srv/more"))
    assert settings.runtime_dir == project / "run"
    assert settings.data_dir == project / "data"
    assert settings.join == ("tcp://10.0.0.7:7040",)
    assert settings.drain_timeout == 2.0
    assert (settings.backups, settings.accept_timeout, settings.solo_after) == (0, 3.0, 12.5)
    assert settings.secret_file == project / "secret.txt"
    assert settings.secret is not None
    origins = {origin for name, _, origin in settings.explain() if name not in ("secret", "insecure")}
    assert origins == {str(project / "zhero.toml")}


def test_one_value_is_as_good_as_a_list_of_it(project: Path) -> None:
    settings = resolve(tasks="jobs", join="tcp://127.0.0.1:7040")
    assert settings.tasks == (project / "jobs",)
    assert settings.join == ("tcp://127.0.0.1:7040",)


def test_spans_may_be_timedeltas_and_paths_may_be_paths(project: Path) -> None:
    settings = resolve(drain_timeout=timedelta(minutes=1), tasks=[Path("jobs")], runtime_dir=Path("/run/x"))
    assert settings.drain_timeout == 60.0
    assert settings.tasks == (project / "jobs",)
    assert settings.runtime_dir == Path("/run/x")


def test_what_an_engine_has_to_keep_to_is_as_it_was_set() -> None:
    spans = {"accept_timeout": 0.2501, "solo_after": timedelta(seconds=7)}
    limits = resolve(max_jobs=10, max_bytes=1000, max_payload=100, backups=2, **spans).limits
    assert (limits.jobs_max, limits.jobs_max_bytes, limits.payload_max_bytes) == (10, 1000, 100)
    assert (limits.backups, limits.accept_timeout_ms, limits.solo_after_ms) == (2, 251, 7000)


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:0", "tcp://127.8.9.1:7040", "tcp://localhost:0", "tcp://[::1]:7040"])
def test_any_loopback_address_can_be_bound(bind: str) -> None:
    assert resolve(bind=bind).bind == bind


@pytest.mark.parametrize("bind", ["tcp://0.0.0.0:7040", "tcp://*:0", "tcp://10.0.0.7:7040", "tcp://[::]:7040"])
def test_an_address_that_others_reach_needs_a_secret_or_insecure_and_says_so(bind: str) -> None:
    told = problem(bind=bind)
    assert bind in told
    assert "(argument)" in told
    assert "zhero keygen" in told
    assert "insecure = true" in told
    assert resolve(bind=bind, insecure=True).bind == bind
    assert resolve(bind=bind, secret=generate()).bind == bind
    assert "advertise" in problem(advertise="tcp://203.0.113.5:0")


def test_of_a_secret_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = generate()
    monkeypatch.setenv("ZHERO_SECRET", key)
    settings = resolve()
    assert key not in f"{settings!r} {settings.secret} {settings.explain()}"
    for bad in ("hunter2 hunter", key[:-1]):
        assert bad[:7] not in problem(secret=[key, bad + "\n"])


def test_the_first_place_that_says_how_strangers_are_kept_out_decides(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHERO_SECRET", generate())
    (project / "zhero.toml").write_text("insecure = true\n")
    assert (resolve().insecure, resolve().secret is not None) == (False, True)
    assert (resolve(insecure=True).insecure, resolve(insecure=True).secret) == (True, None)
    assert "keep one" in problem(insecure=True, secret=generate())
    (project / "zhero.toml").write_text(f'secret = "{generate()}"\n')
    assert "secret_file" in problem()


def test_a_secret_file_is_read_whole_or_refused(project: Path) -> None:
    file = project / "keys"
    first, second = generate(), generate()
    file.write_text(f"# two\n{first}\n\n{second}\n")
    file.chmod(0o600)
    assert resolve(secret_file=file).secret == Secret((first, second))
    for text in ("", "short\n", f"{first[:-2]}\n", "\n".join([first] * 9), "\udcff" * 3):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert str(file) in problem(secret_file=file)
        assert first[:-2] not in problem(secret_file=file)
    file.write_text(first)
    file.chmod(0o622)
    assert "chmod 600" in problem(secret_file=file)
    assert "can't be read" in problem(secret_file=project / "none")


def test_a_port_can_be_advertised_only_where_one_is_bound() -> None:
    key = generate()
    told = problem(advertise="tcp://203.0.113.5:9000", secret=key)
    assert "advertise = 'tcp://203.0.113.5:9000' (argument)" in told
    assert "port 0" in told
    bound = resolve(advertise="tcp://203.0.113.5:9000", bind="tcp://127.0.0.1:7040", secret=key)
    assert bound.advertise == "tcp://203.0.113.5:9000"
    assert resolve(advertise="tcp://web-1:0", secret=key).advertise == "tcp://web-1:0"


# --- what is wrong ------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, object, str]] = [
    ("name", "", "1 to 200 printable characters"),
    ("name", "a\nb", "printable"),
    ("name", " a", "no space at its ends"),
    ("name", "x" * 201, "1 to 200"),
    ("name", 7, "a text"),
    ("cluster", "a/b", "the first a letter or digit"),
    ("cluster", "..", "the first a letter or digit"),
    ("cluster", "x" * 201, "1 to 200"),
    ("tasks", 7, "a path, or a list of paths"),
    ("tasks", ["a", 7], "a path, or a list of paths"),
    ("tasks", [""], "a path"),
    ("bind", "127.0.0.1:7040", "tcp://127.0.0.1:7040"),
    ("bind", "tcp://web-1:7040", "an address of this host"),
    ("bind", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:7040"),
    ("bind", 7040, "tcp://127.0.0.1:7040"),
    ("join", "tcp://10.0.0.7", "endpoints such as"),
    ("join", ["tcp://10.0.0.7:0"], "endpoints such as"),
    ("join", ["tcp://*:7040"], "endpoints such as"),
    ("join", [7040], "endpoints such as"),
    ("join", ["tcp://a:1"] * 101, "100 at most"),
    ("advertise", "web-1:7040", "tcp://203.0.113.5:7040"),
    ("advertise", "tcp://0.0.0.0:7040", "where others reach this node"),
    ("advertise", "tcp://*:7040", "where others reach this node"),
    ("advertise", "tcp://10.0.0.7:65535", "where others reach this node"),  # its beats would have no port
    ("advertise", ["tcp://10.0.0.7:7040"], "where others reach this node"),
    ("profile", "slow", "one of lan, fast, wan"),
    ("profile", 1, "one of lan, fast, wan"),
    ("solo_after", -0.5, "a number of seconds from 0 to 3600"),
    ("solo_after", "5", "a number of seconds"),
    ("stuck_after", 1, "a number of seconds from 2"),
    ("stuck_after", "60", "a number of seconds"),
    ("workers", -1, "a whole number from 0 to 10000"),
    ("workers", 10_001, "a whole number from 0 to 10000"),
    ("workers", 1.5, "a whole number"),
    ("workers", True, "a whole number"),
    ("workers", "4", "a whole number"),
    ("backups", -1, "a whole number from 0 to 2"),
    ("backups", 3, "a whole number from 0 to 2"),
    ("backups", 1.0, "a whole number"),
    ("backups", True, "a whole number"),
    ("accept_timeout", 0, "a number of seconds from 0.1 to 3600"),
    ("accept_timeout", timedelta(hours=2), "a number of seconds from 0.1 to 3600"),
    ("accept_timeout", "10", "a number of seconds"),
    ("drain_timeout", -1, "a number of seconds from 0"),
    ("drain_timeout", float("nan"), "a number of seconds"),
    ("drain_timeout", timedelta(days=2), "a number of seconds"),
    ("drain_timeout", True, "a number of seconds"),
    ("max_jobs", 0, "a whole number from 1"),
    ("max_bytes", 0, "a whole number from 1"),
    ("max_payload", 2**21, "a whole number from 1"),
    ("runtime_dir", 7, "a path"),
    ("runtime_dir", "~no-such-user/x", "a path"),
    ("insecure", "yes", "true or false"),
    ("insecure", 1, "true or false"),
]


@pytest.mark.parametrize(("setting", "value", "right"), WRONG)
def test_a_value_that_cannot_be_is_refused_with_what_would_be_right(setting: str, value: object, right: str) -> None:
    told = problem(**{setting: value})
    assert told.startswith(f"{setting} = {value!r} (argument): must be ")
    assert right in told


@pytest.mark.parametrize(
    ("variable", "text"),
    [("WORKERS", "many"), ("WORKERS", "1.5"), ("INSECURE", "maybe"), ("DRAIN_TIMEOUT", "1m"), ("JOIN", "a,b")],
)
def test_a_text_that_makes_no_value_is_refused_by_the_name_of_its_variable(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ZHERO_{variable}", text)
    assert f"(ZHERO_{variable}): must be " in problem()


def test_a_value_of_the_wrong_type_in_a_file_is_refused_by_the_name_of_the_file(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.zhero]\nworkers = "8"\n')
    told = problem()
    assert told.startswith(f"workers = '8' ([tool.zhero] in {project / 'pyproject.toml'}): must be a whole number")


def test_an_unknown_argument_is_refused_with_the_nearest() -> None:
    assert problem(worker=3) == "unknown argument worker: did you mean workers?"


def test_an_unknown_variable_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHERO_WORKRES", "3")
    assert problem() == "unknown environment variable ZHERO_WORKRES: did you mean ZHERO_WORKERS?"


def test_an_unknown_setting_in_a_file_is_refused_with_the_nearest(project: Path) -> None:
    (project / "zhero.toml").write_text("max_job = 3\n")
    assert problem() == f"unknown setting max_job ({project / 'zhero.toml'}): did you mean max_jobs?"


def test_an_unknown_setting_like_no_other_is_refused_with_all_that_exist(project: Path) -> None:
    (project / "zhero.toml").write_text("qqq = 3\n")
    assert "there are name, tasks, bind" in problem()


@pytest.mark.parametrize("text", ["workers = ", "\udcff"])
def test_a_file_that_is_no_toml_is_refused_by_its_name(text: str, project: Path) -> None:
    (project / "pyproject.toml").write_bytes(text.encode(errors="surrogateescape"))
    assert f"can't read settings from {project / 'pyproject.toml'}: " in problem()


@pytest.mark.parametrize("text", ["tool = 1", "[tool]\nzhero = 1"])
def test_a_table_that_is_none_is_refused(text: str, project: Path) -> None:
    (project / "pyproject.toml").write_text(text)
    assert "must be a table" in problem()
