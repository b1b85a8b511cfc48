"""A gRPC call that ends by itself in the very moment in which a task that waits for it is cancelled.

Owns what gRPC 1.51 makes of that: the task hears of the call's end, or of nothing, and not that it is cancelled. Real
calls end so once in a hundred times at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpc import StatusCode, aio

from tests.support.scripted_server import forever


def broken() -> Exception:
    return aio.AioRpcError(StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), details="Socket closed")


def well() -> Exception:
    """What its reader raises when the call ended well."""
    return UnboundLocalError("raw_response")


class EndingCall:
    """What ``end`` makes is raised in who waits; None: nothing is. Only once, so that a test ends."""

    def __init__(self, end: Callable[[], Exception] | None) -> None:
        self._end, self._over = end, False
        self.waited_for = asyncio.Event()

    async def read(self) -> bytes:
        await self._wait()
        return b""

    async def write(self, data: bytes) -> None:
        del data
        await self._wait()

    async def _wait(self) -> None:
        self.waited_for.set()
        try:
            await forever()
        except asyncio.CancelledError:
            if self._over:
                raise
            self._over = True
            if self._end is not None:
                raise self._end() from None

    def cancel(self) -> bool:
        return False
