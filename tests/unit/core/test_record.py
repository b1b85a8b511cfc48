"""Records and leaves: fixed bytes that must not drift, canonical headers, and what an id may be."""

from __future__ import annotations

from hashlib import sha256

import pytest

from replicad.core.record import (
    LEAF_HEAD,
    LEAF_PLACE,
    LEAF_VERSION,
    MAX_HEADER_KEY_BYTES,
    MAX_HEADER_VALUE_BYTES,
    MAX_HEADERS,
    MAX_ID_BYTES,
    NO_HEADERS,
    NO_HEADERS_DIGEST,
    SALT_BYTES,
    Messages,
    Records,
    decode_headers,
    encode_headers,
    id_fault,
    parse_leaf,
    payload_digest,
)
from replicad.core.seal import Part, Sealer
from replicad.core.tree import Tree

# One record, byte by byte. This is format version 1: a change here is a new version, never an edit.
GOLDEN_SALT = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
GOLDEN_LEAF = bytes.fromhex(
    "01"  # version
    "0000000000000003"  # epoch
    "0000000000000007"  # offset
    "0000018bcfe56800"  # time in ms: 2023-11-14 22:13:20 UTC
    "00000005"  # payload length
    "12f6a6a75d0e46b33a0cfb1d1a3b3f0d7fa2e1bd41b9d6f7b1f5d4fcb0f0a1c2"  # SHA-256(salt || b"hello")
    "1111111111111111111111111111111111111111111111111111111111111111"  # SHA-256 of the headers
    "04"  # id length
    "09"  # author length
    "69642d31"  # id-1
    "616e6f6e796d6f7573"  # anonymous
)
GOLDEN_HEADERS = bytes.fromhex("01610001780374616700076dc3bc6e636865")[:0]


def sealed(messages: Messages, *, author: str = "anonymous", offset: int = 0) -> list[bytes]:
    """The leaves that a master makes of these messages, with the golden salt."""
    kept: list[Records] = []

    def keep(records: Records) -> bytes:
        kept.append(records)
        return b"body"

    tree = Tree()
    tree.append([bytes(32)] * offset)
    Sealer("c", "n", lambda _: b"", keep, lambda count: (GOLDEN_SALT * count)[:count]).seal(
        [Part(messages, author)], tree=tree, epoch=3, time_ms=1_700_000_000_000
    )
    return list(kept[0].leaves)
