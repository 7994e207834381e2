"""Processes that become members: real sockets, real processes, real kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import zhero
from zhero.core.values import NodeId
from zhero.events import MemberEventKind
from zhero.runtime.discovery import Directory, Entry
from zhero.runtime.seeds import LOOK_EVERY_S

PATIENCE_S = 30.0
CLUSTER = "members-test"
QUICK: dict[str, Any] = {"cluster": CLUSTER, "profile": "fast", "drain_timeout": 5}

CHILD = """
import asyncio, ctypes, json, sys, time
import zhero

@zhero.task
async def block(how: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    if how == "sleep":
        time.sleep(seconds)
    if how == "hold":  # in C, with the interpreter's lock: no thread of Python runs meanwhile
        ctypes.PyDLL(None).sleep(int(seconds))
    while time.monotonic() < until:
        pass

async def main():
    commands = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: commands.put_nowait(sys.stdin.readline().split()))
    async with zhero.Node([block], **json.loads(sys.argv[1])):
        while (command := await commands.get()) and command[0] != "stop":
            await block.enqueue(command[0], float(command[1]))

asyncio.run(main())
"""
"""A node that stops, or blocks its loop for a while, when it is told so."""

NURSERY = """
import asyncio, json, os, signal, sys
import zhero

async def live():
    async with zhero.Node([], **json.loads(sys.argv[1])):
        await asyncio.Event().wait()

pid = 0
for line in iter(sys.stdin.readline, ""):
    if pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    pid = os.fork()
    if not pid:
        os.close(0)
        asyncio.run(live())
    print(pid, flush=True)
if pid:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
"""Kills its node and starts it again with each line, without the cost of a new interpreter."""


@zhero.task
async def add(a: int, b: int) -> int:
    return a + b


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so, for a bounded time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def alive(node: zhero.Node) -> set[str]:
    return {it.name for it in node.members() if it.standing == "alive"}


async def joined(*nodes: zhero.Node, others: tuple[str, ...] = ()) -> None:
    """Until these know one another, and those others."""
    names = {node.name for node in nodes} | set(others)
    await until(lambda: all(alive(node) == names for node in nodes))


async def beats_of(name: str, *nodes: zhero.Node) -> None:
    """Until these have heard several beats of that member: before, there is no connection that could be lost."""
    for node in nodes:
        for _ in range(3):
            silent_ms = 0

            def fell(node: zhero.Node = node) -> bool:
                nonlocal silent_ms
                before, silent_ms = silent_ms, next(it.silent_ms for it in node.members() if it.name == name)
                return silent_ms < before

            await until(fell)


async def next_event(events: zhero.Events, *kinds: str) -> Any:
    """The next event about a member that is of one of these kinds."""
    async with asyncio.timeout(PATIENCE_S):
        async for event in events:
            if isinstance(event, zhero.MemberEvent) and event.kind in kinds:
                return event
    raise AssertionError(f"the node stopped before any of {kinds}")


@contextlib.asynccontextmanager
async def child(name: str, **given: Any) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A node in a process of its own; gone in the end, whatever happens."""
    settings = json.dumps({**QUICK, "name": name, **given})
    process = subprocess.Popen([sys.executable, "-c", CHILD, settings], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def tell(process: subprocess.Popen[bytes], command: str) -> None:
    assert process.stdin is not None
    process.stdin.write(command.encode() + b"\n")
    process.stdin.flush()


def two_free_ports() -> int:
    """A port that is free, as the one above it is."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


# --- finding one another ------------------------------------------------------------------------------------------


def test_nodes_of_one_user_find_one_another_with_no_settings() -> None:
    async def main() -> None:
        async with (
            zhero.Node([add], name="one", **QUICK) as one,
            zhero.Node([add], name="two", **QUICK) as two,
            zhero.Node([], name="three", **QUICK) as three,
        ):
            await joined(one, two, three)
            for node in (one, two, three):
                found = {it.name: it for it in node.members()}
                assert [name for name, it in found.items() if it.is_me] == [node.name]
                assert sorted(it.joined for it in found.values()) == [1, 2, 3]
                assert all(it.pid == os.getpid() and it.slots == 8 for it in found.values() if it.is_me)
                await until(lambda node=node: all("runAction" in it.tasks for it in node.members()))
                assert "add" in {it.name: it for it in node.members()}["two"].tasks
                assert {it.name for it in (await node.status()).members} == {"one", "two", "three"}

    asyncio.run(main())


def test_nodes_that_start_at_once_become_one_cluster() -> None:
    async def main() -> None:
        nodes = [zhero.Node([], name=f"node-{number}", **QUICK) for number in range(6)]
        async with contextlib.AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(node) for node in nodes))
            await joined(*nodes)
            await until(lambda: len({tuple(sorted(it.joined for it in node.members())) for node in nodes}) == 1)

    asyncio.run(main())


def test_nodes_in_two_processes_and_in_two_clusters() -> None:
    async def main() -> None:
        async with (
            zhero.Node([add], name="one", **QUICK) as one,
            zhero.Node([add], name="stranger", **QUICK | {"cluster": "another"}) as stranger,
            child("two") as process,
        ):
            await joined(one, others=("two",))
            assert {it.name: it.pid for it in one.members()}["two"] == process.pid
            assert alive(stranger) == {"stranger"}

    asyncio.run(main())


def test_a_node_joins_by_address_and_by_name_and_not_only_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setenv("ZHERO_SECRET", "one passphrase for all")
        port = two_free_ports()
        late = {"runtime_dir": tmp_path / "elsewhere"}  # where nobody sees it
        third = {"runtime_dir": tmp_path / "a third", "join": ["tcp://127.0.0.1:1", f"tcp://127.0.0.1:{port}"]}
        async with (
            zhero.Node([], name="early", join=f"tcp://localhost:{port}", **QUICK) as early,
            zhero.Node([], name="late", bind=f"tcp://127.0.0.1:{port}", **QUICK | late) as node,
        ):
            await joined(early, node)
            async with zhero.Node([], name="third", **QUICK | third) as other:
                await joined(early, node, other)

    asyncio.run(main())


def test_what_a_kill_left_behind_in_the_directory_is_removed_and_holds_nobody_up(own_runtime_dir: Path) -> None:
    async def main() -> None:
        async with child("gone") as process:
            await until(lambda: list(own_runtime_dir.glob("*/*.json")))
            process.kill()
            process.wait()
        (left,) = own_runtime_dir.glob("*/*.json")
        async with zhero.Node([add], name="one", **QUICK) as one:
            assert not left.exists()
            assert await (await add.enqueue(1, 2)).result(PATIENCE_S) == 3
            assert alive(one) == {"one"}

    asyncio.run(main())


def test_a_node_whose_file_was_tidied_away_shows_itself_again(own_runtime_dir: Path) -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK):
            (file,) = own_runtime_dir.glob("*/*.json")
            file.unlink()
            assert LOOK_EVERY_S < PATIENCE_S
            await until(file.exists)

    asyncio.run(main())


def test_a_neighbour_of_another_kind_is_no_obstacle(own_runtime_dir: Path) -> None:
    async def main() -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            endpoint = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
            Directory(own_runtime_dir, CLUSTER).announce(Entry(NodeId(bytes(16)), 1, "mute", endpoint, 1, "0", 1))
            async with zhero.Node([add], name="one", **QUICK) as one, zhero.Node([], name="two", **QUICK) as two:
                await joined(one, two)
                assert await (await add.on(one).enqueue(1, 2)).result(PATIENCE_S) == 3

    asyncio.run(main())


def test_what_is_advertised_is_what_others_dial() -> None:
    async def main() -> None:
        port = two_free_ports()
        where = {"bind": f"tcp://127.0.0.1:{port}", "advertise": f"tcp://localhost:{port}"}
        async with zhero.Node([], name="one", **QUICK) as one, zhero.Node([], name="two", **QUICK, **where) as two:
            await joined(one, two)
            assert {it.name: it.endpoint for it in one.members()}["two"] == f"tcp://localhost:{port}"
            await until(lambda: all(it.silent_ms < 1_000 for it in one.members()))

    asyncio.run(main())


def test_the_port_for_beats_is_the_one_above_and_its_absence_is_told() -> None:
    async def main() -> None:
        port = two_free_ports()
        with socket.socket() as other:
            other.bind(("127.0.0.1", port + 1))
            other.listen()
            with pytest.raises(zhero.BindFailed, match=f"beats.*one above.*{port + 1}.*choose another port"):
                await zhero.Node([], bind=f"tcp://127.0.0.1:{port}", **QUICK).__aenter__()
        with pytest.raises(zhero.BindFailed, match="the port above"):
            await zhero.Node([], bind="tcp://127.0.0.1:65535", **QUICK).__aenter__()
        async with zhero.Node([], bind=f"tcp://127.0.0.1:{port}", **QUICK):  # nothing was left behind
            pass

    asyncio.run(main())


def test_zhero_run_twice_is_a_cluster_of_two(tmp_path: Path) -> None:
    (tmp_path / "zhero.toml").write_text(f'cluster = "{CLUSTER}"\nprofile = "fast"\n')
    (tmp_path / "tasks").mkdir()

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            runs: list[subprocess.Popen[bytes]] = []
            for name in ("a", "b"):
                run = subprocess.Popen(
                    [sys.executable, "-m", "zhero", "run", "--name", name], cwd=tmp_path, stderr=subprocess.DEVNULL
                )
                stack.enter_context(run)
                stack.callback(run.kill)
                runs.append(run)
            async with zhero.Node([], name="one", **QUICK) as one:
                await joined(one, others=("a", "b"))
                assert {it.pid for it in one.members()} == {os.getpid(), *(run.pid for run in runs)}
                for run in runs:
                    run.terminate()
                await joined(one)
                assert [await asyncio.to_thread(run.wait, PATIENCE_S) for run in runs] == [0, 0]

    asyncio.run(main())


# --- the end of a member ------------------------------------------------------------------------------------------


def test_a_killed_process_is_dead_to_all_others() -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK) as one, zhero.Node([], name="two", **QUICK) as two:
            events = one.events(), two.events()
            for _ in range(3):
                async with child("three") as process:
                    await joined(one, two, others=("three",))
                    await beats_of("three", one, two)
                    process.kill()
                    for its in events:
                        died = await next_event(its, "died", "left", "suspected")
                        assert (died.kind, died.name) == ("died", "three")
                        assert died.detail in ("refused", "told")  # of the two, not "silent": that takes seconds
                    assert "three" not in alive(one) | alive(two)

    asyncio.run(main())


def test_a_death_is_noticed_with_two_nodes_and_by_the_refused_connect() -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK) as one, child("two") as process:
            events = one.events()
            await joined(one, others=("two",))
            await beats_of("two", one)
            process.kill()
            died = await next_event(events, "died", "left", "suspected")
            assert (died.kind, died.detail) == ("died", "refused")

    asyncio.run(main())


def test_a_process_that_starts_again_on_the_same_port_is_another_member() -> None:
    async def main() -> None:
        port = two_free_ports()
        bind = f"tcp://127.0.0.1:{port}"
        async with zhero.Node([], name="one", **QUICK) as one, zhero.Node([], name="two", **QUICK) as two:
            ids: list[str] = []
            for _ in range(4):
                async with child("three", bind=bind) as process:

                    def is_here(node: zhero.Node) -> bool:
                        found = [it for it in node.members() if it.name == "three" and it.standing == "alive"]
                        return [it.pid for it in found] == [process.pid]

                    await until(lambda: is_here(one) and is_here(two))
                    ids += [it.id for it in one.members() if it.name == "three"]
                    process.kill()
                    process.wait()
            assert len(set(ids)) == len(ids) == 4

    asyncio.run(main())


def test_a_process_that_is_stopped_and_goes_on_is_a_member_again() -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK) as one, child("two") as process:
            await joined(one, others=("two",))
            events = one.events()
            process.send_signal(signal.SIGSTOP)
            try:
                died = await next_event(events, "died", "left")
                assert (died.kind, died.name) == ("died", "two")
            finally:
                process.send_signal(signal.SIGCONT)
            await joined(one, others=("two",))

    asyncio.run(main())


def test_a_node_that_stops_has_left() -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK) as one:
            events = one.events()
            async with zhero.Node([], name="two", **QUICK) as two:
                await joined(one, two)
            left = await next_event(events, "left", "died")
            assert (left.kind, left.name) == ("left", "two")
            async with child("three") as process:
                await joined(one, others=("three",))
                await beats_of("three", one)  # one that stops before it has heard that it is taken in says no farewell
                tell(process, "stop")
                left = await next_event(events, "left", "died")
                assert (left.kind, left.name) == ("left", "three")
                assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0

    asyncio.run(main())


def test_of_two_processes_with_one_identity_one_stops_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr("zhero.runtime.driver.NodeId", lambda raw: NodeId(bytes(range(16))))
        monkeypatch.setenv("ZHERO_SECRET", "one passphrase for both")
        first, second = {"runtime_dir": tmp_path / "first"}, {"runtime_dir": tmp_path / "second"}
        async with zhero.Node([], name="one", **QUICK | first) as one:
            (me,) = one.members()
            async with zhero.Node([], name="two", join=me.endpoint, **QUICK | second) as two:
                ends = [asyncio.ensure_future(node.wait_stopped()) for node in (one, two)]
                stopped, _ = await asyncio.wait(ends, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
                assert stopped == {ends[1]}
                with pytest.raises(zhero.NotRunning):
                    two.members()
                ends[0].cancel()
                assert alive(one) == {"one"}

    asyncio.run(main())


# --- members that are busy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sleep", "spin"])
def test_a_blocked_loop_is_lagging_and_not_dead(how: str) -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK) as one, child("two") as process:
            await joined(one, others=("two",))
            events = one.events()
            tell(process, f"{how} 5")
            kinds = [(await next_event(events, *get_args(MemberEventKind))).kind for _ in range(2)]
            assert kinds == ["lagging", "recovered"]
            assert alive(one) == {"one", "two"}
            tell(process, "stop")
            assert (await next_event(events, *get_args(MemberEventKind))).kind == "left"

    asyncio.run(main())


def test_a_process_whose_interpreter_is_held_for_three_seconds_is_not_dead() -> None:
    async def main() -> None:
        lan = QUICK | {"profile": "lan"}
        async with zhero.Node([], name="one", **lan) as one, child("two", profile="lan") as process:
            await joined(one, others=("two",))
            await beats_of("two", one)
            events = one.events()
            tell(process, "hold 3")
            await until(lambda: max(it.silent_ms for it in one.members()) > 1_500)  # not even its heart beats
            await beats_of("two", one)
            tell(process, "stop")
            assert (await next_event(events, "died", "left")).kind == "left"

    asyncio.run(main())


def test_a_loop_that_is_stuck_for_longer_than_it_may_is_given_up_and_comes_back() -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK) as one, child("two", stuck_after=2) as process:
            await joined(one, others=("two",))
            events = one.events()
            tell(process, "sleep 8")
            died = await next_event(events, "died", "left")
            assert (died.kind, died.name) == ("died", "two")
            await joined(one, others=("two",))

    asyncio.run(main())


# --- what is asked and told ---------------------------------------------------------------------------------------


def test_members_and_owner_can_be_asked_for_from_any_thread() -> None:
    node = zhero.Node([add], name="one", **QUICK)
    with pytest.raises(zhero.NotRunning):
        node.members()
    node.start()
    try:
        (me,) = node.members()
        assert (me.name, me.standing, me.is_me, me.owner, me.joined) == ("one", "alive", True, True, 1)
        assert node.is_owner
        assert node.owner == node.members()[0]
    finally:
        node.stop()
    with pytest.raises(zhero.NotRunning):
        node.members()


def test_events_tell_of_jobs_and_end_with_the_node_and_a_slow_reader_is_told_what_it_missed() -> None:
    async def main() -> None:
        async with zhero.Node([add], name="one", **QUICK) as one:
            events, slow = one.events(), one.events(buffer=2)
            job = await add.enqueue(1, 2)
            assert await job.result(PATIENCE_S) == 3
        told = [event async for event in events if isinstance(event, zhero.JobEvent)]
        assert [(it.kind, it.id, it.name) for it in told] == [
            (kind, job.id, "add") for kind in ("queued", "started", "succeeded")
        ]
        missed = [event async for event in slow]
        assert missed[0] == zhero.EventsDropped(1)
        assert len(missed) == 3

    asyncio.run(main())


def test_events_reach_a_reader_on_another_loop() -> None:
    node = zhero.Node([add], name="one", **QUICK)
    node.start()
    try:

        async def main() -> None:
            events = node.events()
            job = add.enqueue_soon(1, 2)
            async with asyncio.timeout(PATIENCE_S):
                async for event in events:
                    if isinstance(event, zhero.JobEvent) and event.kind == "succeeded":
                        assert event.id == job.id
                        return

        asyncio.run(main())
    finally:
        node.stop()


# --- nothing is left ----------------------------------------------------------------------------------------------


def test_thirty_lives_among_others_leave_no_descriptor_and_no_row() -> None:
    async def main() -> None:
        async with zhero.Node([], name="one", **QUICK) as one, zhero.Node([], name="two", **QUICK) as two:
            await joined(one, two)
            before = 0
            for number in range(30):
                async with zhero.Node([], name="three", **QUICK) as three:
                    await joined(one, two, three)
                await until(lambda: alive(one) == alive(two) == {"one", "two"})
                if number == 4:
                    before = len(os.listdir("/proc/self/fd"))
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    asyncio.run(main())


def test_fifty_kills_and_restarts_of_a_process_leave_nothing_behind_in_another() -> None:
    """Every other time the next one starts before the death was noticed, and takes the place of the last one."""

    async def main() -> None:
        settings = {**QUICK, "name": "other", "bind": f"tcp://127.0.0.1:{two_free_ports()}"}
        async with (
            zhero.Node([], name="one", **QUICK) as one,
            nursery(settings) as begin,
        ):

            async def begun() -> int:
                pid = await begin()  # its slots are known from its first beat
                await until(lambda: [it.pid for it in one.members() if it.slots and not it.is_me] == [pid])
                return pid

            before: dict[str, int] = {}
            for number in range(50):
                pid = await begun()
                if number == 4:
                    before = what_is_held()
                if number % 2:
                    os.kill(pid, signal.SIGKILL)
                    await until(lambda: len(one.members()) == 1)
            await begun()
            await until(lambda: all(count <= before[what] for what, count in what_is_held().items()))

    asyncio.run(main())


@contextlib.asynccontextmanager
async def nursery(settings: dict[str, Any]) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """What starts a node again, and returns its process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given, told = process.stdin, process.stdout

    async def begin() -> int:
        given.write("again\n")
        given.flush()
        async with asyncio.timeout(PATIENCE_S):
            return int(await asyncio.to_thread(told.readline))

    try:
        yield begin
    finally:
        given.close()
        process.wait(PATIENCE_S)
        told.close()


def what_is_held() -> dict[str, int]:
    """Descriptors and threads of this process, those of libraries too, by their kinds."""
    held = Counter({"threads": len(os.listdir("/proc/self/task")), "descriptors": 0, "sockets": 0})
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            held["descriptors"] += 1
            held["sockets"] += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return held
