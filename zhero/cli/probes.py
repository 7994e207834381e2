"""What `zhero doctor` looks at: this process, its settings and directory, and each node that can be heard of.

Nothing is changed, and no node remembers it: a node is greeted as any client greets it. Everything that may hang has a
bound, and what goes wrong is what was looked for, so it is told in the answer and never raised.

Nodes are heard of from three sides: entries in the runtime directory, `join`, and the nodes that answer. Views are
looked at twice where they differ, since for a moment after each join they do.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import zmq

from .._version import __version__
from ..client import Client
from ..errors import RuntimeDirInvalid, ZheroError
from ..runtime.discovery import (
    ANY_HOST,
    PORT_MAX,
    Directory,
    address_of,
    nearby,
    refuse_shared,
    runtime_path,
)
from ..runtime.reach import is_loopback, is_refused, resolve
from ..settings import Settings
from .checks import Answer, Found, Place, Seed, Shown, Site, are_split

ANSWER_S = 5.0
"""How long a node may take for each answer."""
AGAIN_S = 2.0
"""After so long, views that differ are looked at again."""
AT_ONCE = 16
NODES_MAX_COUNT = 500
"""So many endpoints are tried; the rest is not."""


def look(settings: Settings | str) -> Found:
    """Look at everything.

    Args:
        settings: or what is wrong with them.
    """
    versions = {
        "python": platform.python_version(),
        "zhero": __version__,
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgpack": metadata.version("msgpack"),
    }
    site = settings if isinstance(settings, str) else asyncio.run(_look(settings))
    return Found(versions, _descriptors(), site)


def _descriptors() -> int | None:
    """How many files this process may have open; None: without limit, or the system has no such thing."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


async def _look(settings: Settings) -> Site:
    root = runtime_path(settings.runtime_dir)
    directory = Directory(root, settings.cluster)
    shown = tuple(Shown(entry, nearby(entry.endpoint), _runs(entry.pid)) for entry in directory.entries())
    seeds = tuple(await asyncio.gather(*map(_seed, settings.join)))
    site = Site(
        settings,
        (_place(root), _place(directory.path)),
        shown,
        tuple(map(str, directory.unreadable())),
        _bind_wrong(settings.bind),
        seeds,
    )
    site = await _meet(site)
    if are_split(site.answers.values()):
        await asyncio.sleep(AGAIN_S)
        site = await _meet(site)
    return site


# --- this host ----------------------------------------------------------------------------------------------------


def _place(path: Path) -> Place:
    try:
        refuse_shared(path)
    except FileNotFoundError:
        above = next(parent for parent in path.parents if parent.exists())
        able = os.access(above, os.W_OK | os.X_OK)
        return Place(str(path), False, "" if able else f"{path} can't be made: {above} can't be written")
    except RuntimeDirInvalid as error:
        return Place(str(path), True, str(error))
    except OSError as error:
        return Place(str(path), False, f"{path} can't be looked at: {error.strerror}")
    return Place(str(path), True)


def _runs(pid: int) -> bool:
    """Whether there is such a process. One that is another user's is there too; where nobody can tell, it is."""
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def _bind_wrong(endpoint: str) -> str:
    """Why a node could not listen there, and publish one port above; "": it could."""
    host, port = address_of(endpoint) or ("", 0)
    if port == PORT_MAX:
        return f"{endpoint}: beats need the port above it"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (port, port + 1) if port else (0,):
        with socket.socket(family, socket.SOCK_STREAM) as trying:
            if sys.platform != "win32":  # as libzmq does, or what has just been closed would count
                trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trying.bind(("" if host == "*" else host, number))
                trying.listen(1)
            except OSError as error:
                what = f" (port {number}, for beats)" if number != port else ""
                return f"{endpoint}{what}: {error.strerror}"
    return ""


# --- seeds and nodes ----------------------------------------------------------------------------------------------


async def _seed(name: str) -> Seed:
    try:
        async with asyncio.timeout(ANSWER_S):
            endpoints = tuple(await resolve(name))
    except TimeoutError:
        return Seed(name, wrong="no answer")
    except OSError as error:
        return Seed(name, wrong=error.strerror or str(error))
    return Seed(name, endpoints, not all(map(_is_here, endpoints)))


def _is_here(endpoint: str) -> bool:
    """Whether it is an address of this host: only then can one listen there."""
    host, _ = address_of(endpoint) or ("", 0)
    if is_loopback(host) or host in ANY_HOST:
        return True
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as trying:
            trying.bind((host, 0))
    except OSError:
        return False
    return True


async def _meet(site: Site) -> Site:
    """Talk to all that are known, then to those that they know."""
    first = [*(it.endpoint for it in site.shown), *(one for seed in site.seeds for one in seed.endpoints)]
    answers, known = await _ask_all(first, site.settings)
    met = {answer.node for answer in answers.values() if not answer.wrong}
    further = {endpoint: name for endpoint, (node, name) in known.items() if node not in met}
    more, _ = await _ask_all([it for it in further if it not in answers], site.settings)
    return replace(site, answers={**answers, **more}, known=further)


_Known = dict[str, tuple[str, str]]
"""Endpoint -> id and name of a member."""


async def _ask_all(endpoints: Iterable[str], settings: Settings) -> tuple[dict[str, Answer], _Known]:
    """Ask each, and hear of others."""
    tried = list(dict.fromkeys(endpoints))[:NODES_MAX_COUNT]
    limit = asyncio.Semaphore(AT_ONCE)
    known: _Known = {}

    async def ask(endpoint: str) -> Answer:
        async with limit:
            return await _ask(endpoint, settings, known)

    answers = await asyncio.gather(*map(ask, tried))
    return dict(zip(tried, answers, strict=True)), known


async def _ask(endpoint: str, settings: Settings, known: _Known) -> Answer:
    if await is_refused(endpoint):
        return Answer("refuses connections: nobody listens there", refused=True)
    secret = list(settings.secret.texts) if settings.secret is not None else None
    client = Client(settings.cluster, [endpoint], ANSWER_S, secret=secret, insecure=settings.insecure or None)
    began_ms = time.time_ns() / 1e6
    try:
        async with client:
            ended_ms = time.time_ns() / 1e6
            answer = _met(client, began_ms, ended_ms)
            try:
                status = await client.status()
            except ZheroError:
                return answer
    except ZheroError as error:
        return Answer(str(error).removeprefix(endpoint).lstrip(": "))
    known.update((it.endpoint, (it.id, it.name)) for it in status.members)
    return replace(
        answer,
        members={it.id: it.name for it in status.members},
        late=tuple(it.name for it in status.members if it.lagging),
        suspects=tuple(it.name for it in status.members if it.standing == "suspect"),
        silent=status.silent,
    )


def _met(client: Client, began_ms: float, ended_ms: float) -> Answer:
    """Who it is. Its clock was read at some moment between the two of ours."""
    welcome = client.welcome
    ahead_ms = round(welcome.now_ms - (began_ms + ended_ms) / 2) if welcome.now_ms else None
    return Answer(
        node=welcome.member.life.node.hex(),
        name=welcome.member.name,
        version=welcome.member.version,
        ahead_ms=ahead_ms,
        within_ms=round((ended_ms - began_ms) / 2) + 1,
    )
