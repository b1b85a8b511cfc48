"""Which of a node's keys signed what: read from a data folder, also beside a daemon that runs on it.

Owns the search for a key's last batch. Proves nothing else: :mod:`replicad.storage.fsck` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from replicad.core.batch import Batch, statement_of
from replicad.core.keyring import NodeKey
from replicad.errors import DamagedError, DataFolderError
from replicad.storage import schema
from replicad.storage.faults import opening
from replicad.storage.reader import COLUMN_TYPES, is_possible, typed

_SIGNED_BY = """SELECT epoch, first_offset, count, time_ms, root, signer, signature, X'' FROM batches
WHERE signer = ? ORDER BY first_offset DESC"""


def last_signed(data_dir: Path, *, cluster: str, node: str, keys: Sequence[NodeKey]) -> dict[str, int]:
    """Where the last batch ends that each of ``keys`` has signed as ``node``, by key id; 0 for a key that signed none.

    Goes back from the log's end until all are found: one verification for each batch and key on the way. Raises
    DataFolderError when there is no log, or it cannot be opened; StorageError when it cannot be read.
    """
    path = schema.database_path(data_dir)
    if not path.is_file():
        raise DataFolderError(f"{data_dir} holds no log ({schema.DATABASE_NAME}): name a node's data_dir")
    with opening(path):
        connection = schema.connect(path, mode="ro")
    ends = {key.key_id: 0 for key in keys}
    wanted = {key.key_id: key for key in keys}
    with closing(connection), opening(path):
        rows = connection.execute(_SIGNED_BY, (node,))
        while wanted and (row := rows.fetchone()) is not None:
            batch = Batch(*typed(row, COLUMN_TYPES, "batches"))
            if not is_possible(batch):
                raise DamagedError(f"the batch at offset {batch.first_offset} holds impossible numbers")
            statement = statement_of(batch, cluster=cluster)
            found = [key for key in wanted.values() if key.verifier.verify(batch.signature, statement)]
            for key in found:
                ends[key.key_id] = batch.end
                del wanted[key.key_id]
    return ends
