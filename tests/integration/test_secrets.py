"""With everything turned on, no secret is where it does not belong: logs, errors, status, command lines, config faults.

Owns the list of what is secret on a cluster's machine, and of where people and other programs look.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from grpc import aio

from replicad import tokensfile
from replicad.access import Principal, Role, hash_of, new_token
from replicad.dev import DevCluster
from replicad.pki import Authority
from tests.support.certificates import Shown, client_of
from tests.support.commandline import CommandLine, Ran, lines_from
from tests.support.daemon import run
from tests.support.nodes import TOKEN, events, raw_logs, reload, running_cluster
from tests.support.rawlog import LOG, OPTIONS
from tests.support.waiting import eventually_true

EXPIRED = new_token()
PAYLOAD = "the cargo leaves at dawn"


@dataclass
class Everything:
    """All that was said where a person or a program may read it, by where it was."""

    said: dict[str, bytes] = field(default_factory=dict)

    def heard(self, where: str, what: bytes | str) -> None:
        self.said[f"{len(self.said)} {where}"] = what.encode() if isinstance(what, str) else what

    def ran(self, ran: Ran, *arguments: str) -> Ran:
        self.heard(" ".join(arguments), ran.out + ran.err)
        return ran

    def leaks(self, secrets: dict[str, bytes]) -> list[str]:
        """What is where it should not be."""
        found = itertools.product(secrets.items(), self.said.items())
        return [f"{name} in {where}" for (name, secret), (where, text) in found if secret in text]


def forms(name: str, pem: bytes) -> Iterator[tuple[str, bytes]]:
    """A private key as it may be written: the lines of its PEM, its DER, and the number itself, in hex and base64."""
    for index, line in enumerate(pem.split(b"-----")[2].split()):  # behind the key, ca.key has the certificate
        if len(line) > 16:
            yield f"{name}, line {index}", line
    key = load_pem_private_key(pem, password=None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        number = key.private_numbers().private_value.to_bytes(32, "big")
    else:
        number = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    for form in (number, number.hex().encode(), base64.b64encode(number).rstrip(b"="), der):
        yield f"{name} as {len(form)} bytes", form


def secrets_of(cluster: DevCluster, tokens: dict[str, str], fernet: Path) -> dict[str, bytes]:
    keys = [*cluster.layout.pki.glob("*.key"), *(file for node in cluster.nodes for file in node.folder.glob("key*"))]
    assert len(keys) >= 3 + 1 + 1 + 3 + 1, "nodes' and the CA's and a client's for TLS, the signing keys, the next one"
    secrets = {name: token.encode() for name, token in tokens.items()}
    secrets["FERNET_KEY"] = fernet.read_text().strip().encode()
    secrets["the Fernet key's bytes"] = base64.urlsafe_b64decode(secrets["FERNET_KEY"])
    for file in keys:
        secrets |= dict(forms(f"{file.parent.name}/{file.name}", file.read_bytes()))
    return secrets


def looked_at(everything: Everything, pid: int, who: str) -> None:
    """What any user of the machine sees of a process; and that its environment is not among it."""
    for name in ("cmdline", "comm", "status"):
        everything.heard(f"/proc/PID/{name} of {who}", Path(f"/proc/{pid}/{name}").read_bytes())
    assert Path(f"/proc/{pid}/environ").stat().st_mode & 0o077 == 0


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.yaml"
    tokensfile.add(file, Principal("late", frozenset(Role), hash=hash_of(EXPIRED), expires_at=1e9))
    return file


@pytest.fixture
def cluster(tmp_path: Path, tokens_file: Path) -> Iterator[DevCluster]:
    settings = {"tokens_file": str(tokens_file), "log": {"level": "debug"}, "tls": {"poll": "100ms"}}
    with running_cluster(tmp_path / "cluster", tls=True, settings=settings) as made:
        yield made


async def test_no_secret_is_in_any_log_error_status_output_or_command_line(
    cluster: DevCluster, tokens_file: Path, tmp_path: Path
) -> None:
    everything, cli = Everything(), CommandLine.of(cluster)
    cli.cwd = tmp_path
    made = cli.good("tokens", "create", "shop", "--role", "writer", "--role", "reader", "--file", str(tokens_file),
                    "--output", "json").objects[0]["token"]  # fmt: skip
    tokens = {"AUTH_TOKEN": TOKEN, "a token": made, "an expired token": EXPIRED}
    fernet = tmp_path / "team.key"
    everything.ran(cli.good("keys", "generate-fernet", "--out", str(fernet)), "keys generate-fernet")
    client = client_of(Authority.open(cluster.layout.pki), "billing")
    for node in cluster.nodes:
        await reload(cluster, node.name)

    key = fernet.read_text().strip()
    for shop in (cli.but(AUTH_TOKEN=made), cli):
        everything.ran(shop.but(FERNET_KEY=key).good("post", "--encrypt", PAYLOAD), "post")
        for arguments in (("list",), ("status",), ("status", "--output", "json"), ("list", "--output", "json")):
            everything.ran(shop.but(FERNET_KEY=key).good(*arguments), *arguments)
    by_certificate = cli.but(
        AUTH_TOKEN="",
        REPLICAD_ADDRESS=cluster.master.mutual_address,
        REPLICAD_CERTIFICATE=str(client.certificate),
        REPLICAD_KEY=str(client.key),
    )
    for ran in (
        cli.but(AUTH_TOKEN=EXPIRED).run("list"),
        cli.but(AUTH_TOKEN=f"{made}x").run("post", "x"),
        cli.but(AUTH_TOKEN=f"{made}\n").run("post", "x"),
        cli.but(AUTH_TOKEN=made, REPLICAD_CA="").run("post", "--timeout", "1s", "x"),
        cli.but(FERNET_KEY=f"{key}x").run("list"),
        cli.run("list", "--fernet-key-file", str(cluster.layout.pki / "ca.key")),
        by_certificate.run("list"),
        by_certificate.but(REPLICAD_KEY=str(cluster.layout.pki / "ca.key")).run("list"),
        cli.run("post", "--id", "replicad:epoch:1", "x"),
    ):
        assert ran.code, "each of these is an error, which is what is wanted here"
        everything.ran(ran, "an error")
    steps: list[tuple[str, ...]] = [
        ("keys", "rotate", "prepare", "--config", str(cluster.master.config_file)),
        ("keys", "rotate", "status", "--config", str(cluster.master.config_file), "--output", "json"),
        ("keys", "show", str(cluster.master.folder / "key"), "--node", "node-1"),
        ("tokens", "list", "--file", str(tokens_file)),
        ("pki", "show", "--dir", str(cluster.layout.pki)),
    ]
    for step in steps:
        ran = everything.ran(cli.run(*step), *step)
        assert ran.code == 0, ran

    with cli.but(AUTH_TOKEN=made, FERNET_KEY=key).started("tail") as process:
        lines_from(process.stdout, 1)
        looked_at(everything, process.pid, "replicad-cli")
        for name, pid in cluster.running().items():
            looked_at(everything, pid, name)
    async with raw_logs(cluster) as logs:
        for log in logs.values():
            everything.heard("Status", (await log.status()).SerializeToString())
    credentials = Shown(Path(str(cluster.layout.ca_file))).credentials()
    for token, method in itertools.product((f"{made}x", EXPIRED, TOKEN[:-1]), ("Status", "Post", "List")):
        async with aio.secure_channel(cluster.master.address, credentials, options=OPTIONS) as channel:
            ask: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"{LOG}/{method}")
            with pytest.raises(aio.AioRpcError) as caught:
                await ask(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=20).read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        everything.heard("an error's status", f"{caught.value.details()}{caught.value.trailing_metadata()}")

    await asyncio.to_thread(faulty_configs, everything, cluster, tokens_file, made)
    await asyncio.to_thread(cluster.stop)
    secrets = secrets_of(cluster, tokens, fernet)
    for node in cluster.nodes:
        everything.heard(f"the log of {node.name}", node.log_file.read_bytes())
        for file in sorted(node.data_dir.rglob("*")):
            if file.is_file():
                everything.heard(f"{node.name}'s {file.name}", file.read_bytes())
    for file in (tokens_file, *(node.config_file for node in cluster.nodes)):
        everything.heard(file.name, file.read_bytes())

    assert everything.leaks(secrets) == []
    everything.heard("a leak", b"..." + secrets["a token"] + b"...")
    assert len(everything.leaks(secrets)) == 1, "had there been one, it would have been seen"


def faulty_configs(everything: Everything, cluster: DevCluster, tokens_file: Path, token: str) -> None:
    """Secrets where people put them by mistake: told as faults, by a check and by a reload, and not shown."""
    config, good = cluster.master.config_file, tokens_file.read_text()
    entry = {"name": "oops", "roles": ["reader"]}
    for mistake in ({"token": token}, {"hash": token}, {"hash": "sha256:12", "token": token}):
        document = yaml.safe_load(good)
        document["principals"].append(entry | mistake)
        tokens_file.write_text(yaml.safe_dump(document))
        code, out, err = run("--config", str(config), "--check-config")
        assert code
        everything.heard(f"a fault for {sorted(mistake)}", out + err)
        told = count(cluster, "reload_refused")
        cluster.send_signal("node-1", signal.SIGHUP)
        wait_for_one_more(cluster, "reload_refused", told)
    tokens_file.write_text(good)

    key = cluster.layout.pki / "node-1.key"
    kept = key.read_bytes()
    for content in (kept[:80], (cluster.layout.pki / "node-2.key").read_bytes()):
        told = count(cluster, "certificate_refused")
        key.write_bytes(content)
        wait_for_one_more(cluster, "certificate_refused", told)
    key.write_bytes(kept)


def count(cluster: DevCluster, event: str) -> int:
    return events(cluster.master).count(event)


def wait_for_one_more(cluster: DevCluster, event: str, told: int) -> None:
    eventually_true(lambda: count(cluster, event) > told, within_s=10, what=f"another {event}")
