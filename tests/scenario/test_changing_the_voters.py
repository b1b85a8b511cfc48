"""Lists of voters change at restarts, step by step: what the old voters acknowledged is in every log that opens."""

from __future__ import annotations

from itertools import permutations

import pytest

from replicad.core.effects import State
from tests.support.cluster_stage import ClusterStage

ALL = ("n1", "n2", "n3", "n4", "n5")


def three_of_five() -> ClusterStage:
    """n1, n2 and n3 are the cluster; n4 and n5 are machines that nobody has called yet. Two records."""
    stage = ClusterStage(voters=5)
    stage.configure("n1", "n2", "n3")
    for name in ("n2", "n3", "n1"):
        stage.restart(name)
    stage.connect()
    stage.settle()
    stage.post("kept", w=2)
    stage.settle()
    return stage


def restarted(stage: ClusterStage, *connected: str) -> list[str]:
    """The master again, with what the config says now, and streams to these workers; what was seen."""
    stage.restart("n1")
    stage.connect(*connected)
    return stage.settle()


def opens(stage: ClusterStage, *connected: str) -> bool:
    restarted(stage, *connected)
    return stage.master.machine.state is State.OPEN


def test_a_worker_is_added_without_a_vote_first_and_then_with_one() -> None:
    stage = three_of_five()
    stage.configure("n1", "n2", "n3", "n4", without_vote=["n4"])
    assert opens(stage)
    assert stage.sizes["n4"] == stage.sizes["n1"]
    stage.post("by three voters", w=3)
    assert "n1: answer #1: [0]@3 new, on 3" in stage.settle()

    stage.configure("n1", "n2", "n3", "n4")
    assert not opens(stage, "n4"), "of the old list n1 alone is there"
    assert opens(stage, "n2", "n4")
    stage.connect("n3")
    stage.settle()
    stage.post("by four", w=4)
    assert "n1: answer #1: [0]@5 new, on 4" in stage.settle(), "the start that did not open has begun nothing"


def test_a_dead_worker_is_taken_out_while_a_majority_of_the_old_list_is_there() -> None:
    stage = three_of_five()
    stage.configure("n1", "n3")
    assert opens(stage, "n3")
    stage.post("by two", w=2)
    assert stage.settle() == ["n1: answer #1: [0]@3 new, on 2"]
    assert "kept" in stage.ids("n3")


@pytest.mark.parametrize("order", list(permutations(("n2", "n4", "n5"))))
def test_two_of_three_are_replaced_at_once_whoever_answers_first(order: tuple[str, ...]) -> None:
    stage = three_of_five()
    stage.configure(*ALL, without_vote=["n2", "n3"])
    stage.restart("n1")
    for name in order:
        stage.connect(name)
        stage.settle()
    assert stage.master.machine.state is State.OPEN
    stage.post("by the new", w=3)
    assert any("on 3" in line for line in stage.settle())
    stage.configure("n1", "n4", "n5")
    assert opens(stage, "n5")
    assert all("kept" in stage.ids(name) for name in ("n1", "n4", "n5"))


def test_what_the_old_voters_have_and_the_master_lost_is_fetched_before_new_voters_count() -> None:
    """The master's own disk has not what n2 and n3 acknowledged in another's epoch: the old list finds it."""
    stage = three_of_five()
    stage = stage.under("n2").connect("n3")
    stage.settle()
    stage.post("in the epoch of n2", w=2)
    stage.settle()
    assert "in the epoch of n2" not in stage.ids("n1")
    stage = stage.under("n1")
    stage.configure("n1", "n4", "n5")
    assert not opens(stage, "n4", "n5")
    assert stage.sizes["n4"] == 0
    stage.configure(*ALL, without_vote=["n2", "n3"])
    assert opens(stage, "n4", "n5", "n3")
    assert all("in the epoch of n2" in stage.ids(name) for name in ("n1", "n4", "n5"))


def test_a_change_that_never_took_effect_and_the_next_one_both_hold_until_one_has() -> None:
    """n1 begins an epoch with n4, which has its record; then dies, and is to go on with n2 alone."""
    stage = three_of_five()
    stage.configure(*ALL, without_vote=["n2", "n3", "n5"])
    stage.restart("n1")
    stage.connect("n3", "n4")
    stage.settle(but=["n2", "n3", "n4"])
    for _ in range(3):
        for name in ("n3", "n4"):
            stage.deliver(name)
            stage.disk(name)
            stage.collect(name)
        stage.disk("n1")
    stage.configure("n1", "n2")
    assert not opens(stage, "n2"), "the list n1, n4 may be in force"
    assert "n1, n4 may still be in force" in stage.master.machine.detail
    stage.configure("n1", "n2", "n4", without_vote=["n4"])
    assert opens(stage, "n2", "n4")
    for message_id in ("a", "b"):  # with which it comes on the master's disk that the epoch has opened
        stage.post(message_id, w=2)
        stage.settle()
    stage.configure("n1", "n2")
    assert opens(stage, "n2")
