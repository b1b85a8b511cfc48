"""Failed authentications: how long each waits, what is remembered, and whom it never holds up."""

from __future__ import annotations

import asyncio

import pytest

from replicad.access import Refused
from replicad.errors import RateLimited
from replicad.logs import get_logger
from replicad.transport.guard import ADDRESSES, FORGET_S, TRUSTED, Guard, address_of

REFUSED = Refused("wrong")
WAITING = 64


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def guard(*, free: int = 2, longest_s: float = 1.0, clock: Clock | None = None) -> Guard:
    return Guard(free=free, waiting=WAITING, longest_s=longest_s, log=get_logger("test"), clock=clock or Clock())


def test_after_the_free_ones_each_wait_is_twice_the_last_up_to_the_longest() -> None:
    made = guard()
    assert [made._delay_s("x") for _ in range(8)] == [0, 0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert made._delay_s("y") == 0


def test_a_minute_without_a_failure_begins_anew() -> None:
    clock = Clock()
    made = guard(free=0, clock=clock)
    made._delay_s("x")
    assert made._delay_s("x") == 0.2
    clock.now += FORGET_S + 1
    assert made._delay_s("x") == 0.1


async def test_beyond_a_number_that_wait_new_connections_are_told_to_come_later_but_not_known_good_ones() -> None:
    made = guard(free=0, longest_s=30.0)
    for _ in range(10):
        made._delay_s("1.2.3.4")
    made.succeeded("ipv4:1.2.3.4:1")
    tasks = [asyncio.create_task(made.failed(f"ipv4:1.2.3.4:{port}", REFUSED)) for port in range(2, WAITING + 2)]
    await asyncio.sleep(0)
    made.check("ipv4:1.2.3.4:1")
    made.check("ipv4:1.2.3.5:1")
    with pytest.raises(RateLimited) as caught:
        made.check("ipv4:1.2.3.4:9999")
    assert caught.value.retry_after_s
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    made.check("ipv4:1.2.3.4:9999")


async def test_a_connection_that_fails_is_not_known_good_any_more() -> None:
    made = guard()
    made.succeeded("ipv4:1.2.3.4:1")
    await made.failed("ipv4:1.2.3.4:1", REFUSED)
    assert not made._trusted


def test_what_is_remembered_is_bounded() -> None:
    made = guard()
    for number in range(ADDRESSES + 10):
        made._delay_s(str(number))
        made.succeeded(str(number))
    assert (len(made._failures), len(made._trusted)) == (ADDRESSES, TRUSTED)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.1.2.3:5000", "10.1.2.3"),
        ("ipv6:[::1]:5000", "::1"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:10.1.2.3]:5000", "10.1.2.3"),
        ("unix:/run/x", "unix"),
        ("ipv4:nonsense", "ipv4"),
        ("", ""),
    ],
)
def test_the_address_of_a_peer(peer: str, address: str) -> None:
    assert address_of(peer) == address
