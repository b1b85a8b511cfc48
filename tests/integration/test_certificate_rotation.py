"""Certificates, and then the CA, are replaced while posts go on: none fails, and in the end only the new ones count."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from replicad.client import AsyncClient
from replicad.dev import DevCluster, DevNode
from replicad.errors import ReplicadError
from replicad.pki import CA_DAYS, LEAF_DAYS, Authority, Entry
from tests.support.certificates import Shown, certificate_at, client_of, files_of, new_ca, now, refusal
from tests.support.daemon import Daemon
from tests.support.nodes import TOKEN, log_lines, running_cluster
from tests.support.waiting import eventually

POLL = {"tls": {"poll": "100ms"}}
CALLERS = 8
TAKEN_S = 20.0  # for files that have changed to be taken everywhere; it takes a tenth of a second


@dataclass
class Load:
    """Posts that never pause. ``failed`` holds what any of them met."""

    posted: int = 0
    failed: list[ReplicadError] = field(default_factory=list)

    async def go_on(self, client: AsyncClient) -> None:
        while True:
            try:
                await client.post(b"x" * 100, write_concern="majority", timeout_s=20)
                self.posted += 1
            except ReplicadError as exc:
                self.failed.append(exc)
                await asyncio.sleep(0.1)

    async def goes_on(self) -> None:
        """Return when some more posts are confirmed: whatever was changed, they get through."""
        target = self.posted + 10 * CALLERS

        async def enough() -> bool:
            return self.posted >= target

        await eventually(enough, within_s=TAKEN_S, what=f"posts go on; {self.failed[-1:]}")


@asynccontextmanager
async def under_load(cluster: DevCluster, certificate: Shown) -> AsyncIterator[Load]:
    """Callers by token and callers by certificate, all the time."""
    load, bundle = Load(), str(certificate.ca)
    first = [node.address for node in cluster.nodes]
    second = [node.mutual_address for node in cluster.nodes]
    async with (
        AsyncClient(first, token=TOKEN, ca=bundle, certificate="", key="") as by_token,
        AsyncClient(
            second, token=TOKEN, ca=bundle, certificate=str(certificate.certificate), key=str(certificate.key)
        ) as by_certificate,
    ):
        tasks = [asyncio.create_task(load.go_on(each)) for each in (by_token, by_certificate) for _ in range(CALLERS)]
        try:
            await load.goes_on()
            yield load
            await load.goes_on()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def told(node: DevNode, event: str, *, peer: str = "") -> list[str]:
    """The lines of an event, of one peer's alone where it is named."""
    lines = [line for line in log_lines(node) if f" event={event} " in line]
    return [line for line in lines if not peer or f" peer={peer} " in line]


async def all_have(cluster: DevCluster, entries: list[Entry]) -> None:
    """Wait until each node shows its new certificate to who connects."""
    wanted = {entry.name: entry.certificate for entry in entries}

    async def shown() -> bool:
        return all([await certificate_at(node.address) == wanted[node.name] for node in cluster.nodes])

    await eventually(shown, within_s=TAKEN_S, what="every node shows its new certificate")


async def all_have_cas(cluster: DevCluster, cas: int) -> None:
    """Wait until each node's bundle has so many CAs."""

    async def taken() -> bool:
        last = [
            [line for line in log_lines(node) if " event=certificate_taken " in line][-1:] for node in cluster.nodes
        ]
        return all(lines and re.search(rf"{cas} CAs? in the bundle", lines[0]) for lines in last)

    await eventually(taken, within_s=TAKEN_S, what=f"every node has {cas} CAs")


def last_status(daemon: Daemon) -> str:
    return [value for name, value in daemon.told if name == "STATUS"][-1]


def renew_all(ca: Authority) -> list[Entry]:
    return [ca.renew(entry, days=LEAF_DAYS, now=now()) for entry in ca.entries() if entry.kind != "ca"]


async def test_certificates_and_then_the_ca_are_replaced_under_load_and_no_post_fails(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster", tls=True, settings=POLL) as cluster:
        ca = Authority.open(cluster.layout.pki)
        client = client_of(ca, "loader")
        async with under_load(cluster, client) as load:
            await all_have(cluster, renew_all(ca))
            await load.goes_on()
            for node in cluster.nodes[1:]:  # and links that are made anew use what is new, in both directions
                await asyncio.to_thread(cluster.restart, node.name)
            await load.goes_on()

            kept = tmp_path / "kept"
            shutil.copytree(ca.folder, kept)
            old = files_of(Authority.open(kept), "loader")
            ca.add_ca(days=CA_DAYS, now=now(), force=False)
            await all_have_cas(cluster, 2)
            await load.goes_on()
            await all_have(cluster, renew_all(ca))
            await load.goes_on()
            mutual = cluster.master.mutual_address
            assert await refusal(mutual, Shown(client.ca, old.certificate, old.key), token=TOKEN) == "OK", "an overlap"

            links = {node.name: len(told(cluster.master, "follows", peer=node.name)) for node in cluster.nodes[1:]}
            ca.drop_old_cas(force=False)
            await all_have_cas(cluster, 1)
            await load.goes_on()

            async def redialled() -> bool:
                return all(len(told(cluster.master, "follows", peer=name)) > before for name, before in links.items())

            await eventually(redialled, within_s=TAKEN_S, what="both links were made anew")
            assert any("withdrawn" in line for line in told(cluster.master, "lost"))
            await load.goes_on()
        assert not load.failed, load.failed[:3]
        assert load.posted > 1000
        said = await refusal(mutual, Shown(client.ca, old.certificate, old.key), token=TOKEN)
        assert said.startswith("UNAVAILABLE: "), "of the CA that has gone"
        assert "certificate verify failed" in (await refusal(mutual, old, token=TOKEN)).lower().replace("_", " ")
        assert await refusal(mutual, files_of(ca, "loader"), token=TOKEN) == "OK"


async def test_half_written_files_are_refused_and_the_old_certificate_goes_on_until_all_is_there(
    tmp_path: Path,
) -> None:
    with running_cluster(tmp_path / "cluster", tls=True, settings=POLL) as cluster:
        ca, node = Authority.open(cluster.layout.pki), cluster.master
        client, files = client_of(ca, "loader"), files_of(ca, node.name)
        assert files.certificate
        assert files.key
        before = await certificate_at(node.address)
        copy = tmp_path / "copy"
        shutil.copytree(ca.folder, copy)
        entry = renew_all(Authority.open(copy))
        renewed = next(each.certificate for each in entry if each.name == node.name)
        new = files_of(Authority.open(copy), node.name)
        assert new.certificate
        assert new.key
        async with under_load(cluster, client) as load:
            assert not told(node, "certificate_refused")
            steps: list[tuple[Path, bytes, str]] = [
                (files.key, new.key.read_bytes(), "tls.key: .* does not belong to the certificate"),
                (files.certificate, new.certificate.read_bytes()[:300], "tls.certificate: .* damaged or cut off"),
                (files.certificate, b"", "tls.certificate: .*: is empty"),
            ]
            for path, content, fault in steps:
                path.write_bytes(content)

                async def refused(fault: str = fault) -> bool:
                    return any(re.search(fault, line) for line in told(node, "certificate_refused"))

                await eventually(refused, within_s=TAKEN_S, what=fault)
                assert await certificate_at(node.address) == before
                await load.goes_on()
            files.certificate.write_bytes(new.certificate.read_bytes())

            async def taken() -> bool:
                return await certificate_at(node.address) == renewed

            await eventually(taken, within_s=TAKEN_S, what="the new certificate")
        assert not load.failed, load.failed[:3]


async def test_a_reload_reads_the_files_at_once_and_takes_other_paths(tmp_path: Path) -> None:
    with running_cluster(
        tmp_path / "cluster", nodes=1, tls=True, start=(), settings={"tls": {"poll": "1h"}}
    ) as cluster:
        ca, node = Authority.open(cluster.layout.pki), cluster.master
        with Daemon(node.config_file, env={"AUTH_TOKEN": TOKEN}) as daemon:
            await asyncio.to_thread(daemon.wait_ready)
            renewed = ca.renew(ca.entries()[1], days=LEAF_DAYS, now=now())
            await asyncio.to_thread(daemon.reload)
            assert await certificate_at(node.address) == renewed.certificate

            moved = tmp_path / "moved.crt"
            moved.write_bytes(b"not one")
            text = node.config_file.read_text().replace("../pki/node-1.crt", str(moved))
            node.config_file.write_text(text)
            await asyncio.to_thread(daemon.reload)
            assert "tls.certificate: " in daemon.log
            assert "the one from before goes on" in daemon.log
            assert "certificate refused: tls.certificate: " in last_status(daemon)
            shutil.copy(ca.folder / "node-1.crt", moved)
            await asyncio.to_thread(daemon.reload)
            assert await certificate_at(node.address) == renewed.certificate
            assert "certificate" not in last_status(daemon)
            await asyncio.to_thread(daemon.terminate)


async def test_a_client_takes_a_renewed_certificate_on_its_next_connection(tmp_path: Path) -> None:
    """What it has is of a CA that no node has, until its files are replaced: without a new client it gets in."""
    with running_cluster(tmp_path / "cluster", nodes=1, tls=True) as cluster:
        ca, mine = Authority.open(cluster.layout.pki), tmp_path / "mine"
        mine.mkdir()
        strange = client_of(new_ca(tmp_path / "other"), "billing")
        good = client_of(ca, "billing")

        def put(shown: Shown) -> None:
            for name, path in (("key", shown.key), ("crt", shown.certificate), ("ca", good.ca)):
                assert path
                draft = mine / ".draft"
                draft.write_bytes(path.read_bytes())
                draft.chmod(0o600)
                draft.replace(mine / name)

        put(strange)
        async with AsyncClient(
            cluster.master.mutual_address,
            token=TOKEN,
            timeout_s=20,
            ca=str(mine / "ca"),
            certificate=str(mine / "crt"),
            key=str(mine / "key"),
        ) as client:
            post = asyncio.create_task(client.post("as soon as I may"))
            done, _ = await asyncio.wait([post], timeout=1.5)
            assert not done
            put(good)
            assert (await post).offset == 1
