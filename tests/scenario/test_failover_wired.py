"""Masters that die, come back, or are replaced: what was acknowledged by W is in every later log, and nothing twice."""

from __future__ import annotations

import pytest

from replicad.core.effects import State
from replicad.core.frames import Align
from replicad.errors import InvariantError
from replicad.wire.codec import decode_master_frame, encode_master_frame
from tests.support.cluster_stage import ClusterStage


def level(voters: int = 3, master: str = "n1") -> ClusterStage:
    stage = ClusterStage(voters=voters, master=master).connect()
    stage.settle()
    return stage


# --- the same master again --------------------------------------------------------------------------------------


def test_a_master_that_restarts_takes_a_new_epoch_and_knows_every_id() -> None:
    stage = level()
    stage.post("a", "b", w=2)
    stage.settle()
    stage.restart("n1")
    stage.connect()
    assert "n1: state open" in stage.settle()
    stage.post("b", w=3)
    stage.post("c", w=3)
    assert sorted(line for line in stage.settle() if "answer" in line) == [
        "n1: answer #1: [0]@2 duplicate, on 3",
        "n1: answer #2: [0]@4 new, on 3",
    ]
    assert stage.ids("n2") == ["replicad:epoch:1", "a", "b", "replicad:epoch:2", "c"]
    stage.assert_level()


def test_a_master_that_loses_what_was_not_synced_fetches_it_from_a_worker_that_has_it() -> None:
    """The worker was faster than the master's own disk: nothing was acknowledged, and nothing is lost either."""
    stage = level()
    stage.post("a", w=1)
    stage.deliver("n2")
    stage.disk("n2")
    assert stage.sizes == {"n1": 1, "n2": 2, "n3": 1}
    stage.restart("n1")
    stage.connect("n2")
    assert "n1: state open" in stage.settle()
    assert stage.ids("n1") == ["replicad:epoch:1", "a", "replicad:epoch:2"]
    stage.post("a", w=2)
    assert stage.settle() == ["n1: answer #1: [0]@1 duplicate, on 2"]


def test_a_worker_with_a_record_that_nobody_else_has_puts_it_aside_when_the_quorum_went_on_without_it() -> None:
    stage = level()
    stage.post("a", w=1)
    stage.deliver("n2")
    stage.disk("n2")
    stage.restart("n1")
    stage.connect("n3")
    stage.settle()
    stage.post("b", w=2)
    stage.settle()
    stage.connect("n2")
    stage.settle()
    assert stage.workers["n2"].dropped == [(1, 2)]
    assert stage.ids("n2") == ["replicad:epoch:1", "replicad:epoch:2", "b"]
    stage.assert_level()


def test_a_worker_that_restarts_in_the_middle_goes_on_from_its_disk() -> None:
    stage = level()
    for n in range(5):
        stage.post(f"m{n}", w=2)
        stage.deliver("n3", 1)  # taken in, and lost with the restart
    stage.restart("n3")
    stage.settle()
    stage.connect("n3")
    stage.settle()
    stage.assert_level()


def test_a_master_with_no_quorum_stays_closed_and_opens_when_there_is_one() -> None:
    stage = level(voters=5)
    stage.restart("n1")
    stage.connect("n2")
    assert stage.settle() == ["n2: state following"]
    stage.post("early", w=1)
    assert stage.settle() == []
    assert stage.seen[-1] == "n1: answer #1: all UNAVAILABLE applied=no"
    stage.connect("n3")
    assert "n1: state open" in stage.settle()
    assert "early" not in stage.ids("n1")


# --- another master ---------------------------------------------------------------------------------------------


def test_what_only_the_old_master_has_is_put_aside_when_it_comes_back_as_a_worker() -> None:
    old = level()
    old.post("kept", w=2)
    old.settle()
    old.cut("n2", "n3")
    old.post("only here", w=1)
    assert old.settle() == ["n1: answer #2: [0]@2 new, on 1"]

    new = old.under("n2").connect("n3")
    assert "n2: state open" in new.settle()
    new.post("new", w=2)
    new.settle()
    new.connect("n1")
    new.settle()
    assert new.workers["n1"].dropped == [(2, 3)]
    assert new.workers["n1"].events_noted.count("quarantined") == 1
    assert new.ids("n1") == ["replicad:epoch:1", "kept", "replicad:epoch:2", "new"]
    new.assert_level()


def test_what_w_voters_acknowledged_is_in_the_log_of_every_later_master() -> None:
    for voters, acknowledging in ((3, ["n2"]), (3, ["n3"]), (5, ["n2", "n4"]), (5, ["n3", "n5"])):
        old = level(voters)
        old.cut(*[name for name in old.workers if name not in acknowledging])
        old.post("kept", w=voters // 2 + 1)
        assert old.settle()[-1].startswith("n1: answer #1: [0]@1 new")
        for master in old.workers:
            new = old.under(master)
            fence = [name for name in new.workers if name != "n1"][: voters // 2]
            new.connect(*fence)  # the old master is gone; any R of the others
            assert f"{master}: state open" in new.settle(), (voters, acknowledging, master)
            assert "kept" in new.ids(master)


def test_a_new_master_that_lacks_the_tail_fetches_it_and_a_retry_gets_the_original_offset() -> None:
    old = level()
    old.cut("n3")
    old.post("a", w=2)
    old.post("b", w=2)
    old.settle()
    new = old.under("n3").connect("n2")
    assert "n3: state open" in new.settle()
    new.post("a", w=2)
    new.post("c", w=2)
    lines = [line for line in new.settle() if "answer" in line]
    assert sorted(lines) == ["n3: answer #1: [0]@1 duplicate, on 2", "n3: answer #2: [0]@4 new, on 2"]
    new.connect("n1")
    new.settle()
    new.assert_level()


def test_a_new_master_whose_own_epoch_number_is_taken_goes_one_higher() -> None:
    """n2 was master of epoch 2; n1, which knows nothing of it, would be so too."""
    second = level().under("n2").connect("n3")
    second.settle()
    first_again = second.under("n1").connect("n3")
    assert "n1: hang up n3: epoch 3 is taken" in first_again.settle()
    first_again.connect("n3")
    assert "n1: state open" in first_again.settle()
    assert first_again.ids("n1") == ["replicad:epoch:1", "replicad:epoch:2", "replicad:epoch:3"]


def test_an_old_master_that_meets_a_promise_to_another_is_deposed_and_says_what_is_not_known() -> None:
    """Two stages share the disks of n3: it follows n2 in epoch 2 while n1 still believes in its epoch 1."""
    old = level()
    old.cut("n2", "n3")
    old.post("waits", w=2)
    old.settle()
    new = old.under("n2").connect("n3")
    new.settle()
    new.post("new", w=2)
    new.settle()

    old.stores["n3"] = new.stores["n3"]
    old.restart("n3")
    old.connect("n3")
    assert old.settle()[-4:] == [
        "n1: answer #1: all OUTCOME_UNKNOWN applied=unknown",
        "n1: state deposed",
        "n1: hang up n2: deposed",
        "n1: hang up n3: deposed",
    ]
    assert old.master.machine.state is State.DEPOSED
    old.post("late", w=1)
    assert old.seen[-1] == "n1: answer #2: all UNAVAILABLE applied=no"
    assert new.ids("n3") == ["replicad:epoch:1", "replicad:epoch:2", "new"]


def test_an_old_master_cannot_confirm_a_read_once_the_others_follow_another() -> None:
    old = level()
    old.confirm(1)
    assert old.settle() == ["n1: confirmed #1"]
    old.cut("n2", "n3")
    new = old.under("n2").connect("n3")
    new.settle()
    old.confirm(2)
    old.stores["n3"] = new.stores["n3"]
    old.restart("n3")
    old.connect("n3")
    assert "n1: not confirmed #2: UNAVAILABLE applied=no" in old.settle()


def test_masters_one_after_the_other_leave_one_log() -> None:
    stage = level()
    offsets: dict[str, int] = {}
    for turn, master in enumerate(["n2", "n3", "n1", "n3", "n2", "n1"]):
        stage.post(f"turn {turn}", w=2)
        offsets[f"turn {turn}"] = stage.master.machine.log.tip - 1
        stage.settle()
        stage = stage.under(master)
        for _ in range(4):  # an epoch that is taken already costs a round
            stage.connect(*[name for name in stage.workers if name not in stage.streams])
            stage.settle()
        assert stage.master.machine.state is State.OPEN
    stage.assert_level()
    assert [i for i in stage.ids("n1") if i.startswith("turn")] == list(offsets)
    for message_id, offset in offsets.items():
        stage.post(message_id, w=3)
        assert stage.settle()[-1].split(": ", 2)[2] == f"[0]@{offset} duplicate, on 3"


# --- what must not be -------------------------------------------------------------------------------------------


def test_a_batch_changed_on_the_way_is_refused_and_sent_again_over_a_new_stream() -> None:
    stage = level()
    stage.post("a", w=3)
    frames = stage.streams["n2"].to_worker
    changed = encode_master_frame(decode_master_frame(frames.popleft())).replace(b"payload of a", b"payload of b")
    frames.appendleft(changed)
    lines = stage.settle()
    assert "n2: hang up n1#1: payload" in lines
    assert stage.workers["n2"].machine.refused_batches == 1
    assert stage.sizes == {"n1": 2, "n2": 1, "n3": 2}
    stage.connect("n2")
    assert stage.settle()[-1] == "n1: answer #1: [0]@1 new, on 3"
    stage.assert_level()


def test_a_worker_with_a_full_disk_holds_up_nobody_and_is_level_when_there_is_room() -> None:
    stage = level()
    stage.workers["n3"].full = True
    stage.post("a", w=2)
    stage.post("b", w=3)
    lines = stage.settle()
    assert "n1: answer #1: [0]@1 new, on 2" in lines
    assert "n3: hang up n1#2: full" in lines
    stage.workers["n3"].full = False
    stage.connect("n3")
    assert stage.settle()[-1] == "n1: answer #2: [0]@2 new, on 3"
    stage.assert_level()


def test_a_data_folder_of_another_log_is_neither_followed_nor_truncated() -> None:
    stage = level()
    stage.post("a", w=3)
    stage.settle()
    stage.tick(0.01)
    other = ClusterStage(generation=50).connect()
    other.settle()
    other.post("x", w=3)
    other.settle()
    other.tick(0.01)
    other.publish()
    stage.cut("n3")
    stage.stores["n3"] = other.stores["n3"]
    stage.restart("n3")
    stage.connect("n3")
    assert "n1: hang up n3: fork" in stage.settle()
    assert stage.workers["n3"].dropped == []
    assert stage.ids("n3") == ["replicad:epoch:1", "x"]


def test_a_node_never_truncates_what_it_knows_to_be_committed() -> None:
    """If it is asked to, something is badly wrong, and it stops."""
    stage = level()
    stage.post("a", w=3)
    stage.settle()
    stage.tick(0.01)
    stage.publish()
    new = stage.under("n2").connect("n3")
    new.disk("n2")
    new.deliver("n3")
    new.disk("n3")
    new.streams["n3"].to_worker.append(encode_master_frame(Align(1)))
    with pytest.raises(InvariantError, match="2 are committed here"):
        new.deliver("n3")
    assert new.ids("n3") == ["replicad:epoch:1", "a"]
