"""Filters of the role: the nodes' list as every config has it, from the inventory and the fleet's folder."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import yaml

PORT, MUTUAL_PORT = 50052, 50152  # as in defaults/main.yml, which hostvars do not have

EXAMPLE = "+PUT-THE-LINE-OF-"  # in packaging/examples


def peers(groups, hostvars, fleet_dir, excluded=()):
    """A dict a node, the master first: host, name, role, address, mutual_address, voter, public_key, former_keys.

    ``public_key`` is "" while the fleet's folder does not know it. Hosts that are down or left out by --limit are here,
    too: every config needs them.
    """
    found = []
    for role, group in (("master", "master"), ("worker", "workers")):
        for host in groups.get(group, ()):
            if host not in excluded:
                found.append(_peer(host, role, hostvars[host], Path(fleet_dir)))
    return found


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
        "voter": _is_true(variables.get("replicad_voter", True)),
        "public_key": known.get("public_key", ""),
        "former_keys": known.get("former_keys", []),
    }


def fleet_node(fleet_dir, name):
    """What the fleet's folder knows of a node: public_key, former_keys; nothing of one that it does not know."""
    path = Path(fleet_dir) / "nodes" / f"{name}.yml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


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
            "replicad_bracketed": bracketed,
            "replicad_debs": debs,
            "replicad_alternative_names": alternative_names,
        }
