"""Waiting in tests: for a condition, with a deadline, never for a time. Knows nothing of what is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_AGAIN_S = 0.02  # between two looks: what is waited for takes many of these, and a look may be a call


async def eventually(look: Callable[[], Awaitable[T | None]], *, within_s: float, what: str) -> T:
    """The first true thing that ``look`` gives; AssertionError, with the last thing it gave, after ``within_s``."""
    deadline = time.monotonic() + within_s
    while not (seen := await look()):
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s; last seen: {seen!r}"
        await asyncio.sleep(LOOK_AGAIN_S)
    return seen


def eventually_true(look: Callable[[], T | None], *, within_s: float, what: str) -> T:
    """The same for a blocking look."""
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s; last seen: {seen!r}"
        time.sleep(LOOK_AGAIN_S)
    return seen
