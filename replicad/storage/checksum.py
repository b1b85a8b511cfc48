"""The checksums that a batch and a node's state are stored with: whether the disk gives back what was written, at the
price of a look.

It finds what a disk does by itself. That nobody has changed a log on purpose is proven by its signatures: see fsck.
"""

from __future__ import annotations

import struct
import zlib

from replicad.core.batch import Batch

_NUMBERS = struct.Struct(">qqqqHHI")
_STATE = struct.Struct(">qq")


def checksum_of(batch: Batch) -> int:
    """CRC-32 over all that is stored of a batch; lengths included, so that no byte can change sides."""
    signer = batch.signer.encode()
    head = _NUMBERS.pack(
        batch.first_offset,
        batch.count,
        batch.epoch,
        batch.time_ms,
        len(signer),
        len(batch.signature),
        len(batch.root),
    )
    return zlib.crc32(batch.body, zlib.crc32(b"".join((head, signer, batch.signature, batch.root))))


def checksum_of_state(promised_epoch: int, promised_to: str, commit_size: int) -> int:
    """CRC-32 over what a node has promised, and knows to be committed."""
    return zlib.crc32(_STATE.pack(promised_epoch, commit_size) + promised_to.encode())
