"""How the processes of one user on one host find one another: a private directory with one small file per node.

    <runtime directory>/<cluster>/<node id>.json      mode 0600, in directories of mode 0700

Why a directory: it needs no port, no daemon and no permission, it outlives nothing (it lies where the system clears
up), and its mode says who may join. What stands in it is a hint and no truth: a node killed at once leaves its file
behind, so a reader asks the endpoint. A connect that is *refused* shows that nobody listens there any more; anything
else (an answer, silence, no descriptor left) proves nothing, and the entry stays.

The directory is `ZHERO_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/zhero`, else `zhero-<uid>` where temporary files go. It
has to be ours alone, or a neighbour could plant endpoints in it. It serves one host and one network namespace:
containers that share a disk each need their own.

Files are replaced whole (written beside, then renamed), so a reader sees the old entry or the new one. What can't be
read, is too large or makes no sense is skipped: it must not keep a node from starting.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import stat
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ..config import CLUSTER_PATTERN, ENTRIES_MAX_COUNT, ENTRY_MAX_BYTES
from ..core.values import NodeId
from ..errors import RuntimeDirInvalid

CONNECT_TIMEOUT_S = 0.25
PORT_MAX = 65_535
SUFFIX = ".json"
ANY_HOST = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}
"""Where to reach what listens on every address."""
ELSEWHERE = "set ZHERO_RUNTIME_DIR to a directory that is yours alone"


@dataclass(frozen=True, slots=True)
class Entry:
    """A node as it shows itself to its neighbours.

    Attributes:
        boot: which start of the node; grows.
        endpoint: where it listens, as bound ("tcp://127.0.0.1:40123").
        version: of zhero.
        started_at_ms: on its own clock; for people, and for the order of a list.
        key: names the secret with which it listens (`Member`); empty: none.
    """

    node: NodeId
    boot: int
    name: str
    endpoint: str
    pid: int
    version: str
    started_at_ms: int
    key: str = ""


def runtime_path(override: str | Path | None = None) -> Path:
    """Where the directory is, or would be: nothing is made. See `runtime_dir`."""
    chosen = override or os.environ.get("ZHERO_RUNTIME_DIR")
    return Path(chosen).expanduser().absolute() if chosen else _own_place()


def runtime_dir(override: str | Path | None = None) -> Path:
    """The directory, made if there is none.

    Args:
        override: a path to use instead of the user's own.

    Raises:
        RuntimeDirInvalid: it can't be made or written, or others than this user have a hand in it.
    """
    path = runtime_path(override)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_private(path)
    except OSError as error:
        raise RuntimeDirInvalid(f"can't make the runtime directory {path}: {error.strerror}; {ELSEWHERE}") from error
    return path


def address_of(endpoint: str) -> tuple[str, int] | None:
    """Host and port of "tcp://host:port" (an IPv6 host without its brackets), or None if it is no such thing."""
    found = re.fullmatch(r"tcp://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+|\*)):([0-9]{1,5})", endpoint)
    if found is None or int(found[3]) > PORT_MAX:
        return None
    return found[1] or found[2], int(found[3])


def endpoint_of(host: str, port: int) -> str:
    """The reverse: "tcp://host:port"."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def nearby(endpoint: str) -> str:
    """Where to connect to what a node on this host has bound."""
    host, port = address_of(endpoint) or ("", 0)
    return endpoint_of(ANY_HOST.get(host, host), port)


def is_gone(entry: Entry) -> bool:
    """Whether surely nobody listens at the entry's endpoint any more.

    Cost: a connect on this host, 0.25 s at most.
    """
    address = address_of(entry.endpoint)
    if address is None:
        return False
    host, port = address
    try:
        with socket.create_connection((ANY_HOST.get(host, host), port), CONNECT_TIMEOUT_S):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def clusters(root: Path) -> list[str]:
    """The clusters that have entries under a runtime directory, sorted."""
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    return [name for name in names if re.fullmatch(CLUSTER_PATTERN, name) and _entry_files(root / name)]


class Directory:
    """The entries of one cluster under a runtime directory.

    Args:
        root: from `runtime_dir`.
        cluster: its name; `Settings` has checked it.
    """

    def __init__(self, root: Path, cluster: str) -> None:
        if not re.fullmatch(CLUSTER_PATTERN, cluster):
            raise ValueError(f"no name of a cluster: {cluster!r}")
        self.path = root / cluster
        self._announced: Entry | None = None
        self._read: dict[Path, tuple[tuple[int, ...], Entry | None]] = {}  # as it was when last read; bound: the files

    def announce(self, entry: Entry) -> None:
        """Show this node to its neighbours; again: with what has changed.

        Raises:
            RuntimeDirInvalid: the entry can't be written.
        """
        file = self._file(entry.node)
        beside = file.with_suffix(".new")
        try:
            _make_private(self.path)
            # A leftover of a process that died here may be anything; what we write into is made by us.
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as stream:
                stream.write(json.dumps({**asdict(entry), "node": entry.node.hex()}).encode())
            os.replace(beside, file)
        except OSError as error:
            raise RuntimeDirInvalid(f"can't write {file}: {error.strerror}; {ELSEWHERE}") from error
        self._announced = entry

    def renew(self) -> None:
        """Show this node again if its file is gone: places for temporary files are tidied up now and then.

        Raises:
            RuntimeDirInvalid: the entry can't be written.
        """
        if self._announced is not None and not self._file(self._announced.node).exists():
            self.announce(self._announced)

    def withdraw(self) -> None:
        """Take back what was announced, if anything. Never raises: a file that stays behind is found stale."""
        if self._announced is not None:
            self.remove_stale(self._announced)
            self._announced = None

    def entries(self) -> list[Entry]:
        """Who showed itself here, alive or not: the longest running first.

        Only files that have changed are read: an idle node looks every few seconds, and entries hardly ever change.
        """
        before, self._read = self._read, {}
        for file in _entry_files(self.path):
            stamp = _stamp(file)
            if stamp is not None:
                known = before.get(file)
                self._read[file] = known if known is not None and known[0] == stamp else (stamp, _read(file))
        found = (entry for _, entry in self._read.values())
        return sorted((entry for entry in found if entry is not None), key=lambda it: (it.started_at_ms, it.node))

    def unreadable(self) -> list[Path]:
        """Files that should hold an entry, and do not."""
        return [file for file in _entry_files(self.path) if _read(file) is None and file.exists()]

    def remove_stale(self, entry: Entry) -> None:
        """Remove the entry of a node that is gone; one that a later start of that node wrote stays."""
        file = self._file(entry.node)
        found = _read(file)
        if found is not None and found.boot == entry.boot:
            try:
                file.unlink()
            except OSError:
                pass

    def _file(self, node: NodeId) -> Path:
        return self.path / f"{node.hex()}{SUFFIX}"


def _own_place() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR")
    # After `sudo` or `su` the variable may name another user's directory, where ours would only be in the way.
    if given and os.path.isdir(given) and (sys.platform == "win32" or os.stat(given).st_uid == os.geteuid()):
        return Path(given) / "zhero"
    user = getpass.getuser() if sys.platform == "win32" else str(os.geteuid())
    return Path(tempfile.gettempdir()) / f"zhero-{user}"


def _make_private(path: Path) -> None:
    """Make the directory if there is none, and see to it that it is this user's alone."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    refuse_shared(path)


def refuse_shared(path: Path) -> None:
    """See to it that it is a directory, of this user alone.

    Raises:
        RuntimeDirInvalid: it is not.
        OSError: it can't be looked at; it is not there.
    """
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "a file"
        raise RuntimeDirInvalid(f"the runtime directory {path} is {what}, no directory; {ELSEWHERE}")
    if sys.platform != "win32":
        if found.st_uid != os.geteuid():
            raise RuntimeDirInvalid(f"the runtime directory {path} belongs to user id {found.st_uid}; {ELSEWHERE}")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise RuntimeDirInvalid(f"the runtime directory {path} is open to others (mode {mode:o}): chmod 700 {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise RuntimeDirInvalid(f"the runtime directory {path} can't be written; {ELSEWHERE}")


def _entry_files(folder: Path) -> list[Path]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except OSError:
        return []
    return [folder / name for name in names[:ENTRIES_MAX_COUNT]]


def _stamp(file: Path) -> tuple[int, ...] | None:
    """Which version of a file this is: one that is written anew is another file. None: it is gone."""
    try:
        found = os.lstat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(file: Path) -> Entry | None:
    """The entry in a file, or None: it is gone, too large, or makes no sense."""
    try:
        if not file.is_file():
            return None
        with open(file, "rb") as stream:
            data = stream.read(ENTRY_MAX_BYTES + 1)
        told: object = json.loads(data) if len(data) <= ENTRY_MAX_BYTES else None
        node = NodeId(bytes.fromhex(file.stem))
    except (OSError, ValueError, RecursionError):
        return None
    match told:
        case {
            "node": str(text),
            "boot": int(boot),
            "name": str(name),
            "endpoint": str(endpoint),
            "pid": int(pid),
            "version": str(version),
            "started_at_ms": int(started_at_ms),
            "key": str(key),
        } if text == node.hex() == file.stem and address_of(endpoint):
            return Entry(node, boot, name, endpoint, pid, version, started_at_ms, key)
        case _:
            return None
