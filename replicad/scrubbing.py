"""The scrub: the whole log is looked over, slowly, again and again; what is damaged is replaced by another node's copy.

Owns when and how fast, and that a copy is what the own log goes on from after the damage. Must not know how a fault is
found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TypeVar, cast

from replicad.config import Config
from replicad.core.batch import Append
from replicad.core.keyring import Keyring
from replicad.core.tree import Tree, leaf_hashes
from replicad.damage import Damage
from replicad.errors import DamagedError, DiskFullError, PeerError
from replicad.logs import Logger
from replicad.repair import Fetch, copy_of
from replicad.runtime import Runtime
from replicad.storage.scrub import Fault, Gap, Look
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records

FIRST_S = 60.0  # after a start: it has other things to do then
STEP_BYTES = 64 << 10  # of one look: some milliseconds of a reading thread
RETRY_S = 5.0  # of a repair that no node could help with
SCRUB_SHARE = 9  # to one: of a scrub's time, where repairs fail that wait long for nodes that do not answer

T = TypeVar("T")


class Scrubbing:
    """1. Only what is committed is looked over: it is never taken off again.
    2. Nothing is replaced but by batches that prove between what is whole before and after.
    """

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        store: SqliteStore,
        damage: Damage,
        *,
        keyring: Callable[[], Keyring],
        fetch: Fetch,
        log: Logger,
    ) -> None:
        self._config, self._runtime, self._store, self._damage = config, runtime, store, damage
        self._keyring, self._fetch, self._log = keyring, fetch, log
        self._again_at = 0.0  # when what could not be repaired is tried again
        self.scrubbed_ms = 0  # when the last whole one ended; 0 for none since the start

    def configure(self, config: Config) -> None:
        """Go by ``config`` from the next step on, also where that is due now."""
        self._config = config
        self._damage.noticed.set()

    async def run(self) -> None:
        """Scrub and repair until cancelled."""
        loop = asyncio.get_running_loop()
        since, wait_s = loop.time(), FIRST_S
        while True:
            await self._sleep_until(since + min(wait_s, self._config.timeouts.scrub_interval_s))
            await self._repair_all()
            interval_s = self._config.timeouts.scrub_interval_s
            if self._config.limits.scrub_rate and loop.time() >= since + min(wait_s, interval_s):
                await self._telling(self._scrub())
                since, wait_s = loop.time(), float("inf")

    async def _repair_all(self) -> None:
        """Try to repair whatever is known to be damaged."""
        self._damage.noticed.clear()
        began = time.monotonic()
        for offset in self._damage.offsets:
            await self._telling(self._repair(offset))
        now = time.monotonic()
        self._again_at = now + max(RETRY_S, SCRUB_SHARE * (now - began)) if self._damage.offsets else 0.0

    async def _telling(self, work: Coroutine[object, object, object]) -> None:
        """Do it; where the file's very structure is damaged, so that not even the damage's end can be found, say so."""
        try:
            await work
        except DamagedError as exc:
            self._damage.found(exc)

    async def _sleep_until(self, due: float) -> None:
        """Or until something is damaged, or the config changes; what was damaged before is tried again in a while."""
        left_s = due - asyncio.get_running_loop().time()
        wait_s = max(0.0, left_s) if self._config.limits.scrub_rate else None
        if self._damage.offsets:
            wait_s = min(RETRY_S, RETRY_S if wait_s is None else wait_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._damage.noticed.wait()

    # --- the scrub ------------------------------------------------------------------------------------------------

    async def _scrub(self) -> None:
        """Look over all that is committed now."""
        until, tree, began = await self._runtime.visible_size("committed"), Tree(), time.monotonic()
        known, faults, met = set(self._damage.offsets), 0, (-1, "")
        while tree.size < until:
            # A scrub may take days, and who needs what is damaged does not wait for that.
            if self._damage.offsets and time.monotonic() >= self._again_at:
                await self._repair_all()
            look = await self._look(tree, until)
            tree = look.tree
            if look.fault is not None:
                fault = (look.fault.offset, look.fault.reason)
                again, met = met == fault, fault
                passed = None if again else await self._mend(tree, look.fault)
                if passed is None:
                    self._log.warning("scrub_ended", f"not looked over from offset {tree.size} on: {met[1]}")
                    return
                faults, tree = faults + 1, passed
            rate = self._config.limits.scrub_rate
            if not rate:
                return
            await asyncio.sleep(look.bodies / rate)
        self.scrubbed_ms = time.time_ns() // 1_000_000
        if not faults and known.issuperset(self._damage.offsets):  # else it may lie where the scrub had been before
            self._damage.all_is_whole()
        self._log.info(
            "scrubbed", f"{until} records were looked over", faults=faults, took_s=round(time.monotonic() - began, 1)
        )

    async def _look(self, tree: Tree, until: int) -> Look:
        return await self._read(lambda: self._store.look(tree, until=until, max_bytes=STEP_BYTES))

    async def _mend(self, tree: Tree, fault: Fault) -> Tree | None:
        """Repair a fault that the scrub has met, with ``tree`` over what is whole before it. The tree to go on from;
        None when there is none."""
        self._damage.found(DamagedError(fault.reason, offset=fault.offset))
        if fault.append is not None:
            batch = fault.append.batch
            gap = Gap(batch.first_offset, batch.end, batch.epoch, None)
            if not await self._replace(gap, [fault.append], f"its own log, of which it follows: {fault.reason}"):
                return None
            self._damage.is_whole(fault.offset, fault.offset + 1)
            return tree
        gap = await self._read(lambda: self._store.gap_at(fault.offset))
        if await self._repair(fault.offset, before=tree if gap.start == tree.size else None):
            return tree
        with suppress(DamagedError):
            return await self._read(lambda: self._store.tree_at(gap.end))
        return None

    # --- repair ---------------------------------------------------------------------------------------------------

    async def _repair(self, offset: int, *, before: Tree | None = None) -> bool:
        """Replace what is damaged around ``offset``; whether that was done. ``before`` is the tree over what is whole
        before it, where it is known."""
        gap = await self._read(lambda: self._store.gap_at(offset))
        if gap.start >= gap.end:  # it was taken off the log, never committed
            self._damage.is_whole(offset, offset + 1)
            return True
        try:
            if gap.end > await self._runtime.visible_size("committed"):
                raise PeerError("gap", f"offsets {gap.start} to {gap.end - 1} are not committed yet")
            tree = before if before is not None else await self._read(lambda: self._store.tree_at(gap.start))
        except (DamagedError, PeerError) as exc:
            return self._not_repaired(gap, str(exc))
        try:
            source, appends = await copy_of(
                gap,
                tree,
                config=self._config,
                keyring=self._keyring(),
                fetch=self._fetch,
                accept=lambda after: self._is_followed(after, gap),
            )
        except PeerError as exc:
            return self._not_repaired(gap, str(exc))
        return await self._replace(gap, appends, source)

    def _not_repaired(self, gap: Gap, why: str) -> bool:
        text = f"offsets {gap.start} to {gap.end - 1} are damaged and not repaired yet: {why}"
        self._log.warning("not_repaired", text, offset=gap.start)
        return False

    def _is_followed(self, tree: Tree, gap: Gap) -> bool:
        """Whether what is whole after the gap, on disk or in memory, rests on this tree."""
        if gap.after is None:
            return self._runtime.machine.log.known_root(gap.end) == tree.root()
        after = tree.copy()
        after.append(leaf_hashes(decode_records(gap.after.body).leaves))
        return after.root() == gap.after.root

    async def _replace(self, gap: Gap, appends: Sequence[Append], source: str) -> bool:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def call() -> object:
            try:
                self._store.replace(gap, appends)
            except DamagedError as exc:  # not only what is in the file, but the file itself
                return exc
            return None

        def tell(result: object) -> None:
            if not done.cancelled():  # the node stops
                done.set_result(result)

        self._runtime.disk.write(call, tell)
        result = await done
        if isinstance(result, DamagedError | DiskFullError):
            return self._not_repaired(gap, str(result))
        self._damage.is_whole(gap.start, gap.end)
        text = f"offsets {gap.start} to {gap.end - 1} are whole again, from {source}"
        self._log.warning("repaired", text, offset=gap.start, records=gap.end - gap.start)
        return True

    async def _read(self, call: Callable[[], T]) -> T:
        return cast(T, await self._runtime.disk.read(call))
