"""Opening an epoch: promise, fence quorum, the missing tail, the first record. The test plays workers and disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from replicad.core.effects import State
from replicad.core.frames import Refused, RootAnswer, Supply
from replicad.core.record import parse_leaf
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records
from tests.support.builders import LogBuilder
from tests.support.script import MasterScript, stored, welcome


def last_leaf(store: MemoryStore) -> tuple[str, str]:
    """Id and author of the log's last record."""
    state = store.load()
    (batch,) = store.read(state.size - 1, max_bytes=1)
    leaf = parse_leaf(decode_records(batch.body).leaves[-1])
    return leaf.id, leaf.author


def supply(log: LogBuilder, first: int, *, count: int = 100) -> Supply:
    """Batches of this log from its ``first``-th on."""
    return Supply(tuple(append.batch for append in log.appends[first : first + count]), log.size)


def histories(*, common: int = 2, ours: int = 0, theirs: int = 0) -> tuple[LogBuilder, LogBuilder]:
    """Two logs of epoch 1 that agree on ``common`` records; then n1 wrote ``ours``, and n3 ``theirs`` in epoch 2."""
    one = LogBuilder("n1", epoch=1)
    for _ in range(common):
        one.add()
    other = one.fork(seed=3)
    for _ in range(ours):
        one.add(prefix="ours")
    if theirs:
        other.add_epoch(2, node="n3")
        for _ in range(theirs - 1):
            other.add(prefix="theirs")
    return one, other


# --- the promise ------------------------------------------------------------------------------------------------


def test_a_master_of_one_opens_by_itself() -> None:
    script = MasterScript(voters=1)
    assert script.start() == ["disk: promise 1 to n1"]
    assert script.disk() == ["disk: store 0..1 e1 commit=0"]
    assert script.disk() == ["state open"]
    assert last_leaf(script.store) == ("replicad:epoch:1", "node:n1")


def test_the_first_record_of_an_epoch_is_at_the_logs_end_so_user_records_of_a_new_log_begin_at_1() -> None:
    script = MasterScript(voters=1)
    script.start()
    script.settle()
    script.post("first")
    assert script.settle() == ["answer #1: [0]@1 new, on 1"]


def test_nobody_is_greeted_before_the_own_promise_is_on_disk() -> None:
    script = MasterScript()
    script.start()
    assert script.up("n2") == []
    assert script.says("n2", welcome("n2")) == []  # an answer to a question that was not asked
    assert script.disk() == ["n2 < hello e1 from n1"]
    assert script.up("n3") == ["n3 < hello e1 from n1"]


def test_every_start_takes_a_higher_epoch_than_was_ever_promised() -> None:
    log = LogBuilder(epoch=4)
    log.add()
    assert MasterScript(store=stored(log)).start() == ["disk: promise 5 to n1"]
    assert MasterScript(store=stored(log, promised=(9, "n3"))).start() == ["disk: promise 10 to n1"]


# --- the fence quorum -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("voters", "welcomes_needed"), [(3, 1), (4, 1), (5, 2)])
def test_the_epoch_begins_when_the_fence_quorum_has_promised(voters: int, welcomes_needed: int) -> None:
    script = MasterScript(voters=voters)
    script.start()
    script.disk()
    workers = list(script.machine.workers)
    for worker in workers:
        script.up(worker)
    for worker in workers[: welcomes_needed - 1]:
        assert script.says(worker, welcome(worker)) == []
    lines = script.says(workers[welcomes_needed - 1], welcome(workers[welcomes_needed - 1]))
    assert lines[0] == "disk: store 0..1 e1 commit=0"


@pytest.mark.parametrize(("voters", "acks_needed"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_the_master_opens_when_its_first_record_is_on_the_commit_quorum(voters: int, acks_needed: int) -> None:
    script = MasterScript(voters=voters)
    script.start()
    script.disk()
    workers = list(script.machine.workers)
    for worker in workers:
        script.up(worker)
        script.says(worker, welcome(worker))
    script.settle()
    for worker in workers[: acks_needed - 1]:
        assert script.acks(worker, 1) == []
        assert script.machine.state is State.OPENING
    assert script.acks(workers[acks_needed - 1], 1) == ["state open"]


def test_the_own_disk_counts_last_too() -> None:
    """Two workers have the first record before this master has: it is not open until it has it as well."""
    script = MasterScript()
    script.start()
    script.disk()
    for worker in ("n2", "n3"):
        script.up(worker)
        script.says(worker, welcome(worker))
    store_own, *roots = list(script.pending)
    script.pending.clear()
    script.pending.extend(roots)
    script.settle()
    assert script.acks("n2", 1) == []
    assert script.acks("n3", 1) == []
    script.pending.append(store_own)
    assert script.disk() == ["state open"]


def test_until_it_is_open_posts_are_refused_before_anything_is_appended() -> None:
    script = MasterScript()
    script.start()
    assert script.post("early") == ["answer #1: all UNAVAILABLE applied=no"]
    script.disk()
    script.up("n2")
    script.says("n2", welcome("n2"))
    script.settle()
    assert script.post("early") == ["answer #2: all UNAVAILABLE applied=no"]
    assert script.acks("n2", 1) == ["state open"]
    assert script.store.load().size == 1


def test_a_worker_that_is_gone_before_the_quorum_is_complete_does_not_count() -> None:
    script = MasterScript(voters=5)
    script.start()
    script.disk()
    for worker in ("n2", "n3"):
        script.up(worker)
    script.says("n2", welcome("n2"))
    script.down("n2")
    assert script.says("n3", welcome("n3")) == []
    assert script.up("n2") == ["n2 < hello e1 from n1"]
    assert script.says("n2", welcome("n2"))[0] == "disk: store 0..1 e1 commit=0"


def test_a_stream_that_replaces_another_has_to_be_welcomed_anew() -> None:
    script = MasterScript(voters=5)
    script.start()
    script.disk()
    script.up("n2")
    script.says("n2", welcome("n2"))
    assert script.up("n2") == ["n2 < hello e1 from n1"]  # with no word that the old one is down
    script.up("n3")
    assert script.says("n3", welcome("n3")) == []
    assert script.says("n2", welcome("n2"))[0] == "disk: store 0..1 e1 commit=0"


def test_another_node_at_a_workers_address_is_sent_away() -> None:
    script = MasterScript()
    script.start()
    script.disk()
    script.up("n2")
    assert script.says("n2", welcome("n3")) == ["hang up n2: misplaced"]
    assert script.events_noted[-1] == "misplaced"
    assert script.machine.state is State.OPENING


# --- a higher promise -------------------------------------------------------------------------------------------


def test_a_voter_that_has_promised_a_higher_epoch_makes_the_master_take_one_higher_still() -> None:
    script = MasterScript()
    script.start()
    script.disk()
    script.up("n2")
    assert script.says("n2", Refused("epoch", "epoch 7 is promised to n3", 7)) == [
        "hang up n2: epoch 8 is taken",
        "disk: promise 8 to n1",
    ]
    script.down("n2")
    assert script.disk() == []
    assert script.up("n2") == ["n2 < hello e8 from n1"]
    assert script.says("n2", welcome("n2"))[0] == "disk: store 0..1 e8 commit=0"
    script.settle()
    assert script.acks("n2", 1) == ["state open"]
    assert last_leaf(script.store) == ("replicad:epoch:8", "node:n1")
    assert script.store.load().promised_epoch == 8


def test_promises_of_a_lower_epoch_do_not_count_for_a_higher_one() -> None:
    """A Welcome has no epoch in it: streams are taken up anew, so that a late one cannot be taken for another."""
    script = MasterScript(voters=5)
    script.start()
    script.disk()
    for worker in ("n2", "n3", "n4"):
        script.up(worker)
    script.says("n2", welcome("n2"))
    assert script.says("n3", Refused("epoch", "promised", 5)) == [
        "hang up n2: epoch 6 is taken",
        "hang up n3: epoch 6 is taken",
        "hang up n4: epoch 6 is taken",
        "disk: promise 6 to n1",
    ]
    script.disk()
    assert script.says("n4", welcome("n4")) == []  # its answer to epoch 1, late
    assert script.up("n2") == ["n2 < hello e6 from n1"]
    assert script.up("n4") == ["n4 < hello e6 from n1"]
    assert script.says("n4", welcome("n4")) == []
    assert script.says("n2", welcome("n2"))[0] == "disk: store 0..1 e6 commit=0"


def test_a_refusal_with_no_higher_promise_ends_the_stream_alone() -> None:
    script = MasterScript()
    script.start()
    script.disk()
    script.up("n2")
    assert script.says("n2", Refused("cluster", "this node is of cluster x", 0)) == ["hang up n2: cluster"]
    assert script.machine.workers["n2"].detail == "this node is of cluster x"
    assert script.machine.epoch == 1


# --- the missing tail -------------------------------------------------------------------------------------------


def test_a_master_that_lacks_a_tail_fetches_it_before_its_epoch_begins() -> None:
    own, ahead = histories(common=2, theirs=3)
    script = MasterScript(store=stored(own))
    assert script.start() == ["disk: promise 2 to n1"]
    script.disk()
    script.up("n2")
    # n2 has records of epoch 2, written by n3: this master's own epoch 2 is refused, and epoch 3 it is
    script.says("n2", Refused("epoch", "promised to n3", 2))
    script.disk()
    script.up("n2")
    assert script.says("n2", welcome("n2", ahead)) == ["n2 < root? 2"]
    assert script.says("n2", RootAnswer(2, own.tree.root())) == ["n2 < fetch 2"]
    assert script.says("n2", supply(ahead, 2)) == [
        "disk: store 2..3 e2 commit=0",
        "disk: store 3..4 e2 commit=0",
        "disk: store 4..5 e2 commit=0",
    ]
    assert script.disk(2) == []
    assert script.disk(1) == ["disk: store 5..6 e3 commit=0", "n2 < append 5..6 e3 commit=0"]
    assert script.disk() == []
    assert script.acks("n2", 6) == ["state open"]
    assert [name for name in script.events_noted if name == "fetch"] == ["fetch"]


def opening_behind(theirs: int = 3, *, voters: int = 3, own_records: int = 0) -> tuple[MasterScript, LogBuilder]:
    """A master that has promised epoch 3, whose n2 is ahead of it."""
    own, ahead = histories(common=2, ours=own_records, theirs=theirs)
    script = MasterScript(voters=voters, store=stored(own, promised=(2, "n3")))
    script.start()
    script.disk()
    script.up("n2")
    return script, ahead


def test_a_tail_comes_in_parts_as_large_as_are_asked_for() -> None:
    script, ahead = opening_behind(theirs=3)
    assert script.says("n2", welcome("n2", ahead)) == ["n2 < root? 2"]
    script.says("n2", RootAnswer(2, ahead.appends[1].batch.root))
    script.says("n2", supply(ahead, 2, count=1))
    assert script.disk() == ["n2 < fetch 3"]
    script.says("n2", supply(ahead, 3, count=2))
    assert script.disk() == ["disk: store 5..6 e3 commit=0", "n2 < append 5..6 e3 commit=0"]


def test_who_is_ahead_is_judged_by_the_last_epoch_first_and_by_the_size_then() -> None:
    script, ahead = opening_behind(theirs=1, own_records=9)
    assert ahead.size < script.store.load().size
    assert script.says("n2", welcome("n2", ahead)) == ["disk: root at 3 for n2"]


def test_the_one_furthest_ahead_is_fetched_from() -> None:
    own, ahead = histories(common=2, theirs=2)
    further = ahead.fork()
    further.add()
    script = MasterScript(voters=5, store=stored(own, promised=(2, "n3")))
    script.start()
    script.disk()
    for worker in ("n2", "n3"):
        script.up(worker)
    assert script.says("n2", welcome("n2", ahead)) == []
    assert script.says("n3", welcome("n3", further)) == ["n3 < root? 2"]


def test_the_longest_log_is_not_fetched_where_a_shorter_one_is_of_a_later_epoch() -> None:
    own, later = histories(common=2, theirs=2)
    longer = own.fork()
    longer.add()
    longer.add()
    longer.add()
    script = MasterScript(voters=5, store=stored(own, promised=(2, "n3")))
    script.start()
    script.disk()
    for worker in ("n2", "n3"):
        script.up(worker)
    assert script.says("n2", welcome("n2", longer)) == []
    assert script.says("n3", welcome("n3", later)) == ["n3 < root? 2"]


def test_a_tail_is_not_fetched_from_one_who_is_level_or_behind() -> None:
    own, _ = histories(common=3)
    script = MasterScript(store=stored(own))
    script.start()
    script.disk()
    script.up("n2")
    assert script.says("n2", welcome("n2", own))[0] == "disk: store 3..4 e2 commit=0"


def test_an_own_tail_that_differs_is_put_aside_before_the_other_is_fetched() -> None:
    script, ahead = opening_behind(theirs=3, own_records=2)
    assert script.says("n2", welcome("n2", ahead)) == ["n2 < root? 4"]
    assert agree_on(script, ahead, 4) == ["disk: root at 2 for n2", "n2 < root? 2"]
    script.disk()
    assert agree_on(script, ahead, 2) == ["disk: root at 3 for n2", "n2 < root? 3"]
    script.disk()
    assert agree_on(script, ahead, 3) == ["disk: truncate to 2"]
    assert script.disk() == ["n2 < fetch 2"]
    assert script.dropped == [(2, 4)]
    script.says("n2", supply(ahead, 2))
    assert script.disk()[-2:] == ["disk: store 5..6 e3 commit=0", "n2 < append 5..6 e3 commit=0"]
    assert [batch.root for batch in script.store.read(0, max_bytes=1 << 20)] == [a.batch.root for a in ahead.appends]


def agree_on(script: MasterScript, ahead: LogBuilder, size: int) -> list[str]:
    """n2 answers with the root of its log at a size."""
    return script.says("n2", RootAnswer(size, stored(ahead).root_at(size)))


def test_a_log_that_parts_below_the_own_commit_size_is_never_taken_over() -> None:
    own, _ = histories(common=2)
    other = LogBuilder("n3", epoch=2, seed=7)
    for _ in range(4):
        other.add()
    script = MasterScript(store=stored(own, commit_size=2, promised=(2, "n3")))
    script.start()
    script.disk()
    script.up("n2")
    assert script.says("n2", welcome("n2", other)) == ["n2 < root? 2"]
    assert agree_on(script, other, 2) == ["hang up n2: fork"]
    assert script.events_noted[-1] == "fork"
    assert (script.dropped, script.machine.state) == ([], State.OPENING)


def fetching() -> tuple[MasterScript, LogBuilder]:
    """A master that has asked n2 for the tail it lacks."""
    script, ahead = opening_behind()
    script.says("n2", welcome("n2", ahead))
    assert agree_on(script, ahead, 2) == ["n2 < fetch 2"]
    return script, ahead


BAD_TAILS: list[tuple[str, Callable[[LogBuilder], Supply]]] = [
    ("gap", lambda ahead: Supply((), ahead.size)),
    ("gap", lambda ahead: supply(ahead, 3)),
    ("signature", lambda ahead: forged(supply(ahead, 2), signature=bytes(64))),
    ("signature", lambda ahead: forged(supply(ahead, 2), epoch=9)),
    ("leaf", lambda ahead: forged(supply(ahead, 2), body=ahead.appends[3].batch.body)),
]


@pytest.mark.parametrize(("reason", "bad"), BAD_TAILS)
def test_a_tail_is_checked_as_a_worker_checks_it_and_a_bad_one_changes_nothing(
    reason: str, bad: Callable[[LogBuilder], Supply]
) -> None:
    script, ahead = fetching()
    assert script.says("n2", bad(ahead)) == [f"hang up n2: {reason}"]
    assert script.notes[-1].fields["reason"] == reason
    assert script.store.load().size == 2


def forged(good: Supply, **changes: object) -> Supply:
    """The tail with its first batch changed."""
    return replace(good, batches=(replace(good.batches[0], **changes), *good.batches[1:]))  # type: ignore[arg-type]


def test_what_was_good_of_a_bad_tail_is_kept() -> None:
    script, ahead = fetching()
    good = supply(ahead, 2)
    bad = replace(good, batches=(good.batches[0], replace(good.batches[1], signature=bytes(64)), good.batches[2]))
    assert script.says("n2", bad) == ["disk: store 2..3 e2 commit=0", "hang up n2: signature"]
    script.settle()
    assert script.store.load().size == 3


def test_when_the_source_is_gone_the_fetch_begins_again_with_the_next_stream() -> None:
    script, ahead = fetching()
    script.says("n2", supply(ahead, 2, count=1))
    assert script.down("n2") == []
    assert script.disk() == []
    assert script.up("n2") == ["n2 < hello e3 from n1"]
    assert script.says("n2", supply(ahead, 3)) == []  # nothing was asked for on this stream
    assert script.says("n2", welcome("n2", ahead)) == ["n2 < root? 3"]
    assert agree_on(script, ahead, 3) == ["n2 < fetch 3"]


def test_when_the_source_is_gone_the_next_one_ahead_is_fetched_from() -> None:
    own, ahead = histories(common=2, theirs=2)
    further = ahead.fork()
    further.add()
    script = MasterScript(voters=5, store=stored(own, promised=(2, "n3")))
    script.start()
    script.disk()
    for worker, log in (("n2", ahead), ("n3", further), ("n4", own)):
        script.up(worker)
        script.says(worker, welcome(worker, log))
    assert script.down("n3") == ["n2 < root? 2"]
    assert agree_on(script, ahead, 2) == ["n2 < fetch 2"]


def test_when_the_source_is_gone_and_a_quorum_without_it_is_there_the_epoch_begins() -> None:
    """The source need not come back: what it alone has was never committed."""
    script, _ = fetching()
    script.up("n3")
    assert script.says("n3", welcome("n3")) == []
    assert script.down("n2")[0] == "disk: store 2..3 e3 commit=0"


def test_a_tail_that_is_being_written_when_its_source_is_gone_is_on_disk_before_the_epoch_begins() -> None:
    script, ahead = fetching()
    script.says("n2", supply(ahead, 2, count=2))
    script.up("n3")
    script.says("n3", welcome("n3"))
    assert script.down("n2") == []
    assert script.disk(1) == []
    assert script.disk(1)[0] == "disk: store 4..5 e3 commit=0"


def test_the_ids_of_a_fetched_tail_are_known_not_to_be_new() -> None:
    """Memory has not seen them come in: the disk is asked, and a retry gets its original offset."""
    script, ahead = fetching()
    script.says("n2", supply(ahead, 2))
    script.settle()
    assert script.acks("n2", 6) == ["state open"]
    retried = ahead.appends[4].ids[0]
    assert script.post(retried) == [f"disk: find {retried} for #1"]
    assert script.settle()[-1] == "answer #1: [0]@4 duplicate, on 2"
    assert script.post("zzz")[0] == "disk: store 6..7 e3 commit=6"  # and greater ones still need no disk


def test_a_disk_that_fills_up_during_the_fetch_ends_the_stream_and_the_fetch_begins_again() -> None:
    script, ahead = fetching()
    script.full = True
    script.says("n2", supply(ahead, 2))
    assert script.disk() == ["hang up n2: full"]
    script.down("n2")
    script.full = False
    script.up("n2")
    assert script.says("n2", welcome("n2", ahead)) == ["n2 < root? 2"]
    assert agree_on(script, ahead, 2) == ["n2 < fetch 2"]
    script.says("n2", supply(ahead, 2))
    script.settle()
    assert script.acks("n2", 6) == ["state open"]


def test_who_has_no_room_for_the_tail_gives_way_to_another_however_much_it_was_wanted() -> None:
    script, ahead = fetching()
    script.full = True
    script.says("n2", supply(ahead, 2))
    script.disk()
    epoch = script.machine.epoch
    script.up("n3")
    lines = script.says("n3", Refused("epoch", "promised", epoch + 1, "n2"))
    assert lines[-1] == f"turn: worker, {epoch + 1} to n2"


def test_a_disk_that_is_full_when_the_epoch_begins_is_tried_again() -> None:
    script = MasterScript()
    script.start()
    script.disk()
    script.up("n2")
    script.full = True
    assert script.says("n2", welcome("n2")) == ["disk: store 0..1 e1 commit=0", "n2 < append 0..1 e1 commit=0"]
    assert script.disk() == []
    assert script.machine.detail == "epoch 1 waits for room on this node's disk: disk says full"
    assert script.events_noted[-1] == "no_room"
    assert script.acks("n2", 1) == []
    assert script.tick(0.5) == ["n2 < heartbeat commit=0 probe=0"]
    script.full = False
    assert "disk: store 0..1 e1 commit=0" in script.tick(0.6)
    assert script.disk() == ["state open"]


def test_a_worker_that_comes_after_the_epoch_has_begun_is_levelled_like_any_other() -> None:
    script = MasterScript()
    script.start()
    script.disk()
    script.up("n2")
    script.says("n2", welcome("n2"))
    script.settle()
    script.acks("n2", 1)
    script.up("n3")
    assert script.says("n3", welcome("n3")) == ["n3 < append 0..1 e1 commit=1"]


def test_a_worker_ahead_that_comes_after_the_epoch_has_begun_is_aligned() -> None:
    """It was not among the R that promised: what it has beyond them was never committed."""
    own, ahead = histories(common=2, theirs=2)
    script = MasterScript(store=stored(own, promised=(2, "n3")))
    script.start()
    script.disk()
    script.up("n3")
    script.says("n3", welcome("n3", own))
    script.settle()
    script.acks("n3", 3)
    script.up("n2")
    # n2's log ends at 4, this one at 3: they are compared at 3 first
    assert script.says("n2", welcome("n2", ahead)) == ["n2 < root? 3"]
    assert agree_on(script, ahead, 3) == ["disk: root at 1 for n2", "n2 < root? 1"]
    script.disk()
    assert agree_on(script, ahead, 1) == ["disk: root at 2 for n2", "n2 < root? 2"]
    script.disk()
    assert agree_on(script, ahead, 2) == ["n2 < align 2"]
