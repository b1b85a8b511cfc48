"""Reading: list and tail from whichever node serves them, gapless across reconnects.

Owns where a read stands and how it goes on after a break. Must not know how responses are encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from random import Random

from replicad.client import methods
from replicad.client.connection import Connections, ResponseStream
from replicad.client.retry import Route, may_retry, next_delay
from replicad.client.types import Record
from replicad.errors import NotMaster, PeerError, RateLimited, ServiceError, Unavailable
from replicad.wire.codec import decode_list_response
from replicad.wire.v1 import log_pb2

READ_WAIT_S = 60.0  # how long a server may take for a read's first response when it waits for min_offset
RecordBatches = AsyncGenerator[list[Record], None]

TAIL_SILENCE_S = 10.0  # an idle tail has a sign of life each second: after ten missed ones the node is taken for dead
LEAST_TRY_S = 1.0  # a node that answers at all answers a small request in this


@dataclass(frozen=True, slots=True)
class Range:
    """What a list reads."""

    from_offset: int
    limit: int | None
    level: str
    min_offset: int | None
    since_ms: int | None
    until_ms: int | None


class Reading:
    """One list or tail on its way: where it stands, and the only judge of what comes next.

    1. ``next_offset`` is the offset after the last record handed out.
    2. Records are handed out in order; unless ``by_time``, without a gap.
    """

    def __init__(self, from_offset: int, *, limit: int | None = None, by_time: bool = False) -> None:
        self.next_offset = from_offset
        self.left = limit
        self.by_time = by_time
        self.seen_commit_size = 0  # the largest that any node told

    def take(self, data: bytes) -> list[list[Record]]:
        """The records of a response that come next. Raises PeerError: malformed, or a gap or repetition."""
        commit_size, bodies = decode_list_response(data)
        self.seen_commit_size = max(self.seen_commit_size, commit_size)
        taken = []
        for records in bodies:
            if not records:
                continue
            first = records[0].offset
            if first < self.next_offset or (first > self.next_offset and not self.by_time):
                raise PeerError("gap", f"the next record is {self.next_offset}, but the node sent {first}")
            self.next_offset = records[-1].offset + 1
            if self.left is not None:
                del records[self.left :]
                self.left -= len(records)
            if records:
                taken.append(records)
        return taken

    @property
    def is_complete(self) -> bool:
        return self.left == 0


class Reader:
    """Reads from the first address that works, until it does not."""

    def __init__(self, addresses: tuple[str, ...], connections: Connections, *, timeout_s: float, rng: Random) -> None:
        self._connections = connections
        self._timeout_s = timeout_s
        self._rng = rng
        self.route = Route(addresses, rng)

    async def call(self, method: str, request: bytes, *, address: str | None = None) -> bytes:
        """A single request. With an address it goes there and nowhere else. Raises ServiceError when no node answers
        within the client's timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while True:
            target = address or self.route.current
            left_s = max(0.001, deadline - loop.time())
            if address is None:  # one node that hangs must leave time for the others
                left_s = min(left_s, max(LEAST_TRY_S, self._timeout_s / len(self.route.addresses)))
            try:
                return await self._connections.to(target).call(method, request, timeout_s=left_s)
            except ServiceError as error:
                if address is not None or not may_retry(error):
                    raise
                delay = self._next_address(self.route, error)
                if loop.time() + delay >= deadline:
                    raise
            await asyncio.sleep(delay)

    def list(self, wanted: Range) -> RecordBatches:
        """Lists of consecutive records, to the end of what the node has. Raises ServiceError, PeerError."""
        by_time = wanted.since_ms is not None or wanted.until_ms is not None
        reading = Reading(wanted.from_offset, limit=wanted.limit, by_time=by_time)

        def request() -> bytes:
            return _list_request(wanted, reading)

        first_wait_s = self._timeout_s if wanted.min_offset is None else max(self._timeout_s, READ_WAIT_S)
        return self._follow(methods.LIST, reading, request, first_wait_s=first_wait_s)

    def tail(self, from_offset: int, level: str) -> RecordBatches:
        """Lists of consecutive records, for ever. Raises ServiceError for what waiting does not mend (also when no
        node can be reached at first), PeerError."""
        reading = Reading(from_offset)

        def request() -> bytes:
            return log_pb2.TailRequest(from_offset=reading.next_offset, level=level).SerializeToString()

        return self._follow(methods.TAIL, reading, request, first_wait_s=TAIL_SILENCE_S, endless=True)

    async def _follow(
        self, method: str, reading: Reading, request: Callable[[], bytes], *, first_wait_s: float, endless: bool = False
    ) -> RecordBatches:
        """The records of one stream after the other, until one ends well. ``first_wait_s`` is the longest wait for a
        stream's first response. An ``endless`` one is not to end and, once it has worked, never gives up."""
        loop = asyncio.get_running_loop()
        ever_answered = False
        failing_since: float | None = None
        wait_s = first_wait_s
        while not reading.is_complete:
            address = self.route.current
            stream = self._connections.to(address).stream(method, request())
            try:
                while (data := await self._response(stream, address, wait_s)) is not None:
                    taken = reading.take(data)
                    ever_answered, failing_since = True, None
                    wait_s = TAIL_SILENCE_S if endless else self._timeout_s
                    self.route.succeeded()
                    for records in taken:
                        yield records
                if not endless:
                    return
                error: ServiceError = Unavailable(f"{address} ended the tail")
            except ServiceError as exc:
                error = exc
            finally:
                stream.cancel()
            delay = self._next_address(self.route, error)
            now = loop.time()
            failing_since = now if failing_since is None else failing_since
            patient = endless and ever_answered
            if not may_retry(error) or (not patient and now + delay >= failing_since + self._timeout_s):
                raise error
            await asyncio.sleep(delay)
            wait_s = first_wait_s

    async def _response(self, stream: ResponseStream, address: str, wait_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(wait_s):
                return await self._connections.read(stream, address)
        except TimeoutError as exc:
            raise Unavailable(f"{address}: no answer within {wait_s:g} s") from exc

    def _next_address(self, route: Route, error: ServiceError) -> float:
        """Move on after an error; returns the seconds to wait first."""
        if isinstance(error, RateLimited):
            return max(error.retry_after_s or 0.0, next_delay(0, self._rng))
        return route.not_master(error.master_address if isinstance(error, NotMaster) else "")


def _list_request(wanted: Range, reading: Reading) -> bytes:
    request = log_pb2.ListRequest(from_offset=reading.next_offset, limit=reading.left or 0, level=wanted.level)
    min_offset = wanted.min_offset
    if reading.seen_commit_size > reading.next_offset and wanted.level == "committed" and not reading.by_time:
        # Another node may be behind the one that broke off: it must not end the list earlier.
        end = reading.seen_commit_size
        if reading.left is not None:
            end = min(end, reading.next_offset + reading.left)
        min_offset = max(end - 1, min_offset or 0)
    if min_offset is not None:
        request.min_offset = min_offset
    if wanted.since_ms is not None:
        request.since_ms = wanted.since_ms
    if wanted.until_ms is not None:
        request.until_ms = wanted.until_ms
    return request.SerializeToString()
