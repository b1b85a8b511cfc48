"""How long to wait before trying again. Pure: chance is an argument."""

from __future__ import annotations

import random


def backoff_s(attempt: int, *, low_s: float, high_s: float, rng: random.Random) -> float:
    """Seconds before try number ``attempt`` + 1: exponential from ``low_s`` to ``high_s``, with half of it jitter.

    Attempt 0 waits about ``low_s``. The jitter keeps many who lost the same node from coming back at once.
    """
    ceiling = min(high_s, low_s * 2.0 ** min(attempt, 32))
    return ceiling * rng.uniform(0.5, 1.0)
