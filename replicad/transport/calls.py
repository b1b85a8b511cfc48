"""What every call to this node passes through: who calls, how many may, and how an error leaves.

Owns the call limits and the form of errors; who calls is :mod:`replicad.transport.access`'s to say. Must not know what
the calls do.

Every method is served as a stream of requests, whatever it is to its client: gRPC would read a lone request whole
before we see the call, also of a stranger. So nothing of a call is read before its caller is known.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import grpc
from grpc import aio

from replicad.access import ANONYMOUS, NODES, OPEN, Refused, Rule
from replicad.config import Config
from replicad.errors import BadRequest, InternalError, RateLimited, ServiceError
from replicad.logs import Logger
from replicad.transport.access import Access, Caller, peer_pem
from replicad.transport.guard import Guard, address_of
from replicad.transport.livecalls import LiveCall, LiveCalls
from replicad.wire.codec import status_text, status_trailer
from replicad.wire.parsing import M, ParseError, parse

K = TypeVar("K")
Context = Any  # grpc.aio.ServicerContext; its type arguments add nothing here
UnaryCall = Callable[[bytes, str], Awaitable[bytes]]
StreamingCall = Callable[[Any, Context, str], AsyncGenerator[bytes, None]]

STATUS_TRAILER = "grpc-status-details-bin"
FAIL_S = 1.0  # for an error to be taken by a client that takes nothing; then its call is dropped
OPEN_REQUEST_S = 2.0  # a stranger's request is a few bytes, and the places for strangers are few
OPEN_SHARE = 2  # of those places one address has a half at the most: who checks the node's health from another gets in
_CODES = {code.name: code for code in grpc.StatusCode}


class Gate:
    """Lets a call in, or not.

    At most ``limits.streams`` calls at a time from one connection, calls from ``limits.connections`` connections, and
    ``limits.principal_calls`` calls of one principal; of each method that is open to all ``limits.open_calls``, half of
    them from one address.
    """

    def __init__(self, config: Config, *, log: Logger, admit: Callable[[Context], object] = lambda _: None) -> None:
        """``admit`` looks at a call's connection before anything else is looked at, and raises Unauthorized."""
        limits, timeouts = config.limits, config.timeouts
        self._admit = admit
        self.access = Access(config)
        self._guard = Guard(
            free=limits.auth_failures, waiting=limits.auth_waiting, longest_s=timeouts.auth_delay_s, log=log
        )
        self._live = LiveCalls(self.access.again, stalled_s=timeouts.stalled_s)
        self._config, self._streams = config, limits.streams
        self._calls: Counter[str] = Counter()  # by connection
        self._of_principal: Counter[str] = Counter()
        self._open_calls: Counter[tuple[str, str]] = Counter()  # by method, and by method and address
        self._log = log

    def configure(self, config: Config) -> None:
        """Go by ``config`` from now on; streams whose callers may not go on are ended at once."""
        self._config = config
        self._guard.free, self._guard.longest_s = config.limits.auth_failures, config.timeouts.auth_delay_s
        self._guard.waiting_of_one = config.limits.auth_waiting
        self._live.stalled_s = config.timeouts.stalled_s
        self.access.configure(config)
        self._live.look()

    def end_untrusted(self, believes: Callable[[bytes], bool]) -> None:
        """End the streams on connections whose certificate is not believed any more."""
        self._live.end_untrusted(believes)

    # --- who may come in --------------------------------------------------------------------------------------------

    async def _caller(self, context: Context, rule: Rule) -> Caller:
        """Who calls. Raises ServiceError; 401 is the same whatever is wrong, and waits where there were many."""
        if rule is OPEN:
            return Caller(ANONYMOUS, secure=False, certificate=b"")
        self._admit(context)
        peer = context.peer()
        # A certificate is not to be guessed: whoever else fails at a node's address must not keep the node out.
        by_certificate = rule == NODES and bool(peer_pem(context.auth_context()))
        if not by_certificate:
            self._guard.check(peer)
        try:
            caller = self.access.caller(context, rule)
        except Refused as exc:
            if by_certificate:
                self._guard.check(peer)
            await self._guard.failed(peer, exc)
            raise
        self._guard.succeeded(peer)
        return caller

    def enter(self, peer: str, principal: str) -> None:
        """Raises RateLimited."""
        limits = self._config.limits
        if self._calls[peer] >= self._streams:
            raise RateLimited(f"this connection has {self._streams} calls under way (limits.streams)", retry_after_s=1)
        if self._of_principal[principal] >= limits.principal_calls:
            text = f"{principal} has {limits.principal_calls} calls under way (limits.principal_calls)"
            raise RateLimited(text, retry_after_s=1)
        if not self._calls[peer]:
            del self._calls[peer]
            if len(self._calls) >= limits.connections:
                text = f"{limits.connections} connections have calls under way (limits.connections)"
                raise RateLimited(text, retry_after_s=1)
        self._calls[peer] += 1
        self._of_principal[principal] += 1

    def leave(self, peer: str, principal: str) -> None:
        _count_out(self._calls, peer)
        _count_out(self._of_principal, principal)

    def _enter(self, context: Context, caller: Caller, rule: Rule, method: str) -> Callable[[], None]:
        """Count the call in; gives what counts it out. Nodes are not counted: clients must not keep the master out."""
        if rule == NODES:
            return lambda: None
        if rule is not OPEN:
            peer, name = context.peer(), caller.principal.name
            self.enter(peer, name)
            return lambda: self.leave(peer, name)
        return self._enter_open(method, address_of(context.peer()))

    def _enter_open(self, method: str, address: str) -> Callable[[], None]:
        limit = self._config.limits.open_calls
        of_all, of_address = (method, ""), (method, address)
        if self._open_calls[of_all] >= limit:
            raise RateLimited(f"{limit} calls of it are under way (limits.open_calls)", retry_after_s=1)
        if self._open_calls[of_address] * OPEN_SHARE >= limit:
            text = f"this address has half of the {limit} calls of it that may be under way (limits.open_calls)"
            raise RateLimited(text, retry_after_s=1)
        self._open_calls.update((of_all, of_address))
        return lambda: _count_out(self._open_calls, of_all, of_address)

    # --- how a call goes ---------------------------------------------------------------------------------------------

    def unary(self, call: UnaryCall, rule: Rule) -> Callable[[Any, Context], Awaitable[bytes | None]]:
        """A handler of one request and one answer: ``call(request, author)``, for callers that ``rule`` lets in."""

        @functools.wraps(call)
        async def handler(requests: object, context: Context) -> bytes | None:
            del requests
            leave = None
            try:
                caller = await self._caller(context, rule)
                leave = self._enter(context, caller, rule, call.__qualname__)
                return await call(await self._request(context, caller, rule), caller.principal.name)
            except Exception as exc:  # whatever it is: its text is for our log, not for the caller
                await self.fail(context, exc)
            finally:
                if leave:
                    leave()
            return None

        return handler

    def streaming(
        self, call: StreamingCall, rule: Rule, *, many: bool = False
    ) -> Callable[[Any, Context], Awaitable[None]]:
        """A handler that answers with a stream: ``call(request, context, author)``, for callers that ``rule`` lets in.

        ``many``: the client sends many requests, and ``call`` gets the stream of them.
        """

        @functools.wraps(call)
        async def handler(requests: Any, context: Context) -> None:
            leave, live = None, None
            try:
                caller = await self._caller(context, rule)
                leave = self._enter(context, caller, rule, call.__qualname__)
                request = requests if many else await self._request(context, caller, rule)
                live = LiveCall(caller, rule or ())
                if rule is not OPEN:
                    self._live.add(live)
                await self._answer(call(request, context, caller.principal.name), context, live)
            except asyncio.CancelledError:
                if live is None or live.fault is None:
                    raise
                await self._end(context, live, live.fault)
            except Exception as exc:
                await self.fail(context, exc)
            finally:
                if live:
                    self._live.discard(live)
                if leave:
                    leave()

        return handler

    async def _answer(self, responses: AsyncGenerator[bytes, None], context: Context, live: LiveCall) -> None:
        now = asyncio.get_running_loop().time
        async with aclosing(responses):
            async for response in responses:
                live.writing_since = now()
                try:
                    await context.write(response)
                except Exception as exc:
                    if type(exc).__name__ != "ExecuteBatchError":  # gRPC has no public name for it
                        raise
                    return  # the client left while this was on its way
                live.writing_since = 0.0
                del response  # the next one may be long in coming

    async def _request(self, context: Context, caller: Caller, rule: Rule) -> bytes:
        """The request of a call that has one. Raises BadRequest, and what refuses a caller who may not call any more:
        a request may be long in coming."""
        wait_s = self._config.timeouts.request_s
        if rule is OPEN:
            wait_s = min(wait_s, OPEN_REQUEST_S)
        try:
            async with asyncio.timeout(wait_s):
                data = await context.read()
        except TimeoutError as exc:
            raise BadRequest(f"the request did not come within {wait_s:g} s (timeouts.request)") from exc
        if data is aio.EOF:
            raise BadRequest("the call ended without a request")
        if rule is not OPEN:
            self.access.again(caller, rule)
            if caller.certificate:
                self._admit(context)
        return bytes(data)

    async def _end(self, context: Context, live: LiveCall, fault: ServiceError) -> None:
        """End a stream ourselves. What is not taken within FAIL_S is dropped with the call."""
        self._live.discard(live)
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        name = live.caller.principal.name
        text, peer = f"a stream of {name} was ended: {fault.message}", context.peer()
        if live.stalled:
            self._log.warning("stalled", text, peer=peer, principal=name)
        else:
            self._log.warning("call_ended", text, peer=peer, principal=name)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAIL_S):
                await self.fail(context, fault)
        raise asyncio.CancelledError

    async def fail(self, context: Context, exc: BaseException) -> None:
        """End the call with an error that the caller can take apart; ours to mend are logged, and say no more."""
        if not isinstance(exc, ServiceError):
            self._log.error("call_failed", f"{type(exc).__name__} in a call", exc=exc)
            exc = InternalError("the node failed in this call; its log says why")
        context.set_trailing_metadata(((STATUS_TRAILER, status_trailer(exc)),))
        await context.abort(_CODES[exc.grpc_status], status_text(exc))


def _count_out(counter: Counter[K], *keys: K) -> None:
    """Take one from each, and forget what is at none: keys come from strangers."""
    for key in keys:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]


def parse_request(kind: type[M], data: bytes) -> M:
    """A client's request. Raises BadRequest."""
    try:
        return parse(kind, data)
    except ParseError as exc:
        raise BadRequest(f"{exc}; see replicad/wire/v1/log.proto") from exc


def options(config: Config, *, message_bytes: int) -> list[tuple[str, Any]]:
    """Channel arguments of the server: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html. A release of gRPC
    that does not know one passes over it."""
    limits, timeouts = config.limits, config.timeouts
    return [
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_allowed_incoming_connections", limits.sockets),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.server_handshake_timeout_ms", int(timeouts.handshake_s * 1000)),
        ("grpc.max_connection_idle_ms", int(timeouts.idle_connection_s * 1000)),
        ("grpc.so_reuseport", 0),  # a second daemon on the port must fail, not share it
        ("grpc.keepalive_time_ms", int(timeouts.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(timeouts.keepalive_answer_s * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(timeouts.ping_interval_s * 1000)),
        ("grpc.http2.max_ping_strikes", limits.ping_strikes),
    ]
