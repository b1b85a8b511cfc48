"""When a scrub looks and repairs: one damage that it can do nothing about keeps it from no other work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from replicad import logs, scrubbing
from replicad.config import Config
from replicad.core.keyring import Keyring
from replicad.core.tree import Tree
from replicad.damage import Damage
from replicad.errors import DamagedError
from replicad.repair import Fetch
from replicad.runtime import Runtime
from replicad.scrubbing import Scrubbing
from replicad.storage.scrub import Gap, Look
from replicad.storage.sqlite import SqliteStore
from tests.support.waiting import eventually

STRUCTURE, GONE = 10, 99  # offsets: in a page that is malformed, and of what was taken off the log


class Store:
    """A log; what lies at STRUCTURE can't even be looked for."""

    def __init__(self, looked: Callable[[], None] = lambda: None) -> None:
        self._looked = looked

    def gap_at(self, offset: int) -> Gap:
        if offset == STRUCTURE:
            raise DamagedError("database disk image is malformed")
        return Gap(offset, offset, 1, None)

    def look(self, tree: Tree, *, until: int, max_bytes: int) -> Look:
        assert tree.size < until
        assert max_bytes
        self._looked()
        after = tree.copy()
        after.append([bytes(32)])
        return Look(after, 1, None)


class Disk:
    async def read(self, call: Callable[[], object]) -> object:
        return call()


def scrubbing_of(
    damage: Damage,
    monkeypatch: pytest.MonkeyPatch,
    *,
    records: int,
    store: Store | None = None,
    interval_s: float = 0.2,
) -> Scrubbing:
    monkeypatch.setattr(scrubbing, "FIRST_S", 0.2)
    monkeypatch.setattr(scrubbing, "RETRY_S", 0.05)

    async def size(_: str) -> int:
        return records

    limits, timeouts = SimpleNamespace(scrub_rate=1 << 20), SimpleNamespace(scrub_interval_s=interval_s)
    return Scrubbing(
        cast(Config, SimpleNamespace(limits=limits, timeouts=timeouts)),
        cast(Runtime, SimpleNamespace(disk=Disk(), visible_size=size)),
        cast(SqliteStore, store or Store()),
        damage,
        keyring=lambda: Keyring({}),
        fetch=cast(Fetch, None),
        log=logs.get_logger("test"),
    )


async def test_what_a_reader_meets_is_repaired_while_a_scrub_of_days_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage = Damage(log=logs.get_logger("test"), changed=lambda: None)
    scrub = scrubbing_of(damage, monkeypatch, records=1 << 40)
    task = asyncio.get_running_loop().create_task(scrub.run())
    await asyncio.sleep(0.5)
    damage.found(DamagedError("damaged", offset=GONE))

    async def it_is_seen_to() -> bool:
        return GONE not in damage.offsets

    try:
        await eventually(it_is_seen_to, within_s=5, what="it is looked at")
        assert not scrub.scrubbed_ms
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_met_while_a_scrub_is_under_way_is_not_whole_because_the_scrub_has_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage = Damage(log=logs.get_logger("test"), changed=lambda: None)
    store = Store(lambda: damage.found(DamagedError("damaged", offset=STRUCTURE)))
    scrub = scrubbing_of(damage, monkeypatch, records=3, store=store, interval_s=60.0)
    task = asyncio.get_running_loop().create_task(scrub.run())

    async def scrubbed() -> bool:
        return scrub.scrubbed_ms > 0

    try:
        await eventually(scrubbed, within_s=5, what="the whole log is looked over")
        assert STRUCTURE in damage.offsets
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_structure_that_is_damaged_keeps_the_scrub_from_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    damage = Damage(log=logs.get_logger("test"), changed=lambda: None)
    scrub = scrubbing_of(damage, monkeypatch, records=0)
    task = asyncio.get_running_loop().create_task(scrub.run())
    damage.found(DamagedError("damaged", offset=STRUCTURE))
    damage.found(DamagedError("damaged", offset=GONE))

    async def the_other_is_seen_to() -> bool:
        return GONE not in damage.offsets and STRUCTURE in damage.offsets

    async def scrubbed() -> bool:
        return scrub.scrubbed_ms > 0

    try:
        await eventually(the_other_is_seen_to, within_s=5, what="the damage behind it is looked at")
        await eventually(scrubbed, within_s=5, what="and the whole log is")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
