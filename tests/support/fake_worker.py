"""A worker that does whatever a test wants, in every stream that a master opens to its address.

Owns a port with Replicate on it. Must not know what the master should make of what it says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from replicad.wire.codec import decode_master_frame, encode_worker_frame

#: What a fake worker does with a stream: it is given ways to hear a frame and to say one.
Behaviour = Callable[[Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


@asynccontextmanager
async def fake_worker(
    address: str, behave: Behaviour, *, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[None]:
    """Behaves so in every stream that the master opens at ``address``; ``credentials``: with TLS."""

    async def replicate(_: object, context: Any) -> None:
        async def hear() -> Any:
            data = await context.read()
            return None if data is aio.EOF else decode_master_frame(data)

        async def say(frame: Any) -> None:
            await context.write(frame if isinstance(frame, bytes) else encode_worker_frame(frame))

        await behave(hear, say)

    server = aio.server()
    methods: dict[str, Any] = {"Replicate": grpc.stream_stream_rpc_method_handler(replicate)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("replicad.wire.v1.Replication", methods),))
    if credentials is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
