"""The checksum that a batch is stored with: whether the disk gives back what was written, at the price of a look.

It finds what a disk does by itself. That nobody has changed a log on purpose is proven by its signatures: see fsck.
"""

from __future__ import annotations

import struct
import zlib

from replicad.core.batch import Batch

_NUMBERS = struct.Struct(">qqqqHHI")


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
