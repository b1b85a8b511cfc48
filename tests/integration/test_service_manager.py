"""What the daemon tells its service manager: ready when it really is, a status worth reading, and that it is alive."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicad import keys
from replicad.app import Node, machine_settings
from replicad.configfile import load as load_config
from replicad.core.batch import Append
from replicad.core.master import Master
from replicad.core.seal import Sealer
from replicad.dev import DevCluster, free_ports
from replicad.errors import Applied, Unavailable
from replicad.notify import Notifier
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records, encode_records
from tests.support.daemon import Daemon
from tests.support.nodes import TOKEN, running_cluster
from tests.support.rawlog import RawLog

WATCHDOG_S = 2.0
TOLD_S = 10.0  # for what is told each second


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[DevCluster]:
    """A cluster's folders, of which nothing runs at first."""
    with running_cluster(tmp_path / "cluster", start=()) as made:
        yield made


def started(cluster: DevCluster, name: str, *, watchdog_s: float = 0.0) -> Daemon:
    return Daemon(cluster.node(name).config_file, env={"AUTH_TOKEN": TOKEN}, watchdog_s=watchdog_s)


async def test_a_master_is_ready_only_when_a_majority_lets_it_open(idle: DevCluster) -> None:
    with started(idle, "node-1") as master:
        status = await asyncio.to_thread(master.wait_status, "opening")
        assert status.startswith("master opening, epoch 1, size 0, committed 0, 0 of 2 workers in sync, lag 0; ")
        async with RawLog(idle.master.address, token=TOKEN) as log:
            with pytest.raises(Unavailable) as caught:
                await log.post(b"too early")
            assert (caught.value.code, caught.value.applied) == (503, Applied.NO)
            assert (await log.status()).state == "opening"
            assert (await log.list()).records == []  # it reads, though
        assert "READY" not in master.names()

        with started(idle, "node-2") as worker:
            await asyncio.to_thread(worker.wait_ready)
            await asyncio.to_thread(master.wait_ready)
            async with RawLog(idle.master.address, token=TOKEN) as log:
                assert (await log.post(b"now")).offset == 1
            status = await asyncio.to_thread(master.wait_status, "size 2")
            assert status.startswith("master open, epoch 1, size 2, committed 2, 1 of 2 workers in sync, lag 2; ")
            status = await asyncio.to_thread(worker.wait_status, "size 2")
            assert status.startswith("worker following, epoch 1, size 2, committed ")

            await asyncio.to_thread(master.terminate)
            assert master.names().count("READY") == 1
            assert master.names()[-1] == "STOPPING"
            status = await asyncio.to_thread(worker.wait_status, "waiting")
            assert "lost node-1" in status


async def test_a_restarted_master_is_ready_only_when_it_is_open_again(idle: DevCluster) -> None:
    idle.start("node-2", "node-3")
    with started(idle, "node-1") as master:
        await asyncio.to_thread(master.wait_ready)
        await asyncio.to_thread(master.terminate)
    await asyncio.to_thread(idle.kill, "node-2", "node-3")

    with started(idle, "node-1") as master:
        await asyncio.to_thread(master.wait_status, "opening, epoch 2")
        assert "READY" not in master.names()
        await asyncio.to_thread(idle.start, "node-3")
        await asyncio.to_thread(master.wait_ready)


@pytest.mark.parametrize("name", ["node-1", "node-2"])
def test_the_watchdog_is_fed_while_nothing_hangs_also_by_an_idle_node(idle: DevCluster, name: str) -> None:
    """More often than half its interval, on the whole: sd_watchdog_enabled(3) recommends no less."""
    with started(idle, name, watchdog_s=WATCHDOG_S) as daemon:
        began = time.monotonic()
        for _ in range(4):
            daemon.wait_for(lambda key, _: key == "WATCHDOG", what="a sign of life", within_s=TOLD_S)
        assert time.monotonic() - began < 4 * WATCHDOG_S


def test_a_node_that_is_stopped_dead_feeds_no_watchdog(idle: DevCluster) -> None:
    with started(idle, "node-2", watchdog_s=WATCHDOG_S) as daemon:
        daemon.wait_ready()
        daemon.process.send_signal(signal.SIGSTOP)
        daemon.names()
        with pytest.raises(AssertionError, match="not told within"):
            daemon.wait_for(lambda key, _: key == "WATCHDOG", what="a sign of life", within_s=WATCHDOG_S)
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_for(lambda key, _: key == "WATCHDOG", what="a sign of life", within_s=TOLD_S)


def test_without_a_service_manager_there_is_nobody_to_tell_and_no_harm(idle: DevCluster) -> None:
    with Daemon(idle.node("node-2").config_file, env={"NOTIFY_SOCKET": "/nowhere/at/all"}) as daemon:
        host, _, port = idle.node("node-2").address.rpartition(":")
        deadline = time.monotonic() + TOLD_S
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                break
            except OSError:
                assert time.monotonic() < deadline
        daemon.terminate()
    assert daemon.process.returncode == 0


# --- a disk that hangs ------------------------------------------------------------------------------------------------


class HangingStore(SqliteStore):
    """The real store on a disk that can be made to hang."""

    disk_goes_on: threading.Event

    def append(self, appends: Sequence[Append], *, commit_size: int) -> None:
        self.disk_goes_on.wait()
        super().append(appends, commit_size=commit_size)


@asynccontextmanager
async def node_with_hanging_disk(folder: Path) -> AsyncIterator[tuple[str, threading.Event]]:
    """A cluster of one, in this process: its address, and the event that is set while its disk works."""
    made = DevCluster.create(folder, ports=free_ports(1), token="")
    config = load_config(made.master.config_file, env={})
    signer = keys.load_signer(config.key_file, config.node)
    store = HangingStore(Path(config.data_dir), cluster=config.cluster, node=config.node, decode_records=decode_records)
    store.disk_goes_on = threading.Event()
    store.disk_goes_on.set()
    sealer = Sealer(config.cluster, config.node, signer.sign, encode_records, os.urandom)
    verifiers = {node.name: keys.parse_vkey(node.public_key) for node in config.nodes}
    settings = machine_settings(config)
    machine = Master(settings, store.load(), sealer=sealer, verifiers=verifiers, decode=decode_records)
    node = Node(
        config, machine, store, Notifier(), config_file=str(made.master.config_file), reload_asked=asyncio.Event()
    )
    running = asyncio.create_task(node.run())
    try:
        yield made.master.address, store.disk_goes_on
    finally:
        store.disk_goes_on.set()
        os.kill(os.getpid(), signal.SIGTERM)  # to the node's handler, in this very process
        assert await running == 0


async def test_the_watchdog_starves_while_the_disk_hangs_and_is_fed_again_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is well, reads are served: only that no write comes to its end tells that this node is of no use."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
        loop = asyncio.get_running_loop()

        async def told(what: bytes, *, within_s: float) -> bool:
            try:
                async with asyncio.timeout(within_s):
                    while not (await loop.sock_recv(manager, 4096)).startswith(what):
                        pass
            except TimeoutError:
                return False
            return True

        async with node_with_hanging_disk(tmp_path / "node") as (address, disk_goes_on), RawLog(address) as log:
            assert await told(b"READY=1", within_s=TOLD_S)
            await log.post(b"while it works")
            assert len((await log.list()).records) == 2
            assert await told(b"WATCHDOG=1", within_s=WATCHDOG_S)

            disk_goes_on.clear()
            waiting = asyncio.create_task(log.post(b"while it hangs", timeout_s=60))
            began = loop.time()
            while await told(b"WATCHDOG=1", within_s=WATCHDOG_S):
                assert loop.time() - began < 3 * WATCHDOG_S, "it goes on saying that it is well"
            for level in ("committed", "local", "linearizable"):
                assert len((await log.list(level=level)).records) == 2
            assert not waiting.done()

            disk_goes_on.set()
            assert (await waiting).offset == 2
            assert await told(b"WATCHDOG=1", within_s=TOLD_S)
