"""Clusters of real processes for tests, and what holds of every one of them when it is over.

Owns how such a cluster is made, watched and ended: its folders, its token, the look at its logs. Must not know what a
test does with it. Starting and stopping block: an asyncio test calls them by ``asyncio.to_thread``.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import yaml

from replicad.configfile import load as load_config
from replicad.dev import DevCluster, DevNode
from replicad.nodekeys import keyring_of
from replicad.storage.fsck import Report, verify_folder
from replicad.wire.codec import Record, decode_records
from replicad.wire.v1 import log_pb2 as pb
from tests.support.certificates import Shown
from tests.support.ports import free_ports
from tests.support.rawlog import RawLog
from tests.support.waiting import eventually

TOKEN = "integration-token-c0ffee"
LEVEL_S = 30.0  # for a node to come level: the longest wait before it is dialled is 5 s

# How a line of the daemon's log begins; whatever else stands there came past it.
_EVENT = re.compile(r'time=\S+Z level=(debug|info|warning|error) event=([a-z_-]+)( [a-z_]+=("([^"\\]|\\.)*"|\S*))*')

# gRPC prints this by itself, past any log, when what it has to say of a malformed call finds the client gone.
_GRPC_TRACEBACK = re.compile(
    r'^Traceback .*\n(  File "src/python/grpcio/.*\n)+grpc\._cython\.cygrpc\.ExecuteBatchError.*\n', re.M
)

# Debian's protobuf does, of a string that is not UTF-8; the message is refused all the same.
_PROTOBUF_ERROR = re.compile(r"^\[libprotobuf ERROR \S+\] String field '[\w.]+' contains invalid UTF-8 data .*\n", re.M)


@contextmanager
def running_cluster(
    folder: Path,
    *,
    nodes: int = 3,
    tls: bool = False,
    settings: Mapping[str, object] | None = None,
    start: Sequence[str] | None = None,
) -> Iterator[DevCluster]:
    """A cluster of real processes in ``folder``; ``start`` names who is started at once (None: all).

    At the end all are stopped, and their logs are looked through: see :func:`check_logs`.
    """
    ports = free_ports(2 * nodes)
    mutual_ports = ports[nodes:] if tls else []
    cluster = DevCluster.create(folder, ports=ports[:nodes], mutual_ports=mutual_ports, token=TOKEN, settings=settings)
    try:
        if start is None:
            cluster.start()
        elif start:
            cluster.start(*start)
        yield cluster
        cluster.stop()
    finally:
        cluster.kill()
    check_logs(cluster)


def edit(node: DevNode, **changes: object) -> None:
    """Change keys of the node's config file; a mapping changes keys of that section."""
    config = yaml.safe_load(node.config_file.read_text())
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    node.config_file.write_text(yaml.safe_dump(config, sort_keys=False))


def log_lines(node: DevNode) -> list[str]:
    """The daemon's log lines, all its runs."""
    return node.log_file.read_text().splitlines() if node.log_file.exists() else []


def events(node: DevNode) -> list[str]:
    """The events of a node's log, in order."""
    return [match[2] for line in log_lines(node) if (match := _EVENT.match(line))]


def check_logs(cluster: DevCluster) -> None:
    """What holds of every log: one line an event, nothing from past the log, no token, no key, no bug of ours."""
    for node in cluster.nodes:
        keys_of_node = (node.folder / "key", cluster.layout.pki / f"{node.name}.key")
        private = [part for key in keys_of_node if key.exists() for part in key.read_text().split()]
        log = node.log_file.read_text() if node.log_file.exists() else ""
        for line in _PROTOBUF_ERROR.sub("", _GRPC_TRACEBACK.sub("", log)).splitlines():
            assert _EVENT.fullmatch(line), f"{node.name} wrote what is no event: {line}"
            assert " event=library " not in line, f"{node.name}: {line}"
            assert " exception=" not in line, f"{node.name} met a bug of ours: {line}"
            assert TOKEN not in line, f"{node.name} has logged the token"
            assert not any(part in line for part in private if len(part) > 16), f"{node.name} has logged its key"


@asynccontextmanager
async def raw_logs(cluster: DevCluster) -> AsyncIterator[dict[str, RawLog]]:
    """A connection to every node, by name, with the cluster's token; with TLS where it has TLS."""
    ca, token = cluster.layout.ca_file, cluster.layout.token
    credentials = Shown(Path(ca)).credentials() if ca else None
    async with AsyncExitStack() as stack:
        yield {
            node.name: await stack.enter_async_context(RawLog(node.address, token=token, credentials=credentials))
            for node in cluster.nodes
        }


async def reload(cluster: DevCluster, *names: str) -> None:
    """SIGHUP, and wait until it is done, or refused."""
    for name in names:
        node = cluster.node(name)

        def reloads(node: DevNode = node) -> int:
            return events(node).count("reloaded") + events(node).count("reload_refused")

        before = reloads()

        async def done(reloads: Callable[[], int] = reloads, before: int = before) -> bool:
            return reloads() > before

        cluster.send_signal(name, signal.SIGHUP)
        await eventually(done, within_s=10, what=f"{name} has reloaded")


async def all_level(logs: Mapping[str, RawLog], *, size: int = 0, within_s: float = LEVEL_S) -> pb.StatusResponse:
    """Wait until all nodes have the same log, all of it committed, of ``size`` records at least; one's status."""

    states: list[pb.StatusResponse] = []

    async def look() -> pb.StatusResponse | None:
        states[:] = await asyncio.gather(*(log.status() for log in logs.values()))
        same = len({(each.size, each.commit_size, each.root) for each in states}) == 1
        first = states[0]
        return first if same and first.commit_size == first.size >= size else None

    try:
        return await eventually(look, within_s=within_s, what=f"all nodes level at {size} records or more")
    finally:
        print("\n".join(f"{s.node}: {s.state}, {s.epoch}, {s.size}, {s.commit_size}: {s.detail}" for s in states))


async def same_records(logs: Mapping[str, RawLog]) -> list[Record]:
    """All records, after a look that every node lists the very same, gapless from 0."""
    pages = await asyncio.gather(*(log.list() for log in logs.values()))
    first = pages[0].records
    for page in pages[1:]:
        assert page.records == first
    assert [record.offset for record in first] == list(range(len(first)))
    return first


def verified(cluster: DevCluster, node: DevNode) -> Report:
    """The report on a stopped node's data folder, which must be without fault."""
    config = load_config(node.config_file, env={})
    keyring = keyring_of(config)
    report = verify_folder(node.data_dir, cluster=config.cluster, keyring=keyring, decode_records=decode_records)
    assert report.ok, f"{node.name} of {cluster.layout.folder}: {report.fault}"
    return report
