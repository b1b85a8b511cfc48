"""What stands in DATA/quarantine/, read again: its manifests, whether they prove, and the batches.

Owns what counts as proven. A manifest proves by the signature of its node, and its file by the manifest's SHA-256. Must
not change anything there; how it came there is :mod:`replicad.storage.quarantine`'s.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import IO

from replicad.core.batch import Batch
from replicad.core.keyring import NodeKey
from replicad.errors import DamagedError, DataFolderError, PeerError
from replicad.storage.faults import from_os
from replicad.storage.quarantine import BATCHES, FOLDER_NAME, LENGTH, MAGIC, MANIFEST, Manifest, statement_of

_READ_BYTES = 1 << 20

#: A node's public keys, by its name: those of the config.
Keys = Mapping[str, Sequence[NodeKey]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in quarantine.

    1. ``state`` is ``proven``; ``unsigned`` (whole, by a release that did not sign); ``damaged`` (``fault`` says how);
       or ``unfinished``: a crash left it, and nothing was dropped from the log then.
    """

    name: str
    manifest: Manifest | None
    state: str
    fault: str = ""


def entries(data_dir: Path, *, cluster: str, keys: Keys) -> list[Entry]:
    """All that is in quarantine, by first offset, each read as a whole. Raises DataFolderError, DiskFailedError."""
    folder = data_dir / FOLDER_NAME
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - Path.glob takes what can't be read for empty
    except FileNotFoundError:
        return []
    except PermissionError as exc:
        raise DataFolderError(
            f"{folder} cannot be read ({exc.strerror}): run this as root or as the daemon's user"
        ) from exc
    except OSError as exc:
        raise from_os(exc, f"read {folder}") from exc
    manifests = [name for name in names if name.endswith(MANIFEST)]
    found = [_entry(data_dir, folder / name, cluster=cluster, keys=keys) for name in manifests]
    for name in names:
        stem = name.removesuffix(BATCHES)
        if name.endswith(BATCHES) and stem + MANIFEST not in manifests:
            text = "it has no manifest: a crash left it, and nothing was dropped from the log then"
            found.append(Entry(stem, None, "unfinished", text))
    return sorted(found, key=lambda each: (each.manifest.first_offset if each.manifest else -1, each.name))


def _entry(data_dir: Path, path: Path, *, cluster: str, keys: Keys) -> Entry:
    name, manifest = path.name.removesuffix(MANIFEST), None
    try:
        manifest = read_manifest(path)
        _check_signature(manifest, path, cluster=cluster, keys=keys)
        with _opened(data_dir / FOLDER_NAME / manifest.file, manifest):
            pass
    except DamagedError as exc:
        return Entry(name, manifest, "damaged", str(exc))
    return Entry(name, manifest, "proven" if manifest.signature else "unsigned")


def _check_signature(manifest: Manifest, path: Path, *, cluster: str, keys: Keys) -> None:
    if manifest.cluster != cluster:
        raise DamagedError(f"{path} is of cluster {manifest.cluster!r}, not of {cluster!r}")
    if not manifest.signature:
        return
    try:
        signature = b64decode(manifest.signature, validate=True)
    except ValueError:
        signature = b""
    statement = statement_of(manifest)
    # `until` bounds what a key may sign in the log; what is here was dropped from it.
    if not any(key.verifier.verify(signature, statement) for key in keys.get(manifest.node, ())):
        raise DamagedError(f"{path} is not signed by a key of {manifest.node} that the config has")


def read_manifest(path: Path) -> Manifest:
    """A manifest, well formed and of the file beside it. Raises DamagedError, DiskFailedError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise DamagedError(f"{path} is not a manifest: {exc}") from exc
    except OSError as exc:
        raise from_os(exc, f"read {path}") from exc
    try:
        manifest = Manifest(**json.loads(text))
    except (ValueError, TypeError, RecursionError) as exc:
        raise DamagedError(f"{path} is not a manifest: {exc}") from exc
    return _checked(manifest, path)


def _checked(manifest: Manifest, path: Path) -> Manifest:
    """Refuse fields of other types, and a file anywhere else: it would be opened."""
    for field in fields(Manifest):
        value = getattr(manifest, field.name)
        if type(value).__name__ != field.type:
            raise DamagedError(f"{path} is not a manifest: {field.name} is {type(value).__name__}, not {field.type}")
    if manifest.file != path.name.removesuffix(MANIFEST) + BATCHES:
        raise DamagedError(f"{path} is the manifest of another file")
    if not 0 <= manifest.first_offset < manifest.end:
        raise DamagedError(f"{path} says offsets {manifest.first_offset} to {manifest.end}")
    return manifest


def read_quarantine(data_dir: Path, manifest: Manifest, *, decode: Callable[[bytes], Batch]) -> Iterator[Batch]:
    """The batches under a manifest, in order, one in memory at a time; the file is verified against its SHA-256 first.

    Raises DamagedError: it is not the file that was written; DiskFailedError: it cannot be read.
    """
    path = data_dir / FOLDER_NAME / manifest.file
    try:
        with _opened(path, manifest) as file:
            while head := file.read(LENGTH.size):
                encoded = _read_exactly(file, head, path)
                try:
                    batch = decode(encoded)
                except PeerError as exc:
                    raise DamagedError(f"{path} holds what is no batch: {exc}") from exc
                yield batch
    except OSError as exc:
        raise from_os(exc, f"read {path}") from exc


@contextmanager
def _opened(path: Path, manifest: Manifest) -> Iterator[IO[bytes]]:
    """The file of batches, at its first batch; DamagedError when it is not what was written."""
    try:
        file = path.open("rb")
    except FileNotFoundError as exc:
        raise DamagedError(f"{path} is missing, and its manifest is there") from exc
    except OSError as exc:
        raise from_os(exc, f"read {path}") from exc
    with file:
        digest = sha256()
        try:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
            file.seek(0)
            magic = file.read(len(MAGIC))
        except OSError as exc:
            raise from_os(exc, f"read {path}") from exc
        if digest.hexdigest() != manifest.sha256:
            raise DamagedError(f"{path} is not what was put in quarantine: its SHA-256 differs from the manifest's")
        if magic != MAGIC:
            raise DamagedError(f"{path} does not begin as a file of quarantined batches")
        yield file


def _read_exactly(file: IO[bytes], head: bytes, path: Path) -> bytes:
    length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else -1
    encoded = file.read(length) if length >= 0 else b""
    if len(encoded) != length:
        raise DamagedError(f"{path} ends within a batch")
    return encoded
