"""The inquiry before an epoch is taken: who leads, who follows instead, and who waits for whom."""

from __future__ import annotations

import pytest

from replicad.core.effects import Call, Confirm, FrameArrived, HandOver, Promote, Send, State, Submit
from replicad.core.frames import Hello, Inquiry, Refused, Standing
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records
from tests.support.builders import CLUSTER, messages
from tests.support.script import CandidateScript, adjusted, master_log, stored

PATIENCE_S = 10.0  # settings().unhealthy_s


def promised(epoch: int, to: str) -> MemoryStore:
    store = MemoryStore(decode_records)
    store.set_promise(epoch, to)
    return store


def refusals(script: CandidateScript) -> list[str]:
    """To whom it said that it is bound, where it refused."""
    sent = [send.frame for send in script.outbox if isinstance(send, Send)]
    return [frame.promised_to for frame in sent if isinstance(frame, Refused)]


# --- whoever begins ---------------------------------------------------------------------------------------------


def test_a_new_cluster_is_begun_once_all_voters_have_said_that_they_are_new() -> None:
    script = CandidateScript(Call.BEGIN)
    assert script.start() == []
    assert script.up("n2") == ["n2 < inquiry of n1"]
    assert script.up("n3") == ["n3 < inquiry of n1"]
    assert script.hears("n2") == []
    assert script.machine.state is State.OPENING
    assert "no answer of n3" in script.machine.detail
    assert script.hears("n3") == ["turn: master above e0"]


def test_a_silent_voter_holds_up_a_new_cluster_for_a_while_only() -> None:
    script = CandidateScript(Call.BEGIN)
    script.start()
    script.up("n2")
    script.hears("n2")
    assert script.machine.wake_at() == pytest.approx(script.now + PATIENCE_S)
    assert script.tick(PATIENCE_S - 0.1) == []
    assert script.tick(0.2) == ["turn: master above e0"]


def test_a_decision_that_is_due_is_not_forgotten_over_what_comes_at_the_same_time() -> None:
    """The runtime's timer asks what is due; a post that is refused just before it decides nothing."""
    script = CandidateScript(Call.BEGIN)
    script.start()
    script.up("n2")
    script.hears("n2")
    script.now += PATIENCE_S
    script.feed(Submit(1, messages("a"), "anonymous", 1, script.now + 1))
    assert script.machine.wake_at() <= script.now
    assert script.tick() == ["turn: master above e0"]


def test_a_new_cluster_is_not_begun_by_less_than_the_fence_quorum_however_long_it_waits() -> None:
    script = CandidateScript(Call.BEGIN, voters=5)
    script.start()
    script.up("n2")
    script.hears("n2")
    assert script.tick(PATIENCE_S + 1) == []
    assert script.machine.wake_at() == float("inf")
    assert script.hears("n3") == ["turn: master above e0"]


def test_a_cluster_of_one_needs_nobody() -> None:
    assert CandidateScript(Call.BEGIN, voters=1).start() == ["turn: master above e0"]


@pytest.mark.parametrize(("to", "follows"), [("n1", "nobody"), ("n3", "n3"), ("", "nobody")])
def test_a_node_that_lost_its_data_does_not_begin_anew_over_a_cluster_that_is_there(to: str, follows: str) -> None:
    """Whether it was the master itself or another was: what it has lost may have been a majority's one copy. Nor does
    it take a promise to itself for its own, which would make it resume at the next start."""
    script = CandidateScript(Call.BEGIN)
    script.start()
    script.up("n2")
    assert script.hears("n2", 7, to, size=100, last_epoch=7) == [f"turn: worker, 7 to {follows}"]
    assert script.events_noted == ["asks", "follows_instead"]


def test_restored_nodes_have_the_same_log_and_no_promise_and_begin() -> None:
    log = master_log(2, epoch=3)
    script = CandidateScript(Call.BEGIN, store=stored(log, promised=(1000, "")))
    script.start()
    script.hears("n2", 1000, "", size=log.size, last_epoch=3)
    assert script.hears("n3", 1000, "", size=log.size, last_epoch=3) == ["turn: master above e1000"]


def test_streams_that_others_open_and_end_are_not_kept_in_mind() -> None:
    script = CandidateScript(Call.BEGIN)
    script.start()
    for number in range(3):
        script.down(f"stream #{number}")
    assert script.machine._gone == set()


# --- whoever was the master -------------------------------------------------------------------------------------


def test_a_restarted_master_leads_again_with_the_fence_quorum() -> None:
    script = CandidateScript(Call.RESUME, store=stored(master_log(2)))
    script.start()
    assert script.hears("n2", 1, "n1", size=3, last_epoch=1) == ["turn: master above e1"]


@pytest.mark.parametrize("epoch", [4, 5])
def test_a_restarted_master_follows_where_another_was_promised_as_much(epoch: int) -> None:
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    assert script.hears("n2", epoch, "n3") == [f"turn: worker, {epoch} to n3"]


def test_a_restarted_master_does_not_mind_what_was_promised_to_others_before() -> None:
    script = CandidateScript(Call.RESUME, store=stored(master_log(2, epoch=4)))
    script.start()
    assert script.hears("n2", 3, "n3") == ["turn: master above e3"]


def test_starts_that_came_to_nothing_are_no_reason_not_to_follow_who_led_meanwhile() -> None:
    """It has promised itself ever higher epochs, and begun none of them."""
    script = CandidateScript(Call.RESUME, store=stored(master_log(2), promised=(6, "n1")))
    script.start()
    assert script.hears("n2", 2, "n3") == ["turn: worker, 2 to n3"]


def test_a_worker_that_is_bound_to_itself_has_given_way_to_any_higher_epoch() -> None:
    script = CandidateScript(Call.RESUME, store=stored(master_log(2)))
    script.start()
    assert script.hears("n2", 6, "") == ["turn: master above e6"]


def test_a_restarted_master_waits_for_ever_and_says_for_whom() -> None:
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    assert script.machine.wake_at() == float("inf")
    assert script.tick(1000) == []
    assert script.machine.detail == ("asks 2 voters, itself counted, whether it may be the master; no answer of n2, n3")


def test_who_does_not_answer_is_asked_again_on_another_stream() -> None:
    """The end of the first may never be told of, as when a machine loses its power."""
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    script.up("n2")
    assert script.machine.wake_at() == pytest.approx(script.now + PATIENCE_S)
    assert script.tick(PATIENCE_S) == ["hang up n2: silent"]
    assert script.machine.wake_at() == float("inf")
    script.down("n2")
    assert script.up("n2") == ["n2 < inquiry of n1"]
    assert script.hears("n2", 4, "n1") == ["turn: master above e4"]


def test_an_answer_counts_for_as_long_as_its_stream_is_there() -> None:
    script = CandidateScript(Call.RESUME, voters=5, store=promised(4, "n1"))
    script.start()
    script.hears("n2", 4, "n1")
    script.down("n2")
    assert script.hears("n3", 4, "n1") == []
    assert script.hears("n2", 4, "n1") == ["turn: master above e4"]


def test_a_master_that_calls_is_followed() -> None:
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    lines = script.is_called("n3#1", Hello(CLUSTER, "n3", 5))
    assert lines == ["hang up n3#1: busy", "turn: worker, 5 to n3"]


@pytest.mark.parametrize(("hello", "word"), [(Hello(CLUSTER, "n3", 4), "epoch"), (Hello("other", "n3", 9), "cluster")])
def test_a_master_of_an_epoch_that_is_over_or_of_another_cluster_is_refused(hello: Hello, word: str) -> None:
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    assert script.is_called("n3#1", hello) == [f"n3#1 < refused {word}, promised 4", f"hang up n3#1: {word}"]


# --- whoever is appointed ---------------------------------------------------------------------------------------


COURTESY_S = 2.0  # settings().suspect_s


def test_an_appointed_node_leads_above_every_promise_it_hears_of() -> None:
    script = CandidateScript(Call.APPOINTED, store=promised(4, "n2"))
    script.start()
    script.down("n2", "connection refused")
    assert script.hears("n3", 6, "n2") == ["turn: master above e6, insists"]


def test_an_appointed_node_waits_a_while_for_one_that_is_silent_for_it_may_be_the_master() -> None:
    script = CandidateScript(Call.APPOINTED, store=promised(4, "n2"))
    script.start()
    assert script.hears("n3", 4, "n2") == []
    assert script.machine.wake_at() == pytest.approx(script.now + COURTESY_S)
    assert script.hears("n2", 4, "n2", leads=True) == ["turn: worker, 4 to n2"]

    script = CandidateScript(Call.APPOINTED, store=promised(4, "n2"))
    script.start()
    script.hears("n3", 4, "n2")
    assert script.tick(COURTESY_S) == ["turn: master above e4, insists"]


def handed_over() -> CandidateScript:
    script = CandidateScript(Call.HANDED_OVER, store=promised(4, "n2"))
    script.start()
    return script


def test_a_node_that_the_master_hands_over_to_waits_for_that_one_and_for_nobody_else() -> None:
    assert handed_over().hears("n2", 4, "n2") == ["turn: master above e4, insists"]
    script = handed_over()
    assert script.hears("n3", 4, "n2") == []
    assert script.hears("n2", 4, "n2") == ["turn: master above e4, insists"]
    script = handed_over()
    script.hears("n3", 4, "n2")
    assert script.down("n2", "connection refused") == ["turn: master above e4, insists"]
    script = handed_over()
    script.hears("n3", 4, "n2")
    assert script.tick(COURTESY_S) == ["turn: master above e4, insists"]


def test_a_node_that_hears_late_of_a_handover_does_not_depose_the_master_that_went_on() -> None:
    script = handed_over()
    script.hears("n3", 4, "n2")
    assert script.hears("n2", 4, "n2", leads=True) == ["turn: worker, 4 to n2"]


def test_a_target_that_took_its_epoch_in_vain_follows_the_master_that_went_on() -> None:
    """It took epoch 2 and was killed; n2, which has led epoch 1 all the while, opens a higher one for its sake."""
    log = master_log(2)
    script = CandidateScript(Call.RESUME, store=stored(log, promised=(2, "n1")))
    script.start()
    assert script.hears("n2", 1, "n2", size=log.size, last_epoch=1, leads=True) == ["turn: worker, 1 to n2"]


def test_a_master_that_calls_one_that_took_its_epoch_in_vain_is_not_deposed() -> None:
    """It is refused, and told that the other is bound to nobody: so it opens a higher epoch."""
    script = CandidateScript(Call.RESUME, store=stored(master_log(2), promised=(4, "n1")))
    script.start()
    (line, _) = script.is_called("n2#1", Hello(CLUSTER, "n2", 3))
    assert line == "n2#1 < refused epoch, promised 4"
    assert refusals(script) == [""]
    began = CandidateScript(Call.RESUME, store=stored(master_log(2, epoch=4)))
    began.start()
    began.is_called("n2#1", Hello(CLUSTER, "n2", 3))
    assert refusals(began) == ["n1"]


def test_a_master_that_only_seems_to_lead_is_no_reason_for_one_that_led_after_it() -> None:
    """It is cut off from the others, and has not heard of epoch 2."""
    script = CandidateScript(Call.RESUME, store=stored(master_log(2, epoch=2)))
    script.start()
    assert script.hears("n2", 1, "n2", size=2, last_epoch=1, leads=True) == ["turn: master above e1"]


def test_two_that_start_at_once_and_were_promised_the_same_in_vain_do_not_both_give_way() -> None:
    log = master_log(2)

    def starts(node: str, epoch: int) -> CandidateScript:
        script = CandidateScript(Call.RESUME, store=stored(log, promised=(epoch, node)), node=node)
        script.start()
        return script

    for epochs, leads in [((2, 2), "n1"), ((2, 4), "n2"), ((5, 3), "n1")]:
        first, second = starts("n1", epochs[0]), starts("n2", epochs[1])
        lines = {
            "n1": first.hears("n2", epochs[1], "n2", size=log.size, last_epoch=1, asks=True),
            "n2": second.hears("n1", epochs[0], "n1", size=log.size, last_epoch=1, asks=True),
        }
        follows = "n2" if leads == "n1" else "n1"
        assert lines[leads] == [f"turn: master above e{epochs[follows == 'n2']}"]
        assert lines[follows] == [f"turn: worker, {max(epochs)} to {leads}"]


def test_of_two_that_start_at_once_the_one_with_more_of_the_log_leads() -> None:
    log = master_log(2)
    script = CandidateScript(Call.RESUME, store=stored(log, promised=(9, "n1")))
    script.start()
    lines = script.hears("n2", 2, "n2", size=log.size + 1, last_epoch=1, asks=True)
    assert lines == ["turn: worker, 2 to n2"]


def test_whom_an_operator_may_have_wanted_is_given_way_to_though_it_has_less_of_the_log() -> None:
    """It is opening, and fetches what it lacks. Found by the simulation, at seed 740001481."""
    log = master_log(4)
    script = CandidateScript(Call.RESUME, store=stored(log))
    script.start()
    assert script.hears("n2", 2, "n2", size=log.size - 2, last_epoch=1) == ["turn: worker, 2 to n2"]


def test_an_appointed_node_does_not_take_the_place_of_a_master_that_is_open() -> None:
    script = CandidateScript(Call.APPOINTED, store=promised(4, "n2"))
    script.start()
    assert script.hears("n2", 4, "n2", leads=True) == ["turn: worker, 4 to n2"]
    assert "n2 is it, and is open" in script.notes[-1].text


def test_an_appointed_node_gives_up_where_too_few_answer() -> None:
    script = CandidateScript(Call.APPOINTED, store=promised(4, "n2"))
    script.start()
    assert script.tick(COURTESY_S) == []
    assert script.tick(PATIENCE_S - COURTESY_S - 0.1) == []
    assert script.tick(0.2) == ["turn: worker, 4 to n2"]
    assert "it did not become the master" in script.notes[-1].text
    assert "no answer of n2, n3" in script.notes[-1].text


def test_an_appointed_node_does_not_follow_the_master_that_it_is_to_replace() -> None:
    script = CandidateScript(Call.APPOINTED, store=promised(4, "n2"))
    script.start()
    lines = script.is_called("n2#1", Hello(CLUSTER, "n2", 4))
    assert lines == ["n2#1 < refused busy, promised 4", "hang up n2#1: busy"]


def test_an_operators_word_makes_a_waiting_node_insist() -> None:
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    assert script.feed(Promote()) == []
    script.down("n3")
    assert script.hears("n2", 5, "n3") == ["turn: master above e5, insists"]


@pytest.mark.parametrize("forced", [False, True])
def test_a_master_that_waits_goes_on_waiting_when_an_operators_word_came_to_nothing(forced: bool) -> None:
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    script.feed(Promote(forced))
    script.down("n2")
    script.down("n3")
    assert script.tick(PATIENCE_S) == []
    assert "it goes on asking" in script.notes[-1].text
    assert script.hears("n2", 4, "n1") == ["turn: master above e4"]


def test_a_new_cluster_is_begun_though_an_operators_word_came_to_nothing() -> None:
    script = CandidateScript(Call.BEGIN)
    script.start()
    script.tick(1.0)
    script.feed(Promote())
    assert script.tick(PATIENCE_S) == []
    assert script.hears("n2") == ["turn: master above e0"]


def test_who_is_forced_asks_every_voter_since_each_may_have_most() -> None:
    script = CandidateScript(Call.FORCED, store=promised(4, "n2"), voters=5)
    script.start()
    for name in ("n2", "n3", "n4"):
        assert script.hears(name, 4, "n2") == []
    assert "asks all 5 voters of its config" in script.machine.detail
    assert script.hears("n5", 6, "n2") == ["turn: master above e6, insists, forced"]


def test_who_is_forced_gives_up_where_a_voter_is_silent() -> None:
    script = CandidateScript(Call.FORCED, store=promised(4, "n2"))
    script.start()
    script.hears("n3", 4, "n2")
    script.down("n2")
    assert script.tick(PATIENCE_S) == ["turn: worker, 4 to n2"]
    assert "no answer of n2" in script.notes[-1].text


# --- what is the same for all -----------------------------------------------------------------------------------


def test_a_node_without_a_vote_is_heard_and_does_not_count() -> None:
    script = CandidateScript(
        Call.RESUME, store=promised(4, "n1"), adjust=adjusted(non_voters=frozenset({"n2"})), voters=4
    )
    script.start()
    assert script.up("n2") == ["n2 < inquiry of n1"]
    assert script.hears("n2", 4, "n1") == []
    assert script.hears("n3", 4, "n1") == ["turn: master above e4"]


def test_an_answer_of_another_than_was_asked_does_not_count() -> None:
    script = CandidateScript(Call.RESUME, store=promised(4, "n1"))
    script.start()
    assert script.feed(FrameArrived("n2", Standing("n3", 4, "n1", 0, 0, False))) == []


def test_it_says_how_it_stands_itself() -> None:
    script = CandidateScript(Call.RESUME, store=stored(master_log(2)))
    script.start()
    lines = script.is_called("n3#1", Inquiry(CLUSTER, "n3"))
    assert lines == ["n3#1 < standing of n1: 1 to n1, e1 size=3, asks"]
    assert script.is_called("n3#1", Inquiry("other", "n3")) == ["n3#1 < refused cluster, promised 1"]


def test_clients_are_told_to_try_again() -> None:
    script = CandidateScript(Call.BEGIN)
    script.start()
    assert script.feed(Submit(1, messages("a"), "anonymous", 1, script.now + 1)) == [
        "answer #1: all UNAVAILABLE applied=no"
    ]
    assert script.feed(Confirm(2)) == ["not confirmed #2: UNAVAILABLE applied=no"]
    (line,) = script.feed(HandOver(3, "n2", script.now + 1))
    assert line.startswith("not handed over #3: ")
