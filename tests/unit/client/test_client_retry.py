"""When and where to try again."""

from __future__ import annotations

from random import Random

import pytest

from replicad.client.retry import FIRST_DELAY_S, MAX_DELAY_S, Route, may_retry, next_delay, own_instance
from replicad.errors import (
    SERVICE_ERRORS,
    Applied,
    InternalError,
    NotMaster,
    OutcomeUnknown,
    RateLimited,
    ServiceError,
    Unavailable,
)


class Highest(Random):
    """Chance that always takes the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def route(*addresses: str) -> Route:
    return Route(addresses, Highest())


def test_delays_double_up_to_a_ceiling() -> None:
    delays = [next_delay(attempt, Highest()) for attempt in range(10)]
    assert delays[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert delays[-1] == MAX_DELAY_S
    assert next_delay(10**9, Highest()) == MAX_DELAY_S


def test_jitter_is_full_and_follows_the_given_randomness() -> None:
    delays = [next_delay(9, Random(seed)) for seed in range(200)]
    assert min(delays) < 0.1 * MAX_DELAY_S
    assert max(delays) > 0.9 * MAX_DELAY_S
    assert next_delay(9, Random(7)) == next_delay(9, Random(7))


def test_each_address_is_tried_once_at_once_and_then_with_growing_delays() -> None:
    way = route("a", "b", "c")
    steps = [(way.failed(), way.current) for _ in range(5)]
    assert [address for _, address in steps] == ["b", "c", "a", "b", "c"]
    assert [delay for delay, _ in steps] == [0.0, 0.0, 0.0, FIRST_DELAY_S, 2 * FIRST_DELAY_S]


def test_a_named_master_is_gone_to_at_once_even_if_it_was_not_configured() -> None:
    way = route("a", "b")
    assert way.not_master("elsewhere") == 0.0
    assert way.current == "elsewhere"


def test_when_the_named_master_is_no_good_the_configured_addresses_are_tried() -> None:
    way = route("a", "b")
    way.not_master("elsewhere")
    way.failed()
    assert way.current == "b"
    way.failed()
    assert way.current == "a"


def test_a_node_that_knows_no_master_or_names_itself_is_left_for_the_next() -> None:
    way = route("a", "b")
    way.not_master("")
    assert way.current == "b"
    way.not_master("b")
    assert way.current == "a"


def test_nodes_that_name_each_other_the_master_do_not_make_us_spin() -> None:
    way = route("a", "b")
    delays = [way.not_master("b" if way.current == "a" else "a") for _ in range(8)]
    assert delays[2:] == [next_delay(attempt, Highest()) for attempt in range(6)]


def test_success_forgets_the_failures() -> None:
    way = route("a")
    way.failed()
    assert way.failed() > 0
    way.succeeded()
    assert way.failed() == 0.0


def test_a_route_of_one_address_stays_there() -> None:
    way = route("a")
    way.failed()
    assert way.current == "a"


@pytest.mark.parametrize("kind", SERVICE_ERRORS.values())
def test_only_errors_that_may_mend_themselves_are_tried_again(kind: type[ServiceError]) -> None:
    expected = kind in (NotMaster, Unavailable, RateLimited, OutcomeUnknown, InternalError)
    assert may_retry(kind()) is expected


def test_an_error_of_a_later_release_that_says_not_applied_is_final() -> None:
    error = InternalError("451 SEALED")
    error.applied = Applied.NO
    assert not may_retry(error)


def test_an_own_instance_has_all_that_the_original_says() -> None:
    original = Unavailable("x", offset=3, nodes=2, master="m", master_address="a", retry_after_s=1.5)
    original.applied = Applied.UNKNOWN
    original.__cause__ = ValueError("why")
    twin = own_instance(original)
    assert twin is not original
    assert vars(twin) == vars(original)
    assert twin.__cause__ is original.__cause__
    assert own_instance(original, "y").message == "y"


def test_of_several_that_met_the_same_failure_one_moves_on() -> None:
    way = route("a", "b")
    for _ in range(2):  # the second would lead back
        way.failed("a")
        assert way.current == "b"
    way.not_master("", "a")
    assert way.current == "b"
