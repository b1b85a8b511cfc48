"""A node's log made anew of what is whole in a damaged file, and of what other nodes have.

Owns what goes into the new log, in which order, and that each batch proves. Must not know files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from replicad.config import Config
from replicad.core.batch import Append, Batch
from replicad.core.check import check_batch
from replicad.core.keyring import Keyring
from replicad.core.tree import Tree
from replicad.errors import DamagedError, PeerError, ServiceError
from replicad.repair import Fetch
from replicad.storage.salvage import Salvaged, rebuilding
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records

_GROUP_BYTES = 8 << 20  # of bodies in one transaction


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """1. ``own`` and ``fetched`` are numbers of records, from the old file and from other nodes."""

    node: str
    size: int
    own: int
    fetched: int
    root: bytes


async def rebuild(config: Config, *, keyring: Keyring, fetch: Fetch) -> Rebuilt:
    """Make the log of the config's node anew.

    Raises DamagedError: something is neither whole here nor committed at a node that can be asked; and what
    :func:`replicad.storage.salvage.rebuilding` raises. Then nothing has changed.
    """
    with rebuilding(Path(config.data_dir), cluster=config.cluster, decode_records=decode_records) as (old, store):
        work = _Rebuild(config, keyring, fetch, old, store)
        while work.tree.size < old.size:
            await work.step()
        work.flush()
        return Rebuilt(old.node, work.tree.size, work.own, work.fetched, work.tree.root())


class _Rebuild:
    """1. ``tree`` is over all that was proven, of which ``_waiting`` is not in the new log yet."""

    def __init__(self, config: Config, keyring: Keyring, fetch: Fetch, old: Salvaged, store: SqliteStore) -> None:
        self._config, self._keyring, self._fetch, self._old, self._store = config, keyring, fetch, old, store
        self.tree, self._last_epoch = Tree(), 0
        self.own = self.fetched = 0
        self._waiting: list[Append] = []
        self._waiting_bytes = 0

    async def step(self) -> None:
        """The next batch, from the old file where it proves; else those that another node has."""
        batch = self._old.batch_at(self.tree.size)
        if batch is not None:
            try:
                self._take(batch)
            except PeerError:
                pass  # whole by its checksum, and yet not what follows
            else:
                self.own += batch.count
                return
        await self._ask()

    async def _ask(self) -> None:
        start, end = self.tree.size, self._old.next_after(self.tree.size)
        reasons = []
        for node in self._config.nodes:
            if node.name == self._config.node:
                continue
            try:
                for batch in await self._fetch(node.name, start, end):
                    self._take(batch)
                    self.fetched += batch.count
            except (ServiceError, PeerError) as exc:
                reasons.append(f"{node.name}: {exc}")
            if self.tree.size > start:
                return  # as far as it went; the next step goes on
        why = "; ".join(reasons) or "no node has them committed"
        raise DamagedError(f"offsets {start} to {end - 1} are damaged here, and not to be had elsewhere now: {why}")

    def _take(self, batch: Batch) -> None:
        """Raises PeerError, and has changed nothing then."""
        append, self.tree = check_batch(
            batch,
            tree=self.tree,
            last_epoch=self._last_epoch,
            cluster=self._config.cluster,
            keyring=self._keyring,
            decode=decode_records,
        )
        self._last_epoch = batch.epoch
        self._waiting.append(append)
        self._waiting_bytes += len(batch.body)
        if self._waiting_bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put what waits into the new log."""
        self._store.append(self._waiting, commit_size=0)
        self._waiting, self._waiting_bytes = [], 0
