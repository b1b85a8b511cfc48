"""One worker as its master sees it: the phases of a session, the window, and where batches come from."""

from __future__ import annotations

import pytest

from replicad.core.effects import Effect, ReadBatches
from replicad.core.ownlog import OwnLog
from replicad.core.progress import Health, Phase, Progress
from replicad.errors import InvariantError
from tests.support.builders import LogBuilder, empty_start
from tests.support.script import stored, welcome
from tests.support.transcript import show_all

CACHE_ALL = 1 << 30


def log_of(*counts: int, cache_bytes: int = CACHE_ALL, stored_size: int | None = None) -> tuple[OwnLog, LogBuilder]:
    """A master's log of batches of these counts, in memory, and on disk up to ``stored_size`` (all of it)."""
    builder = LogBuilder()
    log = OwnLog.restore(empty_start(), cache_bytes)
    for count in counts:
        append = builder.add(count)
        log.appended(append, builder.tree.copy())
    log.stored(builder.size if stored_size is None else stored_size)
    return log, builder


def worker(*, window_bytes: int = 1 << 20, read_bytes: int = 1 << 16) -> Progress:
    return Progress("n2", window_bytes, read_bytes)


def greeted(log: LogBuilder | None = None, *, commit_size: int = 0, window_bytes: int = 1 << 20) -> Progress:
    """A worker that has said Welcome with this log."""
    progress = worker(window_bytes=window_bytes)
    progress.up(10.0)
    progress.phase, progress.welcome = Phase.HELD, welcome("n2", log, commit_size=commit_size)
    return progress


def levelled(log: OwnLog, builder: LogBuilder, *, window_bytes: int = 1 << 20) -> Progress:
    """A worker that is level with the log."""
    progress = greeted(builder, window_bytes=window_bytes)
    progress.begin_search(log)
    progress.aligned(log.tip, log)
    assert progress.phase is Phase.LEVELLING
    return progress


def lines(effects: list[Effect]) -> list[str]:
    return show_all(effects)


# --- the session ------------------------------------------------------------------------------------------------


def test_a_worker_is_down_and_unhealthy_until_a_stream_is_up() -> None:
    progress = worker()
    assert (progress.phase, progress.health) == (Phase.DOWN, Health.UNHEALTHY)
    progress.up(5.0)
    assert (progress.phase, progress.health) == (Phase.GREETING, Health.HEALTHY)
    assert (progress.last_heard, progress.last_sent) == (5.0, 5.0)


def test_every_stream_is_a_session_of_its_own() -> None:
    progress = worker()
    sessions = []
    for _ in range(3):
        progress.up(1.0)
        sessions.append(progress.session)
        progress.down("gone")
        sessions.append(progress.session)
    assert len(set(sessions)) == 6


def test_what_a_worker_acknowledged_still_counts_while_it_is_down() -> None:
    log, builder = log_of(1, 2)
    progress = levelled(log, builder)
    progress.down("gone")
    assert (progress.acked_size, progress.health, progress.detail) == (3, Health.UNHEALTHY, "gone")


def test_a_search_without_a_welcome_is_a_bug() -> None:
    log, _ = log_of(1)
    with pytest.raises(InvariantError):
        worker().begin_search(log)


# --- finding where the logs part --------------------------------------------------------------------------------


def test_a_worker_that_is_level_is_told_so_and_follows_when_it_has_heard_it() -> None:
    log, builder = log_of(1, 2)
    progress = greeted(builder)
    assert lines(progress.begin_search(log)) == ["n2 < align 3"]
    assert (progress.phase, progress.acked_size) == (Phase.ALIGNING, 0)
    assert lines(progress.aligned(3, log)) == []
    assert (progress.phase, progress.acked_size, progress.next_offset) == (Phase.LEVELLING, 3, 3)


def test_a_worker_that_is_behind_within_memory_is_sent_what_it_lacks() -> None:
    log, _ = log_of(1, 2, 3)
    behind = LogBuilder()
    behind.add(1)
    progress = greeted(behind)
    assert lines(progress.begin_search(log)) == ["n2 < append 1..3 e1 commit=0", "n2 < append 3..6 e1 commit=0"]


def test_an_empty_worker_is_sent_everything_without_a_question() -> None:
    log, _ = log_of(2)
    progress = greeted()
    assert lines(progress.begin_search(log)) == ["n2 < append 0..2 e1 commit=0"]


def test_a_worker_whose_end_memory_does_not_know_the_root_of_needs_the_disk() -> None:
    log, builder = log_of(1, 2, cache_bytes=0)
    behind = LogBuilder()
    behind.add(1)
    progress = greeted(behind)
    assert lines(progress.begin_search(log)) == ["disk: root at 1 for n2"]
    assert lines(progress.own_root_read(1, builder.appends[0].batch.root, log)) == ["disk: read 1..3 for n2"]


def test_a_worker_with_records_of_its_own_is_aligned_first() -> None:
    log, builder = log_of(1, 1)
    other = LogBuilder()
    other.add(1)
    other = other.fork(seed=9)
    other.add(1)
    other.add(1)
    progress = greeted(other)
    assert lines(progress.begin_search(log)) == ["n2 < root? 2"]
    assert lines(progress.peer_root_arrived(2, stored(other).root_at(2), log)) == ["n2 < root? 1"]
    assert lines(progress.peer_root_arrived(1, builder.appends[0].batch.root, log)) == ["n2 < align 1"]
    assert progress.phase is Phase.ALIGNING
    assert progress.acked_size == 0
    assert lines(progress.aligned(1, log)) == ["n2 < append 1..2 e1 commit=0"]
    assert (progress.phase, progress.acked_size) == (Phase.LEVELLING, 1)


def test_a_worker_that_is_ahead_of_the_same_log_is_aligned_to_its_end() -> None:
    log, builder = log_of(1, 1)
    ahead = builder.fork()
    ahead.add(5)
    progress = greeted(ahead)
    assert lines(progress.begin_search(log)) == ["n2 < root? 2"]
    assert lines(progress.peer_root_arrived(2, log.tree.root(), log)) == ["n2 < align 2"]


def test_a_worker_whose_log_parts_below_its_commit_size_is_not_followed_up() -> None:
    log, _ = log_of(2)
    other = LogBuilder(seed=5)
    other.add(2)
    progress = greeted(other, commit_size=2)
    assert lines(progress.begin_search(log)) == ["hang up n2: fork"]
    assert progress.acked_size == 0
    assert "one of the two data folders is not of this log" in progress.detail


def test_a_worker_that_has_committed_more_than_the_master_has_is_not_followed_up() -> None:
    log, builder = log_of(2)
    ahead = builder.fork()
    ahead.add(3)
    progress = greeted(ahead, commit_size=5)
    progress.begin_search(log)
    assert lines(progress.peer_root_arrived(2, log.tree.root(), log)) == ["hang up n2: fork"]


def test_the_search_does_not_ask_the_disk_for_what_is_not_on_it() -> None:
    """The worker's end lies inside a batch of ours that is being written: no honest worker's log ends there alike."""
    log, _ = log_of(1, 5, stored_size=1)
    other = LogBuilder(seed=3)
    other.add(3)
    progress = greeted(other)
    assert lines(progress.begin_search(log)) == ["n2 < root? 1"]


# --- the window -------------------------------------------------------------------------------------------------


def test_nothing_more_is_sent_when_the_window_is_full_until_an_answer_makes_room() -> None:
    log, builder = log_of(1)
    progress = levelled(log, builder, window_bytes=1)
    for _ in range(3):
        append = builder.add(1)
        log.appended(append, builder.tree.copy())
    assert lines(progress.feed(log)) == ["n2 < append 1..2 e1 commit=0"]
    assert lines(progress.feed(log)) == []
    assert progress.acknowledged(2, 0)
    assert progress.in_flight_bytes == 0
    assert lines(progress.feed(log)) == ["n2 < append 2..3 e1 commit=0"]


def test_the_window_is_counted_in_bytes_of_bodies() -> None:
    log, builder = log_of(1)
    sizes = [len(builder.fork().add(1).batch.body)]
    progress = levelled(log, builder, window_bytes=2 * sizes[0] + 1)
    for _ in range(5):
        log.appended(builder.add(1), builder.tree.copy())
    assert len(progress.feed(log)) == 3  # the third begins within the window
    assert progress.in_flight_bytes == sum(len(append.batch.body) for append in builder.appends[1:4])


def test_answers_are_cumulative() -> None:
    log, builder = log_of(1)
    progress = levelled(log, builder)
    for _ in range(3):
        log.appended(builder.add(2), builder.tree.copy())
    progress.feed(log)
    assert progress.acknowledged(5, 0)
    assert [end for end, _ in progress.window] == [7]
    assert progress.acked_size == 5


@pytest.mark.parametrize("size", [0, 1, 4, 100])
def test_an_answer_that_is_old_or_beyond_what_was_sent_is_ignored(size: int) -> None:
    log, builder = log_of(1)
    progress = levelled(log, builder)
    log.appended(builder.add(2), builder.tree.copy())
    progress.feed(log)
    assert not progress.acknowledged(size, 0)
    assert progress.acked_size == 1


def test_an_answer_before_the_logs_are_known_to_agree_does_not_count() -> None:
    log, builder = log_of(1, 2)
    progress = greeted(builder)
    assert not progress.acknowledged(3, 0)
    assert progress.acked_size == 0
    del log


def test_the_latest_probe_answered_is_kept_and_never_falls() -> None:
    log, builder = log_of(1)
    progress = levelled(log, builder)
    progress.acknowledged(1, 5)
    progress.acknowledged(1, 3)
    assert progress.probe_acked == 5


def test_a_new_stream_empties_the_window() -> None:
    log, builder = log_of(1)
    progress = levelled(log, builder)
    log.appended(builder.add(2), builder.tree.copy())
    progress.feed(log)
    progress.up(20.0)
    assert (len(progress.window), progress.in_flight_bytes, progress.phase) == (0, 0, Phase.GREETING)
    assert lines(progress.feed(log)) == []


# --- from disk --------------------------------------------------------------------------------------------------


def behind(*, window_bytes: int = 1 << 20, read_bytes: int = 1 << 16) -> tuple[Progress, OwnLog, LogBuilder]:
    """A worker that follows from offset 1 on, where memory has nothing before offset 9."""
    log, builder = log_of(1, 2, 3, 3, cache_bytes=0)
    log.appended(builder.add(1), builder.tree.copy())
    progress = worker(window_bytes=window_bytes, read_bytes=read_bytes)
    progress.up(1.0)
    progress.aligned(1, OwnLog.restore(empty_start(), 0))
    return progress, log, builder


def test_what_is_not_in_memory_is_asked_of_the_disk_once() -> None:
    progress, log, _ = behind()
    assert lines(progress.feed(log)) == ["disk: read 1..9 for n2"]
    assert lines(progress.feed(log)) == []


def test_what_was_read_is_sent_and_memory_goes_on_from_there() -> None:
    progress, log, builder = behind()
    progress.feed(log)
    batches = [append.batch for append in builder.appends[1:4]]
    assert lines(progress.batches_read(batches, log)) == [
        "n2 < append 1..3 e1 commit=0",
        "n2 < append 3..6 e1 commit=0",
        "n2 < append 6..9 e1 commit=0",
        "n2 < append 9..10 e1 commit=0",
    ]


def test_a_read_that_did_not_reach_the_end_is_followed_by_another() -> None:
    progress, log, builder = behind()
    progress.feed(log)
    assert lines(progress.batches_read([builder.appends[1].batch], log)) == [
        "n2 < append 1..3 e1 commit=0",
        "disk: read 3..9 for n2",
    ]


def test_the_disk_is_not_asked_while_the_window_is_full() -> None:
    progress, log, builder = behind(window_bytes=1)
    progress.feed(log)
    assert lines(progress.batches_read([builder.appends[1].batch], log)) == ["n2 < append 1..3 e1 commit=0"]
    progress.acknowledged(3, 0)
    assert lines(progress.feed(log)) == ["disk: read 3..9 for n2"]


def test_no_more_is_read_at_once_than_the_window_has_room_for() -> None:
    progress, log, _ = behind(window_bytes=700, read_bytes=500)
    (effect,) = progress.feed(log)
    assert effect == ReadBatches("n2", progress.session, 1, 9, 500)
    progress, log, _ = behind(window_bytes=300, read_bytes=500)
    (effect,) = progress.feed(log)
    assert effect == ReadBatches("n2", progress.session, 1, 9, 300)


def test_batches_that_do_not_follow_what_was_sent_are_not_sent() -> None:
    progress, log, builder = behind()
    progress.feed(log)
    assert lines(progress.batches_read([builder.appends[2].batch], log)) == ["disk: read 1..9 for n2"]


def test_batches_read_for_a_stream_that_is_gone_are_not_sent() -> None:
    progress, log, builder = behind()
    progress.feed(log)
    progress.down("gone")
    assert lines(progress.batches_read([builder.appends[1].batch], log)) == []


# --- commit size and heartbeats ---------------------------------------------------------------------------------


def test_a_batch_and_a_heartbeat_carry_the_commit_size_and_that_is_remembered() -> None:
    log, builder = log_of(2)
    progress = levelled(log, builder)
    log.commit(2)
    log.appended(builder.add(1), builder.tree.copy())
    assert lines(progress.feed(log)) == ["n2 < append 2..3 e1 commit=2"]
    assert progress.commit_told == 2
    assert lines([progress.heartbeat(commit_size=3, probe=4, now=50.0)]) == ["n2 < heartbeat commit=3 probe=4"]
    assert (progress.commit_told, progress.last_sent) == (3, 50.0)


def test_hearing_from_a_suspected_worker_makes_it_healthy() -> None:
    progress = worker()
    progress.up(1.0)
    progress.health = Health.SUSPECTED
    progress.heard(2.0)
    assert (progress.health, progress.last_heard) == (Health.HEALTHY, 2.0)
