"""The streams between nodes: a master, or who wants to be one, dials every other node, and each takes what dials it.

Owns dialling, backing off and the frames' way in and out. Must not know what the frames say.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, cast

import grpc
from grpc import aio

from replicad.backoff import backoff_s
from replicad.configlimits import Timeouts
from replicad.core.frames import Ack, AppendBatch, Hello, Inquiry, MasterFrame, Refused, Standing, WorkerFrame
from replicad.errors import PeerError
from replicad.logs import Logger
from replicad.runtime import Runtime
from replicad.tasks import is_cancelled, next_message
from replicad.tlserrors import explain
from replicad.transport.calls import Context
from replicad.wire.codec import decode_master_frame, decode_worker_frame, encode_master_frame, encode_worker_frame

REPLICATE = "/replicad.wire.v1.Replication/Replicate"
Encode = Callable[[Any], bytes]
HANG_UP_S = 1.0  # for what was sent before; a peer that hangs would keep the stream for ever


class Outbox:
    """Frames on their way into one stream. What waits here is bounded by the worker's window and the answers to it."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._frames: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self.reason: str | None = None  # why no more is sent, once that is so
        self.on_hang_up: Callable[[], object] = lambda: None

    def send(self, frame: MasterFrame | WorkerFrame) -> None:
        if self.reason is None:
            self._frames.append(self._encode(frame))
            self._wake.set()

    def hang_up(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self._wake.set()
            self.on_hang_up()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The frames as they come; ends when it is hung up and all are out."""
        while True:
            while self._frames:
                yield self._frames.popleft()
            if self.reason is not None:
                return
            self._wake.clear()
            await self._wake.wait()


class MasterFrameEncoder:
    """Encodes a batch once for all the workers it is sent to."""

    def __init__(self) -> None:
        self._last: tuple[AppendBatch, bytes] | None = None

    def __call__(self, frame: MasterFrame) -> bytes:
        if not isinstance(frame, AppendBatch):
            return encode_master_frame(frame)
        last = self._last
        if last is not None and last[0].batch is frame.batch and last[0].commit_size == frame.commit_size:
            return last[1]
        encoded = encode_master_frame(frame)
        self._last = (frame, encoded)
        return encoded


class Dialer:
    """The master's way to one worker: dials, and dials again, until it is stopped."""

    def __init__(
        self,
        name: str,
        address: str,
        runtime: Runtime,
        *,
        encode: Encode,
        metadata: tuple[tuple[str, str], ...],
        timeouts: Timeouts,
        log: Logger,
        credentials: Callable[[], grpc.ChannelCredentials] | None = None,
    ) -> None:
        """``credentials`` gives those for a new connection, which must be to ``name`` by its certificate; None: no
        TLS."""
        self._credentials = credentials
        self._outbox: Outbox | None = None
        self._redials = 0
        self._name, self._address, self._runtime = name, address, runtime
        self._encode, self._metadata, self._timeouts, self._log = encode, metadata, timeouts, log
        self._rng = random.Random()  # noqa: S311 - jitter

    def configure(self, timeouts: Timeouts) -> None:
        """Go by ``timeouts`` from the next try on."""
        self._timeouts = timeouts

    def redial(self, reason: str) -> None:
        """End the stream that is open or is about to; the next one is on a new connection."""
        self._redials += 1
        if self._outbox is not None:
            self._outbox.hang_up(reason)

    async def run(self) -> None:
        """Keep a stream to the worker; back off with jitter while it can't be had, or ends before any use of it."""
        attempt = 0
        while True:
            was_of_use, reason = await self._stream()
            attempt = 0 if was_of_use else attempt + 1
            if attempt:  # again and again: the log leaves repeats out (logrepeats.py)
                self._log.info("unreachable", f"{self._name}: {reason}", peer=self._name, address=self._address)
            timeouts = self._timeouts
            low, high = timeouts.reconnect_min_s, timeouts.reconnect_max_s
            await asyncio.sleep(backoff_s(attempt, low_s=low, high_s=high, rng=self._rng))

    async def _stream(self) -> tuple[bool, str]:
        """One stream, from dialling to its end: whether the worker followed in it, and why it ended.

        A worker that answers only to refuse is of no use: dialled again at once, it would refuse at once.
        """
        outbox, redials = Outbox(self._encode), self._redials
        loop, followed, reason, up = asyncio.get_running_loop(), False, "the stream ended", False
        async with self._channel() as channel:
            try:
                async with asyncio.timeout(self._timeouts.unhealthy_s):
                    await connect(channel, self._address)
                replicate: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REPLICATE)
                call = replicate(aiter(outbox), metadata=self._metadata)
                up, self._outbox = True, outbox
                outbox.on_hang_up = lambda: loop.call_later(HANG_UP_S, call.cancel)
                self._runtime.peer_up(self._name, outbox)
                if redials != self._redials:
                    outbox.hang_up("asked to dial again")
                while (data := await next_message(call)) is not aio.EOF:
                    frame = decode_worker_frame(cast(bytes, data))
                    followed = followed or isinstance(frame, Ack | Standing)
                    self._runtime.frame_arrived(self._name, outbox, frame)
                reason = await call.details() or reason
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                reason = "hung up"  # by us, and the worker did not end the stream: gRPC tells that as a cancellation
            except ConnectionError as exc:
                reason = str(exc)
            except TimeoutError:
                reason = f"no connection to {self._address} within {self._timeouts.unhealthy_s:g} s"
            except PeerError as exc:
                reason = f"{exc.reason}: {exc}"
            except aio.AioRpcError as exc:
                reason = f"{exc.code().name}: {exc.details()}"
            finally:
                self._outbox = None
                if up:
                    outbox.hang_up(reason)
                    self._runtime.peer_down(self._name, outbox, outbox.reason or reason)
                elif not is_cancelled():
                    self._runtime.peer_unreachable(self._name, reason)
        return followed, outbox.reason or reason

    def _channel(self) -> aio.Channel:
        return open_channel(self._address, self._name, self._credentials() if self._credentials else None)


def open_channel(address: str, name: str, credentials: grpc.ChannelCredentials | None) -> aio.Channel:
    """To the node ``name``, which its certificate must say that it is; None: without TLS."""
    if credentials is None:
        return aio.insecure_channel(address, options=_CHANNEL)
    return aio.secure_channel(address, credentials, options=[*_CHANNEL, ("grpc.ssl_target_name_override", name)])


async def connect(channel: aio.Channel, address: str) -> None:
    """Raises ConnectionError at the first try that fails: gRPC's own waiting between tries is longer than ours."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise ConnectionError(await _why(channel) or f"nobody takes connections at {address}")
        await channel.wait_for_state_change(state)


async def _why(channel: aio.Channel) -> str:
    """Why TLS did not come about on a channel that failed to connect; "" when it was not TLS. Only a call is told."""
    try:
        ask: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(REPLICATE)
        await ask(b"", timeout=HANG_UP_S)
    except aio.AioRpcError as exc:
        meaning = explain(exc.details() or "", secure=True, certificate=True)
        return f"{meaning} ({exc.details()})" if meaning else ""
    return ""


class Acceptor:
    """The side that is called: the handler of Replicate. Each stream is a peer of its own to the machine."""

    def __init__(
        self, runtime: Runtime, *, log: Logger, names: Callable[[Context], frozenset[str]] | None = None
    ) -> None:
        """``names`` gives those in a caller's certificate, of which the master's must be one; None: no TLS."""
        self._runtime, self._log, self._names = runtime, log, names
        self._streams = itertools.count(1)

    async def replicate(self, requests: object, context: Context, author: str) -> AsyncGenerator[bytes, None]:
        """The handler of Replicate."""
        del requests, author
        peer, outbox = f"stream #{next(self._streams)}", Outbox(encode_worker_frame)  # no node has such a name
        self._runtime.peer_up(peer, outbox)
        reader = asyncio.create_task(self._read(peer, outbox, context))
        try:
            async for data in outbox:
                yield data
        finally:
            reader.cancel()
            self._runtime.peer_down(peer, outbox, outbox.reason or "the master's stream ended")

    async def _read(self, peer: str, outbox: Outbox, context: Context) -> None:
        reason = "the master ended the stream"
        try:
            while (data := await context.read()) is not aio.EOF:
                frame = decode_master_frame(data)
                name = frame.master if isinstance(frame, Hello) else frame.node if isinstance(frame, Inquiry) else None
                if name is not None and self._names is not None and name not in self._names(context):
                    raise PeerError("certificate", f"the caller's certificate is not that of {name}")
                self._runtime.frame_arrived(peer, outbox, frame)
        except PeerError as exc:
            reason = f"{exc.reason}: {exc}"
            self._log.error("refused", f"a frame of {context.peer()}: {exc}", reason=exc.reason)
            outbox.send(Refused(exc.reason, str(exc), 0))
        except (grpc.RpcError, asyncio.CancelledError):
            reason = "the master's stream broke"
        finally:
            outbox.hang_up(reason)


_CHANNEL = [
    ("grpc.max_receive_message_length", -1),  # a worker's Supply holds whole batches
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),  # nodes are neighbours: a proxy meant for the web is not between them
    ("grpc.use_local_subchannel_pool", 1),  # a new channel dials anew, with no backoff from the last one
]
