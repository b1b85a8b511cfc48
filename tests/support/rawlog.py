"""One node, spoken to call by call: every answer as the wire has it, no retry, no other node, nothing hidden.

For tests of what a node answers. What a program does with a cluster is :class:`replicad.client.AsyncClient`.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self, cast

import grpc
from grpc import aio

from replicad.core.record import encode_headers
from replicad.errors import ServiceError
from replicad.wire.codec import (
    PostFrameResult,
    Record,
    decode_list_response,
    decode_post_results,
    encode_post_frame,
    error_from_trailer,
)
from replicad.wire.v1 import log_pb2 as pb

LOG = "/replicad.wire.v1.Log"
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]
CALL_S = 60.0  # no call of a test waits longer: a node that hangs is a failure, not a test that does


class Posted(NamedTuple):
    """A PostResponse."""

    code: int
    name: str
    offset: int
    duplicate: bool
    nodes: int


class Page(NamedTuple):
    """What a List gave."""

    commit_size: int
    records: list[Record]


def new_id() -> str:
    """An id that nobody has used."""
    return str(uuid.uuid4())


def fault_of(error: aio.AioRpcError) -> ServiceError | None:
    """The service's own word in an error's trailer; None where there is none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return error_from_trailer(value)
    return None


class RawLog:
    """The Log service of one node. Errors are the ServiceError in the trailer, or the AioRpcError where it has none."""

    def __init__(self, address: str, *, token: str = "", credentials: grpc.ChannelCredentials | None = None) -> None:
        """``credentials``: to a node with TLS."""
        self.address = address
        if credentials is None:
            self.channel = aio.insecure_channel(address, options=OPTIONS)
        else:
            self.channel = aio.secure_channel(address, credentials, options=OPTIONS)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.channel.close()

    async def call(self, method: str, request: bytes) -> bytes:
        """A unary call of the Log service."""
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"{LOG}/{method}")
        try:
            return await call(request, metadata=self.metadata, timeout=CALL_S, wait_for_ready=True)
        except aio.AioRpcError as exc:
            raise fault_of(exc) or exc from None

    async def post(
        self,
        payload: bytes = b"",
        *,
        id: str | None = None,
        w: str | int = "",
        timeout_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Posted:
        """Post one message."""
        request = pb.PostRequest(
            id=new_id() if id is None else id,
            payload=payload,
            write_concern=str(w),
            timeout_ms=int(timeout_s * 1000),
            headers=headers or {},
        )
        answer = pb.PostResponse.FromString(await self.call("Post", request.SerializeToString()))
        return Posted(answer.code, answer.name, answer.offset, answer.duplicate, answer.nodes)

    async def list(
        self,
        from_offset: int = 0,
        *,
        limit: int = 0,
        level: str = "",
        min_offset: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Page:
        """Read a range; the commit size is the last that the node told."""
        request = pb.ListRequest(
            from_offset=from_offset,
            limit=limit,
            level=level,
            min_offset=min_offset,
            since_ms=since_ms,
            until_ms=until_ms,
        )
        list_call: aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(f"{LOG}/List")
        commit_size, records = 0, []
        try:
            async for data in list_call(
                request.SerializeToString(), metadata=self.metadata, timeout=CALL_S, wait_for_ready=True
            ):
                commit_size, bodies = decode_list_response(data)
                for body in bodies:
                    records += body
        except aio.AioRpcError as exc:
            raise fault_of(exc) or exc from None
        return Page(commit_size, records)

    async def status(self) -> pb.StatusResponse:
        return pb.StatusResponse.FromString(await self.call("Status", b""))

    async def outcome(self, id: str) -> pb.OutcomeResponse:
        return pb.OutcomeResponse.FromString(await self.call("Outcome", pb.OutcomeRequest(id=id).SerializeToString()))

    def post_stream(self) -> RawPostStream:
        """A PostStream of its own."""
        return RawPostStream(self)


class RawPostStream:
    """A PostStream: frames out, results in as they come."""

    def __init__(self, log: RawLog) -> None:
        call: aio.StreamStreamMultiCallable[bytes, bytes] = log.channel.stream_stream(f"{LOG}/PostStream")
        self.call = call(metadata=log.metadata)
        self._sequences = itertools.count(1)
        self._ready: list[PostFrameResult] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call.cancel()

    async def send(
        self,
        ids: Sequence[str],
        payloads: Sequence[bytes] | None = None,
        *,
        w: str | int = "",
        timeout_s: float = 0.0,
        headers: Sequence[Mapping[str, str]] = (),
    ) -> int:
        """Send a frame; returns its sequence. A message's payload is its id, unless given."""
        sequence = next(self._sequences)
        bodies = [each.encode() for each in ids] if payloads is None else payloads
        encoded = [encode_headers(each) for each in headers]
        await self.call.write(
            encode_post_frame(sequence, ids, bodies, encoded, write_concern=str(w), timeout_ms=int(timeout_s * 1000))
        )
        return sequence

    async def send_bytes(self, data: bytes) -> None:
        await self.call.write(data)

    async def result(self) -> PostFrameResult:
        """The next result, in the order they come. EOFError at the stream's good end."""
        while not self._ready:
            async with asyncio.timeout(CALL_S):
                try:
                    data = await self.call.read()
                except aio.AioRpcError as exc:
                    raise fault_of(exc) or exc from None
            if data is aio.EOF:
                raise EOFError
            self._ready = decode_post_results(cast(bytes, data))
        return self._ready.pop(0)

    async def end(self) -> None:
        """Send no more frames."""
        await self.call.done_writing()


def code_of(error: BaseException) -> str:
    """The gRPC status of an error, by name."""
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else getattr(error, "grpc_status", "")
