"""Disks that are full or fail: what is answered, what is left, and that it goes on. Real ones, where there is a way."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from replicad.errors import (
    DamagedError,
    DiskFailedError,
    DiskFullError,
    DuplicateIdError,
    InvariantError,
)
from replicad.storage.faults import from_os, from_sqlite
from replicad.storage.fsck import verify_folder
from replicad.storage.quarantine import FOLDER_NAME, write_quarantine
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, KeyPair, LogMaker

ROOT = Path(__file__).parents[3]


def open_store(data_dir: Path) -> SqliteStore:
    store = SqliteStore(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)
    if not store.load().promised_epoch:
        store.set_promise(1, NODE)  # as every node has before it takes a record
    return store


def repeated(call: Callable[[], None], times: int) -> None:
    for _ in range(times):
        call()


def proves(data_dir: Path, log: LogMaker) -> bool:
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    assert report.fault is None
    return report.root == log.tree.root()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with mounted(tmp_path, "4m") as disk:
        yield disk


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small tmpfs, to be a full disk, cannot be mounted (are you root?): {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("step_bytes", [100, 5000, 60_000])
def test_a_full_disk_refuses_appends_serves_reads_and_goes_on_when_there_is_room(
    small_disk: Path, step_bytes: int
) -> None:
    data_dir = small_disk / "data"
    store, log = open_store(data_dir), LogMaker()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(free_bytes(small_disk) - (1 << 20)))
    refused = 0
    kept = log.tree.copy()
    for _ in range(3000):
        kept = log.tree.copy()
        append = log.append(5, payload_bytes=step_bytes // 5)
        try:
            store.append([append], commit_size=log.size)
        except DiskFullError:
            log.rewind(kept)
            refused += 1
            assert store.load().size == log.size
            if refused == 3:
                break
    assert refused == 3
    assert store.load().tree.root() == log.tree.root()
    assert store.load().commit_size == log.size
    assert store.read(log.size - 1, max_bytes=1)[0].end == log.size
    assert store.root_at(log.size) == log.tree.root()

    ballast.unlink()
    for _ in range(5):
        store.append([log.append(5, payload_bytes=step_bytes // 5)], commit_size=0)
    store.close()
    assert proves(data_dir, log)


def test_what_is_refused_since_the_wals_index_finds_no_room_is_not_there_after_a_kill(tmp_path: Path) -> None:
    """The WAL has its blocks from before, its index is made anew by each start: so that is what finds no room."""
    log = LogMaker()
    store = open_store(tmp_path / "before")
    for _ in range(18):
        store.append([log.append(1, payload_bytes=1_000_000)], commit_size=log.size)
    with mounted(tmp_path, "48m") as disk:
        data_dir = Path(shutil.copytree(tmp_path / "before", disk / "data"))  # as a kill leaves it
        store.close()
        store, ballast = open_store(data_dir), disk / "ballast"
        ballast.write_bytes(bytes(free_bytes(disk)))

        def one_more() -> None:
            kept = log.tree.copy()
            try:
                store.append([log.append(5, payload_bytes=2000)], commit_size=0)
            except DiskFullError:
                log.rewind(kept)
                raise

        with pytest.raises(DiskFullError, match="disk I/O error"):  # of the index: the WAL's is another
            repeated(one_more, 4000)
        killed = Path(shutil.copytree(data_dir, tmp_path / "killed"))
        with closing(open_store(killed)) as again:
            assert again.load().tree.root() == log.tree.root()
        ballast.unlink()
        store.append([log.append(1)], commit_size=log.size)
        store.close()
        assert proves(data_dir, log)


def test_a_start_on_a_full_disk_serves_reads(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    store, log = open_store(data_dir), LogMaker()
    store.append([log.append(300)], commit_size=0)
    store.close()
    (small_disk / "ballast").write_bytes(bytes(free_bytes(small_disk) - 48 * 1024))  # the shared index needs 32 KiB
    store = open_store(data_dir)
    assert store.load().tree.root() == log.tree.root()
    assert len(store.read(0, max_bytes=1)) == 1
    with pytest.raises(DiskFullError):
        store.append([LogMaker().append(10), log.append(10, payload_bytes=20_000)][1:], commit_size=0)
    store.close()


def test_a_database_at_its_page_limit_refuses_an_append_and_changes_nothing(tmp_path: Path) -> None:
    store, log = open_store(tmp_path / "data"), LogMaker()
    store.append(log.appends(3, 300), commit_size=3)
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 10}")
    kept = log.tree.copy()
    for sizes in ((2000,), (1,) * 40 + (2000,)):
        with pytest.raises(DiskFullError):
            store.append(log.appends(*sizes), commit_size=303)
        log.rewind(kept)
        assert (store.load().size, store.load().commit_size) == (303, 3)
        assert store.find_ids(["id-000000303", "id-000000302"]) == {"id-000000302": 302}
        assert len(store.read(0, max_bytes=1 << 30)) == 2
    store._writer.execute("PRAGMA max_page_count = 1000000")
    store.append([log.append(2000)], commit_size=303)
    store.close()
    assert proves(tmp_path / "data", log)


def test_a_disk_that_fails_a_write_stops_all_writing_until_the_next_start(tmp_path: Path) -> None:
    """A file may not grow beyond a limit: the kernel answers EFBIG, to SQLite a failure of the disk."""
    data_dir = tmp_path / "data"
    writer = subprocess.Popen(
        ["prlimit", "--fsize=300000:", sys.executable, "-m", "tests.storage_writer", str(data_dir), "1"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    lines = []
    while (line := writer.stdout.readline().strip()) and line[0].isdigit():
        lines.append(int(line))
    writer.communicate("\n")
    assert line == "DiskFailedError"
    store = open_store(data_dir)
    assert store.load().size >= lines[-1]
    store.close()
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=LogMaker().key.keyring, decode_records=decode_records)
    assert report.fault is None


def test_after_a_failure_of_the_disk_every_write_is_refused_and_reads_go_on(tmp_path: Path) -> None:
    store, log = open_store(tmp_path / "data"), LogMaker()
    store.append([log.append(3)], commit_size=0)
    other = sqlite3.connect(tmp_path / "data" / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # a program that holds the database is the failure that can be had at will
    store._writer.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(DiskFailedError, match="another program"):
        store.set_commit_size(1)
    other.execute("ROLLBACK")
    other.close()
    for write in (
        lambda: store.set_commit_size(2),
        lambda: store.set_promise(2, NODE),
        lambda: store.append([log.append()], commit_size=0),
        lambda: store.truncate(0),
    ):
        with pytest.raises(DiskFailedError, match="failed before"):
            write()
    assert store.load().commit_size == 0
    assert len(store.read(0, max_bytes=1)) == 1
    store.close()
    assert open_and_close(tmp_path / "data") == 3


def open_and_close(data_dir: Path) -> int:
    with closing(open_store(data_dir)) as store:
        return store.load().size


def test_a_damaged_page_is_called_damage(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    store, log = open_store(data_dir), LogMaker()
    for _ in range(5):
        store.append([log.append(500)], commit_size=0)
    store.close()
    path = data_dir / "log.db"
    content = bytearray(path.read_bytes())
    content[4096 * 8 :] = b"\xff" * (len(content) - 4096 * 8)
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        open_and_close(data_dir)


def test_quarantine_on_a_full_disk_says_so_and_leaves_nothing_behind(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    data_dir.mkdir()
    log = LogMaker()
    batches = [append.batch for append in log.appends(10, 10)]
    for room in range(0, 16 * 1024, 4096):
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(free_bytes(small_disk) - room))
        try:
            write_quarantine(
                data_dir,
                batches,
                cluster=CLUSTER,
                node=NODE,
                reason="fork",
                encode=lambda batch: batch.body * 10,
                signer=KeyPair(),
                time_ms=1,
            )
        except DiskFullError:
            folder = data_dir / FOLDER_NAME
            assert not folder.exists() or list(folder.iterdir()) == []
        else:
            pytest.fail(f"{room} bytes are not enough")
        ballast.unlink()
        shutil.rmtree(data_dir / FOLDER_NAME, ignore_errors=True)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (sqlite3.SQLITE_FULL, "database or disk is full", DiskFullError),
        (sqlite3.SQLITE_IOERR_SHMSIZE, "disk I/O error", DiskFullError),
        (sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error", DiskFailedError),
        (sqlite3.SQLITE_IOERR_WRITE, "disk I/O error", DiskFailedError),
        (sqlite3.SQLITE_IOERR_READ, "disk I/O error", DiskFailedError),
        (sqlite3.SQLITE_READONLY, "attempt to write a readonly database", DiskFailedError),
        (sqlite3.SQLITE_CORRUPT, "database disk image is malformed", DamagedError),
        (sqlite3.SQLITE_NOTADB, "file is not a database", DamagedError),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, "UNIQUE constraint failed: ids.id", DuplicateIdError),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, "UNIQUE constraint failed: batches.first_offset", InvariantError),
        (sqlite3.SQLITE_ERROR, "no such table: ids", InvariantError),
        (None, "Cannot operate on a closed database.", InvariantError),
    ],
)
def test_every_answer_of_sqlite_has_one_meaning(code: int | None, text: str, expected: type[Exception]) -> None:
    exc = sqlite3.OperationalError(text)
    if code is not None:
        exc.sqlite_errorcode = code
    assert type(from_sqlite(exc, "append")) is expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, DiskFailedError)],
)
def test_every_answer_of_the_kernel_has_one_meaning(number: int, expected: type[Exception]) -> None:
    assert type(from_os(OSError(number, os.strerror(number)), "sync")) is expected
