"""The disk's thread: the order of what is asked of it, and that a close loses none of it."""

from __future__ import annotations

import asyncio
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


async def test_what_is_asked_in_one_turn_is_written_in_its_order_and_appends_together() -> None:
    store, log = Recording(), LogBuilder()
    for _ in range(4):
        log.add()
    disk, stored, faults = disk_of(store)
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    disk.append(log.appends[0], commit_size=0)
    disk.append(log.appends[1], commit_size=1)
    disk.write(store.note("promise"), lambda _: None)
    disk.append(log.appends[2], commit_size=2)
    disk.append(log.appends[3], commit_size=2)
    disk.write(store.note("last"), done.set_result)
    await asyncio.wait_for(done, 5)
    assert (store.written, stored, faults) == ([[1, 2], "promise", [3, 4], "last"], [(2, 1), (4, 2)], [])
    await disk.close()


async def test_the_thread_is_given_nothing_before_the_loop_has_sent_what_waits_to_be_sent() -> None:
    store, log = Recording(), LogBuilder()
    log.add()
    disk, stored, _ = disk_of(store)
    loop, seen = asyncio.get_running_loop(), list[object]()
    sent = loop.create_future()
    sent.add_done_callback(lambda _: seen.append(disk._queue.empty()))  # as a stream's writer is woken
    disk.append(log.appends[0], commit_size=0)
    sent.set_result(None)
    done = loop.create_future()
    disk.write(store.note("last"), done.set_result)
    await asyncio.wait_for(done, 5)
    await disk.close()
    assert (seen, stored, store.written) == ([True], [(1, 0)], [[1], "last"])


async def test_a_close_performs_what_was_asked_in_the_same_turn() -> None:
    store, log = Recording(), LogBuilder()
    log.add()
    disk, _, faults = disk_of(store)
    disk.append(log.appends[0], commit_size=0)
    disk.write(store.note("promise"), lambda _: None)
    await disk.close()
    assert (store.written, faults) == ([[1], "promise"], [])


async def test_a_close_ends_also_when_the_last_writes_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    store, log = Recording(), LogBuilder()
    log.add()
    disk, stored, faults = disk_of(store)
    failure = OSError(5, "I/O error")

    def fails(appends: Sequence[Append], *, commit_size: int) -> None:
        raise failure

    monkeypatch.setattr(store, "append", fails)
    disk.append(log.appends[0], commit_size=0)
    await asyncio.wait_for(disk.close(), 5)
    assert (stored, faults) == ([], [failure])
