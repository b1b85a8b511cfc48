"""Streams of workers that come, go and come back: only the present session counts."""

from __future__ import annotations

from replicad.core.effects import State
from replicad.core.frames import Aligned, Refused, RootAnswer
from replicad.core.progress import Phase
from tests.support.script import level_with, opened


def test_answers_to_an_earlier_sessions_questions_are_dropped() -> None:
    script = opened(cache_bytes=0)
    script.down("n3")
    for name in "abc":
        script.post(name)
        script.settle()
        script.acks("n2", script.machine.log.tip)
    script.up("n3")
    assert script.says("n3", level_with(script, "n3", 1)) == ["disk: root at 1 for n3"]
    script.down("n3")
    script.up("n3")
    assert script.says("n3", level_with(script, "n3", 2)) == ["disk: root at 2 for n3"]
    assert script.disk(1) == []  # of the first stream
    assert script.machine.workers["n3"].phase is Phase.SEARCHING
    assert script.disk(1) == ["disk: read 2..4 for n3"]
    script.down("n3")
    script.up("n3")
    script.says("n3", level_with(script, "n3", 3))
    assert script.disk(1) == []  # batches read for the second stream
    assert script.disk(1) == ["disk: read 3..4 for n3"]


def test_frames_from_a_worker_that_is_down_are_dropped() -> None:
    script = opened()
    script.post("a", w=2)
    script.disk()
    script.down("n2")
    assert script.acks("n2", 2) == []
    assert script.says("n2", level_with(script, "n2")) == []
    assert script.machine.workers["n2"].acked_size == 1


def test_a_new_stream_of_a_worker_replaces_the_old_one() -> None:
    script = opened()
    script.post("a")
    assert script.up("n2") == ["n2 < hello e1 from n1"]
    assert script.machine.workers["n2"].phase is Phase.GREETING
    assert script.acks("n2", 2) == []  # not before the logs are known to agree
    assert script.says("n2", level_with(script, "n2", 1)) == ["n2 < append 1..2 e1 commit=1"]


def test_frames_of_a_phase_that_is_over_change_nothing() -> None:
    script = opened()
    for frame in (level_with(script, "n2"), RootAnswer(1, bytes(32)), Aligned(0), Aligned(1)):
        assert script.says("n2", frame) == []
    assert script.machine.workers["n2"].phase is Phase.LEVELLING
    assert script.machine.workers["n2"].acked_size == 1


def test_a_worker_that_refuses_a_batch_is_hung_up_on_and_starts_over() -> None:
    script = opened()
    script.post("a")
    assert script.says("n2", Refused("signature", "does not verify", 1)) == ["hang up n2: signature"]
    assert script.machine.state is State.OPEN
    assert script.machine.workers["n2"].detail == "does not verify"
    script.down("n2")
    assert script.up("n2") == ["n2 < hello e1 from n1"]


def test_a_worker_that_lost_its_disk_counts_for_what_it_has() -> None:
    script = opened()
    script.down("n2")
    script.up("n2")
    assert script.says("n2", level_with(script, "n2", 0)) == ["n2 < append 0..1 e1 commit=1"]
    assert script.machine.workers["n2"].acked_size == 0
