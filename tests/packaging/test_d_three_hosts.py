"""A cluster of three hosts, each with the unit of its own node."""

from __future__ import annotations

import pytest

from tests.packaging.cluster import MASTER, WORKERS, ThreeHosts, listed, post
from tests.packaging.lab import properties
from tests.support.waiting import eventually_true

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

BACK_S = 60.0  # the longest wait before a node is dialled again is 5 s; then it catches up


def test_three_hosts_replicate(three: ThreeHosts) -> None:
    post(three.by_name[MASTER], "on three hosts", w=3)
    for name, host in three.by_name.items():
        assert listed(host, name, at_least=2) == ["on three hosts"]


def test_the_key_is_taken_from_where_the_example_has_it_and_is_roots(three: ThreeHosts) -> None:
    for host in three.hosts:
        assert host.says("stat -c '%U %a' /etc/replicad/node.key") == "root 600"
        copy = "/run/credentials/replicad.service/node.key"
        assert host.says(f"cat {copy}") == host.says("cat /etc/replicad/node.key")


def test_a_host_that_died_comes_back_and_catches_up_by_itself(three: ThreeHosts) -> None:
    name = WORKERS[0]
    host = three.by_name[name]
    host.die()
    post(three.by_name[MASTER], "while a host is down", w=2)

    host.boot(three.bridge)
    eventually_true(
        lambda: properties(host, "replicad")["ActiveState"] == "active",
        within_s=BACK_S,
        what=f"start of {name} at boot",
    )
    post(three.by_name[MASTER], "when it is back", w=3)
    assert listed(host, name) == ["on three hosts", "while a host is down", "when it is back"]


def test_the_masters_host_dies_and_comes_back_with_all_that_was_answered(three: ThreeHosts) -> None:
    host = three.by_name[MASTER]
    before = listed(host, MASTER)
    host.die()
    assert listed(three.by_name[WORKERS[1]], WORKERS[1]) == before
    host.boot(three.bridge)
    eventually_true(
        lambda: properties(host, "replicad")["ActiveState"] == "active", within_s=BACK_S, what="start of the master"
    )
    post(host, "a new epoch", w=3)
    assert listed(host, MASTER) == [*before, "a new epoch"]
