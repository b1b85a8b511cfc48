"""UUIDv7 ids: the layout of RFC 9562, and that they only rise."""

from __future__ import annotations

import threading
import uuid

from replicad.client.ids import UuidV7Source
from replicad.core.record import id_fault


def source(*times_ms: int) -> UuidV7Source:
    """With a clock that shows these times one after the other, and chance that always gives all ones."""
    clock = iter(times_ms)
    return UuidV7Source(now_ms=lambda: next(clock), random_bits=lambda count: (1 << count) - 1)


def test_an_id_is_a_uuid_of_version_7_with_its_time_in_front() -> None:
    made = uuid.UUID(source(1_700_000_000_123).one())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_700_000_000_123


def test_an_id_is_one_that_the_log_takes() -> None:
    made = UuidV7Source().one()
    assert id_fault(made) is None
    assert str(uuid.UUID(made)) == made


def test_ids_rise_while_the_clock_stands_still_and_when_it_steps_back() -> None:
    ids = source(5, 5, 3, 6)
    made = [ids.one(), *ids.many(3), ids.one(), ids.one()]
    assert made == sorted(set(made))
    assert [uuid.UUID(each).int >> 80 for each in made] == [5, 5, 5, 5, 5, 6]


def test_a_millisecond_that_runs_out_of_ids_borrows_from_the_next() -> None:
    ids = source(5, 5)
    first = ids.many(1 << 10)
    ids._low = (1 << 48) - 2
    second = ids.many(3)
    assert first[-1] < second[0]
    assert uuid.UUID(second[0]).int >> 80 == 6
    assert len(set(second)) == 3


def test_real_ids_of_many_threads_are_all_different() -> None:
    ids, made = UuidV7Source(), []

    def work() -> None:
        made.extend([*ids.many(500), *(ids.one() for _ in range(500))])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4000


def test_a_source_that_forgets_does_not_go_on_where_it_was() -> None:
    ids = source(5, 5)
    before = ids.one()
    ids.forget()
    assert ids.one() == before  # the same time and chance: nothing was remembered
