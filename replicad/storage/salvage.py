"""What can still be read of a database whose structure is damaged, and a whole one in its place.

Owns what is taken from the old file and how the new one takes its name. Must not know where the rest comes from. The
old file is kept beside.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from replicad.core.batch import Batch
from replicad.errors import DamagedError, DataFolderError, ForgottenError
from replicad.files import sync_folder
from replicad.storage import schema
from replicad.storage.backup import empty, sync_closed
from replicad.storage.faults import opening, translated
from replicad.storage.lock import LOCK_NAME, FolderLock
from replicad.storage.reader import NO_END, DecodeRecords, whole_state
from replicad.storage.scrub import next_whole, whole_batch
from replicad.storage.sqlite import SqliteStore

_DRAFT = "rebuild.unfinished"
_KEPT = schema.DATABASE_NAME + ".damaged-"


@dataclass(frozen=True, slots=True)
class Salvaged:
    """1. ``size`` is where the log ended: this node may have acknowledged all that was below. None: that can't be read
    any more, for the reason ``why``.
    """

    connection: sqlite3.Connection
    node: str
    promised_epoch: int
    promised_to: str
    commit_size: int
    size: int | None
    why: str = ""

    def batch_at(self, offset: int) -> Batch | None:
        """The whole batch that begins there, as far as its checksum tells."""
        return whole_batch(self.connection, offset)

    def next_after(self, offset: int) -> int:
        """Where the next whole batch begins; beyond any log where there is none."""
        with suppress(sqlite3.DatabaseError):
            return next_whole(self.connection, offset)
        return NO_END


@contextmanager
def rebuilding(
    data_dir: Path, *, cluster: str, node: str, decode_records: DecodeRecords
) -> Iterator[tuple[Salvaged, SqliteStore]]:
    """The damaged log and a new, empty one. When the block ends well, the new one, which must not be shorter, has the
    old one's promise and commit size and is the folder's log; else nothing has changed.

    Raises DataFolderError: no log there, a daemon runs, or it is of another cluster or node; ForgottenError: not even
    what the node has promised can be read; DiskFullError; DiskFailedError.
    """
    path = schema.database_path(data_dir)
    if not path.is_file():
        raise DataFolderError(f"{data_dir} holds no log ({schema.DATABASE_NAME}): correct data_dir")
    if not path.stat().st_size:
        raise ForgottenError(f"{path} is empty")
    lock = FolderLock(data_dir)
    draft = data_dir / _DRAFT
    try:
        _take_in_wal(path)
        draft.mkdir(mode=0o700, exist_ok=True)
        empty(draft)  # of a run that was killed
        with opening(path), closing(schema.connect(path, mode="ro&immutable=1")) as connection:
            old = _salvage(connection, path, cluster, node)
            with closing(SqliteStore(draft, cluster=cluster, node=node, decode_records=decode_records)) as store:
                yield old, store
                state = store.load()
                least = old.commit_size if old.size is None else old.size
                if state.size < least:
                    raise DamagedError(f"{state.size} of {least} records could be had")
                if state.last_epoch > old.promised_epoch:  # a promise may always be higher, and records bind to theirs
                    master = store.read(state.size - 1, max_bytes=1)[-1].signer
                    store.set_promise(state.last_epoch, "" if master == node else master)
                else:
                    store.set_promise(old.promised_epoch, old.promised_to)
                store.set_commit_size(old.commit_size)
        _swap(path, schema.database_path(draft))
    finally:
        if draft.exists():
            with suppress(OSError):
                empty(draft)
                (draft / LOCK_NAME).unlink(missing_ok=True)
                draft.rmdir()
        lock.release()


def _take_in_wal(path: Path) -> None:
    """So that all there is lies in one file. A page is copied as it is: this works on a damaged file, too."""
    wal = schema.wal_path(path)
    if not wal.exists() or not wal.stat().st_size:
        return
    schema.check_wal(path)
    with translated(f"take in {wal}"), closing(schema.connect(path, mode="rw")) as connection:
        schema.allow_missing_pages(connection)
        busy, frames, done = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy or frames != done or (wal.exists() and wal.stat().st_size):
        raise DamagedError(f"{wal} can't be taken into {path.name}, and holds its newest records")


def _salvage(connection: sqlite3.Connection, path: Path, cluster: str, node: str) -> Salvaged:
    try:
        schema.allow_missing_pages(connection)
        schema.set_up(connection, cache_kib=schema.READER_CACHE_KIB)
        schema.show_as_newest(connection)
        meta = schema.read_meta(connection, path)
        promised_epoch, promised_to, commit_size, _ = whole_state(connection)
    except ForgottenError:
        raise
    except (sqlite3.DatabaseError, DamagedError) as exc:
        raise ForgottenError(f"what this node has promised can't be read ({exc})") from exc
    for what, ours in (("cluster", cluster), ("node", node)):
        if meta.get(what) != ours:
            raise DataFolderError(f"{path} is of {what} {meta.get(what)!r}, the config says {ours!r}")
    size, why = _size(connection)
    size = size if size is None else max(size, commit_size)
    return Salvaged(connection, node, promised_epoch, promised_to, commit_size, size, why)


def _size(connection: sqlite3.Connection) -> tuple[int | None, str]:
    """Where the log ended: by its last batch, where that is whole, and by the number of ids. A tree of which a part
    can't be reached any more says less than there was, and what it leaves out may have been acknowledged. None, and
    why, where neither can be read."""
    sizes, faults = [], []
    try:
        (place,) = connection.execute("SELECT max(first_offset) FROM batches").fetchone()
        last = None if place is None else whole_batch(connection, place)
        sizes += [] if last is None else [last.end]
    except sqlite3.DatabaseError as exc:
        faults.append(exc)
    try:
        sizes.append(int(connection.execute("SELECT count(*) FROM ids").fetchone()[0]))
    except sqlite3.DatabaseError as exc:
        faults.append(exc)
    why = "; ".join(map(str, faults)) or "neither a last batch nor an index of ids is there"
    return (max(sizes), "") if sizes else (None, why)


def _swap(path: Path, rebuilt: Path) -> None:
    """The new file takes the old one's name in one step; the old one is kept under another."""
    sync_closed(rebuilt)
    with translated(f"replace {path}"):
        owner = path.stat()
        if os.geteuid() == 0:
            for each in (rebuilt, path.with_name(LOCK_NAME)):  # the lock is ours where there was none, as in a copy
                os.chown(each, owner.st_uid, owner.st_gid)
        os.link(path, path.with_name(f"{_KEPT}{time.time_ns() // 1_000_000}"))
        for name in (f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)  # empty: all of it was taken in
        rebuilt.replace(path)
        sync_folder(path.parent)
