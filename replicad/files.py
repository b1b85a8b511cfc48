"""Files that are replaced whole: at any moment, also after a power loss, the old content is there or the new; locks for
what one program at a time may change; and files whose rights are looked at before their content is believed.

Owns the order of these steps. Must not know what is in a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path


def replace_whole(path: Path, content: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Put ``content`` there, synced, with that mode before there is anything to read. Raises OSError.

    A symbolic link stays one: what it points to is replaced. ``owner``: the user and group that the file is to have, as
    far as we may give it away; -1 and None: ours.
    """
    path = path.resolve()
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()  # of a run that was killed and had our pid
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def take_lock(path: Path) -> int:
    """Wait until no other process holds the lock file, which is made where it is missing. Raises OSError.

    Held until the descriptor that this returns is closed. The file stays: two could each hold one of its own.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        if os.geteuid() == 0:  # root made it in another's folder, and must not keep that one out
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    except FileExistsError:
        descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_with_stat(path: Path, *, at_most: int) -> tuple[os.stat_result, bytes]:
    """Owner, mode and the first ``at_most`` bytes, none of what is no regular file. Raises OSError.

    All of the same open file, so that no other file is read than the one that was judged.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold up the start
    try:
        found = os.fstat(descriptor)
        return found, os.read(descriptor, at_most) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put the folder's entries on disk: what was made, renamed or removed in it survives a power loss only after this.
    Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
