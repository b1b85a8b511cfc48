"""The coalescer: what goes together, what goes first, and who never waits for whom."""

from __future__ import annotations

import asyncio

from replicad.client.frames import FRAME_BYTES, FRAME_MESSAGES, CallsFrame, Frame
from replicad.client.lanes import WINDOW_BYTES, Lane, LaneKey, Lanes

ONE: LaneKey = ("1", 10.0)
THREE: LaneKey = ("3", 10.0)


class Setting:
    """Lanes, with all frames that were begun."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun: list[CallsFrame] = []
        self.lanes = Lanes(self.loop, lambda lane, frame: self.begun.append(frame))

    def add(self, key: LaneKey, message_id: str, payload: bytes = b"p") -> None:
        self.lanes.add(key, message_id, payload, b"").cancel()

    def take(self) -> list[str] | None:
        taken = self.lanes.take(self.loop.time())
        return None if taken is None else taken[1].ids

    def taken(self) -> tuple[Lane, Frame]:
        taken = self.lanes.take(self.loop.time())
        assert taken is not None
        return taken


async def test_what_is_posted_before_the_frame_goes_goes_in_it() -> None:
    setting = Setting()
    for message_id in "abc":
        setting.add(ONE, message_id)
    assert setting.take() == ["a", "b", "c"]
    assert setting.take() is None
    assert len(setting.begun) == 1
    assert not setting.lanes.has_pending()


async def test_each_write_concern_and_timeout_has_frames_of_its_own_that_take_turns() -> None:
    setting = Setting()
    setting.add(THREE, "a")
    setting.add(ONE, "b")
    setting.add(THREE, "c")
    assert setting.take() == ["a", "c"]
    setting.add(THREE, "d")
    assert setting.take() == ["b"]
    assert setting.take() == ["d"]


async def test_a_lane_with_a_full_window_does_not_hold_up_another() -> None:
    setting = Setting()
    setting.add(THREE, "a")
    lane, _ = setting.taken()
    lane.in_flight_bytes = WINDOW_BYTES
    setting.add(THREE, "b")
    setting.add(ONE, "c")
    setting.add(THREE, "d")
    assert setting.take() == ["c"]
    assert setting.take() is None
    lane.in_flight_bytes -= 1
    assert setting.take() == ["b", "d"]


async def test_a_lane_that_the_server_asked_to_pause_waits() -> None:
    setting = Setting()
    setting.add(ONE, "a")
    setting.lanes.lane(ONE).held_until = setting.loop.time() + 60
    assert setting.take() is None
    assert setting.lanes.take(setting.loop.time() + 61) is not None


async def test_frames_are_closed_when_full_and_sent_in_order() -> None:
    setting = Setting()
    setting.lanes.lane(ONE).spread_s = 60.0  # however slow this machine is now
    for index in range(FRAME_MESSAGES + 1):
        setting.add(ONE, str(index))
    setting.add(ONE, "large", b"x" * FRAME_BYTES)
    setting.add(ONE, "last")
    sizes = [len(setting.take() or []) for _ in range(4)]
    assert sizes == [FRAME_MESSAGES, 1, 1, 1]


async def test_a_frame_takes_no_caller_who_came_much_later_than_its_first() -> None:
    """They share the first one's deadline."""
    setting = Setting()
    setting.add(ONE, "a")
    setting.begun[0].closes_at -= 1.0  # as if it had been begun a second ago
    setting.add(ONE, "b")
    assert setting.take() == ["a"]
    assert setting.take() == ["b"]


async def test_frames_whose_callers_have_their_answer_are_not_sent() -> None:
    setting = Setting()
    setting.add(ONE, "a")
    setting.begun[0].finish()
    assert not setting.lanes.has_pending()
    assert setting.take() is None
    setting.add(ONE, "b")
    setting.begun[1].finish()
    setting.add(ONE, "c")
    assert setting.take() == ["c"]


async def test_frames_that_ran_out_of_time_in_an_outage_are_not_kept() -> None:
    setting = Setting()
    for index in range(FRAME_MESSAGES * 3):
        setting.add(ONE, str(index))
    for frame in setting.begun:
        frame.finish()
    assert not setting.lanes.has_pending()
    assert not setting.lanes.lane(ONE).ready


async def test_lanes_of_timeouts_used_once_are_not_kept_for_ever() -> None:
    setting = Setting()
    for index in range(1000):
        setting.add(("1", 1.0 + index), str(index))
        setting.taken()
    assert len(setting.lanes._lanes) <= 65
