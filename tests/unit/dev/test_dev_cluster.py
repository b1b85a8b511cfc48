"""Processes of a cluster on one machine; a stand-in for the daemon shows what a good one seldom does."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.dev import DevCluster
from replicad.dev.layout import DevNode
from replicad.errors import OperatorError
from tests.support.ports import free_ports

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in_node.py"))]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    made = DevCluster.create(tmp_path, ports=free_ports(3), command=STAND_IN)
    yield made
    made.kill()


def be(node: DevNode, *modes: str) -> None:
    (node.folder / "mode").write_text(" ".join(modes))


def test_started_nodes_are_ready_and_their_pid_files_name_them(cluster: DevCluster) -> None:
    cluster.start()

    for node in cluster.nodes:
        pid = int(node.pid_file.read_text())
        assert cluster.pid(node.name) == pid
        assert str(node.config_file) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_stop_ends_all_nodes_and_leaves_no_pid_files(cluster: DevCluster) -> None:
    cluster.start()
    pids = cluster.running()

    cluster.stop()

    assert cluster.running() == {}
    assert not any(node.pid_file.exists() for node in cluster.nodes)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


def test_leaving_the_context_stops_the_nodes(cluster: DevCluster) -> None:
    with cluster:
        cluster.start("node-1")
    assert cluster.running() == {}


def test_a_killed_node_stays_dead_until_it_is_started_again(cluster: DevCluster) -> None:
    cluster.start()
    cluster.kill("node-2")

    assert set(cluster.running()) == {"node-1", "node-3"}
    cluster.start("node-2")
    assert set(cluster.running()) == {"node-1", "node-2", "node-3"}


def test_restart_gives_a_new_process(cluster: DevCluster) -> None:
    cluster.start()
    before = cluster.running()

    cluster.restart("node-3")

    after = cluster.running()
    assert after["node-3"] != before["node-3"]
    assert after["node-1"] == before["node-1"]


def test_a_node_that_runs_is_not_started_twice(cluster: DevCluster) -> None:
    cluster.start("node-1")
    with pytest.raises(OperatorError, match=r"node-1 is running already \(pid \d+\)"):
        cluster.start("node-1")


def test_nodes_that_another_process_started_are_seen_and_stopped(cluster: DevCluster, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from replicad.dev import DevCluster;"
    code += "DevCluster.open(Path(sys.argv[1]), command=sys.argv[2:]).start('node-2')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *STAND_IN], check=True)
    assert set(cluster.running()) == {"node-2"}

    cluster.stop()

    assert cluster.running() == {}


def test_a_pid_that_is_another_process_by_now_is_left_alone(cluster: DevCluster) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        cluster.nodes[0].pid_file.write_text(f"{stranger.pid}\n")

        assert cluster.pid("node-1") is None
        cluster.kill()
        cluster.stop()

        assert stranger.poll() is None
        assert stranger.stdin
        stranger.stdin.close()
    assert stranger.returncode == 1  # of its own: end of file


@pytest.mark.parametrize("content", ["", "no pid", "0", "-1", "9" * 30])
def test_a_spoilt_pid_file_means_that_the_node_does_not_run(cluster: DevCluster, content: str) -> None:
    cluster.nodes[0].pid_file.write_text(content)
    assert cluster.pid("node-1") is None


def test_a_node_that_ends_before_it_is_ready_is_reported_with_the_end_of_its_log(cluster: DevCluster) -> None:
    be(cluster.node("node-2"), "dies")
    with pytest.raises(OperatorError, match=r"(?s)node-2 ended with status 1 before.*the disk is on fire"):
        cluster.start()


def test_the_log_of_an_earlier_run_is_not_taken_for_this_ones(cluster: DevCluster) -> None:
    be(cluster.node("node-1"), "dies")
    cluster.node("node-1").log_file.write_text("an old complaint\n")
    with pytest.raises(OperatorError) as caught:
        cluster.start("node-1")
    assert "an old complaint" not in str(caught.value)


def test_a_node_that_is_not_ready_in_time_is_reported_with_its_last_status_and_runs_on(cluster: DevCluster) -> None:
    be(cluster.node("node-1"), "never-ready")
    with pytest.raises(OperatorError, match=r"is not ready after 0.5 s \(it says: reading the log\)"):
        cluster.start("node-1", timeout_s=0.5)
    assert cluster.pid("node-1") is not None


def test_a_start_can_be_interrupted(cluster: DevCluster) -> None:
    be(cluster.node("node-1"), "never-ready")
    receiver, sender = os.pipe()
    os.write(sender, b"x")

    assert cluster.start("node-1", interrupt_fd=receiver) is False

    os.close(receiver)
    os.close(sender)


def test_a_node_that_ignores_sigterm_is_killed_and_that_is_said(cluster: DevCluster) -> None:
    be(cluster.node("node-3"), "ready", "stubborn")
    cluster.start()
    said: list[str] = []

    cluster.stop(timeout_s=0.5, say=said.append)

    assert said == ["node-3 has not ended 0.5 s after SIGTERM: killing it"]
    assert cluster.running() == {}


def test_a_node_that_stands_still_is_stopped_too(cluster: DevCluster) -> None:
    cluster.start("node-2")
    cluster.send_signal("node-2", signal.SIGSTOP)

    said: list[str] = []
    cluster.stop(say=said.append)

    assert said == []
    assert cluster.running() == {}


def test_a_port_that_is_taken_is_named_with_the_remedy(cluster: DevCluster) -> None:
    host, _, port = cluster.node("node-2").address.rpartition(":")
    complaint = rf"node-2 can't listen on {host}:{port}.*--base-port"
    with socket.create_server((host, int(port))), pytest.raises(OperatorError, match=complaint):
        cluster.start("node-2")


def test_a_node_takes_the_clusters_token_and_none_of_our_environments_overrides(
    cluster: DevCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", "ours")
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("MACHINE_ID", "us")

    cluster.start("node-1")

    log = cluster.node("node-1").log_file.read_text()
    assert log == f"AUTH_TOKEN={cluster.layout.token}\nPORT=None\nMACHINE_ID=None\n"


def test_an_unknown_node_is_an_error_that_names_those_there_are(cluster: DevCluster) -> None:
    with pytest.raises(OperatorError, match=r"there is no node-4 in .*; its nodes are node-1, node-2, node-3"):
        cluster.start("node-4")
