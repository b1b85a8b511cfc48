"""What the core takes apart itself: leaves, headers, lists of voters, and a batch as every node checks it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from replicad.core.batch import Batch
from replicad.core.check import check_batch
from replicad.core.record import (
    LEAF_HEAD,
    MAX_HEADERS,
    decode_headers,
    encode_headers,
    parse_leaf,
)
from replicad.core.tree import Tree
from replicad.core.voters import MAX_STANDING, MAX_VOTERS, EpochLists, parse_lists, standing
from replicad.errors import PeerError
from replicad.wire.codec import decode_records
from replicad.wire.frames import decode_batch, encode_batch
from tests.fuzz.registry import Target
from tests.support.builders import CLUSTER, LogBuilder, keyring, messages


def leaf(data: bytes) -> None:
    parsed = parse_leaf(data)
    message_id, author = parsed.id.encode("ascii"), parsed.author.encode()
    assert LEAF_HEAD.pack(*parsed[:7], len(message_id), len(author)) + message_id + author == data


def headers(data: bytes) -> None:
    decoded = decode_headers(data)
    assert len(decoded) <= MAX_HEADERS
    assert encode_headers(decoded) == data


def voters(data: bytes) -> None:
    lists = parse_lists(data)
    assert (lists.encode() if lists else b"") == data
    if lists:
        stand = standing(lists, committed=False, configured=lists.voters)
        assert len(stand) == 1 + len(lists.prior) <= MAX_STANDING
        assert all(1 <= len(each) <= MAX_VOTERS for each in stand)


@cache
def _genuine() -> Batch:
    log = LogBuilder()
    log.add_messages(messages("a", "b", "c", payloads=[b"", b"one", b"x" * 50], headers=[{}, {"k": "v"}, {}]))
    return log.appends[0].batch


def checked_batch(data: bytes) -> None:
    """Of all batches there are, the one that was signed is the only one that passes, to the last byte of its body's
    meaning and length."""
    batch = decode_batch(data)
    append, after = check_batch(
        batch, tree=Tree(), last_epoch=0, cluster=CLUSTER, keyring=keyring(), decode=decode_records
    )
    genuine = _genuine()
    assert after.root() == genuine.root
    assert list(append.ids) == ["a", "b", "c"]
    assert decode_records(append.batch.body) == decode_records(genuine.body)
    assert len(append.batch.body) == len(genuine.body)


def _leaves() -> Iterable[bytes]:
    return decode_records(_genuine().body).leaves


def _headers() -> Iterable[bytes]:
    yield encode_headers({"a": "1"})
    yield encode_headers({f"{number:03}": "\u00e9" * number for number in range(MAX_HEADERS)})
    yield encode_headers({"k" * 255: "v" * 300})


def _voters() -> Iterable[bytes]:
    yield EpochLists(("n1",)).encode()
    yield EpochLists(("n1", "n4", "n5"), (("n1", "n2", "n3"), ("n6",))).encode()
    yield EpochLists(("n1",), (("n6",),), (("n1", "n2", "n3"),)).encode()


TARGETS = (
    Target("core.leaf", leaf, (ValueError,), ("core.record.parse_leaf",), _leaves, 700),
    Target("core.headers", headers, (ValueError,), ("core.record.decode_headers",), _headers),
    Target("core.voters", voters, (ValueError,), ("core.voters.parse_lists",), _voters),
    Target("core.checked_batch", checked_batch, (PeerError,), (), lambda: [encode_batch(_genuine())]),
)
