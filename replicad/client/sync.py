"""The blocking client: the async one in a loop and a thread of its own. Owns that thread; knows nothing of posting or
reading itself."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from replicad.client.aio import AsyncClient, RecordBatches
from replicad.client.arguments import checked_iterable
from replicad.client.bulk import FRAMES_UNDER_WAY, bulk_error, input_error, until_fault
from replicad.client.cutting import BulkMessage, cut_frames
from replicad.client.encryption import Encryption
from replicad.client.ids import PROCESS_IDS
from replicad.client.lanes import LaneKey
from replicad.client.types import Leading, Outcome, Posted, Record, Status
from replicad.errors import Applied, ServiceError, Unavailable

CLOSE_S = 2.0  # for calls under way to end when the client is closed: the longest pause between two tries, and some

T = TypeVar("T")

RecordLists = Iterator[list[Record]]  # named here: inside the class `list` is the method
PostedLists = Iterator[list[Posted]]


class Client:
    """A blocking client of one replicad cluster; arguments and errors as :class:`AsyncClient` has them.

    May be used from many threads at once; their posts travel together. Use it as ``with Client() as client``. In a
    process that was forked from the one that made it, every call raises RuntimeError.
    """

    def __init__(
        self,
        addresses: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        write_concern: str | int | None = None,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        encryption: Encryption | None = None,
    ) -> None:
        self._client = AsyncClient(
            addresses,
            token=token,
            timeout_s=timeout_s,
            write_concern=write_concern,
            ca=ca,
            certificate=certificate,
            key=key,
            encryption=encryption,
        )
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        # Between starting something in the loop and stopping it. The garbage collector may end an iterator wherever the
        # lock is held, and that starts something, too.
        self._lock = threading.RLock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="replicad-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread; as :meth:`AsyncClient.close`."""
        if os.getpid() != self._process or sys.is_finalizing():
            return  # there is no such thread, or it stands still; and a fork's connections are not its own to close
        with self._lock:
            if self._closed:
                return
            self._closed = True
            closing = asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop)
        closing.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut_down(self) -> None:
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=CLOSE_S)  # each learns by itself that the client was closed
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    # --- posting ----------------------------------------------------------------------------------------------------

    def post(
        self,
        payload: bytes | str,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        write_concern: str | int | None = None,
        timeout_s: float | None = None,
    ) -> Posted:
        """As :meth:`AsyncClient.post`."""
        return self._run(
            self._client.post(payload, id=id, headers=headers, write_concern=write_concern, timeout_s=timeout_s)
        )

    def repost(
        self, record: Record, *, write_concern: str | int | None = None, timeout_s: float | None = None
    ) -> Posted:
        """As :meth:`AsyncClient.repost`."""
        return self._run(self._client.repost(record, write_concern=write_concern, timeout_s=timeout_s))

    def post_many(
        self,
        messages: Iterable[BulkMessage],
        *,
        write_concern: str | int | None = None,
        timeout_s: float | None = None,
    ) -> PostedLists:
        """As :meth:`AsyncClient.post_many`. The iterable is read in the caller's thread, about a frame ahead: one that
        blocks for its next message holds up those read before it."""
        return self._post_many(checked_iterable(messages), self._client.lane_key(write_concern, timeout_s))

    def _post_many(self, messages: Iterable[BulkMessage], key: LaneKey) -> PostedLists:
        under_way: deque[Future[list[Posted]]] = deque()
        confirmed = 0

        def oldest() -> list[Posted]:
            nonlocal confirmed
            try:
                posted = _result(under_way.popleft())
            except ServiceError as error:
                raise bulk_error(error, confirmed) from error
            confirmed += len(posted)
            return posted

        fault: Exception | None = None
        try:
            for content in until_fault(cut_frames(messages, PROCESS_IDS)):
                if isinstance(content, Exception):
                    fault = content
                    break
                try:
                    under_way.append(self._start(self._client.post_content(content, key)))
                except ServiceError as error:  # what is under way may be in the log, and is told first
                    fault = error
                    break
                if len(under_way) >= FRAMES_UNDER_WAY:
                    yield oldest()
            while under_way:
                yield oldest()
            if fault is not None:
                raise input_error(fault, confirmed)
        finally:
            for waiter in under_way:
                waiter.cancel()

    # --- reading ----------------------------------------------------------------------------------------------------

    def list(
        self,
        from_offset: int = 0,
        *,
        limit: int | None = None,
        level: str = "committed",
        min_offset: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[Record]:
        """As :meth:`AsyncClient.list`."""
        return _flatten(
            self.list_batches(
                from_offset, limit=limit, level=level, min_offset=min_offset, since_ms=since_ms, until_ms=until_ms
            )
        )

    def list_batches(
        self,
        from_offset: int = 0,
        *,
        limit: int | None = None,
        level: str = "committed",
        min_offset: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> RecordLists:
        """As :meth:`AsyncClient.list_batches`."""
        return self._iterate(
            self._client.list_batches(
                from_offset, limit=limit, level=level, min_offset=min_offset, since_ms=since_ms, until_ms=until_ms
            )
        )

    def tail(self, from_offset: int = 0, *, level: str = "committed") -> Iterator[Record]:
        """As :meth:`AsyncClient.tail`."""
        return _flatten(self.tail_batches(from_offset, level=level))

    def tail_batches(self, from_offset: int = 0, *, level: str = "committed") -> RecordLists:
        """As :meth:`AsyncClient.tail_batches`."""
        return self._iterate(self._client.tail_batches(from_offset, level=level))

    # --- asking -----------------------------------------------------------------------------------------------------

    def outcome(self, id: str) -> Outcome:
        """As :meth:`AsyncClient.outcome`."""
        return self._run(self._client.outcome(id))

    def status(self, address: str | None = None) -> Status:
        """As :meth:`AsyncClient.status`."""
        return self._run(self._client.status(address))

    # --- steering ---------------------------------------------------------------------------------------------------

    def promote(self, address: str, *, accept_data_loss: bool = False, timeout_s: float | None = None) -> Leading:
        """As :meth:`AsyncClient.promote`."""
        return self._run(self._client.promote(address, accept_data_loss=accept_data_loss, timeout_s=timeout_s))

    def switchover(self, to: str = "", *, address: str | None = None, timeout_s: float | None = None) -> Leading:
        """As :meth:`AsyncClient.switchover`."""
        return self._run(self._client.switchover(to, address=address, timeout_s=timeout_s))

    # --- the thread -------------------------------------------------------------------------------------------------

    def _start(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        if os.getpid() != self._process:  # where a thread is missing; and the lock may be held by it for ever
            coroutine.close()
            raise RuntimeError("this client is another process's, which this one was forked from: make one in each")
        if sys.is_finalizing():  # the thread stands still, perhaps with the lock: nothing would come of it, for ever
            coroutine.close()
            raise Unavailable("the interpreter is at its end, and the client with it")
        with self._lock:
            if self._closed:
                coroutine.close()
                raise Unavailable("the client was closed")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        waiter = self._start(coroutine)
        try:
            return _result(waiter)
        except BaseException:
            waiter.cancel()  # KeyboardInterrupt: nobody waits any more
            raise

    def _iterate(self, batches: RecordBatches) -> RecordLists:
        """The lists of an async generator; the next one is fetched while the caller uses the last."""
        ahead = _Ahead(batches)
        try:
            while (records := self._run(ahead.next())) is not None:
                yield records
        finally:
            with suppress(Unavailable, RuntimeError):  # closing ended it, or it is another process's
                self._start(ahead.close())  # not waited for: the garbage collector may run this, in the loop's thread


class _Ahead:
    """An async generator, one step ahead of who reads it. To be used inside the loop."""

    def __init__(self, batches: RecordBatches) -> None:
        self._batches = batches
        self._following: asyncio.Task[list[Record] | None] | None = None

    async def next(self) -> list[Record] | None:
        """The next list, or None at the end."""
        records = await (self._following or self._fetch())
        self._following = None if records is None else self._fetch()
        return records

    async def close(self) -> None:
        """End the generator, wherever it is."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._batches.aclose()

    def _fetch(self) -> asyncio.Task[list[Record] | None]:
        return asyncio.create_task(_next(self._batches))


def _result(waiter: Future[T]) -> T:
    try:
        return waiter.result()
    except CancelledError:  # by closing, of what did not end by itself
        closed = Unavailable("the client was closed")
        closed.applied = Applied.UNKNOWN
        raise closed from None


async def _next(batches: RecordBatches) -> list[Record] | None:
    return await anext(batches, None)


def _flatten(batches: Iterator[list[Record]]) -> Iterator[Record]:
    for records in batches:
        yield from records
