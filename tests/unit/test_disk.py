"""The disk's thread: the order of what is asked of it, and that a close loses none of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from replicad.core.batch import Append
from replicad.disk import Disk
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records
from tests.support.builders import LogBuilder


class Recording(MemoryStore):
    """A store that notes what it is told to write, an append by the end of its last batch."""

    def __init__(self) -> None:
        super().__init__(decode_records)
        self.written: list[list[int] | str] = []

    def append(self, appends: Sequence[Append], *, commit_size: int) -> None:
        super().append(appends, commit_size=commit_size)
        self.written.append([append.batch.end for append in appends])

    def note(self, name: str) -> Callable[[], None]:
        return lambda: self.written.append(name)


def disk_of(store: Recording) -> tuple[Disk, list[tuple[int, int]], list[BaseException]]:
    stored: list[tuple[int, int]] = []
    faults: list[BaseException] = []
    disk = Disk(
        store,
        loop=asyncio.get_running_loop(),
        stored=lambda size, commit_size: stored.append((size, commit_size)),
        failed=lambda failure: faults.append(AssertionError(failure)),
        fatal=faults.append,
    )
    return disk, stored, faults


async def test_writes_happen_in_the_order_in_which_they_were_asked_for() -> None:
    store, log = Recording(), LogBuilder()
    for _ in range(2):
        log.add()
    disk, stored, faults = disk_of(store)
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    disk.append(log.appends[0], commit_size=0)
    disk.write(store.note("promise"), lambda _: None)
    disk.append(log.appends[1], commit_size=1)
    disk.write(store.note("last"), done.set_result)
    await asyncio.wait_for(done, 5)
    assert (store.written, stored, faults) == ([[1], "promise", [2], "last"], [(1, 0), (2, 1)], [])
    disk.close()


async def test_a_close_performs_what_was_asked_before() -> None:
    store, log = Recording(), LogBuilder()
    log.add()
    disk, _, faults = disk_of(store)
    disk.append(log.appends[0], commit_size=0)
    disk.write(store.note("promise"), lambda _: None)
    disk.close()
    assert (store.written, faults) == ([[1], "promise"], [])


async def test_a_close_ends_also_when_the_last_writes_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken together with the word that it is time to stop."""
    store, log = Recording(), LogBuilder()
    log.add()
    disk, stored, faults = disk_of(store)
    failure = OSError(5, "I/O error")

    def fails(appends: Sequence[Append], *, commit_size: int) -> None:
        raise failure

    def until_all_is_asked() -> None:
        while disk._queue.qsize() < 2:  # the append, and the end
            time.sleep(0.001)

    monkeypatch.setattr(store, "append", fails)
    disk.write(until_all_is_asked, lambda _: None)
    disk.append(log.appends[0], commit_size=0)
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, disk.close), 5)
    await asyncio.sleep(0)  # what the thread has said is heard
    assert (stored, faults) == ([], [failure])


@pytest.mark.parametrize("gets_on", [True, False])
async def test_a_long_write_counts_as_stalled_only_while_it_does_not_get_on(gets_on: bool) -> None:
    """The watchdog must not kill a node for a long tail that it puts aside: it would begin anew at the next start."""
    disk, _, faults = disk_of(Recording())
    end = threading.Event()

    def long() -> None:
        while gets_on and not end.is_set():
            sum(range(1000))
        end.wait()

    disk.write(long, lambda _: None)
    for _ in range(10):
        await asyncio.sleep(0.05)
        disk.stalled_s()  # as the watchdog asks
    assert (disk.stalled_s() < 0.2) is gets_on
    end.set()
    disk.close()
    assert (disk.stalled_s(), faults) == (0.0, [])


async def test_an_append_that_is_long_under_way_counts_as_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    store, log, end = Recording(), LogBuilder(), threading.Event()
    log.add()
    disk, _, _ = disk_of(store)

    def append(appends: Sequence[Append], *, commit_size: int) -> None:
        while not end.is_set():
            sum(range(1000))

    monkeypatch.setattr(store, "append", append)
    disk.append(log.appends[0], commit_size=0)
    for _ in range(5):
        await asyncio.sleep(0.05)
        disk.stalled_s()
    assert disk.stalled_s() > 0.2
    end.set()
    disk.close()
