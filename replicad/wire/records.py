"""Records as bytes: the body of a batch, and what a reader gets.

Owns the Records and ListResponse messages. Bodies are made once, on the master, and go verbatim through disk and
network; only a reader takes them apart, a whole list at a time, because one step of Python per record would be most
of the cost. Must not know who asked or where the bodies come from.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from types import MappingProxyType
from typing import cast

from replicad.core.record import ENCRYPTION_HEADER, LEAF_HEAD, SALT_BYTES, Records, decode_headers, parse_leaf
from replicad.errors import PeerError
from replicad.wire.parsing import malformed, parse_peer
from replicad.wire.splice import bytes_field, field_bytes, integer_field
from replicad.wire.types import Record
from replicad.wire.v1 import log_pb2

_COMMIT_SIZE_FIELD = log_pb2.ListResponse.COMMIT_SIZE_FIELD_NUMBER
_RECORDS_FIELD = log_pb2.ListResponse.RECORDS_FIELD_NUMBER

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_EPOCH, _OFFSET, _TIME = 1, 9, 17  # where they begin in a leaf, 8 bytes each
_FEW = 8  # with fewer records the work on columns costs more than it saves
_ID_LENGTH, _AUTHOR_LENGTH, _ID = LEAF_HEAD.size - 2, LEAF_HEAD.size - 1, LEAF_HEAD.size

#: Record(*values) without its Python-level __new__, which would cost more than all the rest.
_make_record = cast("partial[Record]", partial(tuple.__new__, Record))


def encode_records(records: Records) -> bytes:
    """The body of a batch."""
    return log_pb2.Records(
        leaves=records.leaves, salts=records.salts, payloads=records.payloads, headers=records.headers
    ).SerializeToString()


def decode_records(body: bytes) -> Records:
    """The inverse of :func:`encode_records`; leaves are not looked into. Raises PeerError("malformed").

    A body has the one length that its records give it. The signed root says nothing of bytes that belong to no record
    (a field that we do not know, one that stands twice), so somebody on the way could add any number of them.
    """
    message = parse_peer(log_pb2.Records, body)
    leaves, payloads, headers = message.leaves[:], message.payloads[:], message.headers[:]
    salts = message.salts
    count = len(leaves)
    if len(payloads) != count or len(salts) != SALT_BYTES * count or len(headers) not in (0, count):
        raise malformed(
            f"{count} leaves with {len(payloads)} payloads, {len(salts)} bytes of salts and {len(headers)} headers"
        )
    length = sum(map(_list_bytes, (leaves, payloads, headers))) + (field_bytes(len(salts)) if salts else 0)
    if len(body) != length:
        raise malformed(f"a body of {len(body)} bytes, its records take {length}")
    return Records(leaves, salts, payloads, headers)


def _list_bytes(values: Sequence[bytes]) -> int:
    """What a field that stands once for each of these takes."""
    lengths = set(map(len, values))
    if len(lengths) == 1:  # what most batches have: half the cost of counting
        return len(values) * field_bytes(lengths.pop())
    return sum(count * field_bytes(length) for length, count in Counter(map(len, values)).items())


def encode_list_response(commit_size: int, bodies: Sequence[bytes]) -> bytes:
    """A ListResponse of these bodies, put together without parsing them: each is copied once."""
    parts = integer_field(_COMMIT_SIZE_FIELD, commit_size)
    for body in bodies:
        parts += bytes_field(_RECORDS_FIELD, (body,))
    return b"".join(parts)


def decode_list_response(data: bytes) -> tuple[int, list[list[Record]]]:
    """The commit size and, for each body, its records.

    Raises PeerError: "malformed", or "gap" when offsets inside a body are not consecutive.
    """
    response = parse_peer(log_pb2.ListResponse, data)
    commit_size = response.commit_size
    try:
        return commit_size, [_records_of(body, commit_size) for body in response.records]
    except (ValueError, struct.error) as exc:  # what leaves and headers raise that are not as they should be
        raise malformed(f"a record does not parse: {exc}") from exc


def _records_of(body: log_pb2.Records, commit_size: int) -> list[Record]:
    leaves, payloads = body.leaves[:], body.payloads[:]
    count = len(leaves)
    if not count:
        return []
    if len(payloads) != count or len(body.headers) not in (0, count):
        raise malformed(f"{count} leaves with {len(payloads)} payloads and {len(body.headers)} headers")
    alike = _columns_of_alike(leaves)
    offsets, epochs, times, ids, authors = alike if alike is not None else _columns_of_any(leaves)
    first, end = offsets[0], offsets[0] + count
    if list(offsets) != list(range(first, end)):
        raise PeerError("gap", f"records from offset {first} are not consecutive")
    if first < commit_size < end:
        committed: Iterable[bool] = [offset < commit_size for offset in offsets]
    else:
        committed = repeat(end <= commit_size)
    headers, encrypted = _headers_of(body.headers[:])
    not_decrypted = repeat(False)
    columns = zip(
        offsets, epochs, times, ids, authors, headers, payloads, committed, encrypted, not_decrypted, strict=False
    )
    return list(map(_make_record, columns))


#: offsets, epochs, times, ids, authors; all but the offsets may be endless where all are the same
_Columns = tuple[Sequence[int], Iterable[int], Iterable[int], Iterable[str], Iterable[str]]


def _columns_of_alike(leaves: Sequence[bytes]) -> _Columns | None:
    """The columns of leaves that are alike in all but offset, digests and id: what one client's batch looks like.

    None when they are not. Works on columns of bytes: ``joined[k::width]`` is byte k of every leaf.
    """
    count, first = len(leaves), leaves[0]
    width = len(first)
    if count < _FEW or width < LEAF_HEAD.size or len(set(map(len, leaves))) > 1:
        return None
    joined = b"".join(leaves)
    id_end = _ID + first[_ID_LENGTH]
    same = chain(
        (0,), range(_EPOCH, _OFFSET), range(_TIME, _TIME + 8), (_ID_LENGTH, _AUTHOR_LENGTH), range(id_end, width)
    )
    if any(joined[at::width].count(first[at]) != count for at in same):
        return None
    leaf = parse_leaf(first)
    text = joined.decode("latin-1")
    ids = [text[at : at + id_end - _ID] for at in range(_ID, len(text), width)]
    if not "".join(ids).isascii():
        raise malformed("an id is not ASCII")
    offsets = [offset for (offset,) in struct.iter_unpack(f">{_OFFSET}xQ{width - _TIME}x", joined)]
    return offsets, repeat(leaf.epoch), repeat(leaf.time_ms), ids, repeat(leaf.author)


def _columns_of_any(leaves: Sequence[bytes]) -> _Columns:
    """The columns of leaves of whatever lengths. Raises ValueError as :func:`parse_leaf` does."""
    parsed = [parse_leaf(leaf) for leaf in leaves]
    return (
        [leaf.offset for leaf in parsed],
        [leaf.epoch for leaf in parsed],
        [leaf.time_ms for leaf in parsed],
        [leaf.id for leaf in parsed],
        [leaf.author for leaf in parsed],
    )


def _headers_of(encoded: Sequence[bytes]) -> tuple[Iterable[Mapping[str, str]], Iterable[bool]]:
    """The headers of each record, and whether they say that its payload is encrypted."""
    if not encoded:
        return repeat(_NO_HEADERS), repeat(False)
    decoded = {each: MappingProxyType(decode_headers(each)) for each in set(encoded)}
    headers = [decoded[each] for each in encoded]
    return headers, [ENCRYPTION_HEADER in each for each in headers]
