"""Events: what becomes one, and who loses what."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest

from zhero import events as module
from zhero.core import facts
from zhero.core.values import Failure, JobId, Life, Member, NodeId, Status
from zhero.events import Event, Events, EventsDropped, JobEvent, MemberEvent, NodeEvent, TaskEvent, event_of
from zhero.lines import line

PATIENCE_S = 10.0
LIFE = Life(NodeId(bytes(range(16))), 1, 0)
MEMBER = Member(LIFE, "web-1", "tcp://10.0.0.7:7040", 1, "0")
JOB = JobId(17)
VALUES: dict[str, Any] = {
    "job": JOB,
    "task": "add",
    "announce": True,
    "run_in_ms": 5,
    "attempt": 2,
    "snoozed": False,
    "failure": Failure("ValueError", "no luck"),
    "status": Status.FAILED,
    "ran_ms": 7,
    "why": "stopped",
    "waiting": 3,
    "peer": LIFE,
    "what": "sent a Pong",
    "member": MEMBER,
    "joined": 4,
    "dead_in_ms": 900,
    "how": facts.Death.REFUSED,
    "age_ms": 1_500,
    "lagging": True,
    "others": 2,
    "span_ms": 3_000,
    "life": LIFE,
    "other": MEMBER,
    "owner": MEMBER,
    "epoch": 3,
    "mine": False,
    "name": "web-2",
    "jobs": 6,
    "copies": 2,
    "is_over": False,
}
KINDS: tuple[type[Any], ...] = get_args(facts.Fact)
SILENT = {facts.DeadLetterDropped, facts.VerdictIgnored, facts.PeerMisbehaved}


def fact(kind: type[Any], **given: Any) -> Any:
    return kind(**{it.name: VALUES[it.name] for it in fields(kind) if it.default is MISSING} | given)


def event(number: int) -> JobEvent:
    return JobEvent("queued", str(number), "add")


async def read(events: Events, count: int) -> list[Event]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(events) for _ in range(count)]


# --- facts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_fact_has_a_line_and_all_but_three_are_an_event(kind: type[Any]) -> None:
    said = line(fact(kind))
    assert said is not None
    assert said[1].startswith(("· ", "! "))
    assert (event_of(fact(kind)) is None) == (kind in SILENT)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (fact(facts.PeerJoined), MemberEvent("joined", "web-1", LIFE.node.hex(), MEMBER.endpoint, "number 4")),
        (fact(facts.PeerDied), MemberEvent("died", "web-1", LIFE.node.hex(), MEMBER.endpoint, "refused")),
        (fact(facts.PeerLeft), MemberEvent("left", "web-1", LIFE.node.hex(), MEMBER.endpoint)),
        (fact(facts.PeerLagging), MemberEvent("lagging", "web-1", LIFE.node.hex(), MEMBER.endpoint, "1500 ms")),
        (
            fact(facts.PeerLagging, lagging=False),
            MemberEvent("recovered", "web-1", LIFE.node.hex(), MEMBER.endpoint),
        ),
        (fact(facts.Joined), NodeEvent("joined", "number 4, 2 others")),
        (
            fact(facts.OwnerChanged),
            MemberEvent("owner_changed", "web-1", LIFE.node.hex(), MEMBER.endpoint, "epoch 3"),
        ),
        (
            fact(facts.OwnerChanged, mine=True),
            MemberEvent("owner_changed", "web-1", LIFE.node.hex(), MEMBER.endpoint, "epoch 3, this node"),
        ),
        (fact(facts.TookOver), NodeEvent("took_over", "web-2", 6)),
        (fact(facts.Degraded), NodeEvent("degraded", jobs=6)),
        (fact(facts.Degraded, jobs=0), NodeEvent("degraded", jobs=0)),
        (fact(facts.JobStarted), JobEvent("started", f"{17:032x}", "add", 2)),
        (fact(facts.JobRetried), JobEvent("retried", f"{17:032x}", "add", 2, 0, "ValueError: no luck")),
        (fact(facts.JobRetried, snoozed=True, failure=None), JobEvent("snoozed", f"{17:032x}", "add", 2)),
        (fact(facts.JobEnded), JobEvent("failed", f"{17:032x}", "add", 2, 7, "ValueError: no luck")),
        (fact(facts.TaskMissing), TaskEvent("missing", "add", "3 jobs wait")),
    ],
    ids=str,
)
def test_an_event_says_what_happened(told: Any, expected: Event) -> None:
    assert event_of(told) == expected


@pytest.mark.parametrize(
    ("told", "level", "text"),
    [
        (fact(facts.OwnerChanged), logging.INFO, "· owner web-1 node=00010203 epoch=3"),
        (fact(facts.OwnerChanged, mine=True), logging.INFO, "· owner web-1 node=00010203 epoch=3: this node"),
        (fact(facts.TookOver), logging.WARNING, "! took over web-2 jobs=6: they are answered for here now"),
        (fact(facts.Degraded), logging.WARNING, "! degraded jobs=6: they have fewer copies than was asked for"),
        (fact(facts.Degraded, jobs=0), logging.INFO, "· degraded jobs=0: all have their copies again"),
    ],
    ids=str,
)
def test_what_becomes_of_copies_and_owner_is_a_line(told: Any, level: int, text: str) -> None:
    assert line(told) == (level, text)


@pytest.mark.parametrize("status", Status)
def test_every_end_of_a_job_is_a_kind_of_event(status: Status) -> None:
    found = event_of(fact(facts.JobEnded, status=status))
    assert isinstance(found, JobEvent)
    assert found.kind in get_args(module.JobEventKind)


# --- the buffer ---------------------------------------------------------------------------------------------------


def test_events_come_in_order_and_end_with_the_node() -> None:
    async def main() -> None:
        events = Events()
        for number in range(3):
            events.push(event(number))
        events.end()
        assert [it async for it in events] == [event(0), event(1), event(2)]

    asyncio.run(main())


def test_a_reader_that_waits_is_woken() -> None:
    async def main() -> None:
        events = Events()
        waiting = asyncio.ensure_future(read(events, 2))
        for number in range(2):
            await asyncio.sleep(0)
            events.push(event(number))
        assert await waiting == [event(0), event(1)]

        async def rest() -> list[Event]:
            return [it async for it in events]

        ending = asyncio.ensure_future(rest())
        await asyncio.sleep(0)
        events.end()
        assert await ending == []

    asyncio.run(main())


def test_what_is_not_read_in_time_is_dropped_the_oldest_first_and_counted() -> None:
    async def main() -> None:
        events = Events(buffer=3)
        for number in range(10):
            events.push(event(number))
        assert await read(events, 4) == [EventsDropped(7), event(7), event(8), event(9)]
        events.push(event(10))
        assert await read(events, 1) == [event(10)]

    asyncio.run(main())


def test_a_buffer_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer"):
        Events(0)


def test_a_reader_on_another_loop_misses_nothing() -> None:
    async def main() -> None:
        events = Events()
        count = 5_000

        def push() -> None:
            for number in range(count):
                events.push(event(number))

        pusher = threading.Thread(target=push, name="pusher")
        pusher.start()
        try:
            assert await read(events, count) == [event(number) for number in range(count)]
        finally:
            pusher.join()

    asyncio.run(main())
