"""The one loop: an event goes to the machine, its effects are performed in their written order.

Owns the machine, the clocks, the timer and the sizes that readers may see. Decides nothing about the log itself. When a
machine says that another one is to take its place, the other begins with what the disk has then.
Must not know gRPC: peers are :class:`Link` objects, posts come with a callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar, cast

from replicad.core.batch import Batch
from replicad.core.candidate import Candidate
from replicad.core.effects import (
    Answer,
    BatchesRead,
    Confirm,
    Confirmed,
    Content,
    ContentRead,
    Effect,
    Event,
    FindIds,
    Follow,
    FrameArrived,
    FrameResult,
    HandOver,
    HandOverEnded,
    Hangup,
    IdsFound,
    Lead,
    Note,
    PeerDown,
    PeerUp,
    PromiseStored,
    Promote,
    ReadBatches,
    ReadContent,
    ReadFailed,
    ReadRoot,
    Reconfigured,
    RootRead,
    Send,
    Stand,
    State,
    StateChanged,
    StoreBatch,
    Stored,
    StoreFailed,
    StorePromise,
    Submit,
    Tick,
    Truncate,
    Truncated,
    Unfit,
)
from replicad.core.frames import MasterFrame, WorkerFrame
from replicad.core.master import Master
from replicad.core.record import SALT_BYTES, Messages, Records
from replicad.core.worker import Worker
from replicad.disk import AppendFailed, Disk, truncate_call
from replicad.errors import DamagedError, DiskFullError, OutcomeUnknown, Unavailable
from replicad.eventloop import TICK_S
from replicad.logs import Logger
from replicad.rates import Bucket
from replicad.storage.interface import Store, StoreState

LEVELS = ("committed", "local", "linearizable")
COMMIT_WAIT_S = 1.0  # of a reader for the newest commit size: a disk that hangs must not hold up reads
CATCH_UP_BURST_S = 0.25  # a read of 1 MiB is more than this of a slow rate, and waited for afterwards
DAMAGE_WAIT_S = 5.0  # of a post that is compared with what is damaged: a repair takes less, where a node can help
RETRY_S = 1.0  # of a promise or a truncation, on a full disk
CONTENT_READ_BYTES = 1  # one batch at a time: duplicates are rare

T = TypeVar("T")

Machine = Master | Worker | Candidate
Turn = Stand | Lead | Follow


def role_of(machine: Machine) -> str:
    """What a node is now, wherever its config had it begin."""
    return "worker" if isinstance(machine, Worker) else "master"


#: What comes from outside, and waits for the next machine; all else is an answer to one that is no more.
_OUTSIDE = (PeerUp, PeerDown, FrameArrived, Submit, Confirm, Promote, HandOver, Reconfigured)


class Link(Protocol):
    """A stream to a peer."""

    def send(self, frame: MasterFrame | WorkerFrame) -> None: ...

    def hang_up(self, reason: str) -> None:
        """End the stream once what was sent has gone out. The machine hears of it by PeerDown."""


class Runtime:
    """1. :meth:`feed` is called on the loop only, and performs all effects of an event before the next event.
    2. ``commit_size`` is what readers may see: it is on disk, so that no restart takes it back.
    3. The next machine begins when all that the one before asked of the disk is done, and hears nothing of it.
    """

    def __init__(
        self,
        machine: Machine,
        store: Store,
        *,
        decode: Callable[[bytes], Records],
        put_aside: Callable[[int, str], None],
        damaged: Callable[[DamagedError], None] = lambda _: None,
        next_machine: Callable[[Turn, StoreState], Machine],
        turned: Callable[[], None],
        log: Logger,
        state_changed: Callable[[State, str], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        """``next_machine`` makes the one that takes this one's place; ``turned`` is called before it starts;
        ``damaged`` hears of what was read and is not what was written."""
        self.machine, self.store = machine, store
        self._next_machine, self._turned = next_machine, turned
        self._held: list[Event] | None = None  # what came from outside while no machine is there
        self._decode, self._put_aside, self._damaged, self._log = decode, put_aside, damaged, log
        self._catch_up: Bucket | None = None
        self._unread_since: dict[int, float] = {}  # by ticket: since when what it asks for is found damaged
        self.unfit = ""  # why this node is not to become the master; "" for no reason
        self._state_changed, self._fatal = state_changed, fatal
        self._loop = asyncio.get_running_loop()
        self.disk = Disk(
            store, loop=self._loop, stored=self._disk_stored, failed=self._disk_failed, fatal=self._stop_for
        )
        self.links: dict[str, Link] = {}
        self.sizes = SizeWatch()
        self._commit_on_disk = machine.log.commit_size
        self._commit_write: asyncio.Future[bool] | None = None
        self._tickets = itertools.count(1)
        self._answers: dict[int, Callable[[FrameResult], None]] = {}
        self._confirms: dict[int, asyncio.Future[None]] = {}
        self._handovers: dict[int, asyncio.Future[str]] = {}
        self._drained: asyncio.Event | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = float("inf")
        self._stopped = False
        self._reads: set[asyncio.Task[None]] = set()  # held, so that they are not collected
        self._perform_by_type: dict[type, Callable[..., None]] = {
            StoreBatch: lambda e: self.disk.append(e.append, commit_size=e.commit_size),
            Send: self._send,
            Answer: self._answer,
            Note: self._note,
            StorePromise: self._store_promise,
            Truncate: self._truncate,
            Hangup: self._hang_up,
            ReadBatches: self._read_batches,
            ReadRoot: self._read_root,
            FindIds: self._find_ids,
            ReadContent: self._read_content,
            Confirmed: self._confirmed,
            HandOverEnded: self._handover_ended,
            StateChanged: self._change_state,
            Stand: self._turn,
            Lead: self._turn,
            Follow: self._turn,
        }

    def start(self) -> None:
        self._perform(self.machine.start(now=self._loop.time(), wall_ms=time.time_ns() // 1_000_000))

    def feed(self, event: Event) -> None:
        """Give the machine an event and perform what it says."""
        if self._stopped:
            return
        if self._held is not None:
            if isinstance(event, _OUTSIDE):
                self._held.append(event)
            return
        try:
            self._perform(self.machine.step(event, now=self._loop.time(), wall_ms=time.time_ns() // 1_000_000))
        except Exception as exc:  # a broken invariant of our own, damage, or another bug: never go on after it
            self._stop_for(exc)

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._perform_by_type[type(effect)](effect)
        self._publish()
        self._set_timer()

    def _stop_for(self, exc: BaseException) -> None:
        self._stopped = True
        self._fatal(exc)

    # --- one machine after the other ------------------------------------------------------------------------------

    def _turn(self, effect: Turn) -> None:
        """Let another machine take this one's place, once the disk has done what it was asked before."""
        self._held = []
        if not isinstance(effect, Lead):  # a candidate's streams are a master's
            for link in self.links.values():
                link.hang_up("this node takes another role")
            self.links.clear()

        def load() -> StoreState:
            state = self.store.load()
            if isinstance(effect, Follow) and effect.master and effect.epoch > state.promised_epoch:
                with contextlib.suppress(DiskFullError):  # then it is promised when that master calls
                    self.store.set_promise(effect.epoch, effect.master)
                    state = self.store.load()
            return state

        self.disk.write(load, lambda state: self._become(effect, cast(StoreState, state)))

    def _become(self, effect: Turn, state: StoreState) -> None:
        if self._stopped:
            return
        try:
            self.machine = self._next_machine(effect, state)
            held, self._held = self._held or [], None
            self._unread_since.clear()
            self._room.set()
            self._turned()
            self.start()
        except Exception as exc:  # as in feed(): without a machine this would be a node that only seems to live
            self._stop_for(exc)
            return
        if self.unfit:
            held.insert(0, Unfit(self.unfit))
        for event in [*(PeerUp(peer) for peer in self.links if isinstance(effect, Lead)), *held]:
            self.feed(event)

    def set_unfit(self, reason: str) -> None:
        """Say why this node is not to become the master; "" when it may again."""
        if reason != self.unfit:
            self.unfit = reason
            self.feed(Unfit(reason))

    def promote(self, *, forced: bool) -> None:
        """An operator wants this node to be the master; ``forced`` accepts that data is lost."""
        self.feed(Promote(forced))

    async def hand_over(self, to: str, timeout_s: float) -> str:
        """Have another node become the master, and return which; ``to`` is "" for the one that has most.

        Raises ServiceError when this one goes on.
        """
        ticket = next(self._tickets)
        future: asyncio.Future[str] = self._loop.create_future()
        self._handovers[ticket] = future
        self.feed(HandOver(ticket, to, self._loop.time() + timeout_s))
        try:
            return await future
        finally:
            self._handovers.pop(ticket, None)

    def _handover_ended(self, effect: HandOverEnded) -> None:
        future = self._handovers.get(effect.ticket)
        if future is None or future.done():
            return
        if effect.error is None:
            future.set_result(effect.to)
        else:
            future.set_exception(effect.error)

    async def wait_until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``reached()``, asked whenever the machine, its state or its log has changed; whether it came."""
        return await self.sizes.wait_until(reached, timeout_s)

    async def close(self) -> None:
        """Perform the writes under way; then nothing more happens."""
        self._stopped = True
        if self._timer:
            self._timer.cancel()
        await self._loop.run_in_executor(None, self.disk.close)

    # --- posts ----------------------------------------------------------------------------------------------------

    def submit(
        self,
        messages: Messages,
        *,
        author: str,
        nodes: int,
        deadline: float,
        answered: Callable[[FrameResult], None],
    ) -> None:
        """Give a frame to the master; ``answered`` is called once with what became of it."""
        ticket = next(self._tickets)
        self._answers[ticket] = answered
        self.feed(Submit(ticket, messages, author, nodes, deadline))

    async def wait_for_room(self, queue_bytes: int) -> None:
        """Wait while more than ``queue_bytes`` are accepted and not yet taken into a batch."""
        while isinstance(self.machine, Master) and self.machine.posts.queue_bytes > queue_bytes:
            self._room.clear()
            await self._room.wait()

    def _answer(self, effect: Answer) -> None:
        answered = self._answers.pop(effect.ticket, None)
        if answered is not None:  # else it was told that this node stops
            answered(effect.result)
        if not self._answers and self._drained is not None:
            self._drained.set()

    async def drain(self, timeout_s: float) -> None:
        """Return when every frame has its answer; after ``timeout_s`` those that still wait are told: unknown."""
        if not self._answers:
            return
        self._drained = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._drained.wait()
        error = OutcomeUnknown("this node has stopped meanwhile; ask for the outcome of the id, or post it again")
        for ticket in list(self._answers):
            self._answer(Answer(ticket, FrameResult(error=error)))

    async def confirm_master(self, timeout_s: float) -> None:
        """Return when a majority has confirmed that this still is the master. Raises Unavailable."""
        ticket = next(self._tickets)
        future = self._confirms[ticket] = self._loop.create_future()
        self.feed(Confirm(ticket))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise Unavailable(f"no majority confirmed within {timeout_s:g} s that this is the master") from None
        finally:
            self._confirms.pop(ticket, None)

    def _confirmed(self, effect: Confirmed) -> None:
        future = self._confirms.get(effect.ticket)
        if future is None or future.done():
            return
        if effect.error is None:
            future.set_result(None)
        else:
            future.set_exception(effect.error)

    # --- readers --------------------------------------------------------------------------------------------------

    async def read(self, call: Callable[[], T]) -> T:
        """Read from the store in a thread. Raises Unavailable where it is damaged: other nodes have it."""
        try:
            return cast(T, await self.disk.read(call))
        except DamagedError as exc:
            raise self.damaged(exc) from exc

    def damaged(self, fault: DamagedError) -> Unavailable:
        """Note what a reader has met; the error that it is told, on which the library asks another node."""
        self._damaged(fault)
        return Unavailable(f"this node's copy is damaged, other nodes have it: {fault}")

    async def visible_size(self, level: str) -> int:
        """How far a reader at this level may read now: ``local`` what is on disk, else what is committed."""
        if level == "local":
            return self.machine.log.stored_size
        await self.commit_to_disk()
        return self._commit_on_disk

    async def commit_to_disk(self) -> None:
        """Return when the commit size known now is on disk (it is shown to nobody before), or the disk is full or slow:
        then readers see what was there before."""
        wanted = self.machine.log.commit_size
        if self._commit_on_disk >= wanted:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMIT_WAIT_S):
                while self._commit_on_disk < wanted:
                    if self._commit_write is None or self._commit_write.done():
                        self._commit_write = self._loop.create_future()
                        self._write_commit(self._commit_write)
                    if not await asyncio.shield(self._commit_write):
                        return

    def _write_commit(self, written: asyncio.Future[bool]) -> None:
        size = self.machine.log.commit_size

        def done(result: object) -> None:
            full = isinstance(result, DiskFullError)
            if not full:
                self._commit_on_disk = max(self._commit_on_disk, size)
            written.set_result(not full)

        self.disk.write(lambda: self.store.set_commit_size(size), done)

    def _change_state(self, effect: StateChanged) -> None:
        self._state_changed(effect.state, effect.detail)
        if effect.state is State.OPEN and self._commit_on_disk < self.machine.log.commit_size:
            # No reader may ask for long, and until this is on disk the next opening asks for the voters before these.
            task = self._loop.create_task(self.commit_to_disk())
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)

    async def wait_for_size(self, level: str, size: int, timeout_s: float) -> bool:
        """Wait until a reader at this level may read ``size`` records; whether that came within the timeout."""

        def reached() -> bool:
            log = self.machine.log  # another one's, perhaps, than when the wait began
            return (log.stored_size if level == "local" else log.commit_size) >= size

        return await self.sizes.wait_until(reached, timeout_s)

    def _publish(self) -> None:
        machine = self.machine
        self.sizes.publish(machine.log.stored_size, machine.log.commit_size, machine.state)
        if not self._room.is_set() and isinstance(machine, Master):
            self._room.set()

    # --- time -----------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Wake for the machine's next tick; an earlier timer that is set already only finds nothing to do."""
        due = self.machine.wake_at()
        if self._timer_due <= due or self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due  # kept here: not every loop's handle can tell
        self._timer = self._loop.call_at(max(due, self._loop.time() + TICK_S), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_due = None, float("inf")
        try:
            early = self.machine.wake_at() > self._loop.time()
            if early:
                self._set_timer()
        except Exception as exc:  # as in feed()
            self._stop_for(exc)
            return
        if not early:
            self.feed(Tick())

    # --- peers ----------------------------------------------------------------------------------------------------

    def peer_up(self, peer: str, link: Link) -> None:
        self.links[peer] = link
        self.feed(PeerUp(peer))

    def peer_down(self, peer: str, link: Link, reason: str) -> None:
        if self.links.get(peer) is link:
            del self.links[peer]
            self.feed(PeerDown(peer, reason))

    def peer_unreachable(self, peer: str, reason: str) -> None:
        """It was dialled, and no stream came of it."""
        if peer not in self.links:
            self.feed(PeerDown(peer, reason))

    def frame_arrived(self, peer: str, link: Link, frame: MasterFrame | WorkerFrame) -> None:
        if self.links.get(peer) is link:  # else of a stream that was replaced
            self.feed(FrameArrived(peer, frame))

    def _send(self, effect: Send) -> None:
        link = self.links.get(effect.peer)
        if link is not None:
            link.send(effect.frame)

    def _hang_up(self, effect: Hangup) -> None:
        link = self.links.get(effect.peer)
        if link is not None:
            link.hang_up(effect.reason)

    def _note(self, effect: Note) -> None:
        getattr(self._log, effect.level)(effect.event, effect.text, **effect.fields)

    # --- disk -----------------------------------------------------------------------------------------------------

    def _disk_stored(self, size: int, commit_size: int) -> None:
        self._commit_on_disk = max(self._commit_on_disk, commit_size)
        self.feed(Stored(size))

    def _disk_failed(self, failure: AppendFailed) -> None:
        state = failure.state
        self.feed(
            StoreFailed(failure.reason, failure.text, state.size, state.last_epoch, state.epoch_record, state.tree)
        )

    def _store_promise(self, effect: StorePromise) -> None:
        machine = self.machine

        def done(result: object) -> None:
            if not isinstance(result, DiskFullError):
                self.feed(PromiseStored(effect.epoch))
            elif self._is_at_work(machine):  # nobody is answered meanwhile
                self._loop.call_later(RETRY_S, again)

        def again() -> None:
            if effect.epoch == machine.epoch:  # no higher promise was made meanwhile
                self._again(machine, self._store_promise, effect)

        self.disk.write(lambda: self.store.set_promise(effect.epoch, effect.master), done)

    def _truncate(self, effect: Truncate) -> None:
        machine = self.machine
        call = truncate_call(self.store, lambda size: self._put_aside(size, effect.reason), effect.size)

        def done(result: object) -> None:
            if isinstance(result, DiskFullError):  # the peer waits, or gives up and comes back
                self._loop.call_later(RETRY_S, self._again, machine, self._truncate, effect)
                return
            _, state = cast("tuple[object, StoreState]", result)
            self.feed(Truncated(state.tree, state.last_epoch, state.epoch_record))

        self.disk.write(lambda: (call(), self.store.load()), done)

    def _again(self, machine: Machine, perform: Callable[..., None], effect: Effect) -> None:
        if self._is_at_work(machine):
            perform(effect)

    def _is_at_work(self, machine: Machine) -> bool:
        """Whether no other machine has taken its place, nor is about to."""
        return self.machine is machine and self._held is None

    def _read(self, effect: ReadBatches | ReadRoot | FindIds | ReadContent, call: Callable[[], Event]) -> None:
        """Read in a thread, and feed what comes of it. A read that fails otherwise than by damage is a bug: the node
        stops."""

        machine = self.machine

        async def run(reading: Awaitable[object]) -> None:
            try:
                event = cast(Event, await reading)
                if isinstance(effect, FindIds | ReadContent):
                    self._unread_since.pop(effect.ticket, None)
                if self._catch_up is not None and isinstance(event, BatchesRead):
                    self._catch_up.take(sum(len(batch.body) for batch in event.batches))
                if self._is_at_work(machine):
                    self.feed(event)
            except asyncio.CancelledError:
                raise
            except DamagedError as exc:
                self._damaged(exc)
                self._read_again(machine, effect, exc)
            except Exception as exc:
                if self._is_at_work(machine):
                    self._stop_for(exc)

        task = self._loop.create_task(run(self.disk.read(call)))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    def _read_again(
        self, machine: Machine, effect: ReadBatches | ReadRoot | FindIds | ReadContent, fault: DamagedError
    ) -> None:
        """Read again what is damaged, until it is repaired: while a stream's peer is there, for a post not long."""
        now = self._loop.time()
        if isinstance(effect, ReadBatches | ReadRoot):
            link = self.links.get(effect.peer)
            if link is not None and isinstance(machine, Worker):  # who is to be the master may have it of another node
                link.hang_up(str(fault))
            self._later(RETRY_S, effect)
            return
        since = self._unread_since.setdefault(effect.ticket, now)
        if now < since + DAMAGE_WAIT_S:
            self._loop.call_later(RETRY_S, self._again, machine, self._perform_by_type[type(effect)], effect)
            return
        del self._unread_since[effect.ticket]
        if self._is_at_work(machine):
            self.feed(ReadFailed(effect.ticket, f"{fault}; ask for the outcome of the id, at another node"))

    def set_catch_up_rate(self, rate: int) -> None:
        """Bytes a second that are read for workers that lag; 0: no limit."""
        self._catch_up = Bucket(rate, CATCH_UP_BURST_S, self._loop.time()) if rate else None

    def _read_batches(self, effect: ReadBatches) -> None:
        bucket = self._catch_up if isinstance(self.machine, Master) else None
        if bucket is not None and (wait_s := bucket.wait_s(1, self._loop.time())):
            self._later(wait_s, effect)
            return

        def call() -> Event:
            batches = self.store.read(effect.from_offset, max_bytes=effect.max_bytes, until_offset=effect.until_offset)
            return BatchesRead(effect.peer, effect.session, batches)

        self._read(effect, call)

    def _later(self, wait_s: float, effect: ReadBatches | ReadRoot) -> None:
        """Read for a stream in a while, if it is there still."""
        machine, link = self.machine, self.links.get(effect.peer)

        def again() -> None:
            if link is not None and self.links.get(effect.peer) is link:
                self._again(machine, self._perform_by_type[type(effect)], effect)
            elif isinstance(effect, ReadRoot) and self._is_at_work(machine):  # it counts those that are on their way
                self.feed(RootRead(effect.peer, effect.session, effect.size, b""))

        self._loop.call_later(wait_s, again)

    def _read_root(self, effect: ReadRoot) -> None:
        self._read(effect, lambda: RootRead(effect.peer, effect.session, effect.size, self.store.root_at(effect.size)))

    def _find_ids(self, effect: FindIds) -> None:
        self._read(effect, lambda: IdsFound(effect.ticket, self.store.find_ids(effect.ids)))

    def _read_content(self, effect: ReadContent) -> None:
        def call() -> Event:
            return ContentRead(effect.ticket, read_contents(self.store, effect.offsets, self._decode))

        self._read(effect, call)


def read_contents(store: Store, offsets: Sequence[int], decode: Callable[[bytes], Records]) -> dict[int, Content]:
    """Leaf and salt of each record at ``offsets`` (ascending), reading every batch once."""
    contents: dict[int, Content] = {}
    batch: Batch | None = None
    records = Records((), b"", (), ())
    for offset in offsets:
        if batch is None or offset >= batch.end:
            found = store.read(offset, max_bytes=CONTENT_READ_BYTES)
            if not found:
                raise DamagedError(f"no batch holds offset {offset}", offset=offset)
            batch = found[0]
            records = decode(batch.body)
        index = offset - batch.first_offset
        salt = records.salts[SALT_BYTES * index : SALT_BYTES * (index + 1)]
        contents[offset] = Content(records.leaves[index], salt)
    return contents


class SizeWatch:
    """Those who wait for the log to grow, or the state to change; a look at them costs nothing when neither has."""

    def __init__(self) -> None:
        self._sizes: tuple[int, int, State | None] = (-1, -1, None)
        self._changed: asyncio.Future[None] | None = None

    def publish(self, stored_size: int, commit_size: int, state: State) -> None:
        if (stored_size, commit_size, state) == self._sizes:
            return
        self._sizes = (stored_size, commit_size, state)
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    async def wait_until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not reached():
            if self._changed is None:
                self._changed = loop.create_future()
            left = deadline - loop.time()
            if left <= 0:
                return False
            await asyncio.wait([self._changed], timeout=left)
        return True
