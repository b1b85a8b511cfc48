"""Leaves, headers and ids under Hypothesis: round trips, one encoding for each value, nothing but that decodes."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from replicad.core.record import (
    LEAF_HEAD,
    LEAF_VERSION,
    MAX_AUTHOR_BYTES,
    MAX_HEADER_KEY_BYTES,
    MAX_HEADER_VALUE_BYTES,
    MAX_ID_BYTES,
    RESERVED_ID_PREFIX,
    Leaf,
    Records,
    decode_headers,
    encode_headers,
    id_fault,
    parse_leaf,
    payload_digest,
)
from replicad.core.seal import Part
from replicad.core.tree import Tree
from replicad.wire.codec import decode_records
from tests.support.builders import messages, sealer

PLACES = st.integers(0, (1 << 64) - 1)
DIGESTS = st.binary(min_size=32, max_size=32)
IDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=MAX_ID_BYTES)
AUTHORS = st.text(max_size=60).filter(lambda text: len(text.encode()) <= MAX_AUTHOR_BYTES)
LEAVES = st.builds(
    Leaf,
    version=st.just(LEAF_VERSION),
    epoch=PLACES,
    offset=PLACES,
    time_ms=PLACES,
    payload_length=st.integers(0, (1 << 32) - 1),
    payload_digest=DIGESTS,
    headers_digest=DIGESTS,
    id=IDS,
    author=AUTHORS,
)
KEYS = st.text(min_size=1, max_size=40).filter(lambda text: len(text.encode()) <= MAX_HEADER_KEY_BYTES)
VALUES = st.text(max_size=40).filter(lambda text: len(text.encode()) <= MAX_HEADER_VALUE_BYTES)
HEADERS = st.dictionaries(KEYS, VALUES, max_size=6)


def packed(leaf: Leaf) -> bytes:
    name, author = leaf.id.encode(), leaf.author.encode()
    return LEAF_HEAD.pack(*leaf[:7], len(name), len(author)) + name + author


@given(LEAVES)
def test_a_leaf_parses_to_what_it_was_made_of(leaf: Leaf) -> None:
    assert parse_leaf(packed(leaf)) == leaf


@given(st.binary(max_size=300) | LEAVES.map(packed))
def test_whatever_parses_as_a_leaf_is_exactly_that_leaf(data: bytes) -> None:
    with suppress(ValueError):
        assert packed(parse_leaf(data)) == data


@given(LEAVES, LEAVES)
def test_different_leaves_have_different_bytes(one: Leaf, other: Leaf) -> None:
    assert (packed(one) == packed(other)) == (one == other)


@given(HEADERS)
def test_headers_decode_to_what_they_were_made_of(headers: dict[str, str]) -> None:
    assert decode_headers(encode_headers(headers)) == headers


@given(HEADERS, st.randoms(use_true_random=False))
def test_equal_headers_have_one_encoding(headers: dict[str, str], rng: object) -> None:
    items = list(headers.items())
    getattr(rng, "shuffle")(items)  # noqa: B009
    assert encode_headers(dict(items)) == encode_headers(headers)


@given(st.binary(max_size=60) | HEADERS.map(encode_headers))
def test_whatever_decodes_as_headers_is_their_canonical_encoding(data: bytes) -> None:
    with suppress(ValueError):
        assert encode_headers(decode_headers(data)) == data


@given(st.data(), HEADERS.filter(bool))
def test_no_prefix_of_headers_has_the_meaning_of_the_whole(data: st.DataObject, headers: dict[str, str]) -> None:
    encoded = encode_headers(headers)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with suppress(ValueError):
        assert decode_headers(cut) != headers


@given(st.text(max_size=MAX_ID_BYTES + 2) | IDS)
def test_an_id_is_good_when_it_is_1_to_128_bytes_of_printable_ascii_and_not_reserved(message_id: str) -> None:
    good = (
        1 <= len(message_id) <= MAX_ID_BYTES
        and all(0x20 <= ord(character) <= 0x7E for character in message_id)
        and not message_id.startswith(RESERVED_ID_PREFIX)
    )
    assert (id_fault(message_id) is None) == good


@given(
    st.dictionaries(IDS, st.tuples(st.binary(max_size=50), HEADERS), min_size=1, max_size=8), AUTHORS, st.integers(1)
)
def test_sealing_keeps_every_message_as_it_was(
    batch: dict[str, tuple[bytes, dict[str, str]]], author: str, seed: int
) -> None:
    payloads, headers = [payload for payload, _ in batch.values()], [each for _, each in batch.values()]
    part = Part(messages(*batch, payloads=payloads, headers=headers), author)
    append = sealer(seed=seed).seal([part], tree=Tree(), epoch=1, time_ms=1)
    records = decode_records(append.batch.body)
    for at, (message_id, (payload, message_headers)) in enumerate(batch.items()):
        leaf = parse_leaf(records.leaves[at])
        assert (leaf.id, leaf.author, leaf.offset) == (message_id, author, at)
        assert records.payloads[at] == payload
        assert decode_headers(records.headers[at] if records.headers else b"") == message_headers
        assert leaf.payload_digest == payload_digest(records.salts[16 * at : 16 * at + 16], payload)


@given(st.integers(1, 12), st.data())
def test_cutting_records_and_joining_the_parts_gives_them_back(count: int, data: st.DataObject) -> None:
    records = Records(
        [bytes([n]) for n in range(count)],
        bytes(range(16 * count)),
        [b"p%d" % n for n in range(count)],
        data.draw(st.sampled_from([[], [b"h%d" % n for n in range(count)]])),
    )
    at = data.draw(st.integers(0, count))
    left, right = records.cut(0, at), records.cut(at, count)
    assert len(left) + len(right) == count
    joined = Records(
        [*left.leaves, *right.leaves],
        left.salts + right.salts,
        [*left.payloads, *right.payloads],
        [*left.headers, *right.headers],
    )
    assert joined == records
