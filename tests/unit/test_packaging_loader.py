"""What tests/packaging/loader.py finds amiss in a log."""

from __future__ import annotations

from tests.packaging.loader import Acknowledged, faults, longest_pause_s

ANSWERS = [Acknowledged("a", 3, 10.0), Acknowledged("b", 5, 10.5), Acknowledged("c", 6, 13.0)]
LOG = {2: "another", 3: "a", 4: "unanswered", 5: "b", 6: "c"}


def test_a_log_with_each_answered_message_in_its_place_has_no_fault() -> None:
    assert list(faults(ANSWERS, LOG)) == []


def test_a_message_that_is_missing_is_a_fault() -> None:
    assert list(faults(ANSWERS, LOG | {5: "x"})) == ["b, acknowledged at 5, stands at no offset"]


def test_a_message_that_is_there_twice_is_a_fault() -> None:
    assert list(faults(ANSWERS, LOG | {7: "b"})) == ["b, acknowledged at 5, stands at [5, 7]"]


def test_a_message_in_another_place_is_a_fault() -> None:
    assert list(faults(ANSWERS, {3: "a", 5: "c", 6: "b"})) == [
        "b, acknowledged at 5, stands at [6]",
        "c, acknowledged at 6, stands at [5]",
    ]


def test_the_longest_pause_is_between_two_answers_in_the_order_of_time() -> None:
    assert longest_pause_s(ANSWERS) == 2.5
    assert longest_pause_s(ANSWERS[:1]) == 0.0
