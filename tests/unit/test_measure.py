"""The statistics of the benches: figures worked out by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from bench.measure import (
    Measure,
    Plan,
    Report,
    Spread,
    Wrong,
    chosen,
    column,
    parser,
    percentile,
    ratios,
    rounds,
    run,
    short,
    text,
)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7], 0.5, 7),
        ([7], 0.99, 7),
        ([3, 1, 2], 0.5, 2),
        ([4, 3, 2, 1], 0.5, 2),
        ([4, 3, 2, 1], 0.51, 3),
        ([4, 3, 2, 1], 1, 4),
        (range(1, 101), 0.99, 99),
        (range(1, 102), 0.99, 100),
        (range(1, 1001), 0.99, 990),
        ([5, 5, 5, 9], 0.75, 5),
    ],
)
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(
    values: Sequence[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 0.99, 1.0])
def test_at_least_that_share_lies_at_or_below_a_percentile_and_less_below_it(share: float) -> None:
    values = [(17 * number) % 101 for number in range(101)]
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_a_spread_is_of_values_in_any_order() -> None:
    assert Spread.of([9, 1, 5]) == Spread(min=1, median=5, p99=9, max=9)
    assert Spread.of([2.5]) == Spread(2.5, 2.5, 2.5, 2.5)


def test_a_ratio_is_taken_within_each_round() -> None:
    """The machine is four times slower in the second round: both sides see it, the ratio does not."""
    measure = Measure("name", "other", "us/job", subject=[10, 40, 30], baseline=[1, 4, 2])
    assert ratios(measure.subject, measure.baseline) == [10, 10, 15]
    told = measure.as_json()
    assert told["ratio"] == {"min": 10, "median": 10, "p99": 15, "max": 15}
    assert told["subject"]["median"] == 30
    assert told["baseline"]["median"] == 2
    assert told["rounds"] == 3


def test_a_ratio_needs_both_sides_of_each_round() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def taken_in_turn(plan: Plan, warm_up: bool = True) -> tuple[list[str], list[Measure]]:
    """What was called, and two columns."""
    calls: list[str] = []
    columns = [column("first", "bare", "ms"), column("second", "bare", "ms")]

    async def subject() -> Sequence[float]:
        calls.append("subject")
        return [len(calls), 100]

    async def baseline() -> Sequence[float]:
        calls.append("baseline")
        return [1, 10]

    asyncio.run(rounds(plan, columns, subject, baseline, warm_up))
    return calls, columns


def test_sides_take_turns_in_going_first_and_the_warm_up_is_thrown_away() -> None:
    calls, (first, second) = taken_in_turn(Plan(jobs=1, repeats=3, seconds=60))
    assert calls == ["baseline", "subject"] * 2 + ["subject", "baseline"] + ["baseline", "subject"]
    assert first.subject == [4, 5, 8]
    assert second.subject == [100, 100, 100]
    assert second.baseline == [10, 10, 10]


def test_without_a_warm_up_the_first_round_counts() -> None:
    calls, (first, _) = taken_in_turn(Plan(jobs=1, repeats=1, seconds=60), warm_up=False)
    assert calls == ["baseline", "subject"]
    assert first.subject == [2]


def test_no_more_rounds_than_needed_for_a_spread_when_the_time_is_over() -> None:
    _, (first, _) = taken_in_turn(Plan(jobs=1, repeats=50, seconds=0))
    assert len(first.subject) == 3


def report_of(**counts: tuple[int, int]) -> Report:
    report = Report("question", {"jobs": 1}, [Measure("name", "other", "us/job", [10, 20, 30], [1, 2, 3])])
    for name, (expected, counted) in counts.items():
        report.count(name, expected, counted)
    return report


async def nothing() -> None:
    return None


async def fails() -> None:
    raise Wrong("it did not")


@pytest.mark.parametrize("counted", [9, 11])
def test_a_wrong_count_fails(counted: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(nothing(), report_of(right=(10, 10), runs=(10, counted)), as_json=True) == 1
    told = capsys.readouterr()
    assert told.err == f"wrong count: runs: {counted} instead of 10\n"
    assert json.loads(told.out)["wrong"] == [f"runs: {counted} instead of 10"]


def test_counts_of_all_rounds_are_added_up() -> None:
    report = report_of()
    report.count("runs", 10, 9)
    report.count("runs", 10, 10)
    assert report.counts == {"runs": (20, 19)}


def test_right_counts_are_told_with_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(nothing(), report_of(runs=(10, 10)), as_json=True) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["question"] == "question"
    assert told["options"] == {"jobs": 1}
    assert told["counts"] == {"runs": {"expected": 10, "counted": 10}}
    assert told["wrong"] == []
    assert told["measures"][0]["subject_rounds"] == [10, 20, 30]
    assert {"python", "zhero", "pyzmq", "libzmq", "msgpack", "cores", "system"} <= told["machine"].keys()


def test_what_could_not_be_measured_fails_without_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(), report_of(runs=(10, 10)), as_json=True) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "failed: it did not\n"


def test_the_table_has_a_row_per_measure() -> None:
    question, _, _, head, row, _, counted = text(report_of(runs=(1_000, 1_000))).splitlines()
    assert question == "question"
    assert head.split()[0] == "measure"
    assert row.split() == ["name", "other", "us/job", "20.0", "10.0..30.0", "2.00", "10.0", "10.0..10.0"]
    assert counted == "counted: 1,000 of 1,000"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.1234, "0.123"), (1, "1.00"), (12.345, "12.3"), (123.45, "123"), (12345.6, "12,346")],
)
def test_three_digits_are_shown(value: float, expected: str) -> None:
    assert short(value) == expected


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], Plan(100, 9, 15)),
        (["--quick"], Plan(10, 3, 2)),
        (["--quick", "--jobs", "7"], Plan(7, 3, 2)),
        (["--repeats", "1", "--seconds", "0.5"], Plan(100, 1, 0.5)),
    ],
)
def test_what_is_said_goes_before_the_defaults(argv: list[str], expected: Plan) -> None:
    assert chosen(parser("what", Plan(100, 9, 15), Plan(10, 3, 2)).parse_args(argv)) == expected


@pytest.mark.parametrize("said", ["0", "-1", "many"])
def test_no_jobs_are_refused(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser("what", Plan(1, 1, 1), Plan(1, 1, 1)).parse_args(["--jobs", said])
    assert ended.value.code == 2
    assert "--jobs" in capsys.readouterr().err
