"""Token buckets: a frame whole or not at all, what is owed, and when to come again."""

from __future__ import annotations

import pytest

from replicad.rates import REMEMBERED, Rate, Rates


def rates(own: Rate, total: Rate | None = None, *, burst_s: float = 1.0) -> Rates:
    made = Rates()
    made.configure(total=total or Rate(), burst_s=burst_s, rate_of=lambda _: own)
    return made


def admit(made: Rates, messages: int, now: float, name: str = "a", size_bytes: int = 0) -> float:
    return made.admit(name, messages=messages, size_bytes=size_bytes, now=now)[0]


def test_without_a_rate_everything_goes_through() -> None:
    made = rates(Rate())
    assert all(admit(made, 1 << 20, 0.0, size_bytes=1 << 30) == 0 for _ in range(10))


def test_a_burst_goes_through_and_then_the_rate_holds() -> None:
    made = rates(Rate(messages=10), burst_s=2.0)
    assert [admit(made, 10, 0.0) for _ in range(2)] == [0, 0]
    assert admit(made, 1, 0.0) == pytest.approx(0.1)
    assert admit(made, 1, 0.05) == pytest.approx(0.05)
    assert admit(made, 1, 0.1) == 0


def test_a_frame_larger_than_the_bucket_goes_through_when_it_is_full_and_is_owed() -> None:
    made = rates(Rate(messages=10))
    assert admit(made, 50, 0.0) == 0
    assert admit(made, 1, 0.0) == pytest.approx(4.1)
    assert admit(made, 50, 4.0) == pytest.approx(1.0)
    assert admit(made, 50, 5.0) == 0


def test_what_is_told_to_wait_is_let_in_when_it_comes_back_then() -> None:
    made = rates(Rate(messages=7), burst_s=0.5)
    admit(made, 100, 0.0)
    wait_s = admit(made, 3, 0.0)
    assert admit(made, 3, wait_s * 0.99) > 0
    assert admit(made, 3, wait_s + 1e-9) == 0


def test_a_frame_that_one_bucket_refuses_is_taken_from_none() -> None:
    made = rates(Rate(messages=10), Rate(messages=15))
    assert admit(made, 10, 0.0, "a") == 0
    wait_s, limit = made.admit("b", messages=10, size_bytes=0, now=0.0)
    assert wait_s == pytest.approx(5 / 15)
    assert limit == "messages a second of all principals together"
    assert admit(made, 5, 0.0, "b") == 0  # nothing of b's own was taken by what was refused
    assert made.admit("a", messages=1, size_bytes=0, now=0.0)[1].startswith("messages a second of ")


def test_bytes_count_as_messages_do() -> None:
    made = rates(Rate(size_bytes=1000))
    assert admit(made, 1, 0.0, size_bytes=1000) == 0
    assert made.admit("a", messages=1, size_bytes=500, now=0.0) == (0.5, "bytes a second of a")


def test_a_clock_that_goes_back_gives_nothing() -> None:
    made = rates(Rate(messages=10))
    admit(made, 10, 100.0)
    assert admit(made, 1, 50.0) > 0


def test_a_changed_rate_begins_with_a_full_bucket() -> None:
    made = rates(Rate(messages=10))
    admit(made, 100, 0.0)
    made.configure(total=Rate(), burst_s=1.0, rate_of=lambda _: Rate(messages=20))
    assert admit(made, 20, 0.0) == 0


def test_what_is_remembered_of_principals_is_bounded() -> None:
    made = rates(Rate(messages=1))
    for number in range(REMEMBERED + 10):
        admit(made, 1, 0.0, f"p{number}")
    assert len(made._buckets) == REMEMBERED
