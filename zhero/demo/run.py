"""The story: three nodes at work, two of them killed, and what the cluster says in the end.

The program that tells it is no member. It starts and kills processes (`nodes`) and asks the cluster, through a
`zhero.Client`, who is here and what the results are; its own memory has job ids and instants, nothing of the work.

    three nodes, web-1 to web-3
    web-1 enqueues two thirds of the files
    a quarter of all has ended              SIGKILL for web-1, the home of all jobs; web-4 is started
    three members, all jobs answered for,
    nothing degraded                        the owner of the delayed queue enqueues the last third
    60 % has ended                          a delayed job is enqueued; SIGKILL for the owner; web-5 is started
    all has ended                           each result is asked for by its job's id

The owner's share keeps it a home with work left, however quickly the first two thirds were done. What the demo waits
for, it waits for a bounded time: what does not come is a trouble that the verdict names, and the story goes on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zhero

from ..views import QueueName
from .analysis import Counts
from .nodes import NodeProcess, Nodes
from .picture import Picture
from .record import BEGAN, ENDED, Entry, Record
from .screen import Screen
from .tasks import Place, analyse, ring, where_am_i
from .verdict import Kill, shares

FIRST_NAMES = ("web-1", "web-2", "web-3")
WORKERS = 2
"""Of each node: more than one, so that a kill interrupts several runs; few, so that six fit on a small machine."""
FIRST_SHARE = 2 / 3
FIRST_KILL, SECOND_KILL = 0.25, 0.6
"""The part of all files that has ended when a node is killed."""
RING_IN_S = 4.0
"""The span of the delayed job: it is due when its owner is dead, and another has taken over."""

START_S = 40.0
MEND_S = 40.0
STALL_S = 20.0
RESULTS_S = 60.0
"""How long to wait: for the first nodes, for the cluster to be whole again, for the next file, for all results."""
BUSY_S = 2.0
"""How long to wait for the moment at which a node to be killed has just begun something."""
FRESH_S = 0.01
LOOK_EVERY_S = 0.15
READ_EVERY_S, WATCH_EVERY_S = 0.02, 0.002
WITH_FILES: tuple[QueueName, ...] = ("global", "local", "processing")
"""The queues that the jobs of files are in; the other kinds of jobs are mostly in none of these."""
STEADY_LOOKS = 3
"""So many looks in a row have to find the cluster whole."""
ASKED_AT_ONCE_COUNT = 64
PATIENCE_S = 3.0
"""Of the client: for one answer."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        root: the folder of the sources.
        paths: the sources, relative to it.
        folder: where the nodes find one another, and the record is.
    """

    root: Path
    paths: Sequence[str]
    folder: Path


@dataclass(slots=True)
class Taken:
    """What came of it.

    Attributes:
        accepted: the file of each accepted job.
        results: file -> its counts, as the cluster says.
        rang: whether the cluster gave the result of the delayed job.
        ring_at_s: when that was to run, at the earliest.
        took_s: from the first job handed over to the last analysis.
        kills: in order.
        entries: the record.
        places: member -> where it is.
        members: names of those that are alive in the end.
        troubles: sentences.
    """

    accepted: list[str] = field(default_factory=list[str])
    results: dict[str, Counts] = field(default_factory=dict[str, Counts])
    rang: bool = False
    ring_at_s: float = 0.0
    took_s: float = 0.0
    kills: list[Kill] = field(default_factory=list[Kill])
    entries: list[Entry] = field(default_factory=list[Entry])
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    members: list[str] = field(default_factory=list[str])
    troubles: list[str] = field(default_factory=list[str])


async def run_on_three_nodes(order: Order, screen: Screen) -> Taken:
    """Tell the story.

    Raises:
        ChildProcessError: a node that was needed ended by itself, or refused.
        ZheroError, TimeoutError: the cluster does not come up, or does not answer at all.
    """
    cluster = f"demo-{os.getpid()}"  # of its own: it must not meet the nodes of whoever runs it
    record = order.folder / "record"
    async with Nodes(order.folder, record, cluster, WORKERS, screen.line) as nodes:
        with screen.live() as show:
            async with _watching(Watch(nodes, Record(record), cluster, len(order.paths), show)) as watch:
                return await Story(order, nodes, watch, screen).tell()


# --- looking ------------------------------------------------------------------------------------------------------


class Watch:
    """Looks at the cluster and at the record, again and again, and shows it."""

    def __init__(self, nodes: Nodes, record: Record, cluster: str, total: int, show: Callable[[Picture], None]) -> None:
        self.view: zhero.ClusterView | None = None
        self.looks = 0
        self.accepted = 0  # files with a job
        self.ended: set[str] = set()  # files with an analysis that has ended
        self.record = record
        self._nodes = nodes
        self._cluster = cluster
        self._total = total
        self._show = show
        self._since_s = time.monotonic()

    def _chosen(self) -> NodeProcess:
        """The node to ask: one that is not to be killed next, for it would leave the asker without an answer.

        Raises:
            ChildProcessError: there is none.
        """
        owner = None if self.view is None else self.view.owner
        doomed = {FIRST_NAMES[0], None if owner is None else owner.name}
        nodes = [it for it in self._nodes.living.values() if it.endpoint.done()]
        if not nodes:
            raise ChildProcessError("no node is left to ask")
        return min(nodes, key=lambda it: it.name in doomed)

    @asynccontextmanager
    async def client(self, node: NodeProcess | None = None) -> AsyncGenerator[zhero.Client]:
        """A client of that node, or of the one that is best asked.

        Raises:
            NotReached: it does not answer.
            ChildProcessError: there is none.
        """
        endpoint = (node or self._chosen()).endpoint.result()
        runtime_dir = self._nodes.runtime_dir
        async with zhero.Client(self._cluster, endpoint, PATIENCE_S, runtime_dir=runtime_dir) as client:
            yield client

    async def look_on(self) -> None:
        """Look, for ever."""
        while True:
            try:
                node = self._chosen()
                async with self.client(node) as client:
                    while self._chosen() is node:
                        self.view = await client.status()
                        self.looks += 1
                        self._show(self.picture())
                        await asyncio.sleep(LOOK_EVERY_S)
            except (zhero.NotReached, ChildProcessError):  # it only begins, or has ended
                self._show(self.picture())
                await asyncio.sleep(LOOK_EVERY_S)

    def picture(self) -> Picture:
        """How it is now, as far as it is known here."""
        self.read()
        after_s = time.monotonic() - self._since_s
        killed = {kill.node for kill in self._nodes.kills}
        return Picture(after_s, self.view, len(self.ended), self._total, shares(self.record.entries), killed)

    def read(self) -> None:
        """Take in what is new on the record."""
        self.ended.update(it.what for it in self.record.read() if it.kind == ENDED)

    def has_just_begun(self, node: str) -> bool:
        """Whether a node has begun an analysis this very moment, so that it is in the middle of it."""
        last = next((it for it in reversed(self.record.entries) if it.node == node), None)
        return last is not None and last.kind == BEGAN and time.monotonic() - last.at_s < FRESH_S

    async def until(self, condition: Callable[[], bool], within_s: float, every_s: float = READ_EVERY_S) -> bool:
        """Wait for that, which may ask for `ended`. Returns: whether it came in time."""
        until_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(every_s)
            self.read()
        return True

    async def until_whole(self, within_s: float) -> bool:
        """Wait until all that live are members, somebody answers for each job, and each has its copies.

        `degraded` alone would not do: what nobody has taken over yet is not in it.

        Returns:
            Whether it came in time.
        """
        looks = steady = 0

        def is_whole() -> bool:
            nonlocal looks, steady
            if looks != self.looks:
                looks = self.looks
                steady = steady + 1 if self._is_whole() else 0
            return steady >= STEADY_LOOKS

        return await self.until(is_whole, within_s)

    def _is_whole(self) -> bool:
        view = self.view
        if view is None or view.silent or view.degraded or view.owner is None:
            return False
        # The view is older than the record, so at least what is open there has to be in the queues.
        if sum(view.queues[name] for name in WITH_FILES) < self.accepted - len(self.ended):
            return False
        alive = sorted(it.name for it in view.members if it.standing == "alive" and analyse.name in it.tasks)
        return alive == sorted(self._nodes.living)


@asynccontextmanager
async def _watching(watch: Watch) -> AsyncGenerator[Watch]:
    looking = asyncio.create_task(watch.look_on())
    try:
        yield watch
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


# --- the story ----------------------------------------------------------------------------------------------------


class Story:
    """Its parts, in order."""

    def __init__(self, order: Order, nodes: Nodes, watch: Watch, screen: Screen) -> None:
        self._order = order
        self._nodes = nodes
        self._watch = watch
        self._screen = screen
        self._jobs: dict[str, str] = {}  # job id -> path
        self._taken = Taken(kills=nodes.kills, troubles=nodes.troubles)

    async def tell(self) -> Taken:
        """All of it."""
        await self._begin()
        middle = max(1, int(len(self._order.paths) * FIRST_SHARE))
        started_s = time.monotonic()
        await self._enqueue(FIRST_NAMES[0], self._order.paths[:middle])
        await self._until_ended(FIRST_KILL)
        await self._kill(FIRST_NAMES[0])
        await self._start("web-4")
        await self._mend(FIRST_NAMES[0])
        owner = self._owner()
        await self._enqueue(owner, self._order.paths[middle:])
        await self._until_ended(SECOND_KILL)
        ring_id = await self._enqueue_delayed()
        await self._kill(owner)
        await self._start("web-5")
        await self._mend(owner)
        await self._until_ended(1.0)
        self._taken.took_s = time.monotonic() - started_s
        await self._ask_for_results(ring_id)
        return self._taken

    async def _begin(self) -> None:
        for name in FIRST_NAMES:
            await self._nodes.start(name)
        for node in [*self._nodes.living.values()]:
            async with asyncio.timeout(START_S):
                await node.endpoint
        if not await self._watch.until_whole(START_S):
            raise TimeoutError(f"{len(FIRST_NAMES)} nodes have made no cluster within {START_S:.0f} s")
        self._screen.line(f"· {', '.join(FIRST_NAMES)} are a cluster; {self._owner()} owns the delayed queue")

    async def _start(self, name: str) -> NodeProcess:
        self._screen.line(f"· {name} is started")
        return await self._nodes.start(name)

    async def _enqueue(self, name: str, paths: Sequence[str]) -> None:
        jobs = await self._nodes.living[name].enqueue(self._order.root, list(paths))
        self._jobs.update(jobs)
        self._taken.accepted += jobs.values()
        self._watch.accepted += len(jobs)
        self._screen.line(f"· {name} has enqueued {len(jobs)} jobs, and they are accepted")

    async def _kill(self, name: str) -> None:
        """In the middle of its work, as far as that can be seen from here."""
        await self._watch.until(lambda: self._watch.has_just_begun(name), BUSY_S, WATCH_EVERY_S)
        await self._nodes.kill(name)
        self._screen.line(f"! {name} is killed, after {len(self._watch.ended)} files")

    async def _until_ended(self, part: float) -> None:
        """Wait for that part of the work for as long as it goes on."""
        ended, count = self._watch.ended, part * len(self._order.paths)
        while len(ended) < count:
            before = len(ended)
            if not await self._watch.until(lambda: len(ended) > before, STALL_S):  # noqa: B023  # awaited here
                self._trouble(f"no file has ended for {STALL_S:.0f} s: {self._watch.picture().line()}")
                return

    async def _mend(self, killed: str) -> None:
        since_s = time.monotonic()
        if await self._watch.until_whole(MEND_S):
            after_s = time.monotonic() - since_s
            self._screen.line(f"· whole again after {after_s:.1f} s: 3 members, nothing degraded, {self._owner()} owns")
        else:
            self._trouble(f"not whole again {MEND_S:.0f} s after {killed} was killed: {self._watch.picture().line()}")

    def _owner(self) -> str:
        owner = None if self._watch.view is None else self._watch.view.owner
        living = [*self._nodes.living]
        return living[0] if owner is None or owner.name not in living else owner.name

    async def _enqueue_delayed(self) -> str:
        self._taken.ring_at_s = time.monotonic() + RING_IN_S
        async with self._watch.client() as client:
            job = await client.enqueue(ring.name, run_in=RING_IN_S)
        self._screen.line(f"· a delayed job is accepted, due in {RING_IN_S:.0f} s")
        return job.id

    async def _ask_for_results(self, ring_id: str) -> None:
        limit = asyncio.Semaphore(ASKED_AT_ONCE_COUNT)
        until_s = time.monotonic() + RESULTS_S

        async def ask(client: zhero.Client, job: str) -> Any:
            async with limit:
                return await client.result(job, max(1.0, until_s - time.monotonic()))

        async with self._watch.client() as client:
            jobs = [ring_id, *self._jobs]
            answers = await asyncio.gather(*(ask(client, job) for job in jobs), return_exceptions=True)
            taken, missing = self._taken, list[str]()
            for job, answer in zip(jobs, answers, strict=True):
                if isinstance(answer, BaseException):
                    missing.append(f"{job} {self._jobs.get(job, ring.name)}: {type(answer).__name__}: {answer}")
                elif job == ring_id:
                    taken.rang = True
                else:
                    taken.results[self._jobs[job]] = answer
            for it in missing[:5]:
                self._screen.line(f"! no result of {it}")
            told = await (await client.enqueue(where_am_i.name)).outcomes(PATIENCE_S)
            taken.places = told.results()
            view = await client.status()
        taken.members = sorted(it.name for it in view.members if it.standing == "alive")
        self._watch.read()
        taken.entries = self._watch.record.entries

    def _trouble(self, text: str) -> None:
        self._taken.troubles.append(text)
        self._screen.line(f"! {text}")
