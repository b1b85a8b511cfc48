"""Records and leaves: fixed bytes that must not drift, canonical headers, and what an id may be."""

from __future__ import annotations

from hashlib import sha256

import pytest

from replicad.core.record import (
    LEAF_HEAD,
    LEAF_PLACE,
    MAX_HEADER_KEY_BYTES,
    MAX_HEADER_VALUE_BYTES,
    MAX_HEADERS,
    MAX_ID_BYTES,
    NO_HEADERS,
    NO_HEADERS_DIGEST,
    Leaf,
    Records,
    decode_headers,
    encode_headers,
    id_fault,
    parse_leaf,
    payload_digest,
)
from tests.support.golden import GOLDEN_HEADERS, GOLDEN_LEAVES

GOLDEN_LEAF = GOLDEN_LEAVES[0]


# --- leaves -----------------------------------------------------------------------------------------------------


def test_the_golden_leaf_parses_to_its_parts() -> None:
    assert parse_leaf(GOLDEN_LEAF) == Leaf(
        version=1,
        epoch=3,
        offset=0,
        time_ms=1_700_000_000_000,
        payload_length=5,
        payload_digest=sha256(bytes(range(16)) + b"hello").digest(),
        headers_digest=sha256(GOLDEN_HEADERS).digest(),
        id="id-1",
        author="anonymous",
    )


def test_a_leafs_head_is_95_bytes_and_begins_with_its_place() -> None:
    assert LEAF_HEAD.size == 95
    assert GOLDEN_LEAF.startswith(LEAF_PLACE.pack(1, 3, 0, 1_700_000_000_000))


def test_the_payload_digest_is_salted() -> None:
    salt = bytes(range(16))
    assert payload_digest(salt, b"hello") == sha256(salt + b"hello").digest() == parse_leaf(GOLDEN_LEAF).payload_digest
    assert payload_digest(bytes(16), b"hello") != payload_digest(salt, b"hello")


@pytest.mark.parametrize("length", range(len(GOLDEN_LEAF)))
def test_a_leaf_that_is_cut_short_does_not_parse(length: int) -> None:
    with pytest.raises(ValueError, match="leaf of"):
        parse_leaf(GOLDEN_LEAF[:length])


def test_a_leaf_with_a_byte_too_many_does_not_parse() -> None:
    with pytest.raises(ValueError, match="its head says"):
        parse_leaf(GOLDEN_LEAF + b"x")


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_leaf_of_another_version_does_not_parse(version: int) -> None:
    with pytest.raises(ValueError, match="leaf version"):
        parse_leaf(bytes([version]) + GOLDEN_LEAF[1:])


def test_an_id_in_a_leaf_that_is_not_ascii_does_not_parse() -> None:
    at = LEAF_HEAD.size
    with pytest.raises(ValueError, match="ascii"):
        parse_leaf(GOLDEN_LEAF[:at] + b"\xff" + GOLDEN_LEAF[at + 1 :])


def test_an_author_in_a_leaf_that_is_not_utf8_does_not_parse() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        parse_leaf(GOLDEN_LEAF[:-1] + b"\xff")


# --- headers ----------------------------------------------------------------------------------------------------


def test_the_golden_headers_are_encoded_sorted_with_their_lengths() -> None:
    assert encode_headers({"tag": "münchen", "a": "x"}) == GOLDEN_HEADERS
    assert decode_headers(GOLDEN_HEADERS) == {"a": "x", "tag": "münchen"}


def test_no_headers_are_no_bytes() -> None:
    assert encode_headers({}) == NO_HEADERS == b""
    assert decode_headers(b"") == {}
    assert NO_HEADERS_DIGEST.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_order_in_which_headers_are_given_does_not_matter() -> None:
    assert encode_headers({"b": "2", "a": "1"}) == encode_headers({"a": "1", "b": "2"})


def test_headers_are_sorted_by_the_bytes_of_their_keys() -> None:
    keys = ["z", "é", "\U0001f600", "Z", "aa", "a"]  # code points and UTF-8 sort alike; case and length count
    assert list(decode_headers(encode_headers(dict.fromkeys(keys, "")))) == ["Z", "a", "aa", "z", "é", "\U0001f600"]


@pytest.mark.parametrize(
    "encoded",
    [
        encode_headers({"b": "2"}) + encode_headers({"a": "1"}),  # not sorted
        encode_headers({"a": "1"}) + encode_headers({"a": "2"}),  # a key twice
        encode_headers({"a": "1"}) * 2,
        b"\x00\x00\x00",  # an empty key
        b"\x01\xff\x00\x00",  # a key that is not UTF-8
        b"\x01a\x00\x01\xff",  # a value that is not UTF-8
        b"\x01a\x10\x01" + b"v" * 4097,  # a value beyond the limit
        b"".join(encode_headers({f"{n:03}": ""}) for n in range(MAX_HEADERS + 1)),
    ],
)
def test_headers_that_are_not_canonical_are_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|decode"):
        decode_headers(encoded)


@pytest.mark.parametrize("length", [n for n in range(1, len(GOLDEN_HEADERS)) if n != len(encode_headers({"a": "x"}))])
def test_headers_that_are_cut_short_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="malformed"):
        decode_headers(GOLDEN_HEADERS[:length])


def test_headers_at_their_limits_are_taken() -> None:
    headers = {f"{n:02}": "" for n in range(MAX_HEADERS - 1)}
    headers["k" * MAX_HEADER_KEY_BYTES] = "v" * MAX_HEADER_VALUE_BYTES
    assert decode_headers(encode_headers(headers)) == headers


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({str(n): "" for n in range(MAX_HEADERS + 1)}, "65 headers, at most 64"),
        ({"": "v"}, "has 0 bytes, 1 to 255"),
        ({"k" * 256: "v"}, "has 256 bytes, 1 to 255"),
        ({"é" * 128: "v"}, "has 256 bytes, 1 to 255"),
        ({"k": "v" * 4097}, "has 4097 bytes, at most 4096"),
        ({"k": "é" * 2049}, "has 4098 bytes, at most 4096"),
        ({"k": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_headers_beyond_a_limit_are_refused_with_the_reason(headers: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        encode_headers(headers)


# --- ids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message_id", ["a", "~", " ", "018bcfe5-6800-7abc-8def-0123456789ab", "x" * MAX_ID_BYTES, "replicad", "Replicad:x"]
)
def test_an_id_of_printable_ascii_is_good(message_id: str) -> None:
    assert id_fault(message_id) is None


@pytest.mark.parametrize(
    ("message_id", "fault"),
    [
        ("", "has 0 characters"),
        ("x" * 129, "has 129 characters"),
        ("tab\there", "not printable ASCII"),
        ("line\n", "not printable ASCII"),
        ("\x00", "not printable ASCII"),
        ("\x7f", "not printable ASCII"),
        ("é", "not printable ASCII"),
        ("replicad:epoch:1", "reserved"),
        ("replicad:", "reserved"),
    ],
)
def test_an_id_that_is_not_good_is_refused_with_the_reason(message_id: str, fault: str) -> None:
    assert fault in (id_fault(message_id) or "")


# --- records ----------------------------------------------------------------------------------------------------


def test_records_are_cut_with_all_their_parts() -> None:
    salts = bytes(range(48))
    records = Records([b"l0", b"l1", b"l2"], salts, [b"p0", b"p1", b"p2"], [b"h0", b"h1", b"h2"])
    assert records.cut(1, 3) == Records([b"l1", b"l2"], salts[16:], [b"p1", b"p2"], [b"h1", b"h2"])
    assert len(records.cut(1, 1)) == 0


def test_records_without_headers_are_cut_without_headers() -> None:
    records = Records([b"l0", b"l1"], bytes(32), [b"p0", b"p1"], [])
    assert records.cut(0, 1) == Records([b"l0"], bytes(16), [b"p0"], [])
