"""A batch: the unit of group commit, signing, replication and storage.

Owns what is signed. Must not know how a batch is encoded on the wire or stored.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from replicad.core.voters import EpochLists

SIGNED_CONTEXT = b"replicad batch v1\n"  # no other signature of the same key can be taken for a batch's
_PLACE = struct.Struct(">QQIQ")


@dataclass(frozen=True, slots=True)
class Batch:
    """One or more consecutive records of one epoch, signed by the node that was master in it.

    1. It holds offsets ``first_offset`` to ``end - 1``; count >= 1.
    2. ``root`` is the tree's root over all records below ``end``.
    3. ``body`` is the encoded Records message: stored, sent and hashed from these bytes, never re-made.
    """

    epoch: int
    first_offset: int
    count: int
    time_ms: int  # when the master took these records in; every leaf of the batch has the same
    root: bytes
    signer: str
    signature: bytes
    body: bytes

    @property
    def end(self) -> int:
        """The log's size after this batch."""
        return self.first_offset + self.count


def signed_statement(
    *, cluster: str, signer: str, epoch: int, first_offset: int, count: int, time_ms: int, root: bytes
) -> bytes:
    """The bytes under a batch's signature: context line, place, root, and the names with their lengths."""
    cluster_name, signer_name = cluster.encode(), signer.encode()
    return b"".join(
        (
            SIGNED_CONTEXT,
            _PLACE.pack(epoch, first_offset, count, time_ms),
            root,
            len(cluster_name).to_bytes(2, "big"),
            cluster_name,
            len(signer_name).to_bytes(2, "big"),
            signer_name,
        )
    )


def statement_of(batch: Batch, *, cluster: str) -> bytes:
    """The bytes that ``batch.signature`` is to be over."""
    return signed_statement(
        cluster=cluster,
        signer=batch.signer,
        epoch=batch.epoch,
        first_offset=batch.first_offset,
        count=batch.count,
        time_ms=batch.time_ms,
        root=batch.root,
    )


@dataclass(frozen=True, slots=True)
class Tile:
    """Up to 256 consecutive node hashes of one tree level that is a multiple of 8, as in C2SP tlog-tiles.

    ``level`` counts tiles' levels (tree level = 8 * level); the tile holds nodes 256 * index onwards, 32 bytes each.
    """

    level: int
    index: int
    hashes: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """A batch with all that changes in one transaction with it.

    1. ``ids`` are the records' ids in order: the duplicate index gains exactly these.
    2. ``tiles`` are those this batch fills, and every tile above level 0 that it changes; a tile replaces its
       shorter self.
    3. ``lists`` is what the batch says of voters, where it begins with an epoch's first record.
    """

    batch: Batch
    ids: tuple[str, ...] | list[str]
    tiles: tuple[Tile, ...] | list[Tile]
    lists: EpochLists | None = None
