"""Transcripts of the ordinary day: three nodes from empty disks to a committed post, every step written out."""

from __future__ import annotations

from replicad.core.frames import Ack, AppendBatch, Heartbeat
from replicad.wire.codec import decode_master_frame
from tests.support.cluster_stage import ClusterStage
from tests.support.script import MasterScript, WorkerScript, welcome


def test_the_master_from_its_start_to_a_post_at_w2() -> None:
    n1 = MasterScript()
    assert n1.start() == ["disk: promise 1 to n1"]
    assert n1.up("n2") == []
    assert n1.up("n3") == []
    assert n1.disk() == ["n2 < hello e1 from n1", "n3 < hello e1 from n1"]
    assert n1.says("n2", welcome("n2")) == ["disk: store 0..1 e1 commit=0", "n2 < append 0..1 e1 commit=0"]
    assert n1.says("n3", welcome("n3")) == ["n3 < append 0..1 e1 commit=0"]
    assert n1.disk() == []
    assert n1.says("n3", Ack(1, 0)) == ["state open"]
    assert n1.says("n2", Ack(1, 0)) == []
    assert n1.post("hello", w=2) == [
        "disk: store 1..2 e1 commit=1",
        "n2 < append 1..2 e1 commit=1",
        "n3 < append 1..2 e1 commit=1",
    ]
    assert n1.disk() == []
    assert n1.says("n2", Ack(2, 0)) == ["answer #1: [0]@1 new, on 2"]
    assert n1.says("n3", Ack(2, 0)) == []
    assert n1.machine.log.commit_size == 2


def test_a_worker_from_its_start_to_a_committed_post() -> None:
    n1, n2 = MasterScript().opened(), WorkerScript()
    assert n2.start() == []
    assert n2.up("n1#1") == []
    assert n2.hello("n1#1", 1) == ["disk: promise 1 to n1"]
    assert n2.disk() == ["n1#1 < welcome e0 size=0 commit=0", "state following"]
    n1.post("hello")
    epoch_record, post = n1.machine.log.recent.beginning_at(0), n1.machine.log.recent.beginning_at(1)
    assert epoch_record is not None
    assert post is not None
    assert n2.says("n1#1", AppendBatch(epoch_record, 0)) == ["disk: store 0..1 e1 commit=0"]
    assert n2.says("n1#1", AppendBatch(post, 1)) == ["disk: store 1..2 e1 commit=0"]
    assert n2.disk(1) == ["n1#1 < ack 1 probe=0"]
    assert n2.disk(1) == ["n1#1 < ack 2 probe=0"]
    assert n2.says("n1#1", Heartbeat(2, 7)) == ["n1#1 < ack 2 probe=7"]
    assert n2.machine.log.commit_size == 2


def test_three_nodes_together_become_level_and_all_learn_the_commit_size() -> None:
    stage = ClusterStage().connect()
    assert stage.settle() == ["n2: state following", "n3: state following", "n1: state open"]
    stage.post("a", "b", w=3)
    stage.post("c", w=1)
    assert stage.settle() == ["n1: answer #2: [0]@3 new, on 1", "n1: answer #1: [0-1]@1 new, on 3"]
    stage.assert_level()
    assert stage.ids("n3") == ["replicad:epoch:1", "a", "b", "c"]
    stage.tick(0.01)
    assert stage.commit_sizes == {"n1": 4, "n2": 4, "n3": 4}


def test_the_order_of_a_batch_and_its_acknowledgement_is_disk_first_on_every_node() -> None:
    stage = ClusterStage().connect()
    stage.settle()
    stage.post("a", w=3)
    assert stage.settle(but=["n1", "n2", "n3"]) == []
    stage.deliver("n2")
    stage.collect("n2")
    assert stage.sizes == {"n1": 1, "n2": 1, "n3": 1}  # sent and taken in, and nowhere on disk
    stage.disk("n2")
    stage.collect("n2")
    stage.deliver("n3")
    stage.disk("n3")
    stage.collect("n3")
    assert stage.sizes == {"n1": 1, "n2": 2, "n3": 2}
    assert not any("answer" in line for line in stage.seen)
    stage.disk("n1")
    assert stage.seen[-1] == "n1: answer #1: [0]@1 new, on 3"


def test_frames_on_the_stream_are_what_the_codec_makes_of_them() -> None:
    stage = ClusterStage().connect("n2")
    stage.settle()
    stage.post("a")
    (frame,) = stage.streams["n2"].to_worker
    batch = stage.master.machine.log.recent.beginning_at(1)
    assert batch is not None
    assert decode_master_frame(frame) == AppendBatch(batch, 1)
