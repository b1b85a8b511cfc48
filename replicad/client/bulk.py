"""Bulk posting: keeps some frames under way and gives their results in the order of the input.

Owns how far the input is read ahead of the results. Must not know how frames travel.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sized

from replicad.client.cutting import BulkMessage, Content, content_of, cut_frames, split
from replicad.client.frames import FRAME_BYTES, FRAME_MESSAGES
from replicad.client.ids import PROCESS_IDS
from replicad.client.retry import own_instance
from replicad.client.types import NewMessage, Posted
from replicad.errors import ServiceError

FRAMES_UNDER_WAY = 8  # keeps the master's write loop fed over one round trip


class Bulk:
    """One post_many on its way."""

    def __init__(self, submit: Callable[[Content], asyncio.Future[list[Posted]]]) -> None:
        self._post = submit
        self._under_way: deque[asyncio.Future[list[Posted]]] = deque()  # in input order
        self._confirmed = 0

    async def run(self, messages: Iterable[BulkMessage]) -> AsyncGenerator[list[Posted], None]:
        """Post what an iterable gives; it is read only as fast as frames are answered."""
        fault: Exception | None = None
        try:
            for content in until_fault(cut_frames(messages, PROCESS_IDS)):
                if isinstance(content, Exception):
                    fault = content
                    break
                try:
                    self._submit(content)
                except ServiceError as error:  # what is under way may be in the log, and is told first
                    fault = error
                    break
                if len(self._under_way) >= FRAMES_UNDER_WAY:
                    yield await self._oldest()
            while self._under_way:
                yield await self._oldest()
            if fault is not None:
                raise input_error(fault, self._confirmed)
        finally:
            self._forget()

    async def run_async(self, messages: AsyncIterable[BulkMessage]) -> AsyncGenerator[list[Posted], None]:
        """Post what an async iterable gives. A full frame goes at once; what there is goes when nothing else is under
        way, so that a slow input is not kept waiting for a full frame."""
        ahead = _Ahead()
        room, news = asyncio.Event(), asyncio.Event()

        async def read() -> None:
            try:
                async for message in messages:
                    ahead.add(message)
                    news.set()
                    while ahead.is_full():
                        if len(self._under_way) < FRAMES_UNDER_WAY:
                            self._submit_all(ahead.take())
                        else:
                            room.clear()
                            await room.wait()
            finally:
                news.set()

        reader = asyncio.create_task(read())
        try:
            while True:
                news.clear()
                if self._under_way:
                    posted = await self._oldest()
                    room.set()
                    yield posted
                elif ahead.messages:
                    try:
                        self._submit_all(ahead.take())
                    except ServiceError as error:
                        raise bulk_error(error, self._confirmed) from error
                    room.set()
                elif reader.done():
                    if (fault := reader.exception()) is not None:
                        raise input_error(fault, self._confirmed)
                    return
                else:
                    await news.wait()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._forget()

    def _submit_all(self, messages: list[BulkMessage]) -> None:
        for content in split(content_of(messages, PROCESS_IDS)):
            self._submit(content)

    def _submit(self, content: Content) -> None:
        self._under_way.append(self._post(content))

    async def _oldest(self) -> list[Posted]:
        try:
            posted = await self._under_way.popleft()
        except ServiceError as error:
            raise bulk_error(error, self._confirmed) from error
        self._confirmed += len(posted)
        return posted

    def _forget(self) -> None:
        """Nobody waits any more for what is still under way."""
        for waiter in self._under_way:
            waiter.cancel()


def bulk_error(error: ServiceError, confirmed: int) -> ServiceError:
    """The error of a frame, saying how far the input got."""
    return own_instance(
        error, f"{error.message} (the first {confirmed} messages are confirmed; later ones may have been applied)"
    )


def input_error(fault: BaseException, confirmed: int) -> BaseException:
    """What to raise for a fault of the input, once all that came before it is told."""
    return bulk_error(fault, confirmed) if isinstance(fault, ServiceError) else fault


def until_fault(contents: Iterator[Content]) -> Iterator[Content | Exception]:
    """The contents, and at their end what went wrong: a message that is none, or what the iterable raises. What is
    under way then is told first, so the error must wait."""
    try:
        yield from contents
    except Exception as exc:
        yield exc


class _Ahead:
    """Messages read and not yet sent."""

    def __init__(self) -> None:
        self.messages: list[BulkMessage] = []
        self._size_bytes = 0

    def add(self, message: BulkMessage) -> None:
        self.messages.append(message)
        payload = message.payload if isinstance(message, NewMessage) else message
        self._size_bytes += len(payload) if isinstance(payload, Sized) else 0  # what is no payload is refused later

    def is_full(self) -> bool:
        return len(self.messages) >= FRAME_MESSAGES or self._size_bytes >= FRAME_BYTES

    def take(self) -> list[BulkMessage]:
        taken, self.messages, self._size_bytes = self.messages, [], 0
        return taken
