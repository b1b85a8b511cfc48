"""A worker that was away for 200,000 messages comes level while posts go on, and nobody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from replicad.client import AsyncClient
from replicad.dev import DevCluster
from tests.support.nodes import TOKEN, all_level, edit, raw_logs, reload, running_cluster, verified
from tests.support.rawlog import RawLog
from tests.support.waiting import eventually

Logs = dict[str, RawLog]

AWAY = 200_000
STORED_BYTES = 280  # of a record with 100 bytes of payload, with its leaf and salt
PAYLOAD = b"x" * 100
RESIDENT_MIB = 150  # what a node may take, whatever the log's length
DIALLED_AND_LEVEL_S = 30.0  # 5 s until it is dialled, at the longest, and several times what the rest takes


async def test_a_worker_that_was_away_for_200_000_messages_comes_level_while_posts_go_on(
    cluster: DevCluster, logs: Logs
) -> None:
    await asyncio.to_thread(cluster.kill, "node-3")
    async with AsyncClient(
        cluster.client_env()["REPLICAD_ADDRESS"], token=cluster.layout.token, timeout_s=60
    ) as client:
        began = time.monotonic()
        posted = 0
        async for some in client.post_many(_many(AWAY)):
            posted += len(some)
        posted_s = time.monotonic() - began
        assert posted == AWAY
        missing = (await logs["node-1"].status()).size

        await asyncio.to_thread(cluster.start, "node-3")
        began = time.monotonic()
        latencies: list[float] = []

        async def has_them() -> bool:
            asked = time.monotonic()
            await client.post(b"meanwhile", write_concern="majority")
            latencies.append(time.monotonic() - asked)
            return (await logs["node-3"].status()).size >= missing

        await eventually(has_them, within_s=DIALLED_AND_LEVEL_S, what="the worker has all it was away for")
        level_s = time.monotonic() - began
    print(
        f"posted in {posted_s:.1f} s; level after {level_s:.1f} s; posts meanwhile took {max(latencies):.3f} s or less"
    )

    await all_level(logs, size=missing)
    states = {name: await log.status() for name, log in logs.items()}
    resident = {name: state.rss_bytes >> 20 for name, state in states.items()}
    print(f"resident MiB: {resident}")
    assert max(resident.values()) < RESIDENT_MIB


def _many(count: int) -> Iterator[bytes]:
    return (PAYLOAD for _ in range(count))


async def test_a_worker_with_an_empty_folder_gets_the_whole_log_and_it_proves(cluster: DevCluster, logs: Logs) -> None:
    """The disk of a worker was lost: it starts anew, and ends with what verifies by public keys alone."""
    size = (await all_level(logs)).size
    node = cluster.node("node-2")
    await asyncio.to_thread(cluster.stop, node.name)
    for path in node.data_dir.iterdir():
        path.unlink()

    await asyncio.to_thread(cluster.start, node.name)
    level = await all_level(logs, size=size)
    await asyncio.to_thread(cluster.stop)
    for each in cluster.nodes:
        report = await asyncio.to_thread(verified, cluster, each)
        assert (report.records, report.root) == (level.size, level.root)


RATE_BYTES = 4 << 20


async def test_a_worker_that_lags_is_fed_at_the_rate_that_the_config_says(tmp_path: Path) -> None:
    """And posts go on as if it were not there; by a reload the rest comes as fast as it can."""
    settings = {"limits": {"catch_up_rate": RATE_BYTES}, "timeouts": {"reconnect_max": "300ms"}}
    with running_cluster(tmp_path / "cluster", settings=settings) as cluster:
        async with (
            raw_logs(cluster) as logs,
            AsyncClient(cluster.client_env()["REPLICAD_ADDRESS"], token=TOKEN) as client,
        ):
            await asyncio.to_thread(cluster.kill, "node-3")
            async for _ in client.post_many(_many(120_000)):
                pass
            size = (await logs["node-1"].status()).size
            await asyncio.to_thread(cluster.start, "node-3")

            async def has(records: int) -> bool:
                await client.post(b"meanwhile", write_concern="majority")
                return (await logs["node-3"].status()).size >= records

            await eventually(lambda: has(1000), within_s=DIALLED_AND_LEVEL_S, what="the worker is being fed")
            began, first = time.monotonic(), (await logs["node-3"].status()).size
            await eventually(lambda: has(size // 2), within_s=60, what="the worker has half of it")
            took_s = time.monotonic() - began
            some = (await logs["node-3"].status()).size - first
            stored_bytes = some * STORED_BYTES
            print(f"{some} records in {took_s:.1f} s: {stored_bytes / took_s / (1 << 20):.2f} MiB/s")
            assert stored_bytes / took_s < 1.5 * RATE_BYTES  # a batch at the beginning comes at once

            edit(cluster.master, limits={"catch_up_rate": 0})
            await reload(cluster, "node-1")
            await all_level(logs, size=size, within_s=DIALLED_AND_LEVEL_S)
