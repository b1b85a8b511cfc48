"""Frames between nodes: round trips, and what is malformed."""

from __future__ import annotations

import pytest

from replicad.core.batch import Batch
from replicad.core.frames import (
    Ack,
    Align,
    Aligned,
    AppendBatch,
    Fetch,
    Heartbeat,
    Hello,
    MasterFrame,
    Refused,
    RootAnswer,
    RootQuery,
    Supply,
    Welcome,
    WorkerFrame,
)
from replicad.errors import PeerError
from replicad.wire.codec import decode_master_frame, decode_worker_frame, encode_master_frame, encode_worker_frame
from replicad.wire.v1 import replication_pb2 as pb

ROOT = b"r" * 32
BATCH = Batch(3, 100, 2, 1_700_000_000_000, ROOT, "node-1", b"s" * 64, b"body")


@pytest.mark.parametrize(
    "frame",
    [
        Hello("c", "node-1", 3),
        RootQuery(0),
        RootQuery(7),
        Align(0),
        Align(9),
        AppendBatch(BATCH, 99),
        Heartbeat(0, 0),
        Heartbeat(5, 6),
        Fetch(0, 0),
        Fetch(7, 1 << 20),
    ],
)
def test_a_masters_frame_comes_back_as_it_was_encoded(frame: MasterFrame) -> None:
    assert decode_master_frame(encode_master_frame(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Welcome("node-2", 3, 100, ROOT, 98),
        RootAnswer(0, ROOT),
        Aligned(0),
        Ack(0, 0),
        Ack(5, 2**64 - 1),
        Supply((), 0),
        Supply((BATCH, BATCH), 102),
        Refused("", "", 0),
        Refused("epoch", "promised 4", 4),
    ],
)
def test_a_workers_frame_comes_back_as_it_was_encoded(frame: WorkerFrame) -> None:
    assert decode_worker_frame(encode_worker_frame(frame)) == frame


def test_an_append_joined_around_its_body_is_the_same_bytes_as_protobuf_makes() -> None:
    message = pb.MasterFrame()
    append = message.append
    append.commit_size = 99
    append.batch.CopyFrom(
        pb.Batch(
            epoch=3,
            first_offset=100,
            count=2,
            time_ms=1_700_000_000_000,
            root=ROOT,
            signer="node-1",
            signature=b"s" * 64,
            body=b"b" * 1000,
        )
    )
    batch = Batch(3, 100, 2, 1_700_000_000_000, ROOT, "node-1", b"s" * 64, b"b" * 1000)
    assert encode_master_frame(AppendBatch(batch, 99)) == message.SerializeToString()


def _append(**changes: object) -> bytes:
    fields: dict[str, object] = {"epoch": 1, "first_offset": 1, "count": 1, "time_ms": 1, "root": ROOT, **changes}
    return pb.MasterFrame(append=pb.Append(batch=pb.Batch(**fields))).SerializeToString()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        _append(count=0),
        _append(root=ROOT[:31]),
        _append(epoch=1 << 63),
        _append(first_offset=(1 << 63) - 1),
        _append(time_ms=1 << 63),
        pb.MasterFrame(fetch=pb.Fetch(from_offset=1 << 63)).SerializeToString(),
        encode_master_frame(AppendBatch(BATCH, 99))[:-1],
    ],
)
def test_a_malformed_masters_frame_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        decode_master_frame(data)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        pb.WorkerFrame(welcome=pb.Welcome(root=b"")).SerializeToString(),
        pb.WorkerFrame(root=pb.Root(size=1, root=b"")).SerializeToString(),
        pb.WorkerFrame(ack=pb.Ack(size=1 << 63)).SerializeToString(),
        pb.WorkerFrame(supply=pb.Supply(batches=[pb.Batch(root=ROOT)])).SerializeToString(),
    ],
)
def test_a_malformed_workers_frame_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        decode_worker_frame(data)
    assert caught.value.reason == "malformed"
