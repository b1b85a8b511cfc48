"""Three nodes that trust nobody without a certificate: who is let in, who is not, and what either is told."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from grpc import aio

from replicad.client import AsyncClient, Unavailable
from replicad.core.frames import Hello
from replicad.dev import DevCluster
from replicad.pki import Authority
from replicad.wire.codec import decode_worker_frame, encode_master_frame
from tests.support.certificates import Shown, client_of, expired_client_of, files_of, new_ca, node_of, now, refusal
from tests.support.commandline import CommandLine
from tests.support.daemon import Daemon, run
from tests.support.nodes import TOKEN, events, log_lines, running_cluster
from tests.support.rawlog import OPTIONS
from tests.support.waiting import eventually, eventually_true

REPLICATE = "/replicad.wire.v1.Replication/Replicate"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with running_cluster(tmp_path_factory.mktemp("tls"), tls=True) as made:
        yield made


@pytest.fixture(scope="module")
def ca(cluster: DevCluster) -> Authority:
    return Authority.open(cluster.layout.pki)


@pytest.fixture(scope="module")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_ca(tmp_path_factory.mktemp("other") / "pki")


async def test_a_post_is_on_all_nodes_by_either_port_whichever_node_is_asked(
    cluster: DevCluster, ca: Authority
) -> None:
    client, bundle = client_of(ca, "billing"), cluster.layout.ca_file
    assert client.certificate
    assert client.key
    async with AsyncClient(cluster.nodes[1].address, token=TOKEN, ca=bundle, certificate="", key="") as by_token:
        first = await by_token.post("by the worker's first port", write_concern="all")
        assert {node.address for node in (await by_token.status()).nodes} == {node.address for node in cluster.nodes}
    async with AsyncClient(
        cluster.nodes[2].mutual_address,
        token=TOKEN,
        ca=bundle,
        certificate=str(client.certificate),
        key=str(client.key),
    ) as by_certificate:
        second = await by_certificate.post("by the other worker's second", write_concern="all")
        status = await by_certificate.status()
    assert (first.nodes, second.nodes) == (3, 3)
    assert {node.address for node in status.nodes} == {node.mutual_address for node in cluster.nodes}
    assert status.master_address == cluster.master.mutual_address


async def test_status_shows_when_each_certificate_ends(cluster: DevCluster, ca: Authority) -> None:
    rows = await asyncio.to_thread(CommandLine.of(cluster).objects, "status")
    ends = {name: int(entry.expires_s * 1000) for name in ("node-1", "node-2", "node-3") if (entry := ca.find(name))}
    assert {row["node"]: row["certificate_expires_ms"] for row in rows} == ends
    assert {row["note"] for row in rows} == {""}


async def test_a_key_rotation_on_a_node_knows_the_others_by_the_bundle_in_its_config(cluster: DevCluster) -> None:
    where = ("--config", str(cluster.nodes[1].config_file), "--output", "json")
    ran = await asyncio.to_thread(CommandLine.of(cluster).but(REPLICAD_CA="").run, "keys", "rotate", "status", *where)
    assert (ran.code, ran.err) == (0, ""), ran
    [told] = ran.objects
    assert (told["unreachable"], told["unaware"], told["signs_with"]) == ([], [], told["key_id"])


@pytest.mark.parametrize("port", ["address", "mutual_address"])
async def test_replication_is_for_certificates_of_nodes_alone(cluster: DevCluster, ca: Authority, port: str) -> None:
    """The token alone does not do it, nor a client's certificate, even one with a node's name."""
    address = getattr(cluster.nodes[1], port)
    callers = [Shown(Path(str(cluster.layout.ca_file)))] if port == "address" else []
    callers.append(client_of(ca, "no-node"))
    folder = cluster.layout.folder / "impostor"
    shutil.copytree(ca.folder, folder, dirs_exist_ok=True)
    (folder / "node-1.crt").unlink()
    callers.append(client_of(Authority.open(folder), "node-1"))
    for shown in callers:
        said = await refusal(address, shown, REPLICATE, token=TOKEN)
        assert said == "UNAUTHENTICATED: this call is for nodes, by their certificate, at tls.mutual_listen"


async def test_a_node_is_the_master_only_under_its_own_name(cluster: DevCluster, ca: Authority) -> None:
    """A stolen worker has a certificate that is good, and a key: not the master's."""
    credentials = files_of(ca, "node-3").credentials()
    hello = encode_master_frame(Hello("dev", "node-1", 99))
    async with aio.secure_channel(cluster.nodes[1].mutual_address, credentials, options=OPTIONS) as channel:
        replicate: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REPLICATE)
        call = replicate(metadata=(("authorization", f"Bearer {TOKEN}"),))
        await call.write(hello)
        said = await call.read()
    assert isinstance(said, bytes)
    refused = decode_worker_frame(said)
    assert (refused.reason, refused.text) == ("certificate", "the caller's certificate is not that of node-1")  # type: ignore[union-attr]


async def test_who_has_no_good_certificate_does_not_get_through_the_mutual_port(
    cluster: DevCluster, ca: Authority, other_ca: Authority
) -> None:
    bundle = Path(str(cluster.layout.ca_file))
    stranger, expired = client_of(other_ca, "stranger"), expired_client_of(ca, "expired")
    address = cluster.nodes[1].mutual_address
    assert await refusal(address, client_of(ca, "friend"), token=TOKEN) == "OK"
    for shown in (Shown(bundle), Shown(bundle, stranger.certificate, stranger.key), expired):
        assert (await refusal(address, shown, token=TOKEN)).startswith("UNAVAILABLE: ")


async def test_an_error_says_what_about_tls_is_wrong(cluster: DevCluster, ca: Authority, other_ca: Authority) -> None:
    bundle, strange_bundle = str(cluster.layout.ca_file), str(other_ca.folder / "ca.crt")
    stranger = client_of(other_ca, "stranger")
    node = cluster.nodes[1]

    async def said(address: str, *, ca: str = "", certificate: Path | None = None, key: Path | None = None) -> str:
        certificate_file, key_file = (str(path or "") for path in (certificate, key))
        async with AsyncClient(
            address, token=TOKEN, timeout_s=1, ca=ca, certificate=certificate_file, key=key_file
        ) as client:
            with pytest.raises(Unavailable) as caught:
                await client.status()
        return caught.value.message

    assert "it may want TLS" in await said(node.address)
    assert "its certificate is of no CA in the bundle" in await said(node.address, ca=strange_bundle)
    assert "it asks for a client certificate" in await said(node.mutual_address, ca=bundle)
    assert "it does not take our certificate" in await said(
        node.mutual_address, ca=bundle, certificate=stranger.certificate, key=stranger.key
    )
    misnamed = node.address.replace("127.0.0.1", "127.0.0.2")  # not among its names
    port = int(misnamed.rpartition(":")[2])
    server = await asyncio.start_server(lambda r, w: _forward(r, w, node.address), "127.0.0.2", port)
    async with server:
        assert "its certificate is for other names" in await said(misnamed, ca=bundle)


async def test_without_a_token_the_first_port_answers_nothing(cluster: DevCluster) -> None:
    shown = Shown(Path(str(cluster.layout.ca_file)))
    assert (await refusal(cluster.nodes[0].address, shown)).startswith(
        "UNAUTHENTICATED: a valid bearer token is needed"
    )
    assert await refusal(cluster.nodes[0].address, shown, "/grpc.health.v1.Health/Check") == "OK"


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
    host, _, port = address.rpartition(":")
    there_reader, there_writer = await asyncio.open_connection(host, int(port))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))


def test_a_worker_of_another_ca_is_not_spoken_to_until_it_has_a_good_certificate(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster", tls=True, start=(), settings={"tls": {"poll": "100ms"}}) as cluster:
        strange = new_ca(tmp_path / "other")
        own = cluster.layout.pki
        theirs = tmp_path / "theirs"
        shutil.copytree(own, theirs)
        shown = node_of(strange, "node-2")
        for suffix, path in ((".crt", shown.certificate), (".key", shown.key)):
            assert path
            shutil.copy(path, theirs / f"node-2{suffix}")
        shutil.copy(strange.folder / "ca.crt", theirs / "ca.crt")
        config = cluster.nodes[1].config_file
        config.write_text(config.read_text().replace("../pki/", f"{theirs}/"))
        cluster.start()

        def told() -> list[str]:
            lines = [line for line in log_lines(cluster.master) if " event=unreachable peer=node-2 " in line]
            return [line for line in lines if "its certificate is of no CA in the bundle" in line]

        eventually_true(told, within_s=20, what="why node-2 is not reached")
        assert "follows" not in [event for line in log_lines(cluster.master) if "peer=node-2" in line
                                 for event in re.findall(r"event=(\S+)", line)]  # fmt: skip
        for name in ("ca.crt", "node-2.key", "node-2.crt"):
            shutil.copy(own / name, theirs / name)
        eventually_true(
            lambda: [line for line in log_lines(cluster.master) if " event=follows peer=node-2 " in line],
            within_s=20,
            what="node-2 follows",
        )
        assert "certificate_refused" in events(cluster.nodes[1]) or "certificate_taken" in events(cluster.nodes[1])


@pytest.mark.parametrize("wrong", ["expired", "another name", "another key", "another CA", "readable key", "no file"])
def test_check_config_says_what_is_wrong_with_the_files_and_the_daemon_does_not_start(
    wrong: str, tmp_path: Path
) -> None:
    with running_cluster(tmp_path / "cluster", nodes=1, tls=True, start=()) as cluster:
        ca, config = Authority.open(cluster.layout.pki), cluster.master.config_file
        files = files_of(ca, "node-1")
        assert files.certificate
        assert files.key
        code, out, _ = run("--config", str(config), "--check-config")
        assert (code, out.split(": ")[1]) == (0, "good")
        match wrong:
            case "expired":
                node_of(ca, "node-1", days=1, at=now() - timedelta(days=2))
                expected = r"^tls\.certificate: .*/node-1\.crt: 'CN=node-1' expired on .*; renew it: replicad-cli pki"
            case "another name":
                node_of(ca, "node-2")
                shutil.copy(ca.folder / "node-2.crt", files.certificate)
                shutil.copy(ca.folder / "node-2.key", files.key)
                expected = r"^tls\.certificate: .*: is not of node-1: among its DNS names \(localhost, node-2\)"
            case "another key":
                node_of(ca, "node-2")
                shutil.copy(ca.folder / "node-2.key", files.key)
                expected = r"^tls\.key: .*/node-1\.key: does not belong to the certificate in .*/node-1\.crt; put"
            case "another CA":
                shutil.copy(new_ca(tmp_path / "other").folder / "ca.crt", files.ca)
                expected = r"^tls\.certificate: .*: is issued by 'CN=replicad dev CA .*', which no certificate in"
            case "readable key":
                files.key.chmod(0o640)
                expected = r"^tls\.key: .*: group or others have rights to it \(mode 0640\); chmod 600 "
            case _:
                files.ca.unlink()
                expected = r"^tls\.ca: .*/ca\.crt: no such file; copy the CA's certificate there"
        for arguments in (("--check-config",), ()):
            code, out, err = run("--config", str(config), *arguments)
            assert (code, out) == (3, "")
            (line,) = err.splitlines()
            place, _, fault = line.partition(": ")
            assert re.fullmatch(f"{re.escape(str(config))}:[0-9]+", place), line
            assert re.search(expected, fault), fault


async def test_a_certificate_that_ends_soon_is_told_of_in_the_log_the_status_line_and_by_status(
    tmp_path: Path,
) -> None:
    with running_cluster(tmp_path / "cluster", nodes=1, tls=True, start=()) as cluster:
        node_of(Authority.open(cluster.layout.pki), "node-1", days=20)
        with Daemon(cluster.master.config_file, env={"AUTH_TOKEN": TOKEN}) as daemon:
            await asyncio.to_thread(daemon.wait_ready)
            await asyncio.to_thread(daemon.wait_status, "certificate ends in 20.0 days, on ")

            async def told() -> bool:
                return " level=info event=certificate_ends " in daemon.log

            await eventually(told, within_s=10, what="certificate_ends in the log")
            assert daemon.log.count("event=certificate_ends ") == 1
            ran = await asyncio.to_thread(CommandLine.of(cluster).good, "status")
            assert "its certificate ends in 20.0 days" in ran.out
            await asyncio.to_thread(daemon.terminate)
