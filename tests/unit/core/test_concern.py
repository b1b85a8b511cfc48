"""Write concerns: what a word means as a number of nodes, and who waits for how many."""

from __future__ import annotations

import random

import pytest

from replicad.core.concern import Waiting, resolve
from replicad.errors import BadRequest

FOREVER = float("inf")


@pytest.mark.parametrize(
    ("text", "voters", "nodes"),
    [
        ("1", 1, 1),
        ("majority", 1, 1),
        ("all", 1, 1),
        ("majority", 2, 2),
        ("majority", 3, 2),
        ("all", 3, 3),
        ("3", 3, 3),
        ("majority", 4, 3),
        ("majority", 5, 3),
        ("all", 5, 5),
        ("4", 5, 4),
    ],
)
def test_a_write_concern_names_a_number_of_nodes(text: str, voters: int, nodes: int) -> None:
    assert resolve(text, voters=voters) == nodes


@pytest.mark.parametrize("text", ["0", "4", "-1", "1.0", "", " 2", "ALL", "most", "٢", "²", "9" * 5000, "1e0", "+1"])
def test_a_write_concern_that_is_not_to_be_had_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(BadRequest, match="this cluster has 3 voters; use 1 to 3, majority or all") as caught:
        resolve(text, voters=3)
    assert len(str(caught.value)) < 200


def test_a_ticket_is_given_out_when_as_many_nodes_as_it_waits_for_have_its_size() -> None:
    waiting = Waiting()
    waiting.add(1, nodes=1, size=5, deadline=FOREVER)
    waiting.add(2, nodes=2, size=5, deadline=FOREVER)
    waiting.add(3, nodes=3, size=5, deadline=FOREVER)
    assert waiting.reached([4, 4, 4]) == []
    assert waiting.reached([5, 4, 4]) == [1]
    assert waiting.reached([9, 5, 4]) == [2]
    assert waiting.reached([9, 9, 5]) == [3]
    assert len(waiting) == 0


def test_a_ticket_is_given_out_once() -> None:
    waiting = Waiting()
    waiting.add(1, nodes=1, size=1, deadline=2.0)
    assert waiting.reached([1]) == [1]
    assert waiting.reached([1]) == []
    assert waiting.expired(3.0) == []


def test_one_waiter_for_all_holds_up_nobody_who_waits_for_fewer() -> None:
    waiting = Waiting()
    waiting.add(1, nodes=3, size=1, deadline=FOREVER)
    for ticket in range(2, 100):
        waiting.add(ticket, nodes=2, size=ticket, deadline=FOREVER)
    assert waiting.reached([100, 99, 0]) == list(range(2, 100))
    assert len(waiting) == 1


def test_tickets_for_one_number_of_nodes_come_out_in_the_order_of_their_sizes() -> None:
    waiting = Waiting()
    for ticket, size in ((1, 30), (2, 10), (3, 20)):
        waiting.add(ticket, nodes=1, size=size, deadline=FOREVER)
    assert waiting.reached([25]) == [2, 3]


def test_a_ticket_expires_at_its_deadline_and_not_before() -> None:
    waiting = Waiting()
    waiting.add(1, nodes=2, size=1, deadline=10.0)
    waiting.add(2, nodes=2, size=1, deadline=11.0)
    assert waiting.next_deadline() == 10.0
    assert waiting.expired(9.999) == []
    assert waiting.expired(10.0) == [1]
    assert waiting.next_deadline() == 11.0
    assert waiting.reached([1, 1]) == [2]
    assert waiting.next_deadline() == FOREVER


def test_nobody_waiting_means_no_deadline() -> None:
    assert Waiting().next_deadline() == FOREVER


def test_a_discarded_ticket_neither_is_served_nor_expires() -> None:
    waiting = Waiting()
    waiting.add(1, nodes=1, size=1, deadline=1.0)
    waiting.add(2, nodes=1, size=1, deadline=2.0)
    waiting.discard([1])
    assert waiting.next_deadline() == 2.0
    assert waiting.reached([1]) == [2]
    assert waiting.expired(5.0) == []


def test_clearing_gives_all_that_still_wait() -> None:
    waiting = Waiting()
    for ticket in (3, 1, 2):
        waiting.add(ticket, nodes=ticket, size=1, deadline=1.0)
    waiting.reached([1, 0, 0])
    assert waiting.clear() == [2, 3]
    assert (len(waiting), waiting.reached([9, 9, 9]), waiting.next_deadline()) == (0, [], FOREVER)


def test_waiting_agrees_with_a_plain_list_under_random_use() -> None:
    rng = random.Random(2718)
    waiting = Waiting()
    plain: dict[int, tuple[int, int, float]] = {}  # ticket: (nodes, size, deadline)
    now, sizes = 0.0, [0, 0, 0]
    for ticket in range(4000):
        now += rng.random()
        action = rng.randrange(4)
        if action == 0:
            sizes[0] += rng.randrange(9)
            sizes[1] = rng.randint(sizes[1], sizes[0])
            sizes[2] = rng.randint(sizes[2], sizes[1])
            done = {t for t, (nodes, size, _) in plain.items() if sizes[nodes - 1] >= size}
            assert set(waiting.reached(sizes)) == done
        elif action == 1:
            done = {t for t, (_, _, deadline) in plain.items() if deadline <= now}
            assert set(waiting.expired(now)) == done
        else:
            plain[ticket] = rng.randint(1, 3), sizes[0] + rng.randrange(20), now + 10 * rng.random()
            nodes, size, deadline = plain[ticket]
            waiting.add(ticket, nodes=nodes, size=size, deadline=deadline)
            done = set()
        for each in done:
            del plain[each]
        assert len(waiting) == len(plain)
        assert waiting.next_deadline() == min((deadline for _, _, deadline in plain.values()), default=FOREVER)


def test_memory_follows_who_waits_and_not_who_has_waited() -> None:
    """One ticket that waits long at the head of the heaps does not keep all that came after it."""
    waiting = Waiting()
    waiting.add(0, nodes=3, size=1, deadline=1e9)
    for ticket in range(1, 50_000):
        waiting.add(ticket, nodes=1, size=ticket, deadline=2e9)
        waiting.reached([ticket, 0, 0])
        if ticket % 1000 == 0:
            waiting.expired(1.0)
    assert len(waiting) == 1
    assert len(waiting._deadlines) < 4000
    assert sum(map(len, waiting._by_nodes.values())) < 4000
