"""A worker and a master not to be believed: what fails a check is refused, with its reason, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc import aio

from replicad.client import AsyncClient
from replicad.core.batch import Batch
from replicad.core.frames import Ack, Align, AppendBatch, Fetch, Heartbeat, MasterFrame, Refused, RootQuery, Supply
from replicad.core.record import NO_HEADERS, Records, encode_headers
from replicad.dev import DevCluster
from replicad.keys import Signer
from replicad.wire.codec import decode_records, encode_master_frame, encode_records
from replicad.wire.v1 import log_pb2, replication_pb2
from tests.support.fake_master import FakeMaster, History, sign_anew, signer_of, tree_of
from tests.support.nodes import TOKEN, all_level, events, log_lines, raw_logs, running_cluster, same_records, verified
from tests.support.rawlog import RawLog, new_id
from tests.support.waiting import eventually

WORKER = "node-2"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """Three nodes of which only a worker runs: the test is its master."""
    with running_cluster(tmp_path_factory.mktemp("fake"), start=[WORKER]) as made:
        yield made


@dataclass
class Scene:
    """A worker that follows ``master``, and all of whose log is in ``history``; the last batch is not committed."""

    cluster: DevCluster
    worker: RawLog
    master: FakeMaster
    history: History
    last: Batch

    async def state(self) -> log_pb2.StatusResponse:
        """What must not change: the status without what is of the moment."""
        state = await self.worker.status()
        for name in ("uptime_ms", "rss_bytes", "state", "detail", "nodes"):
            state.ClearField(name)
        return state

    @property
    def stranger(self) -> Signer:
        """A good key that is nobody's."""
        return Signer(self.history.signer.name, Ed25519PrivateKey.generate())

    def next(self) -> Batch:
        """A batch that the worker would take, of three records."""
        return self.history.copy().batch(new_id(), new_id(), new_id())


@pytest.fixture
async def scene(cluster: DevCluster) -> AsyncIterator[Scene]:
    """Every test is a master of an epoch of its own."""
    if cluster.pid(WORKER) is None:
        await asyncio.to_thread(cluster.start, WORKER)
    node = cluster.node(WORKER)
    async with RawLog(node.address, token=TOKEN) as worker, FakeMaster(node.address, token=TOKEN) as master:
        before = await worker.status()
        history = History(signer_of(cluster.node("node-1")), epoch=before.epoch + 1)
        history.tree = await tree_of(worker)
        welcome = await master.welcomed(history.epoch)
        assert (welcome.node, welcome.size, welcome.root) == (WORKER, history.tree.size, history.tree.root())
        first = history.batch(new_id(), new_id(), new_id())
        last = history.batch(new_id(), new_id(), new_id())
        await master.append(first, commit_size=first.first_offset)
        await master.append(last, commit_size=first.end)
        yield Scene(cluster, worker, master, history, last)


# --- batches that fail a check --------------------------------------------------------------------------------------


def resigned(scene: Scene, batch: Batch) -> Batch:
    """The batch with the right key's signature over what it says now."""
    return replace(batch, signature=sign_anew(batch, scene.history.signer))


def with_records(batch: Batch, change: Callable[[Records], Records]) -> Batch:
    """The batch with its records changed, and all that is signed as it was."""
    return replace(batch, body=encode_records(change(decode_records(batch.body))))


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with one bit of byte ``at`` changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def gap(scene: Scene) -> Batch:
    ahead = scene.history.copy()
    ahead.batch(new_id())
    return ahead.batch(new_id())


def fork(scene: Scene) -> Batch:
    """A batch at the right place, rightly signed, of a log with another past."""
    other = History(scene.history.signer, epoch=scene.history.epoch)
    other.batch(*(new_id() for _ in range(scene.history.tree.size)))
    return other.batch(new_id())


def fork_of_a_stranger(scene: Scene) -> Batch:
    return scene.history.copy(signer=scene.stranger).batch(new_id())


def of_another_epoch(scene: Scene, step: int) -> Batch:
    return scene.history.copy().batch(new_id(), epoch=scene.history.epoch + step)


def of_another_node(scene: Scene) -> Batch:
    """Signed by a node of the config that is not the master of this epoch."""
    return scene.history.copy(signer=signer_of(scene.cluster.node("node-3"))).batch(new_id())


def of_an_unknown_node(scene: Scene) -> Batch:
    return scene.history.copy(signer=Signer("node-9", Ed25519PrivateKey.generate())).batch(new_id())


def for_another_cluster(scene: Scene) -> Batch:
    batch = scene.next()
    return replace(batch, signature=sign_anew(batch, scene.history.signer, cluster="other"))


def with_a_known_id(scene: Scene) -> Batch:
    known = decode_ids(scene.last)[0]
    return scene.history.copy().batch(new_id(), known)


def with_an_id_twice(scene: Scene) -> Batch:
    twice = new_id()
    return scene.history.copy().batch(twice, new_id(), twice)


def decode_ids(batch: Batch) -> list[str]:
    return [payload.decode() for payload in decode_records(batch.body).payloads]  # a payload names its id


WRONG_BATCHES: dict[str, tuple[str, Callable[[Scene], Batch]]] = {
    "gap": ("gap", gap),
    "the last one again": ("gap", lambda s: s.last),
    "of a later epoch": ("epoch", lambda s: of_another_epoch(s, 1)),
    "of an earlier epoch": ("epoch", lambda s: of_another_epoch(s, -1)),
    "of epoch 0": ("epoch", lambda s: resigned(s, replace(s.next(), epoch=0))),
    "a bit of the signature": ("signature", lambda s: replace(s.next(), signature=flipped(s.next().signature, 40))),
    "no signature": ("signature", lambda s: replace(s.next(), signature=b"")),
    "a signature too long": ("signature", lambda s: replace(s.next(), signature=bytes(65))),
    "a signature of 1 MiB": ("signature", lambda s: replace(s.next(), signature=bytes(1 << 20))),
    "a key that is nobody's": ("signature", lambda s: replace(s.next(), signature=sign_anew(s.next(), s.stranger))),
    "signed for another cluster": ("signature", for_another_cluster),
    "signed by a node that is not the master": ("signer", of_another_node),
    "signed by no node of the config": ("signer", of_an_unknown_node),
    "fork": ("root", fork),
    "fork of a key that is nobody's": ("signature", fork_of_a_stranger),
    "a root that is not the tree's": ("root", lambda s: resigned(s, replace(s.next(), root=bytes(32)))),
    "a time that is not the leaves'": ("leaf", lambda s: resigned(s, replace(s.next(), time_ms=1))),
    "one record more than it holds": ("malformed", lambda s: resigned(s, replace(s.next(), count=4))),
    "no body": ("malformed", lambda s: replace(s.next(), body=b"")),
    "a body that is none": ("malformed", lambda s: replace(s.next(), body=b"\xff" * 64)),
    "half a body": ("malformed", lambda s: replace(s.next(), body=s.next().body[:100])),
    "a payload changed": (
        "payload",
        lambda s: with_records(s.next(), lambda r: replace(r, payloads=[*r.payloads[:2], b"other"])),
    ),
    "a salt changed": ("payload", lambda s: with_records(s.next(), lambda r: replace(r, salts=flipped(r.salts, 20)))),
    "a leaf's version changed": (
        "leaf",
        lambda s: with_records(s.next(), lambda r: replace(r, leaves=[flipped(r.leaves[0], 0), *r.leaves[1:]])),
    ),
    "a leaf cut short": (
        "leaf",
        lambda s: with_records(s.next(), lambda r: replace(r, leaves=[r.leaves[0][:-1], *r.leaves[1:]])),
    ),
    "an author changed": (
        "root",
        lambda s: with_records(s.next(), lambda r: replace(r, leaves=[flipped(r.leaves[0], -1), *r.leaves[1:]])),
    ),
    "two records swapped": (
        "leaf",
        lambda s: with_records(s.next(), lambda r: replace(r, leaves=[r.leaves[1], r.leaves[0], r.leaves[2]])),
    ),
    "headers added": (
        "headers",
        lambda s: with_records(
            s.next(), lambda r: replace(r, headers=[encode_headers({"a": "b"}), NO_HEADERS, NO_HEADERS])
        ),
    ),
    "an id that is in the log": ("duplicate", with_a_known_id),
    "an id twice": ("duplicate", with_an_id_twice),
}


@pytest.mark.parametrize("name", WRONG_BATCHES)
async def test_a_batch_that_fails_a_check_is_refused_and_changes_nothing(scene: Scene, name: str) -> None:
    reason, make = WRONG_BATCHES[name]
    before, noted = await scene.state(), len(log_lines(scene.cluster.node(WORKER)))

    await scene.master.send(AppendBatch(make(scene), before.commit_size))
    refused = await scene.master.refused()

    assert (refused.reason, refused.promised_epoch) == (reason, scene.history.epoch)
    assert await scene.state() == before
    told = [line for line in log_lines(scene.cluster.node(WORKER))[noted:] if " event=refused " in line]
    assert len(told) == 1
    assert f" reason={reason} " in told[0]
    await takes_what_is_right(scene)


async def takes_what_is_right(scene: Scene) -> None:
    """The worker goes on as if nothing had been, in the same epoch."""
    async with FakeMaster(scene.worker.address, token=TOKEN) as honest:
        welcome = await honest.welcomed(scene.history.epoch)
        assert (welcome.size, welcome.root) == (scene.history.tree.size, scene.history.tree.root())
        batch = scene.history.batch(new_id())
        await honest.append(batch)
        assert (await scene.state()).root == batch.root


# --- frames that are none, and questions out of place -----------------------------------------------------------------


def append_message(scene: Scene, **changes: object) -> bytes:
    """An Append that only other software than ours would send."""
    message = replication_pb2.MasterFrame.FromString(encode_master_frame(AppendBatch(scene.next(), 0)))
    for field, value in changes.items():
        setattr(message.append.batch, field, value)
    return message.SerializeToString()


WRONG_FRAMES: dict[str, tuple[str, Callable[[Scene], MasterFrame | bytes]]] = {
    "garbage": ("malformed", lambda _: b"\xff" * 100),
    "an empty frame": ("malformed", lambda _: b""),
    "a frame cut short": ("malformed", lambda s: encode_master_frame(AppendBatch(s.next(), 0))[:-30]),
    "a frame of an unknown kind": ("malformed", lambda _: b"\xfa\x01\x00"),
    "no records": ("malformed", lambda s: append_message(s, count=0)),
    "an empty batch": ("malformed", lambda _: b"\x22\x00"),
    "a root of 31 bytes": ("malformed", lambda s: append_message(s, root=bytes(31))),
    "an offset beyond all": ("malformed", lambda s: append_message(s, first_offset=(1 << 64) - 1)),
    "an epoch beyond all": ("malformed", lambda s: append_message(s, epoch=1 << 63)),
    "the root of a size beyond the log": ("size", lambda s: RootQuery(s.last.end + 1)),
}


@pytest.mark.parametrize("name", WRONG_FRAMES)
async def test_a_frame_that_is_none_ends_the_stream_and_changes_nothing(scene: Scene, name: str) -> None:
    reason, make = WRONG_FRAMES[name]
    before = await scene.state()

    await scene.master.send(make(scene))

    assert (await scene.master.refused()).reason == reason
    assert await scene.state() == before
    await takes_what_is_right(scene)


async def test_a_log_that_agrees_is_not_aligned_again(scene: Scene) -> None:
    """The master's batches have proven it: to drop some of it now would drop what the master has."""
    before = await scene.state()

    await scene.master.send(Align(scene.last.first_offset))

    assert (await scene.master.refused()).reason == "align"
    assert await scene.state() == before


async def test_a_commit_size_beyond_the_log_moves_the_workers_to_its_end_only(scene: Scene) -> None:
    await scene.master.send(Heartbeat(1 << 40, 7))
    assert await scene.master.receive() == Ack(scene.last.end, 7)
    assert (await scene.state()).commit_size == scene.last.end


async def test_however_much_is_fetched_a_worker_supplies_a_part(scene: Scene) -> None:
    large = [scene.history.batch(new_id(), payloads=[bytes(500_000)]) for _ in range(6)]
    await scene.master.append(*large)

    await scene.master.send(Fetch(large[0].first_offset, (1 << 63) - 1))

    supply = await scene.master.receive()
    assert isinstance(supply, Supply)
    assert list(supply.batches) == large[: len(supply.batches)]
    assert sum(len(batch.body) for batch in supply.batches) < 2 << 20  # limits.read and a batch


# --- the wrong Hello -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "master", "cluster_name", "reason"),
    [
        (-1, "node-1", "dev", "epoch"),
        (0, "node-3", "dev", "epoch"),
        (1, "node-9", "dev", "master"),
        (1, WORKER, "dev", "master"),
        (1, "", "dev", "master"),
        (1, "node-1", "prod", "cluster"),
    ],
)
async def test_a_hello_that_is_not_the_masters_is_refused_and_the_promise_stands(
    scene: Scene, step: int, master: str, cluster_name: str, reason: str
) -> None:
    before = await scene.state()
    async with FakeMaster(scene.worker.address, token=TOKEN) as other:
        answer = await other.hello(scene.history.epoch + step, master=master, cluster=cluster_name)

        assert isinstance(answer, Refused)
        assert (answer.reason, answer.promised_epoch) == (reason, scene.history.epoch)
        assert await other.receive() is None

    assert await scene.state() == before
    await scene.master.append(scene.history.batch(new_id()))  # who is followed goes on being followed


async def test_a_promise_outlives_kill_9(scene: Scene) -> None:
    await asyncio.to_thread(scene.cluster.kill, WORKER)
    await asyncio.to_thread(scene.cluster.start, WORKER)

    async with FakeMaster(scene.worker.address, token=TOKEN) as late:
        answer = await late.hello(scene.history.epoch - 1)
        assert isinstance(answer, Refused)
        assert (answer.reason, answer.promised_epoch) == ("epoch", scene.history.epoch)


async def test_what_comes_before_a_hello_is_not_listened_to(scene: Scene) -> None:
    before = await scene.state()
    async with FakeMaster(scene.worker.address, token=TOKEN) as silent:
        await silent.send(
            AppendBatch(scene.next(), 0), Heartbeat(1 << 40, 9), Align(0), RootQuery(0), Fetch(0, 1 << 20)
        )
        answer = await silent.hello(0)  # answered after those before it

        assert isinstance(answer, Refused)
        assert answer.reason == "epoch"
    assert await scene.state() == before


async def test_a_newer_stream_of_the_master_replaces_the_older(scene: Scene) -> None:
    async with FakeMaster(scene.worker.address, token=TOKEN) as newer:
        await newer.welcomed(scene.history.epoch)
        assert await scene.master.receive() is None
        await newer.append(scene.history.batch(new_id()))


@pytest.mark.parametrize("token", ["", "wrong-token"])
async def test_without_the_token_no_stream_is_taken(scene: Scene, token: str) -> None:
    before = await scene.state()
    async with FakeMaster(scene.worker.address, token=token) as stranger:
        with pytest.raises(aio.AioRpcError) as caught:
            await stranger.receive()
    assert caught.value.code().name == "UNAUTHENTICATED"
    assert await scene.state() == before


# --- the end: a master that contradicts itself, and one that is real ------------------------------------------------


async def test_a_master_that_asks_to_drop_what_is_committed_stops_the_worker_and_nothing_is_lost(
    scene: Scene,
) -> None:
    """By semantics.md: either this node or that master has the wrong log, and a person must look."""
    before = await scene.state()
    assert before.commit_size
    pid = scene.cluster.pid(WORKER)
    async with FakeMaster(scene.worker.address, token=TOKEN) as other:
        await other.welcomed(scene.history.epoch + 1)
        await other.send(Align(before.commit_size - 1))
        await eventually(lambda: _has_ended(scene.cluster), within_s=10, what="the worker stops")

    assert pid is not None
    assert scene.cluster.how_it_ended(pid) == "ended with status 1"
    assert events(scene.cluster.node(WORKER))[-3:] == ["fatal", "stopping", "stopped"]
    await asyncio.to_thread(scene.cluster.start, WORKER)
    after = await scene.state()
    assert (after.size, after.root, after.epoch) == (before.size, before.root, scene.history.epoch + 1)


async def _has_ended(cluster: DevCluster) -> bool:
    return cluster.pid(WORKER) is None


async def test_a_node_with_an_empty_folder_that_is_promoted_fetches_what_a_worker_has_before_it_opens(
    scene: Scene,
) -> None:
    before = await scene.state()
    await asyncio.to_thread(scene.cluster.start, "node-1")
    async with AsyncClient(scene.cluster.node("node-1").address, token=TOKEN) as client:
        assert (await client.status()).role == "worker", "it does not begin a log anew"
        await client.promote(scene.cluster.node("node-1").address)
    await asyncio.to_thread(scene.cluster.start, "node-3")  # not before: two empty nodes would be a majority

    async with raw_logs(scene.cluster) as logs:
        level = await all_level(logs, size=before.size + 1)
        records = await same_records(logs)
        assert [record.id for record in records[before.size :]] == [f"replicad:epoch:{level.epoch}"]
        assert level.epoch > before.epoch
    await asyncio.to_thread(scene.cluster.stop)
    reports = [await asyncio.to_thread(verified, scene.cluster, node) for node in scene.cluster.nodes]
    assert {report.root for report in reports} == {level.root}
