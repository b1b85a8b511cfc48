"""Write concerns over real workers: w=3 waits for a node that is down, and nobody waits with it."""

from __future__ import annotations

import pytest

from tests.support.cluster_stage import ClusterStage
from tests.support.script import adjusted


def level(voters: int = 3, **changes: object) -> ClusterStage:
    """A cluster that is open, with all its workers level."""
    stage = ClusterStage(voters=voters, adjust=adjusted(**changes)).connect()
    stage.settle()
    return stage


def answers(lines: list[str]) -> list[str]:
    return [line.removeprefix("n1: answer ") for line in lines if "answer" in line]


def test_w3_waits_while_a_worker_is_down_and_w1_and_w2_do_not() -> None:
    stage = level().cut("n3")
    stage.post("all", w=3)
    for n in range(3):
        stage.post(f"one {n}", w=1)
        stage.post(f"two {n}", w=2)
    assert sorted(answers(stage.settle())) == [
        "#2: [0]@2 new, on 1",
        "#3: [0]@3 new, on 2",
        "#4: [0]@4 new, on 1",
        "#5: [0]@5 new, on 2",
        "#6: [0]@6 new, on 1",
        "#7: [0]@7 new, on 2",
    ]
    stage.connect("n3")
    assert answers(stage.settle()) == ["#1: [0]@1 new, on 3"]
    stage.assert_level()


def test_w3_waits_for_a_worker_whose_disk_is_slow() -> None:
    stage = level()
    stage.post("all", w=3)
    stage.post("two", w=2)
    assert answers(stage.settle(but=["n3"])) == ["#2: [0]@2 new, on 2"]
    stage.deliver("n3")
    stage.collect("n3")
    assert answers(stage.seen) == ["#2: [0]@2 new, on 2"]
    assert answers(stage.settle()) == ["#1: [0]@1 new, on 3"]


def test_w1_is_answered_by_the_master_alone_and_the_others_follow_when_they_can() -> None:
    stage = level().cut("n2", "n3")
    stage.post("a", w=1)
    assert answers(stage.settle()) == ["#1: [0]@1 new, on 1"]
    assert stage.commit_sizes["n1"] == 1
    stage.connect()
    stage.settle()
    stage.tick(0.01)
    stage.assert_level()
    assert stage.commit_sizes == {"n1": 2, "n2": 2, "n3": 2}


def test_with_a_minority_dead_majorities_go_on() -> None:
    stage = level(voters=5).cut("n4", "n5")
    stage.post("a", w=3)
    assert answers(stage.settle()) == ["#1: [0]@1 new, on 3"]
    stage.cut("n3")
    stage.post("b", w=3)
    stage.post("c", w=2)
    assert sorted(answers(stage.settle())) == ["#3: [0]@3 new, on 2"]
    assert stage.commit_sizes["n1"] == 2


def test_a_deadline_that_passes_tells_the_truth_and_the_record_arrives_later() -> None:
    stage = level().cut("n3")
    stage.post("a", w=3, timeout_s=2.0)
    stage.settle()
    assert answers(stage.tick(2.5)) == ["#1: [0] WRITE_CONCERN_TIMEOUT applied=yes @1 on 2"]
    stage.connect("n3")
    stage.settle()
    assert stage.ids("n3") == ["replicad:epoch:1", "a"]
    stage.post("a", w=3)
    assert answers(stage.settle()) == ["#2: [0]@1 duplicate, on 3"]


def test_a_worker_that_was_away_for_long_is_fed_from_the_disk_and_is_level_in_the_end() -> None:
    stage = level(cache_bytes=2000, window_bytes=3000, read_bytes=2000).cut("n3")
    for n in range(120):
        stage.post(f"m{n:03}", w=2)
        stage.settle()
    assert stage.master.machine.log.recent.size_bytes <= 2000
    stage.post("for all", w=3)
    stage.connect("n3")
    assert answers(stage.settle())[-1] == "#121: [0]@121 new, on 3"
    stage.assert_level()


def test_while_a_lagging_worker_catches_up_posts_go_on() -> None:
    stage = level(cache_bytes=0, window_bytes=600, read_bytes=600).cut("n3")
    for n in range(20):
        stage.post(f"m{n:02}", w=2)
        stage.settle()
    stage.connect("n3")
    for n in range(20, 30):
        stage.post(f"m{n:02}", w=2)
        stage.deliver("n3", 1)
        stage.disk("n3")
        assert answers(stage.settle(but=["n3"])) == [f"#{n + 1}: [0]@{n + 1} new, on 2"]
    stage.settle()
    stage.assert_level()


@pytest.mark.parametrize("voters", [1, 2, 3, 4, 5])
def test_majority_and_all_of_any_cluster_are_answered(voters: int) -> None:
    stage = level(voters=voters)
    stage.post("majority", w=voters // 2 + 1)
    stage.post("all", w=voters)
    lines = answers(stage.settle())
    assert sorted(line.split(":")[0] for line in lines) == ["#1", "#2"]
    stage.assert_level()
