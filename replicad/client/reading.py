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

RecordBatches = AsyncGenerator[list[Record], None]

TAIL_SILENCE_S = 10.0  # an idle tail has a sign of life each second: after ten missed ones the node is taken for dead
LEAST_TRY_S = 1.0  # a node that answers at all answers a small request in this
PATIENCE = 6  # times that a wait is doubled at the most: 64 MiB, the largest record, at 1 Mbit/s


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

    async def call(
        self,
        method: str,
        request: bytes,
        *,
        address: str | None = None,
        deadline: float | None = None,
        goes_on: Callable[[ServiceError], bool] = may_retry,
    ) -> bytes:
        """A single request. With an address it goes there and nowhere else; without, to one node after the other while
        ``goes_on`` says so of their errors. Raises ServiceError when none answers within the client's timeout, or by
        the ``deadline`` of several requests; of those none takes all of it, so that the others have their share."""
        loop = asyncio.get_running_loop()
        takes_all = address is not None and deadline is None
        deadline = loop.time() + self._timeout_s if deadline is None else deadline
        while True:
            target = address or self.route.current
            left_s = max(0.001, deadline - loop.time())
            if not takes_all:  # one node that hangs must leave time for the others
                left_s = min(left_s, self._share_s)
            connection = self._connections.to(target)  # whose error, when the client was closed, is the last
            try:
                return await connection.call(method, request, timeout_s=left_s)
            except ServiceError as error:
                if address is not None or not goes_on(error):
                    raise
                delay = self._next_address(self.route, error, target)
                if loop.time() + delay >= deadline:
                    raise
            await asyncio.sleep(delay)

    def list(self, wanted: Range) -> RecordBatches:
        """Lists of consecutive records, to the end of what the node has. Raises ServiceError, PeerError."""
        by_time = wanted.since_ms is not None or wanted.until_ms is not None
        reading = Reading(wanted.from_offset, limit=wanted.limit, by_time=by_time)

        def request() -> bytes:
            return _list_request(wanted, reading)

        return self._follow(methods.LIST, reading, request)

    def tail(self, from_offset: int, level: str) -> RecordBatches:
        """Lists of consecutive records, for ever. Raises ServiceError for what waiting does not mend (also when no
        node can be reached at first), PeerError."""
        reading = Reading(from_offset)

        def request() -> bytes:
            return log_pb2.TailRequest(from_offset=reading.next_offset, level=level).SerializeToString()

        return self._follow(methods.TAIL, reading, request, endless=True)

    async def _follow(
        self, method: str, reading: Reading, request: Callable[[], bytes], *, endless: bool = False
    ) -> RecordBatches:
        """The records of one stream after the other, until one ends well. Gives up when no stream has begun to answer
        for the client's timeout; an ``endless`` one, which is not to end, never again once it has worked."""
        loop = asyncio.get_running_loop()
        ever_answered, tries = False, 0  # that ended in silence, without a record
        give_up_at = loop.time() + self._timeout_s
        while not reading.is_complete:
            address, heard = self.route.current, False
            stream = self._connections.to(address).stream(method, request())
            try:
                while True:
                    patient, left_s = endless and ever_answered, give_up_at - loop.time()
                    wait_s = self._wait_s(endless=patient, heard=heard, tries=tries, left_s=left_s)
                    data = await self._response(stream, address, wait_s)
                    if data is None:
                        break
                    taken = reading.take(data)
                    if taken or heard:  # an idle tail's beat, too; the first response may be empty, and no more come
                        tries = 0
                        self.route.succeeded()  # not by a greeting alone: who only greets is not asked without a pause
                    ever_answered = heard = True
                    for records in taken:
                        yield records
                if not endless:
                    self.route.succeeded()
                    return
                error: ServiceError = Unavailable(f"{address} ended the tail")
            except ServiceError as exc:
                error = exc
                if isinstance(exc.__cause__, TimeoutError):  # an error that comes at once asks for no longer wait
                    tries += 1
            finally:
                stream.cancel()
            delay = self._next_address(self.route, error, address)
            if heard:
                give_up_at = loop.time() + self._timeout_s
            patient = endless and ever_answered
            if not may_retry(error) or (not patient and loop.time() + delay >= give_up_at):
                raise error
            await asyncio.sleep(delay)

    def _wait_s(self, *, endless: bool, heard: bool, tries: int, left_s: float) -> float:
        """For how long to wait for a response, all of it. One node that hangs must leave time for the others; on a slow
        line a large response takes long, and must not begin anew for ever."""
        longer = 1 << min(tries, PATIENCE)
        if endless:
            return TAIL_SILENCE_S * longer
        return self._timeout_s if heard else max(0.001, min(left_s, self._share_s * longer))

    @property
    def _share_s(self) -> float:
        """Each node's share of the client's timeout."""
        return max(LEAST_TRY_S, self._timeout_s / len(self.route.addresses))

    async def _response(self, stream: ResponseStream, address: str, wait_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(wait_s):
                return await self._connections.read(stream, address)
        except TimeoutError as exc:
            raise Unavailable(f"{address}: no answer within {wait_s:.3g} s") from exc

    def _next_address(self, route: Route, error: ServiceError, tried: str) -> float:
        """Move on after an error; returns the seconds to wait first."""
        if isinstance(error, RateLimited):
            return max(error.retry_after_s or 0.0, next_delay(0, self._rng))
        return route.not_master(error.master_address if isinstance(error, NotMaster) else "", tried)


def _list_request(wanted: Range, reading: Reading) -> bytes:
    request = log_pb2.ListRequest(from_offset=reading.next_offset, limit=reading.left or 0, level=wanted.level)
    min_offset = wanted.min_offset
    if reading.seen_commit_size > reading.next_offset and wanted.level == "committed":
        # Another node may be behind the one that broke off: it must not end the list earlier.
        end = reading.seen_commit_size
        if reading.left is not None and not reading.by_time:
            end = min(end, reading.next_offset + reading.left)
        min_offset = max(end - 1, min_offset or 0)
    if min_offset is not None:
        request.min_offset = min_offset
    if wanted.since_ms is not None:
        request.since_ms = wanted.since_ms
    if wanted.until_ms is not None:
        request.until_ms = wanted.until_ms
    return request.SerializeToString()
