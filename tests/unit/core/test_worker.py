"""The worker's machine: whom it follows, what it refuses, when it acknowledges. The test plays masters and disk.

Every stream from a master has a name of its own: n1#1, n1#2, n3#1.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicad.core.effects import Reconfigured, Send, State
from replicad.core.frames import (
    Align,
    AppendBatch,
    Fetch,
    Heartbeat,
    Inquiry,
    Refused,
    RootAnswer,
    RootQuery,
    Supply,
    Welcome,
)
from tests.support.builders import CLUSTER, LogBuilder, keyring, messages
from tests.support.script import WorkerScript, adjusted, following, master_log, sends, stored

# --- greeting ---------------------------------------------------------------------------------------------------


def test_a_worker_waits_to_be_called() -> None:
    script = WorkerScript()
    assert script.start() == []
    assert script.up("n1#1") == []
    assert script.machine.state is State.WAITING
    assert script.machine.wake_at() == float("inf")


def test_the_promise_is_on_disk_before_the_welcome() -> None:
    script = WorkerScript()
    script.up("n1#1")
    assert script.hello("n1#1", 3) == ["disk: promise 3 to n1"]
    assert script.disk() == ["n1#1 < welcome e0 size=0 commit=0", "state following"]
    state = script.store.load()
    assert (state.promised_epoch, state.promised_to) == (3, "n1")


def test_the_welcome_tells_where_the_log_ends() -> None:
    log = master_log(2, 3)
    script = WorkerScript(store=stored(log, commit_size=4))
    script.hello("n1#1", 1)
    assert script.last_sent == Welcome("n2", 1, 6, log.tree.root(), 4)


def test_a_promise_that_is_on_disk_already_is_not_written_again() -> None:
    script = following(master_log())
    script.down("n1#1")
    assert script.hello("n1#2", 1) == ["n1#2 < welcome e1 size=1 commit=0", "state following"]


def test_after_a_restart_the_promise_still_holds() -> None:
    script = WorkerScript()
    script.hello("n3#1", 7, master="n3")
    script.disk()
    again = WorkerScript(store=script.store)
    assert again.hello("n1#1", 6) == ["n1#1 < refused epoch, promised 7", "hang up n1#1: epoch"]
    assert again.hello("n1#1", 7) == ["n1#1 < refused epoch, promised 7", "hang up n1#1: epoch"]
    assert again.hello("n3#1", 7, master="n3") == ["n3#1 < welcome e0 size=0 commit=0", "state following"]


def test_new_timeouts_hold_at_once() -> None:
    script = following()
    heard = script.machine.wake_at() - script.machine.settings.unhealthy_s
    script.feed(Reconfigured(replace(script.machine.settings, unhealthy_s=1.5), keyring()))
    assert script.machine.wake_at() == heard + 1.5


# --- masters that are refused -----------------------------------------------------------------------------------


def refusal(script: WorkerScript) -> Refused:
    frame = script.last_sent
    assert isinstance(frame, Refused)
    return frame


def test_a_master_of_another_cluster_is_refused() -> None:
    script = WorkerScript()
    assert script.hello("n1#1", 1, cluster="other") == ["n1#1 < refused cluster, promised 0", "hang up n1#1: cluster"]
    assert refusal(script).text == "this node is of cluster 'test', not 'other'"
    assert script.store.load().promised_epoch == 0


@pytest.mark.parametrize("stranger", ["n9", "n2", ""])
def test_a_master_that_is_no_other_node_of_the_config_is_refused(stranger: str) -> None:
    script = WorkerScript()
    assert script.hello("x#1", 1, master=stranger) == ["x#1 < refused master, promised 0", "hang up x#1: master"]


def test_a_master_of_a_lower_epoch_is_refused_and_told_the_promised_one() -> None:
    script = following(master_log(epoch=5))
    assert script.hello("n3#1", 4, master="n3") == ["n3#1 < refused epoch, promised 5", "hang up n3#1: epoch"]
    assert script.machine.state is State.FOLLOWING


def test_another_master_in_the_same_epoch_is_refused() -> None:
    """At most one master opens in an epoch."""
    script = following(master_log(epoch=5))
    assert script.hello("n3#1", 5, master="n3") == ["n3#1 < refused epoch, promised 5", "hang up n3#1: epoch"]
    assert "promised to n1 already" in refusal(script).text


def test_a_refused_master_does_not_disturb_the_one_that_is_followed() -> None:
    log = master_log()
    script = following(log)
    script.hello("n3#1", 1, master="n3")
    assert sends(script, log.add(1).batch) == ["disk: store 1..2 e1 commit=0"]
    assert script.disk() == ["n1#1 < ack 2 probe=0"]


def test_frames_before_a_hello_or_before_the_welcome_are_dropped() -> None:
    log = master_log()
    script = WorkerScript()
    script.up("n1#1")
    first = AppendBatch(log.appends[0].batch, 0)
    for frame in (first, Heartbeat(0, 1), RootQuery(0), Align(0), Fetch(0, 1)):
        assert script.says("n1#1", frame) == []
    script.hello("n1#1", 1)
    assert script.says("n1#1", first) == []
    assert script.disk() == ["n1#1 < welcome e0 size=0 commit=0", "state following"]
    assert script.says("n1#1", first) == ["disk: store 0..1 e1 commit=0"]


# --- streams ----------------------------------------------------------------------------------------------------


def test_a_new_stream_replaces_the_old_one_and_the_old_ones_frames_are_dropped() -> None:
    log = master_log()
    script = following(log)
    assert script.hello("n1#2", 1) == [
        "hang up n1#1: replaced by a newer stream",
        "n1#2 < welcome e1 size=1 commit=0",
        "state following",
    ]
    batch = log.add(1).batch
    assert sends(script, batch, peer="n1#1") == []
    assert script.down("n1#1") == []
    assert sends(script, batch, peer="n1#2") == ["disk: store 1..2 e1 commit=0"]
    assert script.disk() == ["n1#2 < ack 2 probe=0"]


def test_a_master_of_a_higher_epoch_takes_over_and_the_lower_ones_frames_are_dropped_at_once() -> None:
    log = master_log()
    script = following(log)
    assert script.hello("n3#1", 2, master="n3") == [
        "hang up n1#1: replaced by a newer stream",
        "disk: promise 2 to n3",
    ]
    assert sends(script, log.add(1).batch) == []
    assert script.says("n1#1", Heartbeat(1, 5)) == []
    assert script.disk() == ["n3#1 < welcome e1 size=1 commit=0", "state following"]


def test_a_second_hello_before_the_first_promise_is_on_disk_wins() -> None:
    script = WorkerScript()
    script.hello("n1#1", 1)
    assert script.hello("n3#1", 2, master="n3") == [
        "hang up n1#1: replaced by a newer stream",
        "disk: promise 2 to n3",
    ]
    assert script.disk(1) == []  # the promise to n1 is on disk; n1 is not welcome any more
    assert script.disk(1) == ["n3#1 < welcome e0 size=0 commit=0", "state following"]


def test_the_welcome_waits_until_what_was_taken_in_before_is_on_disk() -> None:
    log = master_log()
    script = following(log)
    sends(script, log.add(1).batch)
    assert script.hello("n1#2", 1) == ["hang up n1#1: replaced by a newer stream"]
    assert script.disk() == ["n1#2 < welcome e1 size=2 commit=0", "state following"]


def test_a_lost_stream_makes_the_worker_wait() -> None:
    script = following(master_log())
    assert script.down("n1#1") == ["state waiting"]
    assert script.machine.detail == "lost n1: connection lost"
    assert script.down("n1#1") == []


def test_a_master_that_falls_silent_is_hung_up_on() -> None:
    script = following(master_log())
    assert script.machine.wake_at() == script.now + 10.0
    assert script.tick(9.9) == []
    script.says("n1#1", Heartbeat(0, 0))
    assert script.tick(9.9) == []
    assert script.tick(0.2) == ["hang up n1#1: silent for 10.1 s", "state waiting"]
    assert script.tick(60.0) == []


# --- batches ----------------------------------------------------------------------------------------------------


def test_a_batch_is_acknowledged_when_it_is_on_disk_and_not_before() -> None:
    script = following()
    log = master_log(3)
    assert sends(script, log.appends[0].batch) == ["disk: store 0..1 e1 commit=0"]
    assert sends(script, log.appends[1].batch) == ["disk: store 1..4 e1 commit=0"]
    assert script.disk(1) == ["n1#1 < ack 1 probe=0"]
    assert script.disk(1) == ["n1#1 < ack 4 probe=0"]


def test_what_is_stored_is_the_masters_batch_verbatim() -> None:
    script = following()
    log = master_log(3)
    for append in log.appends:
        sends(script, append.batch)
    script.disk()
    assert script.store.read(0, max_bytes=1 << 20) == [append.batch for append in log.appends]
    assert script.store.root_at(4) == log.tree.root()
    assert script.store.find_ids(["m-000002"]) == {"m-000002": 2}


def test_old_batches_of_other_masters_are_taken_in_from_the_present_one() -> None:
    log = master_log(2, node="n3")
    log.add_epoch(4, node="n1")
    script = following()
    script.hello("n1#1", 4)
    script.disk()
    for append in log.appends:
        sends(script, append.batch)
    assert script.disk()[-1] == "n1#1 < ack 4 probe=0"


def test_nothing_is_answered_to_a_master_that_is_gone_when_the_disk_is_done() -> None:
    log = master_log()
    script = following(log)
    sends(script, log.add(1).batch)
    script.down("n1#1")
    assert script.disk() == []
    assert script.store.load().size == 2


# --- batches that are refused -----------------------------------------------------------------------------------


def refused(script: WorkerScript, reason: str) -> list[str]:
    return [
        f"n1#1 < refused {reason}, promised {script.machine.epoch}",
        f"hang up n1#1: {reason}",
        "state waiting",
    ]


def assert_unchanged(script: WorkerScript, log: LogBuilder) -> None:
    """Nothing of a refused batch is anywhere, it was counted, and the honest next batch is still taken."""
    assert script.pending == script.pending.__class__()
    assert (script.machine.log.tip, script.machine.log.tree.root()) == (log.size, log.tree.root())
    assert script.store.load().size == log.size
    assert script.machine.refused_batches == 1
    assert script.notes[-1].event == "refused"
    script.hello("n1#2", script.machine.epoch)
    script.settle()
    assert sends(script, log.add(1).batch, peer="n1#2")[0].startswith("disk: store")


def test_a_gap_is_refused() -> None:
    log = master_log(2)
    script = following(log)
    ahead = log.fork()
    ahead.add(1)
    assert sends(script, ahead.add(1).batch) == refused(script, "gap")
    assert_unchanged(script, log)


def test_a_batch_that_is_there_already_is_refused() -> None:
    log = master_log(2)
    script = following(log)
    assert sends(script, log.appends[1].batch) == refused(script, "gap")
    assert_unchanged(script, log)


def test_a_fork_is_refused_by_its_root() -> None:
    log = master_log(2)
    other = LogBuilder("n1", seed=9)
    other.add_epoch(1)
    other.add(2)
    script = following(log)
    assert sends(script, other.add(1).batch) == refused(script, "root")
    assert_unchanged(script, log)


def test_a_signature_that_does_not_verify_is_refused() -> None:
    log = master_log()
    script = following(log)
    batch = log.fork().add(1).batch
    assert sends(script, replace(batch, signature=bytes(64))) == refused(script, "signature")
    assert_unchanged(script, log)


def test_a_batch_of_an_unknown_signer_is_refused() -> None:
    log = master_log()
    script = following(log)
    assert sends(script, log.fork("stranger", epoch=1).add(1).batch) == refused(script, "signer")
    assert_unchanged(script, log)


def test_a_payload_that_was_changed_on_the_way_is_refused() -> None:
    log = master_log()
    script = following(log)
    batch = log.fork().add(1).batch
    body = batch.body.replace(b"payload of", b"PAYLOAD of")
    assert sends(script, replace(batch, body=body)) == refused(script, "payload")
    assert_unchanged(script, log)


def test_a_body_that_does_not_decode_is_refused() -> None:
    log = master_log()
    script = following(log)
    batch = log.fork().add(1).batch
    assert sends(script, replace(batch, body=b"\xff" + batch.body)) == refused(script, "malformed")
    assert_unchanged(script, log)


def test_a_batch_of_a_higher_epoch_than_the_sessions_is_refused() -> None:
    log = master_log()
    script = following(log)
    assert sends(script, log.fork(epoch=2).add(1).batch) == refused(script, "epoch")
    assert_unchanged(script, log)


def test_a_batch_of_a_lower_epoch_than_the_logs_last_record_is_refused() -> None:
    log = master_log(epoch=5)
    script = following(log)
    assert sends(script, log.fork(epoch=4).add(1).batch) == refused(script, "epoch")
    assert_unchanged(script, log)


def test_a_batch_of_this_epoch_signed_by_another_than_its_master_is_refused() -> None:
    log = master_log()
    script = following(log)
    assert sends(script, log.fork("n3", epoch=1).add(1).batch) == refused(script, "signer")
    assert_unchanged(script, log)


def test_a_duplicate_that_the_disk_finds_is_refused_and_what_follows_it_is_forgotten() -> None:
    log = master_log(2)
    script = following(log)
    twice = log.fork()
    sends(script, twice.add_messages(messages(*log.appends[1].ids[:1])).batch)
    sends(script, twice.add(1).batch)
    assert script.disk() == refused(script, "duplicate")
    assert (script.machine.log.tip, script.machine.log.tree.root()) == (3, log.tree.root())
    assert script.store.load().size == 3
    script.hello("n1#2", 1)
    assert sends(script, log.add(1).batch, peer="n1#2") == ["disk: store 3..4 e1 commit=0"]


def test_a_full_disk_ends_the_stream_and_the_next_one_goes_on_where_the_disk_is() -> None:
    log = master_log()
    script = following(log)
    script.full = True
    batches = [log.add(1).batch, log.add(1).batch]
    for batch in batches:
        sends(script, batch)
    assert script.disk() == refused(script, "full")
    script.full = False
    assert script.hello("n1#2", 1) == ["n1#2 < welcome e1 size=1 commit=0", "state following"]
    for batch in batches:
        sends(script, batch, peer="n1#2")
    assert script.disk()[-1] == "n1#2 < ack 3 probe=0"


def test_what_fails_on_disk_after_a_new_stream_came_is_not_held_against_that_one() -> None:
    log = master_log()
    script = following(log)
    script.full = True
    sends(script, log.add(1).batch)
    script.hello("n1#2", 1)
    assert script.disk() == ["n1#2 < welcome e1 size=1 commit=0", "state following"]


# --- what a master asks for -------------------------------------------------------------------------------------


def test_a_root_is_answered_from_the_disk() -> None:
    log = master_log(2)
    script = following(log)
    assert script.says("n1#1", RootQuery(1)) == ["disk: root at 1 for n1#1"]
    assert script.disk() == ["n1#1 < root of 1"]
    assert script.last_sent == RootAnswer(1, log.appends[0].batch.root)


def test_a_root_beyond_the_log_is_refused() -> None:
    script = following(master_log(2))
    assert script.says("n1#1", RootQuery(4)) == refused(script, "size")


def test_a_tail_is_supplied_in_whole_batches() -> None:
    log = master_log(2, 1)
    script = following(log)
    assert script.says("n1#1", Fetch(1, 1)) == ["disk: read 1..4 for n1#1"]
    assert script.disk() == ["n1#1 < supply 1..3 e1 of 4"]
    script.says("n1#1", Fetch(1, 1 << 20))
    assert script.disk() == ["n1#1 < supply 1..3 e1 3..4 e1 of 4"]
    assert script.last_sent == Supply(tuple(append.batch for append in log.appends[1:]), 4)


def test_no_more_is_read_at_once_than_this_nodes_own_limit() -> None:
    log = master_log(1, 1, 1)
    script = WorkerScript(store=stored(log), adjust=adjusted(read_bytes=1)).following()
    script.says("n1#1", Fetch(0, 1 << 30))
    assert script.disk() == ["n1#1 < supply 0..1 e1 of 4"]


def test_a_tail_beyond_the_log_is_empty() -> None:
    script = following(master_log(2))
    script.says("n1#1", Fetch(3, 100))
    assert script.disk() == ["n1#1 < supply nothing of 3"]


def test_answers_for_a_stream_that_is_gone_are_not_sent() -> None:
    log = master_log(2)
    script = following(log)
    script.says("n1#1", RootQuery(1))
    script.says("n1#1", Fetch(0, 100))
    script.hello("n1#2", 1)
    assert script.disk() == []


def test_a_heartbeat_is_answered_with_what_is_on_disk_and_the_latest_probe() -> None:
    log = master_log()
    script = following(log)
    sends(script, log.add(1).batch)
    assert script.says("n1#1", Heartbeat(0, 4)) == ["n1#1 < ack 1 probe=4"]
    assert script.says("n1#1", Heartbeat(0, 3)) == ["n1#1 < ack 1 probe=4"]
    assert script.disk() == ["n1#1 < ack 2 probe=4"]


def test_a_probe_of_one_session_is_not_echoed_in_the_next() -> None:
    """A probe proves that this master was followed after it was sent."""
    log = master_log()
    script = following(log)
    script.says("n1#1", Heartbeat(0, 4))
    script.hello("n1#2", 1)
    sends(script, log.add(1).batch, peer="n1#2")
    assert script.disk() == ["n1#2 < ack 2 probe=0"]


def test_a_worker_that_is_bound_to_itself_says_that_it_is_bound_to_nobody() -> None:
    """It was a master, or about to be one, and has given way: it follows any epoch above that promise."""
    script = WorkerScript(store=stored(master_log(2), promised=(6, "n2")))
    script.up("n1#1")
    assert script.says("n1#1", Inquiry(CLUSTER, "n1")) == ["n1#1 < standing of n2: 6 to nobody, e1 size=3"]
    assert script.hello("n1#1", 6)[0] == "n1#1 < refused epoch, promised 6"
    assert isinstance(script.outbox[-2], Send)
    assert script.outbox[-2].frame == Refused("epoch", "epoch 6 is promised to n2 already", 6, "")
    script.up("n1#2")
    assert script.hello("n1#2", 7) == ["disk: promise 7 to n1"]
