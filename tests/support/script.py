"""One machine on a stage: a test plays the peers, the clients, the clock and the disk, one step at a time.

A script never decides anything: it hands events in, keeps what the machine asks of the disk until the test says
:meth:`Script.disk`, and gives back what came out as lines (:mod:`tests.support.transcript`). The store is the real
in-memory one; every frame goes through the real wire codec.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from replicad.core.batch import Batch
from replicad.core.candidate import Candidate
from replicad.core.effects import (
    BatchesRead,
    Call,
    Confirm,
    Content,
    ContentRead,
    Effect,
    Event,
    FindIds,
    FrameArrived,
    HandOver,
    Hangup,
    IdsFound,
    Note,
    PeerDown,
    PeerUp,
    PromiseStored,
    ReadBatches,
    ReadContent,
    ReadRoot,
    RootRead,
    Send,
    StoreBatch,
    Stored,
    StoreFailed,
    StorePromise,
    Submit,
    Tick,
    Truncate,
    Truncated,
)
from replicad.core.frames import Ack, AppendBatch, Hello, MasterFrame, Standing, Welcome, WorkerFrame
from replicad.core.master import Master
from replicad.core.record import Messages
from replicad.core.settings import Settings
from replicad.core.worker import Worker
from replicad.errors import DuplicateIdError
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import (
    decode_master_frame,
    decode_records,
    decode_worker_frame,
    encode_master_frame,
    encode_worker_frame,
)
from tests.support.builders import CLUSTER, WALL_MS, LogBuilder, keyring, messages, sealer, settings
from tests.support.transcript import show_all

DISK_EFFECTS = (StorePromise, StoreBatch, Truncate, ReadBatches, ReadRoot, FindIds, ReadContent)


def stored(log: LogBuilder, *, commit_size: int = 0, promised: tuple[int, str] | None = None) -> MemoryStore:
    """A store that holds this log; promised is the last record's epoch to its signer unless said otherwise."""
    store = MemoryStore(decode_records)
    if log.appends:
        store.append(log.appends, commit_size=commit_size)
    if promised or log.appends:
        store.set_promise(*(promised or (log.last_epoch, log.appends[-1].batch.signer)))
    return store


def welcome(node: str, log: LogBuilder | None = None, *, commit_size: int = 0) -> Welcome:
    """What a worker with this log says on Hello."""
    log = log or LogBuilder()
    return Welcome(node, log.last_epoch, log.size, log.tree.root(), commit_size)


class Script:
    """1. ``pending`` is what the disk was asked and has not done, in order. 2. ``notes`` is the log, in order."""

    def __init__(self, machine: Master | Worker | Candidate, store: MemoryStore) -> None:
        self.machine, self.store = machine, store
        self.now = 100.0
        self.pending: deque[Effect] = deque()
        self.notes: list[Note] = []
        self.outbox: list[Send | Hangup] = []
        self.full = False  # the disk has no room
        self.dropped: list[tuple[int, int]] = []  # truncated: from, until

    # --- in ----------------------------------------------------------------------------------------

    def start(self) -> list[str]:
        return self._out(self.machine.start(now=self.now, wall_ms=self.wall_ms))

    def feed(self, event: Event) -> list[str]:
        return self._out(self.machine.step(event, now=self.now, wall_ms=self.wall_ms))

    def up(self, peer: str) -> list[str]:
        return self.feed(PeerUp(peer))

    def down(self, peer: str, reason: str = "connection lost") -> list[str]:
        return self.feed(PeerDown(peer, reason))

    def tick(self, seconds: float = 0.0) -> list[str]:
        """Let time pass, then say so."""
        self.now += seconds
        return self.feed(Tick())

    @property
    def wall_ms(self) -> int:
        return WALL_MS + round(1000 * self.now)

    # --- the disk ----------------------------------------------------------------------------------

    def disk(self, count: int | None = None) -> list[str]:
        """The disk does what it was asked up to now, or the first ``count`` of that; what the machine says to it."""
        lines: list[str] = []
        for _ in range(len(self.pending) if count is None else count):
            if self.pending:  # a full disk forgets what was queued
                lines += self.feed(self._perform(self.pending.popleft()))
        return lines

    def settle(self) -> list[str]:
        """The disk does all it is asked, until it is idle."""
        lines: list[str] = []
        while self.pending:
            lines += self.disk()
        return lines

    def _perform(self, effect: Effect) -> Event:
        if isinstance(effect, StoreBatch):
            return self._append(effect)
        if isinstance(effect, StorePromise):
            self.store.set_promise(effect.epoch, effect.master)
            return PromiseStored(effect.epoch)
        if isinstance(effect, Truncate):
            self.dropped.append((effect.size, self.store.load().size))
            tree = self.store.truncate(effect.size)
            state = self.store.load()
            return Truncated(tree, state.last_epoch, state.epoch_record)
        return self._read(effect)

    def _read(self, effect: Effect) -> Event:
        match effect:
            case ReadBatches(peer, session, from_offset, until_offset, max_bytes):
                batches = self.store.read(from_offset, max_bytes=max_bytes, until_offset=until_offset)
                return BatchesRead(peer, session, batches)
            case ReadRoot(peer, session, size):
                return RootRead(peer, session, size, self.store.root_at(size))
            case FindIds(ticket, ids):
                return IdsFound(ticket, self.store.find_ids(ids))
            case ReadContent(ticket, offsets):
                return ContentRead(ticket, {offset: self._content(offset) for offset in offsets})
        raise AssertionError(f"no work for a disk: {effect}")

    def _append(self, effect: StoreBatch) -> Event:
        try:
            if not self.full:
                self.store.append([effect.append], commit_size=effect.commit_size)
                return Stored(effect.append.batch.end)
            reason = "full"
        except DuplicateIdError:
            reason = "duplicate"
        state = self.store.load()
        self.pending = deque(each for each in self.pending if not isinstance(each, StoreBatch))
        return StoreFailed(reason, f"disk says {reason}", state.size, state.last_epoch, state.epoch_record, state.tree)

    def _content(self, offset: int) -> Content:
        (batch,) = self.store.read(offset, max_bytes=1)
        records, at = decode_records(batch.body), offset - batch.first_offset
        return Content(records.leaves[at], records.salts[16 * at : 16 * at + 16])

    # --- out ---------------------------------------------------------------------------------------

    def _out(self, effects: Sequence[Effect]) -> list[str]:
        self.pending += [effect for effect in effects if isinstance(effect, DISK_EFFECTS)]
        self.notes += [effect for effect in effects if isinstance(effect, Note)]
        self.outbox += [effect for effect in effects if isinstance(effect, Send | Hangup)]
        return show_all(effects)

    @property
    def last_sent(self) -> MasterFrame | WorkerFrame:
        return next(effect.frame for effect in reversed(self.outbox) if isinstance(effect, Send))

    @property
    def events_noted(self) -> list[str]:
        return [note.event for note in self.notes]


class MasterScript(Script):
    """The master of a cluster of ``voters`` nodes; the test plays the workers (n2, n3, ... when it is n1)."""

    machine: Master

    def __init__(
        self,
        *,
        node: str = "n1",
        voters: int = 3,
        store: MemoryStore | None = None,
        adjust: Callable[[Settings], Settings] = lambda settings: settings,
        seed: int = 100,
        insists: bool = True,
        forced: bool = False,
        above_epoch: int = 0,
    ) -> None:
        store = store or MemoryStore(decode_records)
        machine = Master(
            adjust(settings(node, voters=voters)),
            store.load(),
            sealer=sealer(node, seed=seed),
            keyring=keyring(),
            decode=decode_records,
            insists=insists,
            forced=forced,
            above_epoch=above_epoch,
        )
        super().__init__(machine, store)
        self._tickets = 0

    def says(self, peer: str, frame: WorkerFrame) -> list[str]:
        """A worker's frame arrives, off the wire."""
        return self.feed(FrameArrived(peer, decode_worker_frame(encode_worker_frame(frame))))

    def post(self, *ids: str, w: int = 1, timeout_s: float = 5.0, payloads: Sequence[bytes] | None = None) -> list[str]:
        """A client posts a frame; frames are numbered from #1 on."""
        return self.submit(messages(*ids, payloads=payloads), w=w, timeout_s=timeout_s)

    def submit(self, batch: Messages, *, w: int = 1, timeout_s: float = 5.0) -> list[str]:
        self._tickets += 1
        return self.feed(Submit(self._tickets, batch, "anonymous", w, self.now + timeout_s))

    def confirm(self, ticket: int) -> list[str]:
        return self.feed(Confirm(ticket))

    def hand_over(self, ticket: int, to: str = "", *, within_s: float = 5.0) -> list[str]:
        return self.feed(HandOver(ticket, to, self.now + within_s))

    def is_called(self, peer: str, frame: MasterFrame) -> list[str]:
        """A frame arrives on a stream that another node has opened."""
        return self.feed(FrameArrived(peer, decode_master_frame(encode_master_frame(frame))))

    def opened(self) -> MasterScript:
        """Take this script through an opening with every worker empty and level: the log is the epoch record."""
        self.start()
        self.disk()
        for peer in self.machine.workers:
            self.up(peer)
            self.says(peer, welcome(peer))
        self.settle()
        for peer in self.machine.workers:
            self.acks(peer, self.machine.log.tip)
        assert self.machine.state.value == "open"
        return self

    def acks(self, peer: str, size: int, *, probe: int = 0) -> list[str]:
        return self.says(peer, Ack(size, probe))


class CandidateScript(Script):
    """A node of ``voters`` that asks to be the master; the test plays the others."""

    machine: Candidate

    def __init__(
        self,
        call: Call,
        *,
        node: str = "n1",
        voters: int = 3,
        store: MemoryStore | None = None,
        adjust: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> None:
        store = store or MemoryStore(decode_records)
        super().__init__(Candidate(adjust(settings(node, voters=voters)), store.load(), call=call), store)

    def hears(
        self,
        node: str,
        epoch: int = 0,
        to: str = "",
        *,
        size: int = 0,
        last_epoch: int = 0,
        leads: bool = False,
        asks: bool = False,
    ) -> list[str]:
        """A node says how it stands."""
        frame = Standing(node, epoch, to, last_epoch, size, leads, asks)
        return self.feed(FrameArrived(node, decode_worker_frame(encode_worker_frame(frame))))

    def is_called(self, peer: str, frame: MasterFrame) -> list[str]:
        """A frame arrives on a stream that another node has opened."""
        return self.feed(FrameArrived(peer, decode_master_frame(encode_master_frame(frame))))


class WorkerScript(Script):
    """A worker in a cluster of ``voters`` nodes; the test plays its masters, a stream each (n1#1, n1#2, ...)."""

    machine: Worker

    def __init__(
        self,
        *,
        node: str = "n2",
        voters: int = 3,
        store: MemoryStore | None = None,
        adjust: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> None:
        store = store or MemoryStore(decode_records)
        machine = Worker(adjust(settings(node, voters=voters)), store.load(), keyring=keyring(), decode=decode_records)
        super().__init__(machine, store)

    def says(self, peer: str, frame: MasterFrame) -> list[str]:
        """A master's frame arrives on the stream ``peer``, off the wire."""
        return self.feed(FrameArrived(peer, decode_master_frame(encode_master_frame(frame))))

    def hello(self, peer: str, epoch: int, *, master: str = "n1", cluster: str = CLUSTER) -> list[str]:
        return self.says(peer, Hello(cluster, master, epoch))

    def following(self, epoch: int = 1) -> WorkerScript:
        """Take this script to where it follows n1 on the stream n1#1."""
        self.up("n1#1")
        self.hello("n1#1", epoch)
        self.settle()
        assert self.machine.state.value == "following"
        return self


def adjusted(**changes: object) -> Callable[[Settings], Settings]:
    """Settings with these fields changed, for ``adjust``."""
    return lambda settings: replace(settings, **changes)  # type: ignore[arg-type]


def opened(*, voters: int = 3, **changes: object) -> MasterScript:
    """A master that is open, with every worker level: the log is the epoch's first record."""
    return MasterScript(voters=voters, adjust=adjusted(**changes)).opened()


def level_with(script: MasterScript, node: str, size: int | None = None, *, commit_size: int = 0) -> Welcome:
    """The Welcome of a worker that has the first ``size`` records of the master's log, or all that are on its disk."""
    state = script.store.load()
    size = state.size if size is None else size
    return Welcome(node, state.last_epoch if size else 0, size, script.store.root_at(size), commit_size)


def master_log(*counts: int, epoch: int = 1, node: str = "n1") -> LogBuilder:
    """A master's log: its epoch's first record, then batches of these counts."""
    log = LogBuilder(node)
    log.add_epoch(epoch)
    for count in counts:
        log.add(count)
    return log


def sends(script: WorkerScript, batch: Batch, *, commit_size: int = 0, peer: str = "n1#1") -> list[str]:
    return script.says(peer, AppendBatch(batch, commit_size))


def following(log: LogBuilder | None = None, *, commit_size: int = 0) -> WorkerScript:
    """A worker that follows n1 in the log's last epoch, or in epoch 1, and has all of this log."""
    script = WorkerScript(store=stored(log, commit_size=commit_size) if log else None)
    return script.following(epoch=log.last_epoch if log else 1)
