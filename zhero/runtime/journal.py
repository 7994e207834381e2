"""The journal: what a node has to know again after its process has ended, in one SQLite file.

One connection, used by one thread; SQLite in WAL mode. The engine hands over steps (`core/kept.py`) as `Persist`, and
is told how far they are written. All that waits when the thread looks goes into one transaction: an idle node's step is
written at once, a busy node's share a commit. What `level` says:

- "process": written to the system before it counts, so it survives the death of every process; a power cut may cost the
  last moments (never more than that: WAL with `synchronous=NORMAL`);
- "power": synced before it counts (`synchronous=FULL`).

Tables (`VERSION` is SQLite's `user_version`; each row has a CRC-32 over all of it):

    meta    key -> value                        identity, who was here
    shelves shelf -> stream, state of the last fold
    headers shelf, number -> header             what queued jobs name by number
    jobs    shelf, job -> kind, body            the latest state of each job, as of the last fold
    ended   id -> shelf, forget_at_ms, chunk    outcomes, in the portions in which they were folded
    log     id -> shelf, entries                since the last fold

A disk that is full is no fault of the journal: `reserve` bytes are kept for it, so that what runs can still be
recorded; what waits is tried again. Any other failure of a write or sync is final: after a failed sync nobody knows
what the disk holds. What is damaged is found at the start: by SQLite's own check, by the CRCs, and by frames of the WAL
that come after a broken one. Then the files are set aside, the node gets a new identity, and what can be read of them
counts as an old copy: any other copy wins over it.

The transaction needs the lock of the interpreter at each call of SQLite, and gets it late while the loop is busy: so
rows go in by many to a statement.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from zlib import crc32

from ..core.effects import Persist
from ..core.entries import Entry
from ..core.kept import (
    DEAD,
    DELAYED,
    KEYED,
    LIVE,
    READY,
    SPREAD,
    Added,
    Cleared,
    DiskFault,
    Folded,
    Found,
    Noted,
    Renamed,
    Shelf,
    Shelved,
    SpreadRow,
    Step,
)
from ..core.records import HEAD, Chunk, Record
from ..core.values import Header, JobId, Life, NodeId, StreamId
from ..errors import DataDirInvalid, ZheroError
from ..wire import packer
from .datadir import DATABASE
from .wal import wal_damage

VERSION = 1
RESERVE_BYTES = 4 * 1024 * 1024
AGAIN_S = 0.25
"""Between two tries to write to a disk that is full."""
GROUP_COUNT = 1_000
"""So many steps go into one transaction."""
ROWS_COUNT = 500
"""Rows in one statement."""
_FULL = {"SQLITE_FULL"}
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE shelves (shelf INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE headers (shelf INTEGER, number INTEGER, body BLOB NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY (shelf, number)) WITHOUT ROWID;
CREATE TABLE jobs (shelf INTEGER, job BLOB, kind INTEGER NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL,
  PRIMARY KEY (shelf, job)) WITHOUT ROWID;
CREATE TABLE ended (id INTEGER PRIMARY KEY, shelf INTEGER NOT NULL, forget_at_ms INTEGER NOT NULL, body BLOB NOT NULL,
  crc INTEGER NOT NULL);
CREATE TABLE log (id INTEGER PRIMARY KEY, shelf INTEGER NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL);
"""


class _State(NamedTuple):
    """The row of a shelf."""

    stream: StreamId
    is_copy: bool
    behind_ms: int
    home: Life
    epoch: int
    number: int
    copies: list[int]
    taken: list[StreamId]
    plans: Chunk


_pack_state, _unpack_state = packer(_State, "shelf")
_pack_header, _unpack_header = packer(Header, "header")
_pack_record, _unpack_record = packer(Record, "record")
_pack_spread, _unpack_spread = packer(SpreadRow, "all")
_pack_chunk, _unpack_chunk = packer(Chunk, "chunk")
_pack_entries, _unpack_entries = packer(list[Entry], "entries")
_pack_noted, _unpack_noted = packer(Noted, "noted")

_Op = tuple[str, list[tuple[Any, ...]]]
"""A statement for rows of so many values, and the rows."""


class Journal:
    """A journal in a directory that this process has locked. Opened, it has found what there was: `found`.

    Raises:
        DataDirInvalid: there is one that this version can't read, or that is another cluster's.

    Attributes:
        node, boot: who this node is from now on.
        damage: what was wrong with what was there; empty: nothing.
    """

    def __init__(self, folder: Path, cluster: str, level: str, now_ms: int) -> None:
        self.folder = folder
        self.damage: list[str] = []
        self._cluster = cluster.encode()
        self._sync = "FULL" if level == "power" else "NORMAL"
        self._queue: SimpleQueue[Persist | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._states: dict[int, _State] = {}
        self._log_id = self._ended_id = 0  # of the last row
        self._full = False
        self._closing = threading.Event()
        self._file = folder / DATABASE
        self._reserve = folder / "reserve"
        self.found = Found()
        self._open(now_ms)

    # --- opening --------------------------------------------------------------------------------------------------

    def _open(self, now_ms: int) -> None:
        node, boot = b"", 0
        if self._file.exists():
            try:
                self.damage += wal_damage(self._file.with_name(DATABASE + "-wal"))
                node, boot = self._read()
            except (sqlite3.Error, ZheroError, ValueError) as error:
                if isinstance(error, DataDirInvalid):
                    self._db.close()
                    raise
                self.damage.append(f"{self._file.name}: {error}")
        if self.damage:
            self._set_aside(now_ms)
            node = b""
        if not self._file.exists():
            self._connect()
            self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT")
        self.node = NodeId(node or os.urandom(16))
        self.boot = max(now_ms, boot + 1)
        rows = [(key, body, _crc(0, key.encode(), body)) for key, body in self._identity().items()]
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", rows)
        self._db.execute("COMMIT")
        self._keep_reserve()

    def _identity(self) -> dict[str, bytes]:
        return {"node": self.node, "boot": str(self.boot).encode(), "cluster": self._cluster}

    def _connect(self) -> None:
        self._db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, cached_statements=32)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {self._sync}")

    def _read(self) -> tuple[bytes, int]:
        self._connect()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise DataDirInvalid(
                f"{self._file} is of version {version}, this program reads up to {VERSION}: run a newer one"
            )
        for (text,) in self._rows("PRAGMA quick_check(10)"):
            if text != "ok":
                self.damage.append(f"{self._file.name}: {text}")
        meta: dict[str, bytes] = {}
        for key, body, crc in self._rows("SELECT key, body, crc FROM meta"):
            if self._is_whole(crc, f"meta {key}", 0, key.encode(), body):
                meta[key] = body
        if "cluster" in meta and meta["cluster"] != self._cluster:
            raise DataDirInvalid(
                f"{self.folder} holds the journal of cluster {meta['cluster'].decode(errors='replace')!r}, and this "
                f"node is of {self._cluster.decode()!r}: give it another data directory"
            )
        if "noted" in meta:
            self.found.noted = _unpack_noted(meta["noted"])
        self._read_shelves()
        if "node" not in meta or "boot" not in meta or "cluster" not in meta:
            self.damage.append("who this node was is not known")
            return b"", 0
        return meta["node"], int(meta["boot"])

    def _read_shelves(self) -> None:
        shelves: dict[int, Shelf] = {}
        for shelf, body, crc in self._rows("SELECT shelf, body, crc FROM shelves"):
            if self._is_whole(crc, f"shelf {shelf}", shelf, body):
                state: _State = _unpack_state(body)
                self._states[shelf] = state
                found = Shelf(shelf, *state[:8])
                found.chunk.plans, found.chunk.rounds = state.plans.plans, state.plans.rounds
                shelves[shelf] = found
        self._read_jobs(shelves)
        for id_, shelf, forget_at_ms, body, crc in self._rows("SELECT id, shelf, forget_at_ms, body, crc FROM ended"):
            self._ended_id = max(self._ended_id, id_)
            if shelf in shelves and self._is_whole(crc, "outcomes", id_ ^ shelf << 20 ^ forget_at_ms, body):
                chunk: Chunk = _unpack_chunk(body)
                into = shelves[shelf].chunk
                into.ended += chunk.ended
                into.ids += chunk.ids
                into.tombs += chunk.tombs
        for id_, shelf, body, crc in self._rows("SELECT id, shelf, body, crc FROM log ORDER BY id"):
            self._log_id = max(self._log_id, id_)
            if shelf in shelves and self._is_whole(crc, "entries", id_ ^ shelf << 20, body):
                shelves[shelf].entries += _unpack_entries(body)
        for found in shelves.values():
            _put_in_order(found.chunk)
            if found.number >= 0:  # else a copy of which not all had come
                self.found.shelves.append(found)

    def _read_jobs(self, shelves: dict[int, Shelf]) -> None:
        for shelf, number, body, crc in self._rows("SELECT shelf, number, body, crc FROM headers ORDER BY 1, 2"):
            if self._is_whole(crc, "header", number ^ shelf << 20, body) and shelf in shelves:
                shelves[shelf].chunk.headers.append(_unpack_header(body))
        for shelf, raw, kind, body, crc in self._rows("SELECT shelf, job, kind, body, crc FROM jobs"):
            if not self._is_whole(crc, f"job {raw.hex()}", shelf << 4 | kind, raw, body) or shelf not in shelves:
                continue
            chunk, job = shelves[shelf].chunk, JobId(int.from_bytes(raw))
            if kind & KEYED:
                chunk.keyed.append(job)
            kind &= ~KEYED
            if kind in (READY, DELAYED):
                (chunk.ready if kind == READY else chunk.delayed).append((job, body))
            elif kind in (LIVE, DEAD):
                (chunk.records if kind == LIVE else chunk.dead).append(_unpack_record(body))
            elif kind == SPREAD:
                spread: SpreadRow = _unpack_spread(body)
                chunk.records += [spread.record, *spread.open]
                chunk.parts.append(spread.parts)

    def _rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Rows as far as they can be read."""
        try:
            yield from self._db.execute(query)
        except sqlite3.Error as error:
            self.damage.append(f"{self._file.name}: {error}")

    def _is_whole(self, crc: int, what: str, number: int, *parts: bytes) -> bool:
        if crc == _crc(number, *parts):
            return True
        self.damage.append(f"{what} is damaged")
        return False

    def _set_aside(self, now_ms: int) -> None:
        """Keep the damaged files for people, and go on as another node with what could be read."""
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._db.close()
        aside = self.folder / f"damaged-{now_ms}"
        aside.mkdir()
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._file.with_name(DATABASE + end).rename(aside / (DATABASE + end))
        self.damage.append(f"the files are kept in {aside}")
        salvaged: list[Shelf] = []
        for found in self.found.shelves:
            found.chunk = _consistent(found.chunk)
            found.is_copy, found.is_damaged, found.number = True, True, 0
            if found.chunk.jobs or found.chunk.plans or found.entries:
                salvaged.append(found)
        self.found.shelves = salvaged
        self._states = {}

    # --- writing --------------------------------------------------------------------------------------------------

    def begin(
        self,
        written: Callable[[int], None],
        failed: Callable[[DiskFault, str], None],
        has_room: Callable[[], None],
    ) -> None:
        """From now on what is appended is written, by a thread that calls these."""
        self._written, self._failed, self._has_room = written, failed, has_room
        self._thread = threading.Thread(target=self._run, name="zhero-journal", daemon=True)
        self._thread.start()

    def append(self, persist: Persist) -> None:
        """Write this too, soon."""
        self._queue.put(persist)

    def close(self) -> None:
        """Write all that was appended, as far as that can be done, and end. Blocks meanwhile."""
        self._closing.set()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            batch = [] if first is None else [first]
            last = first is None
            while not last and len(batch) < GROUP_COUNT:
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
                last = more is None
                if more is not None:
                    batch.append(more)
            if batch and not self._write(batch):
                return
            if last:
                return

    def _write(self, batch: list[Persist]) -> bool:
        """One transaction. Returns: whether it is worth going on."""
        try:
            ops = list(_together(op for persist in batch for step in persist.steps for op in self._ops(step)))
            while True:
                try:
                    self._commit(ops)
                except sqlite3.Error as error:
                    name = getattr(error, "sqlite_errorname", "")
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    if name not in _FULL:
                        raise
                    if not self._wait_for_room():
                        return False
                else:
                    break
        except Exception as error:  # whatever it was, nobody knows what is on the disk now
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            self._failed(DiskFault.FAILED, f"{self._file}: {error} ({name})")
            return False
        self._written(batch[-1].ticket)
        if self._full and self._keep_reserve():
            self._full = False
            self._has_room()
        return True

    def _commit(self, ops: list[_Op]) -> None:
        if len(ops) == 1 and len(ops[0][1]) <= ROWS_COUNT:  # SQLite makes a transaction of it by itself
            self._execute(*ops[0])
            return
        self._db.execute("BEGIN IMMEDIATE")
        for sql, rows in ops:
            self._execute(sql, rows)
        self._db.execute("COMMIT")

    def _execute(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        head, brackets, tail = sql.partition("(*)")
        if not brackets:
            for row in rows:
                self._db.execute(sql, row)
            return
        for first in range(0, len(rows), ROWS_COUNT):
            part = rows[first : first + ROWS_COUNT]
            one = f"({', '.join('?' * len(part[0]))})"
            self._db.execute(f"{head}{', '.join([one] * len(part))}{tail}", [value for row in part for value in row])

    def _wait_for_room(self) -> bool:
        """The disk is full: free what was kept for that, and let what runs end. Returns: whether to try again."""
        had = self._reserve.exists()
        with contextlib.suppress(OSError):
            self._reserve.unlink()
        if not self._full:
            self._full = True
            self._failed(DiskFault.FULL, str(self._file))
        if not had:
            if self._closing.is_set():
                return False
            time.sleep(AGAIN_S)
        return True

    def _keep_reserve(self) -> bool:
        """Keep some room for when the disk is full. Returns: whether it is kept."""
        try:
            if self._reserve.exists() and self._reserve.stat().st_size == RESERVE_BYTES:
                return True
            with self._reserve.open("wb") as file:
                file.write(bytes(RESERVE_BYTES))
        except OSError:
            with contextlib.suppress(OSError):
                self._reserve.unlink()
            return False
        return True

    # --- steps ----------------------------------------------------------------------------------------------------

    def _ops(self, step: Step) -> Iterable[_Op]:
        if isinstance(step, Added):
            body = _pack_entries(step.entries)
            self._log_id += 1
            return [
                (
                    "INSERT INTO log VALUES (*)",
                    [(self._log_id, step.shelf, body, _crc(self._log_id ^ step.shelf << 20, body))],
                )
            ]
        if isinstance(step, Folded):
            return self._fold(step)
        if isinstance(step, Cleared):
            self._states.pop(step.shelf, None)
            tables = ("shelves", "headers", "jobs", "ended", "log")
            return [(f"DELETE FROM {table} WHERE shelf = ?", [(step.shelf,)]) for table in tables]
        if isinstance(step, Noted):
            body = _pack_noted(step)
            return [("INSERT OR REPLACE INTO meta VALUES (*)", [("noted", body, _crc(0, b"noted", body))])]
        if isinstance(step, Shelved):
            number = -1 if step.is_copy else 0
            home, epoch = step.stream.home, step.stream.epoch if step.stream.name == "delayed" else 1
            state = _State(step.stream, step.is_copy, step.behind_ms, home, epoch, number, [], [], Chunk())
        else:
            assert isinstance(step, Renamed)
            state = self._states[step.shelf]._replace(stream=step.stream)
        self._states[step.shelf] = state
        return [self._shelf_op(step.shelf)]

    def _fold(self, step: Folded) -> list[_Op]:
        shelf = step.shelf
        self._states[shelf] = self._states[shelf]._replace(
            home=step.home,
            epoch=step.epoch,
            number=step.number,
            copies=step.copies,
            taken=step.taken,
            plans=step.plans,
        )
        ops = [("DELETE FROM log WHERE shelf = ?", [(shelf,)]), self._shelf_op(shelf)]
        ops += self._fold_rows(shelf, step.first_header, step.headers, step.rows)
        if step.gone:
            gone = [(shelf, job.to_bytes(16)) for job in step.gone]
            ops.append(("DELETE FROM jobs WHERE (shelf, job) IN (VALUES (*))", gone))
        if step.dead_only is not None:
            kept = {job.to_bytes(16) for job in step.dead_only}
            rows = self._db.execute("SELECT job FROM jobs WHERE shelf = ? AND kind & 7 = ?", (shelf, DEAD))
            gone = [(shelf, job) for (job,) in rows if job not in kept]
            if gone:
                ops.append(("DELETE FROM jobs WHERE (shelf, job) IN (VALUES (*))", gone))
        ops.append(("DELETE FROM ended WHERE shelf = ? AND forget_at_ms <= ?", [(shelf, step.now_ms)]))
        if step.ended is not None:
            body = _pack_chunk(step.ended)
            self._ended_id += 1
            crc = _crc(self._ended_id ^ shelf << 20 ^ step.forget_at_ms, body)
            row = (self._ended_id, shelf, step.forget_at_ms, body, crc)
            ops.append(("INSERT INTO ended VALUES (*)", [row]))
        return ops

    def _shelf_op(self, shelf: int) -> _Op:
        body = _pack_state(self._states[shelf])
        return "INSERT OR REPLACE INTO shelves VALUES (*)", [(shelf, body, _crc(shelf, body))]

    def _fold_rows(self, shelf: int, first: int, headers: list[Header], rows: Iterable[Any]) -> list[_Op]:
        ops: list[_Op] = []
        if headers:
            told = [(number, _pack_header(header)) for number, header in enumerate(headers, first)]
            with_crc = [(shelf, number, body, _crc(number ^ shelf << 20, body)) for number, body in told]
            ops.append(("INSERT OR REPLACE INTO headers VALUES (*)", with_crc))
        bodies: list[tuple[Any, ...]] = []
        for job, kind, it in rows:
            raw, body = job.to_bytes(16), _pack_body(it)
            bodies.append((shelf, raw, kind, body, _crc(shelf << 4 | kind, raw, body)))
        if bodies:
            ops.append(("INSERT OR REPLACE INTO jobs VALUES (*)", bodies))
        return ops


def _pack_body(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return _pack_record(body) if isinstance(body, Record) else _pack_spread(body)


def _together(ops: Iterable[_Op]) -> Iterator[_Op]:
    """Rows for the same statement, one after the other, at once."""
    last: _Op | None = None
    for sql, rows in ops:
        if last is not None and last[0] == sql and "(*)" in sql:
            last[1].extend(rows)
        else:
            if last is not None:
                yield last
            last = (sql, list(rows))
    if last is not None:
        yield last


def _put_in_order(chunk: Chunk) -> None:
    """Rows come in the order of ids; queued jobs stand in that of their enqueues."""
    chunk.ready.sort(key=lambda it: it[1][4:10])
    chunk.records.sort(key=lambda it: it.enqueued_at_ms)


def _consistent(chunk: Chunk) -> Chunk:
    """What of a damaged slice makes sense by itself: no parts without their whole, no job without its header."""
    known = len(chunk.headers)
    held = {it.job for it in chunk.parts}
    kept = Chunk(
        headers=chunk.headers,
        ready=[it for it in chunk.ready if int.from_bytes(it[1][:4]) < known and len(it[1]) >= HEAD],
        delayed=[it for it in chunk.delayed if int.from_bytes(it[1][:4]) < known and len(it[1]) >= HEAD],
        records=[it for it in chunk.records if not it.parent and it.job not in held],
        dead=chunk.dead,
        plans=chunk.plans,
    )
    live = set(kept.jobs)
    tasks = {plan.task for plan in kept.plans}
    kept.rounds = [it for it in chunk.rounds if it[0] in live and it[1] in tasks]
    rounds = {it[0] for it in kept.rounds}
    for plan in kept.plans:
        if plan.running not in rounds:
            plan.running = JobId(0)
    return kept


def _crc(number: int, *parts: bytes) -> int:
    """Over bytes and what they belong to."""
    crc = number & 0xFFFFFFFF
    for part in parts:
        crc = crc32(part, crc)
    return crc
