"""A long cable between two interfaces: every frame comes later, some overtake others, a few come twice.

What netem does, for kernels that lack it. Owns the frames while they are under way. Must not know whose they are.
"""

from __future__ import annotations

import heapq
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
SOL_PACKET, PACKET_VNET_HDR = 263, 15  # linux/if_packet.h: a frame goes on as it came, segmented and summed later
FRAME_BYTES = 10 + 14 + (64 << 10)  # virtio_net_hdr, Ethernet, the largest that a veth hands over in one piece
UNDER_WAY = 20_000  # frames; what is more is lost, as in any queue
QUEUE_BYTES = 8 << 20


class Cable:
    """1. What was under way when it is closed is lost."""

    def __init__(self, ends: tuple[str, str], *, delay_s: float, jitter_s: float, twice: float) -> None:
        """Carry frames between the interfaces ``ends``: each takes ``delay_s`` and up to ``jitter_s`` more, by chance;
        a share ``twice`` of them comes twice."""
        self._delay_s, self._jitter_s, self._twice = delay_s, jitter_s, twice
        self._sockets = [_socket(name) for name in ends]
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._carry, name=f"cable-{ends[0]}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._waker, b".")
        self._thread.join()
        for each in self._sockets:
            each.close()
        os.close(self._wake)
        os.close(self._waker)

    def _carry(self) -> None:
        under_way: list[tuple[float, int, socket.socket, bytes]] = []
        numbers, rng = count(), random.Random()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for end, other in zip(self._sockets, reversed(self._sockets), strict=True):
                selector.register(end, selectors.EVENT_READ, other)
            while True:
                timeout = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
                for key, _ in selector.select(timeout):
                    if key.data is None:
                        return
                    frames = _arrived(key.fileobj)
                    for frame in frames:
                        for _ in range(1 + (rng.random() < self._twice)):
                            due = time.monotonic() + self._delay_s + rng.uniform(0, self._jitter_s)
                            if len(under_way) < UNDER_WAY:
                                heapq.heappush(under_way, (due, next(numbers), key.data, frame))
                while under_way and under_way[0][0] <= time.monotonic():
                    _, _, out, frame = heapq.heappop(under_way)
                    with suppress(OSError):  # the queue is full, or the other end is down: it is lost
                        out.send(frame)


def _socket(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
    made.bind((interface, ALL_PROTOCOLS))  # only now does it get frames: none of another interface
    made.setblocking(False)
    return made


def _arrived(end: object) -> Sequence[bytes]:
    """What came in there, and not what was sent."""
    assert isinstance(end, socket.socket)
    frames = []
    with suppress(BlockingIOError):
        while True:
            frame, (_, _, kind, *_) = end.recvfrom(FRAME_BYTES)
            if kind != socket.PACKET_OUTGOING:
                frames.append(frame)
    return frames
