"""Posts as bytes: a client's frame of messages, and its results.

Owns what is checked of a message before anything else sees it. Everything is checked on whole lists; a message is
looked at singly only to name the one at fault. Must not know write concerns or what the log holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replicad.core.record import (
    MAX_ID_BYTES,
    RESERVED_ID_PREFIX,
    Messages,
    check_encoded_headers,
    encode_headers,
    id_fault,
)
from replicad.errors import BadRequest, ReplicadError, ServiceError, TooLarge
from replicad.wire.faults import error_from_detail, error_to_detail
from replicad.wire.parsing import ParseError, malformed, parse, parse_peer
from replicad.wire.types import PostFrame, PostFrameResult, PostRun
from replicad.wire.v1 import log_pb2


class FrameError(ReplicadError):
    """A frame that parses, so that its sequence is known, but is refused as a whole for ``error``; nothing of it was
    taken. To be answered with a PostFrameResult of that sequence; the stream goes on."""

    def __init__(self, sequence: int, error: ServiceError) -> None:
        super().__init__(f"frame {sequence}: {error}")
        self.sequence = sequence
        self.error = error


def encode_post_frame(
    sequence: int,
    ids: Sequence[str],
    payloads: Sequence[bytes],
    headers: Sequence[bytes],
    *,
    write_concern: str,
    timeout_ms: int,
) -> bytes:
    """A PostFrame; ``headers`` is empty or has one canonically encoded entry for each id."""
    return log_pb2.PostFrame(
        sequence=sequence,
        ids=ids,
        payloads=payloads,
        headers=headers,
        write_concern=write_concern,
        timeout_ms=timeout_ms,
    ).SerializeToString()


def decode_post_frame(data: bytes, *, payload_bytes: int, frame_bytes: int) -> PostFrame:
    """A client's frame, checked: ``payload_bytes`` is the largest payload, ``frame_bytes`` the largest sum of payloads
    and headers over and above one largest payload.

    Raises BadRequest when the bytes are no frame at all, and FrameError, with the frame's sequence and a BadRequest or
    TooLarge that names the message at fault, when the frame is refused.
    """
    try:
        frame = parse(log_pb2.PostFrame, data)
    except ParseError as exc:
        raise BadRequest(f"{exc}; see replicad/wire/v1/log.proto") from exc
    ids, payloads, headers = frame.ids[:], frame.payloads[:], frame.headers[:]
    if len(headers) == len(ids) and not any(headers):
        headers = []
    try:
        size_bytes = _check(ids, payloads, headers, payload_bytes=payload_bytes, frame_bytes=frame_bytes)
    except ServiceError as error:
        raise FrameError(frame.sequence, error) from error
    return PostFrame(
        frame.sequence, Messages(ids, payloads, headers, size_bytes), frame.write_concern, frame.timeout_ms
    )


def decode_post_request(data: bytes, *, payload_bytes: int) -> PostFrame:
    """A single post (the unary Post), checked as a frame of one message. Raises BadRequest or TooLarge."""
    try:
        request = parse(log_pb2.PostRequest, data)
    except ParseError as exc:
        raise BadRequest(f"{exc}; see replicad/wire/v1/log.proto") from exc
    try:
        headers = [encode_headers(request.headers)] if request.headers else []
    except ValueError as exc:
        raise BadRequest(str(exc)) from exc
    ids, payloads = [request.id], [request.payload]
    # One message has no frame to outgrow: headers are limited by their number and lengths.
    size_bytes = _check(ids, payloads, headers, payload_bytes=payload_bytes, frame_bytes=sum(map(len, headers)))
    return PostFrame(0, Messages(ids, payloads, headers, size_bytes), request.write_concern, request.timeout_ms)


def encode_post_results(results: Iterable[PostFrameResult]) -> bytes:
    """A PostFrameResults message."""
    message = log_pb2.PostFrameResults()
    for result in results:
        each = message.results.add(sequence=result.sequence, nodes=result.nodes)
        for run in result.runs:
            each.runs.add(
                first_index=run.first_index,
                count=run.count,
                first_offset=run.first_offset,
                duplicate=run.duplicate,
            )
        for index, error in result.errors:
            each.errors.add(index=index, error=error_to_detail(error))
        if result.error is not None:
            each.error.CopyFrom(error_to_detail(result.error))
    return message.SerializeToString()


def decode_post_results(data: bytes) -> list[PostFrameResult]:
    """The inverse of :func:`encode_post_results`. Raises PeerError("malformed").

    Whether a result fits its frame only the frame's sender can tell.
    """
    return [_result(each) for each in parse_peer(log_pb2.PostFrameResults, data).results]


def _result(message: log_pb2.PostFrameResult) -> PostFrameResult:
    runs = tuple(PostRun(run.first_index, run.count, run.first_offset, run.duplicate) for run in message.runs)
    errors = tuple((each.index, error_from_detail(each.error)) for each in message.errors)
    error = error_from_detail(message.error) if message.HasField("error") else None
    if error is not None and (runs or errors):
        raise malformed(f"the result of frame {message.sequence} has an error for all of it, and more")
    return PostFrameResult(message.sequence, runs, errors, error, message.nodes)


def _check(
    ids: Sequence[str], payloads: Sequence[bytes], headers: Sequence[bytes], *, payload_bytes: int, frame_bytes: int
) -> int:
    """Bytes of all payloads and headers. Raises BadRequest or TooLarge."""
    count = len(ids)
    if not count:
        raise BadRequest("the frame holds no message; send at least one")
    if len(payloads) != count or len(headers) not in (0, count):
        raise BadRequest(
            f"the frame has {count} ids, {len(payloads)} payloads and {len(headers)} headers; "
            "send one payload for each id, and no headers or one for each id"
        )
    _check_ids(ids)
    sizes = list(map(len, payloads))
    if max(sizes) > payload_bytes:
        index = next(i for i, size in enumerate(sizes) if size > payload_bytes)
        raise TooLarge(
            f"{_at(index, count)}the payload has {sizes[index]} bytes, at most {payload_bytes} are taken; "
            "split it, or raise limits.payload on every node"
        )
    size_bytes = sum(sizes)
    if headers:
        _check_headers(headers)
        size_bytes += sum(map(len, headers))
    if size_bytes > payload_bytes + frame_bytes:
        raise TooLarge(
            f"the frame has {size_bytes} bytes of payloads and headers, "
            f"at most {payload_bytes + frame_bytes} are taken; send fewer messages in a frame"
        )
    return size_bytes


def _check_ids(ids: Sequence[str]) -> None:
    joined = "".join(ids)
    good = (
        joined.isascii()
        and joined.isprintable()
        and max(map(len, ids)) <= MAX_ID_BYTES
        and "" not in ids
        and RESERVED_ID_PREFIX not in joined
    )
    if good:
        return
    for index, message_id in enumerate(ids):  # the reserved prefix may stand inside an id, where it does no harm
        fault = id_fault(message_id)
        if fault is not None:
            raise BadRequest(f"{_at(index, len(ids))}{fault}")


def _check_headers(headers: Sequence[bytes]) -> None:
    for each in set(headers):
        try:
            check_encoded_headers(each)
        except ValueError as exc:
            at = _at(headers.index(each), len(headers))
            raise BadRequest(f"{at}{exc}; see docs/formats.md") from exc


def _at(index: int, count: int) -> str:
    """Which message of a frame is at fault, where it has more than one; who posts a single one knows of no frame."""
    return f"message {index}: " if count > 1 else ""
