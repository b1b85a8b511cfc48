"""How much is in the WAL: what SQLite tells only to C programs, read from its shared index.

Owns the place of one number in SQLite's file format. Must not know what is done about it.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

# mxFrame, in the machine's byte order: https://www.sqlite.org/walformat.html, "WAL-Index Header", bytes 16..19.
_FRAMES = struct.Struct("=I")
_FRAMES_AT = 16


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
