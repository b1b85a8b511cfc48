"""kill -9 of nodes at random under load, many rounds; then a checker of all that anyone was told.

REPLICAD_KILL_SECONDS (default 30) is how long the killing goes on; REPLICAD_KILL_SEED chooses another run than
the one that CI makes. Both are in the test's output. The seed settles who is hit and when; what is under way at that
moment is the machine's.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from grpc import aio

from replicad.client import AsyncClient
from replicad.dev import DevCluster
from replicad.errors import ServiceError
from tests.support.ledger import Ledger
from tests.support.nodes import TOKEN, all_level, events, raw_logs, running_cluster, verified
from tests.support.rawlog import RawLog

KILL_S = float(os.environ.get("REPLICAD_KILL_SECONDS", "30"))
SEED = int(os.environ.get("REPLICAD_KILL_SEED", "20260101"))

CLIENTS = 5
AT_ONCE = 6  # posts of one client under way
POST_S = 2.0  # shorter than some of the master's absences, longer than others
CONCERNS: tuple[int | str, ...] = (1, 1, 2, 2, 3, "majority", "majority", "all")
AGAIN_AFTER = 5  # unknown ones that a client keeps before it posts the oldest of them again

# What a round does: to whom, and how. Most deaths are lonely; some are of a majority, some of all.
VICTIMS = (
    ("node-1",),
    ("node-2",),
    ("node-3",),
    ("node-1", "node-2"),
    ("node-2", "node-3"),
    ("node-1", "node-2", "node-3"),
)
WEIGHTS = (4, 4, 4, 2, 2, 1)
PACE_S = 0.01  # between two calls of one who would otherwise do nothing but ask
STOPPED_SHARE = 0.15  # of the rounds: SIGSTOP and SIGCONT, in place of kill -9


@pytest.fixture
def settings() -> Mapping[str, object]:
    """A worker that is back is found within a round."""
    return {"timeouts": {"reconnect_max": "500ms"}}


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, object]) -> Iterator[DevCluster]:
    with running_cluster(tmp_path_factory.mktemp("kill"), settings=settings) as made:
        yield made


class Load:
    """Clients that post and read until they are told to stop, and write down what they are told."""

    def __init__(self, cluster: DevCluster, ledger: Ledger, rng: random.Random) -> None:
        self._cluster, self._ledger, self._rng = cluster, ledger, rng
        self.over = False
        self.counts: Counter[str] = Counter()

    def new_id(self) -> str:
        """Of the random kind, which the master must look up, or of the rising kind, which it need not."""
        if self._rng.random() < 0.3:
            return f"f{self._rng.randbytes(15).hex()}"
        return f"e{len(self._ledger.at) + len(self._ledger.unknown):012d}-{uuid.uuid4()}"

    async def post_through_the_library(self, client: AsyncClient) -> None:
        """Retries are the library's, and so is what it makes of several answers to one message."""
        doubtful: list[str] = []
        while not self.over:
            again = len(doubtful) > AGAIN_AFTER
            message_id = doubtful.pop(0) if again else self.new_id()
            try:
                posted = await client.post(
                    f"payload of {message_id}", id=message_id, write_concern=self._rng.choice(CONCERNS)
                )
            except ServiceError as error:
                self._ledger.failed(message_id, error)
                self.counts[error.name] += 1
            else:
                self._ledger.acknowledged(message_id, posted.offset)
                self.counts["acknowledged again" if again else "acknowledged"] += 1
            if message_id in self._ledger.unknown:
                doubtful.append(message_id)

    async def post_call_by_call(self) -> None:
        """No retries: what the master itself says, and that a broken call says nothing."""
        async with RawLog(self._cluster.master.address, token=TOKEN) as log:
            while not self.over:
                message_id = self.new_id()
                try:
                    async with asyncio.timeout(POST_S):
                        posted = await log.post(
                            f"payload of {message_id}".encode(),
                            id=message_id,
                            w=self._rng.choice(CONCERNS),
                            timeout_s=1,
                        )
                except ServiceError as error:
                    self._ledger.failed(message_id, error)
                    self.counts[f"raw {error.name}"] += 1
                    await asyncio.sleep(PACE_S)
                except (aio.AioRpcError, TimeoutError):
                    self._ledger.failed(message_id, None)
                    self.counts["raw broken"] += 1
                else:
                    self._ledger.acknowledged(message_id, posted.offset)
                    self.counts["raw acknowledged"] += 1

    async def read(self, name: str) -> None:
        """Committed reads of a node's newest records."""
        async with RawLog(self._cluster.node(name).address, token=TOKEN) as log:
            offset = 0
            while not self.over:
                try:
                    async with asyncio.timeout(POST_S):
                        page = await log.list(offset)
                except (ServiceError, aio.AioRpcError, TimeoutError):
                    self.counts["reads broken"] += 1
                    continue
                self._ledger.read(name, page.commit_size, page.records)
                offset = max(0, page.commit_size - 20)
                self.counts["reads"] += 1
                await asyncio.sleep(PACE_S)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The load goes on within; whatever one of its tasks fails with is raised."""
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            addresses = self._cluster.client_env()["REPLICAD_ADDRESS"]
            clients = [AsyncClient(addresses, token=TOKEN, timeout_s=POST_S) for _ in range(CLIENTS)]
            tasks = [
                *(self.post_through_the_library(client) for client in clients for _ in range(AT_ONCE)),
                *(self.post_call_by_call() for _ in range(3)),
                *(self.read(node.name) for node in self._cluster.nodes),
            ]
            for task in tasks:
                group.create_task(task)
            try:
                yield
            finally:
                self.over = True
        await asyncio.gather(*(client.close() for client in clients))


async def a_round(cluster: DevCluster, rng: random.Random) -> str:
    """Hit somebody, let them be for a moment, bring them back; the next round may come before they are."""
    names = rng.choices(VICTIMS, WEIGHTS)[0]
    stopped = rng.random() < STOPPED_SHARE
    if stopped:
        for name in cluster.running().keys() & set(names):
            cluster.send_signal(name, signal.SIGSTOP)
    else:
        await asyncio.to_thread(cluster.kill, *names)
    await asyncio.sleep(rng.choice((0.0, 0.1, 0.5, 1.0)))
    if stopped:
        for name in cluster.running().keys() & set(names):
            cluster.send_signal(name, signal.SIGCONT)
    else:
        order = rng.sample(names, len(names))
        await asyncio.to_thread(cluster.start, *order, wait=False)
    await asyncio.sleep(rng.choice((0.2, 1.0, 2.0)))
    return f"{'stopped' if stopped else 'killed'} {' '.join(names)}"


@pytest.mark.timeout(KILL_S + 120)
async def test_after_kill_9_at_random_under_load_all_is_as_everybody_was_told(cluster: DevCluster) -> None:
    rng, ledger = random.Random(SEED), Ledger()
    load = Load(cluster, ledger, random.Random(SEED + 1))
    rounds: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    try:
        async with load.running():
            until = loop.time() + KILL_S
            while loop.time() < until:
                rounds[await a_round(cluster, rng)] += 1
    finally:
        print(f"seed {SEED}, {KILL_S:g} s, {rounds.total()} rounds: {dict(rounds)}")
        print(f"told: {dict(load.counts)}")

    async with raw_logs(cluster) as logs:
        level = await all_level(logs, within_s=60)
        ledger.judge({name: (await log.list()).records for name, log in logs.items()})
    print(f"{level.size} records in epoch {level.epoch}; {len(ledger.at)} acknowledged, {len(ledger.unknown)} unknown")
    print({node.name: Counter(events(node)) for node in cluster.nodes})
    assert len(ledger.at) > 20 * rounds.total(), "hardly anything was acknowledged: this proves nothing"

    await asyncio.to_thread(cluster.stop)
    reports = [await asyncio.to_thread(verified, cluster, node) for node in cluster.nodes]
    assert {(report.records, report.root) for report in reports} == {(level.size, level.root)}
