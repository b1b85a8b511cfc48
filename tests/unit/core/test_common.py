"""The last size on which two logs agree: found whatever they are, in about log2(n) comparisons."""

from __future__ import annotations

import random

import pytest

from replicad.core.common import CommonSize, RootSearch
from replicad.core.effects import Effect, ReadRoot, Send
from replicad.core.frames import RootQuery
from replicad.core.ownlog import OwnLog
from tests.support.builders import LogBuilder, empty_start
from tests.support.script import stored, welcome
from tests.support.transcript import show_all


def search(*, low: int, high: int, agree: int) -> tuple[int, list[int]]:
    """The size found and the questions asked, for logs that agree up to ``agree``."""
    common, asked = CommonSize(low=low, high=high), []
    while (question := common.question) is not None:
        asked.append(question)
        common.answer(question <= agree)
    return common.agreed, asked


def test_logs_that_agree_at_the_top_are_compared_once() -> None:
    assert search(low=0, high=1000, agree=1000) == (1000, [1000])


def test_every_parting_point_is_found() -> None:
    for high in range(40):
        for low in range(high + 1):
            for agree in range(low, high + 1):
                found, asked = search(low=low, high=high, agree=agree)
                assert found == agree, (low, high, agree)
                assert len(asked) <= (high - low + 1).bit_length() + 1
                assert len(set(asked)) == len(asked)


def test_a_million_records_take_about_twenty_questions() -> None:
    rng = random.Random(3)
    for agree in rng.sample(range(1_000_000), 50):
        found, asked = search(low=0, high=1_000_000, agree=agree)
        assert found == agree
        assert len(asked) <= 22


@pytest.mark.parametrize(("low", "high"), [(1, 1), (5, 5), (5, 6), (5, 100)])
def test_logs_that_part_below_what_was_taken_for_granted_do_not_agree(low: int, high: int) -> None:
    """The low end is asked about too: a fork below the commit size is never passed over."""
    assert search(low=low, high=high, agree=low - 1)[0] == -1


def test_the_answer_always_stands_for_a_comparison() -> None:
    for agree in range(-1, 9):
        found, asked = search(low=3, high=8, agree=agree)
        assert found == -1 or found in asked


def test_an_answer_after_the_end_changes_nothing() -> None:
    common = CommonSize(low=0, high=4)
    common.answer(True)
    common.answer(False)
    assert (common.question, common.agreed) == (None, 4)


# --- against a peer ---------------------------------------------------------------------------------------------


def own_log(log: LogBuilder) -> OwnLog:
    """The log as after a restart: memory knows the root of all of it and of no part."""
    return OwnLog.restore(stored(log).load() if log.size else empty_start(), 0)


def run(own: LogBuilder, peer: LogBuilder, *, low: int = 0) -> tuple[int | None, list[str]]:
    """The whole search against a peer with this log; what it found and the effects on the way."""
    root_search = RootSearch("n2", 7, welcome("n2", peer), low=low, high=min(own.size, peer.size))
    log, effects, seen = own_log(own), list[Effect](), list[Effect]()
    own_store, peer_store = stored(own), stored(peer)
    effects += root_search.ask(log)
    while effects:
        effect = effects.pop(0)
        seen.append(effect)
        match effect:
            case ReadRoot("n2", 7, size):
                effects += root_search.own_root(size, own_store.root_at(size), log)
            case Send("n2", RootQuery(size)):
                effects += root_search.peer_root(size, peer_store.root_at(size), log)
            case _:
                raise AssertionError(effect)
    return root_search.agreed, show_all(seen)


def logs(*, common: int, own: int, peer: int) -> tuple[LogBuilder, LogBuilder]:
    """Two logs of single-record batches that agree up to ``common``."""
    one = LogBuilder("n1")
    for _ in range(common):
        one.add()
    two = one.fork(seed=2)
    for _ in range(own - common):
        one.add()
    for _ in range(peer - common):
        two.add()
    return one, two


def test_equal_logs_are_found_equal_without_asking_anybody() -> None:
    own, peer = logs(common=9, own=9, peer=9)
    assert run(own, peer) == (9, [])


def test_a_shorter_peer_tells_its_root_in_its_welcome() -> None:
    own, peer = logs(common=4, own=9, peer=4)
    assert run(own, peer) == (4, ["disk: root at 4 for n2"])


def test_a_longer_peer_is_asked_for_its_root_at_the_own_end() -> None:
    own, peer = logs(common=4, own=4, peer=9)
    assert run(own, peer) == (4, ["n2 < root? 4"])


def test_an_empty_peer_agrees_at_nothing() -> None:
    own, peer = logs(common=0, own=3, peer=0)
    assert run(own, peer)[0] == 0


def test_logs_that_parted_are_followed_back_to_where_they_did() -> None:
    for common in range(12):
        own, peer = logs(common=common, own=14, peer=12)
        agreed, effects = run(own, peer)
        assert agreed == common
        assert len(effects) <= 10


def test_logs_that_part_below_the_low_end_do_not_agree() -> None:
    own, peer = logs(common=3, own=8, peer=8)
    assert run(own, peer, low=4)[0] == -1
    assert run(own, peer, low=3)[0] == 3


def test_answers_about_another_size_are_not_taken_for_the_one_in_question() -> None:
    own, peer = logs(common=2, own=8, peer=6)
    log = own_log(own)
    root_search = RootSearch("n2", 7, welcome("n2", peer), low=0, high=6)
    assert show_all(root_search.ask(log)) == ["disk: root at 6 for n2"]
    assert root_search.own_root(5, peer.tree.root(), log) == []
    assert root_search.peer_root(3, own.tree.root(), log) == []
    assert root_search.agreed is None
    next_question = show_all(root_search.own_root(6, stored(own).root_at(6), log))
    assert next_question == ["disk: root at 3 for n2", "n2 < root? 3"]


@pytest.mark.parametrize("own_first", [True, False])
def test_answers_may_come_in_either_order(own_first: bool) -> None:
    own, peer = logs(common=3, own=8, peer=6)
    own_root, peer_root = stored(own).root_at(3), stored(peer).root_at(3)
    root_search, log = RootSearch("n2", 7, welcome("n2", peer), low=0, high=6), own_log(own)
    root_search.ask(log)
    root_search.own_root(6, stored(own).root_at(6), log)
    if own_first:
        assert root_search.own_root(3, own_root, log) == []
        last = root_search.peer_root(3, peer_root, log)
    else:
        assert root_search.peer_root(3, peer_root, log) == []
        last = root_search.own_root(3, own_root, log)
    assert show_all(last) == ["disk: root at 4 for n2", "n2 < root? 4"]


def test_after_the_end_of_the_search_nothing_moves_it() -> None:
    own, peer = logs(common=4, own=4, peer=4)
    root_search, log = RootSearch("n2", 7, welcome("n2", peer), low=0, high=4), own_log(own)
    assert root_search.ask(log) == []
    assert root_search.peer_root(4, bytes(32), log) == root_search.own_root(4, bytes(32), log) == []
    assert root_search.agreed == 4
