"""Connections: one gRPC channel to each node, and what a failed call means.

Owns channel options, the token and the way from a gRPC error to a service error. Must not know frames or records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, cast
from weakref import WeakSet

import grpc
import grpc.aio

from replicad.client.settings import stays_here
from replicad.client.tls import ClientTls
from replicad.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from replicad.tasks import Readable, is_cancelled, next_message
from replicad.tlserrors import explain
from replicad.wire.codec import error_from_trailer

DETAILS_TRAILER = "grpc-status-details-bin"
CONNECT_TIMEOUT_S = 2.0  # within a caller's timeout of some seconds there must be time to try another node

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.enable_http_proxy", 0),  # nodes are dialled directly, whatever the environment says
    ("grpc.enable_retries", 0),  # retries are ours, with the same ids
    ("grpc.max_receive_message_length", -1),  # a record's payload may have 64 MiB; the server limits a response
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # no client waits in another's reconnect backoff
    ("grpc.initial_reconnect_backoff_ms", 50),  # a restarted node is found again quickly
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),  # this is gRPC's connect timeout
    ("grpc.keepalive_time_ms", 10_000),  # notices a peer that vanished without a word
    ("grpc.keepalive_timeout_ms", 5_000),
]


def _as_is(data: bytes) -> bytes:
    """The serializer both ways: requests and responses are bytes already."""
    return data


class ResponseStream(Readable, Protocol):
    """What we use of a grpc.aio call that streams responses."""

    def cancel(self) -> bool: ...


class DuplexStream(ResponseStream, Protocol):
    """What we use of a grpc.aio call that streams both ways."""

    def write(self, request: bytes) -> Awaitable[None]: ...
    def done_writing(self) -> Awaitable[None]: ...
    def wait_for_connection(self) -> Awaitable[None]: ...


class Connection:
    """A channel to one node. To be made and used inside a running loop.

    1. Closing it ends every call on it. gRPC itself does so in some of its releases only.
    """

    def __init__(self, address: str, token: str, tls: ClientTls | None = None) -> None:
        self.address = address
        if tls is None:
            self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address, tls.credentials, options=CHANNEL_OPTIONS)
        # An address that a node has named may be elsewhere, though those in the settings are not.
        token = token if tls is not None or stays_here(address) else ""
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._tls = tls
        self._calls: WeakSet[ResponseStream | grpc.aio.UnaryUnaryCall[bytes, bytes]] = WeakSet()

    async def call(self, method: str, request: bytes, *, timeout_s: float) -> bytes:
        """A single request and its response. Raises ServiceError."""
        call = self._channel.unary_unary(method, _as_is, _as_is)(request, timeout=timeout_s, metadata=self._metadata)
        self._calls.add(call)
        try:
            return await call
        except grpc.aio.AioRpcError as exc:
            raise service_error(exc, self.address, self._tls) from exc
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise closed_error(self.address) from None

    def stream(self, method: str, request: bytes) -> ResponseStream:
        """A call whose responses are read one by one, as bytes."""
        stream = cast(
            ResponseStream, self._channel.unary_stream(method, _as_is, _as_is)(request, metadata=self._metadata)
        )
        self._calls.add(stream)
        return stream

    def duplex(self, method: str) -> DuplexStream:
        """A call that streams both ways, bytes in and out."""
        stream = cast(DuplexStream, self._channel.stream_stream(method)(metadata=self._metadata))
        self._calls.add(stream)
        return stream

    async def close(self) -> None:
        for call in list(self._calls):
            call.cancel()
        await self._channel.close()


def closed_error(address: str) -> Unavailable:
    """What a CancelledError of a call means that nobody has cancelled: with the client, or because the TLS files have
    changed twice, its connection was closed."""
    return Unavailable(f"{address}: the connection was closed")


class Connections:
    """The client's connections by address, made on first use, and anew when the TLS files are other ones.

    1. Calls under way on a connection from before go on: it is closed when the files change once more.
    2. Once closed, it makes no more.
    """

    def __init__(self, token: str, tls: ClientTls | None = None) -> None:
        self._token, self._tls = token, tls
        self._by_address: dict[str, Connection] = {}
        self._before: list[Connection] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None  # in which all of them are used

    def to(self, address: str) -> Connection:
        """Raises Unavailable when the client was closed, RuntimeError in another event loop than before."""
        if self._closed:
            raise Unavailable("the client was closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this client is used in another event loop already: make one for each")
        if self._tls is not None and self._tls.renewed():
            self._retire()
        connection = self._by_address.get(address)
        if connection is None:
            connection = self._by_address[address] = Connection(address, self._token, self._tls)
        return connection

    async def read(self, stream: ResponseStream, address: str) -> bytes | None:
        """The next response of a call to ``address``, or None at the stream's good end. Raises ServiceError."""
        try:
            response = await next_message(stream)
        except grpc.aio.AioRpcError as exc:
            raise self.error(exc, address) from exc
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            raise closed_error(address) from None
        return None if response is grpc.aio.EOF else cast(bytes, response)

    def error(self, exc: grpc.aio.AioRpcError, address: str) -> ServiceError:
        """What the failure of a call to ``address`` means."""
        return service_error(exc, address, self._tls)

    def _retire(self) -> None:
        for connection in self._before:
            closing = asyncio.get_running_loop().create_task(connection.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._before, self._by_address = list(self._by_address.values()), {}

    async def close(self) -> None:
        self._closed = True
        connections = [*self._by_address.values(), *self._before]
        self._by_address, self._before = {}, []
        await asyncio.gather(*(connection.close() for connection in connections))


#: What a gRPC status means that comes without our own detail: from the transport, or from a server that is not ours.
_BY_STATUS: dict[grpc.StatusCode, type[ServiceError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.INVALID_ARGUMENT: BadRequest,
    grpc.StatusCode.UNIMPLEMENTED: BadRequest,
}


def service_error(exc: grpc.aio.AioRpcError, address: str, tls: ClientTls | None = None) -> ServiceError:
    """What a failed call means: the server's own word where its trailer has one, else by gRPC status.

    ``tls`` is what the connection was made with.
    Without the server's word an error says nothing about frames that were sent before it: that is the caller's part.
    """
    for key, value in exc.trailing_metadata() or ():
        if key == DETAILS_TRAILER and isinstance(value, bytes):
            error = error_from_trailer(value)
            if error is not None:
                return error
    status, text = exc.code(), f"{address}: {exc.details() or exc.code().name}"
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:  # gRPC's own limit on a message
        return TooLarge(text)
    if status is grpc.StatusCode.UNAVAILABLE:
        meaning = explain(text, secure=tls is not None, certificate=tls is not None and tls.shows_certificate)
        text = f"{address}: {meaning} ({exc.details()})" if meaning else text
    return _BY_STATUS.get(status, InternalError)(text)
