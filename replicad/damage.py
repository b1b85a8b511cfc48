"""What is known to be damaged on this node's disk, until it is whole again.

Owns who is told of it, once. Must not know how it is found or repaired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replicad.errors import DamagedError
from replicad.logs import Logger

_NO_OFFSET = -1  # for what lies in no record


class Damage:
    """1. ``noticed`` is set whenever something new is found."""

    def __init__(self, *, log: Logger, changed: Callable[[], None]) -> None:
        """``changed`` is called when ``text`` is another one."""
        self._log, self._changed = log, changed
        self._found: dict[int, str] = {}
        self.noticed = asyncio.Event()

    @property
    def offsets(self) -> list[int]:
        """Of the records that can't be read, as far as they are known."""
        return sorted(offset for offset in self._found if offset != _NO_OFFSET)

    @property
    def text(self) -> str:
        """What an operator should know; "" for nothing."""
        if not self._found:
            return ""
        first = min(self._found)
        others = f", and {len(self._found) - 1} more" if len(self._found) > 1 else ""
        at = f" at offset {first}" if first != _NO_OFFSET else ""
        return f"damaged on disk{at}: {self._found[first]}{others}"

    def found(self, fault: DamagedError) -> None:
        """Somebody has met it, perhaps again."""
        offset = _NO_OFFSET if fault.offset is None else fault.offset
        if offset in self._found:
            return
        self._found[offset] = str(fault)
        remedy = "a copy of another node is to replace it"
        if fault.offset is None:
            remedy = "where a scrub can't repair it, stop the node and run `replicad-cli rebuild`"
        text = f"{fault}; it is not given out, and {remedy}"
        self._log.error("damaged", text, offset=fault.offset)
        self.noticed.set()
        self._changed()

    def is_whole(self, start: int, end: int) -> None:
        """Offsets ``start`` to ``end - 1`` are what was written."""
        self._forget(lambda offset: start <= offset < end)

    def all_is_whole(self) -> None:
        """The whole log was looked over, and so was what is kept beside it."""
        self._forget(lambda _: True)

    def _forget(self, is_whole: Callable[[int], bool]) -> None:
        left = {offset: text for offset, text in self._found.items() if not is_whole(offset)}
        if left != self._found:
            self._found = left
            self._changed()
