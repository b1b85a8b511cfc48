"""How much is in the WAL, and whether all that was is: what SQLite tells only to C programs, or to nobody.

Owns some places of SQLite's file format, https://www.sqlite.org/walformat.html. Must not know what is done about it.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

# mxFrame, in the machine's byte order: "WAL-Index Header", bytes 16..19.
_FRAMES = struct.Struct("=I")
_FRAMES_AT = 16

_HEADER = struct.Struct(">8I")  # magic, version, page size, sequence, two salts, two sums over what is before them
_FRAME = struct.Struct(">4I")  # page, pages of the database after it where it ends a commit (else 0), two salts
_FRAME_BYTES = 24
_BIG_ENDIAN = 1  # the lowest bit of the magic number: of the words that are summed


class WalIndex:
    """The shared index of an open database's WAL, mapped: to look costs no system call, and the GIL stays with us.

    Open it when a connection has read from the database, and close it after the last connection: SQLite's POSIX locks
    are on this file, and a process loses them with the first handle that it closes. Raises OSError.
    """

    def __init__(self, database: Path) -> None:
        self._file = database.with_name(database.name + "-shm").open("rb")
        try:
            self._map = mmap.mmap(self._file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)
        except BaseException:
            self._file.close()
            raise

    def frames(self) -> int:
        """Committed frames in the WAL now. Exact in the thread that writes."""
        frames: int = _FRAMES.unpack_from(self._map, _FRAMES_AT)[0]
        return frames

    def close(self) -> None:
        self._map.close()
        self._file.close()


def cut_off(wal: Path, frames: int, *, page_bytes: int) -> None:
    """Drop what is in the file ``wal`` behind its first ``frames``; on disk when this returns. Raises OSError.

    For whoever writes to the log, when what lies there is to be taken in by no restart.
    """
    handle = os.open(wal, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(handle, _HEADER.size + frames * (_FRAME_BYTES + page_bytes))
        os.fsync(handle)
    finally:
        os.close(handle)


def unreached_commits(wal: Path, frames: int, *, page_bytes: int) -> int:
    """Commits in the file ``wal`` behind its first ``frames``, which are those that SQLite has found to be whole.

    None after a clean end, and none after a kill. One, at the most, after a loss of power: the last, torn. Commits are
    synced one by one, so where there are two, what lies before the last was on the disk and has changed; and SQLite
    passes over all of it without a word. A header that is damaged counts as one more: nothing follows a torn one.
    """
    try:
        file = wal.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return 0
        whole = _sums(header) == _HEADER.unpack(header)[6:]
        salts = _HEADER.unpack(header)[4:6] if whole else None
        commits = 0
        place = _HEADER.size + frames * (_FRAME_BYTES + page_bytes)
        while len(head := os.pread(file.fileno(), _FRAME.size, place)) == _FRAME.size:
            _, ends, *its_salts = _FRAME.unpack(head)
            salts = salts or tuple(its_salts)
            commits += bool(ends) and tuple(its_salts) == salts
            place += _FRAME_BYTES + page_bytes
    return commits if whole or not commits else commits + 1


def _sums(header: bytes) -> tuple[int, int]:
    """The sums over the first six words of a WAL's header."""
    words = struct.unpack(">6I" if header[3] & _BIG_ENDIAN else "<6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
