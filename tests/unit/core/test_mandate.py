"""Who may be the master, by what a node has promised and by what its config says."""

from __future__ import annotations

import pytest

from replicad.core.effects import Call
from replicad.core.frames import Hello, Inquiry, Refused, Standing
from replicad.core.mandate import answer_inquiry, call_of, gives_way, hello_fault
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records
from tests.support.builders import CLUSTER, settings
from tests.support.script import adjusted, master_log, stored


@pytest.mark.parametrize(
    ("promised_to", "configured_master", "call"),
    [
        ("", True, Call.BEGIN),
        ("", False, None),
        ("n1", True, Call.RESUME),
        ("n1", False, Call.RESUME),  # it was made the master by a switchover: the config only says how it began
        ("n2", True, None),  # it was the master once
        ("n2", False, None),
    ],
)
def test_the_promise_on_disk_decides_and_the_config_where_there_is_none(
    promised_to: str, configured_master: bool, call: Call | None
) -> None:
    store = MemoryStore(decode_records)
    if promised_to:
        store.set_promise(3, promised_to)
    assert call_of(settings("n1"), store.load(), configured_master=configured_master) is call


def test_a_node_without_a_vote_is_a_worker_whatever_it_was() -> None:
    store = stored(master_log(2))
    without = adjusted(non_voters=frozenset({"n1"}))(settings("n1"))
    assert call_of(settings("n1"), store.load(), configured_master=True) is Call.RESUME
    assert call_of(without, store.load(), configured_master=True) is None


@pytest.mark.parametrize(
    ("to", "their_epoch", "way"),
    [("n2", 6, True), ("n2", 5, True), ("n2", 4, False), ("n1", 6, False), ("", 6, False)],
)
def test_who_does_not_insist_gives_way_to_a_promise_to_another_as_high_as_its_own(
    to: str, their_epoch: int, way: bool
) -> None:
    assert gives_way("n1", 5, to=to, their_epoch=their_epoch) is way


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(CLUSTER, "n2", 6), None),
        (Hello(CLUSTER, "n3", 5), None),
        (Hello(CLUSTER, "n2", 5), "epoch"),
        (Hello(CLUSTER, "n2", 4), "epoch"),
        (Hello("other", "n2", 6), "cluster"),
        (Hello(CLUSTER, "n9", 6), "master"),
        (Hello(CLUSTER, "n1", 6), "master"),
    ],
)
def test_a_master_is_followed_whose_epoch_is_above_the_promise_or_is_promised_to_it(
    hello: Hello, reason: str | None
) -> None:
    fault = hello_fault(settings("n1"), hello, epoch=5, promised_to="n3")
    assert (fault[0] if fault else None) == reason


def test_an_inquiry_of_another_cluster_is_told_nothing() -> None:
    own = Standing("n1", 5, "n3", 4, 10, False)
    assert answer_inquiry(settings("n1"), Inquiry(CLUSTER, "n2"), own) is own
    refused = answer_inquiry(settings("n1"), Inquiry("other", "n2"), own)
    assert isinstance(refused, Refused)
    assert refused.reason == "cluster"
