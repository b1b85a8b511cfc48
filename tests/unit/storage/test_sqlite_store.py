"""What only the SQLite store has: files, processes, the schema, the WAL."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.errors import DamagedError, DataFolderError
from replicad.storage import schema
from replicad.storage.fsck import verify_folder
from replicad.storage.lock import FolderLock
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker

ROOT = Path(__file__).parents[3]


def open_store(data_dir: Path, *, cluster: str = CLUSTER, node: str = NODE) -> SqliteStore:
    return SqliteStore(data_dir, cluster=cluster, node=node, decode_records=decode_records)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data_dir: Path) -> Iterator[SqliteStore]:
    opened = open_store(data_dir)
    yield opened
    opened.close()


def start_writer(data_dir: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage_writer", str(data_dir), str(seed)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# --- the folder -------------------------------------------------------------------------------------------------


def test_the_folder_is_made_for_the_daemon_alone(store: SqliteStore, data_dir: Path) -> None:
    store.append([LogMaker().append()], commit_size=0)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    for path in data_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_folder_that_others_may_write_to_is_refused_with_the_remedy(data_dir: Path, mode: int) -> None:
    data_dir.mkdir()
    data_dir.chmod(mode)
    with pytest.raises(DataFolderError, match=f"chmod go-w {data_dir}"):
        open_store(data_dir)
    assert list(data_dir.iterdir()) == []


def test_a_folder_whose_parent_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match=r"nowhere does not exist"):
        open_store(tmp_path / "nowhere" / "data")


def test_a_file_in_the_folders_place_is_refused(data_dir: Path) -> None:
    data_dir.write_text("not a folder")
    with pytest.raises(DataFolderError, match="not a folder"):
        open_store(data_dir)


def test_a_second_daemon_is_refused_and_told_who_holds_the_folder(store: SqliteStore, data_dir: Path) -> None:
    with pytest.raises(DataFolderError, match=f"{data_dir} is in use by process {os.getpid()}"):
        open_store(data_dir)
    store.append([LogMaker().append()], commit_size=0)
    assert store.load().size == 1


def test_a_daemon_in_another_process_is_named_by_its_pid_and_leaves_the_folder_when_killed(data_dir: Path) -> None:
    writer = start_writer(data_dir, seed=1)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(DataFolderError, match=f"process {writer.pid}"):
            open_store(data_dir)
    finally:
        writer.kill()
        writer.communicate()
    open_store(data_dir).close()


def test_a_verify_keeps_a_daemon_out_and_is_not_mistaken_for_the_last_one(data_dir: Path) -> None:
    open_store(data_dir).close()
    (data_dir / "lock").write_text("4194305\n")  # beyond the largest pid of Linux: of a daemon that is gone
    reader = FolderLock(data_dir, shared=True)
    FolderLock(data_dir, shared=True).release()
    with pytest.raises(DataFolderError, match="a verify may be running"):
        open_store(data_dir)
    reader.release()
    open_store(data_dir).close()


def test_a_refused_open_leaves_the_folder_free(data_dir: Path) -> None:
    open_store(data_dir).close()
    with pytest.raises(DataFolderError):
        open_store(data_dir, node="node-9")
    open_store(data_dir).close()


# --- the schema -------------------------------------------------------------------------------------------------


def change(data_dir: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(data_dir / "log.db")
    with connection:
        connection.execute(statement, values)
    connection.close()


@pytest.mark.parametrize("version", ["3", "0", "x"])
def test_a_schema_of_another_version_is_refused_naming_both(data_dir: Path, version: str) -> None:
    open_store(data_dir).close()
    change(data_dir, "UPDATE meta SET value = ? WHERE key = 'schema_version'", version)
    with pytest.raises(DataFolderError, match=f"schema version {version}, this release knows 2"):
        open_store(data_dir)


@pytest.mark.parametrize(
    ("cluster", "node", "text"), [("other", NODE, "cluster 'test'"), (CLUSTER, "node-2", "node 'node-1'")]
)
def test_the_folder_of_another_cluster_or_node_is_refused_with_the_remedy(
    data_dir: Path, cluster: str, node: str, text: str
) -> None:
    open_store(data_dir).close()
    with pytest.raises(DataFolderError, match=f"belongs to {text}.*its own data_dir"):
        open_store(data_dir, cluster=cluster, node=node)


def test_another_programs_database_is_refused(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    change(data_dir, "CREATE TABLE theirs (a)")
    with pytest.raises(DataFolderError, match="not a log of replicad"):
        open_store(data_dir)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_logs_place_is_refused_with_the_remedy_and_left(
    data_dir: Path, tmp_path: Path, there: bool
) -> None:
    """Where the disk that it leads to is not mounted, no empty log takes its place."""
    open_store(data_dir).close()
    (data_dir / "log.db").rename(tmp_path / "elsewhere")
    (data_dir / "log.db").symlink_to(tmp_path / ("elsewhere" if there else "missing"))
    with pytest.raises(DataFolderError, match="is a symbolic link: move the folder, and let data_dir say where"):
        open_store(data_dir)
    assert (data_dir / "log.db").is_symlink()


def test_what_is_no_database_at_all_is_called_damaged(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / "log.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DamagedError):
        open_store(data_dir)


def test_a_folder_whose_making_was_cut_short_is_made_whole(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / "log.db.unfinished").write_bytes(b"SQLite")
    store = open_store(data_dir)
    assert store.load().size == 0
    store.close()
    assert not (data_dir / "log.db.unfinished").exists()


# --- the start --------------------------------------------------------------------------------------------------


def test_a_start_reads_the_last_batches_only(data_dir: Path) -> None:
    log = LogMaker()
    store = open_store(data_dir)
    for _ in range(40):
        store.append(log.appends(100), commit_size=0)
    store.close()
    decoded: list[int] = []
    store = SqliteStore(
        data_dir,
        cluster=CLUSTER,
        node=NODE,
        decode_records=lambda body: decoded.append(1) or decode_records(body),  # type: ignore[func-returns-value]
    )
    assert store.load().tree.root() == log.tree.root()
    store.close()
    assert len(decoded) <= 3  # 4000 records: 160 are in the tile that is not full


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batches SET root = zeroblob(32) WHERE first_offset = 900",
        "UPDATE batches SET body = substr(body, 1, length(body) - 1) WHERE first_offset = 900",
        "UPDATE tiles SET hashes = zeroblob(96) WHERE level = 1",
        "UPDATE tiles SET hashes = substr(hashes, 1, 64) WHERE level = 1",
        "DELETE FROM tiles WHERE level = 1",
        "DELETE FROM batches WHERE first_offset = 800",
        "UPDATE state SET commit_size = 2000",
        "DELETE FROM state",
    ],
)
def test_a_damaged_end_of_the_log_is_found_at_the_start(data_dir: Path, statement: str) -> None:
    log = LogMaker()
    store = open_store(data_dir)
    store.append(log.appends(*[100] * 10), commit_size=0)
    store.close()
    change(data_dir, statement)
    with pytest.raises(DamagedError):
        open_store(data_dir).load()


# --- kill -9 ----------------------------------------------------------------------------------------------------


def test_what_a_killed_writer_had_answered_is_there_and_the_log_goes_on(data_dir: Path) -> None:
    answered = 0
    for seed in range(5):
        writer = start_writer(data_dir, seed)
        assert writer.stdout is not None
        try:
            for _ in range(10 + 7 * seed):
                answered = int(writer.stdout.readline())
        finally:
            writer.kill()
            rest, _ = writer.communicate()
        answered = max([answered, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))])

        store = open_store(data_dir)
        state = store.load()
        assert state.size >= answered
        assert state.promised_epoch == seed + 1
        assert store.root_at(state.size) == state.tree.root()
        store.close()
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=LogMaker().key.keyring, decode_records=decode_records)
    assert report.fault is None
    assert report.epochs == 5
    assert report.records >= answered


def test_every_commit_is_synced_before_it_is_answered(store: SqliteStore) -> None:
    """Only a power loss could show it: so the settings that SQLite documents for it are what is tested."""
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


# --- the WAL ----------------------------------------------------------------------------------------------------


def wal_frames(store: SqliteStore) -> int:
    assert store._wal is not None
    return store._wal.frames()


def wal_bytes(data_dir: Path) -> int:
    return (data_dir / "log.db-wal").stat().st_size


def test_the_wal_is_moved_into_the_database_before_it_grows_large(data_dir: Path) -> None:
    log = LogMaker()
    store = open_store(data_dir)
    written = 0
    while written < 3 * schema.CHECKPOINT_FRAMES * schema.PAGE_BYTES:
        append = log.append(100, payload_bytes=10_000)
        store.append([append], commit_size=0)
        written += len(append.batch.body)
    largest = wal_bytes(data_dir)
    assert largest < (schema.CHECKPOINT_FRAMES + 2 * 100 * 10_000 // schema.PAGE_BYTES) * schema.PAGE_BYTES * 1.1
    assert (data_dir / "log.db").stat().st_size > written // 2
    store.close()


def test_the_frames_that_are_counted_are_the_ones_that_sqlite_counts(store: SqliteStore) -> None:
    log = LogMaker()
    for count in (1, 300, 5):
        store.append([log.append(count)], commit_size=0)
        frames = wal_frames(store)
        assert frames > 0
        assert store._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone() == (0, frames, frames)


def test_a_reader_that_holds_the_wal_back_for_a_while_does_no_harm(data_dir: Path) -> None:
    log = LogMaker()
    store = open_store(data_dir)
    store.append([log.append()], commit_size=0)
    reader = sqlite3.connect(f"file:{data_dir}/log.db?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM ids").fetchone()
    held_until = 2 * schema.CHECKPOINT_FRAMES * schema.PAGE_BYTES
    while wal_bytes(data_dir) < held_until:
        store.append([log.append(100, payload_bytes=10_000)], commit_size=0)
    assert reader.execute("SELECT count(*) FROM ids").fetchone() == (1,)
    reader.execute("COMMIT")
    reader.close()
    frames = wal_frames(store)
    assert frames >= 2 * schema.CHECKPOINT_FRAMES
    for _ in range(20):  # of 250 frames and more: enough for the next checkpoint, and for the WAL to start over
        store.append([log.append(100, payload_bytes=10_000)], commit_size=0)
    assert wal_frames(store) < schema.CHECKPOINT_FRAMES
    assert store.load().tree.root() == log.tree.root()
    store.close()


def test_an_append_is_one_statement_so_that_the_interpreter_is_given_up_once(store: SqliteStore) -> None:
    log = LogMaker()
    statements: set[str] = set()  # a set: SQLite tells of each trigger under the text of the statement that fires it
    store._writer.set_trace_callback(statements.add)
    store.append([log.append(300)], commit_size=0)
    store.append(log.appends(1, 2, 3), commit_size=0)
    assert len(statements) == 2
    assert all(text.startswith("INSERT INTO append VALUES") for text in statements)


def test_reads_go_on_while_a_write_is_under_way(store: SqliteStore, data_dir: Path) -> None:
    log = LogMaker()
    store.append([log.append(3)], commit_size=0)
    store._writer.execute("BEGIN IMMEDIATE")
    store._writer.execute("UPDATE state SET commit_size = 3")
    try:
        done = threading.Event()
        results: list[int] = []

        def read() -> None:
            results.append(len(store.read(0, max_bytes=1)))
            done.set()

        began = time.monotonic()
        threading.Thread(target=read).start()
        assert done.wait(schema.BUSY_TIMEOUT_S)
        assert results == [1]
        assert time.monotonic() - began < schema.BUSY_TIMEOUT_S
    finally:
        store._writer.execute("ROLLBACK")


def test_a_log_copied_while_stopped_opens_under_another_path(data_dir: Path, tmp_path: Path) -> None:
    log = LogMaker()
    store = open_store(data_dir)
    store.append(log.appends(3, 300), commit_size=0)
    store.close()
    moved = tmp_path / "a folder? with #odd %20 name"
    shutil.copytree(data_dir, moved)
    store = open_store(moved)
    assert store.load().tree.root() == log.tree.root()
    assert len(store.read(0, max_bytes=1 << 30)) == 2
    store.close()


# --- the WAL's size -----------------------------------------------------------------------------------------------


def test_commits_overwrite_a_wal_that_had_its_size_from_the_start(store: SqliteStore, data_dir: Path) -> None:
    wal = data_dir / f"{schema.DATABASE_NAME}-wal"
    at_start = wal.stat().st_size
    assert at_start >= schema.WAL_START_BYTES * 9 // 10
    store.append(LogMaker().appends(*[1] * 100), commit_size=0)
    assert wal.stat().st_size == at_start
    tables = store._writer.execute("SELECT name FROM sqlite_schema WHERE name = 'filler'").fetchall()
    assert tables == []


def test_a_start_after_a_kill_keeps_what_the_wal_holds_while_it_grows_it(store: SqliteStore, data_dir: Path) -> None:
    log = LogMaker()
    store.append(log.appends(*[3] * 50), commit_size=10)
    copy = data_dir.parent / "copy"  # what a killed daemon leaves: a WAL with commits in it, here cut to those
    shutil.copytree(data_dir, copy)
    frames = store._wal.frames() if store._wal else 0
    os.truncate(copy / f"{schema.DATABASE_NAME}-wal", 32 + frames * (24 + schema.PAGE_BYTES))
    again = open_store(copy)
    assert (again.load().size, again.load().tree.root()) == (150, log.tree.root())
    again.close()
