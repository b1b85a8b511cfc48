"""Which ids are new: an exact answer from memory for almost every post, without a look at the disk.

Owns the newest ids. Must not know of the index on disk: it only says when that has to be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from replicad.core.record import RESERVED_ID_PREFIX


class RecentIds:
    """The ids of the newest records, and the greatest id among all older ones.

    An id greater (in string order) than every older one cannot be among them. The library's ids are UUIDv7, which rise
    with time, so that the disk is asked only about ids that come late, that people chose, or that are retried.

    1. Every id in the log or admitted to it is in ``_offsets``, or is reserved, or is not greater than ``_floor``.
    2. From :meth:`hold` to :meth:`release` nothing is forgotten that the answer from disk may not know of.
    """

    __slots__ = ("_floor", "_held", "_limit", "_offsets")

    def __init__(self, *, limit: int, greatest_id: str) -> None:
        self._limit = limit
        self._offsets: dict[str, int] = {}  # in the order they were admitted
        self._floor = greatest_id
        self._held: dict[int, int] = {}  # stored size when the disk was asked, by ticket

    def all_new(self, ids: Sequence[str]) -> bool:
        """Whether none of these ids is in the log and none stands twice among them: known without the disk."""
        return min(ids) > self._floor and self._offsets.keys().isdisjoint(ids) and len(set(ids)) == len(ids)

    def get(self, message_id: str) -> int | None:
        return self._offsets.get(message_id)

    def may_be_older(self, message_id: str) -> bool:
        """Whether only the index on disk can tell about an id that :meth:`get` does not know."""
        return message_id <= self._floor

    def add(self, ids: Sequence[str], first_offset: int) -> None:
        self._offsets.update(zip(ids, range(first_offset, first_offset + len(ids)), strict=True))

    def came_in(self, ids: Sequence[str]) -> None:
        """These came into the log by no post (an opening master fetched them): only the disk can tell about them."""
        self._floor = max(self._floor, max((i for i in ids if not i.startswith(RESERVED_ID_PREFIX)), default=""))

    def remove(self, ids: Sequence[str]) -> None:
        """Take back ids whose records never came into the log."""
        for message_id in ids:
            del self._offsets[message_id]

    def hold(self, ticket: int, *, stored_size: int) -> None:
        """An answer from disk for this ticket will know of the records below ``stored_size``, perhaps of no others."""
        self._held[ticket] = stored_size

    def release(self, ticket: int) -> None:
        self._held.pop(ticket, None)

    def trim(self, *, stored_size: int) -> None:
        """Forget the oldest beyond the limit, of those that every answer from disk, present or to come, knows of."""
        excess = len(self._offsets) - self._limit
        if excess <= self._limit // 4:  # in lots: one by one costs more than it frees
            return
        known_size = min(self._held.values(), default=stored_size)
        oldest = [(i, offset) for i, offset in islice(self._offsets.items(), excess) if offset < known_size]
        if not oldest:
            return
        self._floor = max(self._floor, max(oldest)[0])
        for message_id, _ in oldest:
            del self._offsets[message_id]
