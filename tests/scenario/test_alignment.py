"""A worker whose log parts from its master's: put aside, then dropped, never below its commit size."""

from __future__ import annotations

import pytest

from replicad.core.frames import Align, Heartbeat
from replicad.errors import InvariantError
from tests.support.builders import LogBuilder
from tests.support.script import WorkerScript, following, master_log, sends, stored


def diverged(*, commit_size: int = 1) -> tuple[WorkerScript, LogBuilder]:
    """A worker with records of epoch 1 that its new master n3 does not have; and that master's log."""
    old = master_log(1)
    new = old.fork("n3")
    for _ in range(3):
        old.add(1, prefix="lost")
    new.add_epoch(2)
    script = WorkerScript(store=stored(old, commit_size=commit_size))
    script.hello("n3#1", 2, master="n3")
    script.disk()
    return script, new


def test_records_that_the_master_does_not_have_are_put_aside_then_dropped_then_it_is_told() -> None:
    script, new = diverged()
    assert script.says("n3#1", Align(2)) == ["disk: truncate to 2"]
    assert script.disk() == ["n3#1 < aligned 2"]
    assert script.dropped == [(2, 5)]
    assert script.events_noted[-1] == "quarantined"
    assert sends(script, new.appends[-1].batch, peer="n3#1") == ["disk: store 2..3 e2 commit=1"]
    assert script.disk() == ["n3#1 < ack 3 probe=0"]


def test_a_log_that_is_aligned_already_is_left_as_it_is() -> None:
    script, _ = diverged()
    assert script.says("n3#1", Align(5)) == ["n3#1 < aligned 5"]
    assert script.dropped == []


def test_aligning_below_the_commit_size_stops_the_node() -> None:
    """Nothing below a commit size is ever truncated: two masters have committed different records, or a key leaked."""
    script, _ = diverged(commit_size=3)
    with pytest.raises(InvariantError, match="asks to drop records from 2 on, but 3 are committed here"):
        script.says("n3#1", Align(2))
    assert script.store.load().size == 5


def test_aligning_to_the_commit_size_itself_is_done() -> None:
    script, _ = diverged(commit_size=2)
    assert script.says("n3#1", Align(2)) == ["disk: truncate to 2"]


def test_aligning_beyond_the_logs_end_is_refused() -> None:
    script, _ = diverged()
    assert script.says("n3#1", Align(6))[0] == "n3#1 < refused size, promised 2"
    assert script.dropped == []


def test_a_batch_before_the_log_is_aligned_is_refused() -> None:
    script, new = diverged()
    script.says("n3#1", Align(2))
    assert sends(script, new.appends[-1].batch, peer="n3#1")[0] == "n3#1 < refused align, promised 2"
    assert script.settle() == []
    assert script.store.load().size == 2


def test_aligning_twice_at_once_is_refused() -> None:
    script, _ = diverged()
    script.says("n3#1", Align(3))
    assert script.says("n3#1", Align(2))[0] == "n3#1 < refused align, promised 2"
    script.settle()
    assert script.dropped == [(3, 5)]


def test_aligning_while_records_are_being_stored_is_refused() -> None:
    log = master_log()
    script = following(log)
    sends(script, log.add(1).batch)
    assert script.says("n1#1", Align(1))[0] == "n1#1 < refused align, promised 1"
    script.settle()
    assert script.store.load().size == 2


def test_a_new_stream_is_welcomed_when_the_truncation_is_done_and_not_told_of_the_others_alignment() -> None:
    script, _ = diverged()
    script.says("n3#1", Align(2))
    assert script.hello("n3#2", 2, master="n3") == ["hang up n3#1: replaced by a newer stream"]
    assert script.disk() == ["n3#2 < welcome e1 size=2 commit=1", "state following"]


# --- the commit size --------------------------------------------------------------------------------------------


def test_the_commit_size_never_passes_what_is_on_disk() -> None:
    log = master_log()
    script = following(log)
    assert sends(script, log.add(1).batch, commit_size=1) == ["disk: store 1..2 e1 commit=1"]
    script.says("n1#1", Heartbeat(9, 0))
    assert script.machine.log.commit_size == 1
    assert sends(script, log.add(1).batch, commit_size=9) == ["disk: store 2..3 e1 commit=1"]
    script.disk(1)
    assert script.machine.log.commit_size == 2
    script.disk(1)
    assert script.machine.log.commit_size == 3
    assert script.store.load().commit_size <= script.store.load().size


def test_the_commit_size_never_falls() -> None:
    log = master_log()
    script = following(log)
    sends(script, log.add(1).batch, commit_size=1)
    script.disk()
    script.says("n1#1", Heartbeat(2, 0))
    assert script.machine.log.commit_size == 2
    for commit_size in (1, 0):
        script.says("n1#1", Heartbeat(commit_size, 0))
    assert script.machine.log.commit_size == 2


def test_the_commit_size_does_not_move_before_the_logs_are_known_to_agree() -> None:
    """Some of this log may not be in the master's: a commit size above it says nothing about these records."""
    script, _ = diverged(commit_size=1)
    script.says("n3#1", Heartbeat(5, 0))
    assert script.machine.log.commit_size == 1
    script.says("n3#1", Align(2))
    script.disk()
    assert script.machine.log.commit_size == 2  # what it was told holds now


def test_a_commit_size_told_in_one_session_says_nothing_about_the_next_masters_log() -> None:
    log = master_log(1)
    script = following(log)
    script.says("n1#1", Align(2))
    script.says("n1#1", Heartbeat(9, 0))
    assert script.machine.log.commit_size == 2
    script.hello("n3#1", 2, master="n3")
    script.disk()
    log.add_epoch(2, node="n3")
    sends(script, log.appends[-1].batch, peer="n3#1", commit_size=2)
    script.disk()
    assert script.machine.log.commit_size == 2
