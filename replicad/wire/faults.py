"""Service errors as bytes: the ErrorDetail message, alone or in the standard ``grpc-status-details-bin`` trailer.

Owns the gRPC status numbers. Must not know who raised the error or how it travels.
"""

from __future__ import annotations

import math

from google.protobuf.any_pb2 import Any

from replicad.errors import SERVICE_ERRORS, Applied, InternalError, ServiceError
from replicad.wire.parsing import ParseError, parse
from replicad.wire.v1 import log_pb2, raw_pb2

TYPE_URL = "type.googleapis.com/replicad.wire.v1.ErrorDetail"
#: Of an error's message in trailers. It stands there three times, in forms of up to three times its length; and where
#: they are larger than 8 KiB, gRPC gives all of them up.
TEXT_BYTES = 1000
MAX_RETRY_AFTER_MS = (1 << 32) - 1  # the field is a uint32

#: https://grpc.io/docs/guides/status-codes/, those that our errors use.
GRPC_STATUS_NUMBERS = {
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "OUT_OF_RANGE": 11,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}


def error_to_detail(error: ServiceError) -> log_pb2.ErrorDetail:
    """All that the other side needs to raise the same error."""
    detail = log_pb2.ErrorDetail(
        code=error.code,
        name=error.name,
        applied=error.applied.value,
        message=_encodable(error.message),
        nodes=error.nodes,
        master=error.master,
        master_address=error.master_address,
    )
    if error.offset is not None:
        detail.offset = error.offset
    if error.retry_after_s is not None:  # rounded up: coming back too early would be refused again
        detail.retry_after_ms = min(max(0, math.ceil(error.retry_after_s * 1000)), MAX_RETRY_AFTER_MS)
    return detail


def error_from_detail(detail: log_pb2.ErrorDetail) -> ServiceError:
    """The error that the detail tells of.

    A name that this release does not know becomes an InternalError that says it; what the sender says about whether
    the message was applied is kept in any case.
    """
    kind = SERVICE_ERRORS.get(detail.name)
    message = detail.message if kind is not None else f"{detail.code} {detail.name}: {detail.message}"
    error = (kind or InternalError)(
        message,
        offset=detail.offset if detail.HasField("offset") else None,
        nodes=detail.nodes,
        master=detail.master,
        master_address=detail.master_address,
        retry_after_s=detail.retry_after_ms / 1000 if detail.retry_after_ms else None,
    )
    applied = _applied(detail.applied)
    if applied is not error.applied:
        error.applied = applied
    return error


def status_trailer(error: ServiceError) -> bytes:
    """The value of the ``grpc-status-details-bin`` trailer: a google.rpc.Status with one ErrorDetail."""
    text, content = status_text(error), error_to_detail(error)
    content.message = text
    detail = Any(type_url=TYPE_URL, value=content.SerializeToString())
    number = GRPC_STATUS_NUMBERS[error.grpc_status]
    return raw_pb2.RpcStatus(code=number, message=text, details=[detail]).SerializeToString()


def status_text(error: ServiceError) -> str:
    """The error's message as trailers have it: no longer than TEXT_BYTES."""
    encoded = _encodable(error.message).encode()
    return (
        encoded.decode() if len(encoded) <= TEXT_BYTES else encoded[: TEXT_BYTES - 4].decode(errors="ignore") + " ..."
    )


def error_from_trailer(trailer: bytes) -> ServiceError | None:
    """The error in that trailer, or None when it holds no ErrorDetail of ours: not from replicad, or damaged."""
    try:
        for detail in parse(raw_pb2.RpcStatus, trailer).details:
            if detail.type_url == TYPE_URL:
                return error_from_detail(parse(log_pb2.ErrorDetail, detail.value))
    except ParseError:
        pass
    return None


def _applied(text: str) -> Applied:
    try:
        return Applied(text)
    except ValueError:
        return Applied.UNKNOWN


def _encodable(text: str) -> str:
    """Without what UTF-8 cannot hold (lone surrogates, as file names may have): an error must always get through."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
