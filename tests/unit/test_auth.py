"""Secrets, the keys made of them, and the key file of a user."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from zhero.errors import ConfigError, RuntimeDirInvalid
from zhero.runtime import auth
from zhero.runtime.auth import (
    KEY_FILE,
    PLAIN,
    PREFIX,
    Secret,
    generate,
    keep_key,
    keyring_of,
    keys_of,
    own_secret,
    wrong_with,
)

PHRASE = "correct horse battery"
CHILDREN = 8


def test_a_generated_secret_makes_the_same_keys_everywhere_and_others_make_others() -> None:
    one, two = generate(), generate()
    keys = keys_of(one, "shop")
    assert one.startswith(PREFIX)
    assert keys == keys_of(one, "bank")
    assert len({keys.server_public, keys.client_public, keys_of(two, "shop").server_public}) == 3
    assert keys.server_public == zmq.curve_public(keys.server_secret)


def test_a_passphrase_makes_other_keys_in_each_cluster() -> None:
    assert keys_of(PHRASE, "shop") == keys_of(PHRASE, "shop")
    assert keys_of(PHRASE, "shop").mark != keys_of(PHRASE, "bank").mark


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (generate(), None),
        (PHRASE, None),
        ("short", "keygen"),
        ("", "keygen"),
        (generate()[:-1], "whole"),
        (PREFIX, "whole"),
        ("a, comma is not allowed", "commas"),
        (" a space at its end ", "spaces"),
        ("a line\nand another one", "printable"),
        ("x" * 1_001, "1000"),
    ],
)
def test_what_can_be_a_secret(text: str, wrong: str | None) -> None:
    told = wrong_with(text)
    assert (told is None) if wrong is None else (told is not None and wrong in told)


def test_nothing_secret_is_in_a_repr(tmp_path: Path) -> None:
    key = generate()
    ring = keyring_of(Secret((key,)), False, tmp_path, "shop")
    shown = f"{ring!r} {ring.keys!r} {Secret((key,))!r} {Secret((key, PHRASE))}"
    hidden = [key, PHRASE, ring.keys[0].server_secret.decode(), ring.keys[0].client_secret.decode()]
    assert not [it for it in hidden if it in shown]


def test_the_first_secret_is_listened_with_and_all_are_let_in(tmp_path: Path) -> None:
    old, new = generate(), generate()
    both = keyring_of(Secret((new, old)), False, tmp_path, "shop")
    assert both.mark == keys_of(new, "shop").mark
    assert both.marks == (keys_of(new, "shop").mark, keys_of(old, "shop").mark)
    assert len(both.allowed) == 2
    assert keyring_of(None, True, tmp_path, "shop") is PLAIN
    assert (PLAIN.mark, PLAIN.marks, PLAIN.allowed) == ("", ("",), frozenset())


def test_a_library_that_can_not_encrypt_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth.zmq, "has", lambda capability: False)
    with pytest.raises(ConfigError, match="without CURVE"):
        keyring_of(None, False, tmp_path, "shop")
    assert keyring_of(None, True, tmp_path, "shop") is PLAIN


# --- the key file -------------------------------------------------------------------------------------------------


def test_the_key_file_is_made_once_and_is_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = own_secret(tmp_path)
    finally:
        os.umask(before)
    assert own_secret(tmp_path) == made
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [KEY_FILE]


def test_of_many_that_start_at_once_all_have_one_key(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from zhero.runtime.auth import own_secret\n"
    code += "sys.stdin.read(); print(own_secret(Path(sys.argv[1])).texts[0])"
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen(command, text=True, **pipes) for _ in range(CHILDREN)]  # type: ignore[call-overload]
    try:
        for child in children:
            child.stdin.close()
        told = [child.stdout.read() for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()
    assert len(set(told)) == 1
    assert told[0].startswith(PREFIX)
    assert os.listdir(tmp_path) == [KEY_FILE]


@pytest.mark.parametrize("spoil", ["open", "empty", "link", "folder"])
def test_a_key_file_that_others_had_a_hand_in_is_refused(spoil: str, tmp_path: Path) -> None:
    own_secret(tmp_path)
    file = tmp_path / KEY_FILE
    if spoil == "open":
        file.chmod(0o640)
    elif spoil == "empty":
        file.write_text("")
    else:
        moved = file.rename(tmp_path / "moved")
        if spoil == "link":
            file.symlink_to(moved)
        else:
            file.mkdir()
    with pytest.raises(RuntimeDirInvalid, match="key file"):
        own_secret(tmp_path)


def test_a_running_node_keeps_the_key_file(tmp_path: Path) -> None:
    mine, file = own_secret(tmp_path), tmp_path / KEY_FILE
    file.unlink()
    keep_key(tmp_path, mine)
    assert own_secret(tmp_path) == mine
    os.utime(file, (0, 0))
    keep_key(tmp_path, mine)
    assert time.time() - file.stat().st_mtime < 60
    file.unlink()
    own_secret(tmp_path)
    with pytest.raises(RuntimeDirInvalid, match="another"):
        keep_key(tmp_path, mine)
