"""The daemon as an operator meets it: configs, exit codes, environment, logs, and how it leaves."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from grpc import aio

from replicad import __version__
from replicad.client import AsyncClient
from replicad.dev import DevCluster, DevNode
from replicad.dev.process import node_command
from replicad.errors import Applied, OutcomeUnknown, ServiceError, Unauthorized, Unavailable
from replicad.logrepeats import AT_ONCE
from tests.support.commandline import ROOT
from tests.support.daemon import LEAVE_S, Daemon, run
from tests.support.ledger import Ledger
from tests.support.nodes import TOKEN, all_level, events, log_lines, raw_logs, running_cluster
from tests.support.ports import free_ports
from tests.support.rawlog import RawLog, new_id
from tests.support.waiting import eventually_true

EXIT_OK, EXIT_USAGE, EXIT_CONFIG = 0, 2, 3


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[DevCluster]:
    """A cluster's folders, of which nothing runs at first."""
    with running_cluster(tmp_path / "cluster", start=()) as made:
        yield made


@pytest.fixture
def worker(idle: DevCluster) -> DevNode:
    return idle.node("node-2")


def edited(of: DevNode, **changes: object) -> Path:
    """Another config file of the node, with keys changed."""
    path = of.folder / "edited.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(of.config_file.read_text()) | changes, sort_keys=False))
    return path


def in_shell(arguments: str) -> tuple[int, str]:
    """How `replicad ARGUMENTS` ends, redirections and all: exit status, and what is on standard error."""
    done = subprocess.run(
        ["sh", "-c", f"exec {shlex.join(node_command())} {arguments}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_a_fault_that_nobody_can_be_told_has_its_exit_status(stderr: str) -> None:
    assert in_shell(f"--config /nowhere.yaml {stderr}") == (EXIT_CONFIG, "")


def test_a_good_config_that_cannot_be_told_is_an_error_in_words(worker: DevNode) -> None:
    said = "replicad: standard output cannot be written: No space left on device\n"
    assert in_shell(f"--check-config --config {worker.config_file} >/dev/full") == (11, said)
    assert in_shell(f"--check-config --config {worker.config_file} >&-") == (EXIT_OK, "")


@pytest.mark.parametrize("at", ["grpctuning.tune", "startfiles.load_all"])
def test_ctrl_c_while_a_node_starts_ends_it_without_a_traceback(at: str, worker: DevNode) -> None:
    module, function = at.split(".")
    interrupted = (
        "import os, signal, sys\n"
        f"from replicad import __main__, {module}\n"
        f"go_on = {at}\n"
        "def asked(*arguments, **named):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return go_on(*arguments, **named)\n"
        f"setattr({module}, '{function}', asked)\n"
        "sys.exit(__main__.main())\n"
    )
    with Daemon(worker.config_file, env={"AUTH_TOKEN": TOKEN}, command=[sys.executable, "-c", interrupted]) as daemon:
        daemon.process.wait(20)
        assert (daemon.process.returncode, "Traceback" in daemon.log) == (130, False)


def test_a_node_whose_standard_streams_are_closed_gives_their_descriptors_to_nothing_else(worker: DevNode) -> None:
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *node_command()]
    with Daemon(worker.config_file, env={"AUTH_TOKEN": TOKEN}, command=closed) as daemon:
        daemon.wait_ready()
        descriptors = Path(f"/proc/{daemon.process.pid}/fd")
        assert [str((descriptors / each).readlink()) for each in "012"] == ["/dev/null"] * 3
        daemon.terminate()
        assert daemon.process.returncode == EXIT_OK


# --- configs and exit codes -------------------------------------------------------------------------------------------


def test_a_good_config_is_told_so_and_nothing_is_touched(worker: DevNode) -> None:
    status, out, err = run("--config", str(worker.config_file), "--check-config")

    assert (status, err) == (EXIT_OK, "")
    assert out == f"{worker.config_file}: good: worker node-2 of cluster dev\n"
    assert not worker.data_dir.exists()


@pytest.mark.parametrize("check", [["--check-config"], []])
def test_all_faults_of_a_config_are_told_at_once_with_their_lines_and_remedies(
    tmp_path: Path, check: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "cluster: Not A Name\n"
        "role: boss\n"
        "listen: 0.0.0.0:50052\n"
        "colour: red\n"
        "key: key\n"
        "data_dir: 7\n"
        "timeouts:\n"
        "  heartbeat: soon\n"
        "token: in-the-file\n"
        "nodes:\n"
        "  - name: node-1\n"
        "    address: nowhere\n"
        "    public_key: none\n"
    )

    status, out, err = run("--config", str(path), *check, env={"PORT": "high"})

    assert (status, out) == (EXIT_CONFIG, "")
    lines = err.splitlines()
    places = {
        "cluster": 1,
        "role": 2,
        "listen": 3,
        "colour": 4,
        "data_dir": 6,
        "timeouts.heartbeat": 8,
        "token": 9,
        "nodes[0].address": 12,
        "nodes[0].public_key": 13,
    }
    for key, number in places.items():
        told = [line for line in lines if line.startswith(f"{path}:{number}: {key}: ")]
        assert len(told) == 1, (key, lines)
        assert ";" in told[0], "what is wrong; the remedy"
    assert any(" node: is missing;" in line for line in lines)
    assert any("PORT" in line for line in lines)
    assert "in-the-file" not in err


def test_a_config_that_is_not_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    status, _, err = run("--config", str(tmp_path / "none.yaml"))
    assert status == EXIT_CONFIG
    assert "no such file; name another with --config" in err


def test_an_option_that_there_is_not_is_a_usage_error() -> None:
    assert run("--no-such-option")[0] == EXIT_USAGE


def test_the_version_is_told() -> None:
    assert run("--version") == (EXIT_OK, f"replicad {__version__}\n", "")


def missing_key(node: DevNode) -> None:
    (node.folder / "key").unlink()


def widely_readable_key(node: DevNode) -> None:
    (node.folder / "key").chmod(0o644)


def key_that_is_none(node: DevNode) -> None:
    (node.folder / "key").write_text("not a key")


def key_of_another_node(node: DevNode) -> None:
    shutil.copy(node.folder.parent / "node-3" / "key", node.folder / "key")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (missing_key, "replicad-cli keys generate"),
        (widely_readable_key, "chmod 600"),
        (key_that_is_none, "key"),
        (key_of_another_node, "key"),
    ],
)
@pytest.mark.parametrize("check", [["--check-config"], []])
def test_a_key_that_is_not_good_is_told_with_the_remedy(worker: DevNode, spoil, told: str, check: list[str]) -> None:  # type: ignore[no-untyped-def]
    spoil(worker)
    status, out, err = run("--config", str(worker.config_file), *check)
    assert (status, out) == (EXIT_CONFIG, "")
    assert told in err
    assert "Traceback" not in err
    assert not worker.data_dir.exists()


def test_a_systemd_credential_is_the_key_of_a_config_that_names_none(worker: DevNode, tmp_path: Path) -> None:
    """As LoadCredential=node.key:... shows it to the service: readable by its group, which is none but its user."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    key = credentials / "node.key"
    shutil.move(worker.folder / "key", key)
    key.chmod(0o440)
    lines = [line for line in worker.config_file.read_text().splitlines() if not line.startswith("key:")]
    config = worker.folder / "no-key.yaml"
    config.write_text("\n".join(lines))
    env = {"CREDENTIALS_DIRECTORY": str(credentials)}

    assert run("--config", str(config), "--check-config", env=env)[0] == EXIT_OK
    status, _, err = run("--config", str(config), "--check-config")
    assert (status, "key: is missing" in err) == (EXIT_CONFIG, True)
    with Daemon(config, env=env) as daemon:
        daemon.wait_ready()
        daemon.terminate()
    assert daemon.process.returncode == EXIT_OK


def test_a_worker_that_is_away_fills_no_log_and_every_try_is_counted(tmp_path: Path) -> None:
    settings = {"timeouts": {"reconnect_min": "10ms", "reconnect_max": "20ms"}}
    with (
        running_cluster(tmp_path, nodes=2, settings=settings, start=()) as cluster,
        Daemon(cluster.master.config_file) as master,
    ):
        tries = eventually_true(lambda: re.findall("left_out=([0-9]+)", master.log), within_s=30, what="a count")
        lines = [line for line in master.log.splitlines() if " event=unreachable peer=node-2 " in line]
        assert len(lines) == AT_ONCE + len(tries)
        assert int(tries[0]) > AT_ONCE
        assert master.terminate() < LEAVE_S


# --- what two can't share ---------------------------------------------------------------------------------------------


def test_a_second_daemon_on_one_data_folder_is_refused_and_the_first_goes_on(worker: DevNode) -> None:
    other_port = free_ports(1)[0]
    with Daemon(worker.config_file) as first:
        first.wait_ready()

        status, _, err = run("--config", str(worker.config_file), env={"PORT": str(other_port)})

        assert status == EXIT_CONFIG
        assert f"data folder {worker.data_dir} is in use by process {first.process.pid}: stop that one first" in err
        assert first.process.poll() is None
        first.terminate()
    assert first.process.returncode == EXIT_OK


def test_a_port_that_is_taken_is_told_and_the_data_folder_is_let_go(idle: DevCluster, worker: DevNode) -> None:
    other = idle.node("node-3")
    port = other.address.rpartition(":")[2]
    with Daemon(other.config_file) as holder:
        holder.wait_ready()
        status, _, err = run("--config", str(worker.config_file), env={"PORT": port})
        assert status == EXIT_CONFIG
        assert f"cannot listen on 127.0.0.1:{port}: is another program there?" in err
        assert "Traceback" not in err

    with Daemon(worker.config_file) as daemon:
        daemon.wait_ready()


def test_the_data_folder_of_another_cluster_or_node_is_refused(idle: DevCluster, worker: DevNode) -> None:
    other = idle.node("node-3")
    with Daemon(other.config_file) as first:
        first.wait_ready()
        first.terminate()

    of_another_cluster = run("--config", str(edited(other, cluster="prod")))
    of_another_node = run("--config", str(edited(worker, data_dir=str(other.data_dir))))

    for (status, _, err), told in ((of_another_cluster, "prod"), (of_another_node, "node-3")):
        assert status == EXIT_CONFIG
        assert told in err
        assert "Traceback" not in err


def test_a_data_folder_that_others_may_write_to_is_refused(worker: DevNode) -> None:
    worker.data_dir.mkdir()
    worker.data_dir.chmod(0o777)
    status, _, err = run("--config", str(worker.config_file))
    assert status == EXIT_CONFIG
    assert "chmod go-w" in err


# --- the environment --------------------------------------------------------------------------------------------------


async def test_port_machine_id_and_token_come_from_the_environment(idle: DevCluster, worker: DevNode) -> None:
    """One config file for all: the node's name, its port and the token are the environment's."""
    port = free_ports(1)[0]
    shared = edited(worker, node="node-3")
    with Daemon(shared, env={"PORT": str(port), "MACHINE_ID": "node-2", "AUTH_TOKEN": TOKEN}) as daemon:
        await asyncio.to_thread(daemon.wait_ready)
        async with RawLog(f"127.0.0.1:{port}", token=TOKEN) as log:
            assert (await log.status()).node == "node-2"
        async with RawLog(f"127.0.0.1:{port}", token=f"{TOKEN}2") as log:
            with pytest.raises(Unauthorized):
                await log.status()


async def test_without_a_token_all_are_let_in_and_authors_are_anonymous(tmp_path: Path) -> None:
    with DevCluster.create(tmp_path, ports=free_ports(1), token="") as alone:
        await asyncio.to_thread(alone.start)
        async with RawLog(alone.master.address) as log:
            posted = await log.post(b"by nobody", w="all")
            assert (await log.list(posted.offset)).records[0].author == "anonymous"
        assert "without TLS, so on loopback only" in alone.master.log_file.read_text()

    with running_cluster(tmp_path / "with", nodes=1) as alone:
        async with RawLog(alone.master.address, token=TOKEN) as log:
            posted = await log.post(b"by one who has it")
            assert (await log.list(posted.offset)).records[0].author == "token"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", ""), ("PORT", "0"), ("PORT", "65536"), ("MACHINE_ID", "node-9"), ("MACHINE_ID", ""), ("AUTH_TOKEN", "")],
)
def test_a_variable_that_can_not_be_taken_is_told(worker: DevNode, variable: str, value: str) -> None:
    status, _, err = run("--config", str(worker.config_file), env={variable: value})
    assert status == EXIT_CONFIG
    assert variable in err


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_posts_and_reads_leave_no_line_in_any_log(tmp_path: Path, level: str) -> None:
    secret = "a payload that is nobody's business"
    with running_cluster(tmp_path, settings={"log": {"level": level}}) as cluster:
        async with raw_logs(cluster) as logs:
            await all_level(logs)
            before = {node.name: len(log_lines(node)) for node in cluster.nodes}
            for _ in range(50):
                await logs["node-1"].post(secret.encode(), headers={"secret": secret}, w=3)
                for log in logs.values():
                    await log.list(limit=10)
            assert {node.name: len(log_lines(node)) for node in cluster.nodes} == before
        for node in cluster.nodes:
            assert not any(secret in line for line in log_lines(node))
            assert events(node)[:2] == ["starting", "listening"]
            assert any("127.0.0.1" in line and "loopback only" in line for line in log_lines(node))


async def test_the_json_log_is_an_object_a_line(tmp_path: Path) -> None:
    cluster = DevCluster.create(tmp_path, ports=free_ports(3), token=TOKEN, settings={"log": {"format": "json"}})
    with cluster:
        await asyncio.to_thread(cluster.start)
    for node in cluster.nodes:
        lines = [json.loads(line) for line in log_lines(node)]
        assert all({"time", "level", "event"} <= line.keys() for line in lines)
        events = [line["event"] for line in lines]
        assert "stopping" in events
        assert events[-1] == "stopped"  # between the two, what was under way may have its say


# --- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_leaves_at_a_signal_with_exit_0(worker: DevNode, number: signal.Signals) -> None:
    with Daemon(worker.config_file) as daemon:
        daemon.wait_ready()
        daemon.terminate(number)
        assert daemon.process.returncode == EXIT_OK
        assert daemon.names()[-1] == "STOPPING"


def test_a_master_that_has_not_opened_leaves_at_a_signal_with_exit_0(idle: DevCluster) -> None:
    with Daemon(idle.master.config_file) as daemon:
        daemon.wait_status("opening")
        assert daemon.terminate() < LEAVE_S / 2
        assert daemon.process.returncode == EXIT_OK
        assert "READY" not in daemon.names()


class PostingUntilTheEnd:
    """Clients that post, call by call, until the node takes no more; what they were told is in the ledger."""

    def __init__(self, address: str, ledger: Ledger) -> None:
        self._address, self._ledger = address, ledger
        self._acknowledged = 0
        self.well_under_way = asyncio.Event()

    async def run(self) -> None:
        async with RawLog(self._address, token=TOKEN) as log:
            while await self._post(log):
                pass

    async def _post(self, log: RawLog) -> bool:
        message_id = new_id()
        try:
            posted = await log.post(b"until the end", id=message_id, w=2)
        except ServiceError as error:
            self._ledger.failed(message_id, error)
            return False
        except (aio.AioRpcError, asyncio.CancelledError):  # the call came too late to be answered at all
            self._ledger.failed(message_id, None)
            return False
        self._ledger.acknowledged(message_id, posted.offset)
        self._acknowledged += 1
        if self._acknowledged == 500:
            self.well_under_way.set()
        return True


async def test_sigterm_under_load_answers_what_is_under_way_and_loses_nothing(tmp_path: Path) -> None:
    ledger = Ledger()
    with running_cluster(tmp_path) as cluster:
        for _ in range(3):
            load = PostingUntilTheEnd(cluster.master.address, ledger)
            posting = [asyncio.create_task(load.run()) for _ in range(30)]
            await asyncio.wait_for(load.well_under_way.wait(), 30)
            pid = cluster.pid("node-1")
            assert pid is not None
            began = time.monotonic()
            await asyncio.to_thread(cluster.stop, "node-1")
            assert time.monotonic() - began < LEAVE_S
            assert cluster.how_it_ended(pid) == "ended with status 0"
            await asyncio.to_thread(cluster.start, "node-1")
            # A call that came after the end has waited for the node, which now takes it: end those by hand.
            for task in posting:
                task.cancel()
            await asyncio.gather(*posting)

        async with raw_logs(cluster) as logs:
            await all_level(logs)
            ledger.judge({name: (await log.list()).records for name, log in logs.items()})
    assert len(ledger.at) > 1500


async def test_sigterm_tells_those_who_wait_for_a_node_that_is_down_that_it_is_not_known(tmp_path: Path) -> None:
    with running_cluster(tmp_path, settings={"timeouts": {"stop": "1s"}}) as cluster:
        await asyncio.to_thread(cluster.kill, "node-3")
        message_id = new_id()
        async with RawLog(cluster.master.address, token=TOKEN) as log, log.post_stream() as stream:
            waiting = asyncio.create_task(log.post(b"for all", id=message_id, w=3, timeout_s=60))
            sequence = await stream.send([new_id()], w=3, timeout_s=60)
            await log.post(b"behind them", w=2)

            began = time.monotonic()
            await asyncio.to_thread(cluster.stop, "node-1")
            assert time.monotonic() - began < LEAVE_S

            with pytest.raises(OutcomeUnknown) as caught:
                await waiting
            assert caught.value.applied is Applied.UNKNOWN
            result = await stream.result()
            assert (result.sequence, type(result.error)) == (sequence, OutcomeUnknown)

        await asyncio.to_thread(cluster.start, "node-1", "node-3")
        async with RawLog(cluster.master.address, token=TOKEN) as log:
            again = await log.post(b"for all", id=message_id, w=3, timeout_s=30)
            assert again.duplicate


async def test_a_stopping_node_takes_no_more_posts_and_says_so(tmp_path: Path) -> None:
    """It takes none, though it is still there to answer for those under way."""
    with running_cluster(tmp_path, settings={"timeouts": {"stop": "2s"}}) as cluster:
        await asyncio.to_thread(cluster.kill, "node-3")
        async with RawLog(cluster.master.address, token=TOKEN) as log, log.post_stream() as stream:
            await stream.send([new_id()], w=3, timeout_s=60)
            await log.post(b"behind it", w=1)
            cluster.send_signal("node-1", signal.SIGTERM)
            refused: ServiceError | None = None
            while refused is None:
                try:
                    await log.post(b"too late?", w=1)
                except ServiceError as error:
                    refused = error
            assert isinstance(refused, Unavailable)
            assert "stopping" in refused.message
            assert refused.applied is Applied.NO


async def test_the_library_does_not_notice_a_restart_of_the_master(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        async with AsyncClient(cluster.client_env()["REPLICAD_ADDRESS"], token=TOKEN, timeout_s=20) as client:
            posting = [asyncio.create_task(_post_many(client, 100)) for _ in range(10)]
            await client.post("first")
            await asyncio.to_thread(cluster.restart, "node-1")
            offsets = [offset for each in await asyncio.gather(*posting) for offset in each]
    assert len(set(offsets)) == 1000


async def _post_many(client: AsyncClient, count: int) -> list[int]:
    return [(await client.post("whatever happens")).offset for _ in range(count)]
