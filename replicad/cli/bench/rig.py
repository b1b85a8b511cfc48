"""The cluster that is measured: one of our own on this machine, or one that is there.

Owns the cluster's folder, and that nothing of it is left behind. Must not know workloads' inner life.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from replicad.cli.bench import workloads
from replicad.cli.bench.workloads import Measured
from replicad.client import AsyncClient
from replicad.dev import DevCluster, free_ports
from replicad.errors import OperatorError, ServiceError, Unavailable

NODES = 3
LISTEN_TIMEOUT_S = 60.0  # for a node that was started to listen
LISTEN_LOOK_S = 0.005  # between two looks: what is measured takes some 100 times as long
MIB = 1 << 20
_IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Rig:
    """Where the workloads go. ``cluster`` is None for a cluster that is not ours, which no node of is stopped."""

    addresses: tuple[str, ...]
    token: str | None  # None: from the environment
    cluster: DevCluster | None
    filesystem: str  # of our own cluster's data; "" for a cluster that is not ours
    tls: tuple[str | None, str | None, str | None] = (None, None, None)  # ca, certificate, key; None: environment's

    def client(self, *addresses: str) -> AsyncClient:
        """A client of these nodes, or of all."""
        ca, certificate, key = self.tls
        return AsyncClient(
            addresses or self.addresses,
            token=self.token,
            timeout_s=workloads.PER_FRAME_S,
            ca=ca,
            certificate=certificate,
            key=key,
        )

    async def rss_mib(self) -> dict[str, float]:
        """Resident memory by node, as each tells itself; a node that does not answer is left out."""
        found: dict[str, float] = {}
        async with self.client() as client:
            nodes = (await client.status()).nodes
            for node in nodes:
                try:
                    found[node.name] = (await client.status(node.address)).rss_bytes / MIB
                except ServiceError:
                    continue
        return found

    async def catch_up(self, payload: bytes, *, messages: int) -> Measured:
        """W5: a worker misses ``messages``; the time from its process' start until it has them all on disk."""
        if self.cluster is None:
            raise OperatorError("only a node of our own cluster is stopped: leave out --address")
        worker = self.cluster.nodes[-1]
        self.cluster.stop(worker.name)
        async with self.client() as client:
            await workloads.bulk(client, payload, messages=messages, warm_up=False)
            size = (await client.status(self.addresses[0])).size
        began = perf_counter()
        self.cluster.start(worker.name, wait=False)
        await _listening(worker.address)
        async with self.client(worker.address) as client:
            await workloads.wait_for_size(client, size)
        return Measured(messages, perf_counter() - began)


@contextmanager
def own_rig(parent: Path, *, tls: bool = False) -> Iterator[Rig]:
    """A new cluster in a new folder below ``parent``, gone at the end, also when a signal ends it.

    Starting and stopping nodes blocks, in the loop's own thread: nothing else is to be measured meanwhile, and no
    thread goes on starting what is being stopped.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="replicad-bench-", dir=parent))
    except OSError as exc:
        raise OperatorError(f"{parent}: no folder can be made there ({exc.strerror}); give another --dir") from exc
    try:
        ports = free_ports(2 * NODES)
        mutual_ports = ports[NODES:] if tls else []
        with (
            _signals_interrupt(),
            DevCluster.create(folder, ports=ports[:NODES], mutual_ports=mutual_ports) as cluster,
        ):
            cluster.start()
            addresses = tuple(node.address for node in cluster.nodes)
            files = (cluster.layout.ca_file or "", "", "")
            yield Rig(addresses, cluster.layout.token, cluster, filesystem_of(folder), files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def filesystem_of(path: Path) -> str:
    """The type of the file system that ``path`` is on, as /proc/self/mountinfo has it (proc(5)); "" if unknown."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    best, found = 0, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount_point = before.split(" ")[4].encode().decode("unicode_escape")  # a space is \040
        if path.resolve().is_relative_to(mount_point) and len(mount_point) >= best:
            best, found = len(mount_point), after.split(" ")[0]
    return found


def is_in_memory(filesystem: str) -> bool:
    """Whether sync costs nothing there, so that numbers mean nothing for a log."""
    return filesystem in _IN_MEMORY


async def _listening(address: str) -> None:
    """Return when somebody listens there: gRPC would wait longer between two tries than what is measured."""
    host, _, port = address.rpartition(":")
    give_up = perf_counter() + LISTEN_TIMEOUT_S
    while perf_counter() < give_up:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        await asyncio.sleep(LISTEN_LOOK_S)
    raise Unavailable(f"{address} does not listen {LISTEN_TIMEOUT_S:g} s after its start")


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does, so that nothing is left running."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
