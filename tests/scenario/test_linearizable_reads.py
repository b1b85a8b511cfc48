"""A master asked to confirm that it still is: only answers to a question asked later count."""

from __future__ import annotations

from replicad.core.frames import Ack, Aligned
from tests.support.script import MasterScript, level_with, opened


def test_a_confirmation_needs_answers_from_a_majority_to_a_question_asked_after_it() -> None:
    script = opened()
    assert script.confirm(1) == ["n2 < heartbeat commit=1 probe=1", "n3 < heartbeat commit=1 probe=1"]
    assert script.acks("n2", 1, probe=0) == []
    assert script.acks("n2", 1, probe=1) == ["confirmed #1"]
    assert script.acks("n3", 1, probe=1) == []


def test_one_answer_confirms_all_that_were_asked_before_it() -> None:
    script = opened(voters=5)
    for ticket in (1, 2, 3):
        script.confirm(ticket)
    assert script.acks("n2", 1, probe=3) == []
    assert script.acks("n3", 1, probe=2) == ["confirmed #1", "confirmed #2"]
    assert script.acks("n4", 1, probe=3) == ["confirmed #3"]


def test_a_master_of_one_confirms_itself() -> None:
    script = MasterScript(voters=1)
    script.start()
    assert script.confirm(1) == ["not confirmed #1: UNAVAILABLE applied=no"]
    script.settle()
    assert script.confirm(2) == ["confirmed #2"]


def test_without_a_majority_nothing_is_confirmed() -> None:
    script = opened()
    script.down("n2")
    script.down("n3")
    assert script.confirm(1) == []
    assert not any("confirmed" in line for line in script.tick(1.0))
    script.up("n2")
    script.says("n2", level_with(script, "n2"))
    script.says("n2", Aligned(1))
    assert "n2 < heartbeat commit=1 probe=1" in script.tick(1.0)
    assert script.acks("n2", 1, probe=1) == ["confirmed #1"]


def test_a_read_only_master_confirms_reads() -> None:
    script = opened()
    script.full = True
    script.post("a")
    assert script.disk() == ["state read-only"]
    script.confirm(1)
    assert script.acks("n2", 1, probe=1) == ["confirmed #1"]


def test_a_batchs_acknowledgement_carries_the_probe_too() -> None:
    script = opened()
    script.post("a", w=2)
    script.disk()
    script.confirm(1)
    assert script.says("n2", Ack(2, 1)) == ["answer #1: [0]@1 new, on 2", "confirmed #1"]
