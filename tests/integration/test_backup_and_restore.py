"""Backups of a cluster that works, and the cluster back from one of them: real nodes, the real command line."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicad.client import Client
from replicad.dev import DevCluster
from replicad.storage.restore import EPOCHS_SKIPPED
from tests.support.commandline import CommandLine
from tests.support.nodes import running_cluster, verified
from tests.support.waiting import eventually_true

POSTED_BEFORE = 20_000


class Load:
    """One who posts at w=all, as fast as it is answered, and keeps what was acknowledged, with the offsets."""

    def __init__(self, cluster: DevCluster) -> None:
        self.acknowledged: dict[str, int] = {}
        self.slowest_s = 0.0
        self._over = threading.Event()
        self._env = cluster.client_env()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with Client(
            self._env["REPLICAD_ADDRESS"], token=self._env["AUTH_TOKEN"], ca=self._env.get("REPLICAD_CA")
        ) as client:
            while not self._over.is_set():
                began = time.monotonic()
                posted = client.post(b"under load", write_concern="all")
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.acknowledged[posted.id] = posted.offset

    @contextmanager
    def running(self) -> Iterator[Load]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as made:
        lines = b"".join(b"%d\n" % number for number in range(POSTED_BEFORE))
        CommandLine.of(made).good("post", "-w", "all", "--lines", stdin=lines)
        yield made


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine({}, cwd=tmp_path)


def ids_of(cluster: DevCluster, node: int) -> dict[str, int]:
    address = cluster.nodes[node].address
    found = CommandLine.of(cluster).objects("list", "--address", address, "--level", "local")
    return {record["id"]: record["offset"] for record in found}


def test_a_backup_under_load_brings_all_nodes_back_with_what_was_acknowledged_before_it(
    cluster: DevCluster, cli: CommandLine, tmp_path: Path
) -> None:
    worker = str(cluster.nodes[2].config_file)
    with Load(cluster).running() as load:
        eventually_true(lambda: len(load.acknowledged) >= 50, within_s=30, what="posts")
        before = dict(load.acknowledged)
        [made] = cli.objects("backup", "--config", worker, "--out", str(tmp_path))
        during = len(load.acknowledged) - len(before)
        enough = len(before) + during + 50
        eventually_true(lambda: len(load.acknowledged) >= enough, within_s=30, what="posts after the backup")
    assert during > 0, "the backup was over before the load did anything"
    assert load.slowest_s < 2.0
    assert made["size"] > POSTED_BEFORE + len(before)
    assert Path(made["file"]).name.startswith("dev-node-3-")
    [proven] = cli.objects("verify", made["file"], "--config", worker)
    assert (proven["ok"], proven["root"]) == (True, made["root"])

    cluster.stop()
    for node in cluster.nodes:
        node.data_dir.rename(node.data_dir.with_name("aside"))
        cli.good("restore", made["file"], "--config", str(node.config_file), "--yes")
    cluster.start()
    for number in range(3):
        there = ids_of(cluster, number)
        assert {each: there.get(each) for each in before} == before
        later = {each for each, offset in load.acknowledged.items() if offset >= made["size"]}
        assert later
        assert not later & there.keys(), "what came after the backup can't be in it"
    [posted] = CommandLine.of(cluster).objects("post", "-w", "all", "the cluster goes on")
    assert posted["offset"] == made["size"] + 1  # the new epoch's first record stands between
    cluster.stop()
    reports = [verified(cluster, node) for node in cluster.nodes]
    assert {report.last_epoch for report in reports} == {made["last_epoch"] + EPOCHS_SKIPPED + 1}


def test_one_who_comes_back_with_what_the_restored_cluster_lost_is_left_out_and_told_of(
    cluster: DevCluster, cli: CommandLine, tmp_path: Path
) -> None:
    """The left-out node's own log is not overwritten, and the others go on."""
    file = str(tmp_path / "one")
    cli.good("backup", "--config", str(cluster.nodes[0].config_file), "--out", file)
    tool = CommandLine.of(cluster)
    [lost] = tool.objects("post", "-w", "all", "lost with the rest")
    offset, address = str(lost["offset"]), cluster.nodes[2].address
    tool.good("list", "--address", address, "--from", offset, "--min-offset", offset)  # it is shown as committed there
    cluster.stop()
    for node in cluster.nodes[:2]:
        shutil.rmtree(node.data_dir)
        cli.good("restore", file, "--config", str(node.config_file), "--yes")
    cluster.start("node-1", "node-2")
    cluster.start("node-3", wait=False)
    told = "node-3: its log parts from this master's below its commit size"
    eventually_true(lambda: told in cluster.nodes[0].log_file.read_text(), within_s=20, what="the master to tell")
    tool.good("post", "-w", "majority", "the others go on")
    cluster.stop()
    assert verified(cluster, cluster.nodes[2]).records == lost["offset"] + 1


def test_a_backup_that_is_killed_leaves_no_file_and_the_next_one_cleans_up(
    cluster: DevCluster, cli: CommandLine, tmp_path: Path
) -> None:
    config, out = str(cluster.nodes[1].config_file), tmp_path / "out"
    out.mkdir()
    draft = out / ".replicad-backup-dev-node-2.unfinished" / "log.db"
    with cli.started("backup", "--config", config, "--out", str(out / "one")) as process:
        eventually_true(draft.exists, within_s=20, what="the draft")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [each.name for each in out.iterdir()] == [draft.parent.name]
    cli.good("backup", "--config", config, "--out", str(out / "one"))
    assert [each.name for each in out.iterdir()] == ["one"]


def test_a_restore_asks_who_can_answer_and_refuses_a_running_nodes_folder(
    cluster: DevCluster, cli: CommandLine, tmp_path: Path
) -> None:
    config, file = str(cluster.nodes[1].config_file), str(tmp_path / "one")
    cli.good("backup", "--config", config, "--out", file)
    assert "give --yes" in cli.fails(2, "restore", file, "--config", config)["message"]
    assert "is in use by process" in cli.fails(3, "restore", file, "--config", config, "--yes")["message"]
    assert (
        "exists, and a backup overwrites nothing"
        in cli.fails(3, "backup", "--config", config, "--out", file)["message"]
    )


def test_a_file_that_is_no_backup_is_told_from_one_that_was_cut_off(
    cluster: DevCluster, cli: CommandLine, tmp_path: Path
) -> None:
    config, file = str(cluster.nodes[1].config_file), tmp_path / "one"
    cli.good("backup", "--config", config, "--out", str(file))
    file.write_bytes(file.read_bytes()[:50_000])
    error = cli.fails(10, "restore", str(file), "--config", config, "--yes")
    assert "is damaged or was cut off, so nothing is restored" in error["message"]
    assert error["remedy"].startswith("take another copy of the backup")
    file.write_bytes(b"garbage")
    told = cli.fails(3, "restore", str(file), "--config", config, "--yes")["message"]
    assert "is not a backup of replicad" in told


def test_a_backup_of_another_cluster_is_refused(cluster: DevCluster, cli: CommandLine, tmp_path: Path) -> None:
    node = cluster.nodes[1]
    file = str(tmp_path / "one")
    cli.good("backup", "--config", str(node.config_file), "--out", file)
    other = node.folder / "other.yaml"
    other.write_text(node.config_file.read_text().replace("cluster: dev", "cluster: other"))
    told = cli.fails(3, "restore", file, "--config", str(other), "--yes")["message"]
    assert "is a backup of cluster 'dev', the config says 'other'" in told
    assert subprocess.run(["ls", str(node.data_dir)], check=True, capture_output=True).stdout
