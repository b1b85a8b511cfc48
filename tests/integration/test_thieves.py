"""Who has stolen a node's signing key, its certificate, both, or the CA's key: what each can do, and what not.

Over TLS, against real nodes. SECURITY.md names these tests.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc import aio

from replicad.core.batch import Batch
from replicad.core.frames import (
    Ack,
    Align,
    Aligned,
    AppendBatch,
    Fetch,
    Heartbeat,
    Hello,
    Inquiry,
    RootAnswer,
    RootQuery,
    Standing,
    Supply,
    Welcome,
)
from replicad.core.tree import EMPTY_ROOT
from replicad.dev import DevCluster, DevNode
from replicad.errors import ExitCode, NotMaster, WriteConcernTimeout
from replicad.keys import Signer, generate
from replicad.pki import LEAF_DAYS, Authority
from replicad.storage.reader import batches_from
from replicad.wire.codec import decode_records
from tests.support.certificates import Shown, cas_like, client_of, files_of, node_of, now, refusal
from tests.support.commandline import CommandLine
from tests.support.fake_master import REPLICATE, FakeMaster, History, sign_anew, signer_of, tree_of
from tests.support.fake_worker import fake_worker
from tests.support.nodes import (
    TOKEN,
    all_level,
    events,
    log_lines,
    raw_logs,
    reload,
    running_cluster,
    same_records,
    verified,
)
from tests.support.rawlog import LOG, RawLog, new_id
from tests.support.waiting import eventually

MASTER, VICTIM, STOLEN = "node-1", "node-2", "node-3"
SETTINGS = {"timeouts": {"reconnect_max": "300ms"}, "tls": {"poll": "100ms"}}
SECRET = b"for those with the role reader"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    with running_cluster(tmp_path / "cluster", tls=True, settings=SETTINGS) as made:
        yield made


def as_node(cluster: DevCluster, name: str) -> grpc.ChannelCredentials:
    """What a thief has who has that node's certificate and its key."""
    return files_of(Authority.open(cluster.layout.pki), name).credentials()


def thief_at(cluster: DevCluster, shown: grpc.ChannelCredentials) -> FakeMaster:
    """A stream of the thief's to the worker."""
    return FakeMaster(cluster.node(VICTIM).mutual_address, token=TOKEN, credentials=shown)


async def deposed(log: RawLog) -> None:
    """Wait until the node says that it is no master any more."""

    async def look() -> bool:
        return (await log.status()).role == "worker"

    await eventually(look, within_s=20, what="the master is deposed")


async def promote_master(cluster: DevCluster) -> None:
    """What an operator does who finds the cluster without a master."""
    await asyncio.to_thread(CommandLine.of(cluster).good, "promote", MASTER)


def signers(node: DevNode) -> list[str]:
    """Who has signed each record on a stopped node's disk."""
    with closing(sqlite3.connect(node.data_dir / "log.db")) as connection:
        return [batch.signer for batch in batches_from(connection, 0) for _ in range(batch.count)]


# --- a stolen worker: its signing key and its certificate -------------------------------------------------------------


def rewritten(history: History) -> Batch:
    """Another first record, in the place of the one that is committed."""
    return History(history.signer, epoch=history.epoch).batch(new_id())


def forked(history: History) -> Batch:
    """A batch that rests on another past of the same length."""
    other = History(history.signer, epoch=history.epoch)
    other.batch(*(new_id() for _ in range(history.tree.size)))
    return other.batch(new_id())


def in_the_masters_name(history: History) -> Batch:
    return _renamed(history.copy().batch(new_id()), history.signer)


def in_the_masters_name_and_epoch(history: History) -> Batch:
    return _renamed(history.copy().batch(new_id(), epoch=history.epoch - 1), history.signer)


def _renamed(batch: Batch, signer: Signer) -> Batch:
    renamed = replace(batch, signer=MASTER)
    return replace(renamed, signature=sign_anew(renamed, signer))


async def test_a_stolen_worker_adds_records_in_its_own_name_alone_and_changes_none_that_is_committed(
    cluster: DevCluster,
) -> None:
    """A crash-fault log: whoever is a node may be the next master. What it does bears its name, and only that."""
    stolen = as_node(cluster, STOLEN)
    async with raw_logs(cluster) as logs:
        for number in range(3):
            await logs[MASTER].post(b"committed %d" % number, w="all")
        epoch = (await all_level(logs)).epoch + 1
        committed = await same_records(logs)
        await asyncio.to_thread(cluster.kill, STOLEN)
        history = History(signer_of(cluster.node(STOLEN)), epoch=epoch)
        history.tree = await tree_of(logs[VICTIM])

        async with thief_at(cluster, stolen) as thief:
            await thief.send(Hello("dev", MASTER, epoch))
            assert (await thief.refused()).reason == "certificate"
        refused = (
            (rewritten, "gap"),
            (forked, "root"),
            (in_the_masters_name, "signer"),
            (in_the_masters_name_and_epoch, "signature"),
        )
        for forge, reason in refused:
            async with thief_at(cluster, stolen) as thief:
                await thief.welcomed(epoch, master=STOLEN)
                await thief.send(AppendBatch(forge(history), 0))
                assert (await thief.refused()).reason == reason, forge
        assert (await logs[VICTIM].list(level="local")).records == committed

        async with thief_at(cluster, stolen) as thief:
            await thief.welcomed(epoch, master=STOLEN)
            forged = history.batch("forged")
            await thief.append(forged, commit_size=forged.end)
            await deposed(logs[MASTER])
            with pytest.raises(NotMaster):
                await logs[MASTER].post(b"while the thief is master")

        await promote_master(cluster)
        await asyncio.to_thread(cluster.start, STOLEN)
        await logs[MASTER].post(b"afterwards", w="all", timeout_s=30)
        await all_level(logs)
        records = await same_records(logs)
    assert records[: len(committed)] == committed
    found = records[len(committed)]
    assert (found.id, found.author) == ("forged", "token")  # an author of the thief's choice
    await asyncio.to_thread(cluster.stop)
    for node in cluster.nodes:
        await asyncio.to_thread(verified, cluster, node)
        by = signers(node)
        assert [offset for offset, name in enumerate(by) if name == STOLEN] == [len(committed)]
        assert set(by) == {MASTER, STOLEN}
        keys = [f"--key={signer_of(each).verifier.line}" for each in cluster.nodes if each.name != STOLEN]
        found_out = CommandLine({}).run("verify", str(node.data_dir), "--cluster=dev", *keys, "--output=json")
        assert (found_out.code, found_out.error["offset"]) == (ExitCode.VERIFY_FAILED, len(committed))


async def test_a_worker_that_a_stolen_one_asks_to_drop_what_is_committed_stops_and_keeps_it(
    cluster: DevCluster,
) -> None:
    async with raw_logs(cluster) as logs:
        await logs[MASTER].post(b"committed", w="all")
        level = await all_level(logs)
        async with thief_at(cluster, as_node(cluster, STOLEN)) as thief:
            await thief.welcomed(level.epoch + 1, master=STOLEN)
            await thief.send(Align(1))

            async def stopped() -> bool:
                return cluster.pid(VICTIM) is None

            await eventually(stopped, within_s=10, what="the worker stops")
        await asyncio.to_thread(cluster.start, VICTIM)
        state = await logs[VICTIM].status()
        assert (state.size, state.commit_size, state.root) == (level.size, level.commit_size, level.root)


async def follow_and_lie(hear: Callable[[], Awaitable[Any]], say: Callable[[Any], Awaitable[None]]) -> None:
    """Acknowledges all that it is sent, and stores nothing."""
    size = 0
    while (frame := await hear()) is not None:
        match frame:
            case Inquiry():
                await say(Standing(VICTIM, 0, "", 0, 0, False))
            case Hello():
                await say(Welcome(VICTIM, 0, 0, EMPTY_ROOT, 0))
            case RootQuery(size=0):
                await say(RootAnswer(0, EMPTY_ROOT))
            case Align():
                await say(Aligned(frame.size))
            case AppendBatch():
                size = frame.batch.end
                await say(Ack(size, 0))
            case Heartbeat():
                await say(Ack(size, frame.probe))


async def test_a_stolen_worker_that_acknowledges_what_it_does_not_store_makes_for_one_copy_less(
    tmp_path: Path,
) -> None:
    patience = {"timeouts": {"reconnect_max": "300ms", "suspect": "1s", "unhealthy": "2s"}}
    with running_cluster(tmp_path / "cluster", tls=True, settings=SETTINGS | patience, start=()) as cluster:
        shown = files_of(Authority.open(cluster.layout.pki), VICTIM)
        assert shown.certificate
        assert shown.key
        pair = [(shown.key.read_bytes(), shown.certificate.read_bytes())]
        credentials = grpc.ssl_server_credentials(pair, shown.ca.read_bytes(), require_client_auth=True)
        async with fake_worker(cluster.node(VICTIM).mutual_address, follow_and_lie, credentials=credentials):
            await asyncio.to_thread(cluster.start, MASTER)
            async with raw_logs(cluster) as logs:
                assert (await logs[MASTER].post(b"on two disks, it says", w="majority")).nodes == 2
                assert not list(cluster.node(VICTIM).folder.glob("data/log.db"))
                with pytest.raises(WriteConcernTimeout) as caught:
                    await logs[MASTER].post(b"the other worker can't be spoken for", w="all", timeout_s=1)
                assert caught.value.nodes == 2


async def test_a_node_at_anothers_address_is_not_taken_for_it(tmp_path: Path) -> None:
    """Who has a stolen worker and the network between the others is still only that worker."""
    with running_cluster(tmp_path / "cluster", tls=True, settings=SETTINGS, start=()) as cluster:
        file = cluster.master.config_file
        config = yaml.safe_load(file.read_text())
        _, two, three = config["nodes"]
        two["mutual_address"], three["mutual_address"] = three["mutual_address"], two["mutual_address"]
        file.write_text(yaml.safe_dump(config))
        await asyncio.to_thread(cluster.start, VICTIM, STOLEN)
        await asyncio.to_thread(cluster.start, MASTER, wait=False)

        async def told() -> bool:
            lines = [line for line in log_lines(cluster.master) if " event=unreachable " in line]
            return all(
                any(f" peer={name} " in line and "its certificate is for other names" in line for line in lines)
                for name in (VICTIM, STOLEN)
            )

        await eventually(told, within_s=20, what="why neither is spoken to")
        for name in (VICTIM, STOLEN):
            assert "following" not in events(cluster.node(name))


async def test_a_stolen_key_that_is_believed_no_further_adds_nothing_more(cluster: DevCluster, tmp_path: Path) -> None:
    """What SECURITY.md says to do: another key for the node, and `until` for the one that was stolen."""
    thief_signer = signer_of(cluster.node(STOLEN))
    async with raw_logs(cluster) as logs:
        await logs[MASTER].post(b"committed", w="all")
        level = await all_level(logs)
        await asyncio.to_thread(cluster.kill, STOLEN)
        line = generate(STOLEN, tmp_path / "new.key")
        for node in cluster.nodes:
            config = yaml.safe_load(node.config_file.read_text())
            entry = next(each for each in config["nodes"] if each["name"] == STOLEN)
            entry["former_keys"] = [{"public_key": entry["public_key"], "until": 0}]
            entry["public_key"] = line
            node.config_file.write_text(yaml.safe_dump(config))
        await reload(cluster, MASTER, VICTIM)

        history = History(thief_signer, epoch=level.epoch + 1)
        history.tree = await tree_of(logs[VICTIM])
        async with thief_at(cluster, as_node(cluster, STOLEN)) as thief:
            await thief.welcomed(history.epoch, master=STOLEN)
            await thief.send(AppendBatch(history.batch("forged"), 0))
            assert (await thief.refused()).reason == "revoked"
        shutil.copy(tmp_path / "new.key", cluster.node(STOLEN).folder / "key")
        await deposed(logs[MASTER])
        await promote_master(cluster)
        await asyncio.to_thread(cluster.start, STOLEN)
        await logs[MASTER].post(b"with the new key", w="all", timeout_s=30)
        await all_level(logs)
        assert "forged" not in [record.id for record in await same_records(logs)]


# --- a signing key without a certificate, a certificate without a signing key -----------------------------------------


async def test_a_stolen_signing_key_alone_opens_no_stream(cluster: DevCluster) -> None:
    """Not with a token, not with a client's certificate either."""
    ca = Authority.open(cluster.layout.pki)
    victim, bundle = cluster.node(VICTIM), Shown(Path(str(cluster.layout.ca_file)))
    async with raw_logs(cluster) as logs:
        await logs[MASTER].post(b"committed", w="all")
        before = await all_level(logs)
        history = History(signer_of(cluster.master), epoch=before.epoch + 1)
        history.tree = await tree_of(logs[VICTIM])
        ways = ((victim.address, bundle), (victim.mutual_address, client_of(ca, "no-node")))
        for address, shown in ways:
            async with FakeMaster(address, token=TOKEN, credentials=shown.credentials()) as thief, asyncio.timeout(20):
                assert await thief.call.code() is grpc.StatusCode.UNAUTHENTICATED  # and nothing was even sent
            async with FakeMaster(address, token=TOKEN, credentials=shown.credentials()) as thief:
                with suppress(aio.AioRpcError, asyncio.InvalidStateError):  # over, perhaps before all is said
                    await thief.send(Hello("dev", MASTER, history.epoch), AppendBatch(history.batch(new_id()), 0))
                    await thief.receive()
        assert (await refusal(victim.mutual_address, bundle, REPLICATE, token=TOKEN)).startswith("UNAVAILABLE: ")
        after = await all_level(logs)
        assert (after.size, after.root, after.epoch) == (before.size, before.root, before.epoch)
        assert (await logs[MASTER].post(b"it goes on", w="all")).nodes == 3


async def test_a_masters_signing_key_beside_another_nodes_certificate_adds_records_in_the_masters_name(
    cluster: DevCluster,
) -> None:
    """Old batches are the masters' of their epochs, whoever brings them: the key says whose they are."""
    async with raw_logs(cluster) as logs:
        await logs[MASTER].post(b"committed", w="all")
        level = await all_level(logs)
        history = History(signer_of(cluster.master), epoch=level.epoch)
        history.tree = await tree_of(logs[VICTIM])
        async with thief_at(cluster, as_node(cluster, STOLEN)) as thief:
            await thief.welcomed(level.epoch + 1, master=STOLEN)
            await thief.append(history.batch("forged"))
        assert [record.id for record in (await logs[VICTIM].list(level.size, level="local")).records] == ["forged"]
    await asyncio.to_thread(cluster.stop)
    assert set(signers(cluster.node(VICTIM))) == {MASTER}


@pytest.mark.parametrize("how", ["stolen", "issued with a stolen CA key"])
async def test_a_node_certificate_without_the_signing_key_adds_no_record_but_reads_all_and_costs_an_epoch(
    cluster: DevCluster, tmp_path: Path, how: str
) -> None:
    ca = Authority.open(cluster.layout.pki)
    shown = files_of(ca, MASTER)
    if how != "stolen":
        shutil.copytree(ca.folder, tmp_path / "thief")
        shown = node_of(Authority.open(tmp_path / "thief"), MASTER)
    async with raw_logs(cluster) as logs:
        await logs[MASTER].post(SECRET, w="all")
        before = await all_level(logs)
        history = History(Signer(MASTER, Ed25519PrivateKey.generate()), epoch=before.epoch + 1)
        history.tree = await tree_of(logs[VICTIM])
        async with thief_at(cluster, shown.credentials()) as thief:
            await thief.welcomed(history.epoch)
            await thief.send(Fetch(0, 1 << 20))
            supply = await thief.receive()
            assert isinstance(supply, Supply)
            assert SECRET in [each for batch in supply.batches for each in decode_records(batch.body).payloads]
            await thief.send(AppendBatch(history.batch(new_id()), 0))
            assert (await thief.refused()).reason == "signature"
        assert (await refusal(cluster.master.mutual_address, shown)).startswith("PERMISSION_DENIED: ")  # no client
        state = await logs[VICTIM].status()
        assert (state.size, state.root) == (before.size, before.root)
        await all_level(logs, size=before.size + 1)  # in its own name: it opens a higher epoch by itself
        assert (await logs[MASTER].post(b"it goes on", w="all", timeout_s=30)).nodes == 3


async def test_idle_streams_on_a_withdrawn_ca_end_within_seconds(tmp_path: Path) -> None:
    """A stolen certificate is shut out by another CA: there are no revocation lists, and no stream outlives the old."""
    with running_cluster(tmp_path / "cluster", nodes=1, tls=True, settings=SETTINGS) as cluster:
        ca, node = Authority.open(cluster.layout.pki), cluster.master
        client_of(ca, "thief")
        shutil.copytree(ca.folder, tmp_path / "kept")
        stolen = files_of(Authority.open(tmp_path / "kept"), "thief")
        bundle = Path(str(cluster.layout.ca_file))
        async with (
            RawLog(node.mutual_address, token=TOKEN, credentials=stolen.credentials()) as log,
            log.post_stream() as stream,
        ):
            tail: aio.UnaryStreamMultiCallable[bytes, bytes] = log.channel.unary_stream(f"{LOG}/Tail")
            idle = tail(b"", metadata=log.metadata)
            await idle.read()
            await stream.send([new_id()])
            assert (await stream.result()).error is None
            calls = (idle, stream.call)
            ends = [asyncio.create_task(end_of(call)) for call in calls]

            ca.add_ca(days=LEAF_DAYS, now=now(), force=False)
            for entry in ca.entries():
                if entry.kind != "ca":
                    ca.renew(entry, days=LEAF_DAYS, now=now())
            await bundle_taken(node, "2 CAs in the bundle")
            assert (
                await refusal(node.mutual_address, Shown(bundle, stolen.certificate, stolen.key), token=TOKEN) == "OK"
            )
            assert not any(task.done() for task in ends), "an overlap"

            ca.drop_old_cas(force=False)
            async with asyncio.timeout(5):
                for code, details in await asyncio.gather(*ends):
                    assert code is grpc.StatusCode.UNAVAILABLE
                    assert "was withdrawn" in details
        stale = Shown(bundle, stolen.certificate, stolen.key)
        assert (await refusal(node.mutual_address, stale, token=TOKEN)).startswith("UNAVAILABLE: ")
        assert await refusal(node.mutual_address, files_of(ca, "thief"), token=TOKEN) == "OK"


async def test_a_thief_of_the_cas_key_who_shows_many_cas_of_its_own_holds_up_no_node_once_it_is_withdrawn(
    tmp_path: Path,
) -> None:
    """Each of them has issued each other, so there are more paths among them than anybody could walk."""
    with running_cluster(tmp_path / "cluster", nodes=1, tls=True, settings=SETTINGS) as cluster:
        ca, node = Authority.open(cluster.layout.pki), cluster.master
        client_of(ca, "thief")
        shutil.copytree(ca.folder, tmp_path / "kept")
        stolen = files_of(Authority.open(tmp_path / "kept"), "thief")
        assert stolen.certificate
        with stolen.certificate.open("ab") as chain:
            chain.writelines(cas_like(ca.folder / "ca.crt", ca.folder / "ca.key", count=24))
        async with RawLog(node.mutual_address, token=TOKEN, credentials=stolen.credentials()) as log:
            tail: aio.UnaryStreamMultiCallable[bytes, bytes] = log.channel.unary_stream(f"{LOG}/Tail")
            idle = tail(b"", metadata=log.metadata)
            await idle.read()
            end = asyncio.create_task(end_of(idle))

            ca.add_ca(days=LEAF_DAYS, now=now(), force=False)
            for entry in ca.entries():
                if entry.kind != "ca":
                    ca.renew(entry, days=LEAF_DAYS, now=now())
            await bundle_taken(node, "2 CAs in the bundle")
            ca.drop_old_cas(force=False)
            async with asyncio.timeout(5):
                assert (await end)[0] is grpc.StatusCode.UNAVAILABLE
                assert await refusal(node.mutual_address, files_of(ca, "thief"), token=TOKEN) == "OK"


async def end_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a stream ends, once all of it is read."""
    with suppress(aio.AioRpcError):
        while await call.read() is not aio.EOF:
            pass
    return await call.code(), await call.details() or ""


async def bundle_taken(node: DevNode, text: str) -> None:
    """Wait until the node has read its files, and says so."""

    async def look() -> bool:
        return any(" event=certificate_taken " in line and text in line for line in log_lines(node))

    await eventually(look, within_s=20, what=text)
