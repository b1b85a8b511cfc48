"""A switchover as the master sees it: to whom, and how far it is. Must not know of posts.

The master takes no posts, waits until the other node has all that it has, and says TakeOver. It stays the master of its
epoch until a higher one is promised: should the other be lost on the way, it just goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replicad.core.effects import HandOverEnded
from replicad.core.progress import Health, Phase, Progress
from replicad.errors import BadRequest, ServiceError, Unavailable


@dataclass(slots=True)
class Handover:
    """``asked``: it has all, and was told to take over, in this ``session`` of its."""

    ticket: int
    to: str
    deadline: float
    asked: bool = False
    session: int = 0

    @property
    def missing(self) -> str:
        """What has not happened in time."""
        return "did not take over in time" if self.asked else "did not get level in time"

    def ended(self, master: str) -> HandOverEnded:
        """Another node has taken a higher epoch; "" where it is not known which."""
        if master == self.to and self.asked:
            return HandOverEnded(self.ticket, master)
        text = f"{master or 'another node'} has taken over meanwhile, by another command"
        return HandOverEnded(self.ticket, master, Unavailable(text))


def choose(to: str, voting: Sequence[Progress], *, tip: int) -> str | ServiceError:
    """The worker to hand over to: ``to``, or for "" the one in reach that has most; or why there is none."""
    wanted = [worker for worker in voting if to in ("", worker.name)]
    if not wanted:
        return BadRequest(
            f"{to!r} is no worker with a vote: {', '.join(worker.name for worker in voting) or 'none is'}"
        )
    ready = [w for w in wanted if w.phase is Phase.LEVELLING and w.health is Health.HEALTHY]
    if not ready:
        who = to or "no worker with a vote"
        why = "; ".join(f"{w.name} is {w.health}, {tip - w.acked_size} records behind: {w.detail}" for w in wanted)
        return Unavailable(f"{who} {'is not' if to else 'is'} in reach and following ({why})")
    return max(ready, key=lambda worker: worker.acked_size).name
