"""Three nodes whose ports are attacked while an honest client posts: see tests/fuzz/port.py. `make fuzz TARGET=port`
does it for longer, with a new seed each time."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest
from grpc import aio

from replicad.core.frames import Ack, AppendBatch, Heartbeat, MasterFrame, RootQuery
from replicad.dev import DevCluster
from replicad.errors import PeerError
from replicad.wire.codec import decode_master_frame, encode_master_frame
from tests.fuzz import port
from tests.fuzz.honest import attacked_cluster
from tests.fuzz.mutate import mutate
from tests.support.fake_master import FakeMaster, History, signer_of
from tests.support.nodes import TOKEN, running_cluster, verified
from tests.support.rawlog import RawLog

SEED = 20_261_125
ATTACKS = 250
SESSIONS = 40
LAST_PROBE = 99


def test_every_method_that_there_is_is_attacked(tmp_path: Path) -> None:
    """So that a new one is not forgotten."""
    with running_cluster(tmp_path, nodes=1) as cluster:
        served = asyncio.run(_served(cluster))
    assert served == {method.rpartition("/")[0].removeprefix("/") for method in port.METHODS}


async def _served(cluster: DevCluster) -> set[str]:
    from replicad.wire.v1 import reflection_pb2  # noqa: PLC0415

    async with aio.insecure_channel(cluster.master.address) as channel:
        info: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(port.METHODS[-2])
        request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        (answer,) = [each async for each in info(iter([request]))]
    services = reflection_pb2.ServerReflectionResponse.FromString(answer).list_services_response.service
    return {each.name for each in services} | {name.rpartition("/")[0][1:] for name in port.METHODS[-2:]}


def test_an_attacked_cluster_serves_the_honest_and_proves_its_logs(tmp_path: Path) -> None:
    told = attacked_cluster(tmp_path, seed=SEED, attacks=ATTACKS)
    print(told)
    assert told.total() > ATTACKS
    assert told["honest posts"] >= 20
    for came_through in ("call: OK", "call: INVALID_ARGUMENT", "cancelled_call: cancelled", "compressed: answered"):
        assert told[came_through]


def test_an_attack_is_replayed_by_its_seed_and_number() -> None:
    fuzz = [port.PortFuzz(["127.0.0.1:1"], token=TOKEN, seed=SEED) for _ in range(2)]
    made = [each._requests(port.METHODS[0], random.Random(f"{SEED} 7")) for each in fuzz]
    assert made[0] == made[1]


@pytest.mark.parametrize("seed", [SEED])
async def test_a_worker_takes_nothing_from_a_masters_mutated_frames_but_what_was_signed(
    tmp_path: Path, seed: int
) -> None:
    """A worker alone, and a master that has the token and the key, and sends frames that were changed on the way."""
    with running_cluster(tmp_path, start=["node-2"]) as cluster:
        rng, history = random.Random(seed), History(signer_of(cluster.node("node-1")))
        address = cluster.node("node-2").address
        signed = [history.batch(f"id-{number}", f"more-{number}") for number in range(6)]
        roots = {0, *(batch.root for batch in signed)}
        epoch = 1
        for session in range(SESSIONS):
            async with FakeMaster(address, token=TOKEN) as master:
                welcome = await master.welcomed(epoch)
                assert welcome.size in {0, *(batch.end for batch in signed)}, f"seed {seed}, session {session}"
                assert not welcome.size or welcome.root in roots
                batches = [AppendBatch(batch, 0) for batch in signed if batch.end > welcome.size]
                frames: list[MasterFrame] = [*batches[:2], Heartbeat(0, 7), RootQuery(1)]
                await _send_mutated(master, list(map(encode_master_frame, frames)), rng)
        async with FakeMaster(address, token=TOKEN) as master:  # and it still takes what is right
            welcome = await master.welcomed(epoch)
            rest = [batch for batch in signed if batch.first_offset >= welcome.size]
            await master.append(*rest or [history.batch("the-last")])
            async with RawLog(address, token=TOKEN) as log:
                assert (await log.status()).state == "following"
        await asyncio.to_thread(cluster.stop)
        assert verified(cluster, cluster.node("node-2")).records >= signed[-1].end


async def _send_mutated(master: FakeMaster, frames: list[bytes], rng: random.Random) -> None:
    """Until the worker ends the stream, or has answered the heartbeat that comes last."""
    last = asyncio.Event()
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as both:
            # Meanwhile: gRPC 1.51 has a writer wait for the stream's end until all is read.
            both.create_task(_read_until_answered(master, last))
            for _ in range(6):
                data = mutate(rng.choice(frames), rng, frames) if rng.random() < 0.7 else frames[0]
                if _changes_only_the_stream(data):
                    await master.send(data)
            last.set()
            await master.send(Heartbeat(0, LAST_PROBE))
    except* asyncio.InvalidStateError:  # ended by the worker before a frame was sent
        pass
    except* aio.AioRpcError as ended:  # while one was
        codes = {exc.code() for exc in ended.exceptions if isinstance(exc, aio.AioRpcError)}
        assert codes <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL}, ended.exceptions  # noqa: PT017 - ended by it


async def _read_until_answered(master: FakeMaster, last: asyncio.Event) -> None:
    """A heartbeat that was changed may have had a greater probe than the last one, and a worker tells the greatest."""
    while (answer := await master.receive()) is not None:
        if last.is_set() and isinstance(answer, Ack) and answer.probe >= LAST_PROBE:
            return


def _changes_only_the_stream(data: bytes) -> bool:
    """Whether the frame is none that a worker obeys because it came from its master: Align truncates, for one."""
    try:
        frame = decode_master_frame(data)
    except PeerError:
        return True
    return isinstance(frame, AppendBatch | Heartbeat | RootQuery)
