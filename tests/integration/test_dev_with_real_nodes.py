"""`replicad dev` with the real daemon: ready means ready, and data outlive every way of stopping."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from replicad.dev import DevCluster
from replicad.wire.v1 import log_pb2 as pb
from tests.support.ports import free_ports

STATUS_TIMEOUT_S = 5.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    with DevCluster.create(tmp_path / "a folder", ports=free_ports(3)) as made:
        yield made


def status(cluster: DevCluster, name: str) -> pb.StatusResponse:
    metadata = (("authorization", f"Bearer {cluster.layout.token}"),)
    with grpc.insecure_channel(cluster.node(name).address) as channel:
        call = channel.unary_unary(
            "/replicad.wire.v1.Log/Status",
            request_serializer=pb.StatusRequest.SerializeToString,
            response_deserializer=pb.StatusResponse.FromString,
        )
        return call(pb.StatusRequest(), metadata=metadata, timeout=STATUS_TIMEOUT_S)


def test_all_nodes_are_really_ready_when_start_returns(cluster: DevCluster) -> None:
    cluster.start()

    assert status(cluster, "node-1").state == "open"
    assert [status(cluster, node.name).role for node in cluster.nodes] == ["master", "worker", "worker"]


def test_every_start_of_the_master_goes_on_with_its_log_in_a_higher_epoch(cluster: DevCluster) -> None:
    cluster.start()
    first = status(cluster, "node-1")

    cluster.kill("node-1")
    cluster.start("node-1")
    second = status(cluster, "node-1")
    cluster.restart("node-1")
    third = status(cluster, "node-1")

    assert first.epoch < second.epoch < third.epoch
    assert first.size < second.size < third.size


def test_an_orderly_stop_needs_no_kill(cluster: DevCluster) -> None:
    cluster.start()
    said: list[str] = []

    cluster.stop(say=said.append)

    assert said == []
    assert cluster.running() == {}


def test_a_second_daemon_on_a_nodes_data_is_refused_and_the_first_goes_on(cluster: DevCluster) -> None:
    cluster.start("node-2")
    config = cluster.node("node-2").config_file

    second = subprocess.run(
        [sys.executable, "-m", "replicad", "--config", str(config)], capture_output=True, text=True, check=False
    )

    assert second.returncode == 3
    assert "node-2" in cluster.running()


def test_a_node_stopped_by_hand_is_seen_as_stopped(cluster: DevCluster) -> None:
    cluster.start("node-3")
    pid = cluster.running()["node-3"]
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    finally:
        os.close(pidfd)
    assert cluster.pid("node-3") is None
