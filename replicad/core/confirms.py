"""Linearizable reads that wait until a majority has confirmed that this still is the master.

Owns who waits, since when, and for which probe. Must not know how a probe reaches the workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from replicad.core.effects import Confirmed, Effect
from replicad.errors import Unavailable


class Confirms:
    """1. Whoever has answered a probe has promised no other master before it was asked."""

    __slots__ = ("_waiting", "probe")

    def __init__(self) -> None:
        self.probe = 0  # the latest
        self._waiting: deque[tuple[int, int, float]] = deque()  # (probe, ticket, when asked)

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, ticket: int, now: float) -> None:
        """One more waits, for a new probe."""
        self.probe += 1
        self._waiting.append((self.probe, ticket, now))

    def answered(self, answers: Iterable[int], *, quorum: int) -> list[Effect]:
        """Tell those whose probe ``quorum`` voters have answered, this one, which always has, among them.

        ``answers`` are the other voters' latest.
        """
        majority = [self.probe, *sorted(answers, reverse=True)][quorum - 1]
        effects: list[Effect] = []
        while self._waiting and self._waiting[0][0] <= majority:
            effects.append(Confirmed(self._waiting.popleft()[1], None))
        return effects

    def expired(self, now: float, after_s: float) -> list[Effect]:
        """Give up those that nobody has confirmed for so long: without a majority there would be ever more of them."""
        error = Unavailable(f"no majority has confirmed within {after_s:g} s that this is the master")
        effects: list[Effect] = []
        while self._waiting and now >= self._waiting[0][2] + after_s:
            effects.append(Confirmed(self._waiting.popleft()[1], error))
        return effects

    def next_deadline(self, after_s: float) -> float:
        """When the first one is given up; infinity when nobody waits."""
        return self._waiting[0][2] + after_s if self._waiting else float("inf")

    def abandon(self, text: str) -> list[Effect]:
        """This is the master no more."""
        effects: list[Effect] = [Confirmed(ticket, Unavailable(text)) for _, ticket, _ in self._waiting]
        self._waiting.clear()
        return effects
