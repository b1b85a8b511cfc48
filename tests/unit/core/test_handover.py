"""A switchover from the master's side: it drains, says TakeOver, and steps down, or goes on."""

from __future__ import annotations

from replicad.core.effects import FrameArrived, State
from replicad.core.frames import Aligned, Hello, Inquiry, Refused
from tests.support.builders import CLUSTER
from tests.support.script import MasterScript, level_with, opened


def with_work() -> MasterScript:
    """An open master with a batch that is at its disk and on its way to the workers."""
    script = opened()
    script.post("a", w=3)
    return script


def test_the_other_is_told_to_take_over_when_it_has_all_and_not_before() -> None:
    script = with_work()
    assert script.hand_over(7, "n2") == ["state handing-over"]
    assert script.acks("n2", 2) == []  # it is not on our own disk yet
    assert script.disk() == ["n2 < take over from e1"]
    assert script.acks("n2", 2) == []  # once is enough


def test_posts_are_refused_meanwhile_and_what_is_under_way_is_answered() -> None:
    script = with_work()
    script.hand_over(7, "n2")
    assert script.post("b") == ["answer #2: all UNAVAILABLE applied=no"]
    script.disk()
    script.acks("n2", 2)
    assert script.acks("n3", 2) == ["answer #1: [0]@1 new, on 3"]


def test_what_is_queued_and_in_no_batch_is_refused_and_not_lost() -> None:
    script = opened(unstored_batches=1)
    script.post("a")
    script.post("b")  # waits for the first batch
    assert script.hand_over(7, "n2") == [
        "state handing-over",
        "answer #2: [0] UNAVAILABLE applied=no",
    ]
    assert script.machine.log.tip == 2


def test_the_higher_epoch_of_the_other_ends_it() -> None:
    script = opened()
    assert script.hand_over(7, "n2") == ["state handing-over", "n2 < take over from e1"]
    assert script.is_called("n2#1", Hello(CLUSTER, "n2", 2)) == [
        "hang up n2#1: busy",
        "handed over #7 to n2",
        "state deposed",
        "hang up n2: deposed",
        "hang up n3: deposed",
        "turn: worker, 2 to n2",
    ]


def test_a_worker_that_tells_of_the_higher_epoch_ends_it_too() -> None:
    script = opened()
    script.hand_over(7, "n2")
    lines = script.says("n3", Refused("epoch", "epoch 2 is promised to n2", 2, "n2"))
    assert "handed over #7 to n2" in lines
    assert lines[-1] == "turn: worker, 2 to n2"


def test_the_other_says_good_bye_to_take_over_and_that_is_no_loss() -> None:
    script = opened()
    script.hand_over(7, "n2")
    assert script.down("n2", "takes another role") == []
    assert script.machine.state is State.HANDING_OVER


def test_one_that_follows_again_is_told_again_to_take_over() -> None:
    """The stream broke before it had heard: nobody leads until the time is over, unless it is told once more."""
    script = opened()
    script.hand_over(7, "n2")
    script.down("n2")
    script.up("n2")
    assert script.says("n2", level_with(script, "n2")) == ["n2 < align 1"]
    assert script.says("n2", Aligned(1)) == ["n2 < take over from e1"]
    assert script.acks("n2", 1) == []


def test_one_that_refuses_lets_the_master_go_on_at_once() -> None:
    script = opened()
    script.hand_over(7, "n2")
    assert script.says("n2", Refused("unfit", "n2 is not to be the master: no room", 1, "n1")) == [
        "not handed over #7: n2 refuses: n2 is not to be the master: no room; n1 goes on",
        "state open",
        "hang up n2: unfit",
    ]
    assert script.says("n3", Refused("cluster", "of another", 1, "n1")) == ["hang up n3: cluster"]


def test_one_that_is_dialled_again_while_it_asks_to_be_the_master_does_not_refuse_to_be_it() -> None:
    """The master must take no post that the other, which is about to lead, would never have."""
    script = opened()
    script.hand_over(7, "n2")
    script.down("n2", "takes another role")
    script.up("n2")
    assert script.says("n2", Refused("busy", "n2 asks to be the master itself", 1, "n1")) == ["hang up n2: busy"]
    assert script.post("a") == ["answer #1: all UNAVAILABLE applied=no"]


def test_a_worker_that_is_lost_before_it_has_all_lets_the_master_go_on() -> None:
    script = with_work()
    script.hand_over(7, "n2")
    lines = script.down("n2")
    assert lines == ["not handed over #7: n2 is lost: connection lost; n1 goes on", "state open"]
    assert script.post("b")[0].startswith("disk: store")


def test_time_that_is_over_lets_the_master_go_on() -> None:
    script = opened()
    script.hand_over(7, "n2", within_s=1.0)
    assert script.machine.wake_at() <= script.now + 1.0
    lines = script.tick(1.0)
    assert lines[-2:] == ["not handed over #7: n2 did not take over in time; n1 goes on", "state open"]


def test_a_disk_that_is_full_ends_it_and_no_post_is_taken_until_there_is_room() -> None:
    script = with_work()
    script.full = True
    script.hand_over(7, "n2")
    assert script.disk() == ["not handed over #7: disk says full; n1 goes on", "state read-only"]
    assert script.post("b") == ["answer #2: all STORAGE_FULL applied=no"]
    script.full = False
    assert "disk: store 1..2 e1 commit=1" in script.tick(1.0)
    assert script.disk() == ["state open"]
    assert script.post("b")[0] == "disk: store 2..3 e1 commit=1"


def test_one_that_takes_over_by_another_command_is_told_of() -> None:
    script = with_work()
    script.hand_over(7, "n2")
    lines = script.is_called("n2#1", Hello(CLUSTER, "n2", 2))  # promoted, before it had all
    assert "not handed over #7: n2 has taken over meanwhile, by another command" in lines
    assert "answer #1: all OUTCOME_UNKNOWN applied=unknown" in lines


def test_without_a_name_the_worker_is_taken_that_has_most() -> None:
    script = with_work()
    script.disk()
    script.acks("n3", 2)
    assert script.hand_over(7) == ["state handing-over", "n3 < take over from e1"]


def test_whom_nobody_can_hand_over_to() -> None:
    script = opened()
    script.down("n2")
    (line,) = script.hand_over(7, "n2")
    assert (
        line
        == "not handed over #7: n2 is not in reach and following (n2 is UNHEALTHY, 0 records behind: connection lost)"
    )
    (line,) = script.hand_over(8, "n9")
    assert line == "not handed over #8: 'n9' is no worker with a vote: n2, n3"
    script.down("n3")
    (line,) = script.hand_over(9)
    assert line.startswith("not handed over #9: no worker with a vote is in reach and following")
    assert script.machine.state is State.OPEN


def test_an_opening_master_hands_nothing_over() -> None:
    script = MasterScript()
    script.start()
    (line,) = script.hand_over(7, "n2")
    assert line.startswith("not handed over #7: n1 is opening, not open")


# --- who calls a master -----------------------------------------------------------------------------------------


def test_a_master_says_how_it_stands_and_whether_it_leads() -> None:
    script = opened()
    assert script.is_called("n2#1", Inquiry(CLUSTER, "n2")) == ["n2#1 < standing of n1: 1 to n1, e1 size=1, leads"]
    script.hand_over(7, "n2")
    assert script.is_called("n2#1", Inquiry(CLUSTER, "n2")) == ["n2#1 < standing of n1: 1 to n1, e1 size=1"]


def test_a_master_refuses_one_of_its_own_epoch_or_a_lower_one_and_goes_on() -> None:
    script = opened()
    for epoch in (0, 1):
        lines = script.is_called("n2#1", Hello(CLUSTER, "n2", epoch))
        assert lines == ["n2#1 < refused epoch, promised 1", "hang up n2#1: epoch"]
    assert script.machine.state is State.OPEN


def test_a_voter_that_is_bound_to_another_in_this_very_epoch_makes_the_master_open_a_higher_one() -> None:
    """It lost the race for the epoch, and can never follow in it."""
    script = opened()
    script.post("a", w=3)
    lines = script.says("n3", Refused("epoch", "epoch 1 is promised to n3 already", 1, "n3"))
    assert lines == [
        "answer #1: all OUTCOME_UNKNOWN applied=unknown",
        "state opening",
        "hang up n2: opening",
        "hang up n3: opening",
        "turn: candidate, resume",
    ]


def test_an_opening_master_that_was_not_appointed_gives_way_and_one_that_was_insists_for_a_while() -> None:
    refused = Refused("epoch", "epoch 2 is promised to n3", 2, "n3")
    script = MasterScript(insists=False)
    script.start()
    script.disk()
    script.up("n2")
    assert script.says("n2", refused)[-1] == "turn: worker, 2 to n3"

    script = MasterScript(insists=True)
    script.start()
    epoch = 1
    for _ in range(3):
        script.settle()
        script.up("n2")
        lines = script.says("n2", Refused("epoch", "promised", epoch + 1, "n3"))
        epoch += 2
        assert lines[-1] == f"disk: promise {epoch} to n1"
    script.settle()
    script.up("n2")
    assert script.says("n2", Refused("epoch", "promised", epoch + 1, "n3"))[-1] == f"turn: worker, {epoch + 1} to n3"


def test_frames_of_a_stream_that_nobody_opened_are_not_heeded() -> None:
    script = opened()
    assert script.feed(FrameArrived("n9", Refused("epoch", "text", 99, "n9"))) == []
