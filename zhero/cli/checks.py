"""What `zhero doctor` makes of what it has found: pure judgement, no I/O. `probes` does the looking.

Each check is one line: fine, a *warning* (it works, and somebody should look) or a *problem* (it does not work, or soon
will not), with what to do. Only a problem is a reason for a script to stop.

What is not known is not judged: a node that does not tell its clock has no wrong clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..runtime.discovery import Entry, address_of
from ..runtime.reach import is_loopback
from ..settings import Settings

Level = Literal["ok", "warning", "problem"]

NEEDED = {"python": (3, 11), "pyzmq": (26, 0), "libzmq": (4, 3), "msgpack": (1, 2, 4)}
"""The oldest versions that do."""
CLOCK_WARNING_MS, CLOCK_PROBLEM_MS = 1_000, 60_000
"""A clock that is further off than this. A `run_at` is turned into a span by the clock of the node that takes it."""
DESCRIPTORS_BASE, DESCRIPTORS_PER_MEMBER = 64, 8
"""What a node needs: it takes 20 for itself and 5 or 6 per member, and the application has some too."""
ROOM_COUNT = 50
"""For so many members there should be descriptors, however few there are now."""


# --- what has been found ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of entries. `wrong`: why a node would refuse it; "": it would not."""

    path: str
    exists: bool
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry in the runtime directory. `runs`: there is a process with its number."""

    entry: Entry
    endpoint: str
    runs: bool


@dataclass(frozen=True, slots=True)
class Seed:
    """One of `join`. `endpoints`: what it stands for; `far`: some of them are not on this host; `wrong`: no look-up."""

    name: str
    endpoints: tuple[str, ...] = ()
    far: bool = False
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of talking to an endpoint.

    Attributes:
        wrong: why it can't be talked to; "": it can, and the rest is what it said.
        refused: its host says that nobody listens there.
        ahead_ms: its clock less ours, known to within `within_ms`; None: it does not say.
        members: id -> name of each member that it counts; None: it says nothing of them.
        late: of those, the names whose event loop is late; `suspects`: that it does not hear.
        silent: names of members that gave it no answer.
    """

    wrong: str = ""
    refused: bool = False
    node: str = ""
    name: str = ""
    version: str = ""
    ahead_ms: int | None = None
    within_ms: int = 0
    members: Mapping[str, str] | None = None
    late: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """What was found with settings that make sense.

    Attributes:
        places: the runtime directory, then that of the cluster in it.
        unreadable: files in it that hold no entry.
        bind_wrong: why the endpoint of `bind` can't be had; "": it can.
        known: endpoint -> name of each member that a node which answers knows.
        answers: endpoint -> what came of talking to it; of very many, some are not tried.
    """

    settings: Settings
    places: tuple[Place, ...]
    shown: tuple[Shown, ...] = ()
    unreadable: tuple[str, ...] = ()
    bind_wrong: str = ""
    seeds: tuple[Seed, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict[str, str])
    answers: Mapping[str, Answer] = field(default_factory=dict[str, Answer])


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found. `versions`: of python, zhero and libraries; `site`: or what is wrong with the settings."""

    versions: Mapping[str, str]
    descriptors: int | None
    site: Site | str


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `what` was looked at; `advice`: what to do; "": nothing."""

    what: str
    level: Level
    found: str
    advice: str = ""


# --- judgement ----------------------------------------------------------------------------------------------------


def judge(found: Found) -> list[Finding]:
    """A finding for each check, in the order in which people set things right."""
    lines = [_versions(found.versions)]
    if isinstance(found.site, str):
        lines.append(Finding("settings", "problem", found.site, "put it right; what depends on it was not looked at"))
        lines.append(_descriptors(found.descriptors, 1))
        return lines
    site = found.site
    members = len({node for answer in site.answers.values() for node in answer.members or ()})
    lines += [_settings(site.settings), _descriptors(found.descriptors, members), _place(site.places)]
    lines += [
        Finding("runtime file", "warning", f"{file} is no entry of a node", "remove it") for file in site.unreadable
    ]
    lines += [
        Finding(
            f"entry {it.entry.name}",
            "warning",
            f"left behind by process {it.entry.pid}, which is gone",
            "zhero doctor --fix removes it",
        )
        for it in left_behind(site)
    ]
    lines.append(_bind(site))
    lines += [_seed(seed, site) for seed in site.seeds]
    lines += _nodes(site, found.versions["zhero"])
    return lines


def left_behind(site: Site) -> list[Shown]:
    """Entries of nodes that are gone: no such process, and nobody listens."""
    return [it for it in site.shown if not it.runs and it.endpoint in site.answers and site.answers[it.endpoint].wrong]


def worst(findings: Iterable[Finding]) -> Level:
    """The worst of all levels."""
    levels = {finding.level for finding in findings}
    return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


def _versions(versions: Mapping[str, str]) -> Finding:
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    old = [
        f"{name} {'.'.join(map(str, needed))}"
        for name, needed in NEEDED.items()
        if tuple(map(int, re.findall(r"\d+", versions[name])[: len(needed)])) < needed
    ]
    if old:
        return Finding("versions", "problem", told, f"install {' and '.join(old)} or newer")
    return Finding("versions", "ok", told)


def _settings(settings: Settings) -> Finding:
    said = [f"{name} ({origin})" for name, _, origin in settings.explain() if origin != "default"]
    return Finding("settings", "ok", f"cluster {settings.cluster}; set: {', '.join(said) or 'nothing'}")


def _descriptors(limit: int | None, members: int) -> Finding:
    if limit is None:
        return Finding("descriptors", "ok", "no limit")
    needed = DESCRIPTORS_BASE + DESCRIPTORS_PER_MEMBER * members
    roomy = DESCRIPTORS_BASE + DESCRIPTORS_PER_MEMBER * max(ROOM_COUNT, 2 * members)
    if limit >= roomy:
        return Finding("descriptors", "ok", f"{limit} may be open")
    advice = f"raise the limit of open files: ulimit -n {max(4096, 2 * roomy)}"
    if limit < needed:
        return Finding("descriptors", "problem", f"{limit} may be open, {members} members need {needed}", advice)
    return Finding("descriptors", "warning", f"{limit} may be open: enough for now, not for many members", advice)


def _place(places: Collection[Place]) -> Finding:
    for place in places:
        if place.wrong:
            return Finding("runtime directory", "problem", place.wrong)
    place = next(iter(places))
    found = f"{place.path}, yours alone" if place.exists else f"{place.path} is made by the first node"
    return Finding("runtime directory", "ok", found)


def _bind(site: Site) -> Finding:
    bind = site.settings.bind
    host, port = address_of(bind) or ("", 0)
    if is_loopback(host) and site.settings.advertise is None:
        far = [seed.name for seed in site.seeds if seed.far]
        if far:
            return Finding(
                "bind",
                "problem",
                f"{bind} is reached from this host alone, and {far[0]} is not on it: it could never answer",
                "bind to an address that it reaches (with insecure = true, in a network that you trust wholly)",
            )
    if not site.bind_wrong:
        return Finding("bind", "ok", f"{bind} is free" if port else f"{bind}: any free port")
    names = [it.entry.name for it in site.shown if it.runs and address_of(it.entry.endpoint) == (host, port)]
    if names and port:
        return Finding("bind", "ok", f"{bind} is in use by node {names[0]} of this cluster")
    return Finding("bind", "problem", site.bind_wrong, "choose another port, or port 0 for a free one")


def _seed(seed: Seed, site: Site) -> Finding:
    what = f"seed {seed.name}"
    if seed.wrong:
        return Finding(
            what, "problem", f"the name is not known ({seed.wrong})", "check its spelling and the name server"
        )
    tried = {endpoint: site.answers[endpoint] for endpoint in seed.endpoints if endpoint in site.answers}
    bad = {endpoint: answer for endpoint, answer in tried.items() if answer.wrong}
    told = "; ".join(it.wrong if endpoint == seed.name else f"{endpoint} {it.wrong}" for endpoint, it in bad.items())
    if len(bad) < len(tried):
        if not bad:
            return Finding(what, "ok", "answers" if len(tried) == 1 else f"all of {len(tried)} addresses answer")
        found = f"{len(bad)} of {len(tried)} addresses do not answer: {told}"
        return Finding(what, "warning", found, "fine while nodes start or stop there")
    if all(answer.refused for answer in bad.values()):
        advice = "start a node there, or name one that runs; who finds nobody begins alone after 5 s"
    else:
        advice = f"see whether a node of cluster {site.settings.cluster} is there, and no firewall between"
    return Finding(what, "problem", told or "stands for no address", advice)


def _nodes(site: Site, version: str) -> Iterator[Finding]:
    gone = {it.endpoint for it in left_behind(site)}
    names = {**{it.endpoint: it.entry.name for it in site.shown}, **site.known}
    late = {name for answer in site.answers.values() for name in answer.late}
    met: dict[str, Answer] = {}  # node id -> what it said; it may have several endpoints
    for endpoint, answer in site.answers.items():
        if answer.node in met:
            continue
        if not answer.wrong:
            met[answer.node] = answer
            yield _node(endpoint, answer, version)
        elif endpoint in names and endpoint not in gone:
            yield _mute(names[endpoint], endpoint, answer, names[endpoint] in late)
    yield _cluster(list(met.values()))


def _node(endpoint: str, answer: Answer, version: str) -> Finding:
    """One that answers."""
    found, advice = [f"answers at {endpoint}", f"zhero {answer.version}"], list[str]()
    level: Level = "ok"
    if answer.version != version:
        level = "warning"
        advice.append(f"here is zhero {version}: run the same version everywhere")
    if answer.ahead_ms is not None:
        off_ms = max(0, abs(answer.ahead_ms) - answer.within_ms)
        where = "ahead" if answer.ahead_ms > 0 else "behind"
        within = f", to within {answer.within_ms} ms" if off_ms else ""
        found.append(f"its clock is {abs(answer.ahead_ms)} ms {where}{within}" if off_ms else "its clock agrees")
        if off_ms > CLOCK_WARNING_MS:
            level = "problem" if off_ms > CLOCK_PROBLEM_MS else "warning"
            advice.append("set the clocks by NTP, then restart the node: it reads its clock once, at the start")
    if answer.members is None:
        level = "problem"
        found.append("it does not say who its members are")
        advice.append("look at its log, or restart it")
    return Finding(f"node {answer.name}", level, ", ".join(found), "; ".join(advice))


def _mute(name: str, endpoint: str, answer: Answer, late: bool) -> Finding:
    """One that is known, and does not answer."""
    if late:
        found = f"{endpoint} {answer.wrong}; others hear its heart: its event loop is blocked"
        return Finding(
            f"node {name}", "problem", found, "its log names the job that blocks it; use a thread or a process"
        )
    if answer.refused:
        advice = "it has just stopped, or it is reached at another address: see advertise"
    else:
        advice = "it may be stopped or overloaded, or a firewall may be between"
    return Finding(f"node {name}", "problem", f"{endpoint} {answer.wrong}", advice)


def _cluster(met: list[Answer]) -> Finding:
    """Whether those that answer believe the same."""
    views = {answer.name: answer.members for answer in met if answer.members is not None}
    if not views:
        return Finding("cluster", "ok", "no node answers, so there is none to look at")
    if are_split(met):
        told = "; ".join(f"{name} counts {', '.join(sorted(view.values()))}" for name, view in views.items())
        return Finding(
            "cluster",
            "problem",
            f"nodes do not agree on who is here: {told}",
            "see whether they reach one another (address, firewall); views that can meet agree within seconds",
        )
    count = len(next(iter(views.values())))
    told = f"{count} members, seen alike by all that answer" if count > 1 else "one member"
    suspects = sorted({name for answer in met for name in answer.suspects})
    if suspects:
        return Finding(
            "cluster", "warning", f"{told}; not heard at the moment: {', '.join(suspects)}", "look again soon"
        )
    silent = sorted({name for answer in met for name in answer.silent})
    if silent:
        return Finding(
            "cluster", "warning", f"{told}; asked by others, {', '.join(silent)} gave no answer", "look at it"
        )
    late = sorted({name for answer in met for name in answer.late})
    if late:
        return Finding("cluster", "warning", f"{told}; the event loop is late at {', '.join(late)}", "see its log")
    return Finding("cluster", "ok", told)


def are_split(met: Iterable[Answer]) -> bool:
    """Whether nodes that answer count different members."""
    return len({frozenset(answer.members) for answer in met if answer.members is not None}) > 1
