"""Another node becomes the master, by switchover and by promotion: real nodes and clients, nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from replicad import tokensfile
from replicad.access import Principal, Role, hash_of
from replicad.client import AsyncClient
from replicad.dev import DevCluster
from replicad.errors import BadRequest, Forbidden, Unavailable
from tests.support.commandline import CommandLine
from tests.support.forwarder import coming_from
from tests.support.nodes import TOKEN, all_level, edit, events, raw_logs, running_cluster, verified
from tests.support.waiting import eventually, eventually_true

LANES = 8  # posts under way at once
POST_S = 30.0
PAUSE_S = 2.0  # that a switchover may cost
PROMOTED_S = 5.0  # from the command to the first post that is acknowledged
UNHEALTHY = {"suspect": "1s", "unhealthy": "2s"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    settings = {"timeouts": {"reconnect_max": "300ms", **UNHEALTHY}}
    with running_cluster(tmp_path / "cluster", settings=settings) as made:
        yield made


def client_of(cluster: DevCluster) -> AsyncClient:
    return AsyncClient([node.address for node in cluster.nodes], token=TOKEN, timeout_s=POST_S)


class Load:
    """Posts at a majority, and when each was answered; an error of any post is an error of the test."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.at_s: list[float] = []

    @property
    def longest_pause_s(self) -> float:
        return max(later - earlier for earlier, later in pairwise(self.at_s))

    async def goes_on(self, more: int = 50) -> None:
        """Return when so many more posts are answered."""
        wanted = len(self.acknowledged) + more

        async def enough() -> bool:
            return len(self.acknowledged) >= wanted

        await eventually(enough, within_s=POST_S, what="posts go on")


@asynccontextmanager
async def load_on(cluster: DevCluster) -> AsyncIterator[Load]:
    """A client of the library posts all the while; at the end each id that it was answered stands once, everywhere."""
    load, over = Load(), asyncio.Event()
    async with client_of(cluster) as client:

        async def lane(number: int) -> None:
            count = 0
            while not over.is_set():
                count += 1
                posted = await client.post(b"x", id=f"load-{number}-{count}", write_concern="majority")
                load.acknowledged[posted.id] = posted.offset
                load.at_s.append(time.monotonic())

        async with asyncio.TaskGroup() as group:
            for number in range(LANES):
                group.create_task(lane(number))
            try:
                await load.goes_on()
                yield load
            finally:
                over.set()
    async with raw_logs(cluster) as logs:
        await all_level(logs)
        for log in logs.values():
            offsets: dict[str, list[int]] = {}
            for record in (await log.list(0)).records:
                offsets.setdefault(record.id, []).append(record.offset)
            assert {each: offsets.get(each) for each in load.acknowledged} == {
                each: [offset] for each, offset in load.acknowledged.items()
            }


async def cli_of(cluster: DevCluster, *arguments: str) -> dict[str, object]:
    (done,) = await asyncio.to_thread(CommandLine.of(cluster).objects, *arguments)
    return done


def all_verified(cluster: DevCluster) -> None:
    cluster.stop()
    for node in cluster.nodes:
        verified(cluster, node)


# --- switchover -------------------------------------------------------------------------------------------------


async def test_switchovers_under_load_cost_a_short_pause_and_no_error(cluster: DevCluster) -> None:
    async with load_on(cluster) as load:
        for name in ("node-2", "node-3", "node-1", "node-3"):
            done = await cli_of(cluster, "switchover", "--to", name)
            assert (done["node"], done["done"]) == (name, True)
            await load.goes_on()
    print(f"longest pause {load.longest_pause_s:.3f} s of {len(load.acknowledged)} posts")
    assert load.longest_pause_s < PAUSE_S
    rows = await asyncio.to_thread(CommandLine.of(cluster).objects, "status")
    assert [row["role"] for row in rows] == ["worker", "worker", "master"]
    assert {row["epoch"] for row in rows} == {5}
    await asyncio.to_thread(all_verified, cluster)


async def test_the_worker_that_has_most_is_taken_and_the_same_again_does_nothing(cluster: DevCluster) -> None:
    await asyncio.to_thread(cluster.kill, "node-2")
    plan = await cli_of(cluster, "switchover", "--dry-run")
    assert (plan["node"], plan["done"], plan["dry_run"]) == ("node-3", False, True)
    done = await cli_of(cluster, "switchover")
    assert (done["node"], done["done"], done["epoch"]) == ("node-3", True, 2)
    again = await cli_of(cluster, "switchover", "--to", "node-3")
    assert (again["done"], again["epoch"], again["took_s"]) == (True, None, None)


async def test_a_token_with_the_role_admin_alone_is_enough_to_move_the_master(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.yaml"
    for role in Role:
        tokensfile.add(tokens, Principal(f"the-{role}", frozenset({role}), hash_of(f"token-of-{role}")))
    settings = {"tokens_file": str(tokens), "timeouts": {"reconnect_max": "300ms", **UNHEALTHY}}
    with running_cluster(tmp_path / "cluster", settings=settings) as cluster:
        cli = CommandLine.of(cluster).but(AUTH_TOKEN="token-of-admin")
        [done] = await asyncio.to_thread(cli.objects, "switchover", "--to", "node-2")
        assert (done["node"], done["done"]) == ("node-2", True)
        async with AsyncClient([node.address for node in cluster.nodes], token="token-of-admin") as client:
            assert (await client.switchover("node-3")).node == "node-3"
            with pytest.raises(Forbidden, match="the-admin lacks the role reader"):
                await anext(client.list())
        await asyncio.to_thread(cluster.kill, "node-3")
        [done] = await asyncio.to_thread(cli.objects, "promote", "node-1")
        assert (done["node"], done["done"]) == ("node-1", True)


async def test_a_target_that_dies_on_the_way_leaves_the_master_and_the_next_try_works(cluster: DevCluster) -> None:
    async with load_on(cluster) as load:
        command = asyncio.create_task(
            asyncio.to_thread(
                CommandLine.of(cluster).run, "switchover", "--to", "node-2", "--timeout", "2s", "--output", "json"
            )
        )
        await asyncio.to_thread(cluster.kill, "node-2")
        ran = await command
        assert ran.code in (0, 7), ran
        await asyncio.to_thread(cluster.start, "node-2")
        await load.goes_on()
        for name in ("node-3", "node-2"):
            assert (await cli_of(cluster, "switchover", "--to", name))["done"] is True
            await load.goes_on()
    assert load.longest_pause_s < POST_S


async def test_a_command_that_is_killed_is_repeated(cluster: DevCluster) -> None:
    async with load_on(cluster) as load:
        for _ in range(3):
            with CommandLine.of(cluster).started("switchover", "--to", "node-2") as process:
                await load.goes_on(5)
                process.kill()
            assert (await cli_of(cluster, "switchover", "--to", "node-2"))["done"] is True
            await load.goes_on()
            assert (await cli_of(cluster, "switchover", "--to", "node-1"))["done"] is True
    assert load.longest_pause_s < PAUSE_S


async def test_one_whose_line_is_slow_becomes_the_master_and_does_not_pass_for_one_that_refuses(
    cluster: DevCluster,
) -> None:
    """The master has dialled it again long before it has heard all whom it asks."""
    node = cluster.node("node-2")
    async with coming_from("127.0.0.1", cluster.master.address, late_s=0.1) as slow:
        nodes = yaml.safe_load(node.config_file.read_text())["nodes"]
        nodes[0]["address"] = slow
        edit(node, nodes=nodes)
        await asyncio.to_thread(cluster.stop, "node-2")
        await asyncio.to_thread(cluster.start, "node-2")
        async with raw_logs(cluster) as logs:
            await all_level(logs)
            assert (await cli_of(cluster, "switchover", "--to", "node-2"))["done"] is True
            assert (await logs["node-2"].status()).epoch == 2


async def test_whom_a_switchover_refuses(cluster: DevCluster) -> None:
    cli = CommandLine.of(cluster)
    error = await asyncio.to_thread(cli.fails, 2, "switchover", "--to", "node-9")
    assert "'node-9' is no node of the cluster: node-1, node-2, node-3" in error["message"]
    async with client_of(cluster) as client:
        with pytest.raises(BadRequest, match="'node-9' is no node of the cluster"):
            await client.switchover("node-9")
        await asyncio.to_thread(cluster.kill, "node-3")

        async def is_lost() -> bool:
            return next(n.health for n in (await client.status()).nodes if n.name == "node-3") == "UNHEALTHY"

        await eventually(is_lost, within_s=10, what="node-3 is lost")
        with pytest.raises(Unavailable, match="node-3 is not in reach and following"):
            await client.switchover("node-3")
    error = await asyncio.to_thread(cli.fails, 7, "switchover", "--to", "node-3")
    assert "node-3 is UNHEALTHY" in error["message"]
    await asyncio.to_thread(cluster.kill, "node-1")
    error = await asyncio.to_thread(cli.fails, 7, "switchover")
    assert "no node is the master, and open" in error["message"]


# --- promotion --------------------------------------------------------------------------------------------------


async def test_a_master_that_is_killed_is_replaced_within_seconds_and_comes_back_as_a_worker(
    cluster: DevCluster,
) -> None:
    async with load_on(cluster) as load:
        for old, new in (("node-1", "node-2"), ("node-2", "node-3"), ("node-3", "node-1")):
            await asyncio.to_thread(cluster.kill, old)
            began, answered = time.monotonic(), len(load.at_s)
            promoted = await cli_of(cluster, "promote", new)
            assert (promoted["node"], promoted["done"]) == (new, True)
            await load.goes_on(LANES + 1)
            took_s = load.at_s[answered + LANES] - began
            print(f"{new} promoted and posted to after {took_s:.3f} s")
            assert took_s < PROMOTED_S
            await asyncio.to_thread(cluster.start, old)  # its config says master, or its log did
            await load.goes_on()
            rows = {row["node"]: row for row in await asyncio.to_thread(CommandLine.of(cluster).objects, "status")}
            assert {name: row["role"] for name, row in rows.items()} == {
                name: "master" if name == new else "worker" for name in rows
            }
            assert {row["epoch"] for row in rows.values()} == {promoted["epoch"]}
    await asyncio.to_thread(all_verified, cluster)


async def test_a_master_that_was_only_cut_off_is_deposed_and_follows(cluster: DevCluster) -> None:
    """SIGSTOP for longer than any timeout: it wakes up and still believes that it is the master."""
    async with load_on(cluster) as load:
        cluster.send_signal("node-1", signal.SIGSTOP)
        try:
            others = CommandLine.of(cluster).but(
                REPLICAD_ADDRESS=",".join(cluster.node(name).address for name in ("node-2", "node-3"))
            )
            (done,) = await asyncio.to_thread(others.objects, "promote", "node-2")
            assert done["done"] is True
            await load.goes_on()
        finally:
            cluster.send_signal("node-1", signal.SIGCONT)
        eventually_true(lambda: "deposed" in events(cluster.node("node-1")), within_s=20, what="node-1 has heard of it")
        await load.goes_on()
    rows = await asyncio.to_thread(CommandLine.of(cluster).objects, "status")
    assert [(row["role"], row["state"]) for row in rows] == [
        ("worker", "following"),
        ("master", "open"),
        ("worker", "following"),
    ]
    await asyncio.to_thread(all_verified, cluster)


async def test_what_promote_finds_and_refuses(cluster: DevCluster) -> None:
    cli = CommandLine.of(cluster)
    error = await asyncio.to_thread(cli.fails, 7, "promote", "node-2")
    assert error["message"] == "node-1 is the master, and open"
    assert error["remedy"] == "replicad-cli switchover --to node-2"
    assert (await cli_of(cluster, "promote", "node-1"))["done"] is True  # it is the master already
    async with client_of(cluster) as client:
        with pytest.raises(Unavailable, match="node-1 is it, and is open"):
            await client.promote(cluster.node("node-2").address)
    await asyncio.to_thread(cluster.kill, "node-1")
    plan = await cli_of(cluster, "promote", "node-2", "--dry-run")
    assert (plan["done"], plan["dry_run"]) == (False, True)
    assert "node-2, node-3 are reached, and 2 of 3 voters are enough" in str(plan["plan"])
    await asyncio.to_thread(cluster.kill, "node-3")
    error = await asyncio.to_thread(cli.fails, 7, "promote", "node-2")
    assert "2 of the 3 voters have to promise" in error["message"]
    assert "not reached: node-1, node-3" in error["message"]
    error = await asyncio.to_thread(cli.fails, 7, "promote", "node-3")
    assert error["message"].startswith("node-3 does not answer at ")
    async with AsyncClient(cluster.node("node-2").address, token=TOKEN) as client:
        with pytest.raises(Unavailable, match="it did not become the master"):
            await client.promote(cluster.node("node-2").address, timeout_s=10)
        assert (await client.status()).role == "worker"


async def test_a_node_that_lost_its_data_does_not_begin_the_log_anew(cluster: DevCluster) -> None:
    async with client_of(cluster) as client:
        posted = await client.post(b"kept", write_concern="all")
    await asyncio.to_thread(cluster.kill, "node-1")
    shutil.rmtree(cluster.node("node-1").data_dir)
    await asyncio.to_thread(cluster.start, "node-1")  # its config says that it begins as the master
    for _ in range(2):
        rows = await asyncio.to_thread(CommandLine.of(cluster).objects, "status")
        assert [row["role"] for row in rows] == ["worker", "worker", "worker"]
        assert "has promised epoch 1 to node-1" in rows[0]["detail"]
        await asyncio.to_thread(cluster.restart, "node-1")  # no more at the next start
    assert (await cli_of(cluster, "promote", "node-2"))["done"] is True
    async with raw_logs(cluster) as logs:
        await all_level(logs, size=posted.offset + 2)
        (record,) = (await logs["node-1"].list(posted.offset)).records[:1]
        assert record.payload == b"kept"
