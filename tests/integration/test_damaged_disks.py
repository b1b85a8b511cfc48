"""A disk changes what was written: no reader gets that, the node says so, and another node's copy takes its place."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicad.client import AsyncClient, Posted, Status
from replicad.dev import DevCluster, DevNode
from replicad.errors import ExitCode, OperatorError, OutcomeUnknown, Unavailable
from tests.support.commandline import CommandLine
from tests.support.daemon import run as daemon
from tests.support.nodes import TOKEN, all_level, edit, events, raw_logs, reload, running_cluster, verified
from tests.support.waiting import eventually, eventually_true

RECORDS, BATCH = 3000, 100
REPAIRED_S = 20.0
PAGE = 4096


@pytest.fixture
def scrub_rate() -> str | int:
    """None, unless a test is about it."""
    return 0


@pytest.fixture
def tls() -> bool:
    """No, unless a test is about it."""
    return False


@pytest.fixture
def cluster(tmp_path: Path, scrub_rate: str | int, tls: bool) -> Iterator[DevCluster]:
    settings = {
        "timeouts": {"reconnect_max": "300ms", "scrub_interval": "1s", "suspect": "1s", "unhealthy": "2s"},
        "limits": {"scrub_rate": scrub_rate},
    }
    with running_cluster(tmp_path / "cluster", tls=tls, settings=settings) as made:
        yield made
        made.stop()
        for node in made.nodes:
            verified(made, node)


def needle(number: int) -> bytes:
    return b"needle-%06d" % number


async def fill(cluster: DevCluster, records: int = RECORDS) -> dict[int, int]:
    """Post needles, some a batch; their offsets by number. On all nodes when this returns."""
    async with client_of(cluster) as client:
        posted = await post_needles(client, records, "all")
    async with raw_logs(cluster) as logs:
        await all_level(logs)
    return {number: each.offset for number, each in enumerate(posted)}


async def post_needles(client: AsyncClient, records: int, w: int | str) -> list[Posted]:
    posted: list[Posted] = []
    for start in range(0, records, BATCH):  # so that there are many batches
        numbers = range(start, start + BATCH)
        posted += await asyncio.gather(*(client.post(needle(n), id=f"needle-{n}", write_concern=w) for n in numbers))
    return posted


def client_of(cluster: DevCluster, *names: str) -> AsyncClient:
    nodes = [node for node in cluster.nodes if not names or node.name in names]
    return AsyncClient([node.address for node in nodes], token=TOKEN, ca=cluster.layout.ca_file, timeout_s=30)


async def flip(cluster: DevCluster, node: DevNode, *numbers: int, wait: bool = True) -> None:
    """Stop the node, flip one bit of each of these payloads in its file, start it again."""
    await asyncio.to_thread(cluster.stop, node.name)
    path = node.data_dir / "log.db"
    content = bytearray(path.read_bytes())
    for number in numbers:
        assert content.count(needle(number)) == 1
        content[content.index(needle(number)) + 3] ^= 0x10
    path.write_bytes(content)
    await asyncio.to_thread(lambda: cluster.start(node.name, wait=wait))


async def payload_on(node: DevNode, offset: int) -> bytes:
    async with AsyncClient(node.address, token=TOKEN, timeout_s=2) as client:
        async for record in client.list(offset, limit=1, level="local"):
            return record.payload
    raise AssertionError(f"{node.name} has nothing at {offset}")


def repaired(node: DevNode) -> bool:
    return "repaired" in events(node)


@pytest.mark.parametrize("scrub_rate", ["64MiB"])
@pytest.mark.parametrize("name", ["node-2", "node-1"])
async def test_a_scrub_finds_a_flipped_bit_and_another_nodes_copy_repairs_it(cluster: DevCluster, name: str) -> None:
    offsets, node = await fill(cluster), cluster.node(name)
    numbers = (3, 1234, 1235, 2345)
    await flip(cluster, node, *numbers)
    eventually_true(
        lambda: events(node).count("repaired") == 3, within_s=REPAIRED_S, what=f"{name} has repaired itself"
    )
    for number in numbers:
        assert await payload_on(node, offsets[number]) == needle(number)
    assert events(node).count("damaged") == 3, "two of them are in one batch"

    async def looked_over() -> bool:
        async with client_of(cluster, name) as client:
            status = await client.status()
            return bool(status.scrubbed_ms) and not status.damage

    await eventually(looked_over, within_s=REPAIRED_S, what="the whole log was looked over")


async def test_a_reader_never_gets_it_and_reads_on_from_another_node(cluster: DevCluster) -> None:
    offsets, node = await fill(cluster), cluster.node("node-2")
    for name in ("node-1", "node-3"):  # nobody to repair it from
        await asyncio.to_thread(cluster.stop, name)
    await flip(cluster, node, 2000)
    got: list[bytes] = []
    async with AsyncClient(node.address, token=TOKEN, timeout_s=1) as client:

        async def read_all() -> None:
            async for record in client.list(offsets[0], level="local"):
                got.append(record.payload)

        with pytest.raises(Unavailable, match=r"copy is damaged.*another checksum"):
            await read_all()
        assert 0 < len(got) < 2001
        assert set(got) <= {needle(number) for number in offsets}
        after = [record.payload async for record in client.list(offsets[RECORDS - 1], level="local")]
        assert after == [needle(RECORDS - 1)], "what is whole behind it can be read"
        status = await client.status()
        assert "damaged on disk at offset" in status.damage

    cli = CommandLine.of(cluster).but(REPLICAD_ADDRESS=node.address)
    await asyncio.to_thread(cluster.start, "node-3")
    error = await asyncio.to_thread(cli.fails, 7, "promote", "node-2")
    assert error["message"].startswith("node-2 is not to be the master: damaged on disk at offset")
    async with client_of(cluster, "node-2") as client:
        with pytest.raises(Unavailable, match="not to be the master"):
            await client.promote(node.address)
    eventually_true(lambda: repaired(node), within_s=REPAIRED_S, what="node-3 is there, and its copy")
    await asyncio.to_thread(cluster.start, "node-1")
    async with client_of(cluster) as client:
        everything = {record.payload async for record in client.list(0)}
    assert {needle(number) for number in offsets} <= everything


async def test_the_library_reads_past_a_damaged_node(cluster: DevCluster) -> None:
    offsets = await fill(cluster)
    await flip(cluster, cluster.node("node-2"), 777)
    addresses = [cluster.node(name).address for name in ("node-2", "node-1", "node-3")]
    async with AsyncClient(addresses, token=TOKEN, timeout_s=30) as client:
        records = [record.payload async for record in client.list(offsets[0])]
    assert [needle(number) for number in offsets] == [each for each in records if each.startswith(b"needle")]
    eventually_true(lambda: repaired(cluster.node("node-2")), within_s=REPAIRED_S, what="what was read is repaired")


async def test_a_worker_that_lags_is_fed_past_a_damage_on_the_master(cluster: DevCluster) -> None:
    await asyncio.to_thread(cluster.stop, "node-3")
    async with client_of(cluster, "node-1") as client:
        await post_needles(client, RECORDS, 2)
    await flip(cluster, cluster.master, 1500)
    await asyncio.to_thread(cluster.start, "node-3")
    async with raw_logs(cluster) as logs:
        await all_level(logs, within_s=REPAIRED_S)
    assert repaired(cluster.master)
    assert "fatal" not in events(cluster.master)


async def test_a_post_again_of_what_is_damaged_is_answered_once_it_is_repaired(cluster: DevCluster) -> None:
    offsets = await fill(cluster)
    await flip(cluster, cluster.master, 42)
    async with client_of(cluster, "node-1") as client:
        again = await client.post(needle(42), id="needle-42", write_concern=1)
        assert (again.offset, again.duplicate) == (offsets[42], True)
    assert repaired(cluster.master)


def leaf_place(node: DevNode, content: bytes) -> int:
    """Where in the file a leaf of the log's last batch lies, in the digest of its payload."""
    with closing(sqlite3.connect(f"file:{node.data_dir / 'log.db'}?mode=ro", uri=True)) as database:
        (body,) = database.execute("SELECT body FROM batches ORDER BY first_offset DESC LIMIT 1").fetchone()
    for number in range(RECORDS - BATCH, RECORDS):
        at = body.find(b"needle-%d" % number)  # the payload is another one
        if at > 0 and content.count(body[at - 68 : at - 36]) == 1:
            return content.index(body[at - 68 : at - 36])
    raise AssertionError("no leaf of the last batch lies in one page")


async def test_a_node_that_does_not_know_its_own_end_asks_the_others_before_it_starts(cluster: DevCluster) -> None:
    """What it starts from is made of the last leaves; a damaged payload among them would not matter."""
    offsets, node = await fill(cluster), cluster.node("node-2")
    await asyncio.to_thread(cluster.stop)
    path = node.data_dir / "log.db"
    content = bytearray(path.read_bytes())
    content[leaf_place(node, bytes(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(OperatorError, match="no other node's copy can replace it now: node-1: "):
        await asyncio.to_thread(cluster.start, "node-2")
    assert path.read_bytes() == content, "nothing is given up"
    node.log_file.write_text("")  # it ends with what a node says that does not start: no event
    await asyncio.to_thread(lambda: cluster.start("node-1", wait=False))
    await asyncio.to_thread(cluster.start, "node-3")
    await asyncio.to_thread(cluster.start, "node-2")
    assert repaired(node)
    assert await payload_on(node, offsets[RECORDS - 1]) == needle(RECORDS - 1)


async def test_a_post_again_of_what_is_damaged_and_not_repaired_ends_as_unknown(cluster: DevCluster) -> None:
    offsets = await fill(cluster)
    for name in ("node-2", "node-3"):
        await asyncio.to_thread(cluster.stop, name)
    await flip(cluster, cluster.master, 42, wait=False)
    await asyncio.to_thread(cluster.start, "node-2")  # so that there is a master; then it is alone again
    async with client_of(cluster, "node-1") as client:
        await client.post(b"open", write_concern="majority")
        await asyncio.to_thread(cluster.kill, "node-2")
        with pytest.raises(OutcomeUnknown, match="ask for the outcome of the id, at another node"):
            await client.post(needle(42), id="needle-42", write_concern=1)
        new = await client.post(b"others go on", write_concern=1)
        assert new.offset > offsets[RECORDS - 1]
    await asyncio.to_thread(cluster.start, "node-2", "node-3")
    eventually_true(lambda: repaired(cluster.master), within_s=REPAIRED_S, what="it is repaired")


def break_structure(node: DevNode) -> None:
    """Make a page of the batches' own tree unreadable, in the midst of the log."""
    path = node.data_dir / "log.db"
    whole = path.read_bytes()
    for page in range(len(whole) // PAGE // 2, len(whole) // PAGE):
        content = bytearray(whole)
        content[PAGE * page : PAGE * page + 8] = bytes(8)
        path.write_bytes(content)
        if is_broken(path):
            return
    raise AssertionError("no page is of that tree")


def is_broken(path: Path) -> bool:
    """Whether the rows of the batches can't be gone through, though the rest of the file can."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        database.execute("SELECT count(*) FROM ids").fetchone()
        database.execute("SELECT * FROM state").fetchone()
        try:
            database.execute("SELECT sum(count) FROM batches NOT INDEXED").fetchone()
        except sqlite3.DatabaseError:
            return True
    return False


async def test_a_file_whose_structure_is_damaged_is_rebuilt_while_the_node_is_stopped(cluster: DevCluster) -> None:
    offsets, node = await fill(cluster), cluster.node("node-2")
    await asyncio.to_thread(cluster.stop, "node-2")
    break_structure(node)
    cli = CommandLine.of(cluster)
    rebuild = ("rebuild", "--config", str(node.config_file))
    error = await asyncio.to_thread(cli.fails, 3, *rebuild[:2], str(cluster.master.config_file))
    assert "is held by" in error["message"] or "in use" in error["message"]
    before = (node.data_dir / "log.db").read_bytes()
    for name in ("node-1", "node-3"):
        await asyncio.to_thread(cluster.stop, name)
    error = await asyncio.to_thread(cli.fails, 11, *rebuild)
    assert "damaged here, and not to be had elsewhere now: node-1: " in error["message"]
    assert (node.data_dir / "log.db").read_bytes() == before
    assert not (node.data_dir / "rebuild.unfinished").exists()

    await asyncio.to_thread(lambda: cluster.start("node-1", wait=False))
    await asyncio.to_thread(cluster.start, "node-3")
    (made,) = await asyncio.to_thread(cli.objects, *rebuild)
    assert made["size"] == made["own"] + made["fetched"] > RECORDS
    assert made["own"] > 0 < made["fetched"]
    (kept,) = node.data_dir.glob("log.db.damaged-*")
    assert kept.read_bytes() == before
    await asyncio.to_thread(cluster.start, "node-2")
    assert await payload_on(node, offsets[RECORDS // 2]) == needle(RECORDS // 2)
    async with raw_logs(cluster) as logs:
        await all_level(logs)


@pytest.mark.parametrize(("share", "tls"), [(0.5, False), (0.9, True)])
async def test_a_file_that_was_cut_off_is_rebuilt_up_to_where_the_master_is(cluster: DevCluster, share: float) -> None:
    """The newest pages are gone, and with them where the log ended."""
    await fill(cluster)
    node, cli = cluster.node("node-2"), CommandLine.of(cluster)
    rebuild = ("rebuild", "--config", str(node.config_file))
    await asyncio.to_thread(cluster.stop, "node-2")
    log = node.data_dir / "log.db"
    os.truncate(log, int(log.stat().st_size * share) // PAGE * PAGE)
    before = log.read_bytes()
    async with client_of(cluster) as client:
        await client.post(b"while it was away", write_concern=2)
    code, _, said = await asyncio.to_thread(daemon, "--config", str(node.config_file), cwd=node.folder)
    assert code == ExitCode.STORAGE, said
    assert "malformed; `replicad-cli rebuild` makes the log anew" in said

    await asyncio.to_thread(cluster.stop, "node-3")
    error = await asyncio.to_thread(cli.fails, 11, *rebuild)
    assert "where the log ended can't be read here" in error["message"]
    assert "node-1: " in error["message"], "a master that has no majority does not know"
    assert log.read_bytes() == before
    await asyncio.to_thread(cluster.start, "node-3")

    (made,) = await asyncio.to_thread(cli.objects, *rebuild)
    assert (made["size"], made["fetched"] > 0) == (RECORDS + 2, True)
    await asyncio.to_thread(cluster.start, "node-2")
    async with raw_logs(cluster) as logs:
        await all_level(logs)


async def test_a_scrub_that_a_reload_asks_for_begins(cluster: DevCluster) -> None:
    await fill(cluster, records=BATCH)
    assert (await status_of(cluster, "node-1")).scrubbed_ms == 0
    edit(cluster.master, limits={"scrub_rate": "64MiB"})
    await reload(cluster, "node-1")

    async def scrubbed() -> bool:
        return (await status_of(cluster, "node-1")).scrubbed_ms > 0

    await eventually(scrubbed, within_s=REPAIRED_S, what="it is looked over, though there was no scrub at the start")


async def status_of(cluster: DevCluster, name: str) -> Status:
    async with client_of(cluster, name) as client:
        return await client.status()
