"""A node's key is replaced while the cluster works: who has not heard of it holds up nobody, and recovers."""

from __future__ import annotations

import pytest

from replicad.core.check import check_batch
from replicad.core.effects import Reconfigured, State
from replicad.core.frames import AppendBatch, Refused
from replicad.core.keyring import Keyring
from replicad.core.tree import Tree
from replicad.errors import PeerError
from replicad.wire.codec import decode_records
from tests.support.builders import CLUSTER, LogBuilder, keyring, messages, node_key, sealer
from tests.support.cluster_stage import ClusterStage
from tests.support.script import following, master_log, stored

BOTH = keyring(n1=[node_key("n1", 2), node_key("n1")])
SECOND = sealer("n1", generation=2, seed=9)


def level() -> ClusterStage:
    stage = ClusterStage().connect()
    stage.settle()
    stage.post("before")
    stage.settle()
    return stage


def answers(lines: list[str]) -> list[str]:
    return [line.removeprefix("n1: answer ") for line in lines if "answer" in line]


def signed_by_the_second(stage: ClusterStage) -> list[bool]:
    """For each batch of the master's, whether its second key has signed it."""
    found = []
    second = Keyring({"n1": [node_key("n1", 2)]})
    tree, last_epoch = Tree(), 0
    for batch in stage.stores["n1"].read(0, max_bytes=1 << 40):
        _, after = check_batch(
            batch, tree=tree, last_epoch=last_epoch, cluster=CLUSTER, keyring=BOTH, decode=decode_records
        )
        try:
            check_batch(batch, tree=tree, last_epoch=last_epoch, cluster=CLUSTER, keyring=second, decode=decode_records)
            found.append(True)
        except PeerError:
            found.append(False)
        tree, last_epoch = after, batch.epoch
    return found


def test_a_master_signs_with_its_new_key_from_the_next_batch_on_in_the_same_epoch() -> None:
    stage = level()
    epoch = stage.master.machine.epoch
    stage.post("sealed, and on its way", w=3)
    for node in ("n2", "n3"):
        stage.reconfigure(node, BOTH)
    stage.reconfigure("n1", BOTH, SECOND)
    stage.post("after", w=3)
    assert answers(stage.settle()) == ["#2: [0]@2 new, on 3", "#3: [0]@3 new, on 3"]
    stage.assert_level()
    assert signed_by_the_second(stage) == [False, False, False, True]
    assert (stage.master.machine.epoch, stage.master.machine.state) == (epoch, State.OPEN)


def test_a_master_that_is_reconfigured_without_a_key_goes_on_with_its_own() -> None:
    stage = level()
    stage.reconfigure("n1", BOTH, SECOND)
    for node in ("n2", "n3"):
        stage.reconfigure(node, BOTH)
    stage.reconfigure("n1", BOTH)
    stage.post("after", w=3)
    stage.settle()
    assert signed_by_the_second(stage) == [False, False, True]


def test_a_worker_that_does_not_know_the_key_refuses_it_while_a_majority_goes_on_and_recovers_at_its_reload() -> None:
    stage = level()
    stage.reconfigure("n2", BOTH)
    stage.reconfigure("n1", BOTH, SECOND)
    stage.post("w2", w=2)
    stage.post("w3", w=3)
    assert answers(stage.settle()) == ["#2: [0]@2 new, on 2"]
    assert stage.sizes == {"n1": 4, "n2": 4, "n3": 2}
    refused = next(note for note in stage.master.notes if note.event == "refused")
    assert refused.fields == {"peer": "n3", "reason": "signature"}
    assert "if n1 has a new key, put its public line into this node's config and reload this node" in refused.text
    own = next(note for note in stage.workers["n3"].notes if note.event == "refused")
    assert own.level == "error"

    stage.connect("n3")  # the master dials again: nothing is taken from there before the reload
    stage.settle()
    assert stage.sizes["n3"] == 2

    stage.reconfigure("n3", BOTH)
    stage.connect("n3")
    assert answers(stage.settle()) == ["#3: [0]@3 new, on 3"]
    stage.assert_level()


def test_a_worker_that_was_away_during_the_rotation_catches_up_with_what_both_keys_signed() -> None:
    stage = level().cut("n3")
    stage.post("old", w=2)
    stage.settle()
    stage.reconfigure("n2", BOTH)
    stage.reconfigure("n1", BOTH, SECOND)
    stage.post("new", w=2)
    stage.settle()
    settled = keyring(n1=[node_key("n1", 2), node_key("n1", until=3)])
    for node in stage.names:
        stage.reconfigure(node, settled)
    stage.connect("n3")
    stage.settle()
    stage.assert_level()
    assert stage.sizes["n3"] == 4


@pytest.mark.parametrize("until_short_by", [0, 1])
def test_an_opening_master_fetches_what_a_former_key_signed_and_nothing_that_it_signed_beyond(
    until_short_by: int,
) -> None:
    log = master_log(2)
    empty = stored(LogBuilder(), promised=(1, "n1"))
    stage = ClusterStage(stores={"n1": empty.copy(), "n2": stored(log), "n3": empty.copy()})
    ring = keyring(n1=[node_key("n1", 2), node_key("n1", until=log.size - until_short_by)])
    for node, its_sealer in (("n1", SECOND), ("n2", None)):
        stage.reconfigure(node, ring, its_sealer)
    stage.connect("n2")
    stage.settle()
    if not until_short_by:
        assert stage.master.machine.state is State.OPEN
        assert stage.sizes == {"n1": 4, "n2": 4, "n3": 0}
    else:
        assert stage.master.machine.state is State.OPENING
        assert stage.sizes == {"n1": 1, "n2": 3, "n3": 0}  # up to the batch that reaches beyond
        assert [note.fields["reason"] for note in stage.master.notes if note.event == "refused"] == ["revoked"]


@pytest.mark.parametrize("until", [0, 1, 3])
def test_a_forged_batch_of_a_stolen_key_beyond_until_is_refused_and_changes_nothing(until: int) -> None:
    log = master_log(2)
    script = following(log)
    before = (script.machine.log.tip, script.machine.log.tree.root())
    stolen = keyring(n1=[node_key("n1", 2), node_key("n1", until=until)])
    script.feed(Reconfigured(script.machine.settings, stolen))
    forged = log.fork().add_messages(messages("forged")).batch
    script.says("n1#1", AppendBatch(forged, 0))
    refused = script.last_sent
    assert isinstance(refused, Refused)
    assert refused.reason == "revoked"
    assert (script.machine.log.tip, script.machine.log.tree.root()) == before
    assert script.pending == type(script.pending)()
