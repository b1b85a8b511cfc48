"""A master and a worker that is not to be believed: nothing that it says counts but what it can have on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replicad.core.frames import (
    Ack,
    Align,
    Aligned,
    AppendBatch,
    Fetch,
    Hello,
    Inquiry,
    RootAnswer,
    RootQuery,
    Standing,
    Supply,
    Welcome,
)
from replicad.core.tree import EMPTY_ROOT
from replicad.dev import DevCluster
from replicad.errors import WriteConcernTimeout
from replicad.keys import Signer
from tests.support.fake_master import History
from tests.support.fake_worker import Behaviour, fake_worker
from tests.support.nodes import TOKEN, all_level, events, log_lines, raw_logs, running_cluster
from tests.support.rawlog import RawLog, new_id
from tests.support.waiting import eventually

FAKE = "node-2"
FAR = 1 << 40


@pytest.fixture
def settings() -> Mapping[str, object]:
    return {"timeouts": {"reconnect_max": "300ms", "suspect": "1s", "unhealthy": "2s"}}


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, object]) -> Iterator[DevCluster]:
    """Nothing runs yet: the test plays one of the workers."""
    with running_cluster(tmp_path_factory.mktemp("fake"), settings=settings, start=()) as made:
        yield made


def empty(node: str = FAKE) -> Welcome:
    return Welcome(node, 0, 0, EMPTY_ROOT, 0)


async def follow_and_claim(hear: Callable[[], Awaitable[Any]], say: Callable[[Any], Awaitable[None]]) -> None:
    """Follows as a worker does, but stores nothing, and claims to have far more than it was ever sent."""
    while (frame := await hear()) is not None:
        match frame:
            case Hello():
                await say(Ack(FAR, 0))  # before any Welcome
                await say(empty())
                await say(Ack(FAR, FAR))
            case Align():
                await say(Aligned(FAR))
                await say(Aligned(frame.size))
                await say(Ack(FAR, 0))
            case AppendBatch():
                await say(Ack(FAR, 0))
                await say(RootAnswer(FAR, EMPTY_ROOT))
                await say(Supply((), FAR))
            case _:
                pass


async def test_an_ack_beyond_what_was_sent_counts_for_nothing(cluster: DevCluster) -> None:
    async with fake_worker(cluster.node(FAKE).address, follow_and_claim):
        await asyncio.to_thread(cluster.start, "node-1", "node-3")
        async with RawLog(cluster.master.address, token=TOKEN) as log:
            with pytest.raises(WriteConcernTimeout) as caught:
                await log.post(b"for all", w=3, timeout_s=1.0)
            assert caught.value.nodes == 2

            await asyncio.to_thread(cluster.kill, "node-3")
            with pytest.raises(WriteConcernTimeout) as caught:
                await log.post(b"for a majority", w=2, timeout_s=0.5)
            assert caught.value.nodes == 1
            state = await log.status()
            assert state.commit_size < state.size


async def say_garbage(hear: Callable[[], Awaitable[Any]], say: Callable[[Any], Awaitable[None]]) -> None:
    await hear()
    await say(b"\xff" * 50)
    await hear()


async def claim_to_be_another(hear: Callable[[], Awaitable[Any]], say: Callable[[Any], Awaitable[None]]) -> None:
    await hear()
    await say(empty("node-3"))
    await hear()


async def end_at_once(hear: Callable[[], Awaitable[Any]], say: Callable[[Any], Awaitable[None]]) -> None:
    del hear, say


@pytest.mark.parametrize("behave", [say_garbage, claim_to_be_another, end_at_once])
async def test_a_worker_that_talks_nonsense_is_dialled_ever_more_seldom_and_holds_up_nobody(
    cluster: DevCluster, behave: Behaviour
) -> None:
    streams = 0

    async def counted(hear: Callable[[], Awaitable[Any]], say: Callable[[Any], Awaitable[None]]) -> None:
        nonlocal streams
        streams += 1
        await behave(hear, say)

    async with fake_worker(cluster.node(FAKE).address, counted):
        await asyncio.to_thread(cluster.start, "node-1", "node-3")
        async with RawLog(cluster.master.address, token=TOKEN) as log:
            before, lines = streams, len(log_lines(cluster.master))
            began = asyncio.get_running_loop().time()
            for _ in range(200):
                assert (await log.post(b"with the other one", w=2)).nodes == 2
            await eventually(lambda: _more_than(lambda: streams, before + 2), within_s=10, what="it is dialled again")
            passed = asyncio.get_running_loop().time() - began
            health = {node.name: node.health for node in (await log.status()).nodes}
        assert health["node-3"] == "HEALTHY"
        assert streams - before <= 2 + passed / 0.1, "the wait between two grows to its longest, 300 ms with jitter"
        assert len(log_lines(cluster.master)) - lines <= 4 * (streams - before + 1)


async def _more_than(number: Callable[[], int], least: int) -> bool:
    return number() > least


async def claim_a_forged_log(hear: Callable[[], Awaitable[Any]], say: Callable[[Any], Awaitable[None]]) -> None:
    """Says to be ahead of an opening master, and supplies what no node has signed."""
    forged = History(Signer("node-3", Ed25519PrivateKey.generate()), epoch=1)
    batches = (forged.batch(new_id(), new_id()), forged.batch(new_id()))
    while (frame := await hear()) is not None:
        match frame:
            case Inquiry():
                await say(Standing(FAKE, 0, "", 0, 0, False))  # else nobody would open over it
            case Hello():
                await say(Welcome(FAKE, 1, forged.tree.size, forged.tree.root(), 0))
            case RootQuery(size=0):
                await say(RootAnswer(0, EMPTY_ROOT))
            case Fetch():
                await say(Supply(batches, forged.tree.size))


async def test_an_opening_master_takes_no_forged_tail(cluster: DevCluster) -> None:
    async with fake_worker(cluster.node(FAKE).address, claim_a_forged_log):
        await asyncio.to_thread(cluster.start, "node-1", wait=False)

        async def refused() -> bool:
            return "refused" in events(cluster.master)

        await eventually(refused, within_s=20, what="the forged tail is refused")
        async with RawLog(cluster.master.address, token=TOKEN) as log:
            state = await log.status()
            assert (state.state, state.size) == ("opening", 0)

    await asyncio.to_thread(cluster.start, "node-2", "node-3")  # and now the real ones
    async with raw_logs(cluster) as logs:
        await all_level(logs, size=1)
        assert [record.id for record in (await logs["node-1"].list()).records] == ["replicad:epoch:1"]
