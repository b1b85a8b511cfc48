"""Backups of real logs, beside a writer that has them open, and what becomes of them: whole files, or none."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from replicad.errors import DamagedError, DataFolderError, DiskFullError
from replicad.storage import backup, restore
from replicad.storage.backup import Backup, back_up
from replicad.storage.fsck import Report, verify_folder
from replicad.storage.lock import FolderLock
from replicad.storage.reader import Reader
from replicad.storage.restore import EPOCHS_SKIPPED
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.support.builders import CLUSTER, LogBuilder, keyring

COMMITTED = 40


class Node:
    """A node's folder, its log and its writer, as a daemon has them."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.log = LogBuilder("n1")
        self.log.add_epoch(1)
        for _ in range(60):
            self.log.add(5)
        self.log.add_epoch(3)
        self.log.add(2)
        self.store = open_store(self.data_dir, "n2")
        self.store.set_promise(4, "n1")
        self.store.append(self.log.appends, commit_size=COMMITTED)


def open_store(data_dir: Path, node: str) -> SqliteStore:
    return SqliteStore(data_dir, cluster=CLUSTER, node=node, decode_records=decode_records)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Where backups go."""
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs, to be a full disk, cannot be mounted (are you root?): {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def made_of(node: Node, target: Path, *, cluster: str = CLUSTER) -> Backup:
    return back_up(node.data_dir, target, cluster=cluster, keyring=keyring(), decode_records=decode_records)


def proof(path: Path) -> Report:
    return verify_folder(path, cluster=CLUSTER, keyring=keyring(), decode_records=decode_records)


def restored(file: Path, data_dir: Path, *, node: str = "n3", cluster: str = CLUSTER) -> Report:
    return restore.restore(file, data_dir, cluster=cluster, node=node, keyring=keyring(), decode_records=decode_records)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_backup_beside_a_writer_is_the_whole_log_in_one_private_file(node: Node, outside: Path) -> None:
    made = made_of(node, outside / "one")
    assert (made.size, made.commit_size, made.last_epoch) == (node.log.size, COMMITTED, 3)
    assert (made.root, made.node, made.cluster) == (node.log.tree.root(), "n2", CLUSTER)
    assert names(outside) == ["one"]
    assert (outside / "one").stat().st_mode & 0o777 == 0o600
    assert (outside / "one").stat().st_size == made.file_bytes
    report = proof(outside / "one")
    assert (report.ok, report.root, report.commit_size, report.node) == (True, made.root, COMMITTED, "n2")
    node.store.append([node.log.add()], commit_size=COMMITTED)  # the node goes on


def test_what_is_committed_to_the_log_during_a_backup_is_not_waited_for_nor_in_it(
    node: Node, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step sees a log that has grown, which SQLite's own backup would begin anew for."""
    size, root = node.log.size, node.log.tree.root()
    monkeypatch.setattr(backup, "STEP_BYTES", 1)
    real = Reader.read

    def read(*args: object, **named: object) -> object:
        node.store.append([node.log.add()], commit_size=size)
        return real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Reader, "read", read)
    made = made_of(node, outside / "one")
    assert (made.size, made.root, made.commit_size) == (size, root, size)
    assert node.log.size > size + 50
    assert proof(outside / "one").ok


def test_a_log_that_is_cut_back_meanwhile_gives_no_backup(
    node: Node, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "STEP_BYTES", 1)
    real = Reader.read

    def read(reader: Reader, from_offset: int, **named: int) -> object:
        if from_offset == 101:
            node.store.truncate(101)
        return real(reader, from_offset, max_bytes=named["max_bytes"], until_offset=named["until_offset"])

    monkeypatch.setattr(Reader, "read", read)
    with pytest.raises(DamagedError, match="cut back meanwhile"):
        made_of(node, outside / "one")
    assert names(outside) == []


def test_a_log_that_is_cut_back_and_goes_on_meanwhile_is_not_said_to_be_damaged(
    node: Node, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a master that was left behind, and follows the one that took its place."""
    monkeypatch.setattr(backup, "STEP_BYTES", 1)
    real, other = Reader.read, LogBuilder("n1")
    other.add_epoch(1)
    for _ in range(12):
        other.add(5)
    other.add_epoch(5)
    other.add(400)

    def read(reader: Reader, from_offset: int, **named: int) -> object:
        if from_offset == 101 and node.store.load().last_epoch != 5:
            node.store.truncate(61)
            node.store.append(other.appends[13:], commit_size=0)
        return real(reader, from_offset, max_bytes=named["max_bytes"], until_offset=named["until_offset"])

    monkeypatch.setattr(Reader, "read", read)
    with pytest.raises(DamagedError, match="cut back meanwhile, as when a master rejoins: try again"):
        made_of(node, outside / "one")
    assert names(outside) == []


def test_a_backup_overwrites_nothing(node: Node, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outside / "one").write_text("precious")
    with pytest.raises(DataFolderError, match="exists, and a backup overwrites nothing"):
        made_of(node, outside / "one")
    monkeypatch.setattr(os.path, "lexists", lambda _: False)  # it appears after the look
    with pytest.raises(DataFolderError, match="appeared meanwhile"):
        made_of(node, outside / "one")
    assert names(outside) == ["one"]
    assert (outside / "one").read_text() == "precious"


def test_what_a_killed_run_has_left_is_removed_by_the_next(
    node: Node, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = outside / f".replicad-backup-{CLUSTER}-n2.unfinished"
    left.mkdir()
    (left / "log.db").write_bytes(b"half")
    made_of(node, outside / "one")
    assert names(outside) == ["one"]
    assert proof(outside / "one").ok


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_no_run_has_left_is_not_emptied(node: Node, outside: Path, tmp_path: Path, kind: str) -> None:
    """Into a folder that others may write to, such as /tmp, root's backup must remove nothing elsewhere."""
    elsewhere, way = tmp_path / "elsewhere", outside / f".replicad-backup-{CLUSTER}-n2.unfinished"
    elsewhere.mkdir()
    (elsewhere / "one").write_text("precious")
    way.symlink_to(elsewhere) if kind == "link" else way.write_text("precious")
    with pytest.raises(DataFolderError, match=r"unfinished is in the way, and not ours: remove it, or"):
        made_of(node, outside / "one")
    assert names(elsewhere) == ["one"]
    assert names(outside) == [way.name]


def test_two_backups_of_a_node_into_one_folder_at_a_time_are_one_too_many(node: Node, outside: Path) -> None:
    running = outside / f".replicad-backup-{CLUSTER}-n2.unfinished"
    running.mkdir()
    lock = FolderLock(running)
    with pytest.raises(DataFolderError, match="in use by process"):
        made_of(node, outside / "one")
    lock.release()
    assert names(outside) == [running.name]


def test_a_damaged_log_gives_no_backup(node: Node, outside: Path) -> None:
    node.store.close()
    with closing(sqlite3.connect(node.data_dir / "log.db")) as database, database:
        database.execute("UPDATE batches SET signature = zeroblob(64) WHERE first_offset = 101")
    with pytest.raises(
        DamagedError, match=r"does not prove at offset 101 \(the batch at offset 101 is not what was written"
    ):
        made_of(node, outside / "one")
    assert names(outside) == []


def test_another_clusters_log_and_no_log_are_told(node: Node, outside: Path, tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="is of cluster 'test', the config says 'other'"):
        made_of(node, outside / "one", cluster="other")
    shutil.rmtree(node.data_dir)
    with pytest.raises(DataFolderError, match="holds no log"):
        made_of(node, outside / "one")
    assert names(outside) == []


def test_a_folder_that_is_missing_is_told(node: Node, tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match=r"nowhere does not exist"):
        made_of(node, tmp_path / "nowhere" / "one")


def test_a_disk_without_room_is_told_before_and_one_that_fills_leaves_nothing(
    node: Node, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_disk / "ballast").write_bytes(bytes(47 << 20))
    with pytest.raises(DiskFullError, match="has 1 MiB free, and the backup may need 3"):
        made_of(node, small_disk / "one")
    assert names(small_disk) == ["ballast"]
    monkeypatch.setattr(backup, "_check_room", lambda *_: None)  # others fill it meanwhile
    with (small_disk / "more").open("wb", buffering=0) as file, suppress(OSError):  # ENOSPC
        while True:
            file.write(bytes(4096))
    with pytest.raises(DiskFullError):
        made_of(node, small_disk / "one")
    assert names(small_disk) == ["ballast", "more"]


def test_a_restored_node_has_the_log_under_its_own_name_and_takes_no_epoch_near(
    node: Node, outside: Path, tmp_path: Path
) -> None:
    made = made_of(node, outside / "one")
    report = restored(outside / "one", tmp_path / "new")
    assert (report.ok, report.records, report.root) == (True, made.size, made.root)
    assert names(tmp_path / "new") == ["lock", "log.db"]
    assert (tmp_path / "new" / "log.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert proof(tmp_path / "new").ok
    with closing(open_store(tmp_path / "new", "n3")) as store:
        state = store.load()
    assert (state.size, state.commit_size) == (made.size, COMMITTED)
    assert (state.promised_epoch, state.promised_to) == (4 + EPOCHS_SKIPPED, "")


def test_an_empty_folder_is_taken_and_one_with_anything_in_it_is_not(node: Node, outside: Path, tmp_path: Path) -> None:
    made_of(node, outside / "one")
    folder = tmp_path / "new"
    folder.mkdir(mode=0o700)
    FolderLock(folder).release()  # as a daemon leaves it
    (folder / "lost+found").mkdir()  # as a new disk has it
    (folder / "log.db.restoring").write_bytes(b"half, of a run that was killed")
    restored(outside / "one", folder)
    before = (folder / "log.db").read_bytes()
    with pytest.raises(DataFolderError, match=r"is not empty \(log.db\), and a restore overwrites nothing"):
        restored(outside / "one", folder)
    assert (folder / "log.db").read_bytes() == before
    assert names(folder) == ["lock", "log.db", "lost+found"]


def test_what_a_restore_that_was_killed_has_left_is_removed_by_the_next(
    node: Node, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of(node, outside / "one")
    folder = tmp_path / "new"
    child = os.fork()
    if not child:
        monkeypatch.setattr(restore, "checksum_of_state", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with suppress(BaseException):
            restored(outside / "one", folder)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert names(folder) == ["lock", "log.db.restoring", "log.db.restoring-shm", "log.db.restoring-wal"]
    restored(outside / "one", folder)
    assert names(folder) == ["lock", "log.db"]


def test_a_folder_that_a_daemon_holds_is_refused(node: Node, outside: Path, tmp_path: Path) -> None:
    made_of(node, outside / "one")
    with pytest.raises(DataFolderError, match="in use by process"):
        restored(outside / "one", node.data_dir)


@pytest.mark.parametrize("spoil", ["garbage", "cut", "flipped", "folder", "missing"])
def test_what_is_no_good_backup_restores_nothing(node: Node, outside: Path, tmp_path: Path, spoil: str) -> None:
    file = outside / "one"
    made_of(node, file)
    whole = file.read_bytes()
    match spoil:
        case "garbage":
            file.write_bytes(os.urandom(50_000))
        case "cut":
            file.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            at = whole.index(b"payload of m-000100")
            file.write_bytes(whole[:at] + b"q" + whole[at + 1 :])
        case "folder":
            file = node.data_dir
        case "missing":
            file = outside / "none"
    assert not is_restored(file, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [b"", b"\x89PNG" + bytes(5000), b"SQLite format 3\0", None])
def test_what_does_not_begin_as_a_backup_is_said_to_be_none(
    outside: Path, tmp_path: Path, content: bytes | None
) -> None:
    file = outside / "one"
    if content is None:  # another program's database
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    else:
        file.write_bytes(content)
    for attempt in (proof, lambda file: restored(file, tmp_path / "new")):
        with pytest.raises(DataFolderError, match="is not a backup of replicad"):
            attempt(file)


@pytest.mark.parametrize("kept", [100, 5_000, 50_000])
def test_a_backup_that_was_cut_off_is_said_to_be_damaged(node: Node, outside: Path, tmp_path: Path, kept: int) -> None:
    file = outside / "one"
    made_of(node, file)
    os.truncate(file, kept)
    for attempt in (proof, lambda file: restored(file, tmp_path / "new")):
        with pytest.raises(DamagedError):
            attempt(file)


def is_restored(file: Path, data_dir: Path) -> bool:
    try:
        return restored(file, data_dir).ok
    except (DataFolderError, DamagedError):
        return False


def test_another_clusters_backup_is_refused(node: Node, outside: Path, tmp_path: Path) -> None:
    made_of(node, outside / "one")
    with pytest.raises(DataFolderError, match="is a backup of cluster 'test', the config says 'other'"):
        restored(outside / "one", tmp_path / "new", cluster="other")
    assert not (tmp_path / "new").exists()


def test_a_live_database_is_not_taken_for_a_backup(node: Node, tmp_path: Path) -> None:
    """Its newest records are in the file beside it."""
    with pytest.raises(DataFolderError, match="is part of a data folder"):
        restored(node.data_dir / "log.db", tmp_path / "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_restores_is_the_owner_of_the_folders(node: Node, outside: Path, tmp_path: Path) -> None:
    made_of(node, outside / "one")
    for there in (True, False):
        parent = tmp_path / f"parent-{there}"
        parent.mkdir()
        owned = parent / "data" if there else parent
        owned.mkdir(mode=0o700, exist_ok=True)
        os.chown(owned, 4321, 1234)
        restored(outside / "one", parent / "data")
        for path in (parent / "data", parent / "data" / "log.db", parent / "data" / "lock"):
            assert (path.stat().st_uid, path.stat().st_gid) == (4321, 1234), path


def test_a_disk_that_fills_during_a_restore_leaves_the_folder_as_it_was(
    node: Node, outside: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of(node, outside / "one")
    (small_disk / "ballast").write_bytes(bytes((48 << 20) - 65536))
    with pytest.raises(DiskFullError, match="are needed: make room"):
        restored(outside / "one", small_disk / "new")
    monkeypatch.setattr(restore, "_check_room", lambda *_: None)
    with pytest.raises(DiskFullError):
        restored(outside / "one", small_disk / "new")
    assert names(small_disk) == ["ballast"]
