"""What the service manager is told of this node, and when: ready, status, signs of life, and that it needs more time.

Owns when each is said (docs/adr/0015 has why). The words are :mod:`replicad.notify`'s; how the node is, others know.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from replicad.notify import Notifier, watchdog_interval_s

STATUS_S = 1.0  # how often `systemctl status` gets a new line, if there is anything new to say
EXTEND_S = 15.0  # a start or stop that says nothing for so long is hung, once its unit's timeout has passed
STALLED_S = 30.0  # a write that takes longer hangs: no more time is asked for it

T = TypeVar("T")


class Supervision:
    """1. READY=1 is said once the node really is, and after a reload; never before.
    2. WATCHDOG=1 is said only while no write hangs, and by the event loop: so not while that hangs either.
    3. A start may last as long as it waits for what it must have (a majority, its tail), a stop as long as the disk
       works; more time is asked for in both, but not while a write hangs.
    """

    def __init__(self, notifier: Notifier, *, describe: Callable[[], str], stalled_s: Callable[[], float]) -> None:
        """``describe`` gives the status line; ``stalled_s`` for how long the write under way has been so."""
        self._notifier, self._describe, self._stalled_s = notifier, describe, stalled_s
        self._told = ""
        self._last_words = ""
        self._stopping = False
        self.is_ready = False

    async def run(self) -> None:
        """Say what there is to say, every now and then, until cancelled."""
        watchdog_s = watchdog_interval_s(os.environ)
        while True:
            self.tell_status()
            stalled_s = self._stalled_s()
            if watchdog_s is not None and stalled_s < watchdog_s:
                self._notifier.watchdog()
            if (self._stopping or not self.is_ready) and stalled_s < STALLED_S:
                self._notifier.extend_timeout(EXTEND_S)
            await asyncio.sleep(min(STATUS_S, watchdog_s or STATUS_S))

    def tell_status(self) -> None:
        """The status line, if it is another one than before."""
        line = self._last_words or self._describe()
        if line != self._told:
            self._notifier.status(line)
            self._told = line

    def ready(self) -> None:
        """The node has begun to do what it is for."""
        if not self.is_ready:
            self.is_ready = True
            self._notifier.ready()

    def reloading(self) -> None:
        """A reload has begun. Nothing is said of one while the node is not ready yet, for its end says READY=1."""
        if self.is_ready and not self._stopping:
            self._notifier.reloading()

    def reloaded(self) -> None:
        """It has come to its end, whatever became of it; the status line tells that."""
        self.tell_status()
        if self.is_ready and not self._stopping:
            self._notifier.ready()

    def stopping(self) -> None:
        self._stopping = True
        self._notifier.stopping()

    def failed(self, text: str) -> None:
        """The node stops for a fault: that is the status from now on, for `systemctl status` to show afterwards."""
        self._last_words = text
        self.tell_status()


async def in_time(call: Callable[[], T], notifier: Notifier, *, status: str) -> T:
    """Make a ``call`` of a start that may take long, in a thread, and ask for more time while the thread gets on.

    A thread that computes or reads uses processor time; one that waits for a disk that hangs uses none.
    """
    loop = asyncio.get_running_loop()
    clock: asyncio.Future[int] = loop.create_future()

    def run() -> T:
        loop.call_soon_threadsafe(clock.set_result, time.pthread_getcpuclockid(threading.get_ident()))
        return call()

    calling = asyncio.ensure_future(asyncio.to_thread(run))
    used_s = -1.0
    while not (await asyncio.wait([calling], timeout=STATUS_S))[0]:
        now_s = time.clock_gettime(await clock)
        if used_s < 0:
            notifier.status(status)
        if now_s > used_s:
            notifier.extend_timeout(EXTEND_S)
        used_s = now_s
    return await calling
