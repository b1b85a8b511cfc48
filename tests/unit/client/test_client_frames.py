"""Frames: how a result is shared out among those who wait, and what an error says to each."""

from __future__ import annotations

import asyncio

import pytest

from replicad.client.frames import (
    MAX_MARGIN_S,
    BulkFrame,
    CallsFrame,
    final_error,
    outcomes_of,
    timeout_error,
)
from replicad.client.types import Posted
from replicad.core.record import id_fault
from replicad.errors import (
    SERVICE_ERRORS,
    Applied,
    IdConflict,
    NotMaster,
    OutcomeUnknown,
    PeerError,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from replicad.wire.codec import PostFrameResult, PostRun, decode_post_frame


def calls_frame(*ids: str) -> CallsFrame:
    frame = CallsFrame(deadline=10.0)
    for each in ids:
        frame.ids.append(each)
        frame.payloads.append(each.encode())
        frame.headers.append(b"")
        frame.waiters.append(asyncio.get_running_loop().create_future())
        frame.size_bytes += len(each)
    return frame


def bulk_frame(*ids: str) -> BulkFrame:
    payloads = [each.encode() for each in ids]
    waiter: asyncio.Future[list[Posted]] = asyncio.get_running_loop().create_future()
    return BulkFrame(
        ids=list(ids), payloads=payloads, headers=[], size_bytes=sum(map(len, ids)), deadline=10.0, waiter=waiter
    )


def test_a_result_of_one_run_gives_each_its_offset() -> None:
    result = PostFrameResult(1, (PostRun(0, 2, 70, False),), nodes=2)
    assert outcomes_of(["a", "b"], result) == [Posted("a", 70, False, 2), Posted("b", 71, False, 2)]


def test_runs_and_errors_in_any_order_are_put_in_their_places() -> None:
    conflict = IdConflict("taken")
    result = PostFrameResult(1, (PostRun(2, 1, 9, True), PostRun(0, 1, 70, False)), ((1, conflict),), nodes=3)
    assert outcomes_of(["a", "b", "c"], result) == [Posted("a", 70, False, 3), conflict, Posted("c", 9, True, 3)]


@pytest.mark.parametrize(
    "result",
    [
        PostFrameResult(1),
        PostFrameResult(1, (PostRun(0, 1, 5, False),)),
        PostFrameResult(1, (PostRun(0, 3, 5, False),)),
        PostFrameResult(1, (PostRun(1, 2, 5, False),)),
        PostFrameResult(1, (PostRun(0, 2, 5, False), PostRun(1, 1, 9, False))),
        PostFrameResult(1, (PostRun(0, 2, 5, False),), ((1, IdConflict()),)),
        PostFrameResult(1, (PostRun(0, 1, 5, False),), ((0, IdConflict()),)),
        PostFrameResult(1, (PostRun(0, 1, 5, False),), ((2, IdConflict()),)),
    ],
)
def test_a_result_that_misses_or_repeats_a_message_is_refused(result: PostFrameResult) -> None:
    with pytest.raises(PeerError, match="frame 1"):
        outcomes_of(["a", "b"], result)


async def test_each_caller_gets_an_error_instance_of_its_own() -> None:
    frame = calls_frame("a", "b")
    frame.fail(Unavailable("down"))
    first, second = (waiter.exception() for waiter in frame.waiters)
    assert isinstance(first, Unavailable)
    assert isinstance(second, Unavailable)
    assert (first.id, second.id) == ("a", "b")


async def test_a_caller_who_has_gone_does_not_disturb_the_others() -> None:
    frame = calls_frame("a", "b")
    frame.waiters[0].cancel()
    frame.settle([Posted("a", 1, False, 2), Posted("b", 2, False, 2)])
    assert frame.waiters[1].result() == Posted("b", 2, False, 2)


async def test_only_the_first_answer_to_a_frame_counts() -> None:
    frame = bulk_frame("a")
    frame.settle([Posted("a", 1, False, 2)])
    frame.fail(Unavailable())
    assert frame.waiter.result() == [Posted("a", 1, False, 2)]


async def test_the_first_message_that_fails_fails_a_bulk_frame() -> None:
    frame = bulk_frame("a", "b", "c")
    frame.settle([Posted("a", 1, False, 2), IdConflict("b is taken"), IdConflict("c is taken")])
    error = frame.waiter.exception()
    assert isinstance(error, IdConflict)
    assert (error.id, error.message) == ("b", "b is taken")


async def test_messages_without_an_id_get_one_when_they_are_first_sent_and_keep_it() -> None:
    def ids(frame: CallsFrame) -> list[str]:
        data = frame.encode(write_concern="", now=0)
        return list(decode_post_frame(data, payload_bytes=9, frame_bytes=9).messages.ids)

    frame = calls_frame("", "mine", "")
    first, own, last = ids(frame)
    assert own == "mine"
    assert id_fault(first) is None
    assert id_fault(last) is None
    assert first < last
    assert ids(frame) == frame.ids == [first, "mine", last]
    assert ids(frame.part([2])) == [last]


async def test_an_error_of_one_caller_among_others_is_of_that_ones_message() -> None:
    frame = calls_frame("a", "b")
    frame.settle([Posted("a", 1, False, 2), IdConflict("b is taken")])
    error = frame.waiters[1].exception()
    assert isinstance(error, IdConflict)
    assert error.id == "b"


async def test_a_frame_is_halved_until_each_message_stands_alone() -> None:
    for whole in (calls_frame("a", "b", "c"), bulk_frame("a", "b", "c")):
        whole.lost, whole.tries = True, 3
        first, second = whole.split()
        assert (first.ids, second.ids, second.payloads) == (["a"], ["b", "c"], [b"b", b"c"])
        assert (first.size_bytes, second.size_bytes, second.lost, second.tries) == (1, 2, True, 3)
        assert first.split() == []


async def test_the_halves_of_a_bulk_frame_answer_for_the_whole() -> None:
    whole = bulk_frame("a", "b")
    first, second = whole.split()
    second.settle([Posted("b", 2, False, 2)])
    first.settle([Posted("a", 1, False, 2)])
    assert await whole.waiter == [Posted("a", 1, False, 2), Posted("b", 2, False, 2)]


async def test_an_error_of_either_half_fails_the_whole_bulk_frame_once_both_are_done() -> None:
    whole = bulk_frame("a", "b")
    first, second = whole.split()
    second.fail(TooLarge("b is too large"))
    await asyncio.sleep(0)
    assert not whole.waiter.done()
    first.settle([Posted("a", 1, False, 2)])
    with pytest.raises(TooLarge, match="b is too large"):
        await whole.waiter


async def test_the_timeout_sent_is_what_is_left_but_for_a_margin() -> None:
    def timeout_ms(now: float) -> int:
        data = calls_frame("a").encode(write_concern="2", now=now)
        return decode_post_frame(data, payload_bytes=1, frame_bytes=0).timeout_ms

    assert timeout_ms(9.0) == 900
    assert timeout_ms(0.0) == 1000 * (10 - MAX_MARGIN_S)
    assert timeout_ms(11.0) == 1
    assert timeout_ms(-1e9) == (1 << 32) - 1


async def test_headers_are_sent_only_when_a_message_has_any() -> None:
    def headers(frame: CallsFrame) -> list[bytes]:
        return list(
            decode_post_frame(frame.encode(write_concern="", now=0), payload_bytes=9, frame_bytes=9).messages.headers
        )

    frame = calls_frame("a", "b")
    assert headers(frame) == []
    frame.headers[1] = b"\x01k\x00\x01v"
    assert headers(frame) == [b"", b"\x01k\x00\x01v"]


@pytest.mark.parametrize("kind", SERVICE_ERRORS.values())
async def test_a_refusal_never_says_not_applied_when_an_earlier_try_may_have_been(kind: type[ServiceError]) -> None:
    frame = calls_frame("a")
    assert final_error(frame, kind(), 0).applied is kind.applied
    frame.lost = True
    if kind.applied is Applied.NO and kind is not IdConflict:
        assert final_error(frame, kind(), 0).applied is Applied.UNKNOWN
    else:
        assert final_error(frame, kind(), 0).applied is kind.applied


async def test_out_of_time_without_a_try_that_may_have_been_applied_is_the_last_refusal() -> None:
    frame = calls_frame("a")
    nothing = timeout_error(frame, in_flight=False, reason=None)
    assert (type(nothing), nothing.applied) == (Unavailable, Applied.NO)
    of_client = timeout_error(frame, in_flight=False, reason=Unauthorized("who?"))
    assert (type(of_client), of_client.message) == (Unauthorized, "who?")
    frame.last_error = NotMaster("not me")
    assert isinstance(timeout_error(frame, in_flight=False, reason=None), NotMaster)


@pytest.mark.parametrize("in_flight", [True, False])
async def test_out_of_time_with_a_try_unanswered_is_an_unknown_outcome_and_names_the_last_refusal(
    in_flight: bool,
) -> None:
    frame = calls_frame("a")
    frame.lost = not in_flight
    frame.last_error = NotMaster("not me")
    error = timeout_error(frame, in_flight=in_flight, reason=None)
    assert (type(error), error.applied) == (OutcomeUnknown, Applied.UNKNOWN)
    assert "not me" in error.message
