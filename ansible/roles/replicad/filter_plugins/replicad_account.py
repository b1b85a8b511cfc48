"""The filter behind status.yml: what the hosts and the cluster say of a fleet, for a person, and what needs one."""

from __future__ import annotations

import datetime

DAY_MS = 86_400_000
COLUMNS = (
    "node",
    "role",
    "state",
    "version",
    "size",
    "lag",
    "health",
    "unit",
    "disk free",
    "certificate until",
    "note",
)


def account(peers, hosts, rows, now_ms, *, renew_days, disk_free_percent):
    """``lines``, a table with a row for each node, and ``faults``, what needs a person and what that person may do.

    ``hosts`` has, by host, what was found there: ``unit`` (ActiveState), ``told`` (StatusText), ``free`` (percent of
    the disk that the data lie on); nothing of one that was not reached. ``rows`` are what `replicad-cli status` prints.
    """
    by_node = {row["node"]: row for row in rows}
    table, faults = [COLUMNS], []
    for peer in peers:
        name, host, row = peer["name"], hosts.get(peer["host"], {}), by_node.get(peer["name"], {})
        table.append(_cells(name, peer, host, row))
        found = [*_host_faults(host, disk_free_percent)]
        if rows:
            found += _node_faults(peer, row, now_ms, renew_days)
        faults += [f"{name}: {fault}" for fault in found]
    return {"lines": _columns(table), "faults": [*faults, *_fleet_faults(rows)]}


def _cells(name, peer, host, row):
    return (
        name,
        peer["role"],
        row.get("state") or "does not answer",
        row.get("version") or "",
        _text(row.get("size")),
        _text(row.get("lag")),
        row.get("health") or "",
        host.get("unit", "not reached"),
        f"{host['free']} %" if "free" in host else "",
        _day(row["certificate_expires_ms"]) if row.get("certificate_expires_ms") else "",
        "has no vote" if row.get("voter") is False else "",
    )


def _host_faults(host, disk_free_percent):
    if not host:
        yield "its host is not reached by SSH"
    elif host["unit"] != "active":
        told = f" ({host['told']})" if host.get("told") else ""
        yield f"replicad.service is {host['unit']}{told}; on its host: journalctl -u replicad, systemctl start replicad"
    if host.get("free", 100) < disk_free_percent:
        yield f"{host['free']} % of the disk that its data lie on are free; make room, or give it a larger one"


def _node_faults(peer, row, now_ms, renew_days):
    if not row:
        yield "no node of the cluster knows it; see docs/semantics.md, Changing the nodes"
    elif not row["reachable"]:
        yield f"it does not answer at {peer['address']}: {row.get('error') or 'no reason known'}"
    elif row["health"] != "HEALTHY":
        yield f"to the master it is {row['health']}; {row.get('note') or row.get('detail') or 'its log says more'}"
    ends_ms = row.get("certificate_expires_ms")
    if ends_ms and ends_ms - now_ms < renew_days * DAY_MS:
        yield f"its certificate ends on {_day(ends_ms)}; deploy.yml renews it"


def _fleet_faults(rows):
    """What is no single node's."""
    if not rows:
        yield "the fleet: none of its nodes answers"
    elif not any(row["role"] == "master" and row["state"] == "open" for row in rows):
        yield "the fleet: no master takes posts; bring its host back, or replicad-cli promote another node"
    versions = sorted({row["version"] for row in rows if row.get("version")})
    if len(versions) > 1:
        yield f"the fleet: its nodes have versions {', '.join(versions)}; upgrade.yml brings all to one"


def _text(value):
    return "" if value is None else str(value)


def _day(time_ms):
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).strftime("%Y-%m-%d")


def _columns(table):
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        return {"replicad_account": account}
