"""What a node drops from its log is put here first: DATA/quarantine/, never cleaned up by us.

Owns the files' names and format, and that they are on disk before the caller drops anything. Must not know how a batch
is encoded (callables are given), why one is dropped, nor how it is read again (:mod:`replicad.storage.quarantined`).

``<epoch>-<first offset>-<end>-<n>.batches`` holds consecutive batches; epoch is that of the first, end the offset after
the last record, and n (from 0) keeps apart what has all else in common. It begins with the line "replicad quarantine
v1"; each batch follows as its length, u32 big-endian, and that many bytes. Beside it, the same name with ``.json``, the
manifest: one object with the fields of :class:`Manifest`, signed by the node. The manifest comes last: batches without
one are what a crash left of an attempt that did not finish, and nothing was dropped then.
"""

from __future__ import annotations

import json
import os
import struct
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import IO, Protocol

from replicad.core.batch import Batch
from replicad.errors import invariant
from replicad.files import sync_folder
from replicad.storage.faults import from_os

FOLDER_NAME = "quarantine"
MAGIC = b"replicad quarantine v1\n"
LENGTH = struct.Struct(">I")
BATCHES, MANIFEST, _UNFINISHED = ".batches", ".json", ".unfinished"
SIGNED_CONTEXT = b"replicad quarantine manifest v1\n"  # no other signature of the same key can be taken for this one


class Signing(Protocol):
    """A node's private key."""

    @property
    def key_id(self) -> str: ...

    def sign(self, statement: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """What stands in quarantine, and whence. ``sha256`` is the hex digest of the whole .batches file.

    1. ``signature`` is base64 of the node's, by key ``key_id``, over :func:`statement_of`. One of release 0.1 has
       neither, and no time.
    """

    cluster: str
    node: str
    reason: str
    epoch: int  # of the first batch
    first_offset: int
    end: int  # the offset after the last record
    batches: int
    sha256: str
    file: str  # the .batches file's name, in the same folder
    time_ms: int = 0  # when it was put aside, ms since 1970 UTC by the node's clock
    key_id: str = ""
    signature: str = ""


def statement_of(manifest: Manifest) -> bytes:
    """The bytes under a manifest's signature: a context line, and its other fields as JSON, sorted, without spaces."""
    fields = asdict(manifest)
    del fields["signature"]
    return SIGNED_CONTEXT + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def write_quarantine(
    data_dir: Path,
    batches: Iterable[Batch],
    *,
    cluster: str,
    node: str,
    reason: str,
    encode: Callable[[Batch], bytes],
    signer: Signing,
    time_ms: int,
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
        left += [folder / (name + BATCHES), folder / (name + MANIFEST + _UNFINISHED)]
        left[0].rename(left[1])
        sync_folder(folder)  # the batches' name is on disk before the manifest says so
        manifest = Manifest(
            cluster, node, reason, epoch, first_offset, end, count, digest, name + BATCHES, time_ms, signer.key_id
        )
        manifest = replace(manifest, signature=b64encode(signer.sign(statement_of(manifest))).decode())
        with _create(left[2]) as file:
            file.write(json.dumps(asdict(manifest), indent=2).encode() + b"\n")
            _sync(file)
        left[2].rename(folder / (name + MANIFEST))
        sync_folder(folder)
    except BaseException as exc:
        for path in left:  # on a full disk above all: attempts that failed must not add up
            with suppress(OSError):
                path.unlink()
        if isinstance(exc, OSError):
            raise from_os(exc, f"write to {folder}") from exc
        raise
    return manifest


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
        head = LENGTH.pack(len(encoded))
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
    while (folder / f"{stem}-{number}{BATCHES}").exists():
        number += 1
    return f"{stem}-{number}"
