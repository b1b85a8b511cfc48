"""Bodies and list responses: made once, taken apart whole lists at a time, refused when their lists do not fit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence

import pytest

from replicad.core.record import LEAF_HEAD, LEAF_VERSION, NO_HEADERS_DIGEST, Records, encode_headers, payload_digest
from replicad.errors import PeerError
from replicad.wire.codec import Record, decode_list_response, decode_records, encode_list_response, encode_records
from replicad.wire.v1 import log_pb2

SALT = b"s" * 16


def leaf(offset: int, message_id: str, *, epoch: int = 1, author: str = "anonymous", payload: bytes = b"p") -> bytes:
    encoded_id, encoded_author = message_id.encode(), author.encode()
    head = LEAF_HEAD.pack(
        LEAF_VERSION,
        epoch,
        offset,
        1_700_000_000_000,
        len(payload),
        payload_digest(SALT, payload),
        NO_HEADERS_DIGEST,
        len(encoded_id),
        len(encoded_author),
    )
    return head + encoded_id + encoded_author


def records(leaves: Sequence[bytes], headers: Sequence[bytes] = ()) -> Records:
    return Records(list(leaves), SALT * len(leaves), [b"p"] * len(leaves), list(headers))


def body(leaves: Sequence[bytes], headers: Sequence[bytes] = ()) -> bytes:
    return encode_records(records(leaves, headers))


def test_a_body_comes_back_as_it_was_encoded() -> None:
    original = records([leaf(7, "a"), leaf(8, "b")], [b"", encode_headers({"k": "v"})])
    assert decode_records(encode_records(original)) == original


@pytest.mark.parametrize(
    "wrong",
    [
        log_pb2.Records(leaves=[b"l"], salts=SALT, payloads=[]),
        log_pb2.Records(leaves=[b"l"], salts=SALT[:15], payloads=[b"p"]),
        log_pb2.Records(leaves=[b"l"], salts=SALT, payloads=[b"p"], headers=[b"", b""]),
        log_pb2.Records(leaves=[], salts=b"", payloads=[b"p"]),
    ],
)
def test_a_body_whose_lists_do_not_fit_each_other_is_malformed(wrong: log_pb2.Records) -> None:
    with pytest.raises(PeerError) as caught:
        decode_records(wrong.SerializeToString())
    assert caught.value.reason == "malformed"


def test_a_list_response_is_the_same_bytes_as_protobuf_makes() -> None:
    bodies = [body([leaf(0, "a")]), body([leaf(1, "b" * 100), leaf(2, "c")])]
    by_protobuf = log_pb2.ListResponse(
        commit_size=300, records=[log_pb2.Records.FromString(each) for each in bodies]
    ).SerializeToString()
    assert encode_list_response(300, bodies) == by_protobuf


def test_records_of_one_client_and_of_many_decode_alike() -> None:
    """20 leaves of one length take the way by columns; with one odd id among them they take the other."""
    even = [leaf(offset, f"id-{offset:04}") for offset in range(20)]
    odd = [*even, leaf(20, "x", author="mallory é")]
    _, [by_columns] = decode_list_response(encode_list_response(0, [body(even)]))
    _, [one_by_one] = decode_list_response(encode_list_response(0, [body(odd)]))
    assert by_columns == one_by_one[:20]
    assert [record.offset for record in by_columns] == list(range(20))
    assert (one_by_one[20].id, one_by_one[20].author) == ("x", "mallory é")


def test_leaves_of_one_length_but_different_makeup_keep_their_own_ids_and_authors() -> None:
    leaves = [leaf(i, "abc", author="de") if i % 2 else leaf(i, "ab", author="cde") for i in range(16)]
    _, [decoded] = decode_list_response(encode_list_response(0, [body(leaves)]))
    assert {(record.id, record.author) for record in decoded} == {("abc", "de"), ("ab", "cde")}
    assert [record.id for record in decoded[:2]] == ["ab", "abc"]


@pytest.mark.parametrize("change", [lambda i: {"epoch": 1 + i // 10}, lambda i: {"author": "ab"[i // 10]}])
def test_epochs_and_authors_that_change_inside_a_body_are_kept(change: Callable[[int], dict[str, object]]) -> None:
    leaves = [leaf(i, f"{i:02}", **change(i)) for i in range(20)]  # type: ignore[arg-type]
    _, [decoded] = decode_list_response(encode_list_response(0, [body(leaves)]))
    expected = [(1 + i // 10, "anonymous") if "epoch" in change(i) else (1, "ab"[i // 10]) for i in range(20)]
    assert [(record.epoch, record.author) for record in decoded] == expected


@pytest.mark.parametrize(("commit_size", "committed"), [(0, 0), (105, 5), (110, 10), (500, 10)])
def test_records_below_the_commit_size_are_committed(commit_size: int, committed: int) -> None:
    data = encode_list_response(commit_size, [body([leaf(100 + i, str(i)) for i in range(10)])])
    size, [decoded] = decode_list_response(data)
    assert size == commit_size
    assert [record.committed for record in decoded] == [True] * committed + [False] * (10 - committed)


def test_headers_come_back_as_mappings_and_cannot_be_changed() -> None:
    data = encode_list_response(0, [body([leaf(0, "a"), leaf(1, "b")], [encode_headers({"k": "v"}), b""])])
    _, [[with_headers, without]] = decode_list_response(data)
    assert (with_headers.headers, without.headers) == ({"k": "v"}, {})
    with pytest.raises(TypeError):
        with_headers.headers["k"] = "w"  # type: ignore[index]


def test_a_record_comes_whole_to_another_process() -> None:
    encoded = encode_headers({"kind": "greeting"})
    _, [[record]] = decode_list_response(encode_list_response(1, [body([leaf(0, "a")], [encoded])]))
    for there in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record)):  # noqa: S301 - our own
        assert type(there) is Record
        assert there == record
        with pytest.raises(TypeError):
            there.headers["kind"] = "other"  # type: ignore[index]


@pytest.mark.parametrize("count", [3, 30])
def test_a_gap_inside_a_body_is_refused(count: int) -> None:
    leaves = [leaf(offset, f"{offset:03}") for offset in range(count)]
    del leaves[1]
    with pytest.raises(PeerError) as caught:
        decode_list_response(encode_list_response(0, [body(leaves)]))
    assert caught.value.reason == "gap"


@pytest.mark.parametrize(
    "leaves",
    [
        [b"short"],
        [leaf(0, "a") + b"x"],
        [b"\x02" + leaf(0, "a")[1:]],
        [leaf(i, "é") for i in range(10)],
        [leaf(i, f"{i}") + b"x" for i in range(10)],
    ],
)
def test_leaves_that_are_not_leaves_are_malformed(leaves: list[bytes]) -> None:
    with pytest.raises(PeerError) as caught:
        decode_list_response(encode_list_response(0, [body(leaves)]))
    assert caught.value.reason == "malformed"


def test_a_response_with_no_records_is_a_sign_of_life() -> None:
    assert decode_list_response(encode_list_response(12, [])) == (12, [])


def test_a_record_knows_its_text_and_whether_the_log_wrote_it() -> None:
    message = log_pb2.Records(
        leaves=[leaf(0, "replicad:epoch:1"), leaf(1, "b")], salts=SALT * 2, payloads=[b"", b"\xff"]
    )
    _, [[system, binary]] = decode_list_response(encode_list_response(0, [message.SerializeToString()]))
    assert (system.is_system, system.text) == (True, "")
    assert (binary.is_system, binary.text) == (False, None)
