"""A node's own log as its machine sees it: how far it is appended, stored and committed.

Owns these sizes and the order they keep. Must not know of peers.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.batch import Append
from replicad.core.recent import RecentBatches
from replicad.core.start import EpochRecord, StoreState
from replicad.core.tree import EMPTY_ROOT, Tree
from replicad.core.voters import EpochLists, VoterList, parse_lists, standing
from replicad.errors import DamagedError, invariant


@dataclass(slots=True)
class OwnLog:
    """1. commit_size <= stored_size <= tip; commit_size never falls."""

    tree: Tree  # over everything appended, on disk or not
    stored_size: int
    commit_size: int
    last_epoch: int  # of the last record appended; 0 for none
    recent: RecentBatches
    epoch_offset: int = -1  # of the last epoch's first record; -1 for none
    lists: EpochLists | None = None  # what that record says of voters
    roots_asked: int = 0  # of the disk, and not answered yet: nothing is truncated meanwhile

    @classmethod
    def restore(cls, start: StoreState, cache_bytes: int) -> OwnLog:
        offset, lists = _said(start.epoch_record)
        recent = RecentBatches(cache_bytes)
        return cls(start.tree, start.size, start.commit_size, start.last_epoch, recent, offset, lists)

    @property
    def tip(self) -> int:
        """Records appended, on disk or not."""
        return self.tree.size

    def appended(self, append: Append, tree: Tree) -> None:
        if append.batch.epoch > self.last_epoch:
            self.epoch_offset, self.lists = append.batch.first_offset, append.lists
        self.tree, self.last_epoch = tree, append.batch.epoch
        self.recent.add(append.batch)

    def stored(self, size: int) -> None:
        invariant(
            self.stored_size <= size <= self.tip, f"stored {size} is not between {self.stored_size} and {self.tip}"
        )
        self.stored_size = size
        self.recent.trim(stored_size=size)

    def commit(self, size: int) -> None:
        invariant(size <= self.stored_size, f"commit size {size} passes what is on disk, {self.stored_size}")
        self.commit_size = max(self.commit_size, size)

    def reset(self, tree: Tree, last_epoch: int, epoch_record: EpochRecord | None) -> None:
        """The log is what is on disk, which ends where ``tree`` does."""
        invariant(
            tree.size >= self.commit_size, f"the log ends at {tree.size}, below its commit size {self.commit_size}"
        )
        self.tree, self.stored_size, self.last_epoch = tree, tree.size, last_epoch
        self.epoch_offset, self.lists = _said(epoch_record)
        self.recent.clear()

    def standing_lists(self, configured: VoterList) -> tuple[VoterList, ...]:
        """The lists of voters that a master which opens on this log must respect."""
        return standing(self.lists, committed=self.epoch_offset < self.commit_size, configured=configured)

    def known_root(self, size: int) -> bytes | None:
        """The root at that size where memory holds it."""
        if size == self.tree.size:
            return self.tree.root()
        return self.recent.root_at(size) if size else EMPTY_ROOT


def _said(record: EpochRecord | None) -> tuple[int, EpochLists | None]:
    """An epoch record's offset, and what it says of voters. Raises DamagedError: it was good when it was stored."""
    if record is None:
        return -1, None
    try:
        return record.offset, parse_lists(record.payload)
    except ValueError as exc:
        raise DamagedError(f"the epoch record at offset {record.offset} is no list of voters: {exc}") from exc
