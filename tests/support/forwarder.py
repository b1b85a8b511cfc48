"""A TCP forwarder, for a server to see a client come from another address of this machine, or over a slow line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def coming_from(source: str, address: str, *, late_s: float = 0.0) -> AsyncIterator[str]:
    """An address that leads to ``address``, which sees whoever connects to it come from ``source``, and whatever is
    sent over it come ``late_s`` later."""
    host, _, port = address.rpartition(":")
    passing: set[asyncio.Task[None]] = set()

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        for way in (_pass(reader, onward[1], late_s), _pass(onward[0], writer, late_s)):
            passing.add(asyncio.create_task(way))

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late_s: float) -> None:
    try:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(late_s)
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()
