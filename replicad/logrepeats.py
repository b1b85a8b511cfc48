"""Events that repeat while their cause lasts: logged at first, then at growing intervals with a count.

Owns the intervals and the counts. Must not know how a line is written. It goes by the event, its peer and its reason:
another reason, another peer or another event is logged at once, whatever else repeats.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from replicad.logevents import EVENTS

AT_ONCE = 10  # so many are logged as they come: a restart or two of a peer is told whole
FIRST_S = 10.0  # then one after so long, and after twice that, and so on
LONGEST_S = 3600.0  # a worker that is away for a week is a line an hour
QUIET_S = 600.0  # what has not happened for so long, and for an interval, is new when it does
KINDS = 1024  # of repeats that are remembered at a time: more are peers' doing, and the oldest is forgotten

Key = tuple[str, str, str]  # event, peer, reason


@dataclass(slots=True)
class _Repeat:
    latest: logging.LogRecord
    at_once: int = AT_ONCE
    interval_s: float = FIRST_S
    due: float = 0.0  # when the next one is logged
    seen: float = 0.0
    left_out: int = 0

    def told(self, now: float) -> None:
        """The latest is logged, with the count of those that were not."""
        self.due = now + self.interval_s
        if self.left_out:
            fields: Mapping[str, object] = getattr(self.latest, "replicad_fields", {})
            self.latest.replicad_fields = {**fields, "left_out": self.left_out}
            self.left_out = 0


class Repeats(logging.Filter):
    """1. Whatever is left out is counted, and the count is logged: as ``left_out`` of the next one like it, or of the
    last one, once more, when there is no next one within the interval.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._repeats: dict[Key, _Repeat] = {}
        self._forgotten: list[_Repeat] = []  # and their count is not told yet

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; it gains ``left_out`` where there is something to tell."""
        event: str = getattr(record, "replicad_event", "")
        if record.levelno <= logging.DEBUG or event not in EVENTS or not EVENTS[event].repeats:
            return True
        fields: Mapping[str, object] = getattr(record, "replicad_fields", {})
        key = (event, str(fields.get("peer", "")), str(fields.get("reason", "")))
        repeat, now = self._repeat(key, record), self._clock()
        if now - repeat.seen > max(QUIET_S, repeat.interval_s):
            repeat.at_once, repeat.interval_s = AT_ONCE, FIRST_S
        repeat.seen, repeat.latest = now, record
        if repeat.at_once:
            repeat.at_once -= 1
        elif now < repeat.due:
            repeat.left_out += 1
            return False
        else:
            repeat.interval_s = min(2 * repeat.interval_s, LONGEST_S)
        repeat.told(now)
        return True

    def owed(self, *, all_of_them: bool = False) -> Iterator[logging.LogRecord]:
        """The latest of those that were left out and had no successor by now, with the count of them."""
        now = self._clock()
        forgotten, self._forgotten = self._forgotten, []
        for repeat in forgotten:
            repeat.told(now)
            yield repeat.latest
        for repeat in self._repeats.values():
            if repeat.left_out and (all_of_them or now >= repeat.due):
                repeat.interval_s = min(2 * repeat.interval_s, LONGEST_S)
                repeat.told(now)
                yield repeat.latest

    def _repeat(self, key: Key, record: logging.LogRecord) -> _Repeat:
        repeat = self._repeats.get(key)
        if repeat is None:
            if len(self._repeats) >= KINDS:
                oldest = self._repeats.pop(next(iter(self._repeats)))
                if oldest.left_out:
                    self._forgotten.append(oldest)
            repeat = self._repeats[key] = _Repeat(record, seen=self._clock())
        return repeat
