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
from replicad.damage import Damage
from replicad.errors import DamagedError
from replicad.repair import Fetch
from replicad.runtime import Runtime
from replicad.scrubbing import Scrubbing
from replicad.storage.scrub import Gap
from replicad.storage.sqlite import SqliteStore
from tests.support.waiting import eventually

STRUCTURE, GONE = 10, 99  # offsets: in a page that is malformed, and of what was taken off the log


class Store:
    """An empty log; what lies at STRUCTURE can't even be looked for."""

    def gap_at(self, offset: int) -> Gap:
        if offset == STRUCTURE:
            raise DamagedError("database disk image is malformed")
        return Gap(offset, offset, 1, None)


class Disk:
    async def read(self, call: Callable[[], object]) -> object:
        return call()


async def no_records(_: str) -> int:
    return 0


async def test_a_structure_that_is_damaged_keeps_the_scrub_from_no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "FIRST_S", 0.2)
    monkeypatch.setattr(scrubbing, "RETRY_S", 0.05)
    log = logs.get_logger("test")
    limits, timeouts = SimpleNamespace(scrub_rate=1 << 20), SimpleNamespace(scrub_interval_s=0.2)
    damage = Damage(log=log, changed=lambda: None)
    scrub = Scrubbing(
        cast(Config, SimpleNamespace(limits=limits, timeouts=timeouts)),
        cast(Runtime, SimpleNamespace(disk=Disk(), visible_size=no_records)),
        cast(SqliteStore, Store()),
        damage,
        keyring=lambda: Keyring({}),
        fetch=cast(Fetch, None),
        log=log,
    )
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
