"""What a user sets, where it was set, and whether it is right.

A setting is looked for in this order; the first place that has it wins, and is remembered as its *origin*:

    1. an argument (of `Node`, `Client` or the command line); None is as good as not given
    2. the environment: `ZHERO_WORKERS=4`; an empty text is as good as not set
    3. the project: `[tool.zhero]` in `pyproject.toml`, or `zhero.toml`
    4. the default

The *project* is the first folder, from the working directory upward, that has one of these two files; without one, the
working directory. Paths in a file are relative to it. The cluster's name is made from the project's name and path, so
two applications of one user never merge, and every process of one project agrees.

All that is wrong is a `ConfigError` that names setting, origin and what would be right. An unknown name is an error
too, with the nearest known one: a misspelt setting must not be silently the default.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from types import UnionType
from typing import Any, cast

from .config import BOUNDS, CLUSTER_PATTERN, NAME_MAX_LENGTH, PROFILES, STUCK_AFTER_MS, Limits
from .errors import ConfigError
from .runtime.auth import SECRETS_MAX_COUNT, Secret, read_secret_file, wrong_with
from .runtime.discovery import ANY_HOST, PORT_MAX, address_of
from .runtime.reach import is_ip, is_loopback

PREFIX = "ZHERO_"
AUTO, NO_DATA = "auto", "none"
"""Values of `data_dir`: a slot of the project's, and no journal at all."""
SLOTS = ".zhero"
"""The folder of a project in which its nodes keep their journals, by cluster."""
DURABILITIES = ("memory", "process", "power")
JOIN_MAX_COUNT = 100
STUCK_AFTER_S = (2, 24 * 3600)
"""Least and most of `stuck_after`; below it a loop is merely lagging."""
PROTECTION = ("secret", "secret_file", "insecure")
TITLE_MAX_LENGTH = 60
"""Characters of a project's name that its cluster's name keeps."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process, checked. `resolve` makes them.

    Attributes:
        name: of the node, for people.
        tasks: folders or files to load tasks from; None: not said.
        bind: where the node listens; port 0: a free one.
        cluster: nodes with the same one work together.
        workers: jobs run at once here; 0: none, others run them.
        backups: copies of each job at other members before it is accepted, as far as there are others.
        accept_timeout: seconds that an enqueue waits for these copies.
        join: endpoints of nodes to reach, also with names (each address of one is tried); empty: those of this user on
            this host.
        advertise: where others reach this node, if that is not where it is bound (a proxy, a container's host); its
            beats one port above. Port 0: the ports that are bound.
        profile: how fast members notice things: "fast", "lan" or "wan". All members need the same.
        solo_after: seconds after which a node whose neighbours do not answer works alone; till then enqueues wait.
        stuck_after: seconds without a turn of the event loop after which others give this node up.
        drain_timeout: seconds that running jobs get to finish when the node stops.
        max_jobs: live jobs that are held; beyond it `QueueFull`.
        max_bytes: bytes of their params; the same.
        max_payload: bytes of one job's params, and of its result.
        data_dir: where the journal is kept; None: there is none. `takes_a_slot`: below it, in the first free one.
        durability: with a data directory, what an accepted job survives: "memory", "process" or "power".
        runtime_dir: where nodes find one another; None: the user's own place.
        secret: keeps out whoever does not hold it; several: the first is listened with, all are let in. None: that of
            the user on this host, and only this host reaches the node.
        secret_file: it stands there, one a line.
        insecure: no secret and no encryption: whoever reaches the node can read and enqueue.
        origins: setting -> where it was set.
    """

    name: str
    tasks: tuple[Path, ...] | None
    bind: str
    cluster: str
    workers: int
    backups: int
    accept_timeout: float
    join: tuple[str, ...]
    advertise: str | None
    profile: str
    solo_after: float
    stuck_after: float
    drain_timeout: float
    max_jobs: int
    max_bytes: int
    max_payload: int
    data_dir: Path | None
    durability: str
    runtime_dir: Path | None
    secret: Secret | None
    secret_file: Path | None
    insecure: bool
    origins: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def takes_a_slot(self) -> bool:
        """Whether `data_dir` is "auto": the directory of all nodes of this project and cluster."""
        return self.data_dir is not None and self.data_dir.name == self.cluster and self.data_dir.parent.name == SLOTS

    @property
    def limits(self) -> Limits:
        """What an engine has to keep to."""
        return Limits(
            jobs_max=self.max_jobs,
            jobs_max_bytes=self.max_bytes,
            payload_max_bytes=self.max_payload,
            backups=self.backups,
            accept_timeout_ms=math.ceil(self.accept_timeout * 1000),
            solo_after_ms=math.ceil(self.solo_after * 1000),
        )

    def explain(self) -> list[tuple[str, object, str]]:
        """Each setting with its value and its origin, in a fixed order."""
        return [(name, getattr(self, name), self.origins[name]) for name in READERS]


def resolve(**given: object) -> Settings:
    """The settings of this process.

    Args:
        given: arguments by the names of `Settings`; None: not given.

    Raises:
        ConfigError: an unknown setting, a value that can't be, or a file that makes no sense.
    """
    project = _find_project()
    sources = [_arguments(given), _environment(), project.source]
    values: dict[str, Any] = _defaults(project)
    origins = dict.fromkeys(values, "default")
    for name, read in READERS.items():
        found = next((source for source in sources if name in source.values), None)
        if found is None:
            continue
        origins[name] = found.origin(name)
        raw = found.values[name]
        try:
            values[name] = read(name, raw, found.base)
        except _Wrong as wrong:
            shown = "" if name == "secret" else f" = {raw!r}"
            raise ConfigError(f"{name}{shown} ({origins[name]}): must be {wrong}") from None
    _choose_protection(values, origins, sources)
    if values["data_dir"] == Path(SLOTS):
        values["data_dir"] = project.folder / SLOTS / values["cluster"]
    if values["data_dir"] is None and origins["durability"] != "default" and values["durability"] != "memory":
        raise ConfigError(
            f"durability = {values['durability']!r} ({origins['durability']}): needs a place for the journal, such as "
            'data_dir = "auto"'
        )
    settings = Settings(**values, origins=origins)
    _refuse_open_door(settings)
    _refuse_unknown_port(settings)
    return settings


def _defaults(project: _Project) -> dict[str, Any]:
    limits = Limits()
    place = blake2b(os.fsencode(project.folder), digest_size=4).hexdigest()
    title = re.sub(r"[^A-Za-z0-9]+", "-", project.name).strip("-")[:TITLE_MAX_LENGTH] or "project"
    return {
        "name": f"{socket.gethostname()}-{os.getpid()}"[-NAME_MAX_LENGTH:],
        "tasks": None,
        "bind": "tcp://127.0.0.1:0",
        "cluster": f"{title}-{place}",
        "workers": 8,
        "backups": limits.backups,
        "accept_timeout": limits.accept_timeout_ms / 1000,
        "join": (),
        "advertise": None,
        "profile": "lan",
        "solo_after": limits.solo_after_ms / 1000,
        "stuck_after": STUCK_AFTER_MS / 1000,
        "drain_timeout": 30.0,
        "max_jobs": limits.jobs_max,
        "max_bytes": limits.jobs_max_bytes,
        "max_payload": limits.payload_max_bytes,
        "data_dir": None,
        "durability": "process",
        "runtime_dir": None,
        "secret": None,
        "secret_file": None,
        "insecure": False,
    }


def _choose_protection(values: dict[str, Any], origins: dict[str, str], sources: list[_Source]) -> None:
    """A secret, a file with it, or none: the first place that says one of them decides, and may say one only.

    Raises:
        ConfigError: it says two, or the file can't be.
    """
    for source in sources:
        said = [name for name in PROTECTION if values[name] and origins[name] == source.origin(name)]
        if len(said) > 1:
            told = " and ".join(f"{name} ({source.origin(name)})" for name in said)
            raise ConfigError(f"{told} are both set: keep one of them")
        if said:
            for name in PROTECTION:
                if name != said[0]:
                    values[name] = False if name == "insecure" else None
                    origins[name] = f"not used: {said[0]} is set"
            break
    if values["secret_file"] is not None:
        values["secret"] = read_secret_file(values["secret_file"])
        origins["secret"] = f"secret_file ({origins['secret_file']})"


def _refuse_open_door(settings: Settings) -> None:
    if settings.insecure or settings.secret is not None:
        return
    for name in ("bind", "advertise"):
        host, _ = address_of(getattr(settings, name) or "") or ("localhost", 0)
        if not is_loopback(host):
            raise ConfigError(
                f"{name} = {getattr(settings, name)!r} ({settings.origins[name]}): other hosts reach this address, and "
                "without a secret only nodes of this host can be told from strangers. Give all nodes one secret "
                "(`zhero keygen` makes it; ZHERO_SECRET or secret_file), or, in a network that you trust wholly, set "
                "insecure = true"
            )


def _refuse_unknown_port(settings: Settings) -> None:
    """Nobody can lead a port to one that is chosen only at the start."""
    _, port = address_of(settings.bind) or ("", 0)
    _, advertised = address_of(settings.advertise or "") or ("", 0)
    if advertised and not port:
        raise ConfigError(
            f"advertise = {settings.advertise!r} ({settings.origins['advertise']}): names a port, and bind = "
            f"{settings.bind!r} takes any free one. Bind to a port too, or advertise port 0: the one that is bound"
        )


# --- where settings come from -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """Settings from one place. `origin`: what people call it, by setting; `base`: what its paths are relative to."""

    values: Mapping[str, object]
    origin: Callable[[str], str]
    base: Path


@dataclass(frozen=True, slots=True)
class _Project:
    folder: Path
    name: str
    source: _Source


def _arguments(given: Mapping[str, object]) -> _Source:
    _refuse_unknown(given, READERS, "argument")
    return _Source(
        {name: value for name, value in given.items() if value is not None}, lambda _: "argument", Path.cwd()
    )


def _environment() -> _Source:
    found = {name: text for name, text in os.environ.items() if name.startswith(PREFIX)}
    _refuse_unknown(found, [PREFIX + name.upper() for name in READERS], "environment variable")
    values: dict[str, object] = {}
    for variable, text in found.items():
        name = variable.removeprefix(PREFIX).lower()
        if text:
            values[name] = FROM_TEXT.get(READERS[name], str)(text)
    return _Source(values, lambda name: PREFIX + name.upper(), Path.cwd())


def _find_project() -> _Project:
    """The nearest folder upward that has a file which may hold settings, with what it holds."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        pyproject, own = folder / "pyproject.toml", folder / "zhero.toml"
        if os.path.isfile(pyproject) or os.path.isfile(own):
            break
    else:
        return _Project(here, here.name, _Source({}, str, here))
    told = _read_toml(pyproject)
    name = _table(told, "project", pyproject).get("name")
    table = _table(_table(told, "tool", pyproject), "zhero", pyproject)
    origin = f"[tool.zhero] in {pyproject}"
    if os.path.isfile(own):
        if table:
            raise ConfigError(f"settings stand both in {origin} and in {own}: keep one of the two")
        table, origin = _read_toml(own), str(own)
    _refuse_unknown(table, READERS, "setting", f" ({origin})")
    if "secret" in table:
        raise ConfigError(f"secret stands in {origin}, which others read: set ZHERO_SECRET, or name a secret_file")
    return _Project(folder, name if isinstance(name, str) else folder.name, _Source(table, lambda _: origin, folder))


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        raise ConfigError(f"can't read settings from {file}: {error}") from error


def _table(of: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    found = of.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{key} in {file} must be a table")
    return cast("dict[str, Any]", found)


def _refuse_unknown(found: Iterable[str], known: Iterable[str], what: str, where: str = "") -> None:
    known = list(known)
    for name in found:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
            raise ConfigError(f"unknown {what} {name}{where}: {hint}")


# --- what is right ------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    """A value that can't be; the text completes "must be ..."."""


def _label(name: str, raw: object, base: Path) -> str:
    if isinstance(raw, str) and raw.isprintable() and raw == raw.strip() and 0 < len(raw) <= NAME_MAX_LENGTH:
        return raw
    raise _Wrong(f"a text of 1 to {NAME_MAX_LENGTH} printable characters, with no space at its ends")


def _cluster(name: str, raw: object, base: Path) -> str:
    if isinstance(raw, str) and re.fullmatch(CLUSTER_PATTERN, raw):
        return raw
    raise _Wrong(f"1 to {NAME_MAX_LENGTH} of A-Z a-z 0-9 . _ -, the first a letter or digit")


def _integer(name: str, raw: object, base: Path) -> int:
    least, most = BOUNDS[name]
    if isinstance(raw, int) and not isinstance(raw, bool) and least <= raw <= most:
        return raw
    raise _Wrong(f"a whole number from {least} to {most}")


def _seconds(name: str, raw: object, base: Path) -> float:
    least, most = BOUNDS.get(name, STUCK_AFTER_S)
    span = raw.total_seconds() if isinstance(raw, timedelta) else raw
    if isinstance(span, int | float) and not isinstance(span, bool) and least <= span <= most:
        return float(span)
    raise _Wrong(f"a number of seconds from {least} to {most}")


def _flag(name: str, raw: object, base: Path) -> bool:
    if isinstance(raw, bool):
        return raw
    raise _Wrong("true or false")


def _bind(name: str, raw: object, base: Path) -> str:
    host, _ = (isinstance(raw, str) and address_of(raw)) or ("", 0)
    if isinstance(raw, str) and (host in ("*", "localhost") or is_ip(host)):
        return raw
    raise _Wrong("an address of this host, as tcp://127.0.0.1:7040 (port 0: a free one)")


def _advertise(name: str, raw: object, base: Path) -> str:
    host, port = (isinstance(raw, str) and address_of(raw)) or ("", 0)
    if isinstance(raw, str) and host and host not in ANY_HOST and port < PORT_MAX:
        return raw
    raise _Wrong("where others reach this node, as tcp://203.0.113.5:7040")


def _profile(name: str, raw: object, base: Path) -> str:
    if isinstance(raw, str) and raw in PROFILES:
        return raw
    raise _Wrong(f"one of {', '.join(PROFILES)}")


def _data_dir(name: str, raw: object, base: Path) -> Path | None:
    if raw == AUTO:
        return Path(SLOTS)  # `resolve` knows the rest
    if raw == NO_DATA:
        return None
    return _path(name, raw, base)


def _durability(name: str, raw: object, base: Path) -> str:
    if isinstance(raw, str) and raw in DURABILITIES:
        return raw
    raise _Wrong(f"one of {', '.join(DURABILITIES)}")


def _secret(name: str, raw: object, base: Path) -> Secret:
    if isinstance(raw, Secret):
        return raw
    listed = _list(raw, str)
    if listed is None or not 1 <= len(listed) <= SECRETS_MAX_COUNT:
        raise _Wrong(f"a text, or up to {SECRETS_MAX_COUNT} of them, the current one first")
    for text in listed:
        wrong = wrong_with(text)
        if wrong is not None:
            raise _Wrong(wrong)
    return Secret(tuple(listed))


def _endpoints(name: str, raw: object, base: Path) -> tuple[str, ...]:
    listed = _list(raw, str)
    if listed is None or len(listed) > JOIN_MAX_COUNT or not all(_is_reachable(it) for it in listed):
        raise _Wrong(f"endpoints such as tcp://10.0.0.7:7040, {JOIN_MAX_COUNT} at most")
    return tuple(listed)


def _path(name: str, raw: object, base: Path) -> Path:
    if isinstance(raw, str | Path) and str(raw):
        try:
            return base / Path(raw).expanduser()
        except RuntimeError:  # there is no such user
            pass
    raise _Wrong("a path")


def _paths(name: str, raw: object, base: Path) -> tuple[Path, ...]:
    listed = _list(raw, str | Path)
    if listed is None:
        raise _Wrong("a path, or a list of paths")
    return tuple(_path(name, it, base) for it in listed)


def _list(raw: object, of: type[Any] | UnionType) -> list[Any] | None:
    """One value or several, as a list; None: some are of another type."""
    listed = [*cast("Iterable[object]", raw)] if isinstance(raw, list | tuple) else [raw]
    return listed if all(isinstance(it, of) for it in listed) else None


def _is_reachable(endpoint: str) -> bool:
    address = address_of(endpoint)
    return address is not None and address[0] != "*" and address[1] > 0


# --- the environment has only text --------------------------------------------------------------------------------


def _number_of(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _flag_of(text: str) -> object:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower(), text)


def _endpoints_of(text: str) -> object:
    return [part.strip() for part in text.split(",")]


def _paths_of(text: str) -> object:
    return text.split(os.pathsep)


READERS: dict[str, Callable[[str, object, Path], object]] = {
    "name": _label,
    "tasks": _paths,
    "bind": _bind,
    "cluster": _cluster,
    "workers": _integer,
    "backups": _integer,
    "accept_timeout": _seconds,
    "join": _endpoints,
    "advertise": _advertise,
    "profile": _profile,
    "solo_after": _seconds,
    "stuck_after": _seconds,
    "drain_timeout": _seconds,
    "max_jobs": _integer,
    "max_bytes": _integer,
    "max_payload": _integer,
    "data_dir": _data_dir,
    "durability": _durability,
    "runtime_dir": _path,
    "secret": _secret,
    "secret_file": _path,
    "insecure": _flag,
}
"""Setting -> what checks a value of it; in the order in which people see them."""

FROM_TEXT: dict[Callable[[str, object, Path], object], Callable[[str], object]] = {
    _paths: _paths_of,
    _integer: _number_of,
    _seconds: _number_of,
    _endpoints: _endpoints_of,
    _secret: _endpoints_of,
    _flag: _flag_of,
}
"""Reader -> what makes a value for it from the text of a variable; others take the text."""
