"""The journal by itself: what is given to it comes back, and what is damaged is found."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zhero.config import Limits
from zhero.core.effects import Outbox, Persist
from zhero.core.entries import Done, Due, Entry, Lent, Planned, Put, Waits
from zhero.core.jobs import Slice
from zhero.core.kept import Added, Cleared, DiskFault, Noted, Shelved
from zhero.core.persisting import Persisting
from zhero.core.replication import Copies
from zhero.core.roster import Roster
from zhero.core.streams import Stream, Streams
from zhero.core.values import SUCCEEDED, Header, JobId, Life, Member, NodeId, Outcome, Status
from zhero.errors import DataDirInvalid
from zhero.runtime.datadir import DATABASE
from zhero.runtime.journal import Journal
from zhero.runtime.wal import wal_damage

PATIENCE_S = 20.0
LIFE = Life(NodeId(bytes(16)), 1_000, 0)
OTHER = Life(NodeId(b"o" * 16), 1_000, 0)
HEADER = Header("send_email")
NOW_MS = 1_700_000_000_000


class Kept:
    """An open journal, and what it has said."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.faults: list[DiskFault] = []
        self.has_room = threading.Event()
        self.is_faulty = threading.Event()
        self._written = 0
        self._changed = threading.Condition()
        journal.begin(self._on_written, self._on_fault, self.has_room.set)

    def _on_written(self, ticket: int) -> None:
        with self._changed:
            self._written = ticket
            self._changed.notify_all()

    def _on_fault(self, fault: DiskFault, why: str) -> None:
        self.faults.append(fault)
        self.is_faulty.set()

    def wait(self, ticket: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._written >= ticket, PATIENCE_S)

    def append(self, persist: Persist) -> None:
        self.journal.append(persist)


@contextmanager
def opened(folder: Path, cluster: str = "shop", level: str = "process", now_ms: int = NOW_MS) -> Iterator[Kept]:
    kept = Kept(Journal(folder, cluster, level, now_ms))
    try:
        yield kept
    finally:
        kept.journal.close()


class Home:
    """A home whose stream is kept as the engine does it."""

    def __init__(self, slice_: Slice | None = None) -> None:
        self.outbox = Outbox()
        roster = Roster(Member(LIFE, "web-1", "tcp://127.0.0.1:1", 1, "0"))
        self.stream = Stream(slice_ or Slice("own", LIFE, 1, Limits()))
        copies = Copies(Limits(), self.outbox)
        self.persisting = Persisting(roster, Streams(self.stream), copies, self.outbox, is_on=True)
        self.ticket = 0

    def decide(self, *entries: Entry) -> Persist | None:
        for entry in entries:
            self.stream.append(entry)
        self.stream.slice.endings.clear()
        self.persisting.flush(None, NOW_MS)
        found = [it for it in self.outbox.drain() if isinstance(it, Persist)]
        assert len(found) <= 1
        return found[0] if found else None


def put(first: int, count: int, *, due_at_ms: int = 0, keyed: bool = False) -> Put:
    jobs = [(JobId(number), b"\x81\xa1n" + bytes([number % 100])) for number in range(first, first + count)]
    return Put(HEADER, jobs, NOW_MS, due_at_ms, keyed)


def told(kept: Slice) -> object:
    """All that a slice holds, comparable."""
    return (
        sorted((job, kept._headers[int.from_bytes(held[:4])], held[4:]) for job, held in kept.ready.items()),
        sorted((job, kept._headers[int.from_bytes(held[:4])], held[4:]) for job, held in kept.delayed.items()),
        sorted(kept.records.items()),
        sorted(kept.dead.items()),
        sorted(kept.plans.items()),
        sorted(kept.keyed),
        sorted((it.job, it.outcome.status.value, it.at_ms, it.ttl_ms) for it in kept.memory.export()),
        sorted(kept.memory.export_ids()),
        kept.last,
        kept.epoch,
    )


@pytest.mark.parametrize("level", ["process", "power"])
@pytest.mark.parametrize("count", [10, 25_000])
def test_what_was_given_comes_back(tmp_path: Path, level: str, count: int) -> None:
    home = Home()
    jobs = [JobId(number) for number in range(1, count + 1)]
    steps = [
        [put(1, count), Planned("tick", 1_000, False, 7, NOW_MS + 5)],
        [put(count + 1, 3, due_at_ms=NOW_MS + 50), put(count + 10, 1, keyed=True)],
        [Lent(jobs[:6], LIFE)],
        [Done(jobs[:4], [SUCCEEDED, Outcome(Status.CANCELLED), SUCCEEDED, SUCCEEDED], NOW_MS + 3)],
        [Waits(jobs[4], Outcome(Status.FAILED), NOW_MS + 500, True), Due([JobId(count + 1)])],
        [Lent([JobId(count + 10)], OTHER), Done([JobId(count + 10)], [SUCCEEDED], NOW_MS + 9)],
    ]
    with opened(tmp_path, level=level) as kept:
        node, boot = kept.journal.node, kept.journal.boot
        for entries in steps:
            persist = home.decide(*entries)
            assert persist is not None
            kept.append(persist)
        kept.wait(len(steps))
    with opened(tmp_path, level=level) as kept:
        assert kept.journal.damage == []
        assert (kept.journal.node, kept.journal.boot) == (node, boot + 1)
        (shelf,) = kept.journal.found.shelves
        again = rebuilt(kept.journal)
        assert told(again) == told(home.stream.slice)
        assert (shelf.number > 0) == (count > 20_000)
        again.check()


def rebuilt(journal: Journal) -> Slice:
    (shelf,) = journal.found.shelves
    kept = Slice(shelf.stream.name, shelf.home, shelf.epoch, Limits())
    kept.take_in(shelf.chunk)
    kept.epoch, kept.last = shelf.epoch, max(0, shelf.number)
    for entry in shelf.entries:
        kept.apply(entry)
    return kept


def test_rows_of_jobs_that_have_ended_go_with_the_next_fold(tmp_path: Path) -> None:
    home = Home()
    ticket = 0
    with opened(tmp_path) as kept:
        for first in range(1, 150_001, 25_000):
            jobs = [JobId(number) for number in range(first, first + 25_000)]
            for entries in ([put(first, 25_000)], [Lent(jobs, LIFE)], [Done(jobs, [SUCCEEDED] * 25_000, NOW_MS)]):
                persist = home.decide(*entries)
                assert persist is not None
                kept.append(persist)
                ticket += 1
        kept.wait(ticket)
    db = sqlite3.connect(tmp_path / DATABASE)
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM log").fetchone() == (0,)
    db.close()


def test_a_cleared_shelf_is_empty(tmp_path: Path) -> None:
    home = Home()
    with opened(tmp_path) as kept:
        persist = home.decide(put(1, 20_000))
        assert persist is not None
        kept.append(persist)
        kept.append(Persist(2, [Cleared(1), Noted([OTHER.node], None)]))
        kept.wait(2)
    with opened(tmp_path) as kept:
        assert kept.journal.found.shelves == []
        assert kept.journal.found.noted == Noted([OTHER.node], None)


def test_a_copy_of_which_not_all_had_come_is_none(tmp_path: Path) -> None:
    with opened(tmp_path) as kept:
        stream = Home().stream.id
        kept.append(Persist(1, [Shelved(1, stream, True, 5)]))
        kept.wait(1)
    with opened(tmp_path) as kept:
        assert kept.journal.found.shelves == []


def test_the_boot_grows_even_if_the_clock_goes_back(tmp_path: Path) -> None:
    with opened(tmp_path, now_ms=NOW_MS) as kept:
        node = kept.journal.node
    with opened(tmp_path, now_ms=NOW_MS - 5_000) as kept:
        assert (kept.journal.node, kept.journal.boot) == (node, NOW_MS + 1)


def test_a_journal_of_another_cluster_or_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with pytest.raises(DataDirInvalid, match=r"holds the journal of cluster 'shop'.*another data directory"):
        Journal(tmp_path, "bakery", "process", NOW_MS)
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataDirInvalid, match="version 99"):
        Journal(tmp_path, "shop", "process", NOW_MS)


# --- damage -------------------------------------------------------------------------------------------------------


def written(folder: Path, count: int = 20_000) -> bytes:
    """A journal with folded jobs and a log. Returns: the node's id."""
    home = Home()
    with opened(folder) as kept:
        for number, entry in enumerate((put(1, count), put(count + 1, 50), put(count + 100, 50)), 1):
            persist = home.decide(entry)
            assert persist is not None
            kept.append(persist)
            kept.wait(number)
        return kept.journal.node


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_found_or_matters_to_nothing(tmp_path: Path, seed: int) -> None:
    node = written(tmp_path)
    rng = random.Random(seed)
    file = tmp_path / DATABASE
    data = bytearray(file.read_bytes())
    data[rng.randrange(100, len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    with opened(tmp_path, now_ms=NOW_MS + 10) as kept:
        found = kept.journal.found.shelves
        if not kept.journal.damage:
            assert kept.journal.node == node
            assert len(rebuilt(kept.journal)) == 20_100
            return
        assert kept.journal.node != node  # what others have of that node counts more
        assert all(it.is_copy and it.is_damaged and it.number == 0 for it in found)
        assert (tmp_path / f"damaged-{NOW_MS + 10}" / DATABASE).exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_journal_that_was_cut_off_is_set_aside(tmp_path: Path, share: float) -> None:
    node = written(tmp_path)
    file = tmp_path / DATABASE
    size = file.stat().st_size
    with file.open("r+b") as opened_file:
        opened_file.truncate(int(size * share))
    with opened(tmp_path, now_ms=NOW_MS + 10) as kept:
        assert kept.journal.damage or share == 0.0
        assert kept.journal.node != node
    with opened(tmp_path) as kept:  # and what came in its place is whole
        assert kept.journal.damage == []


def killed(folder: Path, into: Path) -> None:
    """The files as they are while a journal is open: what is left by a process that was killed."""
    home = Home()
    with opened(folder) as kept:
        for number in range(1, 31):
            persist = home.decide(put(100 * number, 20))
            assert persist is not None
            kept.append(persist)
            kept.wait(number)
        into.mkdir()
        for end in ("", "-wal"):
            (into / (DATABASE + end)).write_bytes((folder / (DATABASE + end)).read_bytes())


def test_a_torn_tail_of_the_wal_costs_only_what_was_written_last(tmp_path: Path) -> None:
    killed(tmp_path, tmp_path / "left")
    wal = tmp_path / "left" / (DATABASE + "-wal")
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - 1_000)
    assert wal_damage(wal) == []
    with opened(tmp_path / "left") as kept:
        assert kept.journal.damage == []
        assert len(rebuilt(kept.journal)) == 29 * 20


def test_a_broken_frame_in_the_middle_of_the_wal_is_found(tmp_path: Path) -> None:
    killed(tmp_path, tmp_path / "left")
    wal = tmp_path / "left" / (DATABASE + "-wal")
    assert wal_damage(wal) == []
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 4
    wal.write_bytes(data)
    with opened(tmp_path / "left") as kept:
        assert any("is damaged, and others follow" in text for text in kept.journal.damage)


# --- disks --------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_what_waits_is_written_later(tmp_path: Path) -> None:
    home = Home()
    with opened(tmp_path) as kept:
        limit = "PRAGMA max_page_count = {}"
        kept.journal._db.execute(limit.format(30))
        persist = home.decide(put(1, 20_000))
        assert persist is not None
        kept.append(persist)
        assert kept.is_faulty.wait(PATIENCE_S)
        assert not (tmp_path / "reserve").exists()  # so that there is room for what runs
        kept.journal._db.execute(limit.format(100_000))
        kept.wait(1)
        assert kept.has_room.wait(PATIENCE_S)
        assert kept.faults == [DiskFault.FULL]
    with opened(tmp_path) as kept:
        assert len(rebuilt(kept.journal)) == 20_000


def failing(error: str) -> Callable[..., None]:
    def execute(*given: object) -> None:
        raise sqlite3.OperationalError(error)

    return execute


def test_any_other_failure_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home()
    with opened(tmp_path) as kept:
        monkeypatch.setattr(kept.journal, "_commit", failing("disk I/O error"))
        for entry in (put(1, 10), put(20, 10)):
            persist = home.decide(entry)
            assert persist is not None
            kept.append(persist)
        assert kept.is_faulty.wait(PATIENCE_S)
    assert kept.faults == [DiskFault.FAILED]
    with opened(tmp_path) as kept:
        assert kept.journal.found.shelves == []


def test_added_entries_need_no_fold_to_come_back(tmp_path: Path) -> None:
    home = Home()
    persist = home.decide(put(1, 5))
    assert persist is not None
    assert [type(step) for step in persist.steps] == [Shelved, Added]
