"""All of a node that meets the network: its sockets, its place, its seeds, and what the engine wants of them.

The engine's effects go in (`Send`, `Knock`, `Connect`, `Disconnect`, `Probe`); what comes of them goes to `Hears`, on
the loop. Endpoints with names are looked up before a socket sees them; meanwhile what is to be said is lost, as it may
be. A name that is not known is looked up again for as long as the member is wanted.

The heart publishes with `publisher` and waits in `gate`, and has to be stopped before `close`.

State: tasks that look for seeds, try a connect, look up a name. Bound: one, and what the engine has asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Protocol

from ..core.effects import Connect, Disconnect, Knock, Probe, Send
from ..core.messages import Frame
from ..core.values import Life, Member, NodeId
from ..errors import BindFailed, RuntimeDirInvalid
from .auth import Secret, keep_key, keyring_of, own_secret
from .beats import Publisher
from .descriptors import ensure_descriptors
from .discovery import PORT_MAX, Directory, Entry, address_of, endpoint_of, runtime_dir
from .gate import Gate
from .reach import is_ip, is_refused, place_of, resolve
from .seeds import LOOK_AFTER_S, LOOK_EVERY_S, Seeds
from .transport import Transport

NAME_AGAIN_S = 2.0
"""Between two look-ups of a member's name."""

Wanted = Send | Knock | Connect | Disconnect | Probe


class Hears(Protocol):
    """Who is told what the network brings."""

    def receive(self, frame: Frame) -> None: ...

    def peer_lost(self, life: Life) -> None: ...

    def probed(self, life: Life, refused: bool) -> None: ...

    def seeds(self, endpoints: list[str]) -> None: ...

    def known(self) -> Collection[tuple[NodeId, int]]:
        """Node and boot of each member that is alive."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node is, and whom it looks for, as settings say. `secret`: None: that of the user on this host."""

    name: str
    cluster: str
    bind: str
    join: tuple[str, ...]
    advertise: str | None
    runtime_dir: Path | None
    version: str
    secret: Secret | None = None
    insecure: bool = False


class Network:
    """The network side of one node."""

    publisher: Publisher
    gate: Gate

    def __init__(self, site: Site, life: Life, hears: Hears, logger: logging.Logger, rng: Random) -> None:
        self._site = site
        self._life = life
        self._hears = hears
        self._log = logger
        self._rng = rng
        self._keeps: Secret | None = None  # of the key file, which has to stay
        self._looking: asyncio.Task[None] | None = None
        self._naming: dict[Life, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = False

    # --- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> tuple[Member, list[str]]:
        """Listen, show this node to its neighbours, and look for seeds. Nothing is left behind where it fails.

        Returns:
            This node as others see it, and the seeds. Nothing is heard before `listen`.

        Raises:
            BindFailed, RuntimeDirInvalid, ConfigError: and how to mend it.
        """
        site, life = self._site, self._life
        ensure_descriptors()
        self._root = runtime_dir(site.runtime_dir)
        self._directory = Directory(self._root, site.cluster)
        if site.secret is None and not site.insecure:
            self._keeps = own_secret(self._root)
        keyring = keyring_of(self._keeps or site.secret, site.insecure, self._root, site.cluster)
        self._transport = Transport(
            site.cluster,
            self._hears.receive,
            rng=self._rng,
            lost=self._hears.peer_lost,
            rejected=self._on_rejected,
            keyring=keyring,
            logger=self._log,
        )
        inbox = self._transport.open(site.bind, life)
        self.gate = self._transport.gate
        try:
            self.publisher = self._transport.publisher(_beats_bind(site.bind, inbox))
        except BaseException:
            self.gate.close()
            self._transport.close()
            self._transport.term()
            raise
        try:
            pid = os.getpid()
            shown = Entry(life.node, life.boot, site.name, inbox, pid, site.version, life.boot, keyring.mark)
            self._directory.announce(shown)
            self._seeds = Seeds(site.join, self._directory, life.node, self._log)
            # First it shows itself, then it looks: of two that start at once, one sees the other.
            seeds = await self._seeds.look(())
        except BaseException:
            self._directory.withdraw()
            self.publisher.close()
            self.gate.close()
            self._transport.close()
            self._transport.term()
            raise
        place = place_of(inbox, self.publisher.endpoint, site.advertise, seeds)
        where = place.endpoint, pid, site.version, place.beats, place.advertised, keyring.mark
        member = Member(life, site.name, *where)
        return member, seeds

    def listen(self) -> None:
        """Hear others from now on, and go on looking for them."""
        self._transport.listen()
        self._open = True
        self._looking = self._spawn(self._look())

    def leave(self) -> None:
        """This node is about to go: it shows itself to nobody new, and looks for nobody."""
        self._directory.withdraw()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None  # or it would wait for the garbage collector, in which an interrupt can get lost

    async def close(self) -> None:
        """End all; what has been said gets a moment to leave. Publisher and gate have been closed before."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        self._transport.close()
        loop, left = asyncio.get_running_loop(), asyncio.Event()

        def wait_in_thread() -> None:
            self._transport.term()
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(left.set)

        # A thread of its own: those of the loop stay for as long as the loop, and this is its user's.
        thread = threading.Thread(target=wait_in_thread, name="zhero-linger", daemon=True)
        thread.start()
        await left.wait()
        thread.join()

    def dropped(self) -> dict[str, int]:
        """Why -> how often somebody was turned away, or something that arrived, or was to be sent, was dropped."""
        return {**self.gate.counts(), **self._transport.dropped}

    # --- what the engine wants ------------------------------------------------------------------------------------

    def carry_out(self, effect: Wanted) -> None:
        """Do one thing of those that the engine wants of the network."""
        if not self._open:
            return
        if isinstance(effect, Send):
            self._transport.send(effect.to, effect.frame)
        elif isinstance(effect, Connect):
            self._connect(effect.member)
        elif isinstance(effect, Disconnect):
            self._stop_naming(effect.life)
            self._transport.disconnect(effect.life)
        elif isinstance(effect, Knock):
            if _is_named(effect.endpoint):
                self._spawn(self._knock(effect))
            else:
                self._transport.knock(effect.endpoint, effect.frame)
        else:
            self._spawn(self._probe(effect.member))

    def _connect(self, member: Member) -> None:
        self._stop_naming(member.life)
        if _is_named(member.endpoint) or _is_named(member.beats):
            self._naming[member.life] = self._spawn(self._connect_named(member))
        else:
            self._transport.connect(member)

    async def _connect_named(self, member: Member) -> None:
        while True:
            try:
                endpoint = (await resolve(member.endpoint))[0]
                beats = (await resolve(member.beats))[0] if member.beats else ""
            except (OSError, IndexError):
                await asyncio.sleep(NAME_AGAIN_S)
            else:
                del self._naming[member.life]
                self._transport.connect(replace(member, endpoint=endpoint, beats=beats))
                return

    def _stop_naming(self, life: Life) -> None:
        task = self._naming.pop(life, None)
        if task is not None:
            task.cancel()

    async def _knock(self, knock: Knock) -> None:
        try:
            endpoints = await resolve(knock.endpoint)
        except OSError:
            return
        for endpoint in endpoints:
            self._transport.knock(endpoint, knock.frame)

    async def _probe(self, member: Member) -> None:
        self._hears.probed(member.life, await is_refused(member.endpoint))

    # --- seeds ----------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        waits = iter(LOOK_AFTER_S)
        while True:
            await asyncio.sleep(next(waits, LOOK_EVERY_S) * self._rng.uniform(0.8, 1.2))
            try:
                self._directory.renew()
                if self._keeps is not None:
                    keep_key(self._root, self._keeps)
            except RuntimeDirInvalid as error:
                self._log.warning("! new neighbours can't find this node: %s", error)
            self._hears.seeds(await self._seeds.look(self._hears.known()))

    def _on_rejected(self, endpoint: str, why: str) -> None:
        self._log.warning("! %s is no neighbour of cluster %s: it says %s", endpoint, self._site.cluster, why)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine, name="zhero-network")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("! bug: %s", task.exception(), exc_info=task.exception())


def _is_named(endpoint: str) -> bool:
    """Whether it has a name where an address could stand."""
    address = address_of(endpoint)
    return address is not None and not is_ip(address[0])


def _beats_bind(asked: str, inbox: str) -> str:
    """Where to publish: one port above a port that was asked for, else at a free one.

    Raises:
        BindFailed: there is no port above.
    """
    host, port = address_of(inbox) or ("", 0)
    _, asked_port = address_of(asked) or ("", 0)
    if asked_port == PORT_MAX:
        raise BindFailed(f"can't listen at {asked}: beats need the port above it; choose another port")
    return endpoint_of(host, port + 1 if asked_port else 0)
