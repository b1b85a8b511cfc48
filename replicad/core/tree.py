"""The Merkle tree of RFC 6962, section 2.1 (RFC 9162, section 2.1, has the same).

Owns hashing, appending, roots and proofs. Must not know what a leaf means or where hashes are kept: whoever asks for
a root of the past or for a proof brings a :class:`Hashes` that can answer for complete subtrees.

Leaf hash SHA-256(0x00 || leaf), node hash SHA-256(0x01 || left || right), empty tree SHA-256("").
A node is named by (level, index): it covers leaves index * 2**level up to (index + 1) * 2**level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from replicad.core.batch import Tile
from replicad.errors import invariant

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
TILE_HEIGHT = 8  # levels a tile spans, as in C2SP tlog-tiles
TILE_WIDTH = 1 << TILE_HEIGHT

#: Answers the hash of the complete subtree (level, index). Raises LookupError when it is not all there.
Hashes = Callable[[int, int], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """The hash of each leaf, in order: the hot path's form of :func:`leaf_hash`."""
    return [sha256(b"\x00" + leaf).digest() for leaf in leaves]


def _parents(nodes: Sequence[bytes]) -> list[bytes]:
    """The level above an even number of neighbours."""
    pairs = iter(nodes)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]


def _fold(peaks: Iterable[bytes]) -> bytes:
    """The root from the complete subtrees it is made of, smallest (rightmost) first."""
    root = b""
    for peak in peaks:
        root = node_hash(peak, root) if root else peak
    return root or EMPTY_ROOT


class Tree:
    """The tree's growing edge: all that is needed to append and to know the present root, in O(log size) memory.

    1. ``_peaks[level]`` is the root of the complete subtree of 2**level leaves that ends the tree where ``size`` has
       that bit set, and b"" where it has not.
    2. ``_edge[tile_level]`` holds the hashes of the tile that is not yet full on that tile level, 0 to 255 of them.
    """

    __slots__ = ("_edge", "_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []
        self._edge: list[list[bytes]] = [[]]

    @classmethod
    def restore(cls, size: int, edge: Sequence[Sequence[bytes]]) -> Tree:
        """The tree of ``size`` leaves from the hashes of its unfilled tiles, lowest tile level first."""
        tree = cls()
        tree.size = size
        tree._edge = [list(hashes) for hashes in edge] or [[]]
        tree._peaks = [b""] * size.bit_length()
        for tile_level, hashes in enumerate(tree._edge):
            invariant(
                len(hashes) == edge_length(size, tile_level), f"edge of tile level {tile_level} is of another size"
            )
            nodes, level = list(hashes), TILE_HEIGHT * tile_level
            while nodes:
                if len(nodes) % 2:
                    tree._peaks[level] = nodes.pop()
                nodes, level = _parents(nodes), level + 1
        return tree

    def copy(self) -> Tree:
        """An independent copy: to try an append and keep the present tree until it is known to be good."""
        twin = Tree()
        twin.size = self.size
        twin._peaks = self._peaks.copy()
        twin._edge = [hashes.copy() for hashes in self._edge]
        return twin

    def root(self) -> bytes:
        """RFC 6962 MTH over all leaves; SHA-256("") for none."""
        return _fold(peak for peak in self._peaks if peak)

    def append(self, hashes: Sequence[bytes]) -> list[Tile]:
        """Take in leaf hashes. Returns the tiles this filled, and the unfilled ones above level 0 that it changed."""
        tiles: list[Tile] = []
        nodes, level, start = list(hashes), 0, self.size
        self.size += len(nodes)
        self._peaks += [b""] * (self.size.bit_length() - len(self._peaks))
        while nodes:
            if level % TILE_HEIGHT == 0:
                tiles += self._extend_edge(level // TILE_HEIGHT, start >> level, nodes)
            if self._peaks[level]:  # `start` has this bit: the peak is the left neighbour of the first new node
                nodes.insert(0, self._peaks[level])
                self._peaks[level] = b""
            if len(nodes) % 2:
                self._peaks[level] = nodes.pop()
            nodes, level = _parents(nodes), level + 1
        return tiles

    def _extend_edge(self, tile_level: int, first: int, nodes: Sequence[bytes]) -> list[Tile]:
        """Add nodes of one tile level; ``first`` is the index of nodes[0] on it."""
        if tile_level == len(self._edge):
            self._edge.append([])
        edge = self._edge[tile_level]
        index = first // TILE_WIDTH
        invariant(first % TILE_WIDTH == len(edge), f"edge of tile level {tile_level} out of step")
        edge.extend(nodes)
        tiles = []
        while len(edge) >= TILE_WIDTH:
            tiles.append(Tile(tile_level, index, b"".join(edge[:TILE_WIDTH])))
            del edge[:TILE_WIDTH]
            index += 1
        if edge and tile_level:
            tiles.append(Tile(tile_level, index, b"".join(edge)))
        return tiles

    def edge_hash(self, level: int, index: int) -> bytes | None:
        """The complete subtree (level, index) when the unfilled tiles hold it whole, else None."""
        tile_level, above = divmod(level, TILE_HEIGHT)
        if tile_level >= len(self._edge):
            return None
        edge = self._edge[tile_level]
        start = (index << above) - edge_start(self.size, tile_level)
        stop = start + (1 << above)
        return subtree_root(edge[start:stop]) if 0 <= start < stop <= len(edge) else None


def edge_start(size: int, tile_level: int) -> int:
    """Index, on that tile level, of the first node in its unfilled tile."""
    return (size >> (TILE_HEIGHT * tile_level)) // TILE_WIDTH * TILE_WIDTH


def edge_length(size: int, tile_level: int) -> int:
    """How many nodes the unfilled tile of that tile level holds."""
    return (size >> (TILE_HEIGHT * tile_level)) % TILE_WIDTH


def tile_levels(size: int) -> int:
    """How many tile levels a tree of that size has; at least 1."""
    return max(1, -(-size.bit_length() // TILE_HEIGHT))


def subtree_root(nodes: Sequence[bytes]) -> bytes:
    """The root of a complete subtree from all nodes of one of its levels (a power of two of them)."""
    while len(nodes) > 1:
        nodes = _parents(nodes)
    return nodes[0]


def tile_node(tile: bytes, level: int, index: int) -> bytes:
    """The complete subtree (level, index) from the hashes of the tile that spans it. LookupError: not in it yet."""
    above = level % TILE_HEIGHT
    start = (index << above) % TILE_WIDTH * HASH_BYTES
    stop = start + (HASH_BYTES << above)
    if stop > len(tile):
        raise LookupError(f"tile does not hold node ({level}, {index}) yet")
    return subtree_root([tile[at : at + HASH_BYTES] for at in range(start, stop, HASH_BYTES)])


def tile_of(level: int, index: int) -> tuple[int, int]:
    """(tile level, tile index) of the tile that spans the complete subtree (level, index)."""
    tile_level, above = divmod(level, TILE_HEIGHT)
    return tile_level, (index << above) // TILE_WIDTH


def range_hash(hashes: Hashes, start: int, stop: int) -> bytes:
    """MTH over leaves start..stop-1, ``start`` aligned as RFC 6962's recursion makes it; EMPTY_ROOT for none."""
    peaks = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        peaks.append(hashes(level, start >> level))
        start += 1 << level
    return _fold(reversed(peaks))


def root_at(hashes: Hashes, size: int) -> bytes:
    """The root as it was when the log had ``size`` records."""
    return range_hash(hashes, 0, size)


def _split(count: int) -> int:
    """RFC 6962's k: the largest power of two smaller than count."""
    return 1 << ((count - 1).bit_length() - 1)


def inclusion_proof(hashes: Hashes, index: int, size: int) -> list[bytes]:
    """RFC 6962, 2.1.1: the audit path of leaf ``index`` in the tree of ``size`` leaves, leaf's sibling first."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(range_hash(hashes, middle, stop))
            stop = middle
        else:
            path.append(range_hash(hashes, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(hashes: Hashes, old: int, new: int) -> list[bytes]:
    """RFC 6962, 2.1.2: proves that the tree of ``new`` leaves begins with the tree of ``old``."""
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof from size {old} to {new}")
    path = []
    start, stop = 0, new
    whole = True  # the subtree at hand is all of the old tree: the verifier knows its hash
    while stop != old:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(range_hash(hashes, middle, stop))
            stop = middle
        else:
            path.append(range_hash(hashes, start, middle))
            start, whole = middle, False
    if not whole:
        path.append(range_hash(hashes, start, stop))
    return path[::-1]


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2: whether ``leaf`` (a leaf hash) stands at ``index`` in the tree with that size and root."""
    if not 0 <= index < size:
        return False
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(*, old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """RFC 9162, 2.1.4.2: whether the tree (new, new_root) begins with the tree (old, old_root)."""
    if old == new:
        return not proof and old_root == new_root
    if not 0 < old < new or not proof:
        return False
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_result = new_result = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old_result = node_hash(sibling, old_result)
            new_result = node_hash(sibling, new_result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_result = node_hash(new_result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old_result == old_root and new_result == new_root
