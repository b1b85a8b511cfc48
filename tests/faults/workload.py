"""Clients at work, all the while: posts at every write concern, reads, a tail, and looks at each node's status.

Owns what clients do. What they are told goes into the history. Must not know of faults.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from replicad.client import AsyncClient
from replicad.errors import ServiceError
from tests.faults.cluster import FaultCluster
from tests.faults.history import History, Violation

POSTERS: tuple[str | int, ...] = (
    ("majority",) * 8 + (1,) * 2 + ("all",) * 2
)  # who waits for all waits for whoever is away
POST_S = 20.0  # longer than most faults: the library's own patience is part of what is tried
PACE_S = 0.02  # between two posts of one poster, in a short run
MOST_POSTS = 200_000  # of a long one, whose nodes look over all of their logs again and again
LOOK_S = 0.5


class Workload:
    def __init__(self, cluster: FaultCluster, history: History, *, seed: int, seconds: float) -> None:
        """``seconds`` is how long it will be, about."""
        self._pace_s = max(PACE_S, seconds * len(POSTERS) / MOST_POSTS)
        self._cluster, self._history, self._rng = cluster, history, random.Random(seed)
        self._over = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Clients work for the time of the block; those that wait at its end are waited for."""
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self._cluster.client(timeout_s=POST_S)) for _ in range(2)]
            own = {
                name: await stack.enter_async_context(self._cluster.client(name, timeout_s=LOOK_S))
                for name in self._cluster.names
            }
            async with asyncio.TaskGroup() as group:
                for number, concern in enumerate(POSTERS):
                    group.create_task(self._post(clients[number % 2], number, concern))
                tail = group.create_task(self._tail(clients[0]))
                group.create_task(self._read(own))
                group.create_task(self._look(own))
                try:
                    yield
                finally:
                    self._over.set()
                    tail.cancel()

    async def _post(self, client: AsyncClient, poster: int, concern: str | int) -> None:
        loop, history, rng = asyncio.get_running_loop(), self._history, self._rng
        number = 0
        while not self._over.is_set():
            number += 1
            message_id = f"post-{poster}-{number}"
            payload = rng.randbytes(rng.choice((10, 100, 1000)))
            try:
                posted = await client.post(payload, id=message_id, write_concern=concern, timeout_s=POST_S)
            except ServiceError as error:
                history.failed(message_id, error)
            else:
                history.acknowledged(message_id, posted.offset, by_majority=concern != 1, now=loop.time())
            await asyncio.sleep(rng.uniform(0, 2 * self._pace_s))

    async def _tail(self, client: AsyncClient) -> None:
        """From the beginning, and gapless, whatever happens."""
        expected = 0
        async for record in client.tail(0):
            if record.offset != expected:
                raise Violation(f"a tail went on at {record.offset}, after {expected - 1}")
            self._history.read(record.offset, record.id)
            expected += 1

    async def _read(self, own: dict[str, AsyncClient]) -> None:
        """The newest records of each node, at level committed."""
        while not self._over.is_set():
            name = self._rng.choice(list(own))
            start = max(0, self._history.commit_sizes.get(name, 0) - 200)
            try:
                async for record in own[name].list(start, limit=300):
                    self._history.read(record.offset, record.id)
            except ServiceError:
                pass  # it is not reached, or is damaged there
            await asyncio.sleep(PACE_S)

    async def _look(self, own: dict[str, AsyncClient]) -> None:
        while not self._over.is_set():
            await asyncio.gather(*(self._look_at(name, client) for name, client in own.items()))
            await asyncio.sleep(LOOK_S)

    async def _look_at(self, name: str, client: AsyncClient) -> None:
        try:
            status = await client.status()
        except ServiceError:
            return
        is_open = (status.role, status.state) == ("master", "open")
        rss_mib = status.rss_bytes >> 20
        self._history.status(name, epoch=status.epoch, commit_size=status.commit_size, is_open=is_open, rss_mib=rss_mib)
