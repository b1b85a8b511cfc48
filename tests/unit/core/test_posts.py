"""Posts from arrival to answer: the queue, duplicates of every kind, deadlines, and what happens on a refusal."""

from __future__ import annotations

import sys
import time

import pytest

from replicad.core.effects import Answer
from replicad.errors import OutcomeUnknown, RateLimited, StorageFull
from replicad.wire.codec import decode_records
from tests.support.builders import LogBuilder, messages
from tests.support.post_stage import PostStage
from tests.support.transcript import show_all

FULL = StorageFull("no room")


def with_a_log(*ids: str) -> PostStage:
    """A restarted master's posts: the log is on disk and memory knows its greatest id."""
    log = LogBuilder()
    log.add_messages(messages(*ids))
    return PostStage(log=log)


# --- new messages -----------------------------------------------------------------------------------------------


def test_new_messages_are_queued_without_a_look_at_the_disk() -> None:
    stage = PostStage()
    assert stage.post("a", "b") == []
    assert stage.posts.queued
    assert stage.posts.queue_bytes == sum(len(f"payload of {i}") for i in "ab")
    assert stage.seal() == 2
    assert (stage.posts.queued, stage.posts.queue_bytes) == (False, 0)
    assert stage.sync() == ["answer #1: [0-1]@0 new, on 1"]


def test_frames_get_offsets_in_the_order_in_which_they_came() -> None:
    stage = PostStage()
    stage.post("b", "a")
    stage.post("z")
    stage.post("c")
    stage.seal()
    assert stage.sync() == [
        "answer #1: [0-1]@0 new, on 1",
        "answer #2: [0]@2 new, on 1",
        "answer #3: [0]@3 new, on 1",
    ]


def test_an_answer_waits_for_as_many_nodes_as_were_asked_for_and_tells_how_many_there_are() -> None:
    stage = PostStage()
    stage.post("a", w=2)
    stage.post("b", w=3)
    stage.seal()
    assert stage.sync() == []
    assert stage.reach(2, 0, 0) == []
    assert stage.reach(2, 1, 0) == ["answer #1: [0]@0 new, on 2"]
    assert stage.reach(2, 2, 1) == []
    assert stage.reach(2, 2, 2) == ["answer #2: [0]@1 new, on 3"]


def test_a_post_that_waits_for_nodes_keeps_no_payload() -> None:
    """It may wait an hour, for one that is dead, and there may be a hundred thousand of it."""
    payload = bytes(1000)
    references = sys.getrefcount(payload)
    stage = PostStage()
    stage.post("a", w=3, payloads=[payload])
    assert len(stage.posts.take(max_bytes=1 << 20, max_records=10)) == 1
    assert sys.getrefcount(payload) == references
    stage = with_a_log("b")
    stage.post("a", "b", w=3, payloads=[payload, b"payload of b"])
    while stage.asked:
        stage.disk()
    stage.posts.take(max_bytes=1 << 20, max_records=10)
    assert sys.getrefcount(payload) == references


def test_a_large_post_in_doubt_that_waits_for_nodes_keeps_next_to_nothing_for_each_message() -> None:
    """All are in doubt whose ids do not rise: a run for each message, and what the disk said of it, were megabytes."""
    ids = [f"{n:05}" for n in range(4000)]
    stage = with_a_log(*ids[:2000])
    stage.post(*ids[:2000], "a", *ids[2000:], w=3)
    while stage.asked:
        stage.disk()
    (frame,) = stage.posts._admitted.values()
    assert [(run.first_index, run.count, run.duplicate) for run in frame.runs] == [(0, 2000, True), (2000, 2001, False)]
    assert (len(frame.asked), len(frame.looked_up), len(frame.contents), len(frame.messages)) == (0, 0, 0, 0)


def test_a_batch_takes_whole_frames_while_they_fit_and_one_at_least() -> None:
    stage = PostStage()
    stage.post("a", "b", "c")
    stage.post("d", "e")
    stage.post("f")
    assert stage.seal(max_records=2) == 3
    assert stage.seal(max_records=3) == 3
    assert stage.seal() == 0


def test_a_batch_is_closed_by_its_bytes() -> None:
    stage = PostStage()
    for name in "abc":
        stage.post(name, payloads=[bytes(400)])
    taken = stage.posts.take(max_bytes=1000, max_records=100)
    assert [part.messages.ids for part in taken] == [["a"], ["b"]]
    assert stage.posts.queue_bytes == 400


def test_beyond_the_limit_of_waiting_frames_posts_are_refused_until_one_is_answered() -> None:
    stage = PostStage(waiting_frames=2)
    stage.post("a")
    stage.post("b")
    assert stage.post("c") == ["answer #3: all RATE_LIMITED applied=no"]
    error = stage.answers[3].error
    assert isinstance(error, RateLimited)
    assert error.retry_after_s is not None
    stage.seal()
    stage.sync()
    assert stage.post("c") == []
    stage.seal()
    assert stage.sync() == ["answer #4: [0]@2 new, on 1"]


# --- duplicates of what is on disk ------------------------------------------------------------------------------


def test_the_same_id_and_content_is_a_duplicate_at_the_original_offset() -> None:
    stage = with_a_log("a", "b", "c")
    assert stage.post("b") == ["disk: find b for #1"]
    assert stage.disk() == ["disk: content of 1 for #1"]
    assert stage.disk() == []
    assert stage.reach(3) == ["answer #1: [0]@1 duplicate, on 1"]
    assert not stage.posts.queued


@pytest.mark.parametrize(
    ("payload", "headers"),
    [(b"other", []), (b"", []), (b"payload of b\x00", []), (b"payload of b", [{"k": "v"}])],
)
def test_the_same_id_with_other_content_is_a_conflict(payload: bytes, headers: list[dict[str, str]]) -> None:
    stage = with_a_log("a", "b", "c")
    stage.post("b", payloads=[payload], headers=headers)
    stage.disk()
    assert stage.disk() == ["answer #1: [0] ID_CONFLICT applied=no @1"]
    assert not stage.posts.queued


def test_headers_are_part_of_the_content() -> None:
    log = LogBuilder()
    log.add_messages(messages("a", headers=[{"k": "v"}]))
    stage = PostStage(log=log)
    stage.post("a", headers=[{"k": "v"}])
    stage.post("a", headers=[{"k": "w"}])
    stage.post("a")
    for _ in range(6):
        stage.disk()
    stage.reach(1)
    assert stage.answers[1].runs[0].duplicate
    assert [show_all([Answer(n, stage.answers[n])]) for n in (2, 3)] == [
        ["answer #2: [0] ID_CONFLICT applied=no @0"],
        ["answer #3: [0] ID_CONFLICT applied=no @0"],
    ]


def test_an_id_that_the_disk_does_not_know_is_new() -> None:
    stage = with_a_log("b", "d")
    assert stage.post("c") == ["disk: find c for #1"]
    assert stage.disk() == []
    stage.seal()
    assert stage.sync() == ["answer #1: [0]@2 new, on 1"]


def test_what_the_disk_is_asked_about_counts_as_queued_until_it_is_in_a_batch_or_answered() -> None:
    """Else a client whose ids do not rise has the master keep all that it sends while the disk is slow to tell."""
    stage = with_a_log("m")
    for message_id in ("a", "b", "m"):
        stage.post(message_id, payloads=[bytes(100)], deadline=5.0)
    assert stage.posts.queue_bytes == 300
    stage.disk()
    assert stage.posts.queue_bytes == 300
    stage.seal()
    assert stage.posts.queue_bytes == 200
    stage.out(stage.posts.read_failed(2, "damaged"))
    assert stage.posts.queue_bytes == 100
    stage.disk()
    stage.disk()
    assert stage.disk() == ["answer #3: [0] ID_CONFLICT applied=no @0"]
    assert stage.posts.queue_bytes == 0


@pytest.mark.parametrize("end", ["stored", "expired", "refused", "abandoned"])
def test_a_retry_of_what_is_not_on_disk_yet_counts_as_queued_until_it_is_compared_or_answered(end: str) -> None:
    stage = PostStage()
    for _ in range(2):
        stage.post("a", payloads=[bytes(100)], deadline=5.0)
    assert stage.posts.queue_bytes == 200
    if end == "stored":
        stage.seal()
        stage.sync()
        assert stage.posts.queue_bytes == 100
        stage.disk()
    elif end == "expired":
        stage.seal()
        stage.out(stage.posts.expired(5.0, [0]))
    elif end == "refused":
        stage.out(stage.posts.refuse_queued(FULL, tip=0))
    else:
        stage.seal()
        stage.out(stage.posts.abandon(OutcomeUnknown("over")))
    assert stage.posts.queue_bytes == 0


def test_only_the_ids_in_doubt_are_asked_about() -> None:
    stage = with_a_log("b", "d")
    stage.post("e")
    assert stage.post("c", "e", "f") == ["disk: find c for #2"]
    assert stage.disk() == []  # e is not on disk yet, so there is nothing to compare it with


def test_new_messages_duplicates_and_conflicts_of_one_frame_are_each_answered_for_what_they_are() -> None:
    stage = with_a_log("a", "b", "c")
    own = [b"payload of a", b"payload of z", b"not that of b", b"payload of zz"]
    assert stage.post("a", "z", "b", "zz", payloads=own) == ["disk: find a,b for #1"]
    assert stage.disk() == ["disk: content of 0,1 for #1"]
    assert stage.disk() == []
    assert stage.seal() == 2
    assert stage.sync() == ["answer #1: [0]@0 duplicate, [1]@3 new, [3]@4 new, [2] ID_CONFLICT applied=no @1, on 1"]


def test_a_duplicate_waits_for_the_write_concern_it_asks_for() -> None:
    stage = with_a_log("a")
    stage.post("a", w=3)
    stage.disk()
    stage.disk()
    assert stage.reach(1, 1, 0) == []
    assert stage.reach(1, 1, 1) == ["answer #1: [0]@0 duplicate, on 3"]


def test_a_frame_in_doubt_does_not_hold_up_the_one_after_it() -> None:
    stage = with_a_log("m")
    stage.post("a")
    stage.post("z")
    stage.seal()
    assert stage.sync() == ["answer #2: [0]@1 new, on 1"]
    stage.disk()
    stage.seal()
    assert stage.sync() == ["answer #1: [0]@2 new, on 1"]


def test_an_answer_for_a_frame_that_is_not_asked_about_changes_nothing() -> None:
    stage = with_a_log("m")
    assert stage.posts.ids_found(77, {"m": 0}, stored_size=1) == []
    assert stage.posts.content_read(77, {}, stored_size=1) == []


# --- encrypted messages: a retry has fresh ciphertext ------------------------------------------------------------

TAG, OTHER_TAG = {"replicad:encrypted": "fernet:" + "t" * 43}, {"replicad:encrypted": "fernet:" + "u" * 43}
NOT_THE_HEADER = {"note": "\x12replicad:encrypted\x00\x32fernet:" + "t" * 43}  # as a value, it says nothing


def with_one_record(payload: bytes, headers: dict[str, str], *, author: str = "frame 1") -> PostStage:
    """A restarted master's posts, over a log with the record "a"."""
    log = LogBuilder()
    log.add_messages(messages("a", payloads=[payload], headers=[headers]), author=author)
    return PostStage(log=log)


def retried(stage: PostStage, payload: bytes, headers: dict[str, str]) -> str:
    """The answer to frame 1, which posts "a" again."""
    stage.post("a", payloads=[payload], headers=[headers] if headers else [])
    stage.disk()
    [answer] = stage.disk() or stage.reach(1)
    return answer


DUPLICATE = "answer #1: [0]@0 duplicate, on 1"
CONFLICT = "answer #1: [0] ID_CONFLICT applied=no @0"


def test_a_retry_with_fresh_ciphertext_and_the_same_content_tag_is_a_duplicate() -> None:
    assert retried(with_one_record(b"cipher 1", TAG), b"cipher 2", TAG) == DUPLICATE


@pytest.mark.parametrize("headers", [OTHER_TAG, TAG | {"kind": "order"}, {}], ids=["other tag", "one more", "none"])
def test_other_headers_under_the_same_id_are_a_conflict_encrypted_or_not(headers: dict[str, str]) -> None:
    assert retried(with_one_record(b"cipher 1", TAG), b"cipher 2", headers) == CONFLICT


def test_a_retry_in_the_clear_of_what_stands_encrypted_is_a_conflict_and_so_is_the_reverse() -> None:
    assert retried(with_one_record(b"cipher 1", TAG), b"the text", {}) == CONFLICT
    assert retried(with_one_record(b"the text", {}), b"cipher 1", TAG) == CONFLICT


def test_a_content_tag_that_another_author_has_copied_does_not_make_a_duplicate() -> None:
    assert retried(with_one_record(b"cipher 1", TAG, author="mallory"), b"cipher 2", TAG) == CONFLICT
    assert retried(with_one_record(b"cipher 1", TAG, author="frame 11"), b"cipher 2", TAG) == CONFLICT


def test_the_very_ciphertext_is_a_duplicate_whoever_posts_it() -> None:
    assert retried(with_one_record(b"cipher 1", TAG, author="mallory"), b"cipher 1", TAG) == DUPLICATE


def test_ciphertexts_of_two_lengths_are_not_of_one_message() -> None:
    assert retried(with_one_record(b"cipher 1", TAG), b"cipher", TAG) == CONFLICT


def test_a_value_that_looks_like_the_header_does_not_stand_in_for_it() -> None:
    assert retried(with_one_record(b"cipher 1", NOT_THE_HEADER), b"cipher 2", NOT_THE_HEADER) == CONFLICT


def test_within_a_frame_the_content_tag_tells_retry_from_conflict_too() -> None:
    stage = PostStage()
    stage.post("a", "a", "a", payloads=[b"c1", b"c2", b"c3"], headers=[TAG, TAG, OTHER_TAG])
    assert stage.seal() == 1
    assert stage.sync() == ["answer #1: [0]@0 new, [1]@0 duplicate, [2] ID_CONFLICT applied=no @0, on 1"]
    assert decode_records(stage.log.appends[0].batch.body).payloads[0] == b"c1"


def test_within_a_frame_other_payloads_without_the_header_stay_in_conflict() -> None:
    stage = PostStage()
    stage.post("a", "a", payloads=[b"c1", b"c2"], headers=[NOT_THE_HEADER, NOT_THE_HEADER])
    assert stage.seal() == 1
    assert stage.sync() == ["answer #1: [0]@0 new, [1] ID_CONFLICT applied=no @0, on 1"]


# --- duplicates within a frame ----------------------------------------------------------------------------------


def test_a_message_twice_in_one_frame_is_written_once() -> None:
    stage = PostStage()
    stage.post("a", "b", "a")
    assert stage.seal() == 2
    assert stage.sync() == ["answer #1: [0-1]@0 new, [2]@0 duplicate, on 1"]


def test_two_messages_of_one_frame_with_one_id_and_other_content_are_in_conflict() -> None:
    stage = PostStage()
    stage.post("a", "b", "a", "a", payloads=[b"1", b"2", b"3", b"1"])
    assert stage.seal() == 2
    assert stage.sync() == ["answer #1: [0-1]@0 new, [3]@0 duplicate, [2] ID_CONFLICT applied=no @0, on 1"]


def test_headers_tell_messages_of_one_frame_apart() -> None:
    stage = PostStage()
    stage.post("a", "a", "a", payloads=[b"p"] * 3, headers=[{"k": "1"}, {"k": "2"}, {"k": "1"}])
    assert stage.seal() == 1
    assert stage.sync() == ["answer #1: [0]@0 new, [2]@0 duplicate, [1] ID_CONFLICT applied=no @0, on 1"]


def test_a_frame_of_conflicts_alone_is_answered_at_once() -> None:
    stage = with_a_log("a")
    stage.post("a", "a", payloads=[b"x", b"y"])
    stage.disk()
    assert stage.disk() == ["answer #1: [0] ID_CONFLICT applied=no @0, [1] ID_CONFLICT applied=no @0"]


def test_duplicates_in_a_frame_after_messages_from_the_log_get_the_new_offsets() -> None:
    stage = with_a_log("m")
    stage.post("m", "z", "m", "y", "z", "y")
    stage.disk()
    stage.disk()
    assert stage.seal() == 2
    stage.sync()
    assert [(run.first_index, run.first_offset, run.duplicate) for run in stage.answers[1].runs] == [
        (0, 0, True),
        (1, 1, False),
        (2, 0, True),
        (3, 2, False),
        (4, 1, True),
        (5, 2, True),
    ]


# --- equal frames that race -------------------------------------------------------------------------------------


def test_a_retry_while_the_original_is_queued_waits_for_the_disk_and_is_then_compared() -> None:
    stage = PostStage()
    stage.post("a")
    assert stage.post("a") == []
    assert stage.post("a", payloads=[b"other"]) == []
    assert stage.seal() == 1
    assert stage.sync() == [
        "disk: content of 0 for #2",
        "disk: content of 0 for #3",
        "answer #1: [0]@0 new, on 1",
    ]
    assert stage.disk() == []
    assert stage.disk() == ["answer #3: [0] ID_CONFLICT applied=no @0"]
    assert stage.reach(1) == ["answer #2: [0]@0 duplicate, on 1"]


def test_a_retry_while_the_original_is_being_written_waits_for_the_disk() -> None:
    stage = PostStage()
    stage.post("a")
    stage.seal()
    assert stage.post("a", "b") == []
    assert not stage.posts.queued
    stage.sync()
    stage.disk()
    stage.seal()
    assert stage.sync() == ["answer #2: [0]@0 duplicate, [1]@1 new, on 1"]


def test_two_equal_frames_in_doubt_at_once_are_written_once() -> None:
    stage = with_a_log("m")
    stage.post("a")
    stage.post("a")
    assert stage.disk() == []  # the disk knows no a: the first is admitted
    assert stage.disk() == []  # nor now, but memory does
    assert stage.seal() == 1
    assert stage.sync() == ["disk: content of 1 for #2", "answer #1: [0]@1 new, on 1"]
    stage.disk()
    assert stage.reach(2) == ["answer #2: [0]@1 duplicate, on 1"]


def test_an_id_admitted_while_the_disk_was_asked_about_it_is_found_in_memory() -> None:
    """The disk's answer is older than the record, and memory must not have forgotten it meanwhile."""
    log = LogBuilder()
    log.add_messages(messages("m"))
    stage = PostStage(log=log, recent_ids=1)
    stage.post("a", "b")  # #1: the disk is asked about both, and knows only m
    stage.post("a")  # #2 asks too
    (first, second), stage.asked = stage.asked, []
    stage.asked = [second]
    assert stage.disk() == []
    stage.seal()
    stage.sync()
    for n in range(20):  # enough to make memory forget all it may
        stage.post(f"z{n:02}")
        stage.seal()
        stage.sync()
    stage.asked = [first]
    assert stage.disk() == ["disk: content of 1 for #1"]
    stage.disk()
    assert stage.seal() == 1
    stage.sync()
    assert [(run.first_offset, run.duplicate) for run in stage.answers[1].runs] == [(1, True), (22, False)]


def test_an_id_that_memory_forgot_while_the_disk_was_asked_about_another_is_asked_about_too() -> None:
    """The disk's answer tells of the ids it was asked about and of no others."""
    log = LogBuilder()
    log.add_messages(messages("m"))
    stage = PostStage(log=log, recent_ids=4)
    stage.post("n")
    stage.seal()
    stage.sync()
    assert stage.post("a", "n") == ["disk: find a for #2"]  # memory knows n, which is on disk
    for n in range(8):
        stage.post(f"z{n}")
        stage.seal()
        stage.sync()
    assert stage.posts.ids.get("n") is None
    assert stage.disk() == ["disk: find n for #2"]
    assert stage.disk() == ["disk: content of 1 for #2"]
    stage.disk()
    assert stage.seal() == 1
    assert stage.sync() == ["answer #2: [0]@10 new, [1]@1 duplicate, on 1"]


# --- taking back what was queued --------------------------------------------------------------------------------


def test_refused_messages_were_not_applied_and_their_ids_are_free_again() -> None:
    stage = PostStage()
    stage.post("a")
    stage.seal()
    stage.post("b", "c")
    assert stage.out(stage.posts.refuse_queued(FULL, tip=1)) == [
        "answer #2: [0] STORAGE_FULL applied=no, [1] STORAGE_FULL applied=no"
    ]
    assert not stage.posts.queued
    assert stage.posts.queue_bytes == 0
    assert stage.sync() == ["answer #1: [0]@0 new, on 1"]
    stage.post("c")
    stage.seal()
    assert stage.sync() == ["answer #3: [0]@1 new, on 1"]


def test_duplicates_in_a_refused_frame_go_on_waiting_for_their_write_concern() -> None:
    stage = with_a_log("a")
    stage.post("a", "z", w=2)
    stage.disk()
    stage.disk()
    assert stage.out(stage.posts.refuse_queued(FULL, tip=1)) == []
    assert stage.reach(1, 0) == []
    assert stage.reach(1, 1) == ["answer #1: [0]@0 duplicate, [1] STORAGE_FULL applied=no, on 2"]


def test_duplicates_in_a_refused_frame_time_out_as_others_do() -> None:
    stage = with_a_log("a")
    stage.post("a", "z", w=2, deadline=7.0)
    stage.disk()
    stage.disk()
    stage.out(stage.posts.refuse_queued(FULL, tip=1))
    assert stage.posts.next_deadline() == 7.0
    assert stage.out(stage.posts.expired(7.0, [1, 0])) == [
        "answer #1: [1] STORAGE_FULL applied=no, [0] WRITE_CONCERN_TIMEOUT applied=yes @0 on 1"
    ]


def test_a_retry_of_a_message_that_was_taken_back_was_not_applied_either() -> None:
    stage = PostStage()
    stage.post("a")
    stage.post("a")
    assert stage.out(stage.posts.refuse_queued(FULL, tip=0)) == [
        "answer #1: [0] STORAGE_FULL applied=no",
        "answer #2: [0] STORAGE_FULL applied=no",
    ]


def test_a_retry_of_a_message_that_is_in_a_batch_is_not_told_that_it_was_not_applied() -> None:
    """What is sealed may be on workers, and comes into the log when there is room: its retry waits for it."""
    stage = PostStage()
    stage.post("a")
    stage.seal()
    stage.post("a")
    assert stage.out(stage.posts.refuse_queued(FULL, tip=1)) == []
    assert stage.sync() == ["disk: content of 0 for #2", "answer #1: [0]@0 new, on 1"]
    stage.disk()
    assert stage.reach(1) == ["answer #2: [0]@0 duplicate, on 1"]


def test_a_frame_that_waits_for_a_sealed_and_for_a_refused_message_is_told_which_is_which() -> None:
    stage = PostStage()
    stage.post("a")
    stage.seal()
    stage.post("b")
    stage.post("a", "b", "c")
    assert stage.out(stage.posts.refuse_queued(FULL, tip=1)) == [
        "answer #2: [0] STORAGE_FULL applied=no",
        "answer #3: [0] OUTCOME_UNKNOWN applied=unknown, [1] STORAGE_FULL applied=no, [2] STORAGE_FULL applied=no",
    ]


def test_a_frame_in_doubt_outlives_a_refusal_and_takes_the_place_of_what_was_refused() -> None:
    stage = with_a_log("m")
    stage.post("a")
    stage.post("z")
    stage.out(stage.posts.refuse_queued(FULL, tip=1))
    stage.disk()
    stage.seal()
    assert stage.sync() == ["answer #1: [0]@1 new, on 1"]


def test_a_large_frame_that_is_refused_in_part_is_told_of_every_message() -> None:
    ids = [f"{n:05}" for n in range(300)]
    stage = with_a_log(*ids)
    stage.post(*ids, *(f"z{n:05}" for n in range(300)), *ids)
    stage.disk()
    stage.disk()
    assert stage.out(stage.posts.refuse_queued(FULL, tip=300)) == []
    stage.reach(300)
    assert [(run.first_index, run.count) for run in stage.answers[1].runs] == [(0, 300), (600, 300)]
    assert [index for index, _ in stage.answers[1].errors] == list(range(300, 600))


def test_a_conflict_with_a_message_of_the_same_frame_ends_when_that_is_refused() -> None:
    stage = PostStage()
    stage.post("a", "a", payloads=[b"1", b"2"])
    assert stage.out(stage.posts.refuse_queued(FULL, tip=0)) == [
        "answer #1: [1] STORAGE_FULL applied=no, [0] STORAGE_FULL applied=no"
    ]


# --- deadlines --------------------------------------------------------------------------------------------------


def test_past_its_deadline_a_frame_is_told_for_each_message_where_it_stands_and_on_how_many_nodes() -> None:
    stage = PostStage()
    stage.post("a", "b", w=3, deadline=5.0)
    stage.seal()
    stage.sync()
    assert stage.out(stage.posts.expired(4.9, [2, 2, 1])) == []
    assert stage.out(stage.posts.expired(5.0, [2, 2, 1])) == [
        "answer #1: [0]@0 new, [1] WRITE_CONCERN_TIMEOUT applied=yes @1 on 2, on 3"
    ]
    assert stage.reach(2, 2, 2) == []


def test_past_its_deadline_nothing_is_said_of_what_is_not_on_disk() -> None:
    stage = PostStage()
    stage.post("a", deadline=5.0)
    assert stage.out(stage.posts.expired(5.0, [0, 0, 0])) == ["answer #1: [0] OUTCOME_UNKNOWN applied=unknown"]
    assert stage.seal() == 1  # it is in the queue, and stays
    assert stage.sync() == []


def test_past_its_deadline_conflicts_stay_conflicts() -> None:
    stage = with_a_log("a")
    stage.post("a", "z", payloads=[b"x", b"y"], w=2, deadline=5.0)
    stage.disk()
    stage.disk()
    stage.seal()
    stage.sync()
    assert stage.out(stage.posts.expired(6.0, [2, 1])) == [
        "answer #1: [0] ID_CONFLICT applied=no @0, [1] WRITE_CONCERN_TIMEOUT applied=yes @1 on 1"
    ]


def test_past_its_deadline_a_large_frame_that_is_on_enough_nodes_in_part_holds_up_nobody() -> None:
    """Each of its messages is a run of its own: to compare them with one another took seconds."""
    ids = [f"{n:05}" for n in range(4096)]
    stage = with_a_log(*ids)
    stage.post(*(each for n in ids for each in (n, f"z{n}")), w=2, deadline=5.0)
    stage.disk()
    stage.disk()
    stage.seal(max_records=8192)
    stage.stored = stage.log.size
    began = time.process_time()
    (answer,) = stage.posts.expired(5.0, [8192, 4096])
    assert time.process_time() - began < 1.0
    assert isinstance(answer, Answer)
    assert [run.first_index for run in answer.result.runs] == list(range(0, 8192, 2))
    assert [index for index, _ in answer.result.errors] == list(range(1, 8192, 2))


def test_a_retry_whose_original_does_not_reach_the_disk_has_a_deadline_too() -> None:
    stage = PostStage()
    stage.post("a", deadline=9.0)
    stage.post("a", deadline=5.0)
    assert stage.posts.next_deadline() == 5.0
    assert stage.out(stage.posts.expired(5.0, [0])) == ["answer #2: all OUTCOME_UNKNOWN applied=unknown"]
    assert stage.posts.next_deadline() == 9.0
    stage.seal()
    assert stage.sync() == ["answer #1: [0]@0 new, on 1"]


# --- the end ----------------------------------------------------------------------------------------------------


def test_abandoning_answers_everything_under_way_once() -> None:
    stage = with_a_log("m")
    stage.post("z")  # admitted
    stage.post("a")  # held: the disk is asked
    stage.post("z")  # waits for the disk
    assert stage.out(stage.posts.abandon(OutcomeUnknown("gone"))) == [
        "answer #1: all OUTCOME_UNKNOWN applied=unknown",
        "answer #2: all OUTCOME_UNKNOWN applied=unknown",
        "answer #3: all OUTCOME_UNKNOWN applied=unknown",
    ]
    assert stage.disk() == []
    assert stage.posts.next_deadline() == float("inf")
    stage.seal()
    assert stage.sync() == []
