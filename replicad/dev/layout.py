"""The folder of a cluster on one machine: keys, configs, the token, and the file to source.

Owns which files there are and what stands in them. Must not know of processes, but for where each leaves its pid and
its log.

    DIR/token                 the bearer token that nodes and clients share, mode 0600
    DIR/env                   shell assignments for clients; there once the cluster is up
    DIR/pki/                  with TLS: its CA, and a certificate for each node: see replicad/pki.py
    DIR/NODE/replicad.yaml    the node's config, its paths relative: the folder may be moved while nothing runs
    DIR/NODE/key              the node's private key, mode 0600
    DIR/NODE/data/            the node's log
    DIR/NODE/pid, log         of its process
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import socket
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from replicad import keys, pki
from replicad.configfile import load as load_config
from replicad.errors import OperatorError

CLUSTER = "dev"
PKI = "pki"
RENEWED_BEFORE = timedelta(days=60)  # a cluster for trying things out is to run without a thought of certificates
FIRST_NODE = "node-1"
TEST_PORTS = range(10_000, 32_768)  # net.ipv4.ip_local_port_range begins at 32768
TOKEN_BYTES = 24  # 192 random bits: nobody guesses it, and its hex digits need no quoting anywhere


@dataclass(frozen=True, slots=True)
class DevNode:
    """A node of the cluster and where its files are."""

    name: str
    role: str  # master | worker, by its config
    address: str  # HOST:PORT
    folder: Path  # absolute
    mutual_address: str = ""  # with TLS: where the other nodes dial it

    @property
    def config_file(self) -> Path:
        return self.folder / "replicad.yaml"

    @property
    def pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"


@dataclass(frozen=True, slots=True)
class Layout:
    """A cluster's folder as it was found; ``nodes`` in the order of their config."""

    folder: Path  # absolute, without symlinks: it is compared with the command lines of processes
    nodes: tuple[DevNode, ...]
    token: str  # "" when the cluster has none
    tls: bool = False

    @property
    def pki(self) -> Path:
        """Its CA and certificates, with TLS."""
        return self.folder / PKI

    @property
    def ca_file(self) -> str | None:
        """The CA bundle for clients; None without TLS."""
        return str(self.pki / "ca.crt") if self.tls else None

    @property
    def env_file(self) -> Path:
        return self.folder / "env"

    def client_env(self) -> dict[str, str]:
        """What a client's environment needs to reach this cluster."""
        env = {"REPLICAD_ADDRESS": ",".join(node.address for node in self.nodes)}
        if self.ca_file:
            env["REPLICAD_CA"] = self.ca_file
        return env | ({"AUTH_TOKEN": self.token} if self.token else {})

    def publish_env(self) -> None:
        """Write DIR/env anew: only its owner may read it, for it holds the token."""
        lines = [f"# Source this, and replicad-cli talks to the cluster in {self.folder}"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.client_env().items()]
        scripts = Path(sysconfig.get_path("scripts"))
        if (scripts / "replicad-cli").exists() and shutil.which("replicad-cli") != str(scripts / "replicad-cli"):
            lines.append(f'export PATH={shlex.quote(str(scripts))}:"$PATH"')  # where this very replicad is installed
        write_private(self.env_file, "\n".join(lines) + "\n")


def exists(folder: Path) -> bool:
    """Whether a cluster was made in ``folder``: the first node's config is the last file that is written."""
    return (folder / FIRST_NODE / "replicad.yaml").exists()


def create(
    folder: Path,
    *,
    ports: Sequence[int],
    mutual_ports: Sequence[int] = (),
    token: str | None = None,
    settings: Mapping[str, object] | None = None,
) -> Layout:
    """Make a cluster of ``len(ports)`` nodes on 127.0.0.1, the first of them master; started again, it goes on.

    With ``mutual_ports``, as many, they use TLS, with a CA of their own. ``token`` is what clients and nodes must
    show: "" for none, None for a random one. ``settings`` are more keys for every node's config, as they stand in the
    file. Raises OperatorError when something can't be made, or is refused.
    """
    folder = folder.resolve()
    names = [f"node-{number}" for number in range(1, len(ports) + 1)]
    try:
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
        if token != "":
            write_private(folder / "token", f"{token or secrets.token_hex(TOKEN_BYTES)}\n")
        public_keys = [_node_key(folder / name / "key", name) for name in names]
        nodes = [
            {"name": name, "address": f"127.0.0.1:{port}", "public_key": public_key}
            for name, port, public_key in zip(names, ports, public_keys, strict=True)
        ]
        if mutual_ports:
            renew_certificates(folder, names)
            for entry, port in zip(nodes, mutual_ports, strict=True):
                entry["mutual_address"] = f"127.0.0.1:{port}"
        for node in reversed(nodes):
            config = {
                "cluster": CLUSTER,
                "node": node["name"],
                "role": "master" if node is nodes[0] else "worker",
                "listen": node["address"],
                "data_dir": "data",
                "key": "key",
                "nodes": [dict(entry) for entry in nodes],
                "reflection": True,  # it is for trying things out
                **(settings or {}),
                **(_tls_section(node, (settings or {}).get("tls")) if mutual_ports else {}),
            }
            text = "# Made by `replicad dev`, which takes it as it stands: change what you like between two runs.\n"
            write_private(folder / node["name"] / "replicad.yaml", text + yaml.safe_dump(config, sort_keys=False))
    except OSError as exc:
        raise OperatorError(f"{folder}: a cluster can't be made there: {exc}; give another --dir") from exc
    return load(folder)


def _tls_section(node: Mapping[str, str], settings: object) -> dict[str, object]:
    more = settings if isinstance(settings, Mapping) else {}
    name = node["name"]
    files = {"certificate": f"../{PKI}/{name}.crt", "key": f"../{PKI}/{name}.key", "ca": f"../{PKI}/ca.crt"}
    return {"tls": {**files, "mutual_listen": node["mutual_address"], **more}}


def renew_certificates(folder: Path, names: Sequence[str]) -> None:
    """See to a CA in DIR/pki and to a certificate for each node that does not end soon. Raises OperatorError."""
    now = datetime.now(UTC)
    authority, _ = pki.Authority.create(folder / PKI, name="replicad dev CA", days=pki.CA_DAYS, now=now)
    for name in names:
        there = authority.find(name)
        if there is None or there.expires_s < (now + RENEWED_BEFORE).timestamp():
            hosts = ["localhost", "127.0.0.1", "::1"]
            authority.issue(name, kind=pki.NODE, hosts=hosts, days=pki.LEAF_DAYS, now=now, force=there is not None)


def load(folder: Path) -> Layout:
    """The cluster that was made in ``folder``. OperatorError when there is none, ConfigError when a config is wrong."""
    folder = folder.resolve()
    if not exists(folder):
        raise OperatorError(f"{folder} holds no cluster; make one: replicad dev --dir {shlex.quote(str(folder))}")
    names = [node.name for node in load_config(folder / FIRST_NODE / "replicad.yaml", env={}).nodes]
    nodes = []
    for name in names:
        config = load_config(folder / name / "replicad.yaml", env={})
        this = config.this_node
        nodes.append(DevNode(name, config.role, this.address, folder / name, this.mutual_address))
    try:
        token = (folder / "token").read_text().strip()
    except FileNotFoundError:
        token = ""
    except OSError as exc:
        raise OperatorError(f"{exc.filename}: can't be read ({exc.strerror}); it must belong to you") from exc
    return Layout(folder, tuple(nodes), token, tls=bool(nodes[0].mutual_address))


def free_ports(count: int, *, among: range = TEST_PORTS) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at this moment, for tests.

    ``among`` is below those that Linux gives to outgoing connections: one of these could take a port while its node is
    down, even the very connection that is tried to that node.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = secrets.choice(among)
            each = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                each.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` as a whole by a file that only its owner may read."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
    draft.replace(path)


def _node_key(path: Path, name: str) -> str:
    """The public key of ``name``: of the key that is there from an interrupted start, else of a new one."""
    return keys.load_signer(path, name).verifier.line if path.exists() else keys.generate(name, path)
