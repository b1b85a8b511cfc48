"""A master that learns of a higher epoch: what it answers, that it answers nothing after, and that it follows."""

from __future__ import annotations

import pytest

from replicad.core.effects import PeerUp, State
from replicad.core.frames import Refused
from tests.support.script import MasterScript, opened


def deposed() -> tuple[MasterScript, list[str]]:
    """A master that learns of a higher epoch: with a post waiting, one queued and a confirmation under way."""
    script = opened(unstored_batches=1)
    script.post("a", w=3)
    script.post("b")
    script.confirm(9)
    return script, script.says("n2", Refused("epoch", "epoch 5 is promised to n3", 5, "n3"))


def test_a_higher_promise_deposes_a_master_that_has_begun() -> None:
    script, lines = deposed()
    assert lines == [
        "answer #2: [0] UNAVAILABLE applied=no",  # never written, never sent
        "answer #1: all OUTCOME_UNKNOWN applied=unknown",  # workers may have it
        "not confirmed #9: UNAVAILABLE applied=no",
        "state deposed",
        "hang up n2: deposed",
        "hang up n3: deposed",
        "turn: worker, 5 to n3",
    ]
    assert script.machine.state is State.DEPOSED


def test_a_deposed_master_takes_no_posts_confirms_nothing_and_hangs_up() -> None:
    script, _ = deposed()
    assert script.post("c") == ["answer #3: all UNAVAILABLE applied=no"]
    assert script.confirm(10) == ["not confirmed #10: UNAVAILABLE applied=no"]
    assert script.feed(PeerUp("n2")) == ["hang up n2: deposed"]
    assert script.acks("n3", 2) == []


def test_a_deposed_master_finishes_what_is_at_its_disk_and_answers_nothing_for_it() -> None:
    script, _ = deposed()
    script.down("n2")
    script.down("n3")
    assert script.settle() == []
    assert script.store.load().size == 2
    assert script.machine.log.commit_size == 1


def test_a_deposed_master_whose_disk_is_full_stays_deposed_and_does_not_open_when_there_is_room() -> None:
    script, _ = deposed()
    script.full = True
    assert script.disk() == []
    script.full = False
    script.tick(1.0)
    assert script.settle() == []
    assert script.machine.state is State.DEPOSED


@pytest.mark.parametrize("reason", ["cluster", "master", "signature", "gap"])
def test_a_refusal_for_another_reason_deposes_nobody_whatever_is_promised_there(reason: str) -> None:
    """A node of another cluster at a worker's address may have promised any epoch."""
    script = opened()
    assert script.says("n2", Refused(reason, "text", 99)) == [f"hang up n2: {reason}"]
    assert script.machine.state is State.OPEN


@pytest.mark.parametrize(("epoch", "to"), [(1, "n3"), (1, ""), (7, ""), (7, "n1")])
def test_a_voter_that_can_not_follow_though_no_other_master_is_known_makes_it_open_a_higher_epoch(
    epoch: int, to: str
) -> None:
    """It has its quorum in this epoch: no other can have one. Whoever is bound to itself says "": it has given way."""
    script = opened()
    lines = script.says("n2", Refused("epoch", f"epoch {epoch} is promised", epoch, to))
    assert lines == ["state opening", "hang up n2: opening", "hang up n3: opening", "turn: candidate, resume"]
