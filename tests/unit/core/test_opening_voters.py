"""Opening with another list of voters than the log's: who must promise, who must store, and when the old lists go."""

from __future__ import annotations

from collections.abc import Sequence

from replicad.core.effects import Promote, State
from replicad.core.frames import RootAnswer, Supply
from replicad.core.voters import MAX_PRIOR, EpochLists, VoterList, parse_lists
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records
from tests.support.builders import LogBuilder, messages
from tests.support.script import MasterScript, adjusted, level_with, stored, welcome

OLD, NEW = ("n1", "n2", "n3"), ("n1", "n4", "n5")


def log_of(voters: VoterList = OLD, *, prior: tuple[VoterList, ...] = (), epoch: int = 1) -> LogBuilder:
    """A log whose last epoch began with these lists, and a record in it."""
    log = LogBuilder("n1")
    log.add_epoch(epoch, lists=EpochLists(voters, prior))
    log.add()
    return log


def opening(
    store: MemoryStore, *, nodes: Sequence[str], without_vote: Sequence[str] = (), node: str = "n1"
) -> MasterScript:
    """A master with this config, whose promise is on disk and whose workers are all connected."""
    workers = tuple(name for name in nodes if name != node)
    script = MasterScript(node=node, store=store, adjust=adjusted(workers=workers, non_voters=frozenset(without_vote)))
    script.start()
    script.disk()
    for worker in workers:
        script.up(worker)
    return script


def says_level(script: MasterScript, *names: str) -> list[str]:
    """These workers promise; they have all that is on the master's disk."""
    return [line for name in names for line in script.says(name, level_with(script, name))]


def began(script: MasterScript) -> EpochLists | None:
    """What the epoch's first record says, once it is on disk."""
    script.settle()
    record = script.store.load().epoch_record
    assert record
    return parse_lists(record.payload)


def test_the_first_record_of_an_epoch_names_its_voters() -> None:
    script = opening(MemoryStore(decode_records), nodes=("n1", "n2", "n3", "n4"), without_vote=["n3"])
    script.says("n2", welcome("n2"))
    assert began(script) == EpochLists(("n1", "n2", "n4"))


def test_a_log_of_release_0_1_says_nothing_and_opens_with_the_configured_list() -> None:
    log = LogBuilder("n1")
    log.add_epoch(1)
    script = opening(stored(log, commit_size=1), nodes=NEW)
    says_level(script, "n4")
    assert began(script) == EpochLists(NEW)
    script.acks("n4", 2)
    assert script.machine.state is State.OPEN


def test_a_jump_to_other_nodes_does_not_open_and_says_why_once() -> None:
    script = opening(stored(log_of(), commit_size=2), nodes=NEW)
    says_level(script, "n4", "n5")
    (note,) = script.notes
    assert (note.level, note.event, note.text) == ("error", "voters", script.machine.detail)
    assert script.machine.detail == (
        "the voters n1, n2, n3 may still be in force, and 2 of them must promise epoch 2: 1 so far;"
        " not under nodes in this config: n2, n3; put 1 of them back under nodes, with voter: false, and restart:"
        " once this master is open, they can go"
    )
    assert script.machine.state is State.OPENING
    assert script.store.load().size == 2, "nothing is begun"
    script.down("n5")
    script.up("n5")
    says_level(script, "n5")
    assert script.events_noted.count("voters") == 1


def test_with_a_former_voter_among_the_nodes_the_same_list_opens() -> None:
    script = opening(stored(log_of(), commit_size=2), nodes=(*NEW, "n2"), without_vote=["n2"])
    says_level(script, "n4")
    assert script.machine.detail.startswith("the voters n1, n2, n3 may still be in force")
    assert script.machine.detail.endswith("1 so far; not yet: n2; not under nodes in this config: n3")
    assert script.events_noted == [], "it has only to answer"
    says_level(script, "n2")
    assert began(script) == EpochLists(NEW, (OLD,))


def test_an_epoch_opens_only_when_its_first_record_is_on_a_commit_quorum_of_the_old_list_and_of_the_new() -> None:
    for first, last in (("n4", "n2"), ("n2", "n4")):
        script = opening(stored(log_of(), commit_size=2), nodes=(*NEW, "n2"), without_vote=["n2"])
        says_level(script, "n4", "n2")
        script.settle()
        script.acks(first, 3)
        assert script.machine.state is State.OPENING
        assert script.machine.log.commit_size == 2
        script.acks(last, 3)
        assert (script.machine.state, script.machine.log.commit_size) == (State.OPEN, 3)


def test_once_open_the_configured_voters_alone_count() -> None:
    script = opening(stored(log_of(), commit_size=2), nodes=(*NEW, "n2"), without_vote=["n2"])
    says_level(script, "n4", "n2")
    script.settle()
    for worker in ("n2", "n4"):
        script.acks(worker, 3)
    script.post("a", w=2)
    script.settle()
    assert script.acks("n2", 4) == []
    assert script.machine.nodes_with(4) == 1
    assert "answer #1: [0]@3 new, on 2" in script.acks("n4", 4)
    assert script.machine.log.commit_size == 4


def test_a_node_without_a_vote_is_fed_and_counts_in_nothing() -> None:
    script = opening(MemoryStore(decode_records), nodes=("n1", "n2", "n3"), without_vote=["n3"])
    for worker in ("n2", "n3"):
        script.says(worker, welcome(worker))
    script.settle()
    assert script.acks("n3", 1) == []
    assert script.machine.state is State.OPENING, "two voters, and both must have the first record"
    script.acks("n2", 1)
    script.down("n2")
    assert script.machine.reachable == 1
    script.confirm(1)
    assert script.acks("n3", 1, probe=1) == []
    assert "n3 < append 1..2 e1 commit=1" in script.post("a", w=1)


def test_a_list_that_the_log_has_replaced_for_good_is_asked_no_more() -> None:
    script = opening(stored(log_of(NEW, prior=(OLD,)), commit_size=1), nodes=NEW)
    says_level(script, "n5")
    assert began(script) == EpochLists(NEW)


def test_a_list_whose_successor_is_not_known_to_be_committed_is_asked_still() -> None:
    script = opening(stored(log_of(NEW, prior=(OLD,))), nodes=(*NEW, "n2"), without_vote=["n2"])
    says_level(script, "n5")
    assert script.machine.detail.startswith("the voters n1, n2, n3 may still be in force")
    says_level(script, "n2")
    assert began(script) == EpochLists(NEW, (OLD,))


def test_all_lists_that_ever_began_since_the_last_that_took_effect_go_along() -> None:
    third = ("n1", "n2")
    script = opening(stored(log_of(NEW, prior=(OLD,))), nodes=("n1", "n2", "n4"), without_vote=["n4"])
    says_level(script, "n2")
    assert script.machine.detail.startswith("the voters n1, n4, n5 may still be in force")
    says_level(script, "n4")
    assert began(script) == EpochLists(third, (OLD, NEW))


def test_a_fetched_tail_may_say_that_other_voters_stand() -> None:
    """This node was away while the voters became n1, n4 and n5: what it has itself asks for nodes that are gone."""
    mine = log_of()
    theirs = mine.fork()
    theirs.add_epoch(2, node="n4", lists=EpochLists(NEW, (OLD,)))
    theirs.add_epoch(3, node="n4", lists=EpochLists(NEW))
    script = opening(stored(mine, commit_size=2, promised=(3, "n4")), nodes=NEW)
    assert script.says("n4", welcome("n4", theirs, commit_size=4)) == ["n4 < root? 2"]
    assert script.says("n4", RootAnswer(2, mine.tree.root())) == ["n4 < fetch 2"]
    script.says("n4", Supply(tuple(append.batch for append in theirs.appends[2:]), theirs.size))
    assert began(script) == EpochLists(NEW)
    assert script.events_noted == ["fetch", "follows"], "it never was blocked"


def test_a_fetched_tail_may_ask_for_more_voters_than_the_own_log_did() -> None:
    mine = log_of()
    theirs = mine.fork()
    theirs.add_epoch(2, node="n2", lists=EpochLists(("n2", "n4", "n5"), (OLD,)))
    script = opening(stored(mine, commit_size=2, promised=(2, "n2")), nodes=(*OLD, "n4"), without_vote=["n4"])
    script.says("n2", welcome("n2", theirs, commit_size=2))
    script.says("n2", RootAnswer(2, mine.tree.root()))
    script.says("n2", Supply((theirs.appends[2].batch,), 3))
    script.settle()
    assert script.store.load().size == 3, "fetched, and not begun"
    assert script.machine.detail.startswith("the voters n2, n4, n5 may still be in force")
    says_level(script, "n4")
    assert began(script) == EpochLists(OLD, (("n2", "n4", "n5"),))


def test_what_is_put_aside_says_nothing_any_more() -> None:
    """An own epoch with another list never was committed; the log that is ahead has only the old one."""
    mine = log_of()
    theirs = mine.fork()
    mine.add_epoch(2, lists=EpochLists(NEW, (OLD,)))
    theirs.add_epoch(3, node="n2", lists=EpochLists(OLD))
    script = opening(stored(mine, commit_size=2, promised=(3, "n2")), nodes=OLD)
    script.says("n2", welcome("n2", theirs, commit_size=3))
    script.settle()
    script.says("n2", RootAnswer(2, theirs.appends[1].batch.root))
    script.settle()
    assert script.dropped == [(2, 3)]
    script.says("n2", Supply((theirs.appends[2].batch,), 3))
    assert began(script) == EpochLists(OLD)


def test_a_tail_that_says_what_is_no_list_is_refused() -> None:
    mine = log_of()
    bad = mine.fork("n2", epoch=2)
    bad.add_messages(messages("replicad:epoch:2", payloads=[b"{}"]), author="node:n2")
    script = opening(stored(mine, commit_size=2, promised=(2, "n2")), nodes=OLD)
    script.says("n2", welcome("n2", bad))
    script.says("n2", RootAnswer(2, mine.tree.root()))
    lines = script.says("n2", Supply((bad.appends[2].batch,), 3))
    assert lines[-1] == "hang up n2: malformed"
    assert script.store.load().size == 2


def test_more_lists_than_an_epoch_may_follow_are_told_and_nothing_begins() -> None:
    members = [f"m{n:02}" for n in range(MAX_PRIOR)]
    log = log_of(("n1", "n2"), prior=tuple((name, "n1") for name in members))
    script = opening(stored(log), nodes=("n1", "n3", "n2", *members), without_vote=["n2", *members])
    says_level(script, "n3", "n2", *members)
    assert script.machine.detail.startswith("18 lists of voters may still be in force")
    assert script.store.load().size == 2
    assert "voters" in script.events_noted


# --- when an operator accepts that data is lost -------------------------------------------------------------------


def test_an_operator_waives_the_voters_that_are_gone_and_the_log_says_so() -> None:
    script = opening(stored(log_of(), commit_size=1), nodes=("n1", "n4"))
    says_level(script, "n4")
    assert script.machine.detail.startswith("the voters n1, n2, n3 may still be in force")
    assert script.feed(Promote(forced=False)) == []
    assert script.machine.state is State.OPENING
    script.feed(Promote(forced=True))
    assert began(script) == EpochLists(("n1", "n4"), (), (OLD,))
    blocked, waived, follows = script.notes
    assert [blocked.event, waived.event, follows.event] == ["voters", "data_loss_accepted", "follows"]
    assert waived.level == "error"
    assert waived.text == (
        "begins without a quorum of the voters n1, n2, n3, as an operator wants: they may have other records at 1 to 1,"
        " and what they acknowledged at offset 2 and beyond is lost; those that are not in this config must not come"
        " back with their data"
    )
    assert script.machine.state is State.OPENING, "its own voters still have to have it on disk"
    script.acks("n4", 3)
    assert (script.machine.state, script.machine.log.commit_size) == (State.OPEN, 3)


def test_forced_it_waits_for_all_of_its_own_voters_since_each_may_have_most() -> None:
    mine = log_of()
    theirs = mine.fork()
    theirs.add()
    script = opening(stored(mine, commit_size=1), nodes=("n1", "n4", "n5"))
    script.feed(Promote(forced=True))
    says_level(script, "n4")
    assert script.store.load().size == 2, "R of 3 are not enough"
    assert script.machine.detail == "waiting for all 3 voters of its config, since data may be lost"
    script.says("n5", welcome("n5", theirs))
    script.settle()
    script.says("n5", RootAnswer(2, mine.tree.root()))
    script.says("n5", Supply((theirs.appends[-1].batch,), 3))
    script.settle()
    assert began(script) == EpochLists(("n1", "n4", "n5"), (), (OLD,))
    assert script.store.load().size == 4, "what the fifth alone had is in the log"


def test_forced_where_all_quorums_are_there_nothing_is_waived() -> None:
    script = opening(stored(log_of(), commit_size=2), nodes=("n1", "n2"))
    script.feed(Promote(forced=True))
    says_level(script, "n2")
    assert began(script) == EpochLists(("n1", "n2"), (OLD,))
    assert script.events_noted == ["follows"]


def test_forced_it_does_not_wait_for_a_dead_node_of_its_own_once_the_others_quorum_is_back() -> None:
    script = opening(stored(log_of(), commit_size=2), nodes=("n1", "n2", "n5"))
    script.feed(Promote(forced=True))
    says_level(script, "n2")
    assert began(script) == EpochLists(("n1", "n2", "n5"), (OLD,)), "n5 is dead, and nothing is to be waived"


def test_what_was_waived_is_not_asked_for_at_the_next_start() -> None:
    log = log_of()
    log.add_epoch(2, lists=EpochLists(("n1", "n4"), (), (OLD,)))
    script = opening(stored(log, commit_size=1), nodes=("n1", "n4"))
    says_level(script, "n4")
    assert began(script) == EpochLists(("n1", "n4"))


def test_once_it_has_begun_nothing_can_be_waived() -> None:
    script = opening(stored(log_of(), commit_size=2), nodes=("n1", "n2"))
    says_level(script, "n2")
    assert script.feed(Promote(forced=True)) == []
    assert began(script) == EpochLists(("n1", "n2"), (OLD,))
