"""Failed authentications: slowed for each address, logged, and never at the cost of those who have a good token.

Owns what is remembered of addresses, all of it bounded. Must not know tokens.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from replicad.access import Refused
from replicad.errors import RateLimited
from replicad.logs import Logger

FORGET_S = 60.0  # an address that has not failed for so long begins anew
FIRST_DELAY_S = 0.1  # a person does not notice; it doubles with each further failure
WAITING = 1024  # answers that are held back at a time, of all addresses: about 30 KiB of memory each
ADDRESSES = 4096  # remembered; more are one attacker's doing, who has not enough from one
TRUSTED = 4096  # connections that have shown a good token, and are let try whatever else their address does


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0


class Guard:
    """1. Whether a token is good is always found out first, and a good one is never held back.
    2. But while ``waiting`` answers to an address wait, its new connections are told 429 and no token of theirs
       is looked at: else who asks in parallel would not be slowed at all.
    """

    def __init__(
        self, *, free: int, waiting: int, longest_s: float, log: Logger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``free`` failures of an address are answered at once, up to ``waiting`` are held back at a time, and none for
        more than ``longest_s``."""
        self.free, self.waiting_of_one, self.longest_s = free, waiting, longest_s
        self._log, self._clock = log, clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._trusted: OrderedDict[str, None] = OrderedDict()

    def check(self, peer: str) -> None:
        """Before a token is looked at. Raises RateLimited."""
        if not self._waiting or peer in self._trusted:
            return
        address = address_of(peer)
        full = self._waiting.total() >= WAITING and address in self._failures
        if full or self._waiting[address] >= self.waiting_of_one:
            text = "too many failed authentications from this address; connections that have shown a good token go on"
            raise RateLimited(text, retry_after_s=1.0)

    def succeeded(self, peer: str) -> None:
        """This connection has shown a good token."""
        self._trusted[peer] = None
        self._trusted.move_to_end(peer)
        if len(self._trusted) > TRUSTED:
            self._trusted.popitem(last=False)

    async def failed(self, peer: str, refused: Refused) -> None:
        """Log a failure, and return when its answer may go out."""
        self._trusted.pop(peer, None)
        address = address_of(peer)
        delay_s = self._delay_s(address)
        self._log.warning(
            "unauthorized",
            f"a call from {address} was refused: its token or certificate is {refused.reason}",
            peer=address,
            reason=refused.reason,
            principal=refused.principal,
            delay_ms=int(delay_s * 1000),
        )
        if not delay_s:
            return
        self._waiting[address] += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._waiting[address] -= 1
            if self._waiting[address] <= 0:
                del self._waiting[address]

    def _delay_s(self, address: str) -> float:
        now = self._clock()
        known = self._failures.setdefault(address, _Failures())
        self._failures.move_to_end(address)
        if len(self._failures) > ADDRESSES:
            self._failures.popitem(last=False)
        if now - known.last > FORGET_S:
            known.count = 0
        known.count, known.last = known.count + 1, now
        beyond = known.count - self.free
        return 0.0 if beyond <= 0 else min(self.longest_s, FIRST_DELAY_S * 2.0 ** min(beyond - 1, 30))


def address_of(peer: str) -> str:
    """The address in gRPC's name of a peer; of IPv6 the network of 64 bits, which is one customer's."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return kind
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
