"""The newest batches in memory, so that workers that are level are not fed from disk.

Owns what is kept and what is dropped. Must not know of workers.
"""

from __future__ import annotations

from collections import deque

from replicad.core.batch import Batch


class RecentBatches:
    """1. Batches are consecutive and end at the log's tip.
    2. What is not on disk yet is never dropped; beyond that, ``limit_bytes`` of bodies are kept at the most.
    """

    __slots__ = ("_batches", "_by_offset", "_bytes", "_limit_bytes", "_roots")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._batches: deque[Batch] = deque()
        self._by_offset: dict[int, Batch] = {}
        self._roots: dict[int, bytes] = {}

    @property
    def size_bytes(self) -> int:
        """Of the bodies held."""
        return self._bytes

    def add(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._by_offset[batch.first_offset] = batch
        self._roots[batch.end] = batch.root
        self._bytes += len(batch.body)

    def trim(self, *, stored_size: int) -> None:
        """Drop the oldest beyond the limit that are on disk."""
        while self._bytes > self._limit_bytes and self._batches[0].end <= stored_size:
            oldest = self._batches.popleft()
            del self._by_offset[oldest.first_offset], self._roots[oldest.end]
            self._bytes -= len(oldest.body)

    def beginning_at(self, offset: int) -> Batch | None:
        return self._by_offset.get(offset)

    def root_at(self, size: int) -> bytes | None:
        """The tree's root where one of these batches ends."""
        return self._roots.get(size)

    def clear(self) -> None:
        self._batches.clear()
        self._by_offset.clear()
        self._roots.clear()
        self._bytes = 0
