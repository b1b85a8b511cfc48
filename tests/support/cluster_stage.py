"""A master and its workers wired by hand: every frame and every disk job waits until the test lets it go on.

Nothing here decides: frames go in order over each stream and are dropped with it; a disk does its jobs in order. A
test says :meth:`ClusterStage.settle` for "until nothing is left to do", or moves one disk or one stream at a time.
What a client or an operator would see is in :attr:`ClusterStage.seen`, a line each, the node's name first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from replicad.core.effects import FrameArrived, Hangup, PeerDown, PeerUp, Reconfigured, Send
from replicad.core.frames import MasterFrame, WorkerFrame
from replicad.core.keyring import Keyring
from replicad.core.record import parse_leaf
from replicad.core.seal import Sealer
from replicad.core.settings import Settings
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import (
    decode_master_frame,
    decode_records,
    decode_worker_frame,
    encode_master_frame,
    encode_worker_frame,
)
from tests.support.builders import NODES
from tests.support.script import MasterScript, Script, WorkerScript

_SHOWN = ("answer", "state", "confirmed", "not confirmed", "hang up")


@dataclass
class Stream:
    """One stream from the master to a worker, with the encoded frames that are on it."""

    name: str  # as the worker knows it: n1#1
    to_worker: deque[bytes] = field(default_factory=deque)
    to_master: deque[bytes] = field(default_factory=deque)


class ClusterStage:
    """1. A node's store outlives its machine: :meth:`restart` is a crash that loses what was not on disk."""

    def __init__(
        self,
        *,
        voters: int = 3,
        master: str = "n1",
        stores: Mapping[str, MemoryStore] | None = None,
        adjust: Callable[[Settings], Settings] = lambda settings: settings,
        generation: int = 0,
    ) -> None:
        self.names = NODES[:voters]
        self.master_name = master
        self._adjust, self._generation, self._voters = adjust, generation, voters
        self.stores = dict(stores or {name: MemoryStore(decode_records) for name in self.names})
        self.seen: list[str] = []
        self.streams: dict[str, Stream] = {}
        self._calls = 0
        self.master = self._make_master()
        self.workers = {name: self._make_worker(name) for name in self.names if name != master}
        self._out(master, self.master.start())

    def _make_master(self) -> MasterScript:
        self._generation += 1  # salts are random: no two lives of a master make the same ones
        return MasterScript(
            node=self.master_name,
            voters=self._voters,
            store=self.stores[self.master_name],
            adjust=self._adjust,
            seed=self._generation,
        )

    def _make_worker(self, name: str) -> WorkerScript:
        return WorkerScript(node=name, voters=self._voters, store=self.stores[name], adjust=self._adjust)

    def under(self, master: str) -> ClusterStage:
        """All nodes again, from their disks, with ``master`` as the master now."""
        return ClusterStage(
            voters=self._voters,
            master=master,
            stores={name: store.copy() for name, store in self.stores.items()},
            adjust=self._adjust,
            generation=self._generation + 1,
        )

    def configure(self, *nodes: str, without_vote: Iterable[str] = ()) -> None:
        """What every node's config says from its next restart on: who is a node, and who of them has no vote."""
        lost = frozenset(without_vote)

        def adjust(settings: Settings) -> Settings:
            others = tuple(name for name in nodes if name != settings.node)
            return replace(settings, workers=others, non_voters=lost)

        self._adjust = adjust

    # --- streams -----------------------------------------------------------------------------------

    def connect(self, *workers: str) -> ClusterStage:
        """A new stream from the master to each of these; for all that its config has where none is named."""
        for worker in workers or tuple(self.master.machine.workers):
            self._calls += 1
            stream = Stream(f"{self.master_name}#{self._calls}")
            old, self.streams[worker] = self.streams.get(worker), stream
            if old is not None:
                self._out(worker, self.workers[worker].feed(PeerDown(old.name, "replaced")))
            self._out(worker, self.workers[worker].feed(PeerUp(stream.name)))
            self._out(self.master_name, self.master.feed(PeerUp(worker)))
        return self

    def cut(self, *workers: str) -> ClusterStage:
        """These streams are gone, with all that was on them."""
        for worker in workers:
            stream = self.streams.pop(worker)
            self._out(self.master_name, self.master.feed(PeerDown(worker, "connection lost")))
            self._out(worker, self.workers[worker].feed(PeerDown(stream.name, "connection lost")))
        return self

    def deliver(self, worker: str, count: int | None = None) -> None:
        """The frames that are on the way to this worker now arrive; or the first ``count`` of them."""
        stream = self.streams.get(worker)
        if stream is None:
            return
        for encoded in _take(stream.to_worker, count):
            if self.streams.get(worker) is stream:
                frame = decode_master_frame(encoded)
                self._out(worker, self.workers[worker].feed(FrameArrived(stream.name, frame)))

    def collect(self, worker: str, count: int | None = None) -> None:
        """The frames that are on the way from this worker now arrive; or the first ``count`` of them."""
        stream = self.streams.get(worker)
        if stream is None:
            return
        for encoded in _take(stream.to_master, count):
            if self.streams.get(worker) is stream:
                self._out(self.master_name, self.master.feed(FrameArrived(worker, decode_worker_frame(encoded))))

    # --- disks, time and restarts ------------------------------------------------------------------

    def disk(self, node: str) -> None:
        """This node's disk does what it was asked up to now."""
        self._out(node, self.node(node).disk())

    def tick(self, seconds: float) -> list[str]:
        """Time passes everywhere, then everything settles; what was seen meanwhile."""
        before = len(self.seen)
        for name in self.names:
            self._out(name, self.node(name).tick(seconds))
        self.settle()
        return self.seen[before:]

    def restart(self, node: str) -> None:
        """The node dies and starts again from its disk; its streams are gone."""
        for worker in list(self.streams) if node == self.master_name else [node] * (node in self.streams):
            self.cut(worker)
        if node == self.master_name:
            self.master = self._make_master()
            self._out(node, self.master.start())
        else:
            self.workers[node] = self._make_worker(node)

    def settle(self, *, but: Iterable[str] = ()) -> list[str]:
        """Until nothing is left to do for disks and streams, save those of the nodes in ``but``; what was seen."""
        before = len(self.seen)
        live = [name for name in self.names if name not in but]
        while any(self._busy(name) for name in live):
            for name in live:
                self.disk(name)
                if name in self.workers:
                    self.deliver(name)
                    self.collect(name)
        return self.seen[before:]

    def _busy(self, name: str) -> bool:
        stream = self.streams.get(name)
        return bool(self.node(name).pending or (stream and (stream.to_worker or stream.to_master)))

    def reconfigure(self, node: str, keyring: Keyring, sealer: Sealer | None = None) -> None:
        """The node reads its config and its key file again; a restart has the first ones."""
        event = Reconfigured(self.node(node).machine.settings, keyring, sealer)
        self._out(node, self.node(node).feed(event))

    # --- clients, and what there is to see ---------------------------------------------------------

    def post(self, *ids: str, w: int = 1, timeout_s: float = 1e6) -> None:
        self._out(self.master_name, self.master.post(*ids, w=w, timeout_s=timeout_s))

    def confirm(self, ticket: int) -> None:
        self._out(self.master_name, self.master.confirm(ticket))

    def node(self, name: str) -> Script:
        return self.master if name == self.master_name else self.workers[name]

    @property
    def sizes(self) -> dict[str, int]:
        """How many records each node has on disk."""
        return {name: store.load().size for name, store in self.stores.items()}

    @property
    def commit_sizes(self) -> dict[str, int]:
        """How many records each node knows to be committed."""
        return {name: self.node(name).machine.log.commit_size for name in self.names}

    def ids(self, node: str) -> list[str]:
        """The ids in a node's log, in order, as its disk has them."""
        log = self.stores[node]
        bodies = [batch.body for batch in log.read(0, max_bytes=1 << 40)]
        return [parse_leaf(leaf).id for body in bodies for leaf in decode_records(body).leaves]

    def publish(self) -> None:
        """Every node has its commit size on disk, as before a reader is shown it."""
        for name, commit_size in self.commit_sizes.items():
            self.stores[name].set_commit_size(commit_size)

    def assert_level(self, *nodes: str) -> None:
        """These nodes' logs (all, where none is named) are the same, record for record."""
        first, *others = nodes or self.names
        reference = self.stores[first]
        for other in others:
            store = self.stores[other]
            assert store.load().tree.root() == reference.load().tree.root(), f"{other} differs from {first}"
            assert store.read(0, max_bytes=1 << 40) == reference.read(0, max_bytes=1 << 40)

    def _out(self, node: str, lines: list[str]) -> None:
        script = self.node(node)
        self.seen += [f"{node}: {line}" for line in lines if line.startswith(_SHOWN)]
        outbox, script.outbox = script.outbox, []
        for effect in outbox:
            self._route(node, effect)

    def _route(self, node: str, effect: Send | Hangup) -> None:
        worker = effect.peer if node == self.master_name else node
        stream = self.streams.get(worker)
        if stream is None or (node != self.master_name and effect.peer != stream.name):
            return  # to a stream that is gone
        if isinstance(effect, Hangup):
            self._end(node, worker, stream, effect.reason)
        elif node == self.master_name:
            stream.to_worker.append(encode_master_frame(_master_frame(effect.frame)))
        else:
            stream.to_master.append(encode_worker_frame(_worker_frame(effect.frame)))

    def _end(self, node: str, worker: str, stream: Stream, reason: str) -> None:
        """What was sent before goes out first, then both ends learn that the stream is gone."""
        if node == self.master_name:
            self.deliver(worker)
        else:
            self.collect(worker)
        if self.streams.get(worker) is stream:
            del self.streams[worker]
            self._out(self.master_name, self.master.feed(PeerDown(worker, reason)))
            self._out(worker, self.workers[worker].feed(PeerDown(stream.name, reason)))


def _take(frames: deque[bytes], count: int | None) -> list[bytes]:
    """The first ``count`` frames, or as many as there are, taken off."""
    return [frames.popleft() for _ in range(len(frames) if count is None else min(count, len(frames)))]


def _master_frame(frame: MasterFrame | WorkerFrame) -> MasterFrame:
    assert isinstance(frame, MasterFrame)
    return frame


def _worker_frame(frame: MasterFrame | WorkerFrame) -> WorkerFrame:
    assert isinstance(frame, WorkerFrame)
    return frame
