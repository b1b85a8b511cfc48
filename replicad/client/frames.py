"""What is posted together: messages of one write concern, those who wait for them, and how a result is shared out.

Pure but for the futures. Must not know streams, nodes or the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import repeat
from typing import cast

from replicad.client.ids import PROCESS_IDS
from replicad.client.retry import own_instance
from replicad.client.types import Posted
from replicad.errors import (
    Applied,
    IdConflict,
    OutcomeUnknown,
    PeerError,
    ServiceError,
    Unavailable,
)
from replicad.wire.codec import PostFrameResult, PostRun, encode_post_frame

FRAME_BYTES = 512 << 10  # payloads and headers: more only adds delay before the first of them is answered
FRAME_MESSAGES = 4096  # the server takes a frame apart in one go, about 1 us a message, and others wait
MAX_MARGIN_S = 0.5  # the server's own timeout answer, which knows offset and nodes, gets this long for its way back
_MAX_TIMEOUT_MS = (1 << 32) - 1  # the field is a uint32

#: Posted(*values) without its Python-level __new__: a whole frame's worth is made at once.
_make_posted = cast("partial[Posted]", partial(tuple.__new__, Posted))

PostOutcome = Posted | ServiceError


class Frame:
    """Messages on their way into the log.

    1. ``ids`` and ``payloads`` are of one length; ``headers`` is empty or of that length; nothing is added once it
       was sent. A retry sends the very same messages.
    2. ``lost`` says that an earlier try may have been applied, its answer never seen; only an answer that tells of the
       message itself clears it, not another node's refusal to take it.
    3. Once ``done``, all who wait have their answer.
    """

    __slots__ = (
        "deadline",
        "done",
        "headers",
        "ids",
        "last_error",
        "lost",
        "payloads",
        "sent_at",
        "sequence",
        "size_bytes",
        "timer",
        "tries",
        "written_at",
    )

    def __init__(
        self, *, ids: list[str], payloads: list[bytes], headers: list[bytes], size_bytes: int, deadline: float
    ) -> None:
        self.ids = ids
        self.payloads = payloads
        self.headers = headers
        self.size_bytes = size_bytes  # of payloads and headers
        self.deadline = deadline  # by the loop's clock
        self.sequence = 0  # of the latest try
        self.sent_at = 0.0  # the latest try, by the loop's clock
        self.written_at = 0.0  # when gRPC had taken all of that; 0.0 before
        self.tries = 0
        self.lost = False
        self.last_error: ServiceError | None = None
        self.done = False
        self.timer: asyncio.TimerHandle | None = None

    def encode(self, *, write_concern: str, now: float) -> bytes:
        """The frame's bytes, with what is left of the callers' time but for a margin."""
        left_s = self.deadline - now
        timeout_ms = int(1000 * (left_s - min(MAX_MARGIN_S, left_s / 10)))
        return encode_post_frame(
            self.sequence,
            self.ids,
            self.payloads,
            self.headers if any(self.headers) else (),
            write_concern=write_concern,
            timeout_ms=min(max(1, timeout_ms), _MAX_TIMEOUT_MS),
        )

    def finish(self) -> bool:
        """Mark as done; False when it was."""
        if self.done:
            return False
        self.done = True
        if self.timer is not None:
            self.timer.cancel()
        return True

    def take_past(self, whole: Frame) -> None:
        """A part of ``whole`` knows what is known of its earlier tries."""
        self.tries, self.lost, self.last_error = whole.tries, whole.lost, whole.last_error

    def settle(self, outcomes: Sequence[PostOutcome]) -> None:
        """Give each who waits the outcome of its message."""
        raise NotImplementedError

    def fail(self, error: ServiceError) -> None:
        """Give all who wait this error, each its own instance, saying whether the message may have been applied."""
        raise NotImplementedError

    def split(self) -> list[Frame]:
        """Its halves, to be sent instead of it; [] when it has one message. A frame that is refused as a whole is
        halved until the message at fault stands alone, or the frames are as small as the server wants them."""
        if len(self.ids) == 1:
            return []
        middle = len(self.ids) // 2
        return self.halves(range(middle), range(middle, len(self.ids)))

    def halves(self, first: Sequence[int], second: Sequence[int]) -> list[Frame]:
        """A frame for each of the two ranges of indexes."""
        raise NotImplementedError


class CallsFrame(Frame):
    """Messages of many callers, each waiting for its own. An id of "" is made when the frame is first sent."""

    __slots__ = ("closes_at", "waiters")

    def __init__(self, *, deadline: float, closes_at: float = 0.0) -> None:
        """It takes callers until ``closes_at``, by the loop's clock."""
        super().__init__(ids=[], payloads=[], headers=[], size_bytes=0, deadline=deadline)
        self.closes_at = closes_at
        self.waiters: list[asyncio.Future[Posted]] = []

    def encode(self, *, write_concern: str, now: float) -> bytes:
        if missing := self.ids.count(""):
            made = iter(PROCESS_IDS.many(missing))
            self.ids = [each or next(made) for each in self.ids]
        return super().encode(write_concern=write_concern, now=now)

    def settle(self, outcomes: Sequence[PostOutcome]) -> None:
        if self.finish():
            for index, (waiter, outcome) in enumerate(zip(self.waiters, outcomes, strict=True)):
                if waiter.done():  # its caller was cancelled
                    continue
                if isinstance(outcome, Posted):
                    waiter.set_result(outcome)
                else:
                    waiter.set_exception(final_error(self, outcome, index))

    def fail(self, error: ServiceError) -> None:
        if self.finish():
            for index, waiter in enumerate(self.waiters):
                if not waiter.done():
                    waiter.set_exception(final_error(self, error, index))

    def halves(self, first: Sequence[int], second: Sequence[int]) -> list[Frame]:
        return [self.part(first), self.part(second)]

    def part(self, indexes: Sequence[int]) -> CallsFrame:
        """Some of the messages as a frame of their own, with what is known of earlier tries."""
        part = CallsFrame(deadline=self.deadline)
        part.ids = [self.ids[index] for index in indexes]
        part.payloads = [self.payloads[index] for index in indexes]
        part.headers = [self.headers[index] for index in indexes]
        part.waiters = [self.waiters[index] for index in indexes]
        part.size_bytes = sum(map(len, part.payloads)) + sum(map(len, part.headers))
        part.take_past(self)
        return part


class BulkFrame(Frame):
    """Messages of one caller who waits for all of them; the first message that fails fails the frame."""

    __slots__ = ("waiter",)

    def __init__(
        self,
        *,
        ids: list[str],
        payloads: list[bytes],
        headers: list[bytes],
        size_bytes: int,
        deadline: float,
        waiter: asyncio.Future[list[Posted]],
    ) -> None:
        super().__init__(ids=ids, payloads=payloads, headers=headers, size_bytes=size_bytes, deadline=deadline)
        self.waiter = waiter

    def settle(self, outcomes: Sequence[PostOutcome]) -> None:
        for index, each in enumerate(outcomes):
            if isinstance(each, ServiceError):
                self._fail_at(index, each)
                return
        if self.finish() and not self.waiter.done():
            self.waiter.set_result(cast(list[Posted], outcomes))

    def fail(self, error: ServiceError) -> None:
        self._fail_at(0, error)

    def _fail_at(self, index: int, error: ServiceError) -> None:
        if self.finish() and not self.waiter.done():
            self.waiter.set_exception(final_error(self, error, index))

    def halves(self, first: Sequence[int], second: Sequence[int]) -> list[Frame]:
        parts = [self._part(first), self._part(second)]
        waiters = [part.waiter for part in parts]

        def join(_: object) -> None:
            if all(waiter.done() and not waiter.cancelled() for waiter in waiters):
                failed = [error for waiter in waiters if (error := waiter.exception()) is not None]
                if self.waiter.done():
                    return
                if failed:
                    self.waiter.set_exception(failed[0])
                else:
                    self.waiter.set_result(waiters[0].result() + waiters[1].result())

        for waiter in waiters:
            waiter.add_done_callback(join)
        return list(parts)

    def _part(self, indexes: Sequence[int]) -> BulkFrame:
        span = slice(indexes[0], indexes[-1] + 1)
        payloads, headers = self.payloads[span], self.headers[span]
        part = BulkFrame(
            ids=self.ids[span],
            payloads=payloads,
            headers=headers,
            size_bytes=sum(map(len, payloads)) + sum(map(len, headers)),
            deadline=self.deadline,
            waiter=self.waiter.get_loop().create_future(),
        )
        part.take_past(self)
        return part


def final_error(frame: Frame, error: ServiceError, index: int) -> ServiceError:
    """The error for one caller, of the message with that index. A refusal of the latest try says nothing about an
    earlier one whose answer was lost, unless it tells that the log has other content under the id: limits and voters
    may have been others then."""
    mine = own_instance(error, id=frame.ids[index])
    if frame.lost and mine.applied is Applied.NO and not isinstance(error, IdConflict):
        mine.applied = Applied.UNKNOWN
    return mine


def timeout_error(frame: Frame, *, in_flight: bool, reason: ServiceError | None) -> ServiceError:
    """The error when the callers' time is over: OutcomeUnknown when any try may have been applied, else ``reason``,
    which kept the messages out; None for what the frame was told last."""
    cause = reason or frame.last_error
    if frame.lost or in_flight:
        error: ServiceError = OutcomeUnknown(
            "no answer in time, and the message may have been applied; ask for its outcome or post the same id again"
            + (f" (last: {cause})" if cause else "")
        )
    elif cause is not None:
        error = own_instance(cause)
    else:
        error = Unavailable("no node took the message in time")
    error.__cause__ = cause
    return error


def outcomes_of(ids: Sequence[str], result: PostFrameResult) -> list[PostOutcome]:
    """What became of each message. Raises PeerError("malformed") unless each has exactly one outcome."""
    if len(result.runs) == 1 and not result.errors:
        [run] = result.runs
        if run.first_index == 0 and run.count == len(ids):
            return list(_posted(ids, run, result.nodes))
    outcomes: list[PostOutcome | None] = [None] * len(ids)
    for run in result.runs:
        start, stop = run.first_index, run.first_index + run.count
        if stop > len(ids) or outcomes[start:stop].count(None) != run.count:
            raise _misfit(result)
        outcomes[start:stop] = _posted(ids[start:stop], run, result.nodes)
    for index, error in result.errors:
        if index >= len(ids) or outcomes[index] is not None:
            raise _misfit(result)
        outcomes[index] = error
    if outcomes.count(None):
        raise _misfit(result)
    return cast(list[PostOutcome], outcomes)


def _posted(ids: Sequence[str], run: PostRun, nodes: int) -> list[Posted]:
    offsets = range(run.first_offset, run.first_offset + run.count)
    return list(map(_make_posted, zip(ids, offsets, repeat(run.duplicate), repeat(nodes), strict=False)))


def _misfit(result: PostFrameResult) -> PeerError:
    return PeerError("malformed", f"the result of frame {result.sequence} does not fit its messages")
