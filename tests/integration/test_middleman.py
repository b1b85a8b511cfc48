"""A man in the middle between the master and a worker: he delays, and never changes what a log says.

TLS keeps him out; here he is let in, so that what is signed has to hold by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from replicad.dev import DevCluster
from replicad.wire.v1 import replication_pb2 as pb
from tests.support.middleman import Meddle, Middleman, honest
from tests.support.nodes import all_level, events, log_lines, raw_logs, running_cluster, same_records, verified
from tests.support.ports import free_ports
from tests.support.rawlog import RawLog
from tests.support.waiting import eventually

VICTIM, OTHER = "node-2", "node-3"
POSTS = 8


@dataclass
class Scene:
    cluster: DevCluster
    logs: dict[str, RawLog]
    middle: Middleman


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Three nodes, level; the master's way to VICTIM leads through the middleman, still honest."""
    with running_cluster(tmp_path, settings={"timeouts": {"reconnect_max": "200ms"}}, start=()) as cluster:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        divert(cluster, address)
        async with Middleman(address, cluster.node(VICTIM).address) as middle:
            await asyncio.to_thread(cluster.start)
            async with raw_logs(cluster) as logs:
                await logs["node-1"].post(b"before", w="all")
                await all_level(logs)
                yield Scene(cluster, logs, middle)
            await asyncio.to_thread(cluster.stop)  # while the middleman is there: nobody ends in the middle of a dial


def divert(cluster: DevCluster, address: str) -> None:
    """Have the master take ``address`` for VICTIM's."""
    file = cluster.node("node-1").config_file
    config = yaml.safe_load(file.read_text())
    next(node for node in config["nodes"] if node["name"] == VICTIM)["address"] = address
    file.write_text(yaml.safe_dump(config))


# --- what he does with batches --------------------------------------------------------------------------------------


def flip(field: str) -> Meddle:
    """One bit in the last byte of this field of every batch; a body's is its last payload's."""

    def meddle(frame: pb.MasterFrame) -> Iterable[pb.MasterFrame]:
        changed = pb.MasterFrame()
        changed.CopyFrom(frame)
        data = bytearray(getattr(changed.append.batch, field))
        data[-1] ^= 1
        setattr(changed.append.batch, field, bytes(data))
        return (changed,)

    return meddle


def replay() -> Meddle:
    """In place of every batch but the first, the first again."""
    first: list[pb.MasterFrame] = []

    def meddle(frame: pb.MasterFrame) -> Iterable[pb.MasterFrame]:
        if not first:
            first.append(frame)
        return (first[0],)

    return meddle


def reorder() -> Meddle:
    """Every two batches in the wrong order."""
    held: list[pb.MasterFrame] = []

    def meddle(frame: pb.MasterFrame) -> Iterable[pb.MasterFrame]:
        held.append(frame)
        if len(held) < 2:
            return ()
        swapped = held[::-1]
        held.clear()
        return swapped

    return meddle


def withhold() -> Meddle:
    """Every other batch."""
    seen: list[None] = []

    def meddle(frame: pb.MasterFrame) -> Iterable[pb.MasterFrame]:
        seen.append(None)
        return () if len(seen) % 2 else (frame,)

    return meddle


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda: flip("body"), "payload", id="flips-a-record"),
        pytest.param(lambda: flip("signature"), "signature", id="flips-the-signature"),
        pytest.param(lambda: flip("root"), "signature", id="flips-the-root"),
        pytest.param(replay, "gap", id="replays"),
        pytest.param(reorder, "gap", id="reorders"),
        pytest.param(withhold, "gap", id="withholds"),
    ],
)
async def test_what_he_does_to_batches_is_refused_holds_up_nobody_and_leaves_no_trace(
    scene: Scene, make: Callable[[], Meddle], reason: str
) -> None:
    logs, middle = scene.logs, scene.middle
    middle.meddle = make()
    for number in range(POSTS):  # a majority is the master and OTHER
        await logs["node-1"].post(b"meddled with %d" % number, w="majority")

    async def refused() -> bool:
        lines = log_lines(scene.cluster.node(VICTIM))
        return any(" event=refused " in line and f" reason={reason}" in line for line in lines)

    await eventually(refused, within_s=20, what=f"{VICTIM} has refused for {reason}; {middle.meddled} meddled with")
    honest_records = {record.offset: record for record in (await logs["node-1"].list(level="local")).records}
    for record in (await logs[VICTIM].list(level="local")).records:
        assert record.payload == honest_records[record.offset].payload  # behind perhaps, never different

    middle.meddle = honest
    await logs["node-1"].post(b"after", w="all", timeout_s=30)
    await all_level(logs)
    records = await same_records(logs)
    assert [r.payload for r in records[1:]] == [
        b"before",
        *(b"meddled with %d" % number for number in range(POSTS)),
        b"after",
    ]
    await asyncio.to_thread(scene.cluster.stop)
    for node in scene.cluster.nodes:
        verified(scene.cluster, node)


async def test_who_withholds_everything_keeps_one_worker_behind_and_the_master_says_so(scene: Scene) -> None:
    logs, middle = scene.logs, scene.middle
    middle.meddle = lambda _: ()
    posted = await logs["node-1"].post(b"withheld", w="majority")

    async def behind() -> bool:
        state = await logs["node-1"].status()
        return any(node.name == VICTIM and node.lag > 0 for node in state.nodes)

    await eventually(behind, within_s=10, what=f"the master's status has {VICTIM} behind")
    assert posted.offset not in [record.offset for record in (await logs[VICTIM].list(level="local")).records]
    middle.meddle = honest
    await logs["node-1"].post(b"after", w="majority")  # a gap for VICTIM, which begins anew
    await all_level(logs)
    assert "refused" in events(scene.cluster.node(VICTIM))
