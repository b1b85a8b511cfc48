"""A disk that is full: nothing is lost or half told, reads go on, and the node comes back by itself when there is room.

On a small tmpfs under the node's data folder, so for root alone.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from replicad.client import AsyncClient
from replicad.dev import DevCluster, DevNode
from replicad.dev.layout import CLUSTER
from replicad.errors import (
    Applied,
    DiskFullError,
    OutcomeUnknown,
    ServiceError,
    StorageFull,
    Unavailable,
    WriteConcernTimeout,
)
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.support.ledger import Ledger
from tests.support.nodes import TOKEN, all_level, events, raw_logs, running_cluster, verified
from tests.support.rawlog import Posted, RawLog, new_id
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small disk that these tests fill")

DISK_BYTES = 16 << 20
LEFT_BYTES = 1 << 20  # a disk with less than this is as good as full to the payloads here
RESERVE_BYTES = 4 << 20
PAYLOAD = bytes(64 << 10)
BACK_S = 15.0  # a master tries again each second; a worker is dialled again within 5 s

Logs = dict[str, RawLog]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of DISK_BYTES at ``folder``."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "replicad-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def reserve() -> str | int:
    """None: what these tests are about is that SQLite and the kernel find no room."""
    return 0


@pytest.fixture
def cluster(tmp_path: Path, reserve: str | int) -> Iterator[DevCluster]:
    with ExitStack() as stack:
        settings = {"timeouts": {"read_wait": "2s"}, "limits": {"disk_reserve": reserve}}
        made = stack.enter_context(running_cluster(tmp_path, start=(), settings=settings))
        for name in ("node-1", "node-2"):
            stack.enter_context(small_disk(made.node(name).data_dir))
        made.start()
        yield made
        made.stop()  # before the disks go
        for node in made.nodes:
            verified(made, node)


@pytest.fixture
async def logs(cluster: DevCluster) -> AsyncIterator[Logs]:
    async with raw_logs(cluster) as connections:
        await all_level(connections)
        yield connections


def ballast(node: DevNode) -> Path:
    return node.data_dir / "ballast"


def fill(node: DevNode, *, left: int = LEFT_BYTES) -> None:
    """Leave so many bytes on the node's disk."""
    with ballast(node).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(node) - left)


def free_bytes(node: DevNode) -> int:
    stats = os.statvfs(node.data_dir)
    return stats.f_bavail * stats.f_frsize


def make_room(node: DevNode) -> None:
    ballast(node).unlink()


async def post_until_full(log: RawLog, ledger: Ledger) -> ServiceError:
    """Some at a time, until the disk is full for one; what that one was told."""
    full: list[ServiceError] = []

    async def post_some() -> None:
        while not full:
            message_id = new_id()
            try:
                posted = await log.post(PAYLOAD, id=message_id, w=1, timeout_s=3)
            except ServiceError as error:
                ledger.failed(message_id, error)
                full.append(error)
            else:
                ledger.acknowledged(message_id, posted.offset)

    await asyncio.gather(*(post_some() for _ in range(4)))
    for error in full:
        assert isinstance(error, StorageFull | OutcomeUnknown | WriteConcernTimeout), error
    return full[0]


async def judge(ledger: Ledger, logs: Logs) -> None:
    ledger.judge({name: (await log.list()).records for name, log in logs.items()})


async def test_a_master_whose_disk_is_full_refuses_posts_serves_reads_and_comes_back_by_itself(
    cluster: DevCluster, logs: Logs
) -> None:
    master, ledger = logs["node-1"], Ledger()
    for round_ in range(2):
        fill(cluster.master)
        await post_until_full(master, ledger)

        with pytest.raises(StorageFull) as caught:
            await master.post(b"small", id=(refused := new_id()), w=1)
        assert (caught.value.code, caught.value.grpc_status) == (507, "RESOURCE_EXHAUSTED")
        assert caught.value.applied is Applied.NO
        ledger.failed(refused, caught.value)
        assert (await master.status()).state == "read-only"
        seen = {record.id for record in (await master.list(level="local")).records}
        assert ledger.at.keys() <= seen, "what was acknowledged can be read"
        assert (await master.list()).records
        assert (await master.outcome(next(iter(ledger.at)))).offset == next(iter(ledger.at.values()))

        make_room(cluster.master)
        message_id = new_id()
        posted = await eventually(
            partial(post_again, master, message_id), within_s=BACK_S, what="posts are taken again"
        )
        ledger.acknowledged(message_id, posted.offset)
        assert events(cluster.master).count("read-only") == round_ + 1
    await all_level(logs)
    await judge(ledger, logs)


async def post_again(log: RawLog, message_id: str) -> Posted | None:
    try:
        return await log.post(b"again", id=message_id, w=3, timeout_s=2)
    except StorageFull:
        return None


async def test_a_worker_whose_disk_is_full_lags_and_comes_back_by_itself(cluster: DevCluster, logs: Logs) -> None:
    master, node, ledger = logs["node-1"], cluster.node("node-2"), Ledger()
    fill(node)
    for _ in range(40):
        message_id = new_id()
        posted = await master.post(PAYLOAD, id=message_id, w=2, timeout_s=10)
        ledger.acknowledged(message_id, posted.offset)

    with pytest.raises(WriteConcernTimeout):
        await master.post(b"for all", w=3, timeout_s=0.5)
    lagging = await logs["node-2"].status()
    assert lagging.size < (await master.status()).size
    page = await logs["node-2"].list()
    assert page.records == (await master.list(limit=len(page.records))).records
    full_lines = events(node).count("refused")
    assert full_lines < 20, "one line an event, and not one a moment"

    make_room(node)
    level = await all_level(logs, within_s=BACK_S + 15)
    assert level.size > lagging.size
    await all_level(logs)
    assert len((await logs["node-2"].list()).records) == level.size
    for message_id, offset in ledger.at.items():
        assert (await logs["node-2"].outcome(message_id)).offset == offset


async def test_a_commit_size_that_a_full_disk_takes_no_note_of_is_shown_to_no_reader(
    cluster: DevCluster, logs: Logs
) -> None:
    """Whatever a read with min_offset gives includes it, or it fails; and a tail does not turn in circles."""
    node = cluster.node("node-2")
    fill(node, left=0)
    posted = await logs["node-1"].post(b"not for the full one", w=2)
    for level in ("committed", "local"):
        read = logs["node-2"].list(posted.offset, min_offset=posted.offset, level=level)
        with suppress(Unavailable):
            assert (await asyncio.wait_for(read, 10)).records[0].offset == posted.offset
    make_room(node)
    await all_level(logs, within_s=BACK_S + 15)


async def test_a_node_that_is_killed_while_its_disk_is_full_starts_when_there_is_room(
    cluster: DevCluster, logs: Logs
) -> None:
    ledger = Ledger()
    fill(cluster.master)
    await post_until_full(logs["node-1"], ledger)
    await asyncio.to_thread(cluster.kill, "node-1")
    make_room(cluster.master)
    await asyncio.to_thread(cluster.start, "node-1")
    async with RawLog(cluster.master.address, token=TOKEN) as log:
        message_id = new_id()
        ledger.acknowledged(message_id, (await log.post(b"again", id=message_id, w=3, timeout_s=20)).offset)
    await all_level(logs)
    await judge(ledger, logs)


async def test_no_room_for_the_index_of_the_wal_is_no_damage(cluster: DevCluster, logs: Logs) -> None:
    """A start looks whether the WAL is whole, for which SQLite makes a file."""
    node = cluster.node("node-2")
    for _ in range(20):
        await logs["node-1"].post(PAYLOAD, w=3)
    await asyncio.to_thread(cluster.kill, "node-2")
    (node.data_dir / "log.db-shm").unlink()
    fill(node, left=0)
    with pytest.raises(DiskFullError):
        SqliteStore(node.data_dir, cluster=CLUSTER, node="node-2", decode_records=decode_records)
    make_room(node)
    await asyncio.to_thread(cluster.start, "node-2")
    await all_level(logs)


@pytest.mark.parametrize("reserve", ["4MiB"])
async def test_records_leave_room_for_what_a_node_promises(cluster: DevCluster, logs: Logs) -> None:
    node, ledger = cluster.node("node-2"), Ledger()
    fill(cluster.master, left=RESERVE_BYTES + LEFT_BYTES)
    await post_until_full(logs["node-1"], ledger)
    assert "limits.disk_reserve keeps 4 MiB for the node's own state" in (await logs["node-1"].status()).detail
    assert free_bytes(cluster.master) > RESERVE_BYTES * 3 // 4
    fill(node, left=RESERVE_BYTES // 2)  # others may take of it, records may not
    await asyncio.to_thread(cluster.kill, "node-1")

    async with AsyncClient(cluster.node("node-3").address, token=TOKEN) as client:
        with pytest.raises(Unavailable, match=r"node-2 is not to be the master: .* limits.disk_reserve keeps 4 MiB"):
            await client.promote(node.address, timeout_s=3)
        with pytest.raises(Unavailable, match="waits for its first record to be on 2 nodes"):
            await client.promote(cluster.node("node-3").address, timeout_s=3)
        status = await logs["node-2"].status()
        assert (status.epoch, status.master) == (2, "node-3"), "it has promised, on a disk that takes no record"
        make_room(node)
        await client.promote(cluster.node("node-3").address, timeout_s=BACK_S)
    await asyncio.to_thread(cluster.start, "node-1")
    assert (await logs["node-1"].status()).epoch == 2, "a full one comes back as a worker"
    assert ledger.at.keys() <= {record.id for record in (await logs["node-3"].list(level="local")).records}


@pytest.mark.parametrize("reserve", ["4MiB"])
async def test_a_node_without_room_for_a_record_is_not_handed_to_and_the_master_goes_on(
    cluster: DevCluster, logs: Logs
) -> None:
    """It could promise the epoch, and then never open it."""
    await all_level(logs)
    node = cluster.node("node-2")
    fill(node, left=RESERVE_BYTES // 2)

    async def known() -> bool:
        return "no_room" in events(node)

    await eventually(known, within_s=BACK_S, what="it sees that its disk is full, though nothing is written")
    async with AsyncClient(cluster.master.address, token=TOKEN) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"node-2 refuses: node-2 is not to be the master: .*; node-1 goes on"):
            await client.switchover("node-2", timeout_s=BACK_S)
        assert asyncio.get_running_loop().time() - began < BACK_S / 2, "it says so at once"
        await client.post(b"and it is open")
        make_room(node)

        async def handed_over() -> bool:
            with suppress(Unavailable):
                return (await client.switchover("node-2", timeout_s=BACK_S)).node == "node-2"
            return False

        await eventually(handed_over, within_s=BACK_S, what="with room it is")
