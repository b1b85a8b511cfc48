"""What is read for callers that have not taken it yet: each principal has so much room, and who takes nothing of what
it asks for waits for itself alone.

Owns the counts and the order of those who wait. Must not know what is read.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from types import TracebackType
from typing import Self


class Room:
    """1. A principal's calls hold ``limit_bytes`` together at the most, but for what a single one needs.
    2. Who waits gets room in the order in which they came, and never waits for another principal.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, OrderedDict[Share, tuple[int, asyncio.Future[None]]]] = {}

    def share(self, name: str) -> Share:
        """Of a call of the principal ``name``; to be left when the call is over."""
        return Share(self, name)

    async def wait(self, share: Share, size_bytes: int) -> None:
        """Until the share holds so much more, or is over: then CancelledError."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(share.name, OrderedDict())[share] = (size_bytes, granted)
        self._grant(share.name)
        await granted

    def change(self, share: Share, size_bytes: int) -> None:
        """The share holds so much more; less than nothing: less."""
        share.held_bytes += size_bytes
        self._held[share.name] += size_bytes
        self._grant(share.name)

    def leave(self, share: Share) -> None:
        """The share is over, and holds nothing."""
        _, granted = self._waiting.get(share.name, OrderedDict()).pop(share, (0, None))
        if granted is not None:
            granted.cancel()
        self.change(share, -share.held_bytes)

    def _grant(self, name: str) -> None:
        waiting = self._waiting.get(name, OrderedDict())
        while waiting:
            share, (size_bytes, granted) = next(iter(waiting.items()))
            held_bytes = self._held[name]
            if held_bytes and held_bytes + size_bytes > self._limit_bytes:
                return
            del waiting[share]
            share.held_bytes += size_bytes
            self._held[name] += size_bytes
            if not granted.done():
                granted.set_result(None)
        self._waiting.pop(name, None)
        if not self._held[name]:
            del self._held[name]


class Share:
    """What a call holds, which waits for one part of it at a time. 1. Outside of the block it holds nothing."""

    def __init__(self, room: Room, name: str) -> None:
        self._room, self.name = room, name
        self.held_bytes = 0
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        self._room.leave(self)

    async def take(self, size_bytes: int) -> None:
        """Wait for so much room. CancelledError when the call is over."""
        if self._over:
            raise asyncio.CancelledError
        await self._room.wait(self, size_bytes)

    def give(self, size_bytes: int) -> None:
        """So much of it is not needed any more; less than nothing: more was needed."""
        if not self._over:
            self._room.change(self, -size_bytes)
