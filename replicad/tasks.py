"""What a task may know of its own cancellation."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether somebody wants this task to end. A gRPC call that ended on our side, by :meth:`cancel` or because its
    channel was closed, raises CancelledError in who waits for it, too: then nobody does."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
