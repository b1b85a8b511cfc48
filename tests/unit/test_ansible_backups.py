"""From which node `backup.yml` takes the log, and which files are too many."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "ansible/roles/replicad/filter_plugins/replicad_backups.py"
FILTERS = runpy.run_path(str(PLUGIN))["FilterModule"]().filters()
backup_from, backups_beyond = FILTERS["replicad_backup_from"], FILTERS["replicad_backups_beyond"]

PEERS = [{"name": f"log-{n}", "host": f"h{n}", "role": "master" if n == 1 else "worker"} for n in (1, 2, 3)]
ALL = ["h1", "h2", "h3"]


def rows(**sizes: int | None) -> list[dict[str, Any]]:
    return [
        {"node": node.replace("_", "-"), "reachable": size is not None, "size": size} for node, size in sizes.items()
    ]


@pytest.mark.parametrize(
    ("hosts", "sizes", "node", "chosen"),
    [
        (ALL, {"log_1": 9, "log_2": 7, "log_3": 8}, "", "log-3"),
        (["h1", "h2"], {"log_1": 9, "log_2": 7, "log_3": 8}, "", "log-2"),
        (ALL, {"log_1": 9, "log_2": None, "log_3": None}, "", "log-1"),  # what does not answer comes last
        (ALL, {}, "", "log-2"),
        (ALL, {"log_1": 9, "log_2": 7, "log_3": 8}, "log-1", "log-1"),
        (["h1"], {"log_1": 9, "log_2": 7, "log_3": 8}, "log-2", None),
        (ALL, {}, "log-9", None),
    ],
)
def test_the_worker_that_has_most_is_backed_up(
    hosts: list[str], sizes: dict[str, int | None], node: str, chosen: str | None
) -> None:
    assert backup_from(PEERS, hosts, rows(**sizes), node).get("name") == chosen


def test_the_newest_backups_of_this_cluster_stay_and_all_of_others(tmp_path: Path) -> None:
    mine = [f"prod-log-{n}-2026112{day}T030000Z.backup" for n, day in ((2, 1), (1, 2), (3, 3))]
    others = [
        "prod-eu-log-1-20261101T030000Z.backup",
        "prod-log-1-notes.backup",
        "prod-log-2-20261101T030000Z.backup.part",
    ]
    for name in (*mine, *others):
        (tmp_path / name).touch()
    nodes = ["log-1", "log-2", "log-3"]
    assert backups_beyond(tmp_path, "prod", nodes, 1) == [str(tmp_path / name) for name in (mine[1], mine[0])]
    assert backups_beyond(tmp_path, "prod", nodes, 3) == []
    assert backups_beyond(tmp_path, "prod", nodes, 0) == []
    assert backups_beyond(tmp_path / "none", "prod", nodes, 1) == []
