"""Whatever the lists of voters: they come back as they were written, and in one form alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.core.voters import MAX_PRIOR, EpochLists, VoterList, parse_lists, standing

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
voter_lists = st.lists(names, min_size=1, max_size=5, unique=True).map(lambda each: tuple(sorted(each)))


@given(voter_lists, st.lists(voter_lists, max_size=MAX_PRIOR), st.integers(0, MAX_PRIOR))
def test_what_was_encoded_is_parsed_again(voters: VoterList, others: list[VoterList], waived: int) -> None:
    named = sorted({*others} - {voters})
    lists = EpochLists(voters, tuple(named[waived:]), tuple(named[:waived]))
    assert parse_lists(lists.encode()) == lists


@given(voter_lists, st.lists(voter_lists, max_size=MAX_PRIOR), voter_lists)
def test_what_stands_when_an_epoch_begins_stands_still_until_it_is_committed(
    voters: VoterList, prior: list[VoterList], configured: VoterList
) -> None:
    """The lists that an opening had to satisfy are those that its record names, and the next one's until then."""
    before = standing(EpochLists(voters, tuple(sorted({*prior} - {voters}))), committed=False, configured=configured)
    record = EpochLists(configured, tuple(each for each in before if each != configured))
    assert standing(record, committed=False, configured=configured) == before
    assert standing(record, committed=True, configured=configured) == (configured,)
