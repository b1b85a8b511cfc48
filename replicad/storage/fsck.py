"""Offline verification of a whole data folder with public keys alone.

Owns what "the log proves" means: everything a worker checks before it takes a batch, from the empty tree on, and that
the indexes and tiles beside the log are exactly what the log makes them. Changes nothing. Must not know private keys,
nor trust anything in the folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from replicad.core.batch import Append, Batch, Tile
from replicad.core.check import check_batch, check_records
from replicad.core.keyring import Keyring
from replicad.core.record import Records
from replicad.core.tree import TILE_HEIGHT, TILE_WIDTH, Tree
from replicad.errors import DamagedError, DataFolderError, ForgottenError, PeerError, StorageError
from replicad.storage import schema
from replicad.storage.derived import Odd, full_tiles, wrong_id, wrong_tile
from replicad.storage.edge import partial_tiles
from replicad.storage.faults import opening, translated
from replicad.storage.lock import FolderLock
from replicad.storage.reader import is_possible, stored_batches, stored_state


@dataclass(frozen=True, slots=True)
class Fault:
    """``offset`` is the first record that is not proven, or None when the fault lies in no record (see ``reason``)."""

    offset: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was proven, from offset 0 up to the first fault.

    1. ``records``, ``batches``, ``epochs``, ``last_epoch`` and ``root`` are of the log's proven beginning, which is all
       of it when ``fault`` is None. (A fault in what is derived from the log, a tile say, may lie below ``records``.)
    """

    cluster: str
    node: str  # as the folder says
    records: int
    batches: int
    epochs: int  # how many different ones
    last_epoch: int  # 0 for none
    root: bytes
    commit_size: int  # as the folder says
    fault: Fault | None

    @property
    def ok(self) -> bool:
        return self.fault is None


class _FaultError(Exception):
    """Carries a fault from a check up to the report; never leaves this file."""

    def __init__(self, offset: int | None, reason: str) -> None:
        super().__init__(reason)
        self.fault = Fault(offset, reason)


def verify_folder(
    data_dir: Path,
    *,
    cluster: str,
    keyring: Keyring,
    decode_records: Callable[[bytes], Records],
) -> Report:
    """Verify every record, root and signature in a folder of ``cluster``, or in a backup's file, and what is derived
    from them.

    Works on a node's own folder while it is stopped, however it stopped, and on a copy of one; holds a few batches in
    memory. What is not proven is reported, not raised. Raises DataFolderError: there is no log to verify, a daemon has
    it open, it is of another cluster or schema, the file is no backup, or it cannot be opened as it is (with the
    remedy); DamagedError: so much of it is damaged or cut off that nothing can be read.
    """
    path = data_dir if data_dir.is_file() else schema.database_path(data_dir)
    if not path.is_file():
        raise DataFolderError(
            f"{data_dir} holds no log ({schema.DATABASE_NAME}): name a node's data_dir, a copy of one, or a backup"
        )
    if path == data_dir:
        schema.check_backup(path)
    lock = None if path == data_dir else FolderLock(data_dir, shared=True)
    try:
        with _opened(path) as connection:
            audit = _Audit(connection, path, cluster, keyring, decode_records)
            try:
                with translated(f"read {path}"):
                    audit.run()
                fault = None
            except _FaultError as exc:
                fault = exc.fault
            except StorageError as exc:
                fault = Fault(audit.tree.size, str(exc))
        return audit.report(fault or _fault_of_wal(path, audit.tree.size))
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing. With an empty WAL nothing but the file itself is touched; with a WAL, SQLite
    must be able to make or map its shared index."""
    wal = schema.wal_path(path)
    whole = not wal.exists() or wal.stat().st_size == 0
    with opening(path):
        connection = schema.connect(path, mode="ro&immutable=1" if whole else "ro")
    with closing(connection):
        try:
            with opening(path):
                schema.set_up(connection, cache_kib=schema.WRITER_CACHE_KIB)
                schema.show_as_newest(connection)
                connection.execute("PRAGMA cell_size_check = ON")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # opens the file for real
        except DataFolderError as exc:
            if whole:
                raise
            raise DataFolderError(
                f"{exc}. Its newest batches are in {wal.name}, which SQLite reads only where it may write "
                f"{path.name}-shm beside it: copy the folder to where you can write, and verify the copy"
            ) from exc
        yield connection


def _fault_of_wal(path: Path, size: int) -> Fault | None:
    """Whether there is more behind the ``size`` records that can be read."""
    try:
        schema.check_wal(path)
    except ForgottenError as exc:
        return Fault(size, str(exc))
    return None


class _Audit:
    """One pass over the log; ``tree`` is over what has been proven so far."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        cluster: str,
        keyring: Keyring,
        decode_records: Callable[[bytes], Records],
    ) -> None:
        self._connection = connection
        self._keyring = keyring
        self._decode = decode_records
        self.tree = Tree()
        self._batches = self._epochs = self._last_epoch = 0
        meta = schema.read_meta(connection, path)
        self._meta_keys = frozenset(meta)
        self._cluster, self._node = meta.get("cluster", ""), meta.get("node", "")
        if self._cluster != cluster:
            raise DataFolderError(f"{path} is of cluster {self._cluster!r}, not {cluster!r}: name the right one")
        self._commit_size, self._whole_state = 0, True

    def run(self) -> None:
        """Raises _FaultError at the first fault, by offset."""
        schema.check_schema(self._connection)
        if self._meta_keys != schema.META_KEYS:
            raise _FaultError(None, f"meta has the rows {sorted(self._meta_keys)}, not {sorted(schema.META_KEYS)}")
        self._connection.execute("BEGIN")  # one state of the folder over all statements
        promised_epoch = self._read_state()
        fault: _FaultError | None = None
        try:
            for batch, whole in stored_batches(self._connection, 0):
                self._check_batch(batch)
                if not whole:
                    raise _FaultError(batch.first_offset, f"the batch at {batch.first_offset} has another checksum")
            self._check_edge()
        except _FaultError as exc:
            fault = exc
        # The index may hold ids that no record has, at offsets before the one just found.
        self._check_surplus_ids(self.tree.size)
        if fault is not None:
            raise fault
        self._check_end(promised_epoch)

    def report(self, fault: Fault | None) -> Report:
        return Report(
            cluster=self._cluster,
            node=self._node,
            records=self.tree.size,
            batches=self._batches,
            epochs=self._epochs,
            last_epoch=self._last_epoch,
            root=self.tree.root(),
            commit_size=self._commit_size,
            fault=fault,
        )

    def _read_state(self) -> int:
        try:
            state = stored_state(self._connection)
        except DamagedError as exc:
            raise _FaultError(None, str(exc)) from exc
        self._commit_size, self._whole_state = state.commit_size, state.whole
        return state.promised_epoch

    def _check_batch(self, batch: Batch) -> None:
        if not is_possible(batch):
            raise _FaultError(self.tree.size, f"the batch at offset {batch.first_offset} holds impossible numbers")
        try:
            append, tree = check_batch(
                batch,
                tree=self.tree,
                last_epoch=self._last_epoch,
                cluster=self._cluster,
                keyring=self._keyring,
                decode=self._decode,
            )
        except PeerError as exc:
            raise _FaultError(self._locate(batch), f"{exc.reason}: {exc}") from exc
        self._check_ids(append)
        for tile in full_tiles(append):
            self._check_tile(tile)
        self.tree = tree
        self._batches += 1
        self._epochs += batch.epoch != self._last_epoch
        self._last_epoch = batch.epoch

    def _locate(self, batch: Batch) -> int:
        """The first record of a bad batch that is bad by itself; else the batch's first, or where it should begin."""
        if batch.first_offset != self.tree.size:
            return self.tree.size
        try:
            records = self._decode(batch.body)
        except PeerError:
            return batch.first_offset
        if len(records) != batch.count:
            return batch.first_offset
        for index in range(batch.count):
            offset = batch.first_offset + index
            try:
                check_records(replace(batch, first_offset=offset, count=1), records.cut(index, index + 1))
            except PeerError:
                return offset
        return batch.first_offset

    def _check_ids(self, append: Append) -> None:
        self._raise(wrong_id(self._connection, append))

    def _check_tile(self, tile: Tile) -> None:
        self._raise(wrong_tile(self._connection, tile))

    def _raise(self, odd: Odd | None) -> None:
        if odd is not None:
            raise _FaultError(*odd)

    def _check_edge(self) -> None:
        """The partial tiles above level 0, and that there is no tile beyond."""
        for level, index, length in partial_tiles(self.tree.size):
            kept = length if level else 0
            if kept:
                hashes = [
                    self.tree.edge_hash(TILE_HEIGHT * level, TILE_WIDTH * index + at) or b"" for at in range(kept)
                ]
                self._check_tile(Tile(level, index, b"".join(hashes)))
            self._check_no_tile('level = ? AND "index" >= ?', (level, index + 1 if kept else index))
        self._check_no_tile('level > ? OR level < 0 OR "index" < 0', (level,))

    def _check_no_tile(self, condition: str, values: tuple[int, ...]) -> None:
        row = self._connection.execute(
            f'SELECT level, "index" FROM tiles WHERE {condition} LIMIT 1',  # noqa: S608 (constants only)
            values,
        ).fetchone()
        if row is not None:
            raise _FaultError(self.tree.size, f"tile ({row[0]}, {row[1]}) is beyond a log of {self.tree.size} records")

    def _check_surplus_ids(self, size: int) -> None:
        """Every record below ``size`` is known to be in the index: so what is there beside it, is too much."""
        query = 'SELECT count(*) FROM ids WHERE "offset" < ?'
        if self._connection.execute(query, (size,)).fetchone()[0] == size:
            return
        query = """SELECT "offset" FROM ids WHERE "offset" < ?
GROUP BY "offset" HAVING "offset" < 0 OR count(*) > 1 LIMIT 1"""
        (offset,) = self._connection.execute(query, (size,)).fetchone() or (None,)
        raise _FaultError(offset, f"the index of ids holds an id for offset {offset} that no record has")

    def _check_end(self, promised_epoch: int) -> None:
        size = self.tree.size
        (rows,) = self._connection.execute("SELECT count(*) FROM batches").fetchone()
        if rows != self._batches:
            raise _FaultError(None, f"there are {rows} batches, of which {self._batches} make up the log")
        row = self._connection.execute('SELECT id, "offset" FROM ids WHERE "offset" >= ? LIMIT 1', (size,)).fetchone()
        if row is not None:
            raise _FaultError(row[1], f"the index of ids has {row[0]!r} at offset {row[1]}, the log ends at {size}")
        if not 0 <= self._commit_size <= size:
            raise _FaultError(size, f"the commit size is {self._commit_size}, the log ends at {size}")
        if promised_epoch < self._last_epoch:
            raise _FaultError(None, f"epoch {promised_epoch} is promised, the last record is of {self._last_epoch}")
        if not self._whole_state:
            raise _FaultError(None, "what the node has promised is not what was written: it has another checksum")
        damage = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if damage != "ok":
            raise _FaultError(None, f"the database file is damaged: {damage}")
