"""The tree against RFC 6962's own recursion and against the vectors that certificate-transparency logs share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import sha256

import pytest

from replicad.core.batch import Tile
from replicad.core.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE_WIDTH,
    Hashes,
    Tree,
    consistency_proof,
    edge_length,
    edge_start,
    inclusion_proof,
    leaf_hash,
    leaf_hashes,
    node_hash,
    root_at,
    subtree_root,
    tile_levels,
    tile_node,
    tile_of,
    verify_consistency,
    verify_inclusion,
)
from replicad.errors import InvariantError
from tests.support import naive_tree

# The leaves, roots, node hashes and proofs of github.com/transparency-dev/merkle, testonly/constants.go and
# reference_test.go: the data that RFC 6962 implementations compare themselves by.
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    bytes.fromhex(root)
    for root in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
CT_INCLUSION = {  # (index, size): path
    (0, 1): (),
    (0, 2): ("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",),
    (1, 2): ("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
CT_CONSISTENCY = {  # (old, new): proof
    (1, 1): (),
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (6, 7): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
ALL_SIZES = 600  # past two full tiles and into a third
LEAVES = [f"leaf {index}".encode() for index in range(ALL_SIZES)]
BEYOND_A_TILE_OF_TILES = TILE_WIDTH * TILE_WIDTH + 300  # three tile levels


def grown(leaves: Sequence[bytes]) -> Tree:
    tree = Tree()
    tree.append(leaf_hashes(leaves))
    return tree


def node_hashes(leaves: Sequence[bytes]) -> Hashes:
    """The hash of any complete subtree of these leaves; LookupError beyond them."""
    levels = [leaf_hashes(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])
    return lambda level, index: levels[level][index]


# --- roots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_certificate_transparency_vectors(size: int) -> None:
    assert grown(CT_LEAVES[:size]).root() == CT_ROOTS[size]
    assert naive_tree.mth(CT_LEAVES[:size]) == CT_ROOTS[size]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Tree().root() == EMPTY_ROOT == sha256(b"").digest()


def test_a_leaf_and_a_node_of_the_same_bytes_have_different_hashes() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert node_hash(left, right) != leaf_hash(left + right)


def test_every_root_while_growing_one_by_one_is_the_naive_one() -> None:
    tree = Tree()
    for size in range(ALL_SIZES):
        assert tree.size == size
        assert tree.root() == naive_tree.mth(LEAVES[:size])
        tree.append([leaf_hash(LEAVES[size])])


def test_the_root_does_not_depend_on_how_leaves_were_grouped() -> None:
    rng = random.Random(6962)
    one_by_one = Tree()
    roots = [one_by_one.root()]
    for leaf in LEAVES:
        one_by_one.append([leaf_hash(leaf)])
        roots.append(one_by_one.root())
    for _ in range(60):
        tree = Tree()
        while tree.size < ALL_SIZES:
            step = rng.choice((0, 1, 2, 3, 7, 50, 255, 256, 257, 599))
            tree.append(leaf_hashes(LEAVES[tree.size : tree.size + step]))
            assert tree.root() == roots[tree.size]


def test_a_tree_of_three_tile_levels_has_the_naive_root_at_random_sizes() -> None:
    rng = random.Random(1)
    leaves = [rng.randbytes(8) for _ in range(BEYOND_A_TILE_OF_TILES)]
    tree = Tree()
    for size in [*sorted(rng.sample(range(ALL_SIZES, len(leaves)), 3)), TILE_WIDTH**2, len(leaves)]:
        tree.append(leaf_hashes(leaves[tree.size : size]))
        assert tree.root() == naive_tree.mth(leaves[:size])


# --- copies, restoring, tiles -----------------------------------------------------------------------------------


def test_a_copy_grows_without_its_original() -> None:
    for size in (0, 1, 255, 256, 511, 600):
        tree = grown(LEAVES[:size])
        before, twin = tree.root(), tree.copy()
        twin.append(leaf_hashes([b"another", b"and one more"]))
        assert (tree.size, tree.root()) == (size, before)
        assert twin.root() == grown([*LEAVES[:size], b"another", b"and one more"]).root()
        tree.append([leaf_hash(b"other")])
        assert tree.root() != twin.root()


class Tiles:
    """What a store keeps of a tree: tiles as they were handed out, and the leaves' hashes."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.leaf_hashes: list[bytes] = []

    def grow(self, leaves: Sequence[bytes]) -> list[Tile]:
        hashes = leaf_hashes(leaves)
        tiles = self.tree.append(hashes)
        self.leaf_hashes += hashes
        for tile in tiles:
            shorter = self.tiles.get((tile.level, tile.index), b"")
            assert tile.hashes.startswith(shorter), "a tile replaces its shorter self"
            self.tiles[tile.level, tile.index] = tile.hashes
        return tiles

    def edge(self) -> list[list[bytes]]:
        """The unfilled tiles, as a start finds them: level 0 from the last leaves, the others from what was stored."""
        size = self.tree.size
        edge = [self.leaf_hashes[edge_start(size, 0) :]]
        for level in range(1, tile_levels(size)):
            stored = self.tiles.get((level, edge_start(size, level) // TILE_WIDTH), b"")
            edge.append([stored[at : at + HASH_BYTES] for at in range(0, len(stored), HASH_BYTES)])
        return edge

    def hashes(self, level: int, index: int) -> bytes:
        """A complete subtree, from the growing edge or from stored tiles."""
        at_the_edge = self.tree.edge_hash(level, index)
        return at_the_edge if at_the_edge is not None else tile_node(self.tiles[tile_of(level, index)], level, index)


def test_tiles_handed_out_are_enough_to_restore_the_tree_at_any_size() -> None:
    rng = random.Random(2)
    kept = Tiles()
    while kept.tree.size < BEYOND_A_TILE_OF_TILES:
        step = rng.choice((1, 3, 200, 256, 1000, 9000))
        kept.grow([rng.randbytes(4) for _ in range(step)])
        restored = Tree.restore(kept.tree.size, kept.edge())
        assert restored.root() == kept.tree.root()
        assert restored.append([leaf_hash(b"next")]) == kept.tree.copy().append([leaf_hash(b"next")])


def test_a_restored_tree_grows_on_as_the_one_it_was_made_from() -> None:
    for size in (0, 1, 2, 255, 256, 257, 511, 512, 600):
        kept = Tiles()
        kept.grow(LEAVES[:size])
        restored = Tree.restore(size, kept.edge())
        for leaf in LEAVES[:300]:
            restored.append([leaf_hash(leaf)])
        assert restored.root() == grown([*LEAVES[:size], *LEAVES[:300]]).root()


def test_restoring_from_an_edge_of_another_size_is_refused() -> None:
    kept = Tiles()
    kept.grow(LEAVES[:300])
    with pytest.raises(InvariantError):
        Tree.restore(301, kept.edge())


def test_a_tile_is_handed_out_when_it_is_full_and_upper_ones_whenever_they_change() -> None:
    kept = Tiles()
    assert kept.grow(LEAVES[:255]) == []  # not full, and level 0 is made from leaves again
    first = Tile(0, 0, b"".join(leaf_hashes(LEAVES[:256])))
    above = Tile(1, 0, naive_tree.mth(LEAVES[:256]))
    assert kept.grow(LEAVES[255:256]) == [first, above]
    assert kept.grow(LEAVES[256:300]) == []
    second = Tile(0, 1, b"".join(leaf_hashes(LEAVES[256:512])))
    assert kept.grow(LEAVES[300:520]) == [second, Tile(1, 0, above.hashes + naive_tree.mth(LEAVES[256:512]))]


def test_edge_arithmetic_counts_the_unfilled_tiles() -> None:
    assert [tile_levels(size) for size in (0, 1, 255, 256, 65_535, 65_536)] == [1, 1, 1, 2, 2, 3]
    assert (edge_start(600, 0), edge_length(600, 0)) == (512, 88)
    assert (edge_start(600, 1), edge_length(600, 1)) == (0, 2)
    assert (edge_start(65_536 + 256, 1), edge_length(65_536 + 256, 1)) == (256, 1)
    assert (edge_start(512, 0), edge_length(512, 0)) == (512, 0)


def test_every_complete_subtree_is_found_in_the_edge_or_in_a_tile() -> None:
    kept = Tiles()
    kept.grow(LEAVES)
    expected = node_hashes(LEAVES)
    for level in range(10):
        for index in range(ALL_SIZES >> level):
            assert kept.hashes(level, index) == expected(level, index), (level, index)


def test_a_subtree_that_is_not_complete_is_in_neither_edge_nor_tile() -> None:
    kept = Tiles()
    kept.grow(LEAVES[:300])
    assert kept.tree.edge_hash(0, 300) is None
    assert kept.tree.edge_hash(6, 4) is None  # leaves 256 to 319
    assert kept.tree.edge_hash(0, 0) is None  # in a full tile
    assert kept.tree.edge_hash(20, 0) is None  # higher than the tree
    with pytest.raises(LookupError):
        tile_node(kept.tiles[1, 0], 8, 1)


def test_subtree_root_is_the_naive_root_of_a_power_of_two() -> None:
    for count in (1, 2, 4, 64, 256):
        assert subtree_root(leaf_hashes(LEAVES[:count])) == naive_tree.mth(LEAVES[:count])


# --- proofs -----------------------------------------------------------------------------------------------------


def test_root_at_gives_every_root_of_the_past() -> None:
    hashes = node_hashes(LEAVES)
    for size in [*range(70), 255, 256, 257, 511, 512, 600]:
        assert root_at(hashes, size) == naive_tree.mth(LEAVES[:size])


@pytest.mark.parametrize(("index", "size"), CT_INCLUSION)
def test_inclusion_proofs_are_those_of_the_certificate_transparency_vectors(index: int, size: int) -> None:
    expected = [bytes.fromhex(each) for each in CT_INCLUSION[index, size]]
    assert inclusion_proof(node_hashes(CT_LEAVES), index, size) == expected
    leaf = leaf_hash(CT_LEAVES[index])
    assert verify_inclusion(leaf=leaf, index=index, size=size, proof=expected, root=CT_ROOTS[size])


@pytest.mark.parametrize(("old", "new"), CT_CONSISTENCY)
def test_consistency_proofs_are_those_of_the_certificate_transparency_vectors(old: int, new: int) -> None:
    expected = [bytes.fromhex(each) for each in CT_CONSISTENCY[old, new]]
    assert consistency_proof(node_hashes(CT_LEAVES), old, new) == expected
    assert verify_consistency(old=old, old_root=CT_ROOTS[old], new=new, new_root=CT_ROOTS[new], proof=expected)


def test_every_inclusion_proof_up_to_size_64_is_the_naive_one_and_verifies() -> None:
    hashes = node_hashes(LEAVES)
    for size in range(1, 65):
        root = naive_tree.mth(LEAVES[:size])
        for index in range(size):
            proof = inclusion_proof(hashes, index, size)
            assert proof == naive_tree.path(index, LEAVES[:size])
            assert verify_inclusion(leaf=leaf_hash(LEAVES[index]), index=index, size=size, proof=proof, root=root)


def test_every_consistency_proof_up_to_size_64_is_the_naive_one_and_verifies() -> None:
    hashes = node_hashes(LEAVES)
    roots = [naive_tree.mth(LEAVES[:size]) for size in range(65)]
    for new in range(1, 65):
        for old in range(1, new + 1):
            proof = consistency_proof(hashes, old, new)
            assert proof == naive_tree.proof(old, LEAVES[:new])
            assert verify_consistency(old=old, old_root=roots[old], new=new, new_root=roots[new], proof=proof)


def test_proofs_at_every_size_verify_against_the_growing_trees_root() -> None:
    rng = random.Random(9162)
    hashes = node_hashes(LEAVES)
    tree, roots = Tree(), [EMPTY_ROOT]
    for size in range(1, ALL_SIZES):
        tree.append([leaf_hash(LEAVES[size - 1])])
        roots.append(tree.root())
        index, old = rng.randrange(size), rng.randrange(1, size + 1)
        path = inclusion_proof(hashes, index, size)
        assert verify_inclusion(leaf=leaf_hash(LEAVES[index]), index=index, size=size, proof=path, root=roots[size])
        proof = consistency_proof(hashes, old, size)
        assert verify_consistency(old=old, old_root=roots[old], new=size, new_root=roots[size], proof=proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 4), (4, 4), (9, 4)])
def test_there_is_no_inclusion_proof_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        inclusion_proof(node_hashes(LEAVES), index, size)
    assert not verify_inclusion(leaf=leaf_hash(LEAVES[0]), index=index, size=size, proof=[], root=leaf_hash(LEAVES[0]))


@pytest.mark.parametrize(("old", "new"), [(0, 4), (-1, 4), (5, 4)])
def test_there_is_no_consistency_proof_from_nothing_or_to_something_smaller(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="no consistency proof"):
        consistency_proof(node_hashes(LEAVES), old, new)
    root = naive_tree.mth(LEAVES[:4])
    assert not verify_consistency(old=old, old_root=EMPTY_ROOT, new=new, new_root=root, proof=[root])


def test_a_tree_is_consistent_with_itself_by_the_empty_proof_alone() -> None:
    root = naive_tree.mth(LEAVES[:7])
    assert verify_consistency(old=7, old_root=root, new=7, new_root=root, proof=[])
    assert not verify_consistency(old=7, old_root=root, new=7, new_root=root, proof=[root])
    assert not verify_consistency(old=7, old_root=root, new=7, new_root=EMPTY_ROOT, proof=[])


# --- proofs that are not right ----------------------------------------------------------------------------------


def flips(value: bytes) -> list[bytes]:
    """The value with each single bit changed."""
    return [
        bytes((*value[:at], value[at] ^ (1 << bit), *value[at + 1 :])) for at in range(len(value)) for bit in range(8)
    ]


def changed_proofs(proof: list[bytes]) -> list[list[bytes]]:
    """Every proof with one bit changed, one hash missing, doubled, added, or out of place."""
    changed = [[*proof[:at], bad, *proof[at + 1 :]] for at, each in enumerate(proof) for bad in flips(each)]
    changed += [[*proof[:at], *proof[at + 1 :]] for at in range(len(proof))]
    changed += [[*proof[: at + 1], *proof[at:]] for at in range(len(proof))]
    changed += [[*proof[:at], bytes(HASH_BYTES), *proof[at:]] for at in range(len(proof) + 1)]
    changed += [
        [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]]
        for at in range(len(proof) - 1)
        if proof[at] != proof[at + 1]
    ]
    return changed


@pytest.mark.parametrize(("index", "size"), [(0, 1), (1, 2), (2, 3), (0, 7), (6, 7), (5, 8), (3, 13), (12, 13)])
def test_an_inclusion_proof_with_any_single_change_is_refused(index: int, size: int) -> None:
    leaf, root = leaf_hash(LEAVES[index]), naive_tree.mth(LEAVES[:size])
    proof = naive_tree.path(index, LEAVES[:size])
    assert verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=root)
    for bad in changed_proofs(proof):
        assert not verify_inclusion(leaf=leaf, index=index, size=size, proof=bad, root=root)
    for bad_hash in flips(leaf):
        assert not verify_inclusion(leaf=bad_hash, index=index, size=size, proof=proof, root=root)
    for bad_hash in flips(root):
        assert not verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=bad_hash)
    for other in range(-1, 2 * size + 2):
        if other != index:
            assert not verify_inclusion(leaf=leaf, index=other, size=size, proof=proof, root=root)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 3), (3, 7), (4, 7), (6, 8), (7, 8), (8, 13), (12, 13)])
def test_a_consistency_proof_with_any_single_change_is_refused(old: int, new: int) -> None:
    old_root, new_root = naive_tree.mth(LEAVES[:old]), naive_tree.mth(LEAVES[:new])
    proof = naive_tree.proof(old, LEAVES[:new])
    assert verify_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=proof)
    for bad in changed_proofs(proof):
        assert not verify_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=bad)
    for bad_hash in flips(old_root):
        assert not verify_consistency(old=old, old_root=bad_hash, new=new, new_root=new_root, proof=proof)
    for bad_hash in flips(new_root):
        assert not verify_consistency(old=old, old_root=old_root, new=new, new_root=bad_hash, proof=proof)
    for other in range(-1, new + 2):
        if other != old:
            assert not verify_consistency(old=other, old_root=old_root, new=new, new_root=new_root, proof=proof)


def test_no_inclusion_proof_serves_a_tree_of_another_size_and_its_root() -> None:
    """A proof alone does not bind the size: with the root of that size it must fail, whatever the leaf."""
    for size in range(2, 20):
        for index in range(size):
            proof = naive_tree.path(index, LEAVES[:size])
            for other in range(index + 1, 24):
                if other != size:
                    root = naive_tree.mth(LEAVES[:other])
                    leaf = leaf_hash(LEAVES[index])
                    assert not verify_inclusion(leaf=leaf, index=index, size=other, proof=proof, root=root)


def test_no_consistency_proof_serves_trees_of_other_sizes_and_their_roots() -> None:
    roots = [naive_tree.mth(LEAVES[:size]) for size in range(18)]
    for new in range(2, 14):
        for old in range(1, new):
            proof = naive_tree.proof(old, LEAVES[:new])
            for other_old in range(1, 17):
                for other_new in range(other_old + 1, 18):
                    if (other_old, other_new) != (old, new) and naive_tree.proof(
                        other_old, LEAVES[:other_new]
                    ) != proof:
                        assert not verify_consistency(
                            old=other_old,
                            old_root=roots[other_old],
                            new=other_new,
                            new_root=roots[other_new],
                            proof=proof,
                        )


def test_a_log_that_was_rewritten_has_no_consistency_proof() -> None:
    honest, rewritten = LEAVES[:13], [*LEAVES[:3], b"forged", *LEAVES[4:13]]
    old_root, new_root = naive_tree.mth(honest[:6]), naive_tree.mth(rewritten)
    for proof in (naive_tree.proof(6, honest), naive_tree.proof(6, rewritten)):
        assert not verify_consistency(old=6, old_root=old_root, new=13, new_root=new_root, proof=proof)
