"""A log whose end is damaged is mended before a start, or whoever starts it is told what does."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from replicad import logs
from replicad.config import Config
from replicad.core.batch import Batch
from replicad.errors import DamagedError
from replicad.repair import mend_end
from replicad.storage.interface import StoreState
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker

CONFIG = cast(Config, SimpleNamespace(cluster=CLUSTER, node=NODE, nodes=[SimpleNamespace(name=n) for n in (NODE, "b")]))


async def mended(data_dir: Path, statement: str) -> StoreState:
    """The state that a node starts from whose last batch of three, at offset 6, was changed so."""
    log = LogMaker()
    appends = log.appends(3, 3, 3)
    with closing(SqliteStore(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)) as store:
        store.set_promise(1, "b")
        store.append(appends, commit_size=9)
    batches = [append.batch for append in [*appends, *log.appends(3, 3)]]
    with closing(sqlite3.connect(data_dir / "log.db")) as database, database:
        assert database.execute(f"UPDATE batches SET {statement} WHERE first_offset = 6").rowcount == 1  # noqa: S608

    async def fetch(_: str, start: int, end: int) -> Sequence[Batch]:
        return [batch for batch in batches if start <= batch.first_offset and batch.end <= end]

    with closing(SqliteStore(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)) as store:

        async def load() -> StoreState:
            return store.load()

        return await mend_end(
            store, load, config=CONFIG, keyring=log.key.keyring, fetch=fetch, journal=logs.get_logger("test")
        )


async def test_an_end_of_another_epoch_is_mended_by_another_nodes_copy(tmp_path: Path) -> None:
    state = await mended(tmp_path / "data", "epoch = 7")
    assert (state.size, state.last_epoch) == (9, 1)


@pytest.mark.parametrize("count", [9, 10])
async def test_where_no_copy_fits_a_rebuild_is_the_remedy(tmp_path: Path, count: int) -> None:
    with pytest.raises(DamagedError, match=r"can replace it now: .*; `replicad-cli rebuild` makes the log anew"):
        await mended(tmp_path / "data", f"count = {count}")
