"""One order for all: what many clients post at once stands in the same order on every node."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from replicad.client import AsyncClient, Posted
from replicad.dev import DevCluster
from replicad.wire.codec import Record
from tests.support.nodes import all_level, same_records
from tests.support.rawlog import RawLog

Logs = dict[str, RawLog]

CLIENTS = 8
POSTS = 400  # of each client, one after the other


async def post_one_by_one(cluster: DevCluster, name: str) -> list[Posted]:
    async with AsyncClient(cluster.client_env()["REPLICAD_ADDRESS"], token=cluster.layout.token) as client:
        return [await client.post(f"{name} {number}", headers={"client": name}) for number in range(POSTS)]


async def post_in_bulk(cluster: DevCluster, name: str) -> list[Posted]:
    async with AsyncClient(cluster.client_env()["REPLICAD_ADDRESS"], token=cluster.layout.token) as client:
        messages = (f"{name} {number}" for number in range(5 * POSTS))
        return [posted async for some in client.post_many(messages) for posted in some]


def by_client(records: list[Record]) -> dict[str, list[tuple[int, int]]]:
    """(number, offset) of each client's records, in the log's order."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for record in records:
        if not record.is_system:
            name, _, number = (record.text or "").rpartition(" ")
            found[name].append((int(number), record.offset))
    return found


async def test_all_nodes_have_the_same_order_gapless_and_each_clients_own_order_is_kept(
    cluster: DevCluster, logs: Logs
) -> None:
    names = [f"client {number}" for number in range(CLIENTS)]
    one_by_one = [post_one_by_one(cluster, name) for name in names]
    in_bulk = [post_in_bulk(cluster, f"bulk {number}") for number in range(2)]
    results = await asyncio.gather(*one_by_one, *in_bulk)

    await all_level(logs, size=1 + CLIENTS * POSTS + 2 * 5 * POSTS)
    records = by_client(await same_records(logs))
    for name, posted in zip([*names, "bulk 0", "bulk 1"], results, strict=True):
        assert records[name] == list(enumerate(each.offset for each in posted))
        assert not any(each.duplicate for each in posted)
    offsets = {name: [offset for _, offset in numbered] for name, numbered in records.items()}
    assert all(each == sorted(each) for each in offsets.values())
