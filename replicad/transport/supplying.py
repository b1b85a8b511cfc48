"""Batches: what is committed, as it was signed, for another node that lost it; End: how far it must go. And the asking.

Owns the calls on both sides. Must not judge what comes: who asks checks each batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from grpc import aio

from replicad.config import Config
from replicad.core.batch import Batch
from replicad.core.frames import Supply
from replicad.errors import BadRequest, PeerError, Unavailable
from replicad.runtime import Runtime
from replicad.tasks import next_message
from replicad.transport.calls import STATUS_TRAILER, Context, parse_request
from replicad.transport.links import connect, open_channel
from replicad.transport.reading import confirm_master
from replicad.transport.tls import NodeTls
from replicad.wire.codec import decode_worker_frame, encode_worker_frame, error_from_trailer
from replicad.wire.parsing import MAX_PLACE, parse_peer
from replicad.wire.v1 import replication_pb2 as pb

BATCHES = "/replicad.wire.v1.Replication/Batches"
END = "/replicad.wire.v1.Replication/End"
MOST_BYTES = 256 << 20  # held in memory until all of it is proven
SILENT_S = 10.0  # of the node that is asked
END_WAIT_S = 4.0  # for each of the two things that End waits for: less than that together


class Supplying:
    def __init__(self, runtime: Runtime, config: Config) -> None:
        self._runtime, self._config = runtime, config

    def configure(self, config: Config) -> None:
        """Go by ``config`` from the next call on."""
        self._config = config

    async def batches(self, request: bytes, context: Context, author: str) -> AsyncGenerator[bytes, None]:
        """The handler of Batches."""
        del context, author
        query, runtime = parse_request(pb.BatchesRequest, request), self._runtime
        self._is_ours(query.cluster)
        end = min(query.until_offset, await runtime.visible_size("committed"))
        offset = min(query.from_offset, MAX_PLACE)
        while offset < end and (batches := await self._read(offset, end)):
            yield encode_worker_frame(Supply(batches, end))
            offset = batches[-1].end

    async def end(self, request: bytes, author: str) -> bytes:
        """The handler of End."""
        del author
        self._is_ours(parse_request(pb.EndRequest, request).cluster)
        runtime, wait_s = self._runtime, min(self._config.timeouts.read_wait_s, END_WAIT_S)
        size = runtime.machine.log.tip  # who asks may have been the first that had the newest of it on disk
        await confirm_master(runtime, self._config, "where the log ends", wait_s)
        if not await runtime.wait_for_size("committed", size, wait_s):
            committed = runtime.machine.log.commit_size
            raise Unavailable(f"{committed} of {size} records are committed, and no more were within {wait_s:g} s")
        return pb.EndResponse(size=size).SerializeToString()

    def _is_ours(self, cluster: str) -> None:
        if cluster != self._config.cluster:
            raise BadRequest(f"this node is of cluster {self._config.cluster!r}, not {cluster[:64]!r}")

    async def _read(self, offset: int, end: int) -> tuple[Batch, ...]:
        store, max_bytes = self._runtime.store, self._config.limits.read_bytes
        found = await self._runtime.read(lambda: store.read(offset, max_bytes=max_bytes, until_offset=end))
        return tuple(batch for batch in found if batch.end <= end)


class Fetching:
    """Asks one node, on a connection of its own."""

    def __init__(self, config: Config, *, tls: NodeTls | None) -> None:
        self._config, self._tls = config, tls

    async def batches(self, name: str, start: int, end: int) -> Sequence[Batch]:
        """The committed batches of node ``name`` that hold offsets ``start`` to ``end - 1``, as many as it has; of more
        than MOST_BYTES the first.

        Raises ServiceError: it is not reached, or refuses; PeerError: what it sent is no answer.
        """
        request = pb.BatchesRequest(cluster=self._config.cluster, from_offset=start, until_offset=end)
        batches, size = list[Batch](), 0
        async with self._connected(name) as channel:
            ask: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(BATCHES)
            call = ask(request.SerializeToString(), metadata=self._metadata)
            while size <= MOST_BYTES:
                async with asyncio.timeout(SILENT_S):
                    data = await next_message(call)
                if data is aio.EOF:
                    break
                taken = _taken(data)
                batches += taken
                size += sum(len(batch.body) for batch in taken)
        return batches

    async def end(self, name: str) -> int:
        """How many records the log has, of which any node may have acknowledged something, by the master ``name``.

        Raises ServiceError: it is not reached, is not the master, or no majority is there now; PeerError.
        """
        request = pb.EndRequest(cluster=self._config.cluster).SerializeToString()
        async with self._connected(name) as channel:
            ask: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(END)
            async with asyncio.timeout(SILENT_S):
                data = await ask(request, metadata=self._metadata)
        return parse_peer(pb.EndResponse, data).size

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._config.auth_token
        return (("authorization", f"Bearer {token}"),) if token else ()

    @asynccontextmanager
    async def _connected(self, name: str) -> AsyncIterator[aio.Channel]:
        """A connection to that node. What fails in the block is raised as ServiceError."""
        node = next(node for node in self._config.nodes if node.name == name)
        address = node.mutual_address if self._tls else node.address
        async with open_channel(address, name, self._tls.channel_credentials() if self._tls else None) as channel:
            try:
                async with asyncio.timeout(SILENT_S):
                    await connect(channel, address)
                yield channel
            except aio.AioRpcError as exc:
                metadata_of_end = dict(tuple(exc.trailing_metadata() or ()))
                told = error_from_trailer(bytes(metadata_of_end.get(STATUS_TRAILER, b"")))
                raise told or Unavailable(f"{exc.code().name}: {exc.details()}") from exc
            except ConnectionError as exc:
                raise Unavailable(str(exc)) from exc
            except TimeoutError as exc:
                raise Unavailable(f"no answer from {address} within {SILENT_S:g} s") from exc


def _taken(data: object) -> Sequence[Batch]:
    frame = decode_worker_frame(data) if isinstance(data, bytes) else None
    if not isinstance(frame, Supply):
        raise PeerError("malformed", "it answered with what are no batches")
    return frame.batches
