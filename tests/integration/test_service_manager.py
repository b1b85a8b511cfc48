"""What the daemon tells its service manager: ready when it really is, a status worth reading, and that it is alive."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import yaml
from grpc.aio import AioRpcError

from replicad import keys, supervision
from replicad.app import Node, machine_settings
from replicad.configfile import load as load_config
from replicad.core.batch import Append
from replicad.core.master import Master
from replicad.core.seal import Sealer
from replicad.dev import DevCluster, DevNode
from replicad.errors import Applied, ExitCode, OutcomeUnknown, Unavailable
from replicad.nodekeys import keyring_of
from replicad.notify import Notifier
from replicad.storage.schema import DATABASE_NAME
from replicad.storage.sqlite import SqliteStore
from replicad.supervision import EXTEND_S, STATUS_S, in_time
from replicad.wire.codec import decode_records, encode_records
from tests.support.daemon import Daemon
from tests.support.nodes import TOKEN, running_cluster
from tests.support.ports import free_ports
from tests.support.rawlog import RawLog, new_id

WATCHDOG_S = 2.0
EXAMPLE = Path(__file__).parents[2] / "packaging" / "examples" / "replicad.yaml"
TOLD_S = 10.0  # for what is told each second


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[DevCluster]:
    """A cluster's folders, of which nothing runs at first."""
    patience = {"timeouts": {"suspect": "1s", "unhealthy": "2s"}}  # of a new cluster with a voter that is silent
    with running_cluster(tmp_path / "cluster", start=(), settings=patience) as made:
        yield made


def started(cluster: DevCluster, name: str, *, watchdog_s: float = 0.0) -> Daemon:
    return Daemon(cluster.node(name).config_file, env={"AUTH_TOKEN": TOKEN}, watchdog_s=watchdog_s)


async def test_a_master_is_ready_only_when_a_majority_lets_it_open(idle: DevCluster) -> None:
    with started(idle, "node-1") as master:
        status = await asyncio.to_thread(master.wait_status, "opening")
        assert status == (
            "master opening, epoch 0, size 0, committed 0; asks 2 voters, itself counted, whether it may be the "
            "master; no answer of node-2, node-3"
        )
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
            assert set(master.names()[master.names().index("STOPPING") + 1 :]) <= {"EXTEND_TIMEOUT_USEC", "STATUS"}
            status = await asyncio.to_thread(worker.wait_status, "waiting")
            assert "lost node-1" in status


async def test_a_restarted_master_is_ready_only_when_it_is_open_again(idle: DevCluster) -> None:
    idle.start("node-2", "node-3")
    with started(idle, "node-1") as master:
        await asyncio.to_thread(master.wait_ready)
        await asyncio.to_thread(master.terminate)
    await asyncio.to_thread(idle.kill, "node-2", "node-3")

    with started(idle, "node-1") as master:
        await asyncio.to_thread(master.wait_status, "no answer of node-2, node-3")
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


async def test_a_start_that_waits_for_a_majority_asks_for_time_and_says_whom_it_waits_for(idle: DevCluster) -> None:
    """However long that is: `systemctl start` comes back when the node is ready, and a restart would not help it."""
    with started(idle, "node-1") as master:
        status = await asyncio.to_thread(master.wait_status, "opening, epoch 0")
        assert status.endswith("; no answer of node-2, node-3")
        for _ in range(3):
            _, microseconds = await asyncio.to_thread(
                master.wait_for, lambda name, _: name == "EXTEND_TIMEOUT_USEC", within_s=EXTEND_S, what="more time"
            )
            assert float(microseconds) == EXTEND_S * 1e6
        await asyncio.to_thread(idle.start, "node-3")
        await asyncio.to_thread(master.wait_ready)
        status = await asyncio.to_thread(master.wait_status, "open")
        assert "no answer" not in status
        told = len(master.names())
        await asyncio.to_thread(idle.start, "node-2")
        await asyncio.to_thread(master.wait_status, "2 of 2 workers in sync")
        assert "EXTEND_TIMEOUT_USEC" not in master.names()[told:], "ready is ready"


async def test_a_stop_that_answers_what_is_under_way_asks_for_time(idle: DevCluster) -> None:
    with started(idle, "node-1") as master, started(idle, "node-2") as worker:
        await asyncio.to_thread(master.wait_ready)
        del worker
        async with RawLog(idle.master.address, token=TOKEN) as log:
            waiting = asyncio.create_task(log.post(b"for all", w=3, timeout_s=60))
            await asyncio.to_thread(master.wait_status, "size 2")
            master.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(master.wait_for, lambda name, _: name == "STOPPING", what="that it stops")
            await asyncio.to_thread(
                master.wait_for, lambda name, _: name == "EXTEND_TIMEOUT_USEC", within_s=EXTEND_S, what="more time"
            )
            await asyncio.to_thread(idle.start, "node-3")
            with suppress(OutcomeUnknown):  # or it was taken, in the last moment
                await waiting


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


# --- a start that fails -----------------------------------------------------------------------------------------------


def test_a_config_with_faults_leaves_their_number_and_the_first_as_the_status(idle: DevCluster) -> None:
    config = idle.node("node-2").config_file
    config.write_text(f"colour: red\n{config.read_text()}".replace("role: worker", "role: boss"))
    with started(idle, "node-2") as daemon:
        status, last = daemon.wait_end()
        assert daemon.names() == ["STATUS"]
    assert status == ExitCode.CONFIG
    assert last.startswith(f"config: 2 faults, first: {config}:1: colour: no such key; ")
    assert len(daemon.log.splitlines()) == 2


def test_the_example_as_it_is_leaves_one_line_that_says_what_to_do(idle: DevCluster) -> None:
    idle.node("node-2").config_file.write_bytes(EXAMPLE.read_bytes())
    with started(idle, "node-2") as daemon:
        status, last = daemon.wait_end()
    assert status == ExitCode.CONFIG
    assert daemon.log == f"{last.removeprefix('config: ')}\n"
    assert "edit it, make this node's key with `replicad-cli keys generate NODE`" in last


def no_key(node: DevNode) -> None:
    (node.folder / "key").unlink()


def data_of_another_node(node: DevNode) -> None:
    cluster = yaml.safe_load(node.config_file.read_text())["cluster"]
    SqliteStore(node.data_dir, cluster=cluster, node="node-3", decode_records=decode_records).close()


def data_that_is_damaged(node: DevNode) -> None:
    node.data_dir.mkdir(mode=0o700)
    (node.data_dir / DATABASE_NAME).write_bytes(b"no database " * 1000)


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (
            no_key,
            ExitCode.CONFIG,
            r"config: .*replicad\.yaml:[0-9]+: key: .*: no such key file; make one: replicad-cli",
        ),
        (data_of_another_node, ExitCode.CONFIG, "not started: .*belongs to node 'node-3'"),
        (data_that_is_damaged, ExitCode.STORAGE, "not started: .*log.db"),
    ],
)
def test_a_start_that_fails_leaves_one_line_the_same_as_the_status_and_an_exit_code_by_kind(
    idle: DevCluster, spoil: Callable[[DevNode], None], code: ExitCode, words: str
) -> None:
    spoil(idle.node("node-2"))
    with started(idle, "node-2") as daemon:
        status, last = daemon.wait_end()
    assert (status, re.match(words, last) is not None) == (code, True), last
    said = last.removeprefix("config: ") if spoil is no_key else f"replicad: {last.removeprefix('not started: ')}"
    assert daemon.log.splitlines() == [said]


def test_into_the_journal_each_fault_goes_with_its_priority(idle: DevCluster) -> None:
    """Standard error is the journal's own when JOURNAL_STREAM says so: here the pipe that the test reads.

    As where python3-systemd is not installed; the fields that it would send are in the unit tests.
    """
    config = idle.node("node-2").config_file
    config.write_text(f"colour: red\n{config.read_text()}".replace("role: worker", "role: boss"))
    program = "import sys; sys.modules['systemd'] = None; from replicad.app import main; sys.exit(main())"
    command = shlex.join([sys.executable, "-c", program, "--config", str(config)])
    script = f"export JOURNAL_STREAM=$(stat -Lc %d:%i /dev/fd/2); exec {command}"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == ExitCode.CONFIG
    lines = ran.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f'<3>event=not_started msg="{config}:') for line in lines)


def test_a_port_that_is_taken_is_the_status_of_the_start_that_fails(idle: DevCluster) -> None:
    host, _, port = idle.node("node-2").address.rpartition(":")
    with socket.create_server((host, int(port))), started(idle, "node-2") as daemon:
        status, last = daemon.wait_end()
    assert status == ExitCode.CONFIG
    assert last == f"not started: cannot listen on {host}:{port}: is another program there? change listen or PORT"
    assert daemon.log.splitlines()[-1].endswith(last.removeprefix("not started: "))


# --- a write loop that hangs: the watchdog bites ----------------------------------------------------------------------


def hang_the_disk(cluster: DevCluster, daemon: Daemon) -> None:
    del daemon
    (cluster.master.folder / "hang").touch()


def hang_the_loop(cluster: DevCluster, daemon: Daemon) -> None:
    del cluster
    daemon.process.send_signal(signal.SIGUSR1)


@pytest.mark.parametrize("hang", [hang_the_disk, hang_the_loop])
async def test_a_node_that_hangs_is_killed_for_want_of_a_sign_of_life_and_comes_back_with_nothing_lost(
    idle: DevCluster, hang: Callable[[DevCluster, Daemon], None]
) -> None:
    """The service manager's part is played as systemd.service(5) has it: SIGABRT, then a start of the same node."""
    await asyncio.to_thread(idle.start, "node-2")
    command = [sys.executable, "-m", "tests.support.hanging_node"]
    with Daemon(idle.master.config_file, env={"AUTH_TOKEN": TOKEN}, watchdog_s=WATCHDOG_S, command=command) as daemon:
        await asyncio.to_thread(daemon.wait_ready)
        async with RawLog(idle.master.address, token=TOKEN) as log:
            assert (await log.post(b"before", id=(before := new_id()), w=2)).offset == 1
            hang(idle, daemon)
            hung = asyncio.create_task(log.post(b"into the void", w=2))
            await asyncio.to_thread(daemon.wait_hung, WATCHDOG_S)
            daemon.process.send_signal(signal.SIGABRT)
            await asyncio.to_thread(daemon.process.wait, TOLD_S)
            assert daemon.process.returncode == -signal.SIGABRT
            with pytest.raises((OutcomeUnknown, AioRpcError, Unavailable)):
                await hung

    with started(idle, "node-1") as again:
        await asyncio.to_thread(again.wait_ready)
        async with RawLog(idle.master.address, token=TOKEN) as log:
            assert (await log.post(b"before", id=before, w=2)).duplicate
            assert (await log.post(b"after", w=2)).nodes == 2


# --- a disk that hangs ------------------------------------------------------------------------------------------------


class HangingStore(SqliteStore):
    """The real store on a disk that can be made to hang."""

    disk_goes_on: threading.Event

    def append(self, appends: Sequence[Append], *, commit_size: int) -> None:
        self.disk_goes_on.wait()
        super().append(appends, commit_size=commit_size)


@asynccontextmanager
async def node_with_hanging_disk(folder: Path, *, hangs: bool = False) -> AsyncIterator[tuple[str, threading.Event]]:
    """A cluster of one, in this process: its address, and the event that is set while its disk works."""
    made = DevCluster.create(folder, ports=free_ports(1), token="")
    config = load_config(made.master.config_file, env={})
    signer = keys.load_signer(config.key_file, config.node)
    store = HangingStore(Path(config.data_dir), cluster=config.cluster, node=config.node, decode_records=decode_records)
    store.disk_goes_on = threading.Event()
    if not hangs:
        store.disk_goes_on.set()
    sealer = Sealer(config.cluster, config.node, signer.sign, encode_records, os.urandom)
    settings = machine_settings(config)
    machine = Master(settings, store.load(), sealer=sealer, keyring=keyring_of(config), decode=decode_records)
    node = Node(
        config,
        machine,
        store,
        Notifier(),
        signer=signer,
        config_file=str(made.master.config_file),
        reload_asked=asyncio.Event(),
    )
    running = asyncio.create_task(node.run())
    try:
        yield made.master.address, store.disk_goes_on
    finally:
        store.disk_goes_on.set()
        os.kill(os.getpid(), signal.SIGTERM)  # to the node's handler, in this very process
        assert await running == 0


class Manager:
    """The service manager of a node in this very process."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    async def told(self, what: bytes, *, within_s: float) -> bool:
        """Whether the next thing of this kind is told in time."""
        try:
            async with asyncio.timeout(within_s):
                while not (await asyncio.get_running_loop().sock_recv(self._listener, 4096)).startswith(what):
                    pass
        except TimeoutError:
            return False
        return True


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
        yield Manager(listener)


async def test_the_watchdog_starves_while_the_disk_hangs_and_is_fed_again_when_it_goes_on(
    tmp_path: Path, manager: Manager
) -> None:
    """The loop is well, reads are served: only that no write comes to its end tells that this node is of no use."""
    loop, told = asyncio.get_running_loop(), manager.told
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


async def test_no_more_time_is_asked_for_a_start_whose_disk_hangs(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "STALLED_S", WATCHDOG_S)
    async with node_with_hanging_disk(tmp_path / "node", hangs=True) as (_, disk_goes_on):
        began = time.monotonic()
        while await manager.told(b"EXTEND_TIMEOUT_USEC=", within_s=WATCHDOG_S):
            assert time.monotonic() - began < 3 * WATCHDOG_S, "it goes on asking"
        disk_goes_on.set()
        assert await manager.told(b"READY=1", within_s=TOLD_S)


@pytest.mark.parametrize("gets_on", [True, False])
async def test_a_load_that_gets_on_is_given_time_and_one_that_hangs_is_not(manager: Manager, gets_on: bool) -> None:
    end = threading.Event()

    def load() -> str:
        while gets_on and not end.is_set():
            sum(range(1000))
        end.wait()
        return "loaded"

    loading = asyncio.create_task(in_time(load, Notifier(), status="opening the data folder"))
    assert await manager.told(b"STATUS=opening the data folder", within_s=TOLD_S)
    assert await manager.told(b"EXTEND_TIMEOUT_USEC=", within_s=TOLD_S)
    for _ in range(2):
        assert await manager.told(b"EXTEND_TIMEOUT_USEC=", within_s=3 * STATUS_S) is gets_on
    end.set()
    assert await loading == "loaded"
