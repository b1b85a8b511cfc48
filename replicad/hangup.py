"""SIGHUP from the first line on, before there is a loop that takes it. Imports nothing that starts slowly."""

from __future__ import annotations

import signal
from types import FrameType


class Hangup:
    """Remembers a SIGHUP, which by default would end a node that reads its files. It may have read them already as they
    were before, so what is asked for is done once it runs."""

    def __init__(self) -> None:
        self.came = False
        self._before = signal.signal(signal.SIGHUP, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True

    def leave(self) -> None:
        """Let it do what it did before."""
        signal.signal(signal.SIGHUP, self._before)
