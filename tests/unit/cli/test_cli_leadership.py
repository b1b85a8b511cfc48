"""What promote and switchover make of what the nodes tell, before anything is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicad.cli.errors import Failure
from replicad.cli.leadership import open_master, plan_promotion, plan_switchover
from replicad.cli.status import Row
from replicad.client import NodeStatus, Status
from replicad.errors import ExitCode


def row(
    name: str,
    *,
    role: str = "worker",
    state: str = "following",
    epoch: int = 3,
    size: int = 10,
    commit_size: int | None = None,
    health: str = "HEALTHY",
    lag: int = 0,
    voter: bool = True,
    reachable: bool = True,
    seen_by_master: bool = True,
) -> Row:
    seen = NodeStatus(name, f"{name}:1", role, "self" if role == "master" else health, size, lag, "", voter=voter)
    own = Status(
        cluster="c",
        node=name,
        version="1",
        role=role,
        state=state,
        epoch=epoch,
        size=size,
        commit_size=size if commit_size is None else commit_size,
        root=b"",
        master="n1",
        master_address="n1:1",
        uptime_ms=0,
        rss_bytes=0,
        nodes=(),
        commit_quorum=2,
        detail="",
    )
    error = "" if reachable else "nobody takes connections"
    return Row(name, f"{name}:1", own if reachable else None, error, seen, seen_by_master, lag)


def fleet(**changes: Row) -> list[Row]:
    rows = {"n1": row("n1", role="master", state="open"), "n2": row("n2", lag=2), "n3": row("n3")}
    return list((rows | changes).values())


GONE = row("n1", role="master", reachable=False, seen_by_master=False)


def headless(**changes: Row) -> list[Row]:
    """The master is gone."""
    waiting = {name: row(name, state="waiting", health="unknown", seen_by_master=False) for name in ("n2", "n3")}
    return [GONE, *(waiting | changes).values()]


def refusal(plan: object) -> tuple[int, str, str]:
    assert callable(plan)
    with pytest.raises(Failure) as caught:
        plan()
    return caught.value.exit_code, caught.value.message, caught.value.remedy


def test_of_two_that_say_they_are_open_the_newer_one_is_the_master() -> None:
    old, new = row("n1", role="master", state="open", epoch=3), row("n2", role="master", state="open", epoch=4)
    assert open_master([old, new]) is new
    assert open_master([row("n1", role="master", state="opening"), row("n2")]) is None


def test_a_promotion_says_who_is_there_and_what_the_node_lacks() -> None:
    plan = plan_promotion(headless(n3=row("n3", state="waiting", size=13, seen_by_master=False)), "n2")
    assert plan.address == "n2:1"
    assert plan.text == (
        "n2, n3 are reached, and 2 of 3 voters are enough. n2 has 10 records, and takes 3 more from n3. Not reached: "
        "n1. What was acknowledged at a majority is not lost with them; what they alone have goes to their quarantine "
        "when they are back."
    )
    assert "nobody that is reached has more" in plan_promotion(headless(), "n3").text


def test_a_voter_without_any_records_is_named_for_its_disk_may_have_been_lost() -> None:
    plan = plan_promotion(headless(n3=row("n3", state="waiting", size=0, seen_by_master=False)), "n2")
    assert "n3: no records there. If a disk was lost, it does not count as a copy any more" in plan.text
    assert "no records there" not in plan_promotion(headless(), "n2").text


def test_the_master_needs_no_promotion() -> None:
    plan = plan_promotion(fleet(), "n1")
    assert plan.address is None
    assert "there is nothing to do" in plan.text


def test_a_promotion_past_an_open_master_is_a_switchover() -> None:
    assert refusal(lambda: plan_promotion(fleet(), "n2")) == (
        ExitCode.TRY_AGAIN,
        "n1 is the master, and open",
        "replicad-cli switchover --to n2",
    )


def test_a_promotion_needs_the_fence_quorum() -> None:
    rows = headless(n3=row("n3", reachable=False, seen_by_master=False))
    code, message, _ = refusal(lambda: plan_promotion(rows, "n2"))
    assert code == ExitCode.TRY_AGAIN
    assert message == ("2 of the 3 voters have to promise that they follow n2, and n2 alone can: not reached: n1, n3")


def test_what_is_at_risk_when_data_may_be_lost_is_said_in_offsets() -> None:
    left = [
        row(name, state="waiting", health="unknown", seen_by_master=False, size=size, commit_size=10)
        for name, size in (("n2", 12), ("n3", 11))
    ]
    plan = plan_promotion(left, "n2", accept_data_loss=True)
    assert plan.address == "n2:1"
    assert plan.text == (
        "DATA MAY BE LOST. n2, n3: all voters of the config are reached, and have 12 records. Offsets 10 to 11 are "
        "kept; the voters that are gone may have other records there. Whatever the voters that are gone acknowledged "
        "at offset 12 and beyond is lost; nobody here can tell how much that is. They must not come back with their "
        "data, or there are two logs. Where quorums of all voters that the log names are there after all, nothing is "
        "lost."
    )


def test_no_voter_of_the_config_may_be_away_when_data_may_be_lost() -> None:
    code, message, remedy = refusal(lambda: plan_promotion(headless(), "n2", accept_data_loss=True))
    assert code == ExitCode.TRY_AGAIN
    assert message.endswith("for each may be the one that has most; not reached: n1")
    assert remedy.startswith("start them; or, if they are lost for good, take them out of `nodes`")


@pytest.mark.parametrize("plan", [plan_promotion, plan_switchover])
def test_a_node_that_is_none_or_has_no_vote_is_a_wrong_word(plan: object) -> None:
    assert callable(plan)
    rows = fleet(n3=row("n3", voter=False)) if plan is plan_switchover else headless(n3=row("n3", voter=False))
    assert refusal(lambda: plan(rows, "n9"))[:2] == (ExitCode.USAGE, "'n9' is no node of the cluster: n1, n2, n3")
    assert refusal(lambda: plan(rows, "n3"))[:2] == (ExitCode.USAGE, "n3 has no vote, and a master has one")


def test_a_node_that_does_not_answer_is_not_promoted() -> None:
    rows = headless(n2=row("n2", reachable=False, seen_by_master=False))
    code, message, remedy = refusal(lambda: plan_promotion(rows, "n2"))
    assert (code, message) == (ExitCode.TRY_AGAIN, "n2 does not answer at n2:1: nobody takes connections")
    assert remedy == "start it, or promote another node"


def test_a_switchover_takes_the_worker_that_lags_least_or_the_one_that_is_named() -> None:
    plan = plan_switchover(fleet(), "")
    assert (plan.node, plan.address, plan.text) == ("n3", "n1:1", "n1 hands over to n3, which is level with it")
    plan = plan_switchover(fleet(), "n2")
    assert (plan.node, plan.text) == ("n2", "n1 hands over to n2, which is 2 records behind")


def test_a_switchover_to_the_master_has_nothing_to_do() -> None:
    assert plan_switchover(fleet(), "n1").address is None


def test_a_switchover_without_a_master_is_a_promotion() -> None:
    assert refusal(lambda: plan_switchover(headless(), "n2"))[1:] == (
        "no node is the master, and open",
        "replicad-cli promote n2",
    )
    assert refusal(lambda: plan_switchover(headless(), ""))[2] == "replicad-cli promote NODE"


def test_a_switchover_is_for_a_healthy_worker() -> None:
    rows = fleet(n2=row("n2", health="UNHEALTHY"), n3=row("n3", health="UNHEALTHY"))
    assert refusal(lambda: plan_switchover(rows, "n2"))[1] == "n2 is UNHEALTHY to the master n1"
    assert refusal(lambda: plan_switchover(rows, ""))[1] == "n1 has no healthy worker with a vote"


def test_an_address_that_belongs_to_no_node_counts_for_nothing() -> None:
    stray = replace(row("?", reachable=False), seen=None)
    assert plan_switchover([*fleet(), stray], "").node == "n3"
    assert plan_promotion([*headless(), stray], "n2").address == "n2:1"
