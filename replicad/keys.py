"""A node's signing key: the private key file, and the signer made from it.

Owns the file: PEM PKCS8 with an Ed25519 key, as other tools read and write it, for its owner's eyes alone. The format
of public keys is :mod:`replicad.vkeys`; what is signed is the core's. Never puts key bytes into an error or a log.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from replicad.configvalues import is_name
from replicad.errors import KeyFileError
from replicad.files import read_with_stat, sync_folder
from replicad.vkeys import Verifier, make_verifier, parse_vkey

__all__ = [
    "Signer",
    "Verifier",
    "check_matches",
    "credential_file",
    "generate",
    "load_signer",
    "parse_vkey",
    "read_again",
    "rights_beyond_owner",
    "write_new",
]

CREDENTIAL = "node.key"  # as the unit's LoadCredential names it
TLS_CREDENTIAL = "tls.key"

FILE_BYTES = 16 << 10  # an Ed25519 PEM has 119; more is another file, and not to be read into memory whole
_OWNER_ONLY = 0o600
_OTHERS_BITS = 0o077


class Signer:
    """A node's private key under the node's name. Neither its repr nor its pickle gives the key away."""

    __slots__ = ("_private", "name", "verifier")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self.verifier = make_verifier(name, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        self._private = private

    def __repr__(self) -> str:
        return f"Signer({self.verifier.line})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signer is not to be pickled")

    @property
    def key_id(self) -> str:
        """The key's id, in hex."""
        return self.verifier.key_id.hex()

    def sign(self, statement: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032) over ``statement``."""
        return self._private.sign(statement)


def generate(name: str, path: str | Path, *, owner: tuple[int, int] | None = None) -> str:
    """Make a key for node ``name``, write the private part to ``path``, return the public one as a vkey line.

    ``owner``: the user and group that the file is to have; none: ours. The file appears whole and synced, with mode
    0600, or not at all. KeyFileError when ``name`` is no node's name, when ``path`` exists (nothing is ever
    overwritten: a lost key is lost for good), or when it can't be written.
    """
    path = Path(path)
    if not is_name(name):
        raise KeyFileError(f"{name!r} is no node name; use 1 to 64 of a-z 0-9 . _ -, a letter or digit first")
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        write_new(path, [pem], owner=owner)
    except FileExistsError as exc:
        raise KeyFileError(f"{path} exists and is never overwritten; give another path, or move it away first") from exc
    except FileNotFoundError as exc:
        raise KeyFileError(f"{path}: its folder does not exist; make it: mkdir -p {path.parent}") from exc
    except OSError as exc:
        raise KeyFileError(
            f"{path}: cannot be written ({exc.strerror}); write as the daemon's user or as root"
        ) from exc
    return Signer(name, private).verifier.line


def credential_file(env: Mapping[str, str] = os.environ, name: str = CREDENTIAL) -> str:
    """The key that systemd hands in (``LoadCredential=node.key:...``), as a path; "" when there is none."""
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder) / name
    return str(path) if folder and path.exists() else ""


def load_signer(path: str | Path, name: str, *, env: Mapping[str, str] = os.environ) -> Signer:
    """The signer of node ``name`` from its private key file.

    The file is refused when group or others have any right to it; only in ``$CREDENTIALS_DIRECTORY``, which systemd
    shuts to everybody but the service, it may be group-readable, because systemd shows its access list so. Raises
    KeyFileError with the remedy.
    """
    path = Path(path)
    try:
        found, pem = read_with_stat(path, at_most=FILE_BYTES)
    except FileNotFoundError as exc:
        raise KeyFileError(
            f"{path}: no such key file; make one: replicad-cli keys generate {name}, or correct the config's `key`"
        ) from exc
    except OSError as exc:
        raise KeyFileError(
            f"{path}: cannot be read ({exc.strerror}); it must belong to the user that the daemon runs as"
        ) from exc
    mode = found.st_mode
    if not stat.S_ISREG(mode):
        raise KeyFileError(f"{path}: is not a regular file; let the config's `key` name the key file itself")
    if rights_beyond_owner(path, mode, env):
        raise KeyFileError(
            f"{path}: group or others have rights to it (mode {stat.S_IMODE(mode):04o});"
            f" chmod 600 {path}, and make a new key if anybody may have read it"
        )
    return Signer(name, _parse_private(path, pem, name))


def rights_beyond_owner(path: Path, mode: int, env: Mapping[str, str]) -> int:
    """The rights in ``mode`` by which others than the owner could use a key file; 0 for one that may be used.

    In ``$CREDENTIALS_DIRECTORY`` it may be group-readable, because systemd shows its access list so.
    """
    return mode & (_OTHERS_BITS & ~stat.S_IRGRP if _is_credential(path, env) else _OTHERS_BITS)


def check_matches(signer: Signer, public_keys: Sequence[str]) -> None:
    """KeyFileError unless the signer's key is one of ``public_keys``, the lines that its node may sign with."""
    if not _matches(signer, public_keys):
        raise KeyFileError(
            f"the key file of {signer.name} is that of {signer.verifier.line}, the config says"
            f" {' or '.join(line.strip() for line in public_keys)};"
            " put the first into the config of every node, or put the right key file back"
        )


def read_again(signer: Signer, path: str | Path, public_keys: Sequence[str]) -> tuple[Signer, KeyFileError | None]:
    """What the node is to sign with once ``public_keys`` are the lines that it may sign with: the key in the file now,
    else the one that it has, with why the file's can't be taken. Raises KeyFileError when neither may sign."""
    try:
        found = load_signer(path, signer.name)
        check_matches(found, public_keys)
    except KeyFileError as exc:
        if not _matches(signer, public_keys):
            raise
        return signer, exc
    return found, None


def _matches(signer: Signer, public_keys: Sequence[str]) -> bool:
    return any(parse_vkey(line) == signer.verifier for line in public_keys)


def _parse_private(path: Path, pem: bytes, name: str) -> Ed25519PrivateKey:
    remedy = f"move it away and make one: replicad-cli keys generate {name}"
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError as exc:
        raise KeyFileError(
            f"{path}: is encrypted, and a daemon has nobody to ask for the passphrase;"
            f" decrypt it (openssl pkey) or {remedy}"
        ) from exc
    except (ValueError, UnsupportedAlgorithm, InternalError) as exc:  # the last: an X448 key of 32 bytes, say
        raise KeyFileError(f"{path}: is not a private key in PEM (PKCS8), or is damaged; {remedy}") from exc
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: is a key of another kind, not Ed25519; {remedy}")
    return private


def _is_credential(path: Path, env: Mapping[str, str]) -> bool:
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    return bool(folder) and path.resolve().is_relative_to(Path(folder).resolve())


def write_new(path: Path, parts: Iterable[bytes], *, owner: tuple[int, int] | None = None) -> None:
    """Create ``path`` with these parts, whole and synced; an OSError (FileExistsError ...) leaves nothing behind.

    ``owner``: the user and group that it is to have; none: ours.
    """
    if not path.name:  # "." and "/", which no file can be
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), _OWNER_ONLY)
            if owner not in (None, (os.geteuid(), os.getegid())):
                os.fchown(file.fileno(), *owner)
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path, follow_symlinks=False)  # unlike rename, link never replaces what is there
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    sync_folder(path.parent)
