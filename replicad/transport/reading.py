"""List and Tail: stored bodies go out as they are; only the first and the last are cut.

Owns ranges, levels and the pace of reading. Must not know who reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from replicad.config import Config
from replicad.core.batch import Batch
from replicad.core.worker import Worker
from replicad.errors import BadRequest, DamagedError, NotMaster, Unavailable
from replicad.runtime import LEVELS, Runtime
from replicad.transport.addresses import address_of
from replicad.transport.calls import Context, parse_request
from replicad.transport.room import Room, Share
from replicad.wire.codec import decode_records, encode_list_response, encode_records
from replicad.wire.parsing import MAX_PLACE
from replicad.wire.v1 import log_pb2 as pb

LOOK_AGAIN_S = 0.1  # for a commit size that is known, and not on a full disk
PRINCIPAL_BYTES = 64 << 20  # read for one principal and not taken yet, as stored; in memory it is four times as much
TAIL_BEAT_S = 1.0  # an idle tail says so this often: who follows finds a dead node soon


async def confirm_master(runtime: Runtime, config: Config, what: str, wait_s: float) -> None:
    """Return when a majority has confirmed that this still is the master; ``what`` is asked for. Raises NotMaster,
    Unavailable."""
    machine = runtime.machine
    if isinstance(machine, Worker):
        address = address_of(config, machine.master)
        raise NotMaster(f"{what} is answered by the master", master=machine.master, master_address=address)
    await runtime.confirm_master(wait_s)


class Reading:
    def __init__(self, runtime: Runtime, config: Config) -> None:
        self._runtime, self._config = runtime, config
        self._room = Room(PRINCIPAL_BYTES)

    def configure(self, config: Config) -> None:
        """Go by ``config`` from the next read on."""
        self._config = config

    def list_records(self, request: bytes, context: Context, author: str) -> AsyncGenerator[bytes, None]:
        """The handler of List."""
        del context
        return self._shared(self._list, request, author)

    async def _shared(
        self, read: Callable[[bytes, Share], AsyncGenerator[bytes, None]], request: bytes, author: str
    ) -> AsyncGenerator[bytes, None]:
        with self._room.share(author) as share:
            async with aclosing(read(request, share)) as responses:
                async for response in responses:
                    yield response
                    del response  # taken, it is not to be held while the next one is read

    async def _list(self, request: bytes, share: Share) -> AsyncGenerator[bytes, None]:
        query = parse_request(pb.ListRequest, request)
        answered = self._runtime.machine.log.stored_size  # whatever was answered, at any write concern, is below
        level = await self._level(query.level, LEVELS)
        least = query.min_offset + 1 if query.HasField("min_offset") else 0
        if level == "linearizable":
            least = max(least, answered)
        stop = await self._end_of(level, least)
        commit_size = await self._runtime.visible_size("committed")
        left = query.limit or MAX_PLACE
        if query.HasField("since_ms") or query.HasField("until_ms"):
            since_ms = min(query.since_ms, MAX_PLACE)
            until_ms = min(query.until_ms, MAX_PLACE) if query.HasField("until_ms") else MAX_PLACE
        else:
            since_ms, until_ms = None, None
            stop = min(stop, query.from_offset + left)
        offset, sent = query.from_offset, False
        reading = self._read(share, offset, stop, since_ms, until_ms)
        while batches := await reading:
            offset, sent = batches[-1].end, True
            reading = self._read(share, offset, stop, since_ms, until_ms)  # the disk works while this part goes out
            held_bytes = _size_bytes(batches)
            bodies, left = _bodies(batches, query.from_offset, stop, left)
            response = encode_list_response(commit_size, bodies)
            del batches, bodies  # what waits for its next part, or to be taken, holds no more than it must
            yield response
            del response
            share.give(held_bytes)
            if left <= 0:
                return  # what nobody asked for, nobody waits for
        if since_ms is None and offset < stop and left > 0:
            raise await self._missing(share, offset)
        if not sent:
            yield encode_list_response(commit_size, [])  # an empty answer still tells the commit size

    def tail(self, request: bytes, context: Context, author: str) -> AsyncGenerator[bytes, None]:
        """The handler of Tail. Begins with an empty response, so that the follower knows it is heard."""
        del context
        return self._shared(self._tail, request, author)

    async def _tail(self, request: bytes, share: Share) -> AsyncGenerator[bytes, None]:
        query = parse_request(pb.TailRequest, request)
        level = await self._level(query.level, LEVELS[:2])
        offset = query.from_offset
        yield encode_list_response(await self._runtime.visible_size("committed"), [])
        while True:
            if not await self._runtime.wait_for_size(level, offset + 1, TAIL_BEAT_S):
                yield encode_list_response(await self._runtime.visible_size("committed"), [])
                continue
            stop = await self._runtime.visible_size(level)
            commit_size = await self._runtime.visible_size("committed")
            if stop <= offset:  # known to be committed, but on a full disk that can't be noted, so it is not shown
                await asyncio.sleep(TAIL_BEAT_S)
                yield encode_list_response(commit_size, [])
            while offset < stop:
                batches = await self._read(share, offset, stop, None, None)
                if not batches:
                    raise await self._missing(share, offset)
                held_bytes = _size_bytes(batches)
                bodies, _ = _bodies(batches, offset, stop, MAX_PLACE)
                offset = min(stop, batches[-1].end)
                response = encode_list_response(commit_size, bodies)
                del batches, bodies
                yield response
                del response
                share.give(held_bytes)

    async def _level(self, level: str, allowed: tuple[str, ...]) -> str:
        level = level or "committed"
        if level not in allowed:
            raise BadRequest(f"level {level[:32]!r} is not one of {', '.join(allowed)}")
        if level == "linearizable":
            await confirm_master(self._runtime, self._config, "a linearizable read", self._config.timeouts.read_wait_s)
        return level

    async def _end_of(self, level: str, least: int) -> int:
        """How far a read at this level may go, once that is ``least``. Raises Unavailable when it does not come in
        time: neither from the master, nor, of a commit size, onto this node's disk, which may be slow or full."""
        runtime, wait_s = self._runtime, self._config.timeouts.read_wait_s
        deadline = asyncio.get_running_loop().time() + wait_s
        came = not least or await runtime.wait_for_size(level, least, wait_s)
        while (size := await runtime.visible_size(level)) < least:
            if not came or asyncio.get_running_loop().time() >= deadline:
                log = runtime.machine.log
                raise Unavailable(
                    f"{self._config.node} has {log.stored_size} records, {log.commit_size} committed, {size} of them "
                    f"to be read; offset {least - 1} did not come within {wait_s:g} s"
                )
            await asyncio.sleep(LOOK_AGAIN_S)
        return size

    def _read(
        self, share: Share, offset: int, stop: int, since_ms: int | None, until_ms: int | None
    ) -> asyncio.Task[list[Batch]]:
        store, max_bytes = self._runtime.store, self._config.limits.read_bytes
        offset = min(offset, MAX_PLACE)

        def call() -> list[Batch]:
            if since_ms is None or until_ms is None:
                return store.read(offset, max_bytes=max_bytes, until_offset=stop)
            return store.read_time(offset, since_ms=since_ms, until_ms=until_ms, max_bytes=max_bytes, until_offset=stop)

        async def read() -> list[Batch]:
            if offset >= stop:
                return []
            await share.take(max_bytes)
            batches = await self._runtime.read(call)
            share.give(max_bytes - _size_bytes(batches))
            return batches

        task = asyncio.create_task(read())
        task.add_done_callback(_seen)  # a reader may leave while the next part is on its way
        return task

    async def _missing(self, share: Share, offset: int) -> Unavailable:
        """A reader is never told that a log ends where it does not: that there is nothing means damage, unless this
        node has dropped records meanwhile, for a new master, and perhaps taken others."""
        dropped = offset >= self._runtime.machine.log.stored_size
        if dropped or await self._read(share, offset, offset + 1, None, None):
            return Unavailable(f"{self._config.node} has dropped records meanwhile that no majority had; read again")
        return self._runtime.damaged(DamagedError(f"no batch holds offset {offset}", offset=offset))


def _seen(task: asyncio.Task[list[Batch]]) -> None:
    """What a task has raised that nobody waits for is no news."""
    if not task.cancelled():
        task.exception()


def _size_bytes(batches: Iterable[Batch]) -> int:
    return sum(len(batch.body) for batch in batches)


def _bodies(batches: Iterable[Batch], start: int, stop: int, left: int) -> tuple[list[bytes], int]:
    """The bodies with the records from offset ``start`` up to ``stop``, at most ``left`` of them, and what is left."""
    bodies = []
    for batch in batches:
        first, end = max(start, batch.first_offset), min(stop, batch.end)
        end = min(end, first + left)
        left -= max(0, end - first)
        bodies.append(_cut(batch, first, end))
    return [body for body in bodies if body], left


def _cut(batch: Batch, start: int, end: int) -> bytes:
    """The body with the records from offset ``start`` up to ``end``: as it is stored, where that is all of it."""
    if start == batch.first_offset and end == batch.end:
        return batch.body
    if start >= end:
        return b""
    return encode_records(decode_records(batch.body).cut(start - batch.first_offset, end - batch.first_offset))
