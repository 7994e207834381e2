"""Directories of journals: one process each, found again, never taken up twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zhero.errors import DataDirInvalid, DataDirLocked
from zhero.runtime.datadir import DATABASE, DataDir, slot, unheld


def test_a_directory_is_one_process_s_until_it_is_closed(tmp_path: Path) -> None:
    held = DataDir(tmp_path / "data")
    with pytest.raises(DataDirLocked, match=r"in use by process \d+.*Stop that one"):
        DataDir(tmp_path / "data")
    held.close()
    DataDir(tmp_path / "data").close()


def test_a_node_takes_the_lowest_slot_that_nobody_holds(tmp_path: Path) -> None:
    root = tmp_path / ".zhero" / "shop"
    warnings: list[str] = []
    held = [slot(root, warnings) for _ in range(3)]
    assert [it.folder.name for it in held] == ["0", "1", "2"]
    held[1].close()
    again = slot(root, warnings)
    assert again.folder.name == "1"
    assert warnings == []
    assert (tmp_path / ".zhero" / ".gitignore").read_text() == "*\n"
    for it in (held[0], again, held[2]):
        it.close()


def test_slots_that_nobody_holds_are_named_if_they_have_a_journal(tmp_path: Path) -> None:
    root = tmp_path / ".zhero" / "shop"
    held = [slot(root, []) for _ in range(3)]
    for it in held[:2]:
        (it.folder / DATABASE).touch()
    assert list(unheld(root)) == []
    held[1].close()
    held[2].close()
    assert list(unheld(root)) == [root / "1"]
    held[0].close()


def test_a_copied_directory_is_not_taken_up_by_itself(tmp_path: Path) -> None:
    root = tmp_path / ".zhero" / "shop"
    slot(root, []).close()
    shutil.move(root / "0", tmp_path / "backup")
    shutil.copytree(tmp_path / "backup", root / "0")
    with pytest.raises(DataDirInvalid, match=r"was copied or restored.*remove"):
        DataDir(root / "0")
    warnings: list[str] = []
    found = slot(root, warnings)
    assert found.folder.name == "1"
    assert len(warnings) == 1
    found.close()
    (root / "0" / "place").unlink()
    DataDir(root / "0").close()


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirInvalid, match="can't use"):
        DataDir(tmp_path / "file" / "data")
    with pytest.raises(DataDirInvalid, match="can't use"):
        slot(tmp_path / "file", [])
