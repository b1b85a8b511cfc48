"""What status.yml tells of a fleet, and with what it finds fault."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "ansible/roles/replicad/filter_plugins/replicad_account.py"
ACCOUNT = runpy.run_path(str(PLUGIN))["FilterModule"]().filters()["replicad_account"]

NOW_MS = 1_764_000_000_000
DAY_MS = 86_400_000
NAMES = ("log-1", "log-2", "log-3")
PEERS = [
    {"name": name, "host": name, "role": "worker" if name != "log-1" else "master", "address": f"{name}:50052"}
    for name in NAMES
]


def row(name: str, **changed: Any) -> dict[str, Any]:
    master = name == "log-1"
    return {
        "node": name,
        "reachable": True,
        "role": "master" if master else "worker",
        "state": "open" if master else "following",
        "version": "0.2.0",
        "size": 7,
        "lag": 0,
        "health": "HEALTHY",
        "voter": True,
        "certificate_expires_ms": NOW_MS + 300 * DAY_MS,
    } | changed


def found(
    hosts: dict[str, dict[str, Any]] | None = None, rows: dict[str, dict[str, Any]] | None = None
) -> dict[str, list[str]]:
    """The account of a fleet that is well, but for what is changed of a host or a row."""
    all_hosts = {name: {"unit": "active", "told": "", "free": 60} | (hosts or {}).get(name, {}) for name in NAMES}
    all_rows = [row(name, **(rows or {}).get(name, {})) for name in NAMES]
    account: dict[str, list[str]] = ACCOUNT(PEERS, all_hosts, all_rows, NOW_MS, renew_days=30, disk_free_percent=10)
    return account


def test_a_fleet_that_is_well_has_a_line_for_each_node_and_no_fault() -> None:
    account = found()
    assert account["faults"] == []
    assert [line.split()[:5] for line in account["lines"][1:]] == [
        ["log-1", "master", "open", "0.2.0", "7"],
        ["log-2", "worker", "following", "0.2.0", "7"],
        ["log-3", "worker", "following", "0.2.0", "7"],
    ]
    assert "2026-09-20" in account["lines"][1]


@pytest.mark.parametrize(
    ("hosts", "rows", "fault"),
    [
        ({"log-2": {"unit": "failed", "told": "no key"}}, {}, "log-2: replicad.service is failed (no key)"),
        ({"log-3": {"free": 9}}, {}, "log-3: 9 % of the disk"),
        ({}, {"log-2": {"reachable": False, "error": "refused"}}, "log-2: it does not answer at log-2:50052: refused"),
        ({}, {"log-3": {"health": "UNHEALTHY", "note": "silent"}}, "log-3: to the master it is UNHEALTHY; silent"),
        ({}, {"log-2": {"certificate_expires_ms": NOW_MS + 29 * DAY_MS}}, "log-2: its certificate ends on 2025-12-23"),
        (
            {},
            {"log-1": {"state": "opening"}},
            "the fleet: no master takes posts; bring its host back, or replicad-cli promote another node",
        ),
        ({}, {"log-3": {"version": "0.1.0"}}, "the fleet: its nodes have versions 0.1.0, 0.2.0"),
    ],
)
def test_what_needs_a_person_is_named(hosts: dict[str, Any], rows: dict[str, Any], fault: str) -> None:
    faults = found(hosts, rows)["faults"]
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_a_host_that_is_not_reached_is_named_and_its_node_judged_by_what_the_cluster_says() -> None:
    rows = [row(name) for name in NAMES]
    hosts = {name: {"unit": "active"} for name in NAMES[:2]}
    account = ACCOUNT(PEERS, hosts, rows, NOW_MS, renew_days=30, disk_free_percent=10)
    assert account["faults"] == ["log-3: its host is not reached by SSH"]
    assert "not reached" in account["lines"][3]


def test_a_fleet_of_which_no_node_answers_is_told_in_one_line() -> None:
    hosts = {name: {"unit": "active"} for name in NAMES}
    account = ACCOUNT(PEERS, hosts, [], NOW_MS, renew_days=30, disk_free_percent=10)
    assert account["faults"] == ["the fleet: none of its nodes answers"]


def test_a_node_without_a_vote_is_marked_and_no_fault() -> None:
    account = found(rows={"log-3": {"voter": False}})
    assert account["faults"] == []
    assert account["lines"][3].endswith("has no vote")


def test_a_host_whose_node_the_cluster_does_not_know_is_told_of() -> None:
    hosts = {name: {"unit": "active"} for name in NAMES}
    account = ACCOUNT(PEERS, hosts, [row("log-1"), row("log-2")], NOW_MS, renew_days=30, disk_free_percent=10)
    assert account["faults"] == ["log-3: no node of the cluster knows it; see docs/semantics.md, Changing the nodes"]
