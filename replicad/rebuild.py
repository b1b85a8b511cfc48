"""A node's log made anew of what is whole in a damaged file, and of what other nodes have.

Owns what goes into the new log, in which order, and that each batch proves. Must not know files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from replicad.config import Config
from replicad.core.batch import Append, Batch
from replicad.core.check import check_batch
from replicad.core.keyring import Keyring
from replicad.core.tree import Tree
from replicad.errors import DamagedError, PeerError, ServiceError
from replicad.repair import Fetch
from replicad.storage.reader import NO_END
from replicad.storage.salvage import Salvaged, rebuilding
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records

#: How many records the log has, of which any node may have acknowledged something, by the named node, if that is the
#: master. Raises ServiceError, PeerError.
End = Callable[[str], Awaitable[int]]

_GROUP_BYTES = 8 << 20  # of bodies in one transaction


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """1. ``own`` and ``fetched`` are numbers of records, from the old file and from other nodes."""

    node: str
    size: int
    own: int
    fetched: int
    root: bytes


async def rebuild(config: Config, *, keyring: Keyring, fetch: Fetch, end: End) -> Rebuilt:
    """Make the log of the config's node anew. ``end`` is asked for where the file does not tell where its log ended.

    Raises DamagedError: something is neither whole here nor committed at a node that can be asked; and what
    :func:`replicad.storage.salvage.rebuilding` raises. Then nothing has changed.
    """
    with rebuilding(Path(config.data_dir), cluster=config.cluster, node=config.node, decode_records=decode_records) as (
        old,
        store,
    ):
        work = _Rebuild(config, keyring, fetch, old, store)
        size = await _end_of(config, end, old) if old.size is None else old.size
        while work.tree.size < size:
            await work.step(size)
        work.go_on()
        work.flush()
        return Rebuilt(old.node, work.tree.size, work.own, work.fetched, work.tree.root())


async def _end_of(config: Config, end: End, old: Salvaged) -> int:
    """Where the log has to go to at the least: this node has acknowledged nothing to a majority that the master had not
    when it was asked, for it is not running."""
    reasons = []
    for name in _others(config):
        try:
            return max(await end(name), old.commit_size)
        except (ServiceError, PeerError) as exc:
            reasons.append(f"{name}: {exc}")
    raise DamagedError(
        f"where the log ended can't be read here ({old.why}), and no master tells now: start the other nodes, and "
        f"promote one of them if this was the master; {'; '.join(reasons)}"
    )


def _others(config: Config) -> list[str]:
    return [node.name for node in config.nodes if node.name != config.node]


class _Rebuild:
    """1. ``tree`` is over all that was proven, of which ``_waiting`` is not in the new log yet."""

    def __init__(self, config: Config, keyring: Keyring, fetch: Fetch, old: Salvaged, store: SqliteStore) -> None:
        self._config, self._keyring, self._fetch, self._old, self._store = config, keyring, fetch, old, store
        self.tree, self._last_epoch = Tree(), 0
        self.own = self.fetched = 0
        self._alone = False  # the others have nothing more
        self._waiting: list[Append] = []
        self._waiting_bytes = 0

    async def step(self, size: int) -> None:
        """The next batches. Up to where this node knew of a majority, its own are as good as any. Beyond, what others
        have committed comes first: its own may be a tail that the cluster went on without."""
        start, commit_size = self.tree.size, self._old.commit_size
        mine = start < commit_size
        if mine and self._take_own():
            return
        reasons: list[str] = []
        if not self._alone:
            end = self._old.next_after(start)
            await self._ask(start, end if mine and end <= commit_size else NO_END, reasons)
            if self.tree.size > start:
                return  # as far as it went; the next step goes on
        if not mine:
            self._alone = True  # nobody has committed what follows
            if self._take_own():
                return
        why = "; ".join(reasons) or "no node has them committed"
        raise DamagedError(f"offsets {start} to {size - 1} are damaged here, and not to be had elsewhere now: {why}")

    async def _ask(self, start: int, end: int, reasons: list[str]) -> None:
        """Take what the first node has that has any; ``reasons`` gets why others have none."""
        for name in _others(self._config):
            try:
                for batch in await self._fetch(name, start, end):
                    self._take(batch)
                    self.fetched += batch.count
            except (ServiceError, PeerError) as exc:
                reasons.append(f"{name}: {exc}")
            if self.tree.size > start:
                return

    def go_on(self) -> None:
        """All that follows in the old file: this node alone may have it."""
        while self._take_own():
            pass

    def _take_own(self) -> bool:
        batch = self._old.batch_at(self.tree.size)
        if batch is None:
            return False
        try:
            self._take(batch)
        except PeerError:  # whole by its checksum, and yet not what follows
            return False
        self.own += batch.count
        return True

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
