"""The wire's gates: all that a client, a peer or a disk can hand to the codec."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message

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
from replicad.core.record import MAX_ID_BYTES, decode_headers, encode_headers, id_fault
from replicad.errors import BadRequest, NotFound, PeerError, RateLimited, ServiceError, TooLarge, WriteConcernTimeout
from replicad.transport.calls import parse_request
from replicad.transport.health import Health
from replicad.transport.reflection import SERVICES, Reflection
from replicad.wire import codec
from replicad.wire.faults import error_from_detail
from replicad.wire.frames import decode_batch, encode_batch
from replicad.wire.parsing import MAX_PLACE, ParseError, parse
from replicad.wire.posts import FrameError
from replicad.wire.splice import bytes_field, integer_field
from replicad.wire.types import PostFrame, PostFrameResult, PostRun
from replicad.wire.v1 import control_pb2, health_pb2, log_pb2, raw_pb2, reflection_pb2, replication_pb2
from tests.fuzz.registry import Target
from tests.support.builders import LogBuilder, messages

PAYLOAD_BYTES, FRAME_BYTES = 512, 1024  # small, so that inputs of a few KiB pass them


def _log() -> LogBuilder:
    log = LogBuilder()
    log.add_epoch(1)
    log.add(3)
    log.add_messages(messages("a", "b", payloads=[b"", b"x" * 200], headers=[{}, {"k": "v"}]))
    log.add(12, prefix="alike")
    return log


def _check_frame(frame: PostFrame) -> None:
    each = frame.messages
    count = len(each.ids)
    assert count >= 1
    assert len(each.payloads) == count
    assert len(each.headers) in (0, count)
    assert all(id_fault(message_id) is None and len(message_id) <= MAX_ID_BYTES for message_id in each.ids)
    assert all(len(payload) <= PAYLOAD_BYTES for payload in each.payloads)
    assert all(encode_headers(decode_headers(headers)) == headers for headers in each.headers)
    assert each.size_bytes == sum(map(len, each.payloads)) + sum(map(len, each.headers))


def post_frame(data: bytes) -> None:
    frame = codec.decode_post_frame(data, payload_bytes=PAYLOAD_BYTES, frame_bytes=FRAME_BYTES)
    _check_frame(frame)
    assert frame.messages.size_bytes <= PAYLOAD_BYTES + FRAME_BYTES
    each = frame.messages
    again = codec.encode_post_frame(
        frame.sequence,
        each.ids,
        each.payloads,
        each.headers,
        write_concern=frame.write_concern,
        timeout_ms=frame.timeout_ms,
    )
    assert codec.decode_post_frame(again, payload_bytes=PAYLOAD_BYTES, frame_bytes=FRAME_BYTES) == frame


def post_request(data: bytes) -> None:
    frame = codec.decode_post_request(data, payload_bytes=PAYLOAD_BYTES)
    _check_frame(frame)
    assert len(frame.messages) == 1


def _told(result: PostFrameResult) -> object:
    errors = [(index, _error_facts(error)) for index, error in result.errors]
    return result.sequence, result.runs, errors, result.error and _error_facts(result.error), result.nodes


def _error_facts(error: ServiceError) -> object:
    wait_s = round(error.retry_after_s or 0.0, 2)  # it is rounded up to a whole ms each time
    return type(error), error.message, error.applied, error.offset, error.nodes, error.master, wait_s


def post_results(data: bytes) -> None:
    results = codec.decode_post_results(data)
    again = codec.decode_post_results(codec.encode_post_results(results))
    assert [_told(each) for each in again] == [_told(each) for each in results]


def master_frame(data: bytes) -> None:
    frame = codec.decode_master_frame(data)
    if isinstance(frame, AppendBatch):
        assert frame.batch.count >= 1
        assert frame.batch.end <= MAX_PLACE
    assert codec.decode_master_frame(codec.encode_master_frame(frame)) == frame


def worker_frame(data: bytes) -> None:
    frame = codec.decode_worker_frame(data)
    assert codec.decode_worker_frame(codec.encode_worker_frame(frame)) == frame


def batch(data: bytes) -> None:
    decoded = decode_batch(data)
    assert decode_batch(encode_batch(decoded)) == decoded


def records(data: bytes) -> None:
    """A stored body: what is accepted has one length only, or a body could be padded past the tree's notice."""
    decoded = codec.decode_records(data)
    again = codec.encode_records(decoded)
    assert len(again) == len(data)
    assert codec.decode_records(again) == decoded


def list_response(data: bytes) -> None:
    commit_size, bodies = codec.decode_list_response(data)
    for body in bodies:
        offsets = [record.offset for record in body]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) if offsets else True
        assert all(record.committed == (record.offset < commit_size) for record in body)
        assert all(record.id.isascii() for record in body)


def error_trailer(data: bytes) -> None:
    error = codec.error_from_trailer(data)
    if error is not None:
        again = codec.error_from_trailer(codec.status_trailer(error))
        assert again is not None
        assert again.applied is error.applied
        assert again.offset == error.offset


def error_detail(data: bytes) -> None:
    error = error_from_detail(parse(log_pb2.ErrorDetail, data))
    assert _error_facts(error_from_detail(codec.error_to_detail(error))) == _error_facts(error)


def splice(data: bytes) -> None:
    """What is put together by hand, the protobuf runtime reads: any bytes as a body, any number as a commit size."""
    number, body = int.from_bytes(data[:8], "big"), data[8:]
    response = parse(raw_pb2.RawListResponse, codec.encode_list_response(number, [body, b"", body]))
    assert (response.commit_size, list(response.records)) == (number, [body, b"", body])
    joined = b"".join(integer_field(1, number) + bytes_field(2, [body[:3], body[3:]]))
    assert parse(raw_pb2.RawListResponse, joined).records[0] == body


_REQUESTS: tuple[type[Message], ...] = (
    log_pb2.ListRequest,
    log_pb2.TailRequest,
    log_pb2.OutcomeRequest,
    log_pb2.StatusRequest,
    control_pb2.PromoteRequest,
    control_pb2.SwitchoverRequest,
    replication_pb2.BatchesRequest,
    replication_pb2.EndRequest,
)


def requests(data: bytes) -> None:
    """The first byte picks the kind of request."""
    kind = _REQUESTS[data[0] % len(_REQUESTS)] if data else _REQUESTS[0]
    request = parse_request(kind, data[1:])
    assert parse_request(kind, request.SerializeToString()) == request


def health(data: bytes) -> None:
    answer = _finish(Health().check(data, "anonymous"))
    assert health_pb2.HealthCheckResponse.FromString(answer).status


def _finish(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


_FILES = [module.DESCRIPTOR for module in (log_pb2, replication_pb2, health_pb2)]
_REFLECTIONS = [Reflection(protocol, _FILES) for protocol in SERVICES.values()]


def reflection(data: bytes) -> None:
    async def one() -> AsyncIterator[bytes]:
        yield data

    for each in _REFLECTIONS:
        answers = each.info(one(), SimpleNamespace(), "anonymous")
        response = reflection_pb2.ServerReflectionResponse.FromString(_finish(answers.__anext__()))
        assert response.WhichOneof("message_response")


# --- good inputs --------------------------------------------------------------------------------------------------


def _post_frames() -> Iterable[bytes]:
    headers = [encode_headers({"a": "1", "b": "2"}), b""]
    yield codec.encode_post_frame(7, ["x", "y"], [b"1", b""], headers, write_concern="majority", timeout_ms=500)
    yield codec.encode_post_frame(1 << 63, ["z" * 128], [bytes(512)], [], write_concern="3", timeout_ms=0)


def _post_requests() -> Iterable[bytes]:
    yield log_pb2.PostRequest(id="x", payload=b"hello", headers={"k": "v", "": ""}).SerializeToString()
    yield log_pb2.PostRequest(id="x", payload=b"hello", headers={"k": "v"}, write_concern="2").SerializeToString()


def _post_results() -> Iterable[bytes]:
    fault = WriteConcernTimeout("late", offset=7, nodes=2)
    mixed = PostFrameResult(1, (PostRun(0, 3, 10, False),), ((3, fault),), None, 2)
    yield codec.encode_post_results([mixed, PostFrameResult(2, error=RateLimited("no", retry_after_s=0.5))])


def _master_frames() -> Iterable[bytes]:
    batch = _log().appends[2].batch
    frames: tuple[MasterFrame, ...] = (
        Hello("c", "n", 3),
        RootQuery(0),
        Align(9),
        AppendBatch(batch, 4),
        Heartbeat(5, 6),
        Fetch(7, 8),
    )
    return map(codec.encode_master_frame, frames)


def _worker_frames() -> Iterable[bytes]:
    batch = _log().appends[2].batch
    frames: tuple[WorkerFrame, ...] = (
        Welcome("n", 1, 2, bytes(32), 1),
        RootAnswer(0, bytes(32)),
        Aligned(3),
        Ack(4, 5),
        Supply((batch,), 9),
        Refused("epoch", "no", 7),
    )
    return map(codec.encode_worker_frame, frames)


def _bodies() -> list[bytes]:
    return [append.batch.body for append in _log().appends]


def _of(kind: int, request: Message) -> bytes:
    return bytes((kind,)) + request.SerializeToString()


def _request_seeds() -> Iterable[bytes]:
    yield _of(0, log_pb2.ListRequest(from_offset=3, limit=9, level="local", min_offset=0, since_ms=1, until_ms=2))
    yield _of(1, log_pb2.TailRequest(from_offset=1 << 63, level="committed"))
    yield _of(2, log_pb2.OutcomeRequest(id="some-id"))
    yield _of(3, log_pb2.StatusRequest())
    yield _of(4, control_pb2.PromoteRequest(timeout_ms=100))
    yield _of(5, control_pb2.SwitchoverRequest(to="node-2", timeout_ms=100))
    yield _of(6, replication_pb2.BatchesRequest(cluster="c", from_offset=3, until_offset=9))
    yield _of(7, replication_pb2.EndRequest(cluster="c"))


def _reflection_seeds() -> Iterable[bytes]:
    request = reflection_pb2.ServerReflectionRequest
    yield request(list_services="").SerializeToString()
    yield request(host="h", file_by_filename=log_pb2.DESCRIPTOR.name).SerializeToString()
    yield request(file_containing_symbol="replicad.wire.v1.Log.Post").SerializeToString()
    yield request(all_extension_numbers_of_type="x").SerializeToString()


def _target(
    function: Callable[[bytes], object],
    seeds: Callable[[], Iterable[bytes]],
    *covers: str,
    allowed: tuple[type[Exception], ...] = (PeerError,),
) -> Target:
    return Target(f"wire.{function.__name__}", function, allowed, covers, seeds)


TARGETS = (
    _target(post_frame, _post_frames, "wire.posts.decode_post_frame", allowed=(BadRequest, FrameError)),
    _target(post_request, _post_requests, "wire.posts.decode_post_request", allowed=(BadRequest, TooLarge)),
    _target(post_results, _post_results, "wire.posts.decode_post_results"),
    _target(master_frame, _master_frames, "wire.frames.decode_master_frame"),
    _target(worker_frame, _worker_frames, "wire.frames.decode_worker_frame"),
    _target(
        batch,
        lambda: [encode_batch(append.batch) for append in _log().appends],
        "wire.frames.decode_batch",
        "wire.parsing.parse_peer",
    ),
    _target(records, _bodies, "wire.records.decode_records"),
    _target(
        list_response,
        lambda: [codec.encode_list_response(2, _bodies()[:2]), codec.encode_list_response(99, _bodies())],
        "wire.records.decode_list_response",
    ),
    _target(
        error_trailer,
        lambda: [codec.status_trailer(RateLimited("slow down", retry_after_s=1.5))],
        "wire.faults.error_from_trailer",
        allowed=(),
    ),
    _target(
        error_detail,
        lambda: [codec.error_to_detail(WriteConcernTimeout("late", offset=3, nodes=1)).SerializeToString()],
        "wire.faults.error_from_detail",
        "wire.parsing.parse",
        allowed=(ParseError,),
    ),
    _target(splice, lambda: [bytes(8) + b"body", b"\xff" * 8 + bytes(200)], allowed=()),
    _target(requests, _request_seeds, "transport.calls.parse_request", allowed=(BadRequest,)),
    _target(
        health,
        lambda: [health_pb2.HealthCheckRequest(service="replicad.wire.v1.Log").SerializeToString(), b""],
        allowed=(BadRequest, NotFound),
    ),
    _target(reflection, _reflection_seeds, allowed=(BadRequest,)),
)
