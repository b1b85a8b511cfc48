"""A node's disk as the runtime drives it: writes one after the other, batches that wait together in one transaction.

A crash loses what was not synced; of the transaction under way the seed decides. After an append that failed (the disk
is full) every append behind it is dropped until the machine has heard of it. Reads take time and see the store as it is
when they run. Owns what is durable and when. Must not know why something is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.batch import Append, Batch
from replicad.core.effects import (
    BatchesRead,
    Content,
    ContentRead,
    Effect,
    Event,
    FindIds,
    Follow,
    IdsFound,
    Lead,
    PromiseStored,
    ReadBatches,
    ReadContent,
    ReadRoot,
    RootRead,
    Stand,
    StoreBatch,
    Stored,
    StoreFailed,
    StorePromise,
    Truncate,
    Truncated,
)
from replicad.core.record import SALT_BYTES
from replicad.errors import DuplicateIdError
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records

if TYPE_CHECKING:
    from tests.simulation.node import Node

RETRY_S = 0.05  # of a promise or a truncation, on a full disk
_FULL = ("full", "no space left on device")
FULL_ANYWAY = 0.9  # share of appends that fail while the disk is full: a small one may still find room


@dataclass(frozen=True, slots=True)
class CommitWrite:
    """Make a commit size durable, before a reader sees it; then ``done`` with it, or with None: the disk is full."""

    size: int
    done: Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class TurnWrite:
    """What a machine does to the disk that gives way to another: nothing, or the promise that it follows by."""

    effect: Stand | Lead | Follow


Write = StorePromise | StoreBatch | Truncate | CommitWrite | TurnWrite


class Platter:
    """What outlives a process: the store, and the batches in quarantine."""

    def __init__(self) -> None:
        self.store = MemoryStore(decode_records)
        self.quarantine: list[Batch] = []
        self.full_until = 0.0


class Disk:
    """The writer and the readers of one process's life over the platter."""

    def __init__(self, node: Node, *, write_s: float, read_s: float) -> None:
        """``write_s`` and ``read_s`` are mean times."""
        self._world, self._checker, self._node, self._platter = node.world, node.checker, node, node.platter
        self._store = node.platter.store
        self._write_s, self._read_s = write_s, read_s
        self._life = node.life
        self._queue: deque[Write] = deque()
        self._under_way: list[Write] = []  # neither done nor failed yet
        self._failed = False  # an append did, and the machine has not heard of it: no other happens until then
        self._busy = False  # until the machine has heard how the last transaction went

    # --- writing -----------------------------------------------------------------------------------

    def write(self, write: Write) -> None:
        if self._failed and isinstance(write, StoreBatch):
            return
        self._queue.append(write)
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        """Take the next transaction: all batches that wait, or one write of another kind."""
        queue = self._queue
        self._busy = bool(queue)
        if not queue:
            return
        self._under_way = [queue.popleft()]
        if isinstance(self._under_way[0], StoreBatch):
            while queue and isinstance(queue[0], StoreBatch):
                self._under_way.append(queue.popleft())
        self._world.after(self._world.around(self._write_s), self._finish, self._life)

    def _finish(self, life: int) -> None:
        """It is on disk, or has failed; the machine hears of it a moment later."""
        if life != self._node.life:
            return
        appends = [write for write in self._under_way if isinstance(write, StoreBatch)]
        told: Callable[..., None] = self._tell
        result: object
        if self._full():
            told, result = (self._tell_failure, _FULL) if appends else (self._tell_full, self._under_way[0])
        else:
            try:
                result = self._apply()
            except DuplicateIdError as exc:
                told, result = self._tell_failure, ("duplicate", str(exc))
        self._under_way = []
        self._world.after(self._world.around(0.0003), told, life, result)

    def _full(self) -> bool:
        return self._world.now < self._platter.full_until and self._world.chance(FULL_ANYWAY)

    def _apply(self) -> Event | CommitWrite | TurnWrite:
        first = self._under_way[0]
        match first:
            case StorePromise():
                self._store.set_promise(first.epoch, first.master)
                self._checker.promised(self._node, first.epoch, first.master)
                return PromiseStored(first.epoch)
            case Truncate():
                return self._truncate(first.size)
            case CommitWrite():
                self._store.set_commit_size(first.size)
                self._checker.commit_on_disk(self._node, first.size)
                return first
            case TurnWrite(Follow(epoch, master)):
                if master and epoch > self._store.load().promised_epoch:
                    self._store.set_promise(epoch, master)
                    self._checker.promised(self._node, epoch, master)
                return first
            case TurnWrite():
                return first
            case StoreBatch():
                return self._append([write for write in self._under_way if isinstance(write, StoreBatch)])

    def _append(self, writes: Sequence[StoreBatch]) -> Stored:
        commit_size = max(write.commit_size for write in writes)
        appends: list[Append] = [write.append for write in writes]
        self._store.append(appends, commit_size=commit_size)
        for append in appends:
            self._checker.appended(self._node, append)
        self._checker.commit_on_disk(self._node, commit_size)
        return Stored(appends[-1].batch.end)

    def _truncate(self, size: int) -> Truncated:
        self._put_aside(size)
        self._store.truncate(size)
        self._node.cutting = True
        self._checker.truncated(self._node, size)
        state = self._store.load()
        return Truncated(state.tree, state.last_epoch, state.epoch_record)

    def _put_aside(self, size: int) -> None:
        self._platter.quarantine += self._store.read(size, max_bytes=1 << 62)

    def _tell(self, life: int, result: Event | CommitWrite | TurnWrite) -> None:
        if life != self._node.life:
            return
        self._begin()
        if isinstance(result, CommitWrite):
            result.done(result.size)
            return
        if isinstance(result, TurnWrite):
            self._node.turn_written(result)
            return
        if isinstance(result, Stored):
            self._node.commit_on_disk = max(self._node.commit_on_disk, self._checker.log_of(self._node).commit_size)
        self._node.happen(result)

    def _tell_failure(self, life: int, why: tuple[str, str]) -> None:
        """Drop the appends behind the one that failed, and those that the machine asks for before it hears of it."""
        if life != self._node.life:
            return
        self._failed = True
        self._queue = deque(write for write in self._queue if not isinstance(write, StoreBatch))
        self._begin()
        state = self._store.load()
        self._node.happen(StoreFailed(*why, state.size, state.last_epoch, state.epoch_record, state.tree))

    def failure_is_heard(self) -> None:
        self._failed = False

    def _tell_full(self, life: int, write: Write) -> None:
        """A promise or a truncation is tried again; a reader of the commit size gives up."""
        if life != self._node.life:
            return
        self._begin()
        if isinstance(write, CommitWrite):
            write.done(None)
        elif isinstance(write, TurnWrite):
            self._node.turn_written(write)  # the promise is made when that master calls
        else:
            self._world.after(RETRY_S, self._try_again, life, self._node.turns, write)

    def _try_again(self, life: int, turns: int, write: Write) -> None:
        if life != self._node.life or turns != self._node.turns or self._node.is_turning:
            return
        overtaken = isinstance(write, StorePromise) and write.epoch != self._node.running.epoch
        if not overtaken:  # by the promise of a higher epoch
            self.write(write)

    def crash(self) -> None:
        """The process is gone. Of the transaction under way it is not known whether it happened."""
        if self._under_way and self._world.chance(0.5) and not self._full():
            with suppress(DuplicateIdError):
                self._apply()
            self._world.log(self._node.name, "the transaction under way did happen:", self._under_way)

    # --- reading -----------------------------------------------------------------------------------

    def read(self, effect: ReadBatches | ReadRoot | FindIds | ReadContent) -> None:
        self._world.after(self._world.around(self._read_s), self._read, self._life, self._node.turns, effect)

    def _read(self, life: int, turns: int, effect: Effect) -> None:
        if life == self._node.life and turns == self._node.turns:
            event = self._look_up(effect)
            self._world.after(self._world.around(self._read_s / 2), self._tell_read, life, turns, event)

    def _tell_read(self, life: int, turns: int, event: Event) -> None:
        if life == self._node.life and turns == self._node.turns:
            self._node.happen(event)

    def _look_up(self, effect: Effect) -> Event:
        store = self._store
        match effect:
            case ReadBatches():
                batches = store.read(effect.from_offset, max_bytes=effect.max_bytes, until_offset=effect.until_offset)
                return BatchesRead(effect.peer, effect.session, batches)
            case ReadRoot():
                return RootRead(effect.peer, effect.session, effect.size, store.root_at(effect.size))
            case FindIds():
                return IdsFound(effect.ticket, store.find_ids(effect.ids))
            case ReadContent():
                return ContentRead(effect.ticket, {offset: self._content(offset) for offset in effect.offsets})
        raise TypeError(f"{type(effect).__name__} is no read")

    def _content(self, offset: int) -> Content:
        batch = self._store.read(offset, max_bytes=1)[0]
        records, index = decode_records(batch.body), offset - batch.first_offset
        return Content(records.leaves[index], records.salts[SALT_BYTES * index : SALT_BYTES * (index + 1)])
