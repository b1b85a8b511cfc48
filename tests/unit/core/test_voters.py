"""Lists of voters: the payload of an epoch's first record, which lists stand, and what an operator is told."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from replicad.core.voters import (
    MAX_PAYLOAD_BYTES,
    MAX_PRIOR,
    MAX_VOTERS,
    EpochLists,
    VoterList,
    commit_quorum,
    fence_quorum,
    parse_lists,
    standing,
)
from replicad.core.voterstext import Need, shortfall, too_many, waiting

OLD, NEW, OLDER = ("n1", "n2", "n3"), ("n1", "n4", "n5"), ("n6",)


@pytest.mark.parametrize("voters", range(1, MAX_VOTERS + 1))
def test_any_fence_quorum_shares_a_voter_with_any_commit_quorum(voters: int) -> None:
    assert commit_quorum(voters) + fence_quorum(voters) == voters + 1
    assert 2 * commit_quorum(voters) > voters


# --- the payload ------------------------------------------------------------------------------------------------


def test_the_payload_is_compact_json_and_has_no_prior_where_there_is_none() -> None:
    assert EpochLists(OLD).encode() == b'{"voters":["n1","n2","n3"]}'
    assert EpochLists(NEW, (), (OLD,)).encode() == b'{"voters":["n1","n4","n5"],"waived":[["n1","n2","n3"]]}'
    assert EpochLists(NEW, (OLD, OLDER)).encode() == (b'{"voters":["n1","n4","n5"],"prior":[["n1","n2","n3"],["n6"]]}')


def test_no_payload_says_nothing() -> None:
    assert parse_lists(b"") is None


@pytest.mark.parametrize(
    "payload",
    [
        b"x",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"voters":[]}',
        b'{"voters":"n1"}',
        b'{"voters":[1]}',
        b'{"voters":[["n1"]]}',
        b'{"voters":["n2","n1"]}',
        b'{"voters":["n1","n1"]}',
        b'{"voters":["N1"]}',
        b'{"voters":["n1\\n"]}',
        b'{"voters":["' + b"n" * 65 + b'"]}',
        b'{"voters": ["n1"]}',
        b'{"voters":["n1"],"voters":["n1"]}',
        b'{"voters":["n1"],"prior":[]}',
        b'{"voters":["n1"],"prior":null}',
        b'{"voters":["n1"],"prior":[["n1"]]}',
        b'{"voters":["n1"],"prior":[["n3"],["n2"]]}',
        b'{"voters":["n1"],"waived":[]}',
        b'{"voters":["n1"],"waived":[["n1"]]}',
        b'{"voters":["n1"],"waived":[["n3"],["n2"]]}',
        b'{"voters":["n1"],"prior":[["n2"]],"waived":[["n2"]]}',
        b'{"voters":["n1"],"waived":[["n2"]],"prior":[["n3"]]}',
        b'{"voters":["n1"],"waived":{"n2":1}}',
        b'{"voters":["n1"],"prior":[["n2"],["n2"]]}',
        b'{"prior":[["n2"]],"voters":["n1"]}',
        b'{"voters":["n1"],"more":1}',
        b'{"voters":["n1"]}\n',
        b'{"voters":' + b"[" * 20_000,
        b'{"voters":["n1"],"prior":' + b"9" * 5_000 + b"}",
    ],
)
def test_whatever_else_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_lists(payload)


def test_the_longest_lists_fit_and_longer_ones_are_refused() -> None:
    longest = [tuple(sorted(f"{of:02}{n:02}".ljust(64, "x") for n in range(MAX_VOTERS))) for of in range(MAX_PRIOR + 2)]
    lists = EpochLists(longest[0], tuple(longest[1 : MAX_PRIOR + 1]))
    assert len(lists.encode()) < MAX_PAYLOAD_BYTES
    assert parse_lists(lists.encode()) == lists
    with pytest.raises(ValueError, match=f"at most {MAX_PRIOR} lists"):
        parse_lists(EpochLists(longest[0], tuple(longest[1:])).encode())
    with pytest.raises(ValueError, match=f"{MAX_PRIOR + 1} lists beside its own, at most {MAX_PRIOR}"):
        parse_lists(EpochLists(longest[0], tuple(longest[1:MAX_PRIOR]), tuple(longest[MAX_PRIOR:])).encode())
    with pytest.raises(ValueError, match=f"1 to {MAX_VOTERS} names"):
        parse_lists(EpochLists((*longest[0], "y")).encode())
    with pytest.raises(ValueError, match="bytes"):
        parse_lists(json.dumps({"voters": ["n1"], "more": "x" * MAX_PAYLOAD_BYTES}).encode())


# --- which stand ------------------------------------------------------------------------------------------------


def test_the_configured_list_stands_alone_on_a_log_that_says_nothing() -> None:
    assert standing(None, committed=False, configured=OLD) == (OLD,)


def test_the_logs_list_stands_beside_the_configured_one_whether_it_is_committed_or_not() -> None:
    for committed in (False, True):
        assert standing(EpochLists(OLD), committed=committed, configured=NEW) == (OLD, NEW)
        assert standing(EpochLists(OLD), committed=committed, configured=OLD) == (OLD,)


def test_the_lists_before_stand_until_the_record_that_replaced_them_is_committed() -> None:
    logged = EpochLists(OLD, (OLDER,))
    assert standing(logged, committed=False, configured=NEW) == (OLD, NEW, OLDER)
    assert standing(logged, committed=True, configured=NEW) == (OLD, NEW)


def test_what_was_waived_does_not_stand_any_more() -> None:
    assert standing(EpochLists(NEW, (), (OLD,)), committed=False, configured=NEW) == (NEW,)


# --- the words --------------------------------------------------------------------------------------------------


def told(
    lacking: list[VoterList], *, have: str = "n1", nodes: str = "n1 n4 n5", store: bool = False
) -> tuple[str, str]:
    need: Need = "store" if store else "promise"
    return shortfall(lacking, need, have=have.split(), nodes=nodes.split(), configured=NEW, epoch=7)


def test_the_configured_list_is_waited_for_in_few_words() -> None:
    assert waiting(NEW) == "waiting for 2 of 3 nodes"
    assert told([NEW]) == ("waiting for 2 of 3 nodes", "")
    assert told([NEW], store=True) == ("epoch 7 waits for its first record to be on 2 nodes", "")


def test_of_a_list_from_before_it_is_told_who_is_missing_and_what_to_do() -> None:
    text = (
        "the voters n1, n2, n3 may still be in force, and 2 of them must promise epoch 7: 1 so far;"
        " not under nodes in this config: n2, n3; put 1 of them back under nodes, with voter: false, and restart:"
        " once this master is open, they can go"
    )
    assert told([OLD]) == (text, text)
    assert told([NEW, OLD]) == ("waiting for 2 of 3 nodes", ""), "who is ahead may yet tell that it is gone"
    assert told([NEW, OLD], store=True)[0].startswith("epoch 7 waits for its first record to be on 2 nodes; the voters")
    both, _ = told([OLD], have="")
    assert "0 so far; not yet: n1; not under nodes in this config: n2, n3; put 1 of them back" in both
    alone, _ = told([OLDER], have="")
    assert alone.endswith(
        "put n6 back under nodes, with voter: false, and restart: once this master is open, they can go"
    )


def test_a_list_from_before_whose_nodes_only_have_to_answer_asks_for_no_change_of_the_config() -> None:
    text, blocked = told([OLD], nodes="n1 n2 n4 n5", store=True)
    assert text == (
        "the voters n1, n2, n3 may still be in force, and 2 of them must have the first record of epoch 7 on disk:"
        " 1 so far; not yet: n2; not under nodes in this config: n3"
    )
    assert blocked == ""


def test_the_words_ask_for_no_more_nodes_than_a_quorum_lacks() -> None:
    voters = ("n1", "n2", "n3", "n4", "n5")
    for present in range(1, 6):
        for nodes in combinations(voters, present):
            text, blocked = shortfall([voters], "promise", have=(), nodes=nodes, configured=("n9",), epoch=1)
            assert bool(blocked) == (present < 3) == ("back under nodes" in text)


def test_too_many_lists_are_told_with_the_way_back() -> None:
    assert too_many([OLD] * 18).startswith("18 lists of voters may still be in force, and an epoch may follow 16: put")
