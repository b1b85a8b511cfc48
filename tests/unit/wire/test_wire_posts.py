"""The gate for posts: what a frame must be, and that a refusal names the message at fault and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from replicad.core.record import Messages, encode_headers
from replicad.errors import BadRequest, IdConflict, NotMaster, PeerError, TooLarge
from replicad.wire.codec import (
    FrameError,
    PostFrame,
    PostFrameResult,
    PostRun,
    decode_post_frame,
    decode_post_request,
    decode_post_results,
    encode_post_frame,
    encode_post_results,
)
from replicad.wire.v1 import log_pb2

LABELS = encode_headers({"kind": "order"})


def decode(data: bytes, *, payload_bytes: int = 100, frame_bytes: int = 200) -> PostFrame:
    return decode_post_frame(data, payload_bytes=payload_bytes, frame_bytes=frame_bytes)


def frame(ids: Sequence[str], payloads: Sequence[bytes] | None = None, headers: Sequence[bytes] = ()) -> bytes:
    if payloads is None:
        payloads = [b"p"] * len(ids)
    return encode_post_frame(9, ids, payloads, headers, write_concern="majority", timeout_ms=1500)


def refusal(data: bytes) -> FrameError:
    with pytest.raises(FrameError) as caught:
        decode(data)
    assert caught.value.sequence == 9
    return caught.value


def test_a_frame_comes_back_as_it_was_encoded() -> None:
    assert decode(frame(["a", "b"], [b"", b"xy"], [b"", LABELS])) == PostFrame(
        9, Messages(["a", "b"], [b"", b"xy"], [b"", LABELS], 2 + len(LABELS)), "majority", 1500
    )


def test_headers_that_are_all_empty_are_no_headers() -> None:
    assert decode(frame(["a", "b"], None, [b"", b""])).messages.headers == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame([]), "no message"),
        (frame(["a"], [b"x", b"y"]), "1 ids, 2 payloads"),
        (frame(["a", "b"], None, [LABELS]), "1 headers"),
        (frame(["a", ""]), "message 1: id has 0 characters"),
        (frame(["a", "b" * 129]), "message 1: id has 129 characters"),
        (frame(["a", "b", "é"]), "message 2: id 'é' is not printable ASCII"),
        (frame(["b", "a\n"]), "message 1: id 'a\\n'"),
        (frame(["a", "replicad:epoch:3"]), "message 1: id 'replicad:epoch:3'"),
        (frame(["a", "b"], None, [b"", LABELS[:-1]]), "message 1: headers are malformed"),
        (frame(["a", "b"], None, [LABELS + LABELS, b""]), "message 0: headers are not sorted"),
        (frame(["a"], None, [encode_headers({"replicad:x": "1"})]), "'replicad:x' begins with 'replicad:'"),
        (frame(["a"], None, [encode_headers({"replicad:encrypted": "yes"})]), "is not 'fernet:' and a content tag"),
    ],
)
def test_a_bad_frame_is_refused_with_its_sequence_and_the_message_at_fault(data: bytes, words: str) -> None:
    error = refusal(data).error
    assert isinstance(error, BadRequest)
    assert words in str(error)


def test_the_header_that_says_encrypted_is_taken_with_a_content_tag_and_the_prefix_elsewhere_is_no_fault() -> None:
    good = [
        encode_headers({"replicad:encrypted": "fernet:" + "-aZ_9" * 8 + "abc"}),
        encode_headers({"my-replicad:": ""}),
    ]
    assert decode(frame(["a", "b"], None, good)).messages.headers == good


def test_a_single_post_is_refused_a_reserved_header_with_the_remedy() -> None:
    request = log_pb2.PostRequest(id="a", headers={"replicad:mine": "1"}).SerializeToString()
    with pytest.raises(BadRequest, match=r"'replicad:mine' begins with 'replicad:', .*; rename it"):
        decode_post_request(request, payload_bytes=10)


def test_the_reserved_prefix_inside_or_across_ids_is_no_fault() -> None:
    assert decode(frame(["my-replicad:1", "repli", "cad:2"])).messages.ids == ["my-replicad:1", "repli", "cad:2"]


def test_a_payload_over_the_limit_is_refused_by_index_with_the_limit_named() -> None:
    error = refusal(frame(["a", "b"], [b"x" * 100, b"x" * 101])).error
    assert isinstance(error, TooLarge)
    assert "message 1" in str(error)
    assert "limits.payload on every node" in str(error)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (frame(["a"], [b"x" * 101]), "the payload has 101 bytes"),
        (frame(["b" * 129]), "id has 129 characters"),
        (frame(["a"], None, [LABELS[:-1]]), "headers are malformed"),
    ],
)
def test_who_posts_one_message_is_told_no_number(data: bytes, told: str) -> None:
    assert str(refusal(data).error).startswith(told)


def test_a_frame_may_hold_its_limit_and_one_largest_payload_but_no_more() -> None:
    full = frame(["a", "b", "c"], [b"x" * 100] * 3)
    assert decode(full).messages.size_bytes == 300
    assert isinstance(refusal(frame(list("abcd"), [b"x" * 100] * 3 + [b"x"])).error, TooLarge)
    assert isinstance(refusal(frame(list("abc"), [b"x" * 100] * 3, [b"", b"", LABELS])).error, TooLarge)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", frame(["a"])[:-1], b"\x12\x01\xff"])
def test_bytes_that_are_no_frame_are_a_bad_request(garbage: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(garbage)


def test_a_single_post_is_a_frame_of_one() -> None:
    request = log_pb2.PostRequest(id="a", payload=b"xy", headers={"kind": "order"}, write_concern="2", timeout_ms=7)
    assert decode_post_request(request.SerializeToString(), payload_bytes=2) == PostFrame(
        0, Messages(["a"], [b"xy"], [LABELS], 2 + len(LABELS)), "2", 7
    )


@pytest.mark.parametrize(
    "request_message",
    [
        log_pb2.PostRequest(payload=b"x"),
        log_pb2.PostRequest(id="replicad:x"),
        log_pb2.PostRequest(id="a", headers={"": "v"}),
        log_pb2.PostRequest(id="a", headers={"k": "v" * 5000}),
    ],
)
def test_a_bad_single_post_is_a_bad_request(request_message: log_pb2.PostRequest) -> None:
    with pytest.raises(BadRequest):
        decode_post_request(request_message.SerializeToString(), payload_bytes=2)


def test_a_single_post_that_is_too_large_or_no_message_is_refused() -> None:
    with pytest.raises(TooLarge):
        decode_post_request(log_pb2.PostRequest(id="a", payload=b"xyz").SerializeToString(), payload_bytes=2)
    with pytest.raises(BadRequest):
        decode_post_request(b"\xff", payload_bytes=2)


def test_results_come_back_as_they_were_encoded() -> None:
    results = [
        PostFrameResult(1, runs=(PostRun(0, 3, 70, False), PostRun(4, 1, 8, True)), nodes=2),
        PostFrameResult(2, runs=(PostRun(0, 1, 9, False),), errors=((1, IdConflict("taken", offset=5)),)),
        PostFrameResult(3, error=NotMaster("ask b", master="b", master_address="127.0.0.1:2")),
    ]
    decoded = decode_post_results(encode_post_results(results))
    assert decoded[0] == results[0]
    assert decoded[1].runs == results[1].runs
    [(index, conflict)] = decoded[1].errors
    assert (index, type(conflict), conflict.message, conflict.offset) == (1, IdConflict, "taken", 5)
    assert isinstance(decoded[2].error, NotMaster)
    assert decoded[2].error.master_address == "127.0.0.1:2"


def test_a_result_with_an_error_for_all_and_runs_beside_it_is_malformed() -> None:
    message = log_pb2.PostFrameResults()
    result = message.results.add(sequence=1)
    result.runs.add(count=1)
    result.error.name = "UNAVAILABLE"
    with pytest.raises(PeerError):
        decode_post_results(message.SerializeToString())
