"""A master whose disk is full: read-only, nothing lost, nothing acknowledged, and open again by itself."""

from __future__ import annotations

import pytest

from replicad.core.effects import State, StoreFailed
from replicad.errors import InvariantError
from tests.support.script import MasterScript, opened


def full_disk() -> MasterScript:
    """A master whose disk is full, with a batch (a) that is sealed and not stored."""
    script = opened(unstored_batches=1, retry_store_s=1.0)
    script.full = True
    script.post("a", w=1)
    script.post("b", w=1)
    assert script.disk() == ["answer #2: [0] STORAGE_FULL applied=no", "state read-only"]
    return script


def test_a_full_disk_makes_the_master_read_only() -> None:
    script = full_disk()
    assert script.machine.state is State.READ_ONLY
    assert script.post("c") == ["answer #3: all STORAGE_FULL applied=no"]
    assert script.machine.log.tip == 2


def test_what_was_sealed_is_kept_and_tried_again_until_there_is_room() -> None:
    script = full_disk()
    assert script.machine.wake_at() <= script.now + 1.0
    assert not any(line.startswith("disk") for line in script.tick(0.9))
    assert script.tick(0.2)[0] == "disk: store 1..2 e1 commit=1"
    assert script.disk() == []
    assert script.machine.state is State.READ_ONLY
    script.full = False
    assert "disk: store 1..2 e1 commit=1" in script.tick(1.1)
    assert script.disk() == ["state open", "answer #1: [0]@1 new, on 1"]
    assert script.post("b")[0] == "disk: store 2..3 e1 commit=1"
    assert script.disk() == ["answer #3: [0]@2 new, on 1"]


def test_several_sealed_batches_are_stored_in_order_before_the_master_is_open_again() -> None:
    script = opened(unstored_batches=3, retry_store_s=1.0)
    script.full = True
    for name in "abc":
        script.post(name, w=1)
    assert script.disk() == ["state read-only"]
    script.full = False
    script.tick(1.0)
    assert script.disk(1) == ["answer #1: [0]@1 new, on 1"]
    assert script.disk(2) == ["answer #2: [0]@2 new, on 1", "state open", "answer #3: [0]@3 new, on 1"]


def test_workers_may_have_what_the_full_disk_has_not_and_that_is_not_committed() -> None:
    script = full_disk()
    script.acks("n2", 2)
    assert script.acks("n3", 2) == []
    assert script.machine.log.commit_size == 1


def test_nothing_is_acknowledged_while_the_disk_is_full_but_deadlines_pass() -> None:
    script = full_disk()
    script.acks("n2", 2)
    lines = script.tick(6.0)
    assert "answer #1: [0] OUTCOME_UNKNOWN applied=unknown" in lines


def test_a_retry_of_a_sealed_message_is_not_told_that_it_was_not_applied() -> None:
    script = opened(unstored_batches=1, retry_store_s=1.0)
    script.full = True
    script.post("a", timeout_s=60.0)
    script.post("a", timeout_s=60.0)
    assert script.disk() == ["state read-only"]
    script.full = False
    script.tick(1.1)
    assert script.settle() == [
        "state open",
        "disk: content of 1 for #2",
        "answer #1: [0]@1 new, on 1",
        "answer #2: [0]@1 duplicate, on 1",
    ]


def test_what_the_disk_was_asked_about_while_it_had_room_is_refused_once_it_is_known_to_be_new() -> None:
    before = opened(voters=1)
    before.post("m")
    before.settle()
    script = MasterScript(voters=1, store=before.store, seed=101)
    script.start()
    script.settle()
    script.full = True
    script.post("z")
    assert script.post("a") == ["disk: find a for #2"]
    assert script.disk(1) == ["state read-only"]
    assert script.disk() == ["answer #2: [0] STORAGE_FULL applied=no"]


def test_a_duplicate_of_its_own_log_stops_the_master() -> None:
    """It has checked every id: a store that says otherwise means that a promise of ours is broken."""
    script = opened()
    script.post("a")
    state = script.store.load()
    with pytest.raises(InvariantError, match="own batch was not stored"):
        script.feed(
            StoreFailed("duplicate", "id in the log", state.size, state.last_epoch, state.epoch_record, state.tree)
        )
