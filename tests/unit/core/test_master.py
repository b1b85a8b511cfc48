"""The master's machine once its epoch has begun: group commit, write concerns, the commit size, workers, the disk.

Most tests begin with ``MasterScript().opened()``: nodes n1 (the master), n2 and n3, whose logs are the epoch's first
record.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicad.core.effects import IdsFound, Reconfigured
from replicad.core.progress import Health, Phase
from replicad.errors import InvariantError
from tests.support.builders import LogBuilder, keyring
from tests.support.script import MasterScript, level_with, opened, stored, welcome

# --- group commit -----------------------------------------------------------------------------------------------


def test_a_batch_goes_to_the_disk_and_to_the_workers_at_the_same_time() -> None:
    script = opened()
    assert script.post("a") == [
        "disk: store 1..2 e1 commit=1",
        "n2 < append 1..2 e1 commit=1",
        "n3 < append 1..2 e1 commit=1",
    ]


def test_what_arrives_while_batches_are_being_written_becomes_the_next_batch() -> None:
    script = opened(unstored_batches=2)
    assert script.post("a")[0] == "disk: store 1..2 e1 commit=1"
    assert script.post("b")[0] == "disk: store 2..3 e1 commit=1"
    assert script.post("c") == []
    assert script.post("d", "e") == []
    assert script.disk(1) == [
        "answer #1: [0]@1 new, on 1",
        "disk: store 3..6 e1 commit=1",
        "n2 < append 3..6 e1 commit=1",
        "n3 < append 3..6 e1 commit=1",
    ]


def test_a_batch_holds_no_more_records_than_the_limit_unless_one_frame_has_more() -> None:
    script = opened(batch_records=3, unstored_batches=1)
    script.post("a")
    script.post("b", "c")
    script.post("d", "e")
    script.post("f", "g", "h", "i")
    assert script.disk()[1] == "disk: store 2..4 e1 commit=1"
    assert script.disk()[1] == "disk: store 4..6 e1 commit=1"
    assert script.disk()[1] == "disk: store 6..10 e1 commit=1"


def test_a_batch_is_cut_by_bytes_too() -> None:
    script = opened(batch_bytes=1000, unstored_batches=1)
    script.post("a", payloads=[b""])
    for name in "bcd":
        script.post(name, payloads=[bytes(400)])
    assert script.disk()[1] == "disk: store 2..4 e1 commit=1"
    assert script.disk()[2] == "disk: store 4..5 e1 commit=1"


def test_records_carry_the_time_at_which_their_batch_was_made() -> None:
    script = opened()
    script.tick(12.5)
    script.post("a")
    script.settle()
    assert script.store.read(1, max_bytes=1)[0].time_ms == script.wall_ms


# --- write concerns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("w", "order"), [(1, "n1"), (2, "n1 n2"), (2, "n1 n3"), (3, "n1 n2 n3"), (3, "n3 n2 n1")])
def test_a_post_is_answered_when_that_many_nodes_have_it_and_not_before(w: int, order: str) -> None:
    script = opened()
    script.post("a", w=w)
    nodes = order.split()
    for node in nodes[:-1]:
        assert answers(script, node) == []
    (answer,) = answers(script, nodes[-1])
    assert answer == f"answer #1: [0]@1 new, on {w}"


def answers(script: MasterScript, node: str) -> list[str]:
    """What is answered when ``node`` has all of the log on disk."""
    lines = script.disk() if node == "n1" else script.acks(node, script.machine.log.tip)
    return [line for line in lines if line.startswith("answer")]


def test_the_master_itself_is_always_among_them() -> None:
    script = opened()
    script.post("a", w=2)
    assert answers(script, "n2") == []
    assert answers(script, "n3") == []
    assert answers(script, "n1") == ["answer #1: [0]@1 new, on 3"]
    assert script.machine.log.commit_size == 2


def test_w3_waits_for_a_worker_that_is_down_while_w1_and_w2_go_on() -> None:
    script = opened()
    script.down("n3")
    script.post("for all", w=3, timeout_s=1e6)
    script.disk()
    for n in range(5):
        w1, w2 = 2 * n + 2, 2 * n + 3  # tickets, and offsets too
        script.post(f"w1 {n}", w=1)
        assert answers(script, "n1") == [f"answer #{w1}: [0]@{w1} new, on 1"]
        script.post(f"w2 {n}", w=2)
        assert answers(script, "n1") == []
        assert answers(script, "n2") == [f"answer #{w2}: [0]@{w2} new, on 2"]


def test_w3_is_answered_when_the_worker_is_back_and_has_caught_up() -> None:
    script = opened()
    script.down("n3")
    script.post("for all", w=3, timeout_s=1e6)
    script.settle()
    script.acks("n2", 2)
    script.up("n3")
    assert script.says("n3", level_with(script, "n3", 1)) == ["n3 < append 1..2 e1 commit=2"]
    assert script.acks("n3", 2) == ["answer #1: [0]@1 new, on 3"]


def test_a_deadline_that_passes_is_answered_with_how_many_nodes_have_it() -> None:
    script = opened()
    script.down("n3")
    script.post("a", w=3, timeout_s=2.0)
    script.settle()
    script.acks("n2", 2)
    assert script.machine.wake_at() <= script.now + 2.0
    assert not any(line.startswith("answer") for line in script.tick(1.9))
    assert "answer #1: [0] WRITE_CONCERN_TIMEOUT applied=yes @1 on 2" in script.tick(0.2)
    assert script.store.load().size == 2  # and it stays


def test_the_same_id_again_waits_for_the_original_record() -> None:
    script = opened()
    script.down("n3")
    script.post("a", w=3, timeout_s=1.0)
    script.settle()
    script.acks("n2", 2)
    script.tick(1.5)
    script.post("a", w=3, timeout_s=100.0)
    assert script.settle() == []
    script.up("n3")
    script.says("n3", level_with(script, "n3", 1))
    script.settle()
    assert script.acks("n3", 2) == ["answer #2: [0]@1 duplicate, on 3"]
    assert script.store.load().size == 2


def test_a_duplicate_of_a_record_that_is_on_enough_nodes_is_answered_from_the_disk() -> None:
    script = opened()
    script.post("a", w=2)
    script.settle()
    script.acks("n2", 2)
    assert script.post("a", w=2) == ["disk: content of 1 for #2"]
    assert script.disk() == ["answer #2: [0]@1 duplicate, on 2"]
    assert script.post("a", payloads=[b"other"]) == ["disk: content of 1 for #3"]
    assert script.disk() == ["answer #3: [0] ID_CONFLICT applied=no @1"]


def test_after_a_restart_duplicates_are_found_by_the_index_on_disk() -> None:
    script = opened(voters=1)
    script.post("m")
    script.settle()
    again = MasterScript(voters=1, store=script.store, seed=101)
    again.start()
    again.settle()
    assert again.post("m") == ["disk: find m for #1"]
    assert again.settle() == ["disk: content of 1 for #1", "answer #1: [0]@1 duplicate, on 1"]
    assert again.post("a") == ["disk: find a for #2"]
    assert again.settle()[-1] == "answer #2: [0]@3 new, on 1"
    assert again.post("z")[0] == "disk: store 4..5 e2 commit=4"


# --- the commit size --------------------------------------------------------------------------------------------


def test_the_commit_size_is_what_the_commit_quorum_has_on_disk() -> None:
    script = opened(voters=5)
    script.post("a")
    script.post("b")
    script.settle()
    script.acks("n2", 3)
    assert script.machine.log.commit_size == 1
    script.acks("n3", 2)
    assert script.machine.log.commit_size == 2
    script.acks("n4", 3)
    assert script.machine.log.commit_size == 3


def test_the_commit_size_moves_only_over_a_record_of_this_epoch() -> None:
    """Raft's rule (Ongaro and Ousterhout, 5.4.2): a quorum for an old record alone does not make it safe."""
    log = LogBuilder("n1", epoch=1)
    for _ in range(3):
        log.add()
    script = MasterScript(store=stored(log))
    script.start()
    script.disk()
    script.up("n2")
    script.says("n2", welcome("n2", log))
    assert script.acks("n2", 3) == []
    assert script.machine.log.commit_size == 0
    script.settle()
    assert script.machine.log.commit_size == 0
    assert script.acks("n2", 4) == ["state open"]
    assert script.machine.log.commit_size == 4


def test_the_commit_size_never_passes_the_own_disk() -> None:
    script = opened()
    script.post("a")
    script.acks("n2", 2)
    script.acks("n3", 2)
    assert script.machine.log.commit_size == 1
    script.disk()
    assert script.machine.log.commit_size == 2


def test_the_next_batch_tells_workers_the_commit_size() -> None:
    script = opened()
    script.post("a")
    script.settle()
    script.acks("n2", 2)
    assert script.post("b") == [
        "disk: store 2..3 e1 commit=2",
        "n2 < append 2..3 e1 commit=2",
        "n3 < append 2..3 e1 commit=2",
    ]


def with_an_untold_commit_size() -> MasterScript:
    """A record is committed, no batch has gone out since, and workers are told by themselves after 5 ms."""
    script = opened(announce_s=0.005)
    script.tick(0.01)
    script.post("a")
    script.settle()
    script.acks("n2", 2)
    return script


def test_a_commit_size_that_no_batch_has_carried_is_told_by_itself_soon() -> None:
    script = with_an_untold_commit_size()
    assert script.machine.wake_at() == pytest.approx(script.now + 0.005)
    assert script.tick(0.006) == ["n2 < heartbeat commit=2 probe=0", "n3 < heartbeat commit=2 probe=0"]
    assert script.tick(0.006) == []


def test_a_commit_size_that_a_batch_has_carried_is_not_told_again() -> None:
    script = with_an_untold_commit_size()
    script.post("b")
    assert script.tick(0.006) == []


def test_while_batches_go_out_they_tell_the_commit_size_and_nothing_else_does() -> None:
    script = with_an_untold_commit_size()
    script.tick(0.003)
    script.post("b")
    script.settle()
    script.acks("n2", 3)
    assert script.tick(0.003) == []  # 6 ms after the first move, 3 ms after the one that no batch has carried
    assert script.tick(0.003) == ["n2 < heartbeat commit=3 probe=0", "n3 < heartbeat commit=3 probe=0"]


# --- the window, and workers that lag ---------------------------------------------------------------------------


def test_a_worker_whose_window_is_full_is_sent_no_more_and_holds_up_nobody() -> None:
    script = opened(window_bytes=1)
    assert script.post("a")[1:] == ["n2 < append 1..2 e1 commit=1", "n3 < append 1..2 e1 commit=1"]
    script.disk()
    assert script.acks("n2", 2) == []
    assert script.post("b", w=2) == ["disk: store 2..3 e1 commit=2", "n2 < append 2..3 e1 commit=2"]
    script.disk()
    assert script.acks("n2", 3) == ["answer #2: [0]@2 new, on 2"]
    assert script.acks("n3", 2) == ["n3 < append 2..3 e1 commit=3"]


def test_a_worker_that_lags_beyond_memory_is_fed_from_the_disk_within_its_window() -> None:
    script = opened(cache_bytes=0, window_bytes=600, read_bytes=400)
    script.down("n3")
    for n in range(6):
        script.post(f"m{n}", payloads=[bytes(100)])
        script.settle()
        script.acks("n2", n + 2)
    script.up("n3")
    script.says("n3", level_with(script, "n3", 1))
    assert script.disk() == ["disk: read 1..7 for n3"]
    assert script.disk() == [
        "n3 < append 1..2 e1 commit=7",
        "n3 < append 2..3 e1 commit=7",
        "disk: read 3..7 for n3",
    ]
    assert script.disk() == ["n3 < append 3..4 e1 commit=7"]  # and now the window is full
    assert script.acks("n3", 2) == ["disk: read 4..7 for n3"]
    assert script.disk() == ["n3 < append 4..5 e1 commit=7"]
    assert script.acks("n3", 5) == ["disk: read 5..7 for n3"]
    assert script.disk() == ["n3 < append 5..6 e1 commit=7", "n3 < append 6..7 e1 commit=7"]
    assert script.acks("n3", 7) == []
    assert script.machine.workers["n3"].acked_size == 7


def test_what_is_held_in_memory_for_a_worker_that_is_down_is_bounded() -> None:
    script = opened(cache_bytes=5000, window_bytes=3000)
    script.down("n3")
    for n in range(100):
        script.post(f"m{n:03}", payloads=[bytes(1000)])
        script.settle()
        script.acks("n2", n + 2)
    assert script.machine.log.recent.size_bytes <= 5000
    assert script.machine.workers["n3"].in_flight_bytes == 0


# --- health -----------------------------------------------------------------------------------------------------


def test_an_idle_master_lets_its_workers_hear_from_it() -> None:
    script = opened(heartbeat_s=0.5)
    assert [line.split(" < ")[1] for line in script.tick(0.01)] == ["heartbeat commit=1 probe=0"] * 2
    assert script.machine.wake_at() == pytest.approx(script.now + 0.5)
    assert script.tick(0.49) == []
    assert script.tick(0.02) == ["n2 < heartbeat commit=1 probe=0", "n3 < heartbeat commit=1 probe=0"]
    assert script.machine.wake_at() == pytest.approx(script.now + 0.5)


def test_a_worker_that_is_not_level_yet_is_told_no_commit_size() -> None:
    script = opened()
    script.tick(0.01)
    script.down("n3")
    script.up("n3")
    script.tick(0.5)
    assert script.tick(0.5)[-1] == "n3 < heartbeat commit=0 probe=0"


def test_a_silent_worker_is_suspected_then_unhealthy_and_its_stream_is_ended() -> None:
    script = opened(suspect_s=2.0, unhealthy_s=10.0)
    n2 = script.machine.workers["n2"]

    def health() -> list[Health]:
        return [worker.health for worker in script.machine.workers.values()]

    for _ in range(3):
        script.tick(0.7)
        script.acks("n3", 1)
    assert health() == [Health.SUSPECTED, Health.HEALTHY]
    assert script.events_noted.count("suspected") == 1
    for _ in range(11):
        script.tick(0.7)
        script.acks("n3", 1)
    assert health() == [Health.SUSPECTED, Health.HEALTHY]
    assert script.events_noted.count("suspected") == 1
    assert "hang up n2: silent for 10.5 s" in script.tick(0.7)
    assert health() == [Health.UNHEALTHY, Health.HEALTHY]
    assert n2.phase is Phase.DOWN


def test_a_suspected_worker_that_answers_is_healthy_again() -> None:
    script = opened()
    script.tick(3.0)
    assert [worker.health for worker in script.machine.workers.values()] == [Health.SUSPECTED] * 2
    script.acks("n2", 1)
    assert [worker.health for worker in script.machine.workers.values()] == [Health.HEALTHY, Health.SUSPECTED]


def test_losing_a_worker_is_noted_once() -> None:
    script = opened()
    script.down("n2")
    script.down("n2")
    assert script.events_noted.count("lost") == 1


# --- min_nodes --------------------------------------------------------------------------------------------------


def test_with_fewer_nodes_reachable_than_min_nodes_posts_are_refused_before_anything_is_appended() -> None:
    script = opened(min_nodes=3)
    script.post("a")
    script.down("n3")
    assert script.post("b") == ["answer #2: all UNAVAILABLE applied=no"]
    assert script.machine.log.tip == 2
    script.up("n3")
    assert script.post("b") == ["answer #3: all UNAVAILABLE applied=no"]  # reachable is who follows
    script.says("n3", level_with(script, "n3", 1))
    script.settle()
    assert script.post("b")[0] == "disk: store 2..3 e1 commit=1"


def test_a_suspected_worker_still_counts_as_reachable() -> None:
    script = opened(min_nodes=3)
    script.tick(3.0)
    assert script.machine.reachable == 3
    assert script.post("a")[0] == "disk: store 1..2 e1 commit=1"


def test_with_min_nodes_1_a_master_alone_takes_posts() -> None:
    script = opened(min_nodes=1)
    script.down("n2")
    script.down("n3")
    script.post("a", w=1)
    assert script.disk() == ["answer #1: [0]@1 new, on 1"]
    assert script.machine.log.commit_size == 1


# --- what is not asked for --------------------------------------------------------------------------------------


def test_the_disks_answer_for_a_frame_that_is_answered_already_changes_nothing() -> None:
    script = opened()
    assert script.feed(IdsFound(77, {"x": 0})) == []


def test_reserved_ids_of_the_log_do_not_make_memory_ask_the_disk() -> None:
    """The epoch record's id is greater than any UUID: it must not count as the greatest id in the log."""
    script = MasterScript(voters=1)
    script.start()
    script.settle()
    again = MasterScript(voters=1, store=script.store, seed=101)
    again.start()
    again.settle()
    assert again.post("018bcfe5")[0] == "disk: store 2..3 e2 commit=2"


# --- other settings ---------------------------------------------------------------------------------------------


def test_new_limits_and_timeouts_hold_from_the_next_event_on() -> None:
    script = opened()
    script.down("n3")
    settings = replace(script.machine.settings, min_nodes=3, waiting_frames=1, heartbeat_s=0.02, window_bytes=4096)
    assert script.feed(Reconfigured(settings, keyring())) == []
    assert script.post("a") == ["answer #1: all UNAVAILABLE applied=no"]
    assert script.machine.workers["n2"].window_bytes == 4096
    assert script.machine.wake_at() <= script.now + 0.02

    script.feed(Reconfigured(replace(settings, min_nodes=1), keyring()))
    script.post("b", w=3)
    assert script.post("c", w=3) == ["answer #3: all RATE_LIMITED applied=no"]


def test_other_nodes_are_no_new_settings() -> None:
    script = opened()
    with pytest.raises(InvariantError, match="the nodes changed"):
        script.feed(Reconfigured(replace(script.machine.settings, workers=("n2",)), keyring()))
