"""Errors over the wire: the same class on the other side, and never a word lost about whether it was applied."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any

from replicad.errors import SERVICE_ERRORS, Applied, BadRequest, InternalError, RateLimited, ServiceError, Unavailable
from replicad.wire.codec import (
    GRPC_STATUS_NUMBERS,
    error_from_detail,
    error_from_trailer,
    error_to_detail,
    status_text,
    status_trailer,
)
from replicad.wire.faults import TEXT_BYTES
from replicad.wire.v1 import log_pb2, raw_pb2


def facts(error: ServiceError) -> tuple[object, ...]:
    return (
        type(error),
        error.message,
        error.applied,
        error.offset,
        error.nodes,
        error.master,
        error.master_address,
        error.retry_after_s,
    )


@pytest.mark.parametrize("kind", SERVICE_ERRORS.values())
def test_every_error_survives_the_detail_and_the_trailer_whole(kind: type[ServiceError]) -> None:
    error = kind("why", offset=0, nodes=2, master="b", master_address="127.0.0.1:5", retry_after_s=1.5)
    assert facts(error_from_detail(error_to_detail(error))) == facts(error)
    received = error_from_trailer(status_trailer(error))
    assert received is not None
    assert facts(received) == facts(error)


def test_an_offset_that_is_not_known_is_not_offset_0() -> None:
    assert error_from_detail(error_to_detail(Unavailable())).offset is None


def test_status_numbers_are_those_of_grpc() -> None:
    assert {name: grpc.StatusCode[name].value[0] for name in GRPC_STATUS_NUMBERS} == GRPC_STATUS_NUMBERS


def test_the_trailer_is_a_google_rpc_status() -> None:
    status = raw_pb2.RpcStatus.FromString(status_trailer(RateLimited("slow down")))
    assert (status.code, status.message) == (8, "slow down")
    [detail] = status.details
    assert detail.type_url == "type.googleapis.com/replicad.wire.v1.ErrorDetail"
    assert log_pb2.ErrorDetail.FromString(detail.value).code == 429


def test_an_error_of_a_later_release_keeps_what_it_says_about_the_message() -> None:
    error = error_from_detail(log_pb2.ErrorDetail(code=451, name="SEALED", applied="no", message="the log is sealed"))
    assert isinstance(error, InternalError)
    assert error.applied is Applied.NO
    assert "451 SEALED: the log is sealed" in str(error)


def test_what_a_known_error_says_about_the_message_is_the_senders_word() -> None:
    assert error_from_detail(log_pb2.ErrorDetail(name="UNAVAILABLE", applied="unknown")).applied is Applied.UNKNOWN
    assert error_from_detail(log_pb2.ErrorDetail(name="UNAVAILABLE", applied="maybe")).applied is Applied.UNKNOWN
    assert Unavailable.applied is Applied.NO


def test_a_retry_after_is_rounded_up_and_stays_within_its_field() -> None:
    assert error_to_detail(RateLimited(retry_after_s=0.0001)).retry_after_ms == 1
    assert error_to_detail(RateLimited(retry_after_s=1e9)).retry_after_ms == 2**32 - 1


def test_a_message_that_utf8_cannot_hold_still_gets_through() -> None:
    error = error_from_trailer(status_trailer(InternalError("file \udcff")))
    assert error is not None
    assert error.message == "file \\udcff"


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        b"\xff\xff",
        raw_pb2.RpcStatus(details=[Any(type_url="type.googleapis.com/google.rpc.RetryInfo")]).SerializeToString(),
        raw_pb2.RpcStatus(
            details=[Any(type_url="type.googleapis.com/replicad.wire.v1.ErrorDetail", value=b"\xff")]
        ).SerializeToString(),
    ],
)
def test_a_trailer_that_is_not_ours_gives_no_error(trailer: bytes) -> None:
    assert error_from_trailer(trailer) is None


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600", "\udcff"])
def test_a_long_message_is_cut_so_that_grpc_takes_the_trailers(letter: str) -> None:
    error = BadRequest(letter * 100_000, master="node-1")
    received = error_from_trailer(status_trailer(error))
    assert isinstance(received, BadRequest)
    assert received.master == "node-1"
    assert received.message == status_text(error)
    assert received.message.endswith(" ...")
    assert 990 < len(received.message.encode()) <= TEXT_BYTES
    assert status_text(BadRequest("x" * TEXT_BYTES)) == "x" * TEXT_BYTES
