"""The checks a batch passes before a node takes it: what a worker, an opening master and an audit all ask.

Owns the order of the checks and their reasons. Changes nothing: the caller's tree is left as it was on failure.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from replicad.core.batch import Append, Batch, statement_of
from replicad.core.keyring import Keyring
from replicad.core.record import (
    LEAF_HEAD,
    LEAF_PLACE,
    LEAF_VERSION,
    NO_HEADERS,
    SALT_BYTES,
    Records,
    epoch_record_id,
)
from replicad.core.tree import Tree, leaf_hashes
from replicad.core.voters import EpochLists, parse_lists
from replicad.errors import PeerError


def check_batch(
    batch: Batch,
    *,
    tree: Tree,
    last_epoch: int,
    cluster: str,
    keyring: Keyring,
    decode: Callable[[bytes], Records],
) -> tuple[Append, Tree]:
    """The append that takes this batch in, and the tree after it; ``tree`` (before it) is not changed.

    In this order, cheapest refusal of what is forged first: 1. the place follows the log's end; 2. the epoch does not
    fall; 3. the signer is a node and the signature is by a key of its that may sign there; 4. every record's leaf,
    payload, headers; 5. what an epoch's first record says of voters; 6. the root.
    Raises PeerError with the reason gap, epoch, signer, signature, revoked, malformed, leaf, payload, headers or root.
    """
    if batch.first_offset != tree.size:
        raise PeerError("gap", f"batch begins at offset {batch.first_offset}, the log ends at {tree.size}")
    if batch.epoch < last_epoch or batch.epoch < 1:
        raise PeerError("epoch", f"batch of epoch {batch.epoch} after a record of epoch {last_epoch}")
    keyring.check(batch, statement_of(batch, cluster=cluster))
    records = decode(batch.body)
    ids = check_records(batch, records)
    if records.headers and not any(records.headers):
        raise PeerError("malformed", f"batch at {batch.first_offset} lists headers, and no record has any")
    lists = _lists(batch, ids[0], records) if batch.epoch > last_epoch else None
    after = tree.copy()
    tiles = after.append(leaf_hashes(records.leaves))
    if after.root() != batch.root:
        raise PeerError("root", f"root after the batch at {batch.first_offset} is not the one that was signed")
    return Append(batch, ids, tiles, lists), after


def _lists(batch: Batch, first_id: str, records: Records) -> EpochLists | None:
    """What the first batch of an epoch says of voters. Raises PeerError."""
    if first_id != epoch_record_id(batch.epoch):
        return None
    try:
        return parse_lists(records.payloads[0])
    except ValueError as exc:
        text = f"the first record of epoch {batch.epoch}, at {batch.first_offset}, is no list of voters: {exc}"
        raise PeerError("malformed", text) from exc


def check_records(batch: Batch, records: Records) -> list[str]:
    """The ids of the batch's records, in order. Raises PeerError, naming the offset, when one does not fit.

    The loop is a worker's cost per message. The common prefix of a leaf is compared as bytes, its variable part by
    length: a leaf that passes is exactly one leaf.
    """
    if len(records) != batch.count or batch.count < 1:
        raise PeerError("malformed", f"batch at {batch.first_offset} says {batch.count} records, holds {len(records)}")
    ids = []
    salts, unpack, place, head = records.salts, LEAF_HEAD.unpack_from, LEAF_PLACE.pack, LEAF_HEAD.size
    epoch, time_ms, offset, salt_at = batch.epoch, batch.time_ms, batch.first_offset, 0
    headers = records.headers or [NO_HEADERS] * batch.count
    last_headers, last_digest = NO_HEADERS, sha256(NO_HEADERS).digest()
    for leaf, payload, encoded_headers in zip(records.leaves, records.payloads, headers, strict=True):
        if len(leaf) < head or not leaf.startswith(place(LEAF_VERSION, epoch, offset, time_ms)):
            raise PeerError("leaf", f"leaf at offset {offset} is not of this version, epoch, offset and time")
        _, _, _, _, length, payload_digest, headers_digest, id_length, author_length = unpack(leaf)
        if len(leaf) != head + id_length + author_length or not id_length:
            raise PeerError("leaf", f"leaf at offset {offset} has {len(leaf)} bytes, its head says otherwise")
        if length != len(payload) or sha256(salts[salt_at : salt_at + SALT_BYTES] + payload).digest() != payload_digest:
            raise PeerError("payload", f"payload at offset {offset} is not the one its leaf was made of")
        if encoded_headers != last_headers:
            last_headers, last_digest = encoded_headers, sha256(encoded_headers).digest()
        if headers_digest != last_digest:
            raise PeerError("headers", f"headers at offset {offset} are not the ones their leaf was made of")
        try:
            ids.append(leaf[head : head + id_length].decode("ascii"))
        except UnicodeDecodeError as exc:
            raise PeerError("leaf", f"id at offset {offset} is not ASCII") from exc
        offset += 1
        salt_at += SALT_BYTES
    return ids
