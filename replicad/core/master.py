"""The master's machine: what it does about each event. Pure: the runtime performs the effects, in their written order.

Owns the epoch, the commit size and the pipeline of batches: messages that arrive while batches are being written
become the next batch (group commit); a batch goes to disk and to the workers at the same time. Admission is in
:mod:`posts`, opening in :mod:`opening`, each worker in :mod:`progress`.

1. Nothing is answered before as many voters as asked for, this one always among them, have it on disk.
2. The commit size is what W voters have on disk, this one among them, once that covers a record of this epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace

from replicad.core import handover, mandate, voterstext
from replicad.core.batch import Append, Batch
from replicad.core.check import check_batch
from replicad.core.confirms import Confirms
from replicad.core.effects import (
    Answer,
    BatchesRead,
    Call,
    Confirm,
    Confirmed,
    ContentRead,
    Effect,
    Event,
    Follow,
    FrameArrived,
    FrameResult,
    HandOver,
    HandOverEnded,
    Hangup,
    IdsFound,
    Note,
    PeerDown,
    PeerUp,
    PromiseStored,
    Promote,
    ReadFailed,
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
    Truncated,
    Unfit,
)
from replicad.core.frames import (
    Ack,
    Aligned,
    Hello,
    Inquiry,
    MasterFrame,
    Refused,
    RootAnswer,
    Supply,
    TakeOver,
    Welcome,
    WorkerFrame,
)
from replicad.core.handover import Handover
from replicad.core.keyring import Keyring
from replicad.core.opening import Opening
from replicad.core.ownlog import OwnLog
from replicad.core.posts import Posts
from replicad.core.progress import Health, Phase, Progress
from replicad.core.record import Messages, Records, epoch_record_id
from replicad.core.seal import Part, Sealer
from replicad.core.settings import Settings
from replicad.core.start import StoreState
from replicad.core.tree import Tree
from replicad.core.voters import MAX_STANDING, EpochLists, VoterList, commit_quorum
from replicad.errors import OutcomeUnknown, PeerError, ServiceError, StorageFull, Unavailable, invariant

INSISTENCE = 3  # epochs of others that an appointed master goes beyond: two of them must not duel for ever
_FULL = "the master's disk is full; posts are taken again when there is room"


class Master:
    """1. ``unstored`` holds the batches appended and not yet on disk, in order."""

    def __init__(
        self,
        settings: Settings,
        start: StoreState,
        *,
        sealer: Sealer,
        keyring: Keyring,
        decode: Callable[[bytes], Records],
        above_epoch: int = 0,
        insists: bool = True,
        forced: bool = False,
    ) -> None:
        """Its epoch is above every one that this node has promised, and ``above_epoch``. ``insists``: not to give way,
        before it has begun, to another that a voter has promised a higher one, but to take one higher still.
        ``forced``: an operator accepts that data is lost."""
        self.settings = settings
        self.state = State.OPENING
        self.detail = "starting"
        self.epoch = max(start.promised_epoch, above_epoch)
        self.log = OwnLog.restore(start, settings.cache_bytes)
        self.posts = Posts(
            next_offset=start.tree.size,
            recent_ids=settings.recent_ids,
            greatest_id=start.greatest_id,
            waiting_frames=settings.waiting_frames,
        )
        self.workers = {name: Progress(name, settings.window_bytes, settings.read_bytes) for name in settings.workers}
        self._voting = [worker for worker in self.workers.values() if worker.name not in settings.non_voters]
        self._sealer, self._keyring, self._decode = sealer, keyring, decode
        self._opening: Opening | None = None
        self._epoch_promised = False
        self._told_blocked = ""  # in the log
        self._epoch_start = -1  # offset of the epoch's first record, once there is one
        self._unstored: deque[Append] = deque()
        self._retry_store_at = float("inf")
        self._commit_moved_at = float("inf")  # since when a commit size may be untold
        self._confirms = Confirms()
        self._insistence = INSISTENCE if insists else 0
        self._forced = forced
        self._handover: Handover | None = None
        self._now, self._wall_ms = 0.0, 0
        self._handlers: dict[type, Callable[..., list[Effect]]] = {
            Submit: self._submit,
            Stored: self._stored,
            FrameArrived: self._frame,
            Tick: self._tick,
            PeerUp: self._peer_up,
            PeerDown: self._peer_down,
            BatchesRead: self._batches_read,
            RootRead: self._root_read,
            IdsFound: self._ids_found,
            ContentRead: self._content_read,
            ReadFailed: lambda event: self.posts.read_failed(event.ticket, event.text),
            PromiseStored: self._promise_stored,
            StoreFailed: self._store_failed,
            Truncated: self._truncated,
            Confirm: self._confirm,
            Reconfigured: self._reconfigured,
            HandOver: self._hand_over,
            Promote: self._promote,
            Unfit: lambda _: [],  # what is whole is of more use with it than without it
        }

    def start(self, *, now: float, wall_ms: int) -> list[Effect]:
        """Take a new epoch: the first effects of all."""
        self._now, self._wall_ms = now, wall_ms
        return self._take_epoch(max(self.epoch, self.log.last_epoch) + 1)

    def step(self, event: Event, *, now: float, wall_ms: int) -> list[Effect]:
        """What to do about an event. ``now`` is monotonic seconds, ``wall_ms`` what records are stamped with."""
        self._now, self._wall_ms = now, wall_ms
        effects = self._handlers[type(event)](event)
        if self.posts.queued:
            self._build(effects)
        if self.posts.queued and self.state is State.READ_ONLY:  # the disk was asked about it when it had room
            effects += self.posts.refuse_queued(StorageFull(_FULL), tip=self.log.tip)
        if self._handover is not None:
            effects += self._hand_on(self._handover)
        return effects

    def wake_at(self) -> float:
        """When the next :class:`Tick` is due."""
        due = min(self.posts.next_deadline(), self._retry_store_at, self._commit_moved_at + self.settings.announce_s)
        due = min(due, self._confirms.next_deadline(self.settings.unhealthy_s))
        if self._handover is not None:
            due = min(due, self._handover.deadline)
        for worker in self.workers.values():
            if worker.phase is not Phase.DOWN:
                due = min(due, worker.last_sent + self.settings.heartbeat_s)
        return due

    # --- posts -------------------------------------------------------------------------------------

    def _submit(self, event: Submit) -> list[Effect]:
        error = self._refusal()
        if error is not None:
            return [Answer(event.ticket, FrameResult(error=error))]
        return self.posts.submit(event, stored_size=self.log.stored_size) + self._reached()

    def _ids_found(self, event: IdsFound) -> list[Effect]:
        found = self.posts.ids_found(event.ticket, event.offsets, stored_size=self.log.stored_size)
        return found + self._reached()

    def _content_read(self, event: ContentRead) -> list[Effect]:
        read = self.posts.content_read(event.ticket, event.contents, stored_size=self.log.stored_size)
        return read + self._reached()

    def _refusal(self) -> ServiceError | None:
        """Why no post is taken now, or None. Nothing is appended by a post that is refused."""
        if self.state is State.OPEN:
            if self.reachable >= self.settings.min_nodes:
                return None
            return Unavailable(
                f"{self.reachable} of the {self.settings.min_nodes} voters that min_nodes asks for are reachable"
            )
        if self.state is State.READ_ONLY:
            return StorageFull(_FULL)
        if self.state is State.HANDING_OVER:
            return Unavailable(self.detail, retry_after_s=0.02)
        if self.state is State.OPENING:
            return Unavailable(f"the master is opening epoch {self.epoch}: {self.detail}", retry_after_s=0.2)
        return Unavailable(f"this master is deposed: {self.detail}")

    @property
    def reachable(self) -> int:
        """Voters in reach, this one included."""
        return 1 + sum(w.phase is Phase.LEVELLING and w.health is not Health.UNHEALTHY for w in self._voting)

    def _build(self, effects: list[Effect]) -> None:
        """Seal what is queued, as far as the pipeline has room; to disk and to the workers at the same time."""
        settings = self.settings
        while self.posts.queued and len(self._unstored) < settings.unstored_batches and self.state is State.OPEN:
            parts = self.posts.take(max_bytes=settings.batch_bytes, max_records=settings.batch_records)
            effects += self._append(parts)

    def _append(self, parts: list[Part], lists: EpochLists | None = None) -> list[Effect]:
        log = self.log
        append = self._sealer.seal(parts, tree=log.tree, epoch=self.epoch, time_ms=self._wall_ms)
        if lists is not None:
            append = replace(append, lists=lists)
        log.appended(append, log.tree)
        self._unstored.append(append)
        effects: list[Effect] = [StoreBatch(append, log.commit_size)]
        self._commit_moved_at = float("inf")  # this batch tells, or one before it that a worker is yet to be sent
        for worker in self.workers.values():
            effects += worker.feed(log)
        return effects

    # --- disk and commit ---------------------------------------------------------------------------

    def _stored(self, event: Stored) -> list[Effect]:
        self.log.stored(event.size)
        while self._unstored and self._unstored[0].batch.end <= event.size:
            self._unstored.popleft()
        effects: list[Effect] = []
        if self._opening is not None:
            effects += self._opening.stored(self.log) + self._maybe_begin()
        if self.state is State.READ_ONLY and not self._unstored:
            self._retry_store_at = float("inf")
            effects += self._change(State.OPEN, f"epoch {self.epoch}; there is room on the disk again")
        effects += self.posts.stored(event.size) + self._advance()
        for worker in self.workers.values():
            effects += worker.feed(self.log)
        return effects

    def _sizes(self) -> list[int]:
        """The size that 1, 2, ... V voters have on disk, this one always counted among them."""
        stored = self.log.stored_size
        acked = sorted((w.acked_size for w in self._voting), reverse=True)
        return [stored, *(min(stored, size) for size in acked)]

    def nodes_with(self, size: int) -> int:
        """How many voters are known to have the log up to ``size`` on disk."""
        return sum(each >= size for each in self._sizes())

    def _advance(self) -> list[Effect]:
        """Move the commit size, and answer whom that or any other progress serves."""
        if self._opening is not None:
            return self._try_open(self._opening)
        sizes = self._sizes()
        size = sizes[self.settings.commit_quorum - 1]
        if size > self.log.commit_size:
            self._commit(size)
        return self.posts.reached(sizes)

    def _try_open(self, opening: Opening) -> list[Effect]:
        """Open for posts when the epoch's first record is on a commit quorum of every list that may be in force."""
        if self._epoch_start < 0 or self.state is not State.OPENING:
            return []
        have = {w.name for w in self.workers.values() if w.acked_size > self._epoch_start}
        if self.log.stored_size > self._epoch_start:
            have.add(self.settings.node)
        lists = sorted(opening.lists, key=self.settings.voter_list.__ne__)
        lacking = [each for each in lists if len(have.intersection(each)) < commit_quorum(len(each))]
        if lacking:
            return self._wait_for(lacking, "store", have)
        if self.settings.node not in have:
            return []
        self._opening = None
        self._commit(self._sizes()[self.settings.commit_quorum - 1])
        return [*self._change(State.OPEN, f"epoch {self.epoch}"), *self._reached()]

    def _commit(self, size: int) -> None:
        self.log.commit(size)
        self._commit_moved_at = min(self._commit_moved_at, self._now)

    def _wait_for(self, lacking: list[VoterList], what: voterstext.Need, have: Collection[str]) -> list[Effect]:
        """Say for whom this opening waits; in the log, too, when the config makes that a wait without end."""
        if not lacking:
            return []
        settings = self.settings
        nodes = {settings.node, *settings.workers}
        self.detail, blocked = voterstext.shortfall(
            lacking, what, have=have, nodes=nodes, configured=settings.voter_list, epoch=self.epoch, forced=self._forced
        )
        return self._tell_blocked(blocked)

    def _tell_blocked(self, blocked: str) -> list[Effect]:
        if not blocked or blocked == self._told_blocked:
            return []
        self._told_blocked = blocked
        return [Note("error", "voters", blocked, {"epoch": self.epoch})]

    def _reached(self) -> list[Effect]:
        return self.posts.reached(self._sizes())

    def _store_failed(self, event: StoreFailed) -> list[Effect]:
        """The disk is full: keep what is sealed (workers may have it), give back what is not, and try again."""
        invariant(event.reason == "full", f"this master's own batch was not stored: {event.text}")
        if self._opening is not None and self._epoch_start < 0:
            # Only a tail that was fetched; it can be again. Nor is it the one to keep others from becoming the master.
            self._insistence = 0
            self.log.reset(event.tree, event.last_epoch, event.epoch_record)
            return self._opening.interrupted("full") or self._opening.resume(self.log) + self._maybe_begin()
        self._retry_store_at = self._now + self.settings.retry_store_s
        if self.state is State.READ_ONLY:
            return []
        if self.state is State.OPENING:
            self.detail = f"epoch {self.epoch} waits for room on this node's disk: {event.text}"
            return [Note("error", "no_room", self.detail, {"epoch": self.epoch})]
        effects = self.posts.refuse_queued(StorageFull(_FULL), tip=self.log.tip)
        if self._handover is not None:  # the other waits for what is not on this disk
            effects += self._go_on(self._handover, event.text, State.READ_ONLY)
        elif self.state is State.OPEN:
            effects += self._change(State.READ_ONLY, event.text)
        return effects + self._reached()

    def _retry_store(self) -> list[Effect]:
        self._retry_store_at = float("inf")
        return [StoreBatch(append, self.log.commit_size) for append in self._unstored]

    # --- opening -----------------------------------------------------------------------------------

    def _take_epoch(self, epoch: int) -> list[Effect]:
        self.epoch, self._epoch_promised = epoch, False
        self._opening = Opening(
            node=self.settings.node,
            configured=self.settings.voter_list,
            fetch_bytes=self.settings.read_bytes,
            check=self._check,
            truncating=self._opening is not None and self._opening.truncating,
            forced=self._forced,
        )
        self.detail = voterstext.waiting(self.settings.voter_list, forced=self._forced)
        return [StorePromise(epoch, self.settings.node)]

    def _promote(self, event: Promote) -> list[Effect]:
        """It is the master, or is about to be; an operator may see that it can't be without data being lost."""
        if self._opening is None or self._epoch_start >= 0 or not event.forced:
            return []
        self._forced = True
        return self._opening.force(self.log) + self._maybe_begin()

    def _check(self, batch: Batch, tree: Tree, last_epoch: int) -> tuple[Append, Tree]:
        checked = check_batch(
            batch,
            tree=tree,
            last_epoch=last_epoch,
            cluster=self.settings.cluster,
            keyring=self._keyring,
            decode=self._decode,
        )
        if batch.epoch >= self.epoch:
            raise PeerError("epoch", f"a batch of epoch {batch.epoch} in the tail for epoch {self.epoch} to begin on")
        return checked

    def _promise_stored(self, event: PromiseStored) -> list[Effect]:
        if event.epoch != self.epoch or self._opening is None:
            return []
        self._epoch_promised = True
        greeting = [w for w in self.workers.values() if w.phase is not Phase.DOWN]
        return [self._hello(worker) for worker in greeting] + self._opening.begin(self.log) + self._maybe_begin()

    def _hello(self, worker: Progress) -> Effect:
        return Send(worker.name, Hello(self.settings.cluster, self.settings.node, self.epoch))

    def _truncated(self, event: Truncated) -> list[Effect]:
        self.log.reset(event.tree, event.last_epoch, event.epoch_record)
        self.posts.next_offset = self.log.tip
        return (self._opening.truncated(self.log) if self._opening else []) + self._maybe_begin()

    def _maybe_begin(self) -> list[Effect]:
        """Append the epoch's first record, when the steps before it are done."""
        opening = self._opening
        if opening is None or self._epoch_start >= 0:
            return []
        if not opening.ready:
            return self._await_promises(opening)
        self._epoch_start = self.log.tip
        configured = self.settings.voter_list
        prior = tuple(each for each in opening.lists if each != configured)
        lists = EpochLists(configured, prior, opening.waived)
        payload = lists.encode()
        messages = Messages([epoch_record_id(self.epoch)], [payload], [], len(payload))
        effects = self._append([Part(messages, f"node:{self.settings.node}")], lists)
        self.posts.next_offset = self.log.tip
        for worker in self.workers.values():
            if worker.phase is Phase.HELD:
                effects += worker.begin_search(self.log)
        if opening.waived:
            text = voterstext.waived(opening.waived, size=self._epoch_start, commit_size=self.log.commit_size)
            effects.append(Note("error", "data_loss_accepted", text, {"epoch": self.epoch, "size": self._epoch_start}))
        return effects

    def _await_promises(self, opening: Opening) -> list[Effect]:
        lists = self.log.standing_lists(self.settings.voter_list)
        if opening.is_fetching or len(lists) <= MAX_STANDING:
            lacking = [] if opening.is_fetching else opening.lacking(self.log)
            return self._wait_for(lacking, "promise", opening.promised_by)
        self.detail = voterstext.too_many(lists)
        return self._tell_blocked(self.detail)

    # --- workers -----------------------------------------------------------------------------------

    def _peer_up(self, event: PeerUp) -> list[Effect]:
        worker = self.workers.get(event.peer)
        if worker is None:
            return []  # somebody calls this node: what for, the first frame tells
        if self.state is State.DEPOSED:
            return [Hangup(event.peer, "deposed")]
        if self._opening is not None:
            self._opening.down(event.peer)  # the stream that this one replaces
        worker.up(self._now)
        return [self._hello(worker)] if self._epoch_promised else []

    def _peer_down(self, event: PeerDown) -> list[Effect]:
        worker = self.workers.get(event.peer)
        if worker is None:
            return []
        was_up = worker.phase is not Phase.DOWN
        worker.down(event.reason)
        effects: list[Effect] = []
        if self._opening is not None:
            self._opening.down(event.peer)
            effects += self._opening.resume(self.log) + self._maybe_begin()
        if not was_up:
            return effects
        return [*effects, Note("warning", "lost", f"lost {event.peer}: {event.reason}", {"peer": event.peer})]

    def _frame(self, event: FrameArrived) -> list[Effect]:
        worker, frame = self.workers.get(event.peer), event.frame
        if worker is None:
            return self._called(event.peer, frame)  # type: ignore[arg-type]
        if worker.phase is Phase.DOWN or self.state is State.DEPOSED:
            return []
        worker.heard(self._now)
        if isinstance(frame, Ack):
            return self._ack(worker, frame)
        return self._answer(worker, frame)  # type: ignore[arg-type]

    def _ack(self, worker: Progress, ack: Ack) -> list[Effect]:
        moved = worker.acknowledged(ack.size, ack.probe)
        effects = worker.feed(self.log)
        if moved:
            effects += self._advance()
        return effects + self._confirmed()

    def _answer(self, worker: Progress, frame: WorkerFrame) -> list[Effect]:
        """A worker's answer in one of the phases before LEVELLING."""
        match frame:
            case Welcome():
                effects = self._welcome(worker, frame)
            case Refused():
                effects = self._refused(worker, frame)
            case RootAnswer():
                effects = self._root_arrived(worker, frame)
            case Supply() if self._opening is not None and self._opening.source == worker.name:
                effects = self._opening.supply(frame, self.log)
                for effect in effects:
                    if isinstance(effect, StoreBatch):
                        self.posts.ids.came_in(effect.append.ids)
            case Aligned() if worker.phase is Phase.ALIGNING and frame.size == worker.next_offset:
                effects = worker.aligned(frame.size, self.log) + self._advance()
            case _:
                effects = []  # of a phase that is over
        return effects

    def _root_arrived(self, worker: Progress, frame: RootAnswer) -> list[Effect]:
        opening = self._opening
        if opening is not None and opening.source == worker.name:
            return opening.peer_root_arrived(frame.size, frame.root, self.log) + self._maybe_begin()
        return worker.peer_root_arrived(frame.size, frame.root, self.log) + self._advance()

    def _welcome(self, worker: Progress, welcome: Welcome) -> list[Effect]:
        if worker.phase is not Phase.GREETING or not self._epoch_promised:
            return []
        if welcome.node != worker.name:
            worker.detail = f"{welcome.node} answers at the address of {worker.name}: see nodes in the config"
            return [Note("error", "misplaced", worker.detail, {"peer": worker.name}), Hangup(worker.name, "misplaced")]
        worker.welcome, worker.phase = welcome, Phase.HELD
        if self._epoch_start >= 0:
            return worker.begin_search(self.log) + self._advance()
        if self._opening is None:
            return []
        return self._opening.welcome(worker.session, welcome, self.log) + self._maybe_begin()

    def _refused(self, worker: Progress, frame: Refused) -> list[Effect]:
        worker.detail = frame.text
        fields: dict[str, object] = {"peer": worker.name, "reason": frame.reason}
        effects: list[Effect] = [Note("warning", "refused", f"{worker.name} refuses: {frame.text}", fields)]
        if frame.reason == "epoch" and frame.promised_epoch >= self.epoch:
            return effects + self._outdated(frame.promised_epoch, frame.promised_to, worker.name)
        if self._handover is not None and self._handover.to == worker.name and frame.reason != "busy":
            # Not of one that asks to be the master, as it was told to: what was taken now it might not have.
            effects += self._go_on(self._handover, f"{worker.name} refuses: {frame.text}")
        return [*effects, Hangup(worker.name, frame.reason)]

    def _called(self, peer: str, frame: MasterFrame) -> list[Effect]:
        """Another node calls this one, to ask how it stands, or as the master of an epoch of its own."""
        if isinstance(frame, Inquiry):
            leads = self.state in (State.OPEN, State.READ_ONLY)
            own = mandate.standing(
                self.settings, self.log, epoch=self.epoch, promised_to=self.settings.node, leads=leads
            )
            return [Send(peer, mandate.answer_inquiry(self.settings, frame, own))]
        if not isinstance(frame, Hello):
            return []
        fault = mandate.hello_fault(self.settings, frame, epoch=self.epoch, promised_to=self.settings.node)
        if fault is None:
            return [Hangup(peer, "busy"), *self._outdated(frame.epoch, frame.master, frame.master)]
        return [Send(peer, Refused(*fault, self.epoch, self.settings.node)), Hangup(peer, fault[0])]

    def _outdated(self, epoch: int, master: str, voter: str) -> list[Effect]:
        """A voter has promised this epoch to another, or a higher one: take one higher still; or give way."""
        if self._epoch_start < 0:
            gives_way = mandate.gives_way(self.settings.node, self.epoch, to=master, their_epoch=epoch)
            if gives_way and not self._insistence:
                return self._step_down(epoch, master)
            self._insistence -= gives_way
            return self._greet_anew(epoch + 1)
        if epoch > self.epoch and master not in ("", self.settings.node):
            return self._step_down(epoch, master)
        return self._renew(f"{voter} has promised epoch {epoch}, and can't follow in epoch {self.epoch}")

    def _step_down(self, epoch: int, master: str) -> list[Effect]:
        """Be the master no more, for a higher epoch of another."""
        text = f"epoch {epoch}, above this master's {self.epoch}, is promised to {master or 'another'}"
        ended = self._handover.ended(master) if self._handover else None
        return self._leave(State.DEPOSED, text, Follow(epoch, master, text), ended)

    def _renew(self, why: str) -> list[Effect]:
        """Open a higher epoch for a voter that can't follow in this one: it has promised it, or a higher one, to itself
        and given way; or to another that lost the race; or to this very node, in whose name somebody else has called.
        The voters are asked first, so it may turn out that there is another master."""
        text = f"{why}: a higher one is opened"
        error = Unavailable(f"{text}; try again")
        ended = HandOverEnded(self._handover.ticket, "", error) if self._handover else None
        return self._leave(State.OPENING, text, Stand(Call.RESUME), ended)

    def _leave(self, state: State, text: str, turn: Follow | Stand, ended: HandOverEnded | None) -> list[Effect]:
        """Give way to another machine; what posts wait for is not known any more."""
        effects = self.posts.refuse_queued(Unavailable(text), tip=self.log.tip)
        effects += self.posts.abandon(OutcomeUnknown(f"{text}; ask for the outcome of the id"))
        effects += self._confirms.abandon(text)
        effects += [ended] if ended else []
        self._handover = None
        effects += self._change(state, text, level="warning")
        effects += [Hangup(worker.name, state.value) for worker in self.workers.values()]
        return [*effects, turn]

    def _greet_anew(self, epoch: int) -> list[Effect]:
        """Take a higher epoch, on new streams: a Welcome to the lower one, still on its way, is no promise of this."""
        reason = f"epoch {epoch} is taken"
        hangups: list[Effect] = []
        for worker in self.workers.values():
            if worker.phase is not Phase.DOWN:
                worker.down(reason)
                hangups.append(Hangup(worker.name, reason))
        return hangups + self._take_epoch(epoch)

    def _batches_read(self, event: BatchesRead) -> list[Effect]:
        worker = self.workers[event.peer]
        return worker.batches_read(event.batches, self.log) if event.session == worker.session else []

    def _root_read(self, event: RootRead) -> list[Effect]:
        worker, opening = self.workers[event.peer], self._opening
        self.log.roots_asked -= 1
        if event.session != worker.session:
            return []
        if opening is not None and opening.source == event.peer:
            return opening.own_root_read(event.size, event.root, self.log) + self._maybe_begin()
        return worker.own_root_read(event.size, event.root, self.log) + self._advance()

    # --- handing over ------------------------------------------------------------------------------

    def _hand_over(self, event: HandOver) -> list[Effect]:
        """Take no more posts until the other node has all, and then until it is the master, or time is over."""
        if self.state is not State.OPEN:
            error = Unavailable(f"{self.settings.node} is {self.state.value}, not open: {self.detail}")
            return [HandOverEnded(event.ticket, "", error)]
        to = handover.choose(event.to, self._voting, tip=self.log.tip)
        if isinstance(to, ServiceError):
            return [HandOverEnded(event.ticket, "", to)]
        self._handover = Handover(event.ticket, to, event.deadline)
        return self._change(State.HANDING_OVER, f"hands over to {to}")

    def _hand_on(self, ending: Handover) -> list[Effect]:
        """The next step of a handover, after each event."""
        effects: list[Effect] = []
        if self.posts.queued:
            effects += self.posts.refuse_queued(Unavailable(self.detail, retry_after_s=0.02), tip=self.log.tip)
        worker = self.workers[ending.to]
        if ending.asked and worker.phase is Phase.LEVELLING and worker.session != ending.session:
            ending.asked = False  # it follows again: it has not heard of it, or nothing came of it
        lost = not ending.asked and worker.phase is not Phase.LEVELLING
        if lost or self._now >= ending.deadline:
            why = f"{ending.to} is lost: {worker.detail}" if lost else f"{ending.to} {ending.missing}"
            return effects + self._go_on(ending, why)
        if not ending.asked and worker.acked_size == self.log.stored_size == self.log.tip:
            ending.asked, ending.session = True, worker.session
            effects.append(Send(ending.to, TakeOver(self.epoch)))
        return effects

    def _go_on(self, ending: Handover, why: str, state: State = State.OPEN) -> list[Effect]:
        """A handover came to nothing: take posts again, if there is room for them."""
        self._handover = None
        error = Unavailable(f"{why}; {self.settings.node} goes on")
        changed = self._change(state, f"epoch {self.epoch}; {why}", level="warning")
        return [HandOverEnded(ending.ticket, "", error), *changed]

    # --- time --------------------------------------------------------------------------------------

    def _tick(self, _: Tick) -> list[Effect]:
        now, settings = self._now, self.settings
        effects = self.posts.expired(now, self._sizes())
        effects += self._confirms.expired(now, settings.unhealthy_s)
        if now >= self._retry_store_at:
            effects += self._retry_store()
        announce = now >= self._commit_moved_at + settings.announce_s
        if announce:
            self._commit_moved_at = float("inf")
        for worker in self.workers.values():
            if worker.phase is not Phase.DOWN:
                effects += self._watch(worker, announce=announce)
        return effects

    def _watch(self, worker: Progress, *, announce: bool) -> list[Effect]:
        """Heartbeats to one worker, and what its silence means."""
        now, settings = self._now, self.settings
        silent_s = now - worker.last_heard
        if now >= worker.last_heard + settings.unhealthy_s:
            reason = f"silent for {silent_s:.1f} s"
            return [*self._peer_down(PeerDown(worker.name, reason)), Hangup(worker.name, reason)]
        effects: list[Effect] = []
        if silent_s >= settings.suspect_s and worker.health is Health.HEALTHY:
            worker.health = Health.SUSPECTED
            effects.append(Note("warning", "suspected", f"{worker.name} is silent", {"peer": worker.name}))
        levelling = worker.phase is Phase.LEVELLING
        untold = announce and levelling and worker.commit_told < self.log.commit_size
        if untold or now >= worker.last_sent + settings.heartbeat_s:  # as wake_at() adds them up: no tick for nothing
            commit_size = self.log.commit_size if levelling else 0  # it holds for logs that are known to agree
            effects.append(worker.heartbeat(commit_size=commit_size, probe=self._confirms.probe, now=now))
        return effects

    # --- linearizable reads ------------------------------------------------------------------------

    def _confirm(self, event: Confirm) -> list[Effect]:
        """Ask a majority whether this still is the master; whoever answers has promised no other since."""
        if self.state not in (State.OPEN, State.READ_ONLY):
            return [Confirmed(event.ticket, self._refusal())]
        self._confirms.ask(event.ticket, self._now)
        beats = [
            worker.heartbeat(commit_size=self.log.commit_size, probe=self._confirms.probe, now=self._now)
            for worker in self.workers.values()
            if worker.phase is Phase.LEVELLING
        ]
        return beats + self._confirmed()

    def _confirmed(self) -> list[Effect]:
        if not self._confirms:
            return []
        return self._confirms.answered((w.probe_acked for w in self._voting), quorum=self.settings.commit_quorum)

    def _reconfigured(self, event: Reconfigured) -> list[Effect]:
        nodes = (self.settings.workers, self.settings.non_voters)
        invariant((event.settings.workers, event.settings.non_voters) == nodes, "the nodes changed without a restart")
        self.settings, self._keyring = event.settings, event.keyring
        if event.sealer is not None:
            self._sealer = event.sealer  # from the next batch on; what is sealed goes out as it was signed
        self.posts.waiting_frames = event.settings.waiting_frames
        for worker in self.workers.values():
            worker.window_bytes, worker.read_bytes = event.settings.window_bytes, event.settings.read_bytes
        return []

    def _change(self, state: State, detail: str, *, level: str = "info") -> list[Effect]:
        self.state, self.detail = state, detail
        fields: dict[str, object] = {"epoch": self.epoch, "size": self.log.tip, "commit_size": self.log.commit_size}
        return [StateChanged(state, detail), Note(level, state.value, detail, fields)]
