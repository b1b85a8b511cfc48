"""When a descriptor of ours that other programs may share, standard input or output, is ready.

Owns the way around uvloop, which makes a descriptor that it watches non-blocking and leaves it so
(https://github.com/MagicStack/uvloop/issues/712): it watches an epoll that watches the descriptor.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def told_once(descriptor: int, events: int, ready: Callable[[], object]) -> Iterator[None]:
    """Call ``ready``, once, when one of ``events`` (select.EPOLLIN, ...) is there, or the other end is gone.

    Raises PermissionError (epoll_ctl(2)) for a regular file or /dev/null, which never let anybody wait.
    """
    loop = asyncio.get_running_loop()
    with select.epoll() as poll:
        poll.register(descriptor, events)
        watched = poll.fileno()

        def told() -> None:
            loop.remove_reader(watched)
            ready()

        loop.add_reader(watched, told)
        try:
            yield
        finally:
            loop.remove_reader(watched)
