"""The coalescer: collects messages into frames and says which frame goes next.

A lane is for one write concern and one timeout. Lanes do not wait for each other: frames that wait for three nodes
never hold up frames that need one. Must not know streams, nodes or results.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from replicad.client.frames import FRAME_BYTES, FRAME_MESSAGES, CallsFrame, Frame
from replicad.client.types import Posted

WINDOW_BYTES = 8 << 20  # of a lane, sent and not yet answered: two round trips at 1 Gbit/s and 30 ms
MAX_SPREAD_S = 0.05  # between the first and the last caller of a frame: they share the first one's deadline
_IDLE_LANES = 64  # kept for the next caller; a timeout computed anew for each call makes a lane for each

LaneKey = tuple[str, float]  # write concern, timeout in seconds


class Lane:
    """Frames of one write concern and one timeout, in the order they are to be sent.

    1. ``open`` still takes messages; it goes after all in ``ready``.
    2. ``in_flight_bytes`` is the size of what was sent and is not yet answered.
    """

    __slots__ = ("held_until", "in_flight_bytes", "key", "open", "ready", "spread_s")

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.open: CallsFrame | None = None
        self.ready: deque[Frame] = deque()
        self.in_flight_bytes = 0
        self.held_until = 0.0  # by the loop's clock: the server asked for a pause
        self.spread_s = min(MAX_SPREAD_S, key[1] / 10)

    def pending(self) -> Iterator[Frame]:
        """Frames that wait to be sent. Forgets those at the head that ran out of time, so that a long outage does not
        pile them up."""
        while self.ready and self.ready[0].done:
            self.ready.popleft()
        yield from (frame for frame in self.ready if not frame.done)
        if self.open is not None and not self.open.done:
            yield self.open

    def is_idle(self) -> bool:
        return not self.in_flight_bytes and next(self.pending(), None) is None


class Lanes:
    """All lanes of a client. ``started`` is called with each frame that callers' messages begin."""

    def __init__(self, loop: asyncio.AbstractEventLoop, started: Callable[[Lane, CallsFrame], None]) -> None:
        self._loop = loop
        self._started = started
        self._lanes: dict[LaneKey, Lane] = {}  # in the order in which they are served next

    def add(self, key: LaneKey, message_id: str, payload: bytes, headers: bytes) -> asyncio.Future[Posted]:
        """Put a message into its lane's open frame; the future has its outcome. The work for each caller: the rest is
        done for a frame of them."""
        lane = self._lanes.get(key) or self._new_lane(key)
        frame, size, now = lane.open, len(payload) + len(headers), self._loop.time()
        if (
            frame is None
            or now > frame.closes_at
            or frame.size_bytes + size > FRAME_BYTES
            or len(frame.ids) >= FRAME_MESSAGES
            or frame.done
        ):
            frame = self._begin(lane, now)
        waiter: asyncio.Future[Posted] = self._loop.create_future()
        frame.ids.append(message_id)
        frame.payloads.append(payload)
        frame.headers.append(headers)
        frame.waiters.append(waiter)
        frame.size_bytes += size
        return waiter

    def _begin(self, lane: Lane, now: float) -> CallsFrame:
        """A new open frame, behind the one that was."""
        if lane.open is not None:
            lane.ready.append(lane.open)
        frame = lane.open = CallsFrame(deadline=now + lane.key[1], closes_at=now + lane.spread_s)
        self._started(lane, frame)
        return frame

    def lane(self, key: LaneKey) -> Lane:
        return self._lanes.get(key) or self._new_lane(key)

    def take(self, now: float) -> tuple[Lane, Frame] | None:
        """The frame to send next, of the lane that was served longest ago; None when none may go now."""
        for key, lane in self._lanes.items():
            if lane.in_flight_bytes >= WINDOW_BYTES or lane.held_until > now:
                continue
            frame = self._take_from(lane)
            if frame is not None:
                del self._lanes[key]
                self._lanes[key] = lane
                return lane, frame
        return None

    def pending(self) -> list[Frame]:
        """All frames that wait to be sent."""
        return [frame for lane in self._lanes.values() for frame in lane.pending()]

    def has_pending(self) -> bool:
        return any(next(lane.pending(), None) is not None for lane in self._lanes.values())

    def _take_from(self, lane: Lane) -> Frame | None:
        while lane.ready:
            frame = lane.ready.popleft()
            if not frame.done:
                return frame
        opened, lane.open = lane.open, None
        return opened if opened is not None and not opened.done else None

    def _new_lane(self, key: LaneKey) -> Lane:
        if len(self._lanes) >= _IDLE_LANES:
            self._lanes = {each.key: each for each in self._lanes.values() if not each.is_idle()}
        lane = self._lanes[key] = Lane(key)
        return lane
