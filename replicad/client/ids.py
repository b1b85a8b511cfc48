"""Message ids: UUIDv7, RFC 9562 section 5.7. Owns their monotony within a process; knows nothing of messages."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable

_LOW_BITS = 48  # the last group of a UUID's text: what counts up
_SEED_BITS = 47  # one bit less at the start of a millisecond: room for 2**47 ids in it


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class UuidV7Source:
    """Makes UUIDv7 texts, each greater than all before it, also when the clock stands still or steps back.

    After RFC 9562 section 6.2, method 1: within a millisecond the last 48 bits count up from a random start; the other
    26 random bits stay. So all ids of a millisecond share their first 24 characters, and a batch costs little more
    than its last groups. May be used from several threads.
    """

    def __init__(
        self, *, now_ms: Callable[[], int] = _now_ms, random_bits: Callable[[int], int] = secrets.randbits
    ) -> None:
        self._now_ms = now_ms
        self._random_bits = random_bits
        self._lock = threading.Lock()
        self._ms = -1
        self._prefix = ""
        self._low = 0

    def one(self) -> str:
        """A new id, greater than all before it."""
        with self._lock:
            low = self._take(1)
            return f"{self._prefix}{low:012x}"

    def many(self, count: int) -> list[str]:
        """``count`` new ids, ascending, greater than all before them."""
        with self._lock:
            low, prefix = self._take(count), self._prefix
        return [f"{prefix}{each:012x}" for each in range(low, low + count)]

    def _take(self, count: int) -> int:
        """The first of ``count`` values of the last group, under the present prefix."""
        now_ms = self._now_ms()
        if now_ms > self._ms or self._low + count >= 1 << _LOW_BITS:
            self._begin(max(now_ms, self._ms + 1))
        low = self._low
        self._low += count
        return low

    def _begin(self, ms: int) -> None:
        time_text = f"{ms & (1 << 48) - 1:012x}"
        bits = self._random_bits(12 + 14 + _SEED_BITS)  # in one go: each asks the system
        version_and_a = 0x7000 | bits >> 14 + _SEED_BITS
        variant_and_b = 0x8000 | bits >> _SEED_BITS & (1 << 14) - 1
        self._ms = ms
        self._prefix = f"{time_text[:8]}-{time_text[8:]}-{version_and_a:04x}-{variant_and_b:04x}-"
        self._low = bits & (1 << _SEED_BITS) - 1

    def forget(self) -> None:
        """Begin anew. For a forked child, which would otherwise make the ids that its parent makes."""
        self._lock = threading.Lock()
        self._ms = -1


#: The process's own source.
PROCESS_IDS = UuidV7Source()
os.register_at_fork(after_in_child=PROCESS_IDS.forget)
