"""The filters that count votes: what a fleet can spare, by what `replicad-cli status --output json` says of it."""

from __future__ import annotations


def votes(rows, since=0):
    """Of all nodes' rows: ``quorum``, the names of ``voters``, which are ``good``, a text on the others, ``bad``,
    and whether the master is good, ``led``.

    A node is good when it answers, the master finds it healthy, and it has all that the log had at size ``since``. The
    lag that the master sees is no measure: under load it is hardly ever 0.
    """
    # A release that does not tell has voters alone; "?" is an address that no node which answers knows.
    voting = [row for row in rows if row.get("voter") is not False and row["node"] != "?"]
    good = [row["node"] for row in voting if _is_good(row, since)]
    return {
        "quorum": len(voting) // 2 + 1,
        "voters": [row["node"] for row in voting],
        "good": good,
        "bad": ", ".join(_why(row, since) for row in voting if row["node"] not in good) or "all are well",
        "led": any(row["role"] == "master" and row["node"] in good for row in voting),
    }


def can_spare(counted, node, is_master, anyway=False):
    """Whether a quorum is left while ``node`` restarts, or, with a master, is there for it when it comes back.

    What is down, or has no vote, is no loss; but while the master is away its workers must stay. Where posts may wait,
    ``anyway``, it is enough that all are well.
    """
    if anyway and counted["led"] and set(counted["good"]) == set(counted["voters"]):
        return True
    if is_master:
        return node not in counted["good"] or len(counted["good"]) >= counted["quorum"]
    if not counted["led"]:
        return False
    return node not in counted["good"] or len(counted["good"]) - 1 >= counted["quorum"]


def can_leave(counted, node):
    """Whether a quorum is there of the voters as they are, and one of them without ``node``."""
    voters = [name for name in counted["voters"] if name != node]
    good = [name for name in counted["good"] if name != node]
    return counted["led"] and len(counted["good"]) >= counted["quorum"] and len(good) >= len(voters) // 2 + 1


def can_begin(counted, turns, master):
    """Whether all nodes in ``turns``, of which the master is the last, can be spared, each in its turn.

    What is down and has its turn is expected back after it. No turns are always possible.
    """
    if not turns:
        return True
    if not counted["led"]:
        return set(turns) <= {master}
    broken = [node for node in turns if node in counted["voters"] and node not in counted["good"]]
    workers = [node for node in turns if node in counted["good"] and node != master]
    return len(counted["good"]) + len(broken) - bool(workers) >= counted["quorum"]


def _is_good(row, since):
    return row["reachable"] and row["health"] == "HEALTHY" and (row["size"] or 0) >= since


def _why(row, since):
    if not row["reachable"]:
        return f"{row['node']} does not answer"
    if row["health"] != "HEALTHY":
        return f"to the master {row['node']} is {row['health']}"
    return f"{row['node']} has {row['size']} records and the master had {since}"


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        return {
            "replicad_votes": votes,
            "replicad_can_spare": can_spare,
            "replicad_can_begin": can_begin,
            "replicad_can_leave": can_leave,
        }
