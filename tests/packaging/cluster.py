"""Clusters of installed packages: three instances on one host, or three hosts with TLS and a fourth that calls them.

Owns keys, certificates, configs and callers. Uses nothing but the installed programs and systemd, as an operator, and
where README.Debian tells the operator a command, that one.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.packaging.lab import Host

NAMES = ("node-1", "node-2", "node-3")
MASTER, *WORKERS = NAMES
ADDRESSES = {name: f"127.0.0.1:{50052 + number}" for number, name in enumerate(NAMES)}


README = Path(__file__).parents[2] / "packaging/debian/replicad.README.Debian"
CREDSTORE = "/etc/credstore"
WITH_CREDENTIAL = WORKERS[0]  # of three hosts: its TLS key is a systemd credential; that of the others a file
HOST_ADDRESSES = {name: f"log-{number}.example.org:50052" for number, name in enumerate(NAMES, 1)}


def told(command: str, name: str = MASTER) -> str:
    """A command of README.Debian, which tells it for node-1, as it is for node ``name``."""
    assert f"  {command}" in README.read_text().splitlines(), f"README.Debian does not tell: {command}"
    return command.replace(MASTER, name).replace("log-1", name.replace("node", "log"))


def config(name: str, nodes: Sequence[Mapping[str, object]], **settings: object) -> str:
    """The config of a node: what must be given, and no more than ``settings``."""
    made = {"cluster": "lab", "node": name, "role": "master" if name == MASTER else "worker"}
    return yaml.safe_dump({**made, **settings, "nodes": [dict(node) for node in nodes]}, sort_keys=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a cluster by the installed replicad-cli."""

    host: Host
    addresses: Mapping[str, str]
    environment: str = ""  # shell that sets the token and the CA bundle

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A line of shell in the caller's environment."""
        return self.host.ssh(f"{self.environment} {command}", check=check)

    def post(self, text: str, *, w: int | str) -> None:
        """Post to whichever node is the master."""
        self.run(f"replicad-cli post --address {','.join(self.addresses.values())} -w {w} '{text}'")

    def records(self, name: str, *, at_least: int = 0) -> list[dict[str, Any]]:
        """The records in the log of node ``name`` that were posted, once it has ``at_least`` records in all."""
        wait = f"--min-offset {at_least - 1}" if at_least else ""
        listed = self.run(f"replicad-cli list --address {self.addresses[name]} --output json {wait}").stdout
        records: list[dict[str, Any]] = [json.loads(line) for line in listed.splitlines()]
        return [record for record in records if not record["id"].startswith("replicad:")]

    def listed(self, name: str, *, at_least: int = 0) -> list[str]:
        """Their texts."""
        return [record["text"] for record in self.records(name, at_least=at_least)]


def post(host: Host, text: str, *, w: int) -> None:
    """Post to a cluster on ``host``, from there."""
    Caller(host, ADDRESSES).post(text, w=w)


def listed(host: Host, name: str, *, at_least: int = 0) -> list[str]:
    """The texts in the log of node ``name`` on ``host``, asked from there."""
    return Caller(host, ADDRESSES).listed(name, at_least=at_least)


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
        nodes = [
            {"name": name, "address": ADDRESSES[name], "public_key": public_key}
            for name, public_key in zip(NAMES, public_keys, strict=True)
        ]
        for name in NAMES:
            folder = f"/var/lib/replicad@{name}"
            text = config(name, nodes, listen=ADDRESSES[name], data_dir=folder, key=keys[name])
            self.host.write(f"/etc/replicad/{name}.yaml", text)

    def start(self) -> None:
        self.host.ssh(f"systemctl enable --now {' '.join(map(self.unit, NAMES))}")


@dataclass(slots=True)
class ThreeHosts:
    """replicad.service on three hosts with TLS on their own network. `desk` is no node: it has the CA and the tokens
    file, and calls the nodes with a token. All is done as README.Debian tells it."""

    bridge: str
    hosts: list[Host]
    desk: Host
    nodes: dict[str, dict[str, object]] = field(default_factory=dict)  # the entries under `nodes`, by name

    @property
    def by_name(self) -> dict[str, Host]:
        return dict(zip(NAMES, self.hosts, strict=True))

    @property
    def client(self) -> Caller:
        return Caller(self.desk, HOST_ADDRESSES, ". /root/client.env;")

    def configure(self) -> None:
        names = "".join(f"{host.address} {HOST_ADDRESSES[name][:-6]}\n" for name, host in self.by_name.items())
        for host in (*self.hosts, self.desk):
            host.ssh("cat >>/etc/hosts", stdin=names)
        for name, host in self.by_name.items():
            key = host.says(told("replicad-cli keys generate node-1 --out /etc/replicad/node.key", name))
            address = HOST_ADDRESSES[name]
            mutual = address.replace("50052", "50152")
            self.nodes[name] = {"name": name, "address": address, "mutual_address": mutual, "public_key": key}
        self.desk.ssh(told("replicad-cli pki init"))
        token = self.make_token("shop", "--role writer --role reader")
        self.desk.write("/root/client.env", f"export REPLICAD_CA=/root/pki/ca.crt AUTH_TOKEN={token}\n", mode=0o600)
        for name, host in self.by_name.items():
            self.desk.ssh(told("replicad-cli pki issue node node-1 --host log-1.example.org", name))
            self.hand_out_certificate(name)
            self.hand_out_tokens(name)
            self.write_config(name)
            host.ssh(told("replicad --check-config"))

    def start(self) -> None:
        for name in (*WORKERS, MASTER):
            self.by_name[name].ssh(told("systemctl enable --now replicad"))

    def make_token(self, name: str, roles: str) -> str:
        """The token of a new principal in the tokens file that is to be handed out."""
        command = told("replicad-cli tokens create shop --role writer --role reader --file tokens.yaml")
        return self.desk.says(command.replace("shop --role writer --role reader", f"{name} {roles}"))

    def hand_out_tokens(self, name: str) -> None:
        host = self.by_name[name]
        host.write("tokens.yaml", self.desk.ssh("cat tokens.yaml").stdout)
        host.ssh(told("install -g replicad -m 0640 tokens.yaml /etc/replicad/tokens.yaml"))

    def hand_out_certificate(self, name: str) -> None:
        """Put what the CA has for a node there."""
        host = self.by_name[name]
        for file in (f"{name}.key", f"{name}.crt", "ca.crt"):
            host.write(file, self.desk.ssh(f"cat pki/{file}").stdout, mode=0o600)
        if name == WITH_CREDENTIAL:
            host.ssh(f"test -d {CREDSTORE} || mkdir -m 0700 {CREDSTORE}")
            host.ssh(told(f"install -m 0600 node-1.key {CREDSTORE}/replicad.tls.key", name))
        else:
            host.ssh(told("install -o replicad -m 0600 node-1.key /etc/replicad/tls.key", name))
        host.ssh(told("install -m 0644 node-1.crt /etc/replicad/tls.crt", name))
        host.ssh(told("install -m 0644 ca.crt /etc/replicad/ca.crt", name))

    def write_config(self, name: str) -> None:
        """The node's config, with the entries that all nodes have now."""
        key = f"{CREDSTORE}/replicad.tls.key" if name == WITH_CREDENTIAL else "/etc/replicad/tls.key"
        tls = {"certificate": "/etc/replicad/tls.crt", "key": key, "ca": "/etc/replicad/ca.crt"}
        settings = {"listen": "0.0.0.0:50052", "tls": tls | {"mutual_listen": "0.0.0.0:50152"}}
        settings |= {"data_dir": "/var/lib/replicad", "key": "/etc/replicad/node.key"}
        settings |= {"tokens_file": "/etc/replicad/tokens.yaml"}
        self.by_name[name].write("/etc/replicad.yaml", config(name, list(self.nodes.values()), **settings))
