"""The disk at work: one thread that writes, a few that read, and nothing of it on the event loop.

Owns the order of writes, the grouping of batches into transactions, and what happens to writes behind one that
failed. Must not know why something is written. All methods are called on the event loop; callbacks come back on it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from replicad.core.batch import Append
from replicad.core.tree import Tree
from replicad.errors import DiskFullError, DuplicateIdError
from replicad.storage.interface import Store, StoreState

GROUP_BYTES = 8 << 20  # of bodies in one transaction: beyond that, one sync more costs nothing
READ_THREADS = 2  # a slow read (a long List) leaves one for the others


@dataclass(frozen=True, slots=True)
class _Write:
    """An append, or any other write (``call``) with what to do when it is done."""

    generation: int
    append: Append | None
    commit_size: int
    call: Callable[[], object] | None = None
    done: Callable[[object], None] | None = None


@dataclass(frozen=True, slots=True)
class AppendFailed:
    """An append failed, and every append behind it was dropped: the log is ``state``."""

    reason: str  # full | duplicate
    text: str
    state: StoreState


class Disk:
    """1. Writes happen in the order they were asked for, appends that wait together in one transaction.
    2. After a failed append no later one happens that was asked for before the caller heard of the failure.
    3. An error other than a full disk or a duplicate id is fatal: nothing more is written.
    """

    def __init__(
        self,
        store: Store,
        *,
        loop: asyncio.AbstractEventLoop,
        stored: Callable[[int, int], None],
        failed: Callable[[AppendFailed], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        """``stored(size, commit_size)`` and ``failed`` tell of appends; ``fatal`` of what the node must stop for."""
        self._store, self._loop = store, loop
        self._stored, self._failed, self._fatal = stored, failed, fatal
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._generation = 0  # of the appends asked for now
        self._dropped_generation = -1  # appends of this one and before are dropped; the writer's own
        self._busy_since: float | None = None
        self._clock: int | None = None  # the writer's processor time, while it is at a write that may be long
        self._used_s, self._got_on_at = 0.0, 0.0  # what that said, and when it was another time than before
        self._dead = False
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="replicad-read")
        self._writer = threading.Thread(target=self._run, name="replicad-write", daemon=True)
        self._writer.start()

    def append(self, append: Append, *, commit_size: int) -> None:
        self._queue.put(_Write(self._generation, append, commit_size))

    def write(self, call: Callable[[], object], done: Callable[[object], None]) -> None:
        """Have ``call`` made by the writing thread, in its turn, and then ``done`` on the loop with its result, or with
        the DiskFullError that it raised: nothing was written."""
        self._queue.put(_Write(self._generation, None, 0, call, done))

    def read(self, call: Callable[[], object]) -> asyncio.Future[object]:
        """Have ``call`` made by a reading thread."""
        return self._loop.run_in_executor(self._readers, call)

    def stalled_s(self) -> float:
        """For how long the write under way has been so; 0.0 when there is none. For the watchdog, which asks often.

        One that is no append may have gigabytes to put aside: that counts from when it last used processor time, which
        one that waits for a disk that hangs does not.
        """
        since, clock, now = self._busy_since, self._clock, time.monotonic()
        if since is None:
            return 0.0
        if clock is not None:
            with suppress(OSError):  # the thread has ended just now
                if (used_s := time.clock_gettime(clock)) > self._used_s:
                    self._used_s, self._got_on_at = used_s, now
            since = max(since, self._got_on_at)
        return now - since

    def close(self) -> None:
        """Finish the writes that were asked for, then stop the threads and close the store."""
        self._queue.put(None)
        self._writer.join()
        self._readers.shutdown(wait=True)
        self._store.close()

    # --- the writing thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        clock = time.pthread_getcpuclockid(threading.get_ident())
        ahead: _Write | None = None
        while True:
            write = ahead or self._queue.get()
            ahead = None
            if write is None:
                return
            if self._dead:
                continue
            closing = False
            self._clock = clock if write.append is None else None
            self._busy_since = time.monotonic()
            try:
                if write.append is None:
                    self._perform(write)
                else:
                    group, ahead, closing = self._group(write)
                    self._append(group)
            except BaseException as exc:  # whatever it is, nothing may be written behind it
                self._dead = True
                self._tell(self._fatal, exc)
            finally:
                self._busy_since = None
            if closing:
                return

    def _group(self, first: _Write) -> tuple[list[_Write], _Write | None, bool]:
        """The appends that wait behind ``first``, the other write that ended them, and whether it is time to stop."""
        group = [first]
        size = len(first.append.batch.body) if first.append else 0
        while size < GROUP_BYTES:
            try:
                write = self._queue.get_nowait()
            except Empty:
                break
            if write is None:
                return group, None, True
            if write.append is None:
                return group, write, False
            group.append(write)
            size += len(write.append.batch.body)
        return group, None, False

    def _append(self, group: list[_Write]) -> None:
        live = [write for write in group if write.generation > self._dropped_generation]
        appends = [write.append for write in live if write.append is not None]
        if not appends:
            return
        commit_size = max(write.commit_size for write in live)
        try:
            self._store.append(appends, commit_size=commit_size)
        except (DiskFullError, DuplicateIdError) as exc:
            self._dropped_generation = live[-1].generation
            reason = "full" if isinstance(exc, DiskFullError) else "duplicate"
            self._tell(self._hear_failure, AppendFailed(reason, str(exc), self._store.load()))
        else:
            self._tell(self._stored, appends[-1].batch.end, commit_size)

    def _perform(self, write: _Write) -> None:
        try:
            result = write.call() if write.call else None
        except DiskFullError as exc:
            result = exc
        if write.done:
            self._tell(write.done, result)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self._dead = True

    # --- on the loop ----------------------------------------------------------------------------------------------

    def _hear_failure(self, failure: AppendFailed) -> None:
        self._generation += 1
        self._failed(failure)


def truncate_call(store: Store, put_aside: Callable[[int], None], size: int) -> Callable[[], Tree]:
    """A write that copies everything from ``size`` on to quarantine before it drops it."""

    def call() -> Tree:
        put_aside(size)
        return store.truncate(size)

    return call
