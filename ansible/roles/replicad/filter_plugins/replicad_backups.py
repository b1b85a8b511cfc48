"""The filters behind backup.yml: from which node, and which files are too many."""

from __future__ import annotations

import re
from pathlib import Path


def backup_from(peers, hosts, rows, node=""):
    """The peer to back up, among those whose ``hosts`` are reached: ``node``, or the worker that has most; {} for none.

    ``rows`` are what `replicad-cli status` prints; a node that does not answer comes after all that do, and the master,
    which has the most to do, after the workers.
    """
    sizes = {row["node"]: row["size"] or 0 for row in rows if row["reachable"]}
    possible = [peer for peer in peers if peer["host"] in hosts and node in ("", peer["name"])]
    order = sorted(
        possible, key=lambda peer: (peer["name"] not in sizes, peer["role"] == "master", -sizes.get(peer["name"], 0))
    )
    return order[0] if order else {}


def backups_beyond(folder, cluster, nodes, keep):
    """The files of a cluster's backups in a folder of the controller, but for the newest ``keep``; with 0, none.

    They are named CLUSTER-NODE-TIME.backup. ``nodes`` are all that the cluster ever had, so that nothing is taken for
    its own of a cluster whose name begins with this one's and a dash.
    """
    wanted = re.compile(f"{re.escape(cluster)}-(?:{'|'.join(map(re.escape, nodes))})-([0-9]{{8}}T[0-9]{{6}}Z)\\.backup")
    named = [(match[1], path) for path in Path(folder).glob("*.backup") if (match := wanted.fullmatch(path.name))]
    return [str(path) for _, path in sorted(named, reverse=True)[keep:]] if keep > 0 else []


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        return {"replicad_backup_from": backup_from, "replicad_backups_beyond": backups_beyond}
