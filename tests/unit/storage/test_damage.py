"""Bytes that the disk changed: found when they are read, and what is whole is read all the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicad.core.batch import Batch
from replicad.errors import DamagedError
from replicad.storage.fsck import verify_folder
from replicad.storage.reader import NO_END
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker

BATCHES, RECORDS = 6, 50
BAD = 2 * RECORDS  # where the third batch begins
EVERYTHING = 1 << 30


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def opened(data_dir: Path) -> SqliteStore:
    return SqliteStore(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)


def filled(data_dir: Path) -> LogMaker:
    log = LogMaker()
    with closing(opened(data_dir)) as store:
        store.set_promise(1, NODE)
        store.append([log.append(RECORDS) for _ in range(BATCHES)], commit_size=BATCHES * RECORDS)
    return log


def damage(data_dir: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(data_dir / "log.db")) as database, database:
        assert database.execute(statement, values).rowcount > 0


def make_version_1(data_dir: Path) -> None:
    """The file as release 0.1 would have made it."""
    with closing(sqlite3.connect(data_dir / "log.db")) as database, database:
        database.execute("ALTER TABLE batches DROP COLUMN checksum")
        database.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")


@pytest.fixture(
    params=[
        "UPDATE batches SET body = CAST(hex(body) AS BLOB) WHERE first_offset = ?",
        "UPDATE batches SET time_ms = time_ms + 256 WHERE first_offset = ?",
        "UPDATE batches SET epoch = epoch + 1 WHERE first_offset = ?",
        "UPDATE batches SET count = count + 1 WHERE first_offset = ?",
        "UPDATE batches SET signer = 'n0de-1' WHERE first_offset = ?",
        "UPDATE batches SET signature = zeroblob(64) WHERE first_offset = ?",
        "UPDATE batches SET root = zeroblob(32) WHERE first_offset = ?",
        "UPDATE batches SET checksum = checksum + 1 WHERE first_offset = ?",
        "UPDATE batches SET first_offset = first_offset + 1 WHERE first_offset = ?",
        "DELETE FROM batches WHERE first_offset = ?",
    ],
    ids=["body", "time", "epoch", "count", "signer", "signature", "root", "checksum", "place", "gone"],
)
def damaged(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[SqliteStore]:
    """A store in which one batch of six is not what was written."""
    filled(data_dir)
    damage(data_dir, request.param, BAD)
    with closing(opened(data_dir)) as store:
        yield store


def test_a_batch_that_is_not_what_was_written_is_never_given_out(damaged: SqliteStore) -> None:
    with pytest.raises(DamagedError) as caught:
        damaged.read(BAD, max_bytes=EVERYTHING)
    assert caught.value.offset == BAD
    with pytest.raises(DamagedError) as caught:
        damaged.read(BAD + 7, max_bytes=1)
    assert caught.value.offset in (BAD, BAD + 7)


def test_what_is_whole_before_and_after_it_is_read(damaged: SqliteStore, data_dir: Path) -> None:
    before = damaged.read(0, max_bytes=EVERYTHING)
    assert [batch.first_offset for batch in before] == [0, RECORDS]
    after = damaged.read(BAD + RECORDS, max_bytes=EVERYTHING)
    assert [batch.first_offset for batch in after] == [RECORDS * number for number in range(3, BATCHES)]
    early = damaged.read_time(0, since_ms=0, until_ms=NO_END, max_bytes=EVERYTHING, until_offset=BATCHES * RECORDS)
    assert [batch.first_offset for batch in early] == [0, RECORDS]


def test_verify_names_it(damaged: SqliteStore, data_dir: Path) -> None:
    damaged.close()
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=LogMaker().key.keyring, decode_records=decode_records)
    assert report.fault is not None
    assert report.fault.offset is not None
    assert BAD <= report.fault.offset < BAD + RECORDS


@pytest.mark.parametrize("at", range(0, 4096, 256))
def test_a_flipped_bit_in_a_payload_is_found_whichever_it_is(data_dir: Path, at: int) -> None:
    """In the file, as a disk does it: not by SQLite."""
    log = filled(data_dir)
    (body,) = [batch.body for batch in log_batches(data_dir) if batch.first_offset == BAD]
    path = data_dir / "log.db"
    content = bytearray(path.read_bytes())
    place = content.index(body[at % (len(body) - 64) :][:64])
    content[place] ^= 1 << (at // 256 % 8)
    path.write_bytes(content)
    with closing(opened(data_dir)) as store:
        with pytest.raises(DamagedError):
            store.read(BAD, max_bytes=1)
        assert store.load().size == log.tree.size


def log_batches(data_dir: Path) -> list[Batch]:
    with closing(opened(data_dir)) as store:
        return store.read(0, max_bytes=EVERYTHING)


# --- a file of release 0.1 --------------------------------------------------------------------------------------


def test_a_file_of_release_0_1_is_taken_over_with_all_that_is_in_it(data_dir: Path) -> None:
    log = filled(data_dir)
    make_version_1(data_dir)
    with closing(opened(data_dir)) as store:
        assert store.load().tree.root() == log.tree.root()
        store.append([log.append(RECORDS)], commit_size=0)
    damage(data_dir, "UPDATE batches SET time_ms = time_ms + 1 WHERE first_offset = ?", BATCHES * RECORDS)
    with closing(opened(data_dir)) as store:  # which is one of this release now
        assert len(store.read(0, max_bytes=EVERYTHING)) == BATCHES
        with pytest.raises(DamagedError):
            store.read(BATCHES * RECORDS, max_bytes=1)


def test_a_file_of_release_0_1_is_verified_as_it_is(data_dir: Path) -> None:
    log = filled(data_dir)
    make_version_1(data_dir)
    before = (data_dir / "log.db").read_bytes()
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    assert (report.fault, report.records, report.root) == (None, BATCHES * RECORDS, log.tree.root())
    assert (data_dir / "log.db").read_bytes() == before


def test_a_new_file_and_one_that_was_taken_over_have_the_same_schema(data_dir: Path, tmp_path: Path) -> None:
    filled(data_dir)
    make_version_1(data_dir)
    filled(tmp_path / "new")
    opened(data_dir).close()
    schemas = []
    for folder in (data_dir, tmp_path / "new"):
        with closing(sqlite3.connect(folder / "log.db")) as database:
            rows = database.execute("PRAGMA table_info(batches)").fetchall()
            schemas.append((rows, database.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall()))
    assert schemas[0] == schemas[1]
