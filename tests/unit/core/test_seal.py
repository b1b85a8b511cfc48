"""Sealing: a batch's leaves, root, tiles and signature from the messages that were admitted."""

from __future__ import annotations

from replicad.core.record import NO_HEADERS, NO_HEADERS_DIGEST, Messages, encode_headers, parse_leaf, payload_digest
from replicad.core.seal import Part, Sealer
from replicad.core.tree import Tree
from replicad.wire.codec import decode_records, encode_records
from tests.support import naive_tree
from tests.support.builders import CLUSTER, LogBuilder, messages, sealer, signer
from tests.support.golden import GOLDEN_BATCH, GOLDEN_LEAVES, GOLDEN_STATEMENT

COUNTING_SALTS = bytes(range(256)) * 4


def golden_sealer(signed: list[bytes]) -> Sealer:
    """A sealer whose salts count up from 0 and which keeps what it is asked to sign."""

    def sign(statement: bytes) -> bytes:
        signed.append(statement)
        return signer("n1").sign(statement)

    return Sealer(CLUSTER, "n1", sign, encode_records, lambda count: COUNTING_SALTS[:count])


GOLDEN_PARTS = [
    Part(messages("id-1", payloads=[b"hello"], headers=[{"tag": "münchen", "a": "x"}]), "anonymous"),
    Part(messages("id-2", "id-3", payloads=[b"", b"\x00\xff"]), "token"),
]


def test_a_sealed_batch_is_byte_for_byte_the_golden_one() -> None:
    signed: list[bytes] = []
    append = golden_sealer(signed).seal(GOLDEN_PARTS, tree=Tree(), epoch=3, time_ms=1_700_000_000_000)
    assert list(decode_records(append.batch.body).leaves) == GOLDEN_LEAVES
    assert signed == [GOLDEN_STATEMENT]
    assert append.batch == GOLDEN_BATCH
    assert append.ids == ["id-1", "id-2", "id-3"]


def test_leaves_hold_the_place_digests_id_and_author_of_each_message() -> None:
    log = LogBuilder(epoch=7)
    log.add(3)
    append = log.add_messages(messages("x", "y", payloads=[b"one", b"three"]), author="someone")
    records = decode_records(append.batch.body)
    for step, (message_id, payload) in enumerate([("x", b"one"), ("y", b"three")]):
        leaf = parse_leaf(records.leaves[step])
        salt = records.salts[16 * step : 16 * step + 16]
        assert (leaf.epoch, leaf.offset, leaf.time_ms) == (7, 3 + step, append.batch.time_ms)
        assert (leaf.id, leaf.author, leaf.payload_length) == (message_id, "someone", len(payload))
        assert leaf.payload_digest == payload_digest(salt, payload)
        assert leaf.headers_digest == NO_HEADERS_DIGEST
    assert records.headers == []


def test_headers_that_are_all_empty_are_not_listed() -> None:
    append = LogBuilder().add_messages(messages("x", "y", headers=[{}, {}]))
    assert decode_records(append.batch.body).headers == []


def test_equal_payloads_have_different_leaves_because_salts_differ() -> None:
    append = LogBuilder().add_messages(messages("x", "y", payloads=[b"same", b"same"]))
    first, second = (parse_leaf(leaf) for leaf in decode_records(append.batch.body).leaves)
    assert first.payload_digest != second.payload_digest


def test_the_root_is_that_of_the_whole_log_and_the_tree_has_moved_on() -> None:
    log = LogBuilder()
    leaves: list[bytes] = []
    for count in (1, 254, 1, 1, 300):
        append = log.add(count)
        leaves += decode_records(append.batch.body).leaves
        assert append.batch.root == log.tree.root() == naive_tree.mth(leaves)
        assert append.batch.end == log.tree.size == len(leaves)


def test_the_tiles_that_a_batch_fills_go_with_it() -> None:
    log = LogBuilder()
    assert list(log.add(255).tiles) == []
    assert [(tile.level, tile.index) for tile in log.add(1).tiles] == [(0, 0), (1, 0)]


def test_parts_of_several_authors_stand_in_the_order_they_were_given() -> None:
    append = sealer().seal(
        [Part(messages("b", "a"), "zoe"), Part(messages("c"), "adam")], tree=Tree(), epoch=1, time_ms=1
    )
    leaves = [parse_leaf(leaf) for leaf in decode_records(append.batch.body).leaves]
    assert [(leaf.id, leaf.author) for leaf in leaves] == [("b", "zoe"), ("a", "zoe"), ("c", "adam")]
    assert append.ids == ["b", "a", "c"]
    assert (append.batch.first_offset, append.batch.count, append.batch.end) == (0, 3, 3)


def test_where_one_part_has_headers_every_record_of_the_batch_has_an_entry() -> None:
    with_headers = messages("b", headers=[{"k": "v"}])
    append = LogBuilder().add_messages(messages("a"), with_headers, Messages(["c"], [b"p"], [], 1))
    records = decode_records(append.batch.body)
    assert records.headers == [NO_HEADERS, encode_headers({"k": "v"}), NO_HEADERS]
    digests = [parse_leaf(leaf).headers_digest for leaf in records.leaves]
    assert digests[0] == digests[2] == NO_HEADERS_DIGEST != digests[1]


def test_one_call_for_randomness_serves_the_whole_batch() -> None:
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    Sealer(CLUSTER, "n1", signer("n1").sign, encode_records, random_bytes).seal(
        [Part(messages("a", "b", "c"), "x")], tree=Tree(), epoch=1, time_ms=1
    )
    assert asked == [48]
