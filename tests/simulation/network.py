"""Streams between nodes, as gRPC has them: ordered and reliable while they live, and they can end at any point.

When a stream breaks, each direction loses what was under way from some point on, and each end learns of it at a time of
its own, or not at all: then only silence tells. So frames of an old stream still arrive while a new one is up. One
direction between two nodes can stand still while the other works. A nasty network also loses, doubles and reorders
single frames inside a stream, which gRPC never does: safety must not hang on that.

Owns delays and faults. Must not know what frames mean, except how to change a batch on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from replicad.core.batch import Batch
from replicad.core.effects import FrameArrived, PeerDown, PeerUp
from replicad.core.frames import AppendBatch, Hello, MasterFrame, Supply, WorkerFrame
from tests.simulation.profile import Profile
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.node import Node

Frame = MasterFrame | WorkerFrame
RESET_NOTICED = 0.7  # share of broken streams whose end hears of it; the others only hear nothing any more


class _Up:
    """The stream is there."""


class _End:
    """No more comes."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


UP: Final = _Up()
Item = Frame | _Up | _End


class Network:
    """1. From one node to another nothing arrives before ``_open_at`` of the two."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.world, self.profile = world, profile
        self.faults = True  # off when all is to settle
        self._open_at: dict[tuple[str, str], float] = {}
        self.streams: dict[str, Stream] = {}  # all that one end at least still holds
        self._opened = 0

    def stall(self, source: str, target: str, duration_s: float) -> None:
        """Nothing passes from source to target for so long; nothing is lost either."""
        self._open_at[source, target] = self.world.now + duration_s

    def heal(self) -> None:
        """All is well from now on."""
        self.faults = False
        self._open_at.clear()

    def open_at(self, source: str, target: str) -> float:
        return self._open_at.get((source, target), 0.0)

    def reachable(self, source: str, target: str) -> bool:
        now = self.world.now
        return self.open_at(source, target) <= now and self.open_at(target, source) <= now

    def connect(self, master: Node, worker: Node) -> Stream:
        """A new stream; both ends hear of it."""
        self._opened += 1
        stream = Stream(self, f"{master.name}/{self._opened}", master, worker)
        self.streams[stream.id] = stream
        return stream

    def forget(self, stream: Stream) -> None:
        if not stream.master_holds and not stream.worker_holds:
            self.streams.pop(stream.id, None)


class Pipe:
    """One direction of a stream."""

    def __init__(self, network: Network, source: str, target: str, deliver: Callable[[Item], None]) -> None:
        self._network, self._source, self._target, self._deliver = network, source, target, deliver
        self._queue: deque[Item] = deque()
        self._last_due = 0.0
        self.closed = False

    def send(self, item: Item) -> None:
        if self.closed:
            return
        network, world = self._network, self._network.world
        if network.faults and isinstance(item, AppendBatch | Supply) and world.chance(network.profile.corrupt):
            item = corrupted(world, item)
        self._queue.append(item)
        self._schedule(world.around(network.profile.network_s))
        if network.faults and network.profile.nasty and not isinstance(item, _Up | _End):
            self._be_nasty(item)

    def _schedule(self, delay_s: float) -> None:
        world = self._network.world
        due = max(self._last_due, world.now + delay_s, self._network.open_at(self._source, self._target))
        self._last_due = due
        world.at(due, self._arrive)

    def _be_nasty(self, item: Item) -> None:
        """Lose the frame, let those that follow overtake it, or let it come twice."""
        world, profile = self._network.world, self._network.profile
        if not world.chance(profile.nasty):
            return
        again = world.rng.randrange(3)
        if again < 2:
            self._queue.pop()
        if again:
            world.after(world.around(profile.network_s) * world.rng.choice((1, 5, 20)), self._late, item)

    def _late(self, item: Item) -> None:
        if not self.closed:
            self._queue.insert(self._network.world.rng.randrange(len(self._queue) + 1), item)
            self._schedule(0.0)

    def finish(self, reason: str) -> None:
        """End it; what was sent before goes out first."""
        self.send(_End(reason))
        self.closed = True

    def cut(self, reason: str) -> None:
        """Break it: some of what is under way still arrives, and perhaps the news of the break."""
        if self.closed:
            return
        world = self._network.world
        for _ in range(world.rng.randint(0, len(self._queue))):
            self._queue.pop()
        if world.chance(RESET_NOTICED):
            self._queue.append(_End(reason))
            self._schedule(world.around(self._network.profile.network_s) * world.rng.choice((1, 1, 20)))
        self.closed = True

    def _arrive(self) -> None:
        world = self._network.world
        open_at = self._network.open_at(self._source, self._target)
        if open_at > world.now:
            world.at(open_at, self._arrive)
        elif self._queue:
            self._deliver(self._queue.popleft())


class Stream:
    """1. ``hello`` is the last Hello that arrived at the worker in this stream."""

    def __init__(self, network: Network, stream_id: str, master: Node, worker: Node) -> None:
        self.id, self.master, self.worker = stream_id, master, worker
        self._network = network
        self._master_life, self._worker_life = master.life, worker.life
        self.master_holds = self.worker_holds = True
        self.hello: Hello | None = None
        self.to_worker = Pipe(network, master.name, worker.name, self._at_worker)
        self.to_master = Pipe(network, worker.name, master.name, self._at_master)
        self.to_worker.send(UP)

    def lose(self, reason: str) -> None:
        """Both directions break."""
        self.to_worker.cut(reason)
        self.to_master.cut(reason)

    def master_hangs_up(self, reason: str) -> None:
        self.to_worker.finish(reason)
        self._network.world.after(self._network.world.around(0.005), self._at_master, _End(reason))

    def worker_hangs_up(self, reason: str) -> None:
        """Frames that are under way to the worker may still be handed to it before its end is gone."""
        self.to_master.finish(reason)
        self._network.world.after(self._network.world.around(0.002), self._at_worker, _End(reason))

    def dropped_by(self, node: Node, reason: str) -> None:
        """One end lets go; what it sent before goes out first, and it hears nothing more."""
        if node is self.master:
            self.master_holds = False
            self.to_worker.finish(reason)
        if node is self.worker:
            self.worker_holds = False
            self.to_master.finish(reason)
        self._network.forget(self)

    def process_ended(self, node: Node) -> None:
        """One of the two processes is gone; the other end has to find out."""
        if node is self.master:
            self.master_holds = False
            self.to_worker.cut(f"{node.name} is gone")
        if node is self.worker:
            self.worker_holds = False
            self.to_master.cut(f"{node.name} is gone")
        self._network.forget(self)

    def _at_worker(self, item: Item) -> None:
        if not self.worker_holds or self.worker.life != self._worker_life:
            return
        match item:
            case _Up():
                self.worker.inbound[self.id] = self
                self.worker.happen(PeerUp(self.id))
            case _End():
                self.worker_holds = False
                self.worker.inbound.pop(self.id, None)
                self.to_master.finish(item.reason)
                self.worker.happen(PeerDown(self.id, item.reason))
                self._network.forget(self)
            case _:
                if isinstance(item, Hello):
                    self.hello = item
                self.worker.happen(FrameArrived(self.id, item))

    def _at_master(self, item: Item) -> None:
        if not self.master_holds or self.master.life != self._master_life:
            return
        if isinstance(item, _End):
            self.master_holds = False
            self.to_worker.finish(item.reason)
            self.master.stream_ended(self, item.reason)
            self._network.forget(self)
        elif not isinstance(item, _Up):
            self.master.happen(FrameArrived(self.worker.name, item))


def corrupted(world: World, frame: AppendBatch | Supply) -> AppendBatch | Supply:
    """The same frame with one of its batches changed in one place."""
    if isinstance(frame, AppendBatch):
        return replace(frame, batch=_changed(world, frame.batch))
    if not frame.batches:
        return frame
    batches = list(frame.batches)
    at = world.rng.randrange(len(batches))
    batches[at] = _changed(world, batches[at])
    return replace(frame, batches=tuple(batches))


def _changed(world: World, batch: Batch) -> Batch:
    def flip(data: bytes) -> bytes:
        at, bit = world.rng.randrange(len(data)), 1 << world.rng.randrange(8)
        return data[:at] + bytes((data[at] ^ bit,)) + data[at + 1 :]

    nodes = ("node-1", "node-2", "nobody")
    changes: tuple[Callable[[], Batch], ...] = (
        lambda: replace(batch, body=flip(batch.body)),
        lambda: replace(batch, body=flip(batch.body)),
        lambda: replace(batch, signature=flip(batch.signature)),
        lambda: replace(batch, root=flip(batch.root)),
        lambda: replace(batch, epoch=batch.epoch + world.rng.choice((-1, 1))),
        lambda: replace(batch, first_offset=batch.first_offset + 1),
        lambda: replace(batch, count=batch.count + 1),
        lambda: replace(batch, time_ms=batch.time_ms + 1),
        lambda: replace(batch, signer=next(name for name in nodes if name != batch.signer)),
    )
    return world.rng.choice(changes)()
