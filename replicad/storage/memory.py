"""The in-memory twin of the SQLite store: the same contract, nothing on disk.

For the deterministic simulation of the core, and for tests. Plain structures, no threads of its own, no clock. Must not
be kinder than the disk: what raises there raises here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from copy import copy

from replicad.core.batch import Append, Batch, Tile
from replicad.core.record import RESERVED_ID_PREFIX, Records, epoch_record_id, parse_leaf
from replicad.core.start import EpochRecord, StoreState
from replicad.core.tree import HASH_BYTES, Tree, leaf_hashes
from replicad.errors import DuplicateIdError, invariant
from replicad.storage.checks import check_appends, check_promise, check_truncate
from replicad.storage.edge import partial_tiles, restore_tree, stored_root_at


class MemoryStore:
    """1. ``_starts[i]`` is the first offset of ``_batches[i]``; ``_ids`` holds exactly the ids of all records.

    Every call's effect is whole when it returns, as if synced; :meth:`copy` taken before a call is what a crash in it
    may leave.
    """

    def __init__(self, decode_records: Callable[[bytes], Records]) -> None:
        self._decode = decode_records
        self._starts: list[int] = []
        self._batches: list[Batch] = []
        self._ids: dict[str, int] = {}
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._promised_epoch = 0
        self._promised_to = ""
        self._commit_size = 0
        self._closed = False

    def copy(self) -> MemoryStore:
        """An independent, open store with what this one holds now: takes time in proportion to the log."""
        twin = copy(self)
        twin._starts, twin._batches = self._starts.copy(), self._batches.copy()
        twin._ids, twin._tiles = self._ids.copy(), self._tiles.copy()
        twin._closed = False
        return twin

    @property
    def _size(self) -> int:
        return self._batches[-1].end if self._batches else 0

    def load(self) -> StoreState:
        self._check_open()
        return StoreState(
            size=self._size,
            last_epoch=self._batches[-1].epoch if self._batches else 0,
            promised_epoch=self._promised_epoch,
            promised_to=self._promised_to,
            greatest_id=max((i for i in self._ids if not i.startswith(RESERVED_ID_PREFIX)), default=""),
            commit_size=self._commit_size,
            epoch_record=self._epoch_record(),
            tree=self._tree(),
        )

    def _epoch_record(self) -> EpochRecord | None:
        offset = self._ids.get(epoch_record_id(self._batches[-1].epoch)) if self._batches else None
        if offset is None:
            return None
        batch = self._batches[self._index_of(offset)]
        return EpochRecord(offset, self._decode(batch.body).payloads[offset - batch.first_offset])

    def append(self, appends: Sequence[Append], *, commit_size: int) -> None:
        self._check_open()
        check_appends(appends, size=self._size, commit_size=commit_size)
        added: dict[str, int] = {}
        for append in appends:
            for at, message_id in enumerate(append.ids, append.batch.first_offset):
                if message_id in added or message_id in self._ids:
                    raise DuplicateIdError(f"append: id {message_id!r} is in the log already")
                added[message_id] = at
        self._ids |= added
        self._batches += [append.batch for append in appends]
        self._starts += [append.batch.first_offset for append in appends]
        for append in appends:
            self._tiles |= {(tile.level, tile.index): tile.hashes for tile in append.tiles}
        self._commit_size = max(self._commit_size, commit_size)

    def check_room(self) -> None:
        pass

    def set_promise(self, epoch: int, master: str) -> None:
        self._check_open()
        check_promise(epoch, master, promised_epoch=self._promised_epoch, promised_to=self._promised_to)
        self._promised_epoch, self._promised_to = epoch, master

    def set_commit_size(self, commit_size: int) -> None:
        self._check_open()
        invariant(commit_size <= self._size, f"commit size {commit_size} beyond size {self._size}")
        self._commit_size = max(self._commit_size, commit_size)

    def truncate(self, size: int) -> Tree:
        self._check_open()
        check_truncate(size, log_size=self._size, commit_size=self._commit_size)
        at = bisect_left(self._starts, size)
        begins = self._starts[at : at + 1] == [size]
        invariant(begins or size == self._size, f"truncate to {size}: no batch begins there")
        for batch in self._batches[at:]:
            for leaf in self._decode(batch.body).leaves:
                del self._ids[parse_leaf(leaf).id]
        del self._batches[at:], self._starts[at:]
        self._tiles = {(t.level, t.index): t.hashes for t in self._tiles_left(size)}
        return self._tree()

    def _tiles_left(self, size: int) -> list[Tile]:
        edge = {level: (index, length) for level, index, length in partial_tiles(size)}
        left = []
        for (level, index), hashes in self._tiles.items():
            end, length = edge.get(level, (0, 0))
            if index < end:
                left.append(Tile(level, index, hashes))
            elif index == end and level and length:
                left.append(Tile(level, index, hashes[: length * HASH_BYTES]))
        return left

    def _tree(self) -> Tree:
        return restore_tree(self._size, tile=self.tile, leaf_hashes=self._leaf_hashes)

    def _leaf_hashes(self, start: int, stop: int) -> list[bytes]:
        if start >= stop:
            return []
        hashes: list[bytes] = []
        for batch in self._batches[self._index_of(start) : bisect_left(self._starts, stop)]:
            leaves = self._decode(batch.body).leaves
            hashes += leaf_hashes(leaves[max(start - batch.first_offset, 0) : stop - batch.first_offset])
        return hashes

    def _index_of(self, offset: int) -> int:
        """Of the batch that holds ``offset``; at the end of the log, of none."""
        if offset >= self._size:
            return len(self._batches)
        return max(bisect_right(self._starts, offset) - 1, 0)

    def read(self, from_offset: int, *, max_bytes: int, until_offset: int | None = None) -> list[Batch]:
        return self._read(from_offset, max_bytes, until_offset, lambda batch: True)

    def read_time(
        self, from_offset: int, *, since_ms: int, until_ms: int, max_bytes: int, until_offset: int
    ) -> list[Batch]:
        return self._read(from_offset, max_bytes, until_offset, lambda batch: since_ms <= batch.time_ms < until_ms)

    def _read(
        self, from_offset: int, max_bytes: int, until_offset: int | None, wanted: Callable[[Batch], bool]
    ) -> list[Batch]:
        self._check_open()
        found: list[Batch] = []
        room = max_bytes
        for at in range(self._index_of(from_offset), len(self._batches)):
            batch = self._batches[at]
            if until_offset is not None and batch.first_offset >= until_offset:
                break
            if wanted(batch):
                found.append(batch)
                room -= len(batch.body)
                if room <= 0:
                    break
        return found

    def find_ids(self, ids: Sequence[str]) -> dict[str, int]:
        self._check_open()
        return {message_id: self._ids[message_id] for message_id in ids if message_id in self._ids}

    def tile(self, level: int, index: int) -> bytes | None:
        self._check_open()
        return self._tiles.get((level, index))

    def root_at(self, size: int) -> bytes:
        self._check_open()
        invariant(0 <= size <= self._size, f"no root at size {size}: the log has {self._size} records")
        return stored_root_at(size, log_size=self._size, tile=self.tile, leaf_hashes=self._leaf_hashes)

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        invariant(not self._closed, "the store is closed")
