"""Making a batch: from messages that were admitted to leaves, root and signature.

Owns how a record comes to be. Must not know who waits for it. Randomness, signing and the body's encoding are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from replicad.core.batch import Append, Batch, signed_statement
from replicad.core.record import LEAF_HEAD, LEAF_VERSION, NO_HEADERS, NO_HEADERS_DIGEST, SALT_BYTES, Messages, Records
from replicad.core.tree import Tree, leaf_hashes


class Part(NamedTuple):
    """The messages of one author in a batch."""

    messages: Messages
    author: str


@dataclass(frozen=True, slots=True)
class Sealer:
    """What a master needs to seal batches."""

    cluster: str
    signer: str
    sign: Callable[[bytes], bytes]
    encode: Callable[[Records], bytes]
    random_bytes: Callable[[int], bytes]

    def seal(self, parts: Sequence[Part], *, tree: Tree, epoch: int, time_ms: int) -> Append:
        """The next batch: the parts' messages in order, from offset ``tree.size`` on. Advances ``tree``."""
        first_offset = tree.size
        count = sum(len(part.messages) for part in parts)
        salts = self.random_bytes(SALT_BYTES * count)
        records = _records(parts, salts, first_offset=first_offset, epoch=epoch, time_ms=time_ms)
        tiles = tree.append(leaf_hashes(records.leaves))
        root = tree.root()
        signature = self.sign(
            signed_statement(
                cluster=self.cluster,
                signer=self.signer,
                epoch=epoch,
                first_offset=first_offset,
                count=count,
                time_ms=time_ms,
                root=root,
            )
        )
        batch = Batch(epoch, first_offset, count, time_ms, root, self.signer, signature, self.encode(records))
        return Append(batch, [message_id for part in parts for message_id in part.messages.ids], tiles)


def _records(parts: Sequence[Part], salts: bytes, *, first_offset: int, epoch: int, time_ms: int) -> Records:
    """Leaves and bodies of all parts. The loop is the master's cost per message: two hashes come later in the tree."""
    payloads: list[bytes] = []
    headers: list[bytes] = []
    leaves: list[bytes] = []
    with_headers = any(any(part.messages.headers) for part in parts)  # when all are empty there are none
    pack, offset, salt_at = LEAF_HEAD.pack, first_offset, 0
    for messages, author_name in parts:
        author = author_name.encode()
        author_length = len(author)
        part_headers = messages.headers or [NO_HEADERS] * len(messages) if with_headers else ()
        digests = [sha256(h).digest() for h in part_headers] if with_headers else [NO_HEADERS_DIGEST] * len(messages)
        for message_id, payload, headers_digest in zip(messages.ids, messages.payloads, digests, strict=True):
            digest = sha256(salts[salt_at : salt_at + SALT_BYTES] + payload).digest()
            name = message_id.encode()
            leaves.append(
                pack(
                    LEAF_VERSION,
                    epoch,
                    offset,
                    time_ms,
                    len(payload),
                    digest,
                    headers_digest,
                    len(name),
                    author_length,
                )
                + name
                + author
            )
            offset += 1
            salt_at += SALT_BYTES
        payloads += messages.payloads
        headers += part_headers
    return Records(leaves, salts, payloads, headers)
