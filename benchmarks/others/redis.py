"""Redis Streams: XADD with `appendfsync always`, then a wait for one of two replicas, each with `appendfsync always`.

From 7.2 on WAITAOF says that a replica has it on disk. Before, WAIT says only that it has got it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from benchmarks.others.system import (
    PAYLOAD,
    BenchmarkError,
    Measure,
    Result,
    closed_loop,
    servers,
    wait_until,
)
from replicad import eventloop
from replicad.dev import free_ports

_WAIT_MS = 5000


class Redis:
    name = "Redis Streams"

    def missing(self) -> str:
        return "" if shutil.which("redis-server") else "redis-server"

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[Measure]:
        ports = free_ports(3)
        commands = []
        for number, port in enumerate(ports, 1):
            data = folder / str(number)
            data.mkdir()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", ""]
            command += ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]
            commands.append(command if number == 1 else [*command, "--replicaof", f"127.0.0.1 {ports[0]}"])
        wait = (b"WAITAOF", b"1", b"1") if _version() >= (7, 2) else (b"WAIT", b"1")
        request = _command(b"XADD", b"log", b"*", b"payload", PAYLOAD) + _command(*wait, b"%d" % _WAIT_MS)
        with servers(commands, folder):
            wait_until(lambda: _replicas(ports[0]) == 2, "replication of Redis")
            yield lambda callers, seconds: eventloop.run(_measure(ports[0], request, callers, seconds))


def _version() -> tuple[int, ...]:
    told = subprocess.run(["redis-server", "--version"], text=True, capture_output=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0,)


def _replicas(port: int) -> int:
    async def ask() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_command(b"INFO", b"replication"))
        length = int((await reader.readline())[1:])
        text = await reader.readexactly(length)
        writer.close()
        return text.count(b"state=online")

    try:
        return eventloop.run(ask())
    except OSError:
        return 0


async def _measure(port: int, request: bytes, callers: int, seconds: float) -> Result:
    writers: list[asyncio.StreamWriter] = []

    async def caller() -> Callable[[], Awaitable[None]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)

        async def post() -> None:
            writer.write(request)
            for _ in range(2):  # the id: its length, and it
                await reader.readline()
            answer = await reader.readline()
            of_two = answer.startswith(b"*")  # WAITAOF: how many have it on disk, here and there
            answers = [await reader.readline(), await reader.readline()] if of_two else [answer]
            if any(not each.startswith(b":") or int(each[1:]) < 1 for each in answers):
                raise BenchmarkError(f"Redis did not replicate a message: {answers}")

        return post

    try:
        return await closed_loop([await caller() for _ in range(callers)], seconds)
    finally:
        for writer in writers:
            writer.close()


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
