"""Views: what people see of what the core tells."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from zhero import codec
from zhero.core.messages import ClusterStatus, MemberStatus, PlanInfo, Stats
from zhero.core.values import NO_JOB, Failure, JobId, JobInfo, Life, Member, NodeId, Outcome, Standing, State, Status
from zhero.views import ClusterView, JobView, MemberView, StatsView, plain

LIFE = Life(NodeId(bytes(range(16))), 1_700_000_000_000, 0)
MEMBER = Member(LIFE, "web-1", "tcp://127.0.0.1:7040", 42, "0.1.0")


def info(**changes: Any) -> JobInfo:
    return replace(
        JobInfo(
            job=JobId(0xABC),
            task="sendEmail",
            scope="any",
            state=State.READY,
            priority=3,
            params=codec.encode({"to": "ann"}, "params"),
            attempt=0,
            tries=0,
            enqueued_at_ms=1_700_000_000_123,
            run_at_ms=0,
            started_at_ms=0,
            home=LIFE,
            node=None,
            parent=NO_JOB,
            number=0,
            outcome=None,
        ),
        **changes,
    )


def test_a_job_that_waits_has_only_what_it_has_by_then() -> None:
    view = JobView.of(info())
    assert view == JobView(
        id="00000000000000000000000000000abc",
        name="sendEmail",
        scope="any",
        params={"to": "ann"},
        state="ready",
        queue="global",
        priority=3,
        attempt=0,
        tries=0,
        enqueued_at=datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC),
        run_at=None,
        started_at=None,
        node=None,
        parent=None,
        number=0,
        status=None,
        error=None,
        traceback=None,
    )


@pytest.mark.parametrize(
    ("state", "queue"),
    [
        (State.READY, "global"),
        (State.LENT, "local"),
        (State.DELAYED, "delayed"),
        (State.RUNNING, "processing"),
        (State.DEAD, None),
        (State.SPREAD, None),
    ],
)
def test_each_state_shows_the_queue_that_it_belongs_to(state: State, queue: str | None) -> None:
    assert JobView.of(info(state=state)).queue == queue


def test_instants_are_exact_to_the_millisecond() -> None:
    at_ms = 1_893_456_000_001
    view = JobView.of(info(run_at_ms=at_ms, started_at_ms=at_ms))
    assert view.run_at is not None
    assert view.run_at - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(milliseconds=at_ms)
    assert view.started_at == view.run_at


def test_a_node_is_shown_by_its_name_or_else_by_its_first_digits() -> None:
    assert JobView.of(info(node=LIFE), {LIFE: "web-1"}).node == "web-1"
    assert JobView.of(info(node=LIFE)).node == "00010203"


def test_a_part_of_an_all_job_names_the_whole() -> None:
    assert JobView.of(info(parent=JobId(7))).parent == f"{7:032x}"


def test_a_failure_is_told_with_its_kind_and_traceback() -> None:
    view = JobView.of(info(state=State.DEAD, outcome=Outcome(Status.FAILED, b"", Failure("ValueError", "no", "Trace"))))
    assert (view.status, view.error, view.traceback) == ("failed", "ValueError: no", "Trace")


def test_an_end_without_a_failure_has_no_error() -> None:
    view = JobView.of(info(outcome=Outcome(Status.SKIPPED)))
    assert (view.status, view.error, view.traceback) == ("skipped", None, None)


@pytest.mark.parametrize("params", [b"", b"\xc1", b"\x92\x01\x02", b"\xc0"])
def test_params_that_can_not_be_read_do_not_hide_the_job(params: bytes) -> None:
    assert JobView.of(info(params=params)).params == {}


def test_a_view_can_not_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        JobView.of(info()).name = "other"  # type: ignore[misc]


def test_a_job_as_a_dict_is_fit_for_json() -> None:
    params = {"at": datetime(2030, 1, 1, tzinfo=UTC), "raw": b"\x00", "price": Decimal("1.50"), "pair": (1, 2), 3: {4}}
    shown = JobView.of(info(params=codec.encode(params, "params"), run_at_ms=1_893_456_000_000)).to_dict()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["run_at"] == "2030-01-01T00:00:00+00:00"
    assert shown["params"] == {
        "at": "2030-01-01T00:00:00+00:00",
        "raw": "b'\\x00'",
        "price": "Decimal('1.50')",
        "pair": [1, 2],
        "3": "{4}",
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_has_no_form_for_are_shown_as_text(number: float) -> None:
    assert plain([number, 1.5]) == [repr(number), 1.5]


def test_a_very_deep_value_is_cut_off() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    assert json.dumps(plain(deep)).count("[") < 200


def test_the_cluster_shows_its_members_owner_queues_and_schedules() -> None:
    status = ClusterStatus(
        members=[MemberStatus(MEMBER, True, 8, 2, ["sayHello"])],
        queues={"global": 1, "local": 0, "delayed": 2, "processing": 2},
        dead=4,
        plans=[PlanInfo("sayHello", 1000, 7, None, False)],
        missing=["gone"],
        uptime_ms=5000,
    )
    view = ClusterView.of(status)
    assert view.members == (
        MemberView(LIFE.node.hex(), "web-1", "tcp://127.0.0.1:7040", 42, "0.1.0", True, 8, 2, ("sayHello",)),
    )
    assert view.owner == view.members[0]
    assert ClusterView.of(replace(status, members=[MemberStatus(MEMBER, False, 8, 2, [])])).owner is None
    silent = ClusterView.of(replace(status, silent=["web-1"]))
    assert (silent.silent, silent.members[0].answered, view.members[0].answered) == (("web-1",), False, True)
    shown = view.to_dict()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["members"][0]["tasks"] == ["sayHello"]
    assert shown["plans"] == [
        {"name": "sayHello", "frequency_ms": 1000, "number": 7, "due_in_ms": None, "stopped": False}
    ]
    assert shown["missing"] == ["gone"]


def test_the_cluster_counts_the_degraded_jobs_of_the_members_that_are_here() -> None:
    members = [
        MemberStatus(MEMBER, True, 8, 2, [], degraded=2),
        MemberStatus(MEMBER, False, 8, 2, [], Standing.SUSPECT, degraded=1),
        MemberStatus(MEMBER, False, 8, 0, [], Standing.DEAD, degraded=5),
        MemberStatus(MEMBER, False, 8, 0, []),
    ]
    view = ClusterView.of(ClusterStatus(members, {}, 0, [], [], 1))
    assert [member.degraded for member in view.members] == [2, 1, 5, 0]
    assert view.degraded == 3
    assert view.to_dict()["degraded"] == 3


def test_stats_do_not_change_with_what_they_were_made_of() -> None:
    stats = Stats({"started": 1}, {"sayHello": {"started": 1}})
    view = StatsView.of(stats)
    stats.totals["started"] = 2
    stats.tasks["sayHello"]["started"] = 2
    assert view.to_dict() == {"totals": {"started": 1}, "tasks": {"sayHello": {"started": 1}}, "dropped": {}}
