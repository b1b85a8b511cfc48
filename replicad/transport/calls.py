"""What every call to this node passes through: who calls, how many may, and how an error leaves.

Owns authentication, the call limits and the form of errors. Must not know what the calls do.
"""

from __future__ import annotations

import functools
import hmac
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from replicad.errors import BadRequest, InternalError, RateLimited, ServiceError, Unauthorized, Unavailable
from replicad.logs import Logger
from replicad.wire.codec import status_trailer
from replicad.wire.parsing import M, ParseError, parse

Context = Any  # grpc.aio.ServicerContext; its type arguments add nothing here

STATUS_TRAILER = "grpc-status-details-bin"
ANONYMOUS = "anonymous"  # author of records when no token is asked for
SHARED_TOKEN = "token"  # noqa: S105 - author of records posted with the shared token: a name, not the token
_CODES = {code.name: code for code in grpc.StatusCode}


class Session:
    """A call for as long as it lasts. ``over``: why it is to end, once that is so."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = ""

    def close(self) -> None:
        """The call has come to its end."""


class Gate:
    """Lets a call in, or not.

    ``token``: the shared bearer token, "" for none. At most ``streams`` calls at a time from one connection and calls
    from ``connections`` connections.
    """

    def __init__(
        self,
        *,
        token: str,
        streams: int,
        connections: int,
        log: Logger,
        admit: Callable[[Context], Session] = lambda _: Session(),
    ) -> None:
        """``admit`` looks at a call's connection before anything else is looked at, and raises Unauthorized."""
        self._admit = admit
        self._expected = f"Bearer {token}".encode() if token else b""
        self._streams, self.connections = streams, connections
        self._calls: Counter[str] = Counter()
        self._log = log

    def author(self, context: Context) -> str:
        """The authenticated principal. Raises Unauthorized; a missing token looks like a wrong one."""
        if not self._expected:
            return ANONYMOUS
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not hmac.compare_digest(given.encode(), self._expected):
            raise Unauthorized("a bearer token is needed: set AUTH_TOKEN, or send `authorization: Bearer TOKEN`")
        return SHARED_TOKEN

    def enter(self, peer: str) -> None:
        if self._calls[peer] >= self._streams:
            raise RateLimited(f"this connection has {self._streams} calls under way (limits.streams)", retry_after_s=1)
        if not self._calls[peer]:
            del self._calls[peer]
            if len(self._calls) >= self.connections:
                text = f"{self.connections} connections have calls under way (limits.connections)"
                raise RateLimited(text, retry_after_s=1)
        self._calls[peer] += 1

    def leave(self, peer: str) -> None:
        self._calls[peer] -= 1
        if self._calls[peer] <= 0:
            del self._calls[peer]

    async def fail(self, context: Context, exc: BaseException) -> None:
        """End the call with an error that the caller can take apart; ours to mend are logged, and say no more."""
        if not isinstance(exc, ServiceError):
            self._log.error("call_failed", f"{type(exc).__name__} in a call", exc=exc)
            exc = InternalError("the node failed in this call; its log says why")
        context.set_trailing_metadata(((STATUS_TRAILER, status_trailer(exc)),))
        await context.abort(_CODES[exc.grpc_status], exc.message)

    def unary(
        self, call: Callable[[bytes, str], Awaitable[bytes]], *, open_to_all: bool = False
    ) -> Callable[[bytes, Context], Awaitable[bytes | None]]:
        """A handler of one request and one answer: ``call(request, author)``.

        ``open_to_all``: no token is asked for, and no limit holds: a probe must get through to a node that is full.
        """

        @functools.wraps(call)
        async def handler(request: bytes, context: Context) -> bytes | None:
            peer, entered = context.peer(), False
            try:
                if not open_to_all:
                    self._admit(context).close()
                author = ANONYMOUS if open_to_all else self.author(context)
                if not open_to_all:
                    self.enter(peer)
                    entered = True
                return await call(request, author)
            except Exception as exc:  # whatever it is: its text is for our log, not for the caller
                await self.fail(context, exc)
            finally:
                if entered:
                    self.leave(peer)
            return None

        return handler

    def streaming(
        self,
        call: Callable[[Any, Context, str], AsyncGenerator[bytes, None]],
        *,
        open_to_all: bool = False,
        limited: bool = True,
    ) -> Callable[[Any, Context], AsyncIterator[bytes]]:
        """A handler that answers with a stream: ``call(request or requests, context, author)``.

        ``limited=False``: no limit holds, though a token is asked for: clients must not keep the master out.
        """

        @functools.wraps(call)
        async def handler(request: Any, context: Context) -> AsyncIterator[bytes]:
            peer, entered, session = context.peer(), False, Session()
            try:
                if not open_to_all:
                    session = self._admit(context)
                author = ANONYMOUS if open_to_all else self.author(context)
                if limited and not open_to_all:
                    self.enter(peer)
                    entered = True
                async with aclosing(call(request, context, author)) as responses:
                    async for response in responses:
                        yield response
                        if session.over:
                            raise Unavailable(session.over)
            except Exception as exc:
                await self.fail(context, exc)
            finally:
                session.close()
                if entered:
                    self.leave(peer)

        return handler


def parse_request(kind: type[M], data: bytes) -> M:
    """A client's request. Raises BadRequest."""
    try:
        return parse(kind, data)
    except ParseError as exc:
        raise BadRequest(f"{exc}; see replicad/wire/v1/log.proto") from exc


def options(*, message_bytes: int, streams: int) -> list[tuple[str, Any]]:
    """Channel arguments of the server: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
    return [
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", streams),
        ("grpc.so_reuseport", 0),  # a second daemon on the port must fail, not share it
        ("grpc.keepalive_time_ms", 20_000),  # a client whose machine is gone is found out
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 5),
    ]
