"""The quarantine: what is dropped from a log is on disk first, whole, and comes back as it was."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from replicad.core.batch import Batch
from replicad.core.frames import AppendBatch
from replicad.core.keyring import NodeKey
from replicad.errors import DamagedError, DataFolderError, InvariantError, StorageError
from replicad.storage.quarantine import FOLDER_NAME, Manifest, statement_of, write_quarantine
from replicad.storage.quarantined import Entry, entries, read_quarantine
from replicad.wire.codec import decode_master_frame, encode_master_frame
from tests.storage_log import CLUSTER, NODE, KeyPair, LogMaker

KEYS = {NODE: [NodeKey("0c0ffee0", KeyPair())]}
TIME_MS = 1_700_000_000_123


def encode(batch: Batch) -> bytes:
    return encode_master_frame(AppendBatch(batch, 0))


def decode(encoded: bytes) -> Batch:
    frame = decode_master_frame(encoded)
    assert isinstance(frame, AppendBatch)
    return frame.batch


def put(data_dir: Path, batches: list[Batch], encode: Callable[[Batch], bytes] = encode) -> Manifest | None:
    return write_quarantine(
        data_dir,
        batches,
        cluster=CLUSTER,
        node=NODE,
        reason="fork at 7",
        encode=encode,
        signer=KeyPair(),
        time_ms=TIME_MS,
    )


def found(data_dir: Path) -> list[Entry]:
    return entries(data_dir, cluster=CLUSTER, keys=KEYS)


@pytest.fixture
def batches() -> list[Batch]:
    log = LogMaker()
    log.append(7)
    log.epoch = 3
    return [append.batch for append in log.appends(2, 300, 1)]


def test_what_is_put_in_comes_out_and_the_manifest_tells_what_it_is(tmp_path: Path, batches: list[Batch]) -> None:
    manifest = put(tmp_path, batches)
    assert manifest is not None
    path = tmp_path / FOLDER_NAME / "3-7-310-0.batches"
    assert manifest == Manifest(
        cluster=CLUSTER,
        node=NODE,
        reason="fork at 7",
        epoch=3,
        first_offset=7,
        end=310,
        batches=3,
        sha256=sha256(path.read_bytes()).hexdigest(),
        file=path.name,
        time_ms=TIME_MS,
        key_id="0c0ffee0",
        signature=b64encode(KeyPair().sign(statement_of(manifest))).decode(),
    )
    assert found(tmp_path) == [Entry("3-7-310-0", manifest, "proven")]
    assert list(read_quarantine(tmp_path, manifest, decode=decode)) == batches


def test_it_holds_two_files_that_only_the_daemon_can_read(tmp_path: Path, batches: list[Batch]) -> None:
    put(tmp_path, batches)
    folder = tmp_path / FOLDER_NAME
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "3-7-310-0.batches": 0o600,
        "3-7-310-0.json": 0o600,
    }
    assert json.loads((folder / "3-7-310-0.json").read_text())["reason"] == "fork at 7"


def test_the_same_range_again_never_replaces_what_is_there(tmp_path: Path, batches: list[Batch]) -> None:
    for number in range(3):
        manifest = put(tmp_path, batches)
        assert manifest is not None
        assert manifest.file == f"3-7-310-{number}.batches"
    assert [entry.name for entry in found(tmp_path)] == ["3-7-310-0", "3-7-310-1", "3-7-310-2"]


def test_nothing_to_drop_leaves_nothing(tmp_path: Path) -> None:
    assert put(tmp_path, []) is None
    assert list((tmp_path / FOLDER_NAME).iterdir()) == []
    assert found(tmp_path) == []


def test_batches_with_a_gap_are_refused_and_leave_nothing(tmp_path: Path, batches: list[Batch]) -> None:
    with pytest.raises(InvariantError):
        put(tmp_path, [batches[0], batches[2]])
    assert list((tmp_path / FOLDER_NAME).iterdir()) == []


def test_a_failing_encoder_leaves_nothing(tmp_path: Path, batches: list[Batch]) -> None:
    def fail(batch: Batch) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        put(tmp_path, batches, fail)
    assert list((tmp_path / FOLDER_NAME).iterdir()) == []


@pytest.mark.parametrize("at", [0, 30, 1000, -1])
def test_a_changed_byte_is_found_before_anything_is_given_out(tmp_path: Path, batches: list[Batch], at: int) -> None:
    manifest = put(tmp_path, batches)
    assert manifest is not None
    path = tmp_path / FOLDER_NAME / manifest.file
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="SHA-256"):
        next(read_quarantine(tmp_path, manifest, decode=decode))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cluster": "test"}', "\x00"])
def test_a_broken_manifest_is_named(tmp_path: Path, batches: list[Batch], text: str) -> None:
    put(tmp_path, batches)
    (tmp_path / FOLDER_NAME / "3-7-310-0.json").write_text(text)
    (entry,) = found(tmp_path)
    assert entry.state == "damaged"
    assert "3-7-310-0.json" in entry.fault


def test_a_node_that_never_dropped_anything_has_no_entries(tmp_path: Path) -> None:
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reason", "another"),
        ("epoch", 4),
        ("first_offset", 6),
        ("end", 311),
        ("time_ms", TIME_MS + 1),
        ("key_id", "00000000"),
        ("node", "n9"),
        ("cluster", "other"),
        ("signature", "AAAA"),
        ("signature", "not base64"),
    ],
)
def test_a_manifest_that_somebody_changed_does_not_prove(
    tmp_path: Path, batches: list[Batch], field: str, value: str | int
) -> None:
    put(tmp_path, batches)
    path = tmp_path / FOLDER_NAME / "3-7-310-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert [entry.state for entry in found(tmp_path)] == ["damaged"]


def test_a_manifest_of_a_key_that_is_not_the_nodes_does_not_prove(tmp_path: Path, batches: list[Batch]) -> None:
    put(tmp_path, batches)
    (entry,) = entries(tmp_path, cluster=CLUSTER, keys={NODE: [NodeKey("0", KeyPair(2))], "n2": KEYS[NODE]})
    assert entry.state == "damaged"
    former = [NodeKey("0", KeyPair(2)), NodeKey("0c0ffee0", KeyPair(), until=1)]  # it signed this before it was retired
    assert [each.state for each in entries(tmp_path, cluster=CLUSTER, keys={NODE: former})] == ["proven"]


def test_what_an_earlier_release_put_aside_is_whole_and_not_signed(tmp_path: Path, batches: list[Batch]) -> None:
    put(tmp_path, batches)
    path = tmp_path / FOLDER_NAME / "3-7-310-0.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("time_ms", "key_id", "signature")}
    path.write_text(json.dumps(old))
    (entry,) = found(tmp_path)
    assert entry.state == "unsigned"
    assert entry.manifest is not None
    assert list(read_quarantine(tmp_path, entry.manifest, decode=decode)) == batches


def test_a_file_that_is_missing_or_changed_is_told_of_and_the_others_are_listed(
    tmp_path: Path, batches: list[Batch]
) -> None:
    for _ in range(3):
        put(tmp_path, batches)
    folder = tmp_path / FOLDER_NAME
    (folder / "3-7-310-0.batches").unlink()
    with (folder / "3-7-310-1.batches").open("ab") as file:
        file.write(b"x")
    assert [(entry.name, entry.state) for entry in found(tmp_path)] == [
        ("3-7-310-0", "damaged"),
        ("3-7-310-1", "damaged"),
        ("3-7-310-2", "proven"),
    ]


def test_what_a_crash_left_is_said_to_be_that(tmp_path: Path, batches: list[Batch]) -> None:
    put(tmp_path, batches)
    (tmp_path / FOLDER_NAME / "3-7-310-0.json").unlink()
    (entry,) = found(tmp_path)
    assert (entry.name, entry.state, entry.manifest) == ("3-7-310-0", "unfinished", None)


def test_who_may_not_read_it_is_told_who_may(tmp_path: Path, batches: list[Batch]) -> None:
    put(tmp_path, batches)
    (tmp_path / FOLDER_NAME).chmod(0)
    was = os.geteuid()
    try:
        if was == 0:
            os.seteuid(65534)  # to root every folder is open
        with pytest.raises(DataFolderError, match="as root or as the daemon's user"):
            found(tmp_path)
    finally:
        os.seteuid(was)
        (tmp_path / FOLDER_NAME).chmod(0o700)


def test_a_folder_that_can_not_be_read_is_not_taken_for_an_empty_one(tmp_path: Path, batches: list[Batch]) -> None:
    put(tmp_path, batches)
    folder = tmp_path / FOLDER_NAME
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(folder)  # a loop: what even root can't read
    with pytest.raises(StorageError):
        found(tmp_path)
    assert moved.exists()
