"""What a node drops from its log is put here first: DATA/quarantine/, never cleaned up by us.

Owns the files' names and format, and that they are on disk before the caller drops anything. Must not know how a batch
is encoded (callables are given) nor why one is dropped.

``<epoch>-<first offset>-<end>-<n>.batches`` holds consecutive batches; epoch is that of the first, end the offset after
the last record, and n (from 0) keeps apart what has all else in common. It begins with the line "replicad quarantine
v1"; each batch follows as its length, u32 big-endian, and that many bytes. Beside it, the same name with ``.json``, the
manifest: one object with the fields of :class:`Manifest`. The manifest comes last: batches without one are what a crash
left of an attempt that did not finish, and nothing was dropped then.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import IO

from replicad.core.batch import Batch
from replicad.errors import DamagedError, PeerError, invariant
from replicad.files import sync_folder
from replicad.storage.faults import from_os

FOLDER_NAME = "quarantine"
MAGIC = b"replicad quarantine v1\n"
_LENGTH = struct.Struct(">I")
_BATCHES, _MANIFEST, _UNFINISHED = ".batches", ".json", ".unfinished"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands in quarantine, and whence. ``sha256`` is the hex digest of the whole .batches file."""

    cluster: str
    node: str
    reason: str
    epoch: int  # of the first batch
    first_offset: int
    end: int  # the offset after the last record
    batches: int
    sha256: str
    file: str  # the .batches file's name, in the same folder


def write_quarantine(
    data_dir: Path,
    batches: Iterable[Batch],
    *,
    cluster: str,
    node: str,
    reason: str,
    encode: Callable[[Batch], bytes],
) -> Manifest | None:
    """Copy consecutive batches to quarantine; on disk, names included, when this returns. None when there are none.

    Holds one batch in memory at a time. Raises DiskFullError, DiskFailedError; then no manifest has been written.
    """
    folder = data_dir / FOLDER_NAME
    left = [folder / f"batches{_UNFINISHED}"]  # one writer: the holder of the data folder's lock
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        sync_folder(data_dir)
        with _create(left[0]) as file:
            written = _write_batches(file, batches, encode)
        if written is None:
            left[0].unlink()
            return None
        epoch, first_offset, end, count, digest = written
        name = _free_name(folder, f"{epoch}-{first_offset}-{end}")
        left += [folder / (name + _BATCHES), folder / (name + _MANIFEST + _UNFINISHED)]
        left[0].rename(left[1])
        sync_folder(folder)  # the batches' name is on disk before the manifest says so
        manifest = Manifest(cluster, node, reason, epoch, first_offset, end, count, digest, name + _BATCHES)
        with _create(left[2]) as file:
            file.write(json.dumps(asdict(manifest), indent=2).encode() + b"\n")
            _sync(file)
        left[2].rename(folder / (name + _MANIFEST))
        sync_folder(folder)
    except BaseException as exc:
        for path in left:  # on a full disk above all: attempts that failed must not add up
            with suppress(OSError):
                path.unlink()
        if isinstance(exc, OSError):
            raise from_os(exc, f"write to {folder}") from exc
        raise
    return manifest


def read_manifests(data_dir: Path) -> list[Manifest]:
    """The manifests of all that is in quarantine, by first offset, then name. Raises DamagedError, DiskFailedError."""
    folder = data_dir / FOLDER_NAME
    manifests = []
    try:
        for path in sorted(folder.glob("*" + _MANIFEST)):
            try:
                manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError, RecursionError) as exc:
                raise DamagedError(f"{path} is not a manifest: {exc}") from exc
            manifests.append(_checked(manifest, path))
    except OSError as exc:
        raise from_os(exc, f"read {folder}") from exc
    return sorted(manifests, key=lambda manifest: (manifest.first_offset, manifest.file))


def _checked(manifest: Manifest, path: Path) -> Manifest:
    """Refuse fields of other types, and a file anywhere else: it would be opened."""
    for field in fields(Manifest):
        value = getattr(manifest, field.name)
        if type(value).__name__ != field.type:
            raise DamagedError(f"{path} is not a manifest: {field.name} is {type(value).__name__}, not {field.type}")
    if manifest.file != path.name.removesuffix(_MANIFEST) + _BATCHES:
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
        with path.open("rb") as file:
            digest = sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            if digest.hexdigest() != manifest.sha256:
                raise DamagedError(f"{path} is not what was put in quarantine: its SHA-256 differs from the manifest's")
            file.seek(0)
            if file.read(len(MAGIC)) != MAGIC:
                raise DamagedError(f"{path} does not begin as a file of quarantined batches")
            while head := file.read(_LENGTH.size):
                encoded = _read_exactly(file, head, path)
                try:
                    batch = decode(encoded)
                except PeerError as exc:
                    raise DamagedError(f"{path} holds what is no batch: {exc}") from exc
                yield batch
    except OSError as exc:
        raise from_os(exc, f"read {path}") from exc


def _read_exactly(file: IO[bytes], head: bytes, path: Path) -> bytes:
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    encoded = file.read(length) if length >= 0 else b""
    if len(encoded) != length:
        raise DamagedError(f"{path} ends within a batch")
    return encoded


def _create(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _write_batches(
    file: IO[bytes], batches: Iterable[Batch], encode: Callable[[Batch], bytes]
) -> tuple[int, int, int, int, str] | None:
    """(epoch, first offset, end, number of batches, SHA-256) of what was written and synced; None for no batches."""
    digest = sha256(MAGIC)
    file.write(MAGIC)
    epoch = first_offset = end = count = 0
    for batch in batches:
        if not count:
            epoch, first_offset, end = batch.epoch, batch.first_offset, batch.first_offset
        invariant(batch.first_offset == end, f"quarantine: a batch at offset {batch.first_offset} after {end}")
        encoded = encode(batch)
        head = _LENGTH.pack(len(encoded))
        for part in (head, encoded):
            digest.update(part)
            file.write(part)
        end, count = batch.end, count + 1
    if not count:
        return None
    _sync(file)
    return epoch, first_offset, end, count, digest.hexdigest()


def _free_name(folder: Path, stem: str) -> str:
    number = 0
    while (folder / f"{stem}-{number}{_BATCHES}").exists():
        number += 1
    return f"{stem}-{number}"
