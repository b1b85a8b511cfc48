"""The newest batches in memory: what is kept, what is dropped, and by which offset or size it is found."""

from __future__ import annotations

from replicad.core.recent import RecentBatches
from tests.support.builders import LogBuilder


def filled(*counts: int, limit_bytes: int = 0) -> tuple[RecentBatches, LogBuilder]:
    log, recent = LogBuilder(), RecentBatches(limit_bytes)
    for count in counts:
        recent.add(log.add(count).batch)
    return recent, log


def test_a_batch_is_found_by_the_offset_it_begins_at_and_by_no_other() -> None:
    recent, log = filled(2, 3)
    assert recent.beginning_at(0) is log.appends[0].batch
    assert recent.beginning_at(2) is log.appends[1].batch
    assert [recent.beginning_at(offset) for offset in (1, 3, 4, 5)] == [None] * 4


def test_a_root_is_known_where_a_batch_ends() -> None:
    recent, log = filled(2, 3)
    assert recent.root_at(2) == log.appends[0].batch.root
    assert recent.root_at(5) == log.tree.root()
    assert [recent.root_at(size) for size in (0, 1, 3, 4, 6)] == [None] * 5


def test_what_is_not_on_disk_is_never_dropped() -> None:
    recent, log = filled(1, 1, 1, limit_bytes=0)
    recent.trim(stored_size=1)
    assert [recent.beginning_at(offset) is not None for offset in range(3)] == [False, True, True]
    assert recent.root_at(1) is None
    assert recent.root_at(2) == log.appends[1].batch.root


def test_the_oldest_on_disk_are_dropped_down_to_the_limit() -> None:
    recent, log = filled(5, 5, 5, 5)
    two = len(log.appends[0].batch.body) + len(log.appends[1].batch.body)
    limited = RecentBatches(two)
    for append in log.appends:
        limited.add(append.batch)
    limited.trim(stored_size=20)
    assert [limited.beginning_at(offset) is not None for offset in (0, 5, 10, 15)] == [False, False, True, True]
    recent.trim(stored_size=20)
    assert recent.beginning_at(15) is None


def test_after_clearing_it_takes_batches_again() -> None:
    recent, _ = filled(3)
    recent.clear()
    assert recent.beginning_at(0) is None
    assert recent.root_at(3) is None
    other = LogBuilder(seed=1)
    batch = other.add(1).batch
    recent.add(batch)
    recent.trim(stored_size=0)
    assert recent.beginning_at(0) is batch
    recent.trim(stored_size=1)
    assert recent.beginning_at(0) is None
