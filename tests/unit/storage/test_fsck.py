"""The offline verification: it passes what is good, and names the first bad offset of what is not."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from replicad.core.batch import Append, statement_of
from replicad.core.record import Records, payload_digest
from replicad.errors import DamagedError, DataFolderError, ReplicadError
from replicad.storage.fsck import Fault, Report, verify_folder
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records, encode_records
from tests.storage_log import CLUSTER, NODE, KeyPair, LogMaker

ROOT = Path(__file__).parents[3]
COUNTS = (1, 3, 250, 10, 300, 1, 5)  # 570 records
BEGINS = (0, 1, 4, 254, 264, 564, 565)


def make_log(data_dir: Path, change: Callable[[list[Append]], list[Append]] = lambda appends: appends) -> LogMaker:
    """A log over epochs 1 and 2; ``change`` is what a master without scruples does to it before it is stored."""
    log = LogMaker()
    store = SqliteStore(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)
    appends = []
    for number, count in enumerate(COUNTS):
        log.epoch = 1 if number < 3 else 2
        appends.append(log.append(count, with_headers=number == 1))
    store.set_promise(2, NODE)
    store.append(change(appends), commit_size=log.size - 5)
    store.close()
    return log


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("good") / "data"
    make_log(data_dir)
    return data_dir


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def verify(data_dir: Path, *, cluster: str = CLUSTER, key: KeyPair | None = None) -> Report:
    return verify_folder(data_dir, cluster=cluster, keyring=(key or KeyPair()).keyring, decode_records=decode_records)


def change(data_dir: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(data_dir / "log.db")
    with connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


def test_a_good_log_proves_and_is_counted(folder: Path) -> None:
    report = verify(folder)
    assert report.ok
    assert report == Report(
        cluster=CLUSTER,
        node=NODE,
        records=570,
        batches=7,
        epochs=2,
        last_epoch=2,
        root=report.root,
        commit_size=565,
        fault=None,
    )
    store = SqliteStore(folder, cluster=CLUSTER, node=NODE, decode_records=decode_records)
    assert report.root == store.load().tree.root()
    store.close()


def test_an_empty_log_proves(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "data", cluster=CLUSTER, node=NODE, decode_records=decode_records).close()
    report = verify(tmp_path / "data")
    assert (report.ok, report.records, report.epochs) == (True, 0, 0)


def test_a_log_with_tiles_on_three_levels_proves(tmp_path: Path) -> None:
    log = LogMaker()
    store = SqliteStore(tmp_path / "data", cluster=CLUSTER, node=NODE, decode_records=decode_records)
    store.set_promise(1, NODE)
    while log.size < 66_000:
        store.append([log.append(6000)], commit_size=0)
    store.close()
    assert verify(tmp_path / "data").ok
    change(tmp_path / "data", "UPDATE tiles SET hashes = zeroblob(32) WHERE level = 2")
    assert verify(tmp_path / "data").fault == Fault(0, "tile (2, 0) is not the log's")


# --- each column of each table ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "offset"),
    [
        ("UPDATE batches SET first_offset = 255 WHERE first_offset = 254", 254),
        ("UPDATE batches SET first_offset = -1 WHERE first_offset = 0", 0),
        ("UPDATE batches SET count = 11 WHERE first_offset = 254", 254),
        ("UPDATE batches SET count = 9 WHERE first_offset = 254", 254),
        ("UPDATE batches SET count = 0 WHERE first_offset = 254", 254),
        ("UPDATE batches SET count = -1 WHERE first_offset = 0", 0),
        ("UPDATE batches SET count = 4294967296 WHERE first_offset = 254", 254),
        ("UPDATE batches SET epoch = 1 WHERE first_offset = 254", 254),
        ("UPDATE batches SET epoch = 3 WHERE first_offset = 254", 254),
        ("UPDATE batches SET epoch = -1 WHERE first_offset = 0", 0),
        ("UPDATE batches SET time_ms = time_ms + 1 WHERE first_offset = 254", 254),
        ("UPDATE batches SET time_ms = -1 WHERE first_offset = 254", 254),
        ("UPDATE batches SET root = zeroblob(32) WHERE first_offset = 254", 254),
        ("UPDATE batches SET root = CAST(root || x'00' AS BLOB) WHERE first_offset = 254", 254),
        ("UPDATE batches SET signer = 'node-2' WHERE first_offset = 254", 254),
        ("UPDATE batches SET signature = zeroblob(64) WHERE first_offset = 254", 254),
        ("UPDATE batches SET signature = x'' WHERE first_offset = 254", 254),
        ("UPDATE batches SET body = substr(body, 2) WHERE first_offset = 254", 254),
        ("DELETE FROM batches WHERE first_offset = 254", 254),
        ("DELETE FROM batches WHERE first_offset = 0", 0),
        ("DELETE FROM batches WHERE first_offset = 565", 565),
        ("UPDATE ids SET id = id || 'x' WHERE \"offset\" = 300", 300),
        ('UPDATE ids SET "offset" = 301 WHERE "offset" = 300', 300),
        ('DELETE FROM ids WHERE "offset" = 569', 569),
        ("INSERT INTO ids VALUES ('nobody', 7)", 7),
        ("INSERT INTO ids VALUES ('nobody', -7)", -7),
        ("INSERT INTO ids VALUES ('nobody', 570)", 570),
        ('UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND "index" = 1', 256),
        ('DELETE FROM tiles WHERE level = 0 AND "index" = 1', 256),
        ("UPDATE tiles SET hashes = CAST(substr(hashes, 1, 32) || zeroblob(32) AS BLOB) WHERE level = 1", 256),
        ("UPDATE tiles SET hashes = substr(hashes, 1, 32) WHERE level = 1", 0),
        ("DELETE FROM tiles WHERE level = 1", 0),
        ('UPDATE tiles SET "index" = 7 WHERE level = 1', 0),
        ("INSERT INTO tiles VALUES (0, 2, zeroblob(32))", 570),
        ("INSERT INTO tiles VALUES (2, 0, zeroblob(32))", 570),
        ("INSERT INTO tiles VALUES (-1, 0, zeroblob(32))", 570),
        ("INSERT INTO tiles VALUES (0, -1, zeroblob(32))", 570),
        ("UPDATE state SET commit_size = 571", 570),
        ("UPDATE state SET commit_size = -1", 570),
        ("UPDATE state SET promised_epoch = 1", None),
        ("DELETE FROM state", None),
    ],
)
def test_a_changed_row_is_found_and_the_offset_named(folder: Path, statement: str, offset: int | None) -> None:
    change(folder, statement)
    report = verify(folder)
    assert report.fault is not None, statement
    assert report.fault.offset == offset, report.fault
    assert not report.ok
    assert report.records in BEGINS or report.records == 570


def test_an_extra_batch_before_the_log_is_found(folder: Path) -> None:
    change(
        folder,
        "INSERT INTO batches SELECT -5, 1, epoch, time_ms, root, signer, signature, body, NULL FROM batches LIMIT 1",
    )
    fault = verify(folder).fault
    assert fault is not None
    assert "8 batches" in fault.reason


def test_the_first_of_several_faults_is_named(folder: Path) -> None:
    change(folder, "UPDATE batches SET root = zeroblob(32) WHERE first_offset IN (4, 254, 565)")
    change(folder, 'DELETE FROM ids WHERE "offset" IN (3, 560)')
    fault = verify(folder).fault
    assert fault is not None
    assert fault.offset == 3
    change(folder, "INSERT INTO ids VALUES ('nobody', 0)")
    fault = verify(folder).fault
    assert fault is not None
    assert fault.offset == 0


def test_the_counts_are_of_what_proves(folder: Path) -> None:
    change(folder, "UPDATE batches SET signature = zeroblob(64) WHERE first_offset = 564")
    report = verify(folder)
    assert (report.records, report.batches, report.epochs, report.last_epoch) == (564, 5, 2, 2)


@pytest.mark.parametrize("seed", range(3))
def test_any_flipped_bit_in_any_value_is_found(folder: Path, seed: int) -> None:
    """Of every column of every table in turn: one bit of one row's value, any."""
    rng = random.Random(seed)
    connection = sqlite3.connect(folder / "log.db", isolation_level=None)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    flips = [
        (table, row[1])
        for table in tables
        for row in connection.execute(f"PRAGMA table_info({table})")
        for _ in range(60 if row[1] == "body" else 4)
    ]
    for table, column in flips:
        rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        row = dict(zip(names, rng.choice(rows), strict=True))
        if (column, row.get("key")) == ("value", "node"):
            continue  # what the node was called is no one's to prove
        flipped = _flip(row[column], rng)
        where = " AND ".join(f'"{name}" IS ?' for name in names)
        try:
            connection.execute(
                f'UPDATE "{table}" SET "{column}" = ? WHERE {where}',  # noqa: S608
                (flipped, *row.values()),
            )
        except sqlite3.IntegrityError:
            continue  # a key that is taken: SQLite itself would not hold it
        assert not _proves(folder), (table, column, row[column], flipped)
        row_now = {**row, column: flipped}
        connection.execute(
            f'UPDATE "{table}" SET "{column}" = ? WHERE {where}',  # noqa: S608
            (row[column], *row_now.values()),
        )
    connection.close()
    assert verify(folder).ok


def _flip(value: object, rng: random.Random) -> object:
    if isinstance(value, int):
        return value ^ (1 << rng.randrange(40))
    if isinstance(value, bytes):
        at = rng.randrange(len(value))
        return value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :]
    assert isinstance(value, str)
    at = rng.randrange(len(value))
    return value[:at] + chr(ord(value[at]) ^ (1 << rng.randrange(4))) + value[at + 1 :]


def _proves(data_dir: Path) -> bool:
    try:
        return verify(data_dir).ok
    except ReplicadError:
        return False


def test_any_damaged_page_of_the_file_is_found(folder: Path, tmp_path: Path) -> None:
    content = (folder / "log.db").read_bytes()
    for page in range(len(content) // 4096):
        damaged = bytearray(content)
        damaged[page * 4096 : (page + 1) * 4096] = random.Random(page).randbytes(4096)
        (folder / "log.db").write_bytes(damaged)
        assert not _proves(folder), page


# --- a master without scruples: everything is signed, and yet --------------------------------------------------


def resign(append: Append, **changed: object) -> Append:
    """The append with another batch in it, signed by the master's own key."""
    batch = replace(append.batch, **changed)  # type: ignore[arg-type]
    statement = statement_of(batch, cluster=CLUSTER)
    return replace(append, batch=replace(batch, signature=KeyPair().sign(statement)))


def with_records(change_records: Callable[[Records], Records], at: int) -> Callable[[list[Append]], list[Append]]:
    def change_appends(appends: list[Append]) -> list[Append]:
        records = decode_records(appends[at].batch.body)
        appends[at] = resign(appends[at], body=encode_records(change_records(records)))
        return appends

    return change_appends


def replaced(items: Sequence[bytes], index: int, item: bytes) -> list[bytes]:
    return [*items[:index], item, *items[index + 1 :]]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: replace(r, payloads=replaced(r.payloads, 7, b"another")), "payload"),
        (lambda r: replace(r, payloads=replaced(r.payloads, 7, r.payloads[7][::-1])), "payload"),
        (lambda r: replace(r, salts=r.salts[: 7 * 16] + bytes(16) + r.salts[8 * 16 :]), "payload"),
        (lambda r: replace(r, headers=replaced([b""] * len(r), 7, b"\x01k\x00\x01v")), "headers"),
        (lambda r: replace(r, leaves=replaced(r.leaves, 7, b"\x02" + r.leaves[7][1:])), "leaf"),
        (lambda r: replace(r, leaves=replaced(r.leaves, 7, r.leaves[7] + b"x")), "leaf"),
        (lambda r: replace(r, leaves=replaced(r.leaves, 7, r.leaves[8])), "leaf"),
        (lambda r: replace(r, leaves=replaced(r.leaves, 7, b"")), "leaf"),
    ],
)
def test_a_record_that_does_not_fit_its_leaf_is_named_though_the_batch_is_signed(
    tmp_path: Path, spoil: Callable[[Records], Records], reason: str
) -> None:
    make_log(tmp_path / "data", with_records(spoil, 3))
    fault = verify(tmp_path / "data").fault
    assert fault is not None
    assert fault.offset == 254 + 7
    assert fault.reason.startswith(reason)


def test_a_leaf_that_fits_its_record_but_not_the_signed_root_is_found(tmp_path: Path) -> None:
    def swap_author(records: Records) -> Records:
        leaf = records.leaves[7]
        return replace(records, leaves=replaced(records.leaves, 7, leaf[: -len("anonymous")] + b"Anonymous"))

    make_log(tmp_path / "data", with_records(swap_author, 3))
    fault = verify(tmp_path / "data").fault
    assert fault is not None
    assert fault.offset == 254
    assert fault.reason.startswith("root")


def test_an_epoch_that_falls_is_found_though_it_is_signed(tmp_path: Path) -> None:
    log = LogMaker()
    store = SqliteStore(tmp_path / "data", cluster=CLUSTER, node=NODE, decode_records=decode_records)
    store.set_promise(9, NODE)
    for epoch in (1, 3, 2):
        log.epoch = epoch
        store.append([log.append(4)], commit_size=0)
    store.close()
    fault = verify(tmp_path / "data").fault
    assert fault is not None
    assert (fault.offset, fault.reason.split(":")[0]) == (8, "epoch")


def test_a_fork_of_the_log_is_found_though_each_half_is_signed(tmp_path: Path) -> None:
    log, other = LogMaker(1), LogMaker(2, prefix="other")
    log.append(10), other.append(10)
    ours, theirs = log.append(5), other.append(5)
    log.rewind(log.tree)
    store = SqliteStore(tmp_path / "data", cluster=CLUSTER, node=NODE, decode_records=decode_records)
    store.set_promise(1, NODE)
    first = LogMaker(1).append(10)
    store.append([first, theirs], commit_size=0)
    store.close()
    assert ours.batch.root != theirs.batch.root
    fault = verify(tmp_path / "data").fault
    assert fault is not None
    assert (fault.offset, fault.reason.split(":")[0]) == (10, "root")


def test_signatures_by_another_key_do_not_prove(folder: Path) -> None:
    report = verify(folder, key=KeyPair(2))
    assert report.fault is not None
    assert (report.fault.offset, report.records) == (0, 0)
    assert report.fault.reason.startswith("signature")


# --- the folder -------------------------------------------------------------------------------------------------


def test_a_payload_digest_is_salted() -> None:
    """What the tests above rely on: the same payload under another salt does not fit."""
    assert payload_digest(bytes(16), b"x") != payload_digest(b"\x01" * 16, b"x")


def test_another_cluster_a_missing_folder_and_a_running_daemon_are_the_callers_to_mend(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataFolderError, match="cluster 'test', not 'other'"):
        verify(folder, cluster="other")
    with pytest.raises(DataFolderError, match="holds no log"):
        verify(tmp_path / "nowhere")
    store = SqliteStore(folder, cluster=CLUSTER, node=NODE, decode_records=decode_records)
    with pytest.raises(DataFolderError, match=f"in use by process {os.getpid()}"):
        verify(folder)
    store.close()


def test_what_is_no_database_is_called_damaged(folder: Path) -> None:
    (folder / "log.db").write_bytes(b"x" * 10_000)
    with pytest.raises(DamagedError):
        verify(folder)


def test_another_schema_is_refused_and_a_changed_one_of_this_version_does_not_prove(folder: Path) -> None:
    change(folder, "UPDATE meta SET value = value || '.1' WHERE key = 'node'")
    assert verify(folder).node == f"{NODE}.1"
    connection = sqlite3.connect(folder / "log.db")
    connection.execute("DROP INDEX batches_by_time")
    connection.close()
    fault = verify(folder).fault
    assert fault is not None
    assert "batches_by_time" in fault.reason
    change(folder, "UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    with pytest.raises(DataFolderError, match="schema version 3"):
        verify(folder)


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, int]:
    """A folder after kill -9, its newest batches in the WAL, and the size last answered."""
    data_dir = tmp_path / "killed"
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.storage_writer", str(data_dir), "1"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    try:
        size = [int(writer.stdout.readline()) for _ in range(15)][-1]
    finally:
        writer.kill()
        writer.communicate()
    return data_dir, size


def contents(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data_dir.iterdir() if not path.name.endswith("-shm")}


def test_a_folder_after_kill_9_is_verified_with_its_wal_and_left_as_it_was(killed: tuple[Path, int]) -> None:
    data_dir, size = killed
    before = contents(data_dir)
    assert len(before["log.db-wal"]) > 0
    report = verify(data_dir)
    assert report.ok
    assert report.records >= size
    assert contents(data_dir) == before
    (data_dir / "log.db-shm").unlink()  # a copy may come without it
    assert verify(data_dir) == report
    assert contents(data_dir) == before


def test_what_a_link_leads_to_is_verified_with_its_wal(killed: tuple[Path, int], tmp_path: Path) -> None:
    data_dir, size = killed
    link = tmp_path / "link"
    link.symlink_to(data_dir / "log.db")
    assert verify(link).records >= size


def test_a_folder_that_was_closed_is_verified_without_touching_anything(folder: Path) -> None:
    before = contents(folder)
    assert verify(folder).ok
    assert {path.name for path in folder.iterdir()} == set(before)
    assert contents(folder) == before


@pytest.fixture
def read_only() -> Callable[[Path], None]:
    if os.geteuid() == 0:

        def bind_read_only(path: Path) -> None:
            mounted = subprocess.run(["mount", "--bind", str(path), str(path)], check=False, capture_output=True)
            if mounted.returncode:
                pytest.skip("root may write anywhere, and a read-only mount is not to be had here")
            subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)

        return bind_read_only
    return lambda path: path.chmod(0o500)


def test_a_read_only_folder_is_verified_where_sqlite_can_and_explained_where_not(
    folder: Path, killed: tuple[Path, int], read_only: Callable[[Path], None]
) -> None:
    data_dir, size = killed
    (data_dir / "log.db-shm").unlink()
    try:
        for path in (folder, data_dir):
            read_only(path)
        assert verify(folder).ok
        with pytest.raises(DataFolderError, match="verify the copy"):
            verify(data_dir)
    finally:
        for path in (folder, data_dir):
            if os.geteuid() == 0:
                subprocess.run(["umount", str(path)], check=False)
            else:
                path.chmod(0o700)
    assert verify(data_dir).records >= size
