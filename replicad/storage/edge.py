"""The tree as it is kept: stored tiles, and the leaves of the last records for the tile that is not full yet.

Shared by both stores. Owns which tiles a log of a given size has. Must not know where tiles and records are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from replicad.core.tree import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tree,
    edge_length,
    edge_start,
    root_at,
    tile_levels,
    tile_node,
    tile_of,
)
from replicad.errors import DamagedError

#: The hashes of the tile (level, index) as stored, or None.
StoredTile = Callable[[int, int], bytes | None]
#: The leaf hashes of the records start to stop - 1; never more than 255 of them.
LeafHashes = Callable[[int, int], list[bytes]]


def partial_tiles(size: int) -> Iterator[tuple[int, int, int]]:
    """A log's growing edge: on each tile level, lowest first, (level, index, number of hashes) of the tile that is not
    full yet; 0 to 255 hashes."""
    for level in range(tile_levels(size)):
        yield level, edge_start(size, level) // TILE_WIDTH, edge_length(size, level)


def first_offset_of(level: int, index: int) -> int:
    """The first record that a tile covers."""
    return index << (TILE_HEIGHT * (level + 1))


def restore_tree(size: int, *, tile: StoredTile, leaf_hashes: LeafHashes) -> Tree:
    """The growing edge of a log of ``size`` records. Raises DamagedError: a tile is missing or of another length."""
    edge = []
    for level, index, length in partial_tiles(size):
        if level == 0:
            edge.append(leaf_hashes(size - length, size))
            continue
        hashes = (tile(level, index) or b"") if length else b""
        if len(hashes) != length * HASH_BYTES:
            raise DamagedError(f"tile ({level}, {index}) has {len(hashes)} bytes, expected {length * HASH_BYTES}")
        edge.append([hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)])
    return Tree.restore(size, edge)


def stored_root_at(size: int, *, log_size: int, tile: StoredTile, leaf_hashes: LeafHashes) -> bytes:
    """The root over the first ``size`` records of a log that has ``log_size``. Raises DamagedError: a tile lacks."""
    tiles: dict[tuple[int, int], bytes] = {}  # neighbours in the recursion lie in the same tiles

    def hashes(level: int, index: int) -> bytes:
        place = tile_of(level, index)
        found = tiles.get(place)
        if found is None:
            found = tile(*place)
            if found is None and place[0] == 0:
                start = place[1] * TILE_WIDTH
                found = b"".join(leaf_hashes(start, min(start + TILE_WIDTH - 1, log_size)))
            tiles[place] = found = found or b""
        try:
            return tile_node(found, level, index)
        except LookupError as exc:
            raise DamagedError(f"tile {place} does not hold node ({level}, {index}) of a log of {log_size}") from exc

    return root_at(hashes, size)
