"""One who stands between a master and a worker, and does what he likes with what the master says.

Owns a port that the master takes for the worker's, and a stream to the worker for each that the master opens. Must not
know what either makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, cast

import grpc
from grpc import aio

from replicad.wire.v1 import replication_pb2 as pb
from tests.support.fake_master import REPLICATE
from tests.support.rawlog import OPTIONS

#: What becomes of an Append of the master's: the frames that go on to the worker in its place.
Meddle = Callable[[pb.MasterFrame], Iterable[pb.MasterFrame]]


def honest(frame: pb.MasterFrame) -> Iterable[pb.MasterFrame]:
    return (frame,)


class Middleman:
    """Listens at ``address``, passes everything on to ``worker`` and back, and meddles with every batch."""

    def __init__(self, address: str, worker: str) -> None:
        self._worker = worker
        self.meddle: Meddle = honest
        self.meddled = 0  # batches that did not go on as they came
        self._server = aio.server(options=OPTIONS)
        methods: dict[str, Any] = {"Replicate": grpc.stream_stream_rpc_method_handler(self._replicate)}
        handler = grpc.method_handlers_generic_handler("replicad.wire.v1.Replication", methods)
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(address)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(0)

    async def _replicate(self, _: object, context: Any) -> None:
        metadata = [pair for pair in context.invocation_metadata() if pair[0] == "authorization"]
        async with aio.insecure_channel(self._worker, options=OPTIONS) as channel:
            replicate: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REPLICATE)
            call = replicate(metadata=metadata)
            onward = asyncio.create_task(self._onward(context, call))
            try:
                with contextlib.suppress(aio.AioRpcError):  # the worker's end of it: told to the master as an end
                    while (data := await call.read()) is not aio.EOF:
                        await context.write(data)
            finally:
                onward.cancel()
                call.cancel()

    async def _onward(self, context: Any, call: Any) -> None:
        with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):  # the worker has hung up
            while (data := await context.read()) is not aio.EOF:
                frame = pb.MasterFrame.FromString(cast(bytes, data))
                frames = [frame]
                if frame.WhichOneof("kind") == "append":
                    frames = list(self.meddle(frame))
                    self.meddled += frames != [frame]
                for each in frames:
                    await call.write(each.SerializeToString())
            await call.done_writing()
