"""Simulated time: what happens next, one source of chance, and the transcript of what happened.

Everything in a simulation is a function of the seed: no clock, no threads, no iteration over sets. Must not know what
is simulated.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import NoReturn

TRANSCRIPT_STEPS = 200  # enough to see the cause in nearly all cases, few enough to read


class Violation(AssertionError):
    """A promise of semantics.md is broken, or a machine did what it must never do."""


class World:
    """1. Actions happen in the order of their times, and in the order they were asked for when times are the same."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.actions = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._asked = 0
        self._transcript: deque[tuple[float, str, tuple[object, ...]]] = deque(maxlen=TRANSCRIPT_STEPS)

    def after(self, delay_s: float, action: Callable[..., None], *args: object) -> None:
        """Let ``action(*args)`` happen ``delay_s`` from now."""
        self._asked += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._asked, action, args))

    def at(self, when: float, action: Callable[..., None], *args: object) -> None:
        """Let ``action(*args)`` happen at a time that is not past."""
        self._asked += 1
        heapq.heappush(self._queue, (max(when, self.now), self._asked, action, args))

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until ``done()`` (asked after every action), or until that time; whether it was done."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, action, args = heapq.heappop(queue)
            self.actions += 1
            action(*args)
            if done is not None and done():
                return True
        self.now = max(self.now, until)
        return done is not None and done()

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def around(self, mean: float) -> float:
        """A duration: exponential, so that now and then one is many times as long as another."""
        return self.rng.expovariate(1.0 / mean)

    def log(self, who: str, *what: object) -> None:
        """Add a line to the transcript; it is put into words only if somebody will read it."""
        self._transcript.append((self.now, who, what))

    def fail(self, text: str) -> NoReturn:
        raise Violation(text)

    def transcript(self, describe: Callable[[object], str]) -> list[str]:
        """The last steps, a line each, oldest first."""
        return [
            f"{when:10.6f}  {who:<10} {' '.join(describe(part) for part in what)}"
            for when, who, what in self._transcript
        ]
