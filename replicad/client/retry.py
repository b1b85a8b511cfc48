"""When to try again, where, and what may be tried again at all. Pure: clock and randomness are arguments.

Must not know gRPC or frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from replicad.errors import (
    Applied,
    InternalError,
    NotMaster,
    OutcomeUnknown,
    RateLimited,
    ServiceError,
    Unavailable,
)

FIRST_DELAY_S = 0.02  # a master that is just opening is ready in about this
MAX_DELAY_S = 1.0  # a caller's timeout is some seconds: the longest wait must leave it several tries


def next_delay(attempt: int, rng: Random) -> float:
    """Seconds to wait before try ``attempt`` (0 is the first retry): exponential backoff with full jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    ceiling = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt, 30))
    return rng.uniform(0.0, ceiling)


def may_retry(error: ServiceError) -> bool:
    """Whether the same message, sent again with the same id, may fare better soon."""
    if isinstance(error, NotMaster | Unavailable | RateLimited | OutcomeUnknown):
        return True
    return isinstance(error, InternalError) and error.applied is not Applied.NO


def own_instance(error: ServiceError, message: str | None = None, *, id: str = "") -> ServiceError:
    """A copy of the error: a traceback belongs to one caller, so each is given an instance of its own. With ``id`` it
    is that message's."""
    twin = type(error)(
        error.message if message is None else message,
        offset=error.offset,
        nodes=error.nodes,
        master=error.master,
        master_address=error.master_address,
        retry_after_s=error.retry_after_s,
        id=id or error.id,
    )
    if twin.applied is not error.applied:
        twin.applied = error.applied
    twin.__cause__ = error.__cause__
    return twin


class Route:
    """Which address to try, and how long to wait before.

    1. ``current`` is one of ``addresses``, or one that a node named as the master's.
    2. As many failures in a row as there are addresses are followed at once by a try at the next; after that each
       waits longer, whatever kind of failure it is: two nodes that name each other the master must not spin.
    """

    def __init__(self, addresses: Sequence[str], rng: Random) -> None:
        self.addresses = tuple(addresses)
        self.current = self.addresses[0]
        self._next_index = 1 % len(self.addresses)  # of the one to try when the current is no good
        self._failures = 0
        self._rng = rng

    def succeeded(self) -> None:
        """The current address answered as hoped."""
        self._failures = 0

    def failed(self, tried: str | None = None) -> float:
        """The current address is no good: go to the next one. Returns the seconds to wait first."""
        if tried is not None and tried != self.current:
            return self._delay()  # another has moved on from there meanwhile
        if self.addresses[self._next_index] == self.current:
            self._next_index = (self._next_index + 1) % len(self.addresses)
        self.current = self.addresses[self._next_index]
        self._next_index = (self._next_index + 1) % len(self.addresses)
        return self._delay()

    def not_master(self, master_address: str, tried: str | None = None) -> float:
        """The current address named the master ("": it knows none). Returns the seconds to wait first."""
        if not master_address or master_address == self.current:
            return self.failed(tried)
        self.current = master_address
        return self._delay()

    def _delay(self) -> float:
        self._failures += 1
        spare = self._failures - len(self.addresses)
        return 0.0 if spare <= 0 else next_delay(spare - 1, self._rng)
