"""A process that writes to a store until it is killed: ``python -m tests.storage_writer DATA_DIR SEED``.

After each append it says on standard output which size is on disk. Its limits can be cut by the test that starts it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from replicad.errors import StorageError
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker


def main() -> None:
    data_dir, seed = Path(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    store = SqliteStore(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)
    state = store.load()
    log = LogMaker(seed)
    log.rewind(state.tree)
    log.epoch = state.promised_epoch + 1
    store.set_promise(log.epoch, NODE)
    print(state.size, flush=True)
    while True:
        sizes = [rng.choice([1, 1, 1, 5, 300]) for _ in range(rng.choice([1, 1, 2, 40]))]
        try:
            store.append(log.appends(*sizes), commit_size=rng.randint(0, store.load().size))
        except StorageError as exc:
            print(type(exc).__name__, flush=True)
            sys.stdin.readline()
            return
        print(log.size, flush=True)


if __name__ == "__main__":
    main()
