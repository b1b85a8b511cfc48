"""Looking a log over, piece by piece, while it is in use: what the disk has changed, and where that begins and ends.

Owns what a look asks: everything that ties a batch to the one before it, its checksum, and what is kept beside the log
for it. Signatures it leaves to fsck: a checksum tells what a disk does by itself. Changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from replicad.core.batch import Append, Batch
from replicad.core.check import check_records
from replicad.core.tree import HASH_BYTES, TILE_WIDTH, Tree, edge_length, leaf_hashes
from replicad.errors import DamagedError, PeerError
from replicad.storage.derived import full_tiles, wrong_id, wrong_tile, wrong_time
from replicad.storage.edge import restore_tree
from replicad.storage.reader import NO_END, DecodeRecords, stored_batches, stored_tile, tail_hashes

_PLACE_BEFORE = "SELECT max(first_offset) FROM batches WHERE first_offset <= ?"
_PLACE_AFTER = "SELECT min(first_offset) FROM batches WHERE first_offset > ?"


@dataclass(frozen=True, slots=True)
class Fault:
    """``offset`` is the first record that is not what was written. ``append`` is its batch, where that is whole and
    only what is kept beside it is not."""

    offset: int
    reason: str
    append: Append | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """1. All below ``tree.size`` is what was written; ``tree`` is over it. 2. ``fault`` lies there, if there is one."""

    tree: Tree
    bodies: int  # bytes looked at
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets ``start`` to ``end - 1``, between whole batches or the log's ends: what lies there is damaged."""

    start: int
    end: int
    last_epoch: int  # of the batch before; 0 for none
    after: Batch | None  # the whole batch that begins at ``end``


def look(
    connection: sqlite3.Connection, decode_records: DecodeRecords, tree: Tree, *, until: int, max_bytes: int
) -> Look:
    """Look at the batches that follow ``tree``, which is over all records before, up to ``until``: as many as begin
    within ``max_bytes`` of bodies, up to the first fault."""
    bodies = 0
    try:
        with closing(stored_batches(connection, tree.size, until=until)) as found:
            for batch, whole in found:
                after, fault = _look_at(connection, decode_records, tree, batch, whole=whole)
                if fault is not None:
                    return Look(tree, bodies, fault)
                tree = after
                bodies += len(batch.body)
                if bodies >= max_bytes:
                    return Look(tree, bodies, None)
    except (sqlite3.DatabaseError, DamagedError) as exc:
        if isinstance(exc, sqlite3.OperationalError):
            raise
        return Look(tree, bodies, Fault(tree.size, str(exc)))
    if tree.size < until:
        return Look(tree, bodies, Fault(tree.size, f"no batch holds offset {tree.size}"))
    return Look(tree, bodies, None)


def _look_at(
    connection: sqlite3.Connection, decode_records: DecodeRecords, tree: Tree, batch: Batch, *, whole: bool
) -> tuple[Tree, Fault | None]:
    if not whole:
        return tree, Fault(tree.size, "the batch is not what was written: it has another checksum")
    if batch.first_offset != tree.size:
        return tree, Fault(tree.size, f"no batch begins at offset {tree.size}")
    try:
        records = decode_records(batch.body)
        ids = check_records(batch, records)
    except PeerError as exc:
        return tree, Fault(tree.size, f"{exc.reason}: {exc}")
    after = tree.copy()
    append = Append(batch, ids, after.append(leaf_hashes(records.leaves)))
    if after.root() != batch.root:
        return tree, Fault(tree.size, "the root after the batch is not the one that was signed")
    odd = wrong_id(connection, append) or wrong_time(connection, batch)
    for tile in full_tiles(append):
        odd = odd or wrong_tile(connection, tile)
    return after, Fault(odd.offset, odd.reason, append) if odd else None


def gap_at(connection: sqlite3.Connection, offset: int, *, size: int) -> Gap:
    """What is damaged around ``offset``, in a log of ``size`` records. Whatever holds that offset counts as damaged."""
    before = next((b for b in _backwards(connection, offset) if b and b.end <= offset), None)
    start = before.end if before else 0
    after = next((b for b in _forwards(connection, offset) if b and b.first_offset >= start), None)
    return Gap(start, after.first_offset if after else size, before.epoch if before else 0, after)


def _backwards(connection: sqlite3.Connection, offset: int) -> Iterator[Batch | None]:
    place = connection.execute(_PLACE_BEFORE, (offset,)).fetchone()[0]
    while place is not None:
        yield whole_batch(connection, place)
        place = connection.execute(_PLACE_BEFORE, (place - 1,)).fetchone()[0]


def _forwards(connection: sqlite3.Connection, offset: int) -> Iterator[Batch | None]:
    place = connection.execute(_PLACE_AFTER, (offset,)).fetchone()[0]
    while place is not None:
        yield whole_batch(connection, place)
        place = connection.execute(_PLACE_AFTER, (place,)).fetchone()[0]


def next_whole(connection: sqlite3.Connection, offset: int) -> int:
    """Where the first whole batch behind ``offset`` begins; beyond any log where there is none."""
    return next((batch.first_offset for batch in _forwards(connection, offset) if batch), NO_END)


def whole_batch(connection: sqlite3.Connection, first_offset: int) -> Batch | None:
    """The batch that begins there, if it is what was written."""
    try:
        with closing(stored_batches(connection, first_offset, until=first_offset + 1)) as found:
            batch, whole = next(found)
    except (sqlite3.DatabaseError, DamagedError, StopIteration):
        return None
    return batch if whole and batch.first_offset == first_offset else None


def tree_at(connection: sqlite3.Connection, decode_records: DecodeRecords, size: int) -> Tree:
    """The tree over the first ``size`` records, from the tiles of the longer log. Raises DamagedError: one lacks."""

    def tile(level: int, index: int) -> bytes:
        return (stored_tile(connection, level, index) or b"")[: edge_length(size, level) * HASH_BYTES]

    def hashes(start: int, stop: int) -> list[bytes]:
        stored = stored_tile(connection, 0, start // TILE_WIDTH) if stop > start else None
        if stored is None:
            return tail_hashes(connection, decode_records, start, stop) if stop > start else []
        return [stored[at : at + HASH_BYTES] for at in range(0, (stop - start) * HASH_BYTES, HASH_BYTES)]

    return restore_tree(size, tile=tile, leaf_hashes=hashes)
