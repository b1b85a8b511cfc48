"""The store as the core needs it. Owns the contract; SQLite and the in-memory twin keep it and pass the same tests.

All calls block; the runtime makes the writing ones from one thread of its own. Reading calls may come from other
threads at the same time and see only what is on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from replicad.core.batch import Append, Batch
from replicad.core.start import StoreState
from replicad.core.tree import Tree

__all__ = ["Store", "StoreState"]


class Store(Protocol):
    """A node's log on its disk.

    1. Every writing call is one transaction, on disk when the call returns; when it raises, nothing has changed.
    2. Offsets are gapless; no id stands twice.
    3. ``commit_size`` and ``promised_epoch`` never fall, and ``commit_size <= size``.
    """

    def load(self) -> StoreState: ...

    def append(self, appends: Sequence[Append], *, commit_size: int) -> None:
        """Append batches in order and raise the commit size to ``commit_size`` (a lower one leaves it).

        Raises DuplicateIdError (an id is in the log already, or twice), DiskFullError, DiskFailedError; InvariantError
        when the first batch does not begin at ``size``.
        """

    def check_room(self) -> None:
        """Raises DiskFullError where no records would be taken now."""

    def set_promise(self, epoch: int, master: str) -> None:
        """Raise the promised epoch and say to whom. InvariantError when it would fall, or the same go to another."""

    def set_commit_size(self, commit_size: int) -> None:
        """Raise the commit size; a lower one changes nothing. InvariantError when it is above ``size``."""

    def truncate(self, size: int) -> Tree:
        """Drop all records at ``size`` and beyond; returns the tree that is left.

        ``size`` is where a batch begins, and not below the commit size: InvariantError otherwise. The caller has put
        what is dropped elsewhere first.
        """

    def read(self, from_offset: int, *, max_bytes: int, until_offset: int | None = None) -> list[Batch]:
        """Whole batches in order, from the one that holds ``from_offset``, below ``until_offset``: as many as begin
        within ``max_bytes`` of bodies, at least one where there is one; [] at the end of the log."""

    def read_time(
        self, from_offset: int, *, since_ms: int, until_ms: int, max_bytes: int, until_offset: int
    ) -> list[Batch]:
        """As :meth:`read`, but only batches with since_ms <= time_ms < until_ms."""

    def find_ids(self, ids: Sequence[str]) -> dict[str, int]:
        """The offsets of those ids that are in the log."""

    def tile(self, level: int, index: int) -> bytes | None:
        """The hashes of a tile as stored (it may hold fewer than 256; level 0 only full ones), or None."""

    def root_at(self, size: int) -> bytes:
        """The tree's root over the first ``size`` records (size <= what is on disk)."""

    def close(self) -> None: ...
