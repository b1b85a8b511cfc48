"""What repeats: logged at first, then at growing intervals with a count, and not one of it untold."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from replicad.logrepeats import AT_ONCE, FIRST_S, KINDS, LONGEST_S, QUIET_S, Repeats


class Log:
    """A log of what repeats, at a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.repeats = Repeats(lambda: self.now)
        self.lines: list[tuple[float, int]] = []  # when, and how many were left out before

    def event(self, event: str = "unreachable", *, level: int = logging.INFO, **fields: object) -> bool:
        record = logging.LogRecord("replicad", level, "", 0, event, None, None)
        record.replicad_event, record.replicad_fields = event, fields
        logged = self.repeats.filter(record)
        if logged:
            self.tell_owed()
            self.lines.append((self.now, left_out(record)))
        return logged

    def tell_owed(self, *, all_of_them: bool = False) -> None:
        self.lines += [(self.now, left_out(record)) for record in self.repeats.owed(all_of_them=all_of_them)]


def left_out(record: logging.LogRecord) -> int:
    fields: Mapping[str, object] = record.replicad_fields  # type: ignore[attr-defined]
    count = fields.get("left_out", 0)
    assert isinstance(count, int)
    return count


def test_the_first_ones_are_logged_as_they_come_and_then_at_growing_intervals_with_a_count() -> None:
    log = Log()
    for second in range(3 * 3600):
        log.now = 1000.0 + second
        log.event(peer="node-2")
    at = [when - 1000.0 for when, _ in log.lines]
    last = AT_ONCE - 1  # at once, each a second after the other
    assert at[:AT_ONCE] == list(range(AT_ONCE))
    assert at[AT_ONCE : AT_ONCE + 4] == [last + 10, last + 30, last + 70, last + 150]
    assert [count for _, count in log.lines[AT_ONCE : AT_ONCE + 3]] == [9, 19, 39]
    assert max(later - earlier for earlier, later in itertools.pairwise(at)) <= LONGEST_S
    assert len(log.lines) < 25, "three hours of a line a second"


def test_another_peer_reason_or_event_is_logged_at_once() -> None:
    log = Log()
    logged = [log.event("refused", peer="node-2", reason="signature") for _ in range(AT_ONCE + 1)]
    assert logged == [True] * AT_ONCE + [False]
    assert log.event("refused", peer="node-3", reason="signature")
    assert log.event("refused", peer="node-2", reason="epoch")
    assert log.event("lost", peer="node-2")


def test_what_does_not_repeat_and_what_is_for_debugging_is_never_left_out() -> None:
    log = Log()
    assert all(log.event("fatal") for _ in range(100))
    assert all(log.event("an event of no catalogue") for _ in range(100))
    assert all(log.event("lost", level=logging.DEBUG, peer="node-2") for _ in range(100))


def test_what_comes_back_after_a_quiet_time_is_new() -> None:
    log = Log()
    while log.event(peer="node-2"):
        pass
    log.now += QUIET_S + 1
    log.tell_owed()
    assert [log.event(peer="node-2") for _ in range(AT_ONCE + 1)] == [True] * AT_ONCE + [False]


def test_a_count_with_no_successor_is_told_by_the_last_one_once_more() -> None:
    log = Log()
    while log.event(peer="node-2"):
        pass
    log.event(peer="node-2")
    log.event("open")
    assert log.lines[-1][1] == 0, "not yet"
    log.now += FIRST_S
    log.event("open")
    assert [count for _, count in log.lines[-2:]] == [2, 0]
    log.tell_owed(all_of_them=True)
    assert log.lines[-1][1] == 0, "once is enough"


def test_peers_that_make_up_names_do_not_fill_the_memory() -> None:
    log = Log()
    for number in range(2 * KINDS):
        log.event("refused", peer=str(number))
    assert len(log.repeats._repeats) == KINDS


def test_what_is_forgotten_for_them_has_its_count_told_first() -> None:
    log = Log()
    while log.event(peer="node-2"):
        pass
    for number in range(KINDS):
        log.event("refused", peer=str(number))
    assert [count for _, count in log.lines if count] == [1]
    log.tell_owed(all_of_them=True)
    assert [count for _, count in log.lines if count] == [1], "once is enough"


@given(st.lists(st.tuples(st.floats(0, 5000), st.sampled_from(["node-2", "node-3"])), max_size=200))
def test_not_one_is_untold_however_they_come(waits: list[tuple[float, str]]) -> None:
    log = Log()
    for wait_s, peer in waits:
        log.now += wait_s
        log.event(peer=peer)
    log.tell_owed(all_of_them=True)
    told_again = sum(1 for _, count in log.lines if count) if log.lines else 0
    told = len(log.lines) + sum(count for _, count in log.lines)
    assert len(waits) <= told <= len(waits) + told_again
