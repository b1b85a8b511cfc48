"""What SQLite and the kernel report, in our own words: no sqlite3 exception crosses the storage's gate.

Owns the mapping. Must not know what was being done.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replicad.errors import (
    DamagedError,
    DataFolderError,
    DiskFailedError,
    DiskFullError,
    DuplicateIdError,
    InvariantError,
    ReplicadError,
)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}

_NOT_OURS = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}

_NOT_UTF8 = "Could not decode to UTF-8"  # what Python's module says of a stored text, with no code

_PRIMARY = 0xFF  # the low byte of an extended result code, https://www.sqlite.org/rescode.html


def from_sqlite(exc: sqlite3.Error, doing: str) -> ReplicadError:
    """The error of ours that tells what ``exc`` means; ``doing`` says what was tried, with the file's path."""
    # Python leaves the code out where it raises on its own account: wrong use, so a bug of ours.
    code = getattr(exc, "sqlite_errorcode", None)
    text = f"{doing}: {exc}"
    if code is None:
        return DamagedError(text) if str(exc).startswith(_NOT_UTF8) else InvariantError(text)
    primary = code & _PRIMARY
    # A full disk can show first when the shared index of the WAL grows.
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return DiskFullError(text)
    if is_damage(exc):
        return DamagedError(text)
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return DuplicateIdError(text) if "ids.id" in str(exc) else InvariantError(text)
    if primary in {sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISMATCH}:
        return InvariantError(text)
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        text += " (another program has the database open: nothing but the daemon may)"
    # IOERR, and whatever else we know no way on from: the node stops rather than guess.
    return DiskFailedError(text)


def is_damage(exc: sqlite3.Error) -> bool:
    """Whether SQLite found bytes that it did not write."""
    return getattr(exc, "sqlite_errorcode", 0) & _PRIMARY in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def from_os(exc: OSError, doing: str) -> ReplicadError:
    """The same for an error of the file system."""
    text = f"{doing}: {exc.strerror or exc}"
    return DiskFullError(text) if exc.errno in _NO_ROOM else DiskFailedError(text)


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """As :func:`translated`, where a file that cannot be opened or locked is the operator's to mend."""
    doing = f"open {path}"
    with translated(doing):
        try:
            yield
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", 0) & _PRIMARY in _NOT_OURS:
                raise DataFolderError(f"{doing}: {exc}: see its owner and mode, and who else has it open") from exc
            raise


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what SQLite and the kernel raise inside into our own errors."""
    try:
        yield
    except sqlite3.Error as exc:
        raise from_sqlite(exc, doing) from exc
    except UnicodeDecodeError as exc:  # Python met it in a message of SQLite's, which quotes from a damaged schema
        raise DamagedError(f"{doing}: the file holds text that is not UTF-8") from exc
    except OverflowError as exc:  # SQLite's integers end at 2**63 - 1
        raise InvariantError(f"{doing}: {exc}") from exc
    except OSError as exc:
        raise from_os(exc, doing) from exc
