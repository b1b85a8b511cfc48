"""The quarantine: what is dropped from a log is on disk first, whole, and comes back as it was."""

from __future__ import annotations

import json
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from replicad.core.batch import Batch
from replicad.core.frames import AppendBatch
from replicad.errors import DamagedError, InvariantError
from replicad.storage.quarantine import FOLDER_NAME, Manifest, read_manifests, read_quarantine, write_quarantine
from replicad.wire.codec import decode_master_frame, encode_master_frame
from tests.storage_log import CLUSTER, NODE, LogMaker


def encode(batch: Batch) -> bytes:
    return encode_master_frame(AppendBatch(batch, 0))


def decode(encoded: bytes) -> Batch:
    frame = decode_master_frame(encoded)
    assert isinstance(frame, AppendBatch)
    return frame.batch


def put(data_dir: Path, batches: list[Batch]) -> Manifest | None:
    return write_quarantine(data_dir, batches, cluster=CLUSTER, node=NODE, reason="fork at 7", encode=encode)


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
    )
    assert read_manifests(tmp_path) == [manifest]
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
    assert len(read_manifests(tmp_path)) == 3


def test_nothing_to_drop_leaves_nothing(tmp_path: Path) -> None:
    assert put(tmp_path, []) is None
    assert list((tmp_path / FOLDER_NAME).iterdir()) == []
    assert read_manifests(tmp_path) == []


def test_batches_with_a_gap_are_refused_and_leave_nothing(tmp_path: Path, batches: list[Batch]) -> None:
    with pytest.raises(InvariantError):
        put(tmp_path, [batches[0], batches[2]])
    assert list((tmp_path / FOLDER_NAME).iterdir()) == []


def test_a_failing_encoder_leaves_nothing(tmp_path: Path, batches: list[Batch]) -> None:
    def fail(batch: Batch) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_quarantine(tmp_path, batches, cluster=CLUSTER, node=NODE, reason="", encode=fail)
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
    with pytest.raises(DamagedError, match=r"3-7-310-0\.json"):
        read_manifests(tmp_path)


def test_a_node_that_never_dropped_anything_has_no_manifests(tmp_path: Path) -> None:
    assert read_manifests(tmp_path) == []
