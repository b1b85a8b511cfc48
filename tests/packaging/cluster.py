"""Clusters of installed packages: three instances on one host, or three hosts.

Owns keys, configs and the ways between hosts. Uses nothing but the installed programs and systemd, as an operator.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tests.packaging.lab import Host

NAMES = ("node-1", "node-2", "node-3")
MASTER, *WORKERS = NAMES
ADDRESSES = {name: f"127.0.0.1:{50052 + number}" for number, name in enumerate(NAMES)}


def config(name: str, public_keys: Sequence[str], *, data_dir: str, key: str) -> str:
    """The config of a node: what must be given, and no more."""
    nodes = [
        {"name": each, "address": ADDRESSES[each], "public_key": public_key}
        for each, public_key in zip(NAMES, public_keys, strict=True)
    ]
    made = {"cluster": "lab", "node": name, "role": "master" if name == MASTER else "worker"}
    return yaml.safe_dump(
        made | {"listen": ADDRESSES[name], "data_dir": data_dir, "key": key, "nodes": nodes}, sort_keys=False
    )


def post(host: Host, text: str, *, w: int) -> None:
    """Post from ``host``, to whichever node is the master."""
    host.ssh(f"replicad-cli post --address {','.join(ADDRESSES.values())} -w {w} '{text}'")


def listed(host: Host, name: str, *, at_least: int = 0) -> list[str]:
    """The texts in the log of node ``name``, asked from ``host``, once it has ``at_least`` records."""
    wait = f"--min-offset {at_least - 1}" if at_least else ""
    lines = host.says(f"replicad-cli list --address {ADDRESSES[name]} --output json {wait}").splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [record["text"] for record in records if not record["id"].startswith("replicad:")]


@dataclass(slots=True)
class Instances:
    """replicad@node-1, -2 and -3 on one host."""

    host: Host

    @staticmethod
    def unit(name: str) -> str:
        return f"replicad@{name}.service"

    def configure(self) -> None:
        self.host.ssh("mkdir -p -m 0700 /etc/credstore")
        keys = {name: f"/etc/credstore/replicad@{name}.key" for name in NAMES}
        public_keys = [self.host.says(f"replicad-cli keys generate {name} --out {keys[name]}") for name in NAMES]
        for name in NAMES:
            text = config(name, public_keys, data_dir=f"/var/lib/replicad@{name}", key=keys[name])
            self.host.write(f"/etc/replicad/{name}.yaml", text)

    def start(self) -> None:
        self.host.ssh(f"systemctl enable --now {' '.join(map(self.unit, NAMES))}")


@dataclass(slots=True)
class ThreeHosts:
    """replicad.service on three hosts. Each listens on loopback alone; what it dials is forwarded to the host of that
    node, by systemd's own proxy on both sides."""

    bridge: str
    hosts: list[Host]

    @property
    def by_name(self) -> dict[str, Host]:
        return dict(zip(NAMES, self.hosts, strict=True))

    def configure(self) -> None:
        key = "/etc/replicad/node.key"
        public_keys = [host.says(f"replicad-cli keys generate {n} --out {key}") for n, host in self.by_name.items()]
        for name, host in self.by_name.items():
            host.write("/etc/replicad.yaml", config(name, public_keys, data_dir="/var/lib/replicad", key=key))
            for peer, at in self.by_name.items():
                port = ADDRESSES[peer].rpartition(":")[2]
                if peer == name:
                    self._forward(host, f"from-{peer}", f"{host.address}:{port}", ADDRESSES[peer])
                else:
                    self._forward(host, f"to-{peer}", ADDRESSES[peer], f"{at.address}:{port}")

    def start(self) -> None:
        for name in (*WORKERS, MASTER):
            self.by_name[name].ssh("systemctl enable --now replicad")

    @staticmethod
    def _forward(host: Host, unit: str, at: str, to: str) -> None:
        listen = f"[Socket]\nListenStream={at}\nFreeBind=yes\n[Install]\nWantedBy=sockets.target\n"
        host.write(f"/etc/systemd/system/{unit}.socket", listen)
        host.write(
            f"/etc/systemd/system/{unit}.service", f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {to}\n"
        )
        host.ssh(f"systemctl daemon-reload && systemctl enable --now {unit}.socket")
