"""What a disk can hand back: a damaged database, a manifest or batches in quarantine that somebody changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path

from replicad.core.batch import Batch
from replicad.errors import DamagedError, OperatorError, StorageError
from replicad.storage.fsck import verify_folder
from replicad.storage.quarantine import FOLDER_NAME, Manifest, write_quarantine
from replicad.storage.quarantined import read_manifest, read_quarantine
from replicad.storage.schema import database_path
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from replicad.wire.frames import decode_batch, encode_batch
from tests.fuzz.registry import Target
from tests.fuzz.scratch import scratch
from tests.storage_log import CLUSTER, NODE, KeyPair, LogMaker

COUNTS = (1, 3, 250, 10, 300)  # two full tiles, an edge, and headers: every table has rows on several pages


@cache
def _quarantine() -> tuple[Path, bytes, Manifest]:
    """A data folder with two batches in quarantine: the folder, the batches' file, its manifest."""
    folder = scratch() / "quarantined"
    folder.mkdir()
    batches = [append.batch for append in LogMaker().appends(2, 1)]
    manifest = write_quarantine(
        folder,
        batches,
        cluster=CLUSTER,
        node=NODE,
        reason="deposed",
        encode=encode_batch,
        signer=KeyPair(),
        time_ms=1_700_000_000_000,
    )
    assert manifest is not None
    return folder, (folder / FOLDER_NAME / manifest.file).read_bytes(), manifest


def manifests(data: bytes) -> None:
    """A manifest that is accepted names a file in that very folder, and its numbers are such."""
    folder, _, good = _quarantine()
    path = folder / FOLDER_NAME / "9-9-9-0.json"
    path.write_bytes(data)
    try:
        found = read_manifest(path)
    finally:
        path.unlink()
    assert Path(found.file).name == found.file
    assert 0 <= found.first_offset <= found.end
    assert [type(value) for value in asdict(found).values()] == [type(value) for value in asdict(good).values()]


def quarantined(data: bytes) -> None:
    """The file of batches, under a manifest that somebody made to fit."""
    folder, _, good = _quarantine()
    path = folder / FOLDER_NAME / "changed.batches"
    path.write_bytes(data)
    manifest = Manifest(**(asdict(good) | {"file": path.name, "sha256": sha256(data).hexdigest()}))
    for batch in read_quarantine(folder, manifest, decode=decode_batch):
        assert decode_batch(encode_batch(batch)) == batch


@cache
def _database() -> tuple[bytes, list[Batch]]:
    """A good database file, and the batches in it."""
    folder, log = scratch() / "good", LogMaker()
    store = SqliteStore(folder, cluster=CLUSTER, node=NODE, decode_records=decode_records)
    store.set_promise(1, NODE)
    appends = [log.append(count, with_headers=number == 1) for number, count in enumerate(COUNTS)]
    store.append(appends, commit_size=log.size - 5)
    store.close()
    return database_path(folder).read_bytes(), [append.batch for append in appends]


def _damaged(data: bytes) -> Path:
    """A folder whose database has other bytes at some places: each 4 bytes of ``data`` are a place (3) and what is
    XORed onto the byte there."""
    good, _ = _database()
    folder = scratch() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    damaged = bytearray(good)
    for at in range(0, len(data) - 3, 4):
        damaged[int.from_bytes(data[at : at + 3], "big") % len(good)] ^= data[at + 3]
    database_path(folder).write_bytes(damaged)
    return folder


def fsck(data: bytes) -> None:
    """What the audit passes is the log that was written."""
    folder = _damaged(data)
    _, batches = _database()
    report = verify_folder(folder, cluster=CLUSTER, keyring=KeyPair().keyring, decode_records=decode_records)
    assert report.records <= batches[-1].end
    if not report.ok:
        raise DamagedError(str(report.fault))
    assert (report.records, report.root) == (batches[-1].end, batches[-1].root)
    assert report.node


def database(data: bytes) -> None:
    """A node that starts on it starts with the tree that was signed, or says what is wrong; and so does every read."""
    folder = _damaged(data)
    _, batches = _database()
    store = SqliteStore(folder, cluster=CLUSTER, node=NODE, decode_records=decode_records)
    try:
        state = store.load()
        assert state.size in {batch.end for batch in batches} | {0}
        roots = {batch.end: batch.root for batch in batches}
        assert not state.size or state.tree.root() == roots[state.size]
        for offset in (0, 2, 255, state.size - 1):
            store.read(max(offset, 0), max_bytes=1 << 20)
        store.read_time(0, since_ms=0, until_ms=1 << 62, max_bytes=1 << 20, until_offset=state.size)
        store.find_ids(["id-000000000", "id-000000300", "nobody's"])
        for size in (0, 1, 256, state.size):
            if size <= state.size:
                store.root_at(size)
        if state.size == batches[-1].end and state.commit_size <= batches[-1].first_offset:
            store.truncate(batches[-1].first_offset)
    finally:
        store.close()


def _damages() -> Iterable[bytes]:
    yield b""
    pages = len(_database()[0]) // 4096
    for page in range(pages):  # the type of each page, its number of cells, and something in its midst
        for within in (0, 3, 8, 2048, 4000):
            yield (page * 4096 + within).to_bytes(3, "big") + b"\x01"


def _manifest_seeds() -> Iterable[bytes]:
    manifest = asdict(_quarantine()[2])
    yield json.dumps(manifest | {"file": "9-9-9-0.batches"}).encode()
    yield json.dumps(
        manifest | {"file": "9-9-9-0.batches", "epoch": 9, "first_offset": 9, "end": 19}, indent=1
    ).encode()


TARGETS = (
    Target("disk.manifests", manifests, (DamagedError,), ("storage.quarantined.read_manifest",), _manifest_seeds),
    Target(
        "disk.quarantined",
        quarantined,
        (DamagedError,),
        ("storage.quarantined.read_quarantine",),
        lambda: [_quarantine()[1]],
    ),
    Target(
        "disk.fsck",
        fsck,
        (StorageError, OperatorError),
        ("storage.schema.read_meta",),
        _damages,
        64,
    ),
    Target(
        "disk.database",
        database,
        (StorageError, OperatorError),
        ("storage.reader.read_tree", "storage.reader.decode_body"),
        _damages,
        64,
    ),
)
