"""A node as the runtime would run it: one machine, its disk, its streams; an event goes in, the effects are performed.

Owns the life of a process: start, step, stand still, crash. Must not decide anything that a machine decides. What it
does is what replicad/runtime.py, disk.py and transport/links.py do, with time and chance given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from replicad.core import mandate
from replicad.core.candidate import Candidate
from replicad.core.effects import (
    Answer,
    Confirm,
    Confirmed,
    Effect,
    Event,
    FindIds,
    Follow,
    FrameArrived,
    HandOver,
    HandOverEnded,
    Hangup,
    Lead,
    Note,
    PeerDown,
    PeerUp,
    Promote,
    ReadBatches,
    ReadContent,
    ReadRoot,
    Reconfigured,
    Send,
    Stand,
    StateChanged,
    StoreBatch,
    StoreFailed,
    StorePromise,
    Submit,
    Tick,
    Truncate,
    Truncated,
)
from replicad.core.keyring import Keyring
from replicad.core.master import Master
from replicad.core.seal import Sealer
from replicad.core.worker import Worker
from replicad.wire.codec import decode_records, encode_records
from tests.simulation.disk import CommitWrite, Disk, Platter, TurnWrite
from tests.simulation.history import Attempt
from tests.simulation.network import Stream

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

Machine = Master | Worker | Candidate

WALL_MS = 1_700_000_000_000
DIAL_S = (0.01, 0.06)  # between the end of a stream and the next try
OVERDUE_S = 2.0  # longer than the disk ever takes to be asked about ids
HANDOVER_S = 0.5
OUTSIDE = (PeerUp, PeerDown, FrameArrived, Submit, Confirm, Promote, HandOver, Reconfigured)  # as the runtime's
TICKS_AT_ONCE = 4  # a machine that is woken so often without time passing would spin


class Node:
    """1. ``life`` counts processes: whatever was asked for in an earlier life comes to nothing."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.world, self.checker, self.network = cluster.world, cluster.checker, cluster.network
        self.platter = Platter()
        self.life = 0
        self.turns = 0  # machines of all lives: what was asked of the disk by one before comes to nothing
        self.machine: Machine | None = None
        self.disk: Disk | None = None
        self.inbound: dict[str, Stream] = {}  # a worker's streams, by id
        self.outbound: dict[str, Stream] = {}  # a master's, by worker
        self.skew_ms = 0
        self.cutting = False  # records were dropped, and the machine has not heard of it
        self.still = False  # the process stands still (SIGSTOP)
        self._waiting: deque[Event | TurnWrite] = (
            deque()
        )  # what comes while it does, or while one machine follows another
        self._held: list[Event] | None = None  # events from outside while one machine follows another
        self._went_on_at = 0.0
        self._attempts: dict[int, tuple[Submit, Attempt, Callable[..., None]]] = {}
        self._confirms: dict[int, Callable[[bool], None]] = {}
        self._tickets = 0
        self.commit_on_disk = 0  # as this process knows
        self._readers: list[tuple[int, Callable[[int], None]]] = []  # who want to see a larger one
        self._wake_at = float("inf")
        self._ticked = (0.0, 0)  # when, and how often then

    @property
    def running(self) -> Machine:
        if self.machine is None:
            self.world.fail(f"{self.name} is not running")
        return self.machine

    @property
    def is_master(self) -> bool:
        return isinstance(self.machine, Master)

    @property
    def is_turning(self) -> bool:
        """Whether one machine is done, and the next has not begun."""
        return self._held is not None

    @property
    def calls(self) -> bool:
        """Whether it keeps streams to the others."""
        return isinstance(self.machine, Master | Candidate)

    # --- life --------------------------------------------------------------------------------------

    def start(self, *, configured_master: bool) -> None:
        """A new process, from what the disk has."""
        self.life += 1
        state = self.cluster.loaded(self)
        settings, keyring = self.cluster.settings(self.name), self._keyring
        self.disk = Disk(self, write_s=self.cluster.disk_s[self.name], read_s=self.cluster.profile.read_s)
        call = mandate.call_of(settings, state, configured_master=configured_master)
        self.commit_on_disk = state.commit_size
        if call is not None:
            self._go(Candidate(settings, state, call=call))
        else:
            self._go(Worker(settings, state, keyring=keyring, decode=decode_records))

    def _go(self, machine: Machine) -> None:
        """A machine begins."""
        self.machine, self._wake_at = machine, float("inf")
        self.turns += 1
        self.world.log(self.name, "is a", type(machine).__name__)
        self.checker.started(self)
        if self.calls:
            for worker in machine.settings.workers:
                self.world.after(self.world.between(0.0, 0.02), self._dial, self.life, worker)
        self._perform(machine.start(now=self.world.now, wall_ms=self._wall_ms()))
        self._schedule_tick()

    def _turn(self, effect: Stand | Lead | Follow) -> None:
        """Another machine takes this one's place, once the disk has done what it was asked before."""
        self._held = []
        if not isinstance(effect, Lead):
            for stream in [*self.inbound.values(), *self.outbound.values()]:
                stream.dropped_by(self, "takes another role")
            self.inbound.clear()
            self.outbound.clear()
        self._on_disk.write(TurnWrite(effect))

    def turn_written(self, write: TurnWrite) -> None:
        """The disk has done all that the last machine asked of it."""
        if self.still:
            self._waiting.append(write)
            return
        effect = write.effect
        state = self.cluster.loaded(self)
        settings, keyring = self.cluster.settings(self.name, again=self.running.settings), self._keyring
        held, self._held = self._held or [], None
        if isinstance(effect, Follow):
            self._go(Worker(settings, state, keyring=keyring, decode=decode_records))
        elif isinstance(effect, Lead):
            master = Master(
                settings,
                state,
                sealer=self._sealer(),
                keyring=keyring,
                decode=decode_records,
                above_epoch=effect.above_epoch,
                insists=effect.insists,
                forced=effect.forced,
            )
            self._go(master)
            held[:0] = [PeerUp(worker) for worker in self.outbound]
        else:
            self._go(Candidate(settings, state, call=effect.call))
        self._waiting.extendleft(reversed(held))
        self._catch_up(self.life)

    @property
    def _keyring(self) -> Keyring:
        return self.cluster.keys.ring(self.name)

    def _sealer(self) -> Sealer:
        sign, salts = self.cluster.keys.signer(self.name).sign, self.world.rng.randbytes
        return Sealer(self.cluster.name, self.name, sign, encode_records, salts)

    def reload(self) -> None:
        """The process, if there is one, reads its config and its key file again."""
        keyring = self.cluster.keys.ring(self.name)
        self.happen(Reconfigured(self.cluster.settings(self.name), keyring, self._sealer()))

    def crash(self) -> None:
        """The process is gone, with all that was not synced."""
        if self.machine is None or self.disk is None:
            return
        self.checker.ends(self)
        self.world.log(self.name, "CRASHES")
        self.disk.crash()
        self.machine, self.disk, self._held = None, None, None
        self.life += 1
        for stream in [*self.inbound.values(), *self.outbound.values()]:
            stream.process_ended(self)
        self.inbound.clear()
        self.outbound.clear()
        lost, self._attempts = list(self._attempts.values()), {}
        for _, _, told in lost:
            self.world.after(self.world.around(0.01), told, None)
        for confirmed in self._confirms.values():
            confirmed(False)
        self._confirms.clear()
        self._waiting.clear()
        self._readers.clear()
        self.still, self.cutting, self._wake_at = False, False, float("inf")

    def stand_still(self, duration_s: float) -> None:
        """Nothing happens in this process for so long; what comes in waits."""
        if self.machine is not None and not self.still:
            self.world.log(self.name, "STANDS STILL for", duration_s)
            self.still = True
            self.world.after(duration_s, self._go_on, self.life)

    def _go_on(self, life: int) -> None:
        if life != self.life or not self.still:
            return
        self.world.log(self.name, "goes on")
        self.still, self._went_on_at = False, self.world.now
        self._catch_up(life)

    def _catch_up(self, life: int) -> None:
        while self._waiting and not self.still and self.life == life:
            event = self._waiting.popleft()
            if isinstance(event, TurnWrite):
                self.turn_written(event)
            else:
                self.happen(event)

    # --- events and effects ------------------------------------------------------------------------

    def happen(self, event: Event) -> None:
        """Give the machine an event, or keep it while the process stands still."""
        machine = self.machine
        if machine is None:
            return
        if self.still:
            self._waiting.append(event)
            return
        if isinstance(event, StoreFailed):
            self._on_disk.failure_is_heard()
        if self._held is not None:
            if isinstance(event, OUTSIDE):
                self._held.append(event)
            return
        self.cutting = self.cutting and not isinstance(event, Truncated)
        before = self.checker.before_step(self, event)
        effects = machine.step(event, now=self.world.now, wall_ms=self._wall_ms())
        self.world.log(self.name, event, "->", effects)
        if before is not None:
            self.checker.after_bad_batch(self, before)
        self.checker.stepped(self)
        self._perform(effects)
        self.checker.performed(self, event)
        self._schedule_tick()

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case StoreBatch():
                    if self.is_master:
                        self.checker.sealed_by(self, effect.append.batch)
                    self._on_disk.write(effect)
                case StorePromise() | Truncate():
                    self._on_disk.write(effect)
                case ReadBatches() | ReadRoot() | FindIds() | ReadContent():
                    self._on_disk.read(effect)
                case Answer():
                    self._answer(effect)
                case Hangup():
                    self._hang_up(effect)
                case StateChanged():
                    self.checker.changed_state(self, effect.state)
                case Stand() | Lead() | Follow():
                    self._turn(effect)
                case HandOverEnded():
                    self.checker.handed_over(self, effect)
                case Confirmed():
                    self._confirms.pop(effect.ticket)(effect.error is None)
                case Note():
                    pass

    @property
    def _on_disk(self) -> Disk:
        if self.disk is None:
            self.world.fail(f"{self.name} writes without a disk")
        return self.disk

    def _wall_ms(self) -> int:
        return WALL_MS + round(self.world.now * 1000) + self.skew_ms

    # --- time --------------------------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        due = self.running.wake_at()
        if due < self._wake_at:
            self._wake_at = due
            self.world.at(due, self._tick, self.life, due)

    def _tick(self, life: int, due: float) -> None:
        if life != self.life or due != self._wake_at or self._held is not None:
            return
        self._wake_at = float("inf")
        when, times = self._ticked
        self._ticked = (self.world.now, times + 1 if when == self.world.now else 1)
        if self._ticked[1] > TICKS_AT_ONCE:
            self.world.fail(f"{self.name} spins: a tick at {due} leaves wake_at() at {self.running.wake_at()}")
        self.happen(Tick())

    # --- streams -----------------------------------------------------------------------------------

    def _dial(self, life: int, worker: str) -> None:
        if life != self.life or worker in self.outbound or not self.calls:
            return
        target = self.cluster.nodes[worker]
        if not self.still and target.machine is not None and self.network.reachable(self.name, worker):
            stream = self.outbound[worker] = self.network.connect(self, target)
            target.expected(stream)
            self.happen(PeerUp(worker))
        else:
            self.happen(PeerDown(worker, "unreachable"))
            self.world.after(self.world.between(*DIAL_S), self._dial, life, worker)

    def expected(self, stream: Stream) -> None:
        """A master has dialled; its stream is known from when its first frame arrives."""
        self.inbound[stream.id] = stream

    def stream_ended(self, stream: Stream, reason: str) -> None:
        """A stream of this master's is gone."""
        worker = stream.worker.name
        if self.outbound.get(worker) is not stream:
            return
        del self.outbound[worker]
        self.happen(PeerDown(worker, reason))
        self.world.after(self.world.between(*DIAL_S), self._dial, self.life, worker)

    def _send(self, effect: Send) -> None:
        if effect.peer in self.outbound:
            stream = self.outbound[effect.peer]
            self.checker.master_sends(self, stream, effect.frame)  # type: ignore[arg-type]
            stream.to_worker.send(effect.frame)
        elif effect.peer in self.inbound:
            stream = self.inbound[effect.peer]
            self.checker.worker_sends(self, stream, effect.frame)  # type: ignore[arg-type]
            stream.to_master.send(effect.frame)

    def _hang_up(self, effect: Hangup) -> None:
        if effect.peer in self.outbound:
            self.outbound[effect.peer].master_hangs_up(effect.reason)
        elif effect.peer in self.inbound:
            self.inbound[effect.peer].worker_hangs_up(effect.reason)

    # --- clients -----------------------------------------------------------------------------------

    def submit(self, attempt: Attempt, told: Callable[..., None]) -> None:
        """A client's frame has come through the gate of a master."""
        self._tickets += 1
        submit = Submit(self._tickets, attempt.frame(), "anonymous", attempt.nodes, attempt.deadline)
        for message in attempt.messages:
            message.posted()
        self._attempts[submit.ticket] = (submit, attempt, told)
        self.happen(submit)

    def _answer(self, effect: Answer) -> None:
        if effect.ticket not in self._attempts:
            self.world.fail(f"{self.name} answers frame {effect.ticket}, which is answered already or never was")
        submit, attempt, told = self._attempts.pop(effect.ticket)
        self.checker.answered(self, submit, attempt, effect.result)
        self.world.after(self.world.around(self.cluster.profile.network_s), told, effect.result)

    def hand_over(self, to: str) -> None:
        """An operator wants that node to be the master."""
        self._tickets += 1
        self.happen(HandOver(self._tickets, to, self.world.now + HANDOVER_S))

    @property
    def unanswered(self) -> int:
        return len(self._attempts)

    @property
    def behind(self) -> bool:
        """Whether events wait because the process stands, or stood, still, or for another machine."""
        return self.still or self.is_turning or bool(self._waiting)

    @property
    def overdue(self) -> bool:
        """Whether a frame has had no answer long after its deadline."""
        latest = self.world.now - OVERDUE_S
        return self._went_on_at < latest and any(submit.deadline < latest for submit, _, _ in self._attempts.values())

    def confirm(self, confirmed: Callable[[bool], None]) -> None:
        """Ask whether this still is the master."""
        self._tickets += 1
        self._confirms[self._tickets] = confirmed
        self.happen(Confirm(self._tickets))

    # --- readers -----------------------------------------------------------------------------------

    def show_commit(self, shown: Callable[[int], None]) -> None:
        """Make the commit size durable, then show it to a reader."""

        wanted = self.running.log.commit_size
        if self.commit_on_disk >= wanted:
            self.checker.shown(self, self.commit_on_disk)
            shown(self.commit_on_disk)
            return
        self._readers.append((wanted, shown))
        if len(self._readers) == 1:
            self._write_commit()

    def _write_commit(self) -> None:
        self._on_disk.write(CommitWrite(self.running.log.commit_size, self._commit_written))

    def _commit_written(self, size: int | None) -> None:
        if size is None:
            self._readers.clear()
            return
        self.commit_on_disk = max(self.commit_on_disk, size)
        readers, self._readers = self._readers, []
        for wanted, shown in readers:
            if wanted <= self.commit_on_disk:
                self.checker.shown(self, self.commit_on_disk)
                shown(self.commit_on_disk)
            else:
                self._readers.append((wanted, shown))
        if self._readers:
            self._write_commit()

    def wake_up(self) -> None:
        """Go on at once, if it stands still."""
        self._go_on(self.life)
