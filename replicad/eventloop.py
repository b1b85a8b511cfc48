"""The event loop that our own programs run on: uvloop, whose turns cost a fraction of asyncio's own (docs/adr/0028).

Owns that choice. The library leaves it to its host program. Where uvloop is not there, it is asyncio's own: while
packages are upgraded, and when that was broken off, our files may be there already, and what they newly depend on not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

try:
    from uvloop import new_event_loop

    IS_UVLOOP = True
except ModuleNotFoundError:
    from asyncio import new_event_loop  # type: ignore[assignment]

    IS_UVLOOP = False

T = TypeVar("T")

#: uvloop's clock and timers are in whole milliseconds: one set for less may come at once.
TICK_S = 0.001


def run(main: Coroutine[Any, Any, T]) -> T:
    """As :func:`asyncio.run`."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
