"""The data folder itself: made, checked, and held by one daemon at a time.

Owns the folder's mode and DATA/lock. Must not know what else is kept in the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from replicad.errors import DataFolderError
from replicad.files import sync_folder

LOCK_NAME = "lock"


def prepare_folder(folder: Path) -> None:
    """Make the folder with mode 0700 when it is missing, on disk when this returns; check it when it is there.

    Its parent must exist: a missing one is more likely a typing error or a disk that is not mounted than a wish.
    Raises DataFolderError, with the remedy.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except FileNotFoundError as exc:
        raise DataFolderError(f"{folder.parent} does not exist: make it (mkdir -p), or correct data_dir") from exc
    except OSError as exc:
        raise DataFolderError(f"data folder {folder} cannot be made: {exc.strerror}") from exc
    check_folder(folder)
    # At every start: the process that made it may have died before this. A parent that we may not read was there first.
    with contextlib.suppress(PermissionError):
        sync_folder(folder.parent)


def check_folder(folder: Path) -> None:
    """Refuse what is not a folder, and one that others may write to. Raises DataFolderError, with the remedy."""
    try:
        mode = folder.stat().st_mode
    except OSError as exc:
        raise DataFolderError(f"data folder {folder} cannot be read: {exc.strerror}") from exc
    if not stat.S_ISDIR(mode):
        raise DataFolderError(f"data folder {folder} is not a folder: correct data_dir")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DataFolderError(
            f"data folder {folder} has mode {stat.S_IMODE(mode):04o}, others may write to it: chmod go-w {folder}"
        )


class FolderLock:
    """Holds DATA/lock (flock) from construction to :meth:`release`, or to the end of the process, however it ends.

    ``shared=True`` takes it beside other shared holders and against a daemon, writing nothing: for offline readers.
    Raises DataFolderError, naming the folder and the holder, when it is taken.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._handle: int | None = None
        path = folder / LOCK_NAME
        try:
            handle = _open(path, shared=shared)
        except FileNotFoundError:
            if shared:
                return  # a copy without its lock file: no daemon can be on it
            raise DataFolderError(f"data folder {folder} does not exist") from None
        except OSError as exc:
            raise DataFolderError(f"{path} cannot be opened: {exc.strerror}") from exc
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = _holder(handle)
            os.close(handle)
            raise DataFolderError(f"data folder {folder} is in use by {holder}: stop that one first") from exc
        except OSError as exc:
            os.close(handle)
            raise DataFolderError(f"{path} cannot be locked: {exc.strerror}") from exc
        self._handle = handle
        if not shared:
            _sign(handle)

    def release(self) -> None:
        """Let the folder go. The file stays: to remove it would let two daemons each lock one of its own."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _open(path: Path, *, shared: bool) -> int:
    if shared:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sign(handle: int) -> None:
    """Leave our pid for whoever is refused. On a full disk it is left out: the lock holds without it."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def _holder(handle: int) -> str:
    """Who holds the lock, as far as the file tells."""
    text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
    if not text.isdigit():
        return "another process"
    with contextlib.suppress(PermissionError):  # it lives, and is another user's
        try:
            os.kill(int(text), 0)
        except ProcessLookupError:
            return f"another process (its last daemon, process {text}, has ended: a verify may be running)"
    return f"process {text}"
