"""The embedded store: one SQLite database in the data folder, keeping :mod:`replicad.storage.interface`'s contract.

Owns the writing of the log and when the WAL is checkpointed. Reading is :mod:`replicad.storage.reader`'s, the schema
:mod:`replicad.storage.schema`'s. Must not know what a record means, who asks, or why.

An append is one step of one statement, and so one transaction with one fsync: the sqlite3 module gives up the GIL for
every step and, with an event loop busy in another thread, may wait milliseconds to get it back. A temporary view
takes the batches as rows, and a trigger on it spreads each over the tables; json_each() turns a list of ids into rows
inside SQLite.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from replicad.core.batch import Append, Batch, Tile
from replicad.core.record import parse_leaf
from replicad.core.tree import HASH_BYTES, Tree
from replicad.errors import DamagedError, DiskFailedError, DiskFullError, StorageError, invariant
from replicad.storage import schema, scrub
from replicad.storage.checks import check_appends, check_promise, check_truncate
from replicad.storage.checksum import checksum_of, checksum_of_state
from replicad.storage.derived import full_tiles
from replicad.storage.edge import partial_tiles
from replicad.storage.faults import translated
from replicad.storage.interface import StoreState
from replicad.storage.lock import FolderLock, prepare_folder
from replicad.storage.reader import (
    DecodeRecords,
    Reader,
    batches_from,
    decode_body,
    epoch_record,
    greatest_id,
    log_end,
    read_tree,
    stored_tile,
    whole_state,
)
from replicad.storage.scrub import Gap, Look
from replicad.storage.wal import WalIndex, cut_off

# One row a batch. The ids, tiles and commit size of all the batches stand in the first row: `ids` a JSON list,
# `tile_places` a JSON list of [level, index, start, length] in `tile_hashes`, start from 1.
_APPEND_VIEW = """CREATE TEMP VIEW append AS SELECT 0 AS first_offset, 0 AS count, 0 AS epoch, 0 AS time_ms, 0 AS root,
  0 AS signer, 0 AS signature, 0 AS body, 0 AS checksum, 0 AS ids, 0 AS tile_places, 0 AS tile_hashes,
  0 AS commit_size, 0 AS state_checksum"""
# Ids are inserted in their own order: where they are random, each page of the index is touched once a batch (20 % less
# time a record at 4000 a batch), and where they are UUIDv7 the sort costs nothing that can be measured.
_APPEND_TRIGGER = """CREATE TEMP TRIGGER append_row INSTEAD OF INSERT ON append BEGIN
  INSERT INTO batches VALUES (NEW.first_offset, NEW.count, NEW.epoch, NEW.time_ms,
                              NEW.root, NEW.signer, NEW.signature, NEW.body, NEW.checksum);
  INSERT INTO ids SELECT value, key + NEW.first_offset FROM json_each(NEW.ids) ORDER BY value;
  INSERT INTO tiles SELECT value ->> 0, value ->> 1, substr(NEW.tile_hashes, value ->> 2, value ->> 3)
    FROM json_each(NEW.tile_places) WHERE true
    ON CONFLICT (level, "index") DO UPDATE SET hashes = excluded.hashes;
  UPDATE state SET commit_size = NEW.commit_size, checksum = NEW.state_checksum
    WHERE commit_size < NEW.commit_size;
END"""
_ROW = "(" + ", ".join("?" * 14) + ")"
# Rows of one statement: few enough that the texts for 1 to 32 stay prepared, many enough that a step is worth its GIL.
_ROWS_PER_STATEMENT = 32
_APPEND = tuple(f"INSERT INTO append VALUES {', '.join([_ROW] * rows)}" for rows in range(_ROWS_PER_STATEMENT + 1))  # noqa: S608

_DELETE_IDS = "DELETE FROM ids WHERE id IN (SELECT value FROM json_each(?))"
_DELETE_IDS_AT = 'DELETE FROM ids WHERE "offset" >= ? AND "offset" < ?'

# How often room is looked for: each look gives up the GIL, and may wait for it.
_LOOK_S = 0.1
_LOOK_SHARE = 16  # of the reserve

# Readers that overlap all the time keep a WAL from starting over; at so many times CHECKPOINT_FRAMES the writer waits
# for them (each reads for milliseconds), so that the file stays under 128 MiB and one transaction.
_WAL_LIMIT_FACTOR = 8


class SqliteStore:
    """A node's log in ``data_dir``, made when it is missing; held against every other process until :meth:`close`.

    Raises DataFolderError (in use, of another cluster, node or schema, writable by others), DamagedError,
    DiskFullError, DiskFailedError. After a DiskFailedError every later writing call raises one too: what is on the
    disk is not known until the node has started anew.

    1. ``_size``, ``_commit_size`` and the promise are what is on disk: they move after the commit, never before.
    """

    def __init__(
        self, data_dir: Path, *, cluster: str, node: str, decode_records: DecodeRecords, reserve_bytes: int = 0
    ) -> None:
        """``reserve_bytes``: with less room than that on the disk no records are taken; all else still is."""
        self._decode = decode_records
        self._reserve = _Reserve(data_dir, reserve_bytes)
        self._path = schema.database_path(data_dir)
        self._failure: StorageError | None = None
        self._checkpoint_at = schema.CHECKPOINT_FRAMES
        self._closed = False
        self._wal: WalIndex | None = None
        prepare_folder(data_dir)
        self._lock = FolderLock(data_dir)
        try:
            self._writer = schema.open_writer(self._path, cluster=cluster, node=node)
        except BaseException:
            self._lock.release()
            raise
        self._reader = Reader(self._path, decode_records)
        try:
            with translated(f"open {self._path}"):
                self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        schema.check_schema(self._writer)  # or its damage would look like a bug of ours, statement by statement
        self._writer.execute(_APPEND_VIEW)
        self._writer.execute(_APPEND_TRIGGER)
        end = log_end(self._writer)
        self._size = end.size if end else 0
        self._last_epoch = end.last_epoch if end else 0
        self._promised_epoch, self._promised_to, self._commit_size, _ = whole_state(self._writer)
        if not 0 <= self._commit_size <= self._size:
            raise DamagedError(f"{self._path} ends at {self._size}, below its commit size {self._commit_size}")
        schema.grow_wal(self._writer, self._path)
        self._wal = WalIndex(self._path)

    def load(self) -> StoreState:
        """The state to start from. Reads the last batches (255 records, and what shares a batch with them) and a tile a
        level. Raises DamagedError when the tree that gives is not the last batch's."""
        with translated(f"read {self._path}"):
            tree = read_tree(self._writer, self._decode)
            greatest = greatest_id(self._writer)
            record = epoch_record(self._writer, self._decode, self._last_epoch)
        return StoreState(
            size=self._size,
            last_epoch=self._last_epoch,
            promised_epoch=self._promised_epoch,
            promised_to=self._promised_to,
            greatest_id=greatest,
            commit_size=self._commit_size,
            epoch_record=record,
            tree=tree,
        )

    def append(self, appends: Sequence[Append], *, commit_size: int) -> None:
        if not appends:
            self.set_commit_size(commit_size)
            return
        end = check_appends(appends, size=self._size, commit_size=commit_size)
        with self._writing("append"):
            self._reserve.check(sum(len(append.batch.body) for append in appends))
            if len(appends) <= _ROWS_PER_STATEMENT:
                self._append_rows(appends, commit_size)
            else:
                self._writer.execute("BEGIN IMMEDIATE")
                for at in range(0, len(appends), _ROWS_PER_STATEMENT):
                    self._append_rows(appends[at : at + _ROWS_PER_STATEMENT], commit_size)
                self._writer.execute("COMMIT")
        self._size = end
        self._last_epoch = appends[-1].batch.epoch
        self._commit_size = max(self._commit_size, commit_size)
        self._checkpoint()

    def _append_rows(self, appends: Sequence[Append], commit_size: int) -> None:
        """One statement, one step; a transaction of its own when none is open."""
        values: list[object] = []
        places, hashes = _pack_tiles(appends)
        ids = json.dumps([message_id for append in appends for message_id in append.ids])
        shared: tuple[object, ...] = (ids, places, hashes, commit_size, self._state_checksum(commit_size))
        for append in appends:
            batch = append.batch
            values += (batch.first_offset, batch.count, batch.epoch, batch.time_ms)
            values += (batch.root, batch.signer, batch.signature, batch.body, checksum_of(batch))
            values += shared
            shared = (None, None, None, None, None)
        self._writer.execute(_APPEND[len(appends)], values)

    def check_room(self) -> None:
        with translated(f"look at the disk of {self._path}"):
            self._reserve.look()

    def set_promise(self, epoch: int, master: str) -> None:
        check_promise(epoch, master, promised_epoch=self._promised_epoch, promised_to=self._promised_to)
        if epoch == self._promised_epoch:
            return
        with self._writing("promise"):
            checksum = checksum_of_state(epoch, master, self._commit_size)
            self._writer.execute(
                "UPDATE state SET promised_epoch = ?, promised_to = ?, checksum = ?", (epoch, master, checksum)
            )
        self._promised_epoch, self._promised_to = epoch, master
        self._checkpoint()

    def set_commit_size(self, commit_size: int) -> None:
        invariant(commit_size <= self._size, f"commit size {commit_size} beyond size {self._size}")
        if commit_size <= self._commit_size:
            return
        with self._writing("commit size"):
            checksum = self._state_checksum(commit_size)
            self._writer.execute("UPDATE state SET commit_size = ?, checksum = ?", (commit_size, checksum))
        self._commit_size = commit_size
        self._checkpoint()

    def _state_checksum(self, commit_size: int) -> int:
        return checksum_of_state(self._promised_epoch, self._promised_to, commit_size)

    def truncate(self, size: int) -> Tree:
        check_truncate(size, log_size=self._size, commit_size=self._commit_size)
        with self._writing("truncate"):
            self._writer.execute("BEGIN IMMEDIATE")
            begins = self._writer.execute("SELECT 1 FROM batches WHERE first_offset = ?", (size,)).fetchone()
            invariant(begins is not None or size == self._size, f"truncate to {size}: no batch begins there")
            for batch in batches_from(self._writer, size):
                self._delete_ids(batch)
            self._writer.execute("DELETE FROM batches WHERE first_offset >= ?", (size,))
            self._cut_tiles(size)
            tree = read_tree(self._writer, self._decode)
            end = log_end(self._writer)
            self._writer.execute("COMMIT")
        self._size = size
        self._last_epoch = end.last_epoch if end else 0
        self._checkpoint()
        return tree

    def _delete_ids(self, batch: Batch) -> None:
        try:
            ids = [parse_leaf(leaf).id for leaf in decode_body(batch, self._decode).leaves]
        except ValueError as exc:
            raise DamagedError(f"the batch at offset {batch.first_offset} holds no leaves: {exc}") from exc
        deleted = self._writer.execute(_DELETE_IDS, (json.dumps(ids),)).rowcount
        if deleted != batch.count:
            raise DamagedError(f"of the {batch.count} ids at offset {batch.first_offset} {deleted} were in the index")

    def _cut_tiles(self, size: int) -> None:
        """Leave the tiles of a log of ``size`` records: the full ones, and the partial ones above level 0."""
        kept_levels = 0
        for level, index, length in partial_tiles(size):
            kept = length if level else 0
            if kept:
                hashes = (stored_tile(self._writer, level, index) or b"")[: kept * HASH_BYTES]
                if len(hashes) != kept * HASH_BYTES:
                    raise DamagedError(f"tile ({level}, {index}) does not hold {kept} hashes")
                self._writer.execute(
                    'UPDATE tiles SET hashes = ? WHERE level = ? AND "index" = ?', (hashes, level, index)
                )
            self._writer.execute(
                'DELETE FROM tiles WHERE level = ? AND "index" >= ?', (level, index + 1 if kept else index)
            )
            kept_levels = level + 1
        self._writer.execute("DELETE FROM tiles WHERE level >= ?", (kept_levels,))

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """What goes wrong inside has not happened: rolled back, and told in our own errors."""
        invariant(not self._closed, "the store is closed")
        if self._failure is not None:
            raise DiskFailedError(f"{what}: the disk failed before ({self._failure})") from self._failure
        try:
            with translated(f"{what} in {self._path}"):
                try:
                    yield
                finally:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
        except DiskFullError as exc:
            if getattr(exc.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE:
                self._take_back()
            raise
        except DiskFailedError as exc:
            self._failure = exc
            raise

    def _take_back(self) -> None:
        """A commit for which the WAL's index finds no room is refused by SQLite when all of it is in the WAL already,
        and synced: a restart would take it in, and it is told of as not applied."""
        if self._wal is None:
            return
        try:
            with translated(f"take back what was refused in {self._path}"):
                cut_off(schema.wal_path(self._path), self._wal.frames(), page_bytes=schema.PAGE_BYTES)
        except StorageError as exc:
            self._failure = exc
            raise

    def _checkpoint(self) -> None:
        """Move the WAL into the database when there is enough of it.

        It runs when the caller's own change is in the WAL and synced, so it never raises: a failure of the disk is
        raised by the next writing call, and a full one by the next that finds no room.
        """
        frames = self._wal.frames() if self._wal else 0
        if frames < schema.CHECKPOINT_FRAMES:  # a new round of the WAL
            self._checkpoint_at = schema.CHECKPOINT_FRAMES
        if frames < self._checkpoint_at:
            return
        # A reader may hold the rest back: try again only when there is as much again, not at every commit.
        self._checkpoint_at = frames + schema.CHECKPOINT_FRAMES
        mode = "RESTART" if frames >= _WAL_LIMIT_FACTOR * schema.CHECKPOINT_FRAMES else "PASSIVE"
        try:
            with translated(f"checkpoint {self._path}"):
                self._writer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except DiskFullError:
            pass
        except StorageError as exc:
            self._failure = exc

    def read(self, from_offset: int, *, max_bytes: int, until_offset: int | None = None) -> list[Batch]:
        return self._reader.read(from_offset, max_bytes=max_bytes, until_offset=until_offset)

    def read_time(
        self, from_offset: int, *, since_ms: int, until_ms: int, max_bytes: int, until_offset: int
    ) -> list[Batch]:
        return self._reader.read_time(
            from_offset, since_ms=since_ms, until_ms=until_ms, max_bytes=max_bytes, until_offset=until_offset
        )

    def find_ids(self, ids: Sequence[str]) -> dict[str, int]:
        return self._reader.find_ids(ids)

    def tile(self, level: int, index: int) -> bytes | None:
        return self._reader.tile(level, index)

    def root_at(self, size: int) -> bytes:
        return self._reader.root_at(size)

    def look(self, tree: Tree, *, until: int, max_bytes: int) -> Look:
        """A piece of a scrub: see :func:`replicad.storage.scrub.look`."""
        with self._reader.snapshot() as connection:
            return scrub.look(connection, self._decode, tree, until=until, max_bytes=max_bytes)

    def gap_at(self, offset: int) -> Gap:
        """What is damaged around this offset: see :func:`replicad.storage.scrub.gap_at`."""
        with self._reader.snapshot() as connection:
            return scrub.gap_at(connection, offset, size=self._size)

    def tree_at(self, size: int) -> Tree:
        """The tree over the first ``size`` records. Raises DamagedError: a tile lacks, or has other hashes than the
        batch before ``size`` says."""
        with self._reader.snapshot() as connection:
            tree = scrub.tree_at(connection, self._decode, size)
            before = next((b for b in batches_from(connection, size - 1, until=size)), None) if size else None
        if before is not None and (before.end, before.root) != (size, tree.root()):
            raise DamagedError(f"the tiles do not have the root that was signed for {size} records")
        return tree

    def replace(self, gap: Gap, appends: Sequence[Append]) -> None:
        """Put these proven batches, and what is kept beside the log for them, in the place of what is damaged.

        They fill the gap exactly: InvariantError otherwise. Raises DamagedError: the file itself is damaged, not only
        what is in it; or what is damaged was never known to be committed, and may be other records than these;
        DiskFullError, DiskFailedError.
        """
        first, end = appends[0].batch.first_offset, appends[-1].batch.end
        fills = (first, end) == (gap.start, gap.end)
        invariant(fills, f"batches of {first} to {end} do not fill {gap.start} to {gap.end}")
        if end > self._commit_size and not all(self._stands_for(append.batch) for append in appends):
            raise DamagedError(
                f"what is damaged from offset {first} on was never known to be committed here, and may be other "
                "records than those of the other nodes",
                offset=first,
            )
        try:
            self._replace(gap, appends)
        except DamagedError:  # SQLite misses what stands in the index on time for a row whose time was changed
            with self._writing("index anew"):
                self._writer.execute("REINDEX batches_by_time")
            self._replace(gap, appends)

    def _stands_for(self, batch: Batch) -> bool:
        """Whether this batch is what was stored in its place: its signature or its root are there, unless both are
        damaged."""
        query = "SELECT root, signature FROM batches WHERE first_offset = ?"
        with translated(f"read {self._path}"):
            row = self._writer.execute(query, (batch.first_offset,)).fetchone()
        return row is not None and (row[0] == batch.root or row[1] == batch.signature)

    def _replace(self, gap: Gap, appends: Sequence[Append]) -> None:
        with self._writing("repair"):
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute(
                "DELETE FROM batches WHERE first_offset >= ? AND first_offset < ?", (gap.start, gap.end)
            )
            for append in appends:
                deleted = self._writer.execute(_DELETE_IDS, (json.dumps(list(append.ids)),)).rowcount
                if deleted < append.batch.count:  # others stand in their place; to look for them is a walk, but rare
                    self._writer.execute(_DELETE_IDS_AT, (append.batch.first_offset, append.batch.end))
                self._append_rows([replace(append, tiles=full_tiles(append))], 0)
            self._writer.execute("COMMIT")
        if gap.end == self._size:
            self._last_epoch = appends[-1].batch.epoch
        self._checkpoint()

    def close(self) -> None:
        """Close the database and let the folder go. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._reader.close()
        self._writer.close()
        if self._wal is not None:
            self._wal.close()
        self._lock.release()


class _Reserve:
    """Room that records may not take, so that a node whose disk is full can still write what it promises."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._folder, self._bytes = folder, reserve_bytes
        self._touched = False
        self._look_at, self._unseen = 0.0, 0  # when the disk is looked at again, or after so many bytes

    def check(self, size: int) -> None:
        """Raises DiskFullError where an append of ``size`` bytes may not be. Looks now and then, and whenever a part of
        the reserve may have been written since."""
        self._unseen += size
        if self._touched or self._unseen * _LOOK_SHARE >= self._bytes or time.monotonic() >= self._look_at:
            self.look()

    def look(self) -> None:
        """Raises DiskFullError below the reserve; and then until there is a quarter more, so as not to flap."""
        if not self._bytes:
            return
        self._look_at, self._unseen = time.monotonic() + _LOOK_S, 0
        stats = os.statvfs(self._folder)
        free = stats.f_bavail * stats.f_frsize
        self._touched = free < self._bytes + (self._bytes // 4 if self._touched else 0)
        if self._touched:
            raise DiskFullError(
                f"{free >> 20} MiB are free on the disk of {self._folder}, and limits.disk_reserve keeps "
                f"{self._bytes >> 20} MiB for the node's own state"
            )


def _pack_tiles(appends: Sequence[Append]) -> tuple[str | None, bytes | None]:
    """All tiles of the appends, each once, in its last form: where they are (JSON), and their hashes in one string."""
    tiles: dict[tuple[int, int], Tile] = {}
    for append in appends:
        for tile in append.tiles:
            tiles[tile.level, tile.index] = tile
    if not tiles:
        return None, None
    places, start = [], 1
    for tile in tiles.values():
        places.append((tile.level, tile.index, start, len(tile.hashes)))
        start += len(tile.hashes)
    return json.dumps(places), b"".join(tile.hashes for tile in tiles.values())
