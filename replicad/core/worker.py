"""The worker's machine: follow one master, take in what passes the checks, answer only for what is on disk.

Owns the promise, the session with the master and the commit size as far as it is known here. Pure: the runtime
performs the effects, in their written order.

1. A frame of an epoch below the promised one is answered with Refused and changes nothing.
2. Ack(size) only after everything below size is on disk.
3. The commit size is never above what is on disk. It moves, and Ack tells of more than nothing, only once this log is
   known to be the beginning of the master's: after an Align, or a batch of the master's with the root that follows.
4. From then on nothing is dropped from it in that epoch, whatever the master says.
"""

from __future__ import annotations

from collections.abc import Callable

from replicad.core import mandate
from replicad.core.check import check_batch
from replicad.core.effects import (
    Answer,
    BatchesRead,
    Call,
    Confirm,
    Confirmed,
    Effect,
    Event,
    FrameArrived,
    FrameResult,
    HandOver,
    HandOverEnded,
    Hangup,
    Note,
    PeerDown,
    PeerUp,
    PromiseStored,
    Promote,
    ReadBatches,
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
from replicad.core.frames import (
    Ack,
    Align,
    Aligned,
    AppendBatch,
    Fetch,
    Heartbeat,
    Hello,
    Inquiry,
    Refused,
    RootAnswer,
    RootQuery,
    Supply,
    TakeOver,
    Welcome,
)
from replicad.core.keyring import Keyring
from replicad.core.ownlog import OwnLog
from replicad.core.record import Records
from replicad.core.settings import Settings
from replicad.core.start import StoreState
from replicad.errors import PeerError, Unavailable, invariant

_CACHE_BYTES = 0  # a worker feeds nobody


class Worker:
    """A peer is one stream from a master: a new stream is a new peer, and the latest good Hello wins."""

    def __init__(
        self,
        settings: Settings,
        start: StoreState,
        *,
        keyring: Keyring,
        decode: Callable[[bytes], Records],
        detail: str = "no master has called yet",
    ) -> None:
        """``detail`` says why it waits."""
        self.settings = settings
        self.state = State.WAITING
        self.detail = detail
        self.epoch, self.master = start.promised_epoch, start.promised_to
        self.log = OwnLog.restore(start, _CACHE_BYTES)
        self.refused_batches = 0
        self._keyring, self._decode = keyring, decode
        self._session: str | None = None  # the stream of the master that is followed
        self._greeted = False  # Welcome was sent in this session
        self._promised = start.promised_epoch  # on disk
        self._commit_told = 0  # by the master, in this session
        self._probe = 0  # latest that the master sent in this session
        self._align_to: int | None = None  # asked for in this session
        self._agreed_epoch = 0  # in which this log was last known to be the beginning of the master's
        self._truncating = False
        self._unfit = ""  # why it is not to become the master
        self._last_heard = 0.0
        self._now = 0.0
        self._handlers: dict[type, Callable[..., list[Effect]]] = {
            FrameArrived: self._frame,
            Stored: self._stored,
            PeerUp: lambda _: [],
            PeerDown: self._peer_down,
            PromiseStored: self._promise_stored,
            StoreFailed: self._store_failed,
            Truncated: self._truncated,
            BatchesRead: self._batches_read,
            RootRead: self._root_read,
            Tick: self._tick,
            Reconfigured: self._reconfigured,
            Promote: self._promote,
            Unfit: self._set_unfit,
            Submit: lambda event: [Answer(event.ticket, FrameResult(error=self._no_master()))],
            Confirm: lambda event: [Confirmed(event.ticket, self._no_master())],
            HandOver: lambda event: [HandOverEnded(event.ticket, "", self._no_master())],
        }
        self._frames: dict[type, Callable[..., list[Effect]]] = {
            AppendBatch: self._append,
            Heartbeat: self._heartbeat,
            RootQuery: self._root_query,
            Align: self._align,
            Fetch: self._fetch,
            TakeOver: self._take_over,
        }

    def start(self, *, now: float, wall_ms: int) -> list[Effect]:
        """A worker waits to be called."""
        del wall_ms  # a worker stamps nothing
        self._now = now
        return []

    def step(self, event: Event, *, now: float, wall_ms: int) -> list[Effect]:
        """What to do about an event."""
        del wall_ms
        self._now = now
        return self._handlers[type(event)](event)

    def wake_at(self) -> float:
        """When the next :class:`Tick` is due."""
        return self._last_heard + self.settings.unhealthy_s if self._session else float("inf")

    # --- the session -------------------------------------------------------------------------------

    def _frame(self, event: FrameArrived) -> list[Effect]:
        frame = event.frame
        if isinstance(frame, Hello):
            return self._hello(event.peer, frame)
        if isinstance(frame, Inquiry):
            own = mandate.standing(self.settings, self.log, epoch=self.epoch, promised_to=self._bound_to)
            return [Send(event.peer, mandate.answer_inquiry(self.settings, frame, own))]
        handler = self._frames.get(type(frame))
        if event.peer != self._session or not self._greeted or handler is None:
            return []  # of a session that is over
        self._last_heard = self._now
        try:
            return handler(frame)
        except PeerError as exc:
            self.refused_batches += 1
            return self._end_session(exc.reason, str(exc))

    def _hello(self, peer: str, hello: Hello) -> list[Effect]:
        """Promise the epoch, on disk, before the Welcome; or say why not."""
        fault = mandate.hello_fault(self.settings, hello, epoch=self.epoch, promised_to=self.master)
        if fault is not None:
            return self._refuse(peer, hello.master, *fault)
        effects: list[Effect] = []
        if self._session not in (None, peer):
            effects.append(Hangup(self._session or "", "replaced by a newer stream"))
        self._session, self._greeted, self._last_heard = peer, False, self._now
        self._commit_told, self._probe, self._align_to = 0, 0, None
        if (hello.epoch, hello.master) != (self.epoch, self.master):
            self.epoch, self.master = hello.epoch, hello.master
            effects.append(StorePromise(hello.epoch, hello.master))
        return effects + self._greet()

    def _refuse(self, peer: str, master: str, reason: str, text: str) -> list[Effect]:
        note = Note("warning", "refused", f"refused a master: {text}", {"peer": master, "reason": reason})
        return [note, Send(peer, Refused(reason, text, self.epoch, self._bound_to)), Hangup(peer, reason)]

    def _promise_stored(self, event: PromiseStored) -> list[Effect]:
        self._promised = max(self._promised, event.epoch)
        return self._greet()

    def _greet(self) -> list[Effect]:
        """Welcome, once the promise is on disk and so is everything taken in before."""
        busy = self._truncating or self._promised < self.epoch or self.log.stored_size < self.log.tip
        if busy or self._session is None or self._greeted:
            return []
        self._greeted = True
        log = self.log
        welcome = Welcome(self.settings.node, log.last_epoch, log.tip, log.tree.root(), log.commit_size)
        self.state, self.detail = State.FOLLOWING, f"follows {self.master} in epoch {self.epoch}"
        fields: dict[str, object] = {"peer": self.master, "epoch": self.epoch, "size": log.tip}
        return [
            Send(self._session, welcome),
            StateChanged(self.state, self.detail),
            Note("info", "following", self.detail, fields),
        ]

    def _end_session(self, reason: str, text: str) -> list[Effect]:
        """Tell the master why, and wait to be called again. Nothing of what was refused has changed anything."""
        peer, self._session = self._session, None
        if peer is None:
            return []
        self.state, self.detail = State.WAITING, f"ended the stream of {self.master}: {text}"
        return [
            Note("error", "refused", self.detail, {"peer": self.master, "reason": reason, "size": self.log.tip}),
            Send(peer, Refused(reason, text, self.epoch, self._bound_to)),
            Hangup(peer, reason),
            StateChanged(self.state, self.detail),
        ]

    def _peer_down(self, event: PeerDown) -> list[Effect]:
        if event.peer != self._session:
            return []
        self._session = None
        self.state, self.detail = State.WAITING, f"lost {self.master}: {event.reason}"
        note = Note("warning", "lost", self.detail, {"peer": self.master, "epoch": self.epoch})
        return [note, StateChanged(self.state, self.detail)]

    def _tick(self, _: Tick) -> list[Effect]:
        if self._session is None or self._now < self._last_heard + self.settings.unhealthy_s:
            return []
        reason = f"silent for {self._now - self._last_heard:.1f} s"
        return [Hangup(self._session, reason), *self._peer_down(PeerDown(self._session, reason))]

    def _reconfigured(self, event: Reconfigured) -> list[Effect]:
        self.settings, self._keyring = event.settings, event.keyring
        return []

    def _take_over(self, frame: TakeOver) -> list[Effect]:
        """The master wants this node in its place; all that it has is here."""
        if frame.epoch != self.epoch:
            return []
        if self._unfit:
            return self._end_session("unfit", f"{self.settings.node} is not to be the master: {self._unfit}")
        note = Note("info", "takes_over", f"{self.master} hands over", {"peer": self.master, "epoch": frame.epoch})
        return [note, Stand(Call.HANDED_OVER)]

    def _promote(self, event: Promote) -> list[Effect]:
        if self._unfit and not event.forced:
            return [Note("warning", "unfit", f"it is to be the master, but is unfit: {self._unfit}", {})]
        return [Stand(mandate.call_by_operator(forced=event.forced))]

    def _set_unfit(self, event: Unfit) -> list[Effect]:
        self._unfit = event.reason
        return []

    @property
    def _bound_to(self) -> str:
        """To whom it says that it is bound: "" for itself, for it has given way, and follows any higher epoch."""
        return "" if self.master == self.settings.node else self.master

    def _no_master(self) -> Unavailable:
        """For what was asked of this node while it was another machine."""
        return Unavailable(f"{self.settings.node} is a worker now", retry_after_s=0.05)

    # --- the master's questions --------------------------------------------------------------------

    def _root_query(self, query: RootQuery) -> list[Effect]:
        if self._truncating or query.size > self.log.stored_size:
            text = f"the master asks for the root at {query.size}, the log ends at {self.log.stored_size}"
            raise PeerError("size", text)
        self.log.roots_asked += 1
        return [ReadRoot(self._session or "", 0, query.size)]

    def _root_read(self, event: RootRead) -> list[Effect]:
        self.log.roots_asked -= 1
        return [Send(event.peer, RootAnswer(event.size, event.root))] if event.peer == self._session else []

    def _fetch(self, fetch: Fetch) -> list[Effect]:
        log = self.log
        max_bytes = min(fetch.max_bytes, self.settings.read_bytes)
        return [ReadBatches(self._session or "", 0, fetch.from_offset, log.stored_size, max_bytes)]

    def _batches_read(self, event: BatchesRead) -> list[Effect]:
        if event.peer != self._session:
            return []
        return [Send(event.peer, Supply(tuple(event.batches), self.log.stored_size))]

    def _align(self, align: Align) -> list[Effect]:
        """Put aside what the master does not have. A master that asks for what is committed is not to be believed."""
        log = self.log
        busy = self._truncating or log.roots_asked or log.stored_size < log.tip
        if busy or (self._agreed and align.size < log.tip):
            raise PeerError("align", "the master aligns this log a second time, or while it asks or sends other things")
        invariant(
            align.size >= log.commit_size,
            f"master {self.master} of epoch {self.epoch} asks to drop records from {align.size} on, "
            f"but {log.commit_size} are committed here",
        )
        if align.size > log.tip:
            raise PeerError("size", f"the master aligns to {align.size}, the log ends at {log.tip}")
        if align.size == log.tip:
            return self._aligned()
        self._align_to, self._truncating = align.size, True
        reason = f"never committed, and not in the log of {self.master}, master of epoch {self.epoch}"
        return [Truncate(align.size, reason)]

    def _truncated(self, event: Truncated) -> list[Effect]:
        dropped = self.log.tip - event.tree.size
        self.log.reset(event.tree, event.last_epoch, event.epoch_record)
        text = f"put {dropped} records aside that never were committed, from offset {self.log.tip} on"
        effects: list[Effect] = [Note("warning", "quarantined", text, {"size": self.log.tip, "epoch": self.epoch})]
        if self._session is not None and self._align_to == self.log.tip:
            effects += self._aligned()
        self._align_to, self._truncating = None, False
        return effects + self._greet()

    def _aligned(self) -> list[Effect]:
        self._agreed_epoch = self.epoch
        self._told(0)
        return [Send(self._session or "", Aligned(self.log.tip))]

    # --- batches -----------------------------------------------------------------------------------

    def _append(self, frame: AppendBatch) -> list[Effect]:
        batch = frame.batch
        if self._truncating:
            raise PeerError("align", "the master sends records before this log is aligned")
        if batch.epoch > self.epoch:
            raise PeerError("epoch", f"batch of epoch {batch.epoch} in a session of epoch {self.epoch}")
        if batch.epoch == self.epoch and batch.signer != self.master:
            raise PeerError("signer", f"batch of epoch {batch.epoch} is signed by {batch.signer}, not by {self.master}")
        append, tree = check_batch(
            batch,
            tree=self.log.tree,
            last_epoch=self.log.last_epoch,
            cluster=self.settings.cluster,
            keyring=self._keyring,
            decode=self._decode,
        )
        self._agreed_epoch = self.epoch
        self._told(frame.commit_size)
        self.log.appended(append, tree)
        return [StoreBatch(append, self.log.commit_size)]

    def _heartbeat(self, frame: Heartbeat) -> list[Effect]:
        self._probe = max(self._probe, frame.probe)
        self._told(frame.commit_size)
        return [self._ack()]

    def _ack(self) -> Effect:
        return Send(self._session or "", Ack(self.log.stored_size if self._agreed else 0, self._probe))

    @property
    def _agreed(self) -> bool:
        return self._agreed_epoch == self.epoch

    def _told(self, commit_size: int) -> None:
        self._commit_told = max(self._commit_told, commit_size)
        if self._agreed:
            self.log.commit(min(self._commit_told, self.log.stored_size))

    def _stored(self, event: Stored) -> list[Effect]:
        self.log.stored(event.size)
        if self._session is None or not self._greeted:
            return self._greet()
        self._told(0)
        return [self._ack()]

    def _store_failed(self, event: StoreFailed) -> list[Effect]:
        """Nothing more was stored: the log is what is on disk, and the master will send the rest again."""
        self.log.reset(event.tree, event.last_epoch, event.epoch_record)
        if not self._greeted:  # what failed came from an earlier session
            return self._greet()
        return self._end_session(event.reason, event.text)
