"""How much each principal, and all of them, may post a second: token buckets that take a whole frame at once.

Pure: the time is an argument. Must not know frames: it is told how many messages and bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

REMEMBERED = 8192  # buckets, twice as many as there can be principals; one that is full again need not be remembered


@dataclass(frozen=True, slots=True)
class Rate:
    """A second's worth; 0: no limit."""

    messages: int = 0
    size_bytes: int = 0


class Bucket:
    """Fills at ``rate`` a second up to ``burst_s`` seconds' worth.

    A frame goes through when there is enough for it, or when the bucket is full, however large the frame: the bucket
    owes the rest then, and the rate holds over time.
    """

    __slots__ = ("_at", "_level", "_rate", "burst")

    def __init__(self, rate: float, burst_s: float, now: float) -> None:
        self._rate, self.burst = rate, max(1.0, rate * burst_s)
        self._level, self._at = self.burst, now

    def wait_s(self, amount: float, now: float) -> float:
        """How long until so much may be taken; 0 when it may now."""
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self.burst) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        self._level -= amount


class Rates:
    """1. A frame is taken from all its buckets or from none. 2. A bucket starts full; with a changed rate, anew."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float, Bucket]] = OrderedDict()
        self.total = Rate()
        self.burst_s = 1.0
        self.rate_of: Callable[[str], Rate] = lambda _: Rate()

    def configure(self, *, total: Rate, burst_s: float, rate_of: Callable[[str], Rate]) -> None:
        """``rate_of`` gives a principal's rate by its name."""
        self.total, self.burst_s, self.rate_of = total, burst_s, rate_of

    def admit(self, name: str, *, messages: int, size_bytes: int, now: float) -> tuple[float, str]:
        """Take the frame: (0, ""). Or take nothing: seconds to wait, and which limit says so."""
        own = self.rate_of(name)
        asked = (
            (own.messages, name, "messages", messages),
            (own.size_bytes, name, "bytes", size_bytes),
            (self.total.messages, "", "messages", messages),
            (self.total.size_bytes, "", "bytes", size_bytes),
        )
        taken = [(self._bucket(who, unit, rate, now), amount, who, unit) for rate, who, unit, amount in asked if rate]
        waits = [(bucket.wait_s(amount, now), who, unit) for bucket, amount, who, unit in taken]
        longest, who, unit = max(waits, default=(0.0, "", ""))
        if longest > 0:
            return longest, f"{unit} a second of {who or 'all principals together'}"
        for bucket, amount, _, _ in taken:
            bucket.take(amount)
        return 0.0, ""

    def _bucket(self, who: str, unit: str, rate: float, now: float) -> Bucket:
        found = self._buckets.get((who, unit))
        if found is None or found[:2] != (rate, self.burst_s):
            found = (rate, self.burst_s, Bucket(rate, self.burst_s, now))
            self._buckets[who, unit] = found
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end((who, unit))
        return found[2]
