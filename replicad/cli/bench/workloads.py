"""The workloads: each drives a client and gives what it measured. Owns clocks, warm-ups and percentiles.

Must not know which cluster this is, nor how results are shown.

A warm-up is driven like the rest and not counted: connections, the nodes' interpreters and the disk's write cache are
as they are in the long run by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from math import ceil
from time import perf_counter

from replicad.client import AsyncClient

CALLERS = 64  # of W2
CONCERN = "majority"
WARM_UP_POSTS = 100  # of W1: a tenth of a second
WARM_UP_S = 0.5  # of W2
WARM_UP_PART = 20  # of W3 and W4: this part of the messages
PER_FRAME_S = 30.0  # a benchmark is to show a slow cluster, not to give up on it


@dataclass(frozen=True, slots=True)
class Measured:
    """``messages`` in ``seconds``; ``latencies_s`` of each, sorted, where each was waited for."""

    messages: int
    seconds: float
    latencies_s: Sequence[float] = ()

    @property
    def per_s(self) -> float:
        return self.messages / self.seconds if self.seconds > 0 else 0.0

    def percentile_ms(self, percent: float) -> float | None:
        """The nearest-rank percentile: a latency that was measured, none in between."""
        if not self.latencies_s:
            return None
        rank = max(1, ceil(percent / 100 * len(self.latencies_s)))
        return self.latencies_s[rank - 1] * 1000


async def one_at_a_time(client: AsyncClient, payload: bytes, *, seconds: float) -> Measured:
    """W1: one client, one message in flight."""
    for _ in range(WARM_UP_POSTS):
        await client.post(payload, write_concern=CONCERN)
    latencies: list[float] = []
    began = now = perf_counter()
    while now - began < seconds:
        await client.post(payload, write_concern=CONCERN)
        then = perf_counter()
        latencies.append(then - now)
        now = then
    return Measured(len(latencies), now - began, sorted(latencies))


async def many_callers(client: AsyncClient, payload: bytes, *, seconds: float) -> Measured:
    """W2: CALLERS concurrent callers in one process, each posting one message after the other."""
    latencies: list[float] = []
    began = perf_counter() + WARM_UP_S
    ended = began + seconds

    async def caller() -> None:
        now = perf_counter()
        while now < ended:
            await client.post(payload, write_concern=CONCERN)
            then = perf_counter()
            if now >= began and then <= ended:
                latencies.append(then - now)
            now = then

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller())
    return Measured(len(latencies), seconds, sorted(latencies))


async def bulk(client: AsyncClient, payload: bytes, *, messages: int, warm_up: bool = True) -> Measured:
    """W3: as many as there are, the client batching as it likes."""
    if warm_up:
        await bulk(client, payload, messages=messages // WARM_UP_PART, warm_up=False)
    posted = 0
    began = perf_counter()
    async for results in client.post_many(repeat(payload, messages), write_concern=CONCERN, timeout_s=PER_FRAME_S):
        posted += len(results)
    return Measured(posted, perf_counter() - began)


async def read_all(client: AsyncClient) -> Measured:
    """W4: the whole log, from one node."""
    size = (await client.status()).commit_size
    await _read(client, limit=max(1, size // WARM_UP_PART))
    began = perf_counter()
    read = await _read(client, limit=None)
    return Measured(read, perf_counter() - began)


async def wait_for_size(client: AsyncClient, size: int) -> None:
    """Return when the client's node has ``size`` records on its disk; the node must listen."""
    async for _ in client.list(size - 1, limit=1, level="local", min_offset=size - 1):
        pass


async def _read(client: AsyncClient, *, limit: int | None) -> int:
    read = 0
    async for records in client.list_batches(limit=limit):
        read += len(records)
    return read
