"""What a task may know of its own cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol


class Readable(Protocol):
    """What we use of a gRPC call that streams responses to us."""

    def read(self) -> Awaitable[object]: ...


def is_cancelled() -> bool:
    """Whether somebody wants this task to end. A gRPC call that ended on our side, by :meth:`cancel` or because its
    channel was closed, raises CancelledError in who waits for it, too: then nobody does."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def next_message(call: Readable) -> object:
    """The call's next message. Raises CancelledError whenever this task is cancelled: where the call ends in the same
    moment, gRPC 1.51 would raise that end instead, a good one as UnboundLocalError, and the task go on."""
    try:
        return await call.read()
    except Exception:
        if is_cancelled():
            raise asyncio.CancelledError from None
        raise
