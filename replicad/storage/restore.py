"""A backup becomes the log of a node that has none.

Owns what is changed in the copy, and that the folder has the whole log or none. Must not know whether the other nodes
get the same: docs/semantics.md, "Backup and restore", says why they must.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from replicad.core.keyring import Keyring
from replicad.core.record import Records
from replicad.errors import DataFolderError, DiskFullError
from replicad.files import sync_folder
from replicad.storage import schema
from replicad.storage.backup import sync_closed
from replicad.storage.checksum import checksum_of_state
from replicad.storage.faults import opening, translated
from replicad.storage.fsck import Report, verify_folder
from replicad.storage.lock import LOCK_NAME, FolderLock, prepare_folder
from replicad.storage.reader import whole_state

#: Epochs that a restored node never takes. The cluster may have gone through some after the backup was made, and who
#: saw them must not meet other records under the same epoch; a master takes one at each start, so these last for years.
EPOCHS_SKIPPED = 1_000_000

_DRAFT = schema.DATABASE_NAME + ".restoring"
_DRAFT_FILES = (_DRAFT, _DRAFT + "-wal", _DRAFT + "-shm")
_CHUNK_BYTES = 8 << 20
_OF_DISK = "lost+found"  # ext4 makes it: the data folder may be a disk of its own, and a new one after a loss


def restore(
    backup: Path,
    data_dir: Path,
    *,
    cluster: str,
    node: str,
    keyring: Keyring,
    decode_records: Callable[[bytes], Records],
) -> Report:
    """Make the log in the file ``backup`` that of ``node`` in ``data_dir``, which is missing or empty.

    The copy is verified before it gets its name; a report with a fault says that there is none. Run as root, the files
    go to the folder's owner, or where it is missing, to its parent's. Raises DataFolderError: no backup, of another
    cluster, the folder is in use, or holds something; DamagedError: the backup is damaged or cut off; DiskFullError,
    DiskFailedError. Then the folder is as it was.
    """
    _check_source(backup, cluster)
    with _held(data_dir) as owner:
        _check_room(backup, data_dir)
        draft = data_dir / _DRAFT
        _copy(backup, draft)
        report = verify_folder(draft, cluster=cluster, keyring=keyring, decode_records=decode_records)
        if not report.ok:
            return report
        _rewrite(draft, node=node)
        with translated(f"restore to {data_dir}"):
            if owner is not None:
                for path in (draft, data_dir / LOCK_NAME, data_dir):
                    os.chown(path, *owner)
            draft.rename(schema.database_path(data_dir))
            sync_folder(data_dir)
    return report


def _check_source(backup: Path, cluster: str) -> None:
    """Refuse early, before anything is copied, what is no backup of this cluster."""
    if not backup.is_file():
        raise DataFolderError(f"{backup} is no file: name a backup, as made by `replicad-cli backup`")
    wal = schema.wal_path(backup)
    if wal.exists() and wal.stat().st_size:
        raise DataFolderError(f"{backup} is part of a data folder ({wal.name} is beside it): name a backup")
    schema.check_backup(backup)
    with opening(backup), closing(schema.connect(backup, mode="ro&immutable=1")) as connection:
        found = schema.read_meta(connection, backup).get("cluster")
    if found != cluster:
        raise DataFolderError(
            f"{backup} is a backup of cluster {found!r}, the config says {cluster!r}: name the right one"
        )


@contextmanager
def _held(data_dir: Path) -> Iterator[tuple[int, int] | None]:
    """The folder, made if it is missing, empty and ours alone; who is to own what we put there, None: we.

    Unless the block puts a log into it, the folder is left as it was.
    """
    there = data_dir.exists()
    with contextlib.suppress(FileNotFoundError):  # a parent that is missing is told of by the next step
        like = (data_dir if there else data_dir.parent).stat()
    prepare_folder(data_dir)
    lock = FolderLock(data_dir)
    try:
        for name in _DRAFT_FILES:
            (data_dir / name).unlink(missing_ok=True)  # of a run that was killed
        found = sorted(each.name for each in data_dir.iterdir() if each.name not in (LOCK_NAME, _OF_DISK))
        if found:
            raise DataFolderError(
                f"{data_dir} is not empty ({', '.join(found[:3])}), and a restore overwrites nothing: "
                "move what it holds to another place"
            )
        yield (like.st_uid, like.st_gid) if os.geteuid() == 0 else None
    finally:
        if not schema.database_path(data_dir).exists():
            with contextlib.suppress(OSError):
                for name in _DRAFT_FILES:
                    (data_dir / name).unlink(missing_ok=True)
                if not there:
                    shutil.rmtree(data_dir)
        lock.release()


def _check_room(backup: Path, data_dir: Path) -> None:
    with translated(f"look at {data_dir}"):
        free, needed = shutil.disk_usage(data_dir).free, backup.stat().st_size + 2 * schema.WAL_START_BYTES
    if free < needed:
        raise DiskFullError(f"{data_dir} has {free >> 20} MiB free, and {needed >> 20} are needed: make room")


def _copy(backup: Path, draft: Path) -> None:
    with translated(f"copy {backup} to {draft}"), backup.open("rb") as source:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())


def _rewrite(draft: Path, *, node: str) -> None:
    """Whose log it is, and what this node promises from now on: to follow no master of an epoch that may be gone."""
    with opening(draft), closing(schema.connect(draft, mode="rw")) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        schema.migrate(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'node'", (node,))
        state = whole_state(connection)
        epoch = state.promised_epoch + EPOCHS_SKIPPED
        checksum = checksum_of_state(epoch, "", state.commit_size)
        connection.execute("UPDATE state SET promised_epoch = ?, promised_to = '', checksum = ?", (epoch, checksum))
        connection.execute("COMMIT")
    sync_closed(draft)
