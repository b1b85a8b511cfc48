"""A cluster that is attacked while an honest client posts, and all that must be true of it afterwards.

Owns what is looked at: each post succeeded and stands where it was said to, the nodes live, took no memory to speak of,
logged no bug, and prove their logs. Must not know the attacks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path

from replicad.client import AsyncClient
from replicad.dev import DevCluster
from tests.fuzz.port import PortFuzz
from tests.support.nodes import TOKEN, all_level, raw_logs, running_cluster, same_records, verified
from tests.support.rawlog import new_id

LIMITS = {"payload": "64KiB", "frame": "128KiB", "batch_records": 1000}
GROWTH_BYTES = 96 << 20  # of a node: gRPC keeps what a connection needed for the next one
POST_S = 10.0
TRIES = 20
PAUSE_S = 0.01


def attacked_cluster(
    folder: Path, *, seed: int, attacks: int = 1 << 62, seconds: float = 1e9, nodes: int = 3
) -> Counter[str]:
    """What came of the attacks, counted. Raises AssertionError (FindingError) with what is not as it must be."""
    with running_cluster(folder, nodes=nodes, settings={"limits": LIMITS}) as cluster:
        pids = {node.name: cluster.pid(node.name) for node in cluster.nodes}
        told = asyncio.run(_attack(cluster, seed, attacks, seconds))
        assert {node.name: cluster.pid(node.name) for node in cluster.nodes} == pids, f"seed {seed}: a node has died"
        cluster.stop()
        for node in cluster.nodes:
            verified(cluster, node)
    return told


async def _attack(cluster: DevCluster, seed: int, attacks: int, seconds: float) -> Counter[str]:
    fuzz = PortFuzz([node.address for node in cluster.nodes], token=TOKEN, seed=seed)
    posted: dict[str, tuple[int, bytes]] = {}
    addresses = [node.address for node in cluster.nodes]
    async with raw_logs(cluster) as logs, AsyncClient(addresses, token=TOKEN) as client:
        await fuzz.run(attacks=20)  # what is made once per process is made now
        before = {name: (await log.status()).rss_bytes for name, log in logs.items()}
        honest = asyncio.create_task(_post_on(client, posted))
        try:
            await fuzz.run(attacks=attacks, seconds=seconds)
        finally:
            if not honest.done():
                honest.cancel()
            with suppress(asyncio.CancelledError):
                await honest  # a post that failed is raised here
        await all_level(logs)
        for name, log in logs.items():
            growth = (await log.status()).rss_bytes - before[name]
            assert growth < GROWTH_BYTES, f"seed {seed}: {name} has grown by {growth >> 20} MiB"
        records = await same_records(logs)
    assert posted
    for message_id, (offset, payload) in posted.items():
        assert (records[offset].id, records[offset].payload) == (message_id, payload)
    return fuzz.answers + Counter({"honest posts": len(posted)})


async def _post_on(client: AsyncClient, posted: dict[str, tuple[int, bytes]]) -> None:
    """Through the library, which finds the master wherever the attacks have moved it."""
    while True:
        message_id = new_id()
        payload = message_id.encode() * 10
        answer = await client.post(payload, id=message_id, write_concern="majority", timeout_s=POST_S)
        posted[message_id] = (answer.offset, payload)
        await asyncio.sleep(PAUSE_S)
