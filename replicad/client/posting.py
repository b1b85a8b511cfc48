"""Posting: one PostStream to whichever node is master, and what to do when it is lost or refused.

Owns frames from the moment they are begun until all who wait have an answer. Must not know how results are encoded
or which errors may be retried: see :mod:`replicad.client.frames` and :mod:`replicad.client.retry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from random import Random
from typing import NoReturn

import grpc.aio

from replicad.client import methods
from replicad.client.connection import CONNECT_TIMEOUT_S, Connections, DuplexStream, closed_error
from replicad.client.frames import BulkFrame, CallsFrame, Frame, outcomes_of, timeout_error
from replicad.client.lanes import WINDOW_BYTES, Lane, LaneKey, Lanes
from replicad.client.retry import Route, may_retry, next_delay
from replicad.client.types import Posted
from replicad.client.vigil import BLIND_S, BLIND_WRITING_S, MAX_PAUSE_S, SILENCE_S, MayNotAsk, newer_master
from replicad.errors import (
    Applied,
    BadRequest,
    Forbidden,
    InternalError,
    NotMaster,
    PeerError,
    RateLimited,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from replicad.tasks import is_cancelled
from replicad.wire.codec import PostFrameResult, decode_post_results

#: A refused frame is not sent again with less time left: the time would be over before the next refusal is here, and
#: what is known not to be applied would be told as unknown.
LAST_TRY_S = 0.05

#: Our servers begin a stream with an empty response as soon as they take it; others are written to after this long.
GREETING_S = 0.25


class PostStream:
    """A PostStream call and the frames that were sent on it and have no answer yet, by sequence."""

    __slots__ = ("address", "call", "heard", "heard_at", "in_flight", "left", "over", "reader", "unanswered_bytes")

    def __init__(self, address: str, call: DuplexStream) -> None:
        self.address = address
        self.call = call
        self.in_flight: dict[int, tuple[Lane, Frame]] = {}
        self.heard = asyncio.Event()  # anything at all, or the stream's end
        self.heard_at = 0.0  # by the loop's clock
        self.left = False  # nothing more is sent on it; answers that are still to come are welcome
        self.over = False
        self.unanswered_bytes = 0  # of the largest frame that ran out of time, and may be answered yet
        self.reader: asyncio.Task[None] | None = None


class Poster:
    """Posts frames to the master, wherever it is. To be made and used inside one running loop."""

    def __init__(self, route: Route, connections: Connections, rng: Random) -> None:
        self._loop = asyncio.get_running_loop()
        self._route = route
        self._connections = connections
        self._rng = rng
        self._lanes = Lanes(self._loop, self._started)
        self._work = asyncio.Event()  # set when a frame may be ready to go
        self._stream: PostStream | None = None  # where new frames go; others only wait for their answers
        self._streams: set[PostStream] = set()
        self._where: dict[int, PostStream] = {}  # sequence of each frame in flight -> its stream
        self._resting: dict[Frame, asyncio.TimerHandle] = {}  # frames that wait for their next try
        self._reopen_at = 0.0
        self._last_sequence = 0
        self._last_error: ServiceError | None = None  # why there is no stream
        self._unreachable: dict[str, Unavailable] = {}  # by address: why the latest stream there was none
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_task = self._run(self._pump())

    # --- taking messages --------------------------------------------------------------------------------------------

    def add(self, key: LaneKey, message_id: str, payload: bytes, headers: bytes) -> asyncio.Future[Posted]:
        """Post one message together with whatever else is posted now; the future has its outcome. With ``message_id``
        "" it gets one."""
        if self._closed:
            self._refuse_closed()
        return self._lanes.add(key, message_id, payload, headers)

    def submit(
        self, key: LaneKey, *, ids: list[str], payloads: list[bytes], headers: list[bytes], size_bytes: int
    ) -> asyncio.Future[list[Posted]]:
        """Post a whole frame; the future has its outcome."""
        if self._closed:
            self._refuse_closed()
        waiter: asyncio.Future[list[Posted]] = self._loop.create_future()
        frame = BulkFrame(
            ids=ids,
            payloads=payloads,
            headers=headers,
            size_bytes=size_bytes,
            deadline=self._loop.time() + key[1],
            waiter=waiter,
        )
        lane = self._lanes.lane(key)
        self._started(lane, frame)
        lane.ready.append(frame)
        return waiter

    async def close(self) -> None:
        """Stop; whoever still waits gets an error that says whether the message may have been applied."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in list(self._streams):
            stream.call.cancel()
        self._fail_all(Unavailable("the client was closed"))

    def _fail_all(self, reason: ServiceError) -> None:
        """Whoever waits gets an error for that reason, or OutcomeUnknown where the message may have been applied."""
        for stream in self._streams:
            for _, frame in stream.in_flight.values():
                frame.fail(timeout_error(frame, in_flight=True, reason=reason))
        for handle in self._resting.values():
            handle.cancel()
        for frame in [*self._resting, *self._lanes.pending()]:
            frame.fail(timeout_error(frame, in_flight=False, reason=reason))
        self._resting.clear()

    def _refuse_closed(self) -> NoReturn:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this client is used in another event loop already: make one for each")
        raise Unavailable("the client was closed")

    def _started(self, lane: Lane, frame: Frame) -> None:
        """A frame was begun, and is to be sent."""
        frame.timer = self._loop.call_at(frame.deadline, self._expire, lane, frame)
        self._work.set()

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Sends what is there to send, for ever."""
        while True:
            await self._work.wait()
            if self._stream is None and not self._lanes.has_pending():  # a stream is opened for what is there alone
                self._work.clear()
                continue
            stream = self._stream or await self._open()
            if stream is None:
                continue
            taken = self._lanes.take(self._loop.time())
            if taken is None:
                self._work.clear()
                continue
            lane, frame = taken
            if frame.last_error is not None and not frame.lost and self._left_s(frame) < LAST_TRY_S:
                frame.fail(timeout_error(frame, in_flight=False, reason=self._reason(frame)))
            else:
                await self._send(stream, lane, frame)

    def _left_s(self, frame: Frame) -> float:
        return frame.deadline - self._loop.time()

    async def _open(self) -> PostStream | None:
        """Connect to where the route leads; None when that failed. No frame is taken before there is a connection:
        what was never sent is known not to be applied."""
        await asyncio.sleep(self._reopen_at - self._loop.time())
        address = self._route.current
        stream = PostStream(address, self._connections.to(address).duplex(methods.POST_STREAM))
        self._streams.add(stream)
        stream.reader = self._run(self._read(stream))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await stream.call.wait_for_connection()
            await self._greeted(stream)
        except grpc.aio.AioRpcError as exc:
            self._end(stream, self._connections.error(exc, address))
        except TimeoutError:
            self._end(stream, Unavailable(f"{address}: no connection within {CONNECT_TIMEOUT_S:g} s"))
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self._end(stream, closed_error(address))
        if stream.over:
            if isinstance(self._last_error, Unavailable):
                self._unreachable[address] = self._last_error
            return None
        self._last_error = None
        self._unreachable.pop(address, None)
        self._stream = stream
        self._run(self._watch(stream))
        return stream

    async def _watch(self, stream: PostStream) -> None:
        """Leave a stream that says nothing when another node is the master: this one hangs, or is cut off, and may not
        even know. While it answers others it is asked about ever more seldom: most likely a post waits for a node that
        is away."""
        pause_s, ask_at = SILENCE_S, 0.0
        while not stream.over:
            await asyncio.sleep(SILENCE_S)
            if self._silent_s(stream) < SILENCE_S:
                pause_s, ask_at = SILENCE_S, 0.0
                continue
            now = self._loop.time()
            if now - stream.heard_at < SILENCE_S:  # once it falls silent, the others are asked at once
                if now < ask_at:
                    continue
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                ask_at = now + pause_s
            try:
                master = await newer_master(self._connections, self._route.addresses, stream.address)
            except MayNotAsk:
                master = ""
                if self._seems_dead(stream):
                    self._end(stream, Unavailable(f"{stream.address} answers nothing"))
            if master and self._silent_s(stream) >= SILENCE_S:
                text = f"{stream.address} answers nothing, and the master is at {master}"
                self._end(stream, NotMaster(text, master_address=master))

    def _silent_s(self, stream: PostStream) -> float:
        """For how long its oldest frame waits; 0.0 when none does. Whatever is heard of others: a master that was
        replaced may still answer those that are content with it alone."""
        oldest = next(iter(stream.in_flight.values()), None)
        return 0.0 if oldest is None or stream.over else self._loop.time() - oldest[1].sent_at

    def _seems_dead(self, stream: PostStream) -> bool:
        """Whether a frame of it waits for too long since anything was heard, where nobody can be asked. A large one is
        long on its way, on a slow line, and must not begin anew for ever."""
        oldest = next(iter(stream.in_flight.values()), None)
        if oldest is None or stream.over:
            return False
        frame = oldest[1]
        blind_s: float = (BLIND_S if frame.written_at else BLIND_WRITING_S) * 2 ** (frame.tries - 1)
        return self._loop.time() - max(stream.heard_at, frame.written_at or frame.sent_at) >= blind_s

    async def _greeted(self, stream: PostStream) -> None:
        """Wait until the server takes the stream, or refuses it: a frame written while a refusal is on its way makes
        grpc.aio forget the refusal's reason (https://github.com/grpc/grpc/issues/36066)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GREETING_S):
                await stream.heard.wait()

    async def _send(self, stream: PostStream, lane: Lane, frame: Frame) -> None:
        self._last_sequence += 1
        frame.sequence = self._last_sequence
        frame.tries += 1
        frame.sent_at, frame.written_at = self._loop.time(), 0.0
        stream.in_flight[frame.sequence] = (lane, frame)
        self._where[frame.sequence] = stream
        lane.in_flight_bytes += frame.size_bytes
        try:
            await stream.call.write(frame.encode(write_concern=lane.key[0], now=frame.sent_at))
            frame.written_at = self._loop.time()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            await self._ended(stream)  # not this task was cancelled, but the call, by us, or with its connection
        except asyncio.InvalidStateError:  # the call was over before: this frame was not sent
            if frame.sequence in stream.in_flight:
                self._landed(stream, lane, frame)
                self._queue_again(lane, [frame])
            await self._ended(stream)
        except grpc.aio.AioRpcError:
            await self._ended(stream)
        if is_cancelled():  # where the call ends in the same moment gRPC 1.51 does not say so, see tasks.next_message()
            raise asyncio.CancelledError

    @staticmethod
    async def _ended(stream: PostStream) -> None:
        """The call is over: wait until its reader has learnt why and has seen to the frames."""
        if stream.reader is not None:
            await asyncio.wait([stream.reader])

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _read(self, stream: PostStream) -> None:
        try:
            while (data := await self._connections.read(stream.call, stream.address)) is not None:
                stream.heard_at = self._loop.time()
                stream.heard.set()
                for result in decode_post_results(data):
                    self._settle(stream, result)
            error: ServiceError = Unavailable(f"{stream.address} ended the stream")
        except ServiceError as exc:
            error = exc
        except PeerError as exc:
            error = InternalError(f"{stream.address} sent a result that is not one: {exc}")
        self._end(stream, error)

    def _settle(self, stream: PostStream, result: PostFrameResult) -> None:
        lane_and_frame = stream.in_flight.get(result.sequence)
        if lane_and_frame is None:
            return  # its callers' time was over
        lane, frame = lane_and_frame
        outcomes = [] if result.error is not None else outcomes_of(frame.ids, result)
        self._landed(stream, lane, frame)
        if result.error is not None:
            self._refused(stream, lane, frame, result.error)
            return
        self._route.succeeded()
        again: list[int] = []
        if result.errors:
            again = [i for i, each in enumerate(outcomes) if isinstance(each, ServiceError) and may_retry(each)]
        if again:
            self._retry_some(lane, frame, outcomes, again)
        else:
            frame.settle(outcomes)

    def _landed(self, stream: PostStream, lane: Lane, frame: Frame) -> None:
        """The frame is not in flight any more."""
        del stream.in_flight[frame.sequence]
        del self._where[frame.sequence]
        if lane.in_flight_bytes >= WINDOW_BYTES:
            self._work.set()  # what waited for room may go
        lane.in_flight_bytes -= frame.size_bytes

    def _refused(self, stream: PostStream, lane: Lane, frame: Frame, error: ServiceError) -> None:
        """The server refused the frame as a whole."""
        if isinstance(error, BadRequest | TooLarge) and (parts := frame.split()):
            frame.finish()
            self._queue_again(lane, parts)
            return
        if not may_retry(error):
            frame.fail(error)
            return
        frame.last_error = error
        if error.applied is not Applied.NO:
            frame.lost = True
        now = self._loop.time()
        match error:
            case NotMaster() | Unavailable():
                if stream is self._stream:
                    self._leave(stream)
                    hint = error.master_address if isinstance(error, NotMaster) else ""
                    self._reopen_at = now + self._route.not_master(hint)
                self._queue_again(lane, [frame])
            case RateLimited():
                delay = max(error.retry_after_s or 0.0, next_delay(frame.tries - 1, self._rng))
                if now + delay >= frame.deadline:
                    frame.fail(error)
                    return
                lane.held_until = max(lane.held_until, now + delay)
                self._loop.call_at(lane.held_until, self._release, lane, lane.held_until)
                self._queue_again(lane, [frame])
            case _:
                self._rest(lane, frame)

    def _retry_some(self, lane: Lane, frame: Frame, outcomes: list[Posted | ServiceError], again: list[int]) -> None:
        """Some messages of the frame are to be sent again; the others have their answer."""
        if not isinstance(frame, CallsFrame):
            part: Frame = frame  # all of it: what is in the log already is answered as it stands there
        else:
            part = frame.part(again)
            kept = sorted(set(range(len(outcomes))).difference(again))
            frame.part(kept).settle([outcomes[i] for i in kept])
            frame.finish()
        errors = [outcomes[i] for i in again]
        part.last_error = next(each for each in errors if isinstance(each, ServiceError))
        part.lost = part.lost or any(
            isinstance(each, ServiceError) and each.applied is not Applied.NO for each in errors
        )
        self._rest(lane, part)

    def _rest(self, lane: Lane, frame: Frame) -> None:
        """Send the frame again, but not at once; others go on meanwhile."""
        if frame.timer is None:  # a new part of an old one
            self._started(lane, frame)
        delay = next_delay(frame.tries - 1, self._rng)
        self._resting[frame] = self._loop.call_later(delay, self._queue_again, lane, [frame])

    def _release(self, lane: Lane, held_until: float) -> None:
        """The pause that the server asked for is over, unless it has asked for a longer one since."""
        if lane.held_until <= held_until:
            lane.held_until = 0.0
            self._work.set()

    def _queue_again(self, lane: Lane, frames: Iterable[Frame]) -> None:
        """Ahead of what was never sent. Frames without a timer are new parts of old ones."""
        lane = self._lanes.lane(lane.key)  # it may have been idle and gone meanwhile
        for frame in reversed(list(frames)):
            self._resting.pop(frame, None)
            if frame.timer is None:
                self._started(lane, frame)
            if not frame.done:
                lane.ready.appendleft(frame)
        self._work.set()

    # --- losing the stream, running out of time ---------------------------------------------------------------------

    def _leave(self, stream: PostStream) -> None:
        """Send nothing more on this stream, the present one."""
        stream.left = True
        self._stream = None
        self._run(self._half_close(stream))

    async def _half_close(self, stream: PostStream) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it may be over already
            await stream.call.done_writing()

    def _end(self, stream: PostStream, error: ServiceError) -> None:
        """The stream is over: see to the frames on it and to where the next one goes."""
        if stream.over:
            return
        stream.over = True
        self._streams.discard(stream)
        stream.call.cancel()
        self._last_error = error
        if not stream.left:
            self._stream = None
            wait_s = (
                self._route.not_master(error.master_address) if isinstance(error, NotMaster) else self._route.failed()
            )
            self._reopen_at = max(self._reopen_at, self._loop.time() + wait_s)
        # Who we are and what we speak is judged before any frame is looked at: all frames would be refused alike. Once
        # the stream was taken, it says nothing about what was sent on it before.
        refused = isinstance(error, Unauthorized | Forbidden | BadRequest) and not stream.heard.is_set()
        stream.heard.set()
        if isinstance(error, TooLarge) and stream.in_flight:  # for gRPC; the largest one is, in flight or out of time
            lane, frame = max(stream.in_flight.values(), key=lambda each: each[1].size_bytes)
            if frame.size_bytes > stream.unanswered_bytes:
                self._landed(stream, lane, frame)
                self._refused(stream, lane, frame, error)
        for lane, frame in list(stream.in_flight.values())[::-1]:
            self._landed(stream, lane, frame)
            frame.last_error = error
            if not refused:
                frame.lost = True
            self._queue_again(lane, [frame])
        if refused:
            for frame in self._lanes.pending():
                frame.fail(error)

    def _expire(self, lane: Lane, frame: Frame) -> None:
        """The callers' time is over."""
        stream = self._where.get(frame.sequence)
        if stream is not None:
            self._landed(stream, lane, frame)
            stream.unanswered_bytes = max(stream.unanswered_bytes, frame.size_bytes)
            frame.fail(timeout_error(frame, in_flight=True, reason=self._reason(frame)))
            if stream.heard_at <= frame.sent_at:  # a loop's clock may stand still for a millisecond
                self._end(stream, Unavailable(f"{stream.address} answers nothing"))
        else:
            frame.fail(timeout_error(frame, in_flight=False, reason=self._reason(frame)))

    def _reason(self, frame: Frame) -> ServiceError | None:
        """Why the frame has no answer: what it was told last; of a master that others name, why it can't be reached."""
        told = frame.last_error
        if isinstance(told, NotMaster) and (cause := self._unreachable.get(told.master_address)):
            return Unavailable(
                f"{told.message}, and it can't be reached: {cause.message}",
                master=told.master,
                master_address=told.master_address,
            )
        return told or self._last_error

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        cause = None if task.cancelled() else task.exception()
        if cause is None and (self._closed or task is not self._pump_task):
            return
        self._closed = True  # a bug of ours: nobody shall wait for ever for an answer that cannot come
        bug = InternalError(f"bug in the client library: {cause!r}")
        bug.__cause__ = cause
        self._fail_all(bug)
