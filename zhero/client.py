"""A client: talks to a running node, and is no member. For the command line, scripts, programs that only enqueue.

It finds a node (in the runtime directory of this user, or where `join` says), greets it, and stays with that one.
Nothing remembers it there: no entry, no copy, no share of the work. Its calls are those of a node, sent in `Request`s.

The network may lose anything, so what is not answered is sent again, under the same reference and with the same job
ids: the node takes the same id twice for one job and the same reference twice for one question. Only what would answer
differently the second time (`ONCE`) is not repeated. A result may take any time to come: for as long as somebody waits,
the node is greeted again and again, and when several greetings in a row stay without an answer it is `NotReached`.

Its one connection lives on the loop on which it was entered; other threads use `ask_soon`.

State: reference -> who waits, and the parts of a long list so far. Bound: one per caller.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from . import wire
from .core.messages import (
    Answer,
    AwaitResult,
    Call,
    Cancel,
    Discard,
    Enqueue,
    Frame,
    GiveUp,
    Hello,
    Listed,
    Message,
    Rejected,
    Request,
    Response,
    Retry,
    StartTask,
    StopTask,
    Welcome,
)
from .core.values import IdSource, JobId, JobInfo, Life, NodeId
from .enqueuing import Enqueuing
from .errors import NotReached, NotRunning, ParamsInvalid
from .runtime.auth import PLAIN, keyring_of
from .runtime.connection import Connection
from .runtime.discovery import Directory, clusters, is_gone, nearby, runtime_dir, runtime_path
from .settings import resolve

ONCE = (Retry, Discard, StopTask, StartTask)
"""Calls whose second answer would be another one."""
SLOW = (AwaitResult, Cancel)
"""Calls that are answered when a job ends."""
REPEAT_SLOW_S = 20.0
"""Less than the time that results are kept for by default, so that one whose answer got lost is still there."""
GREETING_S = 2.0
GREETINGS_MAX = 3
"""So many greetings without an answer, and the node counts as gone."""

_LINGER_MS = 200


@dataclass(slots=True)
class _Waiter:
    future: asyncio.Future[Answer]
    parts: list[JobInfo] = field(default_factory=list[JobInfo])


class Client(Enqueuing):
    """Talks to one node of a cluster.

    Args:
        cluster: its name; default: that of this project.
        join: endpoints of nodes to try; default: those of this user on this host.
        timeout: seconds, for finding a node and for each answer that does not wait for a job; an enqueue has
            `accept_timeout` (a setting) more, in which the node waits for the copies.
        runtime_dir: where nodes of this host are found.
        secret, secret_file, insecure: as those of the nodes; default: the secret of this user on this host.
    """

    def __init__(
        self,
        cluster: str | None = None,
        join: str | list[str] | None = None,
        timeout: float = 5.0,
        *,
        runtime_dir: str | Path | None = None,
        secret: str | list[str] | None = None,
        secret_file: str | Path | None = None,
        insecure: bool | None = None,
    ) -> None:
        self._settings = resolve(
            cluster=cluster,
            join=join,
            runtime_dir=runtime_dir,
            secret=secret,
            secret_file=secret_file,
            insecure=insecure,
        )
        self._timeout_s = timeout
        self._tag = wire.cluster_tag(self._settings.cluster)
        self._me = Life(NodeId(os.urandom(16)), time.time_ns() // 1_000_000, 0)
        self._ids = IdSource(int.from_bytes(os.urandom(8)))
        self._ids_lock = threading.Lock()
        self._ref = 0
        self._waiters: dict[int, _Waiter] = {}
        self._unanswered = 0  # greetings since anything was heard
        self._connection: Connection | None = None

    @property
    def cluster(self) -> str:
        """Name of the cluster."""
        return self._settings.cluster

    @property
    def welcome(self) -> Welcome:
        """What the node said of itself when it was reached.

        Raises:
            NotRunning: the client is not open.
        """
        self._opened()
        return self._node

    # --- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        it = self._settings
        has_own = it.insecure or it.secret is not None
        root = runtime_path(it.runtime_dir) if has_own else runtime_dir(it.runtime_dir)
        self._keyring = keyring_of(it.secret, it.insecure, root, it.cluster)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._connection, self._node = await self._find()
        except BaseException:
            self._context.term()
            raise
        self._watch_task = self._loop.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        self._watch_task.cancel()
        self._fail(NotRunning("the client is closed"))
        self._connection.close(_LINGER_MS)
        self._connection = None
        self._context.term()

    async def _find(self) -> tuple[Connection, Welcome]:
        """The first node that answers: of those to join, else of those that showed themselves on this host."""
        if self._settings.join:
            places = [(endpoint, key) for endpoint in self._settings.join for key in self._keyring.marks]
        else:
            places = await self._neighbours()
        until = self._loop.time() + self._timeout_s
        failures: list[str] = []
        for number, (endpoint, key) in enumerate(places):
            share_s = (until - self._loop.time()) / (len(places) - number)
            try:
                return await self._greet(endpoint, key, share_s)
            except NotReached as error:
                failures.append(str(error))
        raise NotReached("; ".join(dict.fromkeys(failures)) or self._nobody())

    def _nobody(self) -> str:
        others = clusters(runtime_dir(self._settings.runtime_dir))
        found = f"one of your clusters here ({', '.join(others)})" if others else "another cluster"
        return (
            f"no node of cluster {self.cluster} runs here: start one with `zhero run`, or name {found}, "
            "or a node to join"
        )

    async def _neighbours(self) -> list[tuple[str, str]]:
        """Endpoints and keys in the runtime directory, from which those are removed that are surely gone."""
        directory = Directory(runtime_dir(self._settings.runtime_dir), self.cluster)
        found: list[tuple[str, str]] = []
        for entry in directory.entries():
            if await asyncio.to_thread(is_gone, entry):
                directory.remove_stale(entry)
            else:
                found.append((nearby(entry.endpoint), entry.key))
        return found

    async def _greet(self, endpoint: str, key: str, within_s: float) -> tuple[Connection, Welcome]:
        met: asyncio.Future[tuple[Life, Welcome]] = self._loop.create_future()

        def hear(frame: Frame) -> None:
            for message in frame.messages:
                if isinstance(message, Welcome) and not met.done():
                    met.set_result((frame.sender, message))
                elif isinstance(message, Rejected):
                    refuse(message.why)

        def refuse(why: str) -> None:
            if not met.done():
                met.set_exception(NotReached(f"{endpoint}: {why}"))

        # The directory is this user's alone: where it says that a node does not encrypt, that is what was wanted.
        keyring = self._keyring if key or self._settings.secret is not None else PLAIN
        connection = Connection(self._context, endpoint, self._me, self._tag, keyring, key)
        try:
            connection.open(hear, refuse)
            connection.send([Hello()])
            async with asyncio.timeout(within_s):
                connection.peer, welcome = await met
        except TimeoutError:
            connection.close(0)
            raise NotReached(f"{endpoint} does not answer") from None
        except BaseException:
            connection.close(0)
            raise
        connection.open(self._hear, lambda why: None)
        return connection, welcome

    async def _watch(self) -> None:
        """See to it that nobody waits for a node that is gone."""
        while True:
            await asyncio.sleep(GREETING_S)
            if not self._waiters:
                self._unanswered = 0
            elif self._unanswered >= GREETINGS_MAX:
                self._fail(NotReached(f"node {self._node.member.name} does not answer any more"))
            else:
                self._unanswered += 1
                self._say([Hello()])

    def _fail(self, error: Exception) -> None:
        for waiter in self._waiters.values():
            if not waiter.future.done():
                waiter.future.set_exception(error)
                waiter.future.exception()  # not everybody who asked still looks

    # --- jobs -----------------------------------------------------------------------------------------------------

    # --- what a hub is --------------------------------------------------------------------------------------------

    @property
    def payload_max_bytes(self) -> int:
        """The largest params that the cluster takes."""
        self._opened()
        return self._node.payload_max_bytes

    def take_id(self) -> JobId:
        """The id of a new job; from any thread."""
        with self._ids_lock:
            return self._ids.take()

    def wall_ms(self) -> float:
        """The wall clock, in ms since the epoch."""
        return time.time_ns() / 1_000_000

    async def ask(self, call: Call) -> Answer:
        """Put a call to the node, and wait for its answer.

        Raises:
            NotRunning: the client is not open.
            NotReached: the node does not answer. What was asked for may have happened.
            ParamsInvalid: it is too large to be sent.
        """
        self._opened()
        self._ref = ref = self._ref + 1
        waiter = self._waiters[ref] = _Waiter(self._loop.create_future())
        patience_s = self._timeout_s
        if isinstance(call, Enqueue):
            patience_s += self._settings.accept_timeout  # the node itself waits for the copies
        until = self._loop.time() + patience_s
        request: list[Message] = [Request(ref, call)]
        slow = isinstance(call, SLOW)
        try:
            self._say(request)
            while True:
                await asyncio.wait([waiter.future], timeout=REPEAT_SLOW_S if slow else self._timeout_s / 2)
                if waiter.future.done():
                    return waiter.future.result()
                if not slow and self._loop.time() >= until:
                    raise NotReached(f"node {self._node.member.name} gives no answer")
                if not isinstance(call, ONCE):
                    self._say(request)
        finally:
            del self._waiters[ref]
            if not waiter.future.done() and self._connection is not None:
                self._say([GiveUp(ref)])

    def ask_soon(self, call: Call) -> concurrent.futures.Future[Answer]:
        """The same from any thread."""
        self._opened()
        return asyncio.run_coroutine_threadsafe(self.ask(call), self._loop)

    def waiting(self) -> contextlib.AbstractAsyncContextManager[None]:
        """A client has no slot that it could give back while it waits."""
        return contextlib.nullcontext()

    def waiting_sync(self) -> contextlib.AbstractContextManager[None]:
        """The same in a thread."""
        return contextlib.nullcontext()

    def _opened(self) -> Connection:
        if self._connection is None:
            raise NotRunning("the client is not open: use `async with zhero.Client() as client`")
        return self._connection

    def _say(self, messages: list[Message]) -> None:
        try:
            self._opened().send(messages)
        except wire.WireInvalid as error:
            raise ParamsInvalid(f"too much for one message, split it: {error}") from error

    def _hear(self, frame: Frame) -> None:
        self._unanswered = 0
        for message in frame.messages:
            if isinstance(message, Response) and message.ref in self._waiters:
                self._take(self._waiters[message.ref], message)

    def _take(self, waiter: _Waiter, response: Response) -> None:
        answer = response.answer
        if isinstance(answer, Listed):
            waiter.parts += answer.jobs
            answer = Listed(waiter.parts, answer.total)
        if not response.more and not waiter.future.done():
            waiter.future.set_result(answer)
