"""In which order ready jobs are claimed."""

from __future__ import annotations

from collections.abc import Container

import pytest

from zhero.core.due import DueQueue
from zhero.core.ready import LOWEST_EVERY, ReadyLines, ReadyQueue
from zhero.core.values import Header, JobId, Life, NodeId

ME, OTHER = (Life(NodeId(bytes([number]) * 16), 1, 0) for number in range(2))


class Everything(Container[str]):
    def __contains__(self, task: object) -> bool:
        return True


ALL = Everything()


def ids(*numbers: int) -> list[JobId]:
    return [JobId(number) for number in numbers]


class Ready(set[JobId]):
    """Which jobs are ready."""

    def __call__(self, job: JobId) -> bool:
        return job in self


@pytest.fixture
def ready() -> Ready:
    return Ready(ids(*range(10_000)))


@pytest.fixture
def queue() -> ReadyQueue:
    return ReadyQueue()


# --- one queue --------------------------------------------------------------------------------------------------------


def test_within_a_task_it_is_first_in_first_out(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("mail", 0, ids(1, 2))
    queue.push("mail", 0, ids(3))
    assert queue.take(2, ready, ALL) == [1, 2]
    assert queue.take(2, ready, ALL) == [3]
    assert queue.take(2, ready, ALL) == []


def test_what_came_back_goes_first(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("mail", 0, ids(1, 2))
    queue.push_front("mail", 0, JobId(3))
    assert queue.take(3, ready, ALL) == [3, 1, 2]


def test_higher_priority_goes_first(queue: ReadyQueue, ready: Ready) -> None:
    for number, priority in enumerate((0, -3, 100, 5)):
        queue.push("mail", priority, ids(number))
    assert queue.take(9, ready, ALL) == [2, 3, 0, 1]


def test_within_a_priority_the_tasks_take_turns(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("flood", 0, ids(1, 2, 3, 4))
    queue.push("mail", 0, ids(11, 12))
    queue.push("news", 0, ids(21))
    assert queue.take(9, ready, ALL) == [1, 11, 21, 2, 12, 3, 4]


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_every_priority_has_its_turn_however_full_the_others_are(queue: ReadyQueue, ready: Ready, levels: int) -> None:
    for level in range(levels):
        queue.push("mail", level, ids(*(level * 1000 + place for place in range(900))))
    claims = (levels - 1) * LOWEST_EVERY * 4
    taken = queue.take(claims, ready, ALL)
    counts = [sum(job // 1000 == level for job in taken) for level in range(levels)]
    assert counts == [4] * (levels - 1) + [claims - 4 * (levels - 1)]


def test_a_task_that_nobody_can_run_holds_up_nothing(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("gone", 9, ids(1))
    queue.push("gone", 0, ids(2))
    queue.push("mail", 0, ids(3))
    queue.push("mail", -9, ids(4))
    assert queue.take(9, ready, {"mail"}) == [3, 4]
    assert queue.take(9, ready, ALL) == [1, 2]


def test_stale_ids_are_passed_over_and_cost_no_turn(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("mail", 0, ids(1, 2, 3))
    queue.push("news", 0, ids(11, 12))
    ready -= {JobId(1), JobId(2)}
    assert queue.take(9, ready, ALL) == [3, 11, 12]


def test_an_id_that_stands_in_line_twice_is_claimed_once(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("mail", 0, ids(1, 2, 1))
    assert queue.take(3, ready, ALL) == [1, 2]


def test_thousands_of_tasks_whose_jobs_are_gone_are_passed_over(queue: ReadyQueue, ready: Ready) -> None:
    for number in range(3000):
        queue.push(f"task {number}", 0, ids(number))
    queue.push("last", -1, ids(9000))
    ready -= set(ids(*range(3000)))
    assert queue.take(1, ready, ALL) == [9000]
    assert len(queue) == 0


def test_a_task_waits_only_as_long_as_one_of_its_jobs_is_ready(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("mail", 0, ids(1, 2))
    queue.push("mail", 5, ids(3))
    queue.push("news", 0, ids(11))
    assert queue.waiting(ready) == {"mail": 3, "news": 1}
    ready -= {JobId(1), JobId(3), JobId(11)}
    assert queue.waiting(ready) == {"mail": 1}
    ready -= {JobId(2)}
    assert queue.waiting(ready) == {}
    assert len(queue) == 0


def test_pruning_leaves_what_is_ready_in_its_order(queue: ReadyQueue, ready: Ready) -> None:
    queue.push("mail", 0, ids(1, 2, 3, 2))
    queue.push("news", 0, ids(11))
    queue.push("mail", 5, ids(4))
    ready -= {JobId(1), JobId(4), JobId(11)}
    queue.prune(ready)
    assert (len(queue), list(queue)) == (2, [2, 3])
    assert queue.take(9, ready, ALL) == [2, 3]


# --- all lines of a slice ---------------------------------------------------------------------------------------------

MAIL, CLEAN = Header("mail"), Header("clean", "all")


@pytest.fixture
def lines(ready: Ready) -> ReadyLines:
    return ReadyLines(ready)


def test_a_part_is_only_for_its_member(lines: ReadyLines) -> None:
    lines.push(CLEAN, ids(1), ME)
    lines.push(CLEAN, ids(2), OTHER)
    assert lines.take(9, ME, ALL) == [1]
    assert lines.take(9, ME, ALL) == []
    assert lines.take(9, OTHER, ALL) == [2]


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_parts_and_other_jobs_take_turns(lines: ReadyLines, at_once: int) -> None:
    lines.push(MAIL, ids(*range(50)), None)
    lines.push(CLEAN, ids(*range(100, 150)), ME)
    taken = [job for _ in range(24 // at_once) for job in lines.take(at_once, ME, ALL)]
    parts = [job for job in taken if job >= 100]
    assert len(parts) == 12
    assert parts == sorted(parts)


def test_either_of_them_has_all_the_room_that_the_other_leaves(lines: ReadyLines) -> None:
    lines.push(MAIL, ids(1), None)
    lines.push(CLEAN, ids(11, 12, 13), ME)
    assert sorted(lines.take(4, ME, ALL)) == [1, 11, 12, 13]


def test_a_part_whose_member_lost_the_task_holds_up_nothing(lines: ReadyLines) -> None:
    lines.push(CLEAN, ids(1), ME)
    lines.push(MAIL, ids(2), None)
    assert lines.take(9, ME, {"mail"}) == [2]
    assert lines.waiting() == {"clean": 1}
    assert lines.take(9, ME, ALL) == [1]


def test_what_is_to_be_spread_is_lent_to_nobody(lines: ReadyLines) -> None:
    lines.push(CLEAN, ids(1, 2), None)
    assert lines.take(9, ME, ALL) == []
    assert lines.take_to_spread({"mail"}) == []
    assert lines.waiting() == {"clean": 2}
    assert lines.take_to_spread(ALL) == [1, 2]
    assert lines.take_to_spread(ALL) == []


def test_pruning_reaches_every_line(lines: ReadyLines, ready: Ready) -> None:
    lines.push(MAIL, ids(1, 2), None)
    lines.push(CLEAN, ids(3, 4), None)
    lines.push(CLEAN, ids(5, 6), ME)
    lines.push(CLEAN, ids(7), OTHER)
    ready -= set(ids(1, 3, 5, 7))
    lines.prune()
    assert sorted(lines) == [2, 4, 6]
    assert len(lines) == 3


# --- by time ----------------------------------------------------------------------------------------------------------


class Waiting(dict[JobId, int]):
    """For which instant each job waits."""

    def __call__(self, due_at_ms: int, job: JobId) -> bool:
        return self.get(job) == due_at_ms


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def due_queue(waiting: Waiting, *places: tuple[int, int]) -> DueQueue:
    queue = DueQueue(waiting)
    for due_at_ms, number in places:
        waiting[JobId(number)] = due_at_ms
        queue.push(due_at_ms, JobId(number))
    return queue


def test_jobs_become_due_in_the_order_of_their_times_and_not_before(waiting: Waiting) -> None:
    queue = due_queue(waiting, (30, 1), (10, 2), (20, 4), (20, 3))
    assert queue.first_ms() == 10
    assert queue.take(9) == []
    assert queue.take(20) == [2, 3, 4]
    assert queue.first_ms() == 30


def test_a_job_that_waits_for_another_time_by_now_is_passed_over(waiting: Waiting) -> None:
    queue = due_queue(waiting, (10, 1), (10, 2), (40, 1))
    del waiting[JobId(2)]
    assert queue.first_ms() == 40
    assert queue.take(40) == [1]
    assert queue.first_ms() is None


def test_pruning_a_due_queue_leaves_what_waits(waiting: Waiting) -> None:
    queue = due_queue(waiting, *((number % 7, number) for number in range(50)))
    for number in range(0, 50, 2):
        del waiting[JobId(number)]
    queue.prune()
    assert len(queue) == len(list(queue)) == 25
    assert queue.take(9) == sorted(ids(*range(1, 50, 2)), key=lambda job: (job % 7, job))
