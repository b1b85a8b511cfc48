"""Recent ids: always the truth or "ask the disk", compared with a plain set under random use."""

from __future__ import annotations

import random

import pytest

from replicad.core.duplicates import RecentIds


def test_an_id_greater_than_all_before_it_is_known_to_be_new() -> None:
    ids = RecentIds(limit=10, greatest_id="m")
    assert ids.all_new(["n", "o"])
    assert not ids.may_be_older("n")


def test_an_id_not_greater_than_an_old_one_is_the_disks_to_tell() -> None:
    ids = RecentIds(limit=10, greatest_id="m")
    assert not ids.all_new(["a"])
    assert not ids.all_new(["n", "m"])
    assert ids.may_be_older("m")
    assert ids.get("m") is None


def test_ids_added_are_known_with_their_offsets() -> None:
    ids = RecentIds(limit=10, greatest_id="")
    ids.add(["b", "a"], 7)
    assert (ids.get("b"), ids.get("a"), ids.get("c")) == (7, 8, None)
    assert not ids.all_new(["c", "a"])
    assert ids.all_new(["aa"])  # between two that are known, and nothing is older


def test_an_id_twice_in_one_frame_is_not_all_new() -> None:
    assert not RecentIds(limit=10, greatest_id="").all_new(["x", "y", "x"])


def test_ids_taken_back_are_new_again() -> None:
    ids = RecentIds(limit=10, greatest_id="")
    ids.add(["a", "b"], 0)
    ids.remove(["a", "b"])
    assert ids.all_new(["a", "b"])
    ids.add(["b"], 0)
    assert ids.get("b") == 0


def test_nothing_is_forgotten_below_the_limit_and_a_quarter() -> None:
    ids = RecentIds(limit=8, greatest_id="")
    ids.add([str(n) for n in range(10)], 0)
    ids.trim(stored_size=10)
    assert [ids.get(str(n)) for n in range(10)] == list(range(10))


def test_the_oldest_beyond_the_limit_are_forgotten_and_become_the_disks_to_tell() -> None:
    ids = RecentIds(limit=8, greatest_id="")
    names = [f"{n:02}" for n in range(12)]
    ids.add(names, 0)
    ids.trim(stored_size=12)
    assert [ids.get(name) for name in names] == [None] * 4 + list(range(4, 12))
    assert all(ids.may_be_older(name) for name in names[:4])
    assert not ids.may_be_older("04")
    assert ids.all_new(["12"])


def test_what_is_not_on_disk_is_not_forgotten() -> None:
    ids = RecentIds(limit=4, greatest_id="")
    ids.add([f"{n:02}" for n in range(12)], 0)
    ids.trim(stored_size=3)
    assert ids.get("02") is None
    assert ids.get("03") == 3


def test_while_the_disk_is_asked_nothing_is_forgotten_that_its_answer_may_not_know() -> None:
    ids = RecentIds(limit=4, greatest_id="")
    ids.hold(1, stored_size=2)
    ids.hold(2, stored_size=5)
    ids.add([f"{n:02}" for n in range(12)], 0)
    ids.trim(stored_size=12)
    assert [ids.get(f"{n:02}") is None for n in range(4)] == [True, True, False, False]
    ids.release(1)
    ids.trim(stored_size=12)
    assert [ids.get(f"{n:02}") is None for n in range(2, 7)] == [True, True, True, False, False]
    ids.release(2)
    ids.release(2)
    ids.trim(stored_size=12)
    assert ids.get("07") is None


def test_the_floor_is_the_greatest_forgotten_id_and_not_the_latest() -> None:
    ids = RecentIds(limit=1, greatest_id="")
    ids.add(["z", "b", "c"], 0)
    ids.trim(stored_size=3)
    assert ids.may_be_older("y")
    assert not ids.all_new(["d"])
    assert ids.all_new(["zz"])


class PlainLog:
    """The truth: every id in the log by its offset, how far it is on disk, and what the disk was asked when."""

    def __init__(self, rng: random.Random, *, limit: int) -> None:
        self.rng = rng
        self.offsets: dict[str, int] = {}
        self.order: list[str] = []
        self.stored_size = 0
        self.asked: dict[int, int] = {}
        self.ids = RecentIds(limit=limit, greatest_id="")

    def tell(self, message_id: str, known_to_disk: int) -> int | None:
        """What a post would find out about an id: memory first, then what the disk knew when it was asked."""
        offset = self.ids.get(message_id)
        if offset is None and self.ids.may_be_older(message_id):
            offset = self.offsets.get(message_id)
            if offset is not None and offset >= known_to_disk:
                offset = None
        return offset

    def check(self, message_id: str) -> None:
        truth = self.offsets.get(message_id)
        assert self.tell(message_id, self.stored_size) == truth
        for stored_size in self.asked.values():
            assert self.tell(message_id, stored_size) == truth
        if self.ids.all_new([message_id]):
            assert truth is None

    def post(self, name: str) -> None:
        if name not in self.offsets:
            self.ids.add([name], len(self.order))
            self.offsets[name] = len(self.order)
            self.order.append(name)

    def take_back(self) -> None:
        """What is not on disk may be given back, from the end."""
        keep = self.rng.randint(self.stored_size, len(self.order))
        lost = self.order[keep:]
        self.ids.remove(lost)
        del self.order[keep:]
        for name in lost:
            del self.offsets[name]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rising", [True, False])
def test_recent_ids_agree_with_a_plain_set_under_random_use(seed: int, rising: bool) -> None:
    rng = random.Random(seed)
    log = PlainLog(rng, limit=rng.choice((1, 4, 16, 64)))
    for step in range(1500):
        draw = rng.random()
        name = f"{step:05}" if rising and rng.random() < 0.9 else f"{rng.randrange(3000):05}"
        if draw < 0.6:
            log.post(name)
        elif draw < 0.75:
            log.stored_size = rng.randint(log.stored_size, len(log.order))
            log.ids.trim(stored_size=log.stored_size)
        elif draw < 0.82:
            log.asked[step] = log.stored_size
            log.ids.hold(step, stored_size=log.stored_size)
        elif draw < 0.9 and log.asked:
            ticket = rng.choice(list(log.asked))
            del log.asked[ticket]
            log.ids.release(ticket)
        elif draw < 0.92:
            log.take_back()
        log.check(name)
        log.check(rng.choice(log.order) if log.order else "none")


def test_memory_is_bounded_by_the_limit_when_nothing_is_held() -> None:
    ids = RecentIds(limit=100, greatest_id="")
    for n in range(5000):
        ids.add([f"{n:06}"], n)
        ids.trim(stored_size=n + 1)
        assert len(ids._offsets) <= 126
