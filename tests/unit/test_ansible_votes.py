"""What a fleet can spare, as the playbooks that go from node to node reckon it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "ansible/roles/replicad/filter_plugins/replicad_votes.py"
FILTERS = runpy.run_path(str(PLUGIN))["FilterModule"]().filters()
votes, can_spare, can_begin, can_leave = (
    FILTERS[f"replicad_{name}"] for name in ("votes", "can_spare", "can_begin", "can_leave")
)

MASTER = "log-1"


def row(node: str, **more: Any) -> dict[str, Any]:
    role = "master" if node == MASTER else "worker"
    return {"node": node, "role": role, "reachable": True, "health": "HEALTHY", "size": 100, "voter": True} | more


def fleet(count: int, *down: str, **changed: dict[str, Any]) -> Any:
    """The account of so many nodes, some of which are down."""
    rows = [row(f"log-{number}", **changed.get(f"log_{number}", {})) for number in range(1, count + 1)]
    gone = {"reachable": False, "health": "UNHEALTHY", "size": None, "role": "worker"}
    return votes([each | gone if each["node"] in down else each for each in rows], 100)


@pytest.mark.parametrize(
    ("count", "down", "spared"),
    [(3, (), True), (3, ("log-3",), False), (5, ("log-3",), True), (5, ("log-3", "log-4"), False), (2, (), False)],
)
def test_a_worker_is_spared_where_a_majority_is_left(count: int, down: tuple[str, ...], spared: bool) -> None:
    assert can_spare(fleet(count, *down), "log-2", False) is spared


def test_a_master_is_spared_where_a_majority_is_there_when_it_comes_back() -> None:
    assert can_spare(fleet(3, "log-3"), MASTER, True)
    assert can_spare(fleet(2), MASTER, True)
    assert not can_spare(fleet(3, "log-2", "log-3"), MASTER, True)


def test_a_node_that_is_down_or_has_no_vote_is_no_loss() -> None:
    assert can_spare(fleet(3, "log-3"), "log-3", False)
    assert can_spare(fleet(3, log_3={"voter": False}), "log-3", False)
    assert not can_spare(fleet(3, log_3={"voter": False}), "log-2", False)


def test_while_the_master_is_away_its_workers_stay() -> None:
    assert not can_spare(fleet(3, MASTER), "log-2", False)
    assert can_spare(fleet(3, MASTER), MASTER, True)


def test_a_node_that_has_not_what_the_master_had_does_not_count() -> None:
    behind = fleet(3, log_3={"size": 99})
    assert not can_spare(behind, "log-2", False)
    assert behind["bad"] == "log-3 has 99 records and the master had 100"
    assert not can_spare(fleet(3, log_3={"health": "SUSPECTED"}), "log-2", False)


def test_an_older_release_does_not_tell_who_votes_and_all_do() -> None:
    rows = [row(f"log-{number}") for number in (1, 2, 3)]
    for each in rows:
        del each["voter"]
    assert votes(rows)["quorum"] == 2


def test_a_run_begins_where_every_turn_leaves_a_majority() -> None:
    all_three = ["log-1", "log-2", "log-3"]
    assert can_begin(fleet(3), all_three, MASTER)
    assert not can_begin(fleet(3, "log-3"), ["log-1", "log-2"], MASTER)
    assert can_begin(fleet(3, "log-3"), [MASTER], MASTER)
    assert not can_begin(fleet(3, "log-2", "log-3"), [MASTER], MASTER)


def test_a_run_with_nothing_to_do_is_not_refused() -> None:
    assert can_begin(fleet(3, "log-2", "log-3"), [], MASTER)


def test_what_is_down_and_has_its_turn_is_expected_back() -> None:
    assert can_begin(fleet(3, "log-2"), ["log-1", "log-2", "log-3"], MASTER)
    assert can_begin(fleet(3, MASTER), [MASTER], MASTER)
    assert not can_begin(fleet(3, MASTER), ["log-2", MASTER], MASTER)


@pytest.mark.parametrize(
    ("count", "down", "leaves", "possible"),
    [
        (3, (), "log-3", True),
        (3, ("log-3",), "log-3", True),
        (3, ("log-2",), "log-3", False),  # one of two voters is no majority
        (2, (), "log-2", True),
        (2, ("log-2",), "log-2", False),  # the old list has no majority without it
        (4, ("log-4",), "log-4", True),
        (4, ("log-3", "log-4"), "log-4", False),
        (3, (MASTER,), "log-3", False),
    ],
)
def test_a_node_leaves_where_both_lists_have_their_majority(
    count: int, down: tuple[str, ...], leaves: str, possible: bool
) -> None:
    assert can_leave(fleet(count, *down), leaves) is possible


def test_where_posts_may_wait_a_node_is_spared_while_all_are_well() -> None:
    assert can_spare(fleet(2), "log-2", False, True)
    assert not can_spare(fleet(2, log_1={"health": "SUSPECTED"}), "log-2", False, True)
    assert not can_spare(fleet(3, "log-3"), "log-2", False, True)


def test_an_address_that_no_node_knows_is_no_voter() -> None:
    counted = votes([row("log-1"), row("log-2"), row("?", reachable=False)])
    assert (counted["voters"], counted["bad"]) == (["log-1", "log-2"], "all are well")
