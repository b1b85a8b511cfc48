"""What callers give to post: checked, and cut into frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from replicad.client.cutting import FIRST_READ, checked_id, content_of, cut_frames, headers_bytes, payload_bytes, split
from replicad.client.frames import FRAME_BYTES, FRAME_MESSAGES
from replicad.client.ids import UuidV7Source
from replicad.client.types import NewMessage
from replicad.core.record import encode_headers
from replicad.errors import BadRequest

IDS = UuidV7Source()


def test_bytes_text_and_whole_messages_may_be_mixed() -> None:
    content = content_of([b"a", "é", NewMessage("c", id="mine", headers={"k": "v"})], IDS)
    assert content.payloads == [b"a", "é".encode(), b"c"]
    assert content.ids[2] == "mine"
    assert len(set(content.ids)) == 3
    assert content.headers == [b"", b"", encode_headers({"k": "v"})]
    assert content.size_bytes == 4 + len(content.headers[2])


def test_messages_without_headers_have_no_headers_at_all() -> None:
    assert content_of([NewMessage("a"), "b"], IDS).headers == []


def test_all_that_can_be_viewed_as_bytes_is_a_payload() -> None:
    assert [payload_bytes(each) for each in (b"a", bytearray(b"b"), memoryview(b"c"), "d")] == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize("wrong", [None, 7, ["x"], "\ud800"])
def test_what_is_no_payload_is_a_bad_request(wrong: object) -> None:
    with pytest.raises(BadRequest, match="payload"):
        payload_bytes(wrong)


@pytest.mark.parametrize("wrong", ["", "x" * 129, "é", "replicad:x", 7])
def test_what_is_no_id_is_a_bad_request(wrong: str) -> None:
    with pytest.raises(BadRequest):
        checked_id(wrong)


@pytest.mark.parametrize("wrong", [{"": "v"}, {"k": "v" * 5000}, {"k": 7}, {7: "v"}, {"\ud800": "v"}])
def test_headers_beyond_their_limits_are_a_bad_request(wrong: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="headers"):
        headers_bytes(wrong)


def test_frames_hold_all_messages_in_order_within_the_limits() -> None:
    messages = [bytes([index % 256]) * (index * 7919 % 3000) for index in range(9000)]
    frames = list(cut_frames(messages, IDS))
    assert list(itertools.chain.from_iterable(frame.payloads for frame in frames)) == messages
    assert all(frame.size_bytes == sum(map(len, frame.payloads)) <= FRAME_BYTES for frame in frames)
    ids = list(itertools.chain.from_iterable(frame.ids for frame in frames))
    assert ids == sorted(set(ids))


def test_small_messages_soon_fill_whole_frames() -> None:
    sizes = [len(frame.ids) for frame in cut_frames([b"x"] * 20_000, IDS)]
    assert max(sizes) == FRAME_MESSAGES
    assert len(sizes) < 12


def test_a_message_larger_than_a_frame_goes_alone() -> None:
    large = b"x" * (FRAME_BYTES + 1)
    frames = list(cut_frames([b"a", large, b"b", large, large], IDS))
    assert [len(frame.ids) for frame in frames] == [1, 1, 1, 1, 1]


def test_headers_count_for_a_frames_size() -> None:
    headers = {f"k{index}": "v" * 4000 for index in range(60)}
    content = content_of([NewMessage(b"x", headers=headers)] * 4, IDS)
    parts = list(split(content))
    assert [len(part.ids) for part in parts] == [2, 2]
    assert sum(part.size_bytes for part in parts) == content.size_bytes


def test_large_messages_are_read_only_a_few_ahead() -> None:
    read = 0

    def messages() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * (FRAME_BYTES // 2)

    frames = cut_frames(messages(), IDS)
    for _ in range(FIRST_READ):
        next(frames)
    before = read
    next(frames)
    next(frames)
    assert read - before <= 4


def test_an_input_of_nothing_is_no_frame() -> None:
    assert list(cut_frames([], IDS)) == []
