"""PostStream on the server: many frames under way on one stream, answered in the order they are done.

Owns the stream's pace. Must not know how a frame gets its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from grpc import aio

from replicad.config import Config
from replicad.core.concern import resolve
from replicad.core.effects import FrameResult
from replicad.core.worker import Worker
from replicad.errors import NotMaster, OutcomeUnknown, RateLimited, ServiceError, TooLarge, Unavailable
from replicad.rates import Rates
from replicad.runtime import Runtime
from replicad.transport.addresses import address_of
from replicad.transport.calls import Context
from replicad.wire.codec import (
    FrameError,
    PostFrame,
    PostFrameResult,
    PostRun,
    decode_post_frame,
    decode_post_request,
    encode_post_results,
)

MAX_TIMEOUT_S = 3600.0  # a frame that waits longer is a client that forgot


class Posting:
    """Takes frames from clients to the runtime."""

    def __init__(self, runtime: Runtime, config: Config) -> None:
        self._runtime, self._config = runtime, config
        self.stopping = False
        self.rates = Rates()

    def configure(self, config: Config) -> None:
        """Go by ``config`` from the next frame on; a stream that is open keeps its ``stream_frames``."""
        self._config = config

    def submit(self, frame: PostFrame, author: str, results: PostResults) -> None:
        """Submit a decoded frame; its result arrives at ``results``."""
        try:
            self._check(frame, author)
            concern = self._config.write_concern
            nodes = resolve(frame.write_concern or concern.default, voters=self._config.voters)
            timeout_s = frame.timeout_ms / 1000 or concern.timeout_s
            deadline = asyncio.get_running_loop().time() + min(timeout_s, MAX_TIMEOUT_S)
        except ServiceError as exc:
            results.refused(frame.sequence, exc)
            return
        answered = results.expect(frame.sequence)
        self._runtime.submit(frame.messages, author=author, nodes=nodes, deadline=deadline, answered=answered)

    def _check(self, frame: PostFrame, author: str) -> None:
        runtime, limits = self._runtime, self._config.limits
        if isinstance(runtime.machine, Worker):
            master = runtime.machine.master
            address = address_of(self._config, master)
            known = f"the master is {master} at {address}" if master else "it does not know the master yet"
            raise NotMaster(f"{self._config.node} is a worker; {known}", master=master, master_address=address)
        if self.stopping:
            raise Unavailable(f"{self._config.node} is stopping", retry_after_s=0.5)
        if len(frame.messages) > limits.batch_records:
            raise TooLarge(
                f"the frame has {len(frame.messages)} messages, at most {limits.batch_records} are taken "
                "(limits.batch_records); send fewer in a frame"
            )
        now, messages = asyncio.get_running_loop().time(), frame.messages
        wait_s, limit = self.rates.admit(author, messages=len(messages), size_bytes=messages.size_bytes, now=now)
        if wait_s:
            raise RateLimited(f"{limit}: the rate is reached; again in {wait_s:.3g} s", retry_after_s=wait_s)

    async def post_stream(self, requests: object, context: Context, author: str) -> AsyncGenerator[bytes, None]:
        """The handler of PostStream."""
        del requests  # read by context.read(), which costs less than the iterator
        results = PostResults(self._config.limits.stream_frames)
        yield encode_post_results([])  # so that the client knows it is let in before it sends: see log.proto
        reader = asyncio.create_task(self._read(context, author, results))
        self._watch_idle(results, reader)
        try:
            while (answer := await results.next()) is not None:
                yield answer
            if results.fault is not None:
                raise results.fault
            await reader
        finally:
            reader.cancel()

    async def _read(self, context: Context, author: str, results: PostResults) -> None:
        limits = self._config.limits
        try:
            while (data := await context.read()) is not aio.EOF:
                results.heard = True
                await results.room()
                try:
                    frame = decode_post_frame(data, payload_bytes=limits.payload_bytes, frame_bytes=limits.frame_bytes)
                except FrameError as exc:
                    results.refused(exc.sequence, exc.error)
                    continue
                if results.full:
                    text = f"{limits.stream_frames} frames of this stream wait for an answer (limits.stream_frames)"
                    results.refused(frame.sequence, RateLimited(text, retry_after_s=0.1))
                    continue
                self.submit(frame, author, results)
                await self._runtime.wait_for_room(self._config.limits.queue_bytes)
        except ServiceError as exc:
            results.fault = exc
        finally:
            results.no_more()

    def _watch_idle(self, results: PostResults, reader: asyncio.Task[None]) -> None:
        """Look once in an idle_stream whether anything came, or waits for its answer; if not, read no more."""

        def look() -> None:
            if not results.heard and not results.busy:
                results.fault = Unavailable("nothing came on this stream for timeouts.idle_stream; open another")
                reader.cancel()
            if not reader.done():
                results.heard = False
                self._watch_idle(results, reader)

        timer = asyncio.get_running_loop().call_later(self._config.timeouts.idle_stream_s, look)
        reader.add_done_callback(lambda _: timer.cancel())

    async def post(self, request: bytes, author: str) -> PostFrameResult:
        """A single post, as a frame of one."""
        results = PostResults(1)
        # No name for the frame: while its post waits, nothing here must keep the payload.
        self.submit(decode_post_request(request, payload_bytes=self._config.limits.payload_bytes), author, results)
        await self._runtime.wait_for_room(self._config.limits.queue_bytes)
        return await results.only()


class PostResults:
    """The answers of one stream, from the runtime's callbacks to the stream's writer.

    1. At most ``limit`` frames wait for their answer, and about as many answers for the client to read them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ready: list[PostFrameResult] = []
        self._expected = 0
        self._ended = False
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self.heard = True  # anything, since it was last looked
        self.fault: ServiceError | None = None  # why no more frames are read, when that is the client's fault

    @property
    def full(self) -> bool:
        return self._expected >= self._limit

    @property
    def busy(self) -> bool:
        """Whether a frame waits for its answer, or an answer for the client."""
        return bool(self._expected or self._ready)

    async def room(self) -> None:
        """Wait while a client that does not read its answers has too many of them."""
        while len(self._ready) >= self._limit:
            self._taken.clear()
            await self._taken.wait()

    def expect(self, sequence: int) -> Callable[[FrameResult], None]:
        """A callback for the frame's result."""
        self._expected += 1

        def answered(result: FrameResult) -> None:
            self._expected -= 1
            runs = tuple(PostRun(r.first_index, r.count, r.first_offset, r.duplicate) for r in result.runs)
            self._put(PostFrameResult(sequence, runs, tuple(result.errors), result.error, result.nodes))

        return answered

    def refused(self, sequence: int, error: ServiceError) -> None:
        self._put(PostFrameResult(sequence, error=error))

    def _put(self, result: PostFrameResult) -> None:
        self._ready.append(result)
        self._wake.set()

    def no_more(self) -> None:
        """The client sends no more frames."""
        self._ended = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """All answers that are ready, as one message; None when there will be no more."""
        while not self._ready:
            if self._ended and not self._expected:
                return None
            self._wake.clear()
            await self._wake.wait()
        ready, self._ready = self._ready, []
        self._taken.set()
        return encode_post_results(ready)

    async def only(self) -> PostFrameResult:
        """The one answer of a frame that stands alone."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        return self._ready.pop()


def only_outcome(result: PostFrameResult) -> tuple[int, bool, int]:
    """(offset, duplicate, nodes) of a frame of one message; raises its error."""
    if result.error is not None:
        raise result.error
    for _, error in result.errors:
        raise error
    for run in result.runs:
        return run.first_offset, run.duplicate, result.nodes
    raise OutcomeUnknown("the master gave no result for the message")
