"""Keys: what keeps out everybody who does not hold the cluster's secret.

    secret --> root (32 bytes) --> server key pair, client key pair, mark

All nodes of a cluster hold one secret, and make the same keys of it. Whoever listens proves itself with the server
pair, whoever connects with the client pair; a node does both. A generated secret *is* the root. A passphrase becomes
one by scrypt, once per process, salted with the cluster's name, so that trying passphrases against recorded traffic is
slow and has to be done for each cluster anew. All else is one keyed hash per label. The *mark* names a secret without
telling anything of it: a member shows which of several secrets it listens with.

Several secrets at once make a change possible without a stop: the first is listened with, all are let in and spoken.

Without a secret, one is made for this user on this host, in a file (`.secret`, mode 0600) of the private runtime
directory: other users of the host stay out too. The file appears whole, under its name, by a link, which fails if there
is one: of many that start at once one wins, and all read the same.

This is membership, no identity: who holds the secret can speak as any member. Texts of secrets never appear in a
`repr`, so neither in logs nor in tracebacks.

Source: CurveZMQ (rfc.zeromq.org/spec/26), ZAP (spec/27), reference to NaCl's curve25519xsalsa20poly1305.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import stat
import sys
import time
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import zmq
from zmq.utils import z85

from ..errors import ConfigError, RuntimeDirInvalid

PREFIX = "zhero-key-"
"""What a generated secret begins with, so that people and scanners of repositories know it when they see it."""
ROOT_BYTES = 32
PASSPHRASE_MIN_LENGTH = 12
SECRET_MAX_LENGTH = 1_000
SECRETS_MAX_COUNT = 4
"""Two are needed for a change of secret."""
FILE_MAX_BYTES = 16 * 1024
KEY_FILE = ".secret"
"""In the runtime directory; no name of a cluster, which begin with a letter or digit."""
TOUCH_AFTER_S = 3600.0
"""A key file is marked as used so often: places for temporary files are cleared of what is old."""
DOMAIN = "zhero"

_SCRYPT_COST, _SCRYPT_BLOCK = 2**15, 8
_SCRYPT_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """One secret or several, the current one first. Its texts are never shown."""

    texts: tuple[str, ...]

    def __repr__(self) -> str:
        return "(hidden)" if len(self.texts) == 1 else f"({len(self.texts)}, hidden)"


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What is made of one secret; keys in Z85, as libzmq takes them."""

    mark: str
    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """The keys of a node or client, the current ones first; empty: it speaks plainly (`PLAIN`)."""

    keys: tuple[Keys, ...]

    @property
    def mark(self) -> str:
        """Of what it listens with; "": plainly."""
        return self.keys[0].mark if self.keys else ""

    @property
    def marks(self) -> tuple[str, ...]:
        """Of all that it can speak."""
        return tuple(keys.mark for keys in self.keys) or ("",)

    @property
    def allowed(self) -> frozenset[bytes]:
        """The raw public keys of those that are let in."""
        return frozenset(z85.decode(keys.client_public) for keys in self.keys)

    def serve(self, socket: zmq.Socket[bytes]) -> None:
        """Let the socket listen with the current keys; before it is bound."""
        if not self.keys:
            return
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.keys[0].server_secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # where nobody answers for the domain, nobody gets in

    def speak(self, socket: zmq.Socket[bytes], mark: str) -> None:
        """Let what the socket connects to from now on be spoken to with these keys; unknown ones: the current ones."""
        if not self.keys:
            return
        keys = next((it for it in self.keys if it.mark == mark), self.keys[0])
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.client_public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.client_secret)


PLAIN = Keyring(())


def keyring_of(secret: Secret | None, insecure: bool, root: Path, cluster: str) -> Keyring:
    """The keys of a node or client.

    Args:
        secret: None: that of the key file in `root`, which is made if there is none.
        insecure: speak plainly.
        root: the runtime directory; it is private (`runtime_dir` sees to it).

    Raises:
        ConfigError: this libzmq can't encrypt.
        RuntimeDirInvalid: the key file can't be made or read, or others have a hand in it.
    """
    if insecure:
        return PLAIN
    if not zmq.has("curve"):
        raise ConfigError(
            "this libzmq was built without CURVE, so nothing can keep strangers out: install pyzmq from its wheel "
            "(pip install --force-reinstall --only-binary pyzmq pyzmq), or, in a network that you trust wholly, set "
            "insecure = true"
        )
    texts = (secret or own_secret(root)).texts
    return Keyring(tuple(keys_of(text, cluster) for text in texts))


# --- secrets ------------------------------------------------------------------------------------------------------


def generate() -> str:
    """A new secret."""
    return PREFIX + base64.urlsafe_b64encode(os.urandom(ROOT_BYTES)).rstrip(b"=").decode()


def wrong_with(text: str) -> str | None:
    """What a secret must be that this text is not; None: it is one. The text is not in the answer."""
    if text.startswith(PREFIX):
        return None if _root_in(text) is not None else "whole: this key was cut short or changed"
    if len(text) < PASSPHRASE_MIN_LENGTH:
        return f"a key of `zhero keygen`, or a passphrase of at least {PASSPHRASE_MIN_LENGTH} characters"
    if len(text) > SECRET_MAX_LENGTH or not text.isprintable() or text != text.strip() or "," in text:
        return f"at most {SECRET_MAX_LENGTH} printable characters, without commas or spaces at the ends"
    return None


@lru_cache(maxsize=16)
def keys_of(text: str, cluster: str) -> Keys:
    """The keys made of a secret.

    Cost: 0.1 s and 32 MiB for a passphrase, once; nothing to speak of for a generated one.
    """
    root = _root_in(text)
    if root is None:
        root = hashlib.scrypt(
            unicodedata.normalize("NFC", text).encode(),
            salt=f"zhero passphrase of {cluster}".encode(),
            n=_SCRYPT_COST,
            r=_SCRYPT_BLOCK,
            p=1,
            maxmem=_SCRYPT_MAX_BYTES,
            dklen=ROOT_BYTES,
        )
    server, client = _labelled(root, "server", ROOT_BYTES), _labelled(root, "client", ROOT_BYTES)
    server_secret, client_secret = z85.encode(server), z85.encode(client)
    mark = _labelled(root, "mark", 8).hex()
    return Keys(mark, zmq.curve_public(server_secret), server_secret, zmq.curve_public(client_secret), client_secret)


def _labelled(root: bytes, label: str, size: int) -> bytes:
    return hashlib.blake2b(f"zhero 1 {label}".encode(), key=root, digest_size=size).digest()


def _root_in(text: str) -> bytes | None:
    """The root that a generated secret is; None: it is none."""
    if not text.startswith(PREFIX):
        return None
    try:
        root = base64.b64decode(text.removeprefix(PREFIX) + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return root if len(root) == ROOT_BYTES else None


# --- files --------------------------------------------------------------------------------------------------------


def read_secret_file(path: Path) -> Secret:
    """The secrets in a file of the user's, one a line, the current one first; lines with # are for people.

    Raises:
        ConfigError: it can't be read, others can write it, or a line is no secret.
    """
    try:
        with open(path, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(FILE_MAX_BYTES + 1)
        lines = [line.strip() for line in data.decode().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ConfigError(f"secret_file {path} can't be read: {reason}") from None
    if sys.platform != "win32" and mode & 0o022:
        raise ConfigError(f"secret_file {path} can be written by others (mode {stat.S_IMODE(mode):o}): chmod 600 it")
    texts = [line for line in lines if line and not line.startswith("#")]
    if not 1 <= len(texts) <= SECRETS_MAX_COUNT or len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"secret_file {path} must hold 1 to {SECRETS_MAX_COUNT} secrets, one a line")
    for place, text in enumerate(texts, 1):
        wrong = wrong_with(text)
        if wrong is not None:
            raise ConfigError(f"secret {place} in secret_file {path} must be {wrong}")
    return Secret(tuple(texts))


def own_secret(root: Path) -> Secret:
    """That of this user on this host; made if there is none yet.

    Raises:
        RuntimeDirInvalid: the file can't be made or read, or others have a hand in it.
    """
    file = root / KEY_FILE
    try:
        if not os.path.lexists(file):
            place_key(root, generate())
        return Secret((_read_key(file),))
    except OSError as error:
        raise RuntimeDirInvalid(f"can't make or read the key file {file}: {error.strerror}") from error


def keep_key(root: Path, secret: Secret) -> None:
    """See to it that the key file of a running node stays: others of this user could not join without it.

    Raises:
        RuntimeDirInvalid: another key has taken its place, or it can't be put back.
    """
    file = root / KEY_FILE
    try:
        if not os.path.lexists(file):
            place_key(root, secret.texts[0])
        elif time.time() - file.stat().st_mtime > TOUCH_AFTER_S:
            os.utime(file)
        if _read_key(file) != secret.texts[0]:
            raise RuntimeDirInvalid(f"the key in {file} is another than the one this node started with: restart it")
    except OSError as error:
        raise RuntimeDirInvalid(f"can't keep the key file {file}: {error.strerror}") from error


def place_key(root: Path, text: str) -> None:
    """Write the key file, whole or not at all; one that is there stays.

    Raises:
        OSError: it can't be written.
    """
    beside = root / f"{KEY_FILE}.{os.getpid()}-{os.urandom(4).hex()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as stream:
            stream.write(text + "\n")
        with contextlib.suppress(FileExistsError):  # another process was quicker, and its key is the one
            os.link(beside, root / KEY_FILE)
    finally:
        beside.unlink()


def _read_key(file: Path) -> str:
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        data = stream.read(FILE_MAX_BYTES)
    if sys.platform != "win32" and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
        raise RuntimeDirInvalid(f"the key file {file} is not this user's alone: remove it, and restart your nodes")
    text = data.decode(errors="replace").strip()
    if _root_in(text) is None:
        raise RuntimeDirInvalid(f"the key file {file} holds no key: remove it, and restart your nodes")
    return text
