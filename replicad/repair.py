"""Another node's copy for what is damaged on this one's disk: asked for, and proven; and the log's end before a start.

Owns whose copy is believed: batches that their master signed, that follow the own log where the damage begins and end
where it ends. Must not know how a peer is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from replicad.config import Config
from replicad.core.batch import Append, Batch
from replicad.core.check import check_batch
from replicad.core.keyring import Keyring
from replicad.core.tree import Tree
from replicad.errors import DamagedError, ForgottenError, PeerError, ServiceError
from replicad.logs import Logger
from replicad.storage.interface import StoreState
from replicad.storage.scrub import Gap
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records

#: The committed batches of the named node that hold these offsets. Raises ServiceError, PeerError.
Fetch = Callable[[str, int, int], Awaitable[Sequence[Batch]]]


async def copy_of(
    gap: Gap,
    tree: Tree,
    *,
    config: Config,
    keyring: Keyring,
    fetch: Fetch,
    accept: Callable[[Tree], bool] = lambda _: True,
) -> tuple[str, list[Append]]:
    """What another node has for the gap, and which. ``tree`` is over all records before it; ``accept`` says of the tree
    with the copy whether the own log goes on from there. Raises PeerError, with the reasons of all nodes."""
    reasons = []
    for node in config.nodes:
        if node.name == config.node:
            continue
        try:
            batches = await fetch(node.name, gap.start, gap.end)
            appends, after = await asyncio.to_thread(_proven, batches, gap, tree, config, keyring)
        except (ServiceError, PeerError) as exc:
            reasons.append(f"{node.name}: {exc}")
            continue
        if accept(after):
            return node.name, appends
        reasons.append(f"{node.name}: what it has there is not what the own log goes on from at offset {gap.end}")
    raise PeerError("unrepaired", "; ".join(reasons) or "there is no other node")


def _proven(
    batches: Sequence[Batch], gap: Gap, tree: Tree, config: Config, keyring: Keyring
) -> tuple[list[Append], Tree]:
    """The batches as appends, and the tree after them. Raises PeerError: they are not those of the gap."""
    last_epoch, appends = gap.last_epoch, []
    for batch in batches:
        append, tree = check_batch(
            batch, tree=tree, last_epoch=last_epoch, cluster=config.cluster, keyring=keyring, decode=decode_records
        )
        last_epoch = batch.epoch
        appends.append(append)
    if tree.size != gap.end:
        raise PeerError("gap", f"its committed batches end at offset {tree.size}, not at {gap.end}")
    return appends, tree


def to_rebuild(error: DamagedError) -> DamagedError:
    """The error of a log that can't be opened, with the remedy."""
    if isinstance(error, ForgottenError):
        return error
    return DamagedError(f"{error}; `replicad-cli rebuild` makes the log anew, of what is whole and of what others have")


async def mend_end(
    store: SqliteStore,
    load: Callable[[], Awaitable[StoreState]],
    *,
    config: Config,
    keyring: Keyring,
    fetch: Fetch,
    journal: Logger,
) -> StoreState:
    """The state to start from, as ``load`` reads it from the store.

    Where the log's end is damaged, which is read for it, it is repaired first: a node that does not know its own end
    can neither follow nor lead. Raises DamagedError when that can't be done now.
    """
    mended: set[int] = set()
    while True:
        try:
            return await load()
        except DamagedError as exc:
            if exc.offset is None:
                raise to_rebuild(exc) from exc
            if exc.offset in mended:  # what replaced it is no better
                raise
            fault, offset = exc, exc.offset
        mended.add(offset)
        journal.error("damaged", f"{fault}; the start needs it, so other nodes are asked", offset=offset)
        try:
            gap = await asyncio.to_thread(store.gap_at, offset)
            tree = await asyncio.to_thread(store.tree_at, gap.start)
        except DamagedError as exc:  # of the file's structure
            raise to_rebuild(DamagedError(f"{fault}; {exc}")) from exc
        try:
            source, appends = await copy_of(gap, tree, config=config, keyring=keyring, fetch=fetch)
            await asyncio.to_thread(store.replace, gap, appends)
        except (PeerError, DamagedError) as exc:
            text = f"{fault}; no other node's copy can replace it now: {exc}"
            raise to_rebuild(DamagedError(text, offset=offset)) from exc
        text = f"offsets {gap.start} to {gap.end - 1} are whole again, from {source}"
        journal.warning("repaired", text, offset=gap.start, records=gap.end - gap.start)
