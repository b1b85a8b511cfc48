"""Filters of the role: the nodes' list as every config has it, from the inventory and the fleet's folder."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import yaml

PORT, MUTUAL_PORT = 50052, 50152  # as in defaults/main.yml, which hostvars do not have

EXAMPLE = "+PUT-THE-LINE-OF-"  # in packaging/examples


def peers(groups, hostvars, fleet_dir, excluded=()):
    """A dict a node, the master first: host, name, role, addresses, voter, its keys, stage, rotating.

    ``public_key`` is "" while the fleet's folder does not know it. ``stage`` is that of a node that comes or goes,
    "joining" or "leaving", and has no vote meanwhile; who has left is no peer. ``rotating``: its signing key is being
    replaced. Hosts that are down or left out by --limit are here, too: every config needs them.
    """
    found = []
    for role, group in (("master", "master"), ("worker", "workers")):
        for host in groups.get(group, ()):
            if host not in excluded:
                found.append(_peer(host, role, hostvars[host], Path(fleet_dir)))
    return [peer for peer in found if peer["stage"] != "left"]


def _peer(host, role, variables, fleet_dir):
    name = variables.get("replicad_node", host)
    address = bracketed(variables.get("replicad_address", variables.get("ansible_host", host)))
    known = fleet_node(fleet_dir, name)
    return {
        "host": host,
        "name": name,
        "role": role,
        "address": f"{address}:{variables.get('replicad_port', PORT)}",
        "mutual_address": f"{address}:{variables.get('replicad_mutual_port', MUTUAL_PORT)}",
        "voter": _is_true(variables.get("replicad_voter", True)) and not known.get("stage"),
        "public_key": known.get("public_key", ""),
        "former_keys": known.get("former_keys", []),
        "stage": known.get("stage", ""),
        "rotating": known.get("rotating", False),
    }


def fleet_node(fleet_dir, name):
    """What the fleet's folder knows of a node: public_key, former_keys; nothing of one that it does not know."""
    path = Path(fleet_dir) / "nodes" / f"{name}.yml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def left_nodes(fleet_dir):
    """Those that have left the fleet, as the config's section ``former_nodes`` has them."""
    found = []
    for path in sorted((Path(fleet_dir) / "nodes").glob("*.yml")):
        known = fleet_node(fleet_dir, path.stem)
        if known.get("stage") == "left":
            last = {"public_key": known["public_key"], "until": known["left_at"]}
            found.append({"name": path.stem, "keys": [last, *known.get("former_keys", [])]})
    return found


def rotated(known, told, is_over=False):
    """What is kept of a node whose signing key is being replaced, by what a step of `keys rotate` told."""
    former = [{key: value for key, value in each.items() if value is not None} for each in told["former_keys"]]
    kept = {**known, "public_key": told["public_key"], "former_keys": former, "rotating": not is_over}
    return kept if kept["rotating"] else {key: value for key, value in kept.items() if key != "rotating"}


def rekeyed(known, public_key):
    """What is kept of a node that lost its key and has another; up to where the old one counts, ``closed`` says."""
    former = [{"public_key": known["public_key"]}, *known.get("former_keys", [])]
    return {**known, "public_key": public_key, "former_keys": former}


def closed(known, until):
    """The same, with each former key that had no end ended there."""
    return {**known, "former_keys": [{"until": until, **each} for each in known["former_keys"]]}


def joining(known, public_key):
    """What is kept of a node that joins with that key, whatever is known of it from before.

    Who left, and comes back with another key, has signed with the old one until then.
    """
    if "left_at" in known and known["public_key"] != public_key:
        known = closed(rekeyed(known, public_key), known["left_at"])
    return {"public_key": public_key, "former_keys": known.get("former_keys", []), "stage": "joining"}


def node_names(text):
    """The nodes of a config that a node has; none of the package's example, which still wants the public lines."""
    config = yaml.safe_load(text)
    nodes = config.get("nodes", []) if isinstance(config, dict) else []
    return [] if EXAMPLE in text else [node["name"] for node in nodes if isinstance(node, dict) and "name" in node]


def entries(peers_list):
    """Those peers as the config's section ``nodes`` has them; what is a default is left out."""
    made = []
    for peer in peers_list:
        entry = {key: peer[key] for key in ("name", "address", "mutual_address", "public_key")}
        if peer["former_keys"]:
            entry["former_keys"] = peer["former_keys"]
        if not peer["voter"]:
            entry["voter"] = False
        made.append(entry)
    return made


def debs(packages, folder):
    """For each package its files in a folder of the controller; one each is as it should be."""
    return [sorted(map(str, Path(folder).glob(f"{package}_*.deb"))) for package in packages]


def bracketed(host):
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def alternative_names(hosts):
    """Hosts as a certificate request has them, each once: DNS:log-1, IP:192.0.2.1."""
    found = []
    for host in hosts:
        bare = host.strip("[]")
        try:
            name = f"IP:{ipaddress.ip_address(bare)}"
        except ValueError:
            name = f"DNS:{bare.lower()}"
        if name not in found:
            found.append(name)
    return found


def _is_true(value):
    return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "on", "1", "y", "t")


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        return {
            "replicad_peers": peers,
            "replicad_entries": entries,
            "replicad_node_names": node_names,
            "replicad_fleet_node": fleet_node,
            "replicad_left_nodes": left_nodes,
            "replicad_joining": joining,
            "replicad_rotated": rotated,
            "replicad_rekeyed": rekeyed,
            "replicad_closed": closed,
            "replicad_bracketed": bracketed,
            "replicad_debs": debs,
            "replicad_alternative_names": alternative_names,
        }
