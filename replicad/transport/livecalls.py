"""Streams while they are open: ended when their caller may not go on, or takes nothing of what is sent to it.

Owns one look at all of them a second, so that a stream costs nothing between its messages. Must not know what they
carry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replicad.access import NODES, Role
from replicad.errors import ServiceError, Unavailable
from replicad.transport.access import Caller

LOOK_S = 1.0  # how late an expired token's stream may end


class LiveCall:
    """An open stream. ``writing_since``: since when its last message waits to be taken, by the loop's clock; 0: none
    does. ``fault``: why it is ended by us, once that is so."""

    __slots__ = ("_task", "caller", "fault", "roles", "stalled", "writing_since")

    def __init__(self, caller: Caller, roles: tuple[Role, ...]) -> None:
        self.caller, self.roles = caller, roles
        self.writing_since = 0.0
        self.fault: ServiceError | None = None
        self.stalled = False
        self._task = asyncio.current_task()

    def end(self, fault: ServiceError) -> None:
        """The stream's own task ends it, with this error."""
        if self.fault is None and self._task is not None:
            self.fault = fault
            self._task.cancel()


class LiveCalls:
    """``again`` raises ServiceError when a caller would not be let in any more."""

    def __init__(self, again: Callable[[Caller, tuple[Role, ...]], None], *, stalled_s: float) -> None:
        self._again, self.stalled_s = again, stalled_s
        self._calls: set[LiveCall] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: LiveCall) -> None:
        self._calls.add(call)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._tick)

    def discard(self, call: LiveCall) -> None:
        self._calls.discard(call)

    def _tick(self) -> None:
        self._timer = None
        self.look()
        if self._calls:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._tick)

    def end_untrusted(self, believes: Callable[[bytes], bool]) -> None:
        """End those on connections whose certificate is not believed any more."""
        for call in list(self._calls):
            if call.caller.certificate and not believes(call.caller.certificate):
                call.end(Unavailable("the CA of this connection's certificate was withdrawn; connect again"))

    def look(self) -> None:
        """End those that are to end."""
        now = asyncio.get_running_loop().time()
        for call in list(self._calls):
            try:
                self._again(call.caller, call.roles)
            except ServiceError as exc:
                call.end(exc)
            if call.writing_since and now - call.writing_since > self.stalled_s and call.roles != NODES:
                call.stalled = True
                call.end(Unavailable(f"nothing of what was sent was taken for {self.stalled_s:g} s (timeouts.stalled)"))
