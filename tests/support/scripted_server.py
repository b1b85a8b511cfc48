"""A real gRPC server whose every answer is written by the test: for what a good server does rarely or never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self

import grpc
from grpc import aio

from replicad.errors import ServiceError
from replicad.wire.codec import (
    PostFrame,
    PostFrameResult,
    PostRun,
    decode_post_frame,
    encode_list_response,
    encode_post_results,
    status_trailer,
)
from replicad.wire.v1 import log_pb2

DEADLINE_S = 10.0  # for what a test waits for; it comes in milliseconds or not at all
_CODES = {code.name: code for code in grpc.StatusCode}


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What must come, within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        return await awaitable


class PostCall:
    """One PostStream call: the frames that came on it, and what it answers."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self.frames: asyncio.Queue[PostFrame] = asyncio.Queue()
        self.half_closed = asyncio.Event()
        self.out: asyncio.Queue[bytes | ServiceError | None] = asyncio.Queue()

    async def frame(self) -> PostFrame:
        """The next frame that came."""
        frame: PostFrame = await soon(self.frames.get())
        return frame

    def answer(self, *results: PostFrameResult) -> None:
        """One response with these results."""
        self.out.put_nowait(encode_post_results(results))

    def accept(self, *frames: PostFrame, first_offset: int = 0, nodes: int = 2, duplicate: bool = False) -> None:
        """One response that takes these frames in, at consecutive offsets."""
        results = []
        for frame in frames:
            count = len(frame.messages)
            results.append(PostFrameResult(frame.sequence, (PostRun(0, count, first_offset, duplicate),), nodes=nodes))
            first_offset += count
        self.answer(*results)

    def refuse(self, frame: PostFrame, error: ServiceError) -> None:
        self.answer(PostFrameResult(frame.sequence, error=error))

    def end(self, error: ServiceError | None = None) -> None:
        """End the call: well, or with an error's status and trailer."""
        self.out.put_nowait(error)


#: What a List or Tail call answers: encoded responses; an error ends it.
Script = Iterable[bytes | ServiceError] | Callable[[Any], AsyncIterator[bytes | ServiceError]]


class ScriptedServer:
    """Listens on loopback. PostStream calls come out of :meth:`call`; List, Tail and unary calls follow scripts, one
    a call, and what was asked is in ``requests``."""

    def __init__(self) -> None:
        self.address = ""
        self.calls: asyncio.Queue[PostCall] = asyncio.Queue()
        self.scripts: list[Script] = []
        self.requests: list[Any] = []
        self.unary: Callable[[Any], Any] = lambda request: log_pb2.StatusResponse()
        self.refuse_streams: ServiceError | None = None
        self.receive_bytes = -1  # gRPC's limit on a message, from the next start on
        self.greets = True  # with an empty response, as soon as it takes a stream
        self.on_frame: Callable[[PostCall, PostFrame], None] | None = None  # answers frames, in place of the test
        self._server: aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; the second time at the same address again."""
        self._server = aio.server(
            options=[("grpc.max_receive_message_length", self.receive_bytes), ("grpc.so_reuseport", 0)]
        )
        methods: dict[str, Any] = {
            "PostStream": grpc.stream_stream_rpc_method_handler(self._post_stream),
            "List": grpc.unary_stream_rpc_method_handler(self._read(log_pb2.ListRequest)),
            "Tail": grpc.unary_stream_rpc_method_handler(self._read(log_pb2.TailRequest)),
            "Status": grpc.unary_unary_rpc_method_handler(self._unary(log_pb2.StatusRequest)),
            "Outcome": grpc.unary_unary_rpc_method_handler(self._unary(log_pb2.OutcomeRequest)),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("replicad.wire.v1.Log", methods),))
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Die: every call breaks off, the port is closed."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def call(self) -> PostCall:
        """The next PostStream call."""
        call: PostCall = await soon(self.calls.get())
        return call

    async def _post_stream(self, requests: object, context: Any) -> AsyncIterator[bytes]:
        del requests
        if self.refuse_streams is not None:
            await _abort(context, self.refuse_streams)
        if self.greets:
            yield encode_post_results([])
        call = PostCall(dict(context.invocation_metadata() or ()))
        if self.on_frame is None:
            self.calls.put_nowait(call)
        reader = asyncio.create_task(self._frames(call, context))
        try:
            while (out := await call.out.get()) is not None:
                if isinstance(out, ServiceError):
                    await _abort(context, out)
                else:
                    yield out
        finally:
            reader.cancel()

    async def _frames(self, call: PostCall, context: Any) -> None:
        while (data := await context.read()) is not aio.EOF:
            frame = decode_post_frame(data, payload_bytes=1 << 30, frame_bytes=1 << 30)
            if self.on_frame is None:
                call.frames.put_nowait(frame)
            else:
                self.on_frame(call, frame)
        call.half_closed.set()

    def _read(self, kind: Any) -> Callable[[bytes, Any], AsyncIterator[bytes]]:
        async def handler(data: bytes, context: Any) -> AsyncIterator[bytes]:
            request = kind.FromString(data)
            self.requests.append(request)
            script = self.scripts.pop(0)
            async for response in script(request) if callable(script) else _each(script):
                if isinstance(response, ServiceError):
                    await _abort(context, response)
                else:
                    yield response

        return handler

    def _unary(self, kind: Any) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def handler(data: bytes, context: Any) -> bytes:
            request = kind.FromString(data)
            self.requests.append(request)
            answer = self.unary(request)
            if isinstance(answer, ServiceError):
                await _abort(context, answer)
            encoded: bytes = answer.SerializeToString()
            return encoded

        return handler


async def _each(responses: Iterable[bytes | ServiceError]) -> AsyncIterator[bytes | ServiceError]:
    for response in responses:
        yield response


async def forever() -> None:
    """Never."""
    await asyncio.Event().wait()


async def _abort(context: Any, error: ServiceError) -> None:
    context.set_trailing_metadata((("grpc-status-details-bin", status_trailer(error)),))
    await context.abort(_CODES[error.grpc_status], error.message)


def listing(*bodies: bytes, commit_size: int = 1 << 40) -> bytes:
    """A response of List or Tail."""
    return encode_list_response(commit_size, bodies)
