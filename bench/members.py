"""How soon is a dead process dead for all others, and what does it cost to know?

Rows, each beside what it can best be compared with:

- `SIGKILL to dead`: three processes with a node each; one is killed. The row is the later of the two moments at which
  the others count it dead; beside it, when its port first refuses a plain connect: nobody can know it earlier.
- `SIGSTOP to dead`: the same for a process that is stopped, whose sockets stay open; beside it the span that the
  profile promises: silence, ping and suspicion, once the other one has confirmed it.
- `chatter`: bytes that a node hands to TCP per second while nothing happens, beside its beats alone. Taken from the
  system (`TCP_INFO`), so only on Linux. Headers of TCP and IP come on top.
- `idle cpu`: CPU time that such a node takes, beside one that is alone in its cluster, in a process of its own.
- `one view`: simulated nodes that start within 50 ms and know the first one, until all believe the same; beside three
  such nodes. Virtual time, and CPU time of the simulator with all its checks.

A moment is read from the clock of the system, which all processes share.

    python -m bench.members [--quick] [--json] [--repeats kills] [--seconds s] [--profile name] [--only part]...
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import math
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zhero
from zhero import wire
from zhero.config import PROFILES, Profile
from zhero.core.messages import Beat, Frame
from zhero.core.values import Life, NodeId
from zhero.runtime.discovery import address_of
from zhero.sim.members import disagreement
from zhero.sim.scene import Scene
from zhero.sim.world import World

from .measure import Plan, Report, Wrong, chosen, column, parser, run

PLAN = Plan(jobs=1, repeats=20, seconds=20)
QUICK = Plan(jobs=1, repeats=2, seconds=1)
"""`repeats`: kills; `seconds`: how long chatter and CPU are looked at, each time."""
PARTS = ("kill", "stop", "chatter", "sim")
CLUSTER = "bench"
STOPS, LOOKS, VIEWS = 3, 3, 3
"""Rounds of the other rows; with --quick one."""
CROWDS = {3: 3, 10: 5, 50: 5}
"""Nodes -> processes that they are spread over."""
SIMULATED = {50: VIEWS, 200: 1}
"""Nodes -> rounds: 200 of them take a minute of CPU."""
BEATS_HEARD = 4
"""So many beats nodes get to connect after they have met: a connection that is not there can't be lost."""
CHILD_MAX_S = 120.0
"""After that whatever is waited for fails the bench."""
VIRTUAL_MAX_US = 120_000_000
_BYTES_ACKED_AT = 120
"""Place of `tcpi_bytes_acked` in `struct tcp_info`."""
_FRAME_HEADER_BYTES = 2
"""Of ZMTP, for a message below 256 bytes."""


# --- in a process with nodes --------------------------------------------------------------------------------------


def said_bytes() -> int:
    """Bytes of the TCP connections of this process that have arrived at the other end."""
    total = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6):
                    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += struct.unpack_from("Q", info, _BYTES_ACKED_AT)[0]
        except OSError:  # closed meanwhile
            continue
    return total


def cpu_s() -> float:
    """CPU time of this process so far, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def be(names: Sequence[str], folder: str, profile: str) -> None:
    """Be these nodes: tell of each death, and answer each line of stdin with how things are."""
    logging.getLogger("zhero").setLevel(logging.CRITICAL)  # deaths are what is looked for
    loop, asked = asyncio.get_running_loop(), asyncio.Queue[str]()
    loop.add_reader(sys.stdin, lambda: asked.put_nowait(sys.stdin.readline()))

    async def watch(node: zhero.Node, events: zhero.Events) -> None:
        async for event in events:
            if isinstance(event, zhero.MemberEvent) and event.kind == "died":
                tell({"at": time.monotonic(), "by": node.name, "dead": event.name})

    async with contextlib.AsyncExitStack() as stack:
        nodes = [zhero.Node([], name=name, cluster=CLUSTER, runtime_dir=folder, profile=profile) for name in names]
        for node in nodes:
            await stack.enter_async_context(node)
        watching = [asyncio.ensure_future(watch(node, node.events())) for node in nodes]
        while await asked.get():
            alive = [sum(it.standing == "alive" for it in node.members()) for node in nodes]
            me = {it.name: it.endpoint for node in nodes for it in node.members() if it.is_me}
            said = said_bytes() if sys.platform == "linux" else 0
            tell({"alive": alive, "endpoints": me, "said_bytes": said, "cpu_s": cpu_s(), "at": time.monotonic()})
        for one in watching:
            one.cancel()


def tell(what: dict[str, Any]) -> None:
    """One line to whoever measures."""
    print(json.dumps(what), flush=True)


# --- beside them --------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Child:
    """A process with nodes. `died_at`: who counted whom dead, and when."""

    names: list[str]
    process: asyncio.subprocess.Process
    died_at: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    answers: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue[dict[str, Any]])

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            if "dead" in told:
                self.died_at.setdefault((told["by"], told["dead"]), told["at"])
            else:
                self.answers.put_nowait(told)

    async def ask(self) -> dict[str, Any]:
        """How things are there."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"?\n")
        return await self.answers.get()


class Herd:
    """Processes with nodes of one cluster; `close` ends those that are left."""

    def __init__(self, folder: str, profile: str) -> None:
        self.profile = profile
        self.children: list[Child] = []
        self._folder = folder
        self._listening: dict[Child, asyncio.Task[None]] = {}

    async def start(self, names: list[str]) -> Child:
        """A process with nodes of these names."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.members", "--folder", self._folder, "--profile", self.profile),
            *(option for name in names for option in ("--be", name)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        child = Child(names, process)
        self.children.append(child)
        self._listening[child] = asyncio.create_task(child.listen())
        return child

    async def agree(self, count: int, heard: bool = True) -> None:
        """Until each node counts so many alive, and has `heard` the others for a while."""
        await until(lambda: self._count(count), f"{count} nodes do not find one another")
        if heard:
            await asyncio.sleep(BEATS_HEARD * PROFILES[self.profile].beat_ms / 1000)

    async def _count(self, count: int) -> bool:
        told = await asyncio.gather(*(child.ask() for child in self.children))
        return all(alive == count for it in told for alive in it["alive"])

    async def remove(self, child: Child) -> None:
        """End it, however it is."""
        self.children.remove(child)
        if child.process.returncode is None:
            child.process.kill()
        await child.process.wait()
        await self._listening.pop(child)

    async def close(self) -> None:
        for child in list(self.children):
            await self.remove(child)


@contextlib.asynccontextmanager
async def herd(profile: str) -> AsyncGenerator[Herd]:
    """A cluster without processes yet."""
    with tempfile.TemporaryDirectory(prefix="zhero-bench-") as folder:
        made = Herd(folder, profile)
        try:
            yield made
        finally:
            await made.close()


async def until(condition: Callable[[], Any], otherwise: str) -> None:
    """Wait until something is so; the condition may be a coroutine function.

    Raises:
        Wrong: it is not, for too long.
    """
    try:
        async with asyncio.timeout(CHILD_MAX_S):
            while True:
                so = condition()
                if await so if asyncio.iscoroutine(so) else so:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise Wrong(otherwise) from None


# --- deaths -------------------------------------------------------------------------------------------------------


async def refused_after_s(endpoint: str, since: float) -> float:
    """When a plain connect is first refused, in s since then."""
    host, port = address_of(endpoint) or ("", 0)
    deadline = time.monotonic() + CHILD_MAX_S
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            return time.monotonic() - since
        except ConnectionError:  # taken by a listener that is on its way out
            continue
        writer.close()
        await asyncio.sleep(0.001)
    raise Wrong(f"{endpoint} goes on listening after its process was killed")


async def die(of: Herd, number: int, sign: signal.Signals, report: Report) -> tuple[float, float]:
    """One of three is killed or stopped.

    Returns:
        Ms until both others count it dead; of a kill, ms until its port refuses connects.
    """
    victim = await of.start([f"victim-{number}"])
    others = [child for child in of.children if child is not victim]
    await of.agree(3)
    endpoint = (await victim.ask())["endpoints"][victim.names[0]]
    since = time.monotonic()
    os.kill(victim.process.pid, sign)
    refused_s = await refused_after_s(endpoint, since) if sign is signal.SIGKILL else 0.0
    keys = [(child, (name, victim.names[0])) for child in others for name in child.names]
    await until(lambda: all(key in child.died_at for child, key in keys), f"{victim.names[0]} is never counted dead")
    await of.remove(victim)
    report.count(f"counted dead after {sign.name}", len(keys), len(keys))
    return 1e3 * (max(child.died_at[key] for child, key in keys) - since), 1e3 * refused_s


async def measure_deaths(profile: str, sign: signal.Signals, rounds: int, report: Report) -> None:
    """Some deaths, of a new process each."""
    killed = sign is signal.SIGKILL
    measure = column(f"{sign.name} to dead", "port refuses" if killed else "promised", "ms")
    report.measures.append(measure)
    async with herd(profile) as of:
        for name in ("one", "two"):
            await of.start([name])
        for number in range(rounds):
            taken_ms, refused_ms = await die(of, number, sign, report)
            measure.subject.append(taken_ms)
            measure.baseline.append(refused_ms if killed else promised_ms(PROFILES[profile], 3))


def promised_ms(profile: Profile, members: int) -> float:
    """From the last sign of life to the death, where others have confirmed the suspicion."""
    return profile.silence_ms + profile.ping_ms + profile.suspicion_ms * max(1.0, math.log10(members))


# --- what it costs to know ----------------------------------------------------------------------------------------


def beats_bytes_per_s(nodes: int, profile: Profile) -> float:
    """What a node's beats alone take."""
    life = Life(NodeId(bytes(16)), time.time_ns() // 1_000_000, 0)
    beat = Beat(1_000, nodes, (1 << 64) - 1, (1 << 64) - 1, 8, 0, 0)
    size = len(wire.encode(Frame(life, None, [beat]), wire.cluster_tag(CLUSTER))) + _FRAME_HEADER_BYTES
    return size * (nodes - 1) * 1000 / profile.beat_ms


async def watched(children: Sequence[Child], seconds: float) -> tuple[float, float]:
    """Bytes and ms of CPU that a node of these processes takes per second, over so many seconds."""
    before = [await child.ask() for child in children]
    await asyncio.sleep(seconds)
    after = [await child.ask() for child in children]
    said = cpu = 0.0
    for was, now in zip(before, after, strict=True):
        said += (now["said_bytes"] - was["said_bytes"]) / (now["at"] - was["at"])
        cpu += 1e3 * (now["cpu_s"] - was["cpu_s"]) / (now["at"] - was["at"])
    nodes = sum(len(child.names) for child in children)
    return said / nodes, cpu / nodes


async def measure_chatter(plan: Plan, profile: str, nodes: int, looks: int, report: Report) -> None:
    """So many idle nodes, and one that is alone."""
    chatter = column(f"chatter, {nodes} nodes", "beats alone", "bytes/s per node")
    idle = column(f"idle cpu, {nodes} nodes", "one alone", "ms/s per node")
    report.measures += [chatter, idle] if sys.platform == "linux" else [idle]
    async with herd(profile) as alone, herd(profile) as of:
        await alone.start(["alone"])
        count = CROWDS[nodes]
        for number in range(count):
            await of.start([f"node-{it}" for it in range(number, nodes, count)])
        await of.agree(nodes)
        await alone.agree(1)
        for _ in range(looks):
            (said, cpu), (_, cpu_alone) = await asyncio.gather(
                watched(of.children, plan.seconds), watched(alone.children, plan.seconds)
            )
            chatter.subject.append(said)
            chatter.baseline.append(beats_bytes_per_s(nodes, PROFILES[profile]))
            idle.subject.append(cpu)
            idle.baseline.append(cpu_alone)
        told = [await child.ask() for child in of.children]
        report.count(f"still counted alive, {nodes} nodes", nodes * nodes, sum(sum(it["alive"]) for it in told))


# --- simulated ----------------------------------------------------------------------------------------------------


def one_view(nodes: int, seed: int, profile: str, report: Report) -> tuple[float, float]:
    """Virtual ms until so many simulated nodes believe the same, and seconds of CPU."""
    scene = Scene(nodes=nodes, hosts=nodes, profile=profile, seeds="first", idle=True)
    gc.collect()
    gc.disable()  # what a world holds grows until its end
    try:
        began_s = time.process_time()
        world = World(seed, loaded=False, scene=scene)
        world.start()
        world.run_until(VIRTUAL_MAX_US, lambda: len(world.living) == nodes and not disagreement(world.living))
        taken_s = time.process_time() - began_s
    finally:
        gc.enable()
    report.count(f"of one view, {nodes} simulated nodes", 1, not disagreement(world.living))
    return world.now_us / 1e3, taken_s


async def measure_views(profile: str, nodes: int, rounds: int, report: Report) -> None:
    """So many simulated nodes, and three."""
    virtual = column(f"one view, {nodes} simulated", "3 simulated", "virtual ms")
    cpu = column(f"one view, {nodes} simulated", "3 simulated", "s of cpu")
    report.measures += [virtual, cpu]
    for seed in range(rounds):
        for measures, count in (("subject", nodes), ("baseline", 3)):
            virtual_ms, cpu_taken_s = one_view(count, seed, profile, report)
            getattr(virtual, measures).append(virtual_ms)
            getattr(cpu, measures).append(cpu_taken_s)


# --- all of it ----------------------------------------------------------------------------------------------------


async def measure_all(plan: Plan, quick: bool, profile: str, parts: Sequence[str], report: Report) -> None:
    """The parts that are asked for, in their order."""
    if "kill" in parts:
        await measure_deaths(profile, signal.SIGKILL, plan.repeats, report)
    if "stop" in parts:
        await measure_deaths(profile, signal.SIGSTOP, 1 if quick else STOPS, report)
    if "chatter" in parts:
        for nodes in (3, 10) if quick else CROWDS:
            await measure_chatter(plan, profile, nodes, 1 if quick else LOOKS, report)
    if "sim" in parts:
        for nodes, rounds in {50: 1}.items() if quick else SIMULATED.items():
            await measure_views(profile, nodes, rounds, report)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and tell; returns the exit code."""
    assert __doc__ is not None
    made = parser(__doc__, PLAN, QUICK)
    made.add_argument("--profile", choices=PROFILES, help="of the nodes; default lan, quick fast")
    made.add_argument("--only", action="append", choices=PARTS, help="this part; again for more; default: all")
    made.add_argument("--be", action="append", metavar="NAME", help="be a process with nodes of these names")
    made.add_argument("--folder", type=Path, help="runtime directory of that process")
    args = made.parse_args(argv)
    plan, profile = chosen(args), args.profile or ("fast" if args.quick else "lan")
    if args.be is not None:
        asyncio.run(be(args.be, str(args.folder), profile))
        return 0
    parts: list[str] = args.only or list(PARTS)
    options = {"repeats": plan.repeats, "seconds": plan.seconds, "profile": profile, "only": parts}
    report = Report("members: how soon a death is known to all, and what it costs to know", options)
    return run(measure_all(plan, args.quick, profile, parts, report), report, args.json)


if __name__ == "__main__":
    sys.exit(main())
