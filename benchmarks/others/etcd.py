"""etcd: a put is answered when a majority has it in its log, synced. Its client is gRPC for Python, as ours is."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from grpc import aio

from benchmarks.others.system import PAYLOAD, Measure, Result, closed_loop, servers, wait_until
from replicad import eventloop
from replicad.dev import free_ports

_PUT = "/etcdserverpb.KV/Put"
_NODES = ("n1", "n2", "n3")


class Etcd:
    name = "etcd"

    def missing(self) -> str:
        return "" if shutil.which("etcd") else "etcd-server"

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[Measure]:
        ports = free_ports(2 * len(_NODES))
        clients, peers = ([f"127.0.0.1:{port}" for port in half] for half in (ports[:3], ports[3:]))
        cluster = ",".join(f"{name}=http://{peer}" for name, peer in zip(_NODES, peers, strict=True))
        commands = [
            [
                *("etcd", "--name", name, "--data-dir", str(folder / name), "--log-level", "error"),
                *("--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}"),
                *("--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}"),
                *("--initial-cluster", cluster),
            ]
            for name, client, peer in zip(_NODES, clients, peers, strict=True)
        ]
        with servers(commands, folder):
            leader: list[str] = []

            def has_leader() -> bool:
                leader[:] = [client for client in clients if _leads(client)]
                return len(leader) == 1

            wait_until(has_leader, "a leader of etcd")
            yield lambda callers, seconds: eventloop.run(_measure(leader[0], callers, seconds))


def _leads(client: str) -> bool:
    ask = urllib.request.Request(f"http://{client}/v3/maintenance/status", b"{}")
    try:
        with urllib.request.urlopen(ask, timeout=1) as answer:  # noqa: S310 - http, and loopback
            status = json.load(answer)
    except OSError:
        return False
    return bool(status.get("leader", "0") == status["header"]["member_id"])


async def _measure(leader: str, callers: int, seconds: float) -> Result:
    async with aio.insecure_channel(leader) as channel:
        put: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PUT)
        keys = itertools.count(1)

        def caller() -> Callable[[], Awaitable[None]]:
            async def post() -> None:
                await put(_put_request(b"%012d" % next(keys), PAYLOAD))

            return post

        return await closed_loop([caller() for _ in range(callers)], seconds)


def _put_request(key: bytes, value: bytes) -> bytes:
    """A PutRequest of key (field 1) and value (field 2), each shorter than 128 bytes."""
    return b"\x0a%c%b\x12%c%b" % (len(key), key, len(value), value)
