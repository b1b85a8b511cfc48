"""What is in the log of a node that does not run: its ids in order, and where a payload lies in the file.

Reads by the store's own reader. Changes nothing.
"""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

from replicad.core.record import parse_leaf
from replicad.dev.layout import CLUSTER
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records

READ_BYTES = 4 << 20
TRIES = 20
LEAST_BYTES = 64  # a shorter payload may stand in the file by chance


def ids_of(data_dir: Path, node: str) -> list[str]:
    """The ids of all records, in the order of their offsets."""
    ids: list[str] = []
    with closing(SqliteStore(data_dir, cluster=CLUSTER, node=node, decode_records=decode_records)) as store:
        while batches := store.read(len(ids), max_bytes=READ_BYTES):
            ids += [parse_leaf(leaf).id for batch in batches for leaf in decode_records(batch.body).leaves]
    return ids


def payload_places(data_dir: Path, rng: random.Random) -> tuple[int, int] | None:
    """A committed record and a place of its payload in the file; None where none was found."""
    node = data_dir.parent.name
    with closing(SqliteStore(data_dir, cluster=CLUSTER, node=node, decode_records=decode_records)) as store:
        committed = store.load().commit_size
        payloads = {}
        for _ in range(TRIES if committed else 0):
            offset = rng.randrange(committed)
            (batch, *_) = store.read(offset, max_bytes=1)
            payload = decode_records(batch.body).payloads[offset - batch.first_offset]
            if len(payload) >= LEAST_BYTES:
                payloads[offset] = payload[:LEAST_BYTES]
    content = (data_dir / "log.db").read_bytes()
    for offset, payload in payloads.items():
        if content.count(payload) == 1:
            return offset, content.index(payload) + rng.randrange(LEAST_BYTES)
    return None
