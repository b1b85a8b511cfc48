"""Messages, records and their leaves: the bytes that the tree is built over.

Owns the leaf encoding (version 1), the canonical encoding of headers, and which ids and headers are the log's own. Must
not know how records are batched, stored or sent.

A leaf, big-endian: version u8, epoch u64, offset u64, time u64 (ms since 1970 UTC), payload length u32,
SHA-256(salt || payload), SHA-256(headers), id length u8, author length u8, id, author. Leaf bytes are stored and sent
verbatim and never re-made from a parsed form. The payload stands beside the leaf, so that a leaf stays small and a
payload can be erased later without breaking a proof.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

LEAF_VERSION = 1
SALT_BYTES = 16  # per record: a short payload cannot be guessed from its digest
MAX_ID_BYTES = 128
MAX_AUTHOR_BYTES = 255  # one length byte
MAX_HEADERS = 64  # per message; headers are labels, not a second payload
MAX_HEADER_KEY_BYTES = 255  # one length byte
MAX_HEADER_VALUE_BYTES = 4096

#: The beginning of every leaf; id and author follow.
LEAF_HEAD = struct.Struct(">BQQQI32s32sBB")
#: The part of the head that is known before the record is: version, epoch, offset, time.
LEAF_PLACE = struct.Struct(">BQQQ")

NO_HEADERS = b""
NO_HEADERS_DIGEST = sha256(NO_HEADERS).digest()

#: Ids that begin so are the log's own (an epoch's first record); a post with one is refused.
RESERVED_ID_PREFIX = "replicad:"


def epoch_record_id(epoch: int) -> str:
    """The id of an epoch's first record."""
    return f"{RESERVED_ID_PREFIX}epoch:{epoch}"


#: Header keys that begin so are the log's own; the only one that a message may have is the next.
RESERVED_HEADER_PREFIX = "replicad:"
#: Says that the payload is ciphertext, and of which message: "fernet:" and the content tag (docs/formats.md).
ENCRYPTION_HEADER = "replicad:encrypted"
_ENCRYPTION_VALUE = re.compile(r"fernet:[A-Za-z0-9_-]{43}")
_RESERVED_HEADER_BYTES = RESERVED_HEADER_PREFIX.encode()
_ENCRYPTION_HEADER_BYTES = ENCRYPTION_HEADER.encode()


class Leaf(NamedTuple):
    """A parsed leaf; lengths in bytes, ``time_ms`` in ms since 1970 UTC."""

    version: int
    epoch: int
    offset: int
    time_ms: int
    payload_length: int
    payload_digest: bytes
    headers_digest: bytes
    id: str
    author: str


def parse_leaf(leaf: bytes) -> Leaf:
    """Parse leaf bytes. Raises ValueError when they are not exactly one leaf of version 1."""
    if len(leaf) < LEAF_HEAD.size:
        raise ValueError(f"leaf of {len(leaf)} bytes is shorter than its head of {LEAF_HEAD.size}")
    version, epoch, offset, time_ms, length, payload_digest, headers_digest, id_len, author_len = LEAF_HEAD.unpack_from(
        leaf
    )
    if version != LEAF_VERSION:
        raise ValueError(f"leaf version {version}, this release knows {LEAF_VERSION}")
    end_of_id = LEAF_HEAD.size + id_len
    if len(leaf) != end_of_id + author_len:
        raise ValueError(f"leaf of {len(leaf)} bytes, its head says {end_of_id + author_len}")
    return Leaf(
        version,
        epoch,
        offset,
        time_ms,
        length,
        payload_digest,
        headers_digest,
        leaf[LEAF_HEAD.size : end_of_id].decode("ascii"),
        leaf[end_of_id:].decode("utf-8"),
    )


def payload_digest(salt: bytes, payload: bytes) -> bytes:
    """What a leaf holds of its payload: SHA-256(salt || payload)."""
    return sha256(salt + payload).digest()


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """The canonical encoding: per header, sorted by key: key length u8, key, value length u16, value (UTF-8).

    Raises ValueError, naming the header, when a limit is passed. No headers encode as b"".
    """
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"{len(headers)} headers, at most {MAX_HEADERS} are allowed")
    parts: list[bytes] = []
    for key_text, value_text in sorted(headers.items(), key=lambda item: item[0].encode()):
        key, value = key_text.encode(), value_text.encode()
        if not 1 <= len(key) <= MAX_HEADER_KEY_BYTES:
            raise ValueError(f"header key {key_text[:32]!r} has {len(key)} bytes, 1 to {MAX_HEADER_KEY_BYTES} allowed")
        if len(value) > MAX_HEADER_VALUE_BYTES:
            raise ValueError(f"header {key_text!r} has {len(value)} bytes, at most {MAX_HEADER_VALUE_BYTES} allowed")
        parts += (bytes((len(key),)), key, len(value).to_bytes(2, "big"), value)
    return b"".join(parts)


def decode_headers(encoded: bytes) -> dict[str, str]:
    """The inverse of :func:`encode_headers`. Raises ValueError unless the bytes are the canonical encoding."""
    headers: dict[str, str] = {}
    at, last = 0, b""
    while at < len(encoded):
        key_end = at + 1 + encoded[at]
        value_end = key_end + 2 + int.from_bytes(encoded[key_end : key_end + 2], "big")
        key, value = encoded[at + 1 : key_end], encoded[key_end + 2 : value_end]
        if not key or value_end > len(encoded) or len(value) > MAX_HEADER_VALUE_BYTES:
            raise ValueError(f"headers are malformed at byte {at}")
        if headers and key <= last:
            raise ValueError(f"headers are not sorted by key, or a key stands twice, at byte {at}")
        headers[key.decode("utf-8")] = value.decode("utf-8")
        at, last = value_end, key
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"{len(headers)} headers, at most {MAX_HEADERS} are allowed")
    return headers


def check_encoded_headers(encoded: bytes) -> None:
    """ValueError unless these are headers that a message may be posted with: canonically encoded, none reserved but a
    well-formed ENCRYPTION_HEADER."""
    headers = decode_headers(encoded)
    if _RESERVED_HEADER_BYTES not in encoded:
        return
    for key, value in headers.items():
        if key == ENCRYPTION_HEADER:
            if _ENCRYPTION_VALUE.fullmatch(value) is None:
                raise ValueError(
                    f"header {ENCRYPTION_HEADER!r} is not 'fernet:' and a content tag; leave it to the client library"
                )
        elif (fault := header_key_fault(key)) is not None:
            raise ValueError(fault)


def header_key_fault(key: str) -> str | None:
    """Why nobody may set a header with this key, or None when anybody may."""
    if not key.startswith(RESERVED_HEADER_PREFIX):
        return None
    return f"header {key[:32]!r} begins with {RESERVED_HEADER_PREFIX!r}, which is reserved for the log; rename it"


def says_encrypted(encoded_headers: bytes) -> bool:
    """Whether these headers, canonically encoded, have the one that says that the payload is ciphertext."""
    return _ENCRYPTION_HEADER_BYTES in encoded_headers and ENCRYPTION_HEADER in decode_headers(encoded_headers)


def id_fault(message_id: str) -> str | None:
    """Why an id is refused, or None when it is good: 1 to 128 bytes of printable ASCII, not reserved."""
    if not 1 <= len(message_id) <= MAX_ID_BYTES:
        return f"id has {len(message_id)} characters, 1 to {MAX_ID_BYTES} are allowed"
    if not (message_id.isascii() and message_id.isprintable()):
        return f"id {message_id[:32]!r} is not printable ASCII"
    if message_id.startswith(RESERVED_ID_PREFIX):
        return f"id {message_id[:32]!r} begins with {RESERVED_ID_PREFIX!r}, which is reserved for the log itself"
    return None


@dataclass(frozen=True, slots=True)
class Messages:
    """What one frame of a client carries, as parallel lists.

    1. ``ids`` and ``payloads`` are of one length, at least 1; ``headers`` is empty (no message has any) or of that
       length, each entry canonically encoded.
    2. Every id has passed :func:`id_fault`, every payload the size limit. (The gate sees to both.)
    """

    ids: Sequence[str]
    payloads: Sequence[bytes]
    headers: Sequence[bytes]
    size_bytes: int  # of all payloads and headers together

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records as parallel lists: what is left of a batch when place and signature are taken off.

    1. ``leaves`` and ``payloads`` are of one length n; ``salts`` has 16 n bytes; ``headers`` is empty or of length n.
    2. ``headers`` is empty when no record has any: one log has one form.
    """

    leaves: Sequence[bytes]
    salts: bytes
    payloads: Sequence[bytes]
    headers: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.leaves)

    def cut(self, start: int, stop: int) -> Records:
        """The records from index ``start`` up to, not including, ``stop``."""
        return Records(
            self.leaves[start:stop],
            self.salts[SALT_BYTES * start : SALT_BYTES * stop],
            self.payloads[start:stop],
            self.headers[start:stop],
        )
