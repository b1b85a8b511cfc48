"""Both stores, driven alike by whatever Hypothesis thinks of, answer alike; and what SQLite holds proves."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from replicad.core.batch import Append
from replicad.core.tree import Tree
from replicad.errors import ReplicadError
from replicad.storage.fsck import verify_folder
from replicad.storage.memory import MemoryStore
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker

COUNTS = st.lists(st.sampled_from([1, 2, 3, 100, 255, 256, 257, 600]), min_size=1, max_size=4)
MANY = st.integers(33, 70).map(lambda batches: [1] * batches)  # more than one statement's worth
IDS = st.lists(
    st.sampled_from([f"id-{n:09}" for n in (0, 1, 7, 255, 256, 300, 900)] + ["replicad:x", "zz"]), max_size=6
)


class TwoStores(RuleBasedStateMachine):
    """Every rule does the same to both stores and compares what comes back, errors included."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stores-"))
        self.sqlite = self.open_sqlite()
        self.memory = MemoryStore(decode_records)
        self.log = LogMaker()
        self.trees = {0: Tree()}  # by the sizes at which a batch begins or the log ends
        self.both(lambda store: store.set_promise(1, NODE))

    def open_sqlite(self) -> SqliteStore:
        return SqliteStore(self.folder / "data", cluster=CLUSTER, node=NODE, decode_records=decode_records)

    def both(self, call: object) -> object:
        """What both answer to the same call: a value, or the class of what they raise."""
        answers = []
        for store in (self.sqlite, self.memory):
            try:
                answers.append(call(store))  # type: ignore[operator]
            except ReplicadError as exc:
                answers.append(type(exc))
        sqlite, memory = ((a.size, a.root()) if isinstance(a, Tree) else a for a in answers)
        assert sqlite == memory
        return answers[0]

    def made(self, counts: list[int]) -> list[Append]:
        made = []
        for count in counts:
            made.append(self.log.append(count))
            self.trees[self.log.size] = self.log.tree.copy()
        return made

    def forget_beyond(self, size: int) -> None:
        self.trees = {at: tree for at, tree in self.trees.items() if at <= size}
        self.log.rewind(self.trees[size])

    @rule(counts=COUNTS | MANY, commit=st.integers(0, 2000))
    def append(self, counts: list[int], commit: int) -> None:
        size = self.log.size
        appends = self.made(counts)
        if self.both(lambda store: store.append(appends, commit_size=commit)) is not None:
            self.forget_beyond(size)

    @rule(ids=st.lists(st.sampled_from(["a", "b", "c", 'q"', "replicad:epoch:0", "id-000000001"]), min_size=1))
    def append_chosen_ids(self, ids: list[str]) -> None:
        size = self.log.size
        append = self.log.append(ids=ids)
        self.trees[self.log.size] = self.log.tree.copy()
        if self.both(lambda store: store.append([append], commit_size=0)) is not None:
            self.forget_beyond(size)

    @rule(epoch=st.integers(1, 9), master=st.sampled_from(["node-1", "node-2"]))
    def promise(self, epoch: int, master: str) -> None:
        if self.both(lambda store: store.set_promise(epoch, master)) is None:
            self.log.epoch = epoch

    @rule(size=st.integers(0, 3000))
    def commit(self, size: int) -> None:
        self.both(lambda store: store.set_commit_size(size))

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        size = data.draw(st.sampled_from(sorted(self.trees)) | st.integers(0, 3000))
        tree = self.both(lambda store: store.truncate(size))
        if isinstance(tree, Tree):
            assert tree.root() == self.trees[size].root()
            self.forget_beyond(size)

    @rule()
    def restart(self) -> None:
        self.sqlite.close()
        self.sqlite = self.open_sqlite()
        self.memory = self.memory.copy()

    @rule(start=st.integers(0, 3000), room=st.integers(0, 200_000), until=st.none() | st.integers(0, 3000))
    def read(self, start: int, room: int, until: int | None) -> None:
        self.both(lambda store: store.read(start, max_bytes=room, until_offset=until))

    @rule(start=st.integers(0, 3000), since=st.integers(0, 40), length=st.integers(0, 40), room=st.integers(0, 90_000))
    def read_time(self, start: int, since: int, length: int, room: int) -> None:
        since += 1_700_000_000_000
        self.both(
            lambda store: store.read_time(
                start, since_ms=since, until_ms=since + length, max_bytes=room, until_offset=1 << 40
            )
        )

    @rule(ids=IDS)
    def find(self, ids: list[str]) -> None:
        self.both(lambda store: store.find_ids(ids))

    @rule(level=st.integers(0, 2), index=st.integers(0, 12))
    def tile(self, level: int, index: int) -> None:
        self.both(lambda store: store.tile(level, index))

    @rule(size=st.integers(0, 3000))
    def root(self, size: int) -> None:
        root = self.both(lambda store: store.root_at(size))
        if size in self.trees:
            assert root == self.trees[size].root()

    @precondition(lambda self: self.log.size)
    @rule()
    def what_is_held_proves(self) -> None:
        self.sqlite.close()
        report = verify_folder(
            self.folder / "data", cluster=CLUSTER, keyring=self.log.key.keyring, decode_records=decode_records
        )
        self.sqlite = self.open_sqlite()
        assert report.fault is None
        assert report.root == self.log.tree.root()

    @invariant()
    def states_are_alike(self) -> None:
        if not hasattr(self, "sqlite"):
            return
        sqlite, memory = self.sqlite.load(), self.memory.load()
        for name in ("size", "last_epoch", "promised_epoch", "promised_to", "greatest_id", "commit_size"):
            assert getattr(sqlite, name) == getattr(memory, name), name
        assert sqlite.size == self.log.size
        assert sqlite.tree.root() == memory.tree.root() == self.log.tree.root()

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.sqlite.close()
            shutil.rmtree(self.folder)


# Fewer and longer than Hypothesis would have it: a step costs an fsync.
TwoStores.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestTwoStores = TwoStores.TestCase
