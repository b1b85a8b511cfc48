"""Nodes with IPv6 addresses: the same over each of the two ports, for clients and among nodes."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from replicad.dev import DevNode
from tests.support.commandline import CommandLine
from tests.support.nodes import TOKEN, running_cluster


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _move_to_ipv6(node: DevNode) -> str:
    """Have a node's config name all nodes, and where it listens, by IPv6's loopback address; its own client address."""
    config = node.config_file.read_text()
    node.config_file.write_text(re.sub(r"127\.0\.0\.1:(\d+)", r'"[::1]:\1"', config))
    return node.address.replace("127.0.0.1", "[::1]")


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_a_cluster_with_ipv6_addresses_and_tls_takes_posts_and_tells_where_the_master_is(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster", tls=True, start=()) as cluster:
        addresses = [_move_to_ipv6(node) for node in cluster.nodes]
        cluster.start()
        env = {"AUTH_TOKEN": TOKEN, "REPLICAD_CA": str(cluster.layout.ca_file)}
        by_a_worker = CommandLine({**env, "REPLICAD_ADDRESS": addresses[1]})
        by_a_worker.good("post", "--write-concern", "all", "over IPv6")
        for address in addresses:
            [record] = CommandLine({**env, "REPLICAD_ADDRESS": address}).good(
                "list", "--from", "1", "--level", "local", "--output", "json"
            ).objects  # fmt: skip
            assert record["text"] == "over IPv6"
        nodes = by_a_worker.good("status", "--output", "json").objects
        assert {each["address"] for each in nodes} == set(addresses)
        assert {each["health"] for each in nodes} == {"HEALTHY"}
