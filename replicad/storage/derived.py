"""What is kept beside the log and follows from it: is it what the log makes of it?

Owns the comparison of the indexes and of full tiles with a batch that was proven. Changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

from replicad.core.batch import Append, Batch, Tile
from replicad.core.tree import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH
from replicad.storage.edge import first_offset_of
from replicad.storage.reader import stored_tile

_WRONG_ID = """SELECT wanted.key, wanted.value, ids."offset" FROM json_each(?) AS wanted
LEFT JOIN ids ON ids.id = wanted.value WHERE ids."offset" IS NOT wanted.key + ? ORDER BY wanted.key LIMIT 1"""

_IN_TIME = "SELECT 1 FROM batches INDEXED BY batches_by_time WHERE time_ms = ? AND first_offset = ?"


class Odd(NamedTuple):
    """The first record concerned, and what is wrong."""

    offset: int
    reason: str


def wrong_id(connection: sqlite3.Connection, append: Append) -> Odd | None:
    """The first id of the batch that is not in the index at its record's offset; None: so no id stands there twice."""
    first = append.batch.first_offset
    row = connection.execute(_WRONG_ID, (json.dumps(list(append.ids)), first)).fetchone()
    if row is None:
        return None
    index, message_id, indexed = row
    where = "is not in the index of ids" if indexed is None else f"is indexed at offset {indexed}"
    return Odd(first + index, f"id {message_id!r} {where}")


def wrong_time(connection: sqlite3.Connection, batch: Batch) -> Odd | None:
    """Whether a read by time would miss the batch."""
    if connection.execute(_IN_TIME, (batch.time_ms, batch.first_offset)).fetchone():
        return None
    return Odd(batch.first_offset, "the batch is not in the index on time")


def full_tiles(append: Append) -> list[Tile]:
    """Those of the batch's tiles that no later batch changes."""
    return [tile for tile in append.tiles if len(tile.hashes) == TILE_WIDTH * HASH_BYTES]


def wrong_tile(connection: sqlite3.Connection, tile: Tile) -> Odd | None:
    """What is wrong with this tile as it is stored."""
    stored = stored_tile(connection, tile.level, tile.index)
    if stored == tile.hashes:
        return None
    what = "is missing" if stored is None else "is not the log's"
    # Of the records that the tile covers, those under the first hash that differs.
    differs = next((at for at, (a, b) in enumerate(zip(stored or b"", tile.hashes, strict=False)) if a != b), 0)
    offset = first_offset_of(tile.level, tile.index) + (differs // HASH_BYTES << TILE_HEIGHT * tile.level)
    return Odd(offset, f"tile ({tile.level}, {tile.index}) {what}")
