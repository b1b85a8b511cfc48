"""The list of nodes changes while a client posts: workers come and go, also dead ones; a jump too far does not open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicad.client import AsyncClient
from replicad.configfile import load as load_config
from replicad.core.start import EpochRecord
from replicad.core.voters import EpochLists, parse_lists
from replicad.dev import DevCluster
from replicad.errors import BadRequest, Unavailable
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from replicad.wire.v1 import log_pb2 as pb
from tests.support.commandline import CommandLine
from tests.support.nodes import LEVEL_S, TOKEN, all_level, events, raw_logs, running_cluster, verified
from tests.support.rawlog import RawLog
from tests.support.waiting import eventually

Logs = dict[str, RawLog]
POST_S = 60.0  # longer than any restart of a master on a busy machine


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    """Five machines, of which node-1 to node-3 are the cluster."""
    settings = {"timeouts": {"reconnect_max": "300ms"}}
    with running_cluster(tmp_path / "cluster", nodes=5, settings=settings, start=()) as made:
        configure(made, "node-1", "node-2", "node-3", on=[node.name for node in made.nodes])
        made.start("node-1", "node-2", "node-3")
        yield made


def configure(
    cluster: DevCluster, *nodes: str, on: Collection[str], without_vote: Collection[str] = (), **more: object
) -> None:
    """Write these nodes into the configs of the nodes in ``on``; each keeps an entry of its own."""
    for name in on:
        listed = nodes if name in nodes else (*nodes, name)
        entries: list[dict[str, Any]] = []
        for each in listed:
            node = cluster.node(each)
            entries.append({"name": each, "address": node.address, "public_key": _public_key(cluster, each)})
            if each in without_vote:
                entries[-1]["voter"] = False
        file = cluster.node(name).config_file
        config = yaml.safe_load(file.read_text()) | {"nodes": entries} | more
        file.write_text(yaml.safe_dump(config, sort_keys=False))


def _public_key(cluster: DevCluster, name: str) -> str:
    config = yaml.safe_load(cluster.node(name).config_file.read_text())
    return str(next(entry["public_key"] for entry in config["nodes"] if entry["name"] == name))


async def restart(cluster: DevCluster, *names: str) -> None:
    """One after the other, each ready before the next."""
    for name in names:
        await asyncio.to_thread(cluster.restart, name)


@asynccontextmanager
async def posting(cluster: DevCluster) -> AsyncIterator[dict[str, int]]:
    """Posts to the cluster through the library all the while, none of which may fail; their ids and offsets."""
    posted: dict[str, int] = {}
    over = asyncio.Event()
    addresses = [node.address for node in cluster.nodes]

    async def post(client: AsyncClient) -> None:
        while not over.is_set():
            answer = await client.post(b"while the nodes change", write_concern="majority")
            posted[answer.id] = answer.offset

    async with AsyncClient(addresses, token=TOKEN, timeout_s=POST_S) as client:
        tasks = [asyncio.create_task(post(client)) for _ in range(3)]
        try:
            yield posted
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def seen_level(master: RawLog, name: str) -> pb.NodeStatus:
    """The master's own word that the node has all, as a playbook waits for it."""

    async def look() -> pb.NodeStatus | None:
        status = await master.status()
        (seen,) = [each for each in status.nodes if each.name == name]
        return seen if status.state == "open" and seen.health == "HEALTHY" and seen.lag < 50 else None

    return await eventually(look, within_s=LEVEL_S, what=f"{name} is level")


async def last_lists(log: RawLog) -> EpochLists | None:
    """What the first record of the node's last epoch says."""
    records = (await log.list()).records
    return parse_lists(next(each.payload for each in reversed(records) if each.id.startswith("replicad:epoch:")))


async def test_workers_come_and_go_while_a_client_posts_and_nothing_is_lost(cluster: DevCluster) -> None:
    async with raw_logs(cluster) as logs:
        async with posting(cluster) as posted:
            three, four = ("node-1", "node-2", "node-3"), ("node-1", "node-2", "node-3", "node-4")
            configure(cluster, *four, on=four, without_vote=["node-4"])
            await asyncio.to_thread(cluster.start, "node-4")
            await restart(cluster, "node-2", "node-3", "node-1")
            new = await seen_level(logs["node-1"], "node-4")
            assert new.no_vote
            assert (await logs["node-1"].status()).commit_quorum == 2
            with pytest.raises(BadRequest, match="this cluster has 3 voters"):
                await logs["node-1"].post(w=4)
            assert (await logs["node-1"].post(w="all", timeout_s=POST_S)).nodes == 3
            assert await last_lists(logs["node-1"]) == EpochLists(three)

            configure(cluster, *four, on=four)
            await restart(cluster, "node-2", "node-3", "node-4", "node-1")
            assert (await logs["node-1"].status()).commit_quorum == 3
            assert (await logs["node-1"].post(w=4, timeout_s=POST_S)).nodes == 4
            assert await last_lists(logs["node-1"]) == EpochLists(four, (three,))

            await asyncio.to_thread(cluster.kill, "node-2")  # dead for good, and taken out
            left = ("node-1", "node-3", "node-4")
            configure(cluster, *left, on=left)
            await restart(cluster, "node-3", "node-4", "node-1")
            assert (await logs["node-1"].post(w="all", timeout_s=POST_S)).nodes == 3
            assert await last_lists(logs["node-1"]) == EpochLists(left, (four,))

            configure(cluster, *left, on=left, without_vote=["node-4"])
            await restart(cluster, "node-1")
            configure(cluster, "node-1", "node-3", on=("node-1", "node-3"))
            await restart(cluster, "node-3", "node-1")
            await asyncio.to_thread(cluster.stop, "node-4")
            assert (await logs["node-1"].post(w="all", timeout_s=POST_S)).nodes == 2
            assert await last_lists(logs["node-1"]) == EpochLists(("node-1", "node-3"))
        assert len(posted) > 100
        await all_level({name: logs[name] for name in ("node-1", "node-3")})
        for name in ("node-1", "node-3"):
            offsets = {record.id: record.offset for record in (await logs[name].list()).records}
            assert {message_id: offsets.get(message_id) for message_id in posted} == posted
    await asyncio.to_thread(cluster.stop)
    for node in cluster.nodes[:4]:
        assert verified(cluster, node).records > 0
        assert "voters" not in events(node)


async def blocked(log: RawLog) -> str:
    """What the opening master says of voters that its config does not have."""

    async def look() -> str | None:
        status = await log.status()
        return str(status.detail) if status.state == "opening" and "may still be in force" in status.detail else None

    return await eventually(look, within_s=LEVEL_S, what="the master tells what it waits for")


async def test_a_jump_to_other_nodes_does_not_open_and_says_why_and_is_cured_by_the_config_from_before(
    cluster: DevCluster,
) -> None:
    others = ("node-1", "node-4", "node-5")
    async with raw_logs(cluster) as logs:
        kept = await logs["node-1"].post(b"acknowledged by a majority", w=2)
        configure(cluster, *others, on=others)
        await asyncio.to_thread(cluster.start, "node-4", "node-5")
        await asyncio.to_thread(cluster.stop, "node-1")
        await asyncio.to_thread(lambda: cluster.start("node-1", wait=False))
        detail = await blocked(logs["node-1"])
        assert detail == (
            "the voters node-1, node-2, node-3 may still be in force, and 2 of them must promise epoch 2: 1 so far;"
            " not under nodes in this config: node-2, node-3; put 1 of them back under nodes, with voter: false, and"
            " restart: once this master is open, they can go"
        )
        with pytest.raises(Unavailable, match="may still be in force"):
            await logs["node-1"].post(b"not now")
        assert events(cluster.node("node-1")).count("voters") == 1
        assert (await logs["node-4"].status()).size == 0

        configure(cluster, "node-1", "node-2", "node-3", on=["node-1"])
        await restart(cluster, "node-1")
        (record,) = (await logs["node-1"].list(kept.offset)).records[:1]
        assert record.payload == b"acknowledged by a majority"

        everybody = ("node-1", "node-2", "node-3", "node-4", "node-5")
        configure(cluster, *everybody, on=everybody, without_vote=["node-2", "node-3"])
        await restart(cluster, "node-1")
        assert await last_lists(logs["node-1"]) == EpochLists(others, (("node-1", "node-2", "node-3"),))
        configure(cluster, *others, on=others)
        await restart(cluster, "node-1")
        assert await last_lists(logs["node-1"]) == EpochLists(others)
        assert (await logs["node-1"].post(b"after", w="all", timeout_s=POST_S)).nodes == 3
        await all_level({name: logs[name] for name in others})
    await asyncio.to_thread(cluster.stop)
    for node in cluster.nodes:
        assert verified(cluster, node).records > kept.offset


async def test_one_node_of_three_is_left_and_its_operator_accepts_that_data_is_lost(cluster: DevCluster) -> None:
    cli = CommandLine.of(cluster)
    async with raw_logs(cluster) as logs:
        kept = await logs["node-1"].post(b"everywhere", w="all", timeout_s=POST_S)
        await asyncio.to_thread(cluster.kill, "node-3")
        lost = await logs["node-1"].post(b"acknowledged by a majority of which nobody is left", w=2, timeout_s=POST_S)
        await asyncio.to_thread(cluster.kill, "node-1", "node-2")
        await asyncio.to_thread(cluster.start, "node-3")

        promote = ("promote", "node-3", "--accept-data-loss")
        error = await asyncio.to_thread(cli.fails, 7, *promote)
        assert "not reached: node-1, node-2" in error["message"]
        assert "take them out of `nodes` in the config of every node that is left" in error["remedy"]

        left = cli.but(REPLICAD_ADDRESS=cluster.node("node-3").address)
        configure(cluster, "node-3", on=["node-3"])
        await restart(cluster, "node-3")
        error = await asyncio.to_thread(left.fails, 7, "promote", "node-3", "--timeout", "2s")
        assert "the voters node-1, node-2, node-3 may still be in force" in error["message"], "not without the word"
        error = await asyncio.to_thread(left.fails, 2, *promote)
        assert "Nobody is there to be asked: give --yes" in error["message"]
        (plan,) = await asyncio.to_thread(left.objects, *promote, "--dry-run")
        assert f"Whatever the voters that are gone acknowledged at offset {lost.offset} and beyond" in plan["plan"]
        assert (await logs["node-3"].status()).state == "opening"

        (done,) = await asyncio.to_thread(left.objects, *promote, "--yes")
        assert (done["node"], done["done"]) == ("node-3", True)
        assert "data_loss_accepted" in events(cluster.node("node-3"))
        assert await last_lists(logs["node-3"]) == EpochLists(("node-3",), (), (("node-1", "node-2", "node-3"),))
        after = await logs["node-3"].post(b"goes on", w="all", timeout_s=POST_S)
        records = (await logs["node-3"].list(kept.offset)).records
        assert records[0].payload == b"everywhere"
        assert [record.payload for record in records].count(b"goes on") == 1
        assert (after.offset, after.nodes) == (lost.offset + 1, 1), (
            "the epoch's first record stands where the lost one did"
        )
        await restart(cluster, "node-3")
        assert (await logs["node-3"].status()).state == "open", "what was waived is not asked for again"


async def test_an_idle_master_knows_after_its_next_start_that_its_list_took_effect(cluster: DevCluster) -> None:
    """Nobody reads or posts: that the lists before are gone for good is on its disk all the same."""
    await asyncio.to_thread(cluster.stop)
    node = cluster.node("node-1")
    config = load_config(node.config_file, env={})
    store = SqliteStore(node.data_dir, cluster=config.cluster, node=node.name, decode_records=decode_records)
    try:
        state = store.load()
        assert (state.size, state.commit_size, state.epoch_record) == (
            1,
            1,
            EpochRecord(0, EpochLists(("node-1", "node-2", "node-3")).encode()),
        )
    finally:
        store.close()


async def test_what_a_master_signed_that_has_left_is_believed_by_its_former_keys(cluster: DevCluster) -> None:
    left = ("node-2", "node-3")
    async with raw_logs(cluster) as logs:
        kept = await logs["node-1"].post(b"signed by node-1", w="all")
        await all_level({name: logs[name] for name in ("node-1", *left)}, size=kept.offset + 1)
        until = (await logs["node-1"].status()).size
        key = {"public_key": _public_key(cluster, "node-1"), "until": until}
        await asyncio.to_thread(cluster.stop)
        configure(cluster, *left, on=left, former_nodes=[{"name": "node-1", "keys": [key]}])
        configure(cluster, *left, "node-4", on=["node-4"], former_nodes=[{"name": "node-1", "keys": [key]}])
        configure(cluster, *left, "node-4", on=left, without_vote=["node-4"])
        await asyncio.to_thread(cluster.start, *left, "node-4")
        async with AsyncClient(cluster.node("node-2").address, token=TOKEN) as client:
            await client.promote(cluster.node("node-2").address)
        new = await logs["node-2"].post(b"signed by node-2", w="all", timeout_s=POST_S)
        await all_level({name: logs[name] for name in (*left, "node-4")}, size=new.offset + 1)
    await asyncio.to_thread(cluster.stop)
    for name in (*left, "node-4"):
        assert verified(cluster, cluster.node(name)).records > new.offset
