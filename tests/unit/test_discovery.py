"""The runtime directory: private, atomic, and never trusted more than it deserves."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from zhero.config import ENTRIES_MAX_COUNT, ENTRY_MAX_BYTES
from zhero.core.values import NodeId
from zhero.errors import RuntimeDirInvalid
from zhero.runtime.discovery import Directory, Entry, address_of, clusters, is_gone, runtime_dir

ENTRY = Entry(
    node=NodeId(bytes(range(16))),
    boot=1_800_000_000_000,
    name="web-1",
    endpoint="tcp://127.0.0.1:40123",
    pid=4321,
    version="0.1.0",
    started_at_ms=1_800_000_000_005,
    key="0011223344556677",
)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(16))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the directory ------------------------------------------------------------------------------------------------


def test_it_is_made_private_with_its_parents(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    assert runtime_dir(wanted) == wanted
    assert mode_of(wanted) == 0o700
    assert runtime_dir(str(wanted)) == wanted


def test_without_an_override_it_is_the_one_of_the_environment(own_runtime_dir: Path) -> None:
    assert runtime_dir(None) == own_runtime_dir


def test_without_a_word_it_lies_in_the_users_own_runtime_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ZHERO_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_dir() == tmp_path / "zhero"


@pytest.mark.parametrize("given", [None, "/no/such/directory"])
def test_without_a_usable_one_it_lies_among_temporary_files(
    given: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ZHERO_RUNTIME_DIR")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", given)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert runtime_dir() == tmp_path / f"zhero-{os.geteuid()}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_users_directory_that_is_not_ours_is_not_littered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    foreign, temporary = tmp_path / "foreign", tmp_path / "temporary"
    foreign.mkdir()
    temporary.mkdir()
    os.chown(foreign, 12_345, -1)
    monkeypatch.delenv("ZHERO_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(foreign))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert runtime_dir().parent == temporary
    assert list(foreign.iterdir()) == []


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_one_that_others_can_enter_is_refused_with_the_cure(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(RuntimeDirInvalid, match=f"chmod 700 {tmp_path}"):
        runtime_dir(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_one_of_another_user_is_refused_with_the_cure(tmp_path: Path) -> None:
    os.chown(tmp_path, 12_345, -1)
    with pytest.raises(RuntimeDirInvalid, match="belongs to user id 12345; set ZHERO_RUNTIME_DIR"):
        runtime_dir(tmp_path)


def test_a_link_is_refused_even_to_a_good_directory(tmp_path: Path) -> None:
    good, link = tmp_path / "good", tmp_path / "link"
    good.mkdir(mode=0o700)
    link.symlink_to(good)
    with pytest.raises(RuntimeDirInvalid, match="is a link"):
        runtime_dir(link)


def test_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RuntimeDirInvalid, match="is a file"):
        runtime_dir(file)


def test_one_that_cannot_be_made_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeDirInvalid, match="set ZHERO_RUNTIME_DIR"):
        runtime_dir(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_one_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RuntimeDirInvalid, match="can't be written"):
        runtime_dir(tmp_path)


# --- entries ------------------------------------------------------------------------------------------------------


def test_what_one_announces_the_other_reads(tmp_path: Path) -> None:
    Directory(tmp_path, "shop-1").announce(ENTRY)
    assert Directory(tmp_path, "shop-1").entries() == [ENTRY]


def test_the_file_is_named_after_the_node_and_private_with_its_folder(tmp_path: Path) -> None:
    Directory(tmp_path, "shop-1").announce(ENTRY)
    file = tmp_path / "shop-1" / "000102030405060708090a0b0c0d0e0f.json"
    assert mode_of(file) == 0o600
    assert mode_of(file.parent) == 0o700
    assert json.loads(file.read_text()) == {
        "node": "000102030405060708090a0b0c0d0e0f",
        "boot": 1_800_000_000_000,
        "name": "web-1",
        "endpoint": "tcp://127.0.0.1:40123",
        "pid": 4321,
        "version": "0.1.0",
        "started_at_ms": 1_800_000_000_005,
        "key": "0011223344556677",
    }


def test_announcing_again_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    directory = Directory(tmp_path, "shop")
    directory.announce(ENTRY)
    directory.announce(replace(ENTRY, name="web-2"))
    assert [entry.name for entry in directory.entries()] == ["web-2"]
    assert len(list(directory.path.iterdir())) == 1


def test_what_an_announcer_that_was_killed_half_way_left_is_no_obstacle(tmp_path: Path) -> None:
    directory = Directory(tmp_path, "shop")
    directory.announce(ENTRY)
    (directory.path / f"{ENTRY.node.hex()}.new").write_text("half an ent")
    assert directory.entries() == [ENTRY]
    directory.announce(ENTRY)
    assert len(list(directory.path.iterdir())) == 1


def test_entries_are_listed_by_start_and_then_by_node(tmp_path: Path) -> None:
    ages = {node(3): 20, node(1): 30, node(2): 10, node(0): 30}
    for made, age in ages.items():
        Directory(tmp_path, "shop").announce(replace(ENTRY, node=made, started_at_ms=age))
    assert [entry.node for entry in Directory(tmp_path, "shop").entries()] == [node(2), node(3), node(0), node(1)]


def test_entries_that_have_not_changed_are_not_read_again_and_those_that_have_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = replace(ENTRY, node=NodeId(b"1" * 16)), replace(ENTRY, node=NodeId(b"2" * 16))
    announcer, reader = Directory(tmp_path, "shop"), Directory(tmp_path, "shop")
    announcer.announce(one)
    announcer.announce(other)
    opened: list[bytes] = []
    read = json.loads

    def loads(data: bytes) -> object:
        opened.append(data)
        return read(data)

    monkeypatch.setattr(json, "loads", loads)
    assert reader.entries() == [one, other] == reader.entries()
    assert len(opened) == 2
    again = replace(other, boot=other.boot + 1)
    announcer.announce(again)
    assert reader.entries() == [one, again]
    announcer.remove_stale(again)
    assert reader.entries() == [one]
    announcer.announce(again)
    assert reader.entries() == [one, again]


def test_clusters_do_not_see_one_another(tmp_path: Path) -> None:
    Directory(tmp_path, "shop").announce(ENTRY)
    assert Directory(tmp_path, "bank").entries() == []


def test_withdrawing_removes_only_what_was_announced(tmp_path: Path) -> None:
    other = replace(ENTRY, node=node(7))
    Directory(tmp_path, "shop").announce(other)
    directory = Directory(tmp_path, "shop")
    directory.withdraw()
    directory.announce(ENTRY)
    directory.withdraw()
    directory.withdraw()
    assert directory.entries() == [other]


def test_withdrawing_leaves_what_a_later_start_of_the_node_announced(tmp_path: Path) -> None:
    old, new = Directory(tmp_path, "shop"), Directory(tmp_path, "shop")
    later = replace(ENTRY, boot=ENTRY.boot + 1)
    old.announce(ENTRY)
    new.announce(later)
    old.withdraw()
    assert new.entries() == [later]


def test_removing_a_stale_entry_spares_a_later_start_and_does_not_mind_absence(tmp_path: Path) -> None:
    directory = Directory(tmp_path, "shop")
    later = replace(ENTRY, boot=ENTRY.boot + 1)
    directory.announce(later)
    directory.remove_stale(ENTRY)
    assert directory.entries() == [later]
    directory.remove_stale(later)
    directory.remove_stale(later)
    assert directory.entries() == []


def test_a_folder_that_others_can_enter_is_not_announced_in(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop").chmod(0o755)
    with pytest.raises(RuntimeDirInvalid, match="chmod 700"):
        Directory(tmp_path, "shop").announce(ENTRY)


def test_a_folder_that_cannot_be_made_is_an_error_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeDirInvalid, match="set ZHERO_RUNTIME_DIR"):
        Directory(tmp_path / "missing", "shop").announce(ENTRY)


def good_data() -> dict[str, object]:
    return {
        "node": node(9).hex(),
        "boot": 1,
        "name": "n",
        "endpoint": "tcp://127.0.0.1:1",
        "pid": 1,
        "version": "0",
        "key": "",
        "started_at_ms": 1,
    }


def encoded(**changes: object) -> bytes:
    return json.dumps({**good_data(), **changes}).encode()


BAD_DATA = {
    "empty": b"",
    "half": encoded()[:-9],
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "deep": b"[" * 60_000,
    "a huge number": b'{"boot": ' + b"9" * 6_000 + b"}",
    "a field too few": json.dumps({k: v for k, v in good_data().items() if k != "pid"}).encode(),
    "a text for a number": encoded(boot="1"),
    "a number for a text": encoded(name=1),
    "another node's": encoded(node=node(8).hex()),
    "a bad endpoint": encoded(endpoint="ipc:///tmp/x"),
    "too large": encoded(name="n" * ENTRY_MAX_BYTES),
}


@pytest.mark.parametrize("data", BAD_DATA.values(), ids=BAD_DATA.keys())
def test_garbage_is_skipped(data: bytes, tmp_path: Path) -> None:
    directory = Directory(tmp_path, "shop")
    directory.announce(ENTRY)
    (directory.path / f"{node(9).hex()}.json").write_bytes(data)
    assert directory.entries() == [ENTRY]


def test_the_good_data_that_garbage_is_made_of_is_read(tmp_path: Path) -> None:
    directory = Directory(tmp_path, "shop")
    directory.announce(ENTRY)
    (directory.path / f"{node(9).hex()}.json").write_bytes(encoded())
    assert len(directory.entries()) == 2


def test_what_is_no_entry_file_is_skipped(tmp_path: Path) -> None:
    directory = Directory(tmp_path, "shop")
    directory.announce(ENTRY)
    (directory.path / f"{node(1).hex()}.json").mkdir()
    os.mkfifo(directory.path / f"{node(2).hex()}.json")
    (directory.path / f"{node(3).hex()}.json").symlink_to("nowhere")
    (directory.path / "not hex.json").write_bytes(encoded(node="not hex"))
    (directory.path / "notes.txt").write_text("hello")
    assert directory.entries() == [ENTRY]


def test_the_number_of_files_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhero.runtime.discovery.ENTRIES_MAX_COUNT", 3)
    for number in range(5):
        Directory(tmp_path, "shop").announce(replace(ENTRY, node=node(number)))
    assert [entry.node for entry in Directory(tmp_path, "shop").entries()] == [node(0), node(1), node(2)]
    assert ENTRIES_MAX_COUNT >= 1_000


def test_clusters_are_those_with_entries(tmp_path: Path) -> None:
    for name in ("shop-2", "bank"):
        Directory(tmp_path, name).announce(ENTRY)
    left = Directory(tmp_path, "left")
    left.announce(ENTRY)
    left.withdraw()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").touch()
    assert clusters(tmp_path) == ["bank", "shop-2"]
    assert clusters(tmp_path / "missing") == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", "a b", "a\n", "x" * 201])
def test_a_name_that_could_lead_elsewhere_is_no_cluster(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name of a cluster"):
        Directory(tmp_path, name)


# --- who is gone --------------------------------------------------------------------------------------------------


def test_a_node_is_gone_when_its_endpoint_refuses_and_not_while_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = replace(ENTRY, endpoint=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        everywhere = replace(here, endpoint=f"tcp://0.0.0.0:{server.getsockname()[1]}")
        assert not is_gone(here)
        assert not is_gone(everywhere)
    assert is_gone(here)
    assert is_gone(everywhere)


def test_a_node_too_busy_to_answer_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_answers(*_: object) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", never_answers)
    assert not is_gone(ENTRY)


def test_what_cannot_be_asked_is_not_gone() -> None:
    assert not is_gone(replace(ENTRY, endpoint="nonsense"))


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("tcp://127.0.0.1:0", ("127.0.0.1", 0)),
        ("tcp://[::1]:7040", ("::1", 7040)),
        ("tcp://web-1.example.com:65535", ("web-1.example.com", 65535)),
        ("tcp://*:1", ("*", 1)),
        ("tcp://127.0.0.1", None),
        ("tcp://127.0.0.1:*", None),
        ("tcp://127.0.0.1:65536", None),
        ("tcp://:1", None),
        ("tcp://::1:1", None),
        ("ipc:///tmp/x", None),
        ("tcp://127.0.0.1:1\n", None),
        ("127.0.0.1:1", None),
    ],
)
def test_an_endpoint_is_taken_apart_or_refused(endpoint: str, address: tuple[str, int] | None) -> None:
    assert address_of(endpoint) == address
