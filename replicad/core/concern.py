"""Write concerns: how many nodes a post asks for, and who waits for how many.

Owns the waiting posts. Must not know what they hold or whom they belong to.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from replicad.errors import BadRequest


def resolve(text: str, *, voters: int) -> int:
    """The number of nodes that a write concern names: "1".."V", "majority" or "all". Raises BadRequest."""
    if text == "majority":
        return voters // 2 + 1
    if text == "all":
        return voters
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= voters:
        return int(text)
    raise BadRequest(
        f"write concern {text[:32]!r} is not to be had: this cluster has {voters} voters; "
        f"use 1 to {voters}, majority or all"
    )


class Waiting:
    """Tickets that wait until ``nodes`` voters have the log up to ``size`` on disk, or until their deadline.

    1. A ticket is given out once, by :meth:`reached` or by :meth:`expired`.
    2. Waiters for one number of nodes are served without a look at those for another.
    """

    __slots__ = ("_by_nodes", "_deadlines", "_open")

    def __init__(self) -> None:
        self._by_nodes: dict[int, list[tuple[int, int]]] = {}  # heaps of (size, ticket)
        self._deadlines: list[tuple[float, int]] = []  # heap
        self._open: set[int] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, ticket: int, *, nodes: int, size: int, deadline: float) -> None:
        self._open.add(ticket)
        heapq.heappush(self._by_nodes.setdefault(nodes, []), (size, ticket))
        heapq.heappush(self._deadlines, (deadline, ticket))

    def reached(self, sizes: Iterable[int]) -> list[int]:
        """Tickets that wait no more, given the size that 1, 2, ... V voters have on disk."""
        done = []
        for nodes, size in enumerate(sizes, start=1):
            heap = self._by_nodes.get(nodes)
            while heap and heap[0][0] <= size:
                ticket = heapq.heappop(heap)[1]
                if ticket in self._open:
                    self._open.remove(ticket)
                    done.append(ticket)
        return done

    def expired(self, now: float) -> list[int]:
        """Tickets whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            ticket = heapq.heappop(self._deadlines)[1]
            if ticket in self._open:
                self._open.remove(ticket)
                late.append(ticket)
        self._forget_closed()
        return late

    def next_deadline(self) -> float:
        """When the next one expires, at the earliest; infinity when nobody waits."""
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else float("inf")

    def discard(self, tickets: Iterable[int]) -> None:
        """These wait no more."""
        self._open.difference_update(tickets)

    def clear(self) -> list[int]:
        """All tickets that still wait."""
        left = sorted(self._open)
        self._open.clear()
        self._by_nodes.clear()
        self._deadlines.clear()
        return left

    def _forget_closed(self) -> None:
        """Rebuild heaps that hold mostly tickets that wait no more, so that memory follows who waits."""
        if len(self._deadlines) > 2 * len(self._open) + 1024:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
        for nodes, heap in self._by_nodes.items():
            if len(heap) > 2 * len(self._open) + 1024:
                self._by_nodes[nodes] = [entry for entry in heap if entry[1] in self._open]
                heapq.heapify(self._by_nodes[nodes])
