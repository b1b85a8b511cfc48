"""Where the last batch of each key ends, in a real folder, beside a writer that has it open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicad.core.keyring import Keyring
from replicad.errors import DamagedError, DataFolderError
from replicad.storage.fsck import verify_folder
from replicad.storage.schema import database_path
from replicad.storage.signatures import last_signed
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.support.builders import CLUSTER, LogBuilder, node_key

FIRST, SECOND, THIRD = (node_key("n1", generation).key_id for generation in (1, 2, 3))


def write(folder: Path) -> SqliteStore:
    """Records 0-2 are by the first key of n1, 3-4 by n2, 5 and 6 by n1's first again, 7-9 by its second, 10 by its
    first, 11 by its second."""
    log = LogBuilder("n1")
    log.add(3)
    log.add_epoch(2, node="n2")
    log.add()
    log.add_epoch(3, node="n1")
    log.add()
    for generation, count in ((2, 3), (1, 1), (2, 1)):
        log.generation = generation
        log.add(count)
    store = SqliteStore(folder, cluster=CLUSTER, node="n1", decode_records=decode_records)
    store.set_promise(3, "n1")
    store.append(log.appends, commit_size=log.size)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    store = write(tmp_path)
    yield tmp_path
    store.close()


def test_each_key_ends_where_its_last_batch_does_though_it_signed_others_before(folder: Path) -> None:
    keys = [node_key("n1", generation) for generation in (1, 2, 3)]
    assert last_signed(folder, cluster=CLUSTER, node="n1", keys=keys) == {FIRST: 11, SECOND: 12, THIRD: 0}
    assert last_signed(folder, cluster=CLUSTER, node="n1", keys=keys[:1]) == {FIRST: 11}
    n2 = node_key("n2")
    assert last_signed(folder, cluster=CLUSTER, node="n2", keys=[n2]) == {n2.key_id: 5}
    assert last_signed(folder, cluster="other", node="n1", keys=keys) == {FIRST: 0, SECOND: 0, THIRD: 0}


def test_a_folder_without_a_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="holds no log"):
        last_signed(tmp_path, cluster=CLUSTER, node="n1", keys=[])


@pytest.mark.parametrize(
    ("until", "offset", "reason"),
    [
        (None, None, ""),
        (11, None, ""),
        (
            10,
            10,
            f"revoked: batch at offsets 10 to 10 is signed with key {FIRST} of n1, which is believed below offset 10",
        ),
        (7, 10, "revoked"),
        (6, 6, "revoked"),
        (2, 0, "revoked: batch at offsets 0 to 2 is signed"),
        (0, 0, "revoked"),
    ],
)
def test_an_audit_names_the_first_batch_of_a_key_that_is_not_believed_there(
    tmp_path: Path, until: int | None, offset: int | None, reason: str
) -> None:
    write(tmp_path).close()
    ring = Keyring({"n1": [node_key("n1", 2), node_key("n1", until=until)], "n2": [node_key("n2")]})
    report = verify_folder(tmp_path, cluster=CLUSTER, keyring=ring, decode_records=decode_records)
    if offset is None:
        assert report.ok, report.fault
    else:
        assert report.fault is not None
        assert (report.fault.offset, report.records) == (offset, offset)
        assert report.fault.reason.startswith(reason)


def test_a_row_of_other_types_is_told_as_damage(folder: Path) -> None:
    for statement in (
        "UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ') ') WHERE name = 'batches'",
        "UPDATE batches SET root = 7 WHERE first_offset = 11",
    ):
        with closing(sqlite3.connect(database_path(folder))) as connection, connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(statement)
    with pytest.raises(DamagedError, match="the table batches has a row of"):
        last_signed(folder, cluster=CLUSTER, node="n1", keys=[node_key("n1")])


@pytest.mark.parametrize("column", ["epoch", "count", "time_ms"])
def test_a_row_of_numbers_that_no_batch_has_is_told_as_damage(folder: Path, column: str) -> None:
    with closing(sqlite3.connect(database_path(folder))) as connection, connection:
        connection.execute(f"UPDATE batches SET {column} = -1 WHERE first_offset = 11")  # noqa: S608
    with pytest.raises(DamagedError, match="the batch at offset 11 holds impossible numbers"):
        last_signed(folder, cluster=CLUSTER, node="n1", keys=[node_key("n1")])
