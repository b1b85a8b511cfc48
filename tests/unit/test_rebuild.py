"""What a rebuilt log is made of: the old file where it is whole, and other nodes, for which a function stands here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from replicad.config import Config, parse
from replicad.core.batch import Append, Batch
from replicad.core.keyring import Keyring, NodeKey
from replicad.errors import DamagedError, NotMaster, Unavailable
from replicad.rebuild import Rebuilt, rebuild
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker
from tests.support.builders import vkey

OTHER = "node-2"
COMMON, TAIL = 100, 60


class Old:
    """A log of which the first COMMON records are committed, with a tail of its own behind them."""

    def __init__(self, data_dir: Path) -> None:
        self.log, self.data_dir = LogMaker(), data_dir
        self.common = self.log.appends(COMMON // 2, COMMON // 2)
        self.fork_at = self.log.tree.copy()
        self.tail = self.log.appends(*[TAIL // 3] * 3)
        with closing(self.open()) as store:
            store.set_promise(1, NODE)
            store.append([*self.common, *self.tail], commit_size=COMMON)

    def open(self) -> SqliteStore:
        return SqliteStore(self.data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)

    def damage(self, offset: int) -> None:
        with closing(sqlite3.connect(self.data_dir / "log.db")) as database, database:
            assert database.execute("UPDATE batches SET count = 7 WHERE first_offset = ?", (offset,)).rowcount == 1

    async def rebuilt(self, others: Others) -> Rebuilt:
        keyring = Keyring({name: [NodeKey(self.log.key.key_id, self.log.key)] for name in (NODE, OTHER)})
        return await rebuild(config(self.data_dir), keyring=keyring, fetch=others.batches, end=others.end)


class Others:
    """What the other nodes have committed; None: they are not reached."""

    def __init__(self, appends: Sequence[Append] | None, *, leads: bool = True) -> None:
        self._appends, self._leads = appends, leads

    async def batches(self, name: str, start: int, end: int) -> list[Batch]:
        assert name == OTHER
        if self._appends is None:
            raise Unavailable("not reached")
        batches = [append.batch for append in self._appends]
        return [batch for batch in batches if batch.end > start and batch.end <= end]

    async def end(self, name: str) -> int:
        if self._appends is None or not self._leads:
            raise NotMaster("where the log ends is answered by the master")
        return self._appends[-1].batch.end


def config(data_dir: Path) -> Config:
    nodes = [
        {"name": name, "address": f"127.0.0.1:{port}", "public_key": vkey(name)}
        for name, port in ((NODE, 5001), (OTHER, 5002))
    ]
    mapping = {"cluster": CLUSTER, "node": NODE, "role": "worker", "listen": "127.0.0.1:5001", "nodes": nodes}
    return parse({**mapping, "data_dir": str(data_dir), "key": "/dev/null"}, env={})


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path / "data")


def gone_on(old: Old, *counts: int, epoch: int = 2) -> list[Append]:
    """The log of a cluster that went on without this node's tail."""
    other = LogMaker(seed=9, signer=OTHER, prefix="other")
    other.rewind(old.fork_at)
    other.epoch = epoch
    return [*old.common, *other.appends(*counts)]


async def test_a_tail_that_the_cluster_went_on_without_is_left_out(old: Old) -> None:
    """Though it is whole. Batches of the others begin and end where they like."""
    theirs = gone_on(old, 7, 100, 3)
    made = await old.rebuilt(Others(theirs))
    assert (made.size, made.own, made.fetched, made.root) == (COMMON + 110, COMMON, 110, theirs[-1].batch.root)
    with closing(old.open()) as store:
        state = store.load()
    assert (state.promised_epoch, state.promised_to) == (2, OTHER), "it follows whoever is the master of that epoch"


@pytest.mark.parametrize("others", [Others(None), Others([])], ids=["not reached", "have nothing"])
async def test_a_tail_that_nobody_else_has_is_kept(old: Old, others: Others) -> None:
    made = await old.rebuilt(others)
    assert (made.size, made.own, made.fetched) == (COMMON + TAIL, COMMON + TAIL, 0)
    assert made.root == old.tail[-1].batch.root
    with closing(old.open()) as store:
        assert (store.load().promised_epoch, store.load().promised_to) == (1, NODE)


async def test_a_tail_that_is_damaged_and_that_nobody_else_has_ends_it(old: Old) -> None:
    old.damage(COMMON)
    before = (old.data_dir / "log.db").read_bytes()
    with pytest.raises(DamagedError, match=f"offsets {COMMON} to {COMMON + TAIL - 1} are damaged here, .* not reached"):
        await old.rebuilt(Others(None))
    assert (old.data_dir / "log.db").read_bytes() == before


def forget_the_end(old: Old) -> None:
    """As a file that was cut off: neither the last batch nor the number of ids can be read."""
    for table in ("batches", "ids"):
        with closing(sqlite3.connect(old.data_dir / "log.db")) as database:
            (root_page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        with (old.data_dir / "log.db").open("r+b") as file:
            file.seek((root_page - 1) * 4096)
            file.write(bytes(100))


async def test_where_the_end_is_not_known_the_master_is_asked(old: Old) -> None:
    forget_the_end(old)
    theirs = gone_on(old, 30)
    with pytest.raises(DamagedError, match=r"where the log ended can't be read here .* promote one of them"):
        await old.rebuilt(Others(theirs, leads=False))
    made = await old.rebuilt(Others(theirs))
    assert (made.size, made.own, made.fetched) == (COMMON + 30, 0, COMMON + 30)


async def test_what_the_others_have_less_than_this_node_knew_of_a_majority_is_not_enough(old: Old) -> None:
    forget_the_end(old)
    with pytest.raises(DamagedError, match=f"offsets {COMMON // 2} to {COMMON - 1} are damaged here"):
        await old.rebuilt(Others(old.common[:1]))
