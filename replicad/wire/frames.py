"""What nodes say to each other, as bytes: replication.proto <-> :mod:`replicad.core.frames`.

Owns the checks that make a frame well formed: one kind, places within range, hashes of the right length. Whether it
is right (signature, epoch, offsets, root) is for the core. All decoding raises PeerError("malformed").
"""

from __future__ import annotations

from collections.abc import Callable

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
    MasterFrame,
    Refused,
    RootAnswer,
    RootQuery,
    Standing,
    Supply,
    TakeOver,
    Welcome,
    WorkerFrame,
)
from replicad.core.tree import HASH_BYTES
from replicad.wire.parsing import MAX_PLACE, malformed, parse_peer
from replicad.wire.splice import bytes_field, integer_field
from replicad.wire.v1 import replication_pb2 as pb


def encode_master_frame(frame: MasterFrame) -> bytes:
    """A MasterFrame message."""
    message = pb.MasterFrame()
    match frame:
        case Hello(cluster, master, epoch):
            message.hello.cluster, message.hello.master, message.hello.epoch = cluster, master, epoch
        case RootQuery(size):
            message.root_query.size = size
            message.root_query.SetInParent()
        case Align(size):
            message.align.size = size
            message.align.SetInParent()
        case AppendBatch():
            return _encode_append(frame)
        case Heartbeat(commit_size, probe):
            message.heartbeat.commit_size, message.heartbeat.probe = commit_size, probe
            message.heartbeat.SetInParent()
        case Fetch(from_offset, max_bytes):
            message.fetch.from_offset, message.fetch.max_bytes = from_offset, max_bytes
            message.fetch.SetInParent()
        case Inquiry(cluster, node):
            message.inquiry.cluster, message.inquiry.node = cluster, node
            message.inquiry.SetInParent()
        case TakeOver(epoch):
            message.take_over.epoch = epoch
            message.take_over.SetInParent()
    return message.SerializeToString()


def decode_master_frame(data: bytes) -> MasterFrame:
    """The frame that a master sent."""
    message = parse_peer(pb.MasterFrame, data)
    decode = _MASTER_KINDS.get(message.WhichOneof("kind") or "")
    if decode is None:
        raise malformed("a master's frame of no kind that this release knows")
    return decode(message)


def encode_worker_frame(frame: WorkerFrame) -> bytes:
    """A WorkerFrame message."""
    message = pb.WorkerFrame()
    match frame:
        case Welcome(node, last_epoch, size, root, commit_size):
            message.welcome.node, message.welcome.last_epoch, message.welcome.size = node, last_epoch, size
            message.welcome.root, message.welcome.commit_size = root, commit_size
        case RootAnswer(size, root):
            message.root.size, message.root.root = size, root
            message.root.SetInParent()
        case Aligned(size):
            message.aligned.size = size
            message.aligned.SetInParent()
        case Ack(size, probe):
            message.ack.size, message.ack.probe = size, probe
            message.ack.SetInParent()
        case Supply(batches, size):
            for batch in batches:
                part = message.supply.batches.add()
                _fill_batch(part, batch)
                part.body = batch.body
            message.supply.size = size
            message.supply.SetInParent()
        case Refused(reason, text, promised_epoch, promised_to):
            message.refused.reason, message.refused.text = reason, text
            message.refused.promised_epoch, message.refused.promised_to = promised_epoch, promised_to
            message.refused.SetInParent()
        case Standing():
            message.standing.node, message.standing.leads, message.standing.asks = frame.node, frame.leads, frame.asks
            message.standing.promised_epoch, message.standing.promised_to = frame.promised_epoch, frame.promised_to
            message.standing.last_epoch, message.standing.size = frame.last_epoch, frame.size
            message.standing.SetInParent()
    return message.SerializeToString()


def decode_worker_frame(data: bytes) -> WorkerFrame:
    """The frame that a worker sent."""
    message = parse_peer(pb.WorkerFrame, data)
    decode = _WORKER_KINDS.get(message.WhichOneof("kind") or "")
    if decode is None:
        raise malformed("a worker's frame of no kind that this release knows")
    return decode(message)


def encode_batch(batch: Batch) -> bytes:
    """A Batch message: a batch as it stands in a file of its own."""
    message = pb.Batch(body=batch.body)
    _fill_batch(message, batch)
    return message.SerializeToString()


def decode_batch(data: bytes) -> Batch:
    """The inverse of :func:`encode_batch`."""
    return _batch(parse_peer(pb.Batch, data))


def _place(value: int) -> int:
    """A size, offset, epoch or time that every later step can hold."""
    if value > MAX_PLACE:
        raise malformed(f"{value} is beyond every size, offset, epoch or time there can be")
    return value


def _root(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        raise malformed(f"a root of {len(value)} bytes, it has {HASH_BYTES}")
    return value


def _fill_batch(message: pb.Batch, batch: Batch) -> None:
    """All but the body."""
    message.epoch, message.first_offset, message.count = batch.epoch, batch.first_offset, batch.count
    message.time_ms, message.root, message.signer = batch.time_ms, batch.root, batch.signer
    message.signature = batch.signature


def _encode_append(frame: AppendBatch) -> bytes:
    """The one large and frequent frame: joined around the body."""
    head = pb.Batch()
    _fill_batch(head, frame.batch)
    batch = [head.SerializeToString(), *bytes_field(pb.Batch.BODY_FIELD_NUMBER, (frame.batch.body,))]
    append = bytes_field(pb.Append.BATCH_FIELD_NUMBER, batch)
    append += integer_field(pb.Append.COMMIT_SIZE_FIELD_NUMBER, frame.commit_size)
    return b"".join(bytes_field(pb.MasterFrame.APPEND_FIELD_NUMBER, append))


def _batch(message: pb.Batch) -> Batch:
    if not message.count:
        raise malformed("a batch of no records")
    _place(message.first_offset + message.count)
    return Batch(
        epoch=_place(message.epoch),
        first_offset=message.first_offset,
        count=message.count,
        time_ms=_place(message.time_ms),
        root=_root(message.root),
        signer=message.signer,
        signature=message.signature,
        body=message.body,
    )


def _hello(frame: pb.MasterFrame) -> Hello:
    return Hello(frame.hello.cluster, frame.hello.master, _place(frame.hello.epoch))


def _append(frame: pb.MasterFrame) -> AppendBatch:
    return AppendBatch(_batch(frame.append.batch), _place(frame.append.commit_size))


def _welcome(frame: pb.WorkerFrame) -> Welcome:
    message = frame.welcome
    return Welcome(
        node=message.node,
        last_epoch=_place(message.last_epoch),
        size=_place(message.size),
        root=_root(message.root),
        commit_size=_place(message.commit_size),
    )


def _supply(frame: pb.WorkerFrame) -> Supply:
    return Supply(tuple(map(_batch, frame.supply.batches)), _place(frame.supply.size))


def _refused(frame: pb.WorkerFrame) -> Refused:
    message = frame.refused
    return Refused(message.reason, message.text, _place(message.promised_epoch), message.promised_to)


def _standing(frame: pb.WorkerFrame) -> Standing:
    message = frame.standing
    return Standing(
        node=message.node,
        promised_epoch=_place(message.promised_epoch),
        promised_to=message.promised_to,
        last_epoch=_place(message.last_epoch),
        size=_place(message.size),
        leads=message.leads,
        asks=message.asks,
    )


_MASTER_KINDS: dict[str, Callable[[pb.MasterFrame], MasterFrame]] = {
    "hello": _hello,
    "root_query": lambda frame: RootQuery(_place(frame.root_query.size)),
    "align": lambda frame: Align(_place(frame.align.size)),
    "append": _append,
    "heartbeat": lambda frame: Heartbeat(_place(frame.heartbeat.commit_size), frame.heartbeat.probe),
    "fetch": lambda frame: Fetch(_place(frame.fetch.from_offset), _place(frame.fetch.max_bytes)),
    "inquiry": lambda frame: Inquiry(frame.inquiry.cluster, frame.inquiry.node),
    "take_over": lambda frame: TakeOver(_place(frame.take_over.epoch)),
}

_WORKER_KINDS: dict[str, Callable[[pb.WorkerFrame], WorkerFrame]] = {
    "welcome": _welcome,
    "root": lambda frame: RootAnswer(_place(frame.root.size), _root(frame.root.root)),
    "aligned": lambda frame: Aligned(_place(frame.aligned.size)),
    "ack": lambda frame: Ack(_place(frame.ack.size), frame.ack.probe),
    "supply": _supply,
    "refused": _refused,
    "standing": _standing,
}
