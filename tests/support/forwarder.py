"""A TCP forwarder, for a server to see a client come from another address of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def coming_from(source: str, address: str) -> AsyncIterator[str]:
    """An address that leads to ``address``, which sees whoever connects to it come from ``source``."""
    host, _, port = address.rpartition(":")
    passing: set[asyncio.Task[None]] = set()

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
        for task in (asyncio.create_task(_pass(reader, onward[1])), asyncio.create_task(_pass(onward[0], writer))):
            passing.add(task)

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()
