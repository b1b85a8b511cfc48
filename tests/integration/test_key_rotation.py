"""A node's key is replaced under continuous posts: by the tool, step by step, each twice, and through kill -9."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicad import tokensfile
from replicad.access import Principal, Role
from replicad.client import AsyncClient
from replicad.configfile import load as load_config
from replicad.core.frames import AppendBatch
from replicad.core.keyring import Keyring
from replicad.dev import DevCluster, DevNode
from replicad.keys import generate, load_signer
from replicad.nodekeys import keys_of, node_key
from replicad.pki import Authority
from replicad.storage.fsck import verify_folder
from replicad.wire.codec import decode_records
from tests.support.certificates import client_of
from tests.support.commandline import CommandLine, Ran
from tests.support.fake_master import FakeMaster, History, signer_of
from tests.support.nodes import (
    LEVEL_S,
    TOKEN,
    all_level,
    log_lines,
    raw_logs,
    reload,
    running_cluster,
    verified,
)
from tests.support.rawlog import RawLog, new_id
from tests.support.waiting import eventually

QUICK = {"timeouts": {"reconnect_max": "500ms"}}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    with running_cluster(tmp_path / "cluster", settings=QUICK) as made:
        yield made
    for node in made.nodes:
        for key in node.folder.glob("key*"):
            parts = [part for part in key.read_text().split() if len(part) > 16]
            assert not any(part in line for line in log_lines(node) for part in parts), "a key is in the log"


def run(cluster: DevCluster, node: DevNode, *step: str) -> Ran:
    """A step of the tool, on that node."""
    return CommandLine.of(cluster).run("keys", "rotate", *step, "--config", str(node.config_file), "--output", "json")


async def told(cluster: DevCluster, node: DevNode, step: str) -> dict[str, Any]:
    """What a step tells that goes well; asked twice, it tells the same again and changes nothing more."""
    first, second = [await asyncio.to_thread(run, cluster, node, step) for _ in range(2)]
    assert (first.code, first.err) == (0, ""), first
    assert (second.code, second.err) == (0, ""), second
    [fields] = first.objects
    [again] = second.objects
    if step != "retire":  # which has removed the old key's file
        assert fields == again
    assert again["former_keys"] == fields["former_keys"]
    return fields


async def refused(cluster: DevCluster, node: DevNode, step: str, *, because: str) -> None:
    for _ in range(2):
        ran = await asyncio.to_thread(run, cluster, node, step)
        assert ran.code == 3, ran
        assert because in ran.error["message"]
        assert "nothing was changed" in ran.error["message"]


def introduce(cluster: DevCluster, node: DevNode, fields: Mapping[str, Any], *, to: str) -> None:
    """Put the keys that the tool told into the config of one node."""
    file = cluster.node(to).config_file
    config = yaml.safe_load(file.read_text())
    entry = next(each for each in config["nodes"] if each["name"] == node.name)
    entry["public_key"] = fields["public_key"]
    entry["former_keys"] = fields["former_keys"]
    file.write_text(yaml.safe_dump(config, sort_keys=False))


@asynccontextmanager
async def posting(log: RawLog, *, w: str) -> AsyncIterator[list[int]]:
    """Posts one after the other to the master, none of which may fail or be tried a second time; their offsets."""
    offsets: list[int] = []
    over = asyncio.Event()

    async def post() -> None:
        while not over.is_set():
            offsets.append((await log.post(b"while a key is replaced", w=w, timeout_s=20)).offset)

    tasks = [asyncio.create_task(post()) for _ in range(4)]
    try:
        yield offsets
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def goes_on(offsets: list[int]) -> None:
    """Some posts more are answered."""
    count = len(offsets) + 10

    async def more() -> bool:
        return len(offsets) >= count

    await eventually(more, within_s=10, what="posts go on")


@pytest.mark.parametrize("name", ["node-1", "node-2"])
async def test_the_masters_and_a_workers_key_are_replaced_step_by_step_and_no_post_fails(
    cluster: DevCluster, name: str
) -> None:
    node, others = cluster.node(name), [each.name for each in cluster.nodes if each.name != name]
    old = signer_of(node)
    async with raw_logs(cluster) as logs, posting(logs["node-1"], w="all") as offsets:
        assert (await told(cluster, node, "status"))["state"] == "steady"
        await goes_on(offsets)
        prepared = await told(cluster, node, "prepare")
        new = load_signer(node.folder / "key.next", name)
        assert prepared["public_key"] == new.verifier.line
        assert prepared["former_keys"] == [{"public_key": old.verifier.line}]
        await refused(cluster, node, "activate", because="this node's config does not have the new key")

        for each in (name, others[0]):
            introduce(cluster, node, prepared, to=each)
        await reload(cluster, name, others[0])
        await refused(cluster, node, "activate", because=f"is not in the config of {others[1]};")
        assert (await told(cluster, node, "status"))["unaware"] == [others[1]]
        introduce(cluster, node, {**prepared, "former_keys": []}, to=others[1])  # what is in the log would be refused
        await reload(cluster, others[1])
        await refused(cluster, node, "activate", because=f"is not in the config of {others[1]};")
        introduce(cluster, node, prepared, to=others[1])
        await reload(cluster, others[1])
        await refused(cluster, node, "retire", because="the next key is not in use yet")

        activated = await told(cluster, node, "activate")
        assert (activated["state"], activated["signs_with"]) == ("activated", old.key_id)
        assert signer_of(node).verifier == new.verifier
        await refused(cluster, node, "retire", because=f"it is not certain that {name} signs with the new key")
        assert (await told(cluster, node, "prepare"))["public_key"] == new.verifier.line  # begins no other rotation
        await reload(cluster, name)
        assert (await told(cluster, node, "status"))["signs_with"] == new.key_id
        await goes_on(offsets)

        retired = await told(cluster, node, "retire")
        [former] = retired["former_keys"]
        assert former["public_key"] == old.verifier.line
        assert not list(node.folder.glob("key.*"))
        repeated = await asyncio.to_thread(run, cluster, node, "retire")
        assert await told(cluster, node, "status") == repeated.objects[0]
        assert repeated.objects[0]["former_keys"] == [former]
        for member in cluster.nodes:
            introduce(cluster, node, retired, to=member.name)
        assert "reload node-1, node-2 and node-3" in (await told(cluster, node, "status"))["next"]
        await reload(cluster, *(member.name for member in cluster.nodes))
        over = await told(cluster, node, "retire")
        assert (over["state"], over["former_keys"]) == ("steady", [former])
        assert over["next"].startswith("nothing; ")
        await goes_on(offsets)
    async with raw_logs(cluster) as logs:
        level = await all_level(logs, size=max(offsets) + 1)
    assert level.epoch == 1
    [line] = [line for line in log_lines(node) if " event=rekeyed " in line]
    assert f" key_id={new.key_id} former_key_id={old.key_id} " in f"{line} "
    await asyncio.to_thread(cluster.stop)
    await proves_up_to(cluster, node, former["until"])
    assert (former["until"] > 0) is (name == "node-1")


async def proves_up_to(cluster: DevCluster, node: DevNode, until: int) -> None:
    """Each folder proves; had the key been believed for one record less, the last batch that it signed would not."""
    for each in cluster.nodes:
        await asyncio.to_thread(verified, cluster, each)
        assert CommandLine({}).good("verify", "--config", str(each.config_file)).out.startswith("good: ")
    if until:
        config = load_config(node.config_file, env={})
        keys = {each.name: keys_of(each) for each in config.nodes}
        keys[node.name] = [keys[node.name][0], node_key(config.this_node.former_keys[0].public_key, until - 1)]
        report = verify_folder(
            node.data_dir, cluster=config.cluster, keyring=Keyring(keys), decode_records=decode_records
        )
        assert report.fault is not None
        assert report.fault.reason.startswith("revoked: ")
        assert report.fault.offset is not None
        assert report.fault.offset < until


async def test_with_tls_the_nodes_are_asked_by_the_ca_of_the_config_and_with_a_token_or_a_certificate(
    tmp_path: Path,
) -> None:
    """Nobody reached would mean that nobody is asked whether he knows the new key."""
    tokens = tmp_path / "tokens.yaml"
    tokensfile.add(tokens, Principal("rotator", frozenset({Role.READER}), certificate="rotator"))
    with running_cluster(tmp_path / "cluster", tls=True, settings={**QUICK, "tokens_file": str(tokens)}) as cluster:
        shown = client_of(Authority.open(cluster.layout.pki), "rotator")
        by_certificate = {"REPLICAD_CERTIFICATE": str(shown.certificate), "REPLICAD_KEY": str(shown.key)}
        for env in ({"AUTH_TOKEN": TOKEN}, {"REPLICAD_CA": str(shown.ca), **by_certificate}):
            config = str(cluster.nodes[0].config_file)
            step = ("keys", "rotate", "status", "--config", config, "--output", "json")
            ran = await asyncio.to_thread(CommandLine(env).run, *step)
            [fields] = ran.objects
            assert (ran.code, fields["unreachable"], fields["signs_with"]) == (0, [], fields["key_id"]), ran


async def test_a_worker_that_does_not_know_the_key_refuses_it_backs_off_and_recovers_at_its_reload(
    cluster: DevCluster,
) -> None:
    """The key's file is replaced by hand, with node-3 forgotten; a majority goes on without it."""
    master, forgotten = cluster.node("node-1"), cluster.node("node-3")
    fields = await told(cluster, master, "prepare")
    for name in ("node-1", "node-2"):
        introduce(cluster, master, fields, to=name)
    await reload(cluster, "node-1", "node-2")
    (master.folder / "key.next").replace(master.folder / "key")
    async with raw_logs(cluster) as logs, posting(logs["node-1"], w="majority") as offsets:
        await reload(cluster, "node-1")
        await goes_on(offsets)

        async def refuses() -> bool:
            return "signature" in [_reason(line) for line in log_lines(forgotten) if " event=refused " in line]

        await eventually(refuses, within_s=10, what="node-3 refuses")
        stands_at = (await logs["node-3"].status()).size
        await asyncio.sleep(3)  # a span to count tries in, not a wait for anything
        assert (await logs["node-3"].status()).size == stands_at

        introduce(cluster, master, fields, to="node-3")
        await reload(cluster, "node-3")

        async def caught_up() -> bool:
            return (await logs["node-3"].status()).size > stands_at

        await eventually(caught_up, within_s=LEVEL_S, what="node-3 takes what the new key signed")
        await goes_on(offsets)
    async with raw_logs(cluster) as logs:
        await all_level(logs, size=max(offsets) + 1)
    await asyncio.to_thread(cluster.stop)
    tries = [line for line in log_lines(forgotten) if " event=refused " in line]
    count = sum(1 + int((re.search(r" left_out=(\d+)", line) or ["0", "0"])[1]) for line in tries)
    assert 2 <= count <= 40  # in more than 3 s, at up to 500 ms each; dialled without a pause it were hundreds
    for each in cluster.nodes:
        await asyncio.to_thread(verified, cluster, each)


def _reason(line: str) -> str:
    found = re.search(r" reason=(\S+)", line)
    return found[1] if found else ""


async def test_a_node_that_is_away_during_a_rotation_catches_up_when_it_is_back(cluster: DevCluster) -> None:
    master = cluster.master
    await asyncio.to_thread(cluster.kill, "node-3")
    async with AsyncClient(cluster.client_env()["REPLICAD_ADDRESS"], token=TOKEN, timeout_s=30) as client:
        await client.post("by the old key")
        prepared = await told(cluster, master, "prepare")
        assert prepared["unreachable"] == ["node-3"]
        for node in cluster.nodes:
            introduce(cluster, master, prepared, to=node.name)
        await reload(cluster, "node-1", "node-2")
        await told(cluster, master, "activate")
        await reload(cluster, "node-1")
        await client.post("by the new key")
        retired = await told(cluster, master, "retire")
        assert retired["former_keys"][0]["until"] == 2
        for node in cluster.nodes:
            introduce(cluster, master, retired, to=node.name)
        await reload(cluster, "node-1", "node-2")
        await asyncio.to_thread(cluster.start, "node-3")
        await client.post("to all", write_concern="all")
    async with raw_logs(cluster) as logs:
        await all_level(logs, size=4)
    await asyncio.to_thread(cluster.stop)
    await proves_up_to(cluster, master, 2)


async def test_a_key_is_not_put_to_use_while_no_majority_says_that_it_knows_it(cluster: DevCluster) -> None:
    """Nobody reached, for a wrong address or no network, must not pass for nobody unaware."""
    master = cluster.master
    prepared = await told(cluster, master, "prepare")
    introduce(cluster, master, prepared, to="node-1")
    await reload(cluster, "node-1")
    for name in ("node-2", "node-3"):
        await asyncio.to_thread(cluster.kill, name)
    await refused(cluster, master, "activate", because="1 of 3 nodes answer")
    for name in ("node-2", "node-3"):
        await asyncio.to_thread(cluster.start, name)


async def test_kill_9_between_the_steps_loses_nothing(cluster: DevCluster) -> None:
    """The master, killed and started after every step: the key's file is whole at each start, whichever it is."""
    master = cluster.master

    async def kill() -> None:
        await asyncio.to_thread(cluster.kill, "node-1")
        await asyncio.to_thread(cluster.start, "node-1")

    posted: list[int] = []
    async with AsyncClient(cluster.client_env()["REPLICAD_ADDRESS"], token=TOKEN, timeout_s=60) as client:
        over = asyncio.Event()

        async def post() -> None:
            while not over.is_set():
                posted.append((await client.post("through all of it")).offset)

        task = asyncio.create_task(post())
        prepared = await told(cluster, master, "prepare")
        await kill()
        for node in cluster.nodes:
            introduce(cluster, master, prepared, to=node.name)
            await reload(cluster, node.name)
        await kill()
        await told(cluster, master, "activate")
        await kill()  # which stands for the reload
        retired = await told(cluster, master, "retire")
        await kill()
        for node in cluster.nodes:
            introduce(cluster, master, retired, to=node.name)
        await kill()
        await reload(cluster, "node-2", "node-3")
        assert (await told(cluster, master, "status"))["next"].startswith("nothing; ")
        over.set()
        await task
    assert len(set(posted)) == len(posted)
    async with raw_logs(cluster) as logs:
        await all_level(logs, size=max(posted) + 1)
    await asyncio.to_thread(cluster.stop)
    await proves_up_to(cluster, master, retired["former_keys"][0]["until"])


async def test_a_key_file_that_the_config_does_not_believe_is_not_taken(cluster: DevCluster) -> None:
    master = cluster.master
    key, good = master.folder / "key", master.folder / "good"
    signer = signer_of(master)
    async with raw_logs(cluster) as logs:
        key.rename(good)
        for make in (lambda: None, lambda: generate("node-1", key), lambda: key.chmod(0o644)):
            make()
            await reload(cluster, "node-1")
            assert (await logs["node-1"].status()).key_id == signer.key_id
            assert (await logs["node-1"].post(b"goes on", w="all", timeout_s=10)).nodes == 3
        lines = [line for line in log_lines(master) if " event=key_refused " in line]
        assert ["no such key file" in lines[0], "the config says" in lines[1], "chmod 600" in lines[2]] == [True] * 3
        assert all(f" key_id={signer.key_id}" in line for line in lines)

        key.unlink()
        introduce(cluster, master, _without(signer.verifier.line, generate("node-1", key)), to="node-1")
        key.unlink()
        await reload(cluster, "node-1")
        [line] = [line for line in log_lines(master) if " event=reload_refused " in line]
        assert "this node would have no key to sign with" in line
        assert (await logs["node-1"].post(b"goes on", w="all", timeout_s=10)).nodes == 3


def _without(old: str, new: str) -> dict[str, Any]:
    """A config in which the key that the node has is not believed any more."""
    return {"public_key": new, "former_keys": [{"public_key": old, "until": 1}]}


async def test_a_forged_batch_of_a_stolen_old_key_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """A worker and a master not to be believed, who has the old key: what it signs beyond `until` is not taken."""
    with running_cluster(tmp_path / "cluster", start=()) as cluster:
        worker = cluster.node("node-2")
        stolen = signer_of(cluster.master)
        new_line = generate("node-1", tmp_path / "new")
        fields = {"public_key": new_line, "former_keys": [{"public_key": stolen.verifier.line, "until": 4}]}
        introduce(cluster, cluster.master, fields, to="node-2")
        await asyncio.to_thread(cluster.start, "node-2")

        history = History(stolen)
        async with RawLog(worker.address, token=TOKEN) as log:
            async with FakeMaster(worker.address, token=TOKEN) as thief:
                await thief.welcomed(1)
                await thief.append(history.batch(new_id(), new_id()), history.batch(new_id()))
                for forged in (history.copy().batch(new_id(), new_id()),):  # one record of it would be beyond
                    before = await log.status()
                    await thief.send(AppendBatch(forged, 0))
                    answer = await thief.refused()
                    assert answer.reason == "revoked"
                    assert f"signed with key {stolen.key_id} of node-1, which is believed below offset 4" in answer.text
                    after = await log.status()
                    assert (after.size, after.root, after.epoch) == (before.size, before.root, before.epoch)

            last = history.batch(new_id())
            honest = history.copy(signer=load_signer(tmp_path / "new", "node-1"))
            async with FakeMaster(worker.address, token=TOKEN) as master:
                await master.welcomed(1)
                await master.append(last, honest.batch(new_id(), new_id()))
            async with FakeMaster(worker.address, token=TOKEN) as thief:
                await thief.welcomed(2)
                forged = honest.copy(signer=stolen).batch(new_id(), epoch=2)
                await thief.send(AppendBatch(forged, 0))
                assert (await thief.refused()).reason == "revoked"
            assert (await log.status()).size == 6
        assert [_reason(line) for line in log_lines(worker) if " event=refused " in line] == ["revoked"] * 2
