"""The tree under Hypothesis: whatever the leaves and however they come, it is RFC 6962's, and no other proof passes."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from replicad.core.tree import (
    HASH_BYTES,
    TILE_WIDTH,
    Hashes,
    Tree,
    consistency_proof,
    edge_start,
    inclusion_proof,
    leaf_hashes,
    root_at,
    tile_levels,
    tile_node,
    tile_of,
    verify_consistency,
    verify_inclusion,
)
from tests.support import naive_tree

LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=60)
GROUPS = st.lists(st.integers(0, 300), min_size=1, max_size=12)


def leaves_of(count: int, seed: int = 0) -> list[bytes]:
    return [f"{seed} {index}".encode() for index in range(count)]


class Kept:
    """A tree with its tiles as a store keeps them."""

    def __init__(self) -> None:
        self.tree, self.tiles, self.leaf_hashes = Tree(), dict[tuple[int, int], bytes](), list[bytes]()

    def grow(self, hashes: list[bytes]) -> None:
        self.tiles |= {(tile.level, tile.index): tile.hashes for tile in self.tree.append(hashes)}
        self.leaf_hashes += hashes

    def hashes(self, level: int, index: int) -> bytes:
        at_the_edge = self.tree.edge_hash(level, index)
        return at_the_edge if at_the_edge is not None else tile_node(self.tiles[tile_of(level, index)], level, index)

    def restored(self) -> Tree:
        size = self.tree.size
        edge = [self.leaf_hashes[edge_start(size, 0) :]]
        for level in range(1, tile_levels(size)):
            stored = self.tiles.get((level, edge_start(size, level) // TILE_WIDTH), b"")
            edge.append([stored[at : at + HASH_BYTES] for at in range(0, len(stored), HASH_BYTES)])
        return Tree.restore(size, edge)


def kept(count: int) -> Kept:
    store = Kept()
    store.grow(leaf_hashes(leaves_of(count)))
    return store


@given(LEAVES)
def test_the_root_is_the_naive_one_whatever_the_leaves(leaves: list[bytes]) -> None:
    tree = Tree()
    tree.append(leaf_hashes(leaves))
    assert tree.root() == naive_tree.mth(leaves)


@given(GROUPS)
@settings(deadline=None, max_examples=40)
def test_growing_by_groups_copying_and_restoring_on_the_way_changes_nothing(groups: list[int]) -> None:
    store = Kept()
    leaves = leaves_of(sum(groups))
    for group in groups:
        start = store.tree.size
        tried = store.tree.copy()
        tried.append(leaf_hashes([b"tried and not kept"] * (group + 1)))
        store.tree = store.restored()
        store.grow(leaf_hashes(leaves[start : start + group]))
    assert store.tree.root() == naive_tree.mth(leaves)


@given(st.data(), st.integers(1, 600))
@settings(deadline=None, max_examples=60)
def test_past_roots_come_out_of_tiles_and_edge(data: st.DataObject, size: int) -> None:
    store = kept(size)
    past = data.draw(st.integers(0, size))
    assert root_at(store.hashes, past) == naive_tree.mth(leaves_of(past))


@given(st.data(), st.integers(1, 600))
@settings(deadline=None, max_examples=60)
def test_an_inclusion_proof_from_tiles_is_the_naive_one_and_verifies(data: st.DataObject, size: int) -> None:
    store, leaves = kept(size), leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(store.hashes, index, size)
    assert proof == naive_tree.path(index, leaves)
    leaf, root = store.leaf_hashes[index], store.tree.root()
    assert verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=root)


@given(st.data(), st.integers(1, 600))
@settings(deadline=None, max_examples=60)
def test_a_consistency_proof_from_tiles_is_the_naive_one_and_verifies(data: st.DataObject, new: int) -> None:
    store, leaves = kept(new), leaves_of(new)
    old = data.draw(st.integers(1, new))
    proof = consistency_proof(store.hashes, old, new)
    assert proof == naive_tree.proof(old, leaves)
    old_root, new_root = naive_tree.mth(leaves[:old]), store.tree.root()
    assert verify_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=proof)


def changed(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    """The proof with one thing about it changed."""
    bad = list(proof)
    kind = data.draw(st.sampled_from(["flip", "drop", "insert", "swap"]))
    at = data.draw(st.integers(0, max(len(bad) - 1, 0)))
    if kind == "insert":
        bad.insert(at, data.draw(st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)))
    elif bad and kind == "drop":
        del bad[at]
    elif bad and kind == "flip":
        bit = data.draw(st.integers(0, 8 * HASH_BYTES - 1))
        bad[at] = (int.from_bytes(bad[at], "big") ^ (1 << bit)).to_bytes(HASH_BYTES, "big")
    elif bad:
        other = data.draw(st.integers(0, len(bad) - 1))
        bad[at], bad[other] = bad[other], bad[at]
    assume(bad != proof)
    return bad


def naive_hashes(leaves: list[bytes]) -> Hashes:
    return lambda level, index: naive_tree.mth(leaves[index << level : (index + 1) << level])


@given(st.data(), st.integers(1, 200))
@settings(deadline=None)
def test_no_changed_inclusion_proof_verifies(data: st.DataObject, size: int) -> None:
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(naive_hashes(leaves), index, size)
    root, leaf = naive_tree.mth(leaves), leaf_hashes(leaves)[index]
    bad = changed(data, proof)
    assert not verify_inclusion(leaf=leaf, index=index, size=size, proof=bad, root=root)


@given(st.data(), st.integers(2, 200))
@settings(deadline=None)
def test_no_changed_consistency_proof_verifies(data: st.DataObject, new: int) -> None:
    leaves = leaves_of(new)
    old = data.draw(st.integers(1, new))
    proof = consistency_proof(naive_hashes(leaves), old, new)
    old_root, new_root = naive_tree.mth(leaves[:old]), naive_tree.mth(leaves)
    bad = changed(data, proof)
    assert not verify_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=bad)


@given(st.data(), st.integers(2, 100))
@settings(deadline=None)
def test_no_proof_verifies_a_rewritten_log(data: st.DataObject, new: int) -> None:
    honest = leaves_of(new)
    old = data.draw(st.integers(1, new - 1))
    rewritten = list(honest)
    rewritten[data.draw(st.integers(0, old - 1))] = b"rewritten"
    proof = naive_tree.proof(old, data.draw(st.sampled_from([honest, rewritten])))
    old_root, new_root = naive_tree.mth(honest[:old]), naive_tree.mth(rewritten)
    assert not verify_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=proof)


@given(
    st.integers(-2, 40),
    st.integers(-2, 40),
    st.lists(st.binary(max_size=40), max_size=8),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
def test_garbage_is_refused_without_an_exception(
    first: int, second: int, proof: list[bytes], one: bytes, other: bytes
) -> None:
    assert not verify_inclusion(leaf=one, index=first, size=second, proof=proof, root=other) or (
        second == 1 and one == other
    )
    assert not verify_consistency(old=first, old_root=one, new=second, new_root=other, proof=proof) or (
        first == second and one == other
    )
