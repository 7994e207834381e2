"""Where a node keeps its journal: a directory of its own, locked as long as the node lives.

A directory is one node's: it holds its identity. `slot` takes the lowest of 0, 1, 2, ... below a common one that nobody
holds, so that nodes which are started again, in whatever order, find what they left.

A directory says where it lies (`place`: host and inode). One that was copied or restored from elsewhere is not taken
up by itself, as its node may be alive: whoever knows better removes the file `place`.

Bound: `SLOTS_MAX_COUNT` slots.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataDirInvalid, DataDirLocked

try:
    import fcntl
except ImportError:  # no such locks there
    fcntl = None  # type: ignore[assignment]

SLOTS_MAX_COUNT = 1_000
LOCK, PLACE, DATABASE = "lock", "place", "journal.sqlite"


class DataDir:
    """A directory that is this process's until `close`.

    Raises:
        DataDirLocked: another process has it.
        DataDirInvalid: it can't be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirInvalid(f"can't use {folder} for the journal: {error.strerror or error}") from error
        try:
            _lock(self._lock, folder)
            self._check_place()
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        except OSError as error:
            os.close(self._lock)
            raise DataDirInvalid(f"can't use {folder} for the journal: {error.strerror or error}") from error
        except BaseException:
            os.close(self._lock)
            raise

    def _check_place(self) -> None:
        here = f"{socket.gethostname()} {self.folder.stat().st_ino}"
        file = self.folder / PLACE
        try:
            there = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            file.write_text(here, encoding="utf-8")
            return
        if there != here:
            raise DataDirInvalid(
                f"{self.folder} was copied or restored: its node may live elsewhere, and two of one identity would "
                f"harm one another. If that one is gone for good, remove {file} and start again"
            )

    def close(self) -> None:
        """Others may have it now."""
        os.close(self._lock)


def slot(root: Path, warn: list[str]) -> DataDir:
    """The lowest slot below `root` that can be had; what is wrong with others goes to `warn`.

    Raises:
        DataDirInvalid: there is none.
    """
    for number in range(SLOTS_MAX_COUNT):
        try:
            found = DataDir(root / str(number))
        except DataDirLocked:
            continue
        except DataDirInvalid as error:
            if not (root / str(number) / PLACE).exists():
                raise
            warn.append(str(error))
            continue
        with contextlib.suppress(OSError), (root.parent / ".gitignore").open("x", encoding="utf-8") as file:
            file.write("*\n")
        return found
    raise DataDirInvalid(f"all of {SLOTS_MAX_COUNT} slots below {root} are taken")


def unheld(root: Path) -> Iterator[Path]:
    """Slots that have a journal and that nobody holds: their jobs wait for a node."""
    for number in range(SLOTS_MAX_COUNT):
        folder = root / str(number)
        if not folder.is_dir():
            return
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            _lock(lock, folder)
            if (folder / DATABASE).exists():
                yield folder
        except DataDirLocked:
            pass
        finally:
            os.close(lock)


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace") or "?"
        raise DataDirLocked(
            f"{folder} is in use by process {holder}: each node needs a data directory of its own. Stop that one, or "
            'give this one another; data_dir="auto" takes the first that is free'
        ) from None
