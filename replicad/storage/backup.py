"""A copy of a node's log in one file, made beside the daemon that runs on it.

Owns what is in a backup and that it appears whole or not at all. Every batch passes the checks of a worker on its way,
so a backup proves when it is made. Must not know how it is brought back: :mod:`replicad.storage.restore`.

Not SQLite's online backup: it starts over whenever the daemon commits between two of its steps, so under load it never
ends; and held to one snapshot it keeps the WAL from being moved into the database, until the daemon waits for it. Here
every read is short, as a client's, and the log, which only grows, is the same in each.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from replicad.core.batch import Append
from replicad.core.check import check_batch
from replicad.core.keyring import Keyring
from replicad.core.record import Records
from replicad.core.tree import Tree
from replicad.errors import DamagedError, DataFolderError, DiskFullError, PeerError
from replicad.files import sync_folder
from replicad.storage import schema
from replicad.storage.faults import opening, translated
from replicad.storage.lock import LOCK_NAME, FolderLock
from replicad.storage.reader import Reader, StoredState, log_end, whole_state
from replicad.storage.sqlite import SqliteStore

#: One read and one transaction: some 20 ms of the disk, which the daemon's next commit may have to wait for.
STEP_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds. ``commit_size``: of ``size`` records so many are known to be a majority's."""

    file: Path
    file_bytes: int
    cluster: str
    node: str  # whose log it is a copy of
    size: int
    commit_size: int
    last_epoch: int
    root: bytes


def back_up(
    data_dir: Path, target: Path, *, cluster: str, keyring: Keyring, decode_records: Callable[[bytes], Records]
) -> Backup:
    """Copy the log in ``data_dir``, as far as it goes at the call, to the new file ``target`` (mode 0600, synced).

    Holds up no daemon on the folder, and needs none. What a run that was killed has left is removed by the next of the
    same node into the same folder. Raises DataFolderError: no log there, of another cluster, ``target`` exists or can't
    be made; DamagedError: a batch does not prove, or the log was cut back meanwhile; DiskFullError; DiskFailedError.
    """
    path = schema.database_path(data_dir)
    if not path.is_file():
        raise DataFolderError(f"{data_dir} holds no log ({schema.DATABASE_NAME}): name the config of a node that ran")
    if os.path.lexists(target):
        raise DataFolderError(f"{target} exists, and a backup overwrites nothing: name another file, or a folder")
    with opening(path):
        connection = schema.open_reader(path)
    with closing(connection), closing(Reader(path, decode_records)) as reader:
        with opening(path):
            meta = schema.read_meta(connection, path)
            begin, _ = _read_state(connection)
        if meta.get("cluster") != cluster:
            raise DataFolderError(f"{path} is of cluster {meta.get('cluster')!r}, the config says {cluster!r}")
        node = meta.get("node", "")
        _check_room(path, target.parent)
        with _draft_folder(target.parent / f".replicad-backup-{cluster}-{node}.unfinished") as draft:
            store = SqliteStore(draft, cluster=cluster, node=node, decode_records=decode_records)
            with closing(store):
                check = partial(check_batch, cluster=cluster, keyring=keyring, decode=decode_records)
                tree, last_epoch = _copy(reader, store, begin, check)
                with opening(path):
                    end, state = _read_state(connection)  # the promise is not below the epochs that were copied
                if end < begin or reader.root_at(begin) != tree.root():
                    raise _cut_back(begin)
                commit_size = min(state.commit_size, begin)
                store.set_promise(state.promised_epoch, state.promised_to)
                store.set_commit_size(commit_size)
            finished = schema.database_path(draft)
            sync_closed(finished)
            file_bytes = finished.stat().st_size
            _appear(finished, target)
    return Backup(target, file_bytes, cluster, node, tree.size, commit_size, last_epoch, tree.root())


def sync_closed(database: Path) -> None:
    """See that a database which was just closed is whole in its one file, and on disk. Raises DiskFullError,
    DiskFailedError."""
    with translated(f"write {database}"):
        wal = database.with_name(database.name + "-wal")
        if wal.exists() and wal.stat().st_size:  # SQLite swallows what goes wrong while it closes
            raise DiskFullError(f"{database} could not be finished: is the disk full?")
        handle = os.open(database, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read_state(connection: sqlite3.Connection) -> tuple[int, StoredState]:
    """The log's size, and the node's state, of one moment."""
    connection.execute("BEGIN")
    try:
        end = log_end(connection)
        state = whole_state(connection)
    finally:
        connection.execute("ROLLBACK")
    return end.size if end else 0, state


def _copy(reader: Reader, store: SqliteStore, size: int, check: Callable[..., tuple[Append, Tree]]) -> tuple[Tree, int]:
    tree, last_epoch = Tree(), 0
    while tree.size < size:
        appends = []
        try:
            for batch in reader.read(tree.size, max_bytes=STEP_BYTES, until_offset=size):
                append, tree = check(batch, tree=tree, last_epoch=last_epoch)
                last_epoch = batch.epoch
                appends.append(append)
        except (PeerError, DamagedError) as exc:
            if _was_cut_back(reader, tree):
                raise _cut_back(size) from exc
            reason = f"{exc.reason}: {exc}" if isinstance(exc, PeerError) else str(exc)
            raise DamagedError(
                f"the log does not prove at offset {tree.size} ({reason}), so it is not backed up: look with "
                "`replicad-cli verify` on a copy, and back up another node"
            ) from exc
        if not appends:
            raise _cut_back(size)
        store.append(appends, commit_size=0)
    return tree, last_epoch


def _was_cut_back(reader: Reader, tree: Tree) -> bool:
    """Whether the log has other records by now where ``tree`` is over, or none."""
    with contextlib.suppress(DamagedError):
        with reader.snapshot() as connection:
            end = log_end(connection)
        return end is None or end.size < tree.size or reader.root_at(tree.size) != tree.root()
    return False


def _cut_back(size: int) -> DamagedError:
    return DamagedError(f"the log had {size} records and was cut back meanwhile, as when a master rejoins: try again")


def _check_room(path: Path, folder: Path) -> None:
    with translated(f"look at {folder}"):
        try:
            free = shutil.disk_usage(folder).free
        except FileNotFoundError as exc:
            raise DataFolderError(f"{folder} does not exist: make it, or name another --out") from exc
    needed = path.stat().st_size + 2 * schema.WAL_START_BYTES
    if free < needed:
        raise DiskFullError(
            f"{folder} has {free >> 20} MiB free, and the backup may need {needed >> 20}: make room, "
            "or name another --out"
        )


@contextmanager
def _draft_folder(folder: Path) -> Iterator[Path]:
    """An empty folder for the time of the block, gone with all that is in it afterwards, however it ends."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError as exc:
        left = folder.lstat()
        if not stat.S_ISDIR(left.st_mode) or left.st_uid != os.geteuid():  # it is to be emptied: a link leads elsewhere
            raise DataFolderError(f"{folder} is in the way, and not ours: remove it, or name another --out") from exc
    except OSError as exc:
        raise DataFolderError(f"{folder.parent} cannot be written to ({exc.strerror}): name another --out") from exc
    FolderLock(folder).release()  # refused while another backup of this node runs into the same folder
    empty(folder)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            empty(folder)
            (folder / LOCK_NAME).unlink(missing_ok=True)
            folder.rmdir()


def empty(folder: Path) -> None:
    """Remove the files in a folder but for its lock."""
    for each in folder.iterdir():
        if each.name != LOCK_NAME:
            each.unlink()


def _appear(finished: Path, target: Path) -> None:
    """Give the file its name, unless somebody else took it meanwhile."""
    with translated(f"write {target}"):
        try:
            os.link(finished, target)
        except FileExistsError as exc:
            raise DataFolderError(f"{target} appeared meanwhile, and a backup overwrites nothing") from exc
        except OSError:  # a file system without links
            finished.rename(target)
        sync_folder(target.parent)
